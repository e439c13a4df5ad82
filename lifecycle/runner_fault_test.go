package lifecycle_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/lifecycle"
	"github.com/wharfage/wharfage/lifecycle/mempulls"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/manifest/manifesttest"
	"github.com/wharfage/wharfage/manifest/memmanifest"
)

// faultErrors are the kinds of errors that a store's call fails with.
var faultErrors = []error{
	syscall.EIO, syscall.ENOSPC, context.DeadlineExceeded, context.Canceled, manifest.ErrConflict, io.ErrUnexpectedEOF,
}

type faultWorld struct {
	policy string
	opts   lifecycle.Options
	docs   []doc
}

// faultWorlds are repositories and policies with every kind of step.
var faultWorlds = map[string]faultWorld{
	"expire": {expireOld, lifecycle.Options{SamePassChildren: true}, func() []doc {
		child, leaf, subject := image("child", 30), image("leaf", 40), image("subject", 20, "v1")
		inner := doc{name: "inner", at: daysAgo(25), children: []digest.Digest{leaf.digest()}}
		return []doc{
			child, leaf, subject, inner, {name: "index", tags: []string{"v2"}, at: daysAgo(24), children: []digest.Digest{child.digest(), inner.digest()}},
			{name: "sbom", at: daysAgo(19), subject: subject.digest()}, {name: "signature", at: daysAgo(18), subject: doc{name: "sbom"}.digest()},
			image("kept", 50, "keep-1"), image("young", 1, "v3"), {name: "orphan", at: daysAgo(9), subject: digest.FromString("gone")},
		}
	}()},
	"archive": {archiveIdle, lifecycle.Options{}, func() []doc {
		subject, child := image("subject", 20, "v1"), image("child", 30)
		return []doc{
			subject, child, {name: "signature", at: daysAgo(18), subject: subject.digest()}, image("pulled", 50, "v2"), image("old", 22),
			{name: "index", tags: []string{"v3"}, at: daysAgo(2), children: []digest.Digest{child.digest()}},
		}
	}()},
}

func faultStore(docs []doc) (*memmanifest.Store, *mempulls.Store) {
	a := &mempulls.Store{Now: func() time.Time { return daysAgo(1000) }}
	must(a.Touch(context.Background(), testRepo, []lifecycle.Pull{{Digest: image("pulled", 0).digest(), At: daysAgo(1)}}))
	return newStore(docs...), a
}

// TestRunnerUnderFaults fails every call, by every kind of error, once and for good,
// before and after its work: nothing outside of the plan goes, no reference
// dangles, and one run without faults does the rest.
func TestRunnerUnderFaults(t *testing.T) {
	tried, most := 0, 0
	for name, w := range faultWorlds {
		p, err := parsed(w.policy).With(w.opts)
		must(err)
		s, a := faultStore(w.docs)
		r := runner(s)
		r.Activity = a
		whole, err := r.Run(t.Context(), testRepo, p)
		if err != nil || len(whole.Acted) < 3 {
			t.Fatalf("%s: without faults: %+v, %v", name, whole.Acted, err)
		}
		done := names(s, w.docs...)
		planned := map[digest.Digest]bool{}
		for _, act := range whole.Acted {
			planned[act.Image.Digest] = true
		}
		for _, kind := range faultErrors {
			for _, mode := range []struct{ after, sticky bool }{{}, {after: true}, {sticky: true}, {after: true, sticky: true}} {
				for n := 1; ; n++ {
					fault := &manifesttest.Fault{N: n, After: mode.after, Sticky: mode.sticky, Err: kind}
					hit, err := w.faulty(t.Context(), p, fault, planned, done)
					if err != nil {
						t.Errorf("%s: %v with %q: %v", name, fault, kind, err)
					}
					tried++
					if most = max(most, n); !hit {
						break
					}
				}
			}
		}
	}
	t.Logf("%d faults, up to call %d", tried, most)
}

func (w faultWorld) faulty(ctx context.Context, p *lifecycle.Policy, f *manifesttest.Fault, planned map[digest.Digest]bool, done []string) (hit bool, err error) {
	s, a := faultStore(w.docs)
	// One counter for all: a call of the Activity counts as a Get of the store.
	faulty := manifesttest.Faulty(s, f)
	r := runner(&hooked{Store: faulty, apply: func(ctx context.Context, repo string, c manifest.Change) error {
		err := faulty.Apply(ctx, repo, c)
		return errors.Join(err, dangling(s, w.docs), stripped(s, w.docs))
	}})
	r.Activity = faultyActivity{a, faulty}
	report, err := r.Run(ctx, testRepo, p)
	hit = f.Surfaced() > 0
	if hit && err == nil && !errors.Is(f.Err, manifest.ErrConflict) {
		return hit, errors.New("the run says nothing of it")
	}
	there := names(s, w.docs...)
	for _, d := range w.docs {
		if !planned[d.digest()] && !slices.Contains(there, d.name) {
			return hit, fmt.Errorf("%s went, which is not in the plan", d.name)
		}
	}
	for _, act := range report.Acted {
		if !planned[act.Image.Digest] {
			return hit, fmt.Errorf("the report tells of %s, which is not in the plan", act.Image.Digest)
		}
	}
	r.Manifests, r.Activity = s, a
	if _, err := r.Run(ctx, testRepo, p); err != nil {
		return hit, fmt.Errorf("run again: %w", err)
	}
	return hit, want(s, w.docs, done...)
}

// faultyActivity fails as its store does.
type faultyActivity struct {
	lifecycle.Activity
	s manifest.Store
}

func (a faultyActivity) fault(ctx context.Context, repo string) error {
	_, err := a.s.Get(ctx, repo, digest.FromString("nothing"))
	if manifest.IsNotFound(err) {
		return nil
	}
	return err
}

func (a faultyActivity) Since(ctx context.Context, repo string) (time.Time, error) {
	since, err := a.Activity.Since(ctx, repo)
	return since, errors.Join(err, a.fault(ctx, repo))
}

func (a faultyActivity) Pulls(ctx context.Context, repo string, after digest.Digest) iter.Seq2[lifecycle.Pull, error] {
	return hook(a.Activity.Pulls(ctx, repo, after), false, func(p lifecycle.Pull, _ int) (lifecycle.Pull, error) { return p, a.fault(ctx, repo) })
}
