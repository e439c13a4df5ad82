package pullthrough_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/manifest/memmanifest"
	"github.com/wharfage/wharfage/replication"
	"github.com/wharfage/wharfage/replication/pullthrough"
	"github.com/wharfage/wharfage/repository"
	"github.com/wharfage/wharfage/repository/memrepository"
)

func TestPullByTag(t *testing.T) {
	w := newWorld(t, nil)
	one := w.blob(layer(1))
	image := w.image("a", []ocispec.Descriptor{one}, nil, "v1")
	for range 3 {
		w.want(t, "app/manifests/v1", 200, w.raw(image.Digest))
		w.want(t, "app/manifests/"+string(image.Digest), 200, w.raw(image.Digest))
		w.want(t, "app/blobs/"+string(one.Digest), 200, layer(1))
	}
	for call, want := range map[string]int{"resolve": 1, "get": 1, "open": 1, "probe": 0} {
		if n := w.count(call); n != want {
			t.Errorf("upstream was asked %d times to %s, not %d", n, call, want)
		}
	}
	if rec := w.do("GET", "/v2/other/app/manifests/v1", nil); rec.Code != 404 {
		t.Errorf("a repository without a rule: %d", rec.Code)
	}
	if w.count("resolve") != 1 {
		t.Error("upstream was asked for what no rule covers")
	}
	if len(w.syncs) != 1 || w.syncs[0].Tag != "v1" || w.syncs[0].Digest != image.Digest || w.syncs[0].Err != nil || w.syncs[0].Rule.Prefix != "up" {
		t.Errorf("syncs: %+v", w.syncs)
	}
}

// TestPullByDigestFirst: of a manifest, of what a list names, and of a blob,
// while the repository is not there.
func TestPullByDigestFirst(t *testing.T) {
	w := newWorld(t, nil)
	one := w.blob(layer(1))
	image := w.image("a", []ocispec.Descriptor{one}, nil)
	list := w.index([]ocispec.Descriptor{image}, "v1")
	registry := &repository.Registry{Store: new(memrepository.Store)}
	w.cache.Create = func(ctx context.Context, repo string) error {
		_, _, err := registry.Ensure(ctx, repo, repository.CauseCache, nil)
		return err
	}
	w.handle().Repositories = registry
	h := w.handle()
	h.Repositories = registry
	w.serve = pullthrough.Middleware(h)

	w.want(t, "nothing/manifests/v0", 404, nil)
	w.want(t, "app/tags/list", 404, nil)
	if _, err := registry.Get(t.Context(), "up/nothing"); !errors.Is(err, repository.ErrNotFound) {
		t.Errorf("a pull of what is not there has made a repository: %v", err)
	}
	w.want(t, "app/blobs/"+string(one.Digest), 200, layer(1))
	if _, err := registry.Get(t.Context(), "up/app"); err != nil {
		t.Error(err)
	}
	w.want(t, "app/manifests/"+string(image.Digest), 200, w.raw(image.Digest))
	w.want(t, "app/manifests/"+string(list.Digest), 200, w.raw(list.Digest))
	if rec := w.do("HEAD", "/v2/up/app/manifests/v1", nil); rec.Code != 200 || rec.Header().Get("Docker-Content-Digest") != string(list.Digest) {
		t.Errorf("HEAD: %d", rec.Code)
	}
	if w.count("get") != 2 {
		t.Errorf("%d manifests were fetched", w.count("get"))
	}
}

// TestFreshness: a tag is asked for again when it was not for TagAge, or if the request
// wants that, and what upstream has then is served.
func TestFreshness(t *testing.T) {
	for name, age := range map[string]time.Duration{"24h": 0, "an hour": time.Hour, "always": -1} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, func(c *pullthrough.Cache) { c.TagAge = age })
			first := w.image("a", nil, nil, "v1")
			w.want(t, "app/manifests/v1", 200, w.raw(first.Digest))
			second := w.image("b", nil, nil, "v1")
			if age >= 0 {
				fresh := age
				if age == 0 {
					fresh = 24 * time.Hour
				}
				w.advance(fresh - 1)
				w.want(t, "app/manifests/v1", 200, w.raw(first.Digest))
				w.advance(1)
			}
			w.want(t, "app/manifests/v1", 200, w.raw(second.Digest))
			third := w.image("c", nil, nil, "v1")
			if rec := w.get("app/manifests/v1", "Cache-Control", "max-age=0, No-Cache"); rec.Body.String() != string(w.raw(third.Digest)) {
				t.Error("a forced refresh got an old image")
			}
			if rec := w.get("app/manifests/"+string(first.Digest), "Cache-Control", "no-cache"); rec.Code != 200 {
				t.Error("the old image is gone")
			}
		})
	}
}

// TestClockSurvivesRestart: what moved lately is not asked for again by a new Cache over the
// same stores, and what was checked before is, once.
func TestClockSurvivesRestart(t *testing.T) {
	w := newWorld(t, nil)
	image := w.image("a", nil, nil, "v1")
	w.want(t, "app/manifests/v1", 200, w.raw(image.Digest))
	restart := func() {
		c := w.cache
		w.cache = &pullthrough.Cache{Blobs: c.Blobs, Manifests: c.Manifests, Rules: c.Rules, Upstream: c.Upstream, Now: c.Now}
		w.handle()
	}
	restart()
	w.want(t, "app/manifests/v1", 200, w.raw(image.Digest))
	if w.count("resolve") != 1 {
		t.Error("upstream was asked again")
	}
	w.advance(25 * time.Hour)
	for range 2 {
		w.want(t, "app/manifests/v1", 200, w.raw(image.Digest))
	}
	restart()
	for range 2 {
		w.want(t, "app/manifests/v1", 200, w.raw(image.Digest))
	}
	if n := w.count("resolve"); n != 3 {
		t.Errorf("upstream was asked %d times", n)
	}
}

// TestClockGoesBack: what was stored while the clock was far ahead is asked for once, and not only
// when that time has come.
func TestClockGoesBack(t *testing.T) {
	for _, moves := range []bool{false, true} {
		w := newWorld(t, nil)
		const ahead = 365 * 24 * time.Hour
		w.advance(ahead)
		image := w.image("a", nil, nil, "v1")
		w.want(t, "app/manifests/v1", 200, w.raw(image.Digest))
		w.advance(-ahead)
		if moves {
			image = w.image("b", nil, nil, "v1")
		}
		for range 3 {
			w.want(t, "app/manifests/v1", 200, w.raw(image.Digest))
		}
		if n := w.count("resolve"); n != 2 {
			t.Errorf("moves %v: upstream was asked %d times", moves, n)
		}
	}
}

var troubles = map[string]struct {
	err    error
	status int // of what is not here
	code   string
}{
	"denied":       {replication.ErrDenied, 403, "UpstreamAccessDenied"},
	"rate limited": {&replication.TemporaryError{After: time.Minute, Err: replication.ErrRateLimited}, 429, "UpstreamTooManyRequests"},
	"unavailable":  {&replication.TemporaryError{Err: replication.ErrUnavailable}, 503, "UpstreamUnavailable"},
	"unknown":      {errors.New("no route to host"), 503, "UpstreamUnavailable"},
	"gone":         {manifest.ErrNotFound, 404, "ImageNotFound"},
}

// TestTroubleServesCopy: whatever upstream says, what is here is served with a Warning,
// and what is not here is refused for what it is.
func TestTroubleServesCopy(t *testing.T) {
	for name, trouble := range troubles {
		inBubble(t, name, func(t *testing.T) {
			w := newWorld(t, nil)
			image := w.image("a", nil, nil, "v1")
			if rec := w.want(t, "app/manifests/v1", 200, w.raw(image.Digest)); rec.Header().Get("Warning") != "" {
				t.Error("a warning without trouble")
			}
			w.want(t, "app/referrers/"+string(image.Digest), 200, nil)
			w.failing(trouble.err)
			w.advance(25 * time.Hour)
			rec := w.want(t, "app/manifests/v1", 200, w.raw(image.Digest))
			if v := rec.Header().Get("Warning"); !strings.HasPrefix(v, `299 - "upstream quay.io/app v1: `) {
				t.Errorf("Warning: %q", v)
			}
			rec = w.want(t, "app/referrers/"+string(image.Digest), 200, nil)
			if v := rec.Header().Get("Warning"); (v == "") != (name == "gone" || name == "denied") {
				t.Errorf("Warning of referrers: %q", v)
			}
			w.want(t, "app/manifests/v2", trouble.status, nil)
			w.want(t, "app/manifests/"+string(digest.FromString("x")), trouble.status, nil)
			w.want(t, "app/blobs/"+string(digest.FromString("x")), trouble.status, nil)
			if s := w.syncs[1]; pullthrough.Code(s.Err) != trouble.code || s.Tag != "v1" {
				t.Errorf("sync: %+v", s)
			}
		})
	}
}

// TestUpstreamIsLeftAlone: one that fails is asked again after longer and longer, and
// not before it has said; a refusal holds for ErrorAge.
func TestUpstreamIsLeftAlone(t *testing.T) {
	w := newWorld(t, nil)
	w.image("a", nil, nil, "v1")
	asked := func(ref string, want int) {
		t.Helper()
		before := w.count("resolve")
		w.get("app/manifests/" + ref)
		if n := w.count("resolve") - before; n != want {
			t.Errorf("upstream was asked %d times for %s, not %d", n, ref, want)
		}
	}
	w.failing(&replication.TemporaryError{After: 5 * time.Minute, Err: replication.ErrRateLimited})
	asked("v1", 1)
	w.advance(5*time.Minute - 1)
	asked("v1", 0)
	asked("v2", 0)
	w.advance(1)
	asked("v2", 1)
	w.failing(replication.ErrUnavailable)
	w.advance(5 * time.Minute)
	asked("v1", 1)
	w.advance(2 * time.Second)
	asked("v1", 0)
	w.advance(2 * time.Second)
	asked("v1", 1)
	w.failing(nil)
	w.advance(time.Minute)
	asked("v2", 1) // not there
	asked("v2", 0)
	asked("v3", 1)
	w.advance(5 * time.Second)
	asked("v2", 1)
	asked("v1", 1)
	asked("v1", 0)
}

func TestReferrers(t *testing.T) {
	w := newWorld(t, nil)
	image := w.image("a", nil, nil, "v1")
	signature := w.image("sig", []ocispec.Descriptor{w.blob(layer(1))}, &image)
	list := func(want ...digest.Digest) {
		t.Helper()
		rec := w.want(t, "app/referrers/"+string(image.Digest), 200, nil)
		for _, d := range want {
			if !strings.Contains(rec.Body.String(), string(d)) {
				t.Errorf("%s is not listed", d)
			}
		}
		if n := strings.Count(rec.Body.String(), `"digest"`); n != len(want) {
			t.Errorf("%d referrers, not %d", n, len(want))
		}
	}
	list(signature.Digest)
	// One of our own.
	own := w.origin
	w.origin = newOrigin()
	local := w.image("local", nil, &image)
	raw := w.raw(local.Digest)
	config := digest.FromString(`{"architecture":"amd64","os":"linux","name":"local"}`)
	content := w.blobs[config]
	w.origin = own
	if rec := w.do("POST", "/v2/up/app/blobs/uploads/?digest="+string(config), content, "Content-Type", "application/octet-stream"); rec.Code != 201 {
		t.Fatalf("upload: %d %s", rec.Code, rec.Body)
	}
	if rec := w.do("PUT", "/v2/up/app/manifests/"+string(local.Digest), raw, "Content-Type", local.MediaType); rec.Code != 201 {
		t.Fatalf("push: %d %s", rec.Code, rec.Body)
	}
	list(signature.Digest, local.Digest)
	late := w.image("late", nil, &image)
	w.advance(6*time.Hour - 1)
	list(signature.Digest, local.Digest)
	w.advance(1)
	list(signature.Digest, local.Digest, late.Digest)
	if n := w.count("referrers"); n != 2 {
		t.Errorf("upstream was asked %d times", n)
	}
	w.failing(replication.ErrUnavailable)
	w.advance(6 * time.Hour)
	list(signature.Digest, local.Digest, late.Digest)
}

// reads counts whole documents that are read.
type reads struct {
	*memmanifest.Store
	n atomic.Int64
}

func (r *reads) Get(ctx context.Context, repo string, dgst digest.Digest) (manifest.Record, error) {
	r.n.Add(1)
	return r.Store.Get(ctx, repo, dgst)
}

// TestToBeDescribedIsNoUse: a HEAD and a list of referrers read no documents that are here,
// so that these do not count as used.
func TestToBeDescribedIsNoUse(t *testing.T) {
	var store *reads
	w := newWorld(t, func(c *pullthrough.Cache) {
		store = &reads{Store: c.Manifests.(*memmanifest.Store)}
		c.Manifests = store
	})
	h := w.handle()
	h.HideArchived = true
	image := w.image("a", nil, nil, "v1")
	for i := range 5 {
		w.image(fmt.Sprint("sig", i), nil, &image)
	}
	w.want(t, "app/manifests/v1", 200, w.raw(image.Digest))
	w.want(t, "app/referrers/"+string(image.Digest), 200, nil)
	store.n.Store(0)
	body := w.want(t, "app/referrers/"+string(image.Digest), 200, nil).Body.String()
	if n := strings.Count(body, `"digest"`); n != 5 {
		t.Errorf("%d referrers, want 5: %s", n, body)
	}
	if rec := w.do("HEAD", "/v2/up/app/manifests/v1", nil); rec.Code != 200 {
		t.Errorf("HEAD: %d", rec.Code)
	}
	if n := store.n.Load(); n != 0 {
		t.Errorf("%d documents were read", n)
	}
	late := w.image("late", nil, nil)
	recs, err := manifest.Describe(t.Context(), w.cache.CachedManifests(), "up/app", []digest.Digest{image.Digest, late.Digest, digest.FromString("no")})
	if err != nil || recs[0].Desc.Digest != image.Digest || recs[1].Desc.Digest != late.Digest || recs[1].Raw != nil || recs[2].Desc.Digest != "" {
		t.Errorf("described %+v, %v", recs, err)
	}
}

// TestWhoGivesUpRefusesNobody: that a client has gone says nothing of upstream, which the next
// one asks.
func TestWhoGivesUpRefusesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		image := w.image("a", nil, nil)
		signature := w.image("sig", nil, &image)
		ctx, leave := context.WithCancel(t.Context())
		left := make(chan struct{})
		w.refers = func() iter.Seq2[ocispec.Descriptor, error] {
			return func(yield func(ocispec.Descriptor, error) bool) {
				leave()
				<-left
				yield(signature, nil)
			}
		}
		list := func(ctx context.Context) (n int, err error) {
			for _, e := range w.cache.CachedReferrers().Referrers(ctx, "up/app", image.Digest, "", "") {
				if err = e; err == nil {
					n++
				}
			}
			return n, err
		}
		if n, err := list(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("who has gone gets %d, %v", n, err)
		}
		close(left)
		synctest.Wait()
		warned := ""
		if n, err := list(pullthrough.WithWarnings(t.Context(), func(text string) { warned = text })); n != 1 || err != nil || warned != "" {
			t.Errorf("the next one gets %d, %v, warning %q", n, err, warned)
		}
	})
}

// TestWhoGivesUpIsNoFailure: nothing is told of a question that nobody waits for any more.
func TestWhoGivesUpIsNoFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		image := w.image("a", nil, nil, "v1")
		inner := w.cache.Upstream
		w.cache.Upstream = func(ctx context.Context, r pullthrough.Rule) (replication.Source, error) {
			<-ctx.Done()
			return inner(ctx, r)
		}
		ctx, leave := context.WithTimeout(t.Context(), time.Second)
		defer leave()
		store := w.cache.CachedManifests()
		if _, err := store.Resolve(ctx, "up/app", "v1"); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		if _, err := store.Get(ctx, "up/app", image.Digest); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		w.cache.Close()
		if len(w.syncs) > 0 {
			t.Errorf("told: %+v, %s", w.syncs, pullthrough.Code(w.syncs[0].Err))
		}
	})
}

// TestImmutableTag: one that may not move stays, is told once a day, and is served.
func TestImmutableTag(t *testing.T) {
	w := newWorld(t, func(c *pullthrough.Cache) {
		c.MoveTag = func(_ context.Context, _, tag string, from, to digest.Digest) error {
			if from != manifest.Absent {
				return errors.New("immutable")
			}
			return nil
		}
	})
	first := w.image("a", nil, nil, "v1")
	w.want(t, "app/manifests/v1", 200, w.raw(first.Digest))
	second := w.image("b", nil, nil, "v1")
	w.advance(25 * time.Hour)
	for range 3 {
		w.want(t, "app/manifests/v1", 200, w.raw(first.Digest))
	}
	if len(w.syncs) != 2 || w.syncs[1].Digest != second.Digest || pullthrough.Code(w.syncs[1].Err) != "ImageTagAlreadyExists" {
		t.Errorf("syncs: %+v", w.syncs)
	}
}

// TestBackground: all of a list is imported, and a tag moves to the next one only when that is
// here; until then, if upstream fails, the first is served.
func TestBackground(t *testing.T) {
	var jobs []func(context.Context) error
	var commits []manifest.Event
	w := newWorld(t, func(c *pullthrough.Cache) {
		c.Background = func(job func(context.Context) error) { jobs = append(jobs, job) }
		c.OnCommit = func(_ context.Context, e manifest.Event) { commits = append(commits, e) }
	})
	platforms := func(n int) (out []ocispec.Descriptor) {
		for i := range 3 {
			name := fmt.Sprint(n, "/", i)
			out = append(out, w.image(name, []ocispec.Descriptor{w.blob([]byte("layer of " + name)), w.blob([]byte("base"))}, nil))
		}
		return out
	}
	run := func() error {
		t.Helper()
		if len(jobs) != 1 {
			t.Fatalf("%d jobs", len(jobs))
		}
		job := jobs[0]
		jobs = nil
		return job(t.Context())
	}
	first := w.index(platforms(1), "v1")
	w.want(t, "app/manifests/v1", 200, w.raw(first.Digest))
	if err := run(); err != nil {
		t.Fatal(err)
	}
	if n := len(w.stored(t)); n != 7 {
		t.Errorf("%d blobs are stored, not 3 configs, 3 layers and a base", n)
	}
	for p, err := range wharfage.Check(t.Context(), w.store, wharfage.CheckOptions{Repos: []string{"up/app"}}) {
		t.Errorf("the store is not whole: %v %v", p, err)
	}
	for _, e := range commits {
		if e.Change.Cause != manifest.CauseCache || e.Change.At.IsZero() {
			t.Errorf("change: %+v", e)
		}
	}
	w.advance(25 * time.Hour)
	second := w.index(platforms(2), "v1")
	w.want(t, "app/manifests/v1", 200, w.raw(second.Digest))
	w.want(t, "app/manifests/v1", 200, w.raw(second.Digest))
	w.failing(replication.ErrUnavailable)
	if err := run(); !errors.Is(err, replication.ErrUnavailable) {
		t.Fatal(err)
	}
	rec := w.want(t, "app/manifests/v1", 200, w.raw(first.Digest))
	if rec.Header().Get("Warning") == "" {
		t.Error("no warning")
	}
	w.failing(nil)
	w.advance(time.Minute)
	w.want(t, "app/manifests/v1", 200, w.raw(second.Digest))
	if err := run(); err != nil {
		t.Fatal(err)
	}
	w.failing(replication.ErrUnavailable)
	w.want(t, "app/manifests/v1", 200, w.raw(second.Digest))
	if tag, err := w.store.Manifests.Resolve(t.Context(), "up/app", "v1"); err != nil || tag.Digest != second.Digest {
		t.Errorf("the tag has not moved: %v %v", tag, err)
	}
}

// TestPushOnUpstreamLayers: a client that is told that a blob is here can push an image
// that needs it.
func TestPushOnUpstreamLayers(t *testing.T) {
	w := newWorld(t, nil)
	base := w.blob(layer(1))
	image := w.image("mine", []ocispec.Descriptor{base}, nil)
	raw := w.raw(image.Digest)
	w.loses(image.Digest)
	for _, d := range w.docs {
		t.Fatal(d)
	}
	if rec := w.do("HEAD", "/v2/up/app/blobs/"+string(base.Digest), nil); rec.Code != 200 || rec.Header().Get("Content-Length") != fmt.Sprint(base.Size) {
		t.Fatalf("HEAD: %d", rec.Code)
	}
	if n := w.count("open"); n != 0 {
		t.Errorf("HEAD has fetched it")
	}
	if rec := w.do("PUT", "/v2/up/app/manifests/mine", raw, "Content-Type", image.MediaType); rec.Code != 201 {
		t.Fatalf("push: %d %s", rec.Code, rec.Body)
	}
	if len(w.stored(t)) != 2 || w.count("resolve") != 0 {
		t.Errorf("%d blobs, %d questions about tags", len(w.stored(t)), w.count("resolve"))
	}
	w.want(t, "app/manifests/mine", 200, raw)
	w.failing(replication.ErrUnavailable)
	w.advance(48 * time.Hour)
	w.want(t, "app/manifests/mine", 200, raw)
	other := strings.Replace(string(raw), string(base.Digest), string(digest.FromString("nowhere")), 1)
	if rec := w.do("PUT", "/v2/up/app/manifests/bad", []byte(other), "Content-Type", image.MediaType); rec.Code != 503 {
		t.Errorf("push while upstream fails: %d %s", rec.Code, rec.Body)
	}
	w.failing(nil)
	w.advance(time.Hour)
	if rec := w.do("PUT", "/v2/up/app/manifests/bad", []byte(other), "Content-Type", image.MediaType); rec.Code != 400 {
		t.Errorf("push of what is nowhere: %d %s", rec.Code, rec.Body)
	}
}

// TestRepositoriesThatAreNotMade: what Create says is no fault of upstream, for a blob either.
func TestRepositoriesThatAreNotMade(t *testing.T) {
	w := newWorld(t, func(c *pullthrough.Cache) {
		c.Create = func(context.Context, string) error { return repository.ErrQuota }
	})
	one := w.blob(layer(1))
	image := w.image("a", []ocispec.Descriptor{one}, nil, "v1")
	for _, path := range []string{"manifests/v1", "manifests/" + string(image.Digest), "blobs/" + string(one.Digest)} {
		w.want(t, "app/"+path, 403, nil)
	}
}

// TestAuthorize: who may not import gets what is here, and nothing else.
func TestAuthorize(t *testing.T) {
	var refuse error
	w := newWorld(t, func(c *pullthrough.Cache) {
		c.Authorize = func(context.Context, string) error { return refuse }
	})
	image := w.image("a", []ocispec.Descriptor{w.blob(layer(1))}, nil, "v1")
	w.want(t, "app/manifests/v1", 200, nil)
	refuse = &wharfage.AuthError{}
	w.advance(48 * time.Hour)
	before := w.count("resolve")
	w.want(t, "app/manifests/v1", 200, w.raw(image.Digest))
	w.want(t, "app/manifests/v2", 403, nil)
	w.want(t, "app/blobs/"+string(digest.FromBytes(layer(1))), 403, nil)
	if w.count("resolve") != before || w.count("open")+w.count("probe") != 0 {
		t.Error("upstream was asked")
	}
}

// TestHealing: whatever is deleted below the cache, the next pull brings it back.
func TestHealing(t *testing.T) {
	w := newWorld(t, nil)
	var layers []ocispec.Descriptor
	contents := map[digest.Digest][]byte{}
	for i := range 8 {
		layers = append(layers, w.blob(layer(i)))
		contents[layers[i].Digest] = layer(i)
	}
	image := w.image("a", layers, nil)
	w.index([]ocispec.Descriptor{image}, "v1")
	rnd := rand.New(rand.NewPCG(1, 2))
	for round := range 50 {
		w.want(t, "app/manifests/v1", 200, nil)
		w.want(t, "app/manifests/"+string(image.Digest), 200, w.raw(image.Digest))
		for d, content := range contents {
			w.want(t, "app/blobs/"+string(d), 200, content)
		}
		if n := len(w.stored(t)); n != len(layers) {
			t.Fatalf("round %d: %d blobs are stored", round, n)
		}
		// Below the guard, which would keep them.
		guardless(w.store)
		for d := range contents {
			if rnd.IntN(2) == 0 {
				if err := w.store.Blobs.Delete(t.Context(), "up/app", d, time.Time{}); err != nil {
					t.Fatal(err)
				}
			}
		}
		if rnd.IntN(2) == 0 {
			if err := w.store.Manifests.Apply(t.Context(), "up/app", manifest.Change{Delete: []manifest.Removal{{Digest: image.Digest}}}); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestCollect: collections leave what is served, and take what can be had again.
func TestCollect(t *testing.T) {
	w := newWorld(t, nil)
	one, two := w.blob(layer(1)), w.blob(layer(2))
	images := []ocispec.Descriptor{w.image("a", []ocispec.Descriptor{one}, nil), w.image("b", []ocispec.Descriptor{two}, nil)}
	list := w.index(images, "v1")
	pull := func() {
		t.Helper()
		w.want(t, "app/manifests/v1", 200, w.raw(list.Digest))
		w.want(t, "app/manifests/"+string(images[0].Digest), 200, w.raw(images[0].Digest))
		w.want(t, "app/blobs/"+string(one.Digest), 200, layer(1))
	}
	pull()
	w.advance(30 * 24 * time.Hour)
	w.failing(replication.ErrUnavailable)
	h := w.handle()
	collection := wharfage.Collection{Untagged: &manifest.UntaggedOptions{Confirm: true}}
	collection.Blobs.Confirm = true
	done, err := wharfage.Collect(t.Context(), h, collection)
	if err != nil || done.Untagged.Removed != 0 || done.Blobs.Blobs.Removed.Count != 0 {
		t.Errorf("%+v %v", done, err)
	}
	pull() // the blob is older than the lease, and needed
}

func TestEvict(t *testing.T) {
	w := newWorld(t, nil)
	base := w.blob(pattern(1000, 0))
	var images []ocispec.Descriptor
	pull := func(i int) {
		t.Helper()
		w.want(t, fmt.Sprintf("app/manifests/v%d", i), 200, w.raw(images[i].Digest))
		w.want(t, "app/blobs/"+string(base.Digest), 200, pattern(1000, 0))
		w.want(t, "app/blobs/"+string(digest.FromBytes(pattern(1000, byte(i+1)))), 200, pattern(1000, byte(i+1)))
	}
	for i := range 5 {
		images = append(images, w.image(fmt.Sprint(i), []ocispec.Descriptor{base, w.blob(pattern(1000, byte(i+1)))}, nil, fmt.Sprintf("v%d", i)))
		pull(i)
		w.advance(time.Hour)
	}
	w.advance(48 * time.Hour)
	pull(0) // so that 1 is the oldest
	// What upstream has not got stays: an image that was only pushed here.
	w.loses(images[2].Digest)
	options := pullthrough.EvictOptions{MaxBytes: 5700, Dry: true}
	dry, err := w.cache.Evict(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	options.Dry = false
	report, err := w.cache.Evict(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	var gone []string
	for i, e := range report.Images {
		if e.Err == nil {
			gone = append(gone, e.Tags...)
		}
		if d := dry.Images[i]; (d.Err == nil) != (e.Err == nil) || d.Size != e.Size || d.Digest != e.Digest {
			t.Errorf("dry %+v, done %+v", d, e)
		}
	}
	if !slices.Equal(gone, []string{"v1", "v3"}) || report.After > 5700 || report.Freed != report.Before-report.After || dry.Freed != report.Freed {
		t.Errorf("went: %q, %+v", gone, report)
	}
	for p, err := range wharfage.Check(t.Context(), w.store, wharfage.CheckOptions{Repos: []string{"up/app"}}) {
		if p.Kind != wharfage.ProblemMissing { // configs, which nobody has pulled
			t.Errorf("%v %v", p, err)
		}
	}
	opened := w.count("open")
	for i := range images {
		if i != 2 {
			pull(i)
		}
	}
	if n := w.count("open") - opened; n != 2 {
		t.Errorf("%d blobs were fetched again", n)
	}
	w.failing(replication.ErrUnavailable)
	report, err = w.cache.Evict(t.Context(), pullthrough.EvictOptions{})
	if err != nil || report.Freed != 0 || len(report.Images) != 5 {
		t.Errorf("while upstream fails: %+v %v", report, err)
	}
}

// TestEvictLists: what two lists share goes with the last of them.
func TestEvictLists(t *testing.T) {
	w := newWorld(t, nil)
	shared, own := w.image("shared", nil, nil), w.image("own", nil, nil)
	lists := []ocispec.Descriptor{w.index([]ocispec.Descriptor{shared, own}, "a"), w.index([]ocispec.Descriptor{shared}, "b")}
	for _, d := range []ocispec.Descriptor{shared, own} {
		w.want(t, "app/manifests/"+string(d.Digest), 200, nil)
	}
	for i, tag := range []string{"a", "b"} {
		w.want(t, "app/manifests/"+tag, 200, w.raw(lists[i].Digest))
		w.advance(time.Hour)
	}
	for want := 2; want <= 2; want++ {
		report, err := w.cache.Evict(t.Context(), pullthrough.EvictOptions{MaxBytes: int64(len(w.raw(shared.Digest)) + len(w.raw(lists[1].Digest)))})
		if err != nil || len(report.Images) != 1 || report.Images[0].Manifests != want || report.Images[0].Tags[0] != "a" {
			t.Fatalf("%+v %v", report, err)
		}
	}
	report, err := w.cache.Evict(t.Context(), pullthrough.EvictOptions{})
	if err != nil || len(report.Images) != 1 || report.Images[0].Manifests != 2 || report.After != 0 {
		t.Fatalf("%+v %v", report, err)
	}
}

// TestWaitersShareErrors: each of many who ask at once gets the answer, if it is an
// error too, and upstream is asked once.
func TestWaitersShareErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		w.fail = func(string) error {
			return nil
		}
		gate := make(chan struct{})
		inner := w.cache.Upstream
		w.cache.Upstream = func(ctx context.Context, r pullthrough.Rule) (replication.Source, error) {
			<-gate
			return inner(ctx, r)
		}
		codes := make([]int, 50)
		var wg sync.WaitGroup
		for i := range codes {
			wg.Go(func() { codes[i] = w.get("app/manifests/none").Code })
		}
		synctest.Wait()
		close(gate)
		wg.Wait()
		for _, code := range codes {
			if code != http.StatusNotFound {
				t.Errorf("answer %d", code)
			}
		}
		if w.count("resolve") != 1 {
			t.Errorf("upstream was asked %d times", w.count("resolve"))
		}
	})
}
