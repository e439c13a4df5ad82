// Package memqueue keeps the jobs of replication in memory: for tests, and for
// registries in memory.
package memqueue

import (
	"cmp"
	"container/heap"
	"context"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/wharfage/wharfage/replication"
)

// Queue is a [replication.Queue]. The zero value is ready. It must not be copied
// after its first use.
type Queue struct {
	KeepDone int // jobs that are done, the last ones; 0 means 10,000, and no fewer than 1,000

	mu      sync.Mutex
	jobs    map[string]*job
	order   []*job // by number; nil for what is forgotten
	first   uint64 // number of order[0]
	done    []*job // by the time of their end
	routes  map[replication.Registry]*route
	lastJob uint64
	token   uint64
}

type job struct {
	replication.Entry
	index int // in its route's waiting
}

// route is what there is for one destination.
type route struct {
	paused  bool
	waiting waiting
	running []*job
}

// waiting is a heap by due.
type waiting []*job

func (w waiting) Len() int           { return len(w) }
func (w waiting) Less(i, j int) bool { return sooner(w[i], w[j]) }
func (w waiting) Swap(i, j int) {
	w[i], w[j] = w[j], w[i]
	w[i].index, w[j].index = i, j
}
func (w *waiting) Push(x any) { x.(*job).index = len(*w); *w = append(*w, x.(*job)) }
func (w *waiting) Pop() any {
	last := (*w)[len(*w)-1]
	*w = (*w)[:len(*w)-1]
	return last
}

func sooner(a, b *job) bool {
	return cmp.Or(a.Due.Compare(b.Due), cmp.Compare(a.Number, b.Number)) < 0
}

// lock is for each method. It makes the zero value usable.
func (q *Queue) lock(ctx context.Context) (unlock func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	q.mu.Lock()
	if q.jobs == nil {
		q.jobs, q.routes, q.first = map[string]*job{}, map[replication.Registry]*route{}, 1
	}
	return q.mu.Unlock, nil
}

func (q *Queue) route(to replication.Registry) *route {
	r := q.routes[to]
	if r == nil {
		r = new(route)
		q.routes[to] = r
	}
	return r
}

// Add implements [replication.Queue].
func (q *Queue) Add(ctx context.Context, now time.Time, jobs ...replication.Job) error {
	unlock, err := q.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	for _, j := range jobs {
		if q.jobs[j.ID] != nil {
			continue
		}
		q.lastJob++
		e := &job{Entry: own(replication.Entry{Job: j, Number: q.lastJob})}
		q.jobs[j.ID], q.order = e, append(q.order, e)
		q.wait(e, now)
	}
	return nil
}

func (q *Queue) wait(e *job, due time.Time) {
	e.State, e.Due, e.Owner, e.Token, e.EndedAt = replication.StateWaiting, due, "", 0, time.Time{}
	heap.Push(&q.route(e.Job.To).waiting, e)
}

// Lease implements [replication.Queue].
func (q *Queue) Lease(ctx context.Context, req replication.LeaseRequest) (out []replication.Entry, err error) {
	unlock, err := q.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	running := map[*route]int{}
	for _, r := range q.routes {
		for _, e := range r.running {
			if e.Due.After(req.Now) {
				running[r]++
			}
		}
	}
	for len(out) < req.Most {
		var best *route
		var next *job
		for _, r := range q.routes {
			e := r.next(req.Now)
			if e == nil || r.paused || req.PerDestination > 0 && running[r] >= req.PerDestination {
				continue
			}
			if best == nil || running[r] < running[best] || running[r] == running[best] && sooner(e, next) {
				best, next = r, e
			}
		}
		if best == nil {
			break
		}
		if next.State == replication.StateWaiting {
			heap.Remove(&best.waiting, next.index)
			best.running = append(best.running, next)
		}
		q.token++
		running[best]++
		next.State, next.Owner, next.Token, next.Due = replication.StateRunning, req.Owner, q.token, req.Now.Add(req.TTL)
		next.Attempts++
		out = append(out, own(next.Entry))
	}
	return out, nil
}

// next is the job of a destination that has been due for longest.
func (r *route) next(now time.Time) (best *job) {
	if len(r.waiting) > 0 {
		best = r.waiting[0]
	}
	for _, e := range r.running {
		if best == nil || sooner(e, best) {
			best = e
		}
	}
	if best != nil && best.Due.After(now) {
		return nil
	}
	return best
}

// leased returns the job of a lease that is the last one.
func (q *Queue) leased(l replication.Entry) (*job, error) {
	e := q.jobs[l.Job.ID]
	if e == nil || e.State != replication.StateRunning || e.Token != l.Token {
		stale := &replication.StaleError{ID: l.Job.ID, Token: l.Token}
		if e != nil {
			stale.Have = e.Token
		}
		return nil, stale
	}
	return e, nil
}

// end takes a job from those that run.
func (q *Queue) end(e *job) {
	r := q.route(e.Job.To)
	r.running = slices.DeleteFunc(r.running, func(other *job) bool { return other == e })
	e.Owner, e.Token, e.Due = "", 0, time.Time{}
}

// Extend implements [replication.Queue].
func (q *Queue) Extend(ctx context.Context, l replication.Entry, until time.Time) error {
	unlock, err := q.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	e, err := q.leased(l)
	if err == nil {
		e.Due = until
	}
	return err
}

// Done implements [replication.Queue].
func (q *Queue) Done(ctx context.Context, l replication.Entry, now time.Time, outcome string) error {
	unlock, err := q.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	e, err := q.leased(l)
	if err != nil {
		return err
	}
	q.end(e)
	e.State, e.EndedAt, e.Outcome, e.Failure = replication.StateDone, now, outcome, replication.JobFailure{}
	q.done = append(q.done, e)
	keep := q.KeepDone
	if keep == 0 {
		keep = 10_000
	}
	for keep = max(keep, 1000); len(q.done) > keep; {
		q.forget(q.done[0])
		q.done = q.done[1:]
	}
	return nil
}

func (q *Queue) forget(e *job) {
	delete(q.jobs, e.Job.ID)
	q.order[e.Number-q.first] = nil
	for len(q.order) > 0 && q.order[0] == nil {
		q.order, q.first = q.order[1:], q.first+1
	}
}

// Fail implements [replication.Queue].
func (q *Queue) Fail(ctx context.Context, l replication.Entry, now time.Time, f replication.JobFailure, retryAt time.Time) error {
	unlock, err := q.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	e, err := q.leased(l)
	if err != nil {
		return err
	}
	q.end(e)
	if f == (replication.JobFailure{}) {
		e.Attempts--
	} else {
		e.Failure = f
	}
	if retryAt.IsZero() {
		e.State, e.EndedAt = replication.StateDead, now
	} else {
		q.wait(e, retryAt)
	}
	return nil
}

// Entries implements [replication.Board].
func (q *Queue) Entries(ctx context.Context, f replication.EntryFilter, after uint64) iter.Seq2[replication.Entry, error] {
	const pageLen = 256
	return func(yield func(replication.Entry, error) bool) {
		for more := true; more; {
			unlock, err := q.lock(ctx)
			if err != nil {
				yield(replication.Entry{}, err)
				return
			}
			var page []replication.Entry
			start := max(after+1, q.first) - q.first
			more = start < uint64(len(q.order))
			if more {
				for _, e := range q.order[start:] {
					if len(page) == pageLen {
						break
					}
					start++
					if e != nil && f.Match(&e.Entry) {
						page = append(page, own(e.Entry))
					}
				}
				after = q.first + start - 1
			}
			unlock()
			for _, e := range page {
				if !yield(e, nil) {
					return
				}
			}
		}
	}
}

// dead returns a job that is.
func (q *Queue) dead(id string) (*job, error) {
	if e := q.jobs[id]; e != nil && e.State == replication.StateDead {
		return e, nil
	}
	return nil, replication.ErrNoJob
}

// Replay implements [replication.Board].
func (q *Queue) Replay(ctx context.Context, id string, now time.Time) error {
	unlock, err := q.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	e, err := q.dead(id)
	if err == nil {
		e.Attempts = 0
		q.wait(e, now)
	}
	return err
}

// Discard implements [replication.Board].
func (q *Queue) Discard(ctx context.Context, id string) error {
	unlock, err := q.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	e, err := q.dead(id)
	if err == nil {
		q.forget(e)
	}
	return err
}

// SetPaused implements [replication.Board].
func (q *Queue) SetPaused(ctx context.Context, to replication.Registry, paused bool) error {
	unlock, err := q.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	q.route(to).paused = paused
	return nil
}

// Paused implements [replication.Board].
func (q *Queue) Paused(ctx context.Context) (out []replication.Registry, err error) {
	unlock, err := q.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	for to, r := range q.routes {
		if r.paused {
			out = append(out, to)
		}
	}
	slices.SortFunc(out, func(a, b replication.Registry) int { return cmp.Compare(a.String(), b.String()) })
	return out, nil
}

// own returns e with slices of its own.
func own(e replication.Entry) replication.Entry {
	e.Job.Tags, e.Job.Via = slices.Clone(e.Job.Tags), slices.Clone(e.Job.Via)
	return e
}
