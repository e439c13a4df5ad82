// Package referrers answers who names a manifest as its subject.
//
// An [Index] is derived from the manifests and never written: put a manifest
// with a subject, and it is listed; delete it, and it is not. [Scan] makes an
// Index of any manifest store; stores that keep one of their own implement the
// interface.
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
