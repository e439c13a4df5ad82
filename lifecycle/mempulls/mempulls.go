// Package mempulls keeps last pulls in memory, for tests and tools.
//
// The zero [Store] is empty and ready.
package mempulls

import (
	"context"
	"iter"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/lifecycle"
)

// Store implements [lifecycle.Activity]. Its making is its first use. It must
// not be copied after that.
type Store struct {
	Now func() time.Time // nil means time.Now

	mu    sync.Mutex
	made  time.Time
	repos map[string]*repository
}

var _ lifecycle.Activity = (*Store)(nil)

type repository struct {
	last   map[digest.Digest]time.Time
	sorted []digest.Digest // the keys of last, shared with listings; nil when one came
}

// begin must be called with the lock.
func (s *Store) begin() time.Time {
	if s.made.IsZero() {
		now := time.Now
		if s.Now != nil {
			now = s.Now
		}
		s.made = now()
	}
	return s.made
}

// Touch implements [lifecycle.Activity].
func (s *Store) Touch(ctx context.Context, repo string, pulls []lifecycle.Pull) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.begin()
	for _, p := range pulls {
		if p.At.IsZero() {
			continue
		}
		r := s.repos[repo]
		if r == nil {
			if s.repos == nil {
				s.repos = map[string]*repository{}
			}
			r = &repository{last: map[digest.Digest]time.Time{}}
			s.repos[repo] = r
		}
		last, known := r.last[p.Digest]
		if !known {
			r.sorted = nil
		}
		if p.At.After(last) {
			r.last[p.Digest] = p.At
		}
	}
	return nil
}

// Pulls implements [lifecycle.Activity]. A listing shows the digests that were
// there when it began.
func (s *Store) Pulls(ctx context.Context, repo string, after digest.Digest) iter.Seq2[lifecycle.Pull, error] {
	return func(yield func(lifecycle.Pull, error) bool) {
		dgsts := s.digests(repo)
		i, found := slices.BinarySearch(dgsts, after)
		if found {
			i++
		}
		for {
			if err := ctx.Err(); err != nil {
				yield(lifecycle.Pull{}, err)
				return
			}
			if i == len(dgsts) || !yield(lifecycle.Pull{Digest: dgsts[i], At: s.last(repo, dgsts[i])}, nil) {
				return
			}
			i++
		}
	}
}

func (s *Store) digests(repo string) []digest.Digest {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.repos[repo]
	if r == nil {
		return nil
	}
	if r.sorted == nil {
		r.sorted = slices.Sorted(maps.Keys(r.last))
	}
	return r.sorted
}

func (s *Store) last(repo string, dgst digest.Digest) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.repos[repo].last[dgst]
}

// Since implements [lifecycle.Activity].
func (s *Store) Since(ctx context.Context, repo string) (time.Time, error) {
	if err := ctx.Err(); err != nil {
		return time.Time{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.begin(), nil
}
