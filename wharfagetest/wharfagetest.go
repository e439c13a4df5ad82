// Package wharfagetest checks that a registry keeps its word while its stores
// fail. The test of a pair of stores is a few lines:
//
//	wharfagetest.TestFaults(t, wharfagetest.Options{
//		New: func(t testing.TB) (blob.Store, manifest.Store) { return open(t) },
//	})
//
// It fails every call of every store, one after the other, under what clients
// do, and then looks into the stores.
package wharfagetest

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/blob/blobtest"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/manifest/manifesttest"
)

// Options say how to make a registry and what can be asked of it.
type Options struct {
	// New returns the empty stores of a registry. It is called for each operation,
	// and again after each failure.
	New func(t testing.TB) (blob.Store, manifest.Store)

	// Collect ends all sessions, and removes from blobs what no manifest needs and
	// what failures have left, as if all leases had passed. The stores are what New
	// returned, one of them with a fault in it. Nil means [blob.Collect], for stores that
	// are [blob.Guarded].
	Collect func(ctx context.Context, blobs blob.Store, manifests manifest.Store) error

	// Left names what lies in the storage below blobs that is empty. Nil skips the
	// check that nothing does.
	Left func(t testing.TB, blobs blob.Store) []string

	// Errors are what the stores fail with. Nil means an error that nobody knows, a
	// deadline, a full disk, a reader that ended early and a file that is gone.
	Errors []error

	// Only runs one case alone: what a failure prints in quotes.
	Only string
}

// TestFaults runs what clients and collectors do while the N-th call of a store
// fails, for every N until there is no such call: at once, in the middle, and
// when the work is done and the answer lost; once, and from then on. After each it
// checks that
//
//   - nothing was acknowledged that is not there, with the right bytes;
//   - what failed left everything as it was, or is done, where an answer was lost;
//   - a failure was answered 5xx, and 507 if the disk was full;
//   - the same again succeeds when nothing fails;
//   - a collection then leaves no session and no blob that nothing needs, and
//     takes none that something does;
//   - nothing is left when the manifests are deleted.
//
// It logs how many cases there were.
func TestFaults(t *testing.T, o Options) {
	if o.Errors == nil {
		o.Errors = []error{blobtest.ErrFault, context.DeadlineExceeded, syscall.ENOSPC, io.ErrUnexpectedEOF, fs.ErrNotExist}
	}
	if o.Collect == nil {
		o.Collect = collect
	}
	for _, op := range operations {
		t.Run(op.name, func(t *testing.T) { testFaults(t, o, op) })
	}
}

// collect collects when all leases have passed.
func collect(ctx context.Context, blobs blob.Store, manifests manifest.Store) error {
	_, err := blob.Collect(ctx, blobs, blob.CollectOptions{
		Needed: func(ctx context.Context, repo string) iter.Seq2[digest.Digest, error] {
			return func(yield func(digest.Digest, error) bool) {
				for rec, err := range manifests.Manifests(ctx, repo, "") {
					if err != nil {
						yield("", err)
						return
					}
					for _, dgst := range rec.Blobs {
						if !yield(dgst, nil) {
							return
						}
					}
				}
			}
		},
		Confirm: true,
		Now:     func() time.Time { return time.Now().AddDate(1, 0, 0) },
	})
	return err
}

// most bounds the calls of one operation.
const most = 200

func testFaults(t *testing.T, o Options, op operation) {
	blobs, manifests := o.New(t)
	cases, surfaced := 0, 0
	for kind := range kinds(o.Errors) {
		for n := 1; ; n++ {
			if n > most {
				if o.Only == "" {
					t.Fatalf("%s has more than %d calls, or a fault surfaces that is none", op.name, most)
				}
				break
			}
			r := newRun(blobs, manifests, kind, n, o.Collect)
			line := op.name + ", " + r.String()
			if o.Only != "" && o.Only != line {
				continue
			}
			cases++
			err := r.test(t.Context(), op)
			if err == nil && o.Left != nil {
				if left := o.Left(t, blobs); len(left) > 0 {
					err = fmt.Errorf("of an empty registry there is left: %q", left)
				}
			}
			if err != nil {
				t.Errorf("%q: %v", line, err)
				blobs, manifests = o.New(t)
			}
			if r.surfaced() == 0 {
				break
			}
			surfaced++
		}
	}
	t.Logf("%d cases, in %d of them a fault surfaced", cases, surfaced)
}

// kind is a sort of failure.
type kind struct {
	manifests bool  // in the manifest store, not the blob store
	middle    int64 // bytes or entries that come before it
	late      bool
	sticky    bool
	err       error
}

func kinds(errs []error) func(yield func(kind) bool) {
	return func(yield func(kind) bool) {
		for _, k := range []kind{{}, {middle: 1}, {middle: 700}, {late: true}, {manifests: true}, {manifests: true, late: true}} {
			for _, k.sticky = range []bool{false, true} {
				for _, k.err = range errs {
					if !yield(k) {
						return
					}
				}
			}
		}
	}
}

// faulty returns the stores with the n-th call failing, what the fault is
// called, and how often it has surfaced.
func (k kind) faulty(blobs blob.Store, manifests manifest.Store, n int) (blob.Store, manifest.Store, string, func() int) {
	if k.manifests {
		f := &manifesttest.Fault{N: n, After: k.late, Sticky: k.sticky, Err: k.err}
		return blobs, manifesttest.Faulty(manifests, f), fmt.Sprintf("manifests %v (%v)", f, k.err), f.Surfaced
	}
	f := blobtest.Fault{Call: n, After: k.middle, Late: k.late, Sticky: k.sticky, Err: k.err}
	faulty, surfaced := blobtest.Faulty(blobs, f)
	return faulty, manifests, fmt.Sprintf("blobs %v (%v)", f, k.err), surfaced
}
