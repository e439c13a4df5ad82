package replication

import (
	"context"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/manifest"
)

// ImageStatus is how far an image has been copied. As JSON it is the answer of ECR's
// DescribeImageReplicationStatus.
type ImageStatus struct {
	Repo     string              `json:"repositoryName"`
	Image    manifest.ImageID    `json:"imageId"`
	Statuses []DestinationStatus `json:"replicationStatuses"`
}

// DestinationStatus is that of one destination.
type DestinationStatus struct {
	Registry
	Status      CopyStatus  `json:"status"`
	FailureCode FailureCode `json:"failureCode,omitempty"` // of one that has Failed
}

// CopyStatus is where a copy stands, in ECR's words.
type CopyStatus string

// The statuses.
const (
	StatusInProgress CopyStatus = "IN_PROGRESS" // also while it waits for another attempt
	StatusComplete   CopyStatus = "COMPLETE"
	StatusFailed     CopyStatus = "FAILED"
)

// Status returns how far an image has been copied, in the order of the rules. It is
// what the last job for a destination has come to, or any that is not done. Where the
// Queue knows of none, as of what was copied long ago, the destination itself is asked: it is left out
// if it has not got the image, does not answer, or cannot be asked. An image that no rule
// covers has no statuses.
//
// Errors: [manifest.ErrNotFound], [manifest.ErrName], *[manifest.ConflictError] for a tag that does
// not name the digest.
func (r *Replicator) Status(ctx context.Context, repo string, id manifest.ImageID) (ImageStatus, error) {
	fail := func(err error) (ImageStatus, error) {
		object := id.Tag
		if object == "" {
			object = string(id.Digest)
		}
		return ImageStatus{}, &manifest.Error{Op: "describe replication status", Repo: repo, Object: object, Err: err}
	}
	dgst, err := r.identify(ctx, repo, id)
	if err != nil {
		return fail(err)
	}
	c, err := r.Configuration(ctx)
	if err != nil {
		return fail(err)
	}
	last := map[Registry]Entry{}
	var order []Registry
	for _, route := range c.Match(repo) {
		order = append(order, route.To)
	}
	for e, err := range r.Queue.Entries(ctx, EntryFilter{Repo: repo, Digest: dgst}, 0) {
		if err != nil {
			return fail(err)
		}
		if e.Job.Action != ActionCopy {
			continue
		}
		if !slices.Contains(order, e.Job.To) {
			order = append(order, e.Job.To)
		}
		if was, found := last[e.Job.To]; !found || !was.open() || e.open() {
			last[e.Job.To] = e
		}
	}
	out := ImageStatus{Repo: repo, Image: manifest.ImageID{Digest: dgst, Tag: id.Tag}, Statuses: []DestinationStatus{}}
	for _, to := range order {
		s := DestinationStatus{Registry: to, Status: StatusComplete}
		switch e, found := last[to]; {
		case !found && !r.has(ctx, to, repo, dgst):
			continue
		case found && e.State == StateDead:
			s.Status, s.FailureCode = StatusFailed, e.Failure.Code
		case found && e.open():
			s.Status = StatusInProgress
		}
		out.Statuses = append(out.Statuses, s)
	}
	return out, nil
}

// open tells whether something is still to come of a job.
func (e *Entry) open() bool { return e.State == StateWaiting || e.State == StateRunning }

func (r *Replicator) identify(ctx context.Context, repo string, id manifest.ImageID) (digest.Digest, error) {
	if id == (manifest.ImageID{}) {
		return "", manifest.ErrName
	}
	dgst := id.Digest
	if id.Tag != "" {
		t, err := r.Source.Manifests.Resolve(ctx, repo, id.Tag)
		if err != nil {
			return "", err
		}
		if dgst != "" && dgst != t.Digest {
			return "", &manifest.ConflictError{Tag: id.Tag, Want: dgst, Have: t.Digest}
		}
		return t.Digest, nil
	}
	_, err := r.Source.Manifests.Get(ctx, repo, dgst)
	return dgst, err
}

// has asks a destination for an image.
func (r *Replicator) has(ctx context.Context, to Registry, repo string, dgst digest.Digest) bool {
	d, err := r.Destinations(ctx, to)
	if err != nil {
		return false
	}
	stater, ok := blob.As[manifest.Stater](d.Manifests)
	if !ok {
		return false
	}
	have, err := stater.Stat(ctx, repo, []digest.Digest{dgst})
	return err == nil && len(have) == 1 && have[0].Digest != ""
}
