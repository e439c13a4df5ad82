//go:build linux

package bench

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/rand/v2"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// document is a manifest to read. Its digest is known, as it is to a client.
type document struct {
	name string
	desc ocispec.Descriptor
	raw  []byte
}

// must is for what cannot fail, or not without the benchmark.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

// digestOf makes a digest of i, as good as any.
func digestOf(i int) digest.Digest {
	return digest.FromBytes(binary.LittleEndian.AppendUint64(nil, uint64(i)))
}

// documents are images and indexes of the sizes that registries see, from the
// image of three layers to the longest index that is taken.
func documents() []document {
	r := rand.New(rand.NewPCG(1, 2))
	layers := func(n int) ocispec.Manifest {
		m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
			Config: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: digestOf(-1), Size: 7023}}
		for i := range n {
			m.Layers = append(m.Layers, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: digestOf(i), Size: r.Int64N(1e8)})
		}
		return m
	}
	index := func(n int, annotations map[string]string) ocispec.Index {
		x := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
		for i := range n {
			p := ocispec.Platform{OS: "linux", Architecture: []string{"amd64", "arm64", "arm", "arm", "ppc64le"}[i%5], Variant: []string{"", "v8", "v7", "v6", ""}[i%5]}
			x.Manifests = append(x.Manifests, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digestOf(i),
				Size: 400 + r.Int64N(9000), Annotations: annotations, Platform: &p})
		}
		return x
	}
	artifact := layers(1)
	artifact.ArtifactType = "application/vnd.example.sbom.v1+json"
	artifact.Config = ocispec.DescriptorEmptyJSON
	artifact.Config.Data = nil
	artifact.Subject = &ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digestOf(-2), Size: 727}
	artifact.Annotations = map[string]string{
		ocispec.AnnotationCreated: "2026-01-01T00:00:00Z",
		ocispec.AnnotationTitle:   "the bill of materials of a service, as its build made it",
		ocispec.AnnotationSource:  "https://git.example.com/team/service/tree/main/deploy/sbom",
	}
	many := map[string]string{
		ocispec.AnnotationCreated:  "2026-01-01T00:00:00Z",
		ocispec.AnnotationRevision: "0123456789abcdef0123456789abcdef01234567",
	}
	doc := func(name, mediaType string, v any) document {
		raw, err := json.Marshal(v)
		must(err)
		return document{fmt.Sprintf("%s-%dB", name, len(raw)), ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw))}, raw}
	}
	return []document{
		doc("image-3", ocispec.MediaTypeImageManifest, layers(3)),
		doc("image-40", ocispec.MediaTypeImageManifest, layers(40)),
		doc("index-10", ocispec.MediaTypeImageIndex, index(10, nil)),
		doc("index-1000", ocispec.MediaTypeImageIndex, index(1000, nil)),
		doc("index-11400", ocispec.MediaTypeImageIndex, index(11400, many)),
		doc("artifact", ocispec.MediaTypeImageManifest, artifact),
	}
}
