package referrers_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/manifest/manifesttest"
	"github.com/wharfage/wharfage/manifest/memmanifest"
	"github.com/wharfage/wharfage/referrers"
	"github.com/wharfage/wharfage/referrers/referrerstest"
)

func TestScan(t *testing.T) {
	referrerstest.TestIndex(t, func(testing.TB) (manifest.Store, referrers.Index) {
		s := new(memmanifest.Store)
		return s, referrers.Scan(s)
	})
}

func TestScanEndsAtAnError(t *testing.T) {
	s := new(memmanifest.Store)
	put(t, s, entry("1").Digest)
	x := referrers.Scan(manifesttest.Faulty(s, &manifesttest.Fault{Op: "Manifests", N: 1}))
	n := 0
	for _, err := range x.Referrers(t.Context(), "repo", "sha256:0", "", "") {
		if n++; !errors.Is(err, manifesttest.ErrFault) {
			t.Errorf("yields %v, want the fault", err)
		}
	}
	if n != 1 {
		t.Errorf("yields %d times, want once", n)
	}
}

func TestFallbackTag(t *testing.T) {
	hex := strings.Repeat("0123456789abcdef", 4)
	for _, tt := range []struct{ subject, want string }{
		{"sha256:" + hex, "sha256-" + hex},
		{"sha512:" + hex + hex, "sha512-" + hex},
		{"multihash+base58:QmRZ_=x", "multihash-base58-QmRZ_-x"},
		{"sha256+b64u:LCa0a2j_xo_5m0U8HTBBNBNCLXBkg7-g-YpeiGJm564=", "sha256-b64u-LCa0a2j_xo_5m0U8HTBBNBNCLXBkg7-g-YpeiGJm564-"},
		{"a.b_c-d:e", "a.b_c-d-e"},
		{strings.Repeat("a", 40) + ":" + strings.Repeat("b", 70), strings.Repeat("a", 32) + "-" + strings.Repeat("b", 64)},
	} {
		got := referrers.FallbackTag(digest.Digest(tt.subject))
		if got != tt.want {
			t.Errorf("FallbackTag(%s) = %s, want %s", tt.subject, got, tt.want)
		}
		if err := manifest.CheckTag(got); err != nil {
			t.Error(err)
		}
	}
}

func FuzzFallbackTag(f *testing.F) {
	f.Add("sha256:" + strings.Repeat("0", 64))
	f.Add("multihash+base58:QmRZ=")
	f.Fuzz(func(t *testing.T, s string) {
		if manifest.CheckDigest(s) != nil {
			return
		}
		if err := manifest.CheckTag(referrers.FallbackTag(digest.Digest(s))); err != nil {
			t.Error(err)
		}
	})
}

const subject digest.Digest = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"

func entry(name string) ocispec.Descriptor {
	return ocispec.Descriptor{
		MediaType: manifest.MediaTypeImage, Digest: manifest.Digest(digest.SHA256, []byte(name)), Size: int64(len(name)),
		ArtifactType: "application/vnd.example." + name, Annotations: map[string]string{"name": name, "html": "<&>"},
	}
}

// put puts a manifest that only has a digest.
func put(t *testing.T, s manifest.Store, dgst digest.Digest) {
	t.Helper()
	if err := s.Apply(t.Context(), "repo", manifest.Change{Put: []manifest.Record{{Desc: ocispec.Descriptor{MediaType: "text/plain", Digest: dgst}, Subject: "sha256:0"}}}); err != nil {
		t.Fatal(err)
	}
}

func raw(t *testing.T, s manifest.Store, tag string) []byte {
	t.Helper()
	_, raw, err := referrers.StoreTags{Store: s}.GetTag(t.Context(), "repo", tag)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestTagSchema(t *testing.T) {
	ctx := t.Context()
	lists := map[string][]byte{}
	for _, order := range [][]string{{"a", "b", "c"}, {"c", "b", "a", "a"}} {
		s := new(memmanifest.Store)
		schema := &referrers.TagSchema{Tags: referrers.StoreTags{Store: s}}
		if list, err := schema.List(ctx, "repo", subject); err != nil || len(list) != 0 {
			t.Fatalf("List of nothing = %v, %v", list, err)
		}
		for _, name := range order {
			if err := schema.Add(ctx, "repo", subject, entry(name)); err != nil {
				t.Fatal(err)
			}
		}
		list, err := schema.List(ctx, "repo", subject)
		if err != nil || len(list) != 3 {
			t.Fatalf("List = %v, %v", list, err)
		}
		for _, name := range order {
			want := entry(name)
			i := slices.IndexFunc(list, func(d ocispec.Descriptor) bool { return d.Digest == want.Digest })
			if i < 0 || fmt.Sprint(list[i]) != fmt.Sprint(want) {
				t.Errorf("List has %v, want %v", list, want)
			}
			for d, err := range schema.Referrers(ctx, "repo", subject, want.ArtifactType, "") {
				if err != nil || d.Digest != want.Digest {
					t.Errorf("Referrers of type %s yields %s, %v", want.ArtifactType, d.Digest, err)
				}
			}
		}
		var after []digest.Digest
		for d := range schema.Referrers(ctx, "repo", subject, "", list[0].Digest) {
			after = append(after, d.Digest)
		}
		if !slices.Equal(after, []digest.Digest{list[1].Digest, list[2].Digest}) {
			t.Errorf("Referrers after the first are %q", after)
		}
		lists[string(raw(t, s, referrers.FallbackTag(subject)))] = nil

		n := 0
		for range s.Manifests(ctx, "repo", "") {
			n++
		}
		if n != 1 {
			t.Errorf("%d lists are kept, want the last", n)
		}
		for _, name := range order {
			if err := schema.Remove(ctx, "repo", subject, entry(name).Digest); err != nil {
				t.Fatal(err)
			}
		}
		if list, err := schema.List(ctx, "repo", subject); err != nil || len(list) != 0 {
			t.Errorf("List of nothing more = %v, %v", list, err)
		}
		if got := string(raw(t, s, referrers.FallbackTag(subject))); got != `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}` {
			t.Errorf("the empty list is %s", got)
		}
	}
	if len(lists) != 1 {
		t.Errorf("the order of additions shows: %q", lists)
	}
}

// What other clients wrote is kept, in whatever order and how often it stands
// there.
func TestTagSchemaReadsOthersLists(t *testing.T) {
	ctx := t.Context()
	s := new(memmanifest.Store)
	tags := referrers.StoreTags{Store: s}
	one := `{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:1111111111111111111111111111111111111111111111111111111111111111","size":3,"platform":{"architecture":"arm64","os":"linux"},"urls":["https://example.org"],"data":"YWJj"}`
	two := strings.NewReplacer("111", "000", "YWJj", "YWJk").Replace(one)
	theirs := `{"schemaVersion":2,"annotations":{"kept":"yes"},"manifests":[` + one + `,` + two + `,` + one + `],"mediaType":"application/vnd.oci.image.index.v1+json"}`
	theirs = strings.NewReplacer(`,"data":"YWJj"`, "", `,"data":"YWJk"`, "").Replace(theirs)
	tag := referrers.FallbackTag(subject)
	if err := tags.PutTag(ctx, "repo", tag, []byte(theirs), manifest.Absent); err != nil {
		t.Fatal(err)
	}
	schema := &referrers.TagSchema{Tags: tags}
	added := entry("a")
	if err := schema.Add(ctx, "repo", subject, added); err != nil {
		t.Fatal(err)
	}
	list, err := schema.List(ctx, "repo", subject)
	if err != nil || len(list) != 3 || list[0].Digest[7] != '0' || list[1].Digest[7] != '1' && list[1].Digest != added.Digest {
		t.Errorf("List = %v, %v", list, err)
	}
	for _, kept := range []string{`"architecture":"arm64"`, `"urls":["https://example.org"]`, `"annotations":{"kept":"yes"}`} {
		if got := raw(t, s, tag); !bytes.Contains(got, []byte(kept)) {
			t.Errorf("%s is lost: %s", kept, got)
		}
	}
}

func TestTagSchemaStopsAtWhatIsNoIndex(t *testing.T) {
	ctx := t.Context()
	for _, typ := range []string{"text/plain", manifest.MediaTypeDockerList, manifest.MediaTypeIndex} {
		s := new(memmanifest.Store)
		doc := []byte(`{"schemaVersion":2,"mediaType":"` + manifest.MediaTypeDockerList + `","manifests":[]}`)
		dgst := manifest.Digest(digest.SHA256, doc)
		tag := referrers.FallbackTag(subject)
		if err := s.Apply(ctx, "repo", manifest.Change{
			Put:  []manifest.Record{{Desc: ocispec.Descriptor{MediaType: typ, Digest: dgst, Size: int64(len(doc))}, Raw: doc}},
			Tags: []manifest.TagMove{{Name: tag, To: dgst}},
		}); err != nil {
			t.Fatal(err)
		}
		schema := &referrers.TagSchema{Tags: referrers.StoreTags{Store: s}}
		_, err := schema.List(ctx, "repo", subject)
		for _, err := range []error{err, schema.Add(ctx, "repo", subject, entry("a")), schema.Remove(ctx, "repo", subject, entry("a").Digest)} {
			if !errors.Is(err, manifest.ErrInvalid) || !strings.Contains(err.Error(), tag) {
				t.Errorf("%s: %v, want ErrInvalid and the tag", typ, err)
			}
		}
		if at, err := s.Resolve(ctx, "repo", tag); err != nil || at.Digest != dgst {
			t.Errorf("the tag is at %v, %v", at, err)
		}
	}
}

func TestTagSchemaLosesNothing(t *testing.T) {
	ctx := t.Context()
	const goroutines, each = 16, 10
	s := new(memmanifest.Store)
	schema := &referrers.TagSchema{Tags: referrers.StoreTags{Store: s}, Attempts: goroutines * each * 2}
	name := func(g, i int) string { return fmt.Sprintf("%d.%d", g, i) }
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			for i := range each {
				if err := schema.Add(ctx, "repo", subject, entry(name(g, i))); err != nil {
					t.Error(err)
				}
				if i%2 == 1 {
					if err := schema.Remove(ctx, "repo", subject, entry(name(g, i)).Digest); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	list, err := schema.List(ctx, "repo", subject)
	if err != nil || len(list) != goroutines*each/2 {
		t.Fatalf("%d of %d additions are listed, %v", len(list), goroutines*each/2, err)
	}
}

// A list that has a tag of its own stays when another takes its place.
func TestStoreTagsKeepsAListWithAnotherTag(t *testing.T) {
	ctx := t.Context()
	s := new(memmanifest.Store)
	schema := &referrers.TagSchema{Tags: referrers.StoreTags{Store: s}}
	if err := schema.Add(ctx, "repo", subject, entry("a")); err != nil {
		t.Fatal(err)
	}
	at, err := s.Resolve(ctx, "repo", referrers.FallbackTag(subject))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Apply(ctx, "repo", manifest.Change{Tags: []manifest.TagMove{{Name: "kept", To: at.Digest}}}); err != nil {
		t.Fatal(err)
	}
	if err := schema.Add(ctx, "repo", subject, entry("b")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(ctx, "repo", at.Digest); err != nil {
		t.Error(err)
	}
	if list, err := schema.List(ctx, "repo", subject); err != nil || len(list) != 2 {
		t.Errorf("List = %v, %v", list, err)
	}
}

// contended refuses every write, as somebody else is always faster.
type contended struct{ referrers.StoreTags }

func (contended) PutTag(context.Context, string, string, []byte, digest.Digest) error {
	return &manifest.ConflictError{}
}

func TestTagSchemaGivesUp(t *testing.T) {
	schema := &referrers.TagSchema{Tags: contended{referrers.StoreTags{Store: new(memmanifest.Store)}}}
	if err := schema.Add(t.Context(), "repo", subject, entry("a")); !errors.Is(err, manifest.ErrConflict) {
		t.Errorf("Add = %v, want ErrConflict", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	schema.Attempts = 1 << 30
	if err := schema.Add(ctx, "repo", subject, entry("a")); !errors.Is(err, context.Canceled) {
		t.Errorf("Add = %v, want ctx's error", err)
	}
}

// Whichever call of the store fails, an Add that reports success is listed, and
// one that does not can be tried again.
func TestTagSchemaSurvivesFaults(t *testing.T) {
	ctx := t.Context()
	for _, after := range []bool{false, true} {
		for n := 1; ; n++ {
			s := new(memmanifest.Store)
			f := &manifesttest.Fault{N: n, After: after}
			schema := &referrers.TagSchema{Tags: referrers.StoreTags{Store: manifesttest.Faulty(s, f)}}
			for _, name := range []string{"a", "b"} {
				if err := schema.Add(ctx, "repo", subject, entry(name)); err != nil {
					if err := schema.Add(ctx, "repo", subject, entry(name)); err != nil {
						t.Errorf("%v: the second try: %v", f, err)
					}
				}
			}
			list, err := (&referrers.TagSchema{Tags: referrers.StoreTags{Store: s}}).List(ctx, "repo", subject)
			if err != nil || len(list) != 2 {
				t.Errorf("%v: List = %v, %v", f, list, err)
			}
			if f.Surfaced() == 0 {
				break
			}
		}
	}
}
