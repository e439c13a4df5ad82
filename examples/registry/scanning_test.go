package main

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/scan"
)

func configuration(f scan.Frequency, kind scan.Type) *scanningConfig {
	return &scanningConfig{Scanner: "sbom", Configuration: scan.Configuration{Type: kind, Rules: []scan.Rule{
		{Frequency: f, Filters: []scan.Filter{{Filter: "team", Type: scan.FilterWildcard}}},
	}}}
}

// scanned returns the status of the last scan.
func (s *showcase) scanned(repo string, dgst digest.Digest) (status scan.Status) {
	s.Helper()
	x := &wharfage.Images{Manifests: s.store.manifests, Scans: true}
	found, err := x.Find(s.Context(), repo, wharfage.ImageID{Digest: dgst})
	if err != nil {
		s.Fatal(err)
	}
	if found[0].Scan != nil {
		status = found[0].Scan.Status
	}
	return status
}

func TestImagesAreScannedOnPush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShowcase(t)
		var told atomic.Int32
		s.handler.OnCommit = func(context.Context, manifest.Event) { told.Add(1) }
		m := newMetrics()
		x := newScanning(configuration(scan.OnPush, scan.Basic), s.handler, m)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); x.work(ctx) }()
		pushed := func(repo string) digest.Digest {
			d := s.image(repo, "x")
			rec, err := s.store.manifests.Get(ctx, repo, d.Digest)
			if err != nil {
				t.Fatal(err)
			}
			s.handler.OnCommit(ctx, manifest.Event{Repo: repo, Change: manifest.Change{Put: []manifest.Record{rec}}})
			return d.Digest
		}
		image, other := pushed("team/app"), pushed("other")
		synctest.Wait()
		if got := s.scanned("team/app", image); got != scan.StatusUnsupportedImage { // its layers are no tar
			t.Errorf("scan of a push: %q", got)
		}
		if got := s.scanned("other", other); got != "" {
			t.Errorf("scan of what is not to be scanned: %q", got)
		}
		if told := told.Load(); told != 3 {
			t.Errorf("OnCommit was told of %d changes, want those of two pushes and one result", told)
		}
		if want := `registry_scans_total{status="UNSUPPORTED_IMAGE"} 1`; !strings.Contains(text(m), want) {
			t.Errorf("the metrics are without %s", want)
		}
		stop()
		<-done
	})
}

// The server that leads finds what was missed, and what is due each day.
func TestScansAreMadeUpFor(t *testing.T) {
	for f, kind := range map[scan.Frequency]scan.Type{scan.OnPush: scan.Basic, scan.Continuous: scan.Enhanced} {
		synctest.Test(t, func(t *testing.T) {
			s := newShowcase(t)
			x := newScanning(configuration(f, kind), s.handler, newMetrics())
			s.now = time.Now().Add(-2 * scan.Every)
			old := s.image("team/app", "old")
			s.now = time.Now()
			recent := s.image("team/app", "recent", "v1")
			ctx, stop := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() { defer close(done); x.schedule(ctx, s.store) }()
			time.Sleep(61 * time.Minute)
			synctest.Wait()
			if got := s.scanned("team/app", recent.Digest); got == "" {
				t.Errorf("%s: a push that nobody has scanned is not made up for", f)
			}
			if got := s.scanned("team/app", old.Digest); (got == "") != (f == scan.OnPush) {
				t.Errorf("%s: scan of an image from before: %q", f, got)
			}
			stop()
			<-done
		})
	}
}
