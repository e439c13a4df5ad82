package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/manifest"
)

// Failure is an action that did not happen, in the form of the
// lifecycleEventFailureDetails that ECR sends to CloudTrail.
type Failure struct {
	Image        EventImage  `json:"lifecycleEventImage"`
	RulePriority int64       `json:"rulePriority,omitempty"` // absent from what follows a subject or an index
	Code         FailureCode `json:"failureCode"`
	Reason       string      `json:"failureReason"`
	Err          error       `json:"-"` // of the store; nil if the plan had it so
}

// Acted is an action that happened, in the form of the
// lifecycleEventImageActions that ECR sends to CloudTrail.
type Acted struct {
	Image        EventImage `json:"lifecycleEventImage"`
	RulePriority int64      `json:"rulePriority,omitempty"`
	Action       ActionType `json:"action"` // which ECR tells of the rule instead
}

// EventImage names an image in an event.
type EventImage struct {
	Digest    digest.Digest `json:"digest"`
	TagStatus string        `json:"tagStatus"` // "Tagged" or "Untagged"
	TagList   []string      `json:"tagList"`   // at most 100
	PushedAt  int64         `json:"pushedAt"`  // milliseconds since 1970; 0: not known
}

// FailureCode names why an action did not happen. Programs match it, not the
// text.
type FailureCode string

// Failures that ECR has too.
const (
	FailureListed   FailureCode = "ImageReferencedByManifestList" // an index lists it, and must go first
	FailureNotFound FailureCode = "ImageNotFound"                 // somebody else has removed it
)

// Failures that are ours.
const (
	FailureChanged     FailureCode = "ImageChanged"      // another tag, another push or another class since the plan
	FailureSubject     FailureCode = "SubjectReferenced" // what it refers to is there after all
	FailureProtected   FailureCode = "ImageTagProtected" // Runner.KeepTag said no
	FailureUnsupported FailureCode = "Unsupported"       // the store cannot do that, and nothing was done in its place
	FailureInternal    FailureCode = "InternalFailure"   // of the store; whether it is done is not known
)

func eventImage(im *Image) EventImage {
	const most = 100
	e := EventImage{Digest: im.Digest, TagStatus: "Untagged", TagList: []string{}}
	if len(im.Tags) > 0 {
		e.TagStatus, e.TagList = "Tagged", append(e.TagList, im.Tags[:min(most, len(im.Tags))]...)
	}
	if !im.PushedAt.IsZero() {
		e.PushedAt = im.PushedAt.UnixMilli()
	}
	return e
}

// blockedFailure is what the plan says of an image that an index protects.
func blockedFailure(v Verdict) Failure {
	return Failure{Image: eventImage(v.Image), RulePriority: v.Blocked.Rule, Code: FailureListed, Reason: listedReason(v.Blocked.ReferencedBy...)}
}

func listedReason(lists ...digest.Digest) string {
	texts := make([]string, len(lists))
	for i, d := range lists {
		texts[i] = string(d)
	}
	return fmt.Sprintf("Requested image referenced by manifest list: [%s]", strings.Join(texts, ", "))
}

// failureOf puts an error of a store into words. Only a FailureInternal is one of
// the store itself.
func failureOf(v Verdict, err error) *Failure {
	f := &Failure{Image: eventImage(v.Image), RulePriority: v.Rule, Code: FailureInternal, Reason: err.Error(), Err: err}
	conflict, _ := errors.AsType[*manifest.ConflictError](err)
	switch {
	case conflict != nil && conflict.Parent != "":
		f.Code, f.Reason = FailureListed, listedReason(conflict.Parent)
	case conflict != nil && conflict.Subject != "":
		f.Code, f.Reason = FailureSubject, fmt.Sprintf("The subject %s of the requested image is in the repository", conflict.Subject)
	case errors.Is(err, manifest.ErrConflict):
		f.Code, f.Reason = FailureChanged, "Requested image changed since the plan was made: "+err.Error()
	case errors.Is(err, manifest.ErrRefused):
		f.Code, f.Reason = FailureProtected, "Requested image is protected: "+err.Error()
	case manifest.IsNotFound(err):
		f.Code, f.Reason = FailureNotFound, "Requested image not found"
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
	case errors.Is(err, errors.ErrUnsupported):
		f.Code, f.Reason = FailureUnsupported, "The store does not support this: "+err.Error()
	}
	return f
}
