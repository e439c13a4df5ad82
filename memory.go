package wharfage

import (
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
