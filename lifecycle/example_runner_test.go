package lifecycle_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/wharfage/wharfage/lifecycle"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/manifest/memmanifest"
)

const keepTwoReleases = `{"rules":[{"rulePriority":1,"description":"keep two releases","selection":{"tagStatus":"tagged","tagPatternList":["v*"],
	"countType":"imageCountMoreThan","countNumber":2},"action":{"type":"expire"}}]}`

// releases are a repository with one release a day, of which the first has a
// signature.
func releases(ctx context.Context) (*memmanifest.Store, time.Time) {
	store := &memmanifest.Store{MissingBlobs: memmanifest.Unchecked}
	day := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	p := manifest.Pusher{Store: store, Now: func() time.Time { return day }}
	push := func(d manifest.ImageDraft, tags ...string) manifest.Record {
		raw, _, err := d.Build()
		must(err)
		done, err := p.Push(ctx, "team/app", manifest.PushRequest{Raw: raw, Tags: tags})
		must(err)
		return done.Record
	}
	for n := 1; n <= 4; n++ {
		tag := fmt.Sprint("v", n)
		release := push(manifest.ImageDraft{ArtifactType: "application/vnd.example", Annotations: map[string]string{"version": tag}}, tag)
		if n == 1 {
			push(manifest.ImageDraft{ArtifactType: "application/vnd.example.signature", Subject: &release.Desc})
		}
		day = day.AddDate(0, 0, 1)
	}
	return store, day
}

func ExampleRunner_Run() {
	ctx := context.Background()
	store, today := releases(ctx)
	policy, err := lifecycle.Parse(keepTwoReleases)
	if err != nil {
		fmt.Println(err)
		return
	}
	r := lifecycle.Runner{Manifests: store, Now: func() time.Time { return today }}
	_, err = r.Run(ctx, "team/app", policy)
	fmt.Println(err)

	r.Confirm = true
	r.Each = func(o lifecycle.Outcome) {
		fmt.Println(o.N, "of", o.Of, o.Verdict.Image.Tags, o.Verdict.Action, o.Verdict.Reason, o.Failure == nil)
	}
	report, err := r.Run(ctx, "team/app", policy)
	fmt.Println(report.Count(lifecycle.Expire), len(report.Failures), err)
	// Output:
	// apply lifecycle policy team/app: 2 of 4 tagged images would go, which is more than the share of 0.25 that may go unconfirmed (MaxShare)
	// 1 of 3 [v1] expire due true
	// 2 of 3 [v2] expire due true
	// 3 of 3 [] expire subject-goes true
	// 3 0 <nil>
}

// A dry run does all but change the store.
func ExampleRunner_Run_dry() {
	ctx := context.Background()
	store, today := releases(ctx)
	policy, err := lifecycle.Parse(keepTwoReleases)
	if err != nil {
		fmt.Println(err)
		return
	}
	r := lifecycle.Runner{Manifests: store, Dry: true, Confirm: true, Limit: 1, Now: func() time.Time { return today }}
	report, err := r.Run(ctx, "team/app", policy)
	if err != nil {
		fmt.Println(err)
		return
	}
	out := json.NewEncoder(os.Stdout)
	out.SetIndent("", "  ")
	out.Encode(report)
	_, err = store.Resolve(ctx, "team/app", "v1")
	fmt.Println(err)
	// Output:
	// {
	//   "repositoryName": "team/app",
	//   "lifecycleEventImageActions": [
	//     {
	//       "lifecycleEventImage": {
	//         "digest": "sha256:8f22d3c1389ee6512da9bd0c6dbfdbdcb7adf85170977955cda1f89e45766ebb",
	//         "tagStatus": "Tagged",
	//         "tagList": [
	//           "v1"
	//         ],
	//         "pushedAt": 1767268800000
	//       },
	//       "rulePriority": 1,
	//       "action": "expire"
	//     }
	//   ],
	//   "lifecycleEventFailureDetails": []
	// }
	// <nil>
}

// Somebody has deleted a release by hand, and its signature is left.
func ExampleRunner_Reap() {
	ctx := context.Background()
	store, today := releases(ctx)
	v1, err := store.Resolve(ctx, "team/app", "v1")
	if err != nil {
		fmt.Println(err)
		return
	}
	err = store.Apply(ctx, "team/app", manifest.Change{Delete: []manifest.Removal{{Digest: v1.Digest}}})
	if err != nil {
		fmt.Println(err)
		return
	}
	r := lifecycle.Runner{Manifests: store, Now: func() time.Time { return today }}
	report, err := r.Reap(ctx, "team/app")
	fmt.Println(report.Count(lifecycle.Expire), err)
	// Output: 1 <nil>
}

func ExampleImages() {
	ctx := context.Background()
	store, today := releases(ctx)
	images, pullsSince, err := lifecycle.Images(ctx, store, nil, "team/app")
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := lifecycle.Sizes(ctx, store, "team/app", images); err != nil {
		fmt.Println(err)
		return
	}
	policy, err := lifecycle.Parse(keepTwoReleases)
	if err != nil {
		fmt.Println(err)
		return
	}
	if policy, err = policy.With(lifecycle.Options{PullsSince: pullsSince}); err != nil {
		fmt.Println(err)
		return
	}
	plan := lifecycle.Evaluate(policy, images, today)
	bytes := int64(0)
	for _, im := range images {
		bytes += im.Size
	}
	fmt.Printf("%v; %d bytes\n", plan.Summary(), bytes)
	// Output: 5 images, 2 to expire, 1 to follow; 2484 bytes
}
