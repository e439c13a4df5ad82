package replication

import (
	"bytes"
	"context"
	"encoding"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/manifest"
)

// blob copies a blob. entry is -1, or for an entry of an index of unknown type the depth
// of the index: it may turn out to be a manifest.
func (r *run) blob(ctx context.Context, desc ocispec.Descriptor, entry int) error {
	first, err := r.visit(desc, false)
	if err != nil {
		return err
	}
	mine, err := r.session.do(ctx, object{dgst: desc.Digest}, func() error {
		how, err := r.copyBlob(ctx, desc)
		if err != nil {
			if gone, ok := errors.AsType[*Error](err); ok && gone.Side == SideSource && errors.Is(err, blob.ErrNotFound) && entry >= 0 {
				return r.listedManifest(ctx, desc, entry, err)
			}
			return err
		}
		if how == Present {
			r.session.probe()
		}
		r.c.remember(r.id, r.to, desc.Digest)
		r.settle(desc, false, EventKind(how))
		return nil
	})
	if err == nil && !mine && first {
		r.settle(desc, false, EventPresent)
	}
	return err
}

func (r *run) listedManifest(ctx context.Context, desc ocispec.Descriptor, depth int, notFound error) error {
	if err := r.manifest(ctx, ocispec.Descriptor{Digest: desc.Digest, Size: desc.Size, MediaType: desc.MediaType}, step{depth: depth + 1}); err != nil {
		if manifest.IsNotFound(err) {
			return notFound
		}
		return err
	}
	r.settle(desc, false, EventPresent) // as the manifest that it is
	return nil
}

func (r *run) copyBlob(ctx context.Context, desc ocispec.Descriptor) (Received, error) {
	if err := manifest.CheckContentDigest(string(desc.Digest)); err != nil {
		return "", r.fail("copy blob", "", string(desc.Digest), fmt.Errorf("%w: %w", blob.ErrUnsupported, err))
	}
	from := r.mountFrom(desc.Digest)
	long := r.uploads != nil && desc.Size >= orDefault(r.c.PartSize, DefaultPartSize) && (r.receiver == nil || r.c.Journal != nil)
	how, err := Received(""), error(nil)
	if r.reader != nil && (r.receiver == nil || long || r.o.DryRun) {
		how, err = r.look(ctx, desc.Digest, from)
	}
	if err != nil || how != "" {
		return how, r.fail("look for blob", SideTarget, string(desc.Digest), err)
	}
	if r.o.DryRun {
		return Sent, nil
	}
	r.began(desc, false)
	in := &content{r: r, desc: desc}
	switch {
	case long:
		how, err = Sent, r.upload(ctx, in)
	case r.receiver != nil:
		err = r.c.try(ctx, func() (err error) {
			how, err = r.receiver.Receive(ctx, r.to, desc, from, in.open)
			return err
		})
	default:
		how, err = Sent, r.c.try(ctx, func() error {
			content, err := in.open(ctx, 0)
			if err != nil {
				return err
			}
			defer content.Close()
			return r.dst.Blobs.Put(ctx, r.to, desc, content)
		})
	}
	return how, r.fail("copy blob", SideTarget, string(desc.Digest), err)
}

// mountFrom lists repositories of the target that may have a blob.
func (r *run) mountFrom(dgst digest.Digest) []string {
	from := slices.Clone(r.o.MountFrom)
	if known := r.c.whereIs(r.id, dgst); known != "" {
		from = slices.Insert(from, 0, known)
	}
	if r.src.Registry != "" && r.src.Registry == r.dst.Registry {
		from = slices.Insert(from, 0, r.from)
	}
	seen := map[string]bool{r.to: true}
	return slices.DeleteFunc(from, func(repo string) bool {
		again := seen[repo]
		seen[repo] = true
		return again || manifest.CheckRepository(repo) != nil
	})
}

// look tells whether the target has a blob, and mounts it if it can. It returns ""
// for one that is to be sent.
func (r *run) look(ctx context.Context, dgst digest.Digest, from []string) (how Received, err error) {
	err = r.c.try(ctx, func() error {
		missing, err := blob.Missing(r.reader)(ctx, r.to, []digest.Digest{dgst})
		if err == nil && len(missing) == 0 {
			how = Present
			return nil
		}
		for _, repo := range from {
			if err != nil || r.mounter == nil {
				return err
			}
			if r.o.DryRun {
				missing, err = blob.Missing(r.reader)(ctx, repo, []digest.Digest{dgst})
			} else if err = r.mounter.Mount(ctx, repo, r.to, dgst); err == nil {
				missing = nil
			} else if errors.Is(err, blob.ErrNotFound) {
				err = nil
			}
			if err == nil && len(missing) == 0 {
				how = Mounted
				return nil
			}
		}
		return err
	})
	return how, err
}

// content reads a blob of the source, any number of times, and verifies it. It keeps
// the state of the hash at some offsets, so that reading from one needs nothing
// before it.
type content struct {
	r    *run
	desc ocispec.Descriptor

	mu    sync.Mutex // who sends again may not have done with what was opened before
	marks []mark     // by off
}

type mark struct {
	off  int64
	hash []byte // its state
}

// open returns what follows off, verified by its end.
func (c *content) open(ctx context.Context, off int64) (io.ReadCloser, error) {
	if off < 0 || c.desc.Size >= 0 && off > c.desc.Size {
		return nil, fmt.Errorf("offset %d of %d: %w", off, c.desc.Size, blob.ErrRange)
	}
	from := c.before(off)
	h := c.desc.Digest.Algorithm().Hash()
	if from.off > 0 {
		if err := h.(encoding.BinaryUnmarshaler).UnmarshalBinary(from.hash); err != nil {
			return nil, err
		}
	}
	in := c.part(ctx, from.off, -1)
	in.h = h
	if err := in.connect(); err != nil {
		return nil, in.fail(err)
	}
	if _, err := io.CopyN(io.Discard, in, off-from.off); err != nil {
		in.Close()
		return nil, err
	}
	return in, nil
}

// before returns the last mark that is not after off.
func (c *content) before(off int64) (last mark) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range c.marks {
		if m.off <= off {
			last = m
		}
	}
	return last
}

// mark keeps the state of a hash at off, unless one so far is kept.
func (c *content) mark(off int64, h hash.Hash) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.marks) > 0 && off <= c.marks[len(c.marks)-1].off {
		return
	}
	if state, err := h.(encoding.BinaryMarshaler).MarshalBinary(); err == nil {
		c.marks = append(c.marks, mark{off, state})
	}
}

// part returns n bytes from off on, unverified; -1 means to the end.
func (c *content) part(ctx context.Context, off, n int64) *contentReader {
	end := c.desc.Size
	if n >= 0 {
		end = off + n
	}
	return &contentReader{c: c, ctx: ctx, pos: off, n: n, end: end, patience: patience{c: c.r.c}}
}

// contentReader goes on where it was when the source fails for a time.
type contentReader struct {
	c        *content
	ctx      context.Context
	in       io.ReadCloser // nil: to be opened at pos
	h        hash.Hash     // nil verifies nothing
	pos, end int64         // end -1: unknown
	n        int64         // that were asked for, -1: to the end
	patience patience
	resumed  int64 // where
	err      error // sticky
}

func (r *contentReader) connect() error {
	n := int64(-1)
	if r.n >= 0 {
		n = r.end - r.pos
	}
	if len(r.c.desc.Data) > 0 && int64(len(r.c.desc.Data)) == r.c.desc.Size { // checked by Parse
		r.in = io.NopCloser(bytes.NewReader(r.c.desc.Data[r.pos:]))
		return nil
	}
	for {
		in, _, err := r.c.r.src.Blobs.Open(r.ctx, r.c.r.from, r.c.desc.Digest, r.pos, n)
		if err == nil {
			r.in, r.resumed = in, r.pos
			return nil
		}
		if err = r.patience.wait(r.ctx, err); err != nil {
			return err
		}
	}
}

func (r *contentReader) Read(p []byte) (n int, err error) {
	if r.err != nil || len(p) == 0 {
		return 0, r.err
	}
	if r.n >= 0 {
		p = p[:min(int64(len(p)), r.end-r.pos)]
		if len(p) == 0 {
			return 0, io.EOF
		}
	}
	for n == 0 && err == nil {
		if r.in == nil {
			if err = r.connect(); err != nil {
				break
			}
		}
		n, err = r.in.Read(p)
		if r.end >= 0 && int64(n) > r.end-r.pos {
			n, err = 0, fmt.Errorf("%w: %w", ErrContent, &blob.SizeError{Want: r.end, Got: r.pos + int64(n)})
			break
		}
		r.take(p[:n])
		if err == io.EOF {
			if err = r.atEnd(); err == nil {
				err = io.EOF
				break
			}
		}
		if _, ok := errors.AsType[*TemporaryError](err); ok {
			if r.pos-r.resumed >= orDefault(r.c.r.c.PartSize, DefaultPartSize) {
				r.patience = patience{c: r.c.r.c} // it has done enough to be trusted again
			}
			r.in.Close()
			r.in = nil
			err = r.patience.wait(r.ctx, err)
		}
	}
	r.err = r.fail(err)
	return n, r.err
}

// take hashes and counts what was read.
func (r *contentReader) take(p []byte) {
	if len(p) == 0 {
		return
	}
	before := r.pos
	r.pos += int64(len(p))
	if r.h != nil {
		r.h.Write(p)
		if part := orDefault(r.c.r.c.PartSize, DefaultPartSize); before/part != r.pos/part {
			r.c.mark(r.pos, r.h)
		}
	}
	r.c.r.progress(r.c.desc, r.pos)
}

// atEnd tells what is wrong at the end of what the source sent.
func (r *contentReader) atEnd() error {
	if r.end >= 0 && r.pos < r.end {
		return &TemporaryError{Err: fmt.Errorf("%w: %w", ErrContent, &blob.SizeError{Want: r.end, Got: r.pos})}
	}
	if r.h != nil {
		want := r.c.desc.Digest
		if have := digest.NewDigest(want.Algorithm(), r.h); have != want {
			return fmt.Errorf("%w: %w", ErrContent, &blob.DigestError{Want: want, Got: have})
		}
	}
	return nil
}

func (r *contentReader) fail(err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	return r.c.r.fail("read blob", SideSource, string(r.c.desc.Digest), err)
}

func (r *contentReader) Close() error {
	if r.in == nil {
		return nil
	}
	return r.in.Close()
}
