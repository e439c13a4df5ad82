package histories

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/wharfage/wharfage"
	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/blob/dirblob"
	"github.com/wharfage/wharfage/blob/memblob"
	"github.com/wharfage/wharfage/examples/store/boltstore"
	"github.com/wharfage/wharfage/examples/store/pgstore"
	"github.com/wharfage/wharfage/examples/store/pgstore/pgtest"
	"github.com/wharfage/wharfage/lifecycle"
	"github.com/wharfage/wharfage/lifecycle/mempulls"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/manifest/memmanifest"
	"github.com/wharfage/wharfage/referrers"
)

// manifests is what a manifest store has to have for histories.
type manifests interface {
	manifest.Store
	manifest.Catalog
	referrers.Index
}

// system is a registry's storage under test. What blobs and manifests can do
// beyond their types is tested where they can.
type system struct {
	blobs     blob.Store
	manifests manifests
	pulls     lifecycle.Activity // nil where there is none

	reindex func(ctx context.Context, repo string) (int, error) // nil where there is none

	sharedTouch bool // see model

	// reopen does what a process does that ends and starts again: it replaces the
	// fields above.
	reopen func(*system) error
	close  func() error
}

func (s *system) end(t testing.TB) {
	if s.close == nil {
		return
	}
	if err := s.close(); err != nil {
		t.Errorf("close: %v", err)
	}
}

// opener makes an empty system, whose clock is now.
type opener func(now func() time.Time) (*system, error)

// store makes systems. They are empty, and one at a time is in use.
type store struct {
	name      string
	checks    int // how many random histories, by default
	histories int // and how many of concurrent clients
	// prepare returns what makes them. It may skip the test.
	prepare func(t testing.TB) opener
}

var stores = []store{
	{"memory", 500, 100, func(testing.TB) opener { return openMemory }},
	{"dirblob", 100, 0, prepareDir},
	{"boltstore", 100, 40, prepareBolt},
	{"pgstore", 20, 10, preparePostgres},
}

func openMemory(now func() time.Time) (*system, error) {
	blobs, manifests := &memblob.Store{Now: now, Lease: lease}, &memmanifest.Store{KeepEvents: true}
	blobs.Guard = wharfage.GuardBlobs(manifests)
	manifests.MissingBlobs = blob.Missing(blobs)
	return &system{blobs: blobs, manifests: manifests, pulls: &mempulls.Store{Now: now}}, nil
}

// newDir returns a function that makes an empty directory and removes the one
// before.
func newDir(t testing.TB) func() (string, error) {
	parent := t.TempDir()
	last := ""
	return func() (string, error) {
		if last != "" {
			if err := os.RemoveAll(last); err != nil {
				return "", err
			}
		}
		var err error
		last, err = os.MkdirTemp(parent, "")
		return last, err
	}
}

func prepareDir(t testing.TB) opener {
	dirs := newDir(t)
	return func(now func() time.Time) (*system, error) {
		dir, err := dirs()
		if err != nil {
			return nil, err
		}
		manifests := &memmanifest.Store{KeepEvents: true}
		s := &system{manifests: manifests, sharedTouch: true}
		s.reopen = func(s *system) error {
			blobs := &dirblob.Store{Dir: dir, Unsynced: true, Now: now, Lease: lease, Guard: wharfage.GuardBlobs(manifests)}
			manifests.MissingBlobs = blob.Missing(blobs)
			s.blobs = blobs
			return nil
		}
		return s, s.reopen(s)
	}
}

func prepareBolt(t testing.TB) opener {
	dirs := newDir(t)
	return func(now func() time.Time) (*system, error) {
		dir, err := dirs()
		if err != nil {
			return nil, err
		}
		s := new(system)
		open := func(s *system) error {
			db, err := boltstore.Open(boltstore.Options{
				Dir: dir, Unsynced: true, Lease: lease, Now: now, KeepEvents: true,
				MinPart: 3, // so that chunks become parts
			})
			if err != nil {
				return err
			}
			s.blobs, s.manifests, s.pulls, s.reindex, s.close = db.Blobs(), db.Manifests(), db.Pulls(), db.Reindex, db.Close
			return nil
		}
		s.reopen = func(s *system) error {
			if err := s.close(); err != nil {
				return fmt.Errorf("close: %w", err)
			}
			return open(s)
		}
		return s, open(s)
	}
}

// emptied makes the tables as they were when they were new, but for the number
// of the era.
const emptied = `
	truncate object, content, link, session, manifest, tag, need, parent, event, pull;
	delete from era where era < (select max(era) from era);
	update era set began_at = '-infinity'`

// preparePostgres makes systems that are one store, emptied in between: it costs
// less than a schema for each.
func preparePostgres(t testing.TB) opener {
	var (
		ctx = context.Background()
		o   = pgstore.Options{
			DSN: pgtest.Start(t), Lease: lease, KeepEvents: true, MaxConns: clients,
			MinPart: 3, // so that chunks become parts
			Objects: &dirblob.Objects{Dir: t.TempDir(), Unsynced: true},
		}
		db    *pgstore.DB
		clock func() time.Time
	)
	o.Now = func() time.Time { return clock() }
	use := func(s *system) {
		s.blobs, s.manifests, s.pulls, s.reindex = db.Blobs(), db.Manifests(), db.Pulls(), db.Reindex
	}
	open := func(s *system) (err error) {
		if db, err = pgstore.Open(ctx, o); err == nil {
			use(s)
		}
		return err
	}
	conn, err := pgx.Connect(ctx, o.DSN)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close(ctx)
		if db != nil {
			db.Close()
		}
	})
	return func(now func() time.Time) (*system, error) {
		clock = now
		s := &system{reopen: func(s *system) error {
			db.Close()
			return open(s)
		}}
		if db == nil {
			return s, open(s)
		}
		use(s)
		_, err := conn.Exec(ctx, emptied)
		return s, err
	}
}
