package replication

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/manifest"
)

// maxLooks bounds how often a job looks at a source that changes all the time.
const maxLooks = 10

var errRestless = errors.New("the source changes all the time")

// Do runs a job, as Run does with those of the Queue: for other queues. It may be
// called again for a job that is done, or has failed anywhere. The outcome is for
// people.
func (r *Replicator) Do(ctx context.Context, job Job) (outcome string, err error) {
	d, err := r.Destinations(ctx, job.To)
	if err != nil {
		return "", err
	}
	x := attempt{r: r, job: job, d: d, repo: job.Repo}
	x.landing = newLanding(d.Manifests, job)
	x.d.Manifests = x.landing
	if x.d.Registry == "" {
		x.d.Registry = job.To.String()
	}
	err = x.run(ctx)
	if d.Tell != nil {
		for _, e := range x.landing.events(r.Self, job.Repo) {
			d.Tell(ctx, e)
		}
	}
	return x.outcome(), err
}

// attempt is one run of a job.
type attempt struct {
	r       *Replicator
	job     Job
	d       Destination
	repo    string
	landing *landing
	ensured bool
	allowed map[AccessAction]bool

	copied, removed bool
	kept            []string // tags that are immutable at the destination
}

func (x *attempt) outcome() string {
	switch {
	case len(x.kept) > 0:
		return fmt.Sprintf("copied; immutable there: %q", x.kept)
	case x.copied:
		return "copied"
	case x.removed:
		return "deleted"
	}
	return "nothing to do"
}

// view is what the source has of a job.
type view struct {
	image bool
	tags  map[string]digest.Digest // "" for those that are not there
}

func (x *attempt) run(ctx context.Context) error {
	var before view
	for looks := range maxLooks {
		now, err := x.look(ctx)
		if err != nil {
			return err
		}
		if looks > 0 && now.equal(&before) {
			return nil
		}
		if err := x.apply(ctx, &now, looks > 0); err != nil {
			return err
		}
		before = now
	}
	return &TemporaryError{Err: errRestless}
}

func (v *view) equal(w *view) bool {
	if v.image != w.image || len(v.tags) != len(w.tags) {
		return false
	}
	for tag, d := range v.tags {
		if have, ok := w.tags[tag]; !ok || have != d {
			return false
		}
	}
	return true
}

func (x *attempt) look(ctx context.Context) (v view, err error) {
	v.tags = map[string]digest.Digest{}
	for _, tag := range x.job.Tags {
		t, err := x.r.Source.Manifests.Resolve(ctx, x.repo, tag)
		if err != nil && !manifest.IsNotFound(err) {
			return v, err
		}
		v.tags[tag] = t.Digest
		if err != nil {
			v.tags[tag] = ""
		}
	}
	if x.job.Digest == "" {
		return v, nil
	}
	_, err = x.r.Source.Manifests.Get(ctx, x.repo, x.job.Digest)
	v.image = err == nil
	if manifest.IsNotFound(err) {
		err = nil
	}
	if err != nil || !v.image || !x.job.Whole {
		return v, err
	}
	for t, err := range x.r.Source.Manifests.Tags(ctx, x.repo, "") {
		if err != nil {
			return v, err
		}
		if t.Digest == x.job.Digest {
			v.tags[t.Name] = t.Digest
		}
	}
	return v, nil
}

// apply makes the destination as v is. What v has that another job is for is left to that one,
// unless that may have been done before this one wrote.
func (x *attempt) apply(ctx context.Context, v *view, changed bool) error {
	var tags, gone []string
	deleting := x.job.Action == ActionDelete
	for tag, d := range v.tags {
		mine, err := true, error(nil)
		if !changed && d != "" && (deleting || d != x.job.Digest) {
			mine, err = x.mine(ctx, tag, d)
		}
		switch {
		case err != nil:
			return err
		case d == "":
			gone = append(gone, tag)
		case !mine:
		case d == x.job.Digest:
			tags = append(tags, tag)
		default:
			if err := x.copy(ctx, d, []string{tag}); err != nil {
				return err
			}
		}
	}
	slices.Sort(tags)
	slices.Sort(gone)
	image := v.image && (!deleting || len(tags) > 0 || x.job.Whole)
	if image && deleting && len(tags) == 0 && !changed {
		awaited, err := x.awaited(ctx, x.job.Digest, "")
		if err != nil {
			return err
		}
		image = !awaited
	}
	if image {
		if err := x.copy(ctx, x.job.Digest, tags); err != nil {
			return err
		}
	}
	if !deleting && (!changed || !x.job.Deletes) {
		return nil
	}
	for _, tag := range gone {
		if err := x.untag(ctx, tag); err != nil {
			return err
		}
	}
	if !v.image && x.job.Digest != "" && (x.job.Whole || !deleting) {
		return x.delete(ctx)
	}
	return nil
}

// mine tells whether a tag that names d at the source is for this job, since no other is still to
// come for it: if the job was made for d, or if the tag is, at the destination, as an attempt may
// have left it that ended before it looked again.
func (x *attempt) mine(ctx context.Context, tag string, d digest.Digest) (bool, error) {
	if d != x.job.Digest {
		t, err := x.d.Manifests.Resolve(ctx, x.repo, tag)
		none := manifest.IsNotFound(err)
		switch {
		case err != nil && !none:
			return false, err
		case none != (x.job.Action == ActionDelete), !none && t.Digest != x.job.Digest:
			return false, nil
		}
	}
	awaited, err := x.awaited(ctx, d, tag)
	return !awaited, err
}

// awaited tells whether another job is still to copy an image, by a tag if that is not "".
func (x *attempt) awaited(ctx context.Context, d digest.Digest, tag string) (bool, error) {
	if x.r.Queue == nil {
		return false, nil
	}
	for e, err := range x.r.Queue.Entries(ctx, EntryFilter{Repo: x.repo, Digest: d, To: x.job.To}, 0) {
		if err != nil {
			return false, err
		}
		if j := &e.Job; e.open() && j.Action == ActionCopy && j.ID != x.job.ID && (tag == "" || j.Whole || slices.Contains(j.Tags, tag)) {
			return true, nil
		}
	}
	return false, nil
}

func (x *attempt) allow(ctx context.Context, a AccessAction) error {
	if x.d.Allow == nil || x.allowed[a] {
		return nil
	}
	err := x.d.Allow(ctx, Access{x.r.Self, a, x.repo})
	if err == nil {
		if x.allowed == nil {
			x.allowed = map[AccessAction]bool{}
		}
		x.allowed[a] = true
	}
	return err
}

func (x *attempt) copy(ctx context.Context, dgst digest.Digest, tags []string) error {
	if err := x.allow(ctx, ReplicateImage); err != nil {
		return err
	}
	if x.d.Ensure != nil && !x.ensured {
		err := x.d.Ensure(ctx, x.repo, func() error { return x.allow(ctx, CreateRepository) })
		if err != nil {
			if _, coded := errors.AsType[*FailureError](err); !coded && !errors.Is(err, ErrDenied) {
				err = &FailureError{FailureRepository, err}
			}
			return err
		}
		x.ensured = true
	}
	if tags == nil {
		tags = []string{}
	}
	result, err := x.r.copier().Copy(ctx, x.r.Source, x.repo, string(dgst), x.d.Target, x.repo, CopyOptions{Tags: tags, Referrers: AllReferrers})
	x.copied = x.copied || x.landing.pushes() > 0
	for _, tag := range result.Kept {
		if !slices.Contains(x.kept, tag) {
			x.kept = append(x.kept, tag)
		}
	}
	if err == nil || ctx.Err() != nil {
		return err
	}
	// What has gone from the source is nothing to be copied any more.
	if _, gone := x.r.Source.Manifests.Get(ctx, x.repo, dgst); manifest.IsNotFound(gone) {
		return nil
	}
	return err
}

func (x *attempt) remover(ctx context.Context) (Remover, error) {
	if err := x.allow(ctx, BatchDeleteImage); err != nil {
		return nil, err
	}
	remover := x.landing.remover()
	if remover == nil {
		return nil, fmt.Errorf("delete at %s: %w", x.job.To, manifest.ErrUnsupported)
	}
	return remover, nil
}

// removal makes a success of what is gone already, and of what the destination
// protects.
func (x *attempt) removal(err error) error {
	switch {
	case err == nil:
		x.removed = true
	case manifest.IsNotFound(err), errors.Is(err, manifest.ErrRefused):
		return nil
	}
	return err
}

func (x *attempt) untag(ctx context.Context, tag string) error {
	remover, err := x.remover(ctx)
	if err != nil {
		return err
	}
	return x.removal(remover.Untag(ctx, x.repo, tag, ""))
}

func (x *attempt) delete(ctx context.Context) error {
	remover, err := x.remover(ctx)
	if err != nil {
		return err
	}
	_, err = remover.Delete(ctx, x.repo, manifest.ImageID{Digest: x.job.Digest})
	return x.removal(err)
}
