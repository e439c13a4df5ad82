package pullthrough

import (
	"bytes"
	"context"
	"errors"
	"io"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/replication"
)

// CachedBlobs is Blobs, with what it lacks fetched where a rule covers the repository. It
// has the abilities of Blobs; a mount is from what is here. What Stat finds upstream is
// not fetched by that, and may vanish there: a push that relies on it fetches it.
func (c *Cache) CachedBlobs() blob.Store { return cachedBlobs{c.Blobs, c} }

type cachedBlobs struct {
	blob.Store
	c *Cache
}

// Abilities implements [blob.Able].
func (b cachedBlobs) Abilities() []any {
	all := []any{b.Store}
	if a, ok := b.Store.(blob.Able); ok {
		all = append(all, a.Abilities()...)
	}
	return all
}

// Redirect implements [blob.Redirector]. What is not here is served from here.
func (b cachedBlobs) Redirect(ctx context.Context, repo string, dgst digest.Digest) (string, error) {
	store, ok := blob.As[blob.Redirector](b.Store)
	if !ok {
		return "", nil
	}
	url, err := store.Redirect(ctx, repo, dgst)
	if _, covered := b.c.asked(ctx, repo); covered && errors.Is(err, blob.ErrNotFound) {
		return "", nil
	}
	return url, err
}

func (b cachedBlobs) Stat(ctx context.Context, repo string, dgsts []digest.Digest) ([]blob.Info, error) {
	infos, err := b.Store.Stat(ctx, repo, dgsts)
	p, covered := b.c.asked(ctx, repo)
	if err != nil || !covered {
		return infos, err
	}
	for i, dgst := range dgsts {
		if infos[i].Digest != "" {
			continue
		}
		info, err := b.c.probe(ctx, p, dgst)
		switch {
		case err == nil:
			infos[i] = info
		case !absent(err):
			return nil, err
		}
	}
	return infos, nil
}

func (b cachedBlobs) Open(ctx context.Context, repo string, dgst digest.Digest, off, n int64) (io.ReadCloser, blob.Info, error) {
	p, covered := b.c.asked(ctx, repo)
	for try := 0; ; try++ {
		body, info, err := b.Store.Open(ctx, repo, dgst, off, n)
		// A store that has lost the bytes gets them again.
		if err == nil || !covered || errors.Is(err, blob.ErrRange) || ctx.Err() != nil {
			return body, info, err
		}
		body, info, got := b.c.open(ctx, p, dgst, off, n)
		switch {
		case got == nil:
			return body, info, nil
		case got == errStored && try < 3: // somebody else was faster
			continue
		case errors.Is(err, blob.ErrNotFound) && got != errStored:
			err = &blob.Error{Op: "open", Repo: repo, Digest: dgst, Err: got}
		}
		return nil, blob.Info{}, err
	}
}

// open reads a blob that is not in the store.
func (c *Cache) open(ctx context.Context, p place, dgst digest.Digest, off, n int64) (io.ReadCloser, blob.Info, error) {
	if n == 0 {
		info, err := c.probe(ctx, p, dgst)
		if err == nil && off > info.Size {
			err = blob.ErrRange
		}
		return io.NopCloser(bytes.NewReader(nil)), info, err
	}
	t, err := c.enter(ctx, p, dgst)
	if err != nil {
		return nil, blob.Info{}, err
	}
	// A length of 0 is all there is to an answer, so that comes after the verdict.
	var size int64
	err = t.wait(ctx, func() bool {
		size = t.size
		return t.done || t.size > 0
	})
	if err == nil && off > size {
		err = blob.ErrRange
	}
	if err != nil {
		t.leave()
		return nil, blob.Info{}, err
	}
	end := size
	if n > 0 && n < size-off {
		end = off + n
	}
	return &reader{t: t, ctx: ctx, off: off, end: end}, blob.Info{Digest: dgst, Size: size, TouchedAt: c.now()}, nil
}

// enter joins a transfer, if that may be.
func (c *Cache) enter(ctx context.Context, p place, dgst digest.Digest) (*transfer, error) {
	if err := c.authorize(ctx, p.repo); err != nil {
		return nil, err
	}
	if err := c.refusal(p, "blob "+string(dgst)); err != nil {
		return nil, err
	}
	return c.join(ctx, p, dgst)
}

// fetchBlob returns when the blob is stored.
func (c *Cache) fetchBlob(ctx context.Context, p place, dgst digest.Digest) error {
	t, err := c.enter(ctx, p, dgst)
	if err != nil {
		return err
	}
	defer t.leave()
	err = t.wait(ctx, func() bool { return t.done })
	switch err {
	case errStored:
		return nil
	case nil:
		return t.unstored
	}
	return err
}

// probe asks upstream for the size of a blob. One that does not tell is fetched.
func (c *Cache) probe(ctx context.Context, p place, dgst digest.Digest) (info blob.Info, err error) {
	if err := c.authorize(ctx, p.repo); err != nil {
		return info, err
	}
	err = c.ask(ctx, p, "blob "+string(dgst), func(ctx context.Context, s replication.Source) error {
		body, got, err := s.Blobs.Open(ctx, p.upstream, dgst, 0, 0)
		if err == nil {
			err = body.Close()
		}
		info = blob.Info{Digest: dgst, Size: got.Size}
		return err
	})
	if err != nil || info.Size >= 0 {
		return info, err
	}
	if err = c.fetchBlob(ctx, p, dgst); err != nil {
		return blob.Info{}, err
	}
	infos, err := c.Blobs.Stat(ctx, p.repo, []digest.Digest{dgst})
	if err != nil {
		return blob.Info{}, err
	}
	if infos[0].Digest == "" {
		return blob.Info{}, &blob.Error{Op: "stat", Repo: p.repo, Digest: dgst, Err: blob.ErrNotFound}
	}
	return infos[0], nil
}
