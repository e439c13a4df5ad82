package manifesttest

import (
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/manifest"
)

var readClauses = []clause{
	{"Get returns the exact bytes and every field", func(k *kit) {
		child := image("child")
		for _, rec := range []manifest.Record{
			image("plain"),
			doc{name: "typed", typ: "application/vnd.example.sbom", subject: absentSubject}.record(),
			doc{name: "sha512", sha512: true}.record(),
			doc{name: "layers", blobs: []digest.Digest{blobOf("b"), blobOf("a"), blobOf("c")}}.record(),
			index("index", child),
			index("empty index"),
		} {
			k.put(rec)
			rec.PushedAt, rec.TouchedAt = day1, day1
			if d := diff(k.get(rec), rec); d != "" {
				k.Errorf("Get of %s: %s", rec.Desc.Annotations["org.example.name"], d)
			}
		}
	}},
	{"what is not there is ErrNotFound", func(k *kit) {
		k.noManifest(repo, absentSubject)
		k.put(image("1"))
		k.tag("latest", image("1"))
		k.noManifest(repo, absentSubject)
		k.tagged(repo, "late", "", day1)
		k.tagged(repo, "latest2", "", day1)
		k.tagged(repo, "LATEST", "", day1)
	}},
	{"an unknown repository is empty", func(k *kit) {
		k.put(image("1"))
		k.noManifest("unknown", image("1").Desc.Digest)
		k.tagged("unknown", "latest", "", day1)
		if got := k.dump("unknown"); got != "" {
			k.Errorf("an unknown repository has %s", got)
		}
		if err := k.s.Apply(k.Context(), "unknown", manifest.Change{Delete: []manifest.Removal{{Digest: absentSubject}}}); !manifest.IsNotFound(err) {
			k.Errorf("Delete there: %v, want ErrNotFound", err)
		}
	}},
	{"repositories do not share manifests and tags", func(k *kit) {
		one, two := image("1"), image("2")
		k.put(one)
		k.tag("latest", one)
		k.noManifest(otherRepo, one.Desc.Digest)
		k.tagged(otherRepo, "latest", "", day1)
		ctx := k.Context()
		if err := k.s.Apply(ctx, otherRepo, manifest.Change{RequireManifests: digests(one)}); err == nil {
			k.Error("RequireManifests is satisfied by another repository")
		}
		if err := k.s.Apply(ctx, otherRepo, manifest.Change{Put: []manifest.Record{one, two}, Tags: []manifest.TagMove{{Name: "latest", To: two.Desc.Digest, From: manifest.Absent}}, At: day2}); err != nil {
			k.Fatal(err)
		}
		k.tagged(repo, "latest", one.Desc.Digest, day1)
		if got := k.get(one).PushedAt; !got.Equal(day1) {
			k.Errorf("PushedAt is %v after a push to another repository, want %v", got, day1)
		}
		if err := k.s.Apply(ctx, otherRepo, manifest.Change{Delete: []manifest.Removal{{Digest: one.Desc.Digest, IfUntagged: true, IfUnlisted: true}}}); err != nil {
			k.Errorf("Delete of a manifest that has a tag in another repository: %v", err)
		}
		k.get(one)
	}},
	{"results belong to the caller", func(k *kit) {
		fresh := func() manifest.Record { // shares nothing with what the store was given
			rec := doc{name: "1", children: []digest.Digest{absentSubject}, subject: absentSubject}.record()
			rec.Blobs, rec.PushedAt, rec.TouchedAt = []digest.Digest{blobOf("1")}, day1, day1
			return rec
		}
		rec := fresh()
		k.put(rec)
		spoil := func(got manifest.Record) {
			for i := range got.Raw {
				got.Raw[i] = 'x'
			}
			for i := range got.Manifests {
				got.Manifests[i] = "x"
			}
			for i := range got.Blobs {
				got.Blobs[i] = "x"
			}
			for key := range got.Desc.Annotations {
				got.Desc.Annotations[key] = "x"
			}
		}
		again := func(after string) {
			k.Helper()
			if d := diff(k.get(rec), fresh()); d != "" {
				k.Errorf("after the result of %s was written to: %s", after, d)
			}
		}
		spoil(k.get(rec))
		again("Get")
		for _, got := range collect(k, "Manifests", k.s.Manifests(k.Context(), repo, "")) {
			spoil(got)
		}
		again("Manifests")
		if x, ok := k.s.(Index); ok || k.Options.Index != nil {
			if !ok {
				x = k.Options.Index(k.s)
			}
			for range 2 {
				for _, d := range collect(k, "Referrers", x.Referrers(k.Context(), repo, absentSubject, "", "")) {
					if d := diffEntry(d, fresh().Desc); d != "" {
						k.Error(d)
					}
					spoil(manifest.Record{Desc: d})
				}
				again("Referrers")
			}
		}
	}},
	{"Count agrees with the listings", func(k *kit) {
		s, ok := k.s.(manifest.Counter)
		if !ok {
			k.Skip("the store is no manifest.Counter")
		}
		one, two := image("1"), image("2")
		is := func(repo string, rec manifest.Record, manifests, tags int) {
			k.Helper()
			if m, t, err := s.Count(k.Context(), repo, rec.Desc.Digest); err != nil || m != manifests || t != tags {
				k.Errorf("Count in %s is %d, %d, %v, want %d, %d", repo, m, t, err, manifests, tags)
			}
		}
		is(repo, one, 0, 0)
		k.put(one, two)
		k.tag("a", one)
		k.tag("b", one)
		k.tag("b2", two)
		is(repo, one, 2, 2)
		is(repo, two, 2, 1)
		is(repo, image("3"), 2, 0)
		is(otherRepo, one, 0, 0)
		k.tag("b", two)
		is(repo, one, 2, 1)
		is(repo, two, 2, 2)
		if err := k.s.Apply(k.Context(), repo, manifest.Change{Delete: []manifest.Removal{{Digest: two.Desc.Digest}}}); err != nil {
			k.Fatal(err)
		}
		is(repo, one, 1, 1)
		is(repo, two, 1, 0)
	}},
	{"Stat answers in the order asked, with zero for what is not there", func(k *kit) {
		s, ok := k.s.(manifest.Stater)
		if !ok {
			k.Skip("the store is no manifest.Stater")
		}
		a, b := image("a"), doc{name: "b", subject: absentSubject, typ: "t/b"}.record()
		k.put(a, b)
		ask := []digest.Digest{b.Desc.Digest, absentSubject, a.Desc.Digest, b.Desc.Digest}
		for _, repo := range []string{repo, "unknown"} {
			got, err := s.Stat(k.Context(), repo, ask)
			if err != nil || len(got) != len(ask) {
				k.Fatalf("Stat of %d digests in %s returns %d descriptors, %v", len(ask), repo, len(got), err)
			}
			for i, want := range []ocispec.Descriptor{b.Desc, {}, a.Desc, b.Desc} {
				if repo == "unknown" {
					want = ocispec.Descriptor{}
				}
				if g := got[i]; g.MediaType != want.MediaType || g.Digest != want.Digest || g.Size != want.Size || g.ArtifactType != want.ArtifactType {
					k.Errorf("Stat in %s, descriptor %d is %+v, want %+v", repo, i, g, want)
				}
			}
		}
		if got, err := s.Stat(k.Context(), repo, nil); err != nil || len(got) != 0 {
			k.Errorf("Stat of nothing = %d descriptors, %v", len(got), err)
		}
	}},
	{"Describe tells what Get does but for Raw, in the order asked, with zero for what is not there", func(k *kit) {
		s, ok := k.s.(manifest.Describer)
		if !ok {
			k.Skip("the store is no manifest.Describer")
		}
		a := doc{name: "a", subject: absentSubject, typ: "t/a", blobs: []digest.Digest{blobOf("1"), blobOf("2")}}.record()
		b, c := index("b", a), doc{name: "c", sha512: true}.record()
		k.put(a, b, c)
		k.apply(manifest.Change{Put: []manifest.Record{a}, At: day2})
		err := k.s.Apply(k.Context(), repo, manifest.Change{Classes: []manifest.ClassMove{{Digest: c.Desc.Digest, To: manifest.Archive}}, At: day2})
		if err != nil && !errors.Is(err, manifest.ErrUnsupported) {
			k.Fatal(err)
		}
		ask := []digest.Digest{b.Desc.Digest, absentSubject, c.Desc.Digest, a.Desc.Digest, b.Desc.Digest}
		for range 2 { // the second time after the results were written to
			got, err := s.Describe(k.Context(), repo, ask)
			if err != nil || len(got) != len(ask) {
				k.Fatalf("Describe of %d digests returns %d records, %v", len(ask), len(got), err)
			}
			for i, dgst := range ask {
				var want manifest.Record
				if dgst != absentSubject {
					if want, err = k.s.Get(k.Context(), repo, dgst); err != nil {
						k.Fatal(err)
					}
					want.Raw = nil
				}
				d := diff(got[i], want)
				if d == "" && (got[i].Raw != nil || got[i].StorageClass != want.StorageClass || !got[i].ArchivedAt.Equal(want.ArchivedAt)) {
					d = fmt.Sprintf("is %+v, want %+v", got[i], want)
				}
				if d != "" {
					k.Errorf("Describe, record %d: %s", i, d)
				}
			}
			for _, rec := range got {
				for j := range rec.Manifests {
					rec.Manifests[j] = "x"
				}
				for j := range rec.Blobs {
					rec.Blobs[j] = "x"
				}
				for key := range rec.Desc.Annotations {
					rec.Desc.Annotations[key] = "x"
				}
			}
		}
		for what, ask := range map[string][]digest.Digest{"nothing": nil, "what is in another repository": digests(a)} {
			got, err := s.Describe(k.Context(), otherRepo, ask)
			if err != nil || len(got) != len(ask) || len(got) > 0 && got[0].Desc.Digest != "" {
				k.Errorf("Describe of %s = %+v, %v", what, got, err)
			}
		}
	}},
	{"Repos lists the repositories that hold a manifest", func(k *kit) {
		s, ok := k.s.(manifest.Catalog)
		if !ok {
			k.Skip("the store is no manifest.Catalog")
		}
		ctx := k.Context()
		repos := func(after string) string {
			k.Helper()
			return fmt.Sprint(collect(k, "Repos", s.Repos(ctx, after)))
		}
		want := func(after, want string) {
			k.Helper()
			if got := repos(after); got != want {
				k.Errorf("Repos after %q is %s, want %s", after, got, want)
			}
		}
		want("", "[]")
		for _, repo := range []string{"b", "a/b", "a-b", "a", "a_b", "a0", "a.b"} {
			if err := k.s.Apply(ctx, repo, manifest.Change{Put: []manifest.Record{image("1"), image("2")}}); err != nil {
				k.Fatal(err)
			}
		}
		_ = k.s.Apply(ctx, "refused", manifest.Change{RequireManifests: []digest.Digest{absentSubject}, Put: []manifest.Record{image("1")}})
		want("", "[a a-b a.b a/b a0 a_b b]")
		want("a.b", "[a/b a0 a_b b]")
		want("a/a", "[a/b a0 a_b b]")
		want("b", "[]")
		for _, rec := range []manifest.Record{image("1"), image("2")} {
			want("a0", "[a_b b]")
			if err := k.s.Apply(ctx, "a_b", manifest.Change{Delete: []manifest.Removal{{Digest: rec.Desc.Digest}}}); err != nil {
				k.Fatal(err)
			}
		}
		want("a0", "[b]")
		for name, err := range s.Repos(ctx, "") {
			if err != nil {
				k.Fatal(err)
			}
			if err := k.s.Apply(ctx, name, manifest.Change{Put: []manifest.Record{image("3")}}); err != nil {
				k.Errorf("Apply in the loop body: %v", err)
			}
		}
	}},
}
