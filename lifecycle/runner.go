package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/manifest"
)

// Reasons for which a [Runner] refuses to change anything.
var (
	ErrClock = errors.New("odd clock")
	ErrShare = errors.New("too much would go")
)

// ClockError is a time that cannot be right. It unwraps to [ErrClock].
type ClockError struct {
	What string    // whose time it is
	Time time.Time // the odd time
	Now  time.Time // of the run
}

func (e *ClockError) Error() string {
	return fmt.Sprintf("odd clock: %s at %v, and now is %v", e.What, e.Time, e.Now)
}

func (e *ClockError) Unwrap() error { return ErrClock }

// ShareError is a plan that would remove more than it may. It unwraps to
// [ErrShare].
type ShareError struct {
	Going, Of int     // images with a tag
	Max       float64 // Runner.MaxShare
}

func (e *ShareError) Error() string {
	return fmt.Sprintf("%d of %d tagged images would go, which is more than the share of %v that may go unconfirmed (MaxShare)", e.Going, e.Of, e.Max)
}

func (e *ShareError) Unwrap() error { return ErrShare }

// Runner carries out plans. Manifests is required. Its methods may be called
// from many goroutines at once if its functions may.
type Runner struct {
	// Manifests is what is read and changed. It needs FeatureUnchanged and
	// FeatureDeleteOrphan, and FeatureClasses to archive; what it lacks is reported as
	// FailureUnsupported for each image, and nothing else is done in its place.
	Manifests manifest.Store

	// Activity knows of pulls. Flush a [Buffer] before a run. nil means that no
	// pulls are known, so that no rule acts by them.
	Activity Activity

	// MaxShare is the part of the tagged images of a repository that may expire, or
	// lose their last tag, in a run, else *ShareError and nothing goes. Zero means
	// 0.25.
	MaxShare float64
	// Few is how many tagged images may go whatever their share, since the share of
	// a small repository says little. Zero means none.
	Few     int
	Confirm bool // let any share go

	Dry bool // do all but change the store

	// Limit bounds how many images a run acts on; what is beyond, the youngest, is
	// left to the next run. What is spared does not count. Zero means no limit.
	Limit int

	// Grace is how long a referrer must have been in its storage class before Reap
	// removes it. Zero means 24 hours, a negative value none. Run has it from the
	// policy's [Options].
	Grace time.Duration

	// Last is when the run before this one was, and Interval how far apart runs
	// are. A clock that says that it is earlier than Last, or more than 10 Intervals
	// later, refuses the run. Zero is not compared.
	Last     time.Time
	Interval time.Duration

	// KeepTag may refuse that a tag goes from an image, alone or with it, as that of
	// [manifest.Deleter] does; the image is spared then. nil allows all.
	KeepTag func(ctx context.Context, repo, tag string, dgst digest.Digest) error

	// Each is told of each image that was to change, when that is done or has
	// failed. The run waits for it, so that it can slow a run down too.
	Each func(Outcome)
	// OnCommit is told of each committed Change.
	OnCommit func(ctx context.Context, e manifest.Event)

	Now func() time.Time // nil means time.Now
}

// Outcome is what became of one image that was to change.
type Outcome struct {
	Repo    string
	Verdict Verdict  // of the plan
	N, Of   int      // it is the N-th, from 1, of so many
	Failure *Failure // nil: it is done, or would be but for Dry
}

// Report is what became of a run. As JSON it is in the form of ECR's
// PolicyExecutionEvent, as far as that tells of images.
type Report struct {
	Repo string    `json:"repositoryName"`
	At   time.Time `json:"-"`
	Plan *Plan     `json:"-"` // nil if there is none
	Dry  bool      `json:"-"`

	Acted    []Acted   `json:"lifecycleEventImageActions"`   // in order
	Failures []Failure `json:"lifecycleEventFailureDetails"` // what indexes protect first, and then in order
	Later    int       `json:"-"`                            // left to the next run: beyond the Limit, after the end of ctx, or after too many failures
}

// Count returns how many images a was done to.
func (r *Report) Count(a ActionType) (n int) {
	for i := range r.Acted {
		if r.Acted[i].Action == a {
			n++
		}
	}
	return n
}

const (
	defaultShare = 0.25
	oddlyLate    = time.Hour // by how much clocks may differ
	oddIntervals = 10        // without a run
	maxFailures  = 10        // of the store, until the rest is left to the next run
)

// Run makes a plan for repo and carries it out: oldest first, indexes before
// what they list, referrers after their subject. Others may use the store
// meanwhile, and run policies too.
//
// Each image goes in a Change of its own, that is refused at commit if the image
// is not as the plan saw it: with those tags, since that push, restore or move
// to the archive, listed by no index, and, if it follows a subject that goes,
// with no such subject. Such an image is spared, and is a [Failure] of the
// report. A run may end at any point, and leaves no more than a plan half carried
// out: the next one makes a new plan.
//
// It is one pass: what an index protects that went in it, goes in the next, with
// its referrers. Otherwise a second run right after the first changes nothing, as long
// as the policy has no Options and no Extensions: an image that lost its tags, say,
// may be what another rule is about.
//
// The report is valid with an error too. Refused runs, which change nothing:
// *[ClockError] when the clock is before what is in the store, or far from Last,
// *[ShareError], errors of listings. Then there is the end of ctx, and failures
// of the store, after which the run went on with other images. Images that are
// spared are no error.
func (r *Runner) Run(ctx context.Context, repo string, p *Policy) (Report, error) {
	if p == nil {
		p = new(Policy)
	}
	return r.run(ctx, repo, p, func(Verdict) bool { return true })
}

// Reap removes the referrers of subjects that are not in repo, and theirs in
// turn, once they have been there for the Grace: for repositories without a
// policy, since Run does that too. All that is said of Run holds for it.
func (r *Runner) Reap(ctx context.Context, repo string) (Report, error) {
	p, err := new(Policy).With(Options{ReferrerGrace: r.Grace})
	if err != nil {
		return Report{Repo: repo}, err
	}
	return r.run(ctx, repo, p, func(v Verdict) bool { return v.Action == Expire })
}

func (r *Runner) run(ctx context.Context, repo string, p *Policy, chosen func(Verdict) bool) (Report, error) {
	x := execution{Runner: r, repo: repo, stays: map[digest.Digest]bool{}}
	x.report = Report{Repo: repo, Dry: r.Dry, Acted: []Acted{}, Failures: []Failure{}}
	x.report.At = time.Now()
	if r.Now != nil {
		x.report.At = r.Now()
	}
	err := x.plan(ctx, p)
	if err == nil {
		err = x.apply(ctx, chosen)
	}
	if err != nil {
		err = &manifest.Error{Op: "apply lifecycle policy", Repo: repo, Err: err}
	}
	return x.report, err
}

// execution is one run.
type execution struct {
	*Runner
	repo   string
	report Report
	stays  map[digest.Digest]bool // that was to go, or to be archived
	errs   []error                // of the store
}

// plan decides what is to change. Its error refuses the run.
func (x *execution) plan(ctx context.Context, p *Policy) error {
	now := x.report.At
	if err := x.checkClock(now); err != nil {
		return err
	}
	images, since, err := Images(ctx, x.Manifests, x.Activity, x.repo)
	if err != nil {
		return err
	}
	for i := range images {
		if err := images[i].dated(now); err != nil {
			return err
		}
	}
	o := p.Options()
	if since.After(now) {
		since = now // nothing was recorded until now
	}
	if since.After(o.PullsSince) {
		o.PullsSince = since
	}
	if p, err = p.With(o); err != nil {
		return err
	}
	x.report.Plan = Evaluate(p, images, now)
	return nil
}

func (r *Runner) checkClock(now time.Time) error {
	now = now.Round(0) // without the monotonic reading, which no change of the clock shows in
	switch {
	case r.Last.IsZero():
		return nil
	case now.Before(r.Last):
		return &ClockError{"the run before this one was", r.Last, now}
	case r.Interval > 0 && now.Sub(r.Last)/oddIntervals > r.Interval:
		return &ClockError{fmt.Sprintf("the last of the runs that are %v apart was", r.Interval), r.Last, now}
	}
	return nil
}

// dated refuses the run if a time is later than it can be.
func (im *Image) dated(now time.Time) error {
	limit := now.Add(oddlyLate)
	for _, t := range [...]struct {
		at   time.Time
		what string
	}{{im.PushedAt, "pushed"}, {im.PulledAt, "pulled"}, {im.ArchivedAt, "archived"}, {im.RestoredAt, "restored"}} {
		if t.at.After(limit) {
			return &ClockError{string(im.Digest) + " was " + t.what, t.at, now}
		}
	}
	return nil
}

// checkShare refuses to remove too many tagged images.
func (x *execution) checkShare(todo []Verdict) error {
	e := ShareError{Max: x.MaxShare}
	if !(e.Max > 0) { // nor a NaN, which would let all go
		e.Max = defaultShare
	}
	for i := range x.report.Plan.Len() {
		if len(x.report.Plan.Image(i).Tags) > 0 {
			e.Of++
		}
	}
	for _, v := range todo {
		tags := len(v.Image.Tags)
		if tags > 0 && (v.Action == Expire || v.Action == Untag && len(v.Tags) == tags) {
			e.Going++
		}
	}
	if e.Going > x.Few && float64(e.Going) > e.Max*float64(e.Of) && !x.Confirm {
		return &e
	}
	return nil
}

// apply carries the plan out.
func (x *execution) apply(ctx context.Context, chosen func(Verdict) bool) error {
	var todo []Verdict
	for _, i := range x.report.Plan.Order() {
		if v := x.report.Plan.Verdict(i); chosen(v) {
			todo = append(todo, v)
		}
	}
	if err := x.checkShare(todo); err != nil {
		return err
	}
	for v := range x.report.Plan.Verdicts() {
		if v.Blocked != nil && chosen(Verdict{Action: v.Blocked.Action}) {
			x.report.Failures = append(x.report.Failures, blockedFailure(v))
		}
	}
	for n, v := range todo {
		if ctx.Err() != nil || x.Limit > 0 && len(x.report.Acted) == x.Limit || len(x.errs) == maxFailures {
			x.report.Later = len(todo) - n
			break
		}
		err := x.act(ctx, v)
		if err != nil && ctx.Err() != nil {
			x.report.Later = len(todo) - n
			break
		}
		x.done(Outcome{Repo: x.repo, Verdict: v, N: n + 1, Of: len(todo)}, err)
	}
	return errors.Join(append(x.errs, ctx.Err())...)
}

// act changes one image if it is as it was planned.
func (x *execution) act(ctx context.Context, v Verdict) error {
	im := v.Image
	if v.Via == ViaSubject && x.stays[im.Subject] {
		return &manifest.ConflictError{Digest: im.Digest, Subject: im.Subject}
	}
	c := manifest.Change{
		Cause:     manifest.CauseLifecycle,
		Unchanged: []manifest.Seen{{Digest: im.Digest, Tags: im.Tags, Since: im.classTime()}},
		Known: []manifest.Record{{
			Desc: ocispec.Descriptor{MediaType: im.MediaType, Digest: im.Digest, ArtifactType: im.ArtifactType}, Subject: im.Subject,
		}},
		At: x.report.At,
	}
	goes := v.Tags
	if v.Action == Expire {
		goes = im.Tags
	}
	if v.Action == Transition || x.KeepTag == nil {
		goes = nil
	}
	for _, tag := range goes {
		if err := x.KeepTag(ctx, x.repo, tag, im.Digest); err != nil {
			return fmt.Errorf("tag %s: %w: %w", tag, manifest.ErrRefused, err)
		}
	}
	switch v.Action {
	case Expire:
		c.Delete = []manifest.Removal{{Digest: im.Digest, IfUnlisted: true, IfOrphan: v.Via == ViaSubject}}
	case Transition:
		c.Classes = []manifest.ClassMove{{Digest: im.Digest, To: manifest.Archive, IfUnlisted: true}}
	case Untag:
		for _, tag := range v.Tags {
			c.Tags = append(c.Tags, manifest.TagMove{Name: tag, From: im.Digest})
		}
	}
	if x.Dry {
		return nil
	}
	err := x.Manifests.Apply(ctx, x.repo, c)
	if err == nil && x.OnCommit != nil {
		x.OnCommit(ctx, manifest.Event{Repo: x.repo, Change: c})
	}
	return err
}

// done notes and tells what became of an image. err is why it stays.
func (x *execution) done(o Outcome, err error) {
	v := o.Verdict
	if err == nil {
		x.report.Acted = append(x.report.Acted, Acted{eventImage(v.Image), v.Rule, v.Action})
	} else {
		o.Failure = failureOf(v, err)
		x.report.Failures = append(x.report.Failures, *o.Failure)
		if o.Failure.Code == FailureInternal {
			x.errs = append(x.errs, err)
		}
		if o.Failure.Code != FailureNotFound {
			x.stays[v.Image.Digest] = true
		}
	}
	if x.Each != nil {
		x.Each(o)
	}
}
