package parts

import (
	"time"

	"github.com/wharfage/wharfage/blob"
)

// Lease returns the lease of a process that wants one, where its database has
// kept another; zero is none. None wanted is the kept one, or 24h at first. A
// shorter one is refused with *[blob.LeaseError] unless that is meant: what a
// longer one has promised would go earlier.
func Lease(kept, want time.Duration, shorten bool) (time.Duration, error) {
	switch {
	case want <= 0 && kept <= 0:
		return 24 * time.Hour, nil
	case want <= 0:
		return kept, nil
	case want < kept && !shorten:
		return 0, &blob.LeaseError{Lease: want, Promised: kept}
	}
	return want, nil
}
