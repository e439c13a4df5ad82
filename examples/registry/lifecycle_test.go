package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/lifecycle"
	"github.com/wharfage/wharfage/manifest"
)

// fill pushes n images to each repository, a day apart, the last one now.
func fill(t *testing.T, s *storage, n int, repos ...string) {
	t.Helper()
	for _, repo := range repos {
		for i := range n {
			raw, _, err := manifest.ImageDraft{ArtifactType: "application/vnd.example", Annotations: map[string]string{"n": fmt.Sprint(i)}}.Build()
			if err != nil {
				t.Fatal(err)
			}
			config, content := manifest.Empty()
			if err := s.blobs.Put(t.Context(), repo, config, bytes.NewReader(content)); err != nil {
				t.Fatal(err)
			}
			p := manifest.Pusher{Store: s.manifests, Now: func() time.Time { return time.Now().AddDate(0, 0, i+1-n) }}
			if _, err := p.Push(t.Context(), repo, manifest.PushRequest{Raw: raw, Tags: []string{fmt.Sprint("v", i)}}); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func count(t *testing.T, s *storage, repo string) (n int) {
	t.Helper()
	for _, err := range s.manifests.Tags(t.Context(), repo, "") {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	return n
}

// text is what /metrics answers.
func text(m *metrics) string {
	w := httptest.NewRecorder()
	m.handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	return w.Body.String()
}

func TestTheCommandAppliesPolicies(t *testing.T) {
	dir := t.TempDir()
	data := filepath.Join(dir, "data")
	policies := write(t, dir, "policies.json", `{"policies":[{"repositories":["team/*"],"policy":`+keepOne+`}]}`)
	in := func(f func(*storage)) {
		t.Helper()
		s, err := place{data: data, unsynced: true}.open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		f(s)
		if err := s.close(); err != nil {
			t.Fatal(err)
		}
	}
	in(func(s *storage) { fill(t, s, 4, "team/app", "team/big", "other") })
	left := func(app, big int) {
		t.Helper()
		in(func(s *storage) {
			if a, b, o := count(t, s, "team/app"), count(t, s, "team/big"), count(t, s, "other"); a != app || b != big || o != 4 {
				t.Errorf("%d, %d and %d are left, want %d, %d and 4", a, b, o, app, big)
			}
		})
	}
	run := func(args ...string) error {
		return applyPolicies(t.Context(), append([]string{"-data", data, "-unsynced", "-lifecycle", policies}, args...))
	}
	if err := run("-dry-run"); err != nil {
		t.Fatal(err)
	}
	left(4, 4)
	if err := run("-json", "-repo", "team/app"); err != nil {
		t.Fatal(err)
	}
	left(1, 4)
	in(func(s *storage) { fill(t, s, 20, "team/big") })
	if err := run(); !errors.Is(err, lifecycle.ErrShare) {
		t.Errorf("19 of 20: %v", err)
	}
	left(1, 20)
	if err := run("-confirm"); err != nil {
		t.Fatal(err)
	}
	left(1, 1)

	for _, args := range [][]string{{"-data", data}, {"-lifecycle", policies}, {"-data", data, "-lifecycle", policies, "-dry"}, {"-data", dir + "/none", "-lifecycle", policies}} {
		if err := applyPolicies(t.Context(), args); err == nil {
			t.Errorf("registry lifecycle %q succeeds", args)
		}
	}
}

func TestTheServerAppliesPoliciesOnSchedule(t *testing.T) {
	file := write(t, t.TempDir(), "policy.json", keepOne)
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		s := place{}.openMemory()
		m := newMetrics()
		lm := newLifecycleMetrics(m)
		j := &jobs{lifecycle: &lifecycleJob{lifecycleRules{file: file, share: 1}, 24 * time.Hour, false}}
		if err := j.lifecycle.check(false); err != nil {
			t.Fatal(err)
		}
		fill(t, s, 4, "team/app", "other")
		done := make(chan struct{})
		go func() { defer close(done); j.run(ctx, s.handler(), s, m, lm) }()
		time.Sleep(11 * time.Minute)
		if a, b := count(t, s, "team/app"), count(t, s, "other"); a != 1 || b != 1 {
			t.Errorf("%d and %d are left, want 1 and 1", a, b)
		}
		if got, want := text(m), `registry_lifecycle_images_total{action="expire"} 6`; !strings.Contains(got, want) {
			t.Errorf("the metrics are without %s:\n%s", want, got)
		}
		fill(t, s, 6, "team/app")
		time.Sleep(25 * time.Hour)
		if got := count(t, s, "team/app"); got != 1 {
			t.Errorf("%d are left a day later, want 1", got)
		}
		if got, want := text(m), `registry_job_runs_total{job="lifecycle",result="ok"} 2`; !strings.Contains(got, want) {
			t.Errorf("the metrics are without %s:\n%s", want, got)
		}
		stop()
		<-done
	})
}

func TestWhatCannotWorkIsRefusedAtTheStart(t *testing.T) {
	good, bad := write(t, t.TempDir(), "policy.json", keepOne), write(t, t.TempDir(), "policy.json", keepNone)
	for name, c := range map[string]struct {
		job      lifecycleJob
		noDelete bool
		want     string
	}{
		"none":       {lifecycleJob{}, true, ""},
		"good":       {lifecycleJob{lifecycleRules{file: good}, time.Hour, false}, false, ""},
		"bad policy": {lifecycleJob{lifecycleRules{file: bad}, time.Hour, false}, false, "countNumber"},
		"no delete":  {lifecycleJob{lifecycleRules{reap: true}, time.Hour, false}, true, "-no-delete"},
		"never":      {lifecycleJob{lifecycleRules{file: good}, 0, false}, false, "-lifecycle-every"},
	} {
		err := c.job.check(c.noDelete)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestPullsAreRecorded(t *testing.T) {
	s := place{}.openMemory()
	fill(t, s, 1, "team/app")
	h := s.handler()
	write := recordPulls(h, s.pulls, newLifecycleMetrics(newMetrics()))
	server := httptest.NewServer(h)
	defer server.Close()
	resp, err := http.Get(server.URL + "/v2/team/app/manifests/v0")
	if err != nil || resp.StatusCode != 200 {
		t.Fatal(resp, err)
	}
	resp.Body.Close()
	ctx, stop := context.WithCancel(t.Context())
	stop()
	write(ctx) // as when the server ends
	var got []lifecycle.Pull
	for p, err := range s.pulls.Pulls(t.Context(), "team/app", "") {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, p)
	}
	if len(got) != 1 || got[0].Digest != digest.Digest(resp.Header.Get("Docker-Content-Digest")) || time.Since(got[0].At) > time.Minute {
		t.Errorf("pulls are %v", got)
	}
}
