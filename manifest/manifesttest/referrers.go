package manifesttest

import (
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/manifest"
)

var referrerClauses = []clause{
	{"a referrer is listed with all its facts from its Apply to its removal", func(k *kit) {
		x := k.index()
		typed := doc{name: "typed", typ: "application/vnd.example.sbom", subject: absentSubject}.record()
		untyped := doc{name: "untyped", children: []digest.Digest{}, subject: absentSubject}.record() // an index without artifactType
		for _, rec := range []manifest.Record{typed, untyped} {
			k.put(rec, image("not a referrer"))
			k.tag("tag", rec)
			k.put(rec) // again
			got := collect(k, "Referrers", x.Referrers(k.Context(), repo, absentSubject, "", ""))
			if len(got) != 1 {
				k.Fatalf("lists %d referrers, want 1", len(got))
			}
			if d := diffEntry(got[0], rec.Desc); d != "" {
				k.Error(d)
			}
			k.apply(manifest.Change{Tags: []manifest.TagMove{{Name: "tag"}}})
			if got := k.referrers(repo, absentSubject, "", ""); len(got) != 1 {
				k.Errorf("without its tag, lists %q", got)
			}
			k.apply(manifest.Change{Delete: []manifest.Removal{{Digest: rec.Desc.Digest}}})
			if got := k.referrers(repo, absentSubject, "", ""); len(got) != 0 {
				k.Errorf("after its removal, lists %q", got)
			}
		}
	}},
	{"a subject may be absent, and of any algorithm", func(k *kit) {
		k.index()
		subject := image("subject")
		for _, s := range []digest.Digest{
			subject.Desc.Digest,
			digest.Digest("sha512:" + fmt.Sprintf("%0128d", 1)),
			digest.Digest("blake3:" + fmt.Sprintf("%064d", 1)),
			"multihash+base58:QmRZxt2b1FVZPNqd8hsiykDL3TdBDeTSPX9Kv46HmX4Gx8",
			"sha256+b64u:LCa0a2j_xo_5m0U8HTBBNBNCLXBkg7-g-YpeiGJm564=",
		} {
			rec := doc{name: string(s), subject: s}.record()
			k.put(rec)
			if got := k.get(rec).Subject; got != s {
				k.Errorf("Subject is %q, want %q", got, s)
			}
			if got := k.referrers(repo, s, "", ""); !slices.Equal(got, digests(rec)) {
				k.Errorf("referrers of %s: %q, want %s", s, got, rec.Desc.Digest)
			}
		}
		// The subject's coming and going changes nothing.
		k.put(subject)
		k.apply(manifest.Change{Delete: []manifest.Removal{{Digest: subject.Desc.Digest, IfUntagged: true, IfUnlisted: true}}})
		if got := k.referrers(repo, subject.Desc.Digest, "", ""); len(got) != 1 {
			k.Errorf("after the removal of the subject: %q", got)
		}
	}},
	{"an artifactType lists those of exactly that type", func(k *kit) {
		k.index()
		want := map[string][]digest.Digest{}
		types := []string{"a/b", "a/bc", "A/b", "a/b+json", "application/vnd.example.config+json", "a/a"}
		for i := range 24 {
			rec := doc{name: fmt.Sprint(i), typ: types[i%len(types)], subject: absentSubject}.record()
			k.put(rec)
			want[types[i%len(types)]] = append(want[types[i%len(types)]], rec.Desc.Digest)
		}
		fromConfig := doc{name: "config", subject: absentSubject}.record()
		k.put(fromConfig, doc{name: "elsewhere", typ: "a/b", subject: "sha256:1" + absentSubject[8:]}.record())
		want[fromConfig.Desc.ArtifactType] = append(want[fromConfig.Desc.ArtifactType], fromConfig.Desc.Digest)
		for _, typ := range append(types, "a/", "b", "a/b ", "*", "%") {
			slices.Sort(want[typ])
			if got := k.referrers(repo, absentSubject, typ, ""); !slices.Equal(got, want[typ]) {
				k.Errorf("type %q: %q, want %q", typ, got, want[typ])
			}
		}
	}},
	{"referrers are listed in byte order, after the given one", func(k *kit) {
		k.index()
		var want []digest.Digest
		c := manifest.Change{}
		for i := range 600 {
			rec := doc{name: fmt.Sprint(i), typ: "a/b", subject: absentSubject, sha512: i%50 == 0}.record()
			c.Put = append(c.Put, rec)
			want = append(want, rec.Desc.Digest)
		}
		k.apply(c)
		slices.Sort(want)
		for _, typ := range []string{"", "a/b"} {
			if got := k.referrers(repo, absentSubject, typ, ""); !slices.Equal(got, want) {
				k.Errorf("type %q: %d referrers, in order %t, want %d in order", typ, len(got), increasing(got), len(want))
			}
			for _, i := range []int{0, 299, 598, 599} {
				if got := k.referrers(repo, absentSubject, typ, want[i]); !slices.Equal(got, want[i+1:]) {
					k.Errorf("type %q: %d referrers after number %d, want %d", typ, len(got), i, len(want)-i-1)
				}
				between := want[i] + "0" // a key that no manifest has
				if got := k.referrers(repo, absentSubject, typ, between); !slices.Equal(got, want[i+1:]) {
					k.Errorf("type %q: %d referrers after what is behind number %d, want %d", typ, len(got), i, len(want)-i-1)
				}
			}
		}
	}},
	{"referrers of one repository are not those of another", func(k *kit) {
		k.index()
		k.put(doc{name: "1", subject: absentSubject}.record())
		if got := k.referrers(otherRepo, absentSubject, "", ""); len(got) != 0 {
			k.Errorf("another repository lists %q", got)
		}
		if got := k.referrers("unknown", absentSubject, "a/b", ""); len(got) != 0 {
			k.Errorf("an unknown repository lists %q", got)
		}
	}},
	{"racing referrers are all listed", func(k *kit) {
		x := k.index()
		const rounds, goroutines, each = 5, 12, 5
		ctx := k.Context()
		for round := range rounds {
			subject := manifest.Digest(digest.SHA256, fmt.Append(nil, "subject", round))
			for _, err := range atOnce(goroutines, func(g int) error {
				for i := range each {
					rec := doc{name: fmt.Sprintf("%d %d", g, i), subject: subject}.record()
					if err := k.s.Apply(ctx, repo, manifest.Change{Put: []manifest.Record{rec}}); err != nil {
						return err
					}
					listed := false
					for d, err := range x.Referrers(ctx, repo, subject, "", "") {
						if err != nil {
							return err
						}
						listed = listed || d.Digest == rec.Desc.Digest
					}
					if !listed {
						return fmt.Errorf("%s is not listed when its Apply returns", rec.Desc.Digest)
					}
				}
				return nil
			}) {
				if err != nil {
					k.Fatal(err)
				}
			}
			if got := k.referrers(repo, subject, "", ""); len(got) != goroutines*each || !increasing(got) {
				k.Fatalf("round %d: %d referrers are listed, want %d, each once", round, len(got), goroutines*each)
			}
		}
	}},
}
