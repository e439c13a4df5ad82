package main

import (
	"crypto/sha256"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// model is what must be stored, over all repositories.
type model struct {
	mu        sync.Mutex
	blobs     map[digest.Digest]int // how many manifests need each
	manifests int
	bytes     int64 // of blobs, each once, and of manifests
}

func newModel() *model { return &model{blobs: map[digest.Digest]int{}} }

// count adds a manifest, or takes it away again.
func (m *model) count(doc *document, n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.manifests += n
	m.bytes += int64(n * len(doc.raw))
	for _, b := range doc.blobs {
		before := m.blobs[b.Digest]
		m.blobs[b.Digest] += n
		switch {
		case before == 0:
			m.bytes += b.Size
		case before+n == 0:
			m.bytes -= b.Size
			delete(m.blobs, b.Digest)
		}
	}
}

func (m *model) alive() (manifests int, bytes int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.manifests, m.bytes
}

// repository is what one must hold. Only its worker writes to it.
type repository struct {
	name      string
	manifests map[digest.Digest]*document
	tags      map[string]digest.Digest
	order     []digest.Digest // of manifests, to choose from
	gone      []digest.Digest // some that were deleted
}

// document is a manifest.
type document struct {
	desc     ocispec.Descriptor
	raw      []byte
	blobs    []ocispec.Descriptor // without repetition
	children []digest.Digest
	subject  digest.Digest
}

// listed tells whether an index lists dgst.
func (r *repository) listed(dgst digest.Digest) bool {
	for _, doc := range r.manifests {
		for _, c := range doc.children {
			if c == dgst {
				return true
			}
		}
	}
	return false
}

// needs tells whether a manifest needs a blob.
func (r *repository) needs(dgst digest.Digest) bool {
	for _, doc := range r.manifests {
		for _, b := range doc.blobs {
			if b.Digest == dgst {
				return true
			}
		}
	}
	return false
}

// layer is content that follows from a number, so that it need not be kept.
type layer struct {
	ocispec.Descriptor
	id uint64
}

// layers makes layers, and keeps the descriptors of those that all workers
// share.
type layers struct {
	seed   uint64
	shared []layer
}

const sharedLayers = 200

func newLayers(seed uint64) *layers {
	l := &layers{seed: seed}
	for i := range uint64(sharedLayers) {
		l.shared = append(l.shared, l.make(i))
	}
	return l
}

// make returns the layer of a number. Sizes are 1 KiB to 512 KiB, each power of
// two as likely, but every 16th is of 1 to 4 MiB.
func (l *layers) make(id uint64) layer {
	r := rand.New(rand.NewPCG(l.seed, id))
	size := int64(1024 * math.Exp2(9*r.Float64()))
	if id%16 == 15 {
		size = 1<<20 + r.Int64N(3<<20)
	}
	made := layer{ocispec.Descriptor{MediaType: "application/vnd.oci.image.layer.v1.tar", Size: size}, id}
	made.Digest = digest.FromBytes(l.content(made))
	return made
}

func (l *layers) content(of layer) []byte {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], l.seed)
	binary.LittleEndian.PutUint64(key[8:], of.id)
	b := make([]byte, of.Size)
	rand.NewChaCha8(sha256.Sum256(key[:])).Read(b)
	return b
}
