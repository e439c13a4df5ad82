// Package referrers answers who names a manifest as its subject.
//
// An [Index] is derived from the manifests and never written: put a manifest
// with a subject, and it is listed; delete it, and it is not. [Scan] makes an
// Index of any manifest store; stores that keep one of their own implement the
// interface.
//
// A [Graph] walks from a manifest to all that refers to it, and back to what it
// belongs to, says what would go along with it, and is drawn by an [Export].
//
// Registries without the referrers API keep the same list under a tag, which
// clients write: see [TagSchema].
//
// # Testing an implementation
//
// Package referrerstest checks an Index against Scan.
package referrers

import (
	"context"
	"iter"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/manifest"
)

// Index lists referrers.
type Index interface {
	// Referrers lists the manifests of repo whose subject is subject, in
	// ascending order of digest, strictly after the digest after. A non-empty
	// artifactType lists only those of exactly that type.
	//
	// Each entry is complete: MediaType, Digest, Size, ArtifactType and
	// Annotations, as distribution-spec "Listing Referrers" wants them. The
	// subject need not exist and may have a digest of any algorithm. A manifest is
	// listed from the moment its Apply returns until the one that deletes it
	// does. The listing ends at its first error, and holds no lock and no connection
	// while the loop body runs.
	Referrers(ctx context.Context, repo string, subject digest.Digest, artifactType string, after digest.Digest) iter.Seq2[ocispec.Descriptor, error]
}

// JSONIndex is an Index that keeps its entries as they stand in a list, so that
// a page of thousands is a matter of copying.
type JSONIndex interface {
	Index
	// ReferrersJSON is Referrers with each entry in JSON.
	ReferrersJSON(ctx context.Context, repo string, subject digest.Digest, artifactType string, after digest.Digest) iter.Seq2[manifest.ReferrerJSON, error]
}

// JSON lists referrers in JSON: by [JSONIndex] if x is one, else by encoding
// what Referrers lists.
func JSON(ctx context.Context, x Index, repo string, subject digest.Digest, artifactType string, after digest.Digest) iter.Seq2[manifest.ReferrerJSON, error] {
	if ready, ok := x.(JSONIndex); ok {
		return ready.ReferrersJSON(ctx, repo, subject, artifactType, after)
	}
	return func(yield func(manifest.ReferrerJSON, error) bool) {
		for desc, err := range x.Referrers(ctx, repo, subject, artifactType, after) {
			if err != nil {
				yield(manifest.ReferrerJSON{}, err)
				return
			}
			if !yield(manifest.NewReferrerJSON(desc), nil) {
				return
			}
		}
	}
}
