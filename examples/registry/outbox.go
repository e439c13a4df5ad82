package main

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/wharfage/wharfage/manifest"
)

// outbox tells all who wait for changes of what was committed, and forgets it then.
type outbox struct {
	box     manifest.Outbox
	enqueue func(ctx context.Context, c manifest.Committed) error // makes jobs; nil: nothing is to be copied, or the store does it
	hook    *webhookJob
}

func (o *outbox) wanted() bool { return o != nil && (o.enqueue != nil || o.hook.wanted()) }

// run does so until ctx ends. Copies do not wait for the webhook, which may be
// down for long: a listing of their own goes ahead. That makes jobs twice, and the
// queue has each once.
func (o *outbox) run(ctx context.Context) {
	if !o.wanted() {
		return
	}
	var running sync.WaitGroup
	defer running.Wait()
	if o.enqueue != nil && o.hook.wanted() {
		ahead := ""
		running.Go(func() {
			again(ctx, "copies are not planned", func() error {
				for c, err := range o.box.Events(ctx, ahead) {
					if err == nil {
						err = o.enqueue(ctx, c)
					}
					if err != nil {
						return err
					}
					ahead = c.Position
				}
				return nil
			})
		})
	}
	again(ctx, "events are not delivered", func() error { return manifest.Drain(ctx, o.box, o.deliver) })
}

func (o *outbox) deliver(ctx context.Context, c manifest.Committed) error {
	if o.enqueue != nil {
		if err := o.enqueue(ctx, c); err != nil {
			return err
		}
	}
	return o.hook.deliver(ctx, c)
}

// again runs f again and again until ctx ends.
func again(ctx context.Context, failure string, f func() error) {
	const pause = 100 * time.Millisecond
	for ctx.Err() == nil {
		if err := f(); err != nil && ctx.Err() == nil {
			slog.Error(failure, "err", err)
		}
		wait(ctx, pause)
	}
}
