// Package memblob keeps blobs in memory, for tests and tools.
//
// The zero [Store] is empty and ready. Nothing in it expires by itself:
// [blob.Collect] removes what nothing needs.
package memblob

import (
	"bytes"
	"context"
	"io"
	"iter"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/blob"
)

// Store implements [blob.Store], [blob.Mounter], [blob.Rereader],
// [blob.Locator], [blob.Catalog], [blob.Guarded] and [blob.SessionLister]. It
// must not be copied after its first use.
type Store struct {
	Now   func() time.Time // nil means time.Now
	Lease time.Duration    // Stat renews a touch older than half of it; zero means 24h
	Guard blob.Guard       // asked before each removal, with no lock held; nil means that no blob is needed

	mu    sync.RWMutex
	repos map[string]*repository // only ever grows

	// uploads is taken before a repository's lock, never after it.
	uploads  sync.Mutex
	sessions map[string]*session // by ID
}

var _ interface {
	blob.Store
	blob.Mounter
	blob.Rereader
	blob.Locator
	blob.Catalog
	blob.Guarded
	blob.SessionLister
} = (*Store)(nil)

type repository struct {
	mu     sync.RWMutex
	blobs  map[digest.Digest]*entry
	sorted []digest.Digest // the keys of blobs, shared with listings; nil when one came or went
}

type entry struct {
	content []byte // never changes; shared by repositories
	touched atomic.Int64
}

func (e *entry) info(dgst digest.Digest) blob.Info {
	return blob.Info{Digest: dgst, Size: int64(len(e.content)), TouchedAt: time.Unix(0, e.touched.Load())}
}

func (s *Store) now() time.Time {
	if s.Now != nil {
		return s.Now()
	}
	return time.Now()
}

func (s *Store) halfLease() time.Duration {
	if s.Lease > 0 {
		return s.Lease / 2
	}
	return 12 * time.Hour
}

// repository returns nil if there is none and it is not to be made.
func (s *Store) repository(name string, make bool) *repository {
	s.mu.RLock()
	r := s.repos[name]
	s.mu.RUnlock()
	if r != nil || !make {
		return r
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if r = s.repos[name]; r == nil {
		if s.repos == nil {
			s.repos = map[string]*repository{}
		}
		r = &repository{blobs: map[digest.Digest]*entry{}}
		s.repos[name] = r
	}
	return r
}

// find returns nil if repo does not have dgst.
func (s *Store) find(repo string, dgst digest.Digest) *entry {
	r := s.repository(repo, false)
	if r == nil {
		return nil
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.blobs[dgst]
}

func (s *Store) add(repo string, dgst digest.Digest, content []byte) {
	now := s.now().UnixNano()
	r := s.repository(repo, true)
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.blobs[dgst]
	if e == nil {
		e = &entry{content: content}
		r.blobs[dgst] = e
		r.sorted = nil
	}
	e.touched.Store(now)
}

// Stat implements [blob.Reader].
func (s *Store) Stat(ctx context.Context, repo string, dgsts []digest.Digest) ([]blob.Info, error) {
	if err := ctx.Err(); err != nil {
		return nil, &blob.Error{Op: "stat", Repo: repo, Err: err}
	}
	infos := make([]blob.Info, len(dgsts))
	r := s.repository(repo, false)
	if r == nil {
		return infos, nil
	}
	now := s.now()
	old := now.Add(-s.halfLease()).UnixNano()
	r.mu.RLock() // keeps Delete out between the look and the touch
	defer r.mu.RUnlock()
	for i, dgst := range dgsts {
		if e := r.blobs[dgst]; e != nil {
			if e.touched.Load() < old {
				e.touched.Store(now.UnixNano())
			}
			infos[i] = e.info(dgst)
		}
	}
	return infos, nil
}

// Open implements [blob.Reader].
func (s *Store) Open(ctx context.Context, repo string, dgst digest.Digest, off, n int64) (io.ReadCloser, blob.Info, error) {
	err := ctx.Err()
	var e *entry
	if err == nil {
		if e = s.find(repo, dgst); e == nil {
			err = blob.ErrNotFound
		} else if off > int64(len(e.content)) {
			err = blob.ErrRange
		}
	}
	if err != nil {
		return nil, blob.Info{}, &blob.Error{Op: "open", Repo: repo, Digest: dgst, Err: err}
	}
	rest := e.content[off:]
	if n >= 0 && n < int64(len(rest)) {
		rest = rest[:n]
	}
	return io.NopCloser(bytes.NewReader(rest)), e.info(dgst), nil
}

// Put implements [blob.Writer].
func (s *Store) Put(ctx context.Context, repo string, desc ocispec.Descriptor, r io.Reader) error {
	content, err := readAll(ctx, r, desc.Size)
	if err != nil {
		return &blob.Error{Op: "put", Repo: repo, Digest: desc.Digest, Err: err}
	}
	s.add(repo, desc.Digest, content)
	return nil
}

// readAll grows what it returns by what arrives: hint is someone's word, who is
// believed no more than eight times what has come.
func readAll(ctx context.Context, r io.Reader, hint int64) ([]byte, error) {
	const trusted = 64 << 10
	size := int64(512)
	if hint >= 0 {
		size = min(hint, trusted) + 1 // one more, to see the end without growing
	}
	b := make([]byte, 0, size)
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if len(b) == cap(b) {
			have := int64(cap(b))
			size = 2 * have
			if hint >= have {
				size = min(8*have, hint) + 1
			}
			b = append(make([]byte, 0, size), b...)
		}
		n, err := r.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if err == io.EOF {
			if cap(b)-len(b) > len(b)/8 {
				b = append(make([]byte, 0, len(b)), b...)
			}
			return b, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// Mount implements [blob.Mounter].
func (s *Store) Mount(ctx context.Context, from, repo string, dgst digest.Digest) error {
	err := ctx.Err()
	if err == nil {
		if e := s.find(from, dgst); e != nil {
			s.add(repo, dgst, e.content)
			return nil
		}
		err = blob.ErrNotFound
	}
	return &blob.Error{Op: "mount", Repo: repo, Digest: dgst, Err: err}
}

// Locate implements [blob.Locator]. It asks every repository.
func (s *Store) Locate(ctx context.Context, dgst digest.Digest) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		s.mu.RLock()
		names := slices.Collect(maps.Keys(s.repos))
		s.mu.RUnlock()
		names = slices.DeleteFunc(names, func(name string) bool { return s.find(name, dgst) == nil })
		slices.Sort(names)
		for _, name := range names {
			if err := ctx.Err(); err != nil {
				yield("", err)
				return
			}
			if !yield(name, nil) {
				return
			}
		}
	}
}

// Blobs implements [blob.Lister]. A listing shows the digests that were there
// when it began, but for those deleted meanwhile. The first after a change
// sorts them.
func (s *Store) Blobs(ctx context.Context, repo string, after digest.Digest) iter.Seq2[blob.Info, error] {
	return func(yield func(blob.Info, error) bool) {
		if err := ctx.Err(); err != nil {
			yield(blob.Info{}, &blob.Error{Op: "list", Repo: repo, Digest: after, Err: err})
			return
		}
		var dgsts []digest.Digest
		if r := s.repository(repo, false); r != nil {
			dgsts = r.digests()
		}
		i, found := slices.BinarySearch(dgsts, after)
		if found {
			i++
		}
		for _, dgst := range dgsts[i:] {
			if err := ctx.Err(); err != nil {
				yield(blob.Info{}, &blob.Error{Op: "list", Repo: repo, Digest: dgst, Err: err})
				return
			}
			if e := s.find(repo, dgst); e != nil && !yield(e.info(dgst), nil) {
				return
			}
		}
	}
}

func (r *repository) digests() []digest.Digest {
	r.mu.RLock()
	dgsts := r.sorted
	r.mu.RUnlock()
	if dgsts == nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.sorted == nil {
			r.sorted = slices.Sorted(maps.Keys(r.blobs))
		}
		dgsts = r.sorted
	}
	return dgsts
}

// Delete implements [blob.Deleter].
func (s *Store) Delete(ctx context.Context, repo string, dgst digest.Digest, cutoff time.Time) error {
	remove := func() error {
		r := s.repository(repo, false)
		if r == nil {
			return blob.ErrNotFound
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		e := r.blobs[dgst]
		switch {
		case e == nil:
			return blob.ErrNotFound
		case !cutoff.IsZero() && e.info(dgst).TouchedAt.After(cutoff):
			return blob.ErrConflict
		}
		delete(r.blobs, dgst)
		r.sorted = nil
		return nil
	}
	err := ctx.Err()
	if err == nil {
		if s.Guard != nil {
			err = s.Guard(ctx, repo, dgst, remove)
		} else {
			err = remove()
		}
	}
	if err != nil {
		return &blob.Error{Op: "delete", Repo: repo, Digest: dgst, Err: err}
	}
	return nil
}
