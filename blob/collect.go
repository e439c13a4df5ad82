package blob

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
)

// Reasons for which Collect refuses to remove anything at all.
var (
	ErrUnguarded = errors.New("the store cannot tell whether a manifest needs a blob when it deletes one")
	ErrClock     = errors.New("odd clock")
	ErrShare     = errors.New("too much would go")
	ErrLease     = errors.New("the lease is shorter than what the store has promised")
)

// LeaseError is a lease that is shorter than that of the store. It unwraps to
// [ErrLease].
type LeaseError struct {
	Lease, Promised time.Duration
}

func (e *LeaseError) Error() string {
	return fmt.Sprintf("lease %v: %v, which is %v", e.Lease, ErrLease, e.Promised)
}

func (e *LeaseError) Unwrap() error { return ErrLease }

// ClockError is a time that cannot be right. It unwraps to [ErrClock].
type ClockError struct {
	What string    // whose time it is
	Time time.Time // the odd time
	Now  time.Time // when that was seen
}

func (e *ClockError) Error() string {
	return fmt.Sprintf("odd clock: %s at %v, and now is %v", e.What, e.Time, e.Now)
}

func (e *ClockError) Unwrap() error { return ErrClock }

// ShareError is a plan that would remove more than it may. It unwraps to
// [ErrShare].
type ShareError struct {
	Kind      Kind    // of what would go: KindBlob or KindStray
	Going, Of Tally   // of the blobs that could be judged, and of strays with them
	Max       float64 // of the bytes: CollectOptions.MaxShare
}

func (e *ShareError) Error() string {
	what := fmt.Sprintf("%d of %d blobs", e.Going.Count, e.Of.Count)
	if e.Kind == KindStray {
		what = fmt.Sprintf("%d strays", e.Going.Count)
	}
	return fmt.Sprintf("%s with %d of %d bytes would go, which is more than the share of %v that may go unconfirmed (MaxShare)",
		what, e.Going.Bytes, e.Of.Bytes, e.Max)
}

func (e *ShareError) Unwrap() error { return ErrShare }

// CollectOptions say what Collect may remove. Only Needed is required.
type CollectOptions struct {
	// Needed lists the blobs that the manifests of repo name, in any order and as
	// often as it likes. Its first error keeps all of repo.
	Needed func(ctx context.Context, repo string) iter.Seq2[digest.Digest, error]

	// Lease is how long after its last touch a blob stays that no manifest needs;
	// zero means what the store has promised, if it is a [Promiser], or else 24h. Clients
	// are left at least half of it between an answer that a blob is there and the
	// push of the manifest. It is not to be shorter than that of the store: a
	// Promiser refuses that with *LeaseError.
	Lease time.Duration
	// SessionLease is how long a session stays that nobody continues, and how long
	// a call may take before what it writes counts as stray; zero means 24h.
	SessionLease time.Duration

	// MaxShare is the part of the bytes of all blobs looked at that may go in a
	// run, else *ShareError and nothing goes. Strays may likewise be that part of
	// the bytes of these blobs and of all strays: more of them say that the bytes
	// belong to somebody else. Zero means 0.5.
	MaxShare float64
	// Few is how many blobs, and how many strays, may go whatever their share,
	// since the share of a small store says little. Zero means none.
	Few     int
	Confirm bool // let any share go

	// Offline says that nobody writes to the store until Collect returns. Without
	// it a store must be [Guarded].
	Offline bool

	Dry bool // do all but remove

	// Limit bounds how many blobs and how many sessions are held in memory, and
	// go in a run; zero means 100,000. What is beyond is left to the next run.
	Limit int

	// Last is when the run before this one was, and Interval how far apart runs
	// are. A clock that says that it is earlier than Last, or more than 10 Intervals
	// later, refuses the run. Zero is not compared.
	Last     time.Time
	Interval time.Duration

	// Each is told of whatever goes, or was to go and stays after all, when that
	// is done. Collect waits for it, so that it can slow a run down too.
	Each func(Collected)

	Now func() time.Time // nil means time.Now
}

// Kind is what a [Collected] is.
type Kind string

// The kinds of things that are collected.
const (
	KindBlob    Kind = "blob"
	KindSession Kind = "session"
	KindStray   Kind = "stray" // bytes that no blob and no session refers to
)

// Reason is why something goes or stays.
type Reason string

// Why something goes.
const (
	ReasonUnneeded Reason = "unneeded" // no manifest needs the blob, and its lease is over
	ReasonIdle     Reason = "idle"     // nobody has continued the session for the SessionLease
	ReasonStray    Reason = "stray"
)

// Why something stays.
const (
	ReasonNeeded    Reason = "needed"    // by a manifest
	ReasonLeased    Reason = "leased"    // touched or continued lately
	ReasonUndated   Reason = "undated"   // its time is not known
	ReasonMeanwhile Reason = "meanwhile" // needed, touched or continued since the plan was made
	ReasonGone      Reason = "gone"      // somebody else has removed it since
	ReasonUnread    Reason = "unread"    // its repository could not be read to the end
	ReasonFailed    Reason = "failed"    // the removal failed
	ReasonLater     Reason = "later"     // beyond the Limit, after too many failures in its repository, or in a run that was refused
)

// Collected is one thing that went, or was to go.
type Collected struct {
	Kind   Kind
	Repo   string        // of a blob or session
	Digest digest.Digest // of a blob
	ID     string        // of a session; the key of a stray
	Size   int64         // bytes
	At     time.Time     // when it was last touched, continued or written
	// Removed tells that it is gone, or would be but for Dry.
	Removed bool
	Reason  Reason
	Err     error // of ReasonFailed
}

// Tally counts things and their bytes. Bytes that repositories share count in
// each.
type Tally struct {
	Count int
	Bytes int64
}

func (t *Tally) add(size int64) {
	t.Count++
	t.Bytes += size
}

// CollectTally is what became of one Kind: Looked is Removed and all of Kept.
type CollectTally struct {
	Looked  Tally
	Removed Tally
	Kept    map[Reason]Tally
}

func (t *CollectTally) keep(r Reason, size int64) {
	if t.Kept == nil {
		t.Kept = map[Reason]Tally{}
	}
	n := t.Kept[r]
	n.add(size)
	t.Kept[r] = n
}

// keepRest counts what was looked at in a run that was refused.
func (t *CollectTally) keepRest() {
	rest := t.Looked
	for _, kept := range t.Kept {
		rest.Count, rest.Bytes = rest.Count-kept.Count, rest.Bytes-kept.Bytes
	}
	if rest.Count > 0 {
		t.keep(ReasonLater, rest.Bytes)
		later := t.Kept[ReasonLater]
		later.Count += rest.Count - 1
		t.Kept[ReasonLater] = later
	}
}

// CollectReport is what became of a run.
type CollectReport struct {
	At                      time.Time
	Blobs, Sessions, Strays CollectTally
	More                    bool // there is more to collect than the Limit
	// Errors are those that the run went on after: of repositories that were
	// left alone, of sessions, of single removals.
	Errors []error
}

const (
	defaultLease    = 24 * time.Hour
	defaultMaxShare = 0.5
	defaultLimit    = 100_000
	oddlyLate       = time.Hour // by how much clocks may differ
	oddIntervals    = 10        // without a run
	maxFailures     = 10        // of removals, until the repository is left to the next run
)

// Collect removes blobs that no manifest needs and nobody has touched within the
// Lease, sessions that nobody continues, and bytes that nothing refers to. s
// must be a [Catalog]; sessions and strays are collected if it is a
// [SessionLister] and a [Sweeper]. Others may use s meanwhile, and run Collect
// too.
//
// It first makes a plan, and then carries it out. The plan alone deletes
// nothing: Delete refuses what has come to be needed or touched since, and Abort
// what was continued. Whatever cannot be read is kept. A run may die at any
// point: the next begins anew.
//
// The report is valid with an error too, which is nil only if all could be
// looked at and removed. Refused runs, which remove nothing: [ErrUnguarded], a
// *[ClockError], a *[LeaseError], a *[ShareError], the error of a list of repositories. All other errors
// are those of the report, after which the run went on, and that of ctx.
//
// The protocol between pushes and collections is checked in model/collect.pml.
func Collect(ctx context.Context, s Store, o CollectOptions) (CollectReport, error) {
	c := collection{s: s, CollectOptions: o}
	err := c.defaults(ctx)
	c.report.At = c.now
	if err == nil {
		err = c.admit()
	}
	if err == nil {
		err = c.plan(ctx)
	}
	if err == nil {
		c.apply(ctx)
		err = ctx.Err()
	} else {
		c.report.Blobs.keepRest()
		c.report.Sessions.keepRest()
	}
	return c.report, errors.Join(append([]error{err}, c.report.Errors...)...)
}

// collection is one run.
type collection struct {
	CollectOptions
	s                     Store
	now                   time.Time
	cutoff, sessionCutoff time.Time

	blobs, sessions []Collected // the plan, in order of repositories, and of IDs
	going, of       Tally       // blobs, for MaxShare
	unswept         bool        // strays could not be counted, and stay
	report          CollectReport
}

func (c *collection) defaults(ctx context.Context) error {
	if c.Now == nil {
		c.Now = time.Now
	}
	var promised time.Duration
	var err error
	if p, ok := As[Promiser](c.s); ok {
		promised, err = p.Promised(ctx)
	}
	if c.Lease <= 0 {
		if c.Lease = defaultLease; promised > 0 {
			c.Lease = promised
		}
	}
	if c.SessionLease <= 0 {
		c.SessionLease = defaultLease
	}
	if !(c.MaxShare > 0) { // nor a NaN, which would let all go
		c.MaxShare = defaultMaxShare
	}
	if c.Limit <= 0 {
		c.Limit = defaultLimit
	}
	c.now = c.Now()
	c.cutoff, c.sessionCutoff = c.now.Add(-c.Lease), c.now.Add(-c.SessionLease)
	switch {
	case err != nil:
		return &Error{Op: "collect", Err: err}
	case c.Lease < promised:
		return &Error{Op: "collect", Err: &LeaseError{Lease: c.Lease, Promised: promised}}
	}
	return nil
}

// admit refuses runs that cannot go well.
func (c *collection) admit() error {
	switch g, ok := As[Guarded](c.s); {
	case c.Needed == nil:
		return errors.New("collect: CollectOptions.Needed is nil")
	case !c.Offline && (!ok || !g.Guarded()):
		return &Error{Op: "collect", Err: ErrUnguarded}
	}
	return c.checkClock(c.now)
}

// CheckClock returns a *[ClockError] if Now does not fit Last and Interval. For
// what is done before Collect, which does the same.
func (o *CollectOptions) CheckClock() error {
	if o.Now == nil {
		return o.checkClock(time.Now())
	}
	return o.checkClock(o.Now())
}

func (o *CollectOptions) checkClock(now time.Time) error {
	now = now.Round(0) // without the monotonic reading, which no change of the clock shows in
	switch {
	case o.Last.IsZero():
		return nil
	case now.Before(o.Last):
		return &ClockError{What: "the run before this one was", Time: o.Last, Now: now}
	case o.Interval > 0 && now.Sub(o.Last)/oddIntervals > o.Interval:
		return &ClockError{What: fmt.Sprintf("the last of the runs that are %v apart was", o.Interval), Time: o.Last, Now: now}
	}
	return nil
}

// dated refuses the run if a time is later than it can be. The clock goes on
// while it plans, which takes hours where there is much.
func (c *collection) dated(at time.Time, what, in string) error {
	if !at.After(c.now.Add(oddlyLate)) {
		return nil
	}
	if now := c.Now(); at.After(now.Add(oddlyLate)) {
		return &ClockError{What: what + " in " + in + " was last touched", Time: at, Now: now}
	}
	return nil
}

// plan decides what is to go. Its error refuses the run.
func (c *collection) plan(ctx context.Context) error {
	catalog, ok := As[Catalog](c.s)
	if !ok {
		return &Error{Op: "collect", Err: fmt.Errorf("the store cannot list its repositories: %w", ErrUnsupported)}
	}
	for repo, err := range catalog.Repos(ctx, "") {
		if err != nil {
			return &Error{Op: "collect", Err: err}
		}
		if err := c.planRepo(ctx, repo); err != nil {
			return err
		}
	}
	if err := c.planSessions(ctx); err != nil {
		return err
	}
	if err := c.share(KindBlob, c.going, c.of); err != nil {
		return err
	}
	return c.planSweep(ctx)
}

// share refuses the run if too much would go.
func (c *collection) share(kind Kind, going, of Tally) error {
	if going.Count > c.Few && float64(going.Bytes) > c.MaxShare*float64(of.Bytes) && !c.Confirm {
		return &ShareError{Kind: kind, Going: going, Of: of, Max: c.MaxShare}
	}
	return nil
}

// planSweep counts strays, unless their share does not matter.
func (c *collection) planSweep(ctx context.Context) error {
	sweeper, ok := As[Sweeper](c.s)
	if !ok || c.Confirm {
		return nil
	}
	var strays Tally
	for obj, err := range sweeper.Sweep(ctx, c.sessionCutoff, true) {
		if err != nil {
			if ctx.Err() != nil {
				return err
			}
			c.unswept = true
			c.report.Errors = append(c.report.Errors, &Error{Op: "collect", Err: fmt.Errorf("strays: %w", err)})
			return nil
		}
		strays.add(obj.Size)
	}
	of := Tally{Count: c.of.Count + strays.Count, Bytes: c.of.Bytes + strays.Bytes}
	return c.share(KindStray, strays, of)
}

// planRepo adds the blobs of repo that are to go to the plan, none if anything
// cannot be read.
func (c *collection) planRepo(ctx context.Context, repo string) error {
	r := repoPlan{collection: c, repo: repo, room: c.Limit - len(c.blobs)}
	err := r.read(ctx)
	total := &c.report.Blobs
	if err == nil {
		c.blobs = append(c.blobs, r.blobs...)
		c.of.Count += r.looked.Count
		c.of.Bytes += r.looked.Bytes
		c.going.Count += r.going.Count
		c.going.Bytes += r.going.Bytes
		c.report.More = c.report.More || r.going.Count > len(r.blobs)
	} else {
		r.kept = map[Reason]Tally{ReasonUnread: r.looked}
	}
	total.Looked.Count += r.looked.Count
	total.Looked.Bytes += r.looked.Bytes
	for reason, t := range r.kept {
		if total.Kept == nil {
			total.Kept = map[Reason]Tally{}
		}
		n := total.Kept[reason]
		n.Count += t.Count
		n.Bytes += t.Bytes
		total.Kept[reason] = n
	}
	if err == nil || ctx.Err() != nil || errors.Is(err, ErrClock) {
		return err
	}
	c.report.Errors = append(c.report.Errors, &Error{Op: "collect", Repo: repo, Err: err})
	return nil
}

// repoPlan is the plan for one repository.
type repoPlan struct {
	*collection
	repo          string
	room          int         // in the plan
	blobs         []Collected // to go, as far as there is room
	going, looked Tally
	kept          map[Reason]Tally
}

// read looks at all blobs, a bounded number of them at a time. Needs are read
// after the blobs, so that a manifest which comes meanwhile is seen.
func (r *repoPlan) read(ctx context.Context) error {
	kept := CollectTally{Kept: map[Reason]Tally{}}
	r.kept = kept.Kept
	last := digest.Digest("")
	for more := true; more; {
		more = false
		old := map[digest.Digest]Info{}
		for info, err := range r.s.Blobs(ctx, r.repo, last) {
			if err != nil {
				return err
			}
			if err := r.dated(info.TouchedAt, string(info.Digest), r.repo); err != nil {
				return err
			}
			last = info.Digest
			r.looked.add(info.Size)
			switch {
			case info.TouchedAt.IsZero():
				kept.keep(ReasonUndated, info.Size)
			case info.TouchedAt.After(r.cutoff):
				kept.keep(ReasonLeased, info.Size)
			default:
				old[info.Digest] = info
			}
			if more = len(old) == r.Limit; more {
				break
			}
		}
		if len(old) == 0 {
			break
		}
		for dgst, err := range r.Needed(ctx, r.repo) {
			if err != nil {
				return err
			}
			if info, ok := old[dgst]; ok {
				kept.keep(ReasonNeeded, info.Size)
				delete(old, dgst)
			}
		}
		for _, dgst := range slices.Sorted(maps.Keys(old)) {
			info := old[dgst]
			r.going.add(info.Size)
			if len(r.blobs) == r.room {
				kept.keep(ReasonLater, info.Size)
				continue
			}
			r.blobs = append(r.blobs, Collected{Kind: KindBlob, Repo: r.repo, Digest: dgst, Size: info.Size, At: info.TouchedAt})
		}
	}
	return ctx.Err() // a list of needs that ends early with ctx, and does not say so, is none
}

// planSessions adds idle sessions to the plan. Each is judged by itself, so
// that those listed before an error can go.
func (c *collection) planSessions(ctx context.Context) error {
	lister, ok := As[SessionLister](c.s)
	if !ok {
		return nil
	}
	t := &c.report.Sessions
	for u, err := range lister.Sessions(ctx, "") {
		if err != nil {
			if ctx.Err() != nil {
				return err
			}
			c.report.Errors = append(c.report.Errors, &Error{Op: "collect", Err: fmt.Errorf("sessions: %w", err)})
			return nil
		}
		if err := c.dated(u.UpdatedAt, "upload "+u.ID, u.Repo); err != nil {
			return err
		}
		t.Looked.add(u.Size)
		switch {
		case u.UpdatedAt.IsZero():
			t.keep(ReasonUndated, u.Size)
		case u.UpdatedAt.After(c.sessionCutoff):
			t.keep(ReasonLeased, u.Size)
		case len(c.sessions) == c.Limit:
			t.keep(ReasonLater, u.Size)
			c.report.More = true
		default:
			c.sessions = append(c.sessions, Collected{Kind: KindSession, Repo: u.Repo, ID: u.ID, Size: u.Size, At: u.UpdatedAt})
		}
	}
	return ctx.Err()
}

// apply carries the plan out, until ctx ends.
func (c *collection) apply(ctx context.Context) {
	repo, failures := "", 0
	for _, it := range c.blobs {
		if it.Repo != repo {
			repo, failures = it.Repo, 0
		}
		if ctx.Err() != nil || failures == maxFailures {
			c.report.Blobs.keep(ReasonLater, it.Size)
			continue
		}
		if !c.done(ctx, &c.report.Blobs, it, ReasonUnneeded, c.deleteBlob(ctx, it)) {
			failures++
		}
	}
	for _, it := range c.sessions {
		if ctx.Err() != nil {
			c.report.Sessions.keep(ReasonLater, it.Size)
			continue
		}
		c.done(ctx, &c.report.Sessions, it, ReasonIdle, c.abort(ctx, it))
	}
	if ctx.Err() == nil {
		c.sweep(ctx)
	}
}

// deleteBlob is step 4 of model/collect.pml: one step in the store, which looks
// at touches and needs again.
func (c *collection) deleteBlob(ctx context.Context, it Collected) error {
	if c.Dry {
		return nil
	}
	return c.s.Delete(ctx, it.Repo, it.Digest, c.cutoff)
}

// abort ends a session if it is as it was planned.
func (c *collection) abort(ctx context.Context, it Collected) error {
	u, err := c.s.Lookup(ctx, it.Repo, it.ID)
	switch {
	case err != nil:
		return err
	case u.UpdatedAt.After(c.sessionCutoff):
		return ErrConflict
	case c.Dry:
		return nil
	}
	return c.s.Abort(ctx, u)
}

// sweep is step 5 of model/collect.pml.
func (c *collection) sweep(ctx context.Context) {
	sweeper, ok := As[Sweeper](c.s)
	if !ok || c.unswept {
		return
	}
	for obj, err := range sweeper.Sweep(ctx, c.sessionCutoff, c.Dry) {
		if err != nil {
			if ctx.Err() == nil {
				c.report.Errors = append(c.report.Errors, &Error{Op: "collect", Err: fmt.Errorf("strays: %w", err)})
			}
			return
		}
		c.report.Strays.Looked.add(obj.Size)
		c.done(ctx, &c.report.Strays, Collected{Kind: KindStray, ID: obj.Key, Size: obj.Size, At: obj.ModTime}, ReasonStray, nil)
	}
}

// done counts and tells what became of it. err is why it stays. It returns
// false after a failure.
func (c *collection) done(ctx context.Context, t *CollectTally, it Collected, why Reason, err error) bool {
	switch {
	case err == nil:
		it.Removed, it.Reason = true, why
		t.Removed.add(it.Size)
	case errors.Is(err, ErrConflict):
		it.Reason = ReasonMeanwhile
	case errors.Is(err, ErrNotFound), errors.Is(err, ErrUploadNotFound):
		it.Reason = ReasonGone
	case ctx.Err() != nil:
		it.Reason = ReasonLater
	default:
		if it.Kind == KindSession {
			err = failUpload("collect", Upload{Repo: it.Repo, ID: it.ID}, err)
		}
		it.Reason, it.Err = ReasonFailed, fail("collect", it.Repo, it.Digest, err)
		c.report.Errors = append(c.report.Errors, it.Err)
	}
	if !it.Removed {
		t.keep(it.Reason, it.Size)
	}
	if c.Each != nil {
		c.Each(it)
	}
	return it.Err == nil
}
