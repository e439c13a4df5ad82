package replication_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/events"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/replication"
	"github.com/wharfage/wharfage/repository"
)

var (
	west = replication.Registry{ID: "111122223333", Region: "us-west-2"}
	east = replication.Registry{ID: "111122223333", Region: "us-east-2"}
)

// twins are two registries, of which west replicates to east, with deletions.
func twins(t testing.TB) (f *federation, from, to *member) {
	f = newFederation(t)
	from, to = f.member(west), f.member(east)
	from.configuration.Rules = []replication.Rule{{Destinations: []replication.Registry{east}, Deletes: replication.DeleteReplication{Enabled: true}}}
	return f, from, to
}

func TestPlan(t *testing.T) {
	_, m, _ := twins(t)
	put := []manifest.Record{{Desc: ocispec.Descriptor{Digest: "sha256:aa"}}}
	for _, c := range []struct {
		name   string
		change manifest.Change
		want   string
	}{
		{"a push without a tag", manifest.Change{Put: put}, "copy sha256:aa []"},
		{"a push by two tags", manifest.Change{Put: put, Tags: []manifest.TagMove{{Name: "a", To: "sha256:aa"}, {Name: "b", To: "sha256:aa", From: "absent"}}}, "copy sha256:aa [a b]"},
		{"a push of what was there with its tag", manifest.Change{Put: put, Tags: []manifest.TagMove{{Name: "a", To: "sha256:aa", From: "sha256:aa"}}}, ""},
		{"a tag that moves", manifest.Change{Tags: []manifest.TagMove{{Name: "a", To: "sha256:aa", From: "sha256:bb"}}}, "copy sha256:aa [a]"},
		{"a copy", manifest.Change{Put: put, Cause: manifest.CauseReplication}, ""},
		{"an import", manifest.Change{Put: put, Cause: manifest.CauseCache}, "copy sha256:aa []"},
		{"an archival", manifest.Change{Classes: []manifest.ClassMove{{Digest: "sha256:aa", To: manifest.Archive}}}, ""},
		{"a restoration", manifest.Change{Classes: []manifest.ClassMove{{Digest: "sha256:aa"}}}, "copy sha256:aa [] whole"},
		{"a tag that goes", manifest.Change{Tags: []manifest.TagMove{{Name: "a", From: "sha256:aa"}}}, "delete sha256:aa [a]"},
		{"a tag that goes, of what nobody knows", manifest.Change{Tags: []manifest.TagMove{{Name: "a"}}}, "delete  [a]"},
		{"a tag that is to be absent, and is", manifest.Change{Tags: []manifest.TagMove{{Name: "a", From: manifest.Absent}}}, ""},
		{"an image that goes", manifest.Change{Tags: []manifest.TagMove{{Name: "a", From: "sha256:aa"}}, Delete: []manifest.Removal{{Digest: "sha256:aa"}}}, "delete sha256:aa [a] whole"},
		{"an image that expires", manifest.Change{Cause: manifest.CauseLifecycle, Unchanged: []manifest.Seen{{Digest: "sha256:aa", Tags: []string{"a", "b"}}}, Delete: []manifest.Removal{{Digest: "sha256:aa"}}}, "delete sha256:aa [a b] whole"},
		{"what a cache evicts", manifest.Change{Cause: manifest.CauseCache, Delete: []manifest.Removal{{Digest: "sha256:aa"}}}, ""},
		{"two that go", manifest.Change{Delete: []manifest.Removal{{Digest: "sha256:aa"}, {Digest: "sha256:bb"}}}, "delete sha256:aa [] whole, delete sha256:bb [] whole"},
	} {
		jobs := m.r.Plan(m.configuration, manifest.Committed{Position: "7", Event: manifest.Event{Repo: "r", Change: c.change}})
		var got []string
		ids := map[string]bool{}
		for _, j := range jobs {
			s := fmt.Sprint(j.Action, " ", j.Digest, " ", j.Tags)
			if j.Whole {
				s += " whole"
			}
			got = append(got, s)
			if ids[j.ID] || j.To != east || j.Repo != "r" || !slices.Equal(j.Via, []string{west.String()}) {
				t.Errorf("%s: %+v", c.name, j)
			}
			ids[j.ID] = true
		}
		if s := strings.Join(got, ", "); s != c.want {
			t.Errorf("%s: %s, want %s", c.name, s, c.want)
		}
		if again := m.r.Plan(m.configuration, manifest.Committed{Position: "7", Event: manifest.Event{Repo: "r", Change: c.change}}); !reflect.DeepEqual(jobs, again) {
			t.Errorf("%s: other jobs the second time", c.name)
		}
		m.configuration.Rules[0].Deletes.Enabled = false
		without := m.r.Plan(m.configuration, manifest.Committed{Event: manifest.Event{Repo: "r", Change: c.change}})
		m.configuration.Rules[0].Deletes.Enabled = true
		if len(without) > 0 && without[0].Action == replication.ActionDelete {
			t.Errorf("%s: deleted without being asked to", c.name)
		}
	}
}

// TestJobsInAnyOrder, and doubled, leave the destination as the source is.
func TestJobsInAnyOrder(t *testing.T) {
	for seed := range uint64(150) {
		f, from, to := twins(t)
		random := rand.New(rand.NewPCG(seed, 0))
		var jobs []replication.Job
		take := func() {
			for _, j := range from.plan() {
				jobs = append(jobs, j, j)
			}
		}
		run := func(i int) {
			if _, err := from.r.Do(t.Context(), jobs[i]); err != nil {
				t.Fatalf("seed %d: %+v: %v", seed, jobs[i], err)
			}
			jobs = slices.Delete(jobs, i, i+1)
		}
		var made []digest.Digest
		for n := range 25 {
			tag := fmt.Sprint("v", random.IntN(4))
			switch random.IntN(5) {
			default:
				made = append(made, from.push("r", fmt.Sprint(random.IntN(8)), "", tag))
			case 0:
				(&manifest.Deleter{Store: from.manifests}).Delete(t.Context(), "r", manifest.ImageID{Tag: tag})
			case 1:
				(&manifest.Deleter{Store: from.manifests}).Untag(t.Context(), "r", tag, "")
			case 2:
				if len(made) > 0 {
					(&manifest.Deleter{Store: from.manifests}).Delete(t.Context(), "r", manifest.ImageID{Digest: made[random.IntN(len(made))]})
				}
			}
			if take(); n%2 == 0 && len(jobs) > 0 {
				run(random.IntN(len(jobs)))
			}
		}
		for len(jobs) > 0 {
			run(random.IntN(len(jobs)))
		}
		if a, b := from.images("r"), to.images("r"); !reflect.DeepEqual(a, b) {
			t.Fatalf("seed %d: %v, and at the destination %v", seed, a, b)
		}
		f.members = nil
	}
}

// TestWhatChangesMeanwhileIsDoneAgain: the job of a later change is done before one that
// is under way writes.
func TestWhatChangesMeanwhileIsDoneAgain(t *testing.T) {
	for name, change := range map[string]func(m *member){
		"the tag moves": func(m *member) { m.push("r", "two", "", "latest") },
		"the tag goes": func(m *member) {
			(&manifest.Deleter{Store: m.manifests}).Untag(context.Background(), "r", "latest", "")
		},
		"the image goes": func(m *member) {
			(&manifest.Deleter{Store: m.manifests}).Delete(context.Background(), "r", manifest.ImageID{Tag: "latest"})
		},
	} {
		t.Run(name, func(t *testing.T) {
			f, from, to := twins(t)
			once := false
			f.link = func(_, _ replication.Registry) error {
				to.mu.Lock()
				now := !once && len(to.came) > 1 // blobs are there, and the manifest is on its way
				once = once || now
				to.mu.Unlock()
				if now {
					change(from)
					f.settle()
				}
				return nil
			}
			from.push("r", "one", "", "latest")
			late := from.plan()[0]
			if _, err := from.r.Do(t.Context(), late); err != nil {
				t.Fatal(err)
			}
			if !once {
				t.Fatal("nothing has changed")
			}
			want, got := from.images("r"), to.images("r")
			if name == "the tag moves" { // the first image was to come too
				if len(got) != 2 {
					t.Errorf("%v", got)
				}
			}
			if !reflect.DeepEqual(want, got) {
				t.Errorf("%v, and at the destination %v", want, got)
			}
		})
	}
}

// mortal is a source that fails while it is dead.
type mortal struct {
	replication.ManifestReader
	dead *atomic.Bool
}

func (m mortal) Resolve(ctx context.Context, repo, tag string) (manifest.Tag, error) {
	if m.dead.Load() {
		return manifest.Tag{}, errors.New("dead")
	}
	return m.ManifestReader.Resolve(ctx, repo, tag)
}

// TestWhoDiesBeforeItLooksAgain: the job of a later change is done, then one that is under way
// writes. It looks again; if it ends before that, another attempt makes it right.
func TestWhoDiesBeforeItLooksAgain(t *testing.T) {
	push := func(m *member) { m.push("r", "two", "", "latest") }
	untag := func(m *member) {
		if err := (&manifest.Deleter{Store: m.manifests}).Untag(context.Background(), "r", "latest", ""); err != nil {
			m.f.Error(err)
		}
	}
	remove := func(m *member) {
		if _, err := (&manifest.Deleter{Store: m.manifests}).Delete(context.Background(), "r", manifest.ImageID{Digest: m.digest("r", "latest")}); err != nil {
			m.f.Error(err)
		}
	}
	again := func(m *member) { m.push("r", "one", "", "other") }
	cases := map[string]struct{ first, later func(m *member) }{
		"a copy, and the tag moves":                 {func(m *member) { m.push("r", "three", "", "latest") }, push},
		"a tag that goes, and comes again":          {untag, push},
		"an image that goes, and the tag is moved":  {remove, push},
		"an image that goes, and comes again":       {remove, again},
		"an image that goes, and comes without tag": {remove, func(m *member) { m.push("r", "one", "") }},
	}
	for name := range cases {
		for _, dies := range []bool{false, true} {
			c := cases[name]
			t.Run(fmt.Sprint(name, ", dies ", dies), func(t *testing.T) {
				f, from, to := twins(t)
				from.push("r", "one", "", "latest")
				f.settle()
				var dead atomic.Bool
				from.r.Source.Manifests = mortal{from.r.Source.Manifests, &dead}
				c.first(from)
				late := from.plan()[0]
				// Just before something is written at the destination.
				once := false
				to.f.allow = func(_ replication.Registry, a replication.Access) error {
					if !once {
						once = true
						c.later(from)
						f.settle()
						dead.Store(dies)
					}
					return nil
				}
				if _, err := from.r.Do(t.Context(), late); (err != nil) != dies || !once {
					t.Fatalf("the first attempt: %v", err)
				}
				dead.Store(false)
				if dies {
					if _, err := from.r.Do(t.Context(), late); err != nil {
						t.Fatal(err)
					}
				}
				if want, got := from.images("r"), to.images("r"); !reflect.DeepEqual(want, got) {
					t.Errorf("%v, and at the destination %v", want, got)
				}
			})
		}
	}
}

func TestImmutableDestinationKeepsItsTag(t *testing.T) {
	f, from, to := twins(t)
	if _, err := to.repositories.Create(t.Context(), "r", repository.Settings{TagMutability: "IMMUTABLE"}); err != nil {
		t.Fatal(err)
	}
	mine := to.push("r", "mine", "", "v1")
	theirs := from.push("r", "theirs", "", "v1", "v2")
	f.settle()
	want := map[digest.Digest][]string{mine: {"v1"}, theirs: {"v2"}}
	if got := to.images("r"); !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	for e := range from.r.Queue.Entries(t.Context(), replication.EntryFilter{}, 0) {
		if e.State != replication.StateDone || !strings.Contains(e.Outcome, `"v1"`) {
			t.Errorf("%+v", e)
		}
	}
}

// unreadable holds manifests that its client refuses to parse.
type unreadable struct{ replication.LocalManifests }

func (u unreadable) Get(context.Context, string, digest.Digest) (manifest.Record, error) {
	return manifest.Record{}, fmt.Errorf("%w: a manifest with two configs", replication.ErrContent)
}

// TestWhatCannotBeReadThereIsReplaced: a tag moves away from what the destination should not have taken.
func TestWhatCannotBeReadThereIsReplaced(t *testing.T) {
	_, from, to := twins(t)
	to.push("r", "old", "", "v1")
	d := to.destination(from)
	d.Manifests = unreadable{d.Manifests.(linkedManifests).LocalManifests}
	from.r.Destinations = func(context.Context, replication.Registry) (replication.Destination, error) { return d, nil }
	want := from.push("r", "new", "", "v1")
	from.enqueue()
	if err := from.r.RunDue(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := to.digest("r", "v1"); got != want {
		for e := range from.r.Queue.Entries(t.Context(), replication.EntryFilter{}, 0) {
			t.Errorf("the tag names %s: %+v", got, e.Failure)
		}
	}
}

// TestFailuresAreText: what is cut off of a long one is no part of a character.
func TestFailuresAreText(t *testing.T) {
	for n := range 4 {
		if f, _ := replication.FailureOf(errors.New(strings.Repeat("x", n) + strings.Repeat("€", 1000))); !utf8.ValidString(f.Detail) || len(f.Detail) < 490 || len(f.Detail) > 500 {
			t.Errorf("%d bytes: %q", len(f.Detail), f.Detail)
		}
	}
	if f, _ := replication.FailureOf(errors.New("a\xffb")); !utf8.ValidString(f.Detail) {
		t.Errorf("%q", f.Detail)
	}
}

// TestWhatComesIsTold at the destination: an event for each tag, and one without.
func TestWhatComesIsTold(t *testing.T) {
	f, from, to := twins(t)
	a := from.push("r", "a", "", "v1", "v2")
	b := from.push("r", "b", a)
	f.settle()
	from.push("r", "a", "", "v1") // nothing new
	f.settle()
	want := []events.Replication{
		{Repository: "r", Digest: a, Tag: "v1", SourceAccount: west.ID, SourceRegion: west.Region},
		{Repository: "r", Digest: a, Tag: "v2", SourceAccount: west.ID, SourceRegion: west.Region},
		{Repository: "r", Digest: b, SourceAccount: west.ID, SourceRegion: west.Region},
	}
	slices.SortFunc(to.told, func(a, b events.Replication) int {
		return strings.Compare(fmt.Sprint(a.Tag == "", a.Tag), fmt.Sprint(b.Tag == "", b.Tag))
	})
	if !reflect.DeepEqual(to.told, want) {
		t.Errorf("%+v, want %+v", to.told, want)
	}
	for c, err := range to.manifests.Events(t.Context(), "") {
		if err != nil || c.Change.Cause != manifest.CauseReplication {
			t.Errorf("%+v, %v", c, err)
		}
	}
}

// TestWhatFailsIsTriedAgain, each time later, until it is dead; and replayed it is done.
func TestWhatFailsIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, from, to := twins(t)
		var broken atomic.Bool
		broken.Store(true)
		from.r.Copier = &replication.Copier{Attempts: 1}
		from.r.Attempts = 4
		f.link = func(_, _ replication.Registry) error {
			if broken.Load() {
				return replication.ErrUnavailable
			}
			return nil
		}
		var attempts []time.Duration
		began := time.Now()
		from.r.OnJob = func(_ context.Context, e replication.Entry) { attempts = append(attempts, time.Since(began)) }
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- from.r.Run(ctx) }()
		d := from.push("r", "a", "", "v1")
		from.enqueue()
		synctest.Wait()
		status := func() replication.DestinationStatus {
			s, err := from.r.Status(t.Context(), "r", manifest.ImageID{Tag: "v1"})
			if err != nil || len(s.Statuses) != 1 || s.Image.Digest != d {
				t.Fatalf("%+v, %v", s, err)
			}
			return s.Statuses[0]
		}
		if s := status(); s.Status != replication.StatusInProgress || s.FailureCode != "" {
			t.Errorf("%+v", s)
		}
		time.Sleep(time.Hour)
		if s := status(); s.Status != replication.StatusFailed || s.FailureCode != replication.FailureUnavailable {
			t.Errorf("%+v", s)
		}
		if len(attempts) != 4 || attempts[3]-attempts[2] < 2*time.Second {
			t.Errorf("attempts after %v", attempts)
		}
		if len(to.told) != 1 || to.told[0].Result != events.Failed || to.told[0].Tag != "v1" {
			t.Errorf("%+v", to.told)
		}
		broken.Store(false)
		for e := range from.r.Queue.Entries(t.Context(), replication.EntryFilter{State: replication.StateDead}, 0) {
			if err := from.r.Queue.Replay(t.Context(), e.Job.ID, time.Now()); err != nil {
				t.Error(err)
			}
		}
		time.Sleep(time.Minute)
		if s := status(); s.Status != replication.StatusComplete {
			t.Errorf("%+v", s)
		}
		stop()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

// TestLongJobsKeepTheirLease, and one that has lost it stops.
func TestLongJobsKeepTheirLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, from, _ := twins(t)
		f.link = func(_, _ replication.Registry) error {
			time.Sleep(10 * time.Minute)
			return nil
		}
		from.push("r", "a", "", "v1")
		from.enqueue()
		ended := make(chan error)
		go func() { ended <- from.r.RunDue(t.Context()) }()
		time.Sleep(9 * time.Minute)
		if l, err := from.r.Queue.Lease(t.Context(), replication.LeaseRequest{Most: 1, TTL: time.Minute, Now: time.Now()}); len(l) != 0 || err != nil {
			t.Errorf("%+v, %v", l, err)
		}
		// As if this process had been frozen for a day.
		l, err := from.r.Queue.Lease(t.Context(), replication.LeaseRequest{Most: 1, TTL: time.Minute, Now: time.Now().Add(24 * time.Hour)})
		if len(l) != 1 || err != nil {
			t.Fatalf("%+v, %v", l, err)
		}
		time.Sleep(time.Hour)
		if err := <-ended; err != nil {
			t.Error(err)
		}
		for e := range from.r.Queue.Entries(t.Context(), replication.EntryFilter{}, 0) {
			if e.State != replication.StateRunning || e.Token != l[0].Token {
				t.Errorf("%+v", e)
			}
		}
	})
}

// TestRestartsAreNoAttempts: a job that outlasts those who run it, which end as they are told
// to, is neither given up nor put off.
func TestRestartsAreNoAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, from, to := twins(t)
		from.r.Attempts = 2
		f.link = func(_, _ replication.Registry) error {
			time.Sleep(10 * time.Minute)
			return nil
		}
		from.push("r", "a", "", "v1")
		from.enqueue()
		for range 5 {
			ctx, stop := context.WithTimeout(t.Context(), time.Minute)
			if err := from.r.RunDue(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
			stop()
		}
		f.link = nil
		if err := from.r.RunDue(t.Context()); err != nil {
			t.Error(err)
		}
		if want, got := from.images("r"), to.images("r"); !reflect.DeepEqual(want, got) {
			t.Errorf("%v, and at the destination %v", want, got)
		}
	})
}

// silent is a Queue whose database answers no longer.
type silent struct{ replication.Queue }

func (silent) Done(ctx context.Context, _ replication.Entry, _ time.Time, _ string) error {
	<-ctx.Done()
	return context.Cause(ctx)
}

func (silent) Fail(ctx context.Context, _ replication.Entry, _ time.Time, _ replication.JobFailure, _ time.Time) error {
	<-ctx.Done()
	return context.Cause(ctx)
}

// TestStoppingWaitsForNoSilentQueue: whoever stops waits no longer than a lease lasts, after
// which what it would have said of its jobs says nothing.
func TestStoppingWaitsForNoSilentQueue(t *testing.T) {
	for _, patience := range []time.Duration{5 * time.Second, time.Hour} { // cut off, and done
		synctest.Test(t, func(t *testing.T) {
			f, from, _ := twins(t)
			f.link = func(_, _ replication.Registry) error {
				time.Sleep(10 * time.Second)
				return nil
			}
			from.push("r", "a", "", "v1")
			from.enqueue()
			from.r.Queue = silent{from.r.Queue}
			ctx, stop := context.WithTimeout(t.Context(), patience)
			defer stop()
			began := time.Now()
			err := from.r.RunDue(ctx)
			if took := time.Since(began); err == nil || took > 5*time.Minute {
				t.Errorf("ended after %v with %v", took, err)
			}
		})
	}
}

// TestJobsThatKillTheirWorkersAreGivenUp: nobody is left to say that they have failed.
func TestJobsThatKillTheirWorkersAreGivenUp(t *testing.T) {
	_, from, _ := twins(t)
	from.push("r", "a", "", "v1")
	from.enqueue()
	now := time.Now()
	from.r.Now = func() time.Time { return now }
	for range 10 {
		now = now.Add(time.Hour)
		if l, err := from.r.Queue.Lease(t.Context(), replication.LeaseRequest{Most: 1, TTL: time.Minute, Now: now}); len(l) != 1 || err != nil {
			t.Fatalf("%+v, %v", l, err)
		}
	}
	now = now.Add(time.Hour)
	if err := from.r.RunDue(t.Context()); err != nil {
		t.Fatal(err)
	}
	for e := range from.r.Queue.Entries(t.Context(), replication.EntryFilter{}, 0) {
		if e.State != replication.StateDead || e.Failure.Code != replication.FailureInternal {
			t.Errorf("%+v", e)
		}
	}
}

func TestStatus(t *testing.T) {
	f, from, _ := twins(t)
	old := from.push("r", "old", "", "old")
	if err := manifest.Drain(t.Context(), from.manifests, func(context.Context, manifest.Committed) error { return nil }); err != nil {
		t.Fatal(err)
	}
	copied := from.push("r", "new", "", "new")
	f.settle()
	from.r.Queue = f.member(replication.Registry{}).r.Queue // which knows of nothing
	for _, c := range []struct {
		id   manifest.ImageID
		want []replication.DestinationStatus
		err  error
	}{
		{manifest.ImageID{Digest: copied}, []replication.DestinationStatus{{Registry: east, Status: replication.StatusComplete}}, nil},
		{manifest.ImageID{Digest: copied, Tag: "new"}, []replication.DestinationStatus{{Registry: east, Status: replication.StatusComplete}}, nil},
		{manifest.ImageID{Digest: old}, []replication.DestinationStatus{}, nil},
		{manifest.ImageID{Digest: old, Tag: "new"}, nil, manifest.ErrConflict},
		{manifest.ImageID{Tag: "nothing"}, nil, manifest.ErrNotFound},
		{manifest.ImageID{Digest: digest.FromString("nothing")}, nil, manifest.ErrNotFound},
		{manifest.ImageID{}, nil, manifest.ErrName},
	} {
		got, err := from.r.Status(t.Context(), "r", c.id)
		if !reflect.DeepEqual(got.Statuses, c.want) || !errors.Is(err, c.err) {
			t.Errorf("%+v: %+v, %v", c.id, got, err)
		}
	}
	from.configuration.Rules = nil
	if got, err := from.r.Status(t.Context(), "r", manifest.ImageID{Tag: "new"}); len(got.Statuses) != 0 || got.Statuses == nil || err != nil {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestFailuresHaveCodes(t *testing.T) {
	wrap := func(err error) error { return fmt.Errorf("push: %w", err) }
	for _, c := range []struct {
		err   error
		code  replication.FailureCode
		again bool
	}{
		{replication.ErrDenied, replication.FailureDenied, false},
		{&replication.TemporaryError{Err: replication.ErrDenied}, replication.FailureDenied, true},
		{replication.ErrUnavailable, replication.FailureUnavailable, true},
		{replication.ErrRateLimited, replication.FailureUnavailable, true},
		{replication.ErrContent, replication.FailureContent, true},
		{manifest.ErrTooLarge, replication.FailureContent, false},
		{blob.ErrNotFound, replication.FailureLayer, true},
		{&manifest.MissingError{}, replication.FailureLayer, true},
		{&manifest.ConflictError{Digest: "sha256:aa", Parent: "sha256:bb"}, replication.FailureReferenced, true},
		{manifest.ErrUnsupported, replication.FailureInternal, false},
		{&replication.FailureError{Code: replication.FailureKMS, Err: errors.New("no key")}, replication.FailureKMS, true},
		{errors.New("anything"), replication.FailureInternal, true},
	} {
		f, again := replication.FailureOf(wrap(c.err))
		if f.Code != c.code || again != c.again || f.Detail == "" {
			t.Errorf("%v: %+v, again %v", c.err, f, again)
		}
	}
}

// TestLateCopiesAreComplete: what is copied late comes with what it lists and what refers to it,
// and a tag is not seen before.
func TestLateCopiesAreComplete(t *testing.T) {
	f, from, to := twins(t)
	child := from.push("r", "child", "")
	referrer := from.push("r", "referrer", child)
	rec, err := from.manifests.Get(t.Context(), "r", child)
	if err != nil {
		t.Fatal(err)
	}
	raw, desc, err := manifest.IndexDraft{Manifests: []ocispec.Descriptor{{MediaType: rec.Desc.MediaType, Digest: child, Size: rec.Desc.Size}}}.Build()
	if err != nil {
		t.Fatal(err)
	}
	push := func(tag string) {
		if _, err := from.pusher().Push(t.Context(), "r", manifest.PushRequest{Raw: raw, Tags: []string{tag}}); err != nil {
			t.Fatal(err)
		}
	}
	push("old")
	if err := manifest.Drain(t.Context(), from.manifests, func(context.Context, manifest.Committed) error { return nil }); err != nil {
		t.Fatal(err)
	}
	push("new") // after the configuration
	f.settle()
	want := map[digest.Digest][]string{child: {}, referrer: {}, desc.Digest: {"new"}}
	if got := to.images("r"); !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// TestWhatIsInTheArchiveThereComesBack, whether it has tags or not.
func TestWhatIsInTheArchiveThereComesBack(t *testing.T) {
	f, from, to := twins(t)
	images := []digest.Digest{from.push("r", "tagged", "", "v1"), from.push("r", "untagged", "")}
	f.settle()
	move := func(m *member, class manifest.StorageClass) {
		for _, d := range images {
			if err := m.manifests.Apply(t.Context(), "r", manifest.Change{Classes: []manifest.ClassMove{{Digest: d, To: class}}}); err != nil {
				t.Fatal(err)
			}
		}
		f.settle()
	}
	move(to, manifest.Archive)
	move(from, manifest.Archive)
	for _, want := range []manifest.StorageClass{manifest.Archive, manifest.Standard} {
		if want == manifest.Standard {
			move(from, manifest.Standard)
		}
		for _, d := range images {
			if rec, err := to.manifests.Get(t.Context(), "r", d); err != nil || rec.StorageClass != want {
				t.Errorf("%s, tagged %v, is in class %q, want %q, %v", d, d == images[0], rec.StorageClass, want, err)
			}
		}
	}
	if got := to.images("r"); !reflect.DeepEqual(got, map[digest.Digest][]string{images[0]: {"v1"}, images[1]: {}}) {
		t.Errorf("%v", got)
	}
}
