package referrers

import (
	"context"
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/manifest"
)

// Snapshot lists the manifests of repo once, and returns the Index of what it
// found, which later changes do not reach. It is for many questions to a store
// that has no Index: each costs [Scan] a listing. Memory follows the number of
// referrers; of other repositories it knows nothing.
func Snapshot(ctx context.Context, r manifest.Reader, repo string) (Index, error) {
	x := snapshot{repo, map[digest.Digest][]ocispec.Descriptor{}}
	for rec, err := range r.Manifests(ctx, repo, "") {
		if err != nil {
			return nil, err
		}
		if rec.Subject != "" {
			x.lists[rec.Subject] = append(x.lists[rec.Subject], rec.Desc)
		}
	}
	return x, ctx.Err()
}

type snapshot struct {
	repo  string
	lists map[digest.Digest][]ocispec.Descriptor
}

func (x snapshot) Referrers(ctx context.Context, repo string, subject digest.Digest, artifactType string, after digest.Digest) iter.Seq2[ocispec.Descriptor, error] {
	return func(yield func(ocispec.Descriptor, error) bool) {
		if repo != x.repo {
			return
		}
		list := x.lists[subject]
		from, _ := slices.BinarySearchFunc(list, after+"\x00", func(desc ocispec.Descriptor, d digest.Digest) int {
			return strings.Compare(string(desc.Digest), string(d))
		})
		for _, desc := range list[from:] {
			if err := ctx.Err(); err != nil {
				yield(ocispec.Descriptor{}, err)
				return
			}
			desc.Annotations = maps.Clone(desc.Annotations) // which are the caller's
			if hasType(desc, artifactType) && !yield(desc, nil) {
				return
			}
		}
	}
}
