package memqueue_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/wharfage/wharfage/replication"
	"github.com/wharfage/wharfage/replication/memqueue"
	"github.com/wharfage/wharfage/replication/queuetest"
)

func TestQueue(t *testing.T) {
	queuetest.TestQueue(t, func(testing.TB) replication.Queue { return &memqueue.Queue{KeepDone: 1000} })
}

func ExampleQueue() {
	ctx, now := context.Background(), time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	var q memqueue.Queue
	to := replication.Registry{Region: "eu-west-2", ID: "111122223333"}
	job := replication.Job{ID: "1", To: to, Repo: "team/app", Digest: "sha256:aa", Action: replication.ActionCopy, Tags: []string{"v1"}}
	fmt.Println(q.Add(ctx, now, job), q.Add(ctx, now, job)) // the second one adds nothing
	leases, err := q.Lease(ctx, replication.LeaseRequest{Owner: "worker 1", Most: 10, TTL: time.Minute, Now: now})
	fmt.Println(len(leases), leases[0].Job.Repo, leases[0].Attempts, err)
	fmt.Println(q.Done(ctx, leases[0], now, "copied"))
	fmt.Println(q.Done(ctx, leases[0], now, "copied"))
	// Output:
	// <nil> <nil>
	// 1 team/app 1 <nil>
	// <nil>
	// stale lease: job 1 with token 1, now 0
}
