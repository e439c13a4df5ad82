// Package dirblob keeps blobs in a directory of one machine.
//
// For most uses, [Store] is all that is needed: blobs, the repositories that
// have them, and upload sessions, with nothing beside the directory. A store
// that keeps links and sessions in a database builds on [Objects].
//
// # Layout
//
//	blobs/+team+app/sha256/ab/abcd…  a blob of team/app: the file is the link
//	uploads/<id>/session             an upload as last saved
//	uploads/<id>/<random>            its bytes, in parts
//	~tmp/<random>                    a write under way
//
// A repository's folder is "+" and its name with "+" for "/", so that no name is
// the folder of another, nor, on Windows, a device. What is longer than 128
// characters goes on in a folder within one whose name ends in "=", since file
// systems bound names by 255 bytes. No two names differ in case only.
//
// # Durability
//
// A blob costs two syncs, of its file and of its folder. The first use of a
// folder in the life of a Store costs one more. A chunk of an upload costs
// four, of its file, of the session and of their folder after each. On Windows
// folders are not synced, and a blob that is being read can be neither deleted
// nor put anew. With Unsynced nothing is synced.
//
// After a crash only uploads/ and ~tmp/ can hold anything that is of no use;
// [blob.Collect] removes it, by way of [Store.Sweep], and sessions that nobody
// continues.
package dirblob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/internal/ocidigest"
)

// Store implements [blob.Store], [blob.Mounter], [blob.Rereader],
// [blob.Locator] and what [blob.Collect] asks for. A directory is for one Store
// at a time, in one process: its locks are in memory. It must not be copied
// after its first use.
//
// A mount is a hard link, so that a touch in one of the repositories touches in
// all, and a blob may be kept for longer than its own repository asks for.
type Store struct {
	Dir      string           // made when first needed; one file system
	Unsynced bool             // as in Objects: a crash of the machine may undo what was acknowledged, and spoil it
	Now      func() time.Time // nil means time.Now
	Lease    time.Duration    // Stat renews a touch older than half of it; zero means 24h
	Guard    blob.Guard       // asked before each removal, with no lock held; nil means that no blob is needed

	once    sync.Once
	objects Objects

	// A session's lock is taken before a blob's, never after it.
	sessions, blobs stripes
}

var _ interface {
	blob.Store
	blob.Mounter
	blob.Rereader
	blob.Locator
	blob.Catalog
	blob.Guarded
	blob.SessionLister
	blob.Sweeper
} = (*Store)(nil)

// stripes are locks for more things than there are locks.
type stripes [64]sync.Mutex

// of goes by the last characters, which are random in IDs and digests.
func (s *stripes) of(name string) *sync.Mutex {
	h := uint(0)
	for _, c := range []byte(name[max(0, len(name)-4):]) {
		h = h*31 + uint(c)
	}
	return &s[h%uint(len(s))]
}

func (s *Store) files() *Objects {
	s.once.Do(func() { s.objects.Dir, s.objects.Unsynced = s.Dir, s.Unsynced })
	return &s.objects
}

func (s *Store) now() time.Time {
	if s.Now != nil {
		return s.Now()
	}
	return time.Now()
}

// old tells whether a touch is to be renewed now.
func (s *Store) old(touched, now time.Time) bool {
	half := 12 * time.Hour
	if s.Lease > 0 {
		half = s.Lease / 2
	}
	return now.Sub(touched) > half
}

// stamp gives a file that is not synced yet the time of Now. The operating
// system's own will do for time.Now.
func (s *Store) stamp(f *os.File) error {
	if s.Now == nil {
		return nil
	}
	return os.Chtimes(f.Name(), time.Time{}, s.Now())
}

func repoKey(repo string) string {
	const most = 128
	name := strings.ReplaceAll(repo, "/", "+")
	key := "blobs/+"
	for ; len(name) > most; name = name[most:] {
		key += name[:most] + "=/+"
	}
	return key + name
}

func blobKey(repo string, dgst digest.Digest) string {
	hex := dgst.Encoded()
	return repoKey(repo) + "/" + string(dgst.Algorithm()) + "/" + hex[:2] + "/" + hex
}

func (s *Store) blobPath(repo string, dgst digest.Digest) (string, error) {
	return s.files().path(blobKey(repo, dgst))
}

// blobError says what failed. If notFound, a file that is not there is a blob
// that is not there.
func blobError(op, repo string, dgst digest.Digest, err error, notFound bool) error {
	if notFound && errors.Is(err, fs.ErrNotExist) {
		err = blob.ErrNotFound
	}
	return &blob.Error{Op: op, Repo: repo, Digest: dgst, Err: err}
}

// Stat implements [blob.Reader].
func (s *Store) Stat(ctx context.Context, repo string, dgsts []digest.Digest) ([]blob.Info, error) {
	infos := make([]blob.Info, len(dgsts))
	for i, dgst := range dgsts {
		err := ctx.Err()
		if err == nil {
			infos[i], err = s.stat(repo, dgst)
		}
		if err != nil {
			return nil, blobError("stat", repo, dgst, err, false)
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, blobError("stat", repo, "", err, false)
	}
	return infos, nil
}

func (s *Store) stat(repo string, dgst digest.Digest) (blob.Info, error) {
	path, err := s.blobPath(repo, dgst)
	if err != nil {
		return blob.Info{}, err
	}
	now := s.now()
	fi, err := stat(path)
	if err == nil && s.old(fi.ModTime(), now) {
		mu := s.blobs.of(string(dgst)) // Delete must not come between the look and the touch
		mu.Lock()
		defer mu.Unlock()
		fi, err = s.touch(path, now)
	}
	if err == nil {
		err = s.files().finishSync(path) // somebody else's, who is at it
	}
	if errors.Is(err, fs.ErrNotExist) {
		return blob.Info{}, nil
	}
	if err != nil {
		return blob.Info{}, err
	}
	return info(dgst, fi), nil
}

// touch must be called with the blob's lock, if path is one.
func (s *Store) touch(path string, now time.Time) (fs.FileInfo, error) {
	fi, err := stat(path)
	if err == nil && s.old(fi.ModTime(), now) {
		if err = s.files().touch(path, now); err == nil {
			fi, err = stat(path)
		}
	}
	return fi, err
}

func info(dgst digest.Digest, fi fs.FileInfo) blob.Info {
	return blob.Info{Digest: dgst, Size: fi.Size(), TouchedAt: fi.ModTime()}
}

// Open implements [blob.Reader]. The reader implements [io.WriterTo] such that
// a network connection can take the bytes from the operating system.
func (s *Store) Open(ctx context.Context, repo string, dgst digest.Digest, off, n int64) (io.ReadCloser, blob.Info, error) {
	path, err := s.blobPath(repo, dgst)
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return nil, blob.Info{}, blobError("open", repo, dgst, err, true)
	}
	r, fi, err := open(path, off, n)
	if err != nil {
		return nil, blob.Info{}, blobError("open", repo, dgst, err, true)
	}
	return r, info(dgst, fi), nil
}

// Put implements [blob.Writer].
func (s *Store) Put(ctx context.Context, repo string, desc ocispec.Descriptor, r io.Reader) error {
	o := s.files()
	path, err := s.blobPath(repo, desc.Digest)
	if err == nil {
		var file string
		file, _, err = o.stage(ctx, func(f *os.File) (int64, error) {
			n, err := o.copy(ctx, f, r)
			if err == nil {
				err = s.stamp(f)
			}
			return n, err
		})
		if err == nil {
			err = o.publish(file, path, s.blobs.of(string(desc.Digest)))
		}
	}
	if err != nil {
		return blobError("put", repo, desc.Digest, err, false)
	}
	return nil
}

// Mount implements [blob.Mounter].
func (s *Store) Mount(ctx context.Context, from, repo string, dgst digest.Digest) error {
	if err := s.mount(ctx, from, repo, dgst); err != nil {
		return blobError("mount", repo, dgst, err, true)
	}
	return nil
}

func (s *Store) mount(ctx context.Context, from, repo string, dgst digest.Digest) error {
	source, err := s.blobPath(from, dgst)
	if err != nil {
		return err
	}
	path, err := s.blobPath(repo, dgst)
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	mu := s.blobs.of(string(dgst))
	link := func() error {
		mu.Lock()
		defer mu.Unlock()
		now := s.now()
		if _, err := s.touch(source, now); err != nil {
			return err
		}
		err := os.Link(source, path)
		if errors.Is(err, fs.ErrExist) {
			_, err = s.touch(path, now)
		}
		return err
	}
	if _, err := stat(source); err != nil { // or place would make a folder for nothing
		return err
	}
	o := s.files()
	err = o.place(path, link)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// The file system has no links, or no more of them for this file.
	content, _, err := open(source, 0, -1)
	if err != nil {
		return err
	}
	defer content.Close()
	file, _, err := o.stage(ctx, func(f *os.File) (int64, error) {
		n, err := io.Copy(f, content)
		if err == nil {
			err = s.stamp(f)
		}
		return n, err
	})
	if err != nil {
		return err
	}
	return o.publish(file, path, mu)
}

// Blobs implements [blob.Lister]. It reads one folder at a time, which has
// about a 256th of the repository's blobs.
func (s *Store) Blobs(ctx context.Context, repo string, after digest.Digest) iter.Seq2[blob.Info, error] {
	return func(yield func(blob.Info, error) bool) {
		under := repoKey(repo)
		for _, alg := range []string{"sha256", "sha512"} {
			folder := under + "/" + alg
			start := ""
			if rest, ok := strings.CutPrefix(string(after), alg+":"); ok {
				start = folder + "/" + rest[:min(2, len(rest))] + "/" + rest
			} else if string(after) > alg+":" {
				continue
			}
			for obj, err := range s.files().List(ctx, folder, start) {
				if err != nil {
					yield(blob.Info{}, &blob.Error{Op: "list", Repo: repo, Digest: after, Err: err})
					return
				}
				dgst := digest.Digest(alg + ":" + obj.Key[strings.LastIndexByte(obj.Key, '/')+1:])
				if ocidigest.Check(string(dgst)) != nil {
					continue // somebody's file
				}
				if !yield(blob.Info{Digest: dgst, Size: obj.Size, TouchedAt: obj.ModTime}, nil) {
					return
				}
			}
		}
	}
}

// Delete implements [blob.Deleter].
func (s *Store) Delete(ctx context.Context, repo string, dgst digest.Digest, cutoff time.Time) error {
	path, err := s.blobPath(repo, dgst)
	if err == nil {
		err = ctx.Err()
	}
	remove := func() error {
		mu := s.blobs.of(string(dgst))
		mu.Lock()
		defer mu.Unlock()
		fi, err := stat(path)
		if errors.Is(err, fs.ErrNotExist) {
			return blob.ErrNotFound
		}
		if err != nil {
			return err
		}
		if !cutoff.IsZero() && fi.ModTime().After(cutoff) {
			return fmt.Errorf("touched at %v: %w", fi.ModTime(), blob.ErrConflict)
		}
		return os.Remove(path)
	}
	switch {
	case err != nil:
	case s.Guard != nil:
		err = s.Guard(ctx, repo, dgst, remove)
	default:
		err = remove()
	}
	if err == nil {
		err = s.files().syncFolder(filepath.Dir(path))
	}
	if err != nil {
		return blobError("delete", repo, dgst, err, false)
	}
	return nil
}
