// Package blobtest checks that a [blob.Store] keeps the promises of package
// blob. A store's test is a few lines:
//
//	blobtest.TestStore(t, blobtest.Options{
//		New: func(t testing.TB) blob.Store { return open(t) },
//	})
//
// [Fault] makes a store fail on demand, for tests of what is built on one.
package blobtest

import (
	"testing"
	"time"

	"github.com/wharfage/wharfage/blob"
)

// Options say how to make a store and what can be asked of it.
type Options struct {
	// New returns an empty store. Each clause has its own.
	New func(t testing.TB) blob.Store

	// Reopen returns a second value over the state of s, as a process has after
	// a restart; s is not used any more. Nil skips what is promised about that.
	Reopen func(t testing.TB, s blob.Store) blob.Store

	// SetNow gives the store a clock, before its first use. Nil skips what is
	// promised about touches and time.
	SetNow func(s blob.Store, now func() time.Time)
	Lease  time.Duration // of the stores that New returns; zero means 24h

	// SetGuard gives the store a guard, before its first use. Nil skips what is
	// promised about deletions that a manifest store forbids.
	SetGuard func(s blob.Store, g blob.Guard)

	// Things counts whatever lies in the store: files, rows, objects. Nil skips
	// the check that failures leave nothing behind.
	Things func(t testing.TB, s blob.Store) int
}

// TestStore checks a store. Each subtest is named by the sentence it checks.
// What is optional is checked if the store has it: [blob.Mounter],
// [blob.Rereader], [blob.Locator], [blob.Catalog], [blob.Guarded],
// [blob.SessionLister], [blob.Sweeper].
func TestStore(t *testing.T, o Options) { testStore(t, o, time.Minute) }

func testStore(t *testing.T, o Options, patience time.Duration) {
	if o.Lease == 0 {
		o.Lease = 24 * time.Hour
	}
	for _, list := range [][]clause{putClauses, readClauses, deleteClauses, listClauses, uploadClauses, raceClauses, collectClauses} {
		for _, c := range list {
			t.Run(c.name, func(t *testing.T) {
				c.check(&kit{T: t, Options: o, s: o.New(t), patience: patience})
			})
		}
	}
}

type clause struct {
	name  string
	check func(*kit)
}
