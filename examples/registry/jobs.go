package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"iter"
	"log/slog"
	"os"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage"
	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/manifest"
)

// jobs are what the server does by itself, in one process at a time.
type jobs struct {
	every time.Duration
	rules collectRules
}

// collectRules say what a collection may remove.
type collectRules struct {
	share float64
}

func jobFlags(f *flag.FlagSet) *jobs {
	j := new(jobs)
	f.DurationVar(&j.every, "collect-every", time.Hour, "remove what nothing needs so often (0: never)")
	j.rules.flags(f)
	return j
}

func (c *collectRules) flags(f *flag.FlagSet) {
	f.Float64Var(&c.share, "max-share", 0.5, "refuse a collection that would free more than this share of all bytes")
}

// options are those of a run at now.
func (c *collectRules) options(h *wharfage.Handler, lease time.Duration) blob.CollectOptions {
	return blob.CollectOptions{Needed: needed(h.Manifests), Lease: lease, SessionLease: lease, MaxShare: c.share}
}

// needed lists the blobs that manifests name.
func needed(s manifest.Reader) func(ctx context.Context, repo string) iter.Seq2[digest.Digest, error] {
	return func(ctx context.Context, repo string) iter.Seq2[digest.Digest, error] {
		return func(yield func(digest.Digest, error) bool) {
			for rec, err := range s.Manifests(ctx, repo, "") {
				if err != nil {
					yield("", err)
					return
				}
				for _, d := range rec.Blobs {
					if !yield(d, nil) {
						return
					}
				}
			}
		}
	}
}

// run does the jobs until ctx ends, whenever this process leads.
func (j *jobs) run(ctx context.Context, h *wharfage.Handler, store *storage, m *metrics, lease time.Duration) {
	if j.every <= 0 {
		return
	}
	const pause = time.Second // before it tries to lead again
	for ctx.Err() == nil {
		err := store.lead(ctx, func(ctx context.Context) error {
			slog.Info("this process runs the jobs")
			m.leading.Set(1)
			defer m.leading.Set(0)
			j.schedule(ctx, h, m, lease)
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

func (j *jobs) schedule(ctx context.Context, h *wharfage.Handler, m *metrics, lease time.Duration) {
	var last time.Time
	for {
		wait(ctx, j.every)
		if ctx.Err() != nil {
			return
		}
		o := j.rules.options(h, lease)
		o.Last, o.Interval = last, j.every
		report, err := blob.Collect(ctx, h.Blobs, o)
		last = report.At
		m.collected(report, err)
		level := slog.LevelInfo
		if err != nil {
			level = slog.LevelError
		}
		slog.Log(ctx, level, "collected", "blobs", report.Blobs.Removed.Count, "uploads", report.Sessions.Removed.Count, "strays", report.Strays.Removed.Count,
			"bytes", freed(report), "more", report.More, "took", time.Since(report.At).Round(time.Millisecond), "err", err)
	}
}

func freed(r blob.CollectReport) int64 {
	return r.Blobs.Removed.Bytes + r.Sessions.Removed.Bytes + r.Strays.Removed.Bytes
}

func (m *metrics) collected(r blob.CollectReport, err error) {
	result := "ok"
	if err != nil {
		result = "failed"
	} else {
		m.lastRun.WithLabelValues("collect").SetToCurrentTime()
	}
	m.runs.WithLabelValues("collect", result).Inc()
	m.removed.WithLabelValues("blob").Add(float64(r.Blobs.Removed.Count))
	m.removed.WithLabelValues("session").Add(float64(r.Sessions.Removed.Count))
	m.removed.WithLabelValues("stray").Add(float64(r.Strays.Removed.Count))
	m.freed.Add(float64(freed(r)))
}

// collect is the command: one collection, told line by line.
func collect(ctx context.Context, args []string) error {
	f, where := flags("collect")
	rules := new(collectRules)
	rules.flags(f)
	dry := f.Bool("dry-run", false, "say what would go, and remove nothing")
	asJSON := f.Bool("json", false, "a line of JSON for each thing, and one for the sum")
	if err := parse(f, args); err != nil {
		return err
	}
	store, err := where.openExisting(ctx)
	if err != nil {
		return err
	}
	o := rules.options(store.handler(), where.lease)
	o.Dry = *dry
	out := json.NewEncoder(os.Stdout)
	o.Each = func(c blob.Collected) {
		if *asJSON {
			out.Encode(c)
			return
		}
		what, verb := c.ID, "stays"
		if c.Kind == blob.KindBlob {
			what = string(c.Digest)
		}
		switch {
		case c.Removed && *dry:
			verb = "would go"
		case c.Removed:
			verb = "went"
		}
		fmt.Printf("%s %s %s %s: %s, %d bytes\n", c.Kind, c.Repo, what, verb, c.Reason, c.Size)
	}
	report, err := blob.Collect(ctx, store.blobs, o)
	if *asJSON {
		out.Encode(report)
	} else {
		fmt.Printf("%d blobs, %d uploads, %d strays: %d bytes\n", report.Blobs.Removed.Count, report.Sessions.Removed.Count, report.Strays.Removed.Count, freed(report))
	}
	return errors.Join(err, store.close())
}
