package lifecycle

import (
	"context"
	"iter"
	"time"

	"github.com/opencontainers/go-digest"
)

// Pull says when a manifest was last pulled.
type Pull struct {
	Digest digest.Digest
	At     time.Time
}

// Activity records last pulls. Methods may be called from many goroutines at
// once, and refuse an ended ctx with its error. repo is a valid repository name
// and each digest is a well-formed sha256 or sha512: callers check.
type Activity interface {
	// Touch records pulls of repo, durably. Of several of one digest the latest
	// counts, whatever order they come in, in one call or in many, and however
	// often. Times are kept to the second at least, and never get later by it; a
	// zero At is no pull. The manifests need not exist; but a store that knows them may
	// drop the pull of one that goes, and leave out the pull of one that is not there, which
	// nobody would ask for. pulls is not written to. After an error, some of them may be
	// recorded.
	Touch(ctx context.Context, repo string, pulls []Pull) error

	// Pulls lists the last pull of each digest of repo for which one is known, by
	// digest, in byte order, strictly after the digest after. It ends at its first
	// error, and holds no lock and no connection while the loop body runs.
	Pulls(ctx context.Context, repo string, after digest.Digest) iter.Seq2[Pull, error]

	// Since says from when on pulls of repo were recorded: earlier ones are not
	// known. Zero means never. It is the time of the store's making, which may be
	// earlier than the first Touch, and stays the same.
	Since(ctx context.Context, repo string) (time.Time, error)
}
