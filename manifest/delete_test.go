package manifest_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/manifest/memmanifest"
)

type deletionCase struct {
	ID, Why string
	Images  map[digest.Digest]struct {
		Tags     []string
		Children []digest.Digest
		Subject  digest.Digest
		Status   string
	}
	ImageIDs []manifest.ImageID
	Expect   struct {
		ImageIDs           []manifest.ImageID
		Failures           []manifest.DeleteFailure
		ImagesAfter        map[digest.Digest][]string `json:"images_after"`
		ImagesAfterReaping map[digest.Digest][]string `json:"images_after_reaping"`
	}
}

func deletionVectors(t *testing.T) {
	for _, c := range readSet[deletionCase](t, "batch-delete") {
		t.Run("batch-delete/"+c.ID, func(t *testing.T) {
			ctx, s := t.Context(), new(memmanifest.Store)
			put := manifest.Change{At: day}
			for d, im := range c.Images {
				put.Put = append(put.Put, manifest.Record{Desc: ocispec.Descriptor{MediaType: manifest.MediaTypeImage, Digest: d}, Raw: []byte("{}"), Subject: im.Subject, Manifests: im.Children})
				for _, tag := range im.Tags {
					put.Tags = append(put.Tags, manifest.TagMove{Name: tag, To: d})
				}
				if im.Status == "ARCHIVED" {
					put.Classes = append(put.Classes, manifest.ClassMove{Digest: d, To: manifest.Archive})
				}
			}
			if err := s.Apply(ctx, "r", put); err != nil {
				t.Fatal(err)
			}
			d := &manifest.Deleter{Store: s, Now: func() time.Time { return day.Add(time.Hour) }}
			got, err := d.DeleteBatch(ctx, "r", c.ImageIDs)
			if err != nil {
				t.Fatal(err)
			}
			same(t, "imageIds", got.Deleted, c.Expect.ImageIDs)
			var fails, want []string
			for _, f := range got.Failures {
				if f.Reason == "" || f.Err == nil {
					t.Errorf("%v has no reason", f.ID)
				}
				fails = append(fails, fmt.Sprint(f.ID, f.Code))
			}
			for _, f := range c.Expect.Failures {
				want = append(want, fmt.Sprint(f.ID, f.Code))
			}
			same(t, "failures", fails, want)
			images(t, s, c.Expect.ImagesAfter)
			if c.Expect.ImagesAfterReaping != nil {
				o := manifest.UntaggedOptions{Orphans: true, Confirm: true, Grace: time.Hour, Now: func() time.Time { return day.Add(25 * time.Hour) }}
				for range c.Images {
					if _, err := manifest.CollectUntagged(ctx, s, "r", o); err != nil {
						t.Fatal(err)
					}
				}
				images(t, s, c.Expect.ImagesAfterReaping)
			}
		})
	}
}

func same[T any](t *testing.T, what string, got, want []T) {
	t.Helper()
	text := func(list []T) string {
		var out []string
		for _, v := range list {
			out = append(out, fmt.Sprint(v))
		}
		slices.Sort(out)
		return strings.Join(out, "\n")
	}
	if g, w := text(got), text(want); g != w {
		t.Errorf("%s are\n%s\nwant\n%s", what, g, w)
	}
}

// images fails the test unless the repository has just these, with their tags.
func images(t *testing.T, s manifest.Store, want map[digest.Digest][]string) {
	t.Helper()
	got := map[digest.Digest][]string{}
	for rec, err := range s.Manifests(t.Context(), "r", "") {
		if err != nil {
			t.Fatal(err)
		}
		got[rec.Desc.Digest] = []string{}
	}
	for tag, err := range s.Tags(t.Context(), "r", "") {
		if err != nil {
			t.Fatal(err)
		}
		got[tag.Digest] = append(got[tag.Digest], tag.Name)
	}
	if !maps.EqualFunc(got, want, slices.Equal) {
		t.Errorf("images are %v, want %v", got, want)
	}
}

// tagged returns a store with images, each with so many tags, and their digests.
func tagged(t testing.TB, tags ...int) (*memmanifest.Store, []digest.Digest) {
	s := new(memmanifest.Store)
	var dgsts []digest.Digest
	for i, n := range tags {
		raw, desc, err := manifest.IndexDraft{Annotations: map[string]string{"i": fmt.Sprint(i)}}.Build()
		if err != nil {
			t.Fatal(err)
		}
		in := manifest.PushRequest{Raw: raw}
		for j := range n {
			in.Tags = append(in.Tags, fmt.Sprintf("t%d-%d", i, j))
		}
		if _, err := (&manifest.Pusher{Store: s}).Push(t.Context(), "r", in); err != nil {
			t.Fatal(err)
		}
		dgsts = append(dgsts, desc.Digest)
	}
	return s, dgsts
}

// TestDeletionsTellAllThatGoes: the Change of a deletion names each tag, however
// many there are.
func TestDeletionsTellAllThatGoes(t *testing.T) {
	for _, n := range []int{0, 1, 8, 9, 40} {
		s, dgsts := tagged(t, n, 3)
		var events []manifest.Event
		d := &manifest.Deleter{Store: s, OnCommit: func(_ context.Context, e manifest.Event) { events = append(events, e) }}
		gone, err := d.Delete(t.Context(), "r", manifest.ImageID{Digest: dgsts[0]})
		if err != nil || len(gone) != max(n, 1) {
			t.Fatalf("%d tags: %v, %v", n, gone, err)
		}
		if c := events[0].Change; len(events) != 1 || len(c.Tags) != n || len(c.Known) != 1 || c.Known[0].Raw != nil || c.Known[0].Desc.Digest != dgsts[0] {
			t.Errorf("%d tags: the events are %v", n, events)
		}
		if left, _ := s.Resolve(t.Context(), "r", "t1-0"); left.Digest != dgsts[1] {
			t.Error("another image lost its tag")
		}
	}
}

func TestUntagLeavesTheImage(t *testing.T) {
	s, dgsts := tagged(t, 1, 1)
	d := &manifest.Deleter{Store: s}
	for _, c := range []struct {
		tag  string
		from digest.Digest
		want error
	}{
		{"t0-0", dgsts[1], manifest.ErrConflict},
		{"none", "", manifest.ErrNotFound},
		{"none", dgsts[1], manifest.ErrConflict},
		{"none", manifest.Absent, manifest.ErrNotFound},
		{"?", "", manifest.ErrName},
		{"t0-0", "", nil},
		{"t1-0", dgsts[1], nil},
	} {
		if err := d.Untag(t.Context(), "r", c.tag, c.from); !errors.Is(err, c.want) {
			t.Errorf("untag %s from %q: %v, want %v", c.tag, c.from, err, c.want)
		}
	}
	images(t, s, map[digest.Digest][]string{dgsts[0]: {}, dgsts[1]: {}})
}

// TestKeepTagProtects tags, and the images that have them, from each kind of
// deletion.
func TestKeepTagProtects(t *testing.T) {
	s, dgsts := tagged(t, 2, 1)
	d := &manifest.Deleter{Store: s, KeepTag: manifest.TagMutability{Mode: manifest.MutableWithExclusion, Filters: []string{"t0-1"}}.KeepTag}
	protected := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, manifest.ErrRefused) || !errors.Is(err, manifest.ErrTagImmutable) {
			t.Errorf("%s: %v", what, err)
		}
	}
	protected("untag", d.Untag(t.Context(), "r", "t0-1", ""))
	_, err := d.Delete(t.Context(), "r", manifest.ImageID{Tag: "t0-1"})
	protected("by tag", err)
	_, err = d.Delete(t.Context(), "r", manifest.ImageID{Digest: dgsts[0]})
	protected("by digest", err)
	got, err := d.DeleteBatch(t.Context(), "r", []manifest.ImageID{{Digest: dgsts[0]}, {Tag: "t0-0"}, {Digest: dgsts[1]}})
	if err != nil || len(got.Failures) != 1 || got.Failures[0].Code != manifest.FailureTagProtected || len(got.Deleted) != 2 {
		t.Errorf("batch: %+v, %v", got, err)
	}
	images(t, s, map[digest.Digest][]string{dgsts[0]: {"t0-1"}})
}

// TestDeletionsUnderRace: of deletions of all tags of an image, at once with those
// who tag it, the last one takes the image along, or it has a tag: it is never left
// without.
func TestDeletionsUnderRace(t *testing.T) {
	for round := range 50 {
		s, dgsts := tagged(t, 4)
		d := &manifest.Deleter{Store: s}
		var all sync.WaitGroup
		start := make(chan bool)
		for i := range 4 {
			all.Go(func() {
				<-start
				if _, err := d.Delete(t.Context(), "r", manifest.ImageID{Tag: fmt.Sprintf("t0-%d", i)}); err != nil {
					t.Errorf("round %d: %v", round, err)
				}
			})
		}
		all.Go(func() {
			<-start
			err := s.Apply(t.Context(), "r", manifest.Change{Tags: []manifest.TagMove{{Name: "late", To: dgsts[0]}}})
			if err != nil && !errors.Is(err, manifest.ErrMissing) {
				t.Error(err)
			}
		})
		close(start)
		all.Wait()
		if left := contents(t, s); left != "" && !strings.Contains(left, "late") {
			t.Fatalf("round %d: left without a tag: %s", round, left)
		}
	}
}

// brokenStore fails every Apply.
type brokenStore struct{ manifest.Store }

var errBroken = errors.New("broken")

func (brokenStore) Apply(context.Context, string, manifest.Change) error { return errBroken }

func TestBatchErrors(t *testing.T) {
	s, dgsts := tagged(t, 1)
	d := &manifest.Deleter{Store: s}
	for _, c := range []struct {
		repo string
		ids  []manifest.ImageID
		want error
	}{
		{"r", nil, manifest.ErrBatch},
		{"r", make([]manifest.ImageID, 101), manifest.ErrBatch},
		{"R", make([]manifest.ImageID, 1), manifest.ErrName},
	} {
		if got, err := d.DeleteBatch(t.Context(), c.repo, c.ids); !errors.Is(err, c.want) || len(got.Failures) > 0 {
			t.Errorf("%d in %s: %+v, %v", len(c.ids), c.repo, got, err)
		}
	}
	d.Store = brokenStore{s}
	got, err := d.DeleteBatch(t.Context(), "r", []manifest.ImageID{{Tag: "none"}, {Digest: dgsts[0]}, {Tag: "none"}})
	if !errors.Is(err, errBroken) || len(got.Failures) != 1 || manifest.ExceptionName(err) != "ServerException" {
		t.Errorf("a broken store: %+v, %v", got, err)
	}
}

func ExampleDeleter() {
	ctx, store := context.Background(), new(memmanifest.Store)
	raw, _, _ := manifest.IndexDraft{}.Build()
	p := manifest.Pusher{Store: store}
	if _, err := p.Push(ctx, "team/app", manifest.PushRequest{Raw: raw, Tags: []string{"v1", "latest"}}); err != nil {
		fmt.Println(err)
	}
	d := manifest.Deleter{Store: store}
	for _, tag := range []string{"v1", "latest"} { // the last tag takes the image along
		gone, err := d.Delete(ctx, "team/app", manifest.ImageID{Tag: tag})
		fmt.Println(gone[0].Tag, err)
	}
	fmt.Println(d.Untag(ctx, "team/app", "latest", ""))
	// Output:
	// v1 <nil>
	// latest <nil>
	// untag latest in team/app: resolve latest in team/app: manifest or tag not found
}

func ExampleDeleter_DeleteBatch() {
	ctx, store := context.Background(), new(memmanifest.Store)
	raw, _, _ := manifest.IndexDraft{}.Build()
	p := manifest.Pusher{Store: store}
	if _, err := p.Push(ctx, "team/app", manifest.PushRequest{Raw: raw, Tags: []string{"v1"}}); err != nil {
		fmt.Println(err)
	}
	d := manifest.Deleter{Store: store}
	result, err := d.DeleteBatch(ctx, "team/app", []manifest.ImageID{{Tag: "v1"}, {Tag: "v2"}})
	answer, _ := json.MarshalIndent(result, "", " ")
	fmt.Println(string(answer), err)
	// Output:
	// {
	//  "imageIds": [
	//   {
	//    "imageDigest": "sha256:dff9de10919148711140d349bf03f1a99eb06f94b03e51715ccebfa7cdc518e2",
	//    "imageTag": "v1"
	//   }
	//  ],
	//  "failures": [
	//   {
	//    "imageId": {
	//     "imageTag": "v2"
	//    },
	//    "failureCode": "ImageNotFound",
	//    "failureReason": "the image is not in the repository"
	//   }
	//  ]
	// } <nil>
}
