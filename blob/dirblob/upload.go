package dirblob

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/blob"
)

const (
	sessionName = "session"
	// The next chunk goes on in a part shorter than this, by way of a copy, so
	// that small chunks do not make many files.
	minPart = 1 << 20
)

// version is what Upload.State holds: a name that differs between versions of a
// session, a line for each part. Files of parts never change.
type version struct {
	name  string
	parts []part
}

type part struct {
	name string
	size int64
}

func (v version) state() []byte {
	b := []byte(v.name)
	for _, p := range v.parts {
		b = append(b, '\n')
		b = append(b, p.name...)
		b = append(b, ' ')
		b = strconv.AppendInt(b, p.size, 10)
	}
	return b
}

// parse refuses names that are not ours: a State may have been anywhere.
func parse(u blob.Upload) (version, error) {
	errState := fmt.Errorf("not a state of this store: %w", blob.ErrConflict)
	lines := strings.Split(string(u.State), "\n")
	v := version{name: lines[0]}
	var total int64
	for _, line := range lines[1:] {
		name, size, _ := strings.Cut(line, " ")
		n, err := strconv.ParseInt(size, 10, 64)
		if err != nil || n <= 0 || !isID(name) {
			return v, errState
		}
		total += n
		v.parts = append(v.parts, part{name, n})
	}
	if !isID(v.name) || total != u.Size {
		return v, errState
	}
	return v, nil
}

func isID(s string) bool {
	if len(s) != 26 {
		return false
	}
	for _, c := range []byte(s) {
		if !('A' <= c && c <= 'Z' || '2' <= c && c <= '7') {
			return false
		}
	}
	return true
}

// saved is the session file.
type saved struct {
	Repo      string           `json:"repo"`
	Size      int64            `json:"size"`
	Algorithm digest.Algorithm `json:"algorithm"`
	Hash      []byte           `json:"hash,omitempty"`
	State     []byte           `json:"state"`
	UpdatedAt time.Time        `json:"updatedAt"`
}

func uploadError(op string, u blob.Upload, err error) error {
	return &blob.Error{Op: op, Repo: u.Repo, ID: u.ID, Err: err}
}

func (s *Store) sessionDir(id string) string { return filepath.Join(s.Dir, "uploads", id) }

func (v version) paths(dir string) []string {
	paths := make([]string, len(v.parts))
	for i, p := range v.parts {
		paths[i] = filepath.Join(dir, p.name)
	}
	return paths
}

// write makes u what the session file says. dir is there.
func (s *Store) write(u blob.Upload) error {
	text, err := json.Marshal(saved{u.Repo, u.Size, u.Algorithm, u.Hash, u.State, u.UpdatedAt})
	if err != nil {
		return err
	}
	dir := s.sessionDir(u.ID)
	f, err := create(filepath.Join(dir, random()))
	if err != nil {
		return err
	}
	_, err = s.files().fill(f, func(f *os.File) (int64, error) {
		n, err := f.Write(text)
		return int64(n), err
	})
	if err != nil {
		return err
	}
	if err := os.Rename(f.Name(), filepath.Join(dir, sessionName)); err != nil {
		os.Remove(f.Name())
		return err
	}
	return s.files().syncFolder(dir)
}

// read returns a session of repo as last saved.
func (s *Store) read(ctx context.Context, repo, id string) (blob.Upload, error) {
	if err := ctx.Err(); err != nil {
		return blob.Upload{}, err
	}
	u, err := s.last(id)
	if err == nil && u.Repo != repo {
		err = blob.ErrUploadNotFound
	}
	return u, err
}

// last returns a session as last saved.
func (s *Store) last(id string) (blob.Upload, error) {
	if !isID(id) {
		return blob.Upload{}, blob.ErrUploadNotFound
	}
	text, err := os.ReadFile(filepath.Join(s.sessionDir(id), sessionName))
	// It is empty, or zeros, when the machine crashed before the first Save.
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(bytes.Trim(text, "\x00")) == 0 {
		return blob.Upload{}, blob.ErrUploadNotFound
	}
	if err != nil {
		return blob.Upload{}, err
	}
	var f saved
	if err := json.Unmarshal(text, &f); err != nil {
		return blob.Upload{}, fmt.Errorf("session file: %w", err)
	}
	return blob.Upload{Repo: f.Repo, ID: id, Size: f.Size, Algorithm: f.Algorithm, Hash: f.Hash, State: f.State, UpdatedAt: f.UpdatedAt}, nil
}

// current fails with ErrConflict unless the session is old.
func (s *Store) current(ctx context.Context, old blob.Upload) error {
	u, err := s.read(ctx, old.Repo, old.ID)
	if err == nil && !bytes.Equal(u.State, old.State) {
		err = blob.ErrConflict
	}
	return err
}

// Begin implements [blob.Uploads]. Nothing is synced before the first Save, as
// nothing has been acknowledged.
func (s *Store) Begin(ctx context.Context, repo string, alg digest.Algorithm) (blob.Upload, error) {
	u := blob.Upload{Repo: repo, ID: random(), Algorithm: alg, State: version{name: random()}.state(), UpdatedAt: s.now()}
	if err := s.begin(ctx, u); err != nil {
		return blob.Upload{}, uploadError("begin", u, err)
	}
	return u, nil
}

func (s *Store) begin(ctx context.Context, u blob.Upload) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	text, err := json.Marshal(saved{u.Repo, u.Size, u.Algorithm, u.Hash, u.State, u.UpdatedAt})
	if err != nil {
		return err
	}
	mu := s.sessions.of(u.ID) // or Sweep takes the folder for one whose session has ended
	mu.Lock()
	defer mu.Unlock()
	dir := s.sessionDir(u.ID)
	if err := s.files().inFolder(filepath.Dir(dir), func() error { return os.Mkdir(dir, 0o777) }); err != nil {
		return err
	}
	// Nobody else knows the ID yet, so that no one can read half of it.
	if err := os.WriteFile(filepath.Join(dir, sessionName), text, 0o666); err != nil {
		end(dir)
		return err
	}
	return nil
}

// Lookup implements [blob.Uploads].
func (s *Store) Lookup(ctx context.Context, repo, id string) (blob.Upload, error) {
	u, err := s.read(ctx, repo, id)
	if err != nil {
		return blob.Upload{}, uploadError("lookup", blob.Upload{Repo: repo, ID: id[:min(len(id), 64)]}, err)
	}
	return u, nil
}

// Append implements [blob.Uploads]. ErrConflict when the session has moved on
// from u.
func (s *Store) Append(ctx context.Context, u blob.Upload, r io.Reader) (blob.Upload, error) {
	next, err := s.append(ctx, u, r)
	if err != nil {
		return u, uploadError("append", u, err)
	}
	return next, nil
}

func (s *Store) append(ctx context.Context, u blob.Upload, r io.Reader) (blob.Upload, error) {
	if _, err := s.read(ctx, u.Repo, u.ID); err != nil {
		return u, err
	}
	v, err := parse(u)
	if err != nil {
		return u, err
	}
	v.name = random()
	dir := s.sessionDir(u.ID)
	f, err := create(filepath.Join(dir, random()))
	if err != nil {
		return u, s.moved(ctx, u, err)
	}
	var before int64 // copied from the last part
	size, err := s.files().fill(f, func(f *os.File) (int64, error) {
		if last := len(v.parts) - 1; last >= 0 && v.parts[last].size < minPart {
			n, err := appendFiles(ctx, f, v.paths(dir)[last:])
			if err == nil && n != v.parts[last].size {
				err = errDamaged
			}
			if err != nil {
				return 0, s.moved(ctx, u, err)
			}
			before, v.parts = n, slices.Clone(v.parts[:last])
		}
		n, err := s.files().copy(ctx, f, r)
		if err == nil {
			err = s.stamp(f)
		}
		return before + n, err
	})
	if err != nil {
		return u, err
	}
	if size == 0 {
		os.Remove(f.Name())
	} else {
		v.parts = append(v.parts, part{filepath.Base(f.Name()), size})
	}
	if _, err := s.read(ctx, u.Repo, u.ID); err != nil { // it has ended meanwhile, without this file
		os.Remove(f.Name())
		os.Remove(dir)
		return u, err
	}
	u.Size, u.State = u.Size+size-before, v.state()
	return u, nil
}

// errSwept is a write, or a part of a session that is as it was, whose file is gone.
var errSwept = errors.New("the write took too long, and a collection has overtaken it")

// errDamaged is a session that has lost bytes which were acknowledged.
var errDamaged = errors.New("the store has not kept all bytes of the upload")

// moved words the error of a part that is gone: the session has ended or is
// another by now, or Sweep has taken what was not saved yet.
func (s *Store) moved(ctx context.Context, u blob.Upload, err error) error {
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := s.current(ctx, u); err != nil {
		return err
	}
	v, err := parse(u)
	if err != nil {
		return err
	}
	for _, path := range v.paths(s.sessionDir(u.ID)) {
		switch _, err := stat(path); {
		case errors.Is(err, fs.ErrNotExist):
			// A crash came between the end of a commit and that of its session.
			return blob.ErrUploadNotFound
		case err != nil:
			return err
		}
	}
	return errSwept
}

// Save implements [blob.Uploads].
func (s *Store) Save(ctx context.Context, old, new blob.Upload) error {
	if err := s.save(ctx, old, new); err != nil {
		return uploadError("save", old, err)
	}
	return nil
}

func (s *Store) save(ctx context.Context, old, new blob.Upload) error {
	from, err := parse(old)
	if err != nil {
		return err
	}
	to, err := parse(new)
	if err != nil {
		return err
	}
	mu := s.sessions.of(old.ID)
	mu.Lock()
	defer mu.Unlock()
	dir := s.sessionDir(old.ID)
	cur, err := s.read(ctx, old.Repo, old.ID)
	if err != nil {
		return err
	}
	if !bytes.Equal(cur.State, old.State) {
		if keep, err := parse(cur); err == nil {
			drop(dir, to, keep)
		}
		return blob.ErrConflict
	}
	for _, p := range to.parts[same(from, to):] {
		if _, err := stat(filepath.Join(dir, p.name)); err != nil {
			return s.moved(ctx, old, err)
		}
	}
	new.Repo, new.ID, new.UpdatedAt = old.Repo, old.ID, s.now()
	unsynced := dir // has new parts, which are to be durable before a session that was acknowledged names them
	if len(from.parts) == 0 {
		unsynced = filepath.Dir(dir) // Begin has left that to the first Save
	}
	if err := s.files().syncFolder(unsynced); err != nil {
		return err
	}
	if err := s.write(new); err != nil {
		return err
	}
	drop(dir, from, to)
	return nil
}

// drop removes the parts of v that keep does not have.
func drop(dir string, v, keep version) {
	n := same(v, keep)
	for _, p := range v.parts[n:] {
		if !slices.Contains(keep.parts[n:], p) {
			os.Remove(filepath.Join(dir, p.name))
		}
	}
}

// same returns how many parts v and w begin with in common. They differ in the
// last few, though there may be thousands.
func same(v, w version) int {
	n := 0
	for n < len(v.parts) && n < len(w.parts) && v.parts[n] == w.parts[n] {
		n++
	}
	return n
}

// Commit implements [blob.Uploads].
func (s *Store) Commit(ctx context.Context, old, u blob.Upload, dgst digest.Digest) error {
	if err := s.commit(ctx, old, u, dgst); err != nil {
		return &blob.Error{Op: "commit", Repo: old.Repo, Digest: dgst, ID: old.ID, Err: err}
	}
	return nil
}

func (s *Store) commit(ctx context.Context, old, u blob.Upload, dgst digest.Digest) error {
	v, err := parse(u)
	if err != nil {
		return err
	}
	path, err := s.blobPath(old.Repo, dgst)
	if err != nil {
		return err
	}
	if err := s.current(ctx, old); err != nil {
		return err
	}
	o, dir := s.files(), s.sessionDir(old.ID)
	file := ""
	if len(v.parts) == 1 {
		file = v.paths(dir)[0]
	} else {
		// May take a while, hence without the lock.
		file, _, err = o.stage(ctx, func(f *os.File) (int64, error) {
			n, err := appendFiles(ctx, f, v.paths(dir))
			if err == nil && n != u.Size {
				err = errDamaged
			}
			if err == nil {
				err = s.stamp(f)
			}
			return n, err
		})
		if err != nil {
			return s.moved(ctx, old, err)
		}
		defer os.Remove(file) // unless it has moved
	}
	mu := s.sessions.of(old.ID)
	mu.Lock()
	defer mu.Unlock()
	if err := s.current(ctx, old); err != nil {
		return err
	}
	fi, err := s.touch(file, s.now()) // the part may be from yesterday
	if err == nil && fi.Size() != u.Size {
		err = errDamaged
	}
	if err != nil {
		return s.moved(ctx, old, err)
	}
	if err := o.move(file, path, s.blobs.of(string(dgst))); err != nil {
		return s.moved(ctx, old, err)
	}
	end(dir)
	return nil
}

// end ends a session, at the first of its steps.
func end(dir string) error {
	err := os.Remove(filepath.Join(dir, sessionName))
	os.RemoveAll(dir)
	return err
}

// Abort implements [blob.Uploads].
func (s *Store) Abort(ctx context.Context, u blob.Upload) error {
	mu := s.sessions.of(u.ID)
	mu.Lock()
	defer mu.Unlock()
	err := s.current(ctx, u)
	if err == nil {
		err = end(s.sessionDir(u.ID))
	}
	if err != nil {
		return uploadError("abort", u, err)
	}
	return nil
}

// Reread implements [blob.Rereader].
func (s *Store) Reread(ctx context.Context, u blob.Upload) (io.ReadCloser, error) {
	_, err := s.read(ctx, u.Repo, u.ID)
	var v version
	if err == nil {
		v, err = parse(u)
	}
	if err != nil {
		return nil, uploadError("reread", u, err)
	}
	return &reread{paths: v.paths(s.sessionDir(u.ID)), failed: func(err error) error {
		return uploadError("reread", u, s.moved(ctx, u, err))
	}}, nil
}

// reread reads one file after the other.
type reread struct {
	paths  []string
	f      *os.File // of paths[0], or nil
	failed func(error) error
}

func (r *reread) Read(p []byte) (n int, err error) {
	for len(r.paths) > 0 {
		if r.f == nil {
			if r.f, err = os.Open(r.paths[0]); err != nil {
				r.f = nil
				return 0, r.failed(err)
			}
		}
		if n, err = r.f.Read(p); err != io.EOF {
			return n, err
		}
		r.Close()
		r.paths = r.paths[1:]
	}
	return 0, io.EOF
}

func (r *reread) Close() error {
	if r.f == nil {
		return nil
	}
	f := r.f
	r.f = nil
	return f.Close()
}
