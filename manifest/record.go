package manifest

import (
	"math"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Record returns what a store keeps of the document raw, which m was parsed
// from and whose digest is dgst. Entries of an index whose media type is none
// that Parse knows are counted among Blobs: build caches list layers there.
func (m *Manifest) Record(dgst digest.Digest, raw []byte) Record {
	r := Record{
		Desc: ocispec.Descriptor{
			MediaType:    m.MediaType,
			Digest:       dgst,
			Size:         int64(len(raw)),
			ArtifactType: m.ArtifactType,
			Annotations:  m.Annotations(),
		},
		Raw:     raw,
		Subject: m.Subject.Digest,
	}
	var blobs, manifests digestSet
	if !m.Config.IsZero() {
		blobs.add(m.Config.Digest)
	}
	for i := range m.Layers {
		blobs.add(m.Layers[i].Digest)
	}
	for i := range m.Manifests {
		if KindOf(m.Manifests[i].MediaType) == KindOpaque {
			blobs.add(m.Manifests[i].Digest)
		} else {
			manifests.add(m.Manifests[i].Digest)
		}
	}
	r.Blobs, r.Manifests = blobs.list, manifests.list
	return r
}

// Size returns the bytes that the document and the distinct blobs it names take
// together, at most math.MaxInt64. What an index lists is not included.
func (m *Manifest) Size() int64 {
	var seen digestSet
	sum := int64(m.size)
	count := func(d Descriptor) {
		if !d.IsZero() && seen.add(d.Digest) {
			if d.Size > math.MaxInt64-sum {
				sum = math.MaxInt64
			} else {
				sum += d.Size
			}
		}
	}
	count(m.Config)
	for _, d := range m.Layers {
		count(d)
	}
	return sum
}

// digestSet keeps the order of first addition.
type digestSet struct {
	list []digest.Digest
	seen map[digest.Digest]struct{} // once there are many
}

// add tells whether d is new.
func (s *digestSet) add(d digest.Digest) bool {
	const few = 16
	if s.seen == nil {
		for _, have := range s.list {
			if have == d {
				return false
			}
		}
		s.list = append(s.list, d)
		if len(s.list) > few {
			s.seen = make(map[digest.Digest]struct{}, 2*few)
			for _, have := range s.list {
				s.seen[have] = struct{}{}
			}
		}
		return true
	}
	if _, ok := s.seen[d]; ok {
		return false
	}
	s.seen[d] = struct{}{}
	s.list = append(s.list, d)
	return true
}
