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
// once, and honour ctx.
type Activity interface {
	// Touch records pulls of repo, durably. Of several of one digest the latest
	// counts, whatever order they come in and however often. The manifests need
	// not exist. Times are kept to the second at least, and never get later by it.
	Touch(ctx context.Context, repo string, pulls []Pull) error

	// Pulls lists the last pull of each digest of repo for which one is known, by
	// digest, strictly after the digest after. It ends at its first error, and holds no
	// lock and no connection while the loop body runs.
	Pulls(ctx context.Context, repo string, after digest.Digest) iter.Seq2[Pull, error]

	// Since says from when on pulls of repo were recorded: earlier ones are not
	// known. Zero means never. It is the time of the store's making, which may be
	// earlier than the first Touch.
	Since(ctx context.Context, repo string) (time.Time, error)
}
