package replication

import (
	"context"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/referrers"
)

// LocalSource returns a Source over stores of this process.
func LocalSource(blobs blob.Reader, manifests manifest.Reader) Source {
	return Source{Blobs: blobs, Manifests: manifests, Referrers: indexOf(manifests)}
}

// LocalTarget returns a Target over stores of this process, with a Pusher and a
// Deleter that allow everything. For others, set Manifests to a [LocalManifests].
func LocalTarget(blobs blob.Store, manifests manifest.Store) Target {
	return Target{Blobs: blobs, Manifests: LocalManifests{
		Reader:  manifests,
		Pusher:  &manifest.Pusher{Store: manifests},
		Deleter: &manifest.Deleter{Store: manifests, Cause: manifest.CauseReplication},
	}, Referrers: indexOf(manifests)}
}

func indexOf(manifests manifest.Reader) referrers.Index {
	if x, ok := manifests.(referrers.Index); ok {
		return x
	}
	return referrers.Scan(manifests)
}

// LocalManifests is the Manifests of a Target over a store of this process. It has
// all abilities that [Target] speaks of, lists manifests and, if its Reader does, repositories.
type LocalManifests struct {
	manifest.Reader
	Pusher  *manifest.Pusher
	Deleter *manifest.Deleter // nil refuses deletions
}

var _ interface {
	ManifestWriter
	Remover
	manifest.Stater
	blob.Able
} = LocalManifests{}

// Push implements [ManifestWriter].
func (m LocalManifests) Push(ctx context.Context, repo string, in manifest.PushRequest) (manifest.Pushed, error) {
	return m.Pusher.Push(ctx, repo, in)
}

// Stat implements [manifest.Stater].
func (m LocalManifests) Stat(ctx context.Context, repo string, dgsts []digest.Digest) ([]ocispec.Descriptor, error) {
	return manifest.Stat(ctx, m.Reader, repo, dgsts)
}

// Delete implements [Remover].
func (m LocalManifests) Delete(ctx context.Context, repo string, id manifest.ImageID) ([]manifest.ImageID, error) {
	if m.Deleter == nil {
		return nil, manifest.ErrUnsupported
	}
	return m.Deleter.Delete(ctx, repo, id)
}

// Untag implements [Remover].
func (m LocalManifests) Untag(ctx context.Context, repo, tag string, from digest.Digest) error {
	if m.Deleter == nil {
		return manifest.ErrUnsupported
	}
	return m.Deleter.Untag(ctx, repo, tag, from)
}

// Abilities implements [blob.Able].
func (m LocalManifests) Abilities() []any {
	if c, ok := m.Reader.(manifest.Catalog); ok {
		return []any{c}
	}
	return nil
}
