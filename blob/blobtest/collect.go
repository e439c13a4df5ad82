package blobtest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/blob"
)

var collectClauses = []clause{
	{"Repos/it lists the repositories that hold a blob, in ascending byte order", func(k *kit) {
		s := ability[blob.Catalog](k)
		if got := k.repos(s, ""); len(got) != 0 {
			k.Fatalf("Repos of an empty store = %q", got)
		}
		// The order of "-", ".", "/" and "_"; names that are cut and joined.
		long := strings.Repeat("x", 128)
		want := []string{"a", "a-b", "a.b", "a/b", "a_b", "ab", "b", long, long + "y"}
		for _, repo := range []string{"b", "a_b", long + "y", "gone", "a/b", "ab", "a.b", long, "a", "a-b"} {
			k.put(repo, "content")
		}
		k.put("gone", "more")
		for _, content := range []string{"content", "more"} {
			k.ok(k.s.Delete(k.Context(), "gone", sha(content), never), "Delete")
		}
		u, err := k.s.Begin(k.Context(), "sessions-only", digest.SHA256)
		k.ok(err, "Begin")
		_, err = blob.Append(k.Context(), k.s, u, 0, strings.NewReader("x"))
		k.ok(err, "Append")
		if got := k.repos(s, ""); !slices.Equal(got, want) {
			k.Fatalf("Repos = %q\nwant %q", got, want)
		}
		for i, after := range want {
			if got := k.repos(s, after); !slices.Equal(got, want[i+1:]) {
				k.Fatalf("Repos after %s = %q\nwant %q", after, got, want[i+1:])
			}
		}
		for after, n := range map[string]int{"0": 9, "a+": 8, "aa": 4, "gone": 2, "z": 0} { // a key need not be there
			if got := k.repos(s, after); !slices.Equal(got, want[9-n:]) {
				k.Fatalf("Repos after %s = %q\nwant %q", after, got, want[9-n:])
			}
		}
	}},
	{"Repos/no lock is held while the loop body runs", func(k *kit) {
		s := ability[blob.Catalog](k)
		for i := range 10 {
			k.put(fmt.Sprint("r", i), "content")
		}
		k.ends("no lock is held while the caller's loop body runs, so it may call the store", func() {
			n := 0
			for repo, err := range s.Repos(k.Context(), "") {
				if err != nil {
					k.Errorf("Repos: %v", err)
					return
				}
				if strings.HasPrefix(repo, "r") {
					n++
					if err := k.s.Delete(k.Context(), repo, sha("content"), never); err != nil {
						k.Errorf("Delete in the loop body: %v", err)
					}
					if err := blob.Put(k.Context(), k.s, "a"+repo, describe(digest.SHA256, "x"), strings.NewReader("x")); err != nil {
						k.Errorf("Put in the loop body: %v", err)
					}
				}
			}
			if n != 10 {
				k.Errorf("the listing showed %d of 10", n)
			}
		})
		for range s.Repos(k.Context(), "") {
			break
		}
	}},
	{"Repos/it ends at its first error", func(k *kit) {
		s := ability[blob.Catalog](k)
		for i := range 10 {
			k.put(fmt.Sprint("r", i), "content")
		}
		for _, stop := range []int{0, 3} {
			endsInCtx(k, "Repos", stop, func(ctx context.Context, yield func(error) bool) {
				for _, err := range s.Repos(ctx, "") {
					if !yield(err) {
						return
					}
				}
			})
		}
	}},
	{"Guarded/it tells whether Delete refuses what a manifest needs", func(k *kit) {
		s := ability[blob.Guarded](k)
		if k.SetGuard == nil {
			k.Skip("Options.SetGuard is nil")
		}
		if s.Guarded() {
			k.Fatal("Guarded = true, though nobody has given the store a guard")
		}
		k.SetGuard(k.s, func(context.Context, string, digest.Digest, func() error) error { return blob.ErrConflict })
		if !s.Guarded() {
			k.Fatal("Guarded = false, though the store has a guard")
		}
		k.put(repo, "content")
		k.is(k.s.Delete(k.Context(), repo, sha("content"), never), blob.ErrConflict, "Delete", "the guard has refused it")
	}},
	{"Sessions/it lists the sessions of all repositories by ID, as last saved", func(k *kit) {
		s := ability[blob.SessionLister](k)
		k.listsSessions(s, nil)
		var want []blob.Upload
		for i := range 12 {
			in := []string{repo, otherRepo, "third"}[i%3]
			u, err := k.s.Begin(k.Context(), in, digest.SHA256)
			k.ok(err, "Begin")
			for range 1 + i%2 {
				u, err = blob.Append(k.Context(), k.s, u, -1, strings.NewReader("chunk "+in))
				k.ok(err, "Append")
			}
			switch i {
			case 3, 4:
				_, err = k.s.Append(k.Context(), u, strings.NewReader("never saved"))
				k.ok(err, "Append")
			case 8:
				k.ok(k.s.Abort(k.Context(), u), "Abort")
				continue
			case 9:
				k.ok(blob.Finish(k.Context(), k.s, u, -1, nil, sha("chunk team/appchunk team/app")), "Finish")
				continue
			}
			u, err = k.s.Lookup(k.Context(), in, u.ID)
			k.ok(err, "Lookup")
			want = append(want, u)
		}
		slices.SortFunc(want, func(a, b blob.Upload) int { return strings.Compare(a.ID, b.ID) })
		k.listsSessions(s, want)
		if k.Reopen != nil {
			k.s = k.Reopen(k, k.s)
			k.listsSessions(ability[blob.SessionLister](k), want)
		}
	}},
	{"Sessions/what is listed can be continued, and aborted in the loop body", func(k *kit) {
		s := ability[blob.SessionLister](k)
		k.finish(k.append(k.begin(), "done"), "done")
		k.append(k.begin(), "one")
		for u, err := range s.Sessions(k.Context(), "") {
			k.ok(err, "Sessions")
			k.finish(k.append(u, "two"), "onetwo")
		}
		for range 10 {
			k.append(k.begin(), "chunk")
		}
		k.ends("no lock is held while the caller's loop body runs, so it may call the store", func() {
			n := 0
			for u, err := range s.Sessions(k.Context(), "") {
				if err == nil {
					err = k.s.Abort(k.Context(), u)
				}
				if err != nil {
					k.Errorf("Abort in the loop body: %v", err)
					return
				}
				n++
			}
			if n != 10 {
				k.Errorf("the listing showed %d sessions of 10", n)
			}
		})
		k.listsSessions(s, nil)
	}},
	{"Sessions/it ends at its first error", func(k *kit) {
		s := ability[blob.SessionLister](k)
		for range 10 {
			k.append(k.begin(), "chunk")
		}
		for _, stop := range []int{0, 3} {
			endsInCtx(k, "Sessions", stop, func(ctx context.Context, yield func(error) bool) {
				for _, err := range s.Sessions(ctx, "") {
					if !yield(err) {
						return
					}
				}
			})
		}
	}},
	{"Sweep/it removes what no blob and no session refers to, and yields it", func(k *kit) {
		s := ability[blob.Sweeper](k)
		k.put(repo, long(3<<20))
		u := k.append(k.begin(), long(2<<20))
		k.sweep(s, false) // whatever there is from before
		stray := long(2<<20 + 5)
		k.leavesNothing(func() {
			_, err := k.s.Append(k.Context(), u, strings.NewReader(stray))
			k.ok(err, "Append")
			var n int64
			for _, obj := range k.sweep(s, false) {
				if obj.Key == "" || obj.ModTime.IsZero() {
					k.Fatalf("Sweep yields %+v, want a key and a time", obj)
				}
				n += obj.Size
			}
			if n < int64(len(stray)) {
				k.Fatalf("Sweep yields %d bytes, want the %d that were appended and never saved", n, len(stray))
			}
		})
		k.has(repo, sha(long(3<<20)), long(3<<20))
		k.finish(k.append(u, "more"), long(2<<20)+"more")
		if got := k.sweep(s, false); len(got) != 0 {
			k.Fatalf("the next Sweep yields %+v", got)
		}
		k.has(repo, sha(long(3<<20)), long(3<<20))
	}},
	{"Sweep/with dry nothing changes", func(k *kit) {
		s := ability[blob.Sweeper](k)
		u := k.append(k.begin(), "one")
		next, err := k.s.Append(k.Context(), u, strings.NewReader(long(2<<20)))
		k.ok(err, "Append")
		for range 2 {
			k.sweep(s, true)
		}
		k.ok(k.s.Save(k.Context(), u, next), "Save of what a dry Sweep has seen")
		k.ok(k.s.Commit(k.Context(), next, next, sha("one"+long(2<<20))), "Commit")
		k.has(repo, sha("one"+long(2<<20)), "one"+long(2<<20))
	}},
	{"Sweep/it leaves alone what a call under way that began after cutoff may refer to", func(k *kit) {
		s := ability[blob.Sweeper](k)
		cutoff := time.Now().Add(-k.Lease)
		k.whileUnderWay(func() {
			for _, err := range s.Sweep(k.Context(), cutoff, false) {
				k.ok(err, "Sweep")
			}
		}, true)
	}},
	{"Sweep/a call that began earlier either commits or fails", func(k *kit) {
		s := ability[blob.Sweeper](k)
		for range 3 { // the first may find no era to end
			k.whileUnderWay(func() { k.sweep(s, false) }, false)
		}
	}},
	{"Sweep/calls of all kinds while it runs", func(k *kit) {
		s := ability[blob.Sweeper](k)
		together(4, func(g int) {
			for i := range 8 {
				if g == 0 {
					for _, err := range s.Sweep(k.Context(), time.Now().Add(time.Hour), false) {
						if err != nil {
							k.Errorf("Sweep: %v", err)
						}
					}
					continue
				}
				content := long(1<<20 + 100*g + i)
				u, err := k.s.Begin(k.Context(), repo, digest.SHA256)
				if err == nil {
					u, err = blob.Append(k.Context(), k.s, u, -1, strings.NewReader(content[:1<<20]))
				}
				if err == nil {
					err = blob.Finish(k.Context(), k.s, u, -1, strings.NewReader(content[1<<20:]), sha(content))
				}
				if err != nil {
					continue // overtaken
				}
				if got, err := k.read(repo, sha(content), 0, -1); err != nil || got != content {
					k.Errorf("what was acknowledged is %s, error %v", show(got), err)
				}
			}
		})
	}},
	{"Sweep/it ends in ctx's error", func(k *kit) {
		s := ability[blob.Sweeper](k)
		u := k.append(k.begin(), "one")
		next, err := k.s.Append(k.Context(), u, strings.NewReader(long(2<<20)))
		k.ok(err, "Append")
		var last error
		for _, err := range s.Sweep(k.canceled(), time.Now().Add(time.Hour), false) {
			last = err
		}
		k.is(last, context.Canceled, "Sweep", "a method returns ctx's error")
		k.ok(k.s.Save(k.Context(), u, next), "Save after a Sweep that ctx has refused")
	}},
}

// ability returns what the store has, or skips.
func ability[T any](k *kit) T {
	k.Helper()
	s, ok := blob.As[T](k.s)
	if !ok {
		k.Skipf("the store is no %T", (*T)(nil))
	}
	return s
}

func (k *kit) repos(s blob.Catalog, after string) (repos []string) {
	k.Helper()
	for repo, err := range s.Repos(k.Context(), after) {
		k.ok(err, "Repos")
		repos = append(repos, repo)
	}
	return repos
}

// listsSessions fails the test unless want is listed, after each of them too.
func (k *kit) listsSessions(s blob.SessionLister, want []blob.Upload) {
	k.Helper()
	for i := -1; i < len(want); i++ {
		after := ""
		if i >= 0 {
			after = want[i].ID
		}
		var got []blob.Upload
		for u, err := range s.Sessions(k.Context(), after) {
			k.ok(err, "Sessions")
			got = append(got, u)
		}
		if !slices.EqualFunc(got, want[i+1:], func(a, b blob.Upload) bool { return sameUpload(a, b) && a.UpdatedAt.Equal(b.UpdatedAt) }) {
			k.Fatalf("Sessions after %q = %+v\nwant %+v", after, got, want[i+1:])
		}
	}
}

// endsInCtx fails the test unless a listing of 10, whose ctx ends after stop of
// them, ends in ctx's error.
func endsInCtx(k *kit, what string, stop int, list func(ctx context.Context, yield func(error) bool)) {
	k.Helper()
	ctx, cancel := context.WithCancel(k.Context())
	defer cancel()
	if stop == 0 {
		cancel()
	}
	n, errs := 0, 0
	list(ctx, func(err error) bool {
		switch {
		case err != nil:
			k.is(err, context.Canceled, what, "a method returns ctx's error")
			errs++
		case errs > 0:
			k.Fatalf("%s goes on after an error", what)
		default:
			if n++; n == stop {
				cancel()
			}
		}
		return true
	})
	// What a store has read ahead may still come.
	if errs != 1 && n < 10 || errs > 1 || stop == 0 && errs == 0 {
		k.Fatalf("ctx ended after %d: %s listed %d and %d errors, want it to end in an error", stop, what, n, errs)
	}
}

// sweep spares no call, however young.
func (k *kit) sweep(s blob.Sweeper, dry bool) (objs []blob.Object) {
	k.Helper()
	for obj, err := range s.Sweep(k.Context(), time.Now().Add(time.Hour), dry) {
		k.ok(err, "Sweep")
		objs = append(objs, obj)
	}
	return objs
}

// whileUnderWay runs do in the middle of a Put, between Append and Save, and in
// the middle of a Finish. Each of them is to succeed, if must, or may fail, but
// then nothing is visible.
func (k *kit) whileUnderWay(do func(), must bool) {
	k.Helper()
	check := func(err error, what, content string) {
		k.Helper()
		switch {
		case err == nil:
			k.has(repo, sha(content), content)
		case must:
			k.Fatalf("%s: %v, though it began after cutoff", what, err)
		default:
			k.lacks(repo, sha(content), what+" has failed: "+err.Error())
		}
	}
	// during is r with do in the middle.
	during := func(content string) spy {
		n := 0
		return spy{strings.NewReader(content), func() {
			if n++; n == 2 {
				do()
			}
		}}
	}
	unique := fmt.Sprint(must, time.Now().UnixNano())
	content := long(3<<20) + unique
	check(k.s.Put(k.Context(), repo, describe(digest.SHA256, content), during(content)), "Put", content)

	u := k.append(k.begin(), long(2<<20))
	next, err := k.s.Append(k.Context(), u, strings.NewReader(long(2<<20)+unique))
	k.ok(err, "Append")
	do()
	err = k.s.Save(k.Context(), u, next)
	if err == nil {
		err = k.s.Commit(k.Context(), next, next, sha(long(2<<20)+long(2<<20)+unique))
	}
	check(err, "Save", long(2<<20)+long(2<<20)+unique)

	u = k.append(k.begin(), "one")
	err = blob.Finish(k.Context(), k.s, u, -1, during(content), sha("one"+content))
	check(err, "Finish", "one"+content)
	if err != nil {
		k.unchanged(u, "on error the session is as it was")
		k.finish(u, "one")
	}
}
