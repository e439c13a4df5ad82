// Package riverqueue runs the jobs of replication on River: for any number of
// processes that share a PostgreSQL database, which may be that of pgstore.
//
// The jobs of a change are inserted in the transaction that commits it: there is no change
// without its jobs, and no job of what was not committed.
//
//	queue, err := riverqueue.New(riverqueue.Options{Pool: pool, Replicator: replicator})
//	db, err := pgstore.Open(ctx, pgstore.Options{DSN: dsn, Objects: objects, InTx: queue.InTx})
//	go queue.Serve(ctx)
//
// # What River does
//
// A job is in the River queue of its destination, which [Queue.SetPaused] pauses and whose
// number of jobs at once is bounded in each process. Leases are River's: a job of a process that
// has died is tried again after Options.Rescue, when the next run of River's rescuer is
// due (each 30 s, and 15 s at most for another leader if it was that). Dead letters are what River has
// discarded or cancelled, and it forgets what has ended after days.
//
// So [Queue] adds, lists, pauses, replays and discards jobs as a [replication.Queue] does; but
// Lease, Extend, Done and Fail are not supported, and [Queue.Serve] is for
// [replication.Replicator.Run].
package riverqueue

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
	"github.com/riverqueue/river/rivertype"

	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/replication"
)

// Options say where jobs are and who does them. Pool and Replicator are required.
type Options struct {
	Pool *pgxpool.Pool

	// Replicator makes jobs of changes, and does them. Its Queue may be this one, for its
	// Enqueue and Status. Of its fields for Run those for attempts and backoff are used.
	Replicator *replication.Replicator

	PerDestination int           // jobs at once in this process; 0 means 8
	Timeout        time.Duration // of a job, which is then tried again; 0 means 15 min
	// Rescue is after what time a job that nobody has ended is tried again; 0 means 1 min
	// more than Timeout, and less is refused by River.
	Rescue time.Duration
	Look   time.Duration // how often Serve looks for jobs of destinations that are new; 0 means 5 s

	Logger *slog.Logger // of River; nil means none
}

// Queue is the jobs in a database.
type Queue struct {
	o      Options
	client *river.Client[pgx.Tx]

	mu     sync.Mutex
	serves map[string]bool // queues of River
}

var _ replication.Queue = (*Queue)(nil)

// args are what River keeps of a job.
type args struct {
	ID  string          `json:"id" river:"unique"`
	Job replication.Job `json:"job"`
}

const kind = "wharfage_replication"

func (args) Kind() string { return kind }

// Migrate makes River's tables, or brings them up to date.
func Migrate(ctx context.Context, pool *pgxpool.Pool) error {
	m, err := rivermigrate.New(riverpgxv5.New(pool), nil)
	if err == nil {
		_, err = m.Migrate(ctx, rivermigrate.DirectionUp, nil)
	}
	if err != nil {
		return fmt.Errorf("riverqueue: %w", err)
	}
	return nil
}

// New returns the queue in a database that has River's tables: see [Migrate].
func New(o Options) (*Queue, error) {
	if o.PerDestination == 0 {
		o.PerDestination = 8
	}
	if o.Timeout == 0 {
		o.Timeout = 15 * time.Minute
	}
	if o.Rescue == 0 {
		o.Rescue = o.Timeout + time.Minute
	}
	if o.Look == 0 {
		o.Look = 5 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	q := &Queue{o: o, serves: map[string]bool{}}
	workers := river.NewWorkers()
	if err := river.AddWorkerSafely(workers, &worker{q: q}); err != nil {
		return nil, err
	}
	var err error
	q.client, err = river.NewClient(riverpgxv5.New(o.Pool), &river.Config{
		Workers:              workers,
		Queues:               map[string]river.QueueConfig{idle: {MaxWorkers: 1}}, // River serves none without one
		JobTimeout:           o.Timeout,
		RescueStuckJobsAfter: o.Rescue,
		Logger:               o.Logger,
	})
	if err != nil {
		return nil, fmt.Errorf("riverqueue: %w", err)
	}
	return q, nil
}

const (
	prefix  = "replicate_"
	idle    = "replicate-idle"
	encoded = "replicatex_"
)

// plain are registries whose names can be in that of a queue of River, which takes
// separators only between other characters.
var plain = regexp.MustCompile(`^[a-z0-9]+/[a-z0-9]+(-[a-z0-9]+)*$`)

var base32Lower = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// queueOf is the River queue of a destination.
func queueOf(to replication.Registry) string {
	if !plain.MatchString(to.String()) {
		return encoded + base32Lower.EncodeToString([]byte(to.String()))
	}
	return prefix + to.ID + "_" + to.Region
}

func registryOf(queue string) (to replication.Registry, ok bool) {
	if rest, found := strings.CutPrefix(queue, encoded); found {
		text, err := base32Lower.DecodeString(rest)
		to.ID, to.Region, ok = strings.Cut(string(text), "/")
		return to, ok && err == nil
	}
	rest, ok := strings.CutPrefix(queue, prefix)
	if ok {
		to.ID, to.Region, ok = strings.Cut(rest, "_")
	}
	return to, ok
}

func (q *Queue) insertions(now time.Time, jobs []replication.Job) []river.InsertManyParams {
	out := make([]river.InsertManyParams, len(jobs))
	for i, j := range jobs {
		out[i] = river.InsertManyParams{Args: args{j.ID, j}, InsertOpts: &river.InsertOpts{
			Queue: queueOf(j.To), MaxAttempts: q.attempts(), ScheduledAt: now,
			UniqueOpts: river.UniqueOpts{ByArgs: true, ByState: rivertype.JobStates()},
		}}
	}
	return out
}

func (q *Queue) attempts() int {
	if n := q.o.Replicator.Attempts; n > 0 {
		return n
	}
	return 10
}

// InTx inserts the jobs of a change in the transaction that commits it: for
// pgstore.Options.InTx.
func (q *Queue) InTx(ctx context.Context, tx pgx.Tx, e manifest.Event) error {
	configuration, err := q.o.Replicator.Configuration(ctx)
	if err != nil {
		return fmt.Errorf("riverqueue: %w", err)
	}
	// The change has no position yet, and its jobs are inserted with it, once.
	jobs := q.o.Replicator.Plan(configuration, manifest.Committed{Position: rand.Text(), Event: e})
	if len(jobs) == 0 {
		return nil
	}
	if _, err := q.client.InsertManyTx(ctx, tx, q.insertions(time.Time{}, jobs)); err != nil {
		return fmt.Errorf("riverqueue: %w", err)
	}
	return nil
}

// Add implements [replication.Queue]: for jobs that come from an outbox.
func (q *Queue) Add(ctx context.Context, now time.Time, jobs ...replication.Job) error {
	if err := ctx.Err(); err != nil || len(jobs) == 0 {
		return err
	}
	if _, err := q.client.InsertMany(ctx, q.insertions(now, jobs)); err != nil {
		return fmt.Errorf("riverqueue: %w", err)
	}
	return nil
}

// Serve does jobs until ctx ends, and then waits for those under way, whose contexts end
// too: they are left to be tried again at once. It may be called once.
func (q *Queue) Serve(ctx context.Context) error {
	if err := q.client.Start(ctx); err != nil {
		return fmt.Errorf("riverqueue: %w", err)
	}
	for ctx.Err() == nil {
		if err := q.serveAll(ctx); err != nil && ctx.Err() == nil {
			q.o.Logger.ErrorContext(ctx, "riverqueue: look for destinations", "error", err) // and look again
		}
		timer := time.NewTimer(q.o.Look)
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
	}
	<-q.client.Stopped()
	return ctx.Err()
}

// serveAll serves the queues of destinations that have jobs.
func (q *Queue) serveAll(ctx context.Context) error {
	rows, err := q.o.Pool.Query(ctx, `select distinct queue from river_job where kind = $1 and `+inStates(replication.StateWaiting, replication.StateRunning), kind)
	if err != nil {
		return err
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, name := range names {
		if q.serves[name] {
			continue
		}
		if err := q.client.Queues().Add(name, river.QueueConfig{MaxWorkers: q.o.PerDestination}); err != nil {
			return err
		}
		q.serves[name] = true
	}
	return nil
}

// Serves returns the destinations whose jobs this process does.
func (q *Queue) Serves() []replication.Registry {
	q.mu.Lock()
	defer q.mu.Unlock()
	var out []replication.Registry
	for _, name := range slices.Sorted(maps.Keys(q.serves)) {
		if to, ok := registryOf(name); ok {
			out = append(out, to)
		}
	}
	return out
}

// worker does jobs for River.
type worker struct {
	river.WorkerDefaults[args]
	q      *Queue
	failed sync.Map // why, by ID, from Work to NextRetry
}

// Work implements river.Worker.
func (w *worker) Work(ctx context.Context, job *river.Job[args]) error {
	r := w.q.o.Replicator
	_, err := r.Do(ctx, job.Args.Job)
	if err == nil {
		return nil
	}
	if errors.Is(ctx.Err(), context.Canceled) && !errors.Is(context.Cause(ctx), rivertype.ErrJobCancelledRemotely) {
		return river.JobSnooze(0) // Serve ends: it was no attempt, and whoever serves may have it at once
	}
	failure, again := replication.FailureOf(err)
	err = &replication.FailureError{Code: failure.Code, Err: err} // whose text begins with the code
	if !again || job.Attempt >= job.MaxAttempts {
		r.GaveUp(context.WithoutCancel(ctx), job.Args.Job)
	}
	if !again {
		return river.JobCancel(err)
	}
	if job.Attempt < job.MaxAttempts { // or nobody asks for the next
		w.failed.Store(job.ID, err)
	}
	return err
}

// NextRetry implements river.Worker.
func (w *worker) NextRetry(job *river.Job[args]) time.Time {
	why, _ := w.failed.LoadAndDelete(job.ID)
	err, _ := why.(error)
	return time.Now().Add(w.q.o.Replicator.Wait(job.Attempt, err))
}

// errLease: River leases by itself.
var errLease = fmt.Errorf("riverqueue: leases are River's: %w", errors.ErrUnsupported)

// Lease is not supported.
func (q *Queue) Lease(context.Context, replication.LeaseRequest) ([]replication.Entry, error) {
	return nil, errLease
}

// Extend is not supported.
func (q *Queue) Extend(context.Context, replication.Entry, time.Time) error { return errLease }

// Done is not supported.
func (q *Queue) Done(context.Context, replication.Entry, time.Time, string) error { return errLease }

// Fail is not supported.
func (q *Queue) Fail(context.Context, replication.Entry, time.Time, replication.JobFailure, time.Time) error {
	return errLease
}
