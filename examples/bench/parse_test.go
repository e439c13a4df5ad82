//go:build linux

package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"syscall"
	"testing"
	"time"

	ggcr "github.com/google/go-containerregistry/pkg/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/regclient/regclient/types/descriptor"
	regclient "github.com/regclient/regclient/types/manifest"
	"oras.land/oras-go/v2/content"

	"github.com/wharfage/wharfage/manifest"
)

// readers turn a document into what their library makes of it.
var readers = []struct {
	name string
	read func(document) (any, error)
}{
	{"wharfage", readOurs},
	{"wharfage+sha256", func(d document) (any, error) {
		if manifest.Digest(digest.SHA256, d.raw) != d.desc.Digest {
			return nil, manifest.ErrDigest
		}
		return readOurs(d)
	}},
	{"encoding-json", readStd},
	{"go-containerregistry", func(d document) (any, error) {
		if d.desc.MediaType == ocispec.MediaTypeImageIndex {
			return ggcr.ParseIndexManifest(bytes.NewReader(d.raw))
		}
		return ggcr.ParseManifest(bytes.NewReader(d.raw))
	}},
	{"regclient", func(d document) (any, error) {
		// With the media type, or it would decode once more to find it.
		return regclient.New(regclient.WithRaw(d.raw), regclient.WithDesc(descriptor.Descriptor{
			MediaType: d.desc.MediaType, Digest: d.desc.Digest, Size: d.desc.Size}))
	}},
	{"oras-go", func(d document) (any, error) {
		return content.Successors(context.Background(), fetcher(d.raw), d.desc)
	}},
}

func readOurs(d document) (any, error) { return manifest.Parse(d.desc.MediaType, d.raw) }

func readStd(d document) (any, error) {
	if d.desc.MediaType == ocispec.MediaTypeImageIndex {
		x := new(ocispec.Index)
		return x, json.Unmarshal(d.raw, x)
	}
	m := new(ocispec.Manifest)
	return m, json.Unmarshal(d.raw, m)
}

// fetcher is a store of one document, in memory.
type fetcher []byte

func (f fetcher) Fetch(context.Context, ocispec.Descriptor) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(f)), nil
}

// processorTime is what this process has used, its collector included. Unlike the clock it
// does not run while other processes do.
func processorTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err) // cannot be: the arguments are right
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func BenchmarkParse(b *testing.B) {
	for _, d := range documents(b) {
		var ours float64
		for _, r := range readers {
			b.Run(d.name+"/"+r.name, func(b *testing.B) {
				b.ReportAllocs()
				from := processorTime()
				for b.Loop() {
					if _, err := r.read(d); err != nil {
						b.Fatal(err)
					}
				}
				each := float64(processorTime()-from) / float64(b.N)
				if ours == 0 || r.name == "wharfage" {
					ours = each
				}
				b.ReportMetric(each, "cpu-ns/op")
				b.ReportMetric(each/ours, "x")
			})
		}
	}
}

// TestReadersAgree shows that the readers are compared on the same work: each
// finds all descriptors of each document.
func TestReadersAgree(t *testing.T) {
	for _, d := range documents(t) {
		var want []string
		for _, r := range readers {
			v, err := r.read(d)
			if err != nil {
				t.Fatalf("%s: %s: %v", r.name, d.name, err)
			}
			got := found(t, v)
			slices.Sort(got)
			if want == nil {
				want = got
			}
			if len(got) == 0 || !slices.Equal(got, want) {
				t.Errorf("%s: %s: found %d descriptors, %s others", r.name, d.name, len(got), readers[0].name)
			}
		}
	}
}

// found lists the descriptors in what a reader has returned.
func found(t *testing.T, v any) (out []string) {
	add := func(dgst any, size int64) { out = append(out, fmt.Sprint(dgst, " ", size)) }
	switch v := v.(type) {
	case *manifest.Manifest:
		for _, d := range append(slices.Concat(v.Layers, v.Manifests), v.Config, v.Subject) {
			if !d.IsZero() {
				add(d.Digest, d.Size)
			}
		}
	case *ocispec.Manifest:
		return found(t, append(pointed(v.Subject), append(v.Layers, v.Config)...))
	case *ocispec.Index:
		return found(t, append(pointed(v.Subject), v.Manifests...))
	case []ocispec.Descriptor:
		for _, d := range v {
			add(d.Digest, d.Size)
		}
	case *ggcr.Manifest:
		for _, d := range append(append(pointed(v.Subject), v.Layers...), v.Config) {
			add(d.Digest, d.Size)
		}
	case *ggcr.IndexManifest:
		for _, d := range append(pointed(v.Subject), v.Manifests...) {
			add(d.Digest, d.Size)
		}
	case regclient.Manifest:
		var all []descriptor.Descriptor
		if x, ok := v.(regclient.Indexer); ok {
			all, _ = x.GetManifestList()
		}
		if x, ok := v.(regclient.Imager); ok {
			layers, _ := x.GetLayers()
			config, _ := x.GetConfig()
			all = append(append(all, layers...), config)
		}
		if x, ok := v.(regclient.Subjecter); ok {
			subject, _ := x.GetSubject()
			all = append(all, pointed(subject)...)
		}
		for _, d := range all {
			add(d.Digest, d.Size)
		}
	default:
		t.Fatalf("a reader returned %T", v)
	}
	return out
}

// pointed is what p points at, if anything.
func pointed[T any](p *T) []T {
	if p == nil {
		return nil
	}
	return []T{*p}
}
