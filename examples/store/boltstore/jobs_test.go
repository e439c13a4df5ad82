package boltstore

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/wharfage/wharfage/replication"
	"github.com/wharfage/wharfage/replication/queuetest"
)

func TestJobs(t *testing.T) {
	queuetest.TestQueue(t, func(t testing.TB) replication.Queue { return open(t, Options{Unsynced: true}).Jobs() })
}

// TestJobsOutliveTheProcess, with their leases and tokens.
func TestJobsOutliveTheProcess(t *testing.T) {
	db := open(t, Options{Unsynced: true})
	now := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	to := replication.Registry{ID: "111122223333", Region: "eu-west-1"}
	if err := db.Jobs().Add(t.Context(), now, replication.Job{ID: "1", To: to}, replication.Job{ID: "2", To: to}); err != nil {
		t.Fatal(err)
	}
	request := replication.LeaseRequest{Most: 1, TTL: time.Minute, Now: now}
	old, err := db.Jobs().Lease(t.Context(), request)
	if err != nil || len(old) != 1 {
		t.Fatal(old, err)
	}
	db = reopen(t, db)
	request.Most = 9
	if l, err := db.Jobs().Lease(t.Context(), request); err != nil || len(l) != 1 || l[0].Job.ID != "2" {
		t.Errorf("%+v, %v", l, err)
	}
	if err := db.Jobs().Done(t.Context(), old[0], now, "copied"); err != nil {
		t.Error(err)
	}
	request.Now = now.Add(time.Hour)
	if l, err := db.Jobs().Lease(t.Context(), request); err != nil || len(l) != 1 || l[0].Token <= old[0].Token+1 {
		t.Errorf("%+v, %v", l, err)
	}
}

// TestOldJobsThatAreDoneAreForgotten: a queue does not grow with all that was ever done.
func TestOldJobsThatAreDoneAreForgotten(t *testing.T) {
	j := open(t, Options{Unsynced: true}).Jobs()
	now := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	const more = 500
	for n := 0; n < keepDone+more; n += more {
		var jobs []replication.Job
		for i := range more {
			jobs = append(jobs, replication.Job{ID: fmt.Sprint(n + i), Repo: "r", Digest: "sha256:aa"})
		}
		if err := j.Add(t.Context(), now, jobs...); err != nil {
			t.Fatal(err)
		}
		leases, err := j.Lease(t.Context(), replication.LeaseRequest{Most: more, TTL: time.Minute, Now: now})
		if err != nil || len(leases) != more {
			t.Fatal(len(leases), err)
		}
		var all sync.WaitGroup
		for some := range slices.Chunk(leases, more/50) { // which share transactions
			all.Go(func() {
				for _, l := range some {
					if err := j.Done(t.Context(), l, now, ""); err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
	}
	for _, f := range []replication.EntryFilter{{}, {Repo: "r", Digest: "sha256:aa"}} {
		left, first := 0, uint64(0)
		for e, err := range j.Entries(t.Context(), f, 0) {
			if err != nil {
				t.Fatal(err)
			}
			if left++; first == 0 {
				first = e.Number
			}
		}
		if left != keepDone || first != more+1 {
			t.Errorf("%+v: %d are left, from number %d", f, left, first)
		}
	}
}
