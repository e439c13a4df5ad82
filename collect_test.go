package wharfage_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage"
	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/manifest/manifesttest"
)

// push makes an image of one layer with a tag, and returns its digest.
func push(t testing.TB, h *wharfage.Handler, repo, tag, layer string, now time.Time) digest.Digest {
	t.Helper()
	desc := ocispec.Descriptor{MediaType: "text/plain", Digest: digest.FromString(layer), Size: int64(len(layer))}
	for desc, content := range map[*ocispec.Descriptor]string{&desc: layer, {Digest: digest.FromString("{}"), Size: 2}: "{}"} {
		if err := blob.Put(t.Context(), h.Blobs, repo, *desc, strings.NewReader(content)); err != nil {
			t.Fatal(err)
		}
	}
	raw, image, err := manifest.ImageDraft{ArtifactType: "a/b", Layers: []ocispec.Descriptor{desc}}.Build()
	if err == nil {
		p := manifest.Pusher{Store: h.Manifests, Now: func() time.Time { return now }}
		_, err = p.Push(t.Context(), repo, manifest.PushRequest{MediaType: image.MediaType, Raw: raw, Tags: []string{tag}})
	}
	if err != nil {
		t.Fatal(err)
	}
	return image.Digest
}

// An image that has lost its tag goes with its layer, and what others need
// stays.
func TestCollectFromTagsToBytes(t *testing.T) {
	h := wharfage.NewMemory()
	now := time.Now().Add(-30 * 24 * time.Hour)
	var events []digest.Digest
	h.OnCommit = func(_ context.Context, e manifest.Event) {
		for _, d := range e.Change.Delete {
			events = append(events, d.Digest)
		}
	}
	h.Now = func() time.Time { return time.Now().Add(60 * 24 * time.Hour) }
	old := push(t, h, "a", "v1", "first layer", now)
	push(t, h, "a", "v1", "second layer", now) // takes its tag
	for i := range 3 {
		push(t, h, "a", fmt.Sprint("w", i), "second layer"+fmt.Sprint(i), now)
	}
	push(t, h, "b", "v1", "first layer", now)

	blobs := func() (n int) {
		for _, repo := range []string{"a", "b"} {
			for range h.Blobs.Blobs(t.Context(), repo, "") {
				n++
			}
		}
		return n
	}
	for _, c := range []struct {
		name           string
		c              wharfage.Collection
		removed, blobs int // manifests and blobs that are gone afterwards
		want           error
	}{
		{name: "untagged stay unless asked"},
		{name: "dry", c: wharfage.Collection{Untagged: &manifest.UntaggedOptions{}, Dry: true}, removed: 1},
		{name: "either dry is both", c: wharfage.Collection{Untagged: &manifest.UntaggedOptions{Dry: true}}, removed: 1},
		{name: "a clock that was set back", c: wharfage.Collection{Untagged: &manifest.UntaggedOptions{}, Blobs: blob.CollectOptions{Last: h.Now().Add(time.Hour)}}, want: blob.ErrClock},
		{name: "too many keeps them, and the rest goes on", c: wharfage.Collection{Untagged: &manifest.UntaggedOptions{MaxShare: 0.1}}, blobs: 1, want: manifest.ErrShare},
		{name: "removed", c: wharfage.Collection{Untagged: &manifest.UntaggedOptions{}}, removed: 1, blobs: 1},
		{name: "nothing is left to do", c: wharfage.Collection{Untagged: &manifest.UntaggedOptions{}}},
	} {
		if c.name == "either dry is both" { // has something else to remove
			if err := blob.Put(t.Context(), h.Blobs, "b", ocispec.Descriptor{Digest: digest.FromString("x"), Size: 1}, strings.NewReader("x")); err != nil {
				t.Fatal(err)
			}
		}
		before := blobs()
		done, err := wharfage.Collect(t.Context(), h, c.c)
		if !errors.Is(err, c.want) || done.Untagged.Removed != c.removed || before-blobs() != c.blobs {
			t.Errorf("%s: %+v, %v; %d blobs went", c.name, done, err, before-blobs())
		}
	}
	if !slices.Equal(events, []digest.Digest{old}) {
		t.Errorf("events of %v, want %s", events, old)
	}
	for _, problem := range problems(t, h) {
		t.Errorf("%v", problem)
	}
}

func problems(t testing.TB, h *wharfage.Handler) (found []wharfage.Problem) {
	t.Helper()
	for p, err := range wharfage.Check(t.Context(), h, wharfage.CheckOptions{Bytes: true}) {
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, p)
	}
	return found
}

// Whatever call of the manifest store fails, nothing goes that something
// needs.
func TestCollectUnderFaultsOfManifests(t *testing.T) {
	for _, after := range []bool{false, true} {
		for n := 1; ; n++ {
			h := wharfage.NewMemory()
			now := time.Now().Add(-30 * 24 * time.Hour)
			for _, repo := range []string{"a", "b"} {
				push(t, h, repo, "v1", "first", now)
				push(t, h, repo, "v1", "second", now)
				push(t, h, repo, "v2", "third", now)
			}
			good := h.Manifests
			f := &manifesttest.Fault{N: n, After: after}
			h.Manifests = manifesttest.Faulty(good, f)
			h.Now = func() time.Time { return time.Now().Add(60 * 24 * time.Hour) }
			c := wharfage.Collection{Untagged: &manifest.UntaggedOptions{Confirm: true}, Blobs: blob.CollectOptions{Confirm: true}}
			_, err := wharfage.Collect(t.Context(), h, c)
			h.Manifests = good
			if f.Surfaced() == 0 {
				if err != nil || n < 9 {
					t.Errorf("%v after %d calls", err, n-1)
				}
				break
			}
			if !errors.Is(err, manifesttest.ErrFault) {
				t.Errorf("%v: %v", f, err)
			}
			for _, p := range problems(t, h) {
				t.Errorf("%v: %v", f, p)
			}
			if done, err := wharfage.Collect(t.Context(), h, c); err != nil {
				t.Errorf("%v: then %+v, %v", f, done, err)
			}
			for _, repo := range []string{"a", "b"} {
				n := 0
				for range good.Manifests(t.Context(), repo, "") {
					n++
				}
				for range h.Blobs.Blobs(t.Context(), repo, "") {
					n++
				}
				if n != 2+3 {
					t.Errorf("%v: %s has %d things left, want 2 manifests and 3 blobs", f, repo, n)
				}
			}
		}
	}
}

// A collection of a registry in use: see first, then remove.
func ExampleCollect() {
	ctx := context.Background()
	h := wharfage.NewMemory()
	content := ocispec.Descriptor{Digest: digest.FromString("hello"), Size: 5}
	if err := blob.Put(ctx, h.Blobs, "demo/app", content, strings.NewReader("hello")); err != nil {
		fmt.Println(err)
		return
	}
	h.Now = func() time.Time { return time.Now().Add(48 * time.Hour) } // past the lease

	_, err := wharfage.Collect(ctx, h, wharfage.Collection{Dry: true})
	fmt.Println(err)
	done, err := wharfage.Collect(ctx, h, wharfage.Collection{Blobs: blob.CollectOptions{Confirm: true}})
	fmt.Printf("%+v %v\n", done.Blobs.Blobs.Removed, err)
	// Output:
	// 1 of 1 blobs with 5 of 5 bytes would go, which is more than the share of 0.5 that may go unconfirmed (MaxShare)
	// {Count:1 Bytes:5} <nil>
}
