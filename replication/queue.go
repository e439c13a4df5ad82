package replication

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/opencontainers/go-digest"
)

// Job is something that was done to one image, and is to be done at one
// destination. It says where to look, not what to write: who runs it looks at the
// source as it is then. So jobs that come late, twice or in another order do no harm.
type Job struct {
	ID     string        `json:"id"` // the same each time it is made from the same change
	To     Registry      `json:"to"`
	Repo   string        `json:"repository"`
	Digest digest.Digest `json:"digest,omitempty"` // "" of a deletion that does not tell what its tags named
	Action Action        `json:"action"`
	Tags   []string      `json:"tags,omitempty"`    // that were moved or removed
	Whole  bool          `json:"whole,omitempty"`   // Copy: with all tags that it has; Delete: the image, with all tags
	At     time.Time     `json:"at,omitzero"`       // of the change
	Via    []string      `json:"via,omitempty"`     // what the change came through, as [manifest.Change].Via, with the source
	Relay  bool          `json:"relayed,omitempty"` // the change was itself a copy
}

// Action is what a Job is to do.
type Action string

// The actions.
const (
	Copy   Action = "copy"
	Delete Action = "delete"
)

// State is where a job stands.
type State string

// The states.
const (
	Waiting State = "waiting" // for a worker, or for its next attempt
	Running State = "running" // leased, even if the lease has expired since
	Done    State = "done"
	Dead    State = "dead" // given up: it waits for somebody to replay it
)

// Entry is a job in a queue.
type Entry struct {
	Job      Job       `json:"job"`
	Number   uint64    `json:"number"` // by the order of Add, from 1
	State    State     `json:"state"`
	Attempts int       `json:"attempts"`          // begun
	Due      time.Time `json:"due,omitzero"`      // Waiting: not before; Running: when the lease expires
	EndedAt  time.Time `json:"endedAt,omitzero"`  // Done and Dead
	Failure  Failure   `json:"failure,omitzero"`  // of the last attempt that has failed
	Owner    string    `json:"owner,omitempty"`   // Running
	Token    uint64    `json:"token,omitempty"`   // Running
	Outcome  string    `json:"outcome,omitempty"` // Done: what was done, for people
}

// Failure is why an attempt has failed.
type Failure struct {
	Code   FailureCode `json:"code"`
	Detail string      `json:"detail,omitempty"`
}

// Lease is the right to run a job until its Due. Token goes up with each lease of any
// job of a queue, so that what comes late from a worker that was thought dead can be
// told from what is meant.
type Lease = Entry

// LeaseRequest asks for jobs.
type LeaseRequest struct {
	Owner string        // for people
	Most  int           // jobs, at least 1
	TTL   time.Duration // until the lease expires, positive
	Now   time.Time
	// PerDestination is how many jobs may be leased for one destination at once, by
	// anybody; 0 means no limit.
	PerDestination int
}

// Errors of queues.
var (
	// ErrStale: the job has been leased again since, or has ended.
	ErrStale = errors.New("stale lease")
	// ErrNoJob: there is no such job, or not in that state.
	ErrNoJob = errors.New("no such job")
)

// StaleError is what a worker is told that holds a lease no more. It unwraps to
// [ErrStale].
type StaleError struct {
	ID    string
	Token uint64 // what it has shown
	Have  uint64 // of the last lease, 0 if the job does not run
}

func (e *StaleError) Error() string {
	return fmt.Sprintf("%v: job %s with token %d, now %d", ErrStale, e.ID, e.Token, e.Have)
}

func (e *StaleError) Unwrap() error { return ErrStale }

// Queue keeps jobs until they are done. For all methods:
//
//   - They may be called from many goroutines at once, and by as many processes as
//     share the queue. Each is one step.
//   - What is written is durable on return, if the queue is on a disk.
//   - A method honours ctx while it waits, and then returns ctx's error.
//   - Time is an argument. Clocks decide when something is tried again, never
//     whether.
//   - Slices in results belong to the caller; those in arguments stay the caller's.
//   - Errors may carry context, and are found with errors.Is.
type Queue interface {
	// Add adds jobs, all or none. One whose ID is there already, in whatever state, is
	// left as it is.
	Add(ctx context.Context, now time.Time, jobs ...Job) error

	// Lease returns jobs that may run now and makes them Running, the one that has been
	// due for longest first for each destination, and all destinations in turn: a job that waits and
	// is due, or one whose lease has expired, of a destination that is not paused. Each
	// counts as an attempt. No job is leased to two at once, unless a lease expires.
	// None is no error.
	Lease(ctx context.Context, r LeaseRequest) ([]Lease, error)

	// Extend sets until when a lease is valid, also of one that has expired if nobody has
	// the job since. *StaleError.
	Extend(ctx context.Context, l Lease, until time.Time) error

	// Done ends a job. A queue may forget those that ended long ago, but keeps the last
	// 1,000 at least. *StaleError.
	Done(ctx context.Context, l Lease, now time.Time, outcome string) error

	// Fail ends an attempt: the job is due again at retryAt, or Dead if that is zero.
	// *StaleError.
	Fail(ctx context.Context, l Lease, now time.Time, f Failure, retryAt time.Time) error

	Board
}

// Board is the view of a queue for those who look after it.
type Board interface {
	// Entries lists what f selects by Number, after that of after. It holds no lock
	// and no connection while the loop body runs, ends at its first error, and is
	// never short without one.
	Entries(ctx context.Context, f EntryFilter, after uint64) iter.Seq2[Entry, error]

	// Replay makes a Dead job wait again, due at now, with no attempts. ErrNoJob.
	Replay(ctx context.Context, id string, now time.Time) error

	// Discard forgets a Dead job. ErrNoJob.
	Discard(ctx context.Context, id string) error

	// SetPaused stops or resumes the leasing of jobs to a destination. Those that run
	// go on.
	SetPaused(ctx context.Context, to Registry, paused bool) error

	// Paused returns the destinations that are paused, in the order of their String.
	Paused(ctx context.Context) ([]Registry, error)
}

// EntryFilter selects jobs. Fields that are zero select all.
type EntryFilter struct {
	Repo   string
	Digest digest.Digest // with Repo
	To     Registry
	State  State
}

// Match tells whether an entry is selected.
func (f *EntryFilter) Match(e *Entry) bool {
	return (f.Repo == "" || f.Repo == e.Job.Repo) && (f.Digest == "" || f.Digest == e.Job.Digest) &&
		(f.To == Registry{} || f.To == e.Job.To) && (f.State == "" || f.State == e.State)
}
