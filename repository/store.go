package repository

import (
	"context"
	"iter"
)

// Store keeps which repositories there are. For all methods:
//
//   - They may be called from many goroutines at once, and honour ctx while they
//     wait.
//   - Names and settings are valid: callers check.
//   - What is written is durable on return, and whole: every field is kept, times
//     to the microsecond at least.
//   - Maps and slices in results belong to the caller; those in arguments stay the
//     caller's.
//   - Errors may carry context, and are found with errors.Is. A failure of the
//     store itself is never reported as ErrNotFound, nor as an empty listing.
type Store interface {
	// Get returns a repository. ErrNotFound.
	Get(ctx context.Context, name string) (Repository, error)

	// List lists by name, in byte order, strictly after the name after. It ends at
	// its first error, and holds no lock and no connection while the loop body runs.
	List(ctx context.Context, after string) iter.Seq2[Repository, error]

	// Create adds a repository, if there are fewer than most; most <= 0 is no limit.
	// Both checks and the write are one step: of callers that race for one name
	// one wins, and there are never more than most. ErrExists, which comes before a
	// *QuotaError.
	Create(ctx context.Context, r Repository, most int) error

	// Replace puts new in the place of old, which has the same name, or removes it if new is
	// nil. ErrNotFound; ErrConflict when the repository is not Equal to old: of
	// callers that race, one wins.
	Replace(ctx context.Context, old Repository, new *Repository) error
}
