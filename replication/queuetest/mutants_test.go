package queuetest_test

import (
	"context"
	"errors"
	"iter"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wharfage/wharfage/replication"
	"github.com/wharfage/wharfage/replication/memqueue"
	"github.com/wharfage/wharfage/replication/queuetest"
)

// mutants are queues that break one promise each, and the clause that is to find
// out.
var mutants = map[string]struct {
	open   func(replication.Queue) replication.Queue
	clause string
}{
	"forgets a field":                     {func(q replication.Queue) replication.Queue { return forgetful{q} }, "every field of a job is kept"},
	"replaces a job":                      {func(q replication.Queue) replication.Queue { return replacing{q} }, "Add leaves what is there, in whatever state"},
	"leases before it is due":             {func(q replication.Queue) replication.Queue { return hasty{q} }, "a job is not leased before it is due"},
	"takes any token":                     {func(q replication.Queue) replication.Queue { return trusting{q} }, "a lease that has expired can be had by another"},
	"refuses what has expired":            {func(q replication.Queue) replication.Queue { return strict{q} }, "a lease that has expired counts while nobody has the job"},
	"extends nothing":                     {func(q replication.Queue) replication.Queue { return short{q} }, "Extend keeps the lease"},
	"ends twice":                          {func(q replication.Queue) replication.Queue { return twice{q} }, "what has ended has no lease"},
	"keeps attempts":                      {func(q replication.Queue) replication.Queue { return attempts{q} }, "a dead job is not leased until it is replayed"},
	"counts what was cut off":             {func(q replication.Queue) replication.Queue { return counted{q} }, "an attempt that was cut off does not count"},
	"replays what is not dead":            {func(q replication.Queue) replication.Queue { return undead{q} }, "a dead job is not leased until it is replayed"},
	"does not pause":                      {func(q replication.Queue) replication.Queue { return restless{q} }, "a paused destination gets no jobs, others do"},
	"ignores the limit":                   {func(q replication.Queue) replication.Queue { return limitless{q} }, "no more run for a destination than are allowed"},
	"counts what has expired":             {func(q replication.Queue) replication.Queue { return counting{q} }, "no more run for a destination than are allowed"},
	"first come":                          {func(q replication.Queue) replication.Queue { return &fifo{Queue: q} }, "a destination that is behind keeps no other waiting"},
	"lists from the number on":            {func(q replication.Queue) replication.Queue { return inclusive{q} }, "entries are listed by number, and by what is asked for"},
	"filters after it has counted a page": {func(q replication.Queue) replication.Queue { return paged{q} }, "entries are listed by number, and by what is asked for"},
	"forgets what is done":                {func(q replication.Queue) replication.Queue { return amnesic{q} }, "the last thousand that are done are kept, and all others"},
	"looks, and then leases":              {func(q replication.Queue) replication.Queue { return &twoSteps{Queue: q} }, "of workers that race each job has one"},
	"checks, and then ends":               {func(q replication.Queue) replication.Queue { return twoEnds{q} }, "of racing endings of one lease one wins"},
	"ends without an error":               {func(q replication.Queue) replication.Queue { return silent{q} }, "a context that has ended ends a call"},
	"ends a job all the same":             {func(q replication.Queue) replication.Queue { return deaf{q} }, "a context that has ended ends a call"},
	"shares its slices":                   {func(q replication.Queue) replication.Queue { return &sharing{q, map[string][]string{}} }, "slices belong to the caller"},
}

type forgetful struct{ replication.Queue }

func (q forgetful) Add(ctx context.Context, now time.Time, jobs ...replication.Job) error {
	jobs = slices.Clone(jobs)
	for i := range jobs {
		jobs[i].Whole = false
	}
	return q.Queue.Add(ctx, now, jobs...)
}

type replacing struct{ replication.Queue }

func (q replacing) Add(ctx context.Context, now time.Time, jobs ...replication.Job) error {
	for e := range q.Entries(ctx, replication.EntryFilter{State: replication.StateDead}, 0) {
		if slices.ContainsFunc(jobs, func(j replication.Job) bool { return j.ID == e.Job.ID }) {
			q.Discard(ctx, e.Job.ID)
		}
	}
	return q.Queue.Add(ctx, now, jobs...)
}

type hasty struct{ replication.Queue }

func (q hasty) Lease(ctx context.Context, r replication.LeaseRequest) ([]replication.Entry, error) {
	r.Now = r.Now.Add(2 * time.Second)
	return q.Queue.Lease(ctx, r)
}

// now returns the entry of a job as it is.
func now(ctx context.Context, q replication.Queue, id string) replication.Entry {
	for e := range q.Entries(ctx, replication.EntryFilter{}, 0) {
		if e.Job.ID == id {
			return e
		}
	}
	return replication.Entry{Job: replication.Job{ID: id}}
}

type trusting struct{ replication.Queue }

func (q trusting) Done(ctx context.Context, l replication.Entry, at time.Time, outcome string) error {
	return q.Queue.Done(ctx, now(ctx, q, l.Job.ID), at, outcome)
}

type strict struct{ replication.Queue }

func (q strict) Done(ctx context.Context, l replication.Entry, at time.Time, outcome string) error {
	if l.Due.Before(at) {
		return &replication.StaleError{ID: l.Job.ID}
	}
	return q.Queue.Done(ctx, l, at, outcome)
}

type short struct{ replication.Queue }

func (q short) Extend(ctx context.Context, l replication.Entry, until time.Time) error {
	return q.Queue.Extend(ctx, l, l.Due)
}

type twice struct{ replication.Queue }

func (q twice) Done(ctx context.Context, l replication.Entry, at time.Time, outcome string) error {
	if err := q.Queue.Done(ctx, l, at, outcome); !errors.Is(err, replication.ErrStale) {
		return err
	}
	return nil
}

type attempts struct{ replication.Queue }

func (q attempts) Lease(ctx context.Context, r replication.LeaseRequest) ([]replication.Entry, error) {
	out, err := q.Queue.Lease(ctx, r)
	for i := range out {
		if out[i].Failure != (replication.JobFailure{}) && out[i].Attempts == 1 {
			out[i].Attempts++
		}
	}
	return out, err
}

type counted struct{ replication.Queue }

func (q counted) Fail(ctx context.Context, l replication.Entry, at time.Time, f replication.JobFailure, retryAt time.Time) error {
	if f == (replication.JobFailure{}) {
		f.Code = replication.FailureInternal
	}
	return q.Queue.Fail(ctx, l, at, f, retryAt)
}

type undead struct{ replication.Queue }

func (q undead) Replay(ctx context.Context, id string, at time.Time) error {
	if err := q.Queue.Replay(ctx, id, at); !errors.Is(err, replication.ErrNoJob) {
		return err
	}
	return nil
}

type restless struct{ replication.Queue }

func (q restless) SetPaused(context.Context, replication.Registry, bool) error { return nil }

type limitless struct{ replication.Queue }

func (q limitless) Lease(ctx context.Context, r replication.LeaseRequest) ([]replication.Entry, error) {
	r.PerDestination = 0
	return q.Queue.Lease(ctx, r)
}

type counting struct{ replication.Queue }

func (q counting) Lease(ctx context.Context, r replication.LeaseRequest) ([]replication.Entry, error) {
	if r.PerDestination > 0 {
		running := 0
		for e := range q.Entries(ctx, replication.EntryFilter{State: replication.StateRunning}, 0) {
			if e.Due.After(r.Now.Add(-time.Minute)) {
				running++
			}
		}
		if running > r.PerDestination {
			return nil, ctx.Err()
		}
	}
	return q.Queue.Lease(ctx, r)
}

type fifo struct{ replication.Queue }

func (q *fifo) Lease(ctx context.Context, r replication.LeaseRequest) (out []replication.Entry, err error) {
	for e := range q.Entries(ctx, replication.EntryFilter{State: replication.StateWaiting}, 0) {
		to, err := []replication.Registry{}, error(nil)
		for other := range q.Entries(ctx, replication.EntryFilter{}, 0) {
			if other.Job.To != e.Job.To {
				to = append(to, other.Job.To)
			}
		}
		for _, other := range to {
			q.SetPaused(ctx, other, true)
		}
		one := r
		one.Most = 1
		var leased []replication.Entry
		leased, err = q.Queue.Lease(ctx, one)
		for _, other := range to {
			q.SetPaused(ctx, other, false)
		}
		if out = append(out, leased...); err != nil || len(out) == r.Most {
			return out, err
		}
	}
	return out, nil
}

type inclusive struct{ replication.Queue }

func (q inclusive) Entries(ctx context.Context, f replication.EntryFilter, after uint64) iter.Seq2[replication.Entry, error] {
	return q.Queue.Entries(ctx, f, max(after, 1)-1)
}

type paged struct{ replication.Queue }

func (q paged) Entries(ctx context.Context, f replication.EntryFilter, after uint64) iter.Seq2[replication.Entry, error] {
	return func(yield func(replication.Entry, error) bool) {
		n := 0
		for e, err := range q.Queue.Entries(ctx, replication.EntryFilter{}, after) {
			if n++; n > 256 && f.Repo != "" || (err != nil || f.Match(&e)) && !yield(e, err) {
				return
			}
		}
	}
}

type amnesic struct{ replication.Queue }

func (q amnesic) Entries(ctx context.Context, f replication.EntryFilter, after uint64) iter.Seq2[replication.Entry, error] {
	return func(yield func(replication.Entry, error) bool) {
		n := 0
		for e, err := range q.Queue.Entries(ctx, f, after) {
			if e.State == replication.StateDone {
				if n++; n > 999 {
					continue
				}
			}
			if !yield(e, err) {
				return
			}
		}
	}
}

// twoSteps gives everybody what was there when they looked.
type twoSteps struct {
	replication.Queue
	mu     sync.Mutex
	looked []replication.Entry
}

func (q *twoSteps) Lease(ctx context.Context, r replication.LeaseRequest) ([]replication.Entry, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.looked) > 0 {
		out := q.looked
		q.looked = nil
		return out, nil
	}
	out, err := q.Queue.Lease(ctx, r)
	q.looked = out
	return out, err
}

type twoEnds struct{ replication.Queue }

func (q twoEnds) Fail(ctx context.Context, l replication.Entry, at time.Time, f replication.JobFailure, retryAt time.Time) error {
	if err := q.Queue.Fail(ctx, l, at, f, retryAt); !errors.Is(err, replication.ErrStale) {
		return err
	}
	return nil
}

type silent struct{ replication.Queue }

func (q silent) Entries(ctx context.Context, f replication.EntryFilter, after uint64) iter.Seq2[replication.Entry, error] {
	return func(yield func(replication.Entry, error) bool) {
		for e, err := range q.Queue.Entries(ctx, f, after) {
			if err != nil || !yield(e, nil) {
				return
			}
		}
	}
}

type deaf struct{ replication.Queue }

func (q deaf) Done(ctx context.Context, l replication.Entry, at time.Time, outcome string) error {
	return q.Queue.Done(context.WithoutCancel(ctx), l, at, outcome)
}

type sharing struct {
	replication.Queue
	tags map[string][]string
}

func (q *sharing) Add(ctx context.Context, at time.Time, jobs ...replication.Job) error {
	for _, j := range jobs {
		q.tags[j.ID] = j.Tags
	}
	return q.Queue.Add(ctx, at, jobs...)
}

func (q *sharing) Entries(ctx context.Context, f replication.EntryFilter, after uint64) iter.Seq2[replication.Entry, error] {
	return func(yield func(replication.Entry, error) bool) {
		for e, err := range q.Queue.Entries(ctx, f, after) {
			if e.Job.Tags = q.tags[e.Job.ID]; !yield(e, err) {
				return
			}
		}
	}
}

func TestMutants(t *testing.T) {
	if name := os.Getenv("MUTANT"); name != "" {
		queuetest.TestQueue(t, func(testing.TB) replication.Queue { return mutants[name].open(&memqueue.Queue{KeepDone: 1000}) })
		return
	}
	for name, m := range mutants {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			clause := strings.ReplaceAll(m.clause, " ", "_")
			cmd := exec.Command(os.Args[0], "-test.run=^TestMutants$/^"+clause+"$")
			cmd.Env = append(slices.Clone(os.Environ()), "MUTANT="+name)
			out, err := cmd.CombinedOutput()
			if err == nil || !strings.Contains(string(out), "--- FAIL: TestMutants/"+clause) {
				t.Errorf("the kit lets it pass, or fails for another reason: %v\n%s", err, out)
			}
		})
	}
}
