//go:build linux

package crash

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage"
	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/blob/dirblob"
	"github.com/wharfage/wharfage/blob/memblob"
	"github.com/wharfage/wharfage/examples/store/boltstore"
	"github.com/wharfage/wharfage/examples/store/pgstore"
	"github.com/wharfage/wharfage/examples/store/pgstore/pgtest"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/manifest/memmanifest"
)

var writing = flag.Duration("writing", 2*time.Second, "how long images are pushed beside collectors, to each store")

// collected are the stores that are collected while they are written to. open
// takes the place of what it opened before in dir, if anything.
var collected = []struct {
	name string
	open func(t *testing.T, o collectedOptions) *store
}{
	{"memory", func(_ *testing.T, o collectedOptions) *store {
		m := new(memmanifest.Store)
		b := &memblob.Store{Lease: o.lease, Now: o.now, Guard: wharfage.GuardBlobs(m)}
		m.MissingBlobs = blob.Missing(b)
		return &store{b, m, nil, func() error { return nil }}
	}},
	{"boltstore", func(t *testing.T, o collectedOptions) *store { return openBolt(t, o, 0) }},
	{"boltstore with packs", func(t *testing.T, o collectedOptions) *store { return openBolt(t, o, 1<<10) }},
	{"pgstore", func(t *testing.T, o collectedOptions) *store {
		db, err := pgstore.Open(t.Context(), pgstore.Options{DSN: o.dsn(t), Objects: o.objects, Lease: o.lease, Now: o.now})
		if err != nil {
			t.Fatal(err)
		}
		return &store{db.Blobs(), db.Manifests(), []string{filepath.Join(o.dir, "objects")}, func() error { db.Close(); return nil }}
	}},
}

func openBolt(t *testing.T, o collectedOptions, packBelow int) *store {
	db, err := boltstore.Open(boltstore.Options{Dir: o.dir, Objects: o.objects, PackBelow: packBelow, Lease: o.lease, Now: o.now})
	if err != nil {
		t.Fatal(err)
	}
	return &store{db.Blobs(), db.Manifests(), []string{filepath.Join(o.dir, "objects"), filepath.Join(o.dir, packs)}, db.Close}
}

type collectedOptions struct {
	dir     string
	objects blob.Objects // in the folder objects of dir
	lease   time.Duration
	now     func() time.Time
	dsn     func(testing.TB) string // of an empty database, the same each time
}

func newCollectedOptions(t *testing.T, lease time.Duration, now func() time.Time) collectedOptions {
	dir, dsn := ramDir(t), ""
	return collectedOptions{dir, &dirblob.Objects{Dir: filepath.Join(dir, "objects")}, lease, now, func(t testing.TB) string {
		if dsn == "" {
			dsn = pgtest.Start(t)
		}
		return dsn
	}}
}

// TestCollectionBesideWriters: while collectors run without a pause, no image breaks
// and no push is refused within its lease; what nothing needs goes.
func TestCollectionBesideWriters(t *testing.T) {
	for _, c := range collected {
		for _, kind := range []struct {
			name       string
			collectors int
			killed     bool
		}{{"one collector", 1, false}, {"two that are killed at random points", 2, true}} {
			t.Run(c.name+"/"+kind.name, func(t *testing.T) {
				lease := max(*writing/5, time.Second)
				r := &rush{lease: lease, session: lease, writing: *writing}
				r.store = c.open(t, newCollectedOptions(t, r.lease, r.now))
				defer r.close()
				if err := r.run(t.Context(), kind.collectors, kind.killed); err != nil {
					t.Error(err)
				}
				t.Log(r)
			})
		}
	}
}

// careless is a store that deletes what is needed.
type careless struct{ *memblob.Store }

func (careless) Guarded() bool { return true }

// TestCollectionBesideWritersFindsMutants: a collector that breaks images is
// found.
func TestCollectionBesideWritersFindsMutants(t *testing.T) {
	r := &rush{lease: 20 * time.Millisecond, session: time.Hour, writing: time.Minute}
	m := new(memmanifest.Store)
	b := careless{&memblob.Store{Lease: r.lease, Now: r.now}}
	m.MissingBlobs = blob.Missing(b)
	r.store = &store{b, m, nil, func() error { return nil }}
	r.sees = new(memmanifest.Store) // another
	err := r.run(t.Context(), 1, false)
	if err == nil || !strings.Contains(err.Error(), "broken image") {
		t.Errorf("no image broke: %v", err)
	}
}

// rush is writers and collectors on one store.
type rush struct {
	*store
	lease   time.Duration // of collections
	session time.Duration // likewise
	writing time.Duration
	sees    manifest.Store // by collectors; nil means manifests
	ahead   atomic.Int64   // of real time, in nanoseconds

	pushed, late, skipped, deleted, read atomic.Int64
	runs, killed, removed                atomic.Int64

	mu       sync.Mutex
	garbage  map[string]time.Time // blobs that nothing needs, by object
	problems []error
}

func (r *rush) String() string {
	return fmt.Sprintf("%d images pushed, %d blobs not sent again, %d deleted, %d read back; %d collections, %d of them killed, removed %d things; %d pushes too slow for the lease of %v",
		r.pushed.Load(), r.skipped.Load(), r.deleted.Load(), r.read.Load(), r.runs.Load(), r.killed.Load(), r.removed.Load(), r.late.Load(), r.lease)
}

func (r *rush) now() time.Time { return time.Now().Add(time.Duration(r.ahead.Load())) }

func (r *rush) report(err error) {
	if err == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.problems) < 10 {
		r.problems = append(r.problems, err)
	}
}

func (r *rush) failed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.problems) > 0
}

// run returns what went wrong.
func (r *rush) run(ctx context.Context, collectors int, kills bool) error {
	const writers = 4
	r.garbage = map[string]time.Time{}
	began := time.Now()
	ending, stop := context.WithCancel(ctx)
	defer stop()
	var collecting, pushing sync.WaitGroup
	for i := range collectors {
		collecting.Go(func() { r.collect(ending, rand.New(rand.NewPCG(*firstSeed, uint64(i))), kills) })
	}
	all := make([]*rusher, writers)
	for i := range all {
		all[i] = &rusher{rush: r, repo: fmt.Sprintf("w%d/app", i), rand: rand.New(rand.NewPCG(*firstSeed, uint64(i)))}
		pushing.Go(func() {
			for time.Since(began) < r.writing && !r.failed() {
				r.report(all[i].push(ctx))
			}
		})
	}
	pushing.Wait()
	if r.writing >= 4*r.lease { // else everything may be leased yet
		r.report(r.oldGarbage(ctx, all, began.Add(r.writing/2)))
	}
	stop()
	collecting.Wait()
	for _, w := range all {
		for _, im := range w.images {
			r.report(w.pull(ctx, im))
		}
	}
	r.ahead.Add(int64(10 * r.lease))
	if _, err := blob.Collect(ctx, r.blobs, r.options()); err != nil {
		r.report(fmt.Errorf("the last collection: %w", err))
	}
	r.report(r.nothingElse(ctx, all))
	return errors.Join(r.problems...)
}

// oldGarbage returns an error if there is a blob that nothing has needed since before.
func (r *rush) oldGarbage(ctx context.Context, all []*rusher, before time.Time) error {
	for _, w := range all {
		infos, err := r.infos(ctx, w.repo)
		if err != nil {
			return err
		}
		for d := range infos {
			o := object("blob", w.repo, string(d))
			if at, ok := r.garbage[o]; ok && at.Before(before) {
				return fmt.Errorf("%s is left, and nothing has needed it for %v", o, time.Since(at))
			}
		}
	}
	return nil
}

// infos lists blobs without a touch.
func (r *rush) infos(ctx context.Context, repo string) (map[digest.Digest]blob.Info, error) {
	all := map[digest.Digest]blob.Info{}
	for info, err := range r.blobs.Blobs(ctx, repo, "") {
		if err != nil {
			return nil, err
		}
		all[info.Digest] = info
	}
	return all, nil
}

// nothingElse checks that the images of all and their blobs are all that is
// left.
func (r *rush) nothingElse(ctx context.Context, all []*rusher) error {
	for _, w := range all {
		infos, err := r.infos(ctx, w.repo)
		if err != nil {
			return err
		}
		for _, im := range w.images {
			for _, c := range im.layers {
				delete(infos, digest.FromBytes(c))
			}
		}
		if len(infos) > 0 {
			return fmt.Errorf("%s has %d blobs that nothing needs", w.repo, len(infos))
		}
	}
	for u, err := range r.blobs.Sessions(ctx, "") {
		if err == nil {
			err = fmt.Errorf("the upload %s is left", u.ID)
		}
		return err
	}
	if r.bytes == nil {
		return nil
	}
	return r.noStrays(ctx, r.now())
}

func (r *rush) options() blob.CollectOptions {
	sees := r.sees
	if sees == nil {
		sees = r.manifests
	}
	return blob.CollectOptions{Needed: needed(sees), Lease: r.lease, SessionLease: r.session, Confirm: true, Now: r.now}
}

// needed lists the blobs that manifests need.
func needed(s manifest.Store) func(context.Context, string) iter.Seq2[digest.Digest, error] {
	return func(ctx context.Context, repo string) iter.Seq2[digest.Digest, error] {
		return func(yield func(digest.Digest, error) bool) {
			for rec, err := range s.Manifests(ctx, repo, "") {
				if err != nil {
					yield("", err)
					return
				}
				for _, d := range rec.Blobs {
					if !yield(d, nil) {
						return
					}
				}
			}
		}
	}
}

// collect runs one collection after the other. If kills, most of them end at a
// random point, and the next knows nothing of them.
func (r *rush) collect(ctx context.Context, chance *rand.Rand, kills bool) {
	for ctx.Err() == nil {
		run, kill := context.WithCancel(ctx)
		if kills && chance.IntN(4) > 0 {
			time.AfterFunc(time.Duration(chance.IntN(30_000))*time.Microsecond, kill)
		}
		report, err := blob.Collect(run, r.blobs, r.options())
		r.runs.Add(1)
		r.removed.Add(int64(report.Blobs.Removed.Count + report.Sessions.Removed.Count + report.Strays.Removed.Count))
		switch {
		case run.Err() != nil:
			r.killed.Add(1)
		case err != nil:
			r.report(err)
		}
		kill()
	}
}

// rusher is one writer.
type rusher struct {
	*rush
	repo   string
	rand   *rand.Rand
	n      int
	images []built
}

type built struct {
	digest digest.Digest
	raw    []byte
	layers [][]byte
}

// push is an image of three blobs that others have too or had, and one of its own. Now and then
// it leaves garbage behind, deletes an image, or pulls one.
func (w *rusher) push(ctx context.Context) error {
	w.n++
	began := time.Now()
	im := built{layers: [][]byte{fmt.Appendf(nil, "%s %d", w.repo, w.n)}}
	for range 3 {
		im.layers = append(im.layers, bytesOf(w.rand.IntN(8)))
	}
	for _, content := range im.layers {
		if err := w.ensure(ctx, content); err != nil {
			return err
		}
	}
	var err error
	if im.raw, im.digest, err = image(im.layers, ""); err != nil {
		return err
	}
	pusher := manifest.Pusher{Store: w.manifests, Now: w.now}
	_, err = pusher.Push(ctx, w.repo, manifest.PushRequest{Raw: im.raw, Tags: []string{fmt.Sprint("v", w.n%10)}})
	switch {
	case errors.Is(err, manifest.ErrMissing) && time.Since(began) > w.lease/2:
		w.late.Add(1) // on a busy machine
		return nil
	case err != nil:
		return fmt.Errorf("after %v of a lease of %v: %w", time.Since(began), w.lease, err)
	}
	w.pushed.Add(1)
	w.images = append(w.images, im)
	switch w.rand.IntN(6) {
	case 0:
		return w.litter(ctx)
	case 1, 2:
		return w.delete(ctx)
	case 3:
		w.read.Add(1)
		return w.pull(ctx, w.images[w.rand.IntN(len(w.images))])
	}
	return nil
}

// ensure asks for a blob, and sends it if it is not there, as clients do.
func (w *rusher) ensure(ctx context.Context, content []byte) error {
	desc := describe("", content)
	infos, err := w.blobs.Stat(ctx, w.repo, []digest.Digest{desc.Digest})
	switch {
	case err != nil:
		return err
	case infos[0].Digest != "":
		w.skipped.Add(1)
		return nil
	}
	if from := fmt.Sprintf("w%d/app", w.rand.IntN(4)); w.rand.IntN(2) == 0 {
		err := blob.Mount(ctx, w.blobs, from, w.repo, desc.Digest)
		if !errors.Is(err, blob.ErrNotFound) {
			return err
		}
	}
	if w.rand.IntN(2) == 0 {
		return blob.Put(ctx, w.blobs, w.repo, desc, bytes.NewReader(content))
	}
	u, err := w.blobs.Begin(ctx, w.repo, digest.SHA256)
	if err == nil {
		u, err = blob.Append(ctx, w.blobs, u, 0, bytes.NewReader(content[:len(content)/2]))
	}
	if err == nil {
		err = blob.Finish(ctx, w.blobs, u, u.Size, bytes.NewReader(content[len(content)/2:]), desc.Digest)
	}
	return err
}

// litter leaves a blob, an upload, and a write that fails.
func (w *rusher) litter(ctx context.Context) error {
	content := fmt.Appendf(nil, "garbage of %s %d", w.repo, w.n)
	desc := describe("", content)
	if err := blob.Put(ctx, w.blobs, w.repo, desc, bytes.NewReader(content)); err != nil {
		return err
	}
	w.mu.Lock()
	w.garbage[object("blob", w.repo, string(desc.Digest))] = time.Now()
	w.mu.Unlock()
	if err := blob.Put(ctx, w.blobs, w.repo, ocispec.Descriptor{Digest: desc.Digest, Size: 1 << 20}, bytes.NewReader(content)); err == nil {
		return errors.New("a blob that is too short was taken")
	}
	u, err := w.blobs.Begin(ctx, w.repo, digest.SHA256)
	if err == nil {
		_, err = blob.Append(ctx, w.blobs, u, 0, bytes.NewReader(bytesOf(w.rand.IntN(contents))))
	}
	return err
}

// delete removes an image. Its own blob is garbage then.
func (w *rusher) delete(ctx context.Context) error {
	i := w.rand.IntN(len(w.images))
	im := w.images[i]
	w.images = slices.Delete(w.images, i, i+1)
	w.deleted.Add(1)
	err := w.manifests.Apply(ctx, w.repo, manifest.Change{Delete: []manifest.Removal{{Digest: im.digest}}, At: w.now()})
	w.mu.Lock()
	defer w.mu.Unlock()
	w.garbage[object("blob", w.repo, string(digest.FromBytes(im.layers[0])))] = time.Now()
	return err
}

// pull reads an image in full.
func (w *rusher) pull(ctx context.Context, im built) error {
	rec, err := w.manifests.Get(ctx, w.repo, im.digest)
	if err == nil && !bytes.Equal(rec.Raw, im.raw) {
		err = errors.New("wrong bytes")
	}
	for _, content := range im.layers {
		if err == nil {
			err = same(content, func() (io.ReadCloser, error) {
				r, _, err := w.blobs.Open(ctx, w.repo, digest.FromBytes(content), 0, -1)
				return r, err
			})
		}
	}
	if err != nil {
		return fmt.Errorf("broken image %s in %s: %w", im.digest, w.repo, err)
	}
	return nil
}
