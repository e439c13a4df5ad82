package blob

import (
	"context"
	"encoding"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/internal/ocidigest"
)

// Append adds what r yields to the end of the session u, durably, and returns
// the session as it is then. start is the offset at which the sender believes
// the chunk to begin; -1 means at the end, wherever that is.
//
// Errors: a [*OffsetError] unless start is u.Size; ErrConflict when somebody
// else changed the session first; ErrUploadNotFound; r's own error. Then the
// session is as it was.
func Append(ctx context.Context, s Uploads, u Upload, start int64, r io.Reader) (Upload, error) {
	next, err := appendSaved(ctx, s, u, start, r)
	if err != nil {
		return u, failUpload("append", u, err)
	}
	return next, nil
}

func appendSaved(ctx context.Context, s Uploads, u Upload, start int64, r io.Reader) (Upload, error) {
	if err := checkStart(u, start); err != nil {
		return u, err
	}
	h, err := resume(u)
	if err != nil {
		return u, err
	}
	next, err := appendHashed(ctx, s, u, &hashed{r: r, h: h})
	if err != nil {
		return u, err
	}
	next.Hash, err = h.(encoding.BinaryMarshaler).MarshalBinary()
	if err != nil {
		return u, err
	}
	return next, s.Save(ctx, u, next)
}

// Finish makes the bytes of the session u, followed by those of r if r is not
// nil, the blob dgst of its repository, and ends the session. start is as for
// [Append].
//
// Errors: a [*DigestError] when the content is something else; the errors of
// Append; ErrUnsupported when dgst is malformed or neither sha256 nor sha512,
// or is not of u.Algorithm and s is no [Rereader]. Then nothing became visible,
// and the session is as it was, without the bytes of r.
func Finish(ctx context.Context, s Uploads, u Upload, start int64, r io.Reader, dgst digest.Digest) error {
	return failUpload("finish", u, finish(ctx, s, u, start, r, dgst))
}

func finish(ctx context.Context, s Uploads, u Upload, start int64, r io.Reader, dgst digest.Digest) error {
	if err := supported(dgst); err != nil {
		return err
	}
	if err := checkStart(u, start); err != nil {
		return err
	}
	h, err := hashOf(ctx, s, u, dgst.Algorithm())
	if err != nil {
		return err
	}
	last := u
	if r == nil {
		err = checkSum(h, dgst)
	} else {
		// A wrong digest is an error of the reader, which leaves no trace.
		last, err = appendHashed(ctx, s, u, &hashed{r: r, h: h, want: dgst})
	}
	if err != nil {
		return err
	}
	return s.Commit(ctx, u, last, dgst)
}

// Rereader is implemented by stores that can read a session back. Finish needs
// it when the digest turns out to be of another algorithm than the one that the
// session began with.
type Rereader interface {
	// Reread returns the u.Size bytes of u, which is as Begin, Lookup or Append
	// returned it. ErrUploadNotFound; ErrConflict when the session has moved on.
	Reread(ctx context.Context, u Upload) (io.ReadCloser, error)
}

// hashOf returns a hash of alg that has taken the bytes of u.
func hashOf(ctx context.Context, s Uploads, u Upload, alg digest.Algorithm) (hash.Hash, error) {
	if alg == u.Algorithm {
		return resume(u)
	}
	h := ocidigest.NewHash(alg)
	if u.Size == 0 {
		return h, nil
	}
	again, ok := As[Rereader](s)
	if !ok {
		return nil, fmt.Errorf("session began with %s, not %s, and the store cannot read it back: begin with digest-algorithm=%s: %w",
			u.Algorithm, alg, alg, ErrUnsupported)
	}
	content, err := again.Reread(ctx, u)
	if err != nil {
		return nil, err
	}
	defer content.Close()
	n, err := io.Copy(h, content)
	if err == nil && n != u.Size {
		err = fmt.Errorf("store kept %d bytes of %d", n, u.Size)
	}
	return h, err
}

func checkStart(u Upload, start int64) error {
	if start != -1 && start != u.Size {
		return &OffsetError{Size: u.Size, Start: start}
	}
	return nil
}

// resume is hashOf for the algorithm that the session began with.
func resume(u Upload) (hash.Hash, error) {
	h := ocidigest.NewHash(u.Algorithm)
	switch {
	case h == nil:
		return nil, fmt.Errorf("algorithm %q of the session: %w", u.Algorithm, ErrUnsupported)
	case len(u.Hash) > 0:
		if err := h.(encoding.BinaryUnmarshaler).UnmarshalBinary(u.Hash); err != nil {
			return nil, fmt.Errorf("hash of the session: %w", err)
		}
	case u.Size > 0:
		return nil, errors.New("session has bytes, but no hash of them")
	}
	return h, nil
}

func appendHashed(ctx context.Context, s Uploads, u Upload, r *hashed) (Upload, error) {
	next, err := s.Append(ctx, u, r)
	if err == nil && (r.err != io.EOF || next.Size != u.Size+r.n) {
		err = fmt.Errorf("store ended at %d after a chunk of %d bytes at %d", next.Size, r.n, u.Size)
	}
	return next, err
}

// hashed feeds h with what it reads. If want is set, it ends with a
// *DigestError unless that is the digest.
type hashed struct {
	r    io.Reader
	h    hash.Hash
	want digest.Digest
	n    int64
	err  error // sticky
}

func (r *hashed) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	n, err := r.r.Read(p)
	r.h.Write(p[:n])
	r.n += int64(n)
	if err == io.EOF && r.want != "" {
		if e := checkSum(r.h, r.want); e != nil {
			err = e
		}
	}
	r.err = err
	return n, err
}

// failUpload is fail for sessions.
func failUpload(op string, u Upload, err error) error {
	if _, ok := err.(*Error); ok || err == nil {
		return err
	}
	return &Error{Op: op, Repo: u.Repo, ID: u.ID, Err: err}
}
