package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const (
	keepOne  = `{"rules":[{"rulePriority":1,"selection":{"tagStatus":"any","countType":"imageCountMoreThan","countNumber":1},"action":{"type":"expire"}}]}`
	keepNone = `{"rules":[{"rulePriority":1,"selection":{"tagStatus":"any","countType":"imageCountMoreThan","countNumber":0},"action":{"type":"expire"}}]}`
)

func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	file := filepath.Join(dir, name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestPoliciesAreForPatterns(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "one.json", keepOne)
	list, err := readPolicies(write(t, dir, "all.json", `{"policies":[
		{"repositories":["prod/*/app","base"],"file":"one.json"},
		{"repositories":["pr*"],"policy":`+strings.Replace(keepOne, ":1}", ":2}", 1)+`}]}`))
	if err != nil {
		t.Fatal(err)
	}
	for repo, want := range map[string]int64{"prod/a/b/app": 1, "base": 1, "base/x": 0, "prod/app": 2, "pr": 2, "prod//app": 1, "x/prod/a/app": 0} {
		got := int64(0)
		if p := list.of(repo); p != nil {
			got = p.Rules()[0].Selection.CountNumber
		}
		if got != want {
			t.Errorf("%s: keeps %d, want %d", repo, got, want)
		}
	}
	if list, err = readPolicies(filepath.Join(dir, "one.json")); err != nil || list.of("any/thing") == nil {
		t.Errorf("a policy alone is for all repositories: %v", err)
	}
}

func TestMatches(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"*", "", true}, {"*", "a/b", true}, {"a", "a", true}, {"a", "ab", false}, {"a*a", "a", false}, {"a*a", "aa", true},
		{"*b*", "abc", true}, {"*b*c*", "acb", false}, {"a**c", "abc", true}, {"*ab", "aab", true}, {"a*b*b", "ab", false},
	} {
		if got := matches(c.pattern, c.name); got != c.want {
			t.Errorf("matches(%q, %q) is %v", c.pattern, c.name, got)
		}
	}
}

// Nothing is done by a file of which anything is wrong, and the error says where.
func TestPoliciesAreReadStrictly(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "bad.json", keepNone)
	for text, want := range map[string]string{
		``:              "document",
		`[]`:            "it is to be a lifecycle policy, or to have a list of policies",
		`{}`:            "rules is required",
		keepNone:        "/rules/0/selection/countNumber",
		`{"policies":1`: "document",
		`{"policies":[{"repositories":["*"],"polcy":{}}]}`:                          `/policies/0: unknown field "polcy"`,
		`{"policies":[{"repositories":["*"],"policy":` + keepOne + `}],"rules":[]}`: `/: unknown field "rules"`,
		`{"policies":[{"policy":` + keepOne + `}]}`:                                 "/policies/0: repositories are to be patterns",
		`{"policies":[{"repositories":[""],"policy":` + keepOne + `}]}`:             "/policies/0: repositories are to be patterns",
		`{"policies":[{"repositories":["*"]}]}`:                                     "/policies/0: it is to have a file or a policy",
		`{"policies":[{"repositories":["*"],"file":"x","policy":` + keepOne + `}]}`: "and not both",
		`{"policies":[{"repositories":["*"],"policy":` + keepNone + `}]}`:           "/policies/0: invalid lifecycle policy: /rules/0/selection/countNumber",
		`{"policies":[{"repositories":["*"],"file":"bad.json"}]}`:                   "/policies/0: bad.json: invalid lifecycle policy: /rules/0/selection/countNumber",
		`{"policies":[{"repositories":["*"],"file":"none.json"}]}`:                  "none.json",
	} {
		_, err := readPolicies(write(t, dir, "all.json", text))
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "all.json") {
			t.Errorf("%s: %v, want an error that says %q", text, err, want)
		}
	}
	if _, err := readPolicies(filepath.Join(dir, "none")); !os.IsNotExist(err) {
		t.Errorf("a file that is not there: %v", err)
	}
}
