package pgstore

import (
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/blob/dirblob"
	"github.com/wharfage/wharfage/examples/store/pgstore/pgtest"
)

func TestExistingMakesNothing(t *testing.T) {
	for _, o := range []Options{{Existing: true}, {ReadOnly: true}} {
		o.DSN, o.Objects = pgtest.Start(t), &dirblob.Objects{Dir: t.TempDir()}
		if _, err := Open(t.Context(), o); !errors.Is(err, ErrNoStore) {
			t.Errorf("Open of an empty database = %v, want ErrNoStore", err)
		}
		empty := o
		empty.Existing, empty.ReadOnly = false, false
		db := open(t, empty)
		dgst := put(t, db, "r", "content")
		if _, err := db.pool.Exec(t.Context(), `update meta set version = 1`); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(t.Context(), o); err == nil || !strings.Contains(err.Error(), "version 1") {
			t.Errorf("Open of older tables = %v, want an error that says so", err)
		}
		if _, err := db.pool.Exec(t.Context(), `update meta set version = $1`, len(migrations())); err != nil {
			t.Fatal(err)
		}
		if got, err := read(t.Context(), open(t, o), "r", dgst); got != "content" {
			t.Errorf("what is there: %q, %v", got, err)
		}
	}
}

func TestReadOnlyWritesNothing(t *testing.T) {
	db := open(t, Options{})
	dgst := put(t, db, "r", "content")
	if _, err := db.pool.Exec(t.Context(), `update link set touched_at = '2001-01-01'`); err != nil {
		t.Fatal(err)
	}
	for _, key := range keysOwner(t, db) {
		if err := db.o.Objects.Delete(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	o := db.o
	o.ReadOnly = true
	reader := open(t, o)
	if got, err := read(t.Context(), reader, "r", dgst); got != "content" {
		t.Errorf("%q, %v", got, err)
	}
	const readOnlyTransaction = "25006"
	_, err := reader.Blobs().Stat(t.Context(), "r", []digest.Digest{dgst}) // which would renew the touch
	if failed := (*pgconn.PgError)(nil); !errors.As(err, &failed) || failed.Code != readOnlyTransaction {
		t.Errorf("Stat = %v, want the server to refuse it", err)
	}
	if n := len(keysOwner(t, db)); n != 0 {
		t.Errorf("the objects were marked")
	}
}
