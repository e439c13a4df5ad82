package pgstore

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/wharfage/wharfage/blob/dirblob"
	"github.com/wharfage/wharfage/examples/store/parts"
	"github.com/wharfage/wharfage/examples/store/pgstore/pgtest"
	"github.com/wharfage/wharfage/manifest"
)

func TestObjectsOfAnotherDatabaseAreRefused(t *testing.T) {
	db := open(t, Options{})
	dgst := put(t, db, "r", "content")
	other := Options{DSN: pgtest.Start(t), Objects: db.o.Objects}
	_, err := Open(t.Context(), other)
	if foreign := (*parts.ForeignError)(nil); !errors.As(err, &foreign) || foreign.Owner != db.id || !strings.Contains(err.Error(), db.id) {
		t.Fatalf("Open of a new database over the objects of %s = %v, want it to say so", db.id, err)
	}
	for _, object := range keysOwner(t, db) { // as a store of before there were markers
		if err := db.o.Objects.Delete(t.Context(), object); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Open(t.Context(), other); !errors.Is(err, parts.ErrForeign) {
		t.Fatalf("Open of a new database over objects that nobody has claimed = %v, want ErrForeign", err)
	}
	if got, err := read(t.Context(), again(t, db), "r", dgst); got != "content" {
		t.Fatalf("their own database: %q, %v", got, err)
	}
	if n := len(keysOwner(t, db)); n != 1 {
		t.Fatalf("there are %d markers, want 1", n)
	}
	if _, err := Open(t.Context(), Options{DSN: db.o.DSN, Objects: &dirblob.Objects{Dir: t.TempDir()}}); !errors.Is(err, parts.ErrForeign) {
		t.Fatalf("Open over an empty folder, though there are blobs, = %v, want ErrForeign", err)
	}
}

func keysOwner(t testing.TB, db *DB) (keys []string) {
	t.Helper()
	for o, err := range db.o.Objects.List(t.Context(), "owner", "") {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, o.Key)
	}
	return keys
}

// A database of version 1 has no ID, and manifests no time of the last push.
func TestADatabaseOfVersion1IsMigrated(t *testing.T) {
	db := open(t, Options{})
	dgst := put(t, db, "r", "content")
	rec := document("1")
	apply(t, db, "r", manifest.Change{Put: []manifest.Record{rec}, At: time.Unix(1e9, 0)})
	for _, key := range keysOwner(t, db) {
		if err := db.o.Objects.Delete(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := db.pool.Exec(t.Context(), `alter table meta drop column id, drop column lease; alter table manifest drop column touched_at, drop column storage_class, drop column archived_at, drop column restored_at; drop table repository; update meta set version = 1`); err != nil {
		t.Fatal(err)
	}
	db = again(t, db)
	if db.id == "" || len(keysOwner(t, db)) != 1 {
		t.Fatalf("ID %q, %d markers, want an ID and 1", db.id, len(keysOwner(t, db)))
	}
	if got, err := read(t.Context(), db, "r", dgst); got != "content" {
		t.Fatalf("%q, %v", got, err)
	}
	if got, err := db.Manifests().Get(t.Context(), "r", rec.Desc.Digest); err != nil || !got.TouchedAt.Equal(time.Unix(1e9, 0)) {
		t.Errorf("TouchedAt is %v, %v, want the time of the first push", got.TouchedAt, err)
	}
}
