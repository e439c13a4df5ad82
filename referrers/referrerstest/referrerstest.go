// Package referrerstest checks that a [referrers.Index] agrees with the
// manifests it is derived from. An index's test is a few lines:
//
//	referrerstest.TestIndex(t, func(t testing.TB) (manifest.Store, referrers.Index) {
//		s := open(t)
//		return s, s
//	})
package referrerstest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/referrers"
)

// TestIndex checks an index. open returns an empty store and the index of what
// is in it. Each subtest is named by the sentence it checks, and has a store
// of its own.
func TestIndex(t *testing.T, open func(t testing.TB) (manifest.Store, referrers.Index)) {
	for _, c := range clauses {
		t.Run(c.name, func(t *testing.T) {
			s, x := open(t)
			c.check(&kit{T: t, s: s, x: x})
		})
	}
}

type kit struct {
	*testing.T
	s manifest.Store
	x referrers.Index
}

const repo, otherRepo = "team/app", "team/app2"

const (
	subject      digest.Digest = "sha256:0000000000000000000000000000000000000000000000000000000000000000"
	nextSubject  digest.Digest = "sha256:0000000000000000000000000000000000000000000000000000000000000001"
	otherSubject digest.Digest = "multihash+base58:QmRZxt2b1FVZPNqd8hsiykDL3TdBDeTSPX9Kv46HmX4Gx8"
)

// referrer returns a manifest of a subject, which may be "". Its bytes are no
// more than a name: stores do not read them.
func referrer(name string, subject digest.Digest, typ string) manifest.Record {
	raw := []byte(`{"name":"` + name + `"}`)
	alg := digest.SHA256
	if len(name)%4 == 3 {
		alg = digest.SHA512
	}
	return manifest.Record{
		Desc: ocispec.Descriptor{
			MediaType: manifest.MediaTypeImage, Digest: manifest.Digest(alg, raw), Size: int64(len(raw)),
			ArtifactType: typ, Annotations: map[string]string{"org.example.name": name, "org.example.empty": ""},
		},
		Raw: raw, Subject: subject,
	}
}

func (k *kit) apply(repo string, c manifest.Change) {
	k.Helper()
	if err := k.s.Apply(k.Context(), repo, c); err != nil {
		k.Fatalf("Apply: %v", err)
	}
}

// list returns a line for each entry.
func (k *kit) list(x referrers.Index, repo string, subject digest.Digest, typ string, after digest.Digest) []string {
	k.Helper()
	out := []string{}
	for d, err := range x.Referrers(k.Context(), repo, subject, typ, after) {
		if err != nil {
			k.Fatalf("Referrers(%s, %s, %q, %q): %v", repo, subject, typ, after, err)
		}
		out = append(out, line(d))
	}
	return out
}

func line(d ocispec.Descriptor) string {
	return fmt.Sprintf("%s %s %d %q %q", d.Digest, d.MediaType, d.Size, d.ArtifactType, d.Annotations)
}

// agree fails the test unless the index lists what Scan does.
func (k *kit) agree(when, repo string, subject digest.Digest, typ string, after digest.Digest) {
	k.Helper()
	got, want := k.list(k.x, repo, subject, typ, after), k.list(referrers.Scan(k.s), repo, subject, typ, after)
	if !slices.Equal(got, want) {
		k.Fatalf("%s: referrers in %s of %s, type %q, after %q, are\n\t%s\nwant\n\t%s",
			when, repo, subject, typ, after, strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

var clauses = []struct {
	name  string
	check func(*kit)
}{
	{"it equals Scan after any changes", func(k *kit) {
		for seed := range uint64(6) {
			k.random(seed)
		}
	}},
	{"entries are complete and in byte order, after the given one", func(k *kit) {
		var want []string
		var keys []digest.Digest
		var c manifest.Change
		for i := range 600 {
			rec := referrer(fmt.Sprint(i), subject, "a/b")
			c.Put = append(c.Put, rec)
			want = append(want, line(rec.Desc))
			keys = append(keys, rec.Desc.Digest)
		}
		k.apply(repo, c)
		slices.Sort(want)
		slices.Sort(keys)
		for _, typ := range []string{"", "a/b"} {
			if got := k.list(k.x, repo, subject, typ, ""); !slices.Equal(got, want) {
				k.Fatalf("type %q: lists\n\t%s\nwant\n\t%s", typ, strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
			}
			for _, i := range []int{0, 1, 255, 256, 598, 599} {
				for _, after := range []digest.Digest{keys[i], keys[i] + "-"} { // no manifest has the latter
					if got := k.list(k.x, repo, subject, typ, after); !slices.Equal(got, want[i+1:]) {
						k.Errorf("type %q: %d entries after %s, want %d", typ, len(got), after, len(want)-i-1)
					}
				}
			}
		}
	}},
	{"a type lists those of exactly that type", func(k *kit) {
		types := []string{"a/b", "a/bc", "A/b", "a/a", ""}
		var c manifest.Change
		for i := range 20 {
			c.Put = append(c.Put, referrer(fmt.Sprint(i), subject, types[i%len(types)]))
		}
		k.apply(repo, c)
		for _, typ := range append(types, "a/", "a", "b", "*", "a/_") {
			k.agree("with types "+strings.Join(types, " "), repo, subject, typ, "")
		}
	}},
	{"a subject needs not exist, and its coming and going changes nothing", func(k *kit) {
		sub := referrer("subject", "", "")
		rec := referrer("1", sub.Desc.Digest, "a/b")
		want := []string{line(rec.Desc)}
		for _, step := range []struct {
			when string
			c    manifest.Change
		}{
			{"before the subject", manifest.Change{Put: []manifest.Record{rec}}},
			{"with the subject", manifest.Change{Put: []manifest.Record{sub}}},
			{"after the subject", manifest.Change{Delete: []manifest.Removal{{Digest: sub.Desc.Digest}}}},
		} {
			k.apply(repo, step.c)
			if got := k.list(k.x, repo, sub.Desc.Digest, "", ""); !slices.Equal(got, want) {
				k.Errorf("%s: lists %q, want %q", step.when, got, want)
			}
		}
		for _, repo := range []string{repo, otherRepo} {
			if got := k.list(k.x, repo, nextSubject, "", ""); len(got) != 0 {
				k.Errorf("lists %q in %s of a subject that nothing names", got, repo)
			}
		}
	}},
	{"a removed manifest is off the list at once, an untagged one stays", func(k *kit) {
		one, two := referrer("1", subject, "a/b"), referrer("2", subject, "a/b")
		k.apply(repo, manifest.Change{Put: []manifest.Record{one, two}, Tags: []manifest.TagMove{{Name: "t", To: one.Desc.Digest}}})
		k.apply(otherRepo, manifest.Change{Put: []manifest.Record{one}})
		k.apply(repo, manifest.Change{Tags: []manifest.TagMove{{Name: "t"}}})
		if got := k.list(k.x, repo, subject, "", ""); len(got) != 2 {
			k.Errorf("without its tag: lists %q, want two", got)
		}
		k.apply(repo, manifest.Change{Delete: []manifest.Removal{{Digest: one.Desc.Digest}}})
		if got := k.list(k.x, repo, subject, "", ""); !slices.Equal(got, []string{line(two.Desc)}) {
			k.Errorf("after its removal: lists %q", got)
		}
		if got := k.list(k.x, otherRepo, subject, "", ""); len(got) != 1 {
			k.Errorf("in the other repository: lists %q, want one", got)
		}
	}},
	{"the loop body may call the store", func(k *kit) {
		for i := range 5 {
			k.apply(repo, manifest.Change{Put: []manifest.Record{referrer(fmt.Sprint(i), subject, "a/b")}})
		}
		const patience = 30 * time.Second
		ctx, cancel := context.WithTimeout(k.Context(), patience)
		defer cancel()
		done := make(chan error, 1)
		go func() {
			for d, err := range k.x.Referrers(ctx, repo, subject, "", "") {
				if err == nil {
					err = k.s.Apply(ctx, repo, manifest.Change{
						Put:    []manifest.Record{referrer("more"+string(d.Digest[7:10]), otherSubject, "a/b")},
						Delete: []manifest.Removal{{Digest: d.Digest}},
					})
				}
				if err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
		select {
		case err := <-done:
			if err != nil {
				k.Fatal(err)
			}
		case <-time.After(patience + time.Second):
			k.Fatal("a call in the loop does not return: something is held while the body runs")
		}
		if got := k.list(k.x, repo, subject, "", ""); len(got) != 0 {
			k.Errorf("the body removed all, but %q are listed", got)
		}
	}},
	{"a listing may be left early, and ends in ctx's error", func(k *kit) {
		for i := range 5 {
			k.apply(repo, manifest.Change{Put: []manifest.Record{referrer(fmt.Sprint(i), subject, "a/b")}})
		}
		for range k.x.Referrers(k.Context(), repo, subject, "", "") {
			break
		}
		ctx, cancel := context.WithCancel(k.Context())
		cancel()
		var last error
		for _, err := range k.x.Referrers(ctx, repo, subject, "", "") {
			last = err
		}
		if !errors.Is(last, context.Canceled) {
			k.Errorf("a cancelled listing ends with %v, want context.Canceled", last)
		}
	}},
	{"entries in JSON say the same", func(k *kit) {
		for _, name := range []string{"plain", "\"quoted\\", "<&>\u2028é\x7f\n"} {
			for _, typ := range []string{"", "a/b", "a/b;c=\"d\""} {
				k.apply(repo, manifest.Change{Put: []manifest.Record{referrer(name+typ, subject, typ)}})
			}
		}
		for _, typ := range []string{"", "a/b"} {
			want := k.list(k.x, repo, subject, typ, "")
			got := []string{}
			var last digest.Digest
			for e, err := range referrers.JSON(k.Context(), k.x, repo, subject, typ, "") {
				if err != nil {
					k.Fatal(err)
				}
				var d ocispec.Descriptor
				if err := json.Unmarshal([]byte(e.JSON), &d); err != nil || d.Digest != e.Digest || len(d.Data)+len(d.URLs) != 0 || d.Platform != nil {
					k.Errorf("entry %s is %s: %v", e.Digest, e.JSON, err)
				}
				got, last = append(got, line(d)), e.Digest
			}
			if !slices.Equal(got, want) {
				k.Errorf("type %q: lists\n\t%s\nwant\n\t%s", typ, strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
			}
			for e := range referrers.JSON(k.Context(), k.x, repo, subject, typ, last) {
				k.Errorf("type %q: lists %s after the last", typ, e.Digest)
			}
		}
	}},
	{"entries belong to the caller", func(k *kit) {
		k.apply(repo, manifest.Change{Put: []manifest.Record{referrer("1", subject, "a/b")}})
		want := []string{line(referrer("1", subject, "a/b").Desc)}
		for range 2 {
			for d, err := range k.x.Referrers(k.Context(), repo, subject, "", "") {
				if err != nil {
					k.Fatal(err)
				}
				for key := range d.Annotations {
					d.Annotations[key] = "x"
				}
			}
		}
		if got := k.list(k.x, repo, subject, "", ""); !slices.Equal(got, want) {
			k.Errorf("after an entry was written to: lists %q, want %q", got, want)
		}
	}},
}

// random makes changes from a seed and compares all listings after each few.
func (k *kit) random(seed uint64) {
	k.Helper()
	rnd := rand.New(rand.NewPCG(seed, 0))
	repos := []string{repo + fmt.Sprint(seed), otherRepo + fmt.Sprint(seed)}
	subjects := []digest.Digest{subject, nextSubject, otherSubject, ""}
	types := []string{"", "a/b", "a/bc"}
	var recs []manifest.Record
	for i := range 40 {
		recs = append(recs, referrer(fmt.Sprintf("%d of %d", i, seed), subjects[rnd.IntN(len(subjects))], types[rnd.IntN(len(types))]))
	}
	for step := range 60 {
		in := repos[rnd.IntN(len(repos))]
		var c manifest.Change
		for range 1 + rnd.IntN(3) {
			rec := recs[rnd.IntN(len(recs))]
			if slices.ContainsFunc(c.Put, func(r manifest.Record) bool { return r.Desc.Digest == rec.Desc.Digest }) {
				continue
			}
			c.Put = append(c.Put, rec)
		}
		if rnd.IntN(2) == 0 {
			c.Tags = []manifest.TagMove{{Name: fmt.Sprint("t", rnd.IntN(3)), To: c.Put[0].Desc.Digest}}
		}
		if rec := recs[rnd.IntN(len(recs))]; rnd.IntN(2) == 0 {
			if _, err := k.s.Get(k.Context(), in, rec.Desc.Digest); err == nil {
				c.Delete = []manifest.Removal{{Digest: rec.Desc.Digest}}
			}
		}
		if rnd.IntN(8) == 0 { // refused: must leave no trace
			c.RequireManifests = []digest.Digest{subject}
		}
		if err := k.s.Apply(k.Context(), in, c); err != nil && c.RequireManifests == nil {
			k.Fatalf("seed %d, step %d: Apply: %v", seed, step, err)
		}
		when := fmt.Sprintf("seed %d, step %d", seed, step)
		after := recs[rnd.IntN(len(recs))].Desc.Digest
		for _, in := range repos {
			for _, sub := range subjects[:3] {
				k.agree(when, in, sub, "", "")
				k.agree(when, in, sub, types[rnd.IntN(len(types))], after)
			}
		}
	}
}
