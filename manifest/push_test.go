package manifest_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/manifest/memmanifest"
)

// newPusher returns a Pusher over a store in which the given blobs exist.
func newPusher(blobs ...ocispec.Descriptor) *manifest.Pusher {
	has := map[digest.Digest]int64{}
	for _, b := range blobs {
		has[b.Digest] = b.Size
	}
	return &manifest.Pusher{
		Store: &memmanifest.Store{MissingBlobs: func(_ context.Context, _ string, dgsts []digest.Digest) (missing []digest.Digest, err error) {
			for _, d := range dgsts {
				if _, ok := has[d]; !ok {
					missing = append(missing, d)
				}
			}
			return missing, nil
		}},
		BlobSizes: func(_ context.Context, _ string, dgsts []digest.Digest) ([]int64, error) {
			sizes := make([]int64, len(dgsts))
			for i, d := range dgsts {
				sizes[i] = -1
				if n, ok := has[d]; ok {
					sizes[i] = n
				}
			}
			return sizes, nil
		},
		Now: func() time.Time { return time.Unix(1000, 0) },
	}
}

func file(content string) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: "text/plain", Digest: digest.FromString(content), Size: int64(len(content))}
}

// build returns an artifact of the files.
func build(t *testing.T, subject *ocispec.Descriptor, files ...ocispec.Descriptor) ([]byte, ocispec.Descriptor) {
	t.Helper()
	raw, desc, err := manifest.ImageDraft{ArtifactType: "text/x", Layers: files, Subject: subject}.Build()
	if err != nil {
		t.Fatal(err)
	}
	return raw, desc
}

func TestPushStoresOneChange(t *testing.T) {
	empty, _ := manifest.Empty()
	a := file("a")
	p := newPusher(empty, a)
	var events []manifest.Event
	p.OnCommit = func(_ context.Context, e manifest.Event) { events = append(events, e) }
	subject := file("elsewhere")
	raw, desc := build(t, &subject, a)
	done, err := p.Push(t.Context(), "r", manifest.PushRequest{Raw: raw, Tags: []string{"x", "y"}})
	if err != nil {
		t.Fatal(err)
	}
	if done.Record.Desc.Digest != desc.Digest || done.Record.Subject != subject.Digest || len(done.Record.Blobs) != 2 || len(events) != 1 || len(events[0].Change.Tags) != 2 {
		t.Errorf("pushed %+v, events %+v", done.Record, events)
	}
	for _, tag := range []string{"x", "y"} {
		got, err := p.Store.Resolve(t.Context(), "r", tag)
		if err != nil || got.Digest != desc.Digest || !got.MovedAt.Equal(time.Unix(1000, 0)) {
			t.Errorf("%s: %+v, %v", tag, got, err)
		}
	}
	rec, err := p.Store.Get(t.Context(), "r", desc.Digest)
	if err != nil || string(rec.Raw) != string(raw) || !rec.PushedAt.Equal(time.Unix(1000, 0)) {
		t.Errorf("%+v, %v", rec, err)
	}
}

func TestPushTakesSHA512(t *testing.T) {
	empty, _ := manifest.Empty()
	p := newPusher(empty)
	raw, _ := build(t, nil)
	want := manifest.Digest(digest.SHA512, raw)
	done, err := p.Push(t.Context(), "r", manifest.PushRequest{Raw: raw, Digest: want})
	if err != nil || done.Record.Desc.Digest != want {
		t.Errorf("%s, %v", done.Record.Desc.Digest, err)
	}
}

// TestPushRefuses has a case for each error, and nothing may be visible after
// any of them.
func TestPushRefuses(t *testing.T) {
	empty, _ := manifest.Empty()
	a := file("a")
	good, _ := build(t, nil, a)
	lacking, _ := build(t, nil, a, file("missing"))
	larger := a
	larger.Size++
	wrongSize, _ := build(t, nil, larger)
	unknown := ocispec.Descriptor{MediaType: "text/plain", Digest: digest.Digest("blake3:" + strings.Repeat("0", 64)), Size: 1}
	blake3, _ := build(t, nil, unknown)
	sparse, _, _ := manifest.IndexDraft{Manifests: []ocispec.Descriptor{{MediaType: manifest.MediaTypeImage, Digest: a.Digest, Size: 1}}}.Build()
	refused := errors.New("no such move")
	for _, c := range []struct {
		name string
		in   manifest.PushRequest
		set  func(*manifest.Pusher)
		want error
		text string // in the error
	}{
		{"bad tag", manifest.PushRequest{Raw: good, Tags: []string{".x"}}, nil, manifest.ErrName, `tag ".x"`},
		{"bad document", manifest.PushRequest{Raw: []byte("{")}, nil, manifest.ErrInvalid, "expected a name"},
		{"another digest", manifest.PushRequest{Raw: good, Digest: a.Digest}, nil, manifest.ErrDigest, string(a.Digest)},
		{"no digest at all", manifest.PushRequest{Raw: good, Digest: "sha256:x"}, nil, manifest.ErrDigest, "64 lower case"},
		{"too large", manifest.PushRequest{Raw: good}, func(p *manifest.Pusher) { p.MaxSize = 10 }, manifest.ErrTooLarge, "limit is 10"},
		{"a type that is not accepted", manifest.PushRequest{MediaType: "application/json", Raw: good}, nil, manifest.ErrInvalid, "application/json"},
		{"a type that was taken off the list", manifest.PushRequest{Raw: good}, func(p *manifest.Pusher) { p.Accept = []string{manifest.MediaTypeIndex} }, manifest.ErrInvalid, "takes"},
		{"missing blob", manifest.PushRequest{Raw: lacking}, nil, manifest.ErrMissing, string(file("missing").Digest)},
		{"a blob that cannot be here", manifest.PushRequest{Raw: blake3}, nil, manifest.ErrMissing, "blake3"},
		{"wrong size", manifest.PushRequest{Raw: wrongSize}, nil, manifest.ErrInvalid, "/layers/0/size"},
		{"missing child", manifest.PushRequest{Raw: sparse}, nil, manifest.ErrMissing, string(a.Digest)},
		{"From", manifest.PushRequest{Raw: good, Tags: []string{"x"}, From: a.Digest}, nil, manifest.ErrConflict, "at absent"},
		{"MoveTag", manifest.PushRequest{Raw: good, Tags: []string{"x"}}, func(p *manifest.Pusher) {
			p.MoveTag = func(context.Context, string, string, digest.Digest, digest.Digest) error { return refused }
		}, manifest.ErrRefused, "no such move"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPusher(empty, a)
			p.OnCommit = func(context.Context, manifest.Event) { t.Error("an event for a refused push") }
			if c.set != nil {
				c.set(p)
			}
			_, err := p.Push(t.Context(), "r", c.in)
			var typed *manifest.Error
			if !errors.Is(err, c.want) || !errors.As(err, &typed) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("%v", err)
			}
			for rec := range p.Store.Manifests(t.Context(), "r", "") {
				t.Errorf("visible: %s", rec.Desc.Digest)
			}
		})
	}
	p := newPusher(empty, a)
	p.Sparse = true
	if _, err := p.Push(t.Context(), "r", manifest.PushRequest{Raw: sparse}); err != nil {
		t.Errorf("sparse: %v", err)
	}
	if _, err := p.Push(t.Context(), "R", manifest.PushRequest{Raw: good}); !errors.Is(err, manifest.ErrName) {
		t.Errorf("bad repository: %v", err)
	}
}

// hooked runs before on the way into a call.
type hooked struct {
	*memmanifest.Store
	beforeApply func()
}

func (h *hooked) Apply(ctx context.Context, repo string, c manifest.Change) error {
	if f := h.beforeApply; f != nil {
		h.beforeApply = nil
		f()
	}
	return h.Store.Apply(ctx, repo, c)
}

// TestAChildOfAnyTypeIsRequiredAtCommit: also one whose media type Parse does
// not know, and that turned out to be a manifest.
func TestAChildOfAnyTypeIsRequiredAtCommit(t *testing.T) {
	empty, _ := manifest.Empty()
	p := newPusher(empty)
	store := &hooked{Store: p.Store.(*memmanifest.Store)}
	p.Store = store
	raw, child := build(t, nil)
	if _, err := p.Push(t.Context(), "r", manifest.PushRequest{Raw: raw}); err != nil {
		t.Fatal(err)
	}
	for _, mediaType := range []string{child.MediaType, "application/vnd.example.unknown"} {
		store.beforeApply = func() {
			if err := store.Store.Apply(t.Context(), "r", manifest.Change{Delete: []manifest.Removal{{Digest: child.Digest}}}); err != nil {
				t.Fatal(err)
			}
		}
		listed := child
		listed.MediaType = mediaType
		index, _, _ := manifest.IndexDraft{Manifests: []ocispec.Descriptor{listed}}.Build()
		if _, err := p.Push(t.Context(), "r", manifest.PushRequest{Raw: index}); !errors.Is(err, manifest.ErrMissing) {
			t.Errorf("%s: %v", mediaType, err)
		}
		if _, err := p.Push(t.Context(), "r", manifest.PushRequest{Raw: raw}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestAnIndexThatRepeatsAChildCostsWhatItIs: what a large child has is not
// fetched for each entry that names it.
func TestAnIndexThatRepeatsAChildCostsWhatItIs(t *testing.T) {
	p := newPusher()
	annotations := map[string]string{}
	for i := range 50_000 {
		annotations[fmt.Sprintf("k%06d", i)] = ""
	}
	raw, child, err := manifest.IndexDraft{Annotations: annotations}.Build()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Push(t.Context(), "r", manifest.PushRequest{Raw: raw}); err != nil {
		t.Fatal(err)
	}
	child.Annotations = nil
	raw, _, err = manifest.IndexDraft{Manifests: slices.Repeat([]ocispec.Descriptor{child}, 1000)}.Build()
	if err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := p.Push(t.Context(), "r", manifest.PushRequest{Raw: raw}); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 5*uint64(len(raw)) {
		t.Errorf("%d bytes were allocated for an index of %d", got, len(raw))
	}
}

// TestMoveTagIsAskedAboutWhatItReplaces, also when the client says what that is.
func TestMoveTagIsAskedAboutWhatItReplaces(t *testing.T) {
	empty, _ := manifest.Empty()
	a, b := file("a"), file("b")
	p := newPusher(empty, a, b)
	store := &hooked{Store: p.Store.(*memmanifest.Store)}
	p.Store = store
	first, firstDesc := build(t, nil, a)
	second, secondDesc := build(t, nil, b)
	for _, raw := range [][]byte{second, first} {
		if _, err := p.Push(t.Context(), "r", manifest.PushRequest{Raw: raw, Tags: []string{"x"}}); err != nil {
			t.Fatal(err)
		}
	}
	var asked []digest.Digest
	p.MoveTag = func(_ context.Context, _, _ string, from, _ digest.Digest) error {
		asked = append(asked, from)
		return nil
	}
	if _, err := p.Push(t.Context(), "r", manifest.PushRequest{Raw: first, Tags: []string{"x", "x"}}); err != nil || asked != nil {
		t.Errorf("the same digest again: %v, asked about %v", err, asked)
	}
	// The tag moves between the question and the commit, to what the client expects.
	store.beforeApply = func() {
		if err := store.Store.Apply(t.Context(), "r", manifest.Change{Tags: []manifest.TagMove{{Name: "x", To: secondDesc.Digest}}}); err != nil {
			t.Fatal(err)
		}
	}
	third, _, _ := manifest.ImageDraft{ArtifactType: "text/y"}.Build()
	_, err := p.Push(t.Context(), "r", manifest.PushRequest{Raw: third, Tags: []string{"x"}, From: firstDesc.Digest})
	if !errors.Is(err, manifest.ErrConflict) || len(asked) != 1 || asked[0] != firstDesc.Digest {
		t.Errorf("%v, asked about %v", err, asked)
	}
	p.MoveTag = func(context.Context, string, string, digest.Digest, digest.Digest) error {
		t.Error("asked about a move that cannot be")
		return nil
	}
	if _, err := p.Push(t.Context(), "r", manifest.PushRequest{Raw: third, Tags: []string{"x"}, From: firstDesc.Digest}); !errors.Is(err, manifest.ErrConflict) {
		t.Error(err)
	}
}

func TestPushLetsForeignLayersBeAbsent(t *testing.T) {
	empty, _ := manifest.Empty()
	p := newPusher(empty)
	foreign := file("licensed")
	foreign.MediaType = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
	raw, _ := build(t, nil, foreign)
	if _, err := p.Push(t.Context(), "r", manifest.PushRequest{Raw: raw}); err != nil {
		t.Error(err)
	}
}

// TestPushTellsBlobsFromManifestsInAnIndex: build caches list layers as entries.
func TestPushTellsBlobsFromManifestsInAnIndex(t *testing.T) {
	empty, _ := manifest.Empty()
	a := file("a")
	p := newPusher(empty, a)
	raw, child := build(t, nil, a)
	if _, err := p.Push(t.Context(), "r", manifest.PushRequest{Raw: raw}); err != nil {
		t.Fatal(err)
	}
	child.MediaType = "application/vnd.example.unknown"
	index, desc, err := manifest.IndexDraft{Manifests: []ocispec.Descriptor{child, a}}.Build()
	if err != nil {
		t.Fatal(err)
	}
	done, err := p.Push(t.Context(), "r", manifest.PushRequest{Raw: index})
	if err != nil {
		t.Fatal(err)
	}
	if r := done.Record; r.Desc.Digest != desc.Digest || len(r.Manifests) != 1 || r.Manifests[0] != child.Digest || len(r.Blobs) != 1 || r.Blobs[0] != a.Digest {
		t.Errorf("manifests %v, blobs %v", r.Manifests, r.Blobs)
	}
}

// TestMoveTagIsJudgedInTheSameStep: of writers that race under a rule "a tag
// never moves", exactly one wins, in every round.
func TestMoveTagIsJudgedInTheSameStep(t *testing.T) {
	empty, _ := manifest.Empty()
	immutable := errors.New("immutable")
	p := newPusher(empty)
	p.MoveTag = func(_ context.Context, _, _ string, from, to digest.Digest) error {
		if from == manifest.Absent || from == to {
			return nil
		}
		return immutable
	}
	for round := range 50 {
		const writers = 8
		var wg sync.WaitGroup
		start, won := make(chan bool), make(chan digest.Digest, writers)
		tag := fmt.Sprintf("t%d", round)
		for i := range writers {
			raw, desc, _ := manifest.ImageDraft{ArtifactType: "text/x", Annotations: map[string]string{"i": fmt.Sprint(i)}}.Build()
			wg.Go(func() {
				<-start
				switch _, err := p.Push(t.Context(), "r", manifest.PushRequest{Raw: raw, Tags: []string{tag}}); {
				case err == nil:
					won <- desc.Digest
				case !errors.Is(err, immutable):
					t.Error(err)
				}
			})
		}
		close(start)
		wg.Wait()
		if len(won) != 1 {
			t.Fatalf("round %d: %d winners", round, len(won))
		}
		if got, _ := p.Store.Resolve(t.Context(), "r", tag); got.Digest != <-won {
			t.Fatalf("round %d: the tag is not where the winner put it", round)
		}
	}
}

func TestWalkEndsInABudgetError(t *testing.T) {
	empty, _ := manifest.Empty()
	p := newPusher(empty)
	raw, desc := build(t, nil)
	for range 5 {
		if _, err := p.Push(t.Context(), "r", manifest.PushRequest{Raw: raw}); err != nil {
			t.Fatal(err)
		}
		raw, desc, _ = manifest.IndexDraft{Manifests: []ocispec.Descriptor{desc}}.Build()
	}
	if _, err := p.Push(t.Context(), "r", manifest.PushRequest{Raw: raw}); err != nil {
		t.Fatal(err)
	}
	walk := func(root digest.Digest, limit int) (n int, err error) {
		for _, e := range manifest.Walk(t.Context(), p.Store, "r", root, limit) {
			if n, err = n+1, e; e != nil {
				n--
			}
		}
		return n, err
	}
	if n, err := walk(desc.Digest, 6); n != 6 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	var budget *manifest.BudgetError
	if _, err := walk(desc.Digest, 5); !errors.As(err, &budget) || !errors.Is(err, manifest.ErrBudget) {
		t.Errorf("limit 5: %v", err)
	}
	if n, err := walk(empty.Digest, 0); n != 0 || !errors.Is(err, manifest.ErrMissing) {
		t.Errorf("no root: %d, %v", n, err)
	}
}

func ExampleParse() {
	m, err := manifest.Parse("", []byte(`{
		"schemaVersion": 2,
		"mediaType": "application/vnd.oci.image.index.v1+json",
		"artifactType": "application/vnd.example.bundle",
		"manifests": [],
		"Manifests": [{}]
	}`))
	fmt.Println(err, m.Kind, m.ArtifactType, len(m.Manifests))
	fmt.Println(m.Warnings[0])

	_, err = manifest.Parse("", []byte(`{
		"schemaVersion": 2,
		"mediaType": "application/vnd.oci.image.index.v1+json",
		"manifests": [{"mediaType": "a/b", "digest": "sha256:zz", "size": -1}],
		"layers": []
	}`))
	var invalid *manifest.InvalidError
	if errors.As(err, &invalid) {
		for _, f := range invalid.Fields {
			fmt.Println(f.Pointer, f.Rule)
		}
	}
	// Output:
	// <nil> index application/vnd.example.bundle 0
	// /Manifests: is an unknown member, which careless readers take for manifests
	// /manifests/0/digest digest
	// /manifests/0/size size
	// /layers ambiguous
}

func ExamplePusher() {
	p := &manifest.Pusher{Store: &memmanifest.Store{MissingBlobs: memmanifest.Unchecked}}
	raw, _, err := manifest.IndexDraft{ArtifactType: "application/vnd.example.bundle"}.Build()
	if err != nil {
		fmt.Println(err)
		return
	}
	done, err := p.Push(context.Background(), "team/app", manifest.PushRequest{Raw: raw, Tags: []string{"v1"}})
	fmt.Println(done.Record.Desc.Digest, err)
	// Output: sha256:370950dba4b9349bf178a262c2d6a34021be169ae89e57646dca43b388770d4f <nil>
}

func ExampleImageDraft_Build() {
	sbom := ocispec.Descriptor{MediaType: "application/spdx+json", Digest: digest.FromString("{}"), Size: 2}
	raw, desc, err := manifest.ImageDraft{ArtifactType: "application/spdx+json", Layers: []ocispec.Descriptor{sbom}}.Build()
	fmt.Println(len(raw), desc.ArtifactType, err)
	// Output: 407 application/spdx+json <nil>
}

func ExampleWalk() {
	ctx := context.Background()
	store := &memmanifest.Store{MissingBlobs: memmanifest.Unchecked}
	p := &manifest.Pusher{Store: store}
	child, childDesc, _ := manifest.IndexDraft{}.Build()
	parent, parentDesc, _ := manifest.IndexDraft{Manifests: []ocispec.Descriptor{childDesc, childDesc}}.Build()
	for _, raw := range [][]byte{child, parent} {
		if _, err := p.Push(ctx, "app", manifest.PushRequest{Raw: raw}); err != nil {
			fmt.Println(err)
		}
	}
	for rec, err := range manifest.Walk(ctx, store, "app", parentDesc.Digest, 100) {
		fmt.Println(rec.Desc.Size, err)
	}
	// Output:
	// 385 <nil>
	// 88 <nil>
}

func ExampleManifest_Select() {
	m, err := manifest.Parse("", []byte(`{
		"schemaVersion": 2,
		"mediaType": "application/vnd.oci.image.index.v1+json",
		"manifests": [
			{"mediaType": "application/vnd.oci.image.manifest.v1+json", "size": 1, "platform": {"os": "linux", "architecture": "amd64"},
			 "digest": "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"},
			{"mediaType": "application/vnd.oci.image.manifest.v1+json", "size": 2, "platform": {"os": "linux", "architecture": "arm64", "variant": "v8"},
			 "digest": "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"}
		]
	}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	d, ok := m.Select(ocispec.Platform{OS: "linux", Architecture: "arm64"})
	fmt.Println(d.Size, ok)
	// Output: 2 true
}

func ExampleIndexDraft_Build() {
	raw, desc, err := manifest.IndexDraft{Annotations: map[string]string{"b": "2", "a": "1"}}.Build()
	fmt.Println(string(raw))
	fmt.Println(desc.Size, err)
	// Output:
	// {"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[],"annotations":{"a":"1","b":"2"}}
	// 120 <nil>
}

func ExampleCheckRepository() {
	fmt.Println(manifest.CheckRepository("team/app"))
	fmt.Println(manifest.CheckRepository("Team/App"))
	// Output:
	// <nil>
	// repository "Team/App": invalid name: takes lower case letters and digits, joined by . _ __ or dashes, with / between components
}
