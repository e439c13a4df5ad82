package blobtest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/blob"
)

// never is a cutoff that refuses nothing.
var never time.Time

var readClauses = []clause{
	{"Open/n bytes from off on, cut at the end", func(k *kit) {
		for _, content := range []string{"0123456789", "", long(1<<20 + 1)} {
			dgst := k.put(repo, content)
			size := int64(len(content))
			for _, off := range []int64{0, 1, 4, size / 2, size - 1, size} {
				for _, n := range []int64{-1, 0, 1, 3, size - 1, size, size + 1, 1 << 62} {
					if off < 0 || off > size || n < -1 {
						continue
					}
					end := size
					if n >= 0 && n < size-off {
						end = off + n
					}
					want := content[off:end]
					r, info, err := k.s.Open(k.Context(), repo, dgst, off, n)
					what := fmt.Sprintf("Open(off %d, n %d) of %d bytes", off, n, size)
					k.ok(err, what)
					if info.Digest != dgst || info.Size != size || info.TouchedAt.IsZero() {
						k.Fatalf("%s: Info %+v, want that of the whole blob", what, info)
					}
					var got bytes.Buffer
					if off%2 == 0 { // Copy uses WriterTo, if there is one
						_, err = io.Copy(&got, r)
					} else {
						_, err = got.ReadFrom(r)
					}
					k.ok(err, what)
					k.ok(r.Close(), "Close")
					if got.String() != want {
						k.Fatalf("%s: %s, want %s", what, show(got.String()), show(want))
					}
				}
			}
		}
	}},
	{"Open/ErrRange when off is beyond the end", func(k *kit) {
		for _, content := range []string{"0123456789", ""} {
			dgst := k.put(repo, content)
			for _, off := range []int64{int64(len(content)) + 1, 1 << 62} {
				for _, n := range []int64{-1, 0, 5} {
					_, err := k.read(repo, dgst, off, n)
					k.is(err, blob.ErrRange, fmt.Sprintf("Open(off %d, n %d) of %d bytes", off, n, len(content)), "off > Size")
				}
			}
		}
	}},
	{"Open/ErrNotFound", func(k *kit) {
		k.lacks(repo, sha("content"), "the store is empty")
		k.put(repo, "else")
		k.lacks(repo, sha("content"), "it was never put")
		_, err := k.read(repo, sha("content"), 1<<40, -1)
		k.is(err, blob.ErrNotFound, "Open", "there is no such blob")
	}},
	{"Open/the reader keeps answering with the same bytes when the blob is deleted, or fails", func(k *kit) {
		content := long(3 << 20)
		dgst := k.put(repo, content)
		r, _, err := k.s.Open(k.Context(), repo, dgst, 0, -1)
		k.ok(err, "Open")
		defer r.Close()
		head := make([]byte, 100)
		_, err = io.ReadFull(r, head)
		k.ok(err, "Read")
		k.ok(k.s.Delete(k.Context(), repo, dgst, never), "Delete")
		rest, err := io.ReadAll(r)
		if got := string(head) + string(rest); err == nil && got != content {
			k.Fatalf("the reader ended without an error after %d bytes of %d, or with others", len(got), len(content))
		}
	}},
	{"Stat/one Info per digest, in the order asked, zero for what is not there", func(k *kit) {
		if got := k.stat(repo); len(got) != 0 {
			k.Fatalf("Stat of nothing = %v", got)
		}
		var dgsts []digest.Digest
		for i := range 20 {
			content := strings.Repeat("x", i)
			if i%3 == 0 {
				dgsts = append(dgsts, sha(content))
				continue
			}
			dgsts = append(dgsts, k.put(repo, content))
		}
		slices.Reverse(dgsts)
		dgsts = append(dgsts, dgsts[0]) // twice
		for i, got := range k.stat(repo, dgsts...) {
			size := (19 - i + 20) % 20
			switch {
			case size%3 == 0 && got != (blob.Info{}):
				k.Errorf("Info %d is %+v, want the zero Info", i, got)
			case size%3 != 0 && (got.Digest != dgsts[i] || got.Size != int64(size) || got.TouchedAt.IsZero()):
				k.Errorf("Info %d is %+v, want digest %s and size %d", i, got, dgsts[i], size)
			}
		}
	}},
	{"Stat/a positive answer is a promise", func(k *kit) {
		k.clock()
		dgst := k.put(repo, "content")
		k.put(repo, "other")
		later := day1.Add(k.Lease)
		k.set(later)
		if got := k.stat(repo, dgst, sha("missing"))[0]; later.Sub(got.TouchedAt) > k.Lease/2 || got.TouchedAt.After(later) {
			k.Fatalf("Stat returned TouchedAt %v at %v, want it within half a lease (%v)", got.TouchedAt, later, k.Lease/2)
		}
		if k.Reopen != nil {
			k.s = k.Reopen(k, k.s)
			k.SetNow(k.s, k.time)
		}
		k.touched(repo, dgst, later)
		if got := k.touchedAt(repo, sha("other")); !got.Equal(day1) {
			k.Fatalf("TouchedAt of a blob that was not asked for moved to %v", got)
		}
		// A collector that looked before the promise.
		err := k.s.Delete(k.Context(), repo, dgst, day1)
		k.is(err, blob.ErrConflict, "Delete", "Delete refuses what was touched after cutoff")
		k.has(repo, dgst, "content")
		k.ok(k.s.Delete(k.Context(), repo, sha("other"), day1), "Delete of what was touched at cutoff")
	}},
	{"Stat/a promise and a deletion do not cross", func(k *kit) {
		k.clock()
		cutoff := day1.Add(k.Lease)
		for round := range 25 {
			k.set(day1)
			content := fmt.Sprint("content ", round)
			dgst := k.put(repo, content)
			k.set(cutoff.Add(k.Lease))
			var promised bool
			var deleted error
			together(2, func(i int) {
				if i == round%2 { // which of them starts first is not ours to say
					infos, err := k.s.Stat(k.Context(), repo, []digest.Digest{dgst})
					if err != nil {
						k.Errorf("Stat: %v", err)
						return
					}
					promised = infos[0].Digest != ""
				} else {
					deleted = k.s.Delete(k.Context(), repo, dgst, cutoff)
				}
			})
			if promised == (deleted == nil) {
				k.Fatalf("round %d: Stat promised: %v, Delete: %v; want exactly one of them to win", round, promised, deleted)
			}
			if promised {
				k.has(repo, dgst, content)
			}
		}
	}},
	{"Reader/a blob is visible in the repositories that it was put into and in no other", func(k *kit) {
		content := "content"
		// Names that a careless path or key confuses.
		repos := []string{"a", "a/b", "a/b/sha256", "a-b", "a.b", "a_b", "a__b", "ab", strings.Repeat("x", 128), strings.Repeat("x", 129), strings.Repeat("x/", 120) + "y", "con", "blobs", "uploads"}
		for i, r := range repos {
			for _, later := range repos[i:] {
				k.lacks(later, sha(content), "it was put into "+fmt.Sprint(repos[:i]))
			}
			k.put(r, content)
			k.has(r, sha(content), content)
		}
		for _, r := range repos {
			k.ok(k.s.Delete(k.Context(), r, sha(content), never), "Delete")
			k.lacks(r, sha(content), "it was deleted")
		}
	}},
}

var deleteClauses = []clause{
	{"Delete/it removes at once, and other repositories keep theirs", func(k *kit) {
		dgst := k.put(repo, "content")
		k.put(otherRepo, "content")
		k.put(repo, "other")
		k.ok(k.s.Delete(k.Context(), repo, dgst, never), "Delete")
		k.lacks(repo, dgst, "it was deleted")
		k.has(otherRepo, dgst, "content")
		k.has(repo, sha("other"), "other")
		k.is(k.s.Delete(k.Context(), repo, dgst, never), blob.ErrNotFound, "Delete again", "it is not there any more")
		k.has(repo, k.put(repo, "content"), "content")
		k.is(k.s.Delete(k.Context(), "none", dgst, never), blob.ErrNotFound, "Delete in a repository that has nothing", "it is not there")
	}},
	{"Delete/it refuses what was touched after cutoff", func(k *kit) {
		dgst := k.put(repo, "content")
		at := k.touchedAt(repo, dgst)
		k.is(k.s.Delete(k.Context(), repo, dgst, at.Add(-time.Second)), blob.ErrConflict, "Delete", "it was touched after cutoff")
		k.has(repo, dgst, "content")
		k.ok(k.s.Delete(k.Context(), repo, dgst, k.touchedAt(repo, dgst).Add(time.Second)), "Delete of what was touched before cutoff")
		k.lacks(repo, dgst, "it was deleted")
	}},
	{"Delete/it refuses what a manifest needs", func(k *kit) {
		if k.SetGuard == nil {
			k.Skip("Options.SetGuard is nil")
		}
		needed := sha("needed")
		k.SetGuard(k.s, func(ctx context.Context, in string, dgst digest.Digest, remove func() error) error {
			if in == repo && dgst == needed {
				return fmt.Errorf("a manifest needs it: %w", blob.ErrConflict)
			}
			// A manifest store's checks call the blob store meanwhile.
			k.ends("a Guard is called with no lock held", func() {
				if _, err := k.s.Stat(ctx, in, []digest.Digest{dgst}); err != nil {
					k.Errorf("Stat: %v", err)
				}
			})
			if err := remove(); err != nil {
				return err
			}
			k.lacks(in, dgst, "remove has returned")
			return nil
		})
		k.put(repo, "needed")
		k.put(otherRepo, "needed")
		k.put(repo, "other")
		k.is(k.s.Delete(k.Context(), repo, needed, never), blob.ErrConflict, "Delete", "the guard has refused it")
		k.has(repo, needed, "needed")
		k.ok(k.s.Delete(k.Context(), otherRepo, needed, never), "Delete of what the guard permits")
		k.ok(k.s.Delete(k.Context(), repo, sha("other"), never), "Delete of what the guard permits")
		k.is(k.s.Delete(k.Context(), repo, sha("other"), never), blob.ErrNotFound, "Delete of what is not there", "through a guard as well")
	}},
}

var listClauses = []clause{
	{"Blobs/in ascending byte order, strictly increasing, after the given key", func(k *kit) {
		if got := k.list(repo, ""); len(got) != 0 {
			k.Fatalf("Blobs of an empty store = %v", got)
		}
		var want []digest.Digest
		for i := range 40 {
			content := fmt.Sprint(i)
			desc := describe([]digest.Algorithm{digest.SHA256, digest.SHA512}[i%2], content)
			k.ok(blob.Put(k.Context(), k.s, repo, desc, strings.NewReader(content)), "Put")
			want = append(want, desc.Digest)
			k.put(otherRepo, content)
		}
		slices.Sort(want)
		if got := k.list(repo, ""); !slices.Equal(got, want) {
			k.Fatalf("Blobs = %v\nwant %v", got, want)
		}
		for i, after := range want {
			if got := k.list(repo, after); !slices.Equal(got, want[i+1:]) {
				k.Fatalf("Blobs after %s = %v\nwant %v", after, got, want[i+1:])
			}
			// A key need not be there.
			if got := k.list(repo, after[:len(after)-1]); !slices.Equal(got, want[i:]) {
				k.Fatalf("Blobs after %s = %v\nwant %v", after[:len(after)-1], got, want[i:])
			}
		}
		for _, c := range []struct {
			after digest.Digest
			n     int
		}{{"sha1:ff", 40}, {"sha256", 40}, {"sha256:", 40}, {"sha256:zz", 20}, {"sha384:00", 20}, {"sha512:", 20}, {"sha512:zz", 0}, {"zz", 0}} {
			if got := k.list(repo, c.after); !slices.Equal(got, want[40-c.n:]) {
				k.Fatalf("Blobs after %s = %v\nwant %v", c.after, got, want[40-c.n:])
			}
		}
		for info, err := range k.s.Blobs(k.Context(), otherRepo, "") {
			if k.ok(err, "Blobs"); info.TouchedAt.IsZero() || info.Size < 1 || info.Size > 2 {
				k.Fatalf("Blobs yields %+v, want a size and a time", info)
			}
		}
	}},
	{"Blobs/a listing can be stopped early", func(k *kit) {
		for i := range 10 {
			k.put(repo, fmt.Sprint(i))
		}
		n := 0
		for range k.s.Blobs(k.Context(), repo, "") {
			if n++; n == 3 {
				break
			}
		}
		if n != 3 {
			k.Fatalf("the loop saw %d", n)
		}
		if got := k.list(repo, ""); len(got) != 10 {
			k.Fatalf("the next listing has %d of 10", len(got))
		}
	}},
	{"Blobs/no lock is held while the loop body runs", func(k *kit) {
		for i := range 10 {
			k.put(repo, fmt.Sprint(i))
		}
		want := k.list(repo, "")
		k.ends("no lock is held while the caller's loop body runs, so it may call the store", func() {
			last, n := digest.Digest(""), 0
			for info, err := range k.s.Blobs(k.Context(), repo, "") {
				if err != nil || info.Digest <= last {
					k.Errorf("Blobs: %v after %s, error %v", info, last, err)
					return
				}
				last = info.Digest
				if slices.Contains(want, last) {
					n++
					content := fmt.Sprint("meanwhile ", last)[:30]
					if err := blob.Put(k.Context(), k.s, repo, describe(digest.SHA256, content), strings.NewReader(content)); err != nil {
						k.Errorf("Put in the loop body: %v", err)
					}
					if err := k.s.Delete(k.Context(), repo, last, never); err != nil {
						k.Errorf("Delete in the loop body: %v", err)
					}
					if _, err := k.s.Stat(k.Context(), repo, want); err != nil {
						k.Errorf("Stat in the loop body: %v", err)
					}
				}
			}
			if n != len(want) {
				k.Errorf("the listing showed %d of the %d blobs that were there all the time", n, len(want))
			}
		})
	}},
	{"Blobs/it may be listed while others write", func(k *kit) {
		for i := range 50 {
			k.put(repo, fmt.Sprint(i))
		}
		want := k.list(repo, "")
		together(4, func(g int) {
			for i := range 5 {
				if g > 1 {
					content := fmt.Sprint("writer ", g, i)
					if err := blob.Put(k.Context(), k.s, repo, describe(digest.SHA256, content), strings.NewReader(content)); err != nil {
						k.Errorf("Put: %v", err)
					}
					continue
				}
				last, n := digest.Digest(""), 0
				for info, err := range k.s.Blobs(k.Context(), repo, "") {
					if err != nil || info.Digest <= last {
						k.Errorf("Blobs: %v after %s, error %v", info, last, err)
						return
					}
					last = info.Digest
					if _, found := slices.BinarySearch(want, last); found {
						n++
					}
				}
				if n != len(want) {
					k.Errorf("a listing showed %d of the %d blobs that were there all the time", n, len(want))
				}
			}
		})
	}},
	{"Blobs/it ends at its first error", func(k *kit) {
		for i := range 10 {
			k.put(repo, fmt.Sprint(i))
		}
		for _, stop := range []int{0, 3} {
			ctx, cancel := context.WithCancel(k.Context())
			defer cancel()
			if stop == 0 {
				cancel()
			}
			n, errs := 0, 0
			for _, err := range k.s.Blobs(ctx, repo, "") {
				if err != nil {
					k.is(err, context.Canceled, "Blobs", "a method returns ctx's error")
					errs++
					continue
				}
				if errs > 0 {
					k.Fatal("the listing goes on after an error")
				}
				if n++; n == stop {
					cancel()
				}
			}
			// What a store has read ahead may still come.
			if errs != 1 && n < 10 || errs > 1 {
				k.Fatalf("ctx ended after %d: the listing had %d blobs and %d errors, want it to end in an error", stop, n, errs)
			}
			if stop == 0 && errs == 0 {
				k.Fatal("a listing under a context that has ended has no error")
			}
		}
	}},
	{"Blobs/it does not touch", func(k *kit) {
		k.clock()
		dgst := k.put(repo, "content")
		k.set(day1.Add(10 * k.Lease))
		for info, err := range k.s.Blobs(k.Context(), repo, "") {
			if k.ok(err, "Blobs"); !info.TouchedAt.Equal(day1) {
				k.Fatalf("Blobs says TouchedAt %v, want %v", info.TouchedAt, day1)
			}
		}
		if got := k.touchedAt(repo, dgst); !got.Equal(day1) {
			k.Fatalf("TouchedAt = %v, want %v: Lister lists without touching", got, day1)
		}
	}},
}
