package wharfage

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/replication"
)

func TestAuthorizeIsAskedFirst(t *testing.T) {
	h := NewMemory()
	var asked []string
	h.Authorize = func(r *http.Request, repo string, a Action) error {
		asked = append(asked, string(a)+" "+repo)
		switch r.Header.Get("Authorization") {
		case "":
			return &AuthError{Challenge: `Bearer realm="https://auth.example/token"`}
		case "reader":
			if a == ActionPush || a == ActionDelete || repo == "secret" {
				return errors.New("readers read")
			}
		}
		return nil
	}
	server := httptest.NewServer(h)
	defer server.Close()
	blobURL := "/v2/secret/blobs/uploads/?digest=" + string(digest.FromString("x"))
	mount := "/v2/open/blobs/uploads/?mount=" + string(digest.FromString("x"))
	for _, c := range []struct {
		who, method, path string
		status            int
		asked             string
	}{
		{"", "GET", "/v2/", 401, "ping "},
		{"", "DELETE", "/v2/r/manifests/x", 401, "delete r"},
		{"reader", "GET", "/v2/", 200, "ping "},
		{"reader", "GET", "/v2/_catalog", 200, "catalog "},
		{"reader", "PUT", "/v2/r/manifests/x", 403, "push r"},
		{"reader", "DELETE", "/v2/r/blobs/x", 403, "delete r"},
		{"reader", "GET", "/v2/r/tags/list", 404, "pull r"},
		{"writer", "POST", blobURL, 201, "push secret"},
		{"writer", "POST", mount + "&from=secret", 201, "push open,pull secret"},
	} {
		asked = nil
		var header []string
		if c.who != "" {
			header = []string{"Authorization", c.who}
		}
		resp, answer := send(t, c.method, server.URL+c.path, []byte("x"), header...)
		if resp.StatusCode != c.status || strings.Join(asked, ",") != c.asked {
			t.Errorf("%s %s %s: %d %s, asked %q", c.who, c.method, c.path, resp.StatusCode, answer, asked)
		}
		if c.status == 401 && resp.Header.Get("WWW-Authenticate") == "" {
			t.Errorf("%s: no challenge", c.path)
		}
	}
	// Who may not read the source learns nothing from a mount: the answer is that
	// of a source without the blob.
	h.Authorize = func(_ *http.Request, repo string, a Action) error {
		if repo == "secret" {
			return errors.New("no")
		}
		return nil
	}
	for _, path := range []string{mount + "2&from=secret", "/v2/new/blobs/uploads/?mount=" + string(digest.FromString("x")) + "&from=secret", "/v2/new/blobs/uploads/?mount=" + string(digest.FromString("only there"))} {
		if resp, _ := send(t, "POST", server.URL+strings.Replace(path, "2&", "&", 1), nil); resp.StatusCode != 202 && !strings.HasPrefix(path, mount) {
			t.Errorf("%s: %d", path, resp.StatusCode)
		}
	}
}

// A mount tells OnError when Authorize fails, as all else does.
func TestAFailureToAuthorizeIsTold(t *testing.T) {
	h := NewMemory()
	broken := errors.New("the directory of users is down")
	h.Authorize = func(_ *http.Request, repo string, a Action) error {
		switch {
		case repo == "secret":
			return &AuthError{}
		case a == ActionPull:
			return broken
		}
		return nil
	}
	var told []error
	h.OnError = func(_ *http.Request, err error) { told = append(told, err) }
	s := serve(t, h)
	mount := "app/blobs/uploads/?mount=" + string(digest.FromString("x"))
	for path, want := range map[string][]error{"app/tags/list": {broken}, mount + "&from=other": {broken}, mount + "&from=secret": nil} {
		told = nil
		if strings.HasPrefix(path, mount) {
			s.does("POST", path, nil, 202, "")
		} else {
			s.does("GET", path, nil, 403, "")
		}
		if !slices.Equal(told, want) {
			t.Errorf("%s: OnError was told %v, want %v", path, told, want)
		}
	}
}

// A source that is damaged is no fault of who mounts: the answer asks for an upload.
func TestAMountOfADamagedBlobAsksForAnUpload(t *testing.T) {
	h := NewMemory()
	dgst := digest.FromString("x")
	if err := h.Blobs.Put(t.Context(), "damaged", ocispec.Descriptor{Digest: dgst, Size: 1}, strings.NewReader("y")); err != nil {
		t.Fatal(err)
	}
	h.Blobs = struct{ blob.Store }{h.Blobs} // no Mounter: it copies
	var told error
	h.OnError = func(_ *http.Request, err error) { told = err }
	s := serve(t, h)
	s.does("POST", "app/blobs/uploads/?mount="+string(dgst)+"&from=damaged", nil, 202, "")
	if !errors.Is(told, blob.ErrDigest) {
		t.Errorf("OnError was told %v", told)
	}
	s.does("GET", "app/blobs/"+string(dgst), nil, 404, "")
}

func TestLimits(t *testing.T) {
	h := NewMemory()
	h.Limits = Limits{PageBytes: 1000, PageItems: 3, Tags: 4, BlobSize: 10}
	h.Pusher.MaxSize = 600
	server := httptest.NewServer(h)
	defer server.Close()
	raw, desc, _ := manifest.IndexDraft{}.Build()
	put := server.URL + "/v2/r/manifests/" + string(desc.Digest) + "?tag=a&tag=b&tag=c&tag=d"
	if resp, answer := send(t, "PUT", put, raw); resp.StatusCode != 201 {
		t.Errorf("4 tags: %d %s", resp.StatusCode, answer)
	}
	if resp, _ := send(t, "PUT", put+"&tag=e", raw); resp.StatusCode != 414 {
		t.Errorf("5 tags: %d", resp.StatusCode)
	}
	if resp, answer := send(t, "GET", server.URL+"/v2/r/tags/list", nil); resp.Header.Get("Link") == "" || !strings.Contains(string(answer), `["a","b","c"]`) {
		t.Errorf("a page of 3: %s", answer)
	}
	large := []byte(`{"schemaVersion":2,"mediaType":"` + manifest.MediaTypeIndex + `","manifests":[]}` + strings.Repeat(" ", 600))
	for _, length := range []bool{true, false} {
		req, _ := http.NewRequest("PUT", server.URL+"/v2/r/manifests/x", io.NopCloser(strings.NewReader(string(large))))
		if length {
			req.ContentLength = int64(len(large))
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil || resp.StatusCode != 413 {
			t.Errorf("a manifest over the limit, length told %v: %v %v", length, resp, err)
		}
	}
	for _, path := range []string{"?digest=" + string(digest.FromString("12345678901")), ""} {
		resp, answer := send(t, "POST", server.URL+"/v2/r/blobs/uploads/"+path, []byte("12345678901"))
		if path == "" {
			resp, answer = send(t, "PATCH", server.URL+resp.Header.Get("Location"), []byte("12345678901"))
		}
		if resp.StatusCode != 413 {
			t.Errorf("a blob over the limit: %d %s", resp.StatusCode, answer)
		}
	}
	// Chunks count together, also those whose length is not told.
	resp, _ := send(t, "POST", server.URL+"/v2/r/blobs/uploads/", nil)
	for _, want := range []int{202, 413} {
		req, _ := http.NewRequest("PATCH", server.URL+resp.Header.Get("Location"), io.NopCloser(strings.NewReader("123456")))
		resp, err := http.DefaultClient.Do(req)
		if err != nil || resp.StatusCode != want {
			t.Errorf("6 bytes of unknown length: %v %v, want %d", resp, err, want)
		}
	}
	resp, _ = send(t, "POST", server.URL+"/v2/r/blobs/uploads/", nil)
	location := server.URL + resp.Header.Get("Location")
	if resp, _ := send(t, "PATCH", location, []byte("1234567890")); resp.StatusCode != 202 {
		t.Errorf("a blob at the limit: %d", resp.StatusCode)
	}
	if resp, _ := send(t, "PATCH", location, []byte("1")); resp.StatusCode != 413 {
		t.Errorf("a chunk past the limit: %d", resp.StatusCode)
	}
	if resp, _ := send(t, "PUT", location+"?digest="+string(digest.FromString("1234567890")), nil); resp.StatusCode != 201 {
		t.Errorf("close at the limit: %d", resp.StatusCode)
	}
}

// TestMaxSizeIsExact: 4 MiB are taken, one byte more is 413, and neither drops
// the connection, however large the body.
func TestMaxSizeIsExact(t *testing.T) {
	server := httptest.NewServer(NewMemory())
	defer server.Close()
	doc := `{"schemaVersion":2,"mediaType":"` + manifest.MediaTypeIndex + `","manifests":[]}`
	for size, want := range map[int]int{manifest.MaxSize: 201, manifest.MaxSize + 1: 413, 48 << 20: 413} {
		raw := []byte(doc + strings.Repeat(" ", size-len(doc)))
		if resp, answer := send(t, "PUT", server.URL+"/v2/r/manifests/x", raw); resp.StatusCode != want {
			t.Errorf("%d bytes: %d %s", size, resp.StatusCode, answer)
		}
	}
}

// TestReferrersPagesStayUnder4MiB and are all there, each once.
func TestReferrersPagesStayUnder4MiB(t *testing.T) {
	h := NewMemory()
	server := httptest.NewServer(h)
	defer server.Close()
	subject := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("s"), Size: 1}
	const n = 150
	for i := range n {
		raw, _, _ := manifest.IndexDraft{ArtifactType: "a/b", Subject: &subject, Annotations: map[string]string{"n": fmt.Sprint(i), "pad": strings.Repeat("x", 60000)}}.Build()
		if _, err := h.pusher().Push(t.Context(), "r", manifest.PushRequest{Raw: raw}); err != nil {
			t.Fatal(err)
		}
	}
	seen, pages := map[digest.Digest]bool{}, 0
	for next := "/v2/r/referrers/" + string(subject.Digest) + "?artifactType=a/b"; next != ""; pages++ {
		resp, answer := send(t, "GET", server.URL+next, nil)
		if len(answer) >= 4<<20 || resp.Header.Get("OCI-Filters-Applied") != "artifactType" {
			t.Errorf("page %d: %d bytes, %v", pages, len(answer), resp.Header)
		}
		var index ocispec.Index
		if err := json.Unmarshal(answer, &index); err != nil {
			t.Fatal(err)
		}
		for _, d := range index.Manifests {
			seen[d.Digest] = true
		}
		next = ""
		if l := resp.Header.Get("Link"); l != "" {
			next = strings.TrimPrefix(strings.TrimSuffix(l, `>; rel="next"`), "<")
		}
	}
	if len(seen) != n || pages != 3 {
		t.Errorf("%d referrers on %d pages", len(seen), pages)
	}
}

// failing is a store whose every call fails.
type failing struct {
	blob.Store
	manifest.Reader
	err error
}

func (f failing) Stat(context.Context, string, []digest.Digest) ([]blob.Info, error) {
	return nil, f.err
}

func TestStoreFailuresAre5xxWithoutDetails(t *testing.T) {
	for err, want := range map[error]int{errors.New("secret path"): 500, fmt.Errorf("secret path: %w", syscall.ENOSPC): 507} {
		h := NewMemory()
		h.Blobs = failing{Store: h.Blobs, err: err}
		var told error
		h.OnError = func(_ *http.Request, err error) { told = err }
		server := httptest.NewServer(h)
		if resp, _ := send(t, "POST", server.URL+"/v2/r/blobs/uploads/?digest="+string(digest.FromString("{}")), []byte("{}")); resp.StatusCode != 201 {
			t.Fatal(resp.Status)
		}
		raw, _, _ := manifest.ImageDraft{ArtifactType: "a/b"}.Build()
		resp, answer := send(t, "PUT", server.URL+"/v2/r/manifests/x", raw)
		if resp.StatusCode != want || len(answer) == 0 || strings.Contains(string(answer), "secret") || !errors.Is(told, err) {
			t.Errorf("%v: %d %s, told %v", err, resp.StatusCode, answer, told)
		}
		server.Close()
	}
}

// distribution-spec, "Endpoints": an answer 429 should say when to come again. An
// upstream may know.
func TestWhatAnUpstreamAsksForIsPassedOn(t *testing.T) {
	for _, c := range []struct {
		err    error
		status int
		after  string
	}{
		{&replication.TemporaryError{After: 1500 * time.Millisecond, Err: replication.ErrRateLimited}, 429, "2"},
		{&replication.TemporaryError{After: time.Minute, Err: replication.ErrUnavailable}, 503, "60"},
		{&replication.TemporaryError{Err: replication.ErrRateLimited}, 429, ""},
		{replication.ErrUnavailable, 503, ""},
	} {
		h := NewMemory()
		h.Blobs = failing{Store: h.Blobs, err: fmt.Errorf("upstream: %w", c.err)}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("HEAD", "/v2/r/blobs/"+string(digest.FromString("x")), nil))
		if got := w.Header().Get("Retry-After"); w.Code != c.status || got != c.after {
			t.Errorf("%v: %d, Retry-After %q, want %d, %q", c.err, w.Code, got, c.status, c.after)
		}
	}
}

// A change says what it was made for, however it came about.
func TestChangesTellTheirCause(t *testing.T) {
	h := NewMemory()
	h.Cause = func(r *http.Request) (manifest.Cause, []string) {
		return manifest.Cause(r.Header.Get("X-Test-Cause")), []string{"there"}
	}
	var got []manifest.Cause
	h.OnCommit = func(_ context.Context, e manifest.Event) {
		got = append(got, e.Change.Cause)
		if via := e.Change.Via; len(e.Change.Put) > 0 && !slices.Equal(via, []string{"there"}) {
			t.Errorf("a push came through %q", via)
		}
	}
	server := httptest.NewServer(h)
	raw, desc, _ := manifest.IndexDraft{}.Build()
	for _, what := range []struct{ method, path string }{{"PUT", "x"}, {"PUT", "y"}, {"DELETE", "x"}, {"DELETE", string(desc.Digest)}} {
		r, _ := http.NewRequest(what.method, server.URL+"/v2/r/manifests/"+what.path, bytes.NewReader(raw))
		r.Header.Set("X-Test-Cause", "replication")
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	}
	server.Close()
	if want := slices.Repeat([]manifest.Cause{manifest.CauseReplication}, 4); !slices.Equal(got, want) {
		t.Errorf("causes %q, want %q", got, want)
	}
}

func TestNoDeleteIsOneGate(t *testing.T) {
	h := NewMemory()
	h.NoDelete = true
	server := httptest.NewServer(h)
	defer server.Close()
	raw, desc, _ := manifest.IndexDraft{}.Build()
	send(t, "PUT", server.URL+"/v2/r/manifests/x", raw)
	send(t, "POST", server.URL+"/v2/r/blobs/uploads/?digest="+string(digest.FromString("x")), []byte("x"))
	for _, path := range []string{"manifests/x", "manifests/" + string(desc.Digest), "blobs/" + string(digest.FromString("x"))} {
		if resp, _ := send(t, "DELETE", server.URL+"/v2/r/"+path, nil); resp.StatusCode != 405 {
			t.Errorf("%s: %d", path, resp.StatusCode)
		}
	}
	resp, _ := send(t, "POST", server.URL+"/v2/r/blobs/uploads/", nil)
	if resp, _ := send(t, "DELETE", server.URL+resp.Header.Get("Location"), nil); resp.StatusCode != 204 {
		t.Errorf("cancelling one's own upload: %d", resp.StatusCode)
	}
}

// TestARefusalIsAnsweredBeforeTheBodyIsThere: a client that waits for an answer
// before it goes on gets one, and who may not send a body is not asked for it.
func TestARefusalIsAnsweredBeforeTheBodyIsThere(t *testing.T) {
	h := NewMemory()
	h.Authorize = func(r *http.Request, _ string, _ Action) error {
		if r.Header.Get("Authorization") == "" {
			return &AuthError{Challenge: "Basic"}
		}
		return nil
	}
	server := httptest.NewServer(h)
	defer server.Close()
	u, _ := url.Parse(server.URL)
	for _, c := range []struct{ header, want string }{
		{"Authorization: x\r\n", "HTTP/1.1 413"},
		{"", "HTTP/1.1 401"},
		{"Expect: 100-continue\r\n", "HTTP/1.1 401"},
		{"Expect: 100-continue\r\nAuthorization: x\r\n", "HTTP/1.1 413"},
	} {
		conn, err := net.Dial("tcp", u.Host)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(conn, "PUT /v2/r/manifests/x HTTP/1.1\r\nHost: r\r\nContent-Length: 60000000\r\n"+c.header+"\r\n")
		if !strings.Contains(c.header, "Expect") {
			io.WriteString(conn, strings.Repeat("x", 1000))
		}
		line, err := bufio.NewReader(conn).ReadString('\n')
		if err != nil || !strings.HasPrefix(line, c.want) {
			t.Errorf("%q: %q, %v", c.header, line, err)
		}
		conn.Close()
	}
}

func TestOnCommitTellsWhatWasCommitted(t *testing.T) {
	h := NewMemory()
	var events []string
	h.OnCommit = func(_ context.Context, e manifest.Event) {
		events = append(events, fmt.Sprintf("%s +%d tags %d -%d", e.Repo, len(e.Change.Put), len(e.Change.Tags), len(e.Change.Delete)))
	}
	server := httptest.NewServer(h)
	defer server.Close()
	raw, desc, _ := manifest.IndexDraft{}.Build()
	send(t, "PUT", server.URL+"/v2/r/manifests/x", raw)
	send(t, "PUT", server.URL+"/v2/r/manifests/x", []byte("{}"))
	send(t, "DELETE", server.URL+"/v2/r/manifests/nope", nil)
	send(t, "DELETE", server.URL+"/v2/r/manifests/x", nil)
	send(t, "DELETE", server.URL+"/v2/r/manifests/"+string(desc.Digest), nil)
	if got, want := strings.Join(events, "; "), "r +1 tags 1 -0; r +0 tags 1 -0; r +0 tags 0 -1"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestABodyThatEndsEarlyStoresNothing: the client goes away, and the upload is
// where it was.
func TestABodyThatEndsEarlyStoresNothing(t *testing.T) {
	for name, h := range registries(t) {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(h)
			defer server.Close()
			resp, _ := send(t, "POST", server.URL+"/v2/r/blobs/uploads/", nil)
			location := resp.Header.Get("Location")
			send(t, "PATCH", server.URL+location, []byte("hello"))
			u, _ := url.Parse(server.URL)
			for _, request := range []string{
				"PATCH " + location + " HTTP/1.1\r\nHost: r\r\nContent-Length: 100\r\n\r\npart",
				"PATCH " + location + " HTTP/1.1\r\nHost: r\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n",
				"PUT " + location + "?digest=" + string(digest.FromString("hellopart")) + " HTTP/1.1\r\nHost: r\r\nContent-Length: 100\r\n\r\npart",
			} {
				conn, err := net.Dial("tcp", u.Host)
				if err != nil {
					t.Fatal(err)
				}
				io.WriteString(conn, request)
				conn.(*net.TCPConn).CloseWrite()
				if resp, err := http.ReadResponse(bufio.NewReader(conn), nil); err == nil && resp.StatusCode != 400 {
					t.Errorf("%s", resp.Status)
				}
				conn.Close()
			}
			if resp, _ := send(t, "GET", server.URL+location, nil); resp.Header.Get("Range") != "0-4" {
				t.Errorf("the upload is at %s", resp.Header.Get("Range"))
			}
			if resp, answer := send(t, "PUT", server.URL+location+"?digest="+string(digest.FromString("hello")), nil); resp.StatusCode != 201 {
				t.Errorf("close: %d %s", resp.StatusCode, answer)
			}
		})
	}
}

// FuzzRange compares with http.ServeContent, where that reads the same header.
func FuzzRange(f *testing.F) {
	for _, s := range []string{"bytes=0-1", "bytes=-5", "bytes=5-", "bytes=9-1", "bytes=-0", "bytes=0-9223372036854775807"} {
		f.Add(s)
	}
	const content = "0123456789"
	h := NewMemory()
	dgst := digest.FromString(content)
	if err := blob.Put(f.Context(), h.Blobs, "r", ocispec.Descriptor{Digest: dgst, Size: 10}, strings.NewReader(content)); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, s string) {
		req := httptest.NewRequest("GET", "/v2/r/blobs/"+string(dgst), nil)
		req.Header.Set("Range", s)
		got, want := httptest.NewRecorder(), httptest.NewRecorder()
		h.ServeHTTP(got, req)
		switch r := parseRange(s); {
		case r.ok && r.suffix && r.last == 0: // ServeContent answers 206 with no byte, against RFC 9110 14.1.2
			if got.Code != 416 {
				t.Fatalf("%q: %d", s, got.Code)
			}
			return
		case !r.ok:
			if got.Code != 200 || got.Body.String() != content {
				t.Fatalf("%q: %d %s", s, got.Code, got.Body)
			}
			return
		}
		http.ServeContent(want, req, "", time.Time{}, strings.NewReader(content))
		if got.Code != want.Code || got.Code == 206 && (got.Body.String() != want.Body.String() || got.Header().Get("Content-Range") != want.Header().Get("Content-Range")) {
			t.Fatalf("%q: %d %v %s\nServeContent: %d %v %s", s, got.Code, got.Header(), got.Body, want.Code, want.Header(), want.Body)
		}
	})
}

// strictReader fails what no caller may ask of a store.
type strictReader struct {
	blob.Store
	t *testing.T
}

func (s strictReader) Open(ctx context.Context, repo string, dgst digest.Digest, off, n int64) (io.ReadCloser, blob.Info, error) {
	if off < 0 || n < -1 || n > math.MaxInt64-off {
		s.t.Errorf("Open from %d, %d bytes", off, n)
	}
	return s.Store.Open(ctx, repo, dgst, off, n)
}

func TestNoRangeOverflows(t *testing.T) {
	h := NewMemory()
	h.Blobs = strictReader{h.Blobs, t}
	dgst := digest.FromString("hello")
	if err := blob.Put(t.Context(), h.Blobs, "r", ocispec.Descriptor{Digest: dgst, Size: 5}, strings.NewReader("hello")); err != nil {
		t.Fatal(err)
	}
	edges := []string{"0", "1", "4611686018427387904", "4611686018427387910", "9223372036854775806", "9223372036854775807"}
	for i, first := range edges {
		for _, last := range append(edges[i:], "") {
			r, w := httptest.NewRequest("GET", "/v2/r/blobs/"+string(dgst), nil), httptest.NewRecorder()
			r.Header.Set("Range", "bytes="+first+"-"+last)
			h.ServeHTTP(w, r)
			if want := map[bool]int{true: 206, false: 416}[i < 2]; w.Code != want {
				t.Errorf("%s: %d, want %d", r.Header.Get("Range"), w.Code, want)
			}
		}
	}
}

func FuzzContentRange(f *testing.F) {
	for _, s := range []string{"0-0", "5-9", "9-5", "0-9223372036854775807", "0-9223372036854775806", "+1-2", "1--2", "00-01"} {
		f.Add(s)
	}
	form := regexp.MustCompile(`^([0-9]+)-([0-9]+)$`)
	f.Fuzz(func(t *testing.T, s string) {
		first, last, ok := parseContentRange(s)
		m := form.FindStringSubmatch(s)
		want := false
		if m != nil {
			a, _ := new(big.Int).SetString(m[1], 10)
			b, _ := new(big.Int).SetString(m[2], 10)
			want = a.Cmp(b) <= 0 && b.IsInt64() && b.Int64() < math.MaxInt64
			if ok && (a.Int64() != first || b.Int64() != last) {
				t.Fatalf("%q: %d %d", s, first, last)
			}
		}
		if ok != want {
			t.Fatalf("%q: %v", s, ok)
		}
	})
}

func FuzzRoute(f *testing.F) {
	for _, s := range []string{"/v2/", "/v2/a/blobs/uploads/x", "/v2/a/manifests/b/tags/list", "/v2/_catalog"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		rt, err := parseRoute(&url.URL{Path: s})
		if err != nil {
			if status, _ := classify(err); status != 400 && status != 404 {
				t.Fatalf("%q: %v", s, err)
			}
			return
		}
		if rt.repo != "" && manifest.CheckRepository(rt.repo) != nil || strings.Contains(rt.ref, "/") {
			t.Fatalf("%q: %+v", s, rt)
		}
	})
}

// elsewhere is a store that sends clients elsewhere for blobs of some size.
type elsewhere struct {
	blob.Store
	err error
}

func (s elsewhere) Redirect(ctx context.Context, repo string, dgst digest.Digest) (string, error) {
	infos, err := s.Stat(ctx, repo, []digest.Digest{dgst})
	switch {
	case err != nil || s.err != nil:
		return "", errors.Join(err, s.err)
	case infos[0].Digest == "":
		return "", blob.ErrNotFound
	case infos[0].Size < 10:
		return "", nil
	}
	return "https://bytes.example/" + dgst.Encoded() + "?signature=x", nil
}

func TestBlobsMayBeServedFromElsewhere(t *testing.T) {
	h := NewMemory()
	put := func(content string) digest.Digest {
		desc := ocispec.Descriptor{Digest: digest.FromString(content), Size: int64(len(content))}
		if err := blob.Put(t.Context(), h.Blobs, "app", desc, strings.NewReader(content)); err != nil {
			t.Fatal(err)
		}
		return desc.Digest
	}
	large, small := put("large enough to go"), put("small")
	get := func(method string, dgst digest.Digest) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		r := httptest.NewRequest(method, "/v2/app/blobs/"+string(dgst), nil)
		r.Header.Set("Range", "bytes=1-2")
		h.ServeHTTP(w, r)
		return w
	}
	memory := h.Blobs
	h.Blobs = elsewhere{memory, nil}
	if w := get("GET", large); w.Code != 307 || w.Header().Get("Location") != "https://bytes.example/"+large.Encoded()+"?signature=x" || w.Body.Len() > 0 {
		t.Errorf("GET of a large blob: %d %v", w.Code, w.Header())
	}
	if w := get("HEAD", large); w.Code != 200 || w.Header().Get("Location") != "" {
		t.Errorf("HEAD of a large blob: %d %v", w.Code, w.Header())
	}
	if w := get("GET", small); w.Code != 206 || w.Body.String() != "ma" {
		t.Errorf("GET of a small blob: %d %q", w.Code, w.Body)
	}
	if w := get("GET", digest.FromString("not there")); w.Code != 404 {
		t.Errorf("GET of no blob: %d", w.Code)
	}
	h.Blobs = elsewhere{memory, errors.New("store is down")}
	if w := get("GET", large); w.Code != 500 {
		t.Errorf("GET with a store that fails: %d", w.Code)
	}
}

// TestAHandlerWithoutAStoreSaysSo: at its first request, whatever that is, and not
// as a nil pointer in some of them.
func TestAHandlerWithoutAStoreSaysSo(t *testing.T) {
	whole := NewMemory()
	for name, h := range map[string]*Handler{"none": {}, "no blobs": {Manifests: whole.Manifests}, "no manifests": {Blobs: whole.Blobs}} {
		for _, path := range []string{"/v2/", "/v2/app/tags/list"} {
			func() {
				defer func() {
					if s, ok := recover().(string); !ok || !strings.Contains(s, "needs both Blobs and Manifests") {
						t.Errorf("%s: GET %s does not say what the Handler needs", name, path)
					}
				}()
				h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", path, nil))
			}()
		}
	}
}
