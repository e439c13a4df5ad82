package blobtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/blob"
)

var uploadClauses = []clause{
	{"Begin/an ID is unguessable and unique", func(k *kit) {
		seen := map[string]bool{}
		for range 50 {
			u := k.begin()
			if len(u.ID) < 16 || len(u.ID) > 64 || seen[u.ID] {
				k.Fatalf("ID %q: want a new one of 16 to 64 characters", u.ID)
			}
			if strings.Trim(u.ID, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") != "" {
				k.Fatalf("ID %q: want characters of [a-zA-Z0-9_-]", u.ID)
			}
			seen[u.ID] = true
			if u.Repo != repo || u.Size != 0 || u.Algorithm != digest.SHA256 || len(u.Hash) != 0 || u.UpdatedAt.IsZero() {
				k.Fatalf("Begin = %+v, want an empty session of %s", u, repo)
			}
			k.unchanged(u, "Lookup returns the session as begun")
		}
	}},
	{"Upload/any process that shares the store can continue it by its ID alone", func(k *kit) {
		content := long(5<<20 + 3)
		id := k.begin().ID
		for at, n := 0, 1; at < len(content); n *= 37 {
			end := min(at+n, len(content))
			u := k.lookup(id)
			if u.Size != int64(at) {
				k.Fatalf("Lookup says %d bytes, want %d", u.Size, at)
			}
			u, err := blob.Append(k.Context(), k.s, u, int64(at), strings.NewReader(content[at:end]))
			k.ok(err, "Append")
			k.unchanged(u, "Append returns what it has saved")
			at = end
			if k.Reopen != nil {
				k.s = k.Reopen(k, k.s)
			}
		}
		k.lacks(repo, sha(content), "the session is not committed")
		k.finish(k.lookup(id), content)
	}},
	{"Upload/the caller of Append can go on with what it returned", func(k *kit) {
		u, content := k.begin(), ""
		for i := range 5 {
			chunk := fmt.Sprint("chunk ", i)
			u, content = k.append(u, chunk), content+chunk
		}
		k.finish(u, content)
	}},
	{"Upload/it is seen in its repository only, and nowhere before Commit", func(k *kit) {
		u := k.append(k.begin(), "content")
		k.lacks(repo, sha("content"), "the session is not committed")
		k.finish(u, "content")
		k.lacks(otherRepo, sha("content"), "it was uploaded to "+repo)
	}},
	{"Lookup/ErrUploadNotFound for another repository's and for no ID at all", func(k *kit) {
		u := k.append(k.begin(), "content")
		_, err := k.s.Lookup(k.Context(), otherRepo, u.ID)
		k.is(err, blob.ErrUploadNotFound, "Lookup from another repository", "the ID belongs to "+repo)
		for _, id := range []string{
			"", ".", "..", "../x", "../" + u.ID, u.ID + "/", "./" + u.ID, u.ID + "/.", u.ID + "\x00", u.ID[1:], u.ID + u.ID, "/", "\\", "C:\\", "con", "session",
			u.ID[:len(u.ID)-1] + "!", strings.ToUpper(u.ID) + "x", strings.Repeat("a", 1<<20), strings.Repeat("../", 1000), "%2e%2e", "\xff\xfe", " ", u.ID + " ", "*", "'; --",
		} {
			_, err := k.s.Lookup(k.Context(), repo, id)
			k.is(err, blob.ErrUploadNotFound, "Lookup of "+show(id), "it is no ID")
			if err == nil || len(err.Error()) > 10_000 {
				k.Fatalf("the error for an ID of %d bytes has %d", len(id), len(err.Error()))
			}
			fake := u
			fake.ID = id
			_, err = k.s.Append(k.Context(), fake, strings.NewReader("x"))
			k.is(err, blob.ErrUploadNotFound, "Append to "+show(id), "it is no ID")
			k.is(k.s.Abort(k.Context(), fake), blob.ErrUploadNotFound, "Abort of "+show(id), "it is no ID")
		}
		foreign := u
		foreign.Repo = otherRepo
		k.is(k.s.Abort(k.Context(), foreign), blob.ErrUploadNotFound, "Abort from another repository", "the ID belongs to "+repo)
		k.finish(u, "content")
	}},
	{"Append/nobody else sees the bytes until Save", func(k *kit) {
		u := k.append(k.begin(), "one")
		next, err := k.s.Append(k.Context(), u, strings.NewReader("two"))
		k.ok(err, "Append")
		if next.Size != 6 || bytes.Equal(next.State, u.State) {
			k.Fatalf("Append = %+v, want u with Size 6 and State advanced", next)
		}
		k.unchanged(u, "Lookup still answers with u")
		k.finish(u, "one")
	}},
	{"Append/an error from r leaves no trace", func(k *kit) {
		u := k.append(k.begin(), "one")
		for _, bad := range []string{"", "two", long(2 << 20)} {
			k.leavesNothing(func() {
				_, err := blob.Append(k.Context(), k.s, u, -1, broken(bad))
				k.is(err, errReader, "Append", "r failed")
				k.unchanged(u, "a failed Append leaves the session as it was")
			})
		}
		u = k.append(u, "three")
		_, err := blob.Append(k.Context(), k.s, u, -1, broken(long(100)))
		k.is(err, errReader, "Append", "r failed")
		k.finish(u, "onethree")
	}},
	{"Append/a chunk out of order is refused with where to go on", func(k *kit) {
		u := k.append(k.begin(), "one")
		for _, start := range []int64{0, 2, 4, 1 << 40, -2} {
			_, err := blob.Append(k.Context(), k.s, u, start, strings.NewReader("two"))
			k.is(err, blob.ErrOffset, fmt.Sprintf("Append at %d", start), "the session ends at 3")
			var off *blob.OffsetError
			if !errors.As(err, &off) || off.Size != 3 || off.Start != start {
				k.Fatalf("Append at %d = %v, want an OffsetError with 3", start, err)
			}
		}
		u, err := blob.Append(k.Context(), k.s, u, 3, strings.NewReader("two"))
		k.ok(err, "Append at 3")
		k.finish(u, "onetwo")
	}},
	{"Append/the session may end while r is read", func(k *kit) {
		u := k.append(k.begin(), "one")
		k.leavesNothing(func() {
			_, err := blob.Append(k.Context(), k.s, u, -1, io.MultiReader(strings.NewReader("two"), spy{strings.NewReader(""), func() {
				if err := k.s.Abort(k.Context(), u); err != nil {
					k.Errorf("Abort: %v", err)
				}
			}}))
			k.is(err, blob.ErrUploadNotFound, "Append", "the session was aborted meanwhile")
		})
	}},
	{"Save/ErrConflict when the session is no longer old", func(k *kit) {
		u := k.append(k.begin(), "one")
		a, err := k.s.Append(k.Context(), u, strings.NewReader("aaaa"))
		k.ok(err, "Append")
		b, err := k.s.Append(k.Context(), u, strings.NewReader("bb"))
		k.ok(err, "a second Append to the same")
		b.Hash = []byte("kept as it is")
		k.ok(k.s.Save(k.Context(), u, b), "Save")
		k.is(k.s.Save(k.Context(), u, a), blob.ErrConflict, "Save of the other", "somebody else was first")
		k.unchanged(b, "the first Save stands")
		k.is(k.s.Commit(k.Context(), u, a, sha("oneaaaa")), blob.ErrConflict, "Commit of the other", "somebody else was first")
		k.unchanged(b, "a Commit that fails leaves the session as it was")
		k.lacks(repo, sha("oneaaaa"), "its Commit was refused")
		k.ok(k.s.Commit(k.Context(), b, b, sha("onebb")), "Commit")
		k.has(repo, sha("onebb"), "onebb")
	}},
	{"Save/after any other error the same call may be made again", func(k *kit) {
		for _, chunk := range []string{"short", long(2 << 20)} {
			u := k.append(k.begin(), "one")
			next, err := k.s.Append(k.Context(), u, strings.NewReader(chunk))
			k.ok(err, "Append")
			k.is(k.s.Save(k.canceled(), u, next), context.Canceled, "Save", "ctx has ended")
			k.unchanged(u, "a Save that fails leaves the session as it was")
			k.ok(k.s.Save(k.Context(), u, next), "Save again")
			k.ok(k.s.Commit(k.Context(), next, next, sha("one"+chunk)), "Commit")
			k.has(repo, sha("one"+chunk), "one"+chunk)
		}
	}},
	{"Commit/after any other error the same call may be made again", func(k *kit) {
		for _, chunk := range []string{"short", long(2 << 20)} {
			u := k.append(k.begin(), "two")
			next, err := k.s.Append(k.Context(), u, strings.NewReader(chunk))
			k.ok(err, "Append")
			k.is(k.s.Commit(k.canceled(), u, next, sha("two"+chunk)), context.Canceled, "Commit", "ctx has ended")
			k.unchanged(u, "a Commit that fails leaves the session as it was")
			k.ok(k.s.Commit(k.Context(), u, next, sha("two"+chunk)), "Commit again")
			k.has(repo, sha("two"+chunk), "two"+chunk)
		}
	}},
	{"Save/a chunk of nothing counts too", func(k *kit) {
		u := k.append(k.begin(), "one")
		a, err := k.s.Append(k.Context(), u, strings.NewReader(""))
		k.ok(err, "Append")
		b, err := k.s.Append(k.Context(), u, strings.NewReader(""))
		k.ok(err, "Append")
		k.ok(k.s.Save(k.Context(), u, a), "Save")
		k.is(k.s.Save(k.Context(), u, b), blob.ErrConflict, "Save of the other", "of several racing callers exactly one wins")
		u = k.append(k.lookup(u.ID), "")
		if u.Size != 3 {
			k.Fatalf("Size = %d after chunks of nothing, want 3", u.Size)
		}
		k.finish(k.append(u, "two"), "onetwo")
	}},
	{"Save/UpdatedAt is when the session was begun or last saved", func(k *kit) {
		k.clock()
		u := k.begin()
		if !u.UpdatedAt.Equal(day1) {
			k.Fatalf("UpdatedAt = %v, want %v", u.UpdatedAt, day1)
		}
		later := day1.Add(k.Lease)
		k.set(later)
		k.append(u, "one")
		if got := k.lookup(u.ID); !got.UpdatedAt.Equal(later) {
			k.Fatalf("UpdatedAt = %v, want the time of the Save, %v", got.UpdatedAt, later)
		}
	}},
	{"Commit/it ends the session", func(k *kit) {
		k.put(repo, "warm the store up")
		u := k.append(k.begin(), "content")
		next, err := k.s.Append(k.Context(), u, strings.NewReader("more"))
		k.ok(err, "Append")
		k.finish(u, "content")
		_, err = k.s.Append(k.Context(), u, strings.NewReader("x"))
		for what, err := range map[string]error{
			"Append": err,
			"Save":   k.s.Save(k.Context(), u, next),
			"Commit": k.s.Commit(k.Context(), u, u, sha("content")),
			"Abort":  k.s.Abort(k.Context(), u),
		} {
			k.is(err, blob.ErrUploadNotFound, what, "the session is finished")
		}
		k.has(repo, sha("content"), "content")
		k.ok(k.s.Delete(k.Context(), repo, sha("content"), never), "Delete")
		k.is(k.s.Commit(k.Context(), u, u, sha("content")), blob.ErrUploadNotFound, "Commit again", "the session is finished")
		k.lacks(repo, sha("content"), "it was deleted")
	}},
	{"Commit/it leaves nothing of the session behind", func(k *kit) {
		if k.Things == nil {
			k.Skip("Options.Things is nil")
		}
		before := k.Things(k, k.s)
		u := k.begin()
		_, err := k.s.Append(k.Context(), u, strings.NewReader("lost"))
		k.ok(err, "Append")
		u = k.append(u, long(2<<20))
		u = k.append(u, "more")
		_, err = k.s.Append(k.Context(), u, strings.NewReader("lost too"))
		k.ok(err, "Append")
		k.finish(u, long(2<<20)+"more")
		k.ok(k.s.Delete(k.Context(), repo, sha(long(2<<20)+"more"), never), "Delete")
		if after := k.Things(k, k.s); after > before {
			k.Fatalf("there were %d things in the store, and are %d after Commit and Delete", before, after)
		}
	}},
	{"Commit/u is what Append made of old", func(k *kit) {
		for _, first := range []string{"", "one", long(2 << 20)} {
			u := k.begin()
			if first != "" {
				u = k.append(u, first)
			}
			last := "the last chunk"
			k.ok(blob.Finish(k.Context(), k.s, u, u.Size, strings.NewReader(last), sha(first+last)), "Finish")
			k.has(repo, sha(first+last), first+last)
			k.is(k.s.Abort(k.Context(), u), blob.ErrUploadNotFound, "Abort", "the session is finished")
		}
	}},
	{"Commit/a wrong digest leaves the session at its former offset", func(k *kit) {
		u := k.append(k.begin(), "one")
		k.leavesNothing(func() {
			for _, last := range []io.Reader{nil, strings.NewReader("two"), strings.NewReader(long(2 << 20))} {
				for _, alg := range []digest.Algorithm{digest.SHA256, digest.SHA512} {
					if _, ok := blob.As[blob.Rereader](k.s); !ok && alg == digest.SHA512 {
						continue
					}
					err := blob.Finish(k.Context(), k.s, u, -1, last, alg.FromString("else"))
					k.is(err, blob.ErrDigest, "Finish", "the content is something else")
					k.lacks(repo, alg.FromString("else"), "its Finish was refused")
					k.unchanged(u, "a wrong digest leaves the session at its former offset")
				}
			}
		})
		k.is(blob.Finish(k.Context(), k.s, u, 1, strings.NewReader("x"), sha("else")), blob.ErrOffset, "Finish at 1", "the session ends at 3")
		k.is(blob.Finish(k.Context(), k.s, u, -1, broken("x"), sha("onex")), errReader, "Finish", "r failed")
		k.unchanged(u, "a failed Finish leaves the session as it was")
		k.finish(k.append(u, "two"), "onetwo")
	}},
	{"Commit/a blob that is there is no obstacle", func(k *kit) {
		k.put(repo, "content")
		k.finish(k.append(k.begin(), "content"), "content")
	}},
	{"Commit/it is a touch", func(k *kit) {
		k.clock()
		u := k.append(k.begin(), "content")
		two := k.append(k.append(k.begin(), long(2<<20)), "x")
		later := day1.Add(3 * k.Lease)
		k.set(later)
		k.finishAt(u, "content", later)
		k.finishAt(two, long(2<<20)+"x", later)
	}},
	{"Commit/an empty blob", func(k *kit) {
		k.finish(k.begin(), "")
		k.finish(k.append(k.begin(), ""), "")
		u := k.begin()
		k.ok(blob.Finish(k.Context(), k.s, u, 0, strings.NewReader(""), sha("")), "Finish with a last chunk of nothing")
		k.has(repo, sha(""), "")
	}},
	{"Commit/a sha512 is as good", func(k *kit) {
		u, err := k.s.Begin(k.Context(), repo, digest.SHA512)
		k.ok(err, "Begin")
		u = k.append(k.append(u, "one"), "two")
		if u = k.lookup(u.ID); u.Algorithm != digest.SHA512 {
			k.Fatalf("Algorithm = %q, want sha512", u.Algorithm)
		}
		dgst := digest.SHA512.FromString("onetwothree")
		k.ok(blob.Finish(k.Context(), k.s, u, -1, strings.NewReader("three"), dgst), "Finish")
		k.has(repo, dgst, "onetwothree")
	}},
	{"Reread/it returns the bytes of u", func(k *kit) {
		s, ok := blob.As[blob.Rereader](k.s)
		if !ok {
			k.Skip("the store is no Rereader")
		}
		u, content := k.begin(), ""
		for _, chunk := range []string{"", "one", long(2 << 20), "three", long(1000)} {
			u, content = k.append(u, chunk), content+chunk
			r, err := s.Reread(k.Context(), u)
			k.ok(err, "Reread")
			got, err := io.ReadAll(r)
			k.ok(err, "Reread")
			k.ok(r.Close(), "Close")
			if string(got) != content {
				k.Fatalf("Reread = %s, want %s", show(string(got)), show(content))
			}
		}
		// The digest at last is of another algorithm than the session's.
		dgst := digest.SHA512.FromString(content + "last")
		k.ok(blob.Finish(k.Context(), k.s, u, -1, strings.NewReader("last"), dgst), "Finish with a sha512")
		k.has(repo, dgst, content+"last")
		_, err := s.Reread(k.Context(), u)
		k.is(err, blob.ErrUploadNotFound, "Reread", "the session is finished")
	}},
	{"Abort/it ends the session and drops its bytes", func(k *kit) {
		k.put(repo, "warm the store up")
		k.append(k.begin(), "another session, which stays")
		k.leavesNothing(func() {
			for _, chunks := range []int{0, 1, 3} {
				u := k.begin()
				for range chunks {
					u = k.append(u, long(1<<20))
				}
				_, err := k.s.Append(k.Context(), u, strings.NewReader("never saved"))
				k.ok(err, "Append")
				before := u
				u = k.append(u, "saved since")
				k.is(k.s.Abort(k.Context(), before), blob.ErrConflict, "Abort", "the session has moved on")
				k.ok(k.s.Abort(k.Context(), u), "Abort")
				_, err = k.s.Lookup(k.Context(), repo, u.ID)
				k.is(err, blob.ErrUploadNotFound, "Lookup", "the session was aborted")
				_, err = k.s.Append(k.Context(), u, strings.NewReader("x"))
				k.is(err, blob.ErrUploadNotFound, "Append", "the session was aborted")
				k.is(k.s.Save(k.Context(), u, u), blob.ErrUploadNotFound, "Save", "the session was aborted")
				k.is(k.s.Abort(k.Context(), u), blob.ErrUploadNotFound, "Abort again", "the session was aborted")
			}
		})
	}},
	{"Upload/many tiny chunks", func(k *kit) {
		content := long(300)
		u := k.begin()
		for i := range len(content) {
			u = k.append(u, content[i:i+1])
		}
		k.finish(k.lookup(u.ID), content)
	}},
}

func (k *kit) finishAt(u blob.Upload, content string, now time.Time) {
	k.Helper()
	k.ok(blob.Finish(k.Context(), k.s, u, -1, nil, sha(content)), "Finish")
	k.touched(repo, sha(content), now)
}

var raceClauses = []clause{
	{"Save/of several racing callers exactly one wins, with its own bytes", func(k *kit) {
		const rounds, callers = 24, 6
		u, content := k.begin(), ""
		for round := range rounds {
			// In every other round nobody saves before all have appended, which
			// also a store without any locks gets right by chance otherwise.
			chunks, next := [callers]string{}, [callers]blob.Upload{}
			var won, winner atomic.Int64
			try := func(i int, err error) {
				switch {
				case err == nil:
					won.Add(1)
					winner.Store(int64(i))
				case !errors.Is(err, blob.ErrConflict):
					k.Errorf("caller %d: %v, want nil or ErrConflict", i, err)
				}
			}
			together(callers, func(i int) {
				chunks[i] = strings.Repeat(string(rune('a'+i)), 1+(round*7919+i*101)%3000)
				var err error
				next[i], err = k.s.Append(k.Context(), u, halves{strings.NewReader(chunks[i])})
				switch {
				case round%2 == 0 && err != nil:
					k.Errorf("Append = %v, though nobody has saved yet", err)
				case round%2 == 1 && err == nil:
					try(i, k.s.Save(k.Context(), u, next[i]))
				}
			})
			if round%2 == 0 && !k.Failed() {
				together(callers, func(i int) { try(i, k.s.Save(k.Context(), u, next[i])) })
			}
			if k.Failed() {
				return
			}
			if won.Load() != 1 {
				k.Fatalf("round %d: %d of %d racing callers won, want exactly one", round, won.Load(), callers)
			}
			content += chunks[winner.Load()]
			if u = k.lookup(u.ID); u.Size != int64(len(content)) {
				k.Fatalf("round %d: Size = %d, want the winner's %d", round, u.Size, len(content))
			}
		}
		k.ok(k.s.Commit(k.Context(), u, u, sha(content)), "Commit")
		k.has(repo, sha(content), content)
	}},
	{"Append/two calls at once neither mix their bytes nor wait for each other's r", func(k *kit) {
		for round := range 10 {
			first := long(round * 700)
			u := k.append(k.begin(), first)
			a, b := strings.Repeat("a", 200_000), strings.Repeat("b", 150_000)
			var next blob.Upload
			var err error
			// b is appended while a is in the middle.
			n := 0
			var ua blob.Upload
			var errA error
			k.ends("two calls at once do not wait for each other's r", func() {
				ua, errA = k.s.Append(k.Context(), u, spy{halves{strings.NewReader(a)}, func() {
					if n++; n == 2 {
						next, err = k.s.Append(k.Context(), u, strings.NewReader(b))
					}
				}})
			})
			k.ok(errA, "Append")
			k.ok(err, "Append while another is under way")
			want := first + a
			if round%2 == 0 {
				ua, want = next, first+b
			}
			k.ok(k.s.Save(k.Context(), u, ua), "Save")
			k.ok(k.s.Commit(k.Context(), ua, ua, sha(want)), "Commit")
			k.has(repo, sha(want), want)
		}
	}},
	{"Commit/of several racing callers exactly one wins", func(k *kit) {
		for round := range 20 {
			content := fmt.Sprint("content ", round)
			u := k.append(k.begin(), content)
			if round%2 == 0 {
				u = k.append(u, "")
			}
			var commits, saves atomic.Int64
			together(6, func(i int) {
				var err error
				if i < 3 {
					if err = blob.Finish(k.Context(), k.s, u, -1, nil, sha(content)); err == nil {
						commits.Add(1)
					}
				} else if _, err = blob.Append(k.Context(), k.s, u, -1, strings.NewReader(strings.Repeat("x", i))); err == nil {
					saves.Add(1)
				}
				if err != nil && !errors.Is(err, blob.ErrConflict) && !errors.Is(err, blob.ErrUploadNotFound) {
					k.Errorf("caller %d: %v, want nil, ErrConflict or ErrUploadNotFound", i, err)
				}
			})
			if commits.Load()+saves.Load() != 1 {
				k.Fatalf("round %d: %d commits and %d saves won, want exactly one", round, commits.Load(), saves.Load())
			}
			if commits.Load() == 1 {
				k.has(repo, sha(content), content)
			} else {
				k.lacks(repo, sha(content), "every Commit was refused")
				k.lookup(u.ID)
			}
		}
	}},
}

// halves yields half of what is asked for, so that writers come to and fro.
type halves struct{ r io.Reader }

func (h halves) Read(p []byte) (int, error) { return h.r.Read(p[:(len(p)+1)/2]) }
