package main

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/wharfage/wharfage"
	"github.com/wharfage/wharfage/examples/sbomscan"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/scan"
)

// scanningConfig says what is scanned when, and by what.
type scanningConfig struct {
	Scanner string `json:"scanner"` // sbom: examples/sbomscan
	scan.Configuration
}

func (c *scanningConfig) check() error {
	switch {
	case c == nil:
		return nil
	case c.Scanner != "sbom":
		return errors.New(`scanner: takes "sbom", the only one there is`)
	}
	return c.Configuration.Check()
}

// scanning scans images: each server what is pushed to it, and the one that
// leads what is due, or was missed because a server ended or had too much to do.
type scanning struct {
	scan.Runner
	config  scan.Configuration
	changes chan manifest.Event
	scans   *prometheus.CounterVec // status
}

// newScanning returns nil if nothing is to be scanned. It has h tell it of
// changes.
func newScanning(c *scanningConfig, h *wharfage.Handler, m *metrics) *scanning {
	if c == nil {
		return nil
	}
	const waiting = 1000 // changes; what is beyond is found an hour later
	s := &scanning{config: c.Configuration, changes: make(chan manifest.Event, waiting)}
	s.Runner = scan.Runner{
		Scanner: &sbomscan.Scanner{Blobs: h.Blobs, Manifests: h.Manifests}, Blobs: h.Blobs, Manifests: h.Manifests,
		Configuration: func(context.Context) (scan.Configuration, error) { return s.config, nil },
		OnCommit:      h.OnCommit,
		OnResult: func(_ context.Context, r scan.Result) {
			s.scans.WithLabelValues(string(r.Status)).Inc()
			slog.Info("scanned", "repo", r.Repo, "digest", r.Image, "status", r.Status)
		},
	}
	s.scans = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "registry_scans_total", Help: "Scans of images that have ended."}, []string{"status"})
	m.registry.MustRegister(s.scans)
	first := h.OnCommit
	h.OnCommit = func(ctx context.Context, e manifest.Event) {
		if first != nil {
			first(ctx, e)
		}
		select {
		case s.changes <- e:
		default:
			slog.Warn("too many images wait for their scan", "repo", e.Repo)
		}
	}
	return s
}

// work scans what is pushed, until ctx ends.
func (s *scanning) work(ctx context.Context) {
	if s == nil {
		return
	}
	const atOnce = 2
	var working sync.WaitGroup
	for range atOnce {
		working.Go(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case e := <-s.changes:
					_, err := s.Pushed(ctx, e)
					s.failed(ctx, err)
				}
			}
		})
	}
	working.Wait()
}

func (s *scanning) failed(ctx context.Context, err error) {
	if err != nil && ctx.Err() == nil {
		slog.Error("scan failed", "err", err)
	}
}

// schedule looks at all repositories each hour, until ctx ends.
func (s *scanning) schedule(ctx context.Context, store *storage) {
	if s == nil {
		return
	}
	for {
		wait(ctx, time.Hour)
		if ctx.Err() != nil {
			return
		}
		repos, err := store.allRepos(ctx)
		s.failed(ctx, err)
		for _, repo := range repos {
			switch f, _ := s.config.Frequency(repo); f {
			case scan.Continuous:
				_, err = s.Due(ctx, repo)
			case scan.OnPush:
				err = s.missed(ctx, repo)
			default:
				continue
			}
			s.failed(ctx, err)
		}
	}
}

// missed scans what was pushed or restored within a day and has no result.
func (s *scanning) missed(ctx context.Context, repo string) error {
	since := time.Now().Add(-scan.Every)
	images := &wharfage.Images{Manifests: s.Manifests, Scans: true}
	var without manifest.Change
	for d, err := range images.Describe(ctx, repo, wharfage.ImageFilter{}, "") {
		if err != nil {
			return err
		}
		if recent := d.PushedAt.After(since) || d.RestoredAt.After(since); recent && d.Scan == nil {
			without.Put = append(without.Put, manifest.Record{Desc: ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, ArtifactType: d.ArtifactType}})
		}
	}
	_, err := s.Pushed(ctx, manifest.Event{Repo: repo, Change: without})
	return err
}
