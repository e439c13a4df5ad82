package boltstore

import (
	"os"
	"strings"
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
			db := open(t, Options{Unsynced: true, MinPart: 512, PackBelow: 400}) // so that chunks are objects, and leave tails
			return db.Blobs(), db.Manifests()
		},
		Left: func(t testing.TB, s blob.Store) (left []string) {
			db := s.(*Blobs).db
			for key := range db.packs.pending {
				left = append(left, key+" (pending)")
			}
			for o, err := range db.Objects.List(t.Context(), "", "") {
				if err != nil {
					t.Fatal(err)
				}
				if !strings.HasPrefix(o.Key, "owner/") {
					left = append(left, o.Key)
				}
			}
			return left
		},
		Errors: []error{syscall.ENOSPC},
		Only:   os.Getenv("WHARFAGE_FAULT"),
	})
}
