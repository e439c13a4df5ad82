// Package queuetest checks that a [replication.Queue] keeps its contract. A
// queue's test is a few lines:
//
//	queuetest.TestQueue(t, func(t testing.TB) replication.Queue { return open(t) })
package queuetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wharfage/wharfage/replication"
)

// TestQueue checks a Queue. Each subtest is named by the sentence it checks, and
// has an empty Queue of its own, which open returns.
func TestQueue(t *testing.T, open func(t testing.TB) replication.Queue) {
	for _, c := range clauses {
		t.Run(c.name, func(t *testing.T) {
			c.check(&kit{T: t, q: open(t)})
		})
	}
}

type kit struct {
	*testing.T
	q replication.Queue
}

var (
	start = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	west  = replication.Registry{Region: "us-west-2", ID: "111122223333"}
	east  = replication.Registry{Region: "us-east-2", ID: "111122223333"}
)

const ttl = time.Minute

func at(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }

// job has every field set.
func job(id string, to replication.Registry) replication.Job {
	return replication.Job{
		ID: id, To: to, Repo: "team/app", Digest: "sha256:" + "ab", Action: replication.ActionCopy, Tags: []string{"v1", "latest"},
		Whole: true, Deletes: true, At: start, Via: []string{"a", "b"},
	}
}

func (k *kit) add(now time.Time, to replication.Registry, ids ...string) {
	k.Helper()
	var jobs []replication.Job
	for _, id := range ids {
		jobs = append(jobs, job(id, to))
	}
	if err := k.q.Add(k.Context(), now, jobs...); err != nil {
		k.Fatalf("Add: %v", err)
	}
}

// lease leases up to most jobs, which are to be those of ids.
func (k *kit) lease(now time.Time, most int, ids ...string) []replication.Entry {
	k.Helper()
	return k.request(replication.LeaseRequest{Owner: "w", Most: most, TTL: ttl, Now: now}, ids...)
}

func (k *kit) request(r replication.LeaseRequest, ids ...string) []replication.Entry {
	k.Helper()
	got, err := k.q.Lease(k.Context(), r)
	if err != nil {
		k.Fatalf("Lease: %v", err)
	}
	var have []string
	for _, e := range got {
		have = append(have, e.Job.ID)
	}
	if !slices.Equal(have, ids) {
		k.Fatalf("Lease of %d at %v: %q, want %q", r.Most, r.Now.Sub(start), have, ids)
	}
	return got
}

func (k *kit) ok(err error) {
	k.Helper()
	if err != nil {
		k.Error(err)
	}
}

func (k *kit) stale(what string, err error) {
	k.Helper()
	if e, ok := errors.AsType[*replication.StaleError](err); !ok || !errors.Is(err, replication.ErrStale) || e.ID == "" {
		k.Errorf("%s: %v, want a *StaleError", what, err)
	}
}

func (k *kit) entries(f replication.EntryFilter, after uint64) (out []replication.Entry) {
	k.Helper()
	for e, err := range k.q.Entries(k.Context(), f, after) {
		if err != nil {
			k.Fatalf("Entries: %v", err)
		}
		out = append(out, e)
	}
	return out
}

// listed checks what f selects: "id state" of each.
func (k *kit) listed(f replication.EntryFilter, want ...string) {
	k.Helper()
	var got []string
	for _, e := range k.entries(f, 0) {
		got = append(got, e.Job.ID+" "+string(e.State))
	}
	if !slices.Equal(got, want) {
		k.Errorf("Entries of %+v: %q, want %q", f, got, want)
	}
}

// only returns the entry of a job.
func (k *kit) only(id string) replication.Entry {
	k.Helper()
	for _, e := range k.entries(replication.EntryFilter{}, 0) {
		if e.Job.ID == id {
			return e
		}
	}
	k.Fatalf("%s is not listed", id)
	return replication.Entry{}
}

var failure = replication.JobFailure{Code: replication.FailureDenied, Detail: "no \"é\""}

var clauses = []struct {
	name  string
	check func(*kit)
}{
	{"every field of a job is kept", func(k *kit) {
		k.add(start, west, "a")
		l := k.lease(start, 1, "a")[0]
		want := job("a", west)
		for _, e := range []replication.Entry{l, k.only("a")} {
			if got := e.Job; !got.At.Equal(want.At) {
				k.Errorf("At = %v", got.At)
			} else if got.At = want.At; !reflect.DeepEqual(got, want) {
				k.Errorf("%+v, want %+v", got, want)
			}
		}
		if l.State != replication.StateRunning || l.Attempts != 1 || l.Owner != "w" || !l.Due.Equal(start.Add(ttl)) || l.Number == 0 || l.Token == 0 {
			k.Errorf("lease %+v", l)
		}
	}},
	{"Add leaves what is there, in whatever state", func(k *kit) {
		k.add(at(0), west, "dead", "done", "run", "wait")
		l := k.lease(start, 3, "dead", "done", "run")
		k.ok(k.q.Fail(k.Context(), l[0], start, failure, time.Time{}))
		k.ok(k.q.Done(k.Context(), l[1], start, "copied"))
		k.add(at(1), east, "dead", "done", "run", "wait", "new", "new")
		k.listed(replication.EntryFilter{}, "dead dead", "done done", "run running", "wait waiting", "new waiting")
		if e := k.only("wait"); e.Job.To != west {
			k.Errorf("%+v was changed", e)
		}
	}},
	{"jobs are leased in the order of Add, once", func(k *kit) {
		k.add(at(0), west, "c", "a")
		k.add(at(0), west, "b")
		k.lease(at(1), 2, "c", "a")
		k.lease(at(1), 5, "b")
		k.lease(at(1), 5)
	}},
	{"a job is not leased before it is due", func(k *kit) {
		k.add(at(10), west, "a")
		k.lease(at(9), 1)
		l := k.lease(at(10), 1, "a")[0]
		k.ok(k.q.Fail(k.Context(), l, at(11), failure, at(20)))
		k.lease(at(19), 1)
		if l = k.lease(at(20), 1, "a")[0]; l.Attempts != 2 || l.Failure != failure {
			k.Errorf("second lease %+v", l)
		}
	}},
	{"an attempt that was cut off does not count", func(k *kit) {
		k.add(at(0), west, "a")
		k.ok(k.q.Fail(k.Context(), k.lease(at(0), 1, "a")[0], at(1), failure, at(2)))
		first := k.lease(at(2), 1, "a")[0]
		k.ok(k.q.Fail(k.Context(), first, at(3), replication.JobFailure{}, at(3)))
		if e := k.only("a"); e.State != replication.StateWaiting || e.Attempts != 1 || e.Failure != failure {
			k.Errorf("cut off in its second attempt: %+v", e)
		}
		if l := k.lease(at(3), 1, "a")[0]; l.Attempts != 2 || l.Token <= first.Token {
			k.Errorf("leased again: %+v after %+v", l, first)
		}
	}},
	{"what was added later and is due does not wait for what is not due", func(k *kit) {
		k.add(at(0), west, "a", "b")
		l := k.lease(at(0), 1, "a")[0]
		k.ok(k.q.Fail(k.Context(), l, at(0), failure, at(100)))
		k.lease(at(1), 2, "b")
	}},
	{"a lease that has expired can be had by another", func(k *kit) {
		k.add(start, west, "a")
		first := k.lease(at(0), 1, "a")[0]
		k.lease(at(59), 1)
		second := k.lease(at(60), 1, "a")[0]
		if second.Token <= first.Token || second.Attempts != 2 {
			k.Errorf("%+v after %+v", second, first)
		}
		k.stale("Done", k.q.Done(k.Context(), first, at(61), "copied"))
		k.stale("Fail", k.q.Fail(k.Context(), first, at(61), failure, at(62)))
		k.stale("Extend", k.q.Extend(k.Context(), first, at(500)))
		k.listed(replication.EntryFilter{}, "a running")
		k.ok(k.q.Done(k.Context(), second, at(61), "copied"))
	}},
	{"a lease that has expired counts while nobody has the job", func(k *kit) {
		k.add(start, west, "a", "b")
		l := k.lease(at(0), 2, "a", "b")
		k.ok(k.q.Done(k.Context(), l[0], at(600), "copied"))
		k.ok(k.q.Extend(k.Context(), l[1], at(700)))
		k.lease(at(699), 1)
		k.lease(at(700), 1, "b")
	}},
	{"Extend keeps the lease", func(k *kit) {
		k.add(start, west, "a")
		l := k.lease(at(0), 1, "a")[0]
		k.ok(k.q.Extend(k.Context(), l, at(120)))
		k.lease(at(119), 1)
		k.ok(k.q.Done(k.Context(), l, at(119), "copied"))
	}},
	{"what has ended has no lease", func(k *kit) {
		k.add(start, west, "a", "b", "c")
		l := k.lease(at(0), 3, "a", "b", "c")
		k.ok(k.q.Done(k.Context(), l[0], at(1), "copied"))
		k.ok(k.q.Fail(k.Context(), l[1], at(1), failure, time.Time{}))
		k.ok(k.q.Fail(k.Context(), l[2], at(1), failure, at(500)))
		for _, e := range l {
			k.stale("Done of "+e.Job.ID, k.q.Done(k.Context(), e, at(2), ""))
			k.stale("Extend of "+e.Job.ID, k.q.Extend(k.Context(), e, at(2)))
			k.stale("Fail of "+e.Job.ID, k.q.Fail(k.Context(), e, at(2), failure, at(2)))
		}
		k.listed(replication.EntryFilter{}, "a done", "b dead", "c waiting")
		e := k.only("a")
		if e.Outcome != "copied" || !e.EndedAt.Equal(at(1)) || e.Failure != (replication.JobFailure{}) {
			k.Errorf("%+v", e)
		}
		if e = k.only("b"); e.Failure != failure || !e.EndedAt.Equal(at(1)) {
			k.Errorf("%+v", e)
		}
		k.stale("Done of what is not there", k.q.Done(k.Context(), replication.Entry{Job: job("x", west), Token: 1}, at(1), ""))
	}},
	{"a dead job is not leased until it is replayed", func(k *kit) {
		k.add(start, west, "a", "b")
		l := k.lease(at(0), 2, "a", "b")
		for _, e := range l {
			k.ok(k.q.Fail(k.Context(), e, at(0), failure, time.Time{}))
		}
		k.lease(at(10_000), 5)
		k.listed(replication.EntryFilter{State: replication.StateDead}, "a dead", "b dead")
		k.ok(k.q.Replay(k.Context(), "a", at(20_000)))
		k.listed(replication.EntryFilter{State: replication.StateDead}, "b dead")
		k.lease(at(19_999), 5)
		again := k.lease(at(20_000), 5, "a")[0]
		if again.Attempts != 1 {
			k.Errorf("%d attempts after a replay", again.Attempts)
		}
		k.ok(k.q.Discard(k.Context(), "b"))
		k.listed(replication.EntryFilter{}, "a running")
		for _, id := range []string{"a", "b", "x"} {
			if err := k.q.Replay(k.Context(), id, at(0)); !errors.Is(err, replication.ErrNoJob) {
				k.Errorf("Replay of %s: %v", id, err)
			}
			if err := k.q.Discard(k.Context(), id); !errors.Is(err, replication.ErrNoJob) {
				k.Errorf("Discard of %s: %v", id, err)
			}
		}
	}},
	{"a paused destination gets no jobs, others do", func(k *kit) {
		k.add(start, west, "a")
		l := k.lease(at(0), 1, "a")[0]
		k.add(start, west, "b")
		k.add(start, east, "c")
		k.ok(k.q.SetPaused(k.Context(), west, true))
		k.ok(k.q.SetPaused(k.Context(), west, true))
		if p, err := k.q.Paused(k.Context()); err != nil || !slices.Equal(p, []replication.Registry{west}) {
			k.Errorf("paused: %v, %v", p, err)
		}
		k.lease(at(1), 5, "c")
		k.ok(k.q.Done(k.Context(), l, at(2), "copied"))
		k.add(at(2), west, "d")
		k.lease(at(3), 5)
		k.ok(k.q.SetPaused(k.Context(), west, false))
		k.ok(k.q.SetPaused(k.Context(), east, false))
		if p, err := k.q.Paused(k.Context()); err != nil || len(p) != 0 {
			k.Errorf("paused: %v, %v", p, err)
		}
		k.lease(at(4), 5, "b", "d")
	}},
	{"no more run for a destination than are allowed", func(k *kit) {
		k.add(start, west, "a", "b", "c", "d")
		k.add(start, east, "e")
		r := replication.LeaseRequest{Owner: "w", Most: 9, TTL: ttl, Now: at(0), PerDestination: 2}
		l := k.request(r, "a", "e", "b")
		k.request(r)
		k.ok(k.q.Done(k.Context(), l[0], at(1), "copied"))
		k.request(r, "c")
		r.Now = at(60) // all of them have expired
		k.request(r, "d", "e", "b")
	}},
	{"a destination that is behind keeps no other waiting", func(k *kit) {
		k.add(start, west, "a", "b", "c", "d", "e", "f")
		k.add(at(1), east, "x", "y")
		k.lease(at(2), 1, "a")
		k.lease(at(2), 4, "x", "b", "y", "c")
	}},
	{"entries are listed by number, and by what is asked for", func(k *kit) {
		for i := range 600 {
			j := job(fmt.Sprintf("%04d", 999-i), west)
			j.Repo = fmt.Sprint("repo", i%3)
			if i%2 == 0 {
				j.To, j.Digest = east, "sha256:cd"
			}
			k.ok(k.q.Add(k.Context(), start, j))
		}
		all := k.entries(replication.EntryFilter{}, 0)
		if len(all) != 600 {
			k.Fatalf("%d entries", len(all))
		}
		for _, f := range []replication.EntryFilter{{}, {Repo: "repo1"}, {Repo: "repo2", Digest: "sha256:cd"}, {To: west}, {State: replication.StateDone}, {State: replication.StateWaiting, Repo: "repo"}} {
			for _, i := range []int{-1, 0, 255, 256, 598, 599} {
				after := uint64(0)
				if i >= 0 {
					after = all[i].Number
				}
				var want, got []string
				for _, e := range all {
					if e.Number > after && f.Match(&e) {
						want = append(want, e.Job.ID)
					}
				}
				for _, e := range k.entries(f, after) {
					got = append(got, e.Job.ID)
				}
				if !slices.Equal(got, want) {
					k.Errorf("%+v after %d: %d entries, want %d", f, after, len(got), len(want))
				}
			}
		}
		for i := range all {
			if i > 0 && all[i].Number <= all[i-1].Number {
				k.Errorf("number %d after %d", all[i].Number, all[i-1].Number)
			}
		}
		for range k.q.Entries(k.Context(), replication.EntryFilter{}, 0) {
			k.lease(at(1), 1, "0999") // a loop body may call the queue
			break
		}
	}},
	{"the last thousand that are done are kept, and all others", func(k *kit) {
		k.add(start, west, "dead", "run", "wait")
		l := k.lease(at(0), 2, "dead", "run")
		k.ok(k.q.Fail(k.Context(), l[0], at(0), failure, at(100_000)))
		for i := range 12 {
			var jobs []replication.Job
			for j := range 100 {
				jobs = append(jobs, job(fmt.Sprintf("d%02d%02d", i, j), east))
			}
			k.ok(k.q.Add(k.Context(), at(i), jobs...))
			leases, err := k.q.Lease(k.Context(), replication.LeaseRequest{Owner: "w", Most: 101, TTL: 24 * time.Hour, Now: at(i)})
			if err != nil {
				k.Fatal(err)
			}
			for _, e := range leases {
				if strings.HasPrefix(e.Job.ID, "d") {
					k.ok(k.q.Done(k.Context(), e, at(i), "copied"))
				}
			}
		}
		done := k.entries(replication.EntryFilter{State: replication.StateDone}, 0)
		if len(done) < 1000 || done[len(done)-1].Job.ID != "d1199" {
			k.Errorf("%d are kept", len(done))
		}
		k.listed(replication.EntryFilter{To: west}, "dead waiting", "run running", "wait running")
	}},
	{"of workers that race each job has one", func(k *kit) {
		const workers, jobs = 8, 200
		var ids []string
		for i := range jobs {
			ids = append(ids, fmt.Sprintf("%03d", i))
		}
		k.add(start, west, ids[:jobs/2]...)
		k.add(start, east, ids[jobs/2:]...)
		var mu sync.Mutex
		seen := map[string]int{}
		tokens := map[uint64]bool{}
		var all sync.WaitGroup
		begin := make(chan struct{})
		for range workers {
			all.Go(func() {
				<-begin
				for {
					l, err := k.q.Lease(k.Context(), replication.LeaseRequest{Owner: "w", Most: 3, TTL: ttl, Now: at(1)})
					if err != nil {
						k.Error(err)
					}
					if len(l) == 0 {
						return
					}
					mu.Lock()
					for _, e := range l {
						if seen[e.Job.ID]++; tokens[e.Token] {
							k.Errorf("token %d is there twice", e.Token)
						}
						tokens[e.Token] = true
					}
					mu.Unlock()
					for _, e := range l {
						if err := k.q.Done(k.Context(), e, at(2), "copied"); err != nil {
							k.Error(err)
						}
					}
				}
			})
		}
		close(begin)
		all.Wait()
		if len(seen) != jobs {
			k.Errorf("%d of %d jobs were leased", len(seen), jobs)
		}
		for id, n := range seen {
			if n != 1 {
				k.Errorf("%s was leased %d times", id, n)
			}
		}
	}},
	{"of racing endings of one lease one wins", func(k *kit) {
		for round := range 20 {
			id := fmt.Sprint("j", round)
			k.add(start, west, id)
			l := k.lease(at(1), 1, id)[0]
			var all sync.WaitGroup
			begin := make(chan struct{})
			var mu sync.Mutex
			won := 0
			for i := range 4 {
				all.Go(func() {
					<-begin
					var err error
					if i%2 == 0 {
						err = k.q.Done(k.Context(), l, at(2), "copied")
					} else {
						err = k.q.Fail(k.Context(), l, at(2), failure, at(9_999))
					}
					mu.Lock()
					defer mu.Unlock()
					if err == nil {
						won++
					} else {
						k.stale("a loser", err)
					}
				})
			}
			close(begin)
			all.Wait()
			if won != 1 {
				k.Fatalf("round %d: %d endings have won", round, won)
			}
		}
	}},
	{"a context that has ended ends a call", func(k *kit) {
		k.add(start, west, "run", "dead", "wait")
		l := k.lease(start, 2, "run", "dead")
		k.ok(k.q.Fail(k.Context(), l[1], start, failure, time.Time{}))
		ctx, cancel := context.WithCancel(k.Context())
		cancel()
		calls := map[string]error{
			"Add": k.q.Add(ctx, start, job("a", west)), "Extend": k.q.Extend(ctx, l[0], at(999)),
			"Done": k.q.Done(ctx, l[0], start, "copied"), "Fail": k.q.Fail(ctx, l[0], start, failure, time.Time{}),
			"Replay": k.q.Replay(ctx, "dead", start), "Discard": k.q.Discard(ctx, "dead"), "SetPaused": k.q.SetPaused(ctx, west, true),
		}
		_, calls["Lease"] = k.q.Lease(ctx, replication.LeaseRequest{Owner: "w", Most: 1, TTL: ttl, Now: start})
		_, calls["Paused"] = k.q.Paused(ctx)
		calls["Entries"] = nil
		for _, err := range k.q.Entries(ctx, replication.EntryFilter{}, 0) {
			calls["Entries"] = err
		}
		for _, name := range slices.Sorted(maps.Keys(calls)) {
			if !errors.Is(calls[name], context.Canceled) {
				k.Errorf("%s: %v", name, calls[name])
			}
		}
		k.listed(replication.EntryFilter{}, "run running", "dead dead", "wait waiting")
		k.lease(at(60), 2, "wait", "run")
	}},
	{"slices belong to the caller", func(k *kit) {
		j := job("a", west)
		k.ok(k.q.Add(k.Context(), start, j))
		j.Tags[0] = "x"
		l := k.lease(start, 1, "a")[0]
		l.Job.Tags[0], l.Job.Via[0] = "y", "y"
		if e := k.only("a"); e.Job.Tags[0] != "v1" || e.Job.Via[0] != "a" {
			k.Errorf("%+v", e.Job)
		}
	}},
}
