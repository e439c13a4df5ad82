package pgstore

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// frozen is a process that stands still in the middle of a push: it has the
// lock of eras and that of repository r. Its server ends it after idle
// milliseconds, 0 for never.
func frozen(t testing.TB, db *DB, idle int) {
	t.Helper()
	config := db.pool.Config().ConnConfig.Copy()
	config.RuntimeParams["idle_in_transaction_session_timeout"] = fmt.Sprint(idle)
	conn, err := pgx.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(t.Context()) })
	for _, sql := range []string{`begin`, fmt.Sprintf(`select pg_advisory_xact_lock_shared(%d), pg_advisory_xact_lock(%d)`, db.lock("eras", ""), db.lock("repo", "r"))} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
}

// One that the server does not end makes sweeps fail, and nothing else.
func TestAFrozenProcessDoesNotStopPushes(t *testing.T) {
	dbs := two(t)
	frozen(t, dbs[0], 0)
	swept := make(chan error, 1)
	sweeps := func() {
		_, err := dbs[0].Blobs().closeEras(t.Context(), never, false)
		swept <- err
	}
	go sweeps()
	for begun := false; !begun; { // until the sweep waits
		select {
		case <-swept: // which it has on a machine that is busy, and nobody has seen it
			go sweeps()
		default:
		}
		if err := dbs[1].pool.QueryRow(t.Context(), `select exists (select from pg_locks where locktype = 'advisory' and mode = 'ExclusiveLock' and not granted
			and classid = (($1::bigint >> 32) & 4294967295)::oid and objid = ($1::bigint & 4294967295)::oid)`, dbs[0].lock("eras", "")).Scan(&begun); err != nil {
			t.Fatal(err)
		}
	}
	dgst := put(t, dbs[1], "r", "content")
	if got, err := read(t.Context(), dbs[1], "r", dgst); got != "content" {
		t.Errorf("%q, %v", got, err)
	}
	if err := <-swept; err == nil || !strings.Contains(err.Error(), "not ended in 2s") {
		t.Errorf("the sweep: %v, want an error that says what is in its way", err)
	}
}

// One whose server ends it holds nobody up for longer.
func TestAFrozenProcessLosesItsLocks(t *testing.T) {
	db := open(t, Options{})
	var set time.Duration
	if err := db.pool.QueryRow(t.Context(), `select extract(epoch from current_setting('idle_in_transaction_session_timeout')::interval)::bigint * 1000000000`).Scan(&set); err != nil || set != 30*time.Second {
		t.Fatalf("the server waits %v, %v", set, err)
	}
	frozen(t, db, 300)
	sweep(t, db, never, false)
	dgst := put(t, db, "r", "content")
	if err := db.Blobs().Delete(t.Context(), "r", dgst, time.Time{}); err != nil { // which takes the lock of the repository
		t.Fatal(err)
	}
}
