package wharfage

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"math"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/manifest/manifesttest"
	"github.com/wharfage/wharfage/manifest/memmanifest"
)

// attach returns an index that refers to subject.
func attach(t *testing.T, name string, subject digest.Digest, size int) ([]byte, digest.Digest) {
	t.Helper()
	raw, desc, err := manifest.IndexDraft{ArtifactType: "application/spdx+json", Annotations: map[string]string{"name": name},
		Subject: &ocispec.Descriptor{MediaType: manifest.MediaTypeIndex, Digest: subject, Size: int64(size)}}.Build()
	if err != nil {
		t.Fatal(err)
	}
	return raw, desc.Digest
}

// listed returns the digests of a list of referrers, page by page, in order.
func (s site) listed(path string) (out []digest.Digest) {
	s.Helper()
	for url := s.url + path; url != ""; {
		resp, answer := send(s.T, "GET", url, nil)
		var list ocispec.Index
		if err := json.Unmarshal(answer, &list); err != nil || resp.StatusCode != http.StatusOK {
			s.Fatalf("%s: %s %s", url, resp.Status, answer)
		}
		for _, d := range list.Manifests {
			out = append(out, d.Digest)
		}
		next, _, _ := strings.Cut(strings.TrimPrefix(resp.Header.Get("Link"), "<"), ">")
		if url = ""; next != "" {
			url = strings.TrimSuffix(s.url, "/v2/") + next
		}
	}
	return out
}

func sameDigests(got, want []digest.Digest) bool {
	return slices.IsSorted(got) && slices.Equal(got, slices.Sorted(slices.Values(want)))
}

func TestWhatIsInTheArchiveIsNotPulled(t *testing.T) {
	for _, immutable := range []bool{false, true} {
		h := NewMemory()
		h.HideArchived = true
		h.Pusher.MoveTag = manifest.TagMutability{}.MoveTag
		if immutable {
			h.Pusher.MoveTag = manifest.TagMutability{Mode: manifest.Immutable}.MoveTag
		}
		s := serve(t, h)
		raw, dgst := index(t, "1")
		sbom, sbomDigest := attach(t, "sbom", dgst, len(raw))
		signature, signatureDigest := attach(t, "signature", dgst, len(raw))
		s.put("app/manifests/v1", raw, 201, "")
		s.put("app/manifests/"+string(sbomDigest), sbom, 201, "")
		s.put("app/manifests/"+string(signatureDigest), signature, 201, "")
		move := func(to manifest.StorageClass) {
			t.Helper()
			c := manifest.Change{Classes: []manifest.ClassMove{{Digest: dgst, To: to}, {Digest: sbomDigest, To: to}}, At: h.now()}
			if err := h.Manifests.Apply(t.Context(), "app", c); err != nil {
				t.Fatal(err)
			}
		}
		seen := func(status int, part string, referrers ...digest.Digest) {
			t.Helper()
			for _, ref := range []string{"v1", string(dgst)} {
				s.does("GET", "app/manifests/"+ref, nil, status, part)
				s.does("HEAD", "app/manifests/"+ref, nil, status, "")
				s.does("GET", "app/manifests/"+ref, nil, status, part, "If-None-Match", `"`+string(dgst)+`"`)
			}
			s.does("GET", "app/tags/list", nil, 200, `["v1"]`)
			for _, query := range []string{"", "?artifactType=application/spdx%2Bjson"} {
				got := s.listed("app/referrers/" + string(dgst) + query)
				if !sameDigests(got, referrers) {
					t.Errorf("referrers%s are %q, want %q", query, got, referrers)
				}
			}
		}
		s.does("GET", "app/manifests/v1", nil, 200, "")
		move(manifest.Archive)
		seen(404, "MANIFEST_UNKNOWN", signatureDigest)
		s.does("GET", "app/manifests/v1", nil, 404, "in the archive")
		if d := gather(t, h.Images().Describe(t.Context(), "app", ImageFilter{Status: ImageArchived}, "")); len(d) != 2 {
			t.Errorf("%d images are in the archive, want 2", len(d))
		}
		s.put("app/manifests/v1", raw, 201, "")
		s.does("GET", "app/manifests/v1", nil, 200, `"name":"1"`)
		s.does("GET", "app/manifests/"+string(sbomDigest), nil, 404, "MANIFEST_UNKNOWN")
		move(manifest.Archive)
		h.HideArchived = false
		s.does("GET", "app/manifests/"+string(dgst), nil, 200, `"name":"1"`)
		s.does("HEAD", "app/manifests/v1", nil, 200, "")
		if got := s.listed("app/referrers/" + string(dgst)); !sameDigests(got, []digest.Digest{sbomDigest, signatureDigest}) {
			t.Errorf("without HideArchived the referrers are %q", got)
		}
	}
}

// Pages of referrers are found whole although much is left out.
func TestPagesOfReferrersSkipTheArchive(t *testing.T) {
	h := NewMemory()
	h.HideArchived = true
	h.Limits.PageItems = 7
	s := serve(t, h)
	raw, dgst := index(t, "1")
	s.put("app/manifests/v1", raw, 201, "")
	var active []digest.Digest
	c := manifest.Change{At: h.now()}
	for i := range 100 {
		raw, d := attach(t, string(rune('a'+i%26))+string(rune('a'+i/26)), dgst, len(raw))
		s.put("app/manifests/"+string(d), raw, 201, "")
		if i%10 == 0 {
			active = append(active, d)
		} else {
			c.Classes = append(c.Classes, manifest.ClassMove{Digest: d, To: manifest.Archive})
		}
	}
	if err := h.Manifests.Apply(t.Context(), "app", c); err != nil {
		t.Fatal(err)
	}
	if got := s.listed("app/referrers/" + string(dgst)); !sameDigests(got, active) {
		t.Errorf("referrers are %q, want %q", got, active)
	}
}

// lookups counts the manifests that are looked up.
type lookups struct {
	*memmanifest.Store
	n, most int // in all, and in one step
}

func (l *lookups) Describe(ctx context.Context, repo string, dgsts []digest.Digest) ([]manifest.Record, error) {
	l.n, l.most = l.n+len(dgsts), max(l.most, len(dgsts))
	return manifest.Describe(ctx, l.Store, repo, dgsts)
}

// TestAPageLooksUpWhatItShows, and the one that tells of a next page, but not what lies behind.
func TestAPageLooksUpWhatItShows(t *testing.T) {
	h := NewMemory()
	l := &lookups{Store: h.Manifests.(*memmanifest.Store)}
	h.Manifests, h.HideArchived = l, true
	s := serve(t, h)
	raw, dgst := index(t, "1")
	s.put("app/manifests/v1", raw, 201, "")
	for i := range 100 {
		raw, d := attach(t, string(rune('a'+i%26))+string(rune('a'+i/26)), dgst, len(raw))
		s.put("app/manifests/"+string(d), raw, 201, "")
	}
	for _, n := range []int{1, 20, 50} {
		l.n = 0
		s.does("GET", fmt.Sprintf("app/referrers/%s?n=%d", dgst, n), nil, 200, "")
		if l.n != n+1 {
			t.Errorf("a page of %d looks up %d manifests, want %d", n, l.n, n+1)
		}
	}
	s.does("GET", fmt.Sprintf("app/referrers/%s?n=%d", dgst, math.MaxInt), nil, 200, "")
}

// TestLongEntriesAreReadAFewAtATime: an entry can be as long as a document.
func TestLongEntriesAreReadAFewAtATime(t *testing.T) {
	h := NewMemory()
	l := &lookups{Store: h.Manifests.(*memmanifest.Store)}
	h.Manifests, h.HideArchived = l, true
	subject := digest.FromString("subject")
	const entries, size = 60, 512 << 10
	for i := range entries {
		if err := l.Apply(t.Context(), "app", manifest.Change{Put: []manifest.Record{{
			Desc:    ocispec.Descriptor{MediaType: manifest.MediaTypeIndex, Digest: digest.FromString(fmt.Sprint(i)), Annotations: map[string]string{"long": strings.Repeat("x", size)}},
			Subject: subject,
		}}}); err != nil {
			t.Fatal(err)
		}
	}
	const page = 4 << 20 / size
	s := serve(t, h)
	s.does("GET", fmt.Sprintf("app/referrers/%s?n=1000", subject), nil, 200, "")
	if l.n > 3*page {
		t.Errorf("a page of some %d long referrers looks up %d", page, l.n)
	}
	read := 0
	images := Images{Manifests: countsRead{l, &read}, Referrers: l}
	for what, list := range map[string]func(yield func()) error{
		"Describe": func(yield func()) error {
			for _, err := range images.Describe(t.Context(), "app", ImageFilter{}, "") {
				if err != nil {
					return err
				}
				yield()
			}
			return nil
		},
		"ImageReferrers": func(yield func()) error {
			for _, err := range images.ImageReferrers(t.Context(), "app", subject, ReferrerFilter{}, "") {
				if err != nil {
					return err
				}
				yield()
			}
			return nil
		},
	} {
		read, l.n = 0, 0
		yielded := 0
		if err := list(func() {
			if ahead := max(read, l.n) - yielded; ahead > 2*page {
				t.Errorf("%s is %d long entries ahead", what, ahead)
			}
			yielded++
		}); err != nil || yielded != entries {
			t.Errorf("%s lists %d of %d, %v", what, yielded, entries, err)
		}
	}
}

// Nor does an index that lists many of them have them all looked up at once.
func TestLongChildrenAreLookedUpAFewAtATime(t *testing.T) {
	h := NewMemory()
	l := &lookups{Store: h.Manifests.(*memmanifest.Store)}
	const children, size = 60, 512 << 10
	index := manifest.Record{Desc: ocispec.Descriptor{MediaType: manifest.MediaTypeIndex, Digest: digest.FromString("index"), Size: 1}}
	for i := range children {
		long := manifest.Record{Desc: ocispec.Descriptor{
			MediaType: manifest.MediaTypeIndex, Digest: digest.FromString(fmt.Sprint(i)), Size: size, Annotations: map[string]string{"long": strings.Repeat("x", size)},
		}}
		if err := l.Apply(t.Context(), "app", manifest.Change{Put: []manifest.Record{long}}); err != nil {
			t.Fatal(err)
		}
		index.Manifests = append(index.Manifests, long.Desc.Digest)
	}
	if err := l.Apply(t.Context(), "app", manifest.Change{Put: []manifest.Record{index}, Tags: []manifest.TagMove{{Name: "v1", To: index.Desc.Digest}}}); err != nil {
		t.Fatal(err)
	}
	images := Images{Manifests: l, Blobs: h.Blobs}
	n := 0
	for image, err := range images.Describe(t.Context(), "app", ImageFilter{Tags: Tagged}, "") {
		if n++; err != nil || image.StoredSize != children*size+1 || image.Incomplete {
			t.Errorf("%+v, %v", image, err)
		}
	}
	if n != 1 || l.n != children || l.most > 4<<20/size {
		t.Errorf("%d images; %d children were looked up, %d at once", n, l.n, l.most)
	}
}

// countsRead counts the manifests that are listed.
type countsRead struct {
	manifest.Reader
	n *int
}

func (r countsRead) Manifests(ctx context.Context, repo string, after digest.Digest) iter.Seq2[manifest.Record, error] {
	return func(yield func(manifest.Record, error) bool) {
		for rec, err := range r.Reader.Manifests(ctx, repo, after) {
			if *r.n++; !yield(rec, err) {
				return
			}
		}
	}
}

func (r countsRead) Describe(ctx context.Context, repo string, dgsts []digest.Digest) ([]manifest.Record, error) {
	return manifest.Describe(ctx, r.Reader, repo, dgsts)
}

// A HEAD asks the store as often as it does without HideArchived.
func TestAHeadCostsNothingMore(t *testing.T) {
	calls := map[bool]int{}
	for _, hide := range []bool{false, true} {
		h := NewMemory()
		f := new(manifesttest.Fault)
		h.Manifests, h.HideArchived = manifesttest.Faulty(h.Manifests, f), hide
		s := serve(t, h)
		raw, _ := index(t, "1")
		s.put("app/manifests/v1", raw, 201, "")
		before := f.Calls()
		s.does("HEAD", "app/manifests/v1", nil, 200, "")
		calls[hide] = f.Calls() - before
	}
	if calls[true] != calls[false] {
		t.Errorf("%d calls, want %d", calls[true], calls[false])
	}
}
