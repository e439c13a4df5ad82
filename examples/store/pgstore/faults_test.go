package pgstore

import (
	"os"
	"syscall"
	"testing"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/wharfagetest"
)

// TestFaults fails every call of the store. WHARFAGE_FAULT is a case to run alone,
// as a failure prints it.
func TestFaults(t *testing.T) {
	wharfagetest.TestFaults(t, wharfagetest.Options{
		New: func(t testing.TB) (blob.Store, manifest.Store) {
			db := open(t, Options{MinPart: 512}) // so that chunks are objects, and leave tails
			return db.Blobs(), db.Manifests()
		},
		Left:   func(t testing.TB, s blob.Store) []string { return keysThere(t, s.(*Blobs).db) },
		Errors: []error{syscall.ENOSPC},
		Only:   os.Getenv("WHARFAGE_FAULT"),
	})
}
