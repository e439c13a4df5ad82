package lifecycletest

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/lifecycle"
	"github.com/wharfage/wharfage/manifest"
)

// TestActivity checks an Activity. Each subtest is named by the sentence it
// checks, and has an empty Activity of its own, which open returns. One that is a
// [manifest.Writer] too is given each manifest before a pull of it, as a store needs
// that leaves out pulls of what is not there.
func TestActivity(t *testing.T, open func(t testing.TB) lifecycle.Activity) {
	for _, c := range clauses {
		t.Run(c.name, func(t *testing.T) {
			s := open(t)
			if w, ok := s.(manifest.Writer); ok {
				s = &pushing{Activity: s, manifests: w, there: map[string]bool{}}
			}
			c.check(&kit{T: t, s: s})
		})
	}
}

// pushing is an Activity with the manifests that are pulled.
type pushing struct {
	lifecycle.Activity
	manifests manifest.Writer

	mu    sync.Mutex
	there map[string]bool
}

func (p *pushing) Touch(ctx context.Context, repo string, pulls []lifecycle.Pull) error {
	if err := p.push(ctx, repo, pulls); err != nil {
		return err
	}
	return p.Activity.Touch(ctx, repo, pulls)
}

func (p *pushing) push(ctx context.Context, repo string, pulls []lifecycle.Pull) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var c manifest.Change
	for _, pull := range pulls {
		if where := repo + "@" + string(pull.Digest); !p.there[where] {
			p.there[where] = true
			desc := ocispec.Descriptor{MediaType: manifest.MediaTypeImage, Digest: pull.Digest, Size: 2}
			c.Put = append(c.Put, manifest.Record{Desc: desc, Raw: []byte("{}")})
		}
	}
	if c.Put == nil {
		return nil
	}
	err := p.manifests.Apply(ctx, repo, c)
	if err != nil {
		for _, rec := range c.Put {
			delete(p.there, repo+"@"+string(rec.Desc.Digest))
		}
	}
	return err
}

type clause struct {
	name  string
	check func(*kit)
}

// kit is one clause under way.
type kit struct {
	*testing.T
	s lifecycle.Activity
}

const repo, otherRepo = "team/app", "team/app2"

// A whole second.
var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func image(name string) digest.Digest { return digest.SHA256.FromString(name) }

// at is a pull of dgst so many seconds past noon.
func at(dgst digest.Digest, seconds int) lifecycle.Pull {
	return lifecycle.Pull{Digest: dgst, At: noon.Add(time.Duration(seconds) * time.Second)}
}

func (k *kit) touch(pulls ...lifecycle.Pull) {
	k.Helper()
	if err := k.s.Touch(k.Context(), repo, pulls); err != nil {
		k.Fatalf("Touch: %v", err)
	}
}

// some records pulls of n images, and returns them in order.
func (k *kit) some(n int) []lifecycle.Pull {
	k.Helper()
	pulls := make([]lifecycle.Pull, n)
	for i := range pulls {
		pulls[i] = at(image(fmt.Sprint(i)), i)
	}
	k.touch(pulls...)
	return inOrder(pulls)
}

func inOrder(pulls []lifecycle.Pull) []lifecycle.Pull {
	pulls = slices.Clone(pulls)
	slices.SortFunc(pulls, func(a, b lifecycle.Pull) int {
		if a.Digest < b.Digest {
			return -1
		}
		return 1
	})
	return pulls
}

func (k *kit) pulls(repo string, after digest.Digest) (out []lifecycle.Pull) {
	k.Helper()
	for p, err := range k.s.Pulls(k.Context(), repo, after) {
		if err != nil {
			k.Fatalf("Pulls: %v", err)
		}
		out = append(out, p)
	}
	return out
}

// are fails the test unless Pulls lists want.
func (k *kit) are(repo string, after digest.Digest, want ...lifecycle.Pull) {
	k.Helper()
	got := k.pulls(repo, after)
	for i := range min(len(got), len(want)) {
		if got[i].Digest != want[i].Digest || !got[i].At.Equal(want[i].At) {
			k.Fatalf("Pulls of %s after %q: pull %d of %d is %s at %v, want %s at %v", repo, after, i, len(got),
				got[i].Digest, got[i].At, want[i].Digest, want[i].At)
		}
	}
	if len(got) != len(want) {
		k.Fatalf("Pulls of %s after %q lists %d, want %d", repo, after, len(got), len(want))
	}
}

// inTime fails the test when f fails, or waits for something that f itself
// holds.
func (k *kit) inTime(f func(context.Context) error) {
	k.Helper()
	const patience = 30 * time.Second
	ctx, cancel := context.WithTimeout(k.Context(), patience)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	select {
	case err := <-done:
		if err != nil {
			k.Errorf("in a loop over Pulls: %v", err)
		}
	case <-time.After(patience + time.Second):
		k.Fatal("a call in a loop over Pulls does not return: something is held while the body runs")
	}
}

// atOnce calls f with 0 to n-1, each on a goroutine of its own, when all of
// them are ready. It returns their errors.
func atOnce(n int, f func(i int) error) error {
	errs := make([]error, n)
	start := make(chan struct{})
	var ready, done sync.WaitGroup
	ready.Add(n)
	for i := range n {
		done.Go(func() {
			ready.Done()
			<-start
			errs[i] = f(i)
		})
	}
	ready.Wait()
	close(start)
	done.Wait()
	return errors.Join(errs...)
}

// rounds counts to 10, and on while it takes no time: the faster a store is,
// the seldomer its races collide.
func rounds(yield func(int) bool) {
	const enough = 200 * time.Millisecond
	start := time.Now()
	for i := 0; i < 10 || i < 3000 && time.Since(start) < enough; i++ {
		if !yield(i) {
			return
		}
	}
}

func cancelled(k *kit, what string, seq iter.Seq2[lifecycle.Pull, error]) {
	k.Helper()
	var last error
	for _, err := range seq {
		if last != nil {
			k.Errorf("%s goes on after its error", what)
		}
		last = err
	}
	if !errors.Is(last, context.Canceled) {
		k.Errorf("%s ends with %v, want context.Canceled", what, last)
	}
}
