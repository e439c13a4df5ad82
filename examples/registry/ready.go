package main

import (
	"context"
	"time"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/examples/store/parts"
)

const (
	goodFor = 30 * time.Second // an object could be stored
	badFor  = 5 * time.Second  // it could not
	lookFor = 2 * time.Second  // and that is how long it may take
)

// writable tells whether objects can be stored. It remembers the answer for a
// while, since load balancers ask often.
type writable struct {
	objects blob.Objects
	turn    chan struct{} // holds one while somebody looks

	at  time.Time // of the last look
	err error
}

func newWritable(o blob.Objects) *writable {
	return &writable{objects: o, turn: make(chan struct{}, 1)}
}

func (w *writable) check(ctx context.Context, now time.Time) error {
	select {
	case w.turn <- struct{}{}:
		defer func() { <-w.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	lasts := goodFor
	if w.err != nil {
		lasts = badFor
	}
	if w.at.IsZero() || now.Sub(w.at) >= lasts {
		// The answer is for all who ask meanwhile: that this one has gone says nothing.
		looking, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookFor)
		defer cancel()
		w.at, w.err = now, parts.Probe(looking, w.objects)
	}
	return w.err
}
