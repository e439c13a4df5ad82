package lifecycle

import (
	"encoding/json"
	"strconv"
	"time"

	"github.com/opencontainers/go-digest"
)

// Preview is the answer of ECR's GetLifecyclePolicyPreview, in one page.
type Preview struct {
	RegistryID     string          `json:"registryId,omitempty"`
	RepositoryName string          `json:"repositoryName,omitempty"`
	PolicyText     string          `json:"lifecyclePolicyText"`
	Status         string          `json:"status"` // COMPLETE
	Results        []PreviewResult `json:"previewResults"`
	Summary        PreviewSummary  `json:"summary"`
}

// PreviewResult is an image that a rule acts on.
type PreviewResult struct {
	Tags         []string      `json:"imageTags,omitempty"`
	Digest       digest.Digest `json:"imageDigest"`
	PushedAt     json.Number   `json:"imagePushedAt,omitempty"` // seconds since 1970; "" if not known
	StorageClass string        `json:"storageClass"`            // STANDARD or ARCHIVE, where it is
	Action       PreviewAction `json:"action"`
	Rule         int64         `json:"appliedRulePriority"`
}

// PreviewAction is what a rule does.
type PreviewAction struct {
	Type               string `json:"type"`                         // EXPIRE or TRANSITION
	TargetStorageClass string `json:"targetStorageClass,omitempty"` // ARCHIVE with TRANSITION
}

// PreviewSummary counts the results.
type PreviewSummary struct {
	Expiring      int                    `json:"expiringImageTotalCount"`
	Transitioning []PreviewTransitioning `json:"transitioningImageTotalCounts,omitempty"`
}

// PreviewTransitioning counts what goes to a storage class.
type PreviewTransitioning struct {
	TargetStorageClass string `json:"targetStorageClass"`
	Images             int    `json:"imageTotalCount"`
}

// Preview returns the plan as ECR would show it: what rules act on, oldest
// first. It has no place for what follows a subject, nor for reasons.
func (p *Plan) Preview() *Preview {
	out := &Preview{PolicyText: p.policy.String(), Status: "COMPLETE", Results: []PreviewResult{}}
	archived := 0
	for _, i := range p.Order() {
		im, mk := &p.images[i], &p.marks[i]
		if mk.via() != ViaRule || mk.action == untag {
			continue
		}
		r := PreviewResult{
			Tags: im.Tags, Digest: im.Digest, PushedAt: seconds(im.PushedAt), StorageClass: "STANDARD",
			Action: PreviewAction{Type: "EXPIRE"}, Rule: p.policy.rules[mk.owner].Priority,
		}
		if im.StorageClass == Archive {
			r.StorageClass = "ARCHIVE"
		}
		if mk.action == transition {
			r.Action = PreviewAction{"TRANSITION", "ARCHIVE"}
			archived++
		} else {
			out.Summary.Expiring++
		}
		out.Results = append(out.Results, r)
	}
	if archived > 0 {
		out.Summary.Transitioning = []PreviewTransitioning{{"ARCHIVE", archived}}
	}
	return out
}

// seconds is t as AWS's JSON has it, to the millisecond.
func seconds(t time.Time) json.Number {
	if t.IsZero() {
		return ""
	}
	return json.Number(strconv.FormatFloat(float64(t.UnixMilli())/1000, 'f', -1, 64))
}
