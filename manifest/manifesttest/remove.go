package manifesttest

import (
	"time"

	"github.com/wharfage/wharfage/manifest"
)

var removeClauses = []clause{
	{"a removal takes tags along", func(k *kit) {
		one, two := image("1"), image("2")
		k.put(one, two)
		k.tag("a", one)
		k.tag("b", two)
		k.tag("c", one)
		k.apply(manifest.Change{
			Tags:   []manifest.TagMove{{Name: "d", To: one.Desc.Digest}},
			Delete: []manifest.Removal{{Digest: one.Desc.Digest}},
		})
		k.noManifest(repo, one.Desc.Digest)
		for _, tag := range []string{"a", "c", "d"} {
			k.tagged(repo, tag, "", day1)
		}
		if got := k.tags(repo, ""); len(got) != 1 || got[0] != "b" {
			k.Errorf("Tags lists %q, want only b", got)
		}
		if got := k.manifests(repo, ""); len(got) != 1 {
			k.Errorf("Manifests lists %q, want one", got)
		}
	}},
	{"a removal of what is not there is ErrNotFound", func(k *kit) {
		one := image("1")
		k.put(one)
		k.refused(manifest.Change{Delete: []manifest.Removal{{Digest: absentSubject}}}, manifest.ErrNotFound)
		k.apply(manifest.Change{Delete: []manifest.Removal{{Digest: one.Desc.Digest}}})
		k.refused(manifest.Change{Delete: []manifest.Removal{{Digest: one.Desc.Digest}}}, manifest.ErrNotFound)
	}},
	{"IfUntagged refuses when a tag is left after Tags", func(k *kit) {
		one, two := image("1"), image("2")
		d1, d2 := one.Desc.Digest, two.Desc.Digest
		k.put(one, two)
		k.tag("a", one)
		remove := []manifest.Removal{{Digest: d1, IfUntagged: true}}
		k.conflict(manifest.Change{Delete: remove}, manifest.ConflictError{Digest: d1, Tag: "a"})
		k.tag("b", one)
		k.conflict(manifest.Change{Tags: []manifest.TagMove{{Name: "a"}}, Delete: remove}, manifest.ConflictError{Digest: d1, Tag: "b"})
		k.conflict(manifest.Change{Tags: []manifest.TagMove{{Name: "c", To: d2}}, Delete: []manifest.Removal{{Digest: d2, IfUntagged: true}}},
			manifest.ConflictError{Digest: d2, Tag: "c"})
		k.apply(manifest.Change{Tags: []manifest.TagMove{{Name: "a"}, {Name: "b", To: d2}}, Delete: remove})
		k.noManifest(repo, d1)
		k.apply(manifest.Change{Tags: []manifest.TagMove{{Name: "b"}}})
		k.apply(manifest.Change{Delete: []manifest.Removal{{Digest: d2, IfUntagged: true}}})
	}},
	{"IfUnlisted refuses when a manifest that stays lists it", func(k *kit) {
		child, other := image("child"), image("other")
		p1, p2 := index("1", child), index("2", child, other)
		d := child.Desc.Digest
		guarded := manifest.Removal{Digest: d, IfUnlisted: true}
		k.put(child, other, p1)
		k.conflict(manifest.Change{Delete: []manifest.Removal{guarded}}, manifest.ConflictError{Digest: d, Parent: p1.Desc.Digest})
		k.conflict(manifest.Change{Put: []manifest.Record{p2}, Delete: []manifest.Removal{{Digest: p1.Desc.Digest}, guarded}},
			manifest.ConflictError{Digest: d, Parent: p2.Desc.Digest})
		k.put(p2)
		k.conflict(manifest.Change{Delete: []manifest.Removal{{Digest: p1.Desc.Digest}, guarded}},
			manifest.ConflictError{Digest: d, Parent: p2.Desc.Digest})
		k.apply(manifest.Change{Delete: []manifest.Removal{{Digest: p1.Desc.Digest}}})
		k.apply(manifest.Change{Delete: []manifest.Removal{guarded, {Digest: p2.Desc.Digest}}}) // the parent goes too, and is named later
		k.noManifest(repo, d)
		k.noManifest(repo, p2.Desc.Digest)
		k.apply(manifest.Change{Delete: []manifest.Removal{{Digest: other.Desc.Digest, IfUnlisted: true}}})
	}},
	{"IfUntagged is compared before IfUnlisted", func(k *kit) {
		child := image("child")
		d := child.Desc.Digest
		k.put(child, index("1", child))
		k.tag("a", child)
		remove := []manifest.Removal{{Digest: d, IfUntagged: true, IfUnlisted: true}}
		k.conflict(manifest.Change{Delete: remove}, manifest.ConflictError{Digest: d, Tag: "a"})
	}},
	{"Cutoff refuses what was touched after it", func(k *kit) {
		one, undated := image("1"), image("undated")
		d := one.Desc.Digest
		remove := func(cutoff time.Time) []manifest.Removal { return []manifest.Removal{{Digest: d, Cutoff: cutoff}} }
		k.put(one)
		k.conflict(manifest.Change{Delete: remove(day1.Add(-time.Second))}, manifest.ConflictError{Digest: d, TouchedAt: day1})
		k.apply(manifest.Change{Put: []manifest.Record{one}, At: day2})
		k.conflict(manifest.Change{Delete: remove(day1)}, manifest.ConflictError{Digest: d, TouchedAt: day2})
		k.conflict(manifest.Change{Put: []manifest.Record{one}, Delete: remove(day2), At: day2.Add(time.Second)}, manifest.ConflictError{Digest: d, TouchedAt: day2.Add(time.Second)})
		k.conflict(manifest.Change{Put: []manifest.Record{image("2")}, Delete: []manifest.Removal{{Digest: image("2").Desc.Digest, Cutoff: day1}}, At: day2},
			manifest.ConflictError{Digest: image("2").Desc.Digest, TouchedAt: day2})
		k.apply(manifest.Change{Delete: remove(day2)})
		k.noManifest(repo, d)
		k.apply(manifest.Change{Put: []manifest.Record{undated}})
		k.conflict(manifest.Change{Delete: []manifest.Removal{{Digest: undated.Desc.Digest, Cutoff: day2}}}, manifest.ConflictError{Digest: undated.Desc.Digest})
		k.apply(manifest.Change{Delete: []manifest.Removal{{Digest: undated.Desc.Digest}}})
	}},
	{"a removal without conditions leaves parents as they are", func(k *kit) {
		child := image("child")
		parent := index("parent", child)
		k.put(child, parent)
		k.apply(manifest.Change{Delete: []manifest.Removal{{Digest: child.Desc.Digest, IfUntagged: true}}})
		k.noManifest(repo, child.Desc.Digest)
		k.get(parent)
		k.put(child)
		k.conflict(manifest.Change{Delete: []manifest.Removal{{Digest: child.Desc.Digest, IfUnlisted: true}}},
			manifest.ConflictError{Digest: child.Desc.Digest, Parent: parent.Desc.Digest})
	}},
}
