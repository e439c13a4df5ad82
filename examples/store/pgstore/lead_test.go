package pgstore

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/wharfage/wharfage/examples/store/pgstore/pgtest"
)

// candidates are two processes whose connections can be told from others.
func candidates(t testing.TB) [2]*DB {
	one := open(t, Options{DSN: pgtest.Start(t) + "&application_name=" + t.Name()})
	return [2]*DB{one, again(t, one)}
}

// awaitCandidates returns when n connections have asked for a turn. Who has it may have proved
// since that it is there.
func awaitCandidates(t testing.TB, db *DB, n int) {
	t.Helper()
	for asked := -1; asked != n; {
		err := db.pool.QueryRow(t.Context(), `select count(*) from pg_stat_activity where state = 'idle' and application_name = current_setting('application_name')
			and (query like 'select pg_try_advisory_lock%' or pid in (select pid from pg_locks where locktype = 'advisory' and granted))`).Scan(&asked)
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestOneLeadsAtATime(t *testing.T) {
	dbs := candidates(t)
	var leading, turns atomic.Int32
	together(2, func(i int) {
		err := dbs[i].Lead(t.Context(), "one", func(ctx context.Context) error {
			if leading.Add(1) != 1 {
				t.Error("two lead at once")
			}
			defer leading.Add(-1)
			if turns.Add(1) == 1 {
				awaitCandidates(t, dbs[i], 2)
			}
			return dbs[i].Lead(ctx, "two", func(context.Context) error { return nil })
		})
		if err != nil {
			t.Errorf("Lead: %v", err)
		}
	})
	if n := turns.Load(); n != 2 {
		t.Errorf("%d had their turn, want 2", n)
	}
	wrong := errors.New("wrong")
	if err := dbs[0].Lead(t.Context(), "one", func(context.Context) error { return wrong }); err != wrong {
		t.Errorf("Lead = %v, want what it ran returned", err)
	}
}

func TestWhoWaitsForATurnStopsWhenItsContextEnds(t *testing.T) {
	dbs := candidates(t)
	err := dbs[0].Lead(t.Context(), "one", func(context.Context) error {
		ctx, cancel := context.WithCancel(t.Context())
		waiting := make(chan error)
		go func() {
			waiting <- dbs[1].Lead(ctx, "one", func(context.Context) error { return errors.New("has a turn") })
		}()
		awaitCandidates(t, dbs[0], 2)
		cancel()
		if err := <-waiting; !errors.Is(err, context.Canceled) {
			t.Errorf("Lead = %v, want context.Canceled", err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestAnotherLeadsWhenTheConnectionIsLost(t *testing.T) {
	dbs := candidates(t)
	first, second := make(chan error, 1), make(chan error, 1)
	leads := make(chan struct{})
	go func() {
		first <- dbs[0].Lead(t.Context(), "one", func(ctx context.Context) error {
			close(leads)
			<-ctx.Done()
			return ctx.Err()
		})
	}()
	<-leads
	took := make(chan struct{})
	go func() {
		second <- dbs[1].Lead(t.Context(), "one", func(ctx context.Context) error {
			close(took)
			return nil
		})
	}()
	awaitCandidates(t, dbs[0], 2)
	select {
	case <-took:
		t.Fatal("two lead at once")
	default:
	}
	key := dbs[0].lock("lead", "one")
	killed := 0
	err := dbs[1].pool.QueryRow(t.Context(), `select count(pg_terminate_backend(pid)) from pg_locks where locktype = 'advisory' and granted
		and classid = (($1::bigint >> 32) & 4294967295)::oid and objid = ($1::bigint & 4294967295)::oid`, key).Scan(&killed)
	if err != nil || killed != 1 {
		t.Fatalf("killed %d connections, %v", killed, err)
	}
	if err := <-first; err == nil || !strings.Contains(err.Error(), "connection lost") {
		t.Errorf("the first ends with %v, want that its connection is lost", err)
	}
	if err := <-second; err != nil {
		t.Errorf("the second ends with %v", err)
	}
	<-took
}

func TestWhoIsCutOffWaitsForNoTurn(t *testing.T) {
	db := open(t, Options{DSN: pgtest.Start(t) + "&application_name=" + t.Name()})
	dsn, p := between(t, db.o.DSN)
	other := open(t, Options{DSN: dsn, Objects: db.o.Objects})
	err := db.Lead(t.Context(), "one", func(ctx context.Context) error {
		waiting := make(chan error, 1)
		go func() {
			waiting <- other.Lead(ctx, "one", func(context.Context) error { return errors.New("has a turn") })
		}()
		awaitCandidates(t, db, 2)
		p.cutOff()
		if err := <-waiting; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Lead = %v, want that there is no answer", err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
