package manifesttest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/manifest"
)

// atOnce calls f with 0 to n-1, each on a goroutine of its own, when all of
// them are ready. It returns their errors.
func atOnce(n int, f func(i int) error) []error {
	errs := make([]error, n)
	start := make(chan struct{})
	var ready, done sync.WaitGroup
	ready.Add(n)
	for i := range n {
		done.Go(func() {
			ready.Done()
			<-start
			errs[i] = f(i)
		})
	}
	ready.Wait()
	close(start)
	done.Wait()
	return errs
}

// rounds counts to 30, and on while it takes no time: the faster a store is,
// the seldomer its races collide.
func rounds(yield func(int) bool) {
	const enough = 200 * time.Millisecond
	start := time.Now()
	for i := 0; i < 30 || i < 3000 && time.Since(start) < enough; i++ {
		if !yield(i) {
			return
		}
	}
}

// oneWinner races n moves of one tag, which must all fail with a
// *ConflictError but one, in many rounds: a store without any concurrency
// control passes most of them.
func (k *kit) oneWinner(setup func(round int) manifest.TagMove) {
	k.Helper()
	const n = 8
	ctx := k.Context()
	for round := range rounds {
		move := setup(round)
		recs := make([]manifest.Record, n)
		for i := range recs {
			recs[i] = image(fmt.Sprintf("round %d racer %d", round, i))
		}
		errs := atOnce(n, func(i int) error {
			move := move
			move.To = recs[i].Desc.Digest
			return k.s.Apply(ctx, repo, manifest.Change{Put: recs[i : i+1], Tags: []manifest.TagMove{move}, At: day2})
		})
		var winners []int
		for i, err := range errs {
			var conflict *manifest.ConflictError
			switch {
			case err == nil:
				winners = append(winners, i)
			case !errors.As(err, &conflict) || conflict.Tag != move.Name || conflict.Want != move.From:
				k.Fatalf("a racer fails with %v, want a *ConflictError", err)
			default:
				k.noManifest(repo, recs[i].Desc.Digest)
			}
		}
		if len(winners) != 1 {
			k.Fatalf("round %d: %d of %d racers for one tag win, want 1", round, len(winners), n)
		}
		k.tagged(repo, move.Name, recs[winners[0]].Desc.Digest, day2)
	}
}

var raceClauses = []clause{
	{"of racing moves from Absent one wins", func(k *kit) {
		k.oneWinner(func(round int) manifest.TagMove {
			return manifest.TagMove{Name: fmt.Sprint("tag", round), From: manifest.Absent}
		})
	}},
	{"of racing moves from a digest one wins", func(k *kit) {
		base := image("base")
		k.put(base)
		k.oneWinner(func(round int) manifest.TagMove {
			name := fmt.Sprint("tag", round)
			k.tag(name, base)
			return manifest.TagMove{Name: name, From: base.Desc.Digest}
		})
	}},
	{"racing pushes all stay", func(k *kit) {
		const goroutines, each = 8, 10
		rec := func(g, i int) manifest.Record { return image(fmt.Sprintf("%d %d", g, i)) }
		ctx := k.Context()
		for _, err := range atOnce(goroutines, func(g int) error {
			for i := range each {
				r := rec(g, i)
				if err := k.s.Apply(ctx, repo, manifest.Change{
					Put:  []manifest.Record{r, image("shared")},
					Tags: []manifest.TagMove{{Name: fmt.Sprintf("g%d.%d", g, i), To: r.Desc.Digest}},
				}); err != nil {
					return err
				}
			}
			return nil
		}) {
			if err != nil {
				k.Fatal(err)
			}
		}
		for g := range goroutines {
			for i := range each {
				if got, err := k.s.Resolve(ctx, repo, fmt.Sprintf("g%d.%d", g, i)); err != nil || got.Digest != rec(g, i).Desc.Digest {
					k.Errorf("Resolve = %+v, %v", got, err)
				}
			}
		}
		if got := k.manifests(repo, ""); len(got) != goroutines*each+1 {
			k.Errorf("lists %d manifests, want %d", len(got), goroutines*each+1)
		}
	}},
	{"a push and a guarded removal of its child never both succeed", func(k *kit) {
		ctx := k.Context()
		for round := range rounds {
			child := image(fmt.Sprint("child", round))
			parent := index(fmt.Sprint("parent", round), child)
			k.put(child)
			errs := atOnce(2, func(i int) error {
				if i == 0 {
					return k.s.Apply(ctx, repo, manifest.Change{RequireManifests: digests(child), Put: []manifest.Record{parent}})
				}
				return k.s.Apply(ctx, repo, manifest.Change{Delete: []manifest.Removal{{Digest: child.Desc.Digest, IfUnlisted: true}}})
			})
			if k.one(round, errs); errs[0] != nil && !errors.Is(errs[0], manifest.ErrMissing) || errs[1] != nil && !errors.Is(errs[1], manifest.ErrConflict) {
				k.Fatalf("round %d: push: %v; removal: %v", round, errs[0], errs[1])
			}
		}
	}},
	{"a push that requires a blob and the blob's removal never both succeed", func(k *kit) {
		k.needBlobs()
		if k.DeleteBlob == nil {
			k.Skipf("Options.DeleteBlob is nil: %s", k.NoBlobs)
		}
		ctx := k.Context()
		for round := range rounds {
			rec := image(fmt.Sprint("round", round))
			k.PutBlobs(k, k.s, repo, rec.Blobs...)
			errs := atOnce(2, func(i int) error {
				if i == round&1 { // the one that is started last tends to run first
					return k.s.Apply(ctx, repo, manifest.Change{RequireBlobs: rec.Blobs, Put: []manifest.Record{rec}})
				}
				return k.DeleteBlob(k, k.s, repo, rec.Blobs[0])
			})
			push, removal := errs[round&1], errs[1-round&1]
			if k.one(round, errs); push != nil && !errors.Is(push, manifest.ErrMissing) {
				k.Fatalf("round %d: push: %v; removal: %v", round, push, removal)
			}
		}
	}},
	{"a blob that a manifest needs is not removed until the manifest is", func(k *kit) {
		k.needBlobs()
		if k.DeleteBlob == nil {
			k.Skipf("Options.DeleteBlob is nil: %s", k.NoBlobs)
		}
		shared := blobOf("shared")
		one := doc{name: "1", blobs: []digest.Digest{shared}}.record()
		two := doc{name: "2", blobs: []digest.Digest{blobOf("2"), shared}}.record()
		k.PutBlobs(k, k.s, repo, shared, blobOf("2"))
		k.PutBlobs(k, k.s, otherRepo, shared)
		k.apply(manifest.Change{RequireBlobs: one.Blobs, Put: []manifest.Record{one}})
		k.apply(manifest.Change{RequireBlobs: two.Blobs, Put: []manifest.Record{two}})
		k.put(one) // again, which must not count twice
		for _, rec := range []manifest.Record{one, two} {
			if err := k.DeleteBlob(k, k.s, repo, shared); err == nil {
				k.Fatalf("a blob of manifest %s is removed", rec.Desc.Digest)
			}
			k.apply(manifest.Change{Delete: []manifest.Removal{{Digest: rec.Desc.Digest}}})
		}
		if err := k.DeleteBlob(k, k.s, repo, shared); err != nil {
			k.Errorf("a blob that no manifest needs any more: %v", err)
		}
		if err := k.DeleteBlob(k, k.s, otherRepo, shared); err != nil {
			k.Errorf("a blob that no manifest of its repository needs: %v", err)
		}
	}},
	{"a reader never sees half a change", func(k *kit) {
		old := image("old")
		k.put(old)
		k.tag("a", old)
		ctx, cancel := context.WithCancel(k.Context())
		errs := atOnce(2, func(i int) error {
			if i == 0 {
				defer cancel()
				at := old
				for n := range rounds {
					next := image(fmt.Sprint("next", n))
					if err := k.s.Apply(k.Context(), repo, manifest.Change{
						Put:    []manifest.Record{next},
						Tags:   []manifest.TagMove{{Name: "a", To: next.Desc.Digest}},
						Delete: []manifest.Removal{{Digest: at.Desc.Digest}},
					}); err != nil {
						return err
					}
					at = next
				}
				return nil
			}
			for ctx.Err() == nil {
				if _, err := k.s.Resolve(k.Context(), repo, "a"); err != nil {
					return err // the tag is there before and after each change
				}
				var seen []digest.Digest
				for rec, err := range k.s.Manifests(k.Context(), repo, "") {
					if err != nil {
						return err
					}
					seen = append(seen, rec.Desc.Digest)
				}
				if len(seen) == 0 {
					return errors.New("lists no manifest")
				}
			}
			return nil
		})
		for _, err := range errs {
			if err != nil {
				k.Errorf("while changes replace the one manifest and move its tag: %v", err)
			}
		}
	}},
}

// one fails the test unless just one of two opposed calls succeeded.
func (k *kit) one(round int, errs []error) {
	k.Helper()
	if (errs[0] == nil) == (errs[1] == nil) {
		k.Fatalf("round %d: of two calls that exclude each other, both or none succeed: %v; %v", round, errs[0], errs[1])
	}
}
