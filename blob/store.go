package blob

import (
	"context"
	"io"
	"iter"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Info is what a store knows of one blob in one repository. The zero Info
// stands for a blob that is not there.
type Info struct {
	Digest    digest.Digest
	Size      int64     // bytes
	TouchedAt time.Time // the last put, mount, finish or positive Stat, at most half a lease too early
}

// The interfaces below are what an implementer provides. For all of them:
//
//   - Methods may be called from many goroutines at once.
//   - A method honours ctx while it waits and then returns ctx's error.
//   - repo is a valid repository name and each digest is a well-formed sha256
//     or sha512: callers check, stores may rely on it.
//   - Listings are in ascending byte order, strictly increasing, start after
//     the given key, and end at their first error. No lock and no connection is
//     held while the caller's loop body runs, so it may call the store.
//   - Slices in results belong to the caller.
//   - Errors may carry context, and are found with errors.Is. A failure of the
//     store itself is never reported as ErrNotFound.

// Reader answers questions about blobs.
type Reader interface {
	// Stat returns one Info per digest, in the order asked; a blob that is not
	// in repo has the zero Info. A positive answer is a promise: before Stat
	// returns, the blob's TouchedAt is durably within half a lease of now, in
	// the same step that found it there. A store may leave a younger touch as
	// it is, so that asking for a warm blob stays a read.
	Stat(ctx context.Context, repo string, dgsts []digest.Digest) ([]Info, error)

	// Open returns n bytes of the blob from off on; n == -1 means to its end,
	// and an n beyond the end is cut there. off == Size is an empty reader.
	// Errors: ErrNotFound; ErrRange when off > Size. off is never negative, n
	// is never below -1. The reader keeps answering with the same bytes when the blob
	// is deleted meanwhile, or fails; it never ends early without an error.
	Open(ctx context.Context, repo string, dgst digest.Digest, off, n int64) (io.ReadCloser, Info, error)
}

// Writer takes whole blobs.
type Writer interface {
	// Put stores what r yields as desc.Digest in repo. An error from r means
	// that the content is bad: Put returns it (wrapped or not) and nothing
	// becomes visible or is left behind. Otherwise the blob is durable and
	// visible on return. Putting a blob that is there is a success and a touch.
	// desc.Size may be used as a hint; r yields exactly that much or fails.
	Put(ctx context.Context, repo string, desc ocispec.Descriptor, r io.Reader) error
}

// Upload is a resumable session as a value: no handle, no lock. Any process
// that shares the store can continue it.
type Upload struct {
	Repo, ID  string
	Size      int64            // bytes acknowledged so far
	Algorithm digest.Algorithm // what Hash was made with: sha256 or sha512
	Hash      []byte           // state of the running hash; kept for Append and Finish, opaque to stores
	State     []byte           // the store's own, opaque to everybody else
	UpdatedAt time.Time        // when it was begun or last saved
}

// Uploads keeps sessions. An ID is an unguessable string of 16 to 64
// characters of [a-zA-Z0-9_-], unique in the store.
type Uploads interface {
	// Begin starts an empty session. One that is still empty may end with the
	// process: nothing of it was acknowledged.
	Begin(ctx context.Context, repo string, alg digest.Algorithm) (Upload, error)

	// Lookup returns the session as last saved. ErrUploadNotFound, also when id
	// belongs to another repository or is no ID at all.
	Lookup(ctx context.Context, repo, id string) (Upload, error)

	// Append makes the bytes of r durable as what follows the first u.Size
	// bytes of the session, and returns u with Size and State advanced. Nobody else sees
	// that until Save: Lookup still answers with u. Bytes that an earlier Save
	// acknowledged stay as they are, whatever happens to this call. Two calls at
	// once neither mix their bytes nor wait for each other's r. An error, from r
	// or else, leaves no trace. ErrUploadNotFound; ErrConflict when the session
	// is no longer u, which Save finds out at the latest.
	Append(ctx context.Context, u Upload, r io.Reader) (Upload, error)

	// Save replaces old, as Begin or Lookup returned it or an earlier Save stored
	// it, by new, which is old or what Append made of it, with another Hash, durably.
	// ErrConflict when the session is no longer old: of several racing callers
	// exactly one wins. ErrUploadNotFound. Both end the use of new. After any other error the
	// same call may be made again.
	Save(ctx context.Context, old, new Upload) error

	// Commit makes the bytes of u a blob of its repository and ends the
	// session. u is old or what Append made of old; ErrConflict when the
	// session is no longer old. The caller has verified that the bytes have the
	// digest dgst. Durable and visible on return, and a touch. On error the session is
	// as it was, and the same call may be made again, as for Save. ErrUploadNotFound.
	Commit(ctx context.Context, old, u Upload, dgst digest.Digest) error

	// Abort ends the session and drops its bytes. ErrConflict when the session
	// is no longer u. ErrUploadNotFound.
	Abort(ctx context.Context, u Upload) error
}

// Lister lists the blobs of a repository, by digest, without touching them.
type Lister interface {
	Blobs(ctx context.Context, repo string, after digest.Digest) iter.Seq2[Info, error]
}

// Deleter removes blobs.
type Deleter interface {
	// Delete removes dgst from repo, at once. Other repositories keep theirs.
	// It refuses with ErrConflict what was touched after cutoff (the zero cutoff
	// refuses nothing by age), and what a manifest of repo needs, where the store can know:
	// that check and the removal are one step for manifest.Writer.Apply.
	// Errors: ErrNotFound, ErrConflict.
	Delete(ctx context.Context, repo string, dgst digest.Digest, cutoff time.Time) error
}

// Store is everything a registry asks of its blob storage.
type Store interface {
	Reader
	Writer
	Uploads
	Lister
	Deleter
}

// Guard runs remove unless a manifest in repo needs dgst, in which case it
// returns an error that matches [ErrConflict]. Between its check and the end of
// remove, no manifest that needs dgst becomes visible. A manifest store that shares a process
// with a blob store offers one, for the blob store's Delete to go through.
type Guard func(ctx context.Context, repo string, dgst digest.Digest, remove func() error) error
