package replication

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/events"
	"github.com/wharfage/wharfage/manifest"
)

// Replicator copies what is pushed to a registry to others, as its Configuration
// says: [Replicator.Enqueue] makes jobs of changes, and [Replicator.Run] does them.
//
// A job looks at the source as it is when it runs, and again when it has written:
// what has changed meanwhile is done again. So a job that comes late, twice or in
// another order leaves the destination as the source is, and each job is tried until it is done
// or dead.
//
// Two registries that replicate to each other and move one tag at the same time may
// end with that tag at different images: as with ECR, the last copy wins at each.
type Replicator struct {
	Self   Registry // the source
	Source Source
	Queue  Queue

	// Configuration says what goes where. It is asked for each change, and not again
	// when a job runs.
	Configuration func(ctx context.Context) (Configuration, error)

	// Destinations returns a registry that copies go to. Its errors are those of the
	// copy: a [FailureError] if there is a code for them.
	Destinations func(ctx context.Context, to Registry) (Destination, error)

	// Copier copies. nil means one that is made with the first job, for all.
	Copier *Copier

	// Relay copies on what came by a copy, to where it has not been: for registries in a
	// chain or a ring, each of which gets a tag from one side only. Without it a push is
	// copied once, and no copy starts another, as at ECR. Deletions are never relayed.
	Relay bool

	Owner          string        // of leases, for people
	Jobs           int           // that Run does at once; 0 means 8
	PerDestination int           // of these for one destination, whoever runs them; 0 means no limit
	Lease          time.Duration // of a job, which is extended while it runs; 0 means 1 min
	Poll           time.Duration // how often Run looks for jobs that nobody woke it for; 0 means 5 s
	Attempts       int           // until a job is dead; 0 means 10
	Backoff        time.Duration // after the first attempt, doubled after each; 0 means 1 s
	MaxBackoff     time.Duration // 0 means 5 min

	// OnJob is told of each attempt that has ended, on the goroutine that made it,
	// which waits.
	OnJob func(ctx context.Context, e Entry)

	Now func() time.Time // nil means time.Now

	state replicatorState
}

// Destination is a registry that copies go to. Only Target is required.
type Destination struct {
	Target

	// Ensure makes a repository that is missing, after allow, whose error it returns:
	//
	//	func(ctx context.Context, repo string, allow func() error) error {
	//		_, _, err := registry.Ensure(ctx, repo, repository.CauseReplication, func(repository.Settings) error { return allow() })
	//		return err
	//	}
	//
	// nil means that repositories need no creation.
	Ensure func(ctx context.Context, repo string, allow func() error) error

	// Allow tells whether the destination allows something. An error that matches
	// [ErrDenied] ends the job. nil allows all.
	Allow func(ctx context.Context, a Access) error

	// Tell is told of each image that has come, for each tag and once without one, and
	// of each copy that is given up. It is for the events of the destination.
	Tell func(ctx context.Context, e events.Replication)
}

// Access is what a destination is asked to allow.
type Access struct {
	From   Registry // who asks
	Action AccessAction
	Repo   string
}

// AccessAction is what ECR calls the right to do something.
type AccessAction string

// The actions.
const (
	ReplicateImage   AccessAction = "ecr:ReplicateImage"
	CreateRepository AccessAction = "ecr:CreateRepository"
	BatchDeleteImage AccessAction = "ecr:BatchDeleteImage" // a deletion that is copied
)

// Enqueue adds the jobs of a change to the Queue, and wakes Run. Call it in the one
// loop that drains an outbox for all who wait for changes:
//
//	err := manifest.Drain(ctx, store, r.Enqueue)
//
// It may be called again for the same change, which adds nothing.
func (r *Replicator) Enqueue(ctx context.Context, c manifest.Committed) error {
	configuration, err := r.Configuration(ctx)
	if err != nil {
		return fmt.Errorf("replicate %s: %w", c.Repo, err)
	}
	jobs := r.Plan(configuration, c)
	if len(jobs) == 0 {
		return nil
	}
	if err := r.Queue.Add(ctx, r.now(), jobs...); err != nil {
		return fmt.Errorf("replicate %s: %w", c.Repo, err)
	}
	r.state.wake()
	return nil
}

// Plan returns the jobs of a change, for each destination: one for each image that was
// pushed, by whatever tags, or has come back from the archive, and one for each that
// has lost tags or has gone, where deletions are copied: not if a cache has evicted it. A push of
// what was there already with its tag makes none, if [manifest.Pusher].MoveTag was set.
//
// Their IDs are made of the position of the change.
func (r *Replicator) Plan(configuration Configuration, c manifest.Committed) (jobs []Job) {
	copied := c.Change.Cause == manifest.CauseReplication
	if copied && !r.Relay {
		return nil
	}
	tasks := tasksOf(&c.Change)
	for _, route := range configuration.Match(c.Repo) {
		if route.To == r.Self || slices.Contains(c.Change.Via, route.To.String()) {
			continue
		}
		for i, t := range tasks {
			if t.Action == ActionDelete && (!route.Deletes || copied || c.Change.Cause == manifest.CauseCache) {
				continue
			}
			t.ID = fmt.Sprintf("%s/%s/%d", c.Position, route.To, i)
			t.To, t.Deletes, t.Repo, t.At = route.To, route.Deletes, c.Repo, c.Change.At
			t.Tags = slices.Clone(t.Tags)
			t.Via = append(slices.Clone(c.Change.Via), r.Self.String())
			jobs = append(jobs, t)
		}
	}
	return jobs
}

// tasksOf returns what a change asks for, wherever it goes: one for each image.
func tasksOf(c *manifest.Change) (out []Job) {
	task := func(a Action, d digest.Digest) *Job {
		for i := range out {
			if out[i].Action == a && out[i].Digest == d {
				return &out[i]
			}
		}
		out = append(out, Job{Action: a, Digest: d})
		return &out[len(out)-1]
	}
	named := map[digest.Digest]bool{}
	for _, t := range c.Tags {
		named[t.To] = true
	}
	for _, rec := range c.Put {
		if !named[rec.Desc.Digest] {
			task(ActionCopy, rec.Desc.Digest)
		}
	}
	add := func(t *Job, tag string) {
		if !slices.Contains(t.Tags, tag) {
			t.Tags = append(t.Tags, tag)
		}
	}
	for _, t := range c.Tags {
		switch {
		case t.To != "" && t.To != t.From:
			add(task(ActionCopy, t.To), t.Name)
		case t.To == "" && t.From != manifest.Absent:
			add(task(ActionDelete, t.From), t.Name)
		}
	}
	for _, m := range c.Classes {
		if m.To == manifest.Standard {
			task(ActionCopy, m.Digest).Whole = true
		}
	}
	for _, removal := range c.Delete {
		t := task(ActionDelete, removal.Digest)
		t.Whole = true
		for _, seen := range c.Unchanged {
			if seen.Digest == removal.Digest {
				for _, tag := range seen.Tags {
					add(t, tag)
				}
			}
		}
	}
	return out
}

func (r *Replicator) now() time.Time {
	if r.Now != nil {
		return r.Now()
	}
	return time.Now()
}
