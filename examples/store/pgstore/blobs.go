package pgstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/examples/store/parts"
)

// Blobs implements [blob.Store] and its optional interfaces.
type Blobs struct{ db *DB }

var _ interface {
	blob.Store
	blob.Mounter
	blob.Rereader
	blob.Locator
	blob.Catalog
	blob.Guarded
	blob.Promiser
	blob.SessionLister
	blob.Sweeper
	blob.Redirector
} = (*Blobs)(nil)

func blobError(op, repo string, dgst digest.Digest, err error) error {
	return &blob.Error{Op: op, Repo: repo, Digest: dgst, Err: err}
}

// Guarded implements [blob.Guarded]: Apply and Delete take the same lock.
func (b *Blobs) Guarded() bool { return true }

// Promised implements [blob.Promiser].
func (b *Blobs) Promised(ctx context.Context) (time.Duration, error) {
	var kept int64
	if _, err := b.db.row(ctx, `select coalesce(lease, 0) from meta`, nil, &kept); err != nil {
		return 0, blobError("lease", "", "", err)
	}
	return max(time.Duration(kept)*time.Microsecond, b.db.lease), nil
}

// files makes keys of an era. It is asked for by each call that writes objects:
// with one that was remembered, a call could fail that began long after a sweep.
func (b *Blobs) files(era int64) *parts.Files {
	return &parts.Files{
		Objects: b.db.o.Objects,
		NewKey:  func() string { return parts.NewKey(uint64(era), b.db.now()) },
		MinPart: b.db.o.MinPart,
	}
}

// Stat implements [blob.Reader]: step 2 of model/collect.pml. It is one round trip, and a second one when
// touches are to be renewed.
func (b *Blobs) Stat(ctx context.Context, repo string, dgsts []digest.Digest) ([]blob.Info, error) {
	infos, err := b.stat(ctx, repo, dgsts)
	if err != nil {
		return nil, blobError("stat", repo, "", err)
	}
	return infos, nil
}

func (b *Blobs) stat(ctx context.Context, repo string, dgsts []digest.Digest) ([]blob.Info, error) {
	now := b.db.now()
	have := make(map[digest.Digest]blob.Info, len(dgsts))
	var old []string
	rows, _ := b.db.pool.Query(ctx, `select digest, size, touched_at from link join content using (digest) where repo = $1 and digest = any($2)`, repo, texts(dgsts))
	var info blob.Info
	_, err := pgx.ForEachRow(rows, []any{&info.Digest, &info.Size, &info.TouchedAt}, func() error {
		info.TouchedAt = info.TouchedAt.UTC()
		if now.Sub(info.TouchedAt) <= b.db.lease/2 {
			have[info.Digest] = info
		} else {
			old = append(old, string(info.Digest))
		}
		return nil
	})
	if err != nil {
		return nil, ended(ctx, err)
	}
	if old != nil {
		err = b.db.write(ctx, func(t *tx) error {
			each(t.queue(`with found as (select digest from link where repo = $1 and digest = any($2) order by digest for update)
				update link l set touched_at = greatest(l.touched_at, $3) from found join content c using (digest)
				where l.repo = $1 and l.digest = found.digest returning l.digest, c.size, l.touched_at`, repo, old, now),
				[]any{&info.Digest, &info.Size, &info.TouchedAt}, func() {
					info.TouchedAt = info.TouchedAt.UTC()
					have[info.Digest] = info
				})
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	infos := make([]blob.Info, len(dgsts))
	for i, d := range dgsts {
		infos[i] = have[d]
	}
	return infos, nil
}

// find returns what a blob consists of. Its Info is zero if it is not there.
func (b *Blobs) find(ctx context.Context, repo string, dgst digest.Digest) (blob.Info, parts.Content, error) {
	info := blob.Info{Digest: dgst}
	var keys []string
	var sizes []int64
	found, err := b.db.row(ctx, `select size, touched_at, keys, sizes from link join content using (digest) where repo = $1 and digest = $2`,
		[]any{repo, dgst}, &info.Size, &info.TouchedAt, &keys, &sizes)
	if err != nil || !found {
		return blob.Info{}, parts.Content{}, err
	}
	info.TouchedAt = info.TouchedAt.UTC()
	return info, contentOf(keys, sizes), nil
}

// contentOf is what a row of content says.
func contentOf(keys []string, sizes []int64) (c parts.Content) {
	for i, key := range keys {
		c.Parts = append(c.Parts, parts.Part{Key: key, Size: sizes[i]})
	}
	return c
}

func sizes(c parts.Content) []int64 {
	sizes := make([]int64, len(c.Parts))
	for i, part := range c.Parts {
		sizes[i] = part.Size
	}
	return sizes
}

// Open implements [blob.Reader].
func (b *Blobs) Open(ctx context.Context, repo string, dgst digest.Digest, off, n int64) (io.ReadCloser, blob.Info, error) {
	r, info, err := b.open(ctx, repo, dgst, off, n)
	if err != nil {
		return nil, blob.Info{}, blobError("open", repo, dgst, err)
	}
	return r, info, nil
}

func (b *Blobs) open(ctx context.Context, repo string, dgst digest.Digest, off, n int64) (io.ReadCloser, blob.Info, error) {
	var tried parts.Content
	var failed error
	for {
		info, c, err := b.find(ctx, repo, dgst)
		switch {
		case err != nil:
			return nil, info, err
		case info.Digest == "":
			return nil, info, blob.ErrNotFound
		case off > info.Size:
			return nil, info, blob.ErrRange
		case failed != nil && len(c.Without(tried)) == 0:
			return nil, info, fmt.Errorf("bytes are lost: %v", failed) // which is not ErrNotFound
		}
		r, err := b.files(0).Open(ctx, c, off, n)
		if err == nil {
			return r, info, nil
		}
		if !errors.Is(err, blob.ErrNotFound) {
			return nil, info, err
		}
		tried, failed = c, err // deleted since we looked, and maybe put again, or damage
	}
}

// Put implements [blob.Writer]: step 1 of model/collect.pml. Beside the object it
// costs three round trips, and for a content that is there already two more and
// an Open of its objects.
func (b *Blobs) Put(ctx context.Context, repo string, desc ocispec.Descriptor, r io.Reader) error {
	if err := b.put(ctx, repo, desc.Digest, r); err != nil {
		return blobError("put", repo, desc.Digest, err)
	}
	return nil
}

func (b *Blobs) put(ctx context.Context, repo string, dgst digest.Digest, r io.Reader) error {
	var era int64
	if _, err := b.db.row(ctx, `select max(era) from era`, nil, &era); err != nil {
		return err
	}
	files := b.files(era)
	c, err := files.Put(ctx, r)
	if err != nil {
		return err
	}
	p := publication{db: b.db, files: files, repo: repo, dgst: dgst, content: c, fresh: keys(c)}
	err = p.run(ctx, func(t *tx) error {
		p.look(t)
		if err := t.send(ctx); err != nil {
			return err
		}
		return p.write(ctx, t)
	})
	if err != nil && !mayHaveCommitted(err) {
		files.Drop(ctx, p.fresh...)
	}
	return err
}

func keys(c parts.Content) []string { return c.Without(parts.Content{}) }

// publication makes a content a blob of a repository.
type publication struct {
	db      *DB
	files   *parts.Files
	repo    string
	dgst    digest.Digest
	content parts.Content
	fresh   []string // its keys that nothing refers to yet

	eras     eras
	made     bool          // there was no content of dgst
	has      parts.Content // else what there was
	seen     parts.Content // as it was when its objects were looked for
	lost     bool          // and they were not there
	replaced bool          // so this has taken its place
}

// ours tells whether the content is the one that counts.
func (p *publication) ours() bool { return p.made || p.replaced }

// errLook is a content whose objects are to be looked for first, by nobody who
// has a transaction open.
var errLook = errors.New("the objects of a content are to be looked for first")

// run is db.write, and drops what is of no use then: the own objects, or those
// that are lost.
func (p *publication) run(ctx context.Context, do func(t *tx) error) error {
	for {
		err := p.db.write(ctx, do)
		switch {
		case errors.Is(err, errLook):
			whole, err := p.files.Whole(ctx, p.has)
			if err != nil {
				return err
			}
			p.seen, p.lost = p.has, !whole
			continue
		case err != nil:
		case !p.ours():
			p.files.Drop(ctx, keys(p.content)...)
		case p.replaced:
			p.files.Drop(ctx, keys(p.seen)...)
		}
		return err
	}
}

// look queues what finds out, and makes the content if there is none.
func (p *publication) look(t *tx) {
	p.eras.hold(p.db, t)
	p.made, p.replaced, p.has = false, false, parts.Content{}
	one(t.queue(`insert into content (digest, size, keys, sizes) values ($1, $2, $3, $4) on conflict do nothing returning true`,
		p.dgst, p.content.Size(), keys(p.content), sizes(p.content)), &p.made)
	var keys []string
	var sizes []int64
	each(t.queue(`select keys, sizes from content where digest = $1`, p.dgst), []any{&keys, &sizes}, func() { p.has = contentOf(keys, sizes) })
}

// write checks what look has found and queues the rest. A content of somebody
// else's is linked to if its objects were there, and replaced if they were not.
// If it has gone meanwhile, it breaks the link's foreign key, and all is tried
// again.
func (p *publication) write(ctx context.Context, t *tx) error {
	if err := p.eras.check(p.fresh); err != nil {
		return err
	}
	if !p.made && !slices.Equal(keys(p.has), keys(p.seen)) {
		return errLook
	}
	t.queue(`insert into link (repo, digest, touched_at) values ($1, $2, $3)
		on conflict (repo, digest) do update set touched_at = greatest(link.touched_at, excluded.touched_at)`, p.repo, p.dgst, p.db.now())
	if !p.made && p.lost {
		t.queue(`delete from object where key = any($1)`, keys(p.has))
		one(t.queue(`update content set keys = $3, sizes = $4 where digest = $1 and keys = $2 returning true`,
			p.dgst, keys(p.has), keys(p.content), sizes(p.content)), &p.replaced)
		if err := t.send(ctx); err != nil {
			return err
		}
		if !p.replaced {
			return errLook // somebody else has replaced it
		}
	}
	if p.ours() {
		refer(t, p.fresh)
	}
	return nil
}

// refer queues the rows of keys that nothing referred to.
func refer(t *tx, keys []string) {
	if len(keys) > 0 {
		t.queue(`insert into object (key) select unnest($1::text[])`, keys)
	}
}

// Mount implements [blob.Mounter], in one round trip: the mount of step 2 of
// model/collect.pml.
func (b *Blobs) Mount(ctx context.Context, from, repo string, dgst digest.Digest) error {
	found := false
	err := b.db.write(ctx, func(t *tx) error {
		found = false
		one(t.queue(`insert into link (repo, digest, touched_at) select $2, digest, $4 from link where repo = $1 and digest = $3
			on conflict (repo, digest) do update set touched_at = greatest(link.touched_at, excluded.touched_at) returning true`, from, repo, dgst, b.db.now()), &found)
		return nil
	})
	if err == nil && !found {
		err = blob.ErrNotFound
	}
	if err != nil {
		return blobError("mount", repo, dgst, err)
	}
	return nil
}

// Delete implements [blob.Deleter], step 4 of model/collect.pml, in two round
// trips. Objects go after the
// commit: what a crash leaves of them is for Sweep.
func (b *Blobs) Delete(ctx context.Context, repo string, dgst digest.Digest, cutoff time.Time) error {
	var gone []string
	err := b.db.write(ctx, func(t *tx) error {
		var touched *time.Time
		var manifest, key string
		t.lockRepo(b.db, repo)
		one(t.queue(`select touched_at from link where repo = $1 and digest = $2 for update`, repo, dgst), &touched)
		one(t.queue(`select manifest from need where repo = $1 and blob = $2 limit 1`, repo, dgst), &manifest)
		if err := t.send(ctx); err != nil {
			return err
		}
		switch {
		case touched == nil:
			return blob.ErrNotFound
		case !cutoff.IsZero() && touched.After(cutoff):
			return fmt.Errorf("touched at %v: %w", touched.UTC(), blob.ErrConflict)
		case manifest != "":
			return fmt.Errorf("manifest %s needs it: %w", manifest, blob.ErrConflict)
		}
		gone = nil
		t.queue(`delete from link where repo = $1 and digest = $2`, repo, dgst)
		// Who links to the content meanwhile waits for its row. Who has done so
		// since the lock was asked for is seen by the next statement only.
		t.queue(`select from content where digest = $1 for update`, dgst)
		each(t.queue(`with gone as (delete from content c where digest = $1 and not exists (select from link where digest = $1) returning keys)
			delete from object using gone where key = any(gone.keys) returning key`, dgst), []any{&key}, func() { gone = append(gone, key) })
		return nil
	})
	if err != nil {
		return blobError("delete", repo, dgst, err)
	}
	b.files(0).Drop(ctx, gone...)
	return nil
}

// Blobs implements [blob.Lister].
func (b *Blobs) Blobs(ctx context.Context, repo string, after digest.Digest) iter.Seq2[blob.Info, error] {
	return list(ctx, b.db, bound(after), func(after string, limit int) (string, []any) {
		return `select digest, size, touched_at from link join content using (digest) where repo = $1 and link.digest > $2
			order by link.digest limit $3`, []any{repo, after, limit}
	}, func(rows pgx.Rows) (string, blob.Info, error) {
		var info blob.Info
		err := rows.Scan(&info.Digest, &info.Size, &info.TouchedAt)
		info.TouchedAt = info.TouchedAt.UTC()
		return string(info.Digest), info, err
	}, func(err error) error { return blobError("list", repo, after, err) })
}

// Repos implements [blob.Catalog]. Its cost follows the number of repositories
// that it lists.
func (b *Blobs) Repos(ctx context.Context, after string) iter.Seq2[string, error] {
	return repos(ctx, b.db, `link`, after, func(err error) error { return blobError("list", "", "", err) })
}

// Locate implements [blob.Locator].
func (b *Blobs) Locate(ctx context.Context, dgst digest.Digest) iter.Seq2[string, error] {
	return list(ctx, b.db, "", func(after string, limit int) (string, []any) {
		return `select repo from link where digest = $1 and repo > $2 order by repo limit $3`, []any{dgst, after, limit}
	}, func(rows pgx.Rows) (string, string, error) {
		var repo string
		err := rows.Scan(&repo)
		return repo, repo, err
	}, func(err error) error { return blobError("locate", "", dgst, err) })
}

// Redirect implements [blob.Redirector]. It asks the database only if
// LinkAbove is set and Objects is a [blob.Linker].
func (b *Blobs) Redirect(ctx context.Context, repo string, dgst digest.Digest) (string, error) {
	linker, ok := b.db.o.Objects.(blob.Linker)
	if !ok || b.db.o.LinkAbove <= 0 {
		return "", ctx.Err()
	}
	info, c, err := b.find(ctx, repo, dgst)
	if err == nil && info.Digest == "" {
		err = blob.ErrNotFound
	}
	url := ""
	if err == nil && info.Size >= b.db.o.LinkAbove && len(c.Parts) == 1 {
		ttl := b.db.o.LinkTTL
		if ttl <= 0 {
			ttl = 15 * time.Minute
		}
		url, err = linker.Link(ctx, c.Parts[0].Key, ttl)
	}
	if err != nil {
		return "", blobError("redirect", repo, dgst, err)
	}
	return url, nil
}
