package blob

import (
	"context"
	"fmt"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Mounter is implemented by stores that can share bytes between repositories.
type Mounter interface {
	// Mount makes dgst of from visible in repo as well, durably, and touches it.
	// ErrNotFound when from does not have it. from may be repo.
	Mount(ctx context.Context, from, repo string, dgst digest.Digest) error
}

// Mount makes dgst of the repository from visible in repo as well, durably, and
// touches it there. A store that is no [Mounter] copies the bytes, and they are
// verified.
//
// Errors: ErrNotFound when from does not have it.
func Mount(ctx context.Context, s Store, from, repo string, dgst digest.Digest) error {
	if m, ok := As[Mounter](s); ok {
		return fail("mount", repo, dgst, m.Mount(ctx, from, repo, dgst))
	}
	return fail("mount", repo, dgst, mountCopy(ctx, s, from, repo, dgst))
}

func mountCopy(ctx context.Context, s Store, from, repo string, dgst digest.Digest) error {
	missing := Missing(s)
	if lacks, err := missing(ctx, from, []digest.Digest{dgst}); err != nil {
		return err
	} else if len(lacks) > 0 {
		return fmt.Errorf("not in %s: %w", from, ErrNotFound)
	}
	if lacks, err := missing(ctx, repo, []digest.Digest{dgst}); err != nil || len(lacks) == 0 {
		return err
	}
	content, info, err := s.Open(ctx, from, dgst, 0, -1)
	if err != nil {
		return err
	}
	defer content.Close()
	return Put(ctx, s, repo, ocispec.Descriptor{Digest: dgst, Size: info.Size}, content)
}
