package blob

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/opencontainers/go-digest"
)

// Locator is implemented by stores that can tell which repositories have a
// blob. It serves mounts that name no source.
type Locator interface {
	// Locate lists the repositories that have dgst, in ascending byte order.
	Locate(ctx context.Context, dgst digest.Digest) iter.Seq2[string, error]
}

// MountAny mounts dgst into repo from any repository that has it and that may,
// which it asks in turn, says yes to. It gives up after 100 repositories.
// Errors: ErrNotFound, also when s is no [Locator].
func MountAny(ctx context.Context, s Store, repo string, dgst digest.Digest, may func(from string) bool) error {
	const most = 100
	notFound := &Error{Op: "mount", Repo: repo, Digest: dgst, Err: fmt.Errorf("in no other repository that may be read: %w", ErrNotFound)}
	l, ok := As[Locator](s)
	if !ok {
		return notFound
	}
	n := 0
	for from, err := range l.Locate(ctx, dgst) {
		if err != nil {
			return err
		}
		if n++; n > most {
			break
		}
		if !may(from) {
			continue
		}
		if err := Mount(ctx, s, from, repo, dgst); !errors.Is(err, ErrNotFound) {
			return err
		}
	}
	return notFound
}
