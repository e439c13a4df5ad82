package memblob

import (
	"bytes"
	"context"
	"crypto/rand"
	"io"
	"slices"
	"strconv"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/blob"
)

// session is one upload. Upload.State names a chunk: all bytes up to its end.
type session struct {
	saved  blob.Upload
	head   *chunk   // what saved.State names
	staged []*chunk // appended to head or to one another, not saved; oldest first
	last   int64    // number of the last chunk made
}

// chunk is immutable.
type chunk struct {
	state   string
	prev    *chunk // nil: content is the first
	content []byte
	size    int64 // of all up to this one
}

// maxStaged bounds what callers that append and never save can pile up in one
// session. One more takes the place of the oldest, whose Save then loses.
const maxStaged = 64

// named returns the chunk that state names, nil if there is none any more.
func (x *session) named(state []byte) *chunk {
	if string(state) == x.head.state {
		return x.head
	}
	for _, c := range x.staged {
		if c.state == string(state) {
			return c
		}
	}
	return nil
}

// bytes puts together what c ends.
func (c *chunk) bytes() []byte {
	if c.size == int64(len(c.content)) {
		return c.content
	}
	b := make([]byte, c.size)
	for ; c != nil; c = c.prev {
		copy(b[c.size-int64(len(c.content)):], c.content)
	}
	return b
}

func uploadError(op string, u blob.Upload, err error) error {
	return &blob.Error{Op: op, Repo: u.Repo, ID: u.ID, Err: err}
}

// session must be called with the lock.
func (s *Store) session(ctx context.Context, u blob.Upload) (*session, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	x := s.sessions[u.ID]
	if x == nil || x.saved.Repo != u.Repo {
		return nil, blob.ErrUploadNotFound
	}
	return x, nil
}

// at returns the session and the chunk that u names.
func (s *Store) at(ctx context.Context, u blob.Upload) (*session, *chunk, error) {
	s.uploads.Lock()
	defer s.uploads.Unlock()
	x, err := s.session(ctx, u)
	if err != nil {
		return nil, nil, err
	}
	c := x.named(u.State)
	if c == nil || c.size != u.Size {
		return nil, nil, blob.ErrConflict
	}
	return x, c, nil
}

// Begin implements [blob.Uploads].
func (s *Store) Begin(ctx context.Context, repo string, alg digest.Algorithm) (blob.Upload, error) {
	u := blob.Upload{Repo: repo, ID: rand.Text(), Algorithm: alg, State: []byte("0"), UpdatedAt: s.now()}
	if err := ctx.Err(); err != nil {
		return blob.Upload{}, uploadError("begin", u, err)
	}
	s.uploads.Lock()
	defer s.uploads.Unlock()
	if s.sessions == nil {
		s.sessions = map[string]*session{}
	}
	s.sessions[u.ID] = &session{saved: u, head: &chunk{state: "0"}}
	return own(u), nil
}

// own returns u with slices of its own.
func own(u blob.Upload) blob.Upload {
	u.Hash, u.State = slices.Clone(u.Hash), slices.Clone(u.State)
	return u
}

// Lookup implements [blob.Uploads].
func (s *Store) Lookup(ctx context.Context, repo, id string) (blob.Upload, error) {
	u := blob.Upload{Repo: repo, ID: id}
	s.uploads.Lock()
	defer s.uploads.Unlock()
	x, err := s.session(ctx, u)
	if err != nil {
		u.ID = id[:min(len(id), 64)] // an ID is no longer; what was asked may be
		return blob.Upload{}, uploadError("lookup", u, err)
	}
	return own(x.saved), nil
}

// Append implements [blob.Uploads]. ErrConflict when the session has moved on
// from u.
func (s *Store) Append(ctx context.Context, u blob.Upload, r io.Reader) (blob.Upload, error) {
	x, prev, err := s.at(ctx, u)
	if err != nil {
		return u, uploadError("append", u, err)
	}
	content, err := readAll(ctx, r, -1)
	if err != nil {
		return u, uploadError("append", u, err)
	}
	s.uploads.Lock()
	defer s.uploads.Unlock()
	if s.sessions[u.ID] != x {
		return u, uploadError("append", u, blob.ErrUploadNotFound)
	}
	x.last++
	c := &chunk{state: strconv.FormatInt(x.last, 10), prev: prev, content: content, size: prev.size + int64(len(content))}
	if len(content) == 0 {
		c.prev, c.content = prev.prev, prev.content // or empty chunks would pile up
	}
	if len(x.staged) == maxStaged {
		x.staged = slices.Delete(x.staged, 0, 1)
	}
	x.staged = append(x.staged, c)
	u.Size, u.State = c.size, []byte(c.state)
	return u, nil
}

// Save implements [blob.Uploads].
func (s *Store) Save(ctx context.Context, old, new blob.Upload) error {
	s.uploads.Lock()
	defer s.uploads.Unlock()
	x, err := s.session(ctx, old)
	if err != nil {
		return uploadError("save", old, err)
	}
	c := x.named(new.State)
	if string(old.State) != x.head.state || c == nil {
		return uploadError("save", old, blob.ErrConflict)
	}
	new.Repo, new.ID, new.Size, new.UpdatedAt = old.Repo, old.ID, c.size, s.now()
	x.saved, x.head, x.staged = own(new), c, nil // the staged others can win no more
	return nil
}

// Commit implements [blob.Uploads].
func (s *Store) Commit(ctx context.Context, old, u blob.Upload, dgst digest.Digest) error {
	x, c, err := s.at(ctx, u)
	if err != nil {
		return uploadError("commit", old, err)
	}
	content := c.bytes() // may take a while, hence without the lock
	s.uploads.Lock()
	defer s.uploads.Unlock()
	if s.sessions[old.ID] != x {
		return uploadError("commit", old, blob.ErrUploadNotFound)
	}
	if string(old.State) != x.head.state {
		return uploadError("commit", old, blob.ErrConflict)
	}
	s.add(old.Repo, dgst, content)
	delete(s.sessions, old.ID)
	return nil
}

// Abort implements [blob.Uploads].
func (s *Store) Abort(ctx context.Context, u blob.Upload) error {
	s.uploads.Lock()
	defer s.uploads.Unlock()
	x, err := s.session(ctx, u)
	if err == nil && !bytes.Equal(x.saved.State, u.State) {
		err = blob.ErrConflict
	}
	if err != nil {
		return uploadError("abort", u, err)
	}
	delete(s.sessions, u.ID)
	return nil
}

// Reread implements [blob.Rereader].
func (s *Store) Reread(ctx context.Context, u blob.Upload) (io.ReadCloser, error) {
	_, c, err := s.at(ctx, u)
	if err != nil {
		return nil, uploadError("reread", u, err)
	}
	var parts [][]byte
	for ; c != nil; c = c.prev {
		parts = append(parts, c.content)
	}
	slices.Reverse(parts)
	return &reread{parts: parts}, nil
}

type reread struct{ parts [][]byte }

func (r *reread) Read(p []byte) (n int, err error) {
	for len(r.parts) > 0 && n < len(p) {
		k := copy(p[n:], r.parts[0])
		n += k
		if r.parts[0] = r.parts[0][k:]; len(r.parts[0]) == 0 {
			r.parts = r.parts[1:]
		}
	}
	if n == 0 && len(p) > 0 {
		err = io.EOF
	}
	return n, err
}

func (r *reread) Close() error { return nil }
