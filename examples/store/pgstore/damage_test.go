package pgstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/blob/dirblob"
)

func TestAPushRepairsABlobWhoseBytesAreLost(t *testing.T) {
	const content = "content of a blob"
	dgst := digest.FromString(content)
	upload := func(t testing.TB, db *DB, repo string) error {
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
	}
	pushes := map[string]func(testing.TB, *DB, string) error{
		"Put":    func(t testing.TB, db *DB, repo string) error { return tryPut(t.Context(), db, repo, content) },
		"Finish": upload,
	}
	damages := map[string]func(path string) error{
		"an object is gone":     os.Remove,
		"an object is cut":      func(path string) error { return os.Truncate(path, 1) },
		"an object is too long": func(path string) error { return os.WriteFile(path, []byte(content+content), 0o666) },
	}
	for first, put := range pushes {
		for second, again := range pushes {
			for what, damage := range damages {
				for _, repo := range []string{"a", "b"} {
					t.Run(fmt.Sprintf("%s, %s, %s in %s", first, what, second, repo), func(t *testing.T) {
						dir := t.TempDir()
						db := open(t, Options{MinPart: 1, Objects: &dirblob.Objects{Dir: dir, Unsynced: true}})
						if err := put(t, db, "a"); err != nil {
							t.Fatal(err)
						}
						if err := damage(filepath.Join(dir, keysThere(t, db)[0])); err != nil {
							t.Fatal(err)
						}
						if err := again(t, db, repo); err != nil {
							t.Fatal(err)
						}
						for _, repo := range []string{"a", repo} {
							if got, err := read(t.Context(), db, repo, dgst); got != content {
								t.Errorf("in %s there is %q, %v", repo, got, err)
							}
						}
						if got := sweep(t, db, always, false); len(got) > 0 {
							t.Errorf("strays: %q", got)
						}
						var objects, sessions int
						if err := db.pool.QueryRow(t.Context(), `select (select count(*) from object), (select count(*) from session)`).Scan(&objects, &sessions); err != nil {
							t.Fatal(err)
						}
						if n := len(keysThere(t, db)); n != objects || sessions != 0 {
							t.Errorf("%d objects, %d rows of them and %d sessions", n, objects, sessions)
						}
					})
				}
			}
		}
	}
}

func TestPushesAtOnceRepairABlobOnce(t *testing.T) {
	dbs := two(t)
	for round := range 10 {
		content := fmt.Sprint("content ", round)
		dgst := put(t, dbs[0], "r", content)
		for _, key := range keysThere(t, dbs[0]) {
			if err := dbs[0].o.Objects.Delete(t.Context(), key); err != nil {
				t.Fatal(err)
			}
		}
		together(4, func(i int) {
			if err := tryPut(t.Context(), dbs[i%2], fmt.Sprint("r", i), content); err != nil {
				t.Error(err)
			}
		})
		if got, err := read(t.Context(), dbs[1], "r", dgst); got != content {
			t.Fatalf("%q, %v", got, err)
		}
		if keys := keysThere(t, dbs[0]); len(keys) != 1 {
			t.Fatalf("%d objects, want 1", len(keys))
		}
	}
}

// Between the look for its objects and the link a content may go, and come
// back, or be lost.
func TestAPushLooksAgainWhenTheContentIsAnother(t *testing.T) {
	db := open(t, Options{})
	o := &objects{Objects: db.o.Objects}
	db.o.Objects = o
	for what, meanwhile := range map[string]func(dgst digest.Digest) error{
		"goes": func(dgst digest.Digest) error { return db.Blobs().Delete(t.Context(), "r", dgst, time.Time{}) },
		"comes anew": func(dgst digest.Digest) error {
			return errors.Join(db.Blobs().Delete(t.Context(), "r", dgst, time.Time{}), tryPut(t.Context(), db, "r", "content"))
		},
	} {
		dgst := put(t, db, "r", "content")
		o.opening = func() {
			if err := meanwhile(dgst); err != nil {
				t.Error(err)
			}
		}
		put(t, db, "s", "content")
		if o.opening != nil {
			t.Fatal("nobody has looked")
		}
		if got, err := read(t.Context(), db, "s", dgst); got != "content" || len(keysThere(t, db)) != 1 {
			t.Errorf("it %s: %q, %v, and %d objects", what, got, err, len(keysThere(t, db)))
		}
		for _, repo := range []string{"r", "s"} {
			if err := db.Blobs().Delete(t.Context(), repo, dgst, time.Time{}); err != nil && !errors.Is(err, blob.ErrNotFound) {
				t.Fatal(err)
			}
		}
	}
}

var errUnreadable = errors.New("unreadable")

type unreadable struct{ blob.Objects }

func (unreadable) Open(context.Context, string, int64, int64) (io.ReadCloser, blob.Object, error) {
	return nil, blob.Object{}, errUnreadable
}

func TestAPushThatCannotLookFails(t *testing.T) {
	db := open(t, Options{})
	dgst := put(t, db, "r", "content")
	before := things(t, db)
	db.o.Objects = unreadable{db.o.Objects}
	if err := tryPut(t.Context(), db, "s", "content"); !errors.Is(err, errUnreadable) {
		t.Errorf("Put = %v, want the error of Objects", err)
	}
	if after := things(t, db); after != before {
		t.Errorf("%d things, were %d", after, before)
	}
	infos, err := db.Blobs().Stat(t.Context(), "s", []digest.Digest{dgst})
	if err != nil || infos[0].Digest != "" {
		t.Errorf("it is visible: %v, %v", infos, err)
	}
}

func TestLostBytesOfAnUploadAreNotAConflict(t *testing.T) {
	db := open(t, Options{MinPart: 1})
	b := db.Blobs()
	u, err := b.Begin(t.Context(), "r", digest.SHA256)
	if err == nil {
		u, err = blob.Append(t.Context(), b, u, -1, strings.NewReader("content"))
	}
	var lost blob.Upload // to another one that is saved
	if err == nil {
		lost, err = b.Append(t.Context(), u, strings.NewReader("lost"))
	}
	if err == nil {
		u, err = blob.Append(t.Context(), b, u, -1, strings.NewReader("more"))
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range keysThere(t, db) {
		if err := db.o.Objects.Delete(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	err = blob.Finish(t.Context(), b, u, -1, nil, digest.SHA512.FromString("contentmore")) // which reads them
	if err == nil || errors.Is(err, blob.ErrNotFound) || errors.Is(err, blob.ErrUploadNotFound) || errors.Is(err, blob.ErrConflict) {
		t.Errorf("Finish = %v, want another error", err)
	}
	if _, err := b.Reread(t.Context(), lost); !errors.Is(err, blob.ErrConflict) {
		t.Errorf("Reread of what somebody has won over: %v", err)
	}
	if err := b.Abort(t.Context(), u); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Reread(t.Context(), u); !errors.Is(err, blob.ErrUploadNotFound) {
		t.Errorf("Reread when it has ended: %v", err)
	}
}
