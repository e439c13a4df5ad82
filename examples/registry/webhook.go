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
	sender    *webhook.Sender
	others    chan events.Event // of what no change tells
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

// prepare makes w ready to send.
func (w *webhookJob) prepare() {
	if !w.wanted() {
		return
	}
	const waiting = 1000 // events of what no change tells; what is beyond is lost
	w.others = make(chan events.Event, waiting)
	w.sender = &webhook.Sender{URL: w.url}
	if secret := os.Getenv("WEBHOOK_SECRET"); secret != "" {
		w.sender.Secret = []byte(secret)
	}
	if w.dead != "" {
		w.sender.DeadLetter = w.putAside
	}
}

// deliver sends what a change tells: of a copy that came from elsewhere, that too.
func (w *webhookJob) deliver(ctx context.Context, c manifest.Committed) error {
	if !w.wanted() {
		return nil
	}
	for _, e := range w.origin.Events(c) {
		if err := w.sender.Send(ctx, e); err != nil {
			return err
		}
		pushed, ok := e.Detail.(events.Image)
		if !ok || pushed.Action != events.Push || c.Change.Cause != manifest.CauseReplication || len(c.Change.Via) == 0 {
			continue
		}
		from, _ := registryOf(c.Change.Via[len(c.Change.Via)-1])
		copied := events.Replication{Repository: pushed.Repository, Digest: pushed.Digest, Tag: pushed.Tag, SourceAccount: from.ID, SourceRegion: from.Region}
		if err := w.sender.Send(ctx, w.origin.New(e.Time, copied)); err != nil {
			return err
		}
	}
	return nil
}

// tell sends what no change tells, soon, if there is not too much of that already.
func (w *webhookJob) tell(d events.Detail) {
	if !w.wanted() {
		return
	}
	select {
	case w.others <- w.origin.New(time.Now(), d):
	default:
		slog.Warn("an event was dropped: too many wait for the webhook", "type", d.DetailType())
	}
}

// tellOthers sends what tell was told, until ctx ends.
func (w *webhookJob) tellOthers(ctx context.Context) {
	if !w.wanted() {
		return
	}
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-w.others:
			if err := w.sender.Send(ctx, e); err != nil && ctx.Err() == nil {
				slog.Error("an event is not delivered", "id", e.ID, "err", err)
			}
		}
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
