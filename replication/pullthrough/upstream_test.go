package pullthrough_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage"
	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/blob/memblob"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/referrers"
	"github.com/wharfage/wharfage/replication"
	"github.com/wharfage/wharfage/replication/pullthrough"
)

// origin is an upstream of one repository that counts what it is asked, and lies
// as it is told.
type origin struct {
	mu    sync.Mutex
	blobs map[digest.Digest][]byte
	docs  map[digest.Digest]manifest.Record
	tags  map[string]digest.Digest
	calls map[string]int
	fail  func(call string) error // asked before each answer

	open   func(ctx context.Context, dgst digest.Digest, off int64) (io.ReadCloser, blob.Info, error)
	refers func() iter.Seq2[ocispec.Descriptor, error]
}

func newOrigin() *origin {
	return &origin{blobs: map[digest.Digest][]byte{}, docs: map[digest.Digest]manifest.Record{}, tags: map[string]digest.Digest{}, calls: map[string]int{}}
}

func (o *origin) source() replication.Source {
	return replication.Source{Blobs: o, Manifests: o, Referrers: o}
}

func (o *origin) called(call string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	kind, _, _ := strings.Cut(call, " ")
	o.calls[call]++
	if kind != call {
		o.calls[kind]++
	}
	if o.fail != nil {
		return o.fail(kind)
	}
	return nil
}

func (o *origin) count(call string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.calls[call]
}

func (o *origin) failing(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.fail = nil; err != nil {
		o.fail = func(string) error { return err }
	}
}

func (o *origin) Open(ctx context.Context, _ string, dgst digest.Digest, off, n int64) (io.ReadCloser, blob.Info, error) {
	call := "open "
	if n == 0 {
		call = "probe "
	}
	if err := o.called(call + string(dgst)); err != nil {
		return nil, blob.Info{}, err
	}
	o.mu.Lock()
	content, ok := o.blobs[dgst]
	o.mu.Unlock()
	if o.open != nil && n != 0 {
		return o.open(ctx, dgst, off)
	}
	if !ok {
		return nil, blob.Info{}, blob.ErrNotFound
	}
	if off > int64(len(content)) {
		return nil, blob.Info{}, blob.ErrRange
	}
	return io.NopCloser(bytes.NewReader(content[off:])), blob.Info{Digest: dgst, Size: int64(len(content))}, nil
}

func (o *origin) Get(_ context.Context, _ string, dgst digest.Digest) (manifest.Record, error) {
	if err := o.called("get " + string(dgst)); err != nil {
		return manifest.Record{}, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	rec, ok := o.docs[dgst]
	if !ok {
		return rec, manifest.ErrNotFound
	}
	return rec, nil
}

func (o *origin) Resolve(_ context.Context, _, tag string) (manifest.Tag, error) {
	if err := o.called("resolve " + tag); err != nil {
		return manifest.Tag{}, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	dgst, ok := o.tags[tag]
	if !ok {
		return manifest.Tag{}, manifest.ErrNotFound
	}
	return manifest.Tag{Name: tag, Digest: dgst}, nil
}

func (o *origin) Tags(context.Context, string, string) iter.Seq2[manifest.Tag, error] {
	return func(yield func(manifest.Tag, error) bool) { yield(manifest.Tag{}, blob.ErrUnsupported) }
}

func (o *origin) Referrers(_ context.Context, _ string, subject digest.Digest, _ string, _ digest.Digest) iter.Seq2[ocispec.Descriptor, error] {
	if o.refers != nil {
		return o.refers()
	}
	return func(yield func(ocispec.Descriptor, error) bool) {
		if err := o.called("referrers"); err != nil {
			yield(ocispec.Descriptor{}, err)
			return
		}
		o.mu.Lock()
		docs := slices.SortedFunc(maps.Values(o.docs), func(a, b manifest.Record) int { return cmp.Compare(a.Desc.Digest, b.Desc.Digest) })
		o.mu.Unlock()
		for _, rec := range docs {
			if rec.Subject == subject && !yield(rec.Desc, nil) {
				return
			}
		}
	}
}

func (o *origin) blob(content []byte) ocispec.Descriptor {
	desc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromBytes(content), Size: int64(len(content))}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.blobs[desc.Digest] = content
	return desc
}

// lie gives other content to the name. A transfer that nobody waits for any more
// may still be asking, here as in loses.
func (o *origin) lie(dgst digest.Digest, content []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.blobs[dgst] = content
}

func (o *origin) loses(dgst digest.Digest) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.docs, dgst)
}

func (o *origin) manifest(doc any, mediaType string, tags ...string) ocispec.Descriptor {
	raw, err := json.Marshal(doc)
	if err != nil {
		panic(err)
	}
	m, err := manifest.Parse(mediaType, raw)
	if err != nil {
		panic(err)
	}
	rec := m.Record(digest.FromBytes(raw), raw)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.docs[rec.Desc.Digest] = rec
	for _, t := range tags {
		o.tags[t] = rec.Desc.Digest
	}
	return ocispec.Descriptor{MediaType: mediaType, Digest: rec.Desc.Digest, Size: rec.Desc.Size}
}

// image makes an image of a config and the layers given.
func (o *origin) image(name string, layers []ocispec.Descriptor, subject *ocispec.Descriptor, tags ...string) ocispec.Descriptor {
	config := o.blob([]byte(`{"architecture":"amd64","os":"linux","name":"` + name + `"}`))
	config.MediaType = ocispec.MediaTypeImageConfig
	doc := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: layers, Subject: subject}
	doc.SchemaVersion = 2
	return o.manifest(doc, ocispec.MediaTypeImageManifest, tags...)
}

func (o *origin) index(children []ocispec.Descriptor, tags ...string) ocispec.Descriptor {
	doc := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: children}
	doc.SchemaVersion = 2
	return o.manifest(doc, ocispec.MediaTypeImageIndex, tags...)
}

// clock is set by a test.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func newClock() *clock { return &clock{t: time.Date(2026, 11, 27, 0, 0, 0, 0, time.UTC)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// world is a Handler over a Cache over stores in memory, with one rule: up is quay.io.
type world struct {
	*origin
	*clock
	cache *pullthrough.Cache
	store *wharfage.Handler // of the stores below
	serve http.Handler
	syncs []pullthrough.Sync
	mu    sync.Mutex
}

func newWorld(t testing.TB, set func(c *pullthrough.Cache)) *world {
	t.Helper()
	rules, err := pullthrough.NewRules([]pullthrough.Rule{{Prefix: "up", UpstreamURL: "quay.io"}}, pullthrough.RuleOptions{})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{origin: newOrigin(), clock: newClock(), store: wharfage.NewMemory()}
	w.cache = &pullthrough.Cache{Blobs: w.store.Blobs, Manifests: w.store.Manifests, Rules: rules, Now: w.now,
		Upstream: func(context.Context, pullthrough.Rule) (replication.Source, error) { return w.source(), nil },
		OnSync: func(_ context.Context, s pullthrough.Sync) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.syncs = append(w.syncs, s)
		}}
	if set != nil {
		set(w.cache)
	}
	t.Cleanup(w.cache.Close)
	w.handle()
	return w
}

// handle makes the Handler anew, as after a change of the Cache.
func (w *world) handle() *wharfage.Handler {
	h := &wharfage.Handler{Blobs: w.cache.CachedBlobs(), Manifests: w.cache.CachedManifests(), Referrers: w.cache.CachedReferrers(), Upstream: w.cache.Covers, Now: w.now}
	w.serve = pullthrough.Middleware(h)
	return h
}

// get asks the Handler for a path below /v2/up/.
func (w *world) get(path string, header ...string) *httptest.ResponseRecorder {
	return w.do("GET", "/v2/up/"+path, nil, header...)
}

func (w *world) do(method, path string, body []byte, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, bytes.NewReader(body))
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	rec := httptest.NewRecorder()
	w.serve.ServeHTTP(rec, r)
	return rec
}

// want gets a path, and is to get a status and content.
func (w *world) want(t testing.TB, path string, status int, content []byte) *httptest.ResponseRecorder {
	t.Helper()
	rec := w.get(path)
	if rec.Code != status || status == 200 && content != nil && !bytes.Equal(rec.Body.Bytes(), content) {
		t.Fatalf("GET %s: %d %.200q %v", path, rec.Code, rec.Body, rec.Header())
	}
	return rec
}

func (w *world) raw(dgst digest.Digest) []byte {
	w.origin.mu.Lock()
	defer w.origin.mu.Unlock()
	return w.docs[dgst].Raw
}

// stored lists the blobs of up/app in the store below, each of which is to have its digest.
func (w *world) stored(t testing.TB) (dgsts []digest.Digest) {
	t.Helper()
	for info, err := range w.store.Blobs.Blobs(t.Context(), "up/app", "") {
		if err != nil {
			t.Fatal(err)
		}
		if _, err := blob.ReadAll(t.Context(), w.store.Blobs, "up/app", ocispec.Descriptor{Digest: info.Digest, Size: info.Size}); err != nil {
			t.Errorf("the store holds bad bytes: %v", err)
		}
		dgsts = append(dgsts, info.Digest)
	}
	return dgsts
}

func pattern(n int, seed byte) []byte {
	b := make([]byte, n)
	x := uint32(seed) + 1
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return b
}

var _ referrers.Index = (*origin)(nil)

func layer(i int) []byte { return []byte(strings.Repeat(fmt.Sprintf("layer %d ", i), 20)) }

// guardless takes the guard off the blobs of a registry in memory.
func guardless(h *wharfage.Handler) { h.Blobs.(*memblob.Store).Guard = nil }

// inBubble runs a subtest whose waits take no time.
func inBubble(t *testing.T, name string, f func(t *testing.T)) {
	t.Run(name, func(t *testing.T) { synctest.Test(t, f) })
}
