package boltstore

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/blob"
)

// unsure runs call in a transaction whose commit fails when it has come to be, as it does
// when only the last sync fails.
func unsure(t *testing.T, db *DB, call func() error) {
	t.Helper()
	waiting, release := hold(t, db)
	var all sync.WaitGroup
	all.Go(func() { db.update(t.Context(), putRow("first", "1")) })
	for !leading(db) {
	}
	all.Go(func() {
		db.update(t.Context(), func(t *tx) error {
			t.bolt.OnCommit(func() { panic("the last sync fails") })
			t.put(pullRows, []byte("second"), nothing)
			return nil
		})
	})
	waiting(1)
	var failure error
	all.Go(func() { failure = call() })
	waiting(2)
	release()
	all.Wait()
	var unsure *commitError
	if !errors.As(failure, &unsure) {
		t.Fatalf("the call whose commit failed: %v", failure)
	}
}

func TestACommitThatFailsAndCameToBe(t *testing.T) {
	t.Run("of a blob", func(t *testing.T) {
		for _, packBelow := range []int{-1, 0} {
			db := open(t, Options{Unsynced: true, PackBelow: packBelow, MinPart: 1})
			b, dgst := db.Blobs(), digest.FromString("content")
			u, err := b.Begin(t.Context(), repo, digest.SHA256)
			if err != nil {
				t.Fatal(err)
			}
			next, err := b.Append(t.Context(), u, strings.NewReader("content"))
			if err != nil {
				t.Fatal(err)
			}
			unsure(t, db, func() error { return b.Commit(t.Context(), u, next, dgst) })
			if err := b.Commit(t.Context(), u, next, dgst); err != nil && !errors.Is(err, blob.ErrUploadNotFound) {
				t.Errorf("Commit again = %v", err)
			}
			if got, err := read(t, db, repo, dgst); got != "content" {
				t.Errorf("PackBelow %d: the blob is %q, %v", packBelow, got, err)
			}
			if got := sweep(t, db, time.Now().Add(time.Hour), false); len(got) > 0 {
				t.Errorf("strays: %q", got)
			}
			if got, err := read(t, db, repo, dgst); got != "content" {
				t.Errorf("PackBelow %d: after a sweep the blob is %q, %v", packBelow, got, err)
			}
		}
	})
	t.Run("of a session", func(t *testing.T) {
		db := open(t, Options{Unsynced: true})
		b := db.Blobs()
		u, err := b.Begin(t.Context(), repo, digest.SHA256)
		if err != nil {
			t.Fatal(err)
		}
		unsure(t, db, func() error {
			_, err := blob.Append(t.Context(), b, u, -1, strings.NewReader("con"))
			return err
		})
		if u, err = b.Lookup(t.Context(), repo, u.ID); err != nil || u.Size != 3 {
			t.Errorf("the session has %d bytes, %v, want the 3 that were saved", u.Size, err)
		}
		if err := blob.Finish(t.Context(), b, u, -1, strings.NewReader("tent"), digest.FromString("content")); err != nil {
			t.Errorf("Finish = %v", err)
		}
	})
	t.Run("of an era", func(t *testing.T) {
		db := open(t, Options{Unsynced: true})
		unsure(t, db, func() error {
			for _, err := range db.Blobs().Sweep(t.Context(), never, false) {
				return err
			}
			return nil
		})
		var era uint64
		if err := db.view(t.Context(), func(t *tx) error {
			era = number(t.get(metaRows, eraRow))
			return nil
		}); err != nil || era != db.era.Load() {
			t.Errorf("keys are made in era %d, and the current one is %d, %v", db.era.Load(), era, err)
		}
	})
}

// TestContentIsNotDroppedForItself puts what is there already, as who tries again a call that was
// told that it has failed.
func TestContentIsNotDroppedForItself(t *testing.T) {
	for _, packBelow := range []int{-1, 0} {
		db := open(t, Options{Unsynced: true, PackBelow: packBelow})
		c := stray(t, db)
		for range 2 {
			if err := db.Blobs().put(t.Context(), repo, digest.FromString("stray"), c); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := read(t, db, repo, digest.FromString("stray")); got != "stray" {
			t.Errorf("PackBelow %d: the blob is %q, %v", packBelow, got, err)
		}
	}
}

// TestNoPromiseBeforeItIsDurable asks for a blob that is visible, since bbolt has written its
// meta page, while the commit is not done yet.
func TestNoPromiseBeforeItIsDurable(t *testing.T) {
	dgst := digest.FromString("content")
	for name, ask := range map[string]func(context.Context, *Blobs) error{
		"Stat": func(ctx context.Context, b *Blobs) error {
			infos, err := b.Stat(ctx, repo, []digest.Digest{dgst})
			if err == nil && infos[0].Digest != dgst {
				err = blob.ErrNotFound
			}
			return err
		},
		"Mount": func(ctx context.Context, b *Blobs) error { return b.Mount(ctx, otherRepo, repo, dgst) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				db := open(t, Options{})
				put(t, db, otherRepo, "content")
				ctx, cancel := context.WithCancel(t.Context())
				answers := make(chan error, 2)
				if err := db.update(t.Context(), func(x *tx) error {
					x.setLink(repo, dgst, link{time.Now(), 7})
					x.bolt.OnCommit(func() {
						go func() { answers <- ask(ctx, db.Blobs()) }()
						synctest.Wait()
						cancel()
						if err := <-answers; !errors.Is(err, context.Canceled) {
							t.Errorf("before the commit is done: %v", err)
						}
						go func() { answers <- ask(t.Context(), db.Blobs()) }()
						synctest.Wait()
					})
					return nil
				}); err != nil {
					t.Fatal(err)
				}
				if err := <-answers; err != nil {
					t.Error(err)
				}
			})
		})
	}
}
