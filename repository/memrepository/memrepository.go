// Package memrepository keeps repositories and their settings in memory, for
// tests and tools.
//
// The zero [Store] is empty and ready.
package memrepository

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"sync"

	"github.com/wharfage/wharfage/repository"
)

// Store implements [repository.Store]. It must not be copied after its first
// use.
type Store struct {
	mu    sync.Mutex
	repos map[string]repository.Repository
	names []string // the keys in order, shared with listings; nil when one came or went
}

var _ repository.Store = (*Store)(nil)

// Get implements [repository.Store].
func (s *Store) Get(ctx context.Context, name string) (repository.Repository, error) {
	if err := ctx.Err(); err != nil {
		return repository.Repository{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.repos[name]
	if !ok {
		return r, fmt.Errorf("%s: %w", name, repository.ErrNotFound)
	}
	return r.Clone(), nil
}

// List implements [repository.Store]: one listing sees the names of its
// beginning, and each repository as it is when its turn comes.
func (s *Store) List(ctx context.Context, after string) iter.Seq2[repository.Repository, error] {
	return func(yield func(repository.Repository, error) bool) {
		s.mu.Lock()
		if s.names == nil {
			s.names = slices.Sorted(maps.Keys(s.repos))
		}
		names := s.names
		s.mu.Unlock()
		i, found := slices.BinarySearch(names, after)
		if found {
			i++
		}
		for {
			if err := ctx.Err(); err != nil {
				yield(repository.Repository{}, err)
				return
			}
			if i == len(names) {
				return
			}
			s.mu.Lock()
			r, ok := s.repos[names[i]]
			s.mu.Unlock()
			if i++; ok && !yield(r.Clone(), nil) {
				return
			}
		}
	}
}

// Create implements [repository.Store].
func (s *Store) Create(ctx context.Context, r repository.Repository, most int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.repos[r.Name]; ok {
		return fmt.Errorf("%s: %w", r.Name, repository.ErrExists)
	}
	if most > 0 && len(s.repos) >= most {
		return &repository.QuotaError{Quota: repository.QuotaRepositories, Limit: most}
	}
	if s.repos == nil {
		s.repos = map[string]repository.Repository{}
	}
	s.repos[r.Name], s.names = r.Clone(), nil
	return nil
}

// Replace implements [repository.Store].
func (s *Store) Replace(ctx context.Context, old repository.Repository, new *repository.Repository) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	have, ok := s.repos[old.Name]
	switch {
	case !ok:
		return fmt.Errorf("%s: %w", old.Name, repository.ErrNotFound)
	case !have.Equal(&old):
		return fmt.Errorf("%s: %w", old.Name, repository.ErrConflict)
	case new == nil:
		delete(s.repos, old.Name)
		s.names = nil
	default:
		s.repos[old.Name] = new.Clone()
	}
	return nil
}
