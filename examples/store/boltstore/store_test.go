package boltstore

import (
	"context"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/blob/blobtest"
	"github.com/wharfage/wharfage/lifecycle"
	"github.com/wharfage/wharfage/lifecycle/lifecycletest"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/manifest/manifesttest"
	"github.com/wharfage/wharfage/referrers"
	"github.com/wharfage/wharfage/referrers/referrerstest"
	"github.com/wharfage/wharfage/repository"
	"github.com/wharfage/wharfage/repository/repositorytest"
)

func open(t testing.TB, o Options) *DB {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	db, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func reopen(t testing.TB, db *DB) *DB {
	t.Helper()
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	o := db.Options
	o.Objects = nil
	return open(t, o)
}

// things counts rows, files, and what is to get a row.
func things(t testing.TB, db *DB) (n int) {
	t.Helper()
	if err := db.bolt.View(func(b *bolt.Tx) error {
		for i, name := range buckets {
			if i != metaRows && i != eraRows {
				n += b.Bucket(name).Stats().KeyN
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if db.packs != nil {
		n += len(db.packs.pending)
	}
	return n + objects(t, db)
}

func objects(t testing.TB, db *DB) (n int) {
	t.Helper()
	filepath.WalkDir(filepath.Join(db.Dir, "objects"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && d.Name() == "owner" {
			return fs.SkipDir
		}
		if err == nil && !d.IsDir() {
			n++
		}
		return nil
	})
	return n
}

// clock is a Now that may be set later.
type clock struct {
	mu  sync.Mutex
	now func() time.Time
}

func (c *clock) time() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.now == nil {
		return time.Now()
	}
	return c.now()
}

func (c *clock) set(now func() time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = now
}

func TestBlobs(t *testing.T) {
	for name, o := range map[string]Options{
		"as it comes":    {},
		"short lease":    {Lease: time.Minute},
		"objects only":   {PackBelow: -1},
		"some are short": {PackBelow: 10},
	} {
		o.Unsynced = true
		t.Run(name, func(t *testing.T) {
			clocks := map[*DB]*clock{}
			blobtest.TestStore(t, blobtest.Options{
				Lease: o.Lease,
				New: func(t testing.TB) blob.Store {
					c, o := new(clock), o
					o.Now = c.time
					db := open(t, o)
					clocks[db] = c
					return db.Blobs()
				},
				Reopen: func(t testing.TB, s blob.Store) blob.Store {
					old := s.(*Blobs).db
					db := reopen(t, old)
					clocks[db] = clocks[old]
					return db.Blobs()
				},
				SetNow: func(s blob.Store, now func() time.Time) { clocks[s.(*Blobs).db].set(now) },
				Things: func(t testing.TB, s blob.Store) int { return things(t, s.(*Blobs).db) },
			})
		})
	}
}

// putBlobs puts blobs under digests that a kit makes up: the store trusts its
// caller.
func putBlobs(t testing.TB, db *DB, repo string, dgsts ...digest.Digest) {
	t.Helper()
	for _, d := range dgsts {
		if err := db.Blobs().Put(context.Background(), repo, ocispec.Descriptor{Digest: d}, strings.NewReader("x")); err != nil {
			t.Fatal(err)
		}
	}
}

func TestManifests(t *testing.T) {
	for name, o := range map[string]Options{
		"as it comes":               {},
		"with events, and no cache": {KeepEvents: true, CacheBytes: -1},
		"objects only":              {PackBelow: -1},
	} {
		o.Unsynced = true
		t.Run(name, func(t *testing.T) {
			manifesttest.TestStore(t, manifesttest.Options{
				New: func(t testing.TB) manifest.Store { return open(t, o).Manifests() },
				PutBlobs: func(t testing.TB, s manifest.Store, repo string, dgsts ...digest.Digest) {
					putBlobs(t, s.(*Manifests).db, repo, dgsts...)
				},
				DeleteBlob: func(t testing.TB, s manifest.Store, repo string, dgst digest.Digest) error {
					return s.(*Manifests).db.Blobs().Delete(context.Background(), repo, dgst, time.Time{})
				},
			})
		})
	}
}

func TestReferrers(t *testing.T) {
	referrerstest.TestIndex(t, func(t testing.TB) (manifest.Store, referrers.Index) {
		m := open(t, Options{Unsynced: true}).Manifests()
		return m, m
	})
}

func TestOutbox(t *testing.T) {
	manifesttest.TestOutbox(t, manifesttest.OutboxOptions{
		New: func(t testing.TB) manifesttest.EventStore {
			return open(t, Options{Unsynced: true, KeepEvents: true}).Manifests()
		},
		Reopen: func(t testing.TB, s manifesttest.EventStore) manifesttest.EventStore {
			return reopen(t, s.(*Manifests).db).Manifests()
		},
	})
}

func TestActivity(t *testing.T) {
	lifecycletest.TestActivity(t, func(t testing.TB) lifecycle.Activity {
		db := open(t, Options{Unsynced: true})
		return struct {
			lifecycle.Activity
			manifest.Writer
		}{db.Pulls(), db.Manifests()}
	})
}

func TestRepositories(t *testing.T) {
	repositorytest.TestStore(t, func(t testing.TB) repository.Store { return open(t, Options{Unsynced: true}).Repositories() })
}

// A registry records pulls late, and what was pulled may be gone.
func TestOnlyPullsOfWhatIsThereAreRecorded(t *testing.T) {
	db := open(t, Options{Unsynced: true})
	gone, stays := push(t, db, repo, "gone", nil), push(t, db, repo, "stays", nil)
	pulls := []lifecycle.Pull{{Digest: gone.Desc.Digest, At: time.Now()}, {Digest: stays.Desc.Digest, At: time.Now()}}
	touch := func() {
		t.Helper()
		if err := db.Pulls().Touch(t.Context(), repo, pulls); err != nil {
			t.Fatal(err)
		}
	}
	touch()
	if err := db.Manifests().Apply(t.Context(), repo, manifest.Change{Delete: []manifest.Removal{{Digest: gone.Desc.Digest}}}); err != nil {
		t.Fatal(err)
	}
	touch()
	var got []digest.Digest
	for pull, err := range db.Pulls().Pulls(t.Context(), repo, "") {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, pull.Digest)
	}
	if !slices.Equal(got, []digest.Digest{stays.Desc.Digest}) {
		t.Errorf("pulls of %q are recorded, want %s", got, stays.Desc.Digest)
	}
}
