// Package manifesttest checks that a [manifest.Store] keeps the promises of
// package manifest. A store's test is a few lines:
//
//	manifesttest.TestStore(t, manifesttest.Options{
//		New: func(t testing.TB) manifest.Store { return open(t) },
//	})
//
// [Faulty] makes a store fail on demand, for tests of what is built on one.
package manifesttest

import (
	"context"
	"iter"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/manifest"
)

// Index is referrers.Index, which this package must not import.
type Index interface {
	Referrers(ctx context.Context, repo string, subject digest.Digest, artifactType string, after digest.Digest) iter.Seq2[ocispec.Descriptor, error]
}

// Options say how to make a store and what can be asked of it.
type Options struct {
	// New returns an empty store. Each clause has its own.
	New func(t testing.TB) manifest.Store

	// PutBlobs makes blobs of these digests exist in repo, as far as s can
	// see. Nil skips what is promised about RequireBlobs.
	PutBlobs func(t testing.TB, s manifest.Store, repo string, dgsts ...digest.Digest)
	// DeleteBlob removes one, unless a manifest needs it, which is an error. It
	// is called on other goroutines than the test's. Nil skips what is promised
	// about blobs that go while they are required.
	DeleteBlob func(t testing.TB, s manifest.Store, repo string, dgst digest.Digest) error
	// NoBlobs says why PutBlobs or DeleteBlob is nil, for the skip's message.
	NoBlobs string

	// Index returns the index of s. Nil means s itself if it is an [Index];
	// else referrers are not checked.
	Index func(s manifest.Store) Index
}

// TestStore checks a store. Each subtest is named by the sentence it checks.
// What is optional is checked if the store has it: [manifest.Catalog],
// [manifest.Stater], [manifest.Describer], [manifest.Counter], [Index]. A store must refuse features beyond
// manifest.BasicFeatures that it has not.
func TestStore(t *testing.T, o Options) {
	for _, list := range [][]clause{readClauses, applyClauses, removeClauses, seenClauses, classClauses, listClauses, raceClauses, referrerClauses} {
		for _, c := range list {
			t.Run(c.name, func(t *testing.T) {
				c.check(&kit{T: t, Options: o, s: o.New(t)})
			})
		}
	}
}

type clause struct {
	name  string
	check func(*kit)
}

// kit is one clause under way.
type kit struct {
	*testing.T
	Options
	s manifest.Store
}

func (k *kit) needBlobs() {
	if k.PutBlobs == nil {
		k.Skipf("Options.PutBlobs is nil: %s", k.NoBlobs)
	}
}

func (k *kit) index() Index {
	if k.Options.Index != nil {
		return k.Options.Index(k.s)
	}
	x, ok := k.s.(Index)
	if !ok {
		k.Skip("Options.Index is nil and the store is no Index")
	}
	return x
}
