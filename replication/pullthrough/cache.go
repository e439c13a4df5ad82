package pullthrough

import (
	"context"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/referrers"
	"github.com/wharfage/wharfage/replication"
)

// Cache makes stores a cache of upstream registries. Blobs, Manifests, Rules and
// Upstream are required. Give a wharfage.Handler its [Cache.CachedBlobs],
// [Cache.CachedManifests] and [Cache.CachedReferrers]; whoever else reads the stores,
// a collection or an outbox, may use them themselves. Fields must not be changed once it
// serves.
type Cache struct {
	Blobs     blob.Store
	Manifests manifest.Store
	Referrers referrers.Index // nil means Manifests, if it is one, else a scan of it

	Rules Rules
	// Upstream returns the registry of a rule. It is called for each question, so it is to
	// keep what it makes.
	Upstream func(ctx context.Context, r Rule) (replication.Source, error)

	// How long after upstream was asked it is not asked again. Zero means ECR's 24h and
	// 6h, a negative time asks always. What is named by its digest needs no question.
	// When a tag was checked is kept in memory: after a restart the time counts when it
	// last moved, so that it may be asked for too early, and never too late.
	TagAge, ReferrersAge time.Duration
	// ErrorAge is how long an upstream's refusal of one thing holds; zero means 5s, negative
	// not at all. One that fails as a whole is left alone for longer each time, up to
	// half a minute, or for as long as it asks for.
	ErrorAge time.Duration

	// Silence is how long upstream may take for an answer, or for the next byte of a
	// blob; zero means 30s.
	Silence time.Duration
	// Attempts is how often a blob's transfer is tried in all, each from where the last
	// one broke; zero means 5. A mebibyte of progress begins the count again.
	Attempts int
	// MaxBlob is the size of the largest blob, in bytes; zero means ECR's 52,000 MiB.
	MaxBlob int64
	// MaxReferrers is how many referrers of one subject are fetched; zero means 1,000.
	MaxReferrers int
	// SpoolDir is where the bytes of a transfer lie for those who read them; "" means
	// os.TempDir. Files there have no use after a crash.
	SpoolDir string
	// StopAlone ends a transfer when nobody reads any more. Else it goes on, since a
	// client that gave up for slowness comes back, and would never get to the end.
	StopAlone bool

	// Background is given a job for each image that was fetched under a tag, which
	// imports all that it consists of. It starts the job or queues it, and returns. The
	// job ends with its ctx. nil means that everything is fetched when it is pulled.
	Background func(job func(ctx context.Context) error)

	// Create is called before something is stored in a repository for the first time, and
	// may be called again: repository.Registry.Ensure with CauseCache. nil creates nothing.
	Create func(ctx context.Context, repo string) error
	// Authorize is asked before upstream is, for each who asks: ECR's
	// BatchImportUpstreamImage. Who may not gets what is here, else that error. nil allows all.
	Authorize func(ctx context.Context, repo string) error
	// MoveTag is that of [manifest.Pusher]: immutable tags. A tag that may not move stays, and
	// is told OnSync.
	MoveTag func(ctx context.Context, repo, tag string, from, to digest.Digest) error

	// OnSync is told of each image that was fetched, and of each attempt that failed, on
	// whatever goroutine that was. OnCommit is told of what the Cache changes in
	// Manifests, OnError of failures that no client sees.
	OnSync   func(ctx context.Context, s Sync)
	OnCommit func(ctx context.Context, e manifest.Event)
	OnError  func(ctx context.Context, err error)

	Now func() time.Time // nil means time.Now

	tags      flights[manifest.Tag]
	manifests flights[manifest.Record]
	lists     flights[struct{}]

	checked memo[check]     // by repository and tag or subject
	refused memo[refusal]   // by repository and digest or tag
	outages memo[outage]    // by upstream
	used    memo[time.Time] // by repository and digest

	mu        sync.Mutex
	transfers map[string]*transfer
	running   sync.WaitGroup
	closed    chan struct{} // made when first needed
	ended     bool
}

// Sync is an attempt to fetch an image. events.PullThroughCache has the same fields.
type Sync struct {
	Repo   string
	Rule   Rule
	Tag    string        // "" for what was asked for by its digest
	Digest digest.Digest // "" if it is not known
	Err    error         // see [Code]
}

// check is what upstream has said of a tag, or of referrers, and when.
type check struct {
	at     time.Time
	digest digest.Digest // where the tag is to go when all of that is here; "" else
}

// place is a repository here and upstream.
type place struct {
	rule     Rule
	repo     string
	upstream string
	apart    bool // a failure says nothing of the upstream as a whole
}

// place returns where repo is upstream, if a rule covers it.
func (c *Cache) place(repo string) (place, bool) {
	r, upstream, ok := c.Rules.Upstream(repo)
	return place{r, repo, upstream, false}, ok && len(upstream) <= manifest.MaxRepositoryLen
}

// Covers tells whether a rule covers repo. It is for Handler.Upstream.
func (c *Cache) Covers(repo string) bool {
	_, ok := c.place(repo)
	return ok
}

// asked is place for a request, which may not want to know.
func (c *Cache) asked(ctx context.Context, repo string) (place, bool) {
	if ctx.Value(localKey{}) != nil {
		return place{}, false
	}
	return c.place(repo)
}

func orDefault[T int | int64 | time.Duration](v, def T) T {
	if v == 0 {
		return def
	}
	return v
}

func (c *Cache) now() time.Time {
	if c.Now != nil {
		return c.Now()
	}
	return time.Now()
}

func (c *Cache) silence() time.Duration { return orDefault(c.Silence, 30*time.Second) }

func (c *Cache) authorize(ctx context.Context, repo string) error {
	if c.Authorize == nil {
		return nil
	}
	return c.Authorize(ctx, repo)
}

func (c *Cache) create(ctx context.Context, repo string) error {
	if c.Create == nil {
		return nil
	}
	return c.Create(ctx, repo)
}

func (c *Cache) told(ctx context.Context, s Sync) {
	if c.OnSync != nil && (s.Err == nil || ctx.Err() == nil) { // that nobody waits any more is no failure
		c.OnSync(ctx, s)
	}
}

func (c *Cache) tell(ctx context.Context, err error) {
	if c.OnError != nil && err != nil {
		c.OnError(ctx, err)
	}
}

// apply commits a change of the Cache.
func (c *Cache) apply(ctx context.Context, repo string, change manifest.Change) error {
	change.Cause, change.At = manifest.CauseCache, c.now()
	if err := c.create(ctx, repo); err != nil {
		return err
	}
	if err := c.Manifests.Apply(ctx, repo, change); err != nil {
		return err
	}
	if c.OnCommit != nil {
		c.OnCommit(ctx, manifest.Event{Repo: repo, Change: change})
	}
	return nil
}

// start runs f with the values of ctx, which does not end it: Close does, or cancel. It does
// not run when the Cache is closed.
func (c *Cache) start(ctx context.Context, f func(ctx context.Context)) (cancel context.CancelCauseFunc, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return nil, errClosed
	}
	if c.closed == nil {
		c.closed = make(chan struct{})
	}
	ctx, cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	closed := c.closed
	done := make(chan struct{})
	c.running.Go(func() {
		defer cancel(nil)
		defer close(done)
		f(ctx)
	})
	c.running.Go(func() {
		select {
		case <-closed:
			cancel(errClosed)
		case <-done:
		}
	})
	return cancel, nil
}

// Close ends what is being fetched, and waits for that. Afterwards only what is here
// is served.
func (c *Cache) Close() {
	c.mu.Lock()
	if !c.ended && c.closed != nil {
		close(c.closed)
	}
	c.ended = true
	c.mu.Unlock()
	c.running.Wait()
}
