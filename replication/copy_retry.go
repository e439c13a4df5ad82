package replication

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

const maxBackoff = 30 * time.Second

// exhaustedError is what is not tried again by anyone here, though it may be temporary.
type exhaustedError struct {
	why string
	err error
}

func (e *exhaustedError) Error() string { return e.why + ": " + e.err.Error() }
func (e *exhaustedError) Unwrap() error { return e.err }

// patience is what is left of attempts and waits for one request.
type patience struct {
	c       *Copier
	attempt int
	waited  time.Duration
}

// wait waits before the next attempt. It returns err if there is to be none.
func (p *patience) wait(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	temporary, ok := errors.AsType[*TemporaryError](err)
	if _, over := errors.AsType[*exhaustedError](err); over || !ok {
		return err
	}
	p.attempt++
	wait := orDefault(p.c.Backoff, 500*time.Millisecond)
	for i := 1; i < p.attempt && wait < maxBackoff; i++ {
		wait *= 2
	}
	wait = min(wait, maxBackoff)
	wait = max(wait-rand.N(wait/2+1), temporary.After)
	if p.attempt >= orDefault(p.c.Attempts, 5) {
		return &exhaustedError{fmt.Sprintf("%d attempts", p.attempt), err}
	}
	if p.waited+wait > orDefault(p.c.MaxWait, 2*time.Minute) {
		return &exhaustedError{fmt.Sprintf("not before %v", wait.Round(time.Millisecond)), err}
	}
	p.waited += wait
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// try makes one request, in a slot, and again after temporary failures.
func (c *Copier) try(ctx context.Context, request func() error) error {
	p := patience{c: c}
	for {
		select {
		case c.slots <- struct{}{}:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		err := func() error {
			defer func() { <-c.slots }()
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return request()
		}()
		if err == nil {
			return nil
		}
		if err := p.wait(ctx, err); err != nil {
			return err
		}
	}
}
