package memblob

import (
	"testing"
	"time"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/blob/blobtest"
)

func TestStore(t *testing.T) {
	blobtest.TestStore(t, blobtest.Options{
		New:      func(t testing.TB) blob.Store { return &Store{} },
		SetNow:   func(s blob.Store, now func() time.Time) { s.(*Store).Now = now },
		SetGuard: func(s blob.Store, g blob.Guard) { s.(*Store).Guard = g },
		Things:   func(t testing.TB, s blob.Store) int { return s.(*Store).things() },
	})
}

// things counts blobs, sessions and chunks.
func (s *Store) things() (n int) {
	for _, r := range s.repos {
		n += len(r.blobs)
	}
	for _, x := range s.sessions {
		n += 1 + len(x.staged)
		for c := x.head; c != nil; c = c.prev {
			n++
		}
	}
	return n
}
