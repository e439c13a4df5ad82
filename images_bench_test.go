package wharfage

import (
	"context"
	"fmt"
	"iter"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/manifest/memmanifest"
)

// blobList lists blobs that it keeps in order.
type blobList []blob.Info

func (l blobList) Blobs(context.Context, string, digest.Digest) iter.Seq2[blob.Info, error] {
	return func(yield func(blob.Info, error) bool) {
		for _, info := range l {
			if !yield(info, nil) {
				return
			}
		}
	}
}

// BenchmarkImages asks about a repository of 20,000 tagged indexes of four images
// each, 100,000 manifests in all. "floor" makes the passes that Describe makes,
// and nothing of them.
func BenchmarkImages(b *testing.B) {
	store := &memmanifest.Store{MissingBlobs: memmanifest.Unchecked}
	var blobs blobList
	d := func(args ...any) digest.Digest { return digest.FromString(fmt.Sprint(args...)) }
	for i := range 20_000 {
		var c manifest.Change
		index := manifest.Record{Desc: ocispec.Descriptor{MediaType: manifest.MediaTypeIndex, Digest: d("index", i), Size: 500}}
		for j := range 4 {
			rec := manifest.Record{Desc: ocispec.Descriptor{MediaType: manifest.MediaTypeImage, Digest: d("image", i, j), Size: 1000}}
			for k := range 8 {
				layer := d("layer", i, j, k)
				if k < 6 {
					layer = d("base", j, k, i/100) // shared
				} else {
					blobs = append(blobs, blob.Info{Digest: layer, Size: int64(k)})
				}
				rec.Blobs = append(rec.Blobs, layer)
			}
			index.Manifests = append(index.Manifests, rec.Desc.Digest)
			c.Put = append(c.Put, rec)
		}
		c.Put = append(c.Put, index)
		c.Tags = []manifest.TagMove{{Name: fmt.Sprint("v", i), To: index.Desc.Digest}}
		if err := store.Apply(b.Context(), "app", c); err != nil {
			b.Fatal(err)
		}
	}
	x := &Images{Manifests: store, Blobs: blobs}
	count := func(b *testing.B, n, want int) {
		if n != want {
			b.Fatalf("%d, not %d", n, want)
		}
	}
	b.Run("floor", func(b *testing.B) {
		for b.Loop() {
			n := 0
			for range store.Tags(b.Context(), "app", "") {
			}
			for range blobs.Blobs(b.Context(), "app", "") {
			}
			for range store.Manifests(b.Context(), "app", "") {
				n++
			}
			count(b, n, 100_000)
		}
	})
	b.Run("describe all", func(b *testing.B) {
		for b.Loop() {
			n := 0
			for _, err := range x.Describe(b.Context(), "app", ImageFilter{}, "") {
				if n++; err != nil {
					b.Fatal(err)
				}
			}
			count(b, n, 100_000)
		}
	})
	b.Run("describe a page of 100", func(b *testing.B) {
		for b.Loop() {
			page, _, err := Page(x.Describe(b.Context(), "app", ImageFilter{Tags: Tagged}, d("index", 1)), 100)
			if err != nil {
				b.Fatal(err)
			}
			count(b, len(page), 100)
		}
	})
	b.Run("list all", func(b *testing.B) {
		for b.Loop() {
			n := 0
			for range x.List(b.Context(), "app", ImageFilter{}, ImageID{}) {
				n++
			}
			count(b, n, 100_000)
		}
	})
	b.Run("list a page of 100", func(b *testing.B) {
		for b.Loop() {
			page, _, err := Page(x.List(b.Context(), "app", ImageFilter{}, ImageID{}), 100)
			if err != nil {
				b.Fatal(err)
			}
			count(b, len(page), 100)
		}
	})
}

// BenchmarkImageReferrers lists a page of 50 of an image's 10,000 referrers, and
// all of them.
func BenchmarkImageReferrers(b *testing.B) {
	store := &memmanifest.Store{MissingBlobs: memmanifest.Unchecked}
	subject := digest.FromString("image")
	var c manifest.Change
	for i := range 10_000 {
		c.Put = append(c.Put, manifest.Record{
			Desc:    ocispec.Descriptor{MediaType: manifest.MediaTypeImage, Digest: digest.FromString(fmt.Sprint(i)), Size: 1000, ArtifactType: "application/spdx+json"},
			Raw:     make([]byte, 1000),
			Subject: subject,
		})
	}
	if err := store.Apply(b.Context(), "app", c); err != nil {
		b.Fatal(err)
	}
	x := &Images{Manifests: store}
	for _, n := range []int{50, 10_000} {
		b.Run(fmt.Sprint("first ", n), func(b *testing.B) {
			for b.Loop() {
				page, _, err := Page(x.ImageReferrers(b.Context(), "app", subject, ReferrerFilter{}, ""), n)
				if err != nil || len(page) != n {
					b.Fatal(len(page), err)
				}
			}
		})
	}
}
