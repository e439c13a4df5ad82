package events_test

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/wharfage/wharfage/events"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/manifest/memmanifest"
)

// Events that no crash loses: the store keeps them with what it commits.
func ExampleDrain() {
	ctx := context.Background()
	store := &memmanifest.Store{KeepEvents: true}
	p := manifest.Pusher{Store: store, Now: func() time.Time { return time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC) }}
	raw, _, _ := manifest.IndexDraft{}.Build()
	if _, err := p.Push(ctx, "team/app", manifest.PushRequest{Raw: raw, Tags: []string{"v1", "latest"}}); err != nil {
		fmt.Println(err)
	}
	from := events.Origin{Account: "111122223333", Region: "eu-west-1"}
	n, err := events.Drain(ctx, store, from, func(ctx context.Context, e events.Event) error {
		c, err := e.CloudEvent()
		fmt.Println(c.Type, c.Subject, c.ID)
		return err
	})
	fmt.Println(n, err)
	// Output:
	// com.amazonaws.ecr.image.push team/app:v1 b3464736-dd96-8bed-9402-3ee3ad010023
	// com.amazonaws.ecr.image.push team/app:latest 431b50c9-45c2-8d54-b29c-b350c96bb652
	// 2 <nil>
}

// Events for subscribers in this process.
func ExampleFanout() {
	var fanout events.Fanout
	queue := fanout.Subscribe(100)
	from := events.Origin{Account: "111122223333", Region: "eu-west-1"}
	p := manifest.Pusher{
		Store: new(memmanifest.Store),
		OnCommit: func(_ context.Context, e manifest.Event) {
			fanout.Publish(from.Events(manifest.Committed{Event: e})...)
		},
	}
	raw, _, _ := manifest.IndexDraft{}.Build()
	if _, err := p.Push(context.Background(), "team/app", manifest.PushRequest{Raw: raw, Tags: []string{"v1"}}); err != nil {
		fmt.Println(err)
	}
	queue.Close()
	for e := range queue.C {
		fmt.Printf("%+v\n", e.Detail.(events.Image).Tag)
	}
	fmt.Println(queue.Dropped(), "dropped")
	// Output:
	// v1
	// 0 dropped
}

// An event that no change tells, in the form of EventBridge.
func ExampleOrigin_New() {
	from := events.Origin{Account: "111122223333", Region: "eu-west-1"}
	e := from.New(time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC), events.Scan{
		Repository: "team/app", Digest: "sha256:aa", Tags: []string{"v1"}, Status: "COMPLETE", Counts: map[string]int{"HIGH": 2, "LOW": 0},
	})
	text, err := json.MarshalIndent(e, "", " ")
	fmt.Println(string(text), err)
	// Output:
	// {
	//  "version": "0",
	//  "id": "7d320757-4598-8bb5-921f-175d71773822",
	//  "detail-type": "ECR Image Scan",
	//  "source": "aws.ecr",
	//  "account": "111122223333",
	//  "time": "2026-03-04T05:06:07Z",
	//  "region": "eu-west-1",
	//  "resources": [
	//   "arn:aws:ecr:eu-west-1:111122223333:repository/team/app"
	//  ],
	//  "detail": {
	//   "scan-status": "COMPLETE",
	//   "repository-name": "team/app",
	//   "finding-severity-counts": {
	//    "HIGH": 2
	//   },
	//   "image-digest": "sha256:aa",
	//   "image-tags": [
	//    "v1"
	//   ]
	//  }
	// } <nil>
}
