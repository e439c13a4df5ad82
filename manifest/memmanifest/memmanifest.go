// Package memmanifest keeps manifests and tags in memory, for tests and tools.
//
// The zero [Store] is empty and ready, but for its MissingBlobs, which it needs for
// manifests that name blobs. It is also a referrers.Index: each change keeps the lists
// of referrers, at a cost that does not depend on how many there are.
package memmanifest

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/manifest"
)

// Store implements [manifest.Store], [manifest.Catalog], [manifest.Stater],
// [manifest.Describer], [manifest.Counter], [manifest.Outbox], referrers.Index
// and referrers.JSONIndex. It must not be copied after its first use.
type Store struct {
	// MissingBlobs returns those of dgsts that repo lacks. Apply calls it for
	// RequireBlobs, on its own goroutine, while no other change of repo and no
	// Unneeded is under way; it must not change repo in this Store.
	//
	// Nil means that blobs cannot be checked: a change with RequireBlobs is
	// refused with [manifest.ErrUnsupported]. [Unchecked] lets all pass.
	MissingBlobs func(ctx context.Context, repo string, dgsts []digest.Digest) ([]digest.Digest, error)

	// KeepEvents makes the Store an Outbox in more than name: it keeps the event of
	// each change until Forget drops it, and so grows by what is pushed. False keeps
	// none, at no cost: Events is empty whatever was committed.
	KeepEvents bool

	mu    sync.RWMutex
	repos map[string]*repository // with a manifest, or with an owner
	names ordered[struct{}]      // of those with a manifest

	events events
}

var _ interface {
	manifest.Store
	manifest.Catalog
	manifest.Stater
	manifest.Describer
	manifest.Counter
	manifest.Outbox
} = (*Store)(nil)

// Unchecked is a MissingBlobs for a Store whose blobs do not matter: it finds
// none missing.
func Unchecked(ctx context.Context, repo string, dgsts []digest.Digest) ([]digest.Digest, error) {
	return nil, nil
}

// A repository is owned by at most one Apply or Unneeded, from before its first
// check until after its last write. Readers do not wait for the owner's checks,
// only for its writes. Locks nest in one order, so that none waits for another
// in a circle: owner; then those of a blob store, which MissingBlobs and
// Unneeded's remove take; and owner, Store.mu; and owner, repository.mu,
// events.mu.
type repository struct {
	owner        chan struct{} // holds one element while owned; a channel, so that waiting honours ctx
	listed, gone bool          // in Store.names; not in Store.repos any more; for the owner only

	mu        sync.RWMutex // written to by the owner only, who therefore reads without it
	manifests ordered[*entry]
	tags      ordered[manifest.Tag]
	blobs     map[digest.Digest]int                // how many manifests name it
	parents   map[digest.Digest]*ordered[struct{}] // the manifests that list it, which may not be here
	subjects  map[digest.Digest]*subject
}

// subject holds the referrers of one digest.
type subject struct {
	all    ordered[*entry]
	byType map[string]*ordered[*entry]
}

// acquire makes the caller the owner of a repository, which is made if there is
// none.
func (s *Store) acquire(ctx context.Context, repo string) (*repository, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		s.mu.Lock()
		r := s.repos[repo]
		if r == nil {
			r = &repository{
				owner:    make(chan struct{}, 1),
				blobs:    map[digest.Digest]int{},
				parents:  map[digest.Digest]*ordered[struct{}]{},
				subjects: map[digest.Digest]*subject{},
			}
			r.owner <- struct{}{}
			if s.repos == nil {
				s.repos = map[string]*repository{}
			}
			s.repos[repo] = r
			s.mu.Unlock()
			return r, nil
		}
		s.mu.Unlock()
		select {
		case r.owner <- struct{}{}:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if !r.gone {
			return r, nil
		}
		<-r.owner
	}
}

// release ends the ownership. A repository without manifests goes.
func (s *Store) release(repo string, r *repository) {
	switch empty := r.manifests.len() == 0; {
	case empty:
		s.mu.Lock()
		delete(s.repos, repo)
		s.names.delete(repo)
		s.mu.Unlock()
		r.gone = true
	case !r.listed:
		s.mu.Lock()
		s.names.set(repo, struct{}{})
		s.mu.Unlock()
		r.listed = true
	}
	<-r.owner
}

// read calls f with a repository that does not change meanwhile. It does not
// call f if there is none.
func (s *Store) read(repo string, f func(*repository)) {
	s.mu.RLock()
	r := s.repos[repo]
	s.mu.RUnlock()
	if r == nil {
		return
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	f(r)
}

// Get implements [manifest.Reader].
func (s *Store) Get(ctx context.Context, repo string, dgst digest.Digest) (manifest.Record, error) {
	var e *entry
	s.read(repo, func(r *repository) { e, _ = r.manifests.get(string(dgst)) })
	if e == nil {
		return manifest.Record{}, &manifest.Error{Op: "get", Repo: repo, Object: string(dgst), Err: manifest.ErrNotFound}
	}
	rec := e.listed()
	rec.Raw = bytes.Clone(e.raw)
	return rec, nil
}

// Resolve implements [manifest.Reader].
func (s *Store) Resolve(ctx context.Context, repo, tag string) (manifest.Tag, error) {
	var t manifest.Tag
	found := false
	s.read(repo, func(r *repository) { t, found = r.tags.get(tag) })
	if !found {
		return t, &manifest.Error{Op: "resolve", Repo: repo, Object: tag, Err: manifest.ErrNotFound}
	}
	return t, nil
}

// Stat implements [manifest.Stater].
func (s *Store) Stat(ctx context.Context, repo string, dgsts []digest.Digest) ([]ocispec.Descriptor, error) {
	out := make([]ocispec.Descriptor, len(dgsts))
	s.read(repo, func(r *repository) {
		for i, d := range dgsts {
			if e, found := r.manifests.get(string(d)); found {
				out[i] = e.stat()
			}
		}
	})
	return out, nil
}

// Describe implements [manifest.Describer].
func (s *Store) Describe(ctx context.Context, repo string, dgsts []digest.Digest) ([]manifest.Record, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	entries := make([]*entry, len(dgsts))
	s.read(repo, func(r *repository) {
		for i, d := range dgsts {
			entries[i], _ = r.manifests.get(string(d))
		}
	})
	out := make([]manifest.Record, len(dgsts))
	for i, e := range entries {
		if e != nil {
			out[i] = e.listed()
		}
	}
	return out, nil
}

// Count implements [manifest.Counter].
func (s *Store) Count(ctx context.Context, repo string, dgst digest.Digest) (manifests, tags int, err error) {
	if err := ctx.Err(); err != nil {
		return 0, 0, err
	}
	s.read(repo, func(r *repository) {
		manifests = r.manifests.len()
		if e, found := r.manifests.get(string(dgst)); found {
			tags = e.tags.len()
		}
	})
	return manifests, tags, nil
}

// Manifests implements [manifest.Reader].
func (s *Store) Manifests(ctx context.Context, repo string, after digest.Digest) iter.Seq2[manifest.Record, error] {
	return list(ctx, string(after), func(f func(*ordered[*entry])) {
		s.read(repo, func(r *repository) { f(&r.manifests) })
	}, func(_ string, e *entry) manifest.Record { return e.listed() })
}

// Tags implements [manifest.Reader].
func (s *Store) Tags(ctx context.Context, repo, after string) iter.Seq2[manifest.Tag, error] {
	return list(ctx, after, func(f func(*ordered[manifest.Tag])) {
		s.read(repo, func(r *repository) { f(&r.tags) })
	}, func(_ string, t manifest.Tag) manifest.Tag { return t })
}

// Repos implements [manifest.Catalog].
func (s *Store) Repos(ctx context.Context, after string) iter.Seq2[string, error] {
	return list(ctx, after, func(f func(*ordered[struct{}])) {
		s.mu.RLock()
		defer s.mu.RUnlock()
		f(&s.names)
	}, func(name string, _ struct{}) string { return name })
}

// Referrers implements referrers.Index. The cost of a listing follows what it
// yields, with an artifactType too.
func (s *Store) Referrers(ctx context.Context, repo string, subject digest.Digest, artifactType string, after digest.Digest) iter.Seq2[ocispec.Descriptor, error] {
	return referrers(ctx, s, repo, subject, artifactType, after, func(_ string, e *entry) ocispec.Descriptor { return e.descriptor() })
}

// ReferrersJSON implements referrers.JSONIndex.
func (s *Store) ReferrersJSON(ctx context.Context, repo string, subject digest.Digest, artifactType string, after digest.Digest) iter.Seq2[manifest.ReferrerJSON, error] {
	return referrers(ctx, s, repo, subject, artifactType, after, func(key string, e *entry) manifest.ReferrerJSON {
		return manifest.ReferrerJSON{Digest: digest.Digest(key), JSON: e.json}
	})
}

func referrers[T any](ctx context.Context, s *Store, repo string, subject digest.Digest, artifactType string, after digest.Digest, out func(string, *entry) T) iter.Seq2[T, error] {
	return list(ctx, string(after), func(f func(*ordered[*entry])) {
		s.read(repo, func(r *repository) {
			switch sub := r.subjects[subject]; {
			case sub == nil:
			case artifactType == "":
				f(&sub.all)
			case sub.byType[artifactType] != nil:
				f(sub.byType[artifactType])
			}
		})
	}, out)
}

// list yields a map page by page. use calls its argument with the map, if it is
// there, and keeps it from changing meanwhile; out makes the result outside of
// that.
func list[V, T any](ctx context.Context, after string, use func(func(*ordered[V])), out func(string, V) T) iter.Seq2[T, error] {
	const pageLen = 256
	return func(yield func(T, error) bool) {
		last := after
		page := make([]pair[V], 0, 16)
		for more := true; more; {
			if err := ctx.Err(); err != nil {
				var zero T
				yield(zero, err)
				return
			}
			page, more = page[:0], false
			use(func(m *ordered[V]) {
				for key, val := range m.after(last) {
					if more = len(page) == pageLen; more {
						return
					}
					page = append(page, pair[V]{place{key: key}, val})
				}
			})
			for _, p := range page {
				if !yield(out(p.key, p.val), nil) {
					return
				}
				last = p.key
			}
		}
	}
}

// Unneeded calls remove if no manifest in repo names dgst as a blob. From the
// check until remove returns, none comes to. remove must not change repo in
// this Store; its error is returned.
//
// It makes a blob.Guard:
//
//	func(ctx context.Context, repo string, dgst digest.Digest, remove func() error) error {
//		needed, err := store.Unneeded(ctx, repo, dgst, remove)
//		if needed {
//			return fmt.Errorf("a manifest needs it: %w", blob.ErrConflict)
//		}
//		return err
//	}
func (s *Store) Unneeded(ctx context.Context, repo string, dgst digest.Digest, remove func() error) (needed bool, err error) {
	r, err := s.acquire(ctx, repo)
	if err != nil {
		return false, err
	}
	defer s.release(repo, r)
	if r.blobs[dgst] > 0 {
		return true, nil
	}
	return false, remove()
}

// missing returns what c requires and repo does not have, or nil.
func (s *Store) missing(ctx context.Context, repo string, c *manifest.Change, has func(digest.Digest) bool) error {
	var m manifest.MissingError
	if len(c.RequireBlobs) > 0 {
		if s.MissingBlobs == nil {
			return fmt.Errorf("RequireBlobs without memmanifest.Store.MissingBlobs: %w", manifest.ErrUnsupported)
		}
		var err error
		if m.Blobs, err = s.MissingBlobs(ctx, repo, c.RequireBlobs); err != nil {
			return err
		}
	}
	lacks := map[digest.Digest]bool{}
	need := func(d digest.Digest) {
		if !has(d) && !lacks[d] {
			lacks[d] = true
			m.Manifests = append(m.Manifests, d)
		}
	}
	for _, d := range c.RequireManifests {
		need(d)
	}
	for _, t := range c.Tags {
		if t.To != "" {
			need(t.To)
		}
	}
	if len(m.Blobs)+len(m.Manifests) > 0 {
		return &m
	}
	return nil
}
