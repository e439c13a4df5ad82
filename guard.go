package wharfage

import (
	"context"
	"fmt"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/blob"
)

// BlobGuarder is a manifest store that can keep blobs from being deleted while
// a manifest needs them, as memmanifest does for the blob stores of its
// process.
type BlobGuarder interface {
	// Unneeded runs remove unless a manifest of repo names dgst. Until remove
	// returns, no manifest that needs dgst becomes visible in repo.
	Unneeded(ctx context.Context, repo string, dgst digest.Digest, remove func() error) (needed bool, err error)
}

// GuardBlobs makes the Guard of a blob store from a manifest store.
func GuardBlobs(m BlobGuarder) blob.Guard {
	return func(ctx context.Context, repo string, dgst digest.Digest, remove func() error) error {
		needed, err := m.Unneeded(ctx, repo, dgst, remove)
		if needed {
			return fmt.Errorf("a manifest needs it: %w", blob.ErrConflict)
		}
		return err
	}
}
