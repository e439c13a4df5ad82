package manifest_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/manifest/manifesttest"
	"github.com/wharfage/wharfage/manifest/memmanifest"
)

var day0 = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

const week = 7 * 24 * time.Hour

// named makes a manifest by a name of one word. "list:a,b" lists others, and
// "sig>a" has a as its subject.
func named(name string) manifest.Record {
	rec := manifest.Record{Desc: ocispec.Descriptor{MediaType: "a/b", Digest: dig(name), Size: int64(len(name))}, Raw: []byte(name)}
	if _, children, ok := strings.Cut(name, ":"); ok {
		for child := range strings.SplitSeq(children, ",") {
			rec.Manifests = append(rec.Manifests, dig(child))
		}
	}
	if _, subject, ok := strings.Cut(name, ">"); ok {
		rec.Subject = dig(subject)
	}
	return rec
}

func dig(name string) digest.Digest { return digest.FromString(name) }

func apply(t testing.TB, s manifest.Store, at time.Time, names ...string) {
	t.Helper()
	c := manifest.Change{At: at}
	for _, name := range names {
		name, tag, tagged := strings.Cut(name, "@")
		c.Put = append(c.Put, named(name))
		if tagged {
			c.Tags = append(c.Tags, manifest.TagMove{Name: tag, To: dig(name)})
		}
	}
	if err := s.Apply(t.Context(), "r", c); err != nil {
		t.Fatal(err)
	}
}

func left(t testing.TB, s manifest.Store) (names []string) {
	t.Helper()
	for rec, err := range s.Manifests(context.Background(), "r", "") {
		if err != nil {
			t.Fatal(err)
		}
		full, err := s.Get(context.Background(), "r", rec.Desc.Digest)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, string(full.Raw))
	}
	slices.Sort(names)
	return names
}

func TestCollectUntagged(t *testing.T) {
	for _, c := range []struct {
		name       string
		old, young string // pushed before and within the grace
		undated    string
		orphans    bool
		left       string
		reasons    map[manifest.Reason]int
	}{
		{name: "nothing"},
		{name: "tagged stays", old: "a@v1 b", left: "a", reasons: map[manifest.Reason]int{"tagged": 1}},
		{name: "young stays", young: "a b", left: "a b", reasons: map[manifest.Reason]int{"young": 2}},
		{name: "undated stays", undated: "a", left: "a", reasons: map[manifest.Reason]int{"undated": 1}},
		{name: "a child of what has a tag stays", old: "a b list:a,b@v1 c", left: "a b list:a,b", reasons: map[manifest.Reason]int{"tagged": 1, "listed": 2}},
		{name: "a child of a child too", old: "a one:a list:one:a@v1", left: "a list:one:a one:a", reasons: map[manifest.Reason]int{"tagged": 1, "listed": 2}},
		{name: "a child of what is young stays", old: "a b", young: "list:a", left: "a list:a", reasons: map[manifest.Reason]int{"young": 1, "listed": 1}},
		{name: "a child of what goes goes", old: "a b list:a,b c@v1", left: "c", reasons: map[manifest.Reason]int{"tagged": 1}},
		{name: "unless something else lists it", old: "a b list:a,b list2:b@v1", left: "b list2:b", reasons: map[manifest.Reason]int{"tagged": 1, "listed": 1}},
		{name: "a child that is not there", old: "list:none c@v1", left: "c", reasons: map[manifest.Reason]int{"tagged": 1}},
		{name: "a referrer stays", old: "a@v1 sig>a", left: "a sig>a", reasons: map[manifest.Reason]int{"tagged": 1, "referrer": 1}},
		{name: "a referrer stays when its subject goes", old: "a sig>a", left: "sig>a", reasons: map[manifest.Reason]int{"referrer": 1}},
		{name: "an orphan stays", old: "sig>none b", left: "sig>none", reasons: map[manifest.Reason]int{"referrer": 1}},
		{name: "an orphan goes if asked", old: "sig>none sig>b b@v1", left: "b sig>b", orphans: true, reasons: map[manifest.Reason]int{"tagged": 1, "referrer": 1}},
		{name: "a referrer of what goes goes later", old: "a sig>a", left: "sig>a", orphans: true, reasons: map[manifest.Reason]int{"referrer": 1}},
		{name: "a tagged orphan stays", old: "sig>none@v1", left: "sig>none", orphans: true, reasons: map[manifest.Reason]int{"tagged": 1}},
	} {
		for _, limit := range []int{0, 1, 2, 3} {
			t.Run(fmt.Sprint(c.name, " ", limit), func(t *testing.T) {
				s := &memmanifest.Store{MissingBlobs: memmanifest.Unchecked}
				now := day0.Add(week + 1)
				apply(t, s, day0, strings.Fields(c.old)...)
				apply(t, s, now, strings.Fields(c.young)...)
				apply(t, s, time.Time{}, strings.Fields(c.undated)...)
				before := left(t, s)
				o := manifest.UntaggedOptions{Orphans: c.orphans, Confirm: true, Limit: limit, Now: func() time.Time { return now }}
				dry := o
				dry.Dry = true
				would, err := manifest.CollectUntagged(t.Context(), s, "r", dry)
				if err != nil || !slices.Equal(left(t, s), before) {
					t.Fatalf("a dry run: %v, %v", left(t, s), err)
				}
				report, err := manifest.CollectUntagged(t.Context(), s, "r", o)
				if err != nil {
					t.Fatal(err)
				}
				if report.Removed != would.Removed || !maps.Equal(report.Kept, would.Kept) || report.More != would.More {
					t.Errorf("a dry run says %+v, the run %+v", would, report)
				}
				sum := report.Removed
				for _, n := range report.Kept {
					sum += n
				}
				if sum != report.Looked || report.Looked != len(before) {
					t.Errorf("%+v does not add up to %d", report, len(before))
				}
				if limit == 0 && (report.More || !maps.Equal(report.Kept, c.reasons) && len(report.Kept)+len(c.reasons) > 0) {
					t.Errorf("%+v, want reasons %v", report, c.reasons)
				}
				if limit > 0 {
					if report.Removed > limit {
						t.Errorf("%d went, the limit is %d", report.Removed, limit)
					}
					for range 8 {
						if _, err := manifest.CollectUntagged(t.Context(), s, "r", o); err != nil {
							t.Fatal(err)
						}
					}
				}
				if limit > 0 && c.name == "a referrer of what goes goes later" {
					c.left = ""
				}
				if got, want := left(t, s), strings.Fields(c.left); !slices.Equal(got, want) {
					t.Errorf("left %q, want %q", got, want)
				}
			})
		}
	}
}

// TestCollectUntaggedTellsWhatHasGone: events say whether it was an image or a referrer.
func TestCollectUntaggedTellsWhatHasGone(t *testing.T) {
	s := &memmanifest.Store{MissingBlobs: memmanifest.Unchecked}
	apply(t, s, day0, strings.Fields("a sig>none")...)
	subjects := map[digest.Digest]bool{}
	_, err := manifest.CollectUntagged(t.Context(), s, "r", manifest.UntaggedOptions{
		Orphans: true, Confirm: true, Now: func() time.Time { return day0.Add(week + 1) },
		OnCommit: func(_ context.Context, e manifest.Event) {
			c := e.Change
			if len(c.Known) != 1 || c.Known[0].Desc.Digest != c.Delete[0].Digest || c.Known[0].Desc.MediaType != "a/b" {
				t.Errorf("it does not tell what has gone: %+v", c)
				return
			}
			subjects[c.Known[0].Subject] = true
		},
	})
	if err != nil || len(subjects) != 2 || !subjects[""] {
		t.Errorf("subjects %v, %v", subjects, err)
	}
}

func TestCollectUntaggedRefuses(t *testing.T) {
	for _, c := range []struct {
		name string
		odd  func(*manifest.UntaggedOptions)
		want error
	}{
		{"more than a quarter", func(*manifest.UntaggedOptions) {}, manifest.ErrShare},
		{"a share that is no number", func(o *manifest.UntaggedOptions) { o.MaxShare = math.NaN() }, manifest.ErrShare},
		{"a push from the future", func(o *manifest.UntaggedOptions) {
			o.Confirm, o.Now = true, func() time.Time { return day0.Add(-2 * time.Hour) }
		}, manifest.ErrClock},
	} {
		s := &memmanifest.Store{MissingBlobs: memmanifest.Unchecked}
		apply(t, s, day0, "a", "b", "c@v1", "d@v2", "e@v3")
		o := manifest.UntaggedOptions{Now: func() time.Time { return day0.Add(2 * week) }}
		c.odd(&o)
		report, err := manifest.CollectUntagged(t.Context(), s, "r", o)
		if !errors.Is(err, c.want) || report.Removed != 0 || len(left(t, s)) != 5 {
			t.Errorf("%s: %+v, %v", c.name, report, err)
		}
		sum := report.Removed
		for _, n := range report.Kept {
			sum += n
		}
		if sum != report.Looked {
			t.Errorf("%s: %+v: Looked is to be Removed and all of Kept", c.name, report)
		}
		var share *manifest.ShareError
		if errors.As(err, &share) && (share.Going != 2 || share.Of != 5 || share.Max != 0.25 || !strings.Contains(err.Error(), "MaxShare")) {
			t.Errorf("%v", err)
		}
	}
	s := &memmanifest.Store{MissingBlobs: memmanifest.Unchecked}
	apply(t, s, day0, "a", "c@v1", "d@v2", "e@v3")
	if report, err := manifest.CollectUntagged(t.Context(), s, "r", manifest.UntaggedOptions{Now: func() time.Time { return day0.Add(2 * week) }}); err != nil || report.Removed != 1 {
		t.Errorf("just a quarter: %+v, %v", report, err)
	}
	s = &memmanifest.Store{MissingBlobs: memmanifest.Unchecked}
	apply(t, s, day0, "a", "b")
	if report, err := manifest.CollectUntagged(t.Context(), s, "r", manifest.UntaggedOptions{Few: 2, Now: func() time.Time { return day0.Add(2 * week) }}); err != nil || report.Removed != 2 {
		t.Errorf("few, though they are all: %+v, %v", report, err)
	}
}

// Parents go first, and what stays after all keeps what is below it.
// A store that cannot compare subjects leaves a moment for one of them.
func TestCollectUntaggedLooksAgain(t *testing.T) {
	for _, old := range []bool{false, true} {
		t.Run(fmt.Sprint("without FeatureDeleteOrphan: ", old), func(t *testing.T) { collectLooksAgain(t, old) })
	}
}

func collectLooksAgain(t *testing.T, old bool) {
	s := &memmanifest.Store{MissingBlobs: memmanifest.Unchecked}
	apply(t, s, day0, "a", "list:a", "top:list:a", "c", "gone", "sig>late", "sig2>late", "sig3>late", "tagged")
	var order []string
	first := true
	var events int
	o := manifest.UntaggedOptions{Confirm: true, Orphans: true, Now: func() time.Time { return day0.Add(2 * week) },
		OnCommit: func(_ context.Context, e manifest.Event) {
			if e.Repo == "r" && len(e.Change.Delete) == 1 {
				events++
			}
		},
		Each: func(it manifest.Collected) { order = append(order, fmt.Sprint(it.Digest, " ", it.Reason)) },
	}
	store := before{s, old, func(d digest.Digest) {
		if !first {
			return
		}
		first = false
		// After the plan: a tag, a parent, a removal, a subject.
		apply(t, s, day0, "late@subject", "other:list:a")
		err := s.Apply(t.Context(), "r", manifest.Change{Tags: []manifest.TagMove{{Name: "t", To: dig("tagged")}}})
		if err == nil {
			err = s.Apply(t.Context(), "r", manifest.Change{Delete: []manifest.Removal{{Digest: dig("gone")}}})
		}
		if err != nil {
			t.Error(err)
		}
	}}
	report, err := manifest.CollectUntagged(t.Context(), store, "r", o)
	if err != nil {
		t.Fatal(err)
	}
	got := left(t, s)
	for _, want := range []string{"late", "tagged"} {
		if !slices.Contains(got, want) {
			t.Errorf("%s is gone: %q", want, got)
		}
	}
	want := 3
	if old {
		want = 2
	}
	if n := len(slices.DeleteFunc(slices.Clone(got), func(name string) bool { return !strings.HasSuffix(name, ">late") })); n < want {
		t.Errorf("%d of 3 referrers are left, though their subject has come: %q", n, got)
	}
	if events != report.Removed {
		t.Errorf("%d events of %d removals", events, report.Removed)
	}
	if n := report.Kept[manifest.ReasonGone] + report.Kept[manifest.ReasonMeanwhile]; n < 2 {
		t.Errorf("%+v: %q", report, order)
	}
	parents := map[string][]string{"a": {"list:a"}, "list:a": {"top:list:a", "other:list:a"}}
	for child, above := range parents {
		for _, parent := range above {
			if slices.Contains(got, parent) && !slices.Contains(got, child) {
				t.Errorf("%s is gone before %s: %q", child, parent, order)
			}
		}
	}
}

// before calls do before each Apply with a removal. An old one does not know
// FeatureDeleteOrphan.
type before struct {
	*memmanifest.Store
	old bool
	do  func(digest.Digest)
}

func (s before) Apply(ctx context.Context, repo string, c manifest.Change) error {
	if s.old && c.Needs()&manifest.FeatureDeleteOrphan != 0 {
		return manifest.ErrUnsupported
	}
	if len(c.Delete) > 0 {
		s.do(c.Delete[0].Digest)
	}
	return s.Store.Apply(ctx, repo, c)
}

// Every call fails once: nothing goes that is to stay, no child before its
// parent, and the next run does the rest.
func TestCollectUntaggedUnderFaults(t *testing.T) {
	for _, after := range []bool{false, true} {
		for n := 1; ; n++ {
			s := &memmanifest.Store{MissingBlobs: memmanifest.Unchecked}
			apply(t, s, day0, "a", "b", "list:a,b", "c@v1", "d", "kept:d@v2", "sig>c", "sig>none")
			f := &manifesttest.Fault{N: n, After: after}
			o := manifest.UntaggedOptions{Confirm: true, Orphans: true, Now: func() time.Time { return day0.Add(2 * week) }}
			_, err := manifest.CollectUntagged(t.Context(), manifesttest.Faulty(s, f), "r", o)
			if f.Surfaced() == 0 {
				if err != nil || n < 8 {
					t.Errorf("%v after %d calls", err, n-1)
				}
				break
			}
			if !errors.Is(err, manifesttest.ErrFault) {
				t.Errorf("%v: %v", f, err)
			}
			got := left(t, s)
			for _, name := range []string{"c", "d", "kept:d", "sig>c"} {
				if !slices.Contains(got, name) {
					t.Errorf("%v: %s is gone", f, name)
				}
			}
			if slices.Contains(got, "list:a,b") && !(slices.Contains(got, "a") && slices.Contains(got, "b")) {
				t.Errorf("%v: a child is gone before its parent", f)
			}
			if _, err := manifest.CollectUntagged(t.Context(), s, "r", o); err != nil {
				t.Error(err)
			}
			if got := left(t, s); !slices.Equal(got, []string{"c", "d", "kept:d", "sig>c"}) {
				t.Errorf("%v: at last %q", f, got)
			}
		}
	}
}

func TestCollectUntaggedCanceled(t *testing.T) {
	s := &memmanifest.Store{MissingBlobs: memmanifest.Unchecked}
	apply(t, s, day0, "a", "list:a", "top:list:a", "b")
	for n := 3; n >= 0; n-- {
		ctx, cancel := context.WithCancel(t.Context())
		o := manifest.UntaggedOptions{Confirm: true, Each: func(manifest.Collected) { cancel() }, Now: func() time.Time { return day0.Add(2 * week) }}
		report, err := manifest.CollectUntagged(ctx, s, "r", o)
		if !errors.Is(err, context.Canceled) || report.Removed != 1 || len(left(t, s)) != n {
			t.Errorf("%+v, %v", report, err)
		}
	}
}

// Pushes of tags and parents against collections: no tag and no parent dangles.
func TestCollectUntaggedRaces(t *testing.T) {
	s := &memmanifest.Store{MissingBlobs: memmanifest.Unchecked}
	for round := range 100 {
		child := fmt.Sprint("child", round)
		apply(t, s, day0, child)
		o := manifest.UntaggedOptions{Confirm: true, Now: func() time.Time { return day0.Add(2 * week) }}
		var start, done sync.WaitGroup
		start.Add(1)
		var tagged, listed error
		done.Go(func() {
			start.Wait()
			tagged = s.Apply(t.Context(), "r", manifest.Change{Tags: []manifest.TagMove{{Name: "t", To: dig(child)}}})
		})
		done.Go(func() {
			start.Wait()
			listed = s.Apply(t.Context(), "r", manifest.Change{RequireManifests: []digest.Digest{dig(child)},
				Put: []manifest.Record{named("list:" + child)}, Tags: []manifest.TagMove{{Name: "l", To: dig("list:" + child)}}, At: day0})
		})
		for range 2 {
			done.Go(func() {
				start.Wait()
				if _, err := manifest.CollectUntagged(t.Context(), s, "r", o); err != nil {
					t.Error(err)
				}
			})
		}
		start.Done()
		done.Wait()
		_, err := s.Get(t.Context(), "r", dig(child))
		if (tagged == nil || listed == nil) != (err == nil) {
			t.Fatalf("round %d: tag %v, list %v, and the child: %v", round, tagged, listed, err)
		}
	}
}

func ExampleCollectUntagged() {
	ctx := context.Background()
	s := &memmanifest.Store{MissingBlobs: memmanifest.Unchecked}
	push := manifest.Pusher{Store: s}
	for _, artifact := range []string{"a/old", "a/new"} {
		raw, desc, err := manifest.IndexDraft{ArtifactType: artifact}.Build()
		if err == nil {
			_, err = push.Push(ctx, "team/app", manifest.PushRequest{MediaType: desc.MediaType, Raw: raw, Tags: []string{"latest"}})
		}
		if err != nil {
			fmt.Println(err)
			return
		}
	}
	nextMonth := func() time.Time { return time.Now().AddDate(0, 1, 0) }
	report, err := manifest.CollectUntagged(ctx, s, "team/app", manifest.UntaggedOptions{MaxShare: 0.5, Now: nextMonth})
	fmt.Println(report.Removed, report.Kept, err)
	// Output: 1 map[tagged:1] <nil>
}

// A push of what is there is acknowledged like a first one, and its grace
// begins anew, also when it comes after the plan.
func TestCollectUntaggedSparesWhatIsPushedAgain(t *testing.T) {
	day := 24 * time.Hour
	for _, c := range []struct {
		name  string
		again time.Time // "a" is pushed again; zero: after the plan, at now
		now   time.Time
		left  string
		why   manifest.Reason // of a
	}{
		{"within the grace of the first push", day0.Add(6 * day), day0.Add(8 * day), "a", manifest.ReasonYoung},
		{"long after it", day0.Add(30 * day), day0.Add(37*day - 1), "a", manifest.ReasonYoung},
		{"and then not any more", day0.Add(30 * day), day0.Add(37*day + 1), "", manifest.ReasonUntagged},
		{"after the plan was made", time.Time{}, day0.Add(30 * day), "a", manifest.ReasonMeanwhile},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &memmanifest.Store{MissingBlobs: memmanifest.Unchecked}
			apply(t, s, day0, "a", "b")
			if !c.again.IsZero() {
				apply(t, s, c.again, "a")
			}
			why := map[digest.Digest]manifest.Reason{}
			o := manifest.UntaggedOptions{Confirm: true, Now: func() time.Time { return c.now }, Each: func(it manifest.Collected) { why[it.Digest] = it.Reason }}
			var store manifest.Store = s
			if c.again.IsZero() {
				store = &planned{Store: s, then: func() { apply(t, s, c.now, "a") }}
			}
			report, err := manifest.CollectUntagged(t.Context(), store, "r", o)
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(left(t, s), " "); got != c.left {
				t.Errorf("left %q, want %q: %+v", got, c.left, report)
			}
			if got := why[dig("a")]; got != c.why && !(c.why == manifest.ReasonYoung && report.Kept[c.why] == 1) {
				t.Errorf("a: %s, want %s", got, c.why)
			}
		})
	}
}

// planned calls then before the first change.
type planned struct {
	manifest.Store
	then func()
}

func (s *planned) Apply(ctx context.Context, repo string, c manifest.Change) error {
	if s.then != nil {
		s.then()
		s.then = nil
	}
	return s.Store.Apply(ctx, repo, c)
}
