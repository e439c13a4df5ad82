package referrers

import (
	"context"
	"iter"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/manifest"
)

// Scan returns an Index that reads all manifests of the repository for each
// listing. It is right for any store, and fast enough for small ones.
func Scan(r manifest.Reader) Index { return scan{r} }

type scan struct{ r manifest.Reader }

func (s scan) Referrers(ctx context.Context, repo string, subject digest.Digest, artifactType string, after digest.Digest) iter.Seq2[ocispec.Descriptor, error] {
	return func(yield func(ocispec.Descriptor, error) bool) {
		for rec, err := range s.r.Manifests(ctx, repo, after) {
			if err != nil {
				yield(ocispec.Descriptor{}, err)
				return
			}
			if rec.Subject == subject && hasType(rec.Desc, artifactType) && !yield(rec.Desc, nil) {
				return
			}
		}
	}
}

func hasType(desc ocispec.Descriptor, artifactType string) bool {
	return artifactType == "" || desc.ArtifactType == artifactType
}
