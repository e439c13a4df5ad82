package manifest

import (
	"context"
	"iter"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Record is a stored manifest with every fact that a later question needs, so
// that indexes over records are derived and cannot disagree with them.
// [Manifest.Record] makes one.
type Record struct {
	Desc      ocispec.Descriptor // MediaType, Digest, Size; ArtifactType and Annotations as a referrers list shows them
	Raw       []byte             // the exact bytes pushed; nil in listings
	Subject   digest.Digest      // what it refers to, "" if nothing
	Manifests []digest.Digest    // the manifests it lists, without repetition
	Blobs     []digest.Digest    // config, layers and other blobs it names, without repetition
	PushedAt  time.Time          // of the first push; zero means unknown
	TouchedAt time.Time          `json:",omitzero"` // of the last push; zero means unknown

	StorageClass StorageClass
	ArchivedAt   time.Time // last move to the archive, kept after a return; zero means never, or unknown
	RestoredAt   time.Time // last return from the archive; zero means never, or unknown
}

// StorageClass says how a manifest is kept. What follows from it is up to who
// serves manifests: to a store it is a fact like others.
type StorageClass string

// The storage classes.
const (
	Standard StorageClass = ""
	Archive  StorageClass = "archive"
)

// ClassSince is when the manifest came to the storage class that it is in; zero
// means unknown.
func (r *Record) ClassSince() time.Time {
	switch {
	case r.StorageClass == Archive:
		return r.ArchivedAt
	case !r.RestoredAt.IsZero():
		return r.RestoredAt
	}
	return r.PushedAt
}

// Tag is a name for a manifest.
type Tag struct {
	Name    string
	Digest  digest.Digest
	MovedAt time.Time // when it came to name Digest; zero means unknown
}

// The interfaces below are what an implementer provides. For all of them:
//
//   - Methods may be called from many goroutines at once.
//   - A method honours ctx while it waits and then returns ctx's error.
//   - repo, digests and tags are valid: callers check, stores may rely on it.
//     Digests of what is stored are sha256 or sha512; a Subject may have any
//     algorithm.
//   - A repository needs no creation: one without manifests is empty.
//   - Listings are in ascending byte order, strictly increasing, start after
//     the given key, and end at their first error: never short without one. No
//     lock and no connection is held while the caller's loop body runs, so it
//     may call the store.
//   - Slices and maps in results belong to the caller; those in arguments stay
//     the caller's, and are not written to afterwards by either side.
//   - Errors may carry context, and are found with errors.Is. A failure of the
//     store itself is never reported as ErrNotFound.

// Reader answers questions about manifests and tags.
type Reader interface {
	// Get returns a manifest with its Raw. ErrNotFound.
	Get(ctx context.Context, repo string, dgst digest.Digest) (Record, error)
	// Resolve returns a tag. ErrNotFound. The manifest it names was there at that instant.
	Resolve(ctx context.Context, repo, tag string) (Tag, error)
	// Manifests lists by digest, without Raw.
	Manifests(ctx context.Context, repo string, after digest.Digest) iter.Seq2[Record, error]
	// Tags lists by name.
	Tags(ctx context.Context, repo, after string) iter.Seq2[Tag, error]
}

// Writer changes a repository.
type Writer interface {
	// Apply makes all of c visible together and durable, or makes none of it
	// and says why. Its checks and its writes are one step: of several callers
	// that race for one tag move with a From, exactly one wins.
	//
	// Errors: *MissingError for what c requires or a tag would name,
	// *ConflictError for what is not Unchanged, or a From, IfUntagged, IfUnlisted,
	// Cutoff or IfOrphan that does not hold, ErrNotFound for an Unchanged, a class
	// move or a removal of what is not there, ErrUnsupported for a c whose Needs the
	// store does not know.
	Apply(ctx context.Context, repo string, c Change) error
}

// Store is everything a registry asks of its manifest storage.
type Store interface {
	Reader
	Writer
}

// Catalog is implemented by stores that can list their repositories.
type Catalog interface {
	// Repos lists the repositories that hold a manifest.
	Repos(ctx context.Context, after string) iter.Seq2[string, error]
}

// Stater is implemented by stores that look up many manifests in one step, and
// without their content.
type Stater interface {
	// Stat returns one descriptor per digest, in the order asked, with
	// MediaType, Digest, Size and ArtifactType; a manifest that is not there has
	// the zero descriptor.
	Stat(ctx context.Context, repo string, dgsts []digest.Digest) ([]ocispec.Descriptor, error)
}

// Stat looks up many manifests: by [Stater] if r is one, else one by one.
func Stat(ctx context.Context, r Reader, repo string, dgsts []digest.Digest) ([]ocispec.Descriptor, error) {
	if s, ok := r.(Stater); ok {
		return s.Stat(ctx, repo, dgsts)
	}
	out := make([]ocispec.Descriptor, len(dgsts))
	for i, d := range dgsts {
		rec, err := r.Get(ctx, repo, d)
		if IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		out[i] = ocispec.Descriptor{MediaType: rec.Desc.MediaType, Digest: d, Size: rec.Desc.Size, ArtifactType: rec.Desc.ArtifactType}
	}
	return out, nil
}

// Describer is implemented by stores that look up many records in one step.
type Describer interface {
	// Describe returns one record per digest, in the order asked, without Raw; a
	// manifest that is not there has the zero Record.
	Describe(ctx context.Context, repo string, dgsts []digest.Digest) ([]Record, error)
}

// Describe looks up many records: by [Describer] if r is one, else one by one.
func Describe(ctx context.Context, r Reader, repo string, dgsts []digest.Digest) ([]Record, error) {
	if d, ok := r.(Describer); ok {
		return d.Describe(ctx, repo, dgsts)
	}
	out := make([]Record, len(dgsts))
	for i, d := range dgsts {
		rec, err := r.Get(ctx, repo, d)
		if IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		rec.Raw = nil
		out[i] = rec
	}
	return out, nil
}

// Counter is implemented by stores that count without listing.
type Counter interface {
	// Count returns how many manifests repo holds, and how many tags name dgst,
	// which need not be there.
	Count(ctx context.Context, repo string, dgst digest.Digest) (manifests, tags int, err error)
}

// Count counts by [Counter] if r is one, else by listing repo.
func Count(ctx context.Context, r Reader, repo string, dgst digest.Digest) (manifests, tags int, err error) {
	if c, ok := r.(Counter); ok {
		return c.Count(ctx, repo, dgst)
	}
	for _, err := range r.Manifests(ctx, repo, "") {
		if err != nil {
			return 0, 0, err
		}
		manifests++
	}
	for t, err := range r.Tags(ctx, repo, "") {
		if err != nil {
			return 0, 0, err
		}
		if t.Digest == dgst {
			tags++
		}
	}
	return manifests, tags, nil
}
