package events

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/wharfage/wharfage/manifest"
)

// Drain delivers the events of what is in an outbox, as [manifest.Drain] does: for
// those who tell of events and of nothing else. It ends at the first error of deliver,
// after which the event is still there, with those of the same Change before it.
//
// It returns how many events were delivered.
func Drain(ctx context.Context, box manifest.Outbox, from Origin, deliver func(context.Context, Event) error) (n int, err error) {
	err = manifest.Drain(ctx, box, func(ctx context.Context, c manifest.Committed) error {
		for _, e := range from.Events(c) {
			if err := deliver(ctx, e); err != nil {
				return err
			}
			n++
		}
		return nil
	})
	return n, err
}

// Fanout hands events to subscribers in this process, and never waits. The zero
// value is ready. It must not be copied after its first use.
type Fanout struct {
	mu   sync.RWMutex
	subs map[*Subscription]struct{}
}

// Subscription is a queue of events. It must be closed.
type Subscription struct {
	C <-chan Event // closed by Close

	queue   chan Event
	dropped atomic.Uint64
	from    *Fanout
}

// Subscribe returns a queue for so many events, at least one, of those published
// from now on.
func (f *Fanout) Subscribe(queue int) *Subscription {
	s := &Subscription{queue: make(chan Event, max(queue, 1)), from: f}
	s.C = s.queue
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.subs == nil {
		f.subs = map[*Subscription]struct{}{}
	}
	f.subs[s] = struct{}{}
	return s
}

// Publish puts events into each queue that has room, and returns at once. What one
// goroutine publishes has the same order in each queue.
func (f *Fanout) Publish(events ...Event) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	for s := range f.subs {
		for _, e := range events {
			select {
			case s.queue <- e:
			default:
				s.dropped.Add(1)
			}
		}
	}
}

// Dropped is how many events found the queue full.
func (s *Subscription) Dropped() uint64 { return s.dropped.Load() }

// Close ends the subscription. What is in the queue can still be read.
func (s *Subscription) Close() {
	s.from.mu.Lock()
	defer s.from.mu.Unlock()
	if _, open := s.from.subs[s]; open {
		delete(s.from.subs, s)
		close(s.queue)
	}
}
