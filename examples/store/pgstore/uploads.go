package pgstore

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/jackc/pgx/v5"
	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/examples/store/parts"
)

func uploadError(op string, u blob.Upload, err error) error {
	return &blob.Error{Op: op, Repo: u.Repo, ID: u.ID[:min(len(u.ID), 64)], Err: err}
}

// isID tells whether Begin may have made id. What it has not made need not even
// be text.
func isID(id string) bool {
	if len(id) < 26 || len(id) > 64 {
		return false
	}
	for _, c := range []byte(id) {
		if !('A' <= c && c <= 'Z' || '0' <= c && c <= '9') {
			return false
		}
	}
	return true
}

// hurried queues that the commit is not waited for: what a crash undoes of it
// was not acknowledged.
func (t *tx) hurried() { t.queue(`set local synchronous_commit = off`) }

// Begin implements [blob.Uploads].
func (b *Blobs) Begin(ctx context.Context, repo string, alg digest.Algorithm) (blob.Upload, error) {
	u := blob.Upload{Repo: repo, ID: rand.Text(), Algorithm: alg, State: parts.State(parts.Content{}), UpdatedAt: b.db.now()}
	err := b.db.write(ctx, func(t *tx) error {
		t.hurried()
		t.queue(`insert into session (id, repo, size, algorithm, hash, state, updated_at) values ($1, $2, 0, $3, '', $4, $5)`, u.ID, repo, alg, u.State, u.UpdatedAt)
		return nil
	})
	if err != nil {
		return blob.Upload{}, uploadError("begin", u, err)
	}
	return u, nil
}

const session = `id, repo, size, algorithm, hash, state, updated_at`

func scanSession(row pgx.Row) (u blob.Upload, err error) {
	err = row.Scan(&u.ID, &u.Repo, &u.Size, &u.Algorithm, &u.Hash, &u.State, &u.UpdatedAt)
	u.UpdatedAt = u.UpdatedAt.UTC()
	return u, err
}

// Lookup implements [blob.Uploads].
func (b *Blobs) Lookup(ctx context.Context, repo, id string) (blob.Upload, error) {
	err := ctx.Err()
	if err == nil && !isID(id) {
		err = blob.ErrUploadNotFound
	}
	var u blob.Upload
	if err == nil {
		u, err = scanSession(b.db.pool.QueryRow(ctx, `select `+session+` from session where id = $1 and repo = $2`, id, repo))
		if err == pgx.ErrNoRows {
			err = blob.ErrUploadNotFound
		}
	}
	if err != nil {
		return blob.Upload{}, uploadError("lookup", blob.Upload{Repo: repo, ID: id}, ended(ctx, err))
	}
	return u, nil
}

// stateOf reads the state of a session, asks whether it is there, and returns
// also what writes objects for it now.
func (b *Blobs) stateOf(ctx context.Context, u blob.Upload) (parts.Content, *parts.Files, error) {
	c, wrong := parts.ParseState(u.State)
	if wrong == nil && c.Size() != u.Size {
		wrong = blob.ErrConflict
	}
	err := ctx.Err()
	found := false
	var era int64
	if err == nil && isID(u.ID) {
		found, err = b.db.row(ctx, `select max(era) from era having exists (select from session where id = $1 and repo = $2)`, []any{u.ID, u.Repo}, &era)
	}
	if err == nil && !found {
		err = blob.ErrUploadNotFound
	}
	if err != nil {
		return c, nil, err
	}
	return c, b.files(era), wrong
}

// Append implements [blob.Uploads]. That the session has moved on is found by
// Save.
func (b *Blobs) Append(ctx context.Context, u blob.Upload, r io.Reader) (blob.Upload, error) {
	c, files, err := b.stateOf(ctx, u)
	if err == nil {
		c, err = files.Append(ctx, c, r)
	}
	if err != nil {
		return u, uploadError("append", u, err)
	}
	u.Size, u.State = c.Size(), parts.State(c)
	return u, nil
}

// lockSession queues the look at a session that is to be u.
func lockSession(t *tx, u blob.Upload) *sessionLook {
	x := &sessionLook{}
	one(t.queue(`select true, state = $3 from session where id = $1 and repo = $2 for update`, u.ID, u.Repo, u.State), &x.found, &x.same)
	return x
}

type sessionLook struct{ found, same bool }

func (x *sessionLook) check() error {
	switch {
	case !x.found:
		return blob.ErrUploadNotFound
	case !x.same:
		return blob.ErrConflict
	}
	return nil
}

// Save implements [blob.Uploads], in two round trips.
func (b *Blobs) Save(ctx context.Context, old, new blob.Upload) error {
	if err := b.save(ctx, old, new); err != nil {
		return uploadError("save", old, err)
	}
	return nil
}

func (b *Blobs) save(ctx context.Context, old, new blob.Upload) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if !isID(old.ID) {
		return blob.ErrUploadNotFound
	}
	before, err := parts.ParseState(old.State)
	if err != nil {
		return err
	}
	c, err := parts.ParseState(new.State)
	if err != nil {
		return err
	}
	fresh := c.Without(before)
	hash := new.Hash
	if hash == nil {
		hash = []byte{}
	}
	err = b.db.write(ctx, func(t *tx) error {
		var e eras
		if len(fresh) > 0 {
			e.hold(b.db, t)
		}
		x := lockSession(t, old)
		if err := t.send(ctx); err != nil {
			return err
		}
		if err := x.check(); err != nil {
			return err
		}
		if err := e.check(fresh); err != nil {
			return err
		}
		refer(t, fresh)
		t.queue(`update session set size = $2, algorithm = $3, hash = $4, state = $5, updated_at = $6 where id = $1`,
			old.ID, c.Size(), new.Algorithm, hash, new.State, b.db.now())
		return nil
	})
	b.forsake(ctx, err, fresh)
	return err
}

// forsake drops objects of a session when the failure of a Save or Commit means
// that nobody can come to refer to them any more. After any other failure the
// caller may try again.
func (b *Blobs) forsake(ctx context.Context, err error, keys []string) {
	if len(keys) == 0 || !errors.Is(err, blob.ErrConflict) && !errors.Is(err, blob.ErrUploadNotFound) && !errors.Is(err, parts.ErrEra) {
		return
	}
	// The same call may have succeeded before, and its answer been lost.
	if strays, err := b.strays(ctx, keys); err == nil {
		b.files(0).Drop(ctx, strays...)
	}
}

// Commit implements [blob.Uploads], step 1 of model/collect.pml, in three round
// trips.
func (b *Blobs) Commit(ctx context.Context, old, u blob.Upload, dgst digest.Digest) error {
	if err := b.commit(ctx, old, u, dgst); err != nil {
		return uploadError("commit", old, err)
	}
	return nil
}

func (b *Blobs) commit(ctx context.Context, old, u blob.Upload, dgst digest.Digest) error {
	u.Repo, u.ID = old.Repo, old.ID
	before, err := parts.ParseState(old.State)
	if err != nil {
		return err
	}
	c, files, err := b.stateOf(ctx, u)
	if err != nil {
		b.forsake(ctx, err, c.Without(before))
		return err
	}
	sealed, err := files.Seal(ctx, c)
	if err != nil {
		return err
	}
	p := publication{db: b.db, files: files, repo: old.Repo, dgst: dgst, content: sealed, fresh: sealed.Without(before)}
	err = p.run(ctx, func(t *tx) error {
		p.eras.hold(b.db, t)
		x := lockSession(t, old)
		p.look(t)
		if err := t.send(ctx); err != nil {
			return err
		}
		if err := x.check(); err != nil {
			return err
		}
		if err := p.write(ctx, t); err != nil {
			return err
		}
		t.queue(`delete from session where id = $1`, old.ID)
		if !p.ours() {
			t.queue(`delete from object where key = any($1)`, keys(before))
		}
		return nil
	})
	if err != nil && !mayHaveCommitted(err) {
		files.Drop(ctx, sealed.Without(c)...)
		b.forsake(ctx, err, c.Without(before))
	}
	return err
}

// Abort implements [blob.Uploads], in two round trips.
func (b *Blobs) Abort(ctx context.Context, u blob.Upload) error {
	if err := b.abort(ctx, u); err != nil {
		return uploadError("abort", u, err)
	}
	return nil
}

func (b *Blobs) abort(ctx context.Context, u blob.Upload) error {
	c, files, err := b.stateOf(ctx, u)
	if err != nil {
		return err
	}
	err = b.db.write(ctx, func(t *tx) error {
		x := lockSession(t, u)
		if c.Size() == 0 {
			t.hurried()
		}
		if err := t.send(ctx); err != nil {
			return err
		}
		if err := x.check(); err != nil {
			return err
		}
		t.queue(`delete from session where id = $1`, u.ID)
		t.queue(`delete from object where key = any($1)`, keys(c))
		return nil
	})
	if err == nil {
		files.Drop(ctx, keys(c)...)
	}
	return err
}

// Reread implements [blob.Rereader].
func (b *Blobs) Reread(ctx context.Context, u blob.Upload) (io.ReadCloser, error) {
	c, files, err := b.stateOf(ctx, u)
	var r io.ReadCloser
	if err == nil {
		r, err = files.Open(ctx, c, 0, -1)
	}
	if errors.Is(err, blob.ErrNotFound) {
		now, gone := b.Lookup(ctx, u.Repo, u.ID)
		switch {
		case gone != nil:
			err = gone
		case !bytes.Equal(now.State, u.State): // somebody has won over u
			err = blob.ErrConflict
		default:
			err = fmt.Errorf("bytes are lost: %v", err)
		}
	}
	if err != nil {
		return nil, uploadError("reread", u, err)
	}
	return r, nil
}

// Sessions implements [blob.SessionLister].
func (b *Blobs) Sessions(ctx context.Context, after string) iter.Seq2[blob.Upload, error] {
	return list(ctx, b.db, bound(after), func(after string, limit int) (string, []any) {
		return `select ` + session + ` from session where id > $1 order by id limit $2`, []any{after, limit}
	}, func(rows pgx.Rows) (string, blob.Upload, error) {
		u, err := scanSession(rows)
		return u.ID, u, err
	}, func(err error) error { return uploadError("list", blob.Upload{ID: after}, err) })
}
