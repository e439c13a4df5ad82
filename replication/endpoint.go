package replication

import (
	"context"
	"io"
	"iter"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/referrers"
)

// Source is a registry that is read. Nothing that it answers is believed: who
// reads from it verifies each byte.
type Source struct {
	// Registry names the registry, as its host does. A Source and a Target of one name
	// are one registry, so that blobs can be mounted. "" is unlike any other.
	Registry  string
	Blobs     BlobReader
	Manifests ManifestReader
	Referrers referrers.Index // nil means that nothing refers to anything
}

// BlobReader is what is asked of the blobs of a Source. Each [blob.Reader] is one.
type BlobReader interface {
	// Open is that of [blob.Reader], but its reader may yield wrong bytes, too few
	// or too many, and the Info may have Size -1, which is unknown.
	Open(ctx context.Context, repo string, dgst digest.Digest, off, n int64) (io.ReadCloser, blob.Info, error)
}

// ManifestReader is what is asked of the manifests of a Source. Each
// [manifest.Reader] is one, and one that is lists also what has no tag.
type ManifestReader interface {
	// Get returns a manifest with its Raw. manifest.ErrNotFound.
	Get(ctx context.Context, repo string, dgst digest.Digest) (manifest.Record, error)
	// Resolve returns a tag. manifest.ErrNotFound.
	Resolve(ctx context.Context, repo, tag string) (manifest.Tag, error)
	// Tags lists by name, as [manifest.Reader] does. A source that lists only names
	// leaves the Digest empty, and who needs it asks Resolve.
	Tags(ctx context.Context, repo, after string) iter.Seq2[manifest.Tag, error]
}

// Target is a registry that is written.
//
// Abilities of Blobs, found by [blob.As]: a [Receiver] is handed everything; else a
// [blob.Reader] is asked first for what it has, by its Stat, and a [blob.Mounter] to
// share it. [blob.Uploads] takes long blobs in parts, which a later run continues; it goes
// before a Receiver if the [Copier] has a [Journal].
//
// Abilities of Manifests: [manifest.Stater] to ask for many at once, [Remover] for
// deletions.
type Target struct {
	// Registry is that of Source. It also tells targets apart: what goes to one at once
	// is transferred once, and a [Journal] knows its sessions by it. "" means that Blobs does.
	Registry  string
	Blobs     blob.Writer
	Manifests ManifestWriter
	// Referrers is what refers to a manifest there already. nil means unknown.
	Referrers referrers.Index
}

// ManifestWriter is what is asked of the manifests of a Target.
type ManifestWriter interface {
	// Resolve returns a tag. manifest.ErrNotFound.
	Resolve(ctx context.Context, repo, tag string) (manifest.Tag, error)
	// Tags is that of [ManifestReader].
	Tags(ctx context.Context, repo, after string) iter.Seq2[manifest.Tag, error]
	// Push is that of [manifest.Pusher]. It may ignore From and New where it cannot
	// hold them, and leaves Pushed.Manifest nil if it likes. Pushing what is there is a
	// success.
	Push(ctx context.Context, repo string, in manifest.PushRequest) (manifest.Pushed, error)
}

// Receiver is implemented by targets that ask whether they have a blob, mount it,
// or begin to send it in one request. A copier then asks nothing beforehand.
type Receiver interface {
	// Receive makes desc part of repo. If it is there, or can be mounted from one of
	// the repositories from, open is not called. Else open returns the content from
	// off on, verified by its end: a read error means bad content, as for
	// [blob.Writer]. It may be called again, to send again from off what a failure
	// has lost.
	Receive(ctx context.Context, repo string, desc ocispec.Descriptor, from []string,
		open func(ctx context.Context, off int64) (io.ReadCloser, error)) (Received, error)
}

// Received says what Receive has done.
type Received string

// What Receive can have done.
const (
	Sent    Received = "sent"
	Mounted Received = "mounted"
	Present Received = "present" // it was there before
)

// Remover is implemented by targets that delete. [manifest.Deleter] has these
// methods.
type Remover interface {
	// Delete removes an image by its digest, with all its tags. manifest.ErrNotFound.
	Delete(ctx context.Context, repo string, id manifest.ImageID) ([]manifest.ImageID, error)
	// Untag removes a tag, if it names from, or if from is "". manifest.ErrNotFound.
	Untag(ctx context.Context, repo, tag string, from digest.Digest) error
}
