package manifesttest

import (
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/manifest"
)

var applyClauses = []clause{
	{"all of a change becomes visible, or nothing", func(k *kit) {
		tagged, listed, free := image("tagged"), image("listed"), image("free")
		k.put(tagged, listed, index("parent", listed), free)
		k.tag("taken", tagged)
		k.tag("other", free)
		first := doc{name: "new", subject: absentSubject}.record()
		change := func() manifest.Change {
			return manifest.Change{
				Put:    []manifest.Record{first, image("new2")},
				Tags:   []manifest.TagMove{{Name: "new", To: first.Desc.Digest}, {Name: "other", To: first.Desc.Digest}},
				Delete: []manifest.Removal{{Digest: free.Desc.Digest}},
				At:     day2,
			}
		}
		with := func(f func(*manifest.Change)) manifest.Change {
			c := change()
			f(&c)
			return c
		}
		move := func(t manifest.TagMove) manifest.Change {
			return with(func(c *manifest.Change) { c.Tags = append(c.Tags, t) })
		}
		remove := func(d manifest.Removal) manifest.Change {
			return with(func(c *manifest.Change) { c.Delete = append(c.Delete, d) })
		}
		k.refused(with(func(c *manifest.Change) { c.RequireManifests = []digest.Digest{absentSubject} }), manifest.ErrMissing)
		k.refused(move(manifest.TagMove{Name: "x", To: absentSubject}), manifest.ErrMissing)
		k.refused(move(manifest.TagMove{Name: "taken", To: first.Desc.Digest, From: manifest.Absent}), manifest.ErrConflict)
		k.refused(move(manifest.TagMove{Name: "taken", To: first.Desc.Digest, From: absentSubject}), manifest.ErrConflict)
		k.refused(move(manifest.TagMove{Name: "absent"}), manifest.ErrNotFound)
		k.refused(remove(manifest.Removal{Digest: absentSubject}), manifest.ErrNotFound)
		k.refused(remove(manifest.Removal{Digest: tagged.Desc.Digest, IfUntagged: true}), manifest.ErrConflict)
		k.refused(remove(manifest.Removal{Digest: listed.Desc.Digest, IfUnlisted: true}), manifest.ErrConflict)
		if k.PutBlobs != nil {
			k.refused(with(func(c *manifest.Change) { c.RequireBlobs = []digest.Digest{blobOf("absent")} }), manifest.ErrMissing)
		}
		k.noManifest(repo, first.Desc.Digest)
		k.tagged(repo, "new", "", day1)

		k.apply(change())
		k.get(first)
		k.tagged(repo, "new", first.Desc.Digest, day2)
		k.tagged(repo, "other", first.Desc.Digest, day2)
		k.noManifest(repo, free.Desc.Digest)
	}},
	{"RequireManifests lists all that are missing after Put", func(k *kit) {
		a, b, c, d := image("a"), image("b"), image("c"), image("d")
		k.put(a)
		k.missing(manifest.Change{RequireManifests: digests(a, b, c, d), Put: []manifest.Record{c}}, nil, digests(b, d))
		k.apply(manifest.Change{RequireManifests: digests(a, c), Put: []manifest.Record{c}})
	}},
	{"RequireBlobs lists all that are missing", func(k *kit) {
		k.needBlobs()
		a, b, c, d := blobOf("a"), blobOf("b"), blobOf("c"), blobOf("d")
		k.PutBlobs(k, k.s, repo, a, c)
		k.PutBlobs(k, k.s, otherRepo, b)
		k.missing(manifest.Change{RequireBlobs: []digest.Digest{a, b, c, d}, Put: []manifest.Record{image("1")}}, []digest.Digest{b, d}, nil)
		k.apply(manifest.Change{RequireBlobs: []digest.Digest{a, c}, Put: []manifest.Record{image("1")}})
	}},
	{"blobs and manifests that are missing are listed together", func(k *kit) {
		k.needBlobs()
		k.missing(manifest.Change{RequireBlobs: []digest.Digest{blobOf("a")}, RequireManifests: []digest.Digest{absentSubject}},
			[]digest.Digest{blobOf("a")}, []digest.Digest{absentSubject})
	}},
	{"At is recorded as PushedAt, TouchedAt and MovedAt", func(k *kit) {
		rec := image("1")
		rec.PushedAt, rec.TouchedAt = day2, day2 // a record of elsewhere, which says nothing here
		k.apply(manifest.Change{Put: []manifest.Record{rec}, Tags: []manifest.TagMove{{Name: "a", To: rec.Desc.Digest}}, At: day1})
		if got := k.get(rec); !got.PushedAt.Equal(day1) || !got.TouchedAt.Equal(day1) {
			k.Errorf("PushedAt is %v and TouchedAt %v, want %v", got.PushedAt, got.TouchedAt, day1)
		}
		k.tagged(repo, "a", rec.Desc.Digest, day1)
		if got := collect(k, "Tags", k.s.Tags(k.Context(), repo, "")); len(got) != 1 || !got[0].MovedAt.Equal(day1) {
			k.Errorf("Tags lists %+v, want MovedAt %v", got, day1)
		}
	}},
	{"a zero At stays zero", func(k *kit) {
		rec := image("1")
		k.apply(manifest.Change{Put: []manifest.Record{rec}, Tags: []manifest.TagMove{{Name: "a", To: rec.Desc.Digest}}})
		if got := k.get(rec); !got.PushedAt.IsZero() || !got.TouchedAt.IsZero() {
			k.Errorf("PushedAt is %v and TouchedAt %v, want the zero time", got.PushedAt, got.TouchedAt)
		}
		if got, err := k.s.Resolve(k.Context(), repo, "a"); err != nil || !got.MovedAt.IsZero() {
			k.Errorf("MovedAt is %v, %v, want the zero time", got.MovedAt, err)
		}
	}},
	{"a manifest that is there is kept, with its PushedAt", func(k *kit) {
		rec := image("1")
		k.put(rec)
		k.apply(manifest.Change{Put: []manifest.Record{rec, image("2")}, At: day2})
		if got := k.get(rec).PushedAt; !got.Equal(day1) {
			k.Errorf("PushedAt is %v after a second push, want %v", got, day1)
		}
		if got := len(k.manifests(repo, "")); got != 2 {
			k.Errorf("%d manifests are listed, want 2", got)
		}
	}},
	{"a manifest that is put again is touched", func(k *kit) {
		rec := image("1")
		k.put(rec, image("2"))
		touched := func(at, want time.Time) {
			k.Helper()
			k.apply(manifest.Change{Put: []manifest.Record{rec}, At: at})
			got := k.get(rec)
			if !got.TouchedAt.Equal(want) || !got.PushedAt.Equal(day1) {
				k.Errorf("TouchedAt is %v after a push at %v, want %v", got.TouchedAt, at, want)
			}
			for _, listed := range collect(k, "Manifests", k.s.Manifests(k.Context(), repo, "")) {
				if listed.Desc.Digest == rec.Desc.Digest && !listed.TouchedAt.Equal(got.TouchedAt) || listed.Desc.Digest != rec.Desc.Digest && !listed.TouchedAt.Equal(day1) {
					k.Errorf("Manifests shows TouchedAt %v of %s", listed.TouchedAt, listed.Desc.Digest)
				}
			}
		}
		touched(day2, day2)
		touched(day1, day2) // late news
		touched(time.Time{}, time.Time{})
		touched(day2, day2)
		k.apply(manifest.Change{Tags: []manifest.TagMove{{Name: "a", To: rec.Desc.Digest}}, RequireManifests: digests(rec), At: day2.Add(time.Hour)})
		if got := k.get(rec).TouchedAt; !got.Equal(day2) {
			k.Errorf("TouchedAt is %v after a tag move, want %v", got, day2)
		}
	}},
	{"a removed manifest that is put again is new", func(k *kit) {
		rec := image("1")
		k.put(rec)
		k.tag("a", rec)
		k.apply(manifest.Change{Delete: []manifest.Removal{{Digest: rec.Desc.Digest}}})
		k.apply(manifest.Change{Put: []manifest.Record{rec}, At: day2})
		if got := k.get(rec).PushedAt; !got.Equal(day2) {
			k.Errorf("PushedAt is %v, want %v", got, day2)
		}
		k.tagged(repo, "a", "", day1)
	}},
	{"a tag moved to where it is keeps MovedAt", func(k *kit) {
		one, two := image("1"), image("2")
		k.put(one, two)
		move := func(to manifest.Record, from digest.Digest, at time.Time) {
			k.apply(manifest.Change{Tags: []manifest.TagMove{{Name: "a", To: to.Desc.Digest, From: from}}, At: at})
		}
		move(one, "", day1)
		move(one, "", day2)
		k.tagged(repo, "a", one.Desc.Digest, day1)
		move(one, one.Desc.Digest, day2)
		k.tagged(repo, "a", one.Desc.Digest, day1)
		move(two, "", day2)
		k.tagged(repo, "a", two.Desc.Digest, day2)
	}},
	{"a tag cannot name what is not there", func(k *kit) {
		k.put(image("1"))
		k.missing(manifest.Change{Tags: []manifest.TagMove{{Name: "a", To: absentSubject}}}, nil, []digest.Digest{absentSubject})
		k.tagged(repo, "a", "", day1)
	}},
	{"From is what the tag must name", func(k *kit) {
		one, two := image("1"), image("2")
		k.put(one, two)
		move := func(to, from digest.Digest) manifest.Change {
			return manifest.Change{Tags: []manifest.TagMove{{Name: "a", To: to, From: from}}, At: day1}
		}
		d1, d2 := one.Desc.Digest, two.Desc.Digest
		conflict := func(to, from, have digest.Digest) {
			k.Helper()
			k.conflict(move(to, from), manifest.ConflictError{Tag: "a", Want: from, Have: have})
		}
		conflict(d1, d2, manifest.Absent)
		conflict("", d2, manifest.Absent)
		k.apply(move(d1, manifest.Absent))
		conflict(d2, manifest.Absent, d1)
		conflict(d1, manifest.Absent, d1) // also where it would stay
		conflict(d2, d2, d1)
		conflict("", d2, d1)
		conflict("", manifest.Absent, d1)
		k.apply(move(d2, d1))
		k.tagged(repo, "a", d2, day1)
	}},
	{"To \"\" removes a tag", func(k *kit) {
		one := image("1")
		k.put(one)
		k.tag("a", one)
		k.tag("b", one)
		k.apply(manifest.Change{Tags: []manifest.TagMove{{Name: "a"}, {Name: "b", From: one.Desc.Digest}, {Name: "c", From: manifest.Absent}}})
		k.tagged(repo, "a", "", day1)
		k.tagged(repo, "b", "", day1)
		k.refused(manifest.Change{Tags: []manifest.TagMove{{Name: "a"}}}, manifest.ErrNotFound)
		k.get(one)
	}},
	{"an empty change is a success", func(k *kit) {
		k.apply(manifest.Change{At: day1})
		if got := k.dump(repo); got != "" {
			k.Errorf("left %s", got)
		}
	}},
}
