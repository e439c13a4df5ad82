package replication_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/referrers"
	"github.com/wharfage/wharfage/replication"
)

const from, to = "team/app", "mirror/app"

var ctx = context.Background()

// TestRequests holds the copier to the number of requests of a registry over HTTP:
// GET and PUT a manifest, GET, POST and PUT a blob, a HEAD a tag and a listing on each
// side.
func TestRequests(t *testing.T) {
	for _, c := range []struct {
		name         string
		fill         func(registry) ocispec.Descriptor
		o            replication.CopyOptions
		least, again int
	}{
		{"image and 1,000 referrers", func(g registry) ocispec.Descriptor { return g.signed(from, 1000, "v1") },
			replication.CopyOptions{Referrers: 1}, 5009 + 4, 5},
		{"image and 1,000 referrers, and what refers to those", func(g registry) ocispec.Descriptor { return g.signed(from, 1000, "v1") },
			replication.CopyOptions{Referrers: replication.AllReferrers}, 5009 + 4 + 2000, 5 + 2000},
		{"index of 20 platforms and 8 layers", func(g registry) ocispec.Descriptor { return g.platforms(from, 20, 8, "v1") },
			replication.CopyOptions{}, 582 + 2, 2},
		{"index whose children may have referrers", func(g registry) ocispec.Descriptor { return g.platforms(from, 3, 2, "v1") },
			replication.CopyOptions{Referrers: 1}, 2*4 + 3*9 + 2 + 2*4 + 1, 2 + 1 + 2*4},
		{"image without referrers", func(g registry) ocispec.Descriptor { return g.image(from, []string{"a", "b"}, "v1") },
			replication.CopyOptions{Referrers: 1}, 2 + 2 + 2 + 9, 5},
	} {
		t.Run(c.name, func(t *testing.T) {
			src, dst := newRegistry(t), newRegistry(t)
			c.fill(src)
			var copier replication.Copier
			for run, want := range []int{c.least, c.again} {
				p := &tap{}
				if _, err := copier.Copy(ctx, p.source(src.source()), from, "v1", p.target(dst, true), to, c.o); err != nil {
					t.Fatal(err)
				}
				if p.total != want {
					t.Errorf("run %d: %d requests, want %d: %v", run+1, p.total, want, p.requests)
				}
			}
			src.same(from, dst, to)
			dst.complete()
		})
	}
}

// TestOneMoreReferrer costs what it is, and the comparison.
func TestOneMoreReferrer(t *testing.T) {
	src, dst := newRegistry(t), newRegistry(t)
	image := src.signed(from, 1000, "v1")
	var copier replication.Copier
	o := replication.CopyOptions{Referrers: 1}
	if _, err := copier.Copy(ctx, src.source(), from, "v1", dst.target(), to, o); err != nil {
		t.Fatal(err)
	}
	src.referrer(from, image, "a/signature", "one more")
	p := &tap{}
	if _, err := copier.Copy(ctx, p.source(src.source()), from, "v1", p.target(dst, true), to, o); err != nil {
		t.Fatal(err)
	}
	// Tags, the image and lists; GET and PUT the referrer; its blob, and its config that is there.
	if want := 2 + 1 + 2 + 2 + 3 + 1; p.total > want {
		t.Errorf("%d requests, want at most %d: %v", p.total, want, p.requests)
	}
	src.same(from, dst, to)
}

// TestUpdateAsks: one of 20 children has changed, so asking for the others pays.
func TestUpdateAsks(t *testing.T) {
	src, dst := newRegistry(t), newRegistry(t)
	src.platforms(from, 20, 8, "v1")
	var copier replication.Copier
	if _, err := copier.Copy(ctx, src.source(), from, "v1", dst.target(), to, replication.CopyOptions{}); err != nil {
		t.Fatal(err)
	}
	src.platforms(from, 21, 8, "v1")
	p := &tap{}
	got, err := copier.Copy(ctx, p.source(src.source()), from, "v1", p.target(dst, true), to, replication.CopyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	// Tags, the index, a look at it and 21 children, and one child of 9 blobs.
	if want := 2 + 2 + 22 + 2 + 27; p.total != want {
		t.Errorf("%d requests, want %d: %v", p.total, want, p.requests)
	}
	if want := (replication.Tally{Sent: 2, Present: 20, Bytes: got.Manifests.Bytes}); got.Manifests != want {
		t.Errorf("manifests %+v, want %+v", got.Manifests, want)
	}
}

// TestOrder: at no step the target shows what lacks something.
func TestOrder(t *testing.T) {
	for _, receives := range []bool{false, true} {
		src, dst := newRegistry(t), newRegistry(t)
		index := src.platforms(from, 4, 3, "v1")
		sbom := src.referrer(from, index, "a/sbom", "sbom")
		src.referrer(from, sbom, "a/signature", "of the sbom")
		src.index(from, []ocispec.Descriptor{sbom, index}) // depends on both, and refers to nothing
		p := &tap{after: dst.complete}
		var copier replication.Copier
		got, err := copier.Copy(ctx, p.source(src.source()), from, "v1", p.target(dst, receives), to, replication.CopyOptions{Referrers: replication.AllReferrers})
		if err != nil {
			t.Fatal(err)
		}
		if got.Manifests.Sent != 7 || !slices.Equal(got.Tags, []string{"v1"}) || got.Root.Digest != index.Digest {
			t.Errorf("%+v", got)
		}
	}
}

// TestTagsComeLast: who sees the tag sees the referrers.
func TestTagsComeLast(t *testing.T) {
	src, dst := newRegistry(t), newRegistry(t)
	image := src.signed(from, 20, "v1")
	p := &tap{}
	p.after = func() {
		if _, err := dst.manifests.Resolve(ctx, to, "v1"); err != nil {
			return
		}
		n := 0
		for _, err := range dst.manifests.Referrers(ctx, to, image.Digest, "", "") {
			if err != nil {
				t.Error(err)
			}
			n++
		}
		if n != 20 {
			t.Errorf("the tag came after %d referrers of 20", n)
		}
	}
	var copier replication.Copier
	if _, err := copier.Copy(ctx, p.source(src.source()), from, "v1", p.target(dst, true), to, replication.CopyOptions{Referrers: 1}); err != nil {
		t.Fatal(err)
	}
	src.same(from, dst, to)
}

// TestReferrersThatListWhatIsAbove: a referrer of a child that is itself an index
// of the root.
func TestReferrersThatListWhatIsAbove(t *testing.T) {
	src, dst := newRegistry(t), newRegistry(t)
	child := src.image(from, []string{"a"})
	root := src.index(from, []ocispec.Descriptor{child}, "v1")
	raw, desc, err := manifest.IndexDraft{ArtifactType: "a/bundle", Subject: &child, Manifests: []ocispec.Descriptor{root}}.Build()
	bundle := src.push(from, raw, desc, err)
	src.referrer(from, bundle, "a/signature", "of the bundle")
	for _, requests := range []int{0, 1} {
		p := &tap{after: dst.complete}
		c := replication.Copier{Requests: requests}
		if _, err := c.Copy(ctx, p.source(src.source()), from, "v1", p.target(dst, true), to, replication.CopyOptions{Referrers: -1}); err != nil {
			t.Fatal(err)
		}
		src.same(from, dst, to)
		dst = newRegistry(t)
	}
}

// TestEveryCallFails: whichever call fails, the error comes out, the target is
// complete as far as it goes, and a second run brings the rest.
func TestEveryCallFails(t *testing.T) {
	for _, receives := range []bool{false, true} {
		for n := 1; ; n++ {
			src, dst := newRegistry(t), newRegistry(t)
			index := src.platforms(from, 3, 2, "v1")
			src.referrer(from, index, "a/sbom", "sbom")
			p := &tap{after: dst.complete}
			hit := false
			p.before = func(i int, _ string) error {
				if i == n {
					hit = true
					return errTap
				}
				return nil
			}
			var copier replication.Copier
			o := replication.CopyOptions{Referrers: 1}
			_, err := copier.Copy(ctx, p.source(src.source()), from, "v1", p.target(dst, receives), to, o)
			if !hit {
				if n < 40 || err != nil {
					t.Errorf("%d calls in all, error %v", n-1, err)
				}
				break
			}
			if e, ok := errors.AsType[*replication.Error](err); !errors.Is(err, errTap) || !ok || e.Side == "" {
				t.Fatalf("call %d: error %v, want the tap's with its side", n, err)
			}
			p.before = nil
			if _, err := copier.Copy(ctx, p.source(src.source()), from, "v1", p.target(dst, receives), to, o); err != nil {
				t.Fatalf("after call %d failed: %v", n, err)
			}
			src.same(from, dst, to)
		}
	}
}

// TestKilledAtEveryRequest: a copy of an index of 40 blobs is killed at each request,
// and begun again by a new Copier. The target is complete at each step, and no blob
// is sent twice, but for those that were under way.
func TestKilledAtEveryRequest(t *testing.T) {
	for _, requests := range []int{1, 16} {
		for n := 1; ; n++ {
			src, dst := newRegistry(t), newRegistry(t)
			src.platforms(from, 8, 4, "v1")
			kill, cancel := context.WithCancel(ctx)
			p := &tap{after: dst.complete}
			p.before = func(i int, _ string) error {
				if i >= n {
					cancel()
					return kill.Err()
				}
				return nil
			}
			copier := replication.Copier{Requests: requests}
			_, err := copier.Copy(kill, p.source(src.source()), from, "v1", p.target(dst, true), to, replication.CopyOptions{})
			cancel()
			if err == nil {
				if n < 100 {
					t.Errorf("%d requests in all", n-1)
				}
				break
			}
			if !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
			put := p.requests["target put"]
			again := &tap{after: dst.complete}
			if _, err := new(replication.Copier).Copy(ctx, again.source(src.source()), from, "v1", again.target(dst, true), to, replication.CopyOptions{}); err != nil {
				t.Fatal(err)
			}
			src.same(from, dst, to)
			if sum := put + again.requests["target put"]; sum > 40+requests {
				t.Errorf("killed at %d: %d blobs sent for 40, %d at once", n, sum, requests)
			}
		}
	}
}

// TestLostAnswers: each call at the target succeeds, and its answer is lost once.
func TestLostAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, receives := range []bool{false, true} {
			src, dst := newRegistry(t), newRegistry(t)
			image := src.signed(from, 5, "v1")
			src.index(from, []ocispec.Descriptor{image}, "v2")
			p := &tap{after: dst.complete, lost: map[string]bool{}}
			var copier replication.Copier
			for _, tag := range []string{"v1", "v2"} {
				got, err := copier.Copy(ctx, p.source(src.source()), from, tag, p.target(dst, receives), to, replication.CopyOptions{Referrers: 1})
				if err != nil || !slices.Equal(got.Tags, []string{tag}) {
					t.Fatal(got, err)
				}
			}
			src.same(from, dst, to)
			if len(p.lost) < 10 {
				t.Errorf("%d answers were lost", len(p.lost))
			}
		}
	})
}

// TestByDigest gives no tag, unless it is asked to.
func TestByDigest(t *testing.T) {
	src, dst := newRegistry(t), newRegistry(t)
	image := src.image(from, []string{"a"})
	for i, tags := range [][]string{nil, {"v1", "v2"}, nil, {"v1"}} {
		p := &tap{}
		got, err := new(replication.Copier).Copy(ctx, p.source(src.source()), from, string(image.Digest), p.target(dst, true), to, replication.CopyOptions{Tags: tags})
		if err != nil || !slices.Equal(got.Tags, tags) || got.Root.Digest != image.Digest {
			t.Errorf("%+v, %v", got, err)
		}
		if sent := p.requests["target post"]; (i == 0) != (sent > 0) {
			t.Errorf("call %d: %v", i, p.requests)
		}
	}
}

// TestEmbeddedData is not asked for.
func TestEmbeddedData(t *testing.T) {
	src, dst := newRegistry(t), newRegistry(t)
	config := src.blob(from, "{}")
	config.MediaType, config.Data = manifest.MediaTypeEmpty, []byte("{}")
	raw, desc, err := manifest.ImageDraft{ArtifactType: "a/b", Config: &config, Layers: []ocispec.Descriptor{config}}.Build()
	src.push(from, raw, desc, err, "v1")
	p := &tap{}
	if _, err := new(replication.Copier).Copy(ctx, p.source(src.source()), from, "v1", dst.target(), to, replication.CopyOptions{}); err != nil {
		t.Fatal(err)
	}
	if n := p.requests["source blob"]; n > 0 {
		t.Errorf("%d blobs were read", n)
	}
	src.same(from, dst, to)
}

// TestIndexOfWhatIsNotKnown: build caches list layers, and others manifests of types of
// their own.
func TestIndexOfWhatIsNotKnown(t *testing.T) {
	const typ = "application/vnd.example.manifest.v1+json"
	src, dst := newRegistry(t), newRegistry(t)
	accept := append(manifest.DefaultAccept(), typ)
	own := []byte(`{"hello":"world"}`)
	if _, err := (&manifest.Pusher{Store: src.manifests, Accept: accept}).Push(ctx, from, manifest.PushRequest{MediaType: typ, Raw: own}); err != nil {
		t.Fatal(err)
	}
	src.index(from, []ocispec.Descriptor{src.blob(from, "layer"), {MediaType: typ, Digest: digest.FromBytes(own), Size: int64(len(own))}}, "v1")
	target := dst.target()
	target.Manifests = replication.LocalManifests{Reader: dst.manifests, Pusher: &manifest.Pusher{Store: dst.manifests, Accept: accept}}
	for range 2 {
		if _, err := new(replication.Copier).Copy(ctx, src.source(), from, "v1", target, to, replication.CopyOptions{Verify: true}); err != nil {
			t.Fatal(err)
		}
		src.same(from, dst, to)
	}
}

// slowManifests takes a while for one, in which others begin; slowBlobs takes longer.
type slowManifests struct {
	replication.ManifestReader
	slow digest.Digest
}

func (m slowManifests) Get(ctx context.Context, repo string, dgst digest.Digest) (manifest.Record, error) {
	if dgst == m.slow {
		time.Sleep(time.Second)
	}
	return m.ManifestReader.Get(ctx, repo, dgst)
}

type slowBlobs struct{ replication.BlobReader }

func (b slowBlobs) Open(ctx context.Context, repo string, dgst digest.Digest, off, n int64) (io.ReadCloser, blob.Info, error) {
	time.Sleep(time.Minute)
	return b.BlobReader.Open(ctx, repo, dgst, off, n)
}

// TestNoMemoryForAListedManifest: an index lists under a type of its own what its images, which take
// all of the memory while they wait for it, name as a layer.
func TestNoMemoryForAListedManifest(t *testing.T) {
	const typ = "application/vnd.example.manifest.v1+json"
	synctest.Test(t, func(t *testing.T) {
		src, dst := newRegistry(t), newRegistry(t)
		src.manifests.MissingBlobs = func(context.Context, string, []digest.Digest) ([]digest.Digest, error) { return nil, nil } // the layer is no blob
		own := []byte(`{"hello":"world"}`)
		desc := ocispec.Descriptor{MediaType: typ, Digest: digest.FromBytes(own), Size: int64(len(own))}
		if _, err := (&manifest.Pusher{Store: src.manifests, Accept: append(manifest.DefaultAccept(), typ)}).Push(ctx, from, manifest.PushRequest{MediaType: typ, Raw: own}); err != nil {
			t.Fatal(err)
		}
		src.blob(from, "{}")
		raw, image, err := manifest.ImageDraft{ArtifactType: "a/b", Layers: []ocispec.Descriptor{{MediaType: "a/layer", Digest: desc.Digest, Size: desc.Size}}}.Build()
		image = src.push(from, raw, image, err)
		src.index(from, []ocispec.Descriptor{image, desc}, "v1")
		target := dst.target()
		target.Manifests = replication.LocalManifests{Reader: dst.manifests, Pusher: &manifest.Pusher{Store: dst.manifests, Accept: append(manifest.DefaultAccept(), typ)}}
		source := src.source()
		source.Manifests = slowManifests{source.Manifests, image.Digest}
		source.Blobs = slowBlobs{source.Blobs}
		within, cancel := context.WithTimeout(ctx, time.Hour)
		defer cancel()
		_, err = (&replication.Copier{Memory: 2 * int64(len(raw))}).Copy(within, source, from, "v1", target, to, replication.CopyOptions{})
		if errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the copy does not end: %v", err)
		}
	})
}

// TestOneTransferForAll: 16 copies at once of graphs that overlap.
func TestOneTransferForAll(t *testing.T) {
	for round := range 10 {
		src, dst := newRegistry(t), newRegistry(t)
		r := rand.New(rand.NewPCG(1, uint64(round)))
		var children []ocispec.Descriptor
		for i := range 12 {
			var layers []string
			for range 6 {
				layers = append(layers, fmt.Sprintf("shared %d", r.IntN(20)))
			}
			children = append(children, src.image(from, append(layers, fmt.Sprint("own", i))))
		}
		for i := range 16 {
			var some []ocispec.Descriptor
			for _, j := range r.Perm(len(children))[:5] {
				some = append(some, children[j])
			}
			src.index(from, some, fmt.Sprintf("v%02d", i))
		}
		p := &tap{after: dst.complete}
		source, target := p.source(src.source()), p.target(dst, round%2 == 0)
		var copier replication.Copier
		var all sync.WaitGroup
		start := make(chan struct{})
		// One that holds the session open, so that none begins after all others.
		hold, release := make(chan struct{}), make(chan struct{})
		all.Go(func() {
			var once sync.Once
			_, err := copier.Copy(ctx, source, from, "v00", target, to, replication.CopyOptions{Tags: []string{"held"}, OnEvent: func(replication.Event) {
				once.Do(func() { close(hold); <-release })
			}})
			if err != nil {
				t.Error(err)
			}
		})
		<-hold
		var copies sync.WaitGroup
		for i := range 16 {
			copies.Go(func() {
				<-start
				if _, err := copier.Copy(ctx, source, from, fmt.Sprintf("v%02d", i), target, to, replication.CopyOptions{}); err != nil {
					t.Error(err)
				}
			})
		}
		close(start)
		copies.Wait()
		close(release)
		all.Wait()
		for what, n := range p.objects {
			if n > 1 && (strings.HasPrefix(what, "target put") || strings.HasPrefix(what, "source blob")) {
				t.Errorf("round %d: %s %d times", round, what, n)
			}
		}
	}
}

// TestWhatHasGoneIsSentAgain, also while a copy is under way that was when it was sent.
func TestWhatHasGoneIsSentAgain(t *testing.T) {
	src, dst := newRegistry(t), newRegistry(t)
	src.image(from, []string{"held"}, "held")
	image := src.image(from, []string{"a"})
	var copier replication.Copier
	hold, release := make(chan struct{}), make(chan struct{})
	var held sync.WaitGroup
	held.Go(func() {
		var once sync.Once
		if _, err := copier.Copy(ctx, src.source(), from, "held", dst.target(), to, replication.CopyOptions{OnEvent: func(replication.Event) {
			once.Do(func() { close(hold); <-release })
		}}); err != nil {
			t.Error(err)
		}
	})
	<-hold
	for _, sent := range []int{1, 0, 1} {
		got, err := copier.Copy(ctx, src.source(), from, string(image.Digest), dst.target(), to, replication.CopyOptions{})
		if _, e := dst.manifests.Get(ctx, to, image.Digest); err != nil || e != nil || got.Manifests.Sent != sent {
			t.Errorf("%+v, %v; at the target: %v", got, err, e)
		}
		if sent == 0 {
			if _, err := (&manifest.Deleter{Store: dst.manifests}).Delete(ctx, to, manifest.ImageID{Digest: image.Digest}); err != nil {
				t.Fatal(err)
			}
		}
	}
	close(release)
	held.Wait()
}

func TestWrongBytes(t *testing.T) {
	image := func(g registry) ocispec.Descriptor { return g.image(from, []string{"layer one", "layer two"}, "v1") }
	for name, c := range map[string]func(registry, *replication.Source){
		"a byte of a blob": func(_ registry, s *replication.Source) {
			s.Blobs = liar{s.Blobs, func(b []byte) []byte { b[3] ^= 1; return b }}
		},
		"a blob that is too long": func(_ registry, s *replication.Source) {
			s.Blobs = liar{s.Blobs, func(b []byte) []byte { return append(b, 'x') }}
		},
		"a blob that is too short": func(_ registry, s *replication.Source) {
			s.Blobs = liar{s.Blobs, func(b []byte) []byte { return b[:len(b)-1] }}
		},
		"a byte of a manifest": func(_ registry, s *replication.Source) {
			s.Manifests = liarManifests{s.Manifests, func(b []byte) []byte { return append(b, ' ') }}
		},
	} {
		t.Run(name, func(t *testing.T) {
			src, dst := newRegistry(t), newRegistry(t)
			image(src)
			s := src.source()
			c(src, &s)
			copier := replication.Copier{Attempts: 2, Backoff: 1}
			_, err := copier.Copy(ctx, s, from, "v1", dst.target(), to, replication.CopyOptions{})
			e, ok := errors.AsType[*replication.Error](err)
			if !errors.Is(err, replication.ErrContent) || !ok || e.Side != replication.SideSource {
				t.Errorf("error %v, want ErrContent of the source", err)
			}
			if have := dst.content(to); len(have) > 0 {
				t.Errorf("the target has %v", have)
			}
		})
	}
}

func TestPlatforms(t *testing.T) {
	arch := func(i int) ocispec.Platform {
		return ocispec.Platform{OS: "linux", Architecture: fmt.Sprintf("arch%d", i)}
	}
	src := newRegistry(t)
	index := src.platforms(from, 3, 2, "v1")
	t.Run("one takes the place of the index", func(t *testing.T) {
		dst := newRegistry(t)
		var copier replication.Copier
		for range 2 {
			got, err := copier.Copy(ctx, src.source(), from, "v1", dst.target(), to, replication.CopyOptions{Platforms: []ocispec.Platform{arch(1)}})
			if err != nil {
				t.Fatal(err)
			}
			tag, err := dst.manifests.Resolve(ctx, to, "v1")
			if err != nil || tag.Digest != got.Root.Digest || tag.Digest == index.Digest || len(dst.content(to)) != 1+3+1 {
				t.Errorf("%+v, %v, %+v", tag, err, got)
			}
		}
	})
	t.Run("many need a sparse index", func(t *testing.T) {
		dst := newRegistry(t)
		target := dst.target()
		var copier replication.Copier
		o := replication.CopyOptions{Platforms: []ocispec.Platform{arch(0), arch(2)}}
		if _, err := copier.Copy(ctx, src.source(), from, "v1", target, to, o); !errors.Is(err, replication.ErrPlatform) {
			t.Errorf("error %v, want ErrPlatform", err)
		}
		o.Sparse = true
		if _, err := copier.Copy(ctx, src.source(), from, "v1", target, to, o); !errors.Is(err, manifest.ErrMissing) {
			t.Errorf("error %v, want manifest.ErrMissing", err)
		}
		local := target.Manifests.(replication.LocalManifests)
		local.Pusher = &manifest.Pusher{Store: dst.manifests, Sparse: true}
		target.Manifests = local
		got, err := copier.Copy(ctx, src.source(), from, "v1", target, to, o)
		if err != nil || len(got.Skipped) != 1 || !errors.Is(got.Skipped[0].Why, replication.ErrPlatform) {
			t.Errorf("%+v, %v", got, err)
		}
		if n := len(dst.content(to)); n != 1+2+6+1 {
			t.Errorf("%d objects", n)
		}
	})
	t.Run("none", func(t *testing.T) {
		var copier replication.Copier
		_, err := copier.Copy(ctx, src.source(), from, "v1", newRegistry(t).target(), to, replication.CopyOptions{Platforms: []ocispec.Platform{arch(7)}})
		if e, ok := errors.AsType[*replication.PlatformError](err); !ok || e.Index != index.Digest {
			t.Errorf("error %v", err)
		}
	})
}

func TestForeignLayersAreSkipped(t *testing.T) {
	src, dst := newRegistry(t), newRegistry(t)
	config := src.blob(from, "{}")
	foreign := ocispec.Descriptor{MediaType: "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", Digest: digest.FromString("elsewhere"), Size: 9}
	raw, desc, err := manifest.ImageDraft{Config: &config, Layers: []ocispec.Descriptor{foreign}}.Build()
	src.push(from, raw, desc, err, "v1")
	var copier replication.Copier
	got, err := copier.Copy(ctx, src.source(), from, "v1", dst.target(), to, replication.CopyOptions{})
	if err != nil || len(got.Skipped) != 1 || !errors.Is(got.Skipped[0].Why, replication.ErrForeign) {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestImmutableTagIsKept: as at ECR, the image comes without the tag.
func TestImmutableTagIsKept(t *testing.T) {
	src, dst := newRegistry(t), newRegistry(t)
	old := dst.image(to, []string{"old"}, "v1")
	image := src.image(from, []string{"new"}, "v1")
	target := dst.target()
	local := target.Manifests.(replication.LocalManifests)
	target.Manifests = local
	var copier replication.Copier
	immutable := manifest.TagMutability{Mode: manifest.Immutable}.MoveTag
	for _, refuse := range []func(ctx context.Context, repo, tag string, from, to digest.Digest) error{
		immutable, immutable,
		func(ctx context.Context, repo, tag string, from, to digest.Digest) error { // for a reason that is not told
			if immutable(ctx, repo, tag, from, to) != nil {
				return errTap
			}
			return nil
		},
	} {
		local.Pusher = &manifest.Pusher{Store: dst.manifests, MoveTag: refuse}
		target.Manifests = local
		got, err := copier.Copy(ctx, src.source(), from, "v1", target, to, replication.CopyOptions{Tags: []string{"v1", "v2"}})
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got.Kept, []string{"v1"}) || !slices.Equal(got.Tags, []string{"v2"}) {
			t.Errorf("%+v", got)
		}
	}
	for tag, want := range map[string]digest.Digest{"v1": old.Digest, "v2": image.Digest} {
		if have, err := dst.manifests.Resolve(ctx, to, tag); err != nil || have.Digest != want {
			t.Errorf("%s: %+v, %v", tag, have, err)
		}
	}
}

func TestMounts(t *testing.T) {
	for _, receives := range []bool{false, true} {
		src, dst := newRegistry(t), newRegistry(t)
		src.image(from, []string{"a", "b"}, "v1")
		dst.image("named", []string{"a", "b"})
		var copier replication.Copier
		p := &tap{}
		target := p.target(dst, receives)
		for repo, o := range map[string]replication.CopyOptions{to: {MountFrom: []string{"named"}}, "third": {MountFrom: []string{"nowhere", "named"}}} {
			if got, err := copier.Copy(ctx, src.source(), from, "v1", target, repo, o); err != nil || got.Blobs != (replication.Tally{Mounted: 3}) {
				t.Errorf("%s: %+v, %v", repo, got, err)
			}
		}
		if got, err := copier.Copy(ctx, src.source(), from, "v1", target, "fourth", replication.CopyOptions{}); err != nil || got.Blobs.Mounted != 3 {
			t.Errorf("what this Copier has written: %+v, %v", got, err)
		}
		source := src.source()
		here := p.target(src, receives)
		source.Registry, here.Registry = "one", "one"
		if got, err := new(replication.Copier).Copy(ctx, source, from, "v1", here, to, replication.CopyOptions{}); err != nil || got.Blobs.Mounted != 3 {
			t.Errorf("within a registry: %+v, %v", got, err)
		}
	}
}

func TestDryRunChangesNothing(t *testing.T) {
	src, dst := newRegistry(t), newRegistry(t)
	src.platforms(from, 2, 3, "v1")
	dst.image(to, []string{"layer 0 of platform 0"}, "other")
	before := dst.content(to)
	var copier replication.Copier
	dry, err := copier.Copy(ctx, src.source(), from, "v1", dst.target(), to, replication.CopyOptions{DryRun: true})
	if err != nil {
		t.Fatal(err)
	}
	if after := dst.content(to); len(after) != len(before) {
		t.Errorf("%v, and %v before", after, before)
	}
	wet, err := copier.Copy(ctx, src.source(), from, "v1", dst.target(), to, replication.CopyOptions{})
	if err != nil || dry.Blobs != wet.Blobs || dry.Manifests != wet.Manifests || wet.Blobs.Present != 1 {
		t.Errorf("dry %+v, wet %+v, %v", dry, wet, err)
	}
}

// TestDryRunIsNotForOthers: a copy beside a dry run transfers all the same.
func TestDryRunIsNotForOthers(t *testing.T) {
	src, dst := newRegistry(t), newRegistry(t)
	src.platforms(from, 2, 3, "v1")
	var copier replication.Copier
	wet := false
	_, err := copier.Copy(ctx, src.source(), from, "v1", dst.target(), to, replication.CopyOptions{DryRun: true, OnEvent: func(e replication.Event) {
		if e.Total.Done < e.Total.Objects-1 || e.Total.Done < 6 || wet {
			return
		}
		wet = true
		// From within an event only to be sure of the moment; the dry run holds nothing.
		done := make(chan error)
		go func() {
			_, err := copier.Copy(ctx, src.source(), from, "v1", dst.target(), to, replication.CopyOptions{})
			done <- err
		}()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}})
	if err != nil || !wet {
		t.Fatal(err, wet)
	}
	src.same(from, dst, to)
}

// TestVerify finds what the shortcut believes.
func TestVerify(t *testing.T) {
	src, dst := newRegistry(t), newRegistry(t)
	src.image(from, []string{"a", "b"}, "v1")
	var copier replication.Copier
	if _, err := copier.Copy(ctx, src.source(), from, "v1", dst.target(), to, replication.CopyOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := dst.blobs.Delete(ctx, to, digest.FromString("a"), zero); err != nil {
		t.Fatal(err)
	}
	if got, err := copier.Copy(ctx, src.source(), from, "v1", dst.target(), to, replication.CopyOptions{}); err != nil || got.Blobs.Sent != 0 {
		t.Errorf("%+v, %v", got, err)
	}
	for _, want := range []int{1, 0} {
		if got, err := copier.Copy(ctx, src.source(), from, "v1", dst.target(), to, replication.CopyOptions{Verify: true}); err != nil || got.Blobs.Sent != want {
			t.Errorf("%+v, %v, want %d blobs sent", got, err, want)
		}
	}
	src.same(from, dst, to)
}

// TestReferrersAreChosen by type, and by how far they are.
func TestReferrersAreChosen(t *testing.T) {
	src := newRegistry(t)
	image := src.signed(from, 3, "v1")
	sbom := src.referrer(from, image, "a/sbom", "sbom")
	src.referrer(from, sbom, "a/signature", "of the sbom")
	for _, c := range []struct {
		o    replication.CopyOptions
		want int
	}{
		{replication.CopyOptions{}, 1},
		{replication.CopyOptions{Referrers: 1}, 5},
		{replication.CopyOptions{Referrers: 2}, 6},
		{replication.CopyOptions{Referrers: replication.AllReferrers}, 6},
		{replication.CopyOptions{Referrers: -1, Filter: referrers.Filter{ArtifactTypes: []string{"a/sbom"}}}, 2},
		{replication.CopyOptions{Referrers: -1, Filter: referrers.Filter{ArtifactTypes: []string{"a/sbom", "a/signature"}}}, 6},
	} {
		dst := newRegistry(t)
		for range 2 {
			got, err := new(replication.Copier).Copy(ctx, src.source(), from, "v1", dst.target(), to, c.o)
			if n := got.Manifests.Sent + got.Manifests.Present; err != nil || n != c.want {
				t.Errorf("%+v: %d manifests, want %d (%v)", c.o, n, c.want, err)
			}
		}
	}
}

// TestLyingReferrers: what is gone, what is no referrer, and a list that goes round.
func TestLyingReferrers(t *testing.T) {
	src, dst := newRegistry(t), newRegistry(t)
	image := src.image(from, []string{"a"}, "v1")
	good := src.referrer(from, image, "a/sbom", "sbom")
	other := src.image(from, []string{"other"})
	gone := ocispec.Descriptor{MediaType: manifest.MediaTypeImage, Digest: digest.FromString("gone"), Size: 100}
	s := src.source()
	s.Referrers = listed{good, other, gone, image}
	got, err := new(replication.Copier).Copy(ctx, s, from, "v1", dst.target(), to, replication.CopyOptions{Referrers: -1})
	if err != nil || len(got.Skipped) != 2 {
		t.Errorf("%+v, %v", got.Skipped, err)
	}
	if _, err := dst.manifests.Get(ctx, to, good.Digest); err != nil {
		t.Error(err)
	}
	dst.complete()
}

func TestBudgets(t *testing.T) {
	src := newRegistry(t)
	desc := src.image(from, []string{"a"})
	for range 5 {
		desc = src.index(from, []ocispec.Descriptor{desc}, "v1")
	}
	for name, c := range map[string]*replication.Copier{"objects": {MaxObjects: 4}, "depth": {MaxDepth: 3}} {
		dst := newRegistry(t)
		if _, err := c.Copy(ctx, src.source(), from, "v1", dst.target(), to, replication.CopyOptions{}); !errors.Is(err, manifest.ErrBudget) {
			t.Errorf("%s: error %v, want manifest.ErrBudget", name, err)
		}
		if n := len(dst.content(to)); n > 0 {
			t.Errorf("%s: the target has %d objects", name, n)
		}
	}
	if _, err := (&replication.Copier{Memory: 1}).Copy(ctx, src.source(), from, "v1", newRegistry(t).target(), to, replication.CopyOptions{}); err != nil {
		t.Errorf("with hardly any memory: %v", err)
	}
}

// TestGoneSince: what the target had promised is collected before the manifest comes.
func TestGoneSince(t *testing.T) {
	src, dst := newRegistry(t), newRegistry(t)
	src.image(from, []string{"a", "b"}, "v1")
	p := &tap{}
	once := false
	p.before = func(_ int, kind string) error {
		if kind == "target push" && !once {
			once = true
			return dst.blobs.Delete(ctx, to, digest.FromString("a"), zero)
		}
		return nil
	}
	if _, err := new(replication.Copier).Copy(ctx, src.source(), from, "v1", p.target(dst, true), to, replication.CopyOptions{}); err != nil {
		t.Fatal(err)
	}
	src.same(from, dst, to)
}

func TestBadNames(t *testing.T) {
	g := newRegistry(t)
	for _, c := range []struct{ from, ref, to, tag string }{
		{"UPPER", "v1", to, "v1"}, {from, "-", to, "v1"}, {from, "v1", "a//b", "v1"}, {from, "v1", to, ""}, {from, "sha256:00", to, "v1"},
	} {
		_, err := new(replication.Copier).Copy(ctx, g.source(), c.from, c.ref, g.target(), c.to, replication.CopyOptions{Tags: []string{c.tag}})
		if !errors.Is(err, manifest.ErrName) {
			t.Errorf("%+v: error %v, want manifest.ErrName", c, err)
		}
	}
	_, err := new(replication.Copier).Copy(ctx, g.source(), from, "v1", g.target(), to, replication.CopyOptions{})
	if !manifest.IsNotFound(err) {
		t.Errorf("error %v, want manifest.ErrNotFound", err)
	}
}

// TestEvents: a bar drawn from the events ends full, and never goes beyond.
func TestEvents(t *testing.T) {
	src, dst := newRegistry(t), newRegistry(t)
	src.platforms(from, 3, 3, "v1")
	ends := map[digest.Digest]int{}
	var last replication.Total
	_, err := new(replication.Copier).Copy(ctx, src.source(), from, "v1", dst.target(), to, replication.CopyOptions{OnEvent: func(e replication.Event) {
		last = e.Total
		if last.DoneBytes > last.Bytes || last.Done > last.Objects {
			t.Errorf("%+v", e)
		}
		switch e.Kind {
		case replication.EventSent, replication.EventMounted, replication.EventPresent, replication.EventSkipped:
			ends[e.Desc.Digest]++
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	if last.Done != 4+3*4 || last.Done != last.Objects || last.Bytes != last.DoneBytes || len(ends) != last.Done {
		t.Errorf("%+v, %d ends", last, len(ends))
	}
}
