package manifest

import (
	"context"
	"errors"
	"fmt"
)

// MaxBatch is how many images a batch may name.
const MaxBatch = 100

// ErrBatch is a batch of no image, or of more than MaxBatch.
var ErrBatch = errors.New("a batch names 1 to 100 images")

// BatchResult is what became of a batch. As JSON it is ECR's answer.
type BatchResult struct {
	Deleted  []ImageID       `json:"imageIds"` // with the digest; one for each tag that went, and for each image without one
	Failures []DeleteFailure `json:"failures"`
}

// DeleteFailure is an image of a batch that stays.
type DeleteFailure struct {
	ID     ImageID     `json:"imageId"` // as it was asked for
	Code   FailureCode `json:"failureCode"`
	Reason string      `json:"failureReason"` // for people
	Err    error       `json:"-"`             // of Deleter.Delete
}

// FailureCode says why an image stays, in ECR's words but for the last.
type FailureCode string

// The codes of deletions.
const (
	FailureInvalidDigest      FailureCode = "InvalidImageDigest"
	FailureInvalidTag         FailureCode = "InvalidImageTag"
	FailureTagDoesNotMatch    FailureCode = "ImageTagDoesNotMatchDigest"
	FailureNotFound           FailureCode = "ImageNotFound"
	FailureMissingID          FailureCode = "MissingDigestAndTag"
	FailureReferencedByParent FailureCode = "ImageReferencedByManifestList"
	FailureTagProtected       FailureCode = "ImageTagProtected" // Deleter.KeepTag said no, which ECR cannot
)

// DeleteBatch is Delete for 1 to MaxBatch images, in the order given, so that an
// index can be named before what it lists. An image that stays is a failure in the
// result and no error: errors are ErrBatch, ErrName for repo, and failures of the
// store, which end the batch; the result is valid with them.
func (d *Deleter) DeleteBatch(ctx context.Context, repo string, ids []ImageID) (BatchResult, error) {
	out := BatchResult{Deleted: []ImageID{}, Failures: []DeleteFailure{}}
	err := CheckRepository(repo)
	if err == nil && (len(ids) == 0 || len(ids) > MaxBatch) {
		err = fmt.Errorf("%w, not %d", ErrBatch, len(ids))
	}
	if err != nil {
		return out, deletionError("delete", repo, "", err)
	}
	for _, id := range ids {
		gone, err := d.Delete(ctx, repo, id)
		if err == nil {
			out.Deleted = append(out.Deleted, gone...)
			continue
		}
		f := failureOf(id, err)
		if f.Code == "" {
			return out, err
		}
		out.Failures = append(out.Failures, f)
	}
	return out, nil
}

// failureOf has no code for what is no fault of the image.
func failureOf(id ImageID, err error) DeleteFailure {
	f := DeleteFailure{ID: id, Err: err}
	conflict, _ := errors.AsType[*ConflictError](err)
	switch {
	case errors.Is(err, errNoID):
		f.Code, f.Reason = FailureMissingID, "both the tag and the digest are missing"
	case errors.Is(err, ErrDigest):
		f.Code, f.Reason = FailureInvalidDigest, "not a digest: "+shorten(string(id.Digest))
	case errors.Is(err, ErrName):
		f.Code, f.Reason = FailureInvalidTag, "not a tag: "+shorten(id.Tag)
	case IsNotFound(err):
		f.Code, f.Reason = FailureNotFound, "the image is not in the repository"
	case errors.Is(err, ErrRefused):
		f.Code, f.Reason = FailureTagProtected, errors.Unwrap(err).Error()
	case conflict == nil:
	case conflict.Parent != "":
		f.Code, f.Reason = FailureReferencedByParent, fmt.Sprintf("the image is referenced by a manifest list: [%s]", conflict.Parent)
	case conflict.Tag == id.Tag && id.Digest != "":
		f.Code, f.Reason = FailureTagDoesNotMatch, conflict.Error()
	}
	return f
}

// ExceptionName returns what ECR's API calls an error of [Pusher].Push or of a
// [Deleter]: ImageTagAlreadyExistsException and its like. What is no fault of the
// caller is a ServerException.
func ExceptionName(err error) string {
	if missing, ok := errors.AsType[*MissingError](err); ok {
		if len(missing.Blobs) == 0 {
			return "ReferencedImagesNotFoundException"
		}
		return "LayersNotFoundException"
	}
	for _, e := range exceptions {
		if errors.Is(err, e.err) {
			return e.name
		}
	}
	return "ServerException"
}

var exceptions = []struct {
	err  error
	name string
}{
	{ErrTagImmutable, "ImageTagAlreadyExistsException"},
	{ErrUnchanged, "ImageAlreadyExistsException"},
	{ErrDigest, "ImageDigestDoesNotMatchException"},
	{ErrNotFound, "ImageNotFoundException"},
	{ErrInvalid, "InvalidParameterException"},
	{ErrTooLarge, "InvalidParameterException"},
	{ErrName, "InvalidParameterException"},
	{ErrBatch, "InvalidParameterException"},
}
