package manifest_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/manifest/manifesttest"
	"github.com/wharfage/wharfage/manifest/memmanifest"
)

// TestVectors has the sets that need a store.
func TestVectors(t *testing.T) {
	mutabilityVectors(t)
	deletionVectors(t)
}

// readSet reads a set of the platform vectors; its README says what the fields
// mean.
func readSet[T any](t *testing.T, name string) []T {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(*manifest.VectorsDir, "platform", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	var set struct{ Cases []T }
	if err := json.Unmarshal(raw, &set); err != nil {
		t.Fatal(err)
	}
	if len(set.Cases) == 0 {
		t.Fatalf("%s has no cases", name)
	}
	return set.Cases
}

type mutabilityCase struct {
	ID, Op, Why        string
	Filter, Tag        string
	Valid, Match       bool
	Reason             string
	ImageTagMutability manifest.TagMode
	Exclusions         json.RawMessage `json:"imageTagMutabilityExclusionFilters"`

	API      string
	Filters  []string
	Existing map[string]digest.Digest
	Push     struct {
		Tag    *string
		Digest digest.Digest
	}
	Outcome, Error string
}

func mutabilityVectors(t *testing.T) {
	for _, c := range readSet[mutabilityCase](t, "tag-mutability") {
		t.Run("tag-mutability/"+c.ID, func(t *testing.T) {
			switch c.Op {
			case "filter_valid":
				c.valid(t, manifest.TagMutability{Mode: manifest.ImmutableWithExclusion, Filters: []string{c.Filter}}.Check())
			case "match":
				m := manifest.TagMutability{Mode: manifest.MutableWithExclusion, Filters: []string{c.Filter}}
				if got := m.Immutable(c.Tag); got != c.Match {
					t.Errorf("%q matches %q: %t; %s", c.Filter, c.Tag, got, c.Why)
				}
			case "setting_valid":
				text := `{"imageTagMutability":` + fmt.Sprintf("%q", c.ImageTagMutability)
				if c.Exclusions != nil {
					text += `,"imageTagMutabilityExclusionFilters":` + string(c.Exclusions)
				}
				var m manifest.TagMutability
				c.valid(t, json.Unmarshal([]byte(text+"}"), &m))
			case "push":
				c.push(t)
			default:
				t.Fatalf("op %s is not known here", c.Op)
			}
		})
	}
}

func (c *mutabilityCase) valid(t *testing.T, err error) {
	t.Helper()
	if (err == nil) != c.Valid {
		t.Fatalf("err = %v; %s", err, c.Why)
	}
	if err == nil {
		return
	}
	invalid, ok := errors.AsType[*manifest.InvalidError](err)
	if !ok {
		t.Fatalf("%v is no *InvalidError", err)
	}
	if c.Reason == "" {
		return
	}
	f := invalid.Fields[0]
	list, field := filepath.Base(f.Pointer) == "imageTagMutabilityExclusionFilters", filepath.Base(f.Pointer)
	var want bool
	switch c.Reason {
	case "empty":
		want = f.Rule == manifest.RuleRequired && field == "filter"
	case "filters_required":
		want = f.Rule == manifest.RuleRequired && list
	case "missing_field":
		want = f.Rule == manifest.RuleRequired && !list
	case "invalid_chars":
		want = f.Rule == manifest.RuleTagFilter
	case "too_long":
		want = f.Rule == manifest.RuleTooLong
	case "too_many_wildcards":
		want = f.Rule == manifest.RuleWildcards
	case "too_many_filters":
		want = f.Rule == manifest.RuleTooMany
	case "filters_not_allowed":
		want = f.Rule == manifest.RuleExclusion
	default: // of a mode, or of filterType
		want = f.Rule == manifest.RuleTagMode || field == "filterType"
	}
	if !want {
		t.Errorf("refused for %s at %s, not for %s", f.Rule, f.Pointer, c.Reason)
	}
}

// push stores documents of our own in place of the made-up digests.
func (c *mutabilityCase) push(t *testing.T) {
	ctx := t.Context()
	m := manifest.TagMutability{Mode: c.ImageTagMutability, Filters: c.Filters}
	p := &manifest.Pusher{Store: new(memmanifest.Store)}
	var events []manifest.Event
	document := func(d digest.Digest) []byte {
		raw, _, err := manifest.IndexDraft{Annotations: map[string]string{"of": string(d)}}.Build()
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	for tag, d := range c.Existing {
		if _, err := p.Push(ctx, "r", manifest.PushRequest{Raw: document(d), Tags: []string{tag}}); err != nil {
			t.Fatal(err)
		}
	}
	before := contents(t, p.Store)
	p.MoveTag = m.MoveTag
	p.OnCommit = func(_ context.Context, e manifest.Event) { events = append(events, e) }
	in := manifest.PushRequest{Raw: document(c.Push.Digest), New: c.API == "aws"}
	if c.Push.Tag != nil {
		in.Tags = []string{*c.Push.Tag}
	}
	done, err := p.Push(ctx, "r", in)
	after := contents(t, p.Store)
	moved := slices.ContainsFunc(events, func(e manifest.Event) bool {
		return slices.ContainsFunc(e.Change.Tags, func(move manifest.TagMove) bool { return move.From != manifest.Absent && move.From != move.To })
	})
	outcome := "created"
	switch {
	case err != nil:
		outcome = "rejected"
	case before == after:
		outcome = "noop"
	case moved:
		outcome = "tag_moved"
	}
	if outcome != c.Outcome {
		t.Fatalf("%s, not %s: %v; %s", outcome, c.Outcome, err, c.Why)
	}
	if err != nil {
		if before != after {
			t.Error("what is refused has left something")
		}
		if name := manifest.ExceptionName(err); name != c.Error {
			t.Errorf("%s, not %s: %v", name, c.Error, err)
		}
		return
	}
	for _, tag := range in.Tags {
		if at, err := p.Store.Resolve(ctx, "r", tag); err != nil || at.Digest != done.Record.Desc.Digest {
			t.Errorf("%s is at %s, %v", tag, at.Digest, err)
		}
	}
}

// contents shows what is in a repository, without times.
func contents(t *testing.T, s manifest.Store) string {
	t.Helper()
	var b strings.Builder
	for rec, err := range s.Manifests(t.Context(), "r", "") {
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(&b, rec.Desc.Digest)
	}
	for tag, err := range s.Tags(t.Context(), "r", "") {
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(&b, tag.Name, tag.Digest)
	}
	return b.String()
}

// TestFilterMatchesAsARegexp: a filter matches what the regular expression of the
// same meaning does.
func TestFilterMatchesAsARegexp(t *testing.T) {
	var texts []string
	for n := range 6 {
		for i := range pow(3, n) {
			var b strings.Builder
			for range n {
				b.WriteByte("ab."[i%3])
				i /= 3
			}
			texts = append(texts, b.String())
		}
	}
	filters := slices.Clone(texts[1:100])
	for _, f := range texts[:40] {
		for i := range len(f) + 1 {
			filters = append(filters, f[:i]+"*"+f[i:])
			for j := i; j <= len(f); j++ {
				filters = append(filters, f[:i]+"*"+f[i:j]+"*"+f[j:])
			}
		}
	}
	for _, f := range filters {
		m := manifest.TagMutability{Mode: manifest.MutableWithExclusion, Filters: []string{f}}
		if err := m.Check(); err != nil {
			t.Fatal(err)
		}
		re := regexp.MustCompile("^(?:" + strings.ReplaceAll(regexp.QuoteMeta(f), `\*`, ".*") + ")$")
		for _, tag := range texts {
			if got, want := m.Immutable(tag), re.MatchString(tag); got != want {
				t.Fatalf("%q matches %q: %t", f, tag, got)
			}
		}
	}
}

func pow(b, n int) int {
	out := 1
	for range n {
		out *= b
	}
	return out
}

func TestTagMutabilityAsJSON(t *testing.T) {
	for _, m := range []manifest.TagMutability{{Mode: manifest.Immutable}, {Mode: manifest.MutableWithExclusion, Filters: []string{"v*", "latest"}}, {Mode: manifest.Mutable}} {
		text, err := json.Marshal(m)
		var got manifest.TagMutability
		if err == nil {
			err = json.Unmarshal(text, &got)
		}
		if err != nil || got.Mode != m.Mode || !slices.Equal(got.Filters, m.Filters) {
			t.Errorf("%+v is %s, and that is %+v, %v", m, text, got, err)
		}
	}
	if text, _ := json.Marshal(manifest.TagMutability{}); string(text) != `{"imageTagMutability":"MUTABLE"}` {
		t.Errorf("the zero value is %s", text)
	}
}

// raceRounds is long with -race-rounds 1000.
var raceRounds = flag.Int("race-rounds", 50, "rounds of racing writers")

func TestImmutableTagsDoNotMoveUnderRace(t *testing.T) {
	manifesttest.TestImmutableTags(t, new(memmanifest.Store), *raceRounds)
}

// TestNewRefusesWhatIsThere: with New, of writers that push the same one succeeds.
func TestNewRefusesWhatIsThere(t *testing.T) {
	p := &manifest.Pusher{Store: new(memmanifest.Store)}
	raw, _, _ := manifest.IndexDraft{}.Build()
	push := func(tags ...string) error {
		_, err := p.Push(t.Context(), "r", manifest.PushRequest{Raw: raw, Tags: tags, New: true})
		return err
	}
	for _, c := range []struct {
		tags []string
		want error
	}{{nil, nil}, {nil, manifest.ErrUnchanged}, {[]string{"a"}, nil}, {[]string{"a"}, manifest.ErrUnchanged}, {[]string{"a", "b"}, nil}, {[]string{"b", "a"}, manifest.ErrUnchanged}} {
		if err := push(c.tags...); !errors.Is(err, c.want) {
			t.Errorf("push of %q: %v, want %v", c.tags, err, c.want)
		}
	}
	for round := range 20 {
		var all sync.WaitGroup
		start, won := make(chan bool), make(chan bool, 8)
		for range 8 {
			all.Go(func() {
				<-start
				if err := push(fmt.Sprint("race", round)); err == nil {
					won <- true
				} else if !errors.Is(err, manifest.ErrUnchanged) {
					t.Error(err)
				}
			})
		}
		close(start)
		all.Wait()
		if len(won) != 1 {
			t.Fatalf("%d succeed", len(won))
		}
	}
}

func ExampleTagMutability() {
	var m manifest.TagMutability
	err := json.Unmarshal([]byte(`{
		"imageTagMutability": "IMMUTABLE_WITH_EXCLUSION",
		"imageTagMutabilityExclusionFilters": [{"filterType": "WILDCARD", "filter": "dev-*"}]
	}`), &m)
	fmt.Println(err, m.Immutable("v1"), m.Immutable("dev-1"))

	ctx := context.Background()
	p := manifest.Pusher{Store: new(memmanifest.Store), MoveTag: m.MoveTag}
	for _, build := range []string{"1", "1", "2"} {
		raw, _, _ := manifest.IndexDraft{Annotations: map[string]string{"build": build}}.Build()
		_, err := p.Push(ctx, "team/app", manifest.PushRequest{Raw: raw, Tags: []string{"v1"}})
		if err != nil {
			fmt.Println(manifest.ExceptionName(err))
			fmt.Println(err)
		}
	}
	// Output:
	// <nil> true false
	// ImageTagAlreadyExistsException
	// push v1 in team/app: tag v1: refused: the tag v1 exists in the repository team/app and cannot be overwritten because it is immutable
}

func ExampleTagMutability_Check() {
	m := manifest.TagMutability{Mode: manifest.Immutable, Filters: []string{"v1.?"}}
	fmt.Println(m.Check())
	// Output: /imageTagMutabilityExclusionFilters: is for modes with an exclusion only (is 1); /imageTagMutabilityExclusionFilters/0/filter: takes letters, digits, . _ - and * (is "v1.?")
}

var day = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
