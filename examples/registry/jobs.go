package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/wharfage/wharfage"
	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/manifest"
)

// jobs are what the server does by itself, in one process at a time.
type jobs struct {
	every     time.Duration
	rules     collectRules
	lifecycle *lifecycleJob
	webhook   *webhookJob
	scanning  *scanning
	outbox    *outbox
	cache     *cache
}

// collectRules say what a collection may remove.
type collectRules struct {
	share    float64
	untagged time.Duration
}

func jobFlags(f *flag.FlagSet) *jobs {
	j := &jobs{lifecycle: lifecycleFlags(f), webhook: webhookFlags(f)}
	f.DurationVar(&j.every, "collect-every", time.Hour, "how often to remove what nothing needs (0: never)")
	j.rules.flags(f)
	return j
}

func (c *collectRules) flags(f *flag.FlagSet) {
	f.Float64Var(&c.share, "max-share", 0.5, "refuse a collection that would free more than this share of all bytes, and more than 100 blobs")
	f.DurationVar(&c.untagged, "untagged", 0, "remove manifests without a tag that nothing lists, when they were pushed this long ago (0: keep them)")
}

func (c *collectRules) check() error {
	switch {
	case !(c.share > 0 && c.share <= 1):
		return fmt.Errorf("-max-share %v: want more than 0, and 1 at most, which lets all go; -collect-every 0 removes nothing", c.share)
	case c.untagged < 0:
		return fmt.Errorf("-untagged %v: want a time that is not negative", c.untagged)
	}
	return nil
}

func (c *collectRules) collection(lease time.Duration) wharfage.Collection {
	const few = 100
	out := wharfage.Collection{Blobs: blob.CollectOptions{Lease: lease, SessionLease: lease, MaxShare: c.share, Few: few}}
	if c.untagged > 0 {
		out.Untagged = &manifest.UntaggedOptions{Grace: c.untagged, MaxShare: c.share, Few: few}
	}
	return out
}

// run does the jobs until ctx ends, whenever this process leads.
func (j *jobs) run(ctx context.Context, h *wharfage.Handler, store *storage, m *metrics, lm *lifecycleMetrics) {
	if j.every <= 0 && !j.lifecycle.wanted() && !j.outbox.wanted() && j.scanning == nil && !j.cache.bounded() {
		return
	}
	const pause = time.Second // before it tries to lead again
	for ctx.Err() == nil {
		err := store.lead(ctx, func(ctx context.Context) error {
			slog.Info("this process runs the jobs")
			m.leading.Set(1)
			defer m.leading.Set(0)
			var running sync.WaitGroup
			running.Go(func() { j.lifecycle.schedule(ctx, h, store, m, lm) })
			running.Go(func() { j.scanning.schedule(ctx, store) })
			running.Go(func() { j.outbox.run(ctx) })
			running.Go(func() { j.cache.evict(ctx, m) })
			j.schedule(ctx, h, m, store)
			running.Wait()
			return ctx.Err()
		})
		if ctx.Err() == nil {
			slog.Warn("this process runs the jobs no more", "err", err)
			wait(ctx, pause)
		}
	}
}

func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// schedule collects until ctx ends: soon after this process leads, so that a
// server that is restarted each day does it too.
func (j *jobs) schedule(ctx context.Context, h *wharfage.Handler, m *metrics, store *storage) {
	if j.every <= 0 {
		return
	}
	var last time.Time
	for pause := min(j.every, 10*time.Minute); ; pause = j.every {
		wait(ctx, pause)
		if ctx.Err() != nil {
			return
		}
		began := time.Now()
		done, err := j.collect(ctx, h, store, last)
		last = time.Now() // also of a run that was refused, or an odd clock would refuse all that follow
		m.collected(done, err)
		report := done.Blobs
		level := slog.LevelInfo
		if err != nil {
			level = slog.LevelError
		}
		slog.Log(ctx, level, "collected", "manifests", done.Untagged.Removed, "blobs", report.Blobs.Removed.Count, "uploads", report.Sessions.Removed.Count, "strays", report.Strays.Removed.Count,
			"bytes", freed(report), "more", report.More, "took", time.Since(began).Round(time.Millisecond), "err", err)
	}
}

// collect is one collection, the first since last.
func (j *jobs) collect(ctx context.Context, h *wharfage.Handler, store *storage, last time.Time) (wharfage.Collected, error) {
	lease, err := store.promised(ctx)
	if err != nil {
		return wharfage.Collected{}, err
	}
	c := j.rules.collection(lease)
	c.Blobs.Last, c.Blobs.Interval = last, j.every
	return wharfage.Collect(ctx, h, c)
}

func freed(r blob.CollectReport) int64 {
	return r.Blobs.Removed.Bytes + r.Sessions.Removed.Bytes + r.Strays.Removed.Bytes
}

func (m *metrics) collected(c wharfage.Collected, err error) {
	r := c.Blobs
	result := "ok"
	if err != nil {
		result = "failed"
	} else {
		m.lastRun.WithLabelValues("collect").SetToCurrentTime()
	}
	m.runs.WithLabelValues("collect", result).Inc()
	m.removed.WithLabelValues("manifest").Add(float64(c.Untagged.Removed))
	m.removed.WithLabelValues("blob").Add(float64(r.Blobs.Removed.Count))
	m.removed.WithLabelValues("session").Add(float64(r.Sessions.Removed.Count))
	m.removed.WithLabelValues("stray").Add(float64(r.Strays.Removed.Count))
	m.freed.Add(float64(freed(r)))
}

// collectSum is what became of a collection, with errors as text.
type collectSum struct {
	Blobs struct {
		blob.CollectReport
		Errors []string
	}
	Untagged manifest.UntaggedReport
}

func sumOf(c wharfage.Collected) (s collectSum) {
	s.Blobs.CollectReport, s.Untagged = c.Blobs, c.Untagged
	for _, err := range c.Blobs.Errors {
		s.Blobs.Errors = append(s.Blobs.Errors, err.Error())
	}
	return s
}

// collect is the command: one collection, told line by line.
func collect(ctx context.Context, args []string) error {
	f, where := flags("collect")
	rules := new(collectRules)
	rules.flags(f)
	dry := f.Bool("dry-run", false, "say what would go, and remove nothing")
	asJSON := f.Bool("json", false, "a line of JSON for each thing, and one for the sum")
	err := parse(f, args)
	if err == nil {
		err = rules.check()
	}
	if err != nil {
		return err
	}
	store, err := where.openExisting(ctx, false)
	if err != nil {
		return err
	}
	c := rules.collection(store.lease)
	c.Dry = *dry
	out := json.NewEncoder(os.Stdout)
	verb := map[bool]string{false: "stays", true: "went"}
	if *dry {
		verb[true] = "would go"
	}
	c.Blobs.Each = func(x blob.Collected) {
		if *asJSON {
			out.Encode(struct {
				blob.Collected
				Err string
			}{x, errorText(x.Err)})
			return
		}
		what := x.ID
		if x.Kind == blob.KindBlob {
			what = string(x.Digest)
		}
		fmt.Println(x.Kind, x.Repo, what, verb[x.Removed]+":", string(x.Reason)+",", x.Size, "bytes")
	}
	if c.Untagged != nil {
		c.Untagged.Each = func(x manifest.Collected) {
			if *asJSON {
				out.Encode(struct {
					manifest.Collected
					Err string
				}{x, errorText(x.Err)})
				return
			}
			fmt.Println("manifest", x.Repo, x.Digest, verb[x.Removed]+":", x.Reason)
		}
	}
	done, err := wharfage.Collect(ctx, store.handler(), c)
	if *asJSON {
		out.Encode(sumOf(done))
	} else {
		r := done.Blobs
		fmt.Printf("%d manifests, %d blobs, %d uploads, %d strays: %d bytes\n", done.Untagged.Removed, r.Blobs.Removed.Count, r.Sessions.Removed.Count, r.Strays.Removed.Count, freed(r))
	}
	return errors.Join(err, store.close())
}
