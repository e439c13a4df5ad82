package boltstore

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"

	bolt "go.etcd.io/bbolt"
)

// queue lets callers share transactions. The first of those who wait runs them
// all, and then appoints the next: there is no goroutine but theirs, and no
// delay but that of the transaction under way.
type queue struct {
	bolt  *bolt.DB
	packs *packs

	committing atomic.Pointer[committing] // nil if there is none

	mu      sync.Mutex
	waiting []*update
	led     bool // somebody runs a transaction, or was appointed to
}

// update is one caller's part of a transaction.
type update struct {
	// do checks, and then writes: an error after a write costs everybody a second
	// run. It sees what was written by those before it, and calls nobody's code.
	do func(*tx) error
	// ended is nil, or called after each run of do, before anybody is told of the result. It
	// says whether what do wrote is there now, whatever the result is.
	ended func(committed bool)

	leads    bool
	wake     chan struct{} // holds one element: lead, or see the result
	err      error
	panicked any
}

// commitError is a failure after which nobody knows whether it was one.
type commitError struct {
	err     error
	visible bool // what was written is there, and perhaps not when the machine crashes
}

func (e *commitError) Error() string { return fmt.Sprintf("commit: %v", e.err) }
func (e *commitError) Unwrap() error { return e.err }

// run returns what became of u. When ctx ends, u is not run, unless it is
// running already.
func (q *queue) run(ctx context.Context, u *update) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	u.wake = make(chan struct{}, 1)
	q.mu.Lock()
	q.waiting = append(q.waiting, u)
	if !q.led {
		q.led = true
		q.appoint()
	}
	q.mu.Unlock()
	select {
	case <-u.wake:
	case <-ctx.Done():
		if q.leave(u) {
			return ctx.Err()
		}
		<-u.wake
	}
	if u.leads {
		q.lead(u)
	}
	if u.panicked != nil {
		panic(u.panicked)
	}
	return u.err
}

// appoint wakes the next leader, if there is one. The lock is held.
func (q *queue) appoint() {
	if len(q.waiting) == 0 {
		q.led = false
		return
	}
	q.waiting[0].leads = true
	q.waiting[0].wake <- struct{}{}
}

// leave is false when it is too late.
func (q *queue) leave(u *update) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	i := slices.Index(q.waiting, u)
	if i < 0 {
		return false
	}
	q.waiting = slices.Delete(q.waiting, i, i+1)
	if u.leads {
		q.appoint()
	}
	return true
}

// lead runs all that wait, u among them.
func (q *queue) lead(u *update) {
	runtime.Gosched() // let those who are about to wait come along
	q.mu.Lock()
	batch := q.waiting
	q.waiting = nil
	q.mu.Unlock()
	defer func() {
		q.mu.Lock()
		q.appoint()
		q.mu.Unlock()
		for _, other := range batch {
			if other != u {
				other.wake <- struct{}{}
			}
		}
	}()
	for rest := slices.Clone(batch); len(rest) > 0; {
		culprit := q.attempt(rest)
		if culprit == nil {
			break
		}
		rest = slices.DeleteFunc(rest, func(u *update) bool { return u == culprit })
	}
}

// attempt runs a batch in one transaction. If one of them makes that impossible,
// it returns that one, with its result, and has undone the others.
func (q *queue) attempt(batch []*update) (culprit *update) {
	ran, culprit, err := q.transact(batch)
	var unsure *commitError
	committed := culprit == nil && (err == nil || errors.As(err, &unsure) && unsure.visible)
	for _, u := range batch[:ran] {
		if u.ended != nil {
			u.ended(committed && u.err == nil)
		}
	}
	for _, u := range batch {
		if err != nil { // what others were refused for may not have come to be
			u.err = err
		}
	}
	return culprit
}

func (q *queue) transact(batch []*update) (ran int, culprit *update, err error) {
	b, err := q.bolt.Begin(true)
	if err != nil {
		return 0, nil, err
	}
	defer b.Rollback() // of what is not committed
	t := &tx{bolt: b, packs: q.packs}
	wrote := false
	for i, u := range batch {
		t.wrote = false
		if u.err = u.call(t); u.err != nil && t.wrote {
			return i + 1, u, nil
		}
		wrote = wrote || t.wrote
	}
	if wrote {
		c := &committing{id: b.ID(), done: make(chan struct{})}
		q.committing.Store(c)
		err = commit(b)
		q.committing.Store(nil)
		c.err = err
		close(c.done)
	}
	return len(batch), nil, err
}

// call is do, with a panic as an error until its caller gets it back.
func (u *update) call(t *tx) (err error) {
	defer func() {
		switch p := recover().(type) {
		case nil:
		case writeError:
			err = p
		default:
			u.panicked = fmt.Sprintf("%v\n\n%s", p, debug.Stack())
			t.wrote, err = true, errors.New("panic")
		}
	}()
	return u.do(t)
}

// committing is a commit that is under way.
type committing struct {
	id   int // of the transaction
	done chan struct{}
	err  error // when it is done
}

// durable returns when what a view has seen is durable, whose transaction has that ID. bbolt shows
// what it commits before the last sync.
func (q *queue) durable(ctx context.Context, id int) error {
	c := q.committing.Load()
	if c == nil || c.id != id || q.bolt.NoSync {
		return nil
	}
	select {
	case <-c.done:
		return c.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// commit takes a panic for an error too, since others wait for the result.
func commit(b *bolt.Tx) (err error) {
	db, id := b.DB(), b.ID()
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
		if err == nil {
			return
		}
		unsure := &commitError{err: err}
		if now, e := db.Begin(false); e == nil {
			unsure.visible = now.ID() == id
			now.Rollback()
		}
		err = unsure
	}()
	return b.Commit()
}
