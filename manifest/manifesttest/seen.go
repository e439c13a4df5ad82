package manifesttest

import (
	"errors"
	"fmt"
	"time"

	"github.com/wharfage/wharfage/manifest"
)

func seen(rec manifest.Record, since time.Time, tags ...string) manifest.Seen {
	return manifest.Seen{Digest: rec.Desc.Digest, Tags: tags, Since: since}
}

// changed is refused because a manifest is in its class since another time.
func (k *kit) changed(c manifest.Change, rec manifest.Record, since time.Time) {
	k.Helper()
	var got *manifest.ConflictError
	err := k.refused(c, manifest.ErrConflict)
	if !errors.As(err, &got) || got.Digest != rec.Desc.Digest || !got.Since.Equal(since) {
		k.Fatalf("Apply(%s) = %v, want the conflict that %s is in its class since %v", show(c), err, rec.Desc.Digest, since)
	}
}

// optional applies a change that needs more than the basic features, and skips
// the clause if the store refuses them.
func (k *kit) optional(c manifest.Change) {
	k.Helper()
	before := k.dump(repo)
	err := k.s.Apply(k.Context(), repo, c)
	if errors.Is(err, manifest.ErrUnsupported) {
		if after := k.dump(repo); after != before {
			k.Fatalf("Apply(%s) failed with %q, but left a change:\n%s\nwas:\n%s", show(c), err, after, before)
		}
		k.Skipf("the store refuses feature %b", c.Needs()&^manifest.BasicFeatures)
	}
	if err != nil {
		k.Fatalf("Apply(%s): %v", show(c), err)
	}
}

var seenClauses = []clause{
	{"Unchanged refuses a manifest that is not as it was seen", func(k *kit) {
		one, two := image("1"), image("2")
		d1, d2 := one.Desc.Digest, two.Desc.Digest
		k.put(one, two)
		k.tag("a", one)
		k.tag("b", one)
		k.tag("c", two)
		remove := func(s manifest.Seen) manifest.Change {
			return manifest.Change{Unchanged: []manifest.Seen{s}, Delete: []manifest.Removal{{Digest: d1}}, At: day2}
		}
		k.optional(manifest.Change{Unchanged: []manifest.Seen{seen(one, day1, "a", "b")}})
		k.conflict(remove(seen(one, day1, "a")), manifest.ConflictError{Digest: d1, Tag: "b"})
		k.conflict(remove(seen(one, day1, "b", "gone", "a")), manifest.ConflictError{Tag: "gone", Want: d1, Have: manifest.Absent})
		k.conflict(remove(seen(one, day1, "c", "a", "b")), manifest.ConflictError{Tag: "c", Want: d1, Have: d2})
		k.changed(remove(seen(one, day2, "a", "b")), one, day1)
		k.changed(remove(seen(one, time.Time{}, "a", "b")), one, day1)
		k.refused(remove(seen(image("3"), day1)), manifest.ErrNotFound)

		// All of them are compared, and with what is there before the change.
		both := remove(seen(one, day1, "b", "a"))
		both.Unchanged = append(both.Unchanged, seen(two, day1))
		k.conflict(both, manifest.ConflictError{Digest: d2, Tag: "c"})
		both.Unchanged[1] = seen(two, day1, "c")
		both.Tags = []manifest.TagMove{{Name: "d", To: d2}, {Name: "a"}}
		k.apply(both)
		k.noManifest(repo, d1)
		k.tagged(repo, "d", d2, day2)
	}},
	{"Unchanged refuses a manifest that went and came again", func(k *kit) {
		one := image("1")
		k.put(one)
		k.optional(manifest.Change{Unchanged: []manifest.Seen{seen(one, day1)}})
		k.apply(manifest.Change{Delete: []manifest.Removal{{Digest: one.Desc.Digest}}})
		k.apply(manifest.Change{Put: []manifest.Record{one}, At: day2})
		k.changed(manifest.Change{Unchanged: []manifest.Seen{seen(one, day1)}, Delete: []manifest.Removal{{Digest: one.Desc.Digest}}}, one, day2)
	}},
	{"a tag that comes and a removal of what was seen without it never both succeed", func(k *kit) {
		ctx := k.Context()
		for round := range rounds {
			rec := image(fmt.Sprint("round ", round))
			k.put(rec)
			k.optional(manifest.Change{Unchanged: []manifest.Seen{seen(rec, day1)}})
			errs := atOnce(4, func(i int) error {
				if i > 0 {
					return k.s.Apply(ctx, repo, manifest.Change{Tags: []manifest.TagMove{{Name: fmt.Sprintf("r%d.%d", round, i), To: rec.Desc.Digest}}, At: day2})
				}
				return k.s.Apply(ctx, repo, manifest.Change{
					Unchanged: []manifest.Seen{seen(rec, day1)}, Delete: []manifest.Removal{{Digest: rec.Desc.Digest}}, At: day2,
				})
			})
			removed := errs[0] == nil
			if !removed && !errors.Is(errs[0], manifest.ErrConflict) {
				k.Fatalf("the removal fails with %v", errs[0])
			}
			for _, err := range errs[1:] {
				if removed && !errors.Is(err, manifest.ErrMissing) || !removed && err != nil {
					k.Fatalf("round %d: removed: %v, and a tag that came: %v", round, removed, err)
				}
			}
		}
	}},
	{"IfOrphan refuses while the subject is there", func(k *kit) {
		one := image("1")
		two := doc{name: "2", subject: one.Desc.Digest}.record()
		three := doc{name: "3", subject: absentSubject}.record()
		k.put(one, two, three)
		orphan := func(recs ...manifest.Record) (out []manifest.Removal) {
			for _, rec := range recs {
				out = append(out, manifest.Removal{Digest: rec.Desc.Digest, IfOrphan: true})
			}
			return out
		}
		k.optional(manifest.Change{Delete: orphan(three)})
		k.put(three)
		held := manifest.ConflictError{Digest: two.Desc.Digest, Subject: one.Desc.Digest}
		k.conflict(manifest.Change{Delete: orphan(two)}, held)
		k.conflict(manifest.Change{Delete: orphan(three, two)}, held)
		k.apply(manifest.Change{Delete: orphan(three)})
		k.apply(manifest.Change{Delete: orphan(two, one)}) // which has no subject, and goes too
		k.noManifest(repo, one.Desc.Digest)
		k.noManifest(repo, two.Desc.Digest)
		k.put(two)
		k.conflict(manifest.Change{Put: []manifest.Record{one}, Delete: orphan(two)}, held)
		k.apply(manifest.Change{Delete: orphan(two)})
	}},
}

// classed applies a class move, and skips the clause if the store has none.
func (k *kit) classed(m manifest.ClassMove, at time.Time) {
	k.Helper()
	k.optional(manifest.Change{Classes: []manifest.ClassMove{m}, At: at})
}

// inClass fails the test unless Get and Manifests tell of a class and its times.
func (k *kit) inClass(rec manifest.Record, class manifest.StorageClass, archived, restored time.Time) {
	k.Helper()
	for _, got := range append(collect(k, "Manifests", k.s.Manifests(k.Context(), repo, "")), k.get(rec)) {
		if got.Desc.Digest != rec.Desc.Digest {
			continue
		}
		if got.StorageClass != class || !got.ArchivedAt.Equal(archived) || !got.RestoredAt.Equal(restored) || !got.PushedAt.Equal(day1) {
			k.Fatalf("class %q, archived %v, restored %v, pushed %v, want %q, %v, %v, %v", got.StorageClass, got.ArchivedAt, got.RestoredAt, got.PushedAt, class, archived, restored, day1)
		}
	}
}

var classClauses = []clause{
	{"a store moves to the archive and back, with the times, or refuses", func(k *kit) {
		rec := doc{name: "1", subject: absentSubject}.record()
		none, day3, day4 := time.Time{}, day2.AddDate(0, 0, 1), day2.AddDate(0, 0, 2)
		k.put(rec)
		k.tag("a", rec)
		to := func(class manifest.StorageClass) manifest.ClassMove {
			return manifest.ClassMove{Digest: rec.Desc.Digest, To: class}
		}
		k.classed(to(manifest.Archive), day2)
		k.inClass(rec, manifest.Archive, day2, none)
		k.classed(to(manifest.Archive), day3) // none
		k.inClass(rec, manifest.Archive, day2, none)
		k.changed(manifest.Change{Unchanged: []manifest.Seen{seen(rec, day1, "a")}}, rec, day2)
		k.apply(manifest.Change{Unchanged: []manifest.Seen{seen(rec, day2, "a")}})
		k.classed(to(manifest.Standard), day3)
		k.inClass(rec, manifest.Standard, day2, day3)
		k.classed(to(manifest.Standard), day4) // none
		k.inClass(rec, manifest.Standard, day2, day3)
		k.changed(manifest.Change{Unchanged: []manifest.Seen{seen(rec, day1, "a")}}, rec, day3)
		k.classed(to(manifest.Archive), day4)
		k.inClass(rec, manifest.Archive, day4, day3)
		k.tagged(repo, "a", rec.Desc.Digest, day1)
		if got := k.manifests(repo, ""); len(got) != 1 {
			k.Errorf("Manifests lists %q, want one", got)
		}
		k.refused(manifest.Change{Classes: []manifest.ClassMove{{Digest: image("2").Desc.Digest}}}, manifest.ErrNotFound)
		k.apply(manifest.Change{Delete: []manifest.Removal{{Digest: rec.Desc.Digest}}})
		k.noManifest(repo, rec.Desc.Digest)
		if got := k.dump(repo); got != "" {
			k.Errorf("a removal of what was archived leaves %s", got)
		}
		k.put(rec)
		k.inClass(rec, manifest.Standard, none, none)
	}},
	{"what is put again comes back from the archive", func(k *kit) {
		rec := image("1")
		k.put(rec)
		k.classed(manifest.ClassMove{Digest: rec.Desc.Digest, To: manifest.Archive}, day2)
		k.apply(manifest.Change{Put: []manifest.Record{rec}, At: day2.AddDate(0, 0, 1)})
		k.inClass(rec, manifest.Standard, day2, day2.AddDate(0, 0, 1))
		k.apply(manifest.Change{Put: []manifest.Record{rec}, At: day2.AddDate(0, 0, 2)})
		k.inClass(rec, manifest.Standard, day2, day2.AddDate(0, 0, 1))
		// And goes there once more, in one step.
		archive := []manifest.ClassMove{{Digest: rec.Desc.Digest, To: manifest.Archive}}
		k.apply(manifest.Change{Classes: archive, At: day2.AddDate(0, 0, 3)})
		k.apply(manifest.Change{Put: []manifest.Record{rec}, Classes: archive, At: day2.AddDate(0, 0, 4)})
		k.inClass(rec, manifest.Archive, day2.AddDate(0, 0, 4), day2.AddDate(0, 0, 4))
	}},
	{"IfUnlisted keeps from the archive what a manifest outside of it lists", func(k *kit) {
		child := image("child")
		p1, p2 := index("1", child), index("2", child)
		move := func(rec manifest.Record) manifest.ClassMove {
			return manifest.ClassMove{Digest: rec.Desc.Digest, To: manifest.Archive, IfUnlisted: true}
		}
		conflict := func(c manifest.Change, parent manifest.Record) {
			k.Helper()
			c.At = day2
			k.conflict(c, manifest.ConflictError{Digest: child.Desc.Digest, Parent: parent.Desc.Digest})
		}
		k.put(child, p1)
		k.classed(move(p1), day2)
		k.apply(manifest.Change{Put: []manifest.Record{p1}, At: day2})
		k.put(p2)
		k.apply(manifest.Change{Classes: []manifest.ClassMove{move(p2)}, At: day2})
		conflict(manifest.Change{Classes: []manifest.ClassMove{move(child)}}, p1)
		conflict(manifest.Change{Put: []manifest.Record{p2}, Classes: []manifest.ClassMove{move(child), move(p1)}}, p2)
		p3 := index("3", child)
		conflict(manifest.Change{Put: []manifest.Record{p3}, Classes: []manifest.ClassMove{move(child), move(p1)}}, p3)
		k.apply(manifest.Change{Put: []manifest.Record{p3}, Classes: []manifest.ClassMove{move(p3), move(child), move(p1)}, At: day2})
		k.apply(manifest.Change{Put: []manifest.Record{child, p1}, Delete: []manifest.Removal{{Digest: p3.Desc.Digest}}, At: day2})
		k.refused(manifest.Change{Classes: []manifest.ClassMove{move(child), move(p1), {Digest: image("3").Desc.Digest}}}, manifest.ErrNotFound)
		k.apply(manifest.Change{Classes: []manifest.ClassMove{move(child), move(p1)}, At: day2})
		k.inClass(child, manifest.Archive, day2, day2)
		k.apply(manifest.Change{Put: []manifest.Record{child, p2}, At: day2})
		k.apply(manifest.Change{Classes: []manifest.ClassMove{move(child)}, Delete: []manifest.Removal{{Digest: p2.Desc.Digest}}, At: day2}) // and p1 is in the archive
	}},
}
