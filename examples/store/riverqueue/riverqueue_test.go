package riverqueue_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/wharfage/wharfage/events"
	"github.com/wharfage/wharfage/examples/store/riverqueue"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/replication"
)

// TestJobsComeWithTheirChange: each push that commits has its job, none that does not, and
// what happens is told as the registry's replication status.
func TestJobsComeWithTheirChange(t *testing.T) {
	p, _, _ := newPair(t, t.TempDir(), nil)
	d, err := p.push(t.Context(), "team/app", "v1")
	if err != nil {
		t.Fatal(err)
	}
	raw, _, err := manifest.ImageDraft{ArtifactType: "application/vnd.example.test.v1"}.Build()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (&manifest.Pusher{Store: p.source.Manifests()}).Push(t.Context(), "team/empty", manifest.PushRequest{Raw: raw}); !errors.Is(err, manifest.ErrMissing) {
		t.Fatal(err)
	}
	all, _ := p.entries(t, replication.EntryFilter{})
	if len(all) != 1 || all[0].Job.Digest != d || all[0].State != replication.StateWaiting || !slices.Equal(all[0].Job.Tags, []string{"v1"}) {
		t.Errorf("%+v", all)
	}
	status := func(want replication.CopyStatus) {
		t.Helper()
		s, err := p.r.Status(t.Context(), "team/app", manifest.ImageID{Tag: "v1"})
		if err != nil || len(s.Statuses) != 1 || s.Statuses[0].Status != want {
			t.Errorf("%+v, %v", s, err)
		}
	}
	status(replication.StatusInProgress)
	p.serve(t)
	p.until(t, time.Minute, func(by map[replication.State]int) bool { return by[replication.StateDone] == 1 })
	status(replication.StatusComplete)
	if tag, err := p.target.Manifests().Resolve(t.Context(), "team/app", "v1"); err != nil || tag.Digest != d {
		t.Errorf("%+v, %v", tag, err)
	}
	if s := p.queue.Serves(); !slices.Equal(s, []replication.Registry{there}) {
		t.Errorf("serves %v", s)
	}
}

// TestBoard: what is denied is dead at once and can be replayed or discarded, what fails is tried
// again, a job is added once, and a destination can be paused.
func TestBoard(t *testing.T) {
	var mu sync.Mutex
	failure := error(fmt.Errorf("%w: not here", replication.ErrDenied))
	var calls atomic.Int64
	p, _, _ := newPair(t, t.TempDir(), func() error {
		mu.Lock()
		defer mu.Unlock()
		calls.Add(1)
		return failure
	})
	fail := func(err error) {
		mu.Lock()
		defer mu.Unlock()
		failure = err
	}
	ctx := t.Context()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Error(err)
		}
	}
	check(p.queue.SetPaused(ctx, there, true))
	odd := replication.Registry{ID: "x", Region: "-eu--1"}
	check(p.queue.SetPaused(ctx, odd, true))
	if got, err := p.queue.Paused(ctx); err != nil || !slices.Equal(got, []replication.Registry{there, odd}) {
		t.Errorf("paused %v, %v", got, err)
	}
	if _, err := p.push(ctx, "team/app", "v1"); err != nil {
		t.Fatal(err)
	}
	p.serve(t)
	for now := time.Now(); len(p.queue.Serves()) == 0 && time.Since(now) < time.Minute; {
		<-time.After(10 * time.Millisecond)
	}
	if _, by := p.entries(t, replication.EntryFilter{}); calls.Load() != 0 || by[replication.StateWaiting] != 1 {
		t.Errorf("%d calls while paused, %v", calls.Load(), by)
	}
	check(p.queue.SetPaused(ctx, there, false))
	p.until(t, time.Minute, func(by map[replication.State]int) bool { return by[replication.StateDead] == 1 })
	all, _ := p.entries(t, replication.EntryFilter{Repo: "team/app", State: replication.StateDead, To: there})
	if len(all) != 1 || all[0].Failure.Code != replication.FailureDenied || all[0].EndedAt.IsZero() || all[0].Attempts != 1 {
		t.Fatalf("%+v", all)
	}
	id := all[0].Job.ID
	s, err := p.r.Status(ctx, "team/app", manifest.ImageID{Tag: "v1"})
	if err != nil || s.Statuses[0].Status != replication.StatusFailed || s.Statuses[0].FailureCode != replication.FailureDenied {
		t.Errorf("%+v, %v", s, err)
	}
	check(p.queue.Add(ctx, time.Now(), all[0].Job))
	fail(errors.New("broken"))
	check(p.queue.Replay(ctx, id, time.Now()))
	p.until(t, time.Minute, func(map[replication.State]int) bool {
		all, _ := p.entries(t, replication.EntryFilter{})
		return len(all) == 1 && all[0].Attempts > 1 && all[0].Failure.Code == replication.FailureInternal
	})
	fail(nil)
	p.until(t, time.Minute, func(by map[replication.State]int) bool { return by[replication.StateDone] == 1 })
	check(p.queue.Add(ctx, time.Now(), all[0].Job))
	if all, _ := p.entries(t, replication.EntryFilter{}); len(all) != 1 {
		t.Errorf("a job is there %d times", len(all))
	}
	for _, err := range []error{p.queue.Replay(ctx, id, time.Now()), p.queue.Discard(ctx, id), p.queue.Discard(ctx, "x")} {
		if !errors.Is(err, replication.ErrNoJob) {
			t.Errorf("%v", err)
		}
	}
	fail(replication.ErrDenied)
	check(p.queue.Add(ctx, time.Now(), replication.Job{ID: "mine", To: there, Repo: "team/app", Digest: all[0].Job.Digest, Action: replication.ActionCopy}))
	p.until(t, time.Minute, func(by map[replication.State]int) bool { return by[replication.StateDead] == 1 })
	check(p.queue.Discard(ctx, "mine"))
	if all, _ := p.entries(t, replication.EntryFilter{State: replication.StateDead}); len(all) != 0 {
		t.Errorf("%+v", all)
	}
	if _, err := p.queue.Lease(ctx, replication.LeaseRequest{}); !errors.Is(err, errors.ErrUnsupported) {
		t.Error(err)
	}
}

// TestAJobThatIsCutOffIsNoAttempt: when a process ends, what it was doing waits, and is due.
func TestAJobThatIsCutOffIsNoAttempt(t *testing.T) {
	p, _, _ := newPair(t, t.TempDir(), nil)
	p.r.Attempts = 1
	began := make(chan struct{}, 1)
	p.r.Destinations = func(ctx context.Context, _ replication.Registry) (replication.Destination, error) {
		began <- struct{}{}
		<-ctx.Done()
		return replication.Destination{}, ctx.Err()
	}
	if _, err := p.push(t.Context(), "team/app", "v1"); err != nil {
		t.Fatal(err)
	}
	patient, err := riverqueue.New(riverqueue.Options{Pool: p.pool, Replicator: p.r, Look: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- patient.Serve(ctx) }()
	<-began
	stop()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	all, _ := p.entries(t, replication.EntryFilter{})
	if len(all) != 1 || all[0].State != replication.StateWaiting || all[0].Attempts != 0 || all[0].Failure != (replication.JobFailure{}) || time.Until(all[0].Due) > 0 {
		t.Errorf("%+v", all)
	}
}

// TestTheNextAttemptIsNotBefore what a registry with a limit on requests has asked for.
func TestTheNextAttemptIsNotBefore(t *testing.T) {
	p, _, _ := newPair(t, t.TempDir(), func() error {
		return &replication.TemporaryError{After: time.Hour, Err: replication.ErrUnavailable}
	})
	if _, err := p.push(t.Context(), "team/app", "v1"); err != nil {
		t.Fatal(err)
	}
	p.serve(t)
	began := time.Now()
	var all []replication.Entry
	p.until(t, time.Minute, func(map[replication.State]int) bool {
		all, _ = p.entries(t, replication.EntryFilter{State: replication.StateWaiting})
		return len(all) == 1 && all[0].Failure.Code != ""
	})
	if wait := all[0].Due.Sub(began); wait < 59*time.Minute {
		t.Errorf("again after %v: %+v", wait, all[0])
	}
}

// TestTheLastAttemptMayTakeTooLong: then the job is dead, and that is told.
func TestTheLastAttemptMayTakeTooLong(t *testing.T) {
	p, _, _ := newPair(t, t.TempDir(), nil)
	p.r.Attempts = 1
	var calls atomic.Int64
	told := make(chan events.Replication, 2)
	p.r.Destinations = func(ctx context.Context, _ replication.Registry) (replication.Destination, error) {
		if calls.Add(1) == 1 {
			<-ctx.Done()
		}
		return replication.Destination{Tell: func(_ context.Context, e events.Replication) { told <- e }}, ctx.Err()
	}
	if _, err := p.push(t.Context(), "team/app", "v1"); err != nil {
		t.Fatal(err)
	}
	p.serve(t)
	p.until(t, time.Minute, func(by map[replication.State]int) bool { return by[replication.StateDead] == 1 })
	if len(told) != 1 {
		t.Fatalf("%d were told of it", len(told))
	}
	if e := <-told; e.Repository != "team/app" || e.Result != events.Failed {
		t.Errorf("%+v", e)
	}
}

// TestTheBoardReadsWhatItNames: River keeps what has ended for days, and those who look after
// the others, or after one, do not read all of it.
func TestTheBoardReadsWhatItNames(t *testing.T) {
	p, source, _ := newPair(t, t.TempDir(), nil)
	d, err := p.push(t.Context(), "team/app", "v1")
	if err != nil {
		t.Fatal(err)
	}
	config, err := pgxpool.ParseConfig(source)
	if err != nil {
		t.Fatal(err)
	}
	config.MaxConns = 1 // whose own statistics are complete
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	exec := func(sql string, args ...any) {
		t.Helper()
		if _, err := pool.Exec(t.Context(), sql, args...); err != nil {
			t.Fatal(err)
		}
	}
	const ended = 20_000
	exec(`insert into river_job (args, kind, max_attempts, attempt, queue, state, finalized_at)
		select jsonb_build_object('id', 'job ' || n, 'job', jsonb_build_object('repository', 'team/app' || n % 100, 'digest', 'digest ' || n)),
		'wharfage_replication', 1, 1, 'replicate_a_b', 'completed', now() from generate_series(1, $1) n`, ended)
	exec(`vacuum analyze river_job`)
	q, err := riverqueue.New(riverqueue.Options{Pool: pool, Replicator: p.r})
	if err != nil {
		t.Fatal(err)
	}
	read := func() (n int) {
		exec(`select pg_stat_force_next_flush()`)
		if err := pool.QueryRow(t.Context(), `select sum(seq_tup_read) + (select sum(idx_tup_read) from pg_stat_user_indexes where relid = 'river_job'::regclass)
			from pg_stat_user_tables where relid = 'river_job'::regclass`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := read()
	for what, c := range map[string]struct {
		filter replication.EntryFilter
		want   int
	}{
		"that wait":               {replication.EntryFilter{State: replication.StateWaiting}, 1},
		"that run":                {replication.EntryFilter{State: replication.StateRunning}, 0},
		"dead":                    {replication.EntryFilter{State: replication.StateDead}, 0},
		"of an image":             {replication.EntryFilter{Repo: "team/app", Digest: d}, 1},
		"in a state that is none": {replication.EntryFilter{State: "lost"}, 0},
	} {
		n := 0
		for _, err := range q.Entries(t.Context(), c.filter, 0) {
			if n++; err != nil {
				t.Fatal(err)
			}
		}
		if n != c.want {
			t.Errorf("%d jobs %s, want %d", n, what, c.want)
		}
	}
	for _, err := range []error{q.Replay(t.Context(), "job 7", time.Now()), q.Discard(t.Context(), "job 7")} {
		if !errors.Is(err, replication.ErrNoJob) {
			t.Error(err)
		}
	}
	if n := read() - before; n > 100 {
		t.Errorf("%d rows were read of %d", n, ended)
	}
}
