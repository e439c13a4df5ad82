//go:build linux

package crash

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/manifest"
)

// TestCollectorDies: a collector that ends at any of its steps does no harm:
// what is needed is there, what was about to go can be pushed again at once, and
// the next run removes the rest.
func TestCollectorDies(t *testing.T) {
	const lease = time.Hour
	for _, c := range collected {
		for _, d := range deaths {
			if c.name == "memory" && !d.each {
				continue // it has no Objects
			}
			t.Run(c.name+"/"+d.name, func(t *testing.T) {
				condemned := 0
				var ahead time.Duration
				o := newCollectedOptions(t, lease, func() time.Time { return time.Now().Add(ahead) })
				for step := 1; ; step++ {
					p := &patient{collectedOptions: o, condemned: 13}
					p.left.Store(1 << 60)
					p.objects = &dying{o.objects, p, d.late}
					p.store = c.open(t, p.collectedOptions)
					p.fill(t)
					ahead += 3 * lease
					died := p.collect(t, int64(step), d.each)
					condemned += p.condemned
					p.left.Store(1 << 60)
					if c.name != "memory" { // which ends with its process
						if err := p.close(); err != nil {
							t.Fatal(err)
						}
						p.store = c.open(t, p.collectedOptions)
					}
					p.recover(t)
					ahead += 3 * lease
					p.collectAll(t)
					if err := p.close(); err != nil {
						t.Fatal(err)
					}
					if !died {
						t.Logf("died at each of %d steps, which condemned %d things", step-1, condemned)
						break
					}
				}
			})
		}
	}
}

var deaths = []struct {
	name string
	each bool // count what is collected, else calls of Objects
	late bool // the call is done
}{
	{"after each removal", true, false},
	{"before each change of an object", false, false},
	{"after each change of an object", false, true},
}

var errDead = errors.New("the process is dead")

// patient is a store whose collector dies.
type patient struct {
	collectedOptions
	*store
	condemned int
	left      atomic.Int64 // steps to live
	die       context.CancelFunc
	keep      built
}

// dying does nothing any more when its patient is dead.
type dying struct {
	blob.Objects
	*patient
	late bool
}

func (d *dying) Put(ctx context.Context, key string, r io.Reader) (int64, error) {
	if d.left.Load() <= 0 {
		return 0, errDead
	}
	return d.Objects.Put(ctx, key, r)
}

func (d *dying) Open(ctx context.Context, key string, off, n int64) (io.ReadCloser, blob.Object, error) {
	if d.left.Load() <= 0 {
		return nil, blob.Object{}, errDead
	}
	return d.Objects.Open(ctx, key, off, n)
}

func (d *dying) Delete(ctx context.Context, key string) error {
	left := d.left.Add(-1)
	if left == 0 {
		defer d.die()
	}
	if left < 0 || left == 0 && !d.late {
		return errDead
	}
	err := d.Objects.Delete(ctx, key)
	if left == 0 {
		err = errDead
	}
	return err
}

func (d *dying) List(ctx context.Context, under, after string) iter.Seq2[blob.Object, error] {
	if d.left.Load() <= 0 {
		return func(yield func(blob.Object, error) bool) { yield(blob.Object{}, errDead) }
	}
	return d.Objects.List(ctx, under, after)
}

const repo = "team/app"

func garbage(i int) []byte { return fmt.Appendf(nil, "garbage %d", i) }

// fill makes things that nothing needs, and an image.
func (p *patient) fill(t *testing.T) {
	t.Helper()
	ctx := t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	p.keep = built{layers: [][]byte{[]byte("needed")}}
	must(blob.Put(ctx, p.blobs, repo, describe("", p.keep.layers[0]), bytes.NewReader(p.keep.layers[0])))
	var err error
	p.keep.raw, p.keep.digest, err = image(p.keep.layers, "")
	must(err)
	pusher := manifest.Pusher{Store: p.manifests, Now: p.now}
	_, err = pusher.Push(ctx, repo, manifest.PushRequest{Raw: p.keep.raw})
	must(err)
	for i := range p.condemned {
		if i%5 == 4 { // an upload that nobody continues
			u, err := p.blobs.Begin(ctx, repo, digest.SHA256)
			must(err)
			_, err = blob.Append(ctx, p.blobs, u, 0, bytes.NewReader(make([]byte, 1<<20)))
			must(err)
			continue
		}
		must(blob.Put(ctx, p.blobs, repo, describe("", garbage(i)), bytes.NewReader(garbage(i))))
	}
}

func (p *patient) options() blob.CollectOptions {
	return blob.CollectOptions{Needed: needed(p.manifests), Lease: p.lease, SessionLease: p.lease, Confirm: true, Now: p.now}
}

// collect dies after so many steps. It is false if that was not necessary.
func (p *patient) collect(t *testing.T, steps int64, each bool) (died bool) {
	ctx, die := context.WithCancel(t.Context())
	defer die()
	p.die = die
	o := p.options()
	if each {
		o.Each = func(blob.Collected) {
			if steps--; steps == 0 {
				died = true
				p.left.Store(0)
				die()
			}
		}
	} else {
		p.left.Store(steps)
	}
	_, err := blob.Collect(ctx, p.blobs, o)
	if !each {
		died = p.left.Load() <= 0
	}
	if !died && err != nil {
		t.Error(err)
	}
	return died
}

// recover checks what is there after a death, and pushes half of what was
// condemned.
func (p *patient) recover(t *testing.T) {
	t.Helper()
	ctx := t.Context()
	w := &rusher{rush: &rush{store: p.store}, repo: repo}
	if err := w.pull(ctx, p.keep); err != nil {
		t.Error(err)
	}
	for i := range p.condemned {
		content := garbage(i)
		if i%5 == 4 || i%2 == 0 {
			continue
		}
		err := blob.Put(ctx, p.blobs, repo, describe("", content), bytes.NewReader(content))
		if err == nil {
			err = same(content, func() (io.ReadCloser, error) {
				r, _, err := p.blobs.Open(ctx, repo, digest.FromBytes(content), 0, -1)
				return r, err
			})
		}
		if err != nil {
			t.Errorf("pushed again: %v", err)
		}
	}
	// Whatever is shown can be read.
	for info, err := range p.blobs.Blobs(ctx, repo, "") {
		if err == nil {
			_, err = blob.ReadAll(ctx, p.blobs, repo, ocispec.Descriptor{Digest: info.Digest, Size: info.Size})
		}
		if err != nil {
			t.Error(err)
		}
	}
}

// collectAll collects, and checks that the image and nothing else is left.
func (p *patient) collectAll(t *testing.T) {
	t.Helper()
	if _, err := blob.Collect(t.Context(), p.blobs, p.options()); err != nil {
		t.Error(err)
	}
	r := &rush{store: p.store}
	r.ahead.Store(int64(time.Until(p.now())))
	if err := r.nothingElse(t.Context(), []*rusher{{rush: r, repo: repo, images: []built{p.keep}}}); err != nil {
		t.Error(err)
	}
}
