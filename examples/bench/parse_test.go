//go:build linux

package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"regexp"
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

// processorTime is what this process has used, its collector included. Unlike
// the clock it does not run while other processes do.
func processorTime() time.Duration {
	var u syscall.Rusage
	must(syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func BenchmarkParse(b *testing.B) {
	for _, d := range documents() {
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

var sha256s = regexp.MustCompile(`sha256:[0-9a-f]{64}`)

// TestReadersAgree shows that the readers are compared on the same work: each
// finds all descriptors of each document.
func TestReadersAgree(t *testing.T) {
	for _, d := range documents() {
		want := sha256s.FindAllString(string(d.raw), -1)
		slices.Sort(want)
		for _, r := range readers {
			v, err := r.read(d)
			if m, ok := v.(regclient.Manifest); ok {
				v = m.GetOrig() // or it would answer with the document itself
			}
			text, err2 := json.Marshal(v)
			if err != nil || err2 != nil {
				t.Fatal(r.name, d.name, err, err2)
			}
			got := sha256s.FindAllString(string(text), -1)
			slices.Sort(got)
			if !slices.Equal(got, want) {
				t.Errorf("%s: %s: found %d descriptors of %d", r.name, d.name, len(got), len(want))
			}
		}
	}
}
