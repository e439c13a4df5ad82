package memmanifest

import (
	"context"
	"errors"
	"iter"
	"maps"
	"slices"
	"strconv"
	"sync"

	"github.com/wharfage/wharfage/manifest"
)

// events is what was committed. A position is the number of an event, from 1.
type events struct {
	mu        sync.RWMutex
	kept      []manifest.Event // never change; their records have no Raw
	forgotten int              // how many came before them
}

// add keeps the event of a change, while nobody else can commit or see one of
// the same repository.
func (e *events) add(repo string, c manifest.Change) {
	c.Put = slices.Clone(c.Put)
	for i := range c.Put {
		c.Put[i].Raw = nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.kept = append(e.kept, manifest.Event{Repo: repo, Change: c})
}

// index returns the place in kept of the first event after the position n.
func (e *events) index(n int) int { return max(n-e.forgotten, 0) }

var errPosition = errors.New("not a position of this store")

func positionError(op, position string) error {
	return &manifest.Error{Op: op, Object: position, Err: errPosition}
}

// number reads a position. It must be called with the lock.
func (e *events) number(position string) (int, bool) {
	if position == "" {
		return 0, true
	}
	n, err := strconv.Atoi(position)
	return n, err == nil && n > 0 && n <= e.forgotten+len(e.kept)
}

// Events implements [manifest.Outbox]. A position of another Store is an error
// as long as it can be told.
func (s *Store) Events(ctx context.Context, after string) iter.Seq2[manifest.Committed, error] {
	const pageLen = 256
	return func(yield func(manifest.Committed, error) bool) {
		for position := after; ; {
			if err := ctx.Err(); err != nil {
				yield(manifest.Committed{}, err)
				return
			}
			s.events.mu.RLock()
			n, ok := s.events.number(position)
			var page []manifest.Event
			if ok {
				first := s.events.index(n)
				page = s.events.kept[first:min(first+pageLen, len(s.events.kept))]
				n = first + s.events.forgotten
				page = slices.Clone(page) // Forget clears what it drops
			}
			s.events.mu.RUnlock()
			if !ok {
				yield(manifest.Committed{}, positionError("events", position))
				return
			}
			if len(page) == 0 {
				return
			}
			for i, event := range page {
				position = strconv.Itoa(n + i + 1)
				event.Change = own(event.Change)
				if !yield(manifest.Committed{Position: position, Event: event}, nil) {
					return
				}
			}
		}
	}
}

// Forget implements [manifest.Outbox].
func (s *Store) Forget(ctx context.Context, through string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.events.mu.Lock()
	defer s.events.mu.Unlock()
	n, ok := s.events.number(through)
	if !ok {
		return positionError("forget", through)
	}
	drop := s.events.index(n)
	clear(s.events.kept[:drop]) // the array outlives the slice
	s.events.kept = s.events.kept[drop:]
	s.events.forgotten += drop
	return nil
}

// own returns c with slices and maps of its own.
func own(c manifest.Change) manifest.Change {
	c.RequireBlobs = slices.Clone(c.RequireBlobs)
	c.RequireManifests = slices.Clone(c.RequireManifests)
	c.Put, c.Known = slices.Clone(c.Put), slices.Clone(c.Known)
	for _, recs := range [][]manifest.Record{c.Put, c.Known} {
		for i, rec := range recs {
			rec.Desc.Annotations = maps.Clone(rec.Desc.Annotations)
			rec.Manifests, rec.Blobs = slices.Clone(rec.Manifests), slices.Clone(rec.Blobs)
			recs[i] = rec
		}
	}
	c.Unchanged = slices.Clone(c.Unchanged)
	for i, seen := range c.Unchanged {
		c.Unchanged[i].Tags = slices.Clone(seen.Tags)
	}
	c.Tags = slices.Clone(c.Tags)
	c.Classes = slices.Clone(c.Classes)
	c.Delete = slices.Clone(c.Delete)
	c.Via = slices.Clone(c.Via)
	return c
}
