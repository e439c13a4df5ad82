package scan

import (
	"errors"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func wildcards(filters ...string) (out []Filter) {
	for _, f := range filters {
		out = append(out, Filter{f, FilterWildcard})
	}
	return out
}

func TestConfigurationsAreChecked(t *testing.T) {
	for name, c := range map[string]struct {
		config  Configuration
		pointer string
	}{
		"zero":                {},
		"basic":               {Configuration{"", []Rule{{OnPush, wildcards("*", "a/b")}, {Manual, nil}}}, ""},
		"enhanced":            {Configuration{Enhanced, []Rule{{OnPush, wildcards("*")}, {Continuous, wildcards("prod*")}}}, ""},
		"type":                {Configuration{Type: "basic"}, "/scanType"},
		"three rules":         {Configuration{Rules: make([]Rule, 3)}, "/rules"},
		"continuous basic":    {Configuration{Basic, []Rule{{OnPush, nil}, {Continuous, nil}}}, "/rules/1/scanFrequency"},
		"manual enhanced":     {Configuration{Enhanced, []Rule{{Manual, nil}}}, "/rules/0/scanFrequency"},
		"no frequency":        {Configuration{Rules: []Rule{{}}}, "/rules/0/scanFrequency"},
		"101 filters":         {Configuration{Rules: []Rule{{OnPush, slices.Repeat(wildcards("a"), 101)}}}, "/rules/0/repositoryFilters"},
		"filter type":         {Configuration{Rules: []Rule{{OnPush, []Filter{{"a", ""}}}}}, "/rules/0/repositoryFilters/0/filterType"},
		"filter":              {Configuration{Rules: []Rule{{OnPush, wildcards("a", "a--b")}}}, "/rules/0/repositoryFilters/1/filter"},
		"a filter of 256":     {Configuration{Rules: []Rule{{OnPush, wildcards(strings.Repeat("a", 256))}}}, "/rules/0/repositoryFilters/0/filter"},
		"a filter of nothing": {Configuration{Rules: []Rule{{OnPush, wildcards("")}}}, "/rules/0/repositoryFilters/0/filter"},
	} {
		err := c.config.Check()
		e, ok := errors.AsType[*ConfigError](err)
		if (err == nil) != (c.pointer == "") || ok && (e.Pointer != c.pointer || !errors.Is(err, ErrInvalid)) {
			t.Errorf("%s: %v, want a fault at %q", name, err, c.pointer)
		}
	}
}

func TestFrequencyNamesTheFiltersThatDecide(t *testing.T) {
	c := Configuration{Enhanced, []Rule{{OnPush, wildcards("*", "x")}, {Continuous, wildcards("prod", "*-api", "no")}}}
	for repo, want := range map[string]struct {
		f       Frequency
		applied []Filter
	}{
		"prod-api": {Continuous, wildcards("prod", "*-api")},
		"box":      {OnPush, wildcards("*", "x")},
	} {
		if f, applied := c.Frequency(repo); f != want.f || !slices.Equal(applied, want.applied) {
			t.Errorf("%s: %s by %v", repo, f, applied)
		}
	}
}

var publishedFilter = regexp.MustCompile(`\A[a-z0-9*](?:[._\-/a-z0-9*]?[a-z0-9*]+)*\z`)

func FuzzFilter(f *testing.F) {
	for _, s := range [][2]string{{"prod", "prod"}, {"*", "a/b"}, {"a*b*a", "aba"}, {"a*a", "a"}, {"**", ""}, {"a*", "ba"}, {"a.b", "axb"}, {"a--b", "a--b"}, {"*a*b", "ab/ab"}} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, filter, repo string) {
		if got, want := validFilter(filter), len(filter) <= MaxFilterLength && publishedFilter.MatchString(filter); got != want {
			t.Errorf("filter %q is valid: %v, the pattern says %v", filter, got, want)
		}
		if len(filter) > 64 {
			return
		}
		// (?s) for newlines; no name has one.
		pattern := `(?s)\A` + strings.ReplaceAll(regexp.QuoteMeta(filter), `\*`, `.*`) + `\z`
		if !strings.Contains(filter, "*") {
			pattern = regexp.QuoteMeta(filter)
		}
		second, err := regexp.Compile(pattern)
		if err != nil || !strings.Contains(filter, "*") && filter == "" {
			return
		}
		if !isASCII(filter) || !isASCII(repo) {
			return // a regexp reads characters
		}
		if got, want := (Filter{filter, FilterWildcard}).Match(repo), second.MatchString(repo); got != want {
			t.Errorf("%q matches %q: %v, the regexp says %v", filter, repo, got, want)
		}
	})
}

func isASCII(s string) bool { return !strings.ContainsFunc(s, func(r rune) bool { return r >= 0x80 }) }

func TestResultsAreReadAsWritten(t *testing.T) {
	image := digest.FromString("image")
	want := Result{
		Repo: "a", Image: image, Digest: digest.FromString("r"), Status: StatusActive, Description: "d",
		CompletedAt: time.Date(2026, 1, 1, 12, 0, 0, 5e6, time.UTC), SourceUpdatedAt: time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC),
		Counts: map[Severity]int{Critical: 1, Low: 22, Undefined: 3},
	}
	desc := ocispec.Descriptor{ArtifactType: ArtifactType, Digest: want.Digest, Annotations: want.annotations()}
	if text := desc.Annotations[annotationCounts]; text != "CRITICAL=1,LOW=22,UNDEFINED=3" {
		t.Error(text)
	}
	got, ok := ResultOf("a", image, desc)
	if !ok || !got.CompletedAt.Equal(want.CompletedAt) || !got.SourceUpdatedAt.Equal(want.SourceUpdatedAt) || got.Counts[Low] != 22 || len(got.Counts) != 3 || got.Status != want.Status || got.Description != "d" || got.Digest != want.Digest {
		t.Errorf("%+v, %v", got, ok)
	}
	for key, bad := range map[string]string{
		annotationStatus: "", annotationCompleted: "yesterday", annotationSource: "x", annotationCounts: "LOW=1,CRITICAL=1",
	} {
		desc.Annotations = want.annotations()
		desc.Annotations[key] = bad
		if _, ok := ResultOf("a", image, desc); ok {
			t.Errorf("%s: %q is taken", key, bad)
		}
	}
	for _, bad := range []string{"LOW=0", "LOW=-1", "LOW=x", "LOW", "x", "LOW=99999999999"} {
		desc.Annotations = want.annotations()
		desc.Annotations[annotationCounts] = bad
		if _, ok := ResultOf("a", image, desc); ok {
			t.Errorf("counts %q are taken", bad)
		}
	}
	desc.Annotations, desc.ArtifactType = want.annotations(), "a/b"
	if _, ok := ResultOf("a", image, desc); ok {
		t.Error("a referrer of another type is taken")
	}
}
