package replication

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/wharfage/wharfage/events"
)

// replicatorState is what a Replicator keeps beside its fields.
type replicatorState struct {
	once   sync.Once
	copier *Copier

	mu    sync.Mutex
	woken chan struct{} // closed when there is something to do
}

func (s *replicatorState) wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.woken != nil {
		close(s.woken)
		s.woken = nil
	}
}

func (s *replicatorState) wait() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.woken == nil {
		s.woken = make(chan struct{})
	}
	return s.woken
}

func (r *Replicator) copier() *Copier {
	r.state.once.Do(func() {
		if r.state.copier = r.Copier; r.state.copier == nil {
			r.state.copier = new(Copier)
		}
	})
	return r.state.copier
}

// Run does what is in the Queue until ctx ends, several jobs at once, and returns ctx's
// error, or before that one of the Queue. Any number of processes that share the Queue may run
// it. A job that is under way when ctx ends is left to be tried again at once, and was no attempt.
func (r *Replicator) Run(ctx context.Context) error { return r.run(ctx, false) }

// RunDue does what is due, and what becomes so meanwhile, and returns when there is no
// more.
func (r *Replicator) RunDue(ctx context.Context) error { return r.run(ctx, true) }

func (r *Replicator) run(ctx context.Context, untilIdle bool) error {
	workers := orDefault(r.Jobs, 8)
	ended := make(chan error, workers)
	running := 0
	end := func(err error) error {
		for ; running > 0; running-- {
			err = errors.Join(err, <-ended)
		}
		return err
	}
	for {
		woken := r.state.wait()
		var leases []Entry
		var err error
		if running < workers {
			leases, err = r.Queue.Lease(ctx, LeaseRequest{
				Owner: r.Owner, Most: workers - running, TTL: r.lease(), Now: r.now(), PerDestination: r.PerDestination,
			})
		}
		if err != nil {
			return end(err)
		}
		for _, e := range leases {
			running++
			go func() { ended <- r.attempt(ctx, e) }()
		}
		if untilIdle && running == 0 {
			return nil
		}
		// A timer of its own each time: the next one to be due may be another.
		poll := time.NewTimer(orDefault(r.Poll, 5*time.Second))
		select {
		case <-ctx.Done():
			err = ctx.Err()
		case err = <-ended:
			running--
		case <-woken:
		case <-poll.C:
		}
		poll.Stop()
		if err != nil {
			return end(err)
		}
	}
}

func (r *Replicator) lease() time.Duration { return orDefault(r.Lease, time.Minute) }

// attempt runs a leased job, and tells the Queue. Its errors are of the Queue.
func (r *Replicator) attempt(ctx context.Context, e Entry) error {
	most := orDefault(r.Attempts, 10)
	if e.Attempts > most { // who had it before has died of it
		return r.fail(ctx, e, fmt.Errorf("given up after %d attempts that nobody has ended", most), true)
	}
	within, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	extended := make(chan struct{})
	go func() {
		defer close(extended)
		r.extend(within, e, stop)
	}()
	outcome, err := r.Do(within, e.Job)
	lost := context.Cause(within)
	stop(nil)
	<-extended
	switch {
	case err == nil:
		now := r.now()
		ending, cancel := r.ending(ctx)
		defer cancel()
		if err = r.Queue.Done(ending, e, now, outcome); err == nil {
			e.State, e.EndedAt, e.Outcome = StateDone, now, outcome
			r.told(ctx, e)
		}
		return r.unlessStale(err)
	case errors.Is(lost, ErrStale):
		return nil
	}
	return r.fail(ctx, e, err, e.Attempts >= most)
}

// extend keeps the lease until ctx ends. When it is lost, so does the job.
func (r *Replicator) extend(ctx context.Context, e Entry, stop context.CancelCauseFunc) {
	tick := time.NewTicker(r.lease() / 3)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := r.Queue.Extend(ctx, e, r.now().Add(r.lease())); errors.Is(err, ErrStale) {
			stop(err)
			return
		}
	}
}

// ending is the context of the end of an attempt, which the Queue is told also when ctx
// has ended. Once the lease has, it need not be.
func (r *Replicator) ending(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), r.lease())
}

func (r *Replicator) fail(ctx context.Context, e Entry, why error, last bool) error {
	ending, cancel := r.ending(ctx)
	defer cancel()
	f, again := FailureOf(why)
	now := r.now()
	var retryAt time.Time
	switch {
	case ctx.Err() != nil: // others need not wait for the lease to expire
		return r.unlessStale(r.Queue.Fail(ending, e, now, JobFailure{}, now))
	case again && !last:
		retryAt = now.Add(r.Wait(e.Attempts, why))
	}
	err := r.Queue.Fail(ending, e, now, f, retryAt)
	if err != nil {
		return r.unlessStale(err)
	}
	e.Failure, e.State, e.Due = f, StateWaiting, retryAt
	if retryAt.IsZero() {
		e.State, e.EndedAt = StateDead, now
		r.GaveUp(ctx, e.Job)
	}
	r.told(ctx, e)
	return nil
}

// unlessStale: somebody else has the job, and will end it.
func (r *Replicator) unlessStale(err error) error {
	if errors.Is(err, ErrStale) {
		return nil
	}
	return err
}

func (r *Replicator) told(ctx context.Context, e Entry) {
	if r.OnJob != nil {
		e.Owner, e.Token = "", 0
		r.OnJob(ctx, e)
	}
}

// GaveUp tells the destination of a job that is dead, as Run does with those of the
// Queue: for other queues.
func (r *Replicator) GaveUp(ctx context.Context, job Job) {
	d, err := r.Destinations(ctx, job.To)
	if err != nil || d.Tell == nil || job.Action != ActionCopy {
		return
	}
	tags := job.Tags
	if len(tags) == 0 {
		tags = []string{""}
	}
	for _, tag := range tags {
		d.Tell(ctx, events.Replication{
			Repository: job.Repo, Digest: job.Digest, Tag: tag, SourceAccount: r.Self.ID, SourceRegion: r.Self.Region, Result: events.Failed,
		})
	}
}

// Wait returns how long to wait after so many attempts, the last of which has failed with
// why: twice as long each time, less a random part of up to a half, and not less than why asks
// for. It is for other queues.
func (r *Replicator) Wait(attempts int, why error) time.Duration {
	wait, most := orDefault(r.Backoff, time.Second), orDefault(r.MaxBackoff, 5*time.Minute)
	for range attempts - 1 {
		if wait *= 2; wait >= most {
			break
		}
	}
	wait = min(wait, most)
	wait -= rand.N(wait/2 + 1)
	if temporary, ok := errors.AsType[*TemporaryError](why); ok && temporary.After > wait {
		return temporary.After
	}
	return wait
}
