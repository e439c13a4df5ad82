package dirblob

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/wharfage/wharfage/blob"
)

// Objects keeps bytes under keys in a directory: no digests, no repositories,
// no sessions. Stores that have those in a database put their bytes here.
//
// A key is one or more components of [a-zA-Z0-9._+=-] joined by "/", each of 1
// to 200 characters and without "." at its begin or end, 1000 characters in
// all. On Windows the names of devices are no components. Other keys are
// refused with an error that matches [blob.ErrUnsupported], so that none leads
// out of the directory. A key cannot be the folder of another. Where the file
// system folds case, keys that differ only in case are one; where it has
// no fast way to find one of many thousand files in a folder, let keys have
// folders.
//
// It implements [blob.Objects] and more: Put replaces what is there, and Delete
// says [blob.ErrNotFound]. Methods may be called from many goroutines and, with
// the exception of Sweep, from many processes at once.
type Objects struct {
	Dir string // made when first needed; one file system

	// Unsynced leaves it to the operating system when data reaches the disk: a
	// write is as visible and as whole as otherwise, but a crash of the machine
	// can undo it or leave any part of it.
	Unsynced bool

	syncs   func(path string) // a test's; called before each sync
	buffers sync.Pool         // of *[bufferSize]byte

	root    sync.Mutex // taken before mu
	mu      sync.Mutex
	made    map[string]struct{} // folders known to be there, durably
	visible map[string]int      // files that may be seen before they are durable, by how many calls
}

var _ interface {
	blob.Objects
	blob.ObjectSweeper
} = (*Objects)(nil)

const (
	temp       = "~tmp"    // no key has a component of this name
	bufferSize = 512 << 10 // the system asks less for few long writes than for many
	maxMade    = 1 << 16   // folders remembered; the next one starts over
)

var errKey = fmt.Errorf("no key for an object: %w", blob.ErrUnsupported)

func (o *Objects) path(key string) (string, error) {
	if len(key) > 1000 {
		return "", errKey
	}
	for part := range strings.SplitSeq(key, "/") {
		if len(part) == 0 || len(part) > 200 || part[0] == '.' || part[len(part)-1] == '.' {
			return "", errKey
		}
		for i := range len(part) {
			c := part[i]
			if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("._+=-", c) >= 0) {
				return "", errKey
			}
		}
	}
	local := filepath.FromSlash(key)
	if !filepath.IsLocal(local) { // a device of Windows
		return "", errKey
	}
	return filepath.Join(o.Dir, local), nil
}

func keyError(op, key string, err error) error {
	if op != "put" && errors.Is(err, fs.ErrNotExist) { // a put may fail with that for its reader's reasons
		err = blob.ErrNotFound
	}
	return fmt.Errorf("%s object %.100q: %w", op, key, err)
}

// Put stores what r yields under key, in place of what was there, and returns
// how much that is. It becomes visible all at once, and is durable on return,
// at the cost of two syncs: the file's and its folder's. Each folder that the
// process meets for the first time costs one more. On error nothing changed.
func (o *Objects) Put(ctx context.Context, key string, r io.Reader) (int64, error) {
	path, err := o.path(key)
	if err != nil {
		return 0, keyError("put", key, err)
	}
	file, n, err := o.stage(ctx, func(f *os.File) (int64, error) { return o.copy(ctx, f, r) })
	if err == nil {
		err = o.publish(file, path, nil)
	}
	if err != nil {
		return 0, keyError("put", key, err)
	}
	return n, nil
}

// Join stores under to what lies under the keys from, one after the other, and
// leaves those. Otherwise it is like Put.
func (o *Objects) Join(ctx context.Context, to string, from ...string) (int64, error) {
	path, err := o.path(to)
	if err != nil {
		return 0, keyError("join", to, err)
	}
	paths := make([]string, len(from))
	for i, key := range from {
		if paths[i], err = o.path(key); err != nil {
			return 0, keyError("join", key, err)
		}
	}
	file, n, err := o.stage(ctx, func(f *os.File) (int64, error) { return appendFiles(ctx, f, paths) })
	if err == nil {
		err = o.publish(file, path, nil)
	}
	if err != nil {
		return 0, keyError("join", to, err)
	}
	return n, nil
}

// Rename moves what lies under from to the key to, in place of what was there,
// durably.
func (o *Objects) Rename(ctx context.Context, from, to string) error {
	old, err := o.path(from)
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return keyError("rename", from, err)
	}
	path, err := o.path(to)
	if err == nil {
		err = o.move(old, path, nil)
	}
	if err != nil {
		return keyError("rename", to, err)
	}
	return nil
}

// Stat tells size and time of an object.
func (o *Objects) Stat(ctx context.Context, key string) (blob.Object, error) {
	path, err := o.path(key)
	if err == nil {
		err = ctx.Err()
	}
	var fi fs.FileInfo
	if err == nil {
		fi, err = stat(path)
	}
	if err != nil {
		return blob.Object{}, keyError("stat", key, err)
	}
	return blob.Object{Key: key, Size: fi.Size(), ModTime: fi.ModTime()}, nil
}

// stat finds regular files only.
func stat(path string) (fs.FileInfo, error) {
	fi, err := os.Lstat(path)
	if err == nil && !fi.Mode().IsRegular() || isNotDir(err) {
		err = fs.ErrNotExist
	}
	return fi, err
}

// Open returns n bytes of the object from off on, as [blob.Reader] says. The
// reader implements [io.WriterTo] such that a network connection can take the
// bytes from the operating system.
func (o *Objects) Open(ctx context.Context, key string, off, n int64) (io.ReadCloser, blob.Object, error) {
	path, err := o.path(key)
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return nil, blob.Object{}, keyError("open", key, err)
	}
	r, fi, err := open(path, off, n)
	if err != nil {
		return nil, blob.Object{}, keyError("open", key, err)
	}
	return r, blob.Object{Key: key, Size: fi.Size(), ModTime: fi.ModTime()}, nil
}

func open(path string, off, n int64) (*section, fs.FileInfo, error) {
	f, err := os.Open(path)
	if err != nil {
		if isNotDir(err) {
			err = fs.ErrNotExist
		}
		return nil, nil, err
	}
	fi, err := f.Stat()
	switch {
	case err != nil:
	case !fi.Mode().IsRegular():
		err = fs.ErrNotExist
	case off > fi.Size():
		err = blob.ErrRange
	case off > 0:
		_, err = f.Seek(off, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	if rest := fi.Size() - off; n < 0 || n > rest {
		n = rest
	}
	return &section{f: f, rest: io.LimitedReader{R: f, N: n}}, fi, nil
}

// section is the part of a file that was asked for.
type section struct {
	f    *os.File
	rest io.LimitedReader
}

func (s *section) Read(p []byte) (int, error) {
	n, err := s.rest.Read(p)
	if err == io.EOF && s.rest.N > 0 {
		err = io.ErrUnexpectedEOF // somebody else has cut the file
	}
	return n, err
}

func (s *section) WriteTo(w io.Writer) (int64, error) {
	n, err := io.Copy(w, &s.rest)
	if err == nil && s.rest.N > 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

func (s *section) Close() error { return s.f.Close() }

// Touch sets the time of an object, durably.
func (o *Objects) Touch(ctx context.Context, key string, at time.Time) error {
	path, err := o.path(key)
	if err == nil {
		err = ctx.Err()
	}
	if err == nil {
		err = o.touch(path, at)
	}
	if err != nil {
		return keyError("touch", key, err)
	}
	return nil
}

func (o *Objects) touch(path string, at time.Time) error {
	defer o.beginSync(path)()
	if err := os.Chtimes(path, time.Time{}, at); err != nil {
		return err
	}
	return o.syncFile(path)
}

// Delete removes an object, durably. Open readers keep reading it.
func (o *Objects) Delete(ctx context.Context, key string) error {
	path, err := o.path(key)
	if err == nil {
		err = ctx.Err()
	}
	if err == nil {
		_, err = stat(path) // Remove would take an empty folder too
	}
	if err == nil {
		err = os.Remove(path)
	}
	if err == nil {
		err = o.syncFolder(filepath.Dir(path))
	}
	if err != nil {
		return keyError("delete", key, err)
	}
	return nil
}

// List yields the objects whose keys begin with the folder under, which is a
// key or empty, in byte order, after the key after. It reads one folder at a
// time. What is put or deleted meanwhile may be seen or not.
func (o *Objects) List(ctx context.Context, under, after string) iter.Seq2[blob.Object, error] {
	return func(yield func(blob.Object, error) bool) {
		dir, prefix := o.Dir, ""
		err := ctx.Err()
		if under != "" && err == nil {
			prefix = under + "/"
			dir, err = o.path(under)
		}
		if err != nil {
			yield(blob.Object{}, keyError("list", under, err))
			return
		}
		o.list(ctx, dir, prefix, after, yield)
	}
}

// list is false when the listing is to end.
func (o *Objects) list(ctx context.Context, dir, prefix, after string, yield func(blob.Object, error) bool) bool {
	names, err := folder(dir)
	if err != nil {
		yield(blob.Object{}, keyError("list", prefix, err))
		return false
	}
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			yield(blob.Object{}, keyError("list", prefix, err))
			return false
		}
		key := prefix + name
		path, err := o.path(strings.TrimSuffix(key, "/"))
		if err != nil {
			continue // ~tmp, and what is not ours
		}
		if strings.HasSuffix(name, "/") {
			if (key > after || strings.HasPrefix(after, key)) && !o.list(ctx, path, key, after, yield) {
				return false
			}
			continue
		}
		if key <= after {
			continue
		}
		fi, err := stat(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			yield(blob.Object{}, keyError("list", key, err))
			return false
		}
		if !yield(blob.Object{Key: key, Size: fi.Size(), ModTime: fi.ModTime()}, nil) {
			return false
		}
	}
	return true
}

// folder returns the names in dir, those of folders with a "/" at the end, in
// byte order. One that is not there is empty, and so is a file.
func folder(dir string) ([]string, error) {
	f, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) || isNotDir(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	entries, err := f.ReadDir(-1)
	if err != nil {
		if fi, e := f.Stat(); e == nil && !fi.IsDir() {
			return nil, nil
		}
		return nil, err
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
		if e.IsDir() {
			names[i] += "/"
		}
	}
	slices.Sort(names)
	return names, nil
}

// Sweep removes what calls that never returned left behind before cutoff, and
// returns how many files those were. Keys cannot see them. No call may be under
// way that has lasted since.
func (o *Objects) Sweep(ctx context.Context, cutoff time.Time) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	n := 0
	for _, err := range o.sweep(ctx, cutoff, false) {
		if err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

// sweep removes, unless dry, and yields what is under ~tmp since before cutoff.
// Who still writes there finds at the rename that the file is gone.
func (o *Objects) sweep(ctx context.Context, cutoff time.Time, dry bool) iter.Seq2[blob.Object, error] {
	return func(yield func(blob.Object, error) bool) {
		names, err := folder(filepath.Join(o.Dir, temp))
		for _, name := range names {
			if err = ctx.Err(); err != nil {
				break
			}
			if obj, ok := takeOld(o.Dir, temp+"/"+name, cutoff, dry); ok && !yield(obj, nil) {
				return
			}
		}
		if err != nil {
			yield(blob.Object{}, err)
		}
	}
}

// takeOld removes a file, unless dry, if nothing has happened to it since
// cutoff.
func takeOld(dir, key string, cutoff time.Time, dry bool) (blob.Object, bool) {
	path := filepath.Join(dir, filepath.FromSlash(key))
	fi, err := stat(path)
	if err != nil || !fi.ModTime().Before(cutoff) || !dry && os.Remove(path) != nil {
		return blob.Object{}, false
	}
	return blob.Object{Key: key, Size: fi.Size(), ModTime: fi.ModTime()}, true
}

// A name that nobody else has: 26 of [A-Z2-7].
func random() string { return rand.Text() }
