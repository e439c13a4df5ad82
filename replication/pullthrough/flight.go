package pullthrough

import (
	"context"
	"sync"
)

// flights lets those who ask for the same thing at the same time have one answer. All
// get it, also if it is an error.
type flights[T any] struct {
	mu sync.Mutex
	m  map[string]*flight[T]
}

type flight[T any] struct {
	done    chan struct{}
	v       T
	err     error
	waiting int
	cancel  context.CancelCauseFunc
}

// do runs f on a goroutine that ends when nobody waits any more.
func (g *flights[T]) do(ctx context.Context, c *Cache, key string, f func(ctx context.Context) (T, error)) (T, error) {
	var zero T
	if err := ctx.Err(); err != nil {
		return zero, err
	}
	g.mu.Lock()
	fl := g.m[key]
	if fl == nil {
		fl = &flight[T]{done: make(chan struct{})}
		cancel, err := c.start(ctx, func(ctx context.Context) {
			v, err := f(ctx)
			g.mu.Lock()
			defer g.mu.Unlock()
			fl.v, fl.err = v, err
			g.forget(key, fl)
			close(fl.done)
		})
		if err != nil {
			g.mu.Unlock()
			return zero, err
		}
		fl.cancel = cancel
		if g.m == nil {
			g.m = map[string]*flight[T]{}
		}
		g.m[key] = fl
	}
	fl.waiting++
	g.mu.Unlock()
	select {
	case <-fl.done:
		return fl.v, fl.err
	case <-ctx.Done():
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if fl.waiting--; fl.waiting == 0 {
		fl.cancel(context.Canceled)
		g.forget(key, fl)
	}
	return zero, ctx.Err()
}

func (g *flights[T]) forget(key string, fl *flight[T]) {
	if g.m[key] == fl {
		delete(g.m, key)
	}
}

// memo remembers a bounded number of things: beyond it forgets all, which costs
// questions and nothing else.
type memo[T any] struct {
	mu sync.Mutex
	m  map[string]T
}

const memoSize = 50_000

func (m *memo[T]) get(key string) (v T, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v, ok = m.m[key]
	return v, ok
}

func (m *memo[T]) set(key string, v T) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, has := m.m[key]; !has && len(m.m) >= memoSize {
		clear(m.m)
	}
	if m.m == nil {
		m.m = map[string]T{}
	}
	m.m[key] = v
}

func (m *memo[T]) drop(key string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.m, key)
}
