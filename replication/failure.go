package replication

import (
	"errors"
	"fmt"
	"strings"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/manifest"
)

// FailureCode says in one word why a copy has failed. ECR publishes none; these are
// of this package.
type FailureCode string

// The codes.
const (
	FailureDenied      FailureCode = "destination_denied"      // the destination does not allow it
	FailureRepository  FailureCode = "repository_missing"      // it lacks the repository, and makes none
	FailureLayer       FailureCode = "layer_missing"           // the source lacks what the image names
	FailureKMS         FailureCode = "kms"                     // a key cannot be used: as a *FailureError says
	FailureUnavailable FailureCode = "destination_unavailable" // it cannot be reached, or has too many requests
	FailureContent     FailureCode = "content_invalid"         // the source has served other bytes, or the destination takes none such
	FailureReferenced  FailureCode = "image_referenced"        // of a deletion: an index at the destination lists it
	FailureInternal    FailureCode = "internal"
)

// FailureError gives an error a code. Functions of a [Destination] may return one.
type FailureError struct {
	Code FailureCode
	Err  error
}

func (e *FailureError) Error() string { return fmt.Sprintf("%s: %v", e.Code, e.Err) }
func (e *FailureError) Unwrap() error { return e.Err }

// FailureOf returns what is told of an error of [Replicator.Do], and whether another
// attempt is of use. It is for other queues.
func FailureOf(err error) (f JobFailure, again bool) {
	const most = 500
	detail := err.Error()
	f = JobFailure{Code: FailureInternal, Detail: strings.ToValidUTF8(detail[:min(len(detail), most)], "")}
	_, temporary := errors.AsType[*TemporaryError](err)
	again = true
	conflict, ok := errors.AsType[*manifest.ConflictError](err)
	switch {
	case errors.Is(err, ErrDenied):
		f.Code, again = FailureDenied, temporary
	case errors.Is(err, ErrUnavailable), errors.Is(err, ErrRateLimited):
		f.Code = FailureUnavailable
	case errors.Is(err, ErrContent):
		f.Code = FailureContent
	case errors.Is(err, manifest.ErrInvalid), errors.Is(err, manifest.ErrTooLarge):
		f.Code, again = FailureContent, temporary
	case errors.Is(err, errors.ErrUnsupported):
		again = temporary
	case errors.Is(err, blob.ErrNotFound), manifest.IsNotFound(err), errors.Is(err, manifest.ErrMissing):
		f.Code = FailureLayer
	case ok && conflict.Parent != "":
		f.Code = FailureReferenced
	}
	if coded, ok := errors.AsType[*FailureError](err); ok {
		f.Code = coded.Code
	}
	return f, again
}
