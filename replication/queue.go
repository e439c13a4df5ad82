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
	Tags   []string      `json:"tags,omitempty"`  // that were moved or removed
	Whole  bool          `json:"whole,omitempty"` // copy: with all tags that it has; delete: the image, with all its tags
	// Deletes makes a copy that finds the image gone, after it has written, delete it.
	Deletes bool      `json:"deletes,omitempty"`
	At      time.Time `json:"at,omitzero"`   // of the change
	Via     []string  `json:"via,omitempty"` // what the change has come through, the source last; see [manifest.Change].Via
}

// Action is what a Job is to do.
type Action string

// The actions.
const (
	ActionCopy   Action = "copy"
	ActionDelete Action = "delete"
)

// State is where a job stands.
type State string

// The states.
const (
	StateWaiting State = "waiting" // for a worker, or for its next attempt
	StateRunning State = "running" // leased, even if the lease has expired since
	StateDone    State = "done"
	StateDead    State = "dead" // given up: it waits for somebody to replay it
)

// Entry is a job in a queue. One that is Running is also the right to run it until
// its Due: a lease. Token goes up with each lease of any job of a queue, so that what
// comes late from a worker that was thought dead can be told from what counts.
type Entry struct {
	Job      Job        `json:"job"`
	Number   uint64     `json:"number"` // in the order of Add, from 1
	State    State      `json:"state"`
	Attempts int        `json:"attempts"`          // begun since it was added or replayed, but for those that were cut off
	Due      time.Time  `json:"due,omitzero"`      // waiting: not before; running: when the lease expires
	EndedAt  time.Time  `json:"endedAt,omitzero"`  // done and dead
	Failure  JobFailure `json:"failure,omitzero"`  // of the last attempt that has failed
	Owner    string     `json:"owner,omitempty"`   // running
	Token    uint64     `json:"token,omitempty"`   // running
	Outcome  string     `json:"outcome,omitempty"` // done: what was done, for people
}

// JobFailure is why an attempt has failed.
type JobFailure struct {
	Code   FailureCode `json:"code"`
	Detail string      `json:"detail,omitempty"`
}

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

// StaleError tells a worker that it no longer holds the lease. It unwraps to
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
	// Add adds jobs, all or none, due at now. One whose ID is there already, in whatever state, is
	// left as it is.
	Add(ctx context.Context, now time.Time, jobs ...Job) error

	// Lease returns jobs that may run now, and makes them running: those that wait and
	// are due, or whose lease has expired, of destinations that are not paused. The next
	// one is always of the destination with the fewest that run, of these the one that has been
	// due for longest, and then the one that was added first; so a destination that is
	// slow, or behind, keeps no other waiting. Each counts as an attempt. None is no
	// error.
	Lease(ctx context.Context, r LeaseRequest) ([]Entry, error)

	// Extend sets until when a lease is valid, also of one that has expired if nobody has
	// the job since. *StaleError.
	Extend(ctx context.Context, lease Entry, until time.Time) error

	// Done ends a job. A queue may forget those that ended long ago, but keeps the last
	// 1,000 at least. *StaleError.
	Done(ctx context.Context, lease Entry, now time.Time, outcome string) error

	// Fail ends an attempt: the job is due again at retryAt, or dead if that is zero.
	// With the zero JobFailure the attempt was cut off: it does not count, and the
	// Failure of the one before stays. *StaleError.
	Fail(ctx context.Context, lease Entry, now time.Time, f JobFailure, retryAt time.Time) error

	Board
}

// Board is the view of a queue for those who look after it.
type Board interface {
	// Entries lists what f selects by Number, after that of after. It holds no lock
	// and no connection while the loop body runs, ends at its first error, and is
	// never short without one.
	Entries(ctx context.Context, f EntryFilter, after uint64) iter.Seq2[Entry, error]

	// Replay makes a dead job wait again, due at now, with no attempts. ErrNoJob.
	Replay(ctx context.Context, id string, now time.Time) error

	// Discard forgets a dead job. ErrNoJob.
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

// Match tells whether an entry is selected. It is for queues.
func (f *EntryFilter) Match(e *Entry) bool {
	return (f.Repo == "" || f.Repo == e.Job.Repo) && (f.Digest == "" || f.Digest == e.Job.Digest) &&
		(f.To == Registry{} || f.To == e.Job.To) && (f.State == "" || f.State == e.State)
}
