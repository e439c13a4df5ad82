package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"time"

	"github.com/wharfage/wharfage/events"
	"github.com/wharfage/wharfage/examples/webhook"
	"github.com/wharfage/wharfage/manifest"
)

// webhookJob delivers events, which the store keeps until they are.
type webhookJob struct {
	url, dead string
	origin    events.Origin
}

func webhookFlags(f *flag.FlagSet) *webhookJob {
	w := new(webhookJob)
	f.StringVar(&w.url, "webhook", "", "`URL` to post events to, as CloudEvents, at least once and in order for each repository; signed if WEBHOOK_SECRET is set")
	f.StringVar(&w.dead, "webhook-dead", "", "`file` for events that the webhook refuses, a JSON line each (default: they are tried again, and the others wait)")
	f.StringVar(&w.origin.Account, "account", "", "`name` of the account in events")
	f.StringVar(&w.origin.Region, "region", "", "`name` of the region in events")
	return w
}

func (w *webhookJob) check() error {
	if w.url == "" {
		if w.dead != "" {
			return errors.New("-webhook-dead: say with -webhook where events go")
		}
		return nil
	}
	if u, err := url.Parse(w.url); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return errors.New("-webhook: want http://… or https://…")
	}
	return nil
}

func (w *webhookJob) wanted() bool { return w != nil && w.url != "" }

// deliver does so until ctx ends.
func (w *webhookJob) deliver(ctx context.Context, box manifest.Outbox) {
	if !w.wanted() {
		return
	}
	s := &webhook.Sender{URL: w.url}
	if secret := os.Getenv("WEBHOOK_SECRET"); secret != "" {
		s.Secret = []byte(secret)
	}
	if w.dead != "" {
		s.DeadLetter = w.putAside
	}
	const pause = 100 * time.Millisecond // when there is nothing to deliver
	for ctx.Err() == nil {
		if _, err := events.Drain(ctx, box, w.origin, s.Send); err != nil && ctx.Err() == nil {
			slog.Error("events are not delivered", "err", err)
		}
		wait(ctx, pause)
	}
}

// putAside appends to a file, and waits for the disk.
func (w *webhookJob) putAside(_ context.Context, e events.Event, why error) error {
	slog.Warn("an event was put aside", "id", e.ID, "err", why)
	line, err := json.Marshal(struct {
		Why   string       `json:"why"`
		Event events.Event `json:"event"`
	}{why.Error(), e})
	if err != nil {
		return err
	}
	f, err := os.OpenFile(w.dead, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(line, '\n'))
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("put an event aside: %w", err)
	}
	return nil
}
