package manifesttest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/wharfage/wharfage/manifest"
)

// oddTags sort differently by bytes, by case and by any language's rules.
var oddTags = []string{"a", "A", "Z", "z", "1", "10", "2", "_", "__", "a-", "a.", "a_", "a0", "aA", "aa", "B", "b", "1.0", "1-0", "1_0"}

var listClauses = []clause{
	{"tags are listed in byte order, after the given one", func(k *kit) {
		rec := image("1")
		c := manifest.Change{Put: []manifest.Record{rec}, At: day1}
		for _, name := range oddTags {
			c.Tags = append(c.Tags, manifest.TagMove{Name: name, To: rec.Desc.Digest})
		}
		k.apply(c)
		want := slices.Sorted(slices.Values(oddTags))
		for _, after := range append([]string{"", "0", "1-", "A0", "a!", "~", "a-0", "zz"}, oddTags...) {
			from := slices.IndexFunc(want, func(s string) bool { return s > after })
			if from < 0 {
				from = len(want)
			}
			if got := k.tags(repo, after); !slices.Equal(got, want[from:]) {
				k.Errorf("Tags after %q is %q, want %q", after, got, want[from:])
			}
		}
		for t, err := range k.s.Tags(k.Context(), repo, "") {
			if err != nil || t.Digest != rec.Desc.Digest || !t.MovedAt.Equal(day1) {
				k.Errorf("Tags yields %+v, %v, want %s since %v", t, err, rec.Desc.Digest, day1)
			}
		}
	}},
	{"manifests are listed in byte order of the digest, after the given one, without Raw", func(k *kit) {
		var recs []manifest.Record
		for i := range 12 {
			rec := doc{name: fmt.Sprint(i), sha512: i%3 == 0, subject: absentSubject}.record()
			recs = append(recs, rec)
		}
		k.put(recs...)
		slices.SortFunc(recs, func(a, b manifest.Record) int { return cmp.Compare(a.Desc.Digest, b.Desc.Digest) })
		got := collect(k, "Manifests", k.s.Manifests(k.Context(), repo, ""))
		if len(got) != len(recs) {
			k.Fatalf("lists %d manifests, want %d", len(got), len(recs))
		}
		for i, want := range recs {
			want.Raw, want.PushedAt, want.TouchedAt = nil, day1, day1
			if d := diff(got[i], want); d != "" {
				k.Errorf("manifest %d: %s", i, d)
			}
			if got[i].Raw != nil {
				k.Errorf("manifest %d has Raw", i)
			}
			after := want.Desc.Digest
			if got := k.manifests(repo, after); !slices.Equal(got, digests(recs[i+1:]...)) {
				k.Errorf("Manifests after %s is %q", after, got)
			}
			before := after[:len(after)-1] // which is no digest of anything here
			if got := k.manifests(repo, before); !slices.Equal(got, digests(recs[i:]...)) {
				k.Errorf("Manifests after %s is %q", before, got)
			}
		}
	}},
	{"a long listing is whole", func(k *kit) {
		const n = 1100
		c := manifest.Change{At: day1}
		for i := range n {
			rec := image(fmt.Sprint(i))
			c.Put = append(c.Put, rec)
			c.Tags = append(c.Tags, manifest.TagMove{Name: fmt.Sprintf("v%d", i), To: rec.Desc.Digest})
		}
		k.apply(c)
		if got := k.tags(repo, ""); len(got) != n || !increasing(got) {
			k.Errorf("Tags lists %d in order %t, want %d in order", len(got), increasing(got), n)
		}
		if got := k.manifests(repo, ""); len(got) != n || !increasing(got) {
			k.Errorf("Manifests lists %d in order %t, want %d in order", len(got), increasing(got), n)
		}
	}},
	{"a listing may be left early", func(k *kit) {
		k.some(5)
		for range 3 {
			for range k.s.Tags(k.Context(), repo, "") {
				break
			}
			for range k.s.Manifests(k.Context(), repo, "") {
				break
			}
		}
		k.put(image("later"))
		if got := k.tags(repo, ""); len(got) != 5 {
			k.Errorf("Tags lists %d, want 5", len(got))
		}
	}},
	{"the loop body may call the store", func(k *kit) {
		k.some(5)
		body := func(ctx context.Context, i int) error {
			rec := image(fmt.Sprint("body", i))
			if err := k.s.Apply(ctx, repo, manifest.Change{
				Put:  []manifest.Record{rec},
				Tags: []manifest.TagMove{{Name: "0body", To: rec.Desc.Digest}}, // before all others
			}); err != nil {
				return err
			}
			if _, err := k.s.Get(ctx, repo, rec.Desc.Digest); err != nil {
				return err
			}
			for _, err := range k.s.Tags(ctx, repo, "") {
				if err != nil {
					return err
				}
			}
			return nil
		}
		k.inTime("Tags", func(ctx context.Context) error { return each(ctx, k.s.Tags(ctx, repo, ""), body) })
		k.inTime("Manifests", func(ctx context.Context) error {
			return each(ctx, k.s.Manifests(ctx, repo, ""), func(ctx context.Context, i int) error {
				if i > 20 {
					return nil // what the body adds may be listed
				}
				return body(ctx, i)
			})
		})
		if x, ok := k.s.(Index); ok || k.Options.Index != nil {
			if !ok {
				x = k.Options.Index(k.s)
			}
			k.put(doc{name: "r1", subject: absentSubject}.record(), doc{name: "r2", subject: absentSubject}.record())
			k.inTime("Referrers", func(ctx context.Context) error {
				return each(ctx, x.Referrers(ctx, repo, absentSubject, "", ""), body)
			})
		}
	}},
	{"the loop body may remove what is listed", func(k *kit) {
		const n = 700
		k.some(n)
		k.inTime("Manifests", func(ctx context.Context) error {
			i := 0
			for rec, err := range k.s.Manifests(ctx, repo, "") {
				if err != nil {
					return err
				}
				if err := k.s.Apply(ctx, repo, manifest.Change{Delete: []manifest.Removal{{Digest: rec.Desc.Digest}}}); err != nil {
					return err
				}
				i++
			}
			if i != n {
				return fmt.Errorf("lists %d of %d", i, n)
			}
			return nil
		})
		if got := k.dump(repo); got != "" {
			k.Errorf("left %s", got)
		}
	}},
	{"a listing with a cancelled ctx ends in its error", func(k *kit) {
		k.some(5)
		ctx, cancel := context.WithCancel(k.Context())
		cancel()
		cancelled(k, "Tags", k.s.Tags(ctx, repo, ""))
		cancelled(k, "Manifests", k.s.Manifests(ctx, repo, ""))
		if s, ok := k.s.(manifest.Catalog); ok {
			cancelled(k, "Repos", s.Repos(ctx, ""))
		}
		if x, ok := k.s.(Index); ok {
			k.put(doc{name: "r", subject: absentSubject}.record())
			cancelled(k, "Referrers", x.Referrers(ctx, repo, absentSubject, "", ""))
		}
	}},
	{"a listing that is cancelled under way is whole or ends in ctx's error", func(k *kit) {
		const n = 1100
		k.some(n)
		ctx, cancel := context.WithCancel(k.Context())
		defer cancel()
		got := 0
		for _, err := range k.s.Tags(ctx, repo, "") {
			if err != nil {
				if !errors.Is(err, context.Canceled) {
					k.Errorf("Tags ends with %v, want context.Canceled", err)
				}
				return
			}
			cancel()
			got++
		}
		if got != n {
			k.Errorf("Tags ends after %d of %d without an error", got, n)
		}
	}},
}

// some puts n manifests, each with a tag.
func (k *kit) some(n int) {
	k.Helper()
	c := manifest.Change{At: day1}
	for i := range n {
		rec := image(fmt.Sprint("some", i))
		c.Put = append(c.Put, rec)
		c.Tags = append(c.Tags, manifest.TagMove{Name: fmt.Sprintf("t%04d", i), To: rec.Desc.Digest})
	}
	k.apply(c)
}

// inTime fails the test when f fails, or waits for something that f itself
// holds.
func (k *kit) inTime(what string, f func(context.Context) error) {
	k.Helper()
	const patience = 30 * time.Second
	ctx, cancel := context.WithTimeout(k.Context(), patience)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	select {
	case err := <-done:
		if err != nil {
			k.Errorf("in a loop over %s: %v", what, err)
		}
	case <-time.After(patience + time.Second):
		k.Fatalf("a call in a loop over %s does not return: something is held while the body runs", what)
	}
}

func each[T any](ctx context.Context, seq iter.Seq2[T, error], body func(context.Context, int) error) error {
	i := 0
	for _, err := range seq {
		if err != nil {
			return err
		}
		if err := body(ctx, i); err != nil {
			return err
		}
		i++
	}
	return nil
}

func cancelled[T any](k *kit, what string, seq iter.Seq2[T, error]) {
	k.Helper()
	var last error
	for _, err := range seq {
		if last != nil {
			k.Errorf("%s goes on after its error", what)
		}
		last = err
	}
	if !errors.Is(last, context.Canceled) {
		k.Errorf("%s ends with %v, want context.Canceled", what, last)
	}
}

func increasing[T ~string](s []T) bool {
	for i := 1; i < len(s); i++ {
		if s[i-1] >= s[i] {
			return false
		}
	}
	return true
}
