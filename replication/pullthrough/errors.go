package pullthrough

import (
	"context"
	"errors"
	"fmt"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/replication"
)

// UpstreamError is what an upstream has answered. It unwraps to the cause:
// replication.ErrDenied, ErrRateLimited, ErrUnavailable or ErrContent, or
// manifest.ErrNotFound or blob.ErrNotFound.
type UpstreamError struct {
	UpstreamURL string
	Repo        string // its name there
	Object      string // a digest or a tag
	Err         error
}

func (e *UpstreamError) Error() string {
	return fmt.Sprintf("upstream %s/%s %s: %v", e.UpstreamURL, e.Repo, e.Object, e.Err)
}

func (e *UpstreamError) Unwrap() error { return e.Err }

// Code is ECR's failure code for an error of a [Sync], "" for none.
func Code(err error) string {
	switch {
	case err == nil:
		return ""
	case errors.Is(err, replication.ErrDenied):
		return "UpstreamAccessDenied"
	case errors.Is(err, replication.ErrRateLimited):
		return "UpstreamTooManyRequests"
	case errors.Is(err, replication.ErrUnavailable), errors.Is(err, replication.ErrContent):
		return "UpstreamUnavailable"
	case isNotFound(err):
		return "ImageNotFound"
	case errors.Is(err, manifest.ErrRefused):
		return "ImageTagAlreadyExists"
	}
	return "Internal"
}

func isNotFound(err error) bool {
	return manifest.IsNotFound(err) || errors.Is(err, blob.ErrNotFound)
}

var errClosed = errors.New("the cache is closed")

// wrong is content that is not what was asked for.
func wrong(format string, args ...any) error {
	return fmt.Errorf("%w: %w", replication.ErrContent, fmt.Errorf(format, args...))
}

// upstreamError names where err is from, and sorts what it is: whatever is none of
// the errors of a Source is ErrUnavailable.
func (p place) upstreamError(ctx context.Context, object string, err error) error {
	switch {
	case err == nil:
		return nil
	case context.Cause(ctx) == errSilent:
		err = &replication.TemporaryError{Err: fmt.Errorf("%w: %w", replication.ErrUnavailable, errSilent)}
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case isUpstream(err):
		return err
	case isNotFound(err), errors.Is(err, replication.ErrDenied), errors.Is(err, replication.ErrRateLimited),
		errors.Is(err, replication.ErrUnavailable), errors.Is(err, replication.ErrContent):
	default:
		err = fmt.Errorf("%w: %w", replication.ErrUnavailable, err)
	}
	return &UpstreamError{p.rule.UpstreamURL, p.upstream, object, err}
}

func isUpstream(err error) bool {
	_, ok := errors.AsType[*UpstreamError](err)
	return ok
}

var errSilent = errors.New("nothing came for too long")
