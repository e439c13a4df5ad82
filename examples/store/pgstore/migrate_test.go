package pgstore

import (
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/wharfage/wharfage/blob/dirblob"
	"github.com/wharfage/wharfage/examples/store/pgstore/pgtest"
)

func TestManyMayOpenAnEmptyDatabaseAtOnce(t *testing.T) {
	o := Options{DSN: pgtest.Start(t), Objects: &dirblob.Objects{Dir: t.TempDir()}, Schema: "Not made \"yet\""}
	together(4, func(int) {
		db, err := Open(t.Context(), o)
		if err != nil {
			t.Errorf("Open: %v", err)
			return
		}
		db.Close()
	})
	db := open(t, o)
	put(t, db, "r", "content")
	if db.schema != o.Schema {
		t.Errorf("the tables are in schema %s, want %s", db.schema, o.Schema)
	}
	if since, err := db.Pulls().Since(t.Context(), "r"); err != nil || since.IsZero() || since.After(time.Now()) {
		t.Errorf("Since = %v, %v, want the time of making", since, err)
	}
}

func TestAnOlderDatabaseIsMigratedAndANewerOneRefused(t *testing.T) {
	db := open(t, Options{})
	made := db.madeAt
	next := append(migrations(), `create table later (a int); insert into later values (1)`)
	for range 2 { // the second time there is nothing to do
		if err := db.prepare(t.Context(), next); err != nil {
			t.Fatal(err)
		}
	}
	var version, rows int
	if err := db.pool.QueryRow(t.Context(), `select version, (select count(*) from later) from meta`).Scan(&version, &rows); err != nil || version != len(next) || rows != 1 {
		t.Fatalf("version %d with %d rows, %v, want version %d and 1", version, rows, err, len(next))
	}
	if !db.madeAt.Equal(made) {
		t.Errorf("the time of making is %v, was %v", db.madeAt, made)
	}
	_, err := Open(t.Context(), db.o)
	if err == nil || !strings.Contains(err.Error(), "use a newer one") {
		t.Fatalf("Open of a newer database = %v", err)
	}
	if err := db.prepare(t.Context(), append(next, `this is not SQL`)); err == nil {
		t.Fatal("a migration that fails succeeds")
	}
	if err := db.prepare(t.Context(), next); err != nil {
		t.Fatalf("after a migration that failed: %v", err)
	}
}

func TestMigrationsAreNumbered(t *testing.T) {
	file := &fstest.MapFile{Data: []byte("select 1")}
	if got := readMigrations(fstest.MapFS{"migrations/0001_a.sql": file, "migrations/0002_b.sql": file}); len(got) != 2 {
		t.Errorf("%d migrations, want 2", len(got))
	}
	defer func() {
		if recover() == nil {
			t.Error("a gap is not noticed")
		}
	}()
	readMigrations(fstest.MapFS{"migrations/0001_a.sql": file, "migrations/0003_b.sql": file})
}

// Whatever the collation of the database.
func TestTextIsInByteOrder(t *testing.T) {
	db := open(t, Options{})
	rows, err := db.pool.Query(t.Context(), `select table_name || '.' || column_name from information_schema.columns
		where table_schema = current_schema() and data_type = 'text' and collation_name is distinct from 'C'`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var column string
		if err := rows.Scan(&column); err != nil {
			t.Fatal(err)
		}
		if column != "session.algorithm" && column != "session.repo" { // neither listed nor compared but for equality
			t.Errorf("%s has the database's collation", column)
		}
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
}
