package manifesttest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/manifest"
)

// EventStore is a [manifest.Store] that keeps the events of its changes.
type EventStore interface {
	manifest.Store
	manifest.Outbox
}

// OutboxOptions say how to make a store with an outbox.
type OutboxOptions struct {
	// New returns an empty store that keeps events, and has none. Each clause has
	// its own.
	New func(t testing.TB) EventStore

	// Reopen returns a second value over the state of s, as a process has after
	// a restart; s is not used any more. Nil skips what is promised about that.
	Reopen func(t testing.TB, s EventStore) EventStore
}

// TestOutbox checks a store's [manifest.Outbox]. Each subtest is named by the
// sentence it checks. What it promises as a Store is for [TestStore].
func TestOutbox(t *testing.T, o OutboxOptions) {
	for _, c := range outboxClauses {
		t.Run(c.name, func(t *testing.T) {
			s := o.New(t)
			c.check(&outboxKit{kit{T: t, s: s}, o, s})
		})
	}
}

// outboxKit is one clause under way. Its kit has the same store.
type outboxKit struct {
	kit
	o OutboxOptions
	s EventStore
}

type outboxClause struct {
	name  string
	check func(*outboxKit)
}

func (k *outboxKit) events(after string) []manifest.Committed {
	k.Helper()
	return collect(&k.kit, "Events", k.s.Events(k.Context(), after))
}

func (k *outboxKit) forget(through string) {
	k.Helper()
	if err := k.s.Forget(k.Context(), through); err != nil {
		k.Fatalf("Forget(%q): %v", through, err)
	}
}

func (k *outboxKit) applyTo(repo string, c manifest.Change) {
	k.Helper()
	if err := k.s.Apply(k.Context(), repo, c); err != nil {
		k.Fatalf("Apply(%s): %v", show(c), err)
	}
}

// commit applies n changes, whose events are told apart by the names of their
// tags.
func (k *outboxKit) commit(n int) {
	k.Helper()
	rec := image("1")
	k.put(rec)
	for i := 1; i < n; i++ {
		k.tag(fmt.Sprintf("t%04d", i), rec)
	}
}

// are fails the test unless got are the events want, with their positions.
func (k *outboxKit) are(got, want []manifest.Committed, when string) {
	k.Helper()
	show := func(events []manifest.Committed) string {
		var b strings.Builder
		for _, e := range events {
			fmt.Fprintf(&b, "  %s %s\n", e.Position, showEvent(e.Event))
		}
		return b.String()
	}
	if g, w := show(got), show(want); g != w {
		k.Fatalf("%s, Events lists\n%swant\n%s", when, g, w)
	}
}

// showEvent is everything that an event tells, on one line.
func showEvent(e manifest.Event) string {
	var b strings.Builder
	c := e.Change
	fmt.Fprintf(&b, "%s: blobs %q manifests %q put", e.Repo, c.RequireBlobs, c.RequireManifests)
	for _, rec := range c.Put {
		fmt.Fprintf(&b, " %s %s %d %q %q subject %q children %q blobs %q raw %d", rec.Desc.MediaType, rec.Desc.Digest, rec.Desc.Size,
			rec.Desc.ArtifactType, rec.Desc.Annotations, rec.Subject, rec.Manifests, rec.Blobs, len(rec.Raw))
	}
	fmt.Fprintf(&b, " tags %q delete", c.Tags)
	for _, d := range c.Delete {
		fmt.Fprintf(&b, " %s %t %t %v", d.Digest, d.IfUntagged, d.IfUnlisted, d.Cutoff.UTC())
	}
	for _, seen := range c.Unchanged {
		fmt.Fprintf(&b, " seen %s %q %v", seen.Digest, seen.Tags, seen.Since.UTC())
	}
	for _, m := range c.Classes {
		fmt.Fprintf(&b, " class %s %q %t", m.Digest, m.To, m.IfUnlisted)
	}
	for _, rec := range c.Known {
		fmt.Fprintf(&b, " known %s %s %q subject %q", rec.Desc.MediaType, rec.Desc.Digest, rec.Desc.ArtifactType, rec.Subject)
	}
	at := "unknown"
	if !c.At.IsZero() {
		at = c.At.UTC().String()
	}
	fmt.Fprintf(&b, " cause %q via %q at %s", c.Cause, c.Via, at)
	return b.String()
}

// told is c as its event tells it.
func told(repo string, c manifest.Change) manifest.Event {
	c.Put = slices.Clone(c.Put)
	for i := range c.Put {
		c.Put[i].Raw = nil
	}
	return manifest.Event{Repo: repo, Change: c}
}

// tell fails the test unless the events are those of want, in that order.
func (k *outboxKit) tell(got []manifest.Committed, want []manifest.Event) {
	k.Helper()
	for i := range min(len(got), len(want)) {
		if g, w := showEvent(got[i].Event), showEvent(want[i]); g != w {
			k.Fatalf("event %d tells\n  %s\nwant\n  %s", i, g, w)
		}
	}
	if len(got) != len(want) {
		k.Fatalf("there are %d events of %d changes", len(got), len(want))
	}
}

// life is a history of two repositories, and in it every field of a Change but
// RequireBlobs.
func life() []manifest.Event {
	one, two := image("1"), image("2")
	parent := index("parent", one, two)
	referrer := doc{name: "referrer", typ: "a/b", subject: one.Desc.Digest, sha512: true}.record()
	d1, d2 := one.Desc.Digest, two.Desc.Digest
	move := func(name string, to, from digest.Digest) []manifest.TagMove {
		return []manifest.TagMove{{Name: name, To: to, From: from}}
	}
	return []manifest.Event{
		{Repo: repo, Change: manifest.Change{Put: []manifest.Record{one}, Tags: move("a", d1, manifest.Absent), At: day1}},
		{Repo: otherRepo, Change: manifest.Change{Put: []manifest.Record{one, two}, At: day2}},
		{Repo: repo, Change: manifest.Change{Put: []manifest.Record{one}, At: day2}}, // again
		{Repo: repo, Change: manifest.Change{RequireManifests: digests(one), Put: []manifest.Record{two, parent, referrer}, At: day1}},
		{Repo: repo, Change: manifest.Change{Tags: append(move("a", d2, d1), manifest.TagMove{Name: "b", To: d1}), At: day2}},
		{Repo: repo, Change: manifest.Change{Tags: move("a", "", ""), Known: []manifest.Record{{Desc: two.Desc, Subject: absentSubject}}}},
		{Repo: otherRepo, Change: manifest.Change{Delete: []manifest.Removal{{Digest: d2, IfUntagged: true}, {Digest: d1, IfUnlisted: true, Cutoff: day2}}, At: day2}}, // which empties it
		{Repo: repo, Change: manifest.Change{Put: []manifest.Record{image("3")}, Tags: move("c", d2, ""), Delete: []manifest.Removal{{Digest: parent.Desc.Digest}, {Digest: d1}}, At: day2}},
		{Repo: otherRepo, Change: manifest.Change{Put: []manifest.Record{two}, Tags: move("a", d2, ""), Cause: manifest.CauseReplication, Via: []string{"a", "b"}}},
	}
}

var outboxClauses = []outboxClause{
	{"each committed change has one event, as it was applied, without Raw", func(k *outboxKit) {
		if got := k.events(""); len(got) != 0 {
			k.Fatalf("a new store has %d events", len(got))
		}
		var want []manifest.Event
		for i, e := range life() {
			k.applyTo(e.Repo, e.Change)
			for _, rec := range e.Change.Put {
				if rec.Raw == nil {
					k.Fatal("Apply has taken Raw away from its caller")
				}
			}
			want = append(want, told(e.Repo, e.Change))
			if got := k.events(""); len(got) != i+1 {
				k.Fatalf("when change %d has committed, there are %d events", i+1, len(got))
			}
		}
		k.tell(k.events(""), want)
		if rec := image("3"); string(k.get(rec).Raw) != string(rec.Raw) {
			k.Error("Get has lost Raw")
		}
	}},
	{"the event of a change for lifecycle policies tells what was seen, and the class", func(k *outboxKit) {
		one, two := image("1"), image("2")
		k.put(one, two)
		k.tag("a", one)
		before := len(k.events(""))
		var want []manifest.Event
		for _, c := range []manifest.Change{
			{Classes: []manifest.ClassMove{{Digest: two.Desc.Digest, To: manifest.Archive, IfUnlisted: true}}, At: day2},
			{Unchanged: []manifest.Seen{{Digest: one.Desc.Digest, Tags: []string{"a"}, Since: day1}}, Delete: []manifest.Removal{{Digest: one.Desc.Digest}}, At: day2},
		} {
			err := k.s.Apply(k.Context(), repo, c)
			if errors.Is(err, manifest.ErrUnsupported) {
				k.Skip("the store has not the features")
			}
			if err != nil {
				k.Fatal(err)
			}
			want = append(want, told(repo, c))
		}
		k.tell(k.events("")[before:], want)
	}},
	{"a refused change has no event", func(k *outboxKit) {
		tagged := image("tagged")
		k.put(tagged)
		k.tag("a", tagged)
		before := k.events("")
		put := []manifest.Record{image("new")}
		for _, c := range []manifest.Change{
			{Put: put, RequireManifests: []digest.Digest{absentSubject}},
			{Put: put, Tags: []manifest.TagMove{{Name: "x", To: absentSubject}}},
			{Put: put, Tags: []manifest.TagMove{{Name: "a", To: put[0].Desc.Digest, From: manifest.Absent}}},
			{Put: put, Tags: []manifest.TagMove{{Name: "absent"}}},
			{Put: put, Delete: []manifest.Removal{{Digest: absentSubject}}},
			{Put: put, Delete: []manifest.Removal{{Digest: tagged.Desc.Digest, IfUntagged: true}}},
		} {
			for _, repo := range []string{repo, "unknown"} {
				if repo == "unknown" && c.Tags != nil && c.Tags[0].From != "" {
					continue // the one that commits there
				}
				if err := k.s.Apply(k.Context(), repo, c); err == nil {
					k.Fatalf("Apply(%s) succeeds in %s", show(c), repo)
				}
			}
		}
		ctx, cancel := context.WithCancel(k.Context())
		cancel()
		if err := k.s.Apply(ctx, repo, manifest.Change{Put: put}); err != nil {
			k.are(k.events(""), before, "after changes that were refused")
		}
	}},
	{"results belong to the caller", func(k *outboxKit) {
		fresh := life() // shares nothing with what the store was given
		for _, e := range life() {
			k.applyTo(e.Repo, e.Change)
		}
		for _, e := range k.events("") {
			c := e.Change
			for i := range c.RequireManifests {
				c.RequireManifests[i] = "x"
			}
			for i, rec := range c.Put {
				maps.DeleteFunc(rec.Desc.Annotations, func(string, string) bool { return true })
				for i := range rec.Manifests {
					rec.Manifests[i] = "x"
				}
				for i := range rec.Blobs {
					rec.Blobs[i] = "x"
				}
				c.Put[i] = manifest.Record{}
			}
			clear(c.Tags)
			clear(c.Delete)
		}
		for i := range fresh {
			fresh[i] = told(fresh[i].Repo, fresh[i].Change)
		}
		k.tell(k.events(""), fresh)
		if d := diffEntry(k.get(image("3")).Desc, image("3").Desc); d != "" {
			k.Errorf("in the store, the %s", d)
		}
	}},
	{"a listing starts after the given position", func(k *outboxKit) {
		k.commit(12)
		all := k.events("")
		for i, e := range all {
			k.are(k.events(e.Position), all[i+1:], fmt.Sprintf("after event %d", i))
		}
	}},
	{"a long listing is whole", func(k *outboxKit) {
		const n = 1100
		rec := image("1")
		k.put(rec)
		for i := 1; i < n; i++ {
			// To and fro, since many changes are dear enough.
			k.apply(manifest.Change{Tags: []manifest.TagMove{{Name: "a", To: []digest.Digest{rec.Desc.Digest, ""}[(i+1)%2]}}})
		}
		all := k.events("")
		if len(all) != n {
			k.Fatalf("lists %d events of %d changes", len(all), n)
		}
		positions := map[string]bool{}
		for _, e := range all {
			positions[e.Position] = true
		}
		if len(positions) != n || positions[""] {
			k.Fatalf("%d events have %d positions", n, len(positions))
		}
		k.are(k.events(all[511].Position), all[512:], "after number 511")
	}},
	{"Forget drops up to and including a position, and nothing else", func(k *outboxKit) {
		k.commit(10)
		before := k.dump(repo)
		all := k.events("")
		k.forget(all[3].Position)
		for _, after := range []string{"", all[0].Position, all[2].Position, all[3].Position} {
			k.are(k.events(after), all[4:], "without the first four, after "+after)
		}
		k.are(k.events(all[5].Position), all[6:], "without the first four, after the sixth")
		k.forget(all[3].Position) // again
		k.forget(all[1].Position) // older
		k.are(k.events(""), all[4:], "when nothing more was forgotten")
		k.forget(all[4].Position)
		k.are(k.events(""), all[5:], "without the first five")
		if after := k.dump(repo); after != before {
			k.Errorf("Forget has changed the repository:\n%s\nwas:\n%s", after, before)
		}
	}},
	{"a position is not used again", func(k *outboxKit) {
		k.commit(5)
		all := k.events("")
		last := all[4].Position
		k.forget(last)
		for _, after := range []string{"", all[2].Position, last} {
			k.are(k.events(after), nil, "when all are forgotten")
		}
		k.put(image("new"))
		fresh := k.events("")
		if len(fresh) != 1 {
			k.Fatalf("lists %d events, want the new one", len(fresh))
		}
		for _, after := range []string{all[0].Position, last} {
			k.are(k.events(after), fresh, "after a position that is forgotten")
		}
		k.are(k.events(fresh[0].Position), nil, "after the new one")
	}},
	{"a listing ends when the loop does, and at its first error", func(k *outboxKit) {
		k.commit(6)
		for range k.s.Events(k.Context(), "") {
			break
		}
		ctx, cancel := context.WithCancel(k.Context())
		cancel()
		cancelled(&k.kit, "Events", k.s.Events(ctx, ""))
	}},
	{"Forget with a cancelled ctx drops nothing", func(k *outboxKit) {
		k.commit(3)
		all := k.events("")
		ctx, cancel := context.WithCancel(k.Context())
		cancel()
		if err := k.s.Forget(ctx, all[2].Position); !errors.Is(err, context.Canceled) {
			k.Errorf("Forget = %v, want context.Canceled", err)
		}
		k.are(k.events(""), all, "after it")
	}},
	{"the loop body may apply changes, list and forget", func(k *outboxKit) {
		const n = 8
		k.commit(n)
		all := k.events("")
		k.inTime("Events", func(ctx context.Context) error {
			i := 0
			for e, err := range k.s.Events(ctx, "") {
				if err != nil {
					return err
				}
				if i < n {
					if g, w := showEvent(e.Event), showEvent(all[i].Event); g != w {
						return fmt.Errorf("event %d tells\n  %s\nwant\n  %s", i, g, w)
					}
				}
				if i++; i == 2*n {
					break // it may go on as long as changes do
				}
				if err := k.s.Apply(ctx, repo, manifest.Change{Put: []manifest.Record{image(fmt.Sprint("in the loop", i))}}); err != nil {
					return err
				}
				for _, err := range k.s.Events(ctx, e.Position) {
					if err != nil {
						return err
					}
				}
				if err := k.s.Forget(ctx, e.Position); err != nil {
					return err
				}
			}
			if i < n {
				return fmt.Errorf("lists %d of %d", i, n)
			}
			return nil
		})
	}},
	{"of two changes of one repository the one that committed later comes later", func(k *outboxKit) {
		const goroutines, each = 8, 6
		from, after := manifest.Absent, ""
		for round := range rounds {
			repo := fmt.Sprint("race", round)
			for _, err := range atOnce(goroutines, func(g int) error {
				for i := range each {
					rec := image(fmt.Sprintf("%d %d", g, i))
					for {
						// A tag that is swapped leaves a chain.
						from := manifest.Absent
						if at, err := k.s.Resolve(k.Context(), repo, "a"); err == nil {
							from = at.Digest
						}
						err := k.s.Apply(k.Context(), repo, manifest.Change{Put: []manifest.Record{rec}, Tags: []manifest.TagMove{{Name: "a", To: rec.Desc.Digest, From: from}}})
						if err == nil {
							break
						}
						if !errors.Is(err, manifest.ErrConflict) {
							return err
						}
					}
				}
				return nil
			}) {
				if err != nil {
					k.Fatal(err)
				}
			}
			got := k.events(after)
			from = manifest.Absent
			for i, e := range got {
				if m := e.Change.Tags[0]; m.From != from {
					k.Fatalf("round %d: event %d of %d moves the tag from %s, where it came to be later or never", round, i, len(got), m.From)
				}
				from, after = e.Change.Tags[0].To, e.Position
			}
			if len(got) != goroutines*each {
				k.Fatalf("round %d: %d events of %d changes", round, len(got), goroutines*each)
			}
		}
	}},
	{"a reader that follows by position while others commit sees every event once", func(k *outboxKit) {
		const writers, each = 8, 4
		last, seen := "", []manifest.Committed(nil)
		follow := func() (n int, err error) {
			for e, err := range k.s.Events(k.Context(), last) {
				if err != nil {
					return n, err
				}
				seen = append(seen, e)
				last = e.Position
				n++
			}
			return n, nil
		}
		start := 0
		for round := range rounds {
			var left atomic.Int32
			left.Store(writers)
			errs := atOnce(writers+1, func(g int) error {
				if g < writers {
					defer left.Add(-1)
					for i := range each {
						name := fmt.Sprintf("%d.%d.%d", round, g, i)
						if err := k.s.Apply(k.Context(), fmt.Sprint("follow", g), manifest.Change{Put: []manifest.Record{image(name)}}); err != nil {
							return err
						}
					}
					return nil
				}
				for left.Load() > 0 {
					if _, err := follow(); err != nil {
						return err
					}
				}
				_, err := follow()
				return err
			})
			if err := errors.Join(errs...); err != nil {
				k.Fatal(err)
			}
			times := map[string]int{}
			for _, e := range seen[start:] {
				times[e.Repo+" "+e.Change.Put[0].Desc.Annotations["org.example.name"]]++
			}
			for g := range writers {
				for i := range each {
					if name := fmt.Sprintf("follow%d %d.%d.%d", g, round, g, i); times[name] != 1 {
						k.Fatalf("round %d: the event of %s was seen %d times", round, name, times[name])
					}
				}
			}
			if start += writers * each; len(seen) != start {
				k.Fatalf("round %d: %d events were seen, of %d changes", round, len(seen), start)
			}
		}
		k.are(k.events(""), seen, "compared with what was seen under way")
	}},
	{"events and positions outlive the process", func(k *outboxKit) {
		if k.o.Reopen == nil {
			k.Skip("OutboxOptions.Reopen is nil")
		}
		reopen := func() {
			k.s = k.o.Reopen(k, k.s)
			k.kit.s = k.s
		}
		k.commit(6)
		all := k.events("")
		reopen()
		k.are(k.events(""), all, "after a restart")
		k.are(k.events(all[2].Position), all[3:], "after a restart and the third")
		k.forget(all[5].Position)
		reopen()
		k.are(k.events(""), nil, "after a restart, when all are forgotten")
		k.put(image("new"))
		fresh := k.events(all[5].Position)
		if len(fresh) != 1 {
			k.Fatalf("after the last position that was forgotten before the restart, %d events are listed, want the new one", len(fresh))
		}
		k.are(k.events(""), fresh, "after a restart and a change")
	}},
}
