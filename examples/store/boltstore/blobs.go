package boltstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/examples/store/parts"
)

// Blobs implements [blob.Store] and all of its optional abilities. A blob that
// several repositories have is kept once.
type Blobs struct{ db *DB }

var _ interface {
	blob.Store
	blob.Mounter
	blob.Rereader
	blob.Locator
	blob.Catalog
	blob.Guarded
	blob.SessionLister
	blob.Sweeper
	blob.Redirector
} = (*Blobs)(nil)

func blobError(op, repo string, dgst digest.Digest, err error) error {
	if err == nil {
		return nil
	}
	return &blob.Error{Op: op, Repo: repo, Digest: dgst, Err: err}
}

func blobFailure(op, repo string, dgst digest.Digest) func(error) error {
	return func(err error) error { return blobError(op, repo, dgst, err) }
}

// link returns what repo has of dgst.
func (t *tx) link(repo string, dgst digest.Digest) (l link, found bool, err error) {
	v := t.get(linkRows, digestRow(name(repo), dgst))
	if v == nil {
		return link{}, false, nil
	}
	l, err = readLink(v)
	return l, err == nil, err
}

// setLink makes dgst visible in repo, or touches it there, if that was not done
// later by who has waited less.
func (t *tx) setLink(repo string, dgst digest.Digest, l link) {
	if have, found, err := t.link(repo, dgst); err == nil && found && have.touched.After(l.touched) {
		l.touched = have.touched
	}
	t.put(linkRows, digestRow(name(repo), dgst), linkRow(l))
	if holder := append(digestRow(nil, dgst), repo...); !t.has(contentRows, holder) {
		t.put(contentRows, holder, nothing)
	}
}

func (t *tx) content(dgst digest.Digest) (c parts.Content, found bool, err error) {
	v := t.get(contentRows, digestRow(nil, dgst))
	if v == nil {
		return parts.Content{}, false, nil
	}
	c, err = readContent(v)
	return c, err == nil, err
}

// checkEras refuses keys that a sweep may have taken for garbage.
func (t *tx) checkEras(keys ...string) error {
	open := number(t.get(metaRows, openEraRow))
	for _, key := range keys {
		if era, ok := parts.Era(key); !ok || era < open {
			return parts.ErrEra
		}
	}
	return nil
}

func keysOf(c parts.Content) []string { return c.Without(parts.Content{}) }

// Stat implements [blob.Reader]: step 2 of model/collect.pml.
func (b *Blobs) Stat(ctx context.Context, repo string, dgsts []digest.Digest) ([]blob.Info, error) {
	now := b.db.Now()
	infos := make([]blob.Info, len(dgsts))
	seen := 0
	promised, old := false, false
	err := b.db.view(ctx, func(t *tx) error {
		seen = t.bolt.ID()
		for i, d := range dgsts {
			l, found, err := t.link(repo, d)
			if err != nil {
				return err
			}
			if found {
				infos[i] = blob.Info{Digest: d, Size: l.size, TouchedAt: l.touched}
				promised = true
				old = old || b.db.old(l.touched, now)
			}
		}
		return nil
	})
	switch {
	case err != nil:
	case old:
		err = b.db.update(ctx, func(t *tx) error { return b.db.renew(t, repo, infos, now) })
	case promised:
		err = b.db.queue.durable(ctx, seen)
	}
	if err != nil {
		return nil, blobError("stat", repo, "", err)
	}
	return infos, nil
}

// renew touches those of infos that need it, if they are still there.
func (db *DB) renew(t *tx, repo string, infos []blob.Info, now time.Time) error {
	links := make([]link, len(infos))
	for i := range infos {
		if infos[i].Digest == "" {
			continue
		}
		l, found, err := t.link(repo, infos[i].Digest)
		if err != nil {
			return err
		}
		if links[i] = l; !found {
			infos[i] = blob.Info{}
		}
	}
	for i := range infos {
		if infos[i].Digest == "" {
			continue
		}
		if db.old(links[i].touched, now) {
			links[i].touched = now
			t.setLink(repo, infos[i].Digest, links[i])
		}
		infos[i].Size, infos[i].TouchedAt = links[i].size, links[i].touched
	}
	return nil
}

// find returns a blob of repo and where its bytes are.
func (b *Blobs) find(ctx context.Context, repo string, dgst digest.Digest) (info blob.Info, c parts.Content, err error) {
	err = b.db.view(ctx, func(t *tx) error {
		l, found, err := t.link(repo, dgst)
		if err != nil {
			return err
		}
		if !found {
			return blob.ErrNotFound
		}
		info = blob.Info{Digest: dgst, Size: l.size, TouchedAt: l.touched}
		if c, found, err = t.content(dgst); err == nil && !found {
			err = fmt.Errorf("%w: a link without its content", errRow)
		}
		return err
	})
	return info, c, err
}

// Open implements [blob.Reader]. The reader is that of Objects, if the blob is
// one object.
func (b *Blobs) Open(ctx context.Context, repo string, dgst digest.Digest, off, n int64) (io.ReadCloser, blob.Info, error) {
	r, info, err := b.open(ctx, repo, dgst, off, n)
	if err != nil {
		return nil, blob.Info{}, blobError("open", repo, dgst, err)
	}
	return r, info, nil
}

func (b *Blobs) open(ctx context.Context, repo string, dgst digest.Digest, off, n int64) (io.ReadCloser, blob.Info, error) {
	var before parts.Content
	for {
		info, c, err := b.find(ctx, repo, dgst)
		if err != nil {
			return nil, blob.Info{}, err
		}
		if off > info.Size {
			return nil, blob.Info{}, blob.ErrRange
		}
		if before.Parts != nil && len(c.Without(before)) == 0 {
			return nil, blob.Info{}, fmt.Errorf("an object of %s is missing: the store is damaged", keysOf(c))
		}
		r, err := b.db.files.Open(ctx, c, off, n)
		if !errors.Is(err, blob.ErrNotFound) {
			return r, info, err
		}
		before = c // deleted meanwhile, and perhaps put again
	}
}

// Put implements [blob.Writer]: step 1 of model/collect.pml.
func (b *Blobs) Put(ctx context.Context, repo string, desc ocispec.Descriptor, r io.Reader) error {
	c, err := b.db.files.Put(ctx, r)
	if err == nil {
		err = b.put(ctx, repo, desc.Digest, c)
	}
	return blobError("put", repo, desc.Digest, err)
}

// put makes c, which nothing refers to yet, a blob.
func (b *Blobs) put(ctx context.Context, repo string, dgst digest.Digest, c parts.Content) error {
	now := b.db.Now()
	p := publication{db: b.db, dgst: dgst, content: c}
	err := p.run(ctx, func() error {
		return b.db.update(ctx, func(t *tx) error {
			if err := t.checkEras(keysOf(c)...); err != nil {
				return err
			}
			if err := p.write(t); err != nil {
				return err
			}
			t.setLink(repo, dgst, link{now, c.Size()})
			return nil
		})
	})
	b.db.settle(ctx, err, keysOf(c), p.unused)
	return err
}

// Mount implements [blob.Mounter]: the mount of step 2 of model/collect.pml.
func (b *Blobs) Mount(ctx context.Context, from, repo string, dgst digest.Digest) error {
	now := b.db.Now()
	seen := 0
	fresh := false
	err := b.db.view(ctx, func(t *tx) error {
		seen = t.bolt.ID()
		if _, found, err := t.link(from, dgst); !found {
			return orNotFound(err)
		}
		l, found, err := t.link(repo, dgst)
		fresh = found && !b.db.old(l.touched, now)
		return err
	})
	switch {
	case err != nil:
	case fresh:
		err = b.db.queue.durable(ctx, seen)
	default:
		err = b.db.update(ctx, func(t *tx) error {
			l, found, err := t.link(from, dgst)
			if !found {
				return orNotFound(err)
			}
			t.setLink(repo, dgst, link{now, l.size})
			return nil
		})
	}
	return blobError("mount", repo, dgst, err)
}

func orNotFound(err error) error {
	if err == nil {
		err = blob.ErrNotFound
	}
	return err
}

// Blobs implements [blob.Lister].
func (b *Blobs) Blobs(ctx context.Context, repo string, after digest.Digest) iter.Seq2[blob.Info, error] {
	prefix := name(repo)
	from := append(name(repo), afterDigest(string(after))...)
	return list(ctx, b.db, from, func(t *tx, from []byte, n int) (page []blob.Info, _ []byte, err error) {
		for k, v := range t.heads(linkRows, prefix, from) {
			if len(page) == n {
				return page, append([]byte(nil), k...), nil
			}
			dgst, _ := readDigest(k[len(prefix):])
			l, err := readLink(v)
			if err != nil {
				return nil, nil, fmt.Errorf("%s: %w", dgst, err)
			}
			page = append(page, blob.Info{Digest: dgst, Size: l.size, TouchedAt: l.touched})
		}
		return page, nil, nil
	}, blobFailure("list", repo, ""))
}

// Repos implements [blob.Catalog].
func (b *Blobs) Repos(ctx context.Context, after string) iter.Seq2[string, error] {
	return repos(ctx, b.db, linkRows, after, blobFailure("list repositories", "", ""))
}

// Locate implements [blob.Locator].
func (b *Blobs) Locate(ctx context.Context, dgst digest.Digest) iter.Seq2[string, error] {
	prefix := digestRow(nil, dgst)
	return list(ctx, b.db, next(prefix), func(t *tx, from []byte, n int) (page []string, _ []byte, err error) {
		for k := range t.under(contentRows, prefix, from) {
			if len(page) == n {
				return page, append([]byte(nil), k...), nil
			}
			page = append(page, string(k[len(prefix):]))
		}
		return page, nil, nil
	}, blobFailure("locate", "", dgst))
}

// Guarded implements [blob.Guarded]: it is true.
func (b *Blobs) Guarded() bool { return true }

// Delete implements [blob.Deleter]: step 4 of model/collect.pml.
func (b *Blobs) Delete(ctx context.Context, repo string, dgst digest.Digest, cutoff time.Time) error {
	var unused []string
	err := b.db.update(ctx, func(t *tx) (err error) {
		unused, err = t.unlink(repo, dgst, cutoff)
		return err
	})
	b.db.settle(ctx, err, nil, unused)
	return blobError("delete", repo, dgst, err)
}

// unlink removes dgst from repo, and returns the keys of its objects if no
// repository has it any more.
func (t *tx) unlink(repo string, dgst digest.Digest, cutoff time.Time) (unused []string, err error) {
	l, found, err := t.link(repo, dgst)
	if !found {
		return nil, orNotFound(err)
	}
	if !cutoff.IsZero() && l.touched.After(cutoff) {
		return nil, fmt.Errorf("touched at %v: %w", l.touched, blob.ErrConflict)
	}
	row, holders := digestRow(name(repo), dgst), digestRow(nil, dgst)
	for _, dgst := range t.under(linkRows, row, next(row)) {
		parent, _ := readDigest(dgst)
		return nil, fmt.Errorf("manifest %s needs it: %w", parent, blob.ErrConflict)
	}
	c, _, err := t.content(dgst)
	if err != nil {
		return nil, err
	}
	others := false
	for k := range t.under(contentRows, holders, next(holders)) {
		if string(k[len(holders):]) != repo {
			others = true
			break
		}
	}
	t.delete(linkRows, row)
	t.delete(contentRows, append(holders[:len(holders):len(holders)], repo...))
	if others {
		return nil, nil
	}
	t.delete(contentRows, holders)
	unused = keysOf(c)
	t.unrefer(unused...)
	return unused, nil
}

// Redirect implements [blob.Redirector].
func (b *Blobs) Redirect(ctx context.Context, repo string, dgst digest.Digest) (string, error) {
	const ttl = 20 * time.Minute // for the first byte; what is under way goes on
	l, ok := b.db.Objects.(blob.Linker)
	if !ok || b.db.LinkAbove <= 0 {
		return "", ctx.Err()
	}
	info, c, err := b.find(ctx, repo, dgst)
	var url string
	if err == nil && info.Size >= b.db.LinkAbove && len(c.Parts) == 1 {
		var packed bool
		if _, packed, err = b.db.packs.find(ctx, c.Parts[0].Key); err == nil && !packed {
			url, err = l.Link(ctx, c.Parts[0].Key, ttl)
		}
	}
	if err != nil {
		return "", blobError("redirect", repo, dgst, err)
	}
	return url, nil
}
