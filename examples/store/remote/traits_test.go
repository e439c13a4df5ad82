package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage"
	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/replication"
)

// counted records requests, with the digests in them left out.
type counted struct {
	next http.Handler
	mu   sync.Mutex
	seen []string
}

func (c *counted) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	what := r.Method
	switch {
	case r.URL.Query().Has("mount"):
		what += " mount"
	case strings.Contains(r.URL.Path, "/referrers/"):
		what += " referrers"
	case strings.Contains(r.URL.Path, "/manifests/sha256-"):
		what += " list"
	}
	if m := r.Header.Get("If-Match") + r.Header.Get("If-None-Match"); m != "" {
		what += " if"
	}
	c.seen = append(c.seen, what)
	c.mu.Unlock()
	c.next.ServeHTTP(w, r)
}

// take returns what was seen since the last call.
func (c *counted) take() (seen []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	seen, c.seen = c.seen, nil
	return seen
}

func requests(t *testing.T, c *counted, want ...string) {
	t.Helper()
	if got := c.take(); !slices.Equal(got, want) {
		t.Errorf("requests %q, want %q", got, want)
	}
}

func receive(t *testing.T, r *Registry, repo, content string, from ...string) replication.Received {
	t.Helper()
	done, err := r.Target().Blobs.(replication.Receiver).Receive(t.Context(), repo, describe(content), from, func(_ context.Context, off int64) (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader(content[off:])), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return done
}

// One request asks, mounts, or begins; where a registry mounts nothing from a
// repository to itself, that is found out once.
func TestReceiveAsksOnce(t *testing.T) {
	c := &counted{next: wharfage.NewMemory()}
	r := serve(t, c)
	receive(t, r, "a/b", "one")
	requests(t, c, "POST mount", "PUT", "POST mount") // the last one finds out
	receive(t, r, "a/b", "two")
	requests(t, c, "POST mount", "PUT")
	if done := receive(t, r, "a/b", "two"); done != replication.Present {
		t.Error(done)
	}
	requests(t, c, "POST mount")
	if done := receive(t, r, "a/c", "two", "a/none", "a/b"); done != replication.Mounted {
		t.Error(done)
	}
	requests(t, c, "POST mount", "DELETE", "POST mount") // no session is left behind

	for name, form := range map[string]func(w http.ResponseWriter, r *http.Request) bool{
		"refuses":      func(w http.ResponseWriter, r *http.Request) bool { w.WriteHeader(405); return true },
		"never mounts": func(w http.ResponseWriter, r *http.Request) bool { r.URL.RawQuery = ""; return false },
	} {
		t.Run(name, func(t *testing.T) {
			h := wharfage.NewMemory()
			c := &counted{next: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if !r.URL.Query().Has("mount") || !form(w, r) {
					h.ServeHTTP(w, r)
				}
			})}
			r := serve(t, c)
			receive(t, r, "a/b", "one")
			c.take()
			receive(t, r, "a/b", "two")
			requests(t, c, "HEAD", "POST", "PUT")
			if done := receive(t, r, "a/b", "two"); done != replication.Present {
				t.Error(done)
			}
			requests(t, c, "HEAD")
		})
	}
}

// pushReferrer pushes an artifact that refers to subject.
func pushReferrer(r *Registry, subject ocispec.Descriptor, n int) error {
	raw, _, err := manifest.ImageDraft{ArtifactType: "a/sig", Subject: &subject, Annotations: map[string]string{"n": fmt.Sprint(n)}}.Build()
	if err == nil {
		_, err = r.Target().Manifests.Push(context.Background(), "a/b", manifest.PushRequest{Raw: raw})
	}
	return err
}

// Where there is no referrers API, clients that race for one list lose nothing if the
// registry has ETags, and one client loses nothing even if it has none.
func TestFallbackListsUnderRaces(t *testing.T) {
	for _, c := range []struct {
		name    string
		clients int
		hidden  []string
	}{{"ETags, four clients", 4, []string{"Oci-Subject"}}, {"no ETags, one client", 1, []string{"Oci-Subject", "Etag"}}} {
		t.Run(c.name, func(t *testing.T) {
			h := wharfage.NewMemory()
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if strings.Contains(r.URL.Path, "/referrers/") {
					http.NotFound(w, r)
					return
				}
				if slices.Contains(c.hidden, "Etag") { // nor does it know conditions
					r.Header.Del("If-Match")
					r.Header.Del("If-None-Match")
				}
				h.ServeHTTP(without{w, c.hidden}, r)
			}))
			defer server.Close()
			subject := describe("subject")
			subject.MediaType = manifest.MediaTypeImage
			var all sync.WaitGroup
			start := make(chan struct{})
			const each = 8
			clients := make([]*Registry, c.clients)
			for i := range clients {
				clients[i] = &Registry{Host: strings.TrimPrefix(server.URL, "http://")}
				if i == 0 {
					if err := blob.Put(t.Context(), clients[0].Target().Blobs, "a/b", ocispec.DescriptorEmptyJSON, strings.NewReader("{}")); err != nil {
						t.Fatal(err)
					}
				}
				for n := range each {
					all.Go(func() {
						<-start
						if err := pushReferrer(clients[i], subject, i*each+n); err != nil {
							t.Error(err)
						}
					})
				}
			}
			close(start)
			all.Wait()
			got := list(t, clients[0].Source().Referrers, "a/b", subject.Digest)
			if len(got) != c.clients*each {
				t.Fatalf("%d referrers are listed, want %d", len(got), c.clients*each)
			}
		})
	}
}

// A referrer that is deleted is taken off the list.
func TestDeletionOfAReferrer(t *testing.T) {
	r := serve(t, registry.New(quiet))
	subject := describe("subject")
	subject.MediaType = manifest.MediaTypeImage
	if err := blob.Put(t.Context(), r.Target().Blobs, "a/b", ocispec.DescriptorEmptyJSON, strings.NewReader("{}")); err != nil {
		t.Fatal(err)
	}
	for n := range 3 {
		if err := pushReferrer(r, subject, n); err != nil {
			t.Fatal(err)
		}
	}
	all := list(t, r.Source().Referrers, "a/b", subject.Digest)
	_, err := r.Target().Manifests.(replication.Remover).Delete(t.Context(), "a/b", manifest.ImageID{Digest: all[0].Digest})
	if left := list(t, r.Source().Referrers, "a/b", subject.Digest); err != nil || len(all) != 3 || len(left) != 2 || left[0].Digest != all[1].Digest {
		t.Errorf("of %d, %d are left: %v", len(all), len(left), err)
	}
}

// Whether there is a referrers API is asked once.
func TestReferrersAPIIsRemembered(t *testing.T) {
	h := wharfage.NewMemory()
	c := &counted{next: handlers["no referrers API"](h)}
	r := serve(t, c)
	subject := describe("subject")
	subject.MediaType = manifest.MediaTypeImage
	if err := blob.Put(t.Context(), r.Target().Blobs, "a/b", ocispec.DescriptorEmptyJSON, strings.NewReader("{}")); err != nil {
		t.Fatal(err)
	}
	c.take()
	list(t, r.Source().Referrers, "a/b", subject.Digest)
	requests(t, c, "GET referrers", "GET list")
	list(t, r.Source().Referrers, "a/b", subject.Digest)
	requests(t, c, "GET list")
	if err := pushReferrer(r, subject, 1); err != nil {
		t.Fatal(err)
	}
	requests(t, c, "PUT", "GET list", "PUT list if")
	if err := pushReferrer(r, subject, 2); err != nil {
		t.Fatal(err)
	}
	requests(t, c, "PUT", "GET list", "PUT list if")

	c = &counted{next: wharfage.NewMemory()} // with the API there is no list to write
	r = serve(t, c)
	if err := blob.Put(t.Context(), r.Target().Blobs, "a/b", ocispec.DescriptorEmptyJSON, strings.NewReader("{}")); err != nil {
		t.Fatal(err)
	}
	c.take()
	if err := pushReferrer(r, subject, 1); err != nil {
		t.Fatal(err)
	}
	requests(t, c, "PUT")
}

// What an interrupted Append has left at the registry is not sent again.
func TestAppendGoesOnFromWhereTheRegistryIs(t *testing.T) {
	h := wharfage.NewMemory()
	var sent atomic.Int64
	var lose atomic.Bool
	r := serve(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Method == http.MethodPatch && req.ContentLength > 0 {
			sent.Add(req.ContentLength)
			if lose.Swap(false) { // the answer, not the content
				h.ServeHTTP(httptest.NewRecorder(), req)
				panic(http.ErrAbortHandler)
			}
		}
		h.ServeHTTP(w, req)
	}))
	uploads := r.Target().Blobs.(blob.Uploads)
	u, err := uploads.Begin(t.Context(), "a/b", digest.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	if u, err = blob.Append(t.Context(), uploads, u, 0, strings.NewReader("one ")); err != nil {
		t.Fatal(err)
	}
	lose.Store(true)
	_, err = blob.Append(t.Context(), uploads, u, 4, strings.NewReader("two "))
	if _, temporary := errors.AsType[*replication.TemporaryError](err); !temporary {
		t.Fatalf("error %v", err)
	}
	sent.Store(0)
	next, err := blob.Append(t.Context(), uploads, u, 4, strings.NewReader("two three "))
	if err != nil || next.Size != 14 {
		t.Fatal(next.Size, err)
	}
	if sent.Load() != 10+6 { // refused with its content, and then what was missing
		t.Errorf("%d bytes were sent", sent.Load())
	}
	if err := blob.Finish(t.Context(), uploads, next, 14, strings.NewReader("four"), digest.FromString("one two three four")); err != nil {
		t.Error(err)
	}
	if _, err := uploads.Append(t.Context(), u, strings.NewReader("x")); !errors.Is(err, blob.ErrUploadNotFound) {
		t.Errorf("error %v after its end", err)
	}
	other, err := uploads.Begin(t.Context(), "a/b", digest.SHA512)
	if err != nil {
		t.Fatal(err)
	}
	behind := other
	behind.Size = 5
	if _, err := uploads.Append(t.Context(), behind, strings.NewReader("x")); !errors.Is(err, blob.ErrConflict) {
		t.Errorf("error %v where the registry has less", err)
	}
	if err := blob.Finish(t.Context(), uploads, other, 0, strings.NewReader("x"), digest.SHA512.FromString("x")); err != nil {
		t.Error(err)
	}
	gone, err := uploads.Begin(t.Context(), "a/b", digest.SHA256)
	if err == nil {
		err = uploads.Abort(t.Context(), gone)
	}
	if _, e := uploads.Lookup(t.Context(), "a/b", gone.ID); err != nil || !errors.Is(e, blob.ErrUploadNotFound) {
		t.Errorf("%v, %v after Abort", err, e)
	}
}

// Open keeps to the range asked for, also where the registry does not know ranges.
func TestRanges(t *testing.T) {
	h := wharfage.NewMemory()
	for name, form := range map[string]http.Handler{"ranges": h, "none": handlers["the least of an API"](h)} {
		r := serve(t, form)
		if err := blob.Put(t.Context(), r.Target().Blobs, "a/b", describe("0123456789"), strings.NewReader("0123456789")); err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			off, n int64
			want   string
		}{{0, -1, "0123456789"}, {3, -1, "3456789"}, {3, 4, "3456"}, {3, 100, "3456789"}, {0, 0, ""}, {9, 1, "9"}, {10, -1, ""}, {10, 0, ""}, {10, 5, ""}, {3, 0, ""}} {
			content, info, err := r.Source().Blobs.Open(t.Context(), "a/b", digest.FromString("0123456789"), c.off, c.n)
			if err != nil {
				t.Errorf("%s: %d, %d: %v", name, c.off, c.n, err)
				continue
			}
			got, err := io.ReadAll(content)
			content.Close()
			if err != nil || string(got) != c.want || info.Size != 10 {
				t.Errorf("%s: %d, %d: %q of %d, want %q: %v", name, c.off, c.n, got, info.Size, c.want, err)
			}
		}
		if _, _, err := r.Source().Blobs.Open(t.Context(), "a/b", digest.FromString("0123456789"), 11, -1); !errors.Is(err, blob.ErrRange) {
			t.Errorf("%s: error %v, want blob.ErrRange", name, err)
		}
	}
	lies := 0
	r := fake(func(req *http.Request) *http.Response {
		lies++
		return text(206, "xxx", "Content-Range", []string{"bytes 4-6/10", "bytes x-6/10", "4-6", "", "bytes -5-6/10", "bytes 3-5/10"}[(lies-1)%6])
	})
	for range 6 {
		if _, _, err := r.Source().Blobs.Open(t.Context(), "a/b", emptyDigest, 3, -1); !errors.Is(err, replication.ErrContent) {
			t.Errorf("error %v, want ErrContent", err)
		}
	}
}

// Conditions of tags hold where the registry knows them; sha512 and many tags are one request
// where it can be.
func TestPushes(t *testing.T) {
	c := &counted{next: wharfage.NewMemory()}
	r := serve(t, c)
	m := r.Target().Manifests
	push := func(in manifest.PushRequest) error {
		_, err := m.Push(t.Context(), "a/b", in)
		return err
	}
	other, _, _ := manifest.IndexDraft{ArtifactType: "a/b"}.Build()
	if err := push(manifest.PushRequest{Raw: []byte(empty), Tags: []string{"v1"}, From: manifest.Absent}); err != nil {
		t.Fatal(err)
	}
	requests(t, c, "HEAD", "PUT if")
	conflict := push(manifest.PushRequest{Raw: other, Tags: []string{"v1"}, From: manifest.Absent})
	if e, ok := errors.AsType[*manifest.ConflictError](conflict); !ok || e.Have != emptyDigest {
		t.Errorf("error %v", conflict)
	}
	if err := push(manifest.PushRequest{Raw: other, Tags: []string{"v1"}, From: emptyDigest}); err != nil {
		t.Error(err)
	}
	c.take()
	if err := push(manifest.PushRequest{Raw: other, Tags: []string{"v3", "v2", "v2"}}); err != nil {
		t.Error(err)
	}
	requests(t, c, "PUT")
	sha512 := digest.SHA512.FromBytes(other)
	if err := push(manifest.PushRequest{Raw: other, Digest: sha512, Tags: []string{"long"}}); err != nil {
		t.Error(err)
	}
	requests(t, c, "PUT")
	if tag, err := m.Resolve(t.Context(), "a/b", "long"); err != nil || tag.Digest != sha512 {
		t.Errorf("%+v, %v", tag, err)
	}
	if rec, err := r.Source().Manifests.Get(t.Context(), "a/b", sha512); err != nil || string(rec.Raw) != string(other) || rec.PushedAt.IsZero() {
		t.Errorf("%+v, %v", rec, err)
	}
	if err := push(manifest.PushRequest{Raw: other, Digest: emptyDigest}); !errors.Is(err, manifest.ErrDigest) {
		t.Errorf("error %v", err)
	}
	missing, _, _ := manifest.IndexDraft{Manifests: []ocispec.Descriptor{{MediaType: manifest.MediaTypeImage, Digest: digest.FromString("x"), Size: 1}}}.Build()
	if err := push(manifest.PushRequest{Raw: missing}); !errors.Is(err, manifest.ErrMissing) {
		t.Errorf("error %v", err)
	}
	var repos []string
	for repo, err := range m.(manifest.Catalog).Repos(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		repos = append(repos, repo)
	}
	if !slices.Equal(repos, []string{"a/b"}) {
		t.Errorf("repositories %q", repos)
	}
}

func TestNextPage(t *testing.T) {
	for in, want := range map[string]string{
		`</v2/x?n=1&last=a>; rel="next"`:     "/v2/x?n=1&last=a",
		`</a>; rel=next`:                     "/a",
		`</a>; title="x"; REL="next"`:        "/a",
		`</p>; rel="prev", </n>; rel="next"`: "/n",
		`</p>; rel="prev"`:                   "",
		`</p,q>; rel="next"`:                 "/p,q",
		`</a>`:                               "",
		`/a; rel="next"`:                     "",
		`</a; rel="next"`:                    "",
		``:                                   "",
	} {
		if got := nextPage([]string{in}); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
