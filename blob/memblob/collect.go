package memblob

import (
	"context"
	"iter"
	"maps"
	"slices"

	"github.com/wharfage/wharfage/blob"
)

// Guarded implements [blob.Guarded]: it tells whether there is a Guard.
func (s *Store) Guarded() bool { return s.Guard != nil }

// Repos implements [blob.Catalog]. A listing shows the repositories that were
// there when it began, but for those that were emptied meanwhile.
func (s *Store) Repos(ctx context.Context, after string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		if err := ctx.Err(); err != nil {
			yield("", &blob.Error{Op: "list", Repo: after, Err: err})
			return
		}
		s.mu.RLock()
		names := slices.Sorted(maps.Keys(s.repos))
		s.mu.RUnlock()
		for _, name := range names {
			if err := ctx.Err(); err != nil {
				yield("", &blob.Error{Op: "list", Repo: name, Err: err})
				return
			}
			if name > after && !s.repository(name, false).empty() && !yield(name, nil) {
				return
			}
		}
	}
}

func (r *repository) empty() bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return len(r.blobs) == 0
}

// Sessions implements [blob.SessionLister]. A listing shows the sessions that
// were there when it began, but for those that have ended meanwhile.
func (s *Store) Sessions(ctx context.Context, after string) iter.Seq2[blob.Upload, error] {
	return func(yield func(blob.Upload, error) bool) {
		if err := ctx.Err(); err != nil {
			yield(blob.Upload{}, uploadError("list", blob.Upload{ID: after}, err))
			return
		}
		s.uploads.Lock()
		ids := slices.Sorted(maps.Keys(s.sessions))
		s.uploads.Unlock()
		for _, id := range ids {
			if err := ctx.Err(); err != nil {
				yield(blob.Upload{}, uploadError("list", blob.Upload{ID: id}, err))
				return
			}
			if u, ok := s.last(id); ok && id > after && !yield(u, nil) {
				return
			}
		}
	}
}

// last returns a session as last saved.
func (s *Store) last(id string) (blob.Upload, bool) {
	s.uploads.Lock()
	defer s.uploads.Unlock()
	x := s.sessions[id]
	if x == nil {
		return blob.Upload{}, false
	}
	return own(x.saved), true
}
