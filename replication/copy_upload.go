package replication

import (
	"context"
	"encoding"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/blob"
)

// upload sends a long blob in parts, each of which the target keeps: what a failure
// loses is less than one. It goes on with the session that the Journal knows.
func (r *run) upload(ctx context.Context, in *content) error {
	u, err := r.resume(ctx, in)
	if err != nil {
		return err
	}
	old := u.Size > 0
	for again := true; ; again = false {
		if u.ID == "" {
			if u, err = r.beginUpload(ctx, in); err != nil {
				return err
			}
		}
		err = r.sendParts(ctx, in, u)
		u = blob.Upload{}
		// Once more from the start, if what an earlier process has sent was wrong, or if
		// the session is lost: as distribution loses one that was cut off in a part.
		lost := errors.Is(err, blob.ErrConflict) || errors.Is(err, blob.ErrUploadNotFound)
		if !again || !lost && !(old && errors.Is(err, blob.ErrDigest)) {
			break
		}
	}
	if errors.Is(err, blob.ErrDigest) {
		err = &Error{Op: "read blob", Side: SideSource, Repo: r.from, Object: string(in.desc.Digest), Err: fmt.Errorf("%w: %w", ErrContent, err)}
	}
	return err
}

func (r *run) journalKey(in *content) JournalKey {
	return JournalKey{r.dst.Registry, r.to, in.desc.Digest}
}

// resume returns the session that was begun before, the zero Upload if there is none.
func (r *run) resume(ctx context.Context, in *content) (u blob.Upload, err error) {
	if r.c.Journal == nil {
		return u, nil
	}
	was, err := r.c.Journal.Load(ctx, r.journalKey(in))
	if err != nil || was.ID == "" {
		return u, r.fail("read journal for", "", string(in.desc.Digest), err)
	}
	err = r.c.try(ctx, func() (err error) {
		u, err = r.uploads.Lookup(ctx, r.to, was.ID)
		return err
	})
	if errors.Is(err, blob.ErrUploadNotFound) || err == nil && u.Size > in.desc.Size {
		return blob.Upload{}, nil
	}
	if err == nil {
		u, err = r.rehash(ctx, in, u, was)
	}
	return u, err
}

// rehash gives u the state of its hash where the target does not keep it: that of
// was, and what the source says once more of what follows.
func (r *run) rehash(ctx context.Context, in *content, u, was blob.Upload) (blob.Upload, error) {
	u.Algorithm = in.desc.Digest.Algorithm()
	if len(u.Hash) > 0 || u.Size == 0 {
		return u, nil
	}
	h, known := u.Algorithm.Hash(), int64(0)
	if was.Size <= u.Size && h.(encoding.BinaryUnmarshaler).UnmarshalBinary(was.Hash) == nil {
		known = was.Size
	} else {
		h.Reset()
	}
	part := in.part(ctx, known, u.Size-known)
	defer part.Close()
	if _, err := io.Copy(h, part); err != nil {
		return u, err
	}
	var err error
	u.Hash, err = h.(encoding.BinaryMarshaler).MarshalBinary()
	return u, err
}

func (r *run) beginUpload(ctx context.Context, in *content) (u blob.Upload, err error) {
	err = r.c.try(ctx, func() (err error) {
		u, err = r.uploads.Begin(ctx, r.to, in.desc.Digest.Algorithm())
		return err
	})
	if err != nil {
		return u, err
	}
	return u, r.keep(ctx, in, u)
}

func (r *run) keep(ctx context.Context, in *content, u blob.Upload) error {
	if r.c.Journal == nil {
		return nil
	}
	return r.fail("write journal for", "", string(in.desc.Digest), r.c.Journal.Save(ctx, r.journalKey(in), u))
}

// sendParts sends what follows u.Size. A session that ends wrong is dropped.
func (r *run) sendParts(ctx context.Context, in *content, u blob.Upload) error {
	unsure := false // whether u is as the target has it
	for done := false; !done; {
		err := r.c.try(ctx, func() error {
			if unsure {
				now, err := r.uploads.Lookup(ctx, r.to, u.ID)
				if err != nil {
					return err
				}
				if now.Size != u.Size {
					if u, err = r.rehash(ctx, in, now, u); err != nil {
						return err
					}
				}
			}
			unsure = true
			n := min(orDefault(r.c.PartSize, DefaultPartSize), in.desc.Size-u.Size)
			part := in.part(ctx, u.Size, n)
			defer part.Close()
			if u.Size+n == in.desc.Size {
				done = true
				return blob.Finish(ctx, r.uploads, u, u.Size, part, in.desc.Digest)
			}
			next, err := blob.Append(ctx, r.uploads, u, u.Size, part)
			if err == nil {
				u, unsure = next, false
			}
			return err
		})
		switch {
		case errors.Is(err, blob.ErrDigest):
			// What is wrong stays wrong. That it could not be dropped is no further harm.
			_ = r.uploads.Abort(ctx, u)
			_ = r.keep(ctx, in, blob.Upload{})
			return err
		case errors.Is(err, blob.ErrUploadNotFound) && done && r.reader != nil: // the answer to Finish may have been lost
			missing, e := blob.Missing(r.reader)(ctx, r.to, []digest.Digest{in.desc.Digest})
			if e != nil || len(missing) > 0 {
				return err
			}
		case err != nil:
			return err
		}
		if done {
			return r.keep(ctx, in, blob.Upload{})
		}
		if err := r.keep(ctx, in, u); err != nil {
			return err
		}
	}
	return nil
}
