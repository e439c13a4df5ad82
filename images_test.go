package wharfage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/blob/blobtest"
	"github.com/wharfage/wharfage/lifecycle"
	"github.com/wharfage/wharfage/lifecycle/mempulls"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/manifest/manifesttest"
	"github.com/wharfage/wharfage/manifest/memmanifest"
	"github.com/wharfage/wharfage/scan"
	"github.com/wharfage/wharfage/scan/scantest"
)

// shelf is a registry with images in the repository "app".
type shelf struct {
	*testing.T
	h     *Handler
	now   time.Time
	pulls *mempulls.Store
}

func newShelf(t *testing.T) *shelf {
	s := &shelf{T: t, h: NewMemory(), now: time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)}
	s.h.Now = func() time.Time { return s.now }
	s.pulls = &mempulls.Store{Now: s.h.Now}
	return s
}

func (s *shelf) images() *Images {
	x := s.h.Images()
	x.Activity, x.Scans, x.Registry = s.pulls, true, "123456789012"
	return x
}

func (s *shelf) blob(content, mediaType string) ocispec.Descriptor {
	s.Helper()
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromString(content), Size: int64(len(content))}
	if err := blob.Put(s.Context(), s.h.Blobs, "app", desc, strings.NewReader(content)); err != nil {
		s.Fatal(err)
	}
	return desc
}

type draft interface {
	Build() ([]byte, ocispec.Descriptor, error)
}

func (s *shelf) push(d draft, tags ...string) ocispec.Descriptor {
	s.Helper()
	s.blob("{}", "")
	raw, desc, err := d.Build()
	if err != nil {
		s.Fatal(err)
	}
	p := s.h.pusher()
	if _, err := p.Push(s.Context(), "app", manifest.PushRequest{MediaType: desc.MediaType, Raw: raw, Tags: tags}); err != nil {
		s.Fatal(err)
	}
	return desc
}

// image has a config of one byte and layers as long as their contents.
func (s *shelf) image(name string, layers ...string) manifest.ImageDraft {
	s.Helper()
	config := s.blob(name[:1], ocispec.MediaTypeImageConfig)
	d := manifest.ImageDraft{Config: &config, Annotations: map[string]string{"name": name}}
	for _, l := range layers {
		d.Layers = append(d.Layers, s.blob(l, ocispec.MediaTypeImageLayerGzip))
	}
	return d
}

func (s *shelf) apply(c manifest.Change) {
	s.Helper()
	c.At = s.now
	if err := s.h.Manifests.Apply(s.Context(), "app", c); err != nil {
		s.Fatal(err)
	}
}

func plain(d ocispec.Descriptor) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}
}

func gather[T any](t testing.TB, listing iter.Seq2[T, error]) (out []T) {
	t.Helper()
	for v, err := range listing {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, v)
	}
	return out
}

func TestDetailsTellWhatIsKnown(t *testing.T) {
	s := newShelf(t)
	small, large := s.push(s.image("a", "shared", "12345")), s.push(s.image("b", "shared", "1234567890"), "amd64")
	index := s.push(manifest.IndexDraft{Manifests: []ocispec.Descriptor{plain(small), plain(large)}}, "v1", "latest")
	subject := plain(index)
	sbom := s.push(manifest.ImageDraft{ArtifactType: "application/spdx+json", Layers: []ocispec.Descriptor{s.blob("sbom", "application/spdx+json")}, Subject: &subject})
	s.now = s.now.Add(time.Hour)
	s.apply(manifest.Change{Classes: []manifest.ClassMove{{Digest: small.Digest, To: manifest.Archive}}})
	if err := s.pulls.Touch(t.Context(), "app", []lifecycle.Pull{{Digest: index.Digest, At: s.now}, {Digest: digest.FromString("gone"), At: s.now}}); err != nil {
		t.Fatal(err)
	}
	runner := &scan.Runner{
		Scanner: &scantest.Scanner{Report: func(context.Context, string, ocispec.Descriptor) (scan.Report, error) {
			return scan.Report{Counts: map[scan.Severity]int{scan.High: 2}}, nil
		}},
		Blobs: s.h.Blobs, Manifests: s.h.Manifests, Now: s.h.Now,
	}
	result, err := runner.Scan(t.Context(), "app", large.Digest)
	if err != nil {
		t.Fatal(err)
	}
	details := map[digest.Digest]ImageDetail{}
	for _, d := range gather(t, s.images().Describe(t.Context(), "app", ImageFilter{Status: ImageAny}, "")) {
		details[d.Digest] = d
	}
	noon := s.now.Add(-time.Hour)
	own := func(d ocispec.Descriptor, blobs int64) (int64, int64) { return blobs, blobs + d.Size }
	want := func(d ocispec.Descriptor, change func(*ImageDetail)) {
		t.Helper()
		w := ImageDetail{Registry: "123456789012", Repo: "app", Digest: d.Digest, MediaType: d.MediaType, ArtifactType: d.ArtifactType, PushedAt: noon, Status: ImageActive}
		change(&w)
		if got := details[d.Digest]; !reflect.DeepEqual(got, w) {
			t.Errorf("detail\n%+v, want\n%+v", got, w)
		}
	}
	want(small, func(w *ImageDetail) {
		w.Size, w.StoredSize = own(small, 12)
		w.Status, w.ArchivedAt = ImageArchived, s.now
	})
	want(large, func(w *ImageDetail) {
		w.Size, w.StoredSize = own(large, 17)
		w.Tags = []string{"amd64"}
		w.Scan = &result
	})
	want(index, func(w *ImageDetail) {
		w.Size = 17 // that of the largest child
		w.StoredSize = index.Size + small.Size + large.Size + 1 + 1 + 6 + 5 + 10
		w.Tags, w.PulledAt = []string{"latest", "v1"}, s.now
	})
	want(sbom, func(w *ImageDetail) {
		w.Size, w.StoredSize = own(sbom, 6)
		w.Subject = index.Digest
	})
	if len(details) != 5 {
		t.Errorf("%d details", len(details))
	}

	text, err := json.Marshal(details[large.Digest])
	if want := `{"registryId":"123456789012","repositoryName":"app","imageDigest":"` + string(large.Digest) + `","imageTags":["amd64"],"imageSizeInBytes":17,"imagePushedAt":1767268800,` +
		`"imageScanStatus":{"status":"COMPLETE"},"imageScanFindingsSummary":{"imageScanCompletedAt":1767272400,"findingSeverityCounts":{"HIGH":2}},` +
		`"imageManifestMediaType":"application/vnd.oci.image.manifest.v1+json","artifactMediaType":"application/vnd.oci.image.config.v1+json","imageStatus":"ACTIVE"}`; err != nil || string(text) != want {
		t.Errorf("JSON %s, %v, want %s", text, err, want)
	}
	text, err = json.Marshal(details[index.Digest])
	if want := `"imageTags":["latest","v1"],"imageSizeInBytes":17,"imagePushedAt":1767268800,"imageManifestMediaType":"application/vnd.oci.image.index.v1+json","lastRecordedPullTime":1767272400,"imageStatus":"ACTIVE"}`; err != nil || !strings.HasSuffix(string(text), want) {
		t.Errorf("JSON %s, %v", text, err)
	}

	u, err := s.images().Usage(t.Context(), "app")
	var stored int64
	for _, d := range gather(t, s.h.Blobs.Blobs(t.Context(), "app", "")) {
		stored += d.Size
	}
	var listed int64
	for _, d := range details {
		listed += d.Size
	}
	for rec := range s.h.Manifests.Manifests(t.Context(), "app", "") {
		stored += rec.Desc.Size
	}
	if err != nil || u != (Usage{Images: 5, Untagged: 3, Archived: 1, Tags: 3, Blobs: u.Blobs, StoredBytes: stored, ListedBytes: listed}) || u.Blobs != 8 {
		t.Errorf("usage %+v, %v; stored %d, listed %d", u, err, stored, listed)
	}
}

func TestWhatIsMissingIsToldAndNotCounted(t *testing.T) {
	s := newShelf(t)
	s.h.Pusher.Sparse = true
	child := s.push(s.image("a", "12345"))
	absent := ocispec.Descriptor{MediaType: manifest.MediaTypeImage, Digest: digest.FromString("absent"), Size: 999}
	foreign := s.image("f")
	foreign.Layers = []ocispec.Descriptor{{MediaType: "application/vnd.oci.image.layer.nondistributable.v1.tar", Digest: digest.FromString("foreign"), Size: 9999}}
	for name, c := range map[string]struct {
		desc ocispec.Descriptor
		size int64
	}{
		"sparse index":  {s.push(manifest.IndexDraft{Manifests: []ocispec.Descriptor{plain(child), absent}}), 6},
		"foreign layer": {s.push(foreign), 1},
	} {
		found, err := s.images().Find(t.Context(), "app", ImageID{Digest: c.desc.Digest})
		if err != nil || !found[0].Incomplete || found[0].Size != c.size {
			t.Errorf("%s: %+v, %v", name, found, err)
		}
	}
	for _, d := range gather(t, s.images().Describe(t.Context(), "app", ImageFilter{}, "")) {
		if d.Incomplete != (d.Digest != child.Digest) {
			t.Errorf("%+v", d)
		}
	}
}

// TestFindAgreesWithDescribe compares the two readers, of listings and of
// documents, in random repositories, pages and filters too.
func TestFindAgreesWithDescribe(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		s := newShelf(t)
		var pushed []ocispec.Descriptor
		for i := range 30 {
			s.now = s.now.Add(time.Minute)
			var tags []string
			for range r.IntN(3) {
				tags = append(tags, fmt.Sprint("t", r.IntN(25)))
			}
			name := fmt.Sprint(i)
			some := func() (out []ocispec.Descriptor) {
				for range r.IntN(4) {
					out = append(out, plain(pushed[r.IntN(len(pushed))]))
				}
				return out
			}
			switch r.IntN(3) {
			case 0:
				if pushed != nil {
					pushed = append(pushed, s.push(manifest.IndexDraft{Manifests: some(), Annotations: map[string]string{"name": name}}, tags...))
					continue
				}
				fallthrough
			case 1:
				pushed = append(pushed, s.push(s.image(name, fmt.Sprint("layer", r.IntN(5)), strings.Repeat("x", r.IntN(9)+1)), tags...))
			case 2:
				d := manifest.ImageDraft{ArtifactType: "a/" + name[:1], Annotations: map[string]string{"name": name}}
				if subjects := append(pushed, absentSubject)[:max(1, len(pushed))]; r.IntN(2) == 0 {
					subject := plain(subjects[r.IntN(len(subjects))])
					d.Subject = &subject
				}
				pushed = append(pushed, s.push(d, tags...))
			}
			if d := pushed[len(pushed)-1].Digest; r.IntN(5) == 0 {
				s.apply(manifest.Change{Classes: []manifest.ClassMove{{Digest: d, To: manifest.Archive}}})
			} else if r.IntN(3) == 0 {
				s.pulls.Touch(t.Context(), "app", []lifecycle.Pull{{Digest: d, At: s.now}})
			}
		}
		x := s.images()
		all := gather(t, x.Describe(t.Context(), "app", ImageFilter{Status: ImageAny}, ""))
		var ids []ImageID
		var tagIDs []ImageID
		for _, d := range all {
			ids = append(ids, ImageID{Digest: d.Digest})
			for _, tag := range d.Tags {
				tagIDs = append(tagIDs, ImageID{d.Digest, tag})
			}
			if d.Tags == nil {
				tagIDs = append(tagIDs, ImageID{Digest: d.Digest})
			}
		}
		found, err := x.Find(t.Context(), "app", ids...)
		if err != nil || !reflect.DeepEqual(found, all) {
			t.Fatalf("seed %d: %v: found\n%+v, listed\n%+v", seed, err, found, all)
		}
		if got := gather(t, x.List(t.Context(), "app", ImageFilter{Status: ImageAny}, ImageID{})); !slices.Equal(got, tagIDs) {
			t.Errorf("seed %d: listed %v, want %v", seed, got, tagIDs)
		}
		for i := range ids {
			if got := gather(t, x.Describe(t.Context(), "app", ImageFilter{Status: ImageAny}, ids[i].Digest)); len(got) != len(all)-i-1 || len(got) > 0 && !reflect.DeepEqual(got, all[i+1:]) {
				t.Errorf("seed %d: after %d: %d details", seed, i, len(got))
			}
		}
		for i := range tagIDs {
			if got := gather(t, x.List(t.Context(), "app", ImageFilter{Status: ImageAny}, tagIDs[i])); !slices.Equal(got, tagIDs[i+1:]) {
				t.Errorf("seed %d: after %v: %v", seed, tagIDs[i], got)
			}
		}
		for _, f := range []ImageFilter{{}, {Tags: Tagged}, {Tags: Untagged, Status: ImageAny}, {Status: ImageArchived}, {Tags: TagAny, Status: ImageActivating}, {ArtifactTypes: []string{"a/1", "a/2", ""}}} {
			var want []ImageDetail
			for _, d := range all {
				status := f.Status == ImageAny || f.Status == d.Status || f.Status == "" && d.Status == ImageActive
				tagged := f.Tags == "" || f.Tags == TagAny || (f.Tags == Tagged) == (d.Tags != nil)
				if status && tagged && (f.ArtifactTypes == nil || slices.Contains(f.ArtifactTypes, d.ArtifactType)) {
					want = append(want, d)
				}
			}
			if got := gather(t, x.Describe(t.Context(), "app", f, "")); !reflect.DeepEqual(got, want) {
				t.Errorf("seed %d: %+v: %d details, want %d", seed, f, len(got), len(want))
			}
		}
		x.Blobs, x.Activity, x.Scans = nil, nil, false
		for i, d := range gather(t, x.Describe(t.Context(), "app", ImageFilter{Status: ImageAny}, "")) {
			w := all[i]
			w.Size, w.StoredSize, w.Incomplete, w.PulledAt, w.Scan = 0, 0, false, time.Time{}, nil
			if !reflect.DeepEqual(d, w) {
				t.Errorf("seed %d: without other stores: %+v, want %+v", seed, d, w)
			}
		}
	}
}

var absentSubject = ocispec.Descriptor{MediaType: manifest.MediaTypeImage, Digest: digest.FromString("absent"), Size: 1}

func TestFindNamesWhatIsNotThere(t *testing.T) {
	s := newShelf(t)
	one, two := s.push(s.image("1"), "v1", "v2"), s.push(s.image("2"))
	x := s.images()
	if found, err := x.Find(t.Context(), "app", ImageID{Tag: "v2"}, ImageID{one.Digest, "v1"}, ImageID{Digest: two.Digest}); err != nil || len(found) != 2 || found[0].Digest != one.Digest {
		t.Errorf("%+v, %v", found, err)
	}
	for _, id := range []ImageID{{Tag: "v3"}, {Digest: digest.FromString("x")}, {Digest: "sha256:x"}, {two.Digest, "v1"}, {Tag: "no tag"}} {
		_, err := x.Find(t.Context(), "app", ImageID{Tag: "v1"}, id)
		if e, ok := errors.AsType[*ImageNotFoundError](err); !ok || e.ID != id || !manifest.IsNotFound(err) {
			t.Errorf("%+v: %v", id, err)
		}
	}
	_, err := x.Find(t.Context(), "app", ImageID{Tag: "x"})
	if want := "The image with imageId {imageDigest:'null', imageTag:'x'} does not exist within the repository with name 'app' in the registry with id '123456789012'"; !strings.HasSuffix(err.Error(), want) {
		t.Error(err)
	}
	if _, err := x.Find(t.Context(), "app", ImageID{}); !errors.Is(err, ErrFilter) {
		t.Error(err)
	}
	for _, f := range []ImageFilter{{Tags: "tagged"}, {Status: "x"}} {
		for _, err := range x.Describe(t.Context(), "app", f, "") {
			if !errors.Is(err, ErrFilter) {
				t.Errorf("%+v: %v", f, err)
			}
		}
	}
	for _, err := range x.List(t.Context(), "App", ImageFilter{}, ImageID{}) {
		if !errors.Is(err, manifest.ErrName) {
			t.Error(err)
		}
	}
	for _, err := range x.ImageReferrers(t.Context(), "app", "x", ReferrerFilter{}, "") {
		if err == nil {
			t.Error("a subject that is no digest")
		}
	}
}

func TestReferrersArePagedAndFiltered(t *testing.T) {
	s := newShelf(t)
	subject := plain(s.push(s.image("1")))
	var archived digest.Digest
	for i := range 45 {
		d := s.push(manifest.ImageDraft{ArtifactType: fmt.Sprint("a/", i%3), Subject: &subject, Annotations: map[string]string{"n": fmt.Sprint(i)}})
		if i == 0 {
			archived = d.Digest
			s.apply(manifest.Change{Classes: []manifest.ClassMove{{Digest: archived, To: manifest.Archive}}})
		}
	}
	for _, x := range []*Images{s.images(), {Manifests: readerOnly{s.h.Manifests}}} {
		for _, c := range []struct {
			f ReferrerFilter
			n int
		}{
			{ReferrerFilter{}, 44},
			{ReferrerFilter{Status: ImageAny}, 45},
			{ReferrerFilter{Status: ImageArchived}, 1},
			{ReferrerFilter{ArtifactTypes: []string{"a/1"}}, 15},
			{ReferrerFilter{ArtifactTypes: []string{"a/0", "a/2", "a/9"}, Status: ImageAny}, 30},
		} {
			var got []ImageReferrer
			after, more := digest.Digest(""), true
			for more {
				var page []ImageReferrer
				var err error
				if page, more, err = Page(x.ImageReferrers(t.Context(), "app", subject.Digest, c.f, after), 20); err != nil || len(page) == 0 || len(page) > 20 {
					t.Fatalf("%+v: a page of %d, %v", c.f, len(page), err)
				}
				got = append(got, page...)
				after = page[len(page)-1].Digest
			}
			if len(got) != c.n || !slices.IsSortedFunc(got, func(a, b ImageReferrer) int { return strings.Compare(string(a.Digest), string(b.Digest)) }) {
				t.Errorf("%+v: %d referrers, want %d", c.f, len(got), c.n)
			}
			for _, r := range got {
				if r.Annotations["n"] == "" || (r.Status == ImageArchived) != (r.Digest == archived) {
					t.Errorf("%+v", r)
				}
			}
		}
	}
	if got := gather(t, s.images().ImageReferrers(t.Context(), "app", digest.FromString("unknown"), ReferrerFilter{}, "")); got != nil {
		t.Errorf("an unknown subject has %v", got)
	}
	text, err := json.Marshal(ImageReferrer{Digest: archived, MediaType: "m", ArtifactType: "a/0", Size: 1, Status: ImageArchived})
	if want := `{"digest":"` + string(archived) + `","mediaType":"m","artifactType":"a/0","size":1,"artifactStatus":"ARCHIVED"}`; err != nil || string(text) != want {
		t.Errorf("%s, %v", text, err)
	}
}

// readerOnly hides what else a store can.
type readerOnly struct{ manifest.Reader }

// TestAFailingStoreIsNeverAShorterListing fails each call of each store in turn.
func TestAFailingStoreIsNeverAShorterListing(t *testing.T) {
	s := newShelf(t)
	child := s.push(s.image("1", "layer"), "v1")
	subject := plain(s.push(manifest.IndexDraft{Manifests: []ocispec.Descriptor{plain(child)}}, "v2"))
	s.push(manifest.ImageDraft{ArtifactType: "a/b", Subject: &subject})
	ids := []ImageID{{Tag: "v1"}, {Tag: "v2"}}
	ops := map[string]func(x *Images) error{
		"Describe": func(x *Images) error {
			_, _, err := Page(x.Describe(t.Context(), "app", ImageFilter{}, ""), 100)
			return err
		},
		"List": func(x *Images) error {
			_, _, err := Page(x.List(t.Context(), "app", ImageFilter{}, ImageID{child.Digest, "a"}), 100)
			return err
		},
		"ImageReferrers": func(x *Images) error {
			_, _, err := Page(x.ImageReferrers(t.Context(), "app", subject.Digest, ReferrerFilter{}, ""), 100)
			return err
		},
		"Find":  func(x *Images) error { _, err := x.Find(t.Context(), "app", ids...); return err },
		"Usage": func(x *Images) error { _, err := x.Usage(t.Context(), "app"); return err },
	}
	for name, op := range ops {
		for _, store := range []string{"manifests", "blobs", "pulls"} {
			for n := 1; ; n++ {
				x := s.images()
				surfaced := func() bool { return false }
				switch store {
				case "manifests":
					f := &manifesttest.Fault{N: n}
					x.Manifests, x.Referrers = manifesttest.Faulty(s.h.Manifests.(*memmanifest.Store), f), nil
					surfaced = func() bool { return f.Surfaced() > 0 }
				case "blobs":
					faulty, count := blobtest.Faulty(s.h.Blobs, blobtest.Fault{Call: n})
					x.Blobs, surfaced = faulty, func() bool { return count() > 0 }
				case "pulls":
					f := &failingPulls{Activity: s.pulls, n: n}
					x.Activity = f
					surfaced = func() bool { return f.calls >= n }
				}
				err := op(x)
				if !surfaced() {
					if err != nil {
						t.Errorf("%s: %v", name, err)
					}
					break
				}
				if err == nil || manifest.IsNotFound(err) {
					t.Errorf("%s, call %d of %s fails: %v", name, n, store, err)
				}
			}
		}
	}
}

type failingPulls struct {
	lifecycle.Activity
	n, calls int
}

func (f *failingPulls) Pulls(ctx context.Context, repo string, after digest.Digest) iter.Seq2[lifecycle.Pull, error] {
	return func(yield func(lifecycle.Pull, error) bool) {
		if f.calls++; f.calls == f.n {
			yield(lifecycle.Pull{}, manifesttest.ErrFault)
			return
		}
		f.Activity.Pulls(ctx, repo, after)(yield)
	}
}

// No image of a page costs a read of its own, and no page a pass over all.
func TestAPageReadsManyRecordsInOneStep(t *testing.T) {
	s := newShelf(t)
	subject := s.push(s.image("subject"), "subject")
	for i := range 60 {
		a, b := s.push(s.image(fmt.Sprint("a", i), "x")), s.push(s.image(fmt.Sprint("b", i), "y"))
		s.push(manifest.IndexDraft{Manifests: []ocispec.Descriptor{plain(a), plain(b)}}, fmt.Sprint("v", i))
		to := plain(subject)
		s.push(manifest.ImageDraft{ArtifactType: "application/spdx+json", Subject: &to, Annotations: map[string]string{"n": fmt.Sprint(i)}})
	}
	for _, c := range []struct {
		op   string
		most int
	}{{"Get", 0}, {"Describe", 2}, {"Manifests", 1}} {
		for what, page := range map[string]func(x *Images) (int, error){
			"details": func(x *Images) (int, error) {
				page, _, err := Page(x.Describe(t.Context(), "app", ImageFilter{Tags: Tagged}, ""), 40)
				return len(page), err
			},
			"referrers": func(x *Images) (int, error) {
				page, _, err := Page(x.ImageReferrers(t.Context(), "app", subject.Digest, ReferrerFilter{}, ""), 40)
				return len(page), err
			},
		} {
			f := &manifesttest.Fault{Op: c.op}
			n, err := page(&Images{Manifests: manifesttest.Faulty(s.h.Manifests, f), Blobs: s.h.Blobs})
			if n != 40 || err != nil || f.Calls() > c.most {
				t.Errorf("%d %s, %v: %d times %s, want %d at most", n, what, err, f.Calls(), c.op, c.most)
			}
		}
	}
}

// computable fails a test that asks it for a digest that no store can hold.
type computable struct {
	*memmanifest.Store
	t *testing.T
}

func (s computable) look(dgsts ...digest.Digest) {
	for _, d := range dgsts {
		if err := manifest.CheckContentDigest(string(d)); err != nil {
			s.t.Errorf("asked for %s: %v", d, err)
		}
	}
}

func (s computable) Get(ctx context.Context, repo string, d digest.Digest) (manifest.Record, error) {
	s.look(d)
	return s.Store.Get(ctx, repo, d)
}

func (s computable) Stat(ctx context.Context, repo string, dgsts []digest.Digest) ([]ocispec.Descriptor, error) {
	s.look(dgsts...)
	return s.Store.Stat(ctx, repo, dgsts)
}

func (s computable) Describe(ctx context.Context, repo string, dgsts []digest.Digest) ([]manifest.Record, error) {
	s.look(dgsts...)
	return s.Store.Describe(ctx, repo, dgsts)
}

func TestStoresAreNotAskedForChildrenThatNoneHolds(t *testing.T) {
	h := NewMemory()
	h.Manifests = computable{h.Manifests.(*memmanifest.Store), t}
	h.Pusher.Sparse = true
	child := ocispec.Descriptor{MediaType: manifest.MediaTypeImage, Digest: digest.Digest("blake3:" + digest.FromString("child").Encoded()), Size: 2}
	raw, desc, err := manifest.IndexDraft{Manifests: []ocispec.Descriptor{child}}.Build()
	if err != nil {
		t.Fatal(err)
	}
	serve(t, h).put("app/manifests/v1", raw, 201, "")
	images := h.Images()
	listed, _, err := Page(images.Describe(t.Context(), "app", ImageFilter{}, ""), 10)
	if err != nil {
		t.Fatal(err)
	}
	found, err := images.Find(t.Context(), "app", ImageID{Digest: desc.Digest})
	if err != nil {
		t.Fatal(err)
	}
	if len(listed) != 1 || len(found) != 1 || !listed[0].Incomplete || !found[0].Incomplete {
		t.Errorf("listed %+v, found %+v", listed, found)
	}
}
