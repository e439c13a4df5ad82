package pgstore

import (
	"errors"
	"testing"
	"time"

	"github.com/wharfage/wharfage/blob"
)

func TestTheLeaseIsKeptForAllProcesses(t *testing.T) {
	db := open(t, Options{})
	for _, c := range []struct {
		what    string
		with    func(o *Options)
		lease   time.Duration // then
		refused bool
	}{
		{"a new database", func(*Options) {}, 24 * time.Hour, false},
		{"a longer one", func(o *Options) { o.Lease = 48 * time.Hour }, 48 * time.Hour, false},
		{"none", func(*Options) {}, 48 * time.Hour, false},
		{"a shorter one", func(o *Options) { o.Lease = time.Hour }, 48 * time.Hour, true},
		{"a shorter one to look with", func(o *Options) { o.Lease, o.Existing = time.Hour, true }, 48 * time.Hour, true},
		{"a longer one to look with", func(o *Options) { o.Lease, o.Existing = 72*time.Hour, true }, 48 * time.Hour, false},
		{"a shorter one that is meant", func(o *Options) { o.Lease, o.ShortenLease = time.Hour, true }, time.Hour, false},
		{"one that is meant, to look with", func(o *Options) { o.Lease, o.ShortenLease, o.Existing = time.Minute, true, true }, time.Minute, false},
		{"none to look with", func(o *Options) { o.ReadOnly = true }, time.Minute, false},
	} {
		o := db.o
		c.with(&o)
		other, err := Open(t.Context(), o)
		if short := (*blob.LeaseError)(nil); errors.As(err, &short) != c.refused || !c.refused && err != nil {
			t.Fatalf("%s: Open = %v", c.what, err)
		}
		if other != nil {
			if other.Lease() != max(o.Lease, c.lease) {
				t.Errorf("%s: its lease is %v", c.what, other.Lease())
			}
			other.Close()
		}
		next := open(t, db.o)
		if got, err := next.Blobs().Promised(t.Context()); err != nil || got != c.lease || next.Lease() != c.lease {
			t.Errorf("%s: then Promised = %v, %v, and the lease of the next %v, want %v", c.what, got, err, next.Lease(), c.lease)
		}
		next.Close()
	}
}
