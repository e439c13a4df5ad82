package replication_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/blob/memblob"
	"github.com/wharfage/wharfage/events"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/manifest/memmanifest"
	"github.com/wharfage/wharfage/replication"
	"github.com/wharfage/wharfage/replication/memqueue"
	"github.com/wharfage/wharfage/repository"
	"github.com/wharfage/wharfage/repository/memrepository"
)

// What is pushed to one registry is copied to another.
func ExampleReplicator() {
	ctx := context.Background()
	blobs := new(memblob.Store)
	manifests := &memmanifest.Store{KeepEvents: true, MissingBlobs: blob.Missing(blobs)}
	here := replication.Registry{Region: "eu-west-1", ID: "111122223333"}
	configuration, err := replication.Validation{For: here}.Parse(`{"rules": [{
		"destinations": [{"region": "eu-west-2", "registryId": "111122223333"}],
		"repositoryFilters": [{"filter": "team/", "filterType": "PREFIX_MATCH"}]
	}]}`)
	if err != nil {
		fmt.Println(err)
	}

	// The destination: here another pair of stores, over a network one of examples/store/remote.
	there := new(memblob.Store)
	target := replication.LocalTarget(there, &memmanifest.Store{MissingBlobs: blob.Missing(there)})
	repositories := &repository.Registry{Store: new(memrepository.Store)}
	r := &replication.Replicator{
		Self: here, Source: replication.LocalSource(blobs, manifests), Queue: new(memqueue.Queue),
		Configuration: func(context.Context) (replication.Configuration, error) { return configuration, nil },
		Destinations: func(_ context.Context, to replication.Registry) (replication.Destination, error) {
			return replication.Destination{
				Target: target,
				Ensure: func(ctx context.Context, repo string, allow func() error) error {
					_, _, err := repositories.Ensure(ctx, repo, repository.CauseReplication, func(repository.Settings) error { return allow() })
					return err
				},
				Tell: func(_ context.Context, e events.Replication) {
					fmt.Println("come to", to, e.Repository, e.Tag)
				},
			}, nil
		},
	}

	content := []byte("{}")
	config := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a", Size: 2}
	if err := blob.Put(ctx, blobs, "team/app", config, bytes.NewReader(content)); err != nil {
		fmt.Println(err)
	}
	raw, _, _ := manifest.ImageDraft{Config: &config}.Build()
	p := manifest.Pusher{Store: manifests}
	if _, err := p.Push(ctx, "team/app", manifest.PushRequest{Raw: raw, Tags: []string{"v1"}}); err != nil {
		fmt.Println(err)
	}

	// A server calls Drain again and again, and Run once.
	fmt.Println(manifest.Drain(ctx, manifests, r.Enqueue), r.RunDue(ctx))

	status, err := r.Status(ctx, "team/app", manifest.ImageID{Tag: "v1"})
	text, _ := json.MarshalIndent(status, "", " ")
	fmt.Println(string(text), err)
	// Output:
	// come to 111122223333/eu-west-2 team/app v1
	// <nil> <nil>
	// {
	//  "repositoryName": "team/app",
	//  "imageId": {
	//   "imageDigest": "sha256:5c3997240ec42ed889123db5ff2d5b82181624e93b45142bd7182abd321bff4f",
	//   "imageTag": "v1"
	//  },
	//  "replicationStatuses": [
	//   {
	//    "region": "eu-west-2",
	//    "registryId": "111122223333",
	//    "status": "COMPLETE"
	//   }
	//  ]
	// } <nil>
}

// All faults are told at once, each with its place and a reason.
func ExampleValidation_Parse() {
	v := replication.Validation{For: replication.Registry{Region: "us-east-1", ID: "111122223333"}}
	_, err := v.Parse(`{"rules": [{
		"destinations": [{"region": "us-east-1", "registryId": "111122223333"}],
		"repositoryFilters": [],
		"tagFilters": ["v*"]
	}]}`)
	for _, f := range err.(*replication.ConfigurationError).Faults {
		fmt.Println(f.At, f.Reason)
	}
	// Output:
	// rules[0].tagFilters unknown_field
	// rules[0].destinations[0] self_destination
	// rules[0].repositoryFilters empty_filters
}

// The destinations of all rules that cover a repository, each once.
func ExampleConfiguration_Match() {
	ireland, london := replication.Registry{Region: "eu-west-1", ID: "111122223333"}, replication.Registry{Region: "eu-west-2", ID: "111122223333"}
	c := replication.Configuration{Rules: []replication.Rule{
		{Destinations: []replication.Registry{ireland}},
		{
			Destinations: []replication.Registry{ireland, london},
			Filters:      []replication.RepositoryFilter{{Filter: "prod", Type: replication.PrefixMatch}},
			Deletes:      replication.DeleteReplication{Enabled: true},
		},
	}}
	fmt.Println(c.Match("team/app"))
	fmt.Println(c.Match("production/app"))
	// Output:
	// [{111122223333/eu-west-1 false}]
	// [{111122223333/eu-west-1 true} {111122223333/eu-west-2 true}]
}
