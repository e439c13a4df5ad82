package blob

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"hash"
	"io"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/internal/ocidigest"
)

// Put stores what r yields as desc.Digest in repo, and returns once it is
// durable and visible. desc.Size < 0 means that the size is not known.
//
// Errors: ErrDigest and ErrSize when r yields something else; ErrUnsupported
// when desc.Digest is malformed or neither sha256 nor sha512; r's own error.
// Then nothing became visible.
func Put(ctx context.Context, w Writer, repo string, desc ocispec.Descriptor, r io.Reader) error {
	if err := supported(desc.Digest); err != nil {
		return fail("put", repo, desc.Digest, err)
	}
	return fail("put", repo, desc.Digest, w.Put(ctx, repo, desc, Verify(r, desc)))
}

// ReadAll returns the bytes of desc, verified. It reads no more than desc.Size
// bytes, which is refused if negative, and allocates by what arrives, not by
// what desc says.
//
// Errors: ErrNotFound; ErrDigest and ErrSize when the blob is not what desc
// says; ErrUnsupported as for [Put].
func ReadAll(ctx context.Context, r Reader, repo string, desc ocispec.Descriptor) ([]byte, error) {
	content, err := readAll(ctx, r, repo, desc)
	if err != nil {
		return nil, fail("read", repo, desc.Digest, err)
	}
	return content, nil
}

func readAll(ctx context.Context, r Reader, repo string, desc ocispec.Descriptor) ([]byte, error) {
	if err := supported(desc.Digest); err != nil {
		return nil, err
	}
	if desc.Size < 0 {
		return nil, fmt.Errorf("descriptor has size %d: %w", desc.Size, ErrSize)
	}
	content, info, err := r.Open(ctx, repo, desc.Digest, 0, -1)
	if err != nil {
		return nil, err
	}
	defer content.Close()
	if info.Size != desc.Size {
		return nil, &SizeError{Want: desc.Size, Got: info.Size}
	}
	var b bytes.Buffer
	const most = 64 << 10                             // of the descriptor's word; what lies beyond is earned byte by byte
	b.Grow(int(min(desc.Size, most)) + bytes.MinRead) // the rest lets ReadFrom see the end without growing
	if _, err := b.ReadFrom(Verify(content, desc)); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// Missing returns a function that tells which of the digests repo does not
// have. It asks Stat, so that what it does not name is promised for a lease.
// Manifest stores take such a function for their required blobs.
func Missing(r Reader) func(ctx context.Context, repo string, dgsts []digest.Digest) ([]digest.Digest, error) {
	return func(ctx context.Context, repo string, dgsts []digest.Digest) ([]digest.Digest, error) {
		infos, err := r.Stat(ctx, repo, dgsts)
		if err != nil {
			return nil, err
		}
		if len(infos) != len(dgsts) {
			return nil, fmt.Errorf("stat in %s: %d answers for %d digests", repo, len(infos), len(dgsts))
		}
		var missing []digest.Digest
		for i, info := range infos {
			if info.Digest == "" {
				missing = append(missing, dgsts[i])
			}
		}
		return missing, nil
	}
}

// Verify returns a reader of r that ends with io.EOF only if it yielded exactly
// what desc says. Otherwise it ends with a [*SizeError] or a [*DigestError], or
// with an error that matches [ErrUnsupported] when desc.Digest is malformed or
// neither sha256 nor sha512. desc.Size < 0 means that the size is not known.
//
// What was read before the end is unverified.
func Verify(r io.Reader, desc ocispec.Descriptor) io.Reader {
	if err := supported(desc.Digest); err != nil {
		return &verifier{err: err}
	}
	return &verifier{r: r, h: ocidigest.NewHash(desc.Digest.Algorithm()), want: desc.Digest, size: desc.Size}
}

type verifier struct {
	r    io.Reader
	h    hash.Hash
	want digest.Digest
	size int64 // negative: not known
	n    int64
	err  error // sticky
}

func (v *verifier) Read(p []byte) (int, error) {
	if v.err != nil {
		return 0, v.err
	}
	n, err := v.r.Read(p)
	if v.size >= 0 && int64(n) > v.size-v.n {
		v.err = &SizeError{Want: v.size, Got: v.n + int64(n)}
		return 0, v.err
	}
	v.h.Write(p[:n])
	v.n += int64(n)
	switch {
	case err != io.EOF:
		v.err = err
	case v.size >= 0 && v.n < v.size:
		v.err = &SizeError{Want: v.size, Got: v.n}
	default:
		if v.err = checkSum(v.h, v.want); v.err == nil {
			v.err = io.EOF
		}
	}
	return n, v.err
}

// checkSum returns a *DigestError unless what h took has the digest want, which
// is of h's algorithm.
func checkSum(h hash.Hash, want digest.Digest) error {
	var sum [64]byte
	var text [128]byte
	got := hex.AppendEncode(text[:0], h.Sum(sum[:0]))
	if string(got) == want.Encoded() {
		return nil
	}
	return &DigestError{Want: want, Got: digest.NewDigestFromEncoded(want.Algorithm(), string(got))}
}

func supported(dgst digest.Digest) error {
	if err := ocidigest.CheckSupported(string(dgst)); err != nil {
		return fmt.Errorf("digest %.200q: %w: %w", string(dgst), ErrUnsupported, err)
	}
	return nil
}

// fail adds what failed, unless the store said so.
func fail(op, repo string, dgst digest.Digest, err error) error {
	if _, ok := err.(*Error); ok || err == nil {
		return err
	}
	return &Error{Op: op, Repo: repo, Digest: dgst, Err: err}
}
