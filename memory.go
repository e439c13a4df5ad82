package wharfage

import (
	"context"
	"fmt"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/blob/memblob"
	"github.com/wharfage/wharfage/manifest/memmanifest"
)

// NewMemory returns a registry that keeps everything in memory: for tests, and
// to begin with. Its fields can be set before it serves.
func NewMemory() *Handler {
	blobs, manifests := new(memblob.Store), new(memmanifest.Store)
	manifests.MissingBlobs = blob.Missing(blobs)
	blobs.Guard = GuardBlobs(manifests)
	return &Handler{Blobs: blobs, Manifests: manifests}
}

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
