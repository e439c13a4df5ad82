package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/wharfage/wharfage/examples/store/pgstore"
	"github.com/wharfage/wharfage/examples/store/pgstore/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

func TestCommandsOnNothingMakeNothing(t *testing.T) {
	dsn := pgtest.Start(t)
	for name, command := range map[string]func(context.Context, []string) error{
		"check": check, "collect": collect,
		"jobs": func(ctx context.Context, args []string) error { return jobsOf(ctx, append([]string{"list"}, args...)) },
	} {
		dir := t.TempDir()
		if err := command(t.Context(), []string{"-data", dir}); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s of an empty folder = %v, want an error", name, err)
		}
		if err := command(t.Context(), []string{"-postgres", dsn, "-data", dir}); !errors.Is(err, pgstore.ErrNoStore) {
			t.Errorf("%s of an empty database = %v, want ErrNoStore", name, err)
		}
		if made, err := os.ReadDir(dir); err != nil || len(made) > 0 {
			t.Errorf("%s has made %v, %v", name, made, err)
		}
	}
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	var tables int
	if err := conn.QueryRow(t.Context(), `select count(*) from information_schema.tables where table_schema = current_schema()`).Scan(&tables); err != nil || tables != 0 {
		t.Errorf("there are %d tables, %v", tables, err)
	}
}

// TestACollectionKeepsWhatAnotherServerHasPromised: it was refused for as long as the server
// ran that had opened the database before one with a longer lease did.
func TestACollectionKeepsWhatAnotherServerHasPromised(t *testing.T) {
	where := place{postgres: pgtest.Start(t), data: t.TempDir(), unsynced: true}
	open := func() *storage {
		store, err := where.open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { store.close() })
		return store
	}
	first := open()
	where.lease = 48 * time.Hour
	open()
	j := &jobs{every: time.Hour, rules: collectRules{share: 0.5}}
	if _, err := j.collect(t.Context(), first.handler(), first, time.Time{}); err != nil {
		t.Error(err)
	}
	if lease, err := first.promised(t.Context()); lease != where.lease || err != nil {
		t.Errorf("promised %v, %v", lease, err)
	}
}

// TestACollectionShortensTheLease: on PostgreSQL it was refused for the lease that it was to
// replace.
func TestACollectionShortensTheLease(t *testing.T) {
	dir := t.TempDir()
	for _, where := range []place{{data: filepath.Join(dir, "bolt")}, {data: dir, postgres: pgtest.Start(t)}} {
		store, err := where.open(t.Context())
		if err == nil {
			err = store.close()
		}
		if err == nil {
			err = collect(t.Context(), []string{"-data", where.data, "-postgres", where.postgres, "-lease", "1h", "-shorten-lease"})
		}
		if err != nil {
			t.Errorf("%+v: %v", where, err)
		}
	}
}
