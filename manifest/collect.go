package manifest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Reasons for which CollectUntagged refuses to remove anything.
var (
	ErrClock = errors.New("odd clock")
	ErrShare = errors.New("too much would go")
)

// ClockError is a time that cannot be right. It unwraps to [ErrClock].
type ClockError struct {
	Digest    digest.Digest // of what was pushed then
	TouchedAt time.Time
	Now       time.Time
}

func (e *ClockError) Error() string {
	return fmt.Sprintf("odd clock: %s was pushed at %v, and now is %v", e.Digest, e.TouchedAt, e.Now)
}

func (e *ClockError) Unwrap() error { return ErrClock }

// ShareError is a plan that would remove more than it may. It unwraps to
// [ErrShare].
type ShareError struct {
	Going, Of int     // manifests
	Max       float64 // UntaggedOptions.MaxShare
}

func (e *ShareError) Error() string {
	return fmt.Sprintf("%d of %d manifests would go, which is more than the share of %v that may go unconfirmed (MaxShare)", e.Going, e.Of, e.Max)
}

func (e *ShareError) Unwrap() error { return ErrShare }

// UntaggedOptions say what CollectUntagged may remove.
type UntaggedOptions struct {
	// Grace is how long after its last push a manifest stays in any case; zero
	// means a week.
	Grace time.Duration
	// Orphans lets referrers go whose subject is not in the repository. Without it
	// whatever has a subject stays.
	Orphans bool

	// MaxShare is the part of all manifests of the repository that may go in a
	// run, else *ShareError and nothing goes. Zero means 0.25.
	MaxShare float64
	// Few is how many manifests may go whatever their share, since the share of a
	// small repository says little. Zero means none.
	Few     int
	Confirm bool // let any share go

	Dry bool // do all but remove

	// Limit bounds how many manifests are held in memory, and go in a run; zero
	// means 100,000. What is beyond is left to the next run.
	Limit int

	// Each is told of whatever goes, or was to go and stays after all, when that
	// is done.
	Each func(Collected)
	// OnCommit runs after each committed Change.
	OnCommit func(ctx context.Context, e Event)

	Now func() time.Time // nil means time.Now
}

// Reason is why a manifest goes or stays.
type Reason string

// Why a manifest goes (the first) or stays.
const (
	ReasonUntagged  Reason = "untagged"  // and nothing that stays lists it
	ReasonTagged    Reason = "tagged"    // has a tag
	ReasonListed    Reason = "listed"    // a child of what stays
	ReasonReferrer  Reason = "referrer"  // has a subject
	ReasonYoung     Reason = "young"     // pushed, or pushed again, within the Grace
	ReasonUndated   Reason = "undated"   // the time of its last push is not known
	ReasonMeanwhile Reason = "meanwhile" // has got a tag, a parent or its subject, or was pushed again, since the plan was made
	ReasonGone      Reason = "gone"      // somebody else has removed it since
	ReasonFailed    Reason = "failed"    // the removal failed
	ReasonLater     Reason = "later"     // beyond the Limit, after a failure, or in a run that was refused
)

// Collected is one manifest that went, or was to go.
type Collected struct {
	Repo      string
	Digest    digest.Digest
	Size      int64 // bytes of the document
	TouchedAt time.Time
	// Removed tells that it is gone, or would be but for Dry.
	Removed bool
	Reason  Reason
	Err     error // of ReasonFailed
}

// UntaggedReport is what became of a run: Looked is Removed and all of Kept.
type UntaggedReport struct {
	Looked, Removed int // manifests
	Kept            map[Reason]int
	More            bool // there is more to collect than the Limit
}

const (
	defaultGrace         = 7 * 24 * time.Hour
	defaultUntaggedShare = 0.25
	defaultUntaggedLimit = 100_000
	oddlyLate            = time.Hour // by how much clocks may differ
)

// CollectUntagged removes the manifests of repo that were last pushed before the
// Grace, have no tag, are no child of a manifest that stays, and have no subject.
// Their own children go too, unless something else keeps them. Others may use s meanwhile.
//
// It first makes a plan, and then removes parents before children, each in a
// Change of its own that compares at commit: what has got a tag or a parent
// since then, or was pushed again, stays. Whatever cannot be read keeps all.
//
// The report is valid with an error too. Errors that refuse a run, which then
// removes nothing: *[ClockError], *[ShareError], those of listings. The first
// removal that fails ends it.
func CollectUntagged(ctx context.Context, s Store, repo string, o UntaggedOptions) (UntaggedReport, error) {
	c := collection{UntaggedOptions: o, s: s, repo: repo, going: map[digest.Digest]*candidate{}}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Grace <= 0 {
		c.Grace = defaultGrace
	}
	if !(c.MaxShare > 0) { // nor a NaN, which would let all go
		c.MaxShare = defaultUntaggedShare
	}
	if c.Limit <= 0 {
		c.Limit = defaultUntaggedLimit
	}
	c.now = c.Now()
	c.report.Kept = map[Reason]int{}
	err := c.plan(ctx)
	if err == nil {
		err = c.apply(ctx)
	} else if rest := c.report.Looked - total(c.report.Kept); rest > 0 {
		c.report.Kept[ReasonLater] += rest
	}
	if err != nil {
		err = &Error{Op: "collect", Repo: repo, Err: err}
	}
	return c.report, err
}

func total(kept map[Reason]int) (sum int) {
	for _, n := range kept {
		sum += n
	}
	return sum
}

// collection is one run.
type collection struct {
	UntaggedOptions
	s      Store
	repo   string
	now    time.Time
	going  map[digest.Digest]*candidate // the plan
	report UntaggedReport
}

// candidate is a manifest that goes unless something speaks for it.
type candidate struct {
	size      int64
	touchedAt time.Time
	subject   digest.Digest
	children  []digest.Digest
	parents   int // among those that go

	mediaType, artifactType string // for who reads the event
}

// plan looks at all manifests, a bounded number of candidates at a time.
func (c *collection) plan(ctx context.Context) error {
	last, total := digest.Digest(""), 0
	for more := true; more; {
		var page map[digest.Digest]*candidate
		var err error
		if page, last, more, err = c.candidates(ctx, last); err != nil {
			return err
		}
		if err := c.spare(ctx, page); err != nil {
			return err
		}
		total += len(page)
		for _, dgst := range slices.Sorted(maps.Keys(page)) {
			if len(c.going) == c.Limit {
				c.report.More = true
				c.report.Kept[ReasonLater]++
				continue
			}
			c.going[dgst] = page[dgst]
		}
	}
	if total > c.Few && float64(total) > c.MaxShare*float64(c.report.Looked) && !c.Confirm {
		return &ShareError{Going: total, Of: c.report.Looked, Max: c.MaxShare}
	}
	return ctx.Err()
}

// candidates lists what is old enough, from last on.
func (c *collection) candidates(ctx context.Context, last digest.Digest) (page map[digest.Digest]*candidate, next digest.Digest, more bool, err error) {
	page = map[digest.Digest]*candidate{}
	for rec, err := range c.s.Manifests(ctx, c.repo, last) {
		if err != nil {
			return nil, last, false, err
		}
		last = rec.Desc.Digest
		c.report.Looked++
		switch {
		case rec.TouchedAt.After(c.now.Add(oddlyLate)):
			return nil, last, false, &ClockError{Digest: last, TouchedAt: rec.TouchedAt, Now: c.now}
		case rec.TouchedAt.IsZero():
			c.report.Kept[ReasonUndated]++
		case rec.TouchedAt.After(c.now.Add(-c.Grace)):
			c.report.Kept[ReasonYoung]++
		case rec.Subject != "" && (!c.Orphans || CheckContentDigest(string(rec.Subject)) != nil):
			c.report.Kept[ReasonReferrer]++
		default:
			page[last] = &candidate{
				size: rec.Desc.Size, touchedAt: rec.TouchedAt, subject: rec.Subject, children: rec.Manifests,
				mediaType: rec.Desc.MediaType, artifactType: rec.Desc.ArtifactType,
			}
			if len(page) == c.Limit {
				return page, last, true, nil
			}
		}
	}
	return page, last, false, nil
}

// spare takes from page what has a tag, is the child of what stays, or has a
// subject that is there.
func (c *collection) spare(ctx context.Context, page map[digest.Digest]*candidate) error {
	// stays takes a manifest and those below it from page.
	stays := func(dgst digest.Digest, why Reason) {
		for queue := []digest.Digest{dgst}; len(queue) > 0; queue, why = queue[1:], ReasonListed {
			if m := page[queue[0]]; m != nil {
				delete(page, queue[0])
				c.report.Kept[why]++
				queue = append(queue, m.children...)
			}
		}
	}
	if len(page) == 0 {
		return nil
	}
	for t, err := range c.s.Tags(ctx, c.repo, "") {
		if err != nil {
			return err
		}
		stays(t.Digest, ReasonTagged)
	}
	for _, dgst := range slices.Sorted(maps.Keys(page)) {
		m := page[dgst]
		if m == nil || m.subject == "" {
			continue
		}
		there, err := c.there(ctx, m.subject)
		if err != nil {
			return err
		}
		if there {
			stays(dgst, ReasonReferrer)
		}
	}
	for rec, err := range c.s.Manifests(ctx, c.repo, "") {
		if err != nil {
			return err
		}
		if page[rec.Desc.Digest] == nil {
			for _, child := range rec.Manifests {
				stays(child, ReasonListed)
			}
		}
	}
	return ctx.Err()
}

func (c *collection) there(ctx context.Context, dgst digest.Digest) (bool, error) {
	descs, err := Stat(ctx, c.s, c.repo, []digest.Digest{dgst})
	if err == nil && len(descs) != 1 {
		err = fmt.Errorf("stat in %s: %d answers for one digest", c.repo, len(descs))
	}
	return err == nil && descs[0].Digest != "", err
}

// apply removes parents before children. What stays after all keeps those below
// it.
func (c *collection) apply(ctx context.Context) error {
	for _, m := range c.going {
		for _, child := range m.children {
			if below := c.going[child]; below != nil {
				below.parents++
			}
		}
	}
	var queue []digest.Digest
	for _, dgst := range slices.Sorted(maps.Keys(c.going)) {
		if c.going[dgst].parents == 0 {
			queue = append(queue, dgst)
		}
	}
	for len(queue) > 0 && ctx.Err() == nil {
		dgst := queue[0]
		queue = queue[1:]
		m := c.going[dgst]
		delete(c.going, dgst)
		gone, err := c.done(ctx, dgst, m, c.remove(ctx, dgst, m))
		if err != nil {
			if len(c.going) > 0 {
				c.report.Kept[ReasonLater] += len(c.going)
			}
			return err
		}
		if !gone {
			continue
		}
		for _, child := range m.children {
			if below := c.going[child]; below != nil {
				if below.parents--; below.parents == 0 {
					queue = append(queue, child)
				}
			}
		}
	}
	left := ReasonListed
	if ctx.Err() != nil {
		left = ReasonLater
	}
	if len(c.going) > 0 {
		c.report.Kept[left] += len(c.going)
	}
	return ctx.Err()
}

// remove removes one manifest if it is as it was planned. Whether an orphan's
// subject has come back is compared at commit, or, in a store that cannot,
// looked at just before.
func (c *collection) remove(ctx context.Context, dgst digest.Digest, m *candidate) error {
	if c.Dry {
		return c.orphan(ctx, m)
	}
	d := Removal{Digest: dgst, IfUntagged: true, IfUnlisted: true, Cutoff: c.now.Add(-c.Grace), IfOrphan: m.subject != ""}
	err := c.commit(ctx, d, m)
	if d.IfOrphan && errors.Is(err, ErrUnsupported) {
		if err := c.orphan(ctx, m); err != nil {
			return err
		}
		d.IfOrphan = false
		err = c.commit(ctx, d, m)
	}
	return err
}

// orphan returns ErrConflict if m has a subject, and that is there.
func (c *collection) orphan(ctx context.Context, m *candidate) error {
	if m.subject == "" {
		return nil
	}
	there, err := c.there(ctx, m.subject)
	if err == nil && there {
		err = ErrConflict
	}
	return err
}

func (c *collection) commit(ctx context.Context, d Removal, m *candidate) error {
	known := Record{Desc: ocispec.Descriptor{MediaType: m.mediaType, Digest: d.Digest, Size: m.size, ArtifactType: m.artifactType}, Subject: m.subject}
	change := Change{Known: []Record{known}, Delete: []Removal{d}, At: c.now}
	err := c.s.Apply(ctx, c.repo, change)
	if err == nil && c.OnCommit != nil {
		c.OnCommit(ctx, Event{Repo: c.repo, Change: change})
	}
	return err
}

// done counts and tells what became of a manifest. err is why it stays. Its own
// error ends the run.
func (c *collection) done(ctx context.Context, dgst digest.Digest, m *candidate, err error) (gone bool, _ error) {
	it := Collected{Repo: c.repo, Digest: dgst, Size: m.size, TouchedAt: m.touchedAt}
	switch {
	case err == nil:
		it.Removed, it.Reason = true, ReasonUntagged
		c.report.Removed++
	case errors.Is(err, ErrConflict):
		it.Reason, err = ReasonMeanwhile, nil
	case IsNotFound(err):
		it.Reason, err = ReasonGone, nil
	case ctx.Err() != nil:
		it.Reason = ReasonLater
	default:
		it.Reason, it.Err = ReasonFailed, err
	}
	if !it.Removed {
		c.report.Kept[it.Reason]++
	}
	if c.Each != nil {
		c.Each(it)
	}
	return it.Removed || it.Reason == ReasonGone, err
}
