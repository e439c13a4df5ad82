package replication_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/blob/memblob"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/manifest/memmanifest"
	"github.com/wharfage/wharfage/referrers"
	"github.com/wharfage/wharfage/replication"
)

// registry is a pair of stores, and the sides over it.
type registry struct {
	t         testing.TB
	blobs     *memblob.Store
	manifests *memmanifest.Store
}

func newRegistry(t testing.TB) registry {
	blobs, manifests := empty()
	return registry{t, blobs, manifests}
}

func (g registry) source() replication.Source { return replication.LocalSource(g.blobs, g.manifests) }
func (g registry) target() replication.Target { return replication.LocalTarget(g.blobs, g.manifests) }

func (g registry) blob(repo, content string) ocispec.Descriptor {
	g.t.Helper()
	desc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromString(content), Size: int64(len(content))}
	if err := blob.Put(context.Background(), g.blobs, repo, desc, strings.NewReader(content)); err != nil {
		g.t.Fatal(err)
	}
	return desc
}

func (g registry) push(repo string, raw []byte, desc ocispec.Descriptor, err error, tags ...string) ocispec.Descriptor {
	g.t.Helper()
	if err == nil {
		p := manifest.Pusher{Store: g.manifests}
		_, err = p.Push(context.Background(), repo, manifest.PushRequest{MediaType: desc.MediaType, Raw: raw, Tags: tags})
	}
	if err != nil {
		g.t.Fatal(err)
	}
	return ocispec.Descriptor{MediaType: desc.MediaType, Digest: desc.Digest, Size: desc.Size}
}

// image pushes an image with the layers given by their content.
func (g registry) image(repo string, layers []string, tags ...string) ocispec.Descriptor {
	g.t.Helper()
	config := g.blob(repo, fmt.Sprintf(`{"layers":%q}`, digest.FromString(strings.Join(layers, "\n"))))
	config.MediaType = ocispec.MediaTypeImageConfig
	draft := manifest.ImageDraft{Config: &config}
	for _, layer := range layers {
		draft.Layers = append(draft.Layers, g.blob(repo, layer))
	}
	raw, desc, err := draft.Build()
	return g.push(repo, raw, desc, err, tags...)
}

// referrer pushes an artifact with one layer, which refers to subject.
func (g registry) referrer(repo string, subject ocispec.Descriptor, artifactType, layer string) ocispec.Descriptor {
	g.t.Helper()
	g.blob(repo, "{}")
	raw, desc, err := manifest.ImageDraft{ArtifactType: artifactType, Subject: &subject, Layers: []ocispec.Descriptor{g.blob(repo, layer)}}.Build()
	return g.push(repo, raw, desc, err)
}

func (g registry) index(repo string, children []ocispec.Descriptor, tags ...string) ocispec.Descriptor {
	g.t.Helper()
	raw, desc, err := manifest.IndexDraft{Manifests: children}.Build()
	return g.push(repo, raw, desc, err, tags...)
}

// platforms pushes an index of images for n platforms, with as many layers each.
func (g registry) platforms(repo string, n, layers int, tags ...string) ocispec.Descriptor {
	g.t.Helper()
	var children []ocispec.Descriptor
	for i := range n {
		var content []string
		for j := range layers {
			content = append(content, fmt.Sprintf("layer %d of platform %d", j, i))
		}
		child := g.image(repo, content)
		child.Platform = &ocispec.Platform{OS: "linux", Architecture: fmt.Sprintf("arch%d", i)}
		children = append(children, child)
	}
	return g.index(repo, children, tags...)
}

// signed pushes an image with n referrers, which share the empty config.
func (g registry) signed(repo string, n int, tag string) ocispec.Descriptor {
	g.t.Helper()
	g.blob(repo, "{}")
	raw, desc, err := manifest.ImageDraft{ArtifactType: "a/image", Layers: []ocispec.Descriptor{g.blob(repo, "layer")}}.Build()
	image := g.push(repo, raw, desc, err, tag)
	for i := range n {
		g.referrer(repo, image, "a/signature", fmt.Sprintf("signature %d", i))
	}
	return image
}

// complete fails if a manifest lacks a blob or child, or a referrer its subject.
func (g registry) complete() {
	g.t.Helper()
	for repo, err := range g.manifests.Repos(context.Background(), "") {
		if err != nil {
			g.t.Fatal(err)
		}
		for rec, err := range g.manifests.Manifests(context.Background(), repo, "") {
			if err != nil {
				g.t.Fatal(err)
			}
			missing, err := blob.Missing(g.blobs)(context.Background(), repo, rec.Blobs)
			if err != nil || len(missing) > 0 {
				g.t.Fatalf("%s lacks its blobs %v, %v", rec.Desc.Digest, missing, err)
			}
			for _, d := range append(rec.Manifests, rec.Subject) {
				if _, err := g.manifests.Get(context.Background(), repo, d); d != "" && err != nil {
					g.t.Fatalf("%s is there before %s: %v", rec.Desc.Digest, d, err)
				}
			}
		}
	}
}

// content is everything that a repository shows.
func (g registry) content(repo string) map[string]bool {
	g.t.Helper()
	out := map[string]bool{}
	for rec, err := range g.manifests.Manifests(context.Background(), repo, "") {
		if err != nil {
			g.t.Fatal(err)
		}
		out["manifest "+string(rec.Desc.Digest)] = true
	}
	for info, err := range g.blobs.Blobs(context.Background(), repo, "") {
		if err != nil {
			g.t.Fatal(err)
		}
		out["blob "+string(info.Digest)] = true
	}
	for tag, err := range g.manifests.Tags(context.Background(), repo, "") {
		if err != nil {
			g.t.Fatal(err)
		}
		out["tag "+tag.Name+" "+string(tag.Digest)] = true
	}
	return out
}

func (g registry) same(repo string, other registry, otherRepo string) {
	g.t.Helper()
	a, b := g.content(repo), other.content(otherRepo)
	for x := range a {
		if !b[x] {
			g.t.Errorf("the target lacks %s", x)
		}
	}
	for x := range b {
		if !a[x] {
			g.t.Errorf("the target has %s", x)
		}
	}
}

// tap counts the requests that a registry over HTTP would see, and may fail them.
type tap struct {
	mu       sync.Mutex
	requests map[string]int // by kind: "source get", "target push" …
	objects  map[string]int // requests by kind and object
	total    int
	before   func(n int, kind string) error // n from 1
	after    func()                         // after each at the target
	flow     func(n int) int                // of bytes read from the source; how many pass, then an error
	lost     map[string]bool                // objects whose answer at the target was lost, once; nil loses none
}

var errTap = errors.New("tap")

func (p *tap) call(kind, object string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.requests == nil {
		p.requests, p.objects = map[string]int{}, map[string]int{}
	}
	p.total++
	p.requests[kind]++
	p.objects[kind+" "+object]++
	if p.before != nil {
		return p.before(p.total, kind)
	}
	return nil
}

// done is for what has been done for an object at the target.
func (p *tap) done(object string, err error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil && p.after != nil {
		p.after()
	}
	if err == nil && p.lost != nil && !p.lost[object] {
		p.lost[object] = true
		err = &replication.TemporaryError{Err: errTap}
	}
	return err
}

func (p *tap) source(s replication.Source) replication.Source {
	s.Blobs = tapBlobs{p, s.Blobs}
	s.Manifests = tapManifests{p, "source ", s.Manifests, nil}
	s.Referrers = tapReferrers{p, "source ", s.Referrers}
	return s
}

// target wraps a local target; receives makes it a Receiver.
func (p *tap) target(g registry, receives bool) replication.Target {
	t := g.target()
	m := t.Manifests.(replication.LocalManifests)
	t.Manifests = tapTarget{tapManifests{p, "target ", m, m}, m}
	t.Referrers = tapReferrers{p, "target ", t.Referrers}
	s := tapStore{g.blobs, p}
	t.Blobs = s
	if receives {
		t.Blobs = tapReceiver{p, g.blobs, s}
	}
	return t
}

type tapBlobs struct {
	p *tap
	replication.BlobReader
}

func (b tapBlobs) Open(ctx context.Context, repo string, dgst digest.Digest, off, n int64) (io.ReadCloser, blob.Info, error) {
	if err := b.p.call("source blob", string(dgst)); err != nil {
		return nil, blob.Info{}, err
	}
	r, info, err := b.BlobReader.Open(ctx, repo, dgst, off, n)
	if err == nil && b.p.flow != nil {
		r = &tapFlow{r, b.p}
	}
	return r, info, err
}

type tapFlow struct {
	io.ReadCloser
	p *tap
}

func (f *tapFlow) Read(p []byte) (int, error) {
	n, err := f.ReadCloser.Read(p[:min(len(p), 1<<10)])
	f.p.mu.Lock()
	defer f.p.mu.Unlock()
	if pass := f.p.flow(n); pass < n {
		return pass, &replication.TemporaryError{Err: io.ErrUnexpectedEOF}
	}
	return n, err
}

type tapManifests struct {
	p    *tap
	side string
	replication.ManifestReader
	stat manifest.Stater
}

func (m tapManifests) Get(ctx context.Context, repo string, dgst digest.Digest) (manifest.Record, error) {
	if err := m.p.call(m.side+"get", string(dgst)); err != nil {
		return manifest.Record{}, err
	}
	return m.ManifestReader.Get(ctx, repo, dgst)
}

func (m tapManifests) Resolve(ctx context.Context, repo, tag string) (manifest.Tag, error) {
	if err := m.p.call(m.side+"resolve", tag); err != nil {
		return manifest.Tag{}, err
	}
	return m.ManifestReader.Resolve(ctx, repo, tag)
}

func (m tapManifests) Tags(ctx context.Context, repo, after string) iter.Seq2[manifest.Tag, error] {
	if err := m.p.call(m.side+"tags", repo); err != nil {
		return func(yield func(manifest.Tag, error) bool) { yield(manifest.Tag{}, err) }
	}
	return m.ManifestReader.Tags(ctx, repo, after)
}

type tapTarget struct {
	tapManifests
	replication.LocalManifests
}

func (m tapTarget) Resolve(ctx context.Context, repo, tag string) (manifest.Tag, error) {
	return m.tapManifests.Resolve(ctx, repo, tag)
}

func (m tapTarget) Tags(ctx context.Context, repo, after string) iter.Seq2[manifest.Tag, error] {
	return m.tapManifests.Tags(ctx, repo, after)
}

func (m tapTarget) Get(ctx context.Context, repo string, dgst digest.Digest) (manifest.Record, error) {
	return m.tapManifests.Get(ctx, repo, dgst)
}

func (m tapTarget) Stat(ctx context.Context, repo string, dgsts []digest.Digest) ([]ocispec.Descriptor, error) {
	for _, d := range dgsts {
		if err := m.p.call("target stat", string(d)); err != nil {
			return nil, err
		}
	}
	return m.stat.Stat(ctx, repo, dgsts)
}

func (m tapTarget) Push(ctx context.Context, repo string, in manifest.PushRequest) (manifest.Pushed, error) {
	for range max(len(in.Tags), 1) {
		if err := m.p.call("target push", string(in.Digest)); err != nil {
			return manifest.Pushed{}, err
		}
	}
	done, err := m.LocalManifests.Push(ctx, repo, in)
	return done, m.p.done(strings.Join(append(in.Tags, string(in.Digest)), " "), err)
}

type tapReferrers struct {
	p    *tap
	side string
	referrers.Index
}

func (x tapReferrers) Referrers(ctx context.Context, repo string, subject digest.Digest, artifactType string, after digest.Digest) iter.Seq2[ocispec.Descriptor, error] {
	if err := x.p.call(x.side+"referrers", string(subject)); err != nil {
		return func(yield func(ocispec.Descriptor, error) bool) { yield(ocispec.Descriptor{}, err) }
	}
	return x.Index.Referrers(ctx, repo, subject, artifactType, after)
}

type tapStore struct {
	*memblob.Store
	p *tap
}

func (s tapStore) Put(ctx context.Context, repo string, desc ocispec.Descriptor, r io.Reader) error {
	if err := s.p.call("target put", string(desc.Digest)); err != nil {
		return err
	}
	return s.p.done(string(desc.Digest), s.Store.Put(ctx, repo, desc, r))
}

func (s tapStore) Append(ctx context.Context, u blob.Upload, r io.Reader) (blob.Upload, error) {
	if err := s.p.call("target append", u.ID); err != nil {
		return u, err
	}
	return s.Store.Append(ctx, u, r)
}

// tapReceiver asks and begins in one request, and sends in another.
type tapReceiver struct {
	p     *tap
	store *memblob.Store
	blob.Writer
}

func (s tapReceiver) Receive(ctx context.Context, repo string, desc ocispec.Descriptor, from []string, open func(context.Context, int64) (io.ReadCloser, error)) (replication.Received, error) {
	if err := s.p.call("target post", string(desc.Digest)); err != nil {
		return "", err
	}
	for _, f := range append([]string{repo}, from...) {
		if s.store.Mount(ctx, f, repo, desc.Digest) == nil {
			if f == repo {
				return replication.Present, s.p.done("present "+string(desc.Digest), nil)
			}
			return replication.Mounted, s.p.done("mounted "+string(desc.Digest), nil)
		}
	}
	r, err := open(ctx, 0)
	if err != nil {
		return "", err
	}
	defer r.Close()
	return replication.Sent, s.Put(ctx, repo, desc, r)
}
