// Package skeleton is the shortest manifest.Store that keeps every promise, to
// begin a store of your own from: replace the maps by your database, and keep
// the order of steps in Apply.
package skeleton

import (
	"bytes"
	"cmp"
	"context"
	"iter"
	"maps"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/manifest"
)

// Store keeps repositories in memory. A repository is never changed: Apply
// makes a new one, so that readers need no lock for longer than it takes to
// fetch a pointer. In SQL each Apply is one transaction.
type Store struct {
	// MissingBlobs returns those of dgsts that repo lacks, as blob.Missing does.
	MissingBlobs func(ctx context.Context, repo string, dgsts []digest.Digest) ([]digest.Digest, error)

	writing sync.Mutex // held by the one Apply under way
	mu      sync.Mutex
	repos   map[string]repository
}

type repository struct {
	manifests map[digest.Digest]manifest.Record
	tags      map[string]manifest.Tag
}

func (s *Store) repo(name string) repository {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.repos[name] // the zero repository is empty
}

func (s *Store) Get(ctx context.Context, repo string, dgst digest.Digest) (manifest.Record, error) {
	rec, ok := s.repo(repo).manifests[dgst]
	if !ok {
		return rec, &manifest.Error{Op: "get", Repo: repo, Object: string(dgst), Err: manifest.ErrNotFound}
	}
	out := listed(rec)
	out.Raw = bytes.Clone(rec.Raw)
	return out, ctx.Err()
}

func (s *Store) Resolve(ctx context.Context, repo, tag string) (manifest.Tag, error) {
	t, ok := s.repo(repo).tags[tag]
	if !ok {
		return t, &manifest.Error{Op: "resolve", Repo: repo, Object: tag, Err: manifest.ErrNotFound}
	}
	return t, ctx.Err()
}

func (s *Store) Manifests(ctx context.Context, repo string, after digest.Digest) iter.Seq2[manifest.Record, error] {
	return list(ctx, func() map[digest.Digest]manifest.Record { return s.repo(repo).manifests }, after, listed)
}

func (s *Store) Tags(ctx context.Context, repo, after string) iter.Seq2[manifest.Tag, error] {
	return list(ctx, func() map[string]manifest.Tag { return s.repo(repo).tags }, after, func(t manifest.Tag) manifest.Tag { return t })
}

// listed is what a listing shows of a record: without Raw, and the caller's own.
func listed(rec manifest.Record) manifest.Record {
	rec.Raw = nil
	rec.Desc.Annotations = maps.Clone(rec.Desc.Annotations)
	rec.Manifests, rec.Blobs = slices.Clone(rec.Manifests), slices.Clone(rec.Blobs)
	return rec
}

// list yields the values of m in the order of their keys. In SQL: SELECT …
// WHERE key > after ORDER BY key LIMIT n, page after page, in bytewise
// collation, and with the connection given back before a page is yielded.
func list[K cmp.Ordered, V any](ctx context.Context, m func() map[K]V, after K, out func(V) V) iter.Seq2[V, error] {
	return func(yield func(V, error) bool) {
		snapshot, none := m(), *new(V)
		keys := slices.DeleteFunc(slices.Sorted(maps.Keys(snapshot)), func(key K) bool { return key <= after })
		for i := 0; ; i++ {
			if err := ctx.Err(); err != nil {
				yield(none, err)
				return
			}
			if i == len(keys) || !yield(out(snapshot[keys[i]]), nil) {
				return
			}
		}
	}
}

// Apply checks and writes into copies, and makes them visible when all went
// well. In SQL: BEGIN, lock the repository, do the same, COMMIT.
func (s *Store) Apply(ctx context.Context, repo string, c manifest.Change) error {
	if c.Needs()&^manifest.BasicFeatures != 0 {
		return &manifest.Error{Op: "apply", Repo: repo, Err: manifest.ErrUnsupported}
	}
	s.writing.Lock()
	defer s.writing.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	next := repository{map[digest.Digest]manifest.Record{}, map[string]manifest.Tag{}}
	maps.Copy(next.manifests, s.repo(repo).manifests)
	maps.Copy(next.tags, s.repo(repo).tags)
	if err := s.change(ctx, repo, next, c); err != nil {
		return &manifest.Error{Op: "apply", Repo: repo, Err: err}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.repos == nil {
		s.repos = map[string]repository{}
	}
	s.repos[repo] = next
	return nil
}

func (s *Store) change(ctx context.Context, repo string, r repository, c manifest.Change) error {
	for _, rec := range c.Put {
		rec.PushedAt, rec.TouchedAt = c.At, c.At
		if was, ok := r.manifests[rec.Desc.Digest]; ok { // one that is here is kept, but touched
			rec, rec.TouchedAt = was, c.Touch(was.TouchedAt)
		}
		r.manifests[rec.Desc.Digest] = rec
	}
	missing, needed := manifest.MissingError{}, map[digest.Digest]bool{}
	if len(c.RequireBlobs) > 0 {
		if s.MissingBlobs == nil {
			return manifest.ErrUnsupported
		}
		var err error
		if missing.Blobs, err = s.MissingBlobs(ctx, repo, c.RequireBlobs); err != nil {
			return err
		}
	}
	need := func(d digest.Digest) {
		if _, ok := r.manifests[d]; !ok && !needed[d] {
			needed[d], missing.Manifests = true, append(missing.Manifests, d)
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
	if len(missing.Blobs)+len(missing.Manifests) > 0 {
		return &missing
	}
	for _, t := range c.Tags {
		have, ok := r.tags[t.Name]
		if !ok {
			have.Digest = manifest.Absent
		}
		switch {
		case t.From != "" && t.From != have.Digest:
			return &manifest.ConflictError{Tag: t.Name, Want: t.From, Have: have.Digest}
		case t.To == "" && !ok && t.From == "":
			return manifest.ErrNotFound
		case t.To == "":
			delete(r.tags, t.Name)
		case t.To != have.Digest: // else MovedAt stays
			r.tags[t.Name] = manifest.Tag{Name: t.Name, Digest: t.To, MovedAt: c.At}
		}
	}
	return remove(r, c.Delete)
}

// remove judges the conditions by what is left after all removals.
func remove(r repository, removals []manifest.Removal) error {
	for _, d := range removals {
		for name, t := range r.tags {
			if t.Digest == d.Digest && d.IfUntagged {
				return &manifest.ConflictError{Digest: d.Digest, Tag: name}
			}
		}
		if rec, ok := r.manifests[d.Digest]; !ok {
			return manifest.ErrNotFound
		} else if d.TooYoung(rec.TouchedAt) {
			return &manifest.ConflictError{Digest: d.Digest, TouchedAt: rec.TouchedAt}
		}
		delete(r.manifests, d.Digest)
	}
	for _, d := range removals {
		for parent, rec := range r.manifests {
			if d.IfUnlisted && slices.Contains(rec.Manifests, d.Digest) {
				return &manifest.ConflictError{Digest: d.Digest, Parent: parent}
			}
		}
		maps.DeleteFunc(r.tags, func(_ string, t manifest.Tag) bool { return t.Digest == d.Digest })
	}
	return nil
}
