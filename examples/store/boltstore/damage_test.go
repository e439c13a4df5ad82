package boltstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/manifest"
)

// damage loses the bytes of all that there is.
func damage(t testing.TB, db *DB) {
	t.Helper()
	for o, err := range db.Objects.List(t.Context(), "", "") {
		if err == nil {
			err = db.Objects.Delete(t.Context(), o.Key)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if db.packs == nil {
		return
	}
	db.packs.stop()
	if err := os.RemoveAll(db.packs.dir); err != nil {
		t.Fatal(err)
	}
}

func TestAPushRepairsABlobWhoseBytesAreLost(t *testing.T) {
	const content = "content of a blob"
	dgst := digest.FromString(content)
	pushes := map[string]func(testing.TB, *DB, string) error{
		"Put": func(t testing.TB, db *DB, repo string) error {
			return blob.Put(t.Context(), db.Blobs(), repo, ocispec.Descriptor{Digest: dgst, Size: int64(len(content))}, strings.NewReader(content))
		},
		"Finish": func(t testing.TB, db *DB, repo string) error {
			u, err := db.Blobs().Begin(t.Context(), repo, digest.SHA256)
			for _, chunk := range []string{content[:5], content[5:9]} {
				if err == nil {
					u, err = blob.Append(t.Context(), db.Blobs(), u, -1, strings.NewReader(chunk))
				}
			}
			if err == nil {
				err = blob.Finish(t.Context(), db.Blobs(), u, -1, strings.NewReader(content[9:]), dgst)
			}
			return err
		},
	}
	for first, put := range pushes {
		for second, again := range pushes {
			for _, packBelow := range []int{-1, 0} {
				for _, repo := range []string{repo, otherRepo} {
					t.Run(fmt.Sprintf("%s, then %s in %s, PackBelow %d", first, second, filepath.Base(repo), packBelow), func(t *testing.T) {
						db := open(t, Options{Unsynced: true, MinPart: 1, PackBelow: packBelow})
						if err := put(t, db, "team/app"); err != nil {
							t.Fatal(err)
						}
						damage(t, db)
						if err := again(t, db, repo); err != nil {
							t.Fatal(err)
						}
						for _, repo := range []string{"team/app", repo} {
							if got, err := read(t, db, repo, dgst); got != content {
								t.Errorf("in %s there is %q, %v", repo, got, err)
							}
						}
						if got := sweep(t, db, time.Now().Add(time.Hour), false); len(got) > 0 {
							t.Errorf("strays: %q", got)
						}
						for _, repo := range []string{"team/app", repo} {
							if err := db.Blobs().Delete(t.Context(), repo, dgst, never); err != nil && !errors.Is(err, blob.ErrNotFound) {
								t.Fatal(err)
							}
						}
						if n := things(t, db); n != 0 {
							t.Errorf("%d things are left when it is deleted", n)
						}
					})
				}
			}
		}
	}
}

// TestALostPackIsNotTakenForALaterOne loses the last pack while the store is closed, as a copy
// of the directory does that was made while it grew.
func TestALostPackIsNotTakenForALaterOne(t *testing.T) {
	for name, lose := range map[string]func(file string) error{
		"lost": os.Remove,
		"cut":  func(file string) error { return os.Truncate(file, 3) },
	} {
		t.Run(name, func(t *testing.T) {
			db := open(t, Options{Unsynced: true})
			dgst := put(t, db, repo, "content")
			db.Close()
			if err := lose(db.packs.path(1)); err != nil {
				t.Fatal(err)
			}
			db = reopen(t, db)
			other := put(t, db, repo, "another content")
			if got, err := read(t, db, repo, dgst); err == nil || errors.Is(err, blob.ErrNotFound) {
				t.Errorf("what was lost is %q, %v, want an error that is not ErrNotFound", got, err)
			}
			put(t, db, otherRepo, "content")
			for dgst, want := range map[digest.Digest]string{dgst: "content", other: "another content"} {
				if got, err := read(t, db, repo, dgst); got != want {
					t.Errorf("when it is pushed again, %s is %q, %v", dgst, got, err)
				}
			}
		})
	}
}

func TestLostBytesOfAnUploadAreNotNotFound(t *testing.T) {
	for _, packBelow := range []int{-1, 0} {
		db := open(t, Options{Unsynced: true, MinPart: 1, PackBelow: packBelow})
		b := db.Blobs()
		u, err := b.Begin(t.Context(), repo, digest.SHA256)
		if err == nil {
			u, err = blob.Append(t.Context(), b, u, -1, strings.NewReader("content"))
		}
		if err != nil {
			t.Fatal(err)
		}
		damage(t, db)
		err = blob.Finish(t.Context(), b, u, -1, nil, digest.SHA512.FromString("content")) // which reads them
		if err == nil || errors.Is(err, blob.ErrNotFound) || errors.Is(err, blob.ErrUploadNotFound) || errors.Is(err, blob.ErrConflict) {
			t.Errorf("Finish = %v, want another error", err)
		}
		if err := b.Abort(t.Context(), u); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Reread(t.Context(), u); !errors.Is(err, blob.ErrUploadNotFound) {
			t.Errorf("Reread when it has ended: %v", err)
		}
	}
}

func TestPushesAtOnceRepairABlobOnce(t *testing.T) {
	for _, packBelow := range []int{-1, 0} {
		db := open(t, Options{Unsynced: true, PackBelow: packBelow})
		for round := range 20 {
			content := fmt.Sprint("content ", round)
			dgst := put(t, db, repo, content)
			damage(t, db)
			var all sync.WaitGroup
			for i := range 4 {
				all.Go(func() { put(t, db, fmt.Sprint("r", i), content) })
			}
			all.Wait()
			if got, err := read(t, db, repo, dgst); got != content {
				t.Fatalf("%q, %v", got, err)
			}
			if n := objects(t, db); packBelow < 0 && n != 1 {
				t.Fatalf("%d objects, want 1", n)
			}
		}
	}
}

func TestAPushRepairsAManifestWhoseBytesAreLost(t *testing.T) {
	for _, packBelow := range []int{-1, 0} {
		db := open(t, Options{Unsynced: true, PackBelow: packBelow, CacheBytes: -1})
		image := push(t, db, repo, "layer", nil)
		signature := push(t, db, repo, "signature", &image.Desc)
		before, err := db.Manifests().Describe(t.Context(), repo, []digest.Digest{image.Desc.Digest, signature.Desc.Digest})
		if err != nil {
			t.Fatal(err)
		}
		damage(t, db)
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				push(t, db, repo, "layer", nil)
				push(t, db, repo, "signature", &image.Desc)
			})
		}
		all.Wait()
		for i, want := range []manifest.Record{image, signature} {
			got, err := db.Manifests().Get(t.Context(), repo, want.Desc.Digest)
			if err != nil || !bytes.Equal(got.Raw, want.Raw) || !got.PushedAt.Equal(before[i].PushedAt) {
				t.Errorf("%q pushed at %v, %v", got.Raw, got.PushedAt, err)
			}
		}
		if n, err := db.Reindex(t.Context(), repo); n != 0 || err != nil {
			t.Errorf("%d rows were wrong, %v", n, err)
		}
		if got := sweep(t, db, time.Now().Add(time.Hour), false); len(got) > 0 {
			t.Errorf("strays: %q", got)
		}
		layer := digest.FromString("layer")
		if err := db.Blobs().Delete(t.Context(), repo, layer, never); !errors.Is(err, blob.ErrConflict) {
			t.Errorf("the layer: %v", err)
		}
		removals := []manifest.Removal{{Digest: image.Desc.Digest}, {Digest: signature.Desc.Digest}}
		if err := db.Manifests().Apply(t.Context(), repo, manifest.Change{Delete: removals}); err != nil {
			t.Fatal(err)
		}
		_, empty := manifest.Empty()
		for _, d := range []digest.Digest{layer, digest.FromString("signature"), digest.FromBytes(empty)} {
			if err := db.Blobs().Delete(t.Context(), repo, d, never); err != nil {
				t.Error(err)
			}
		}
		if n := things(t, db); n != 0 {
			t.Errorf("%d things are left when all is deleted", n)
		}
	}
}

// Between the look for its bytes and the link a content may go, and come back.
func TestAPushLooksAgainWhenTheContentIsAnother(t *testing.T) {
	db := open(t, Options{Unsynced: true})
	o := &opening{Objects: db.files.Objects}
	db.files.Objects = o
	for what, meanwhile := range map[string]func(dgst digest.Digest) error{
		"goes": func(dgst digest.Digest) error { return db.Blobs().Delete(t.Context(), repo, dgst, never) },
		"comes anew": func(dgst digest.Digest) error {
			err := db.Blobs().Delete(t.Context(), repo, dgst, never)
			put(t, db, repo, "content")
			return err
		},
	} {
		dgst := put(t, db, repo, "content")
		o.first = func() {
			if err := meanwhile(dgst); err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
		put(t, db, otherRepo, "content")
		if got, err := read(t, db, otherRepo, dgst); got != "content" {
			t.Errorf("content that %s is %q, %v", what, got, err)
		}
	}
}

// opening does something before the next Open.
type opening struct {
	blob.Objects
	first func()
}

func (o *opening) Open(ctx context.Context, key string, off, n int64) (io.ReadCloser, blob.Object, error) {
	if f := o.first; f != nil {
		o.first = nil
		f()
	}
	return o.Objects.Open(ctx, key, off, n)
}
