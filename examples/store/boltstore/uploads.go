package boltstore

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/examples/store/parts"
)

// fresh are the sessions that nothing was saved of. They end with the process.
type fresh struct {
	most int

	mu       sync.Mutex
	sessions map[string]*freshSession // by ID
}

type freshSession struct {
	blob.Upload
	// claimed by a transaction that is to save or end it. If that is not
	// committed, it is free again.
	claimed bool
}

func (f *fresh) add(u blob.Upload) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.sessions) >= f.most {
		return fmt.Errorf("%w: %d of them have no bytes yet", blob.ErrTooMany, len(f.sessions))
	}
	if f.sessions == nil {
		f.sessions = map[string]*freshSession{}
	}
	f.sessions[u.ID] = &freshSession{Upload: u}
	return nil
}

func (f *fresh) get(id string) (blob.Upload, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.sessions[id]
	if s == nil {
		return blob.Upload{}, false
	}
	u := s.Upload
	u.State = bytes.Clone(u.State)
	return u, true
}

// claim is for a transaction, whose end calls settle.
func (f *fresh) claim(u blob.Upload) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.sessions[u.ID]
	if s == nil || s.claimed || s.Repo != u.Repo {
		return blob.ErrUploadNotFound
	}
	if !bytes.Equal(s.State, u.State) {
		return blob.ErrConflict
	}
	s.claimed = true
	return nil
}

func (f *fresh) settle(id string, committed bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if committed {
		delete(f.sessions, id)
	} else {
		f.sessions[id].claimed = false
	}
}

// end ends a session that no transaction has claimed.
func (f *fresh) end(u blob.Upload) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.sessions[u.ID]
	if s == nil || s.claimed || s.Repo != u.Repo || !bytes.Equal(s.State, u.State) {
		return false
	}
	delete(f.sessions, u.ID)
	return true
}

// after returns the IDs after one, in no order.
func (f *fresh) after(after string) (ids []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for id := range f.sessions {
		if id > after {
			ids = append(ids, id)
		}
	}
	return ids
}

func uploadError(op string, u blob.Upload, err error) error {
	if err == nil {
		return nil
	}
	return &blob.Error{Op: op, Repo: u.Repo, ID: u.ID, Err: err}
}

const sessionForm = 1

func sessionRow(u blob.Upload) []byte {
	b := make([]byte, 0, 64+len(u.Repo)+len(u.Hash)+len(u.State))
	b = appendString(append(b, sessionForm), u.Repo)
	b = binary.AppendUvarint(b, uint64(u.Size))
	b = appendString(b, string(u.Algorithm))
	b = appendTime(b, u.UpdatedAt)
	b = appendString(b, string(u.Hash))
	return appendString(b, string(u.State))
}

func readSession(id string, b []byte) (blob.Upload, error) {
	r := row{s: string(b)}
	r.version(sessionForm)
	u := blob.Upload{Repo: r.string(), ID: id, Size: int64(r.uvarint()), Algorithm: digest.Algorithm(r.string()), UpdatedAt: r.time()}
	u.Hash, u.State = []byte(r.string()), []byte(r.string())
	return u, r.err
}

// Begin implements [blob.Uploads]. It writes nothing.
func (b *Blobs) Begin(ctx context.Context, repo string, alg digest.Algorithm) (blob.Upload, error) {
	u := blob.Upload{Repo: repo, ID: rand.Text(), Algorithm: alg, State: parts.State(parts.Content{}), UpdatedAt: b.db.Now()}
	err := ctx.Err()
	if err == nil {
		err = b.db.fresh.add(u)
	}
	if err != nil {
		return blob.Upload{}, uploadError("begin", blob.Upload{Repo: repo}, err)
	}
	u.State = bytes.Clone(u.State)
	return u, nil
}

// Lookup implements [blob.Uploads].
func (b *Blobs) Lookup(ctx context.Context, repo, id string) (blob.Upload, error) {
	u, err := b.lookup(ctx, id)
	if err == nil && u.Repo != repo {
		err = blob.ErrUploadNotFound
	}
	if err != nil {
		return blob.Upload{}, uploadError("lookup", blob.Upload{Repo: repo, ID: id[:min(len(id), 64)]}, err)
	}
	return u, nil
}

func (b *Blobs) lookup(ctx context.Context, id string) (u blob.Upload, err error) {
	// In this order: it leaves memory when the row is there.
	if u, found := b.db.fresh.get(id); found {
		return u, ctx.Err()
	}
	err = b.db.view(ctx, func(t *tx) error {
		v := t.get(sessionRows, []byte(id))
		if v == nil {
			return blob.ErrUploadNotFound
		}
		u, err = readSession(id, v)
		return err
	})
	return u, err
}

// current returns what u consists of. ErrConflict when the session is no longer u.
func (b *Blobs) current(ctx context.Context, u blob.Upload) (parts.Content, error) {
	s, err := b.lookup(ctx, u.ID)
	switch {
	case err != nil:
		return parts.Content{}, err
	case s.Repo != u.Repo:
		return parts.Content{}, blob.ErrUploadNotFound
	case !bytes.Equal(s.State, u.State):
		return parts.Content{}, blob.ErrConflict
	}
	return parse(u)
}

func parse(u blob.Upload) (parts.Content, error) {
	c, err := parts.ParseState(u.State)
	if err == nil && c.Size() != u.Size {
		err = fmt.Errorf("the state is of %d bytes, not %d: %w", c.Size(), u.Size, blob.ErrConflict)
	}
	return c, err
}

// Append implements [blob.Uploads].
func (b *Blobs) Append(ctx context.Context, u blob.Upload, r io.Reader) (blob.Upload, error) {
	next, err := b.append(ctx, u, r)
	if err != nil {
		u.ID = u.ID[:min(len(u.ID), 64)]
		return u, uploadError("append", u, err)
	}
	return next, nil
}

func (b *Blobs) append(ctx context.Context, u blob.Upload, r io.Reader) (blob.Upload, error) {
	c, err := b.current(ctx, u)
	if err != nil {
		return u, err
	}
	longer, err := b.db.files.Append(ctx, c, r)
	if err != nil {
		return u, err
	}
	if _, err := b.lookup(ctx, u.ID); err != nil { // it has ended meanwhile, without these bytes
		b.db.settle(ctx, err, longer.Without(c), nil)
		return u, err
	}
	u.Size, u.State = longer.Size(), parts.State(longer)
	return u, nil
}

// Reread implements [blob.Rereader].
func (b *Blobs) Reread(ctx context.Context, u blob.Upload) (io.ReadCloser, error) {
	r, err := b.reread(ctx, u)
	if err != nil {
		return nil, uploadError("reread", u, err)
	}
	return r, nil
}

func (b *Blobs) reread(ctx context.Context, u blob.Upload) (io.ReadCloser, error) {
	if _, err := b.lookup(ctx, u.ID); err != nil {
		return nil, err
	}
	c, err := parse(u)
	if err != nil {
		return nil, err
	}
	r, err := b.db.files.Open(ctx, c, 0, -1)
	if errors.Is(err, blob.ErrNotFound) {
		if _, err := b.current(ctx, u); err != nil { // somebody has ended it meanwhile, or won over u
			return nil, err
		}
		err = fmt.Errorf("its bytes are lost: the store is damaged: %v", err)
	}
	return r, err
}

// claim is the check of a compare-and-swap. settle is to be called with the
// update's result.
type claim struct {
	f    *fresh
	id   string
	held bool
}

// check fails unless the session is old.
func (c *claim) check(t *tx, old blob.Upload) error {
	v := t.get(sessionRows, []byte(old.ID))
	if v == nil {
		err := c.f.claim(old)
		c.held = err == nil
		return err
	}
	s, err := readSession(old.ID, v)
	switch {
	case err != nil:
		return err
	case s.Repo != old.Repo:
		return blob.ErrUploadNotFound
	case !bytes.Equal(s.State, old.State):
		return blob.ErrConflict
	}
	return nil
}

func (c *claim) settle(committed bool) {
	if c.held {
		c.held = false
		c.f.settle(c.id, committed)
	}
}

// swap is an update of the session old, which do is called for if it is old
// still.
func (db *DB) swap(ctx context.Context, old blob.Upload, do func(*tx) error) error {
	c := claim{f: &db.fresh, id: old.ID}
	return db.queue.run(ctx, &update{ended: c.settle, do: func(t *tx) error {
		if err := c.check(t, old); err != nil {
			return err
		}
		return do(t)
	}})
}

// Save implements [blob.Uploads].
func (b *Blobs) Save(ctx context.Context, old, new blob.Upload) error {
	return uploadError("save", old, b.save(ctx, old, new))
}

func (b *Blobs) save(ctx context.Context, old, new blob.Upload) error {
	from, err := parse(old)
	if err != nil {
		return err
	}
	to, err := parse(new)
	if err != nil {
		return err
	}
	new.Repo, new.ID, new.UpdatedAt = old.Repo, old.ID, b.db.Now()
	row := sessionRow(new)
	added, gone := to.Without(from), from.Without(to)
	err = b.db.swap(ctx, old, func(t *tx) error {
		if err := t.checkEras(added...); err != nil {
			return err
		}
		t.refer(added...)
		t.unrefer(gone...)
		t.put(sessionRows, []byte(old.ID), row)
		return nil
	})
	if !again(err) {
		b.db.settle(ctx, err, added, gone)
	}
	return err
}

// again tells whether a Save or Commit that has failed may be tried again, so that what
// Append has made for it is still of use. If it is not, a sweep will find it.
func again(err error) bool {
	return err != nil && !errors.Is(err, blob.ErrConflict) && !errors.Is(err, blob.ErrUploadNotFound) && !errors.Is(err, parts.ErrEra)
}

// Commit implements [blob.Uploads]: step 1 of model/collect.pml.
func (b *Blobs) Commit(ctx context.Context, old, u blob.Upload, dgst digest.Digest) error {
	if err := b.commit(ctx, old, u, dgst); err != nil {
		return &blob.Error{Op: "commit", Repo: old.Repo, Digest: dgst, ID: old.ID, Err: err}
	}
	return nil
}

func (b *Blobs) commit(ctx context.Context, old, u blob.Upload, dgst digest.Digest) error {
	from, err := b.current(ctx, old)
	if err != nil {
		if to, parseErr := parse(u); parseErr == nil && !again(err) { // nobody else will
			if from, parseErr := parse(old); parseErr == nil {
				b.db.settle(ctx, err, to.Without(from), nil)
			}
		}
		return err
	}
	to, err := parse(u)
	if err != nil {
		return err
	}
	sealed, err := b.db.files.Seal(ctx, to)
	if err != nil {
		return err
	}
	added, gone := sealed.Without(from), from.Without(sealed)
	now := b.db.Now()
	p := publication{db: b.db, dgst: dgst, content: sealed}
	err = p.run(ctx, func() error {
		return b.db.swap(ctx, old, func(t *tx) error {
			if err := t.checkEras(added...); err != nil {
				return err
			}
			if err := p.write(t); err != nil {
				return err
			}
			t.unrefer(gone...)
			t.setLink(old.Repo, dgst, link{now, sealed.Size()})
			if t.has(sessionRows, []byte(old.ID)) {
				t.delete(sessionRows, []byte(old.ID))
			}
			return nil
		})
	})
	if again(err) {
		added = sealed.Without(to)
	}
	b.db.settle(ctx, err, added, append(p.unused, gone...))
	return err
}

// Abort implements [blob.Uploads].
func (b *Blobs) Abort(ctx context.Context, u blob.Upload) error {
	err := b.abort(ctx, u)
	u.ID = u.ID[:min(len(u.ID), 64)]
	return uploadError("abort", u, err)
}

func (b *Blobs) abort(ctx context.Context, u blob.Upload) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if b.db.fresh.end(u) {
		return nil
	}
	if _, err := b.lookup(ctx, u.ID); err != nil {
		return err
	}
	c, err := parts.ParseState(u.State)
	if err != nil {
		return err
	}
	err = b.db.swap(ctx, u, func(t *tx) error {
		if t.has(sessionRows, []byte(u.ID)) {
			t.unrefer(keysOf(c)...)
			t.delete(sessionRows, []byte(u.ID))
		}
		return nil
	})
	if err == nil {
		b.db.settle(ctx, nil, nil, keysOf(c))
	}
	return err
}

// Sessions implements [blob.SessionLister].
func (b *Blobs) Sessions(ctx context.Context, after string) iter.Seq2[blob.Upload, error] {
	return func(yield func(blob.Upload, error) bool) {
		for more := true; more; {
			page, last, err := b.sessions(ctx, after)
			if err != nil {
				yield(blob.Upload{}, blobError("list sessions", "", "", err))
				return
			}
			for _, u := range page {
				if !yield(u, nil) {
					return
				}
			}
			after, more = last, last != ""
		}
	}
}

// sessions returns the next ones, and the last ID looked at unless that was the
// end.
func (b *Blobs) sessions(ctx context.Context, after string) (page []blob.Upload, last string, err error) {
	// Memory first: what leaves it after that is among the rows.
	fresh := b.db.fresh.after(after)
	err = b.db.view(ctx, func(t *tx) error {
		size := 0
		for k, v := range t.under(sessionRows, nil, next([]byte(after))) {
			if len(page) == pageLen || size > pageBytes {
				last = page[len(page)-1].ID
				break
			}
			size += len(v)
			u, err := readSession(string(k), v)
			if err != nil {
				return fmt.Errorf("session %s: %w", k, err)
			}
			page = append(page, u)
		}
		return nil
	})
	if err != nil {
		return nil, "", err
	}
	for _, id := range fresh {
		if last != "" && id > last || slices.ContainsFunc(page, func(u blob.Upload) bool { return u.ID == id }) {
			continue
		}
		u, err := b.lookup(ctx, id) // it may have been saved meanwhile
		if errors.Is(err, blob.ErrUploadNotFound) {
			continue
		}
		if err != nil {
			return nil, "", err
		}
		page = append(page, u)
	}
	slices.SortFunc(page, func(a, b blob.Upload) int { return cmp.Compare(a.ID, b.ID) })
	return page, last, nil
}
