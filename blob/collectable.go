package blob

import (
	"context"
	"iter"
	"time"
)

// The interfaces below are optional abilities of a store. Collection needs
// them.

// Catalog is implemented by stores that can list their repositories.
type Catalog interface {
	// Repos lists the repositories that hold a blob, in ascending byte order.
	Repos(ctx context.Context, after string) iter.Seq2[string, error]
}

// Guarded is implemented by stores whose Delete can know what manifests need.
type Guarded interface {
	// Guarded tells whether Delete refuses what a manifest of the repository
	// needs, in one step with the removal and with manifest.Writer.Apply.
	Guarded() bool
}

// Promiser is implemented by stores that other processes may have opened with
// another lease.
type Promiser interface {
	// Promised returns the longest lease in use: Stat of some process renews a
	// touch when it is older than half of that.
	Promised(ctx context.Context) (time.Duration, error)
}

// SessionLister is implemented by stores that can list their upload sessions.
type SessionLister interface {
	// Sessions lists the sessions of all repositories by ID, as last saved.
	Sessions(ctx context.Context, after string) iter.Seq2[Upload, error]
}

// Sweeper is implemented by stores in which failures and crashes can leave
// bytes that no blob and no session refers to.
type Sweeper interface {
	// Sweep removes such bytes, unless dry, and yields them. It leaves alone what
	// a call under way that began after cutoff may still come to refer to. A call
	// that began earlier either commits before its bytes are looked at, or fails:
	// whatever the clocks say, nothing that is referred to is removed. With dry
	// nothing changes. It ends at its first error.
	Sweep(ctx context.Context, cutoff time.Time, dry bool) iter.Seq2[Object, error]
}
