// Package pgtest gives tests a PostgreSQL server that is thrown away: one per
// test binary, started when first needed. It needs Linux, and the server's own
// tools (Debian's package postgresql).
//
//	func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }
//
//	func TestStore(t *testing.T) {
//		db, err := pgstore.Open(t.Context(), pgstore.Options{DSN: pgtest.Start(t), …
package pgtest

import (
	"context"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
)

var (
	running  atomic.Bool // whether Main is
	mu       sync.Mutex
	shared   *server
	schemas  atomic.Int64
	errTools error // why there is no server
)

// Main runs the tests of m, and stops the server that they have started.
func Main(m *testing.M) int {
	running.Store(true)
	defer func() {
		mu.Lock()
		defer mu.Unlock()
		if shared != nil {
			shared.stop()
			shared = nil
		}
	}()
	return m.Run()
}

// Start returns the address of an empty schema of its own on the server. Where
// there are no server tools the test is skipped, or fails if the environment
// has CI.
func Start(t testing.TB) (dsn string) {
	t.Helper()
	if !running.Load() {
		t.Fatal("pgtest.Start needs a TestMain that calls pgtest.Main")
	}
	mu.Lock()
	defer mu.Unlock()
	if shared == nil && errTools == nil {
		shared, errTools = start()
	}
	if errTools != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(errTools)
		}
		t.Skip(errTools)
	}
	conn, err := pgx.Connect(t.Context(), shared.dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	schema := fmt.Sprintf("test%d", schemas.Add(1))
	if _, err := conn.Exec(t.Context(), "create schema "+schema); err != nil {
		t.Fatal(err)
	}
	return shared.dsn + "&search_path=" + schema
}
