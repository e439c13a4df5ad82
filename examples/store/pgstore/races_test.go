package pgstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/examples/store/parts"
	"github.com/wharfage/wharfage/lifecycle"
	"github.com/wharfage/wharfage/manifest"
)

// together calls do on n goroutines at once, and waits for them.
func together(n int, do func(i int)) {
	var ready, done sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		ready.Add(1)
		done.Go(func() {
			ready.Done()
			<-start
			do(i)
		})
	}
	ready.Wait()
	close(start)
	done.Wait()
}

func put(t testing.TB, db *DB, repo, content string) digest.Digest {
	t.Helper()
	if err := tryPut(t.Context(), db, repo, content); err != nil {
		t.Fatalf("Put: %v", err)
	}
	return digest.FromString(content)
}

func tryPut(ctx context.Context, db *DB, repo, content string) error {
	return blob.Put(ctx, db.Blobs(), repo, ocispec.Descriptor{Digest: digest.FromString(content), Size: int64(len(content))}, strings.NewReader(content))
}

func read(ctx context.Context, db *DB, repo string, dgst digest.Digest) (string, error) {
	r, _, err := db.Blobs().Open(ctx, repo, dgst, 0, -1)
	if err != nil {
		return "", err
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	return string(b), err
}

// document returns a record whose Raw is no more than a name.
func document(name string, blobs ...digest.Digest) manifest.Record {
	raw := []byte(`{"name":"` + name + `"}`)
	return manifest.Record{Desc: ocispec.Descriptor{MediaType: manifest.MediaTypeImage, Digest: digest.FromBytes(raw), Size: int64(len(raw))}, Raw: raw, Blobs: blobs}
}

func apply(t testing.TB, db *DB, repo string, c manifest.Change) {
	t.Helper()
	if err := db.Manifests().Apply(t.Context(), repo, c); err != nil {
		t.Fatalf("Apply: %v", err)
	}
}

const rounds = 50

// two returns a store and the same as another process sees it.
func two(t testing.TB) [2]*DB {
	one := open(t, Options{})
	return [2]*DB{one, again(t, one)}
}

func TestOfTwoProcessesOneMovesATag(t *testing.T) {
	dbs := two(t)
	for round := range rounds {
		var errs [2]error
		together(2, func(i int) {
			rec := document(fmt.Sprint(round, i))
			errs[i] = dbs[i].Manifests().Apply(t.Context(), "r", manifest.Change{
				Put: []manifest.Record{rec}, Tags: []manifest.TagMove{{Name: fmt.Sprint("t", round), To: rec.Desc.Digest, From: manifest.Absent}},
			})
		})
		if (errs[0] == nil) == (errs[1] == nil) || !errors.Is(errors.Join(errs[:]...), manifest.ErrConflict) {
			t.Fatalf("round %d: %v, %v, want one to win and the other to conflict", round, errs[0], errs[1])
		}
	}
}

func TestAPullThatIsRecordedWhileItsManifestGoesDoesNotStay(t *testing.T) {
	dbs := two(t)
	for round := range rounds {
		var c manifest.Change
		var pulls []lifecycle.Pull
		for i := range 10 {
			rec := document(fmt.Sprint(round, i))
			c.Put = append(c.Put, rec)
			c.Delete = append(c.Delete, manifest.Removal{Digest: rec.Desc.Digest})
			pulls = append(pulls, lifecycle.Pull{Digest: rec.Desc.Digest, At: time.Now()})
		}
		apply(t, dbs[0], "r", manifest.Change{Put: c.Put})
		var errs [2]error
		together(2, func(i int) {
			if i == round%2 {
				errs[i] = dbs[i].Pulls().Touch(t.Context(), "r", pulls)
			} else {
				errs[i] = dbs[i].Manifests().Apply(t.Context(), "r", manifest.Change{Delete: c.Delete})
			}
		})
		if err := errors.Join(errs[:]...); err != nil {
			t.Fatal(err)
		}
		for pull, err := range dbs[0].Pulls().Pulls(t.Context(), "r", "") {
			t.Fatalf("round %d: a pull of %s is recorded, %v", round, pull.Digest, err)
		}
	}
}

func TestOfTwoProcessesOneSavesASession(t *testing.T) {
	dbs := two(t)
	u, err := dbs[0].Blobs().Begin(t.Context(), "r", digest.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	content := ""
	for round := range rounds {
		chunk := [2]string{strings.Repeat("a", round+1), strings.Repeat("b", round+1)}
		var errs [2]error
		together(2, func(i int) {
			_, errs[i] = blob.Append(t.Context(), dbs[i].Blobs(), u, -1, strings.NewReader(chunk[i]))
		})
		if (errs[0] == nil) == (errs[1] == nil) || !errors.Is(errors.Join(errs[:]...), blob.ErrConflict) {
			t.Fatalf("round %d: %v, %v, want one to win and the other to conflict", round, errs[0], errs[1])
		}
		if errs[0] == nil {
			content += chunk[0]
		} else {
			content += chunk[1]
		}
		if u, err = dbs[round%2].Blobs().Lookup(t.Context(), "r", u.ID); err != nil {
			t.Fatal(err)
		}
	}
	dgst := digest.FromString(content)
	if err := blob.Finish(t.Context(), dbs[1].Blobs(), u, -1, nil, dgst); err != nil {
		t.Fatal(err)
	}
	if got, err := read(t.Context(), dbs[0], "r", dgst); got != content {
		t.Fatalf("read %q, %v, want the winners' chunks", got, err)
	}
}

func TestAPushAndADeletionOfItsBlobNeverBothSucceed(t *testing.T) {
	dbs := two(t)
	for round := range rounds {
		dgst := put(t, dbs[0], "r", fmt.Sprint("blob ", round))
		rec := document(fmt.Sprint(round), dgst)
		var pushed, deleted error
		together(2, func(i int) {
			if i == round%2 {
				pushed = dbs[i].Manifests().Apply(t.Context(), "r", manifest.Change{RequireBlobs: rec.Blobs, Put: []manifest.Record{rec}})
			} else {
				deleted = dbs[i].Blobs().Delete(t.Context(), "r", dgst, time.Time{})
			}
		})
		switch {
		case pushed == nil && errors.Is(deleted, blob.ErrConflict):
			if _, err := read(t.Context(), dbs[1], "r", dgst); err != nil {
				t.Fatalf("round %d: the blob of an acknowledged manifest: %v", round, err)
			}
		case deleted == nil && errors.Is(pushed, manifest.ErrMissing):
		default:
			t.Fatalf("round %d: push: %v; deletion: %v", round, pushed, deleted)
		}
	}
}

// Repositories share what is deleted by one, put by another and mounted by a
// third.
func TestSharedContentStaysWhileItHasALink(t *testing.T) {
	dbs := two(t)
	ctx := t.Context()
	repos := []string{"a", "b", "c"}
	for round := range rounds {
		content := fmt.Sprint("shared ", round)
		dgst := put(t, dbs[0], "b", content)
		errs := make([]error, 4)
		together(4, func(i int) {
			switch db := dbs[i%2]; i {
			case 0:
				errs[i] = tryPut(ctx, db, "a", content)
			case 1, 2:
				if errs[i] = db.Blobs().Delete(ctx, "b", dgst, time.Time{}); errors.Is(errs[i], blob.ErrNotFound) {
					errs[i] = nil
				}
			case 3:
				if errs[i] = db.Blobs().Mount(ctx, "b", "c", dgst); errors.Is(errs[i], blob.ErrNotFound) {
					errs[i] = nil
				}
			}
		})
		if err := errors.Join(errs...); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		for _, repo := range repos {
			infos, err := dbs[1].Blobs().Stat(ctx, repo, []digest.Digest{dgst})
			if err != nil {
				t.Fatal(err)
			}
			if repo == "b" && infos[0].Digest != "" || repo == "a" && infos[0].Digest == "" {
				t.Fatalf("round %d: Stat in %s = %+v", round, repo, infos[0])
			}
			if infos[0].Digest == "" {
				continue
			}
			if got, err := read(ctx, dbs[1], repo, dgst); got != content {
				t.Fatalf("round %d: read %q from %s, %v", round, got, repo, err)
			}
			if err := dbs[0].Blobs().Delete(ctx, repo, dgst, time.Time{}); err != nil {
				t.Fatal(err)
			}
		}
		if n := things(t, dbs[0]); n != 0 {
			t.Fatalf("round %d: %d things are left", round, n)
		}
	}
}

// Sweeps that give no grace run beside everything else.
func TestASweepNeverTakesWhatIsReferredTo(t *testing.T) {
	dbs := two(t)
	dbs[1].o.Objects = &objects{Objects: dbs[1].o.Objects} // no blob.ObjectSweeper, which would fail calls before we do
	ctx, stop := context.WithCancel(t.Context())
	var sweeping sync.WaitGroup
	sweeping.Go(func() {
		for ctx.Err() == nil {
			for _, err := range dbs[1].Blobs().Sweep(ctx, time.Now().Add(time.Hour), false) {
				if err != nil && ctx.Err() == nil {
					t.Errorf("Sweep: %v", err)
				}
			}
		}
	})
	put, refused := 0, 0
	late := func(err error) bool {
		if errors.Is(err, parts.ErrEra) {
			refused++
			return true
		}
		if err != nil {
			t.Fatal(err)
		}
		put++
		return false
	}
	kept := map[digest.Digest]string{}
	for round := range 4 * rounds {
		content := fmt.Sprint("content ", round)
		if round%2 == 0 {
			if late(tryPut(t.Context(), dbs[0], "r", content)) {
				continue
			}
		} else {
			u, err := dbs[0].Blobs().Begin(t.Context(), "r", digest.SHA256)
			if err != nil {
				t.Fatal(err)
			}
			if u, err = blob.Append(t.Context(), dbs[0].Blobs(), u, -1, strings.NewReader(content)); late(err) {
				continue
			}
			if late(blob.Finish(t.Context(), dbs[0].Blobs(), u, -1, nil, digest.FromString(content))) {
				continue
			}
		}
		kept[digest.FromString(content)] = content
	}
	stop()
	sweeping.Wait()
	for dgst, content := range kept {
		if got, err := read(t.Context(), dbs[0], "r", dgst); got != content {
			t.Fatalf("read %q, %v, want %q", got, err, content)
		}
	}
	t.Logf("%d writes were acknowledged, %d refused", put, refused)
}

// A session may end between an Append and the Commit of what it has made.
func TestWhatCannotBeCommittedLeavesNothing(t *testing.T) {
	db := open(t, Options{MinPart: 1})
	u, err := db.Blobs().Begin(t.Context(), "r", digest.SHA256)
	if err == nil {
		u, err = blob.Append(t.Context(), db.Blobs(), u, -1, strings.NewReader("saved"))
	}
	next := u
	if err == nil {
		next, err = db.Blobs().Append(t.Context(), u, strings.NewReader("more"))
	}
	if err == nil {
		err = db.Blobs().Abort(t.Context(), u)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Blobs().Commit(t.Context(), u, next, digest.FromString("savedmore")); !errors.Is(err, blob.ErrUploadNotFound) {
		t.Errorf("Commit = %v", err)
	}
	if n := things(t, db); n != 0 {
		t.Errorf("%d things are left", n)
	}
}
