package repository

import (
	"errors"
	"regexp"
	"strings"
	"testing"

	"github.com/wharfage/wharfage/manifest"
)

// published is the pattern of ECR's API model, whole.
var published = regexp.MustCompile(`\A[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*\z`)

func FuzzNames(f *testing.F) {
	for _, s := range []string{"a", "ab", "a/b", "a//b", "a--b", "a___b", "a_.b", "a/-b", "a-/b", "app\n", "../etc", "a/", "/a", "A", "é", strings.Repeat("a", 256), strings.Repeat("a", 257)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		err := ECRNames.Check(s)
		if want := len(s) >= 2 && len(s) <= 256 && published.MatchString(s); (err == nil) != want {
			t.Errorf("Check(%q) = %v, the pattern says %v", s, err, want)
		}
		if a, b := (Names{}).Check(s), manifest.CheckRepository(s); (a == nil) != (b == nil) {
			t.Errorf("Check(%q) = %v, manifest.CheckRepository %v", s, a, b)
		}
		if e, ok := errors.AsType[*NameError](err); ok && (e.At < 0 || e.At > len(s) || !errors.Is(err, manifest.ErrName)) {
			t.Errorf("Check(%q) = %#v", s, e)
		}
	})
}

// FuzzForCreation compares with the rule as one would say it.
func FuzzForCreation(f *testing.F) {
	f.Add("prod", "prod/a", "prod/api/x")
	f.Add("prod/", "ROOT", "prod")
	f.Add("a", "ROOT", "a/b")
	f.Fuzz(func(t *testing.T, p, q, name string) {
		templates := []Template{{Prefix: p, AppliedFor: []Cause{CausePush}}, {Prefix: q, AppliedFor: []Cause{CausePush, CauseCache}}}
		if CheckTemplates(templates) != nil || (Names{}).Check(name) != nil {
			return
		}
		want := ""
		for _, prefix := range []string{p, q} {
			slashed := strings.TrimSuffix(prefix, "/") + "/"
			if prefix == Root && want == "" || prefix != Root && strings.HasPrefix(name, slashed) && (want == Root || len(slashed) > len(strings.TrimSuffix(want, "/"))) {
				want = prefix
			}
		}
		got, create := ForCreation(templates, name, CausePush)
		if create != (want != "") || (got == nil) != (want == "") || got != nil && got.Prefix != want {
			t.Errorf("%q of %q, %q: %+v, want %q", name, p, q, got, want)
		}
	})
}
