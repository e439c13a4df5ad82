package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus"
	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/wharfage/wharfage"
	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/events"
	"github.com/wharfage/wharfage/examples/store/remote"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/replication"
	"github.com/wharfage/wharfage/replication/pullthrough"
	"github.com/wharfage/wharfage/repository"
)

// cacheConfig says which repositories are a cache of others elsewhere.
type cacheConfig struct {
	Rules     json.RawMessage  `json:"rules"` // as those of ECR's API
	Upstreams []upstreamConfig `json:"upstreams"`

	TagAge       string `json:"tagAge"`       // "24h"
	ReferrersAge string `json:"referrersAge"` // "6h"
	Eager        bool   `json:"eager"`        // all of an image is fetched when its tag is first pulled
	MaxBytes     int64  `json:"maxBytes"`     // of all that is cached; 0 means no limit
	EvictEvery   string `json:"evictEvery"`   // "1h"

	rules                            pullthrough.Rules
	tagAge, referrersAge, evictEvery time.Duration
}

// upstreamConfig is how the upstream of rules is asked, if that is to be said.
type upstreamConfig struct {
	Host      string `json:"upstreamRegistryUrl"` // as in the rules
	PlainHTTP bool   `json:"plainHTTP"`
	endpointConfig
}

func (u *upstreamConfig) registry(login auth.CredentialFunc) *remote.Registry {
	scheme := "" // https, but for this machine
	if u.PlainHTTP {
		scheme = "http"
	}
	host := u.Host
	if host == "registry-1.docker.io" { // docker login knows it by its old name
		host = "docker.io"
	}
	return u.endpointConfig.registry(host, scheme, login)
}

func (c *cacheConfig) check() (err error) {
	if c == nil {
		return nil
	}
	if c.Rules == nil {
		return errors.New("rules: are required")
	}
	if c.rules, err = pullthrough.ParseRules(string(c.Rules), pullthrough.RuleOptions{}); err != nil {
		return fmt.Errorf("rules: %w", err)
	}
	used := map[string]bool{}
	for _, r := range c.rules.All() {
		if r.CredentialARN != "" || r.RoleARN != "" {
			return fmt.Errorf("rules: %s: logins are those of docker: leave credentialArn and customRoleArn out", r.Prefix)
		}
		used[r.UpstreamURL] = true
		one := upstreamConfig{Host: r.UpstreamURL}
		if err := one.registry(nil).Check(); err != nil {
			return fmt.Errorf("rules: %s: %w", r.Prefix, err)
		}
	}
	seen := map[string]bool{}
	for i := range c.Upstreams {
		u := &c.Upstreams[i]
		var err error
		switch {
		case !used[u.Host]:
			err = fmt.Errorf("upstreamRegistryUrl: no rule has %q", u.Host)
		case seen[u.Host]:
			err = fmt.Errorf("%s is there twice", u.Host)
		default:
			scheme := map[bool]string{true: "http"}[u.PlainHTTP]
			err = u.endpointConfig.check(u.Host, scheme)
		}
		if err != nil {
			return fmt.Errorf("upstreams[%d]: %w", i, err)
		}
		seen[u.Host] = true
	}
	for _, age := range []struct {
		name, text string
		into       *time.Duration
	}{{"tagAge", c.TagAge, &c.tagAge}, {"referrersAge", c.ReferrersAge, &c.referrersAge}, {"evictEvery", c.EvictEvery, &c.evictEvery}} {
		if age.text == "" {
			continue
		}
		d, err := time.ParseDuration(age.text)
		if err != nil || d < 0 || d == 0 && age.name == "evictEvery" {
			return fmt.Errorf("%s: want a time, as in 24h, not %q", age.name, age.text)
		}
		if *age.into = d; d == 0 {
			*age.into = -1 // which asks always, where zero is the default
		}
	}
	if c.MaxBytes < 0 {
		return errors.New("maxBytes: want a number that is not negative")
	}
	return nil
}

// cache serves what upstreams have, and keeps it.
type cache struct {
	pullthrough.Cache
	config  *cacheConfig
	store   *storage
	imports chan struct{} // holds one for each that runs
	running sync.WaitGroup
	ctx     context.Context // of imports
	stop    context.CancelFunc

	pulls    *prometheus.CounterVec // result
	syncs    *prometheus.CounterVec // code
	asked    *prometheus.CounterVec // upstream
	received prometheus.Counter
	evicted  prometheus.Counter
}

// newCache returns nil if nothing is a cache.
func newCache(c *config, where *place, store *storage, repos *repository.Registry, hook *webhookJob, m *metrics) (*cache, error) {
	own := c.Cache
	if own == nil {
		return nil, nil
	}
	login, err := remote.DockerCredentials()
	if err != nil {
		return nil, err
	}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
		m.registry.MustRegister(v)
		return v
	}
	x := &cache{
		config: own, store: store, imports: make(chan struct{}, 4),
		pulls:    counter("registry_cache_requests_total", "Manifests and blobs that were asked for in cached repositories: hit without a question upstream, miss with one, stale what was here when upstream failed.", "result"),
		syncs:    counter("registry_cache_syncs_total", "Images that were fetched from upstream, by the code of the failure.", "result"),
		asked:    counter("registry_cache_upstream_questions_total", "Questions to an upstream.", "upstream"),
		received: counter("registry_cache_upstream_bytes_total", "Bytes of blobs that came from upstreams.").WithLabelValues(),
		evicted:  counter("registry_cache_evicted_bytes_total", "Bytes that evictions freed.").WithLabelValues(),
	}
	x.ctx, x.stop = context.WithCancel(context.Background())
	sources := map[string]replication.Source{}
	for _, r := range own.rules.All() {
		u := upstreamConfig{Host: r.UpstreamURL}
		for _, said := range own.Upstreams {
			if said.Host == r.UpstreamURL {
				u = said
			}
		}
		s := u.registry(login).Source()
		s.Blobs = received{s.Blobs, x.received}
		sources[r.UpstreamURL] = s
	}
	x.Cache = pullthrough.Cache{
		Blobs: store.blobs, Manifests: store.manifests, Rules: own.rules, TagAge: own.tagAge, ReferrersAge: own.referrersAge,
		Upstream: func(ctx context.Context, r pullthrough.Rule) (replication.Source, error) {
			x.asked.WithLabelValues(r.UpstreamURL).Inc()
			if asked, ok := ctx.Value(askedKey{}).(*atomic.Bool); ok {
				asked.Store(true)
			}
			return sources[r.UpstreamURL], nil
		},
		OnSync: func(_ context.Context, s pullthrough.Sync) {
			code := pullthrough.Code(s.Err)
			e := events.PullThroughCache{Repository: s.Repo, Prefix: s.Rule.Prefix, UpstreamURL: s.Rule.UpstreamURL, Tag: s.Tag, Digest: s.Digest, FailureCode: code}
			if s.Err != nil {
				e.Status, e.FailureReason = events.Failed, s.Err.Error()
				slog.Warn("upstream has not given an image", "repo", s.Repo, "tag", s.Tag, "code", code, "err", s.Err)
			}
			x.syncs.WithLabelValues(cmp.Or(code, "ok")).Inc()
			hook.tell(e)
		},
		OnError: func(_ context.Context, err error) { slog.Error("the cache failed", "err", err) },
	}
	if where.data != "" {
		x.SpoolDir = filepath.Join(where.data, "spool")
		if err := errors.Join(os.RemoveAll(x.SpoolDir), os.MkdirAll(x.SpoolDir, 0o700)); err != nil {
			return nil, err
		}
	}
	if own.Eager {
		x.Background = x.later
	}
	if repos != nil {
		x.Create = func(ctx context.Context, repo string) error {
			_, _, err := repos.Ensure(ctx, repo, repository.CauseCache, nil)
			return err
		}
		x.MoveTag = func(ctx context.Context, repo, tag string, from, to digest.Digest) error {
			have, err := repos.Get(ctx, repo)
			if err != nil && !errors.Is(err, repository.ErrNotFound) {
				return err
			}
			return have.Mutability().MoveTag(ctx, repo, tag, from, to)
		}
	}
	return x, nil
}

// later runs an import, some at once.
func (x *cache) later(job func(ctx context.Context) error) {
	x.running.Go(func() {
		select {
		case x.imports <- struct{}{}:
			defer func() { <-x.imports }()
		case <-x.ctx.Done():
			return
		}
		if err := job(x.ctx); err != nil && x.ctx.Err() == nil {
			slog.Warn("an image was not fetched as a whole", "err", err)
		}
	})
}

// close ends what is being fetched.
func (x *cache) close() {
	if x == nil {
		return
	}
	x.stop()
	x.Close()
	x.running.Wait()
}

// serve returns what answers requests as h does, and from upstreams.
func (x *cache) serve(h *wharfage.Handler) http.Handler {
	if x == nil {
		return h
	}
	x.OnCommit = h.OnCommit
	served := &wharfage.Handler{
		Blobs: x.CachedBlobs(), Manifests: x.CachedManifests(), Referrers: x.CachedReferrers(), Upstream: x.Covers,
		Repositories: h.Repositories, Cause: h.Cause, HideArchived: h.HideArchived, NoDelete: h.NoDelete, Limits: h.Limits,
		OnCommit: h.OnCommit, OnPull: h.OnPull, OnError: h.OnError,
	}
	return x.count(pullthrough.Middleware(served))
}

// source is what copies to elsewhere are made of: what is cached in part is fetched
// for them.
func (x *cache) source(store *storage) replication.Source {
	s := replication.LocalSource(store.blobs, store.manifests)
	if x != nil {
		s.Blobs, s.Manifests = x.CachedBlobs(), whole{store.manifests, x.CachedManifests()}
	}
	return s
}

// whole has the tags that are here, and any manifest.
type whole struct {
	manifest.Reader
	cached manifest.Reader
}

func (w whole) Get(ctx context.Context, repo string, dgst digest.Digest) (manifest.Record, error) {
	return w.cached.Get(ctx, repo, dgst)
}

// askedKey is where a request notes that upstream was asked for it.
type askedKey struct{}

func (x *cache) count(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		repo, cached := repoOf(r.URL.Path)
		if cached = cached && r.Method == http.MethodGet && x.Covers(repo); !cached {
			next.ServeHTTP(w, r)
			return
		}
		var asked atomic.Bool
		c := &counted{ResponseWriter: w, status: http.StatusOK}
		next.ServeHTTP(c, r.WithContext(context.WithValue(r.Context(), askedKey{}, &asked)))
		result := "hit"
		switch {
		case c.status >= http.StatusBadRequest:
			result = "failed"
		case w.Header().Get("Warning") != "":
			result = "stale"
		case asked.Load():
			result = "miss"
		}
		x.pulls.WithLabelValues(result).Inc()
	})
}

// received counts bytes of blobs.
type received struct {
	replication.BlobReader
	bytes prometheus.Counter
}

func (r received) Open(ctx context.Context, repo string, dgst digest.Digest, off, n int64) (io.ReadCloser, blob.Info, error) {
	body, info, err := r.BlobReader.Open(ctx, repo, dgst, off, n)
	if err == nil {
		body = &receivedBody{body, r.bytes}
	}
	return body, info, err
}

type receivedBody struct {
	io.ReadCloser
	bytes prometheus.Counter
}

func (b *receivedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.bytes.Add(float64(n))
	return n, err
}

func (x *cache) bounded() bool { return x != nil && x.config.MaxBytes > 0 }

// evict makes room on a schedule, until ctx ends.
func (x *cache) evict(ctx context.Context, m *metrics) {
	if !x.bounded() {
		return
	}
	for {
		wait(ctx, cmp.Or(x.config.evictEvery, time.Hour))
		if ctx.Err() != nil {
			return
		}
		x.evictOnce(ctx, m)
	}
}

func (x *cache) evictOnce(ctx context.Context, m *metrics) {
	began := time.Now()
	var report pullthrough.EvictReport
	lease, err := x.store.promised(ctx)
	if err == nil {
		report, err = x.Evict(ctx, pullthrough.EvictOptions{MaxBytes: x.config.MaxBytes, Lease: lease, LastUse: x.lastUse})
	}
	x.evicted.Add(float64(report.Freed))
	result, level, gone := "ok", slog.LevelInfo, 0
	for _, e := range report.Images {
		if e.Err == nil {
			gone++
			slog.Info("evicted", "repo", e.Repo, "digest", e.Digest, "tags", e.Tags, "lastUse", e.LastUse, "bytes", e.Size)
		} else {
			slog.Warn("not evicted", "repo", e.Repo, "digest", e.Digest, "why", e.Err)
		}
	}
	if err != nil {
		result, level = "failed", slog.LevelError
	} else {
		m.lastRun.WithLabelValues("evict").SetToCurrentTime()
	}
	m.runs.WithLabelValues("evict", result).Inc()
	slog.Log(ctx, level, "made room in the cache", "images", gone, "stay", len(report.Images)-gone, "before", report.Before, "after", report.After,
		"freed", report.Freed, "took", time.Since(began).Round(time.Millisecond), "err", err)
}

func (x *cache) lastUse(ctx context.Context, repo string) (map[digest.Digest]time.Time, error) {
	out := map[digest.Digest]time.Time{}
	for pull, err := range x.store.pulls.Pulls(ctx, repo, "") {
		if err != nil {
			return nil, err
		}
		out[pull.Digest] = pull.At
	}
	return out, nil
}
