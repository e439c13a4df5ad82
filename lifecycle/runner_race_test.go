package lifecycle_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/lifecycle"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/manifest/memmanifest"
)

var (
	raceTime = flag.Duration("race-time", time.Second, "how long policies run beside pushes")
	raceSeed = flag.Uint64("race-seed", 1, "for what is pushed then")
)

// court judges each removal when it commits: by the plan for the repository as it
// is at that instant.
type court struct {
	manifest.Store
	policy *lifecycle.Policy

	mu      sync.Mutex
	wrong   []error
	removed int
}

func (s *court) Apply(ctx context.Context, repo string, c manifest.Change) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.Store.Apply(ctx, repo, c)
}

// judging is the store for a Runner.
func (s *court) judging() manifest.Store {
	return &hooked{Store: s.Store, apply: func(ctx context.Context, repo string, c manifest.Change) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		images, _, err := lifecycle.Images(context.WithoutCancel(ctx), s.Store, nil, repo)
		must(err)
		if err := s.Store.Apply(ctx, repo, c); err != nil {
			return err
		}
		plan := lifecycle.Evaluate(s.policy, images, now)
		for _, d := range c.Delete {
			s.removed++
			for i := range images {
				if v := plan.Verdict(i); v.Image.Digest == d.Digest && v.Action != lifecycle.Expire {
					s.wrong = append(s.wrong, fmt.Errorf("%s with the tags %q went, which the plan keeps: %v", d.Digest, v.Image.Tags, v))
				}
			}
		}
		return nil
	}}
}

// race lets policies run beside pushes, retags, deletions, and pushes of indexes
// and referrers, until d is over or something is wrong.
func race(ctx context.Context, run runFunc, seed uint64, d time.Duration) (*court, error) {
	p, err := parsed(expireOld).With(lifecycle.Options{SamePassChildren: true})
	must(err)
	s := &court{Store: &memmanifest.Store{MissingBlobs: memmanifest.Unchecked}, policy: p}
	ctx, stop := context.WithTimeout(ctx, d)
	defer stop()
	const writers, things = 4, 60
	var done sync.WaitGroup
	for w := range writers {
		done.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(w)))
			for ctx.Err() == nil {
				// A change that others have made impossible fails, as it should.
				_ = s.Apply(ctx, testRepo, randomChange(rng, things))
			}
		})
	}
	var failed error
	for failed == nil && ctx.Err() == nil {
		if _, err := run(ctx, runner(s.judging()), p); err != nil && ctx.Err() == nil {
			failed = err
		}
		s.mu.Lock()
		if len(s.wrong) > 0 {
			stop()
		}
		s.mu.Unlock()
	}
	stop()
	done.Wait()
	return s, errors.Join(append(s.wrong, failed)...)
}

func randomChange(rng *rand.Rand, things int) manifest.Change {
	name := func(kind string) string { return fmt.Sprint(kind, rng.IntN(things)) }
	some := func(kinds ...string) digest.Digest { return digest.FromString(name(kinds[rng.IntN(len(kinds))])) }
	age := daysAgo(rng.Float64() * 20)
	switch rng.IntN(10) {
	case 0, 1, 2: // of which many are old
		return doc{name: name("image"), at: age, tags: []string{name("v")}}.change()
	case 3:
		return doc{name: name("image"), at: age}.change()
	case 4:
		c := doc{name: name("index"), at: age, tags: []string{name("v")}, children: []digest.Digest{some("image"), some("image")}}.change()
		c.RequireManifests = c.Put[0].Manifests
		return c
	case 5:
		return doc{name: name("sbom"), at: age, subject: some("image", "index")}.change()
	case 6, 7:
		return manifest.Change{Tags: []manifest.TagMove{{Name: name("keep"), To: some("image", "index")}}, At: now}
	case 8:
		return manifest.Change{Tags: []manifest.TagMove{{Name: name("keep")}}, At: now}
	}
	return manifest.Change{Delete: []manifest.Removal{{Digest: some("image", "index", "sbom"), IfUnlisted: true}}}
}

// TestRunnerBesidePushes lets no image go that the plan at that instant keeps.
func TestRunnerBesidePushes(t *testing.T) {
	s, err := race(t.Context(), rightRun, *raceSeed, *raceTime)
	if err != nil {
		t.Errorf("with -race-seed %d: %v", *raceSeed, err)
	}
	if s.removed == 0 {
		t.Error("nothing was removed")
	}
	t.Logf("%d manifests went", s.removed)
}

// TestRacesFindWrongRunners shows that TestRunnerBesidePushes can fail.
func TestRacesFindWrongRunners(t *testing.T) {
	for name, run := range map[string]runFunc{
		"compares nothing":         changing(func(c *manifest.Change) { c.Unchanged = nil }),
		"ignores new indexes":      changing(func(c *manifest.Change) { unlisted(c, false) }),
		"ignores subjects":         changing(orphans),
		"compares tags, not times": sinceNow,
	} {
		t.Run(name, func(t *testing.T) {
			var rounds atomic.Int64
			for seed := range uint64(20) {
				rounds.Add(1)
				if _, err := race(t.Context(), run, seed, time.Second); err != nil {
					t.Logf("found in round %d", rounds.Load())
					return
				}
			}
			t.Errorf("a Runner that %s is not found", name)
		})
	}
}

// sinceNow takes for the time of what it removes whatever that is by now.
func sinceNow(ctx context.Context, r lifecycle.Runner, p *lifecycle.Policy) (lifecycle.Report, error) {
	s := r.Manifests
	r.Manifests = &hooked{Store: s, apply: func(ctx context.Context, repo string, c manifest.Change) error {
		err := s.Apply(ctx, repo, c)
		if conflict, ok := errors.AsType[*manifest.ConflictError](err); ok && !conflict.Since.IsZero() {
			c.Unchanged[0].Since = conflict.Since
			return s.Apply(ctx, repo, c)
		}
		return err
	}}
	return r.Run(ctx, testRepo, p)
}
