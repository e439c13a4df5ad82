package referrers_test

import (
	"fmt"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/referrers"
)

func TestCascadeAgreesWithItsRules(t *testing.T) {
	for seed := range uint64(1000) {
		checkCascade(t, seed)
	}
}

// checkCascade takes from all that is reached what a rule keeps, one at a time,
// looking at whole records rather than at edges.
func checkCascade(t *testing.T, seed uint64) {
	t.Helper()
	w := random(t, seed)
	o := referrers.CascadeOptions{Children: seed%2 == 0, KeepTagged: seed%3 == 0}
	asked := []digest.Digest{name(0)}
	if seed%5 == 0 {
		asked = append(asked, name(1), name(3), name(0))
	}
	isAsked, going, child := map[digest.Digest]bool{}, map[digest.Digest]bool{}, map[digest.Digest]bool{}
	state := map[digest.Digest]string{}
	for _, d := range asked {
		isAsked[d] = true
	}
	// Reached first as a child or as a referrer, which only tags ask.
	g := &referrers.Graph{Repo: "repo", Manifests: w}
	for _, d := range asked {
		var lines []string
		before := len(state)
		w.walk("", d, "", 0, state, &lines)
		if before == len(state) {
			continue
		}
	}
	for d := range state {
		going[d] = true
	}
	fates, err := g.Cascade(t.Context(), asked, o)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range fates {
		child[f.Digest] = f.Edge == referrers.EdgeChild
	}
	keeps := func(d digest.Digest) bool {
		rec, _ := w.get(d)
		for _, p := range w.all {
			for _, c := range p.Manifests {
				if c == d && (!going[p.Desc.Digest] || !o.Children && !isAsked[d]) {
					return true
				}
			}
		}
		if isAsked[d] {
			return false
		}
		return w.tags[d] != "" && (o.KeepTagged || child[d]) || rec.Subject != "" && !going[rec.Subject]
	}
	for changed := true; changed; {
		changed = false
		for d := range going {
			if keeps(d) {
				delete(going, d)
				changed = true
			}
		}
	}
	if len(fates) != len(state) {
		t.Fatalf("seed %d: %d fates of %d manifests", seed, len(fates), len(state))
	}
	for _, f := range fates {
		_, there := w.get(f.Digest)
		if want := going[f.Digest] && there; f.Goes != want {
			t.Fatalf("seed %d, %+v: %s %s, want %v", seed, o, f.Digest, f, want)
		}
		checkReason(t, seed, w, f, fates, isAsked)
	}
}

// checkReason looks whether the reason is one.
func checkReason(t *testing.T, seed uint64, w *world, f referrers.Fate, fates []referrers.Fate, asked map[digest.Digest]bool) {
	t.Helper()
	goes := map[digest.Digest]bool{}
	for _, f := range fates {
		goes[f.Digest] = f.Goes || f.Reason == referrers.ReasonMissing
	}
	rec, there := w.get(f.Digest)
	by, _ := w.get(f.By)
	lists := false
	for _, c := range by.Manifests {
		lists = lists || c == f.Digest
	}
	ok := map[referrers.Reason]bool{
		referrers.ReasonAsked:   f.Goes && asked[f.Digest],
		referrers.ReasonSubject: f.Goes && rec.Subject == f.By && goes[f.By],
		referrers.ReasonIndex:   f.Goes && lists && goes[f.By],
		referrers.ReasonListed:  !f.Goes && lists && !goes[f.By],
		referrers.ReasonTagged:  !f.Goes && w.tags[f.Digest] != "",
		referrers.ReasonRefers:  !f.Goes && rec.Subject == f.By,
		referrers.ReasonChild:   !f.Goes && lists && goes[f.By],
		referrers.ReasonMissing: !f.Goes && !there,
	}[f.Reason]
	if !ok {
		t.Fatalf("seed %d: %s: reason %q by %s is none", seed, f.Digest, f.Reason, f.By)
	}
}

func TestCascade(t *testing.T) {
	s, index, sbom := signed()
	g := &referrers.Graph{Repo: "team/app", Manifests: s}
	fates := func(o referrers.CascadeOptions, asked ...ocispec.Descriptor) (goes, stays int, told string) {
		var dgsts []digest.Digest
		for _, d := range asked {
			dgsts = append(dgsts, d.Digest)
		}
		list, err := g.Cascade(t.Context(), dgsts, o)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range list {
			if f.Goes {
				goes++
			} else {
				stays++
				told += f.String() + "\n"
			}
		}
		return goes, stays, told
	}
	check := func(what string, wantGoes, wantStays int, o referrers.CascadeOptions, asked ...ocispec.Descriptor) {
		t.Helper()
		if goes, stays, told := fates(o, asked...); goes != wantGoes || stays != wantStays {
			t.Errorf("%s: %d go and %d stay, want %d and %d\n%s", what, goes, stays, wantGoes, wantStays, told)
		}
	}
	check("nothing", 0, 0, referrers.CascadeOptions{})
	check("an index as ECR does", 3, 4, referrers.CascadeOptions{}, index)
	check("an index with its children", 7, 0, referrers.CascadeOptions{Children: true}, index)
	check("an SBOM", 2, 0, referrers.CascadeOptions{}, sbom)
	amd64 := ocispec.Descriptor{Digest: s.image("amd64").Digest}
	check("a platform of an index", 0, 3, referrers.CascadeOptions{}, amd64)
	check("a platform and its index", 6, 1, referrers.CascadeOptions{}, amd64, index)
	s.tag("sbom", sbom)
	check("a tagged referrer goes", 7, 0, referrers.CascadeOptions{Children: true}, index)
	check("unless it is to stay, and its own with it", 5, 2, referrers.CascadeOptions{Children: true, KeepTagged: true}, index)
	other := s.put(manifest.IndexDraft{Manifests: []ocispec.Descriptor{s.image("amd64")}}.Build())
	check("a child that another index lists", 4, 3, referrers.CascadeOptions{Children: true}, index)
	check("both indexes", 8, 0, referrers.CascadeOptions{Children: true}, index, other)
	if _, _, told := fates(referrers.CascadeOptions{}, amd64); told == "" {
		t.Error("nothing is told of what stays")
	}
	list, err := g.Cascade(t.Context(), []digest.Digest{amd64.Digest}, referrers.CascadeOptions{})
	if err != nil || list[0].Reason != referrers.ReasonListed || fmt.Sprint(list[0]) == "" {
		t.Errorf("%v, %v", list, err)
	}
}
