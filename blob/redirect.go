package blob

import (
	"context"

	"github.com/opencontainers/go-digest"
)

// Redirector is implemented by stores that may send clients elsewhere for the
// bytes of a blob.
type Redirector interface {
	// Redirect returns a URL that answers a GET, with or without a Range, with
	// the bytes of dgst for a while, or "" to have the blob served from here, be it
	// there or not. Else ErrNotFound when it is not.
	Redirect(ctx context.Context, repo string, dgst digest.Digest) (string, error)
}
