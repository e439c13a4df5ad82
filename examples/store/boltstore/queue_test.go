package boltstore

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
)

// held returns a store that is on hold.
func held(t *testing.T) (db *DB, waiting func(n int), release func()) {
	t.Helper()
	db = open(t, Options{Unsynced: true})
	waiting, release = hold(t, db)
	return db, waiting, release
}

// hold has the next transaction wait for release. waiting waits until n updates wait for
// the one after it.
func hold(t *testing.T, db *DB) (waiting func(n int), release func()) {
	t.Helper()
	b, err := db.bolt.Begin(true) // bbolt has one writer
	if err != nil {
		t.Fatal(err)
	}
	waiting = func(n int) {
		for {
			db.queue.mu.Lock()
			m := len(db.queue.waiting)
			db.queue.mu.Unlock()
			if m == n {
				return
			}
		}
	}
	return waiting, func() { b.Rollback() }
}

func putRow(key, value string) func(*tx) error {
	return func(t *tx) error {
		t.put(pullRows, []byte(key), []byte(value))
		return nil
	}
}

// rowOf returns a row of the table that the tests of the queue write to.
func rowOf(t *testing.T, db *DB, key string) (value string) {
	t.Helper()
	if err := db.view(t.Context(), func(t *tx) error {
		value = string(t.get(pullRows, []byte(key)))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return value
}

// batchIn runs updates in one transaction of a store that is held, in their
// order, and returns their errors. A panic is an error here.
func batchIn(t *testing.T, db *DB, waiting func(int), release func(), updates ...*update) []error {
	t.Helper()
	var all sync.WaitGroup
	all.Go(func() { // leads the transaction that the others wait for
		if err := db.update(context.Background(), putRow("first", "1")); err != nil {
			t.Errorf("the first update: %v", err)
		}
	})
	for !leading(db) {
	}
	errs := make([]error, len(updates))
	for i, u := range updates {
		all.Go(func() {
			defer func() {
				if p := recover(); p != nil {
					errs[i] = fmt.Errorf("panic: %v", p)
				}
			}()
			errs[i] = db.queue.run(context.Background(), u)
		})
		waiting(i + 1)
	}
	release()
	all.Wait()
	return errs
}

// leading tells whether somebody has taken what waited.
func leading(db *DB) bool {
	db.queue.mu.Lock()
	defer db.queue.mu.Unlock()
	return db.queue.led && len(db.queue.waiting) == 0
}

func id(db *DB) int {
	b, err := db.bolt.Begin(false)
	if err != nil {
		panic(err)
	}
	defer b.Rollback()
	return b.ID()
}

func TestUpdatesThatWaitShareATransaction(t *testing.T) {
	db, waiting, release := held(t)
	before := id(db)
	const n = 20
	var updates []*update
	for i := range n {
		updates = append(updates, &update{do: func(t *tx) error {
			if i > 0 && !t.has(pullRows, fmt.Append(nil, i-1)) {
				return errors.New("an update does not see the one before it")
			}
			t.put(pullRows, fmt.Append(nil, i), nothing)
			return nil
		}})
	}
	for i, err := range batchIn(t, db, waiting, release, updates...) {
		if err != nil {
			t.Errorf("update %d: %v", i, err)
		}
	}
	if got := id(db) - before; got != 2 {
		t.Errorf("%d transactions were committed, want that of the first update and one for the other %d", got, n)
	}
}

func TestARefusedUpdateDoesNotDisturbOthers(t *testing.T) {
	refusal := errors.New("refused")
	for name, bad := range map[string]func(*tx) error{
		"before it has written": func(t *tx) error { return refusal },
		"after it has written, which it should not do": func(t *tx) error {
			t.put(pullRows, []byte("bad"), nothing)
			return refusal
		},
		"by bbolt": func(t *tx) error {
			t.put(pullRows, []byte("bad"), nothing)
			t.put(pullRows, nil, nothing)
			return nil
		},
		"by a panic": func(t *tx) error {
			t.put(pullRows, []byte("bad"), nothing)
			panic("a fault in an update")
		},
	} {
		t.Run(name, func(t *testing.T) {
			db, waiting, release := held(t)
			ended := map[string][]bool{}
			note := func(name string, do func(*tx) error) *update {
				return &update{do: do, ended: func(committed bool) { ended[name] = append(ended[name], committed) }}
			}
			errs := batchIn(t, db, waiting, release,
				note("a", putRow("a", "1")), note("bad", bad), note("b", putRow("b", "2")))
			if errs[0] != nil || errs[1] == nil || errs[2] != nil {
				t.Fatalf("errors are %v, want only one, of the second", errs)
			}
			if a, b := rowOf(t, db, "a"), rowOf(t, db, "b"); a != "1" || b != "2" {
				t.Errorf("the others' rows are %q and %q", a, b)
			}
			if err := db.view(t.Context(), func(tx *tx) error {
				if tx.has(pullRows, []byte("bad")) {
					t.Error("the refused update has left a row")
				}
				return nil
			}); err != nil {
				t.Error(err)
			}
			last := func(name string) bool { return ended[name][len(ended[name])-1] }
			if !last("a") || last("bad") || !last("b") {
				t.Errorf("updates were told %v", ended)
			}
			if err := db.update(t.Context(), putRow("after", "1")); err != nil {
				t.Errorf("the queue is stuck: %v", err)
			}
		})
	}
}

func TestAnUpdateWhoseContextEndsBeforeItsTurnIsNotRun(t *testing.T) {
	db, waiting, release := held(t)
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	all.Go(func() { db.update(context.Background(), putRow("first", "1")) })
	for !leading(db) {
	}
	results := make([]error, 3)
	for i, ctx := range []context.Context{ctx, context.Background(), ctx} {
		all.Go(func() { results[i] = db.update(ctx, putRow(fmt.Sprint(i), "1")) })
		waiting(i + 1)
	}
	cancel()
	waiting(1)
	release()
	all.Wait()
	if !errors.Is(results[0], context.Canceled) || results[1] != nil || !errors.Is(results[2], context.Canceled) {
		t.Errorf("errors are %v, want those of the contexts that ended", results)
	}
	if got := rowOf(t, db, "0") + "," + rowOf(t, db, "1") + "," + rowOf(t, db, "2"); got != ",1," {
		t.Errorf("rows are %q, want only the second", got)
	}
	if err := db.update(ctx, putRow("x", "1")); !errors.Is(err, context.Canceled) {
		t.Errorf("an update whose context has ended: %v", err)
	}
}

// The turn of one that has left goes to the next.
func TestAnAppointedLeaderMayLeave(t *testing.T) {
	q := queue{led: true}
	a, b := &update{wake: make(chan struct{}, 1)}, &update{wake: make(chan struct{}, 1)}
	q.waiting = []*update{a, b}
	q.appoint()
	if !a.leads || !q.leave(a) || !b.leads || len(b.wake) != 1 {
		t.Fatal("the second does not lead")
	}
	if !q.leave(b) || q.led || q.leave(b) {
		t.Fatal("the queue is led by nobody who is there")
	}
}

func TestAFailedCommitGoesToAllAndLeavesTheStoreUsable(t *testing.T) {
	db, waiting, release := held(t)
	db.bolt.MaxSize = 1 // read by the next transactions
	big := string(make([]byte, 1<<20))
	refusal := errors.New("refused")
	var all sync.WaitGroup
	all.Go(func() {
		if err := db.update(context.Background(), putRow("first", big)); err == nil {
			t.Error("a transaction that does not fit is committed")
		}
	})
	for !leading(db) {
	}
	errs := make([]error, 2)
	for i, do := range []func(*tx) error{putRow("a", big), func(*tx) error { return refusal }} {
		all.Go(func() { errs[i] = db.update(context.Background(), do) })
		waiting(i + 1)
	}
	release()
	all.Wait()
	for i, err := range errs {
		var unsure *commitError
		if !errors.As(err, &unsure) {
			t.Errorf("update %d: %v, want the commit's error", i, err)
		}
	}
	db.bolt.MaxSize = 0
	if err := db.update(t.Context(), putRow("a", big)); err != nil {
		t.Fatalf("with space again: %v", err)
	}
	if rowOf(t, db, "a") != big || rowOf(t, db, "first") != "" {
		t.Error("rows are not what was committed")
	}
}
