package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage"
	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/replication"
)

const empty = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`

var emptyDigest = digest.FromString(empty)

func getEmpty(r *Registry) error {
	_, err := r.Source().Manifests.Get(context.Background(), "a/b", emptyDigest)
	return err
}

func readBlob(r *Registry) error {
	desc := ocispec.Descriptor{Digest: digest.FromString(empty), Size: int64(len(empty))}
	_, err := blob.ReadAll(context.Background(), r.Source().Blobs.(blob.Reader), "a/b", desc)
	return err
}

func tagsOf(r *Registry) error {
	for _, err := range r.Source().Manifests.Tags(context.Background(), "a/b", "") {
		if err != nil {
			return err
		}
	}
	return nil
}

func referrersOf(r *Registry) error {
	for _, err := range r.Source().Referrers.Referrers(context.Background(), "a/b", emptyDigest, "", "") {
		if err != nil {
			return err
		}
	}
	return nil
}

// Each way in which a registry can be wrong has an error that says which, and whether to
// try again.
func TestWrongAnswers(t *testing.T) {
	index := http.Header{"Content-Type": {manifest.MediaTypeIndex}}
	answer := func(status int, head http.Header, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			for name, v := range head {
				w.Header()[name] = v
			}
			w.WriteHeader(status)
			io.WriteString(w, body)
		}
	}
	with := func(name, value string) http.Header { h := index.Clone(); h.Set(name, value); return h }
	cutOff := func(w http.ResponseWriter, r *http.Request) {
		conn, _, _ := w.(http.Hijacker).Hijack()
		fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s", manifest.MediaTypeIndex, len(empty), empty[:20])
		conn.Close()
	}
	page := func(body string, link string) http.HandlerFunc {
		var n atomic.Int64
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", strings.ReplaceAll(link, "N", strconv.FormatInt(n.Add(1), 10)))
			io.WriteString(w, body)
		}
	}
	dropped := func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) }
	errorBody := func(code, message string) string {
		b, _ := json.Marshal(map[string]any{"errors": []any{map[string]string{"code": code, "message": message}}})
		return string(b)
	}
	for name, c := range map[string]struct {
		h         http.HandlerFunc
		act       func(*Registry) error
		is        []error
		temporary bool
		says      string
	}{
		"flipped bytes":                 {answer(200, index, strings.Replace(empty, "2", "3", 1)), getEmpty, []error{replication.ErrContent, manifest.ErrDigest}, false, "sha256:"},
		"truncated":                     {answer(200, index, empty[:30]), getEmpty, []error{replication.ErrContent}, false, ""},
		"cut off":                       {cutOff, getEmpty, []error{replication.ErrContent}, true, "ends early"},
		"longer":                        {answer(200, index, empty+" "), getEmpty, []error{replication.ErrContent}, false, ""},
		"without end":                   {answer(200, index, strings.Repeat(" ", manifest.MaxSize+1)), getEmpty, []error{replication.ErrContent}, false, "more than"},
		"wrong type":                    {answer(200, with("Content-Type", manifest.MediaTypeImage), empty), getEmpty, []error{replication.ErrContent, manifest.ErrInvalid}, false, "mediaType"},
		"says another digest":           {answer(200, with("Docker-Content-Digest", string(digest.FromString("x"))), empty), getEmpty, []error{replication.ErrContent}, false, "it is"},
		"not found":                     {answer(404, nil, errorBody("MANIFEST_UNKNOWN", "no")), getEmpty, []error{manifest.ErrNotFound}, false, "MANIFEST_UNKNOWN"},
		"blob not found":                {answer(404, nil, ""), readBlob, []error{blob.ErrNotFound}, false, ""},
		"blob with flipped bytes":       {answer(200, nil, strings.Replace(empty, "2", "3", 1)), readBlob, []error{blob.ErrDigest}, false, ""},
		"blob that is shorter":          {answer(200, nil, empty[1:]), readBlob, []error{blob.ErrSize}, false, ""},
		"blob that is cut off":          {cutOff, readBlob, []error{replication.ErrContent}, true, ""},
		"denied":                        {answer(403, nil, errorBody("DENIED", "not yours\x1b[2J")), getEmpty, []error{replication.ErrDenied}, false, "DENIED not yours [2J"},
		"no login":                      {answer(401, nil, ""), getEmpty, []error{replication.ErrDenied}, false, "401"},
		"a challenge that nobody knows": {answer(401, http.Header{"Www-Authenticate": {"Negotiate"}}, ""), getEmpty, []error{replication.ErrDenied}, false, "401"},
		"a login that is not there":     {answer(401, http.Header{"Www-Authenticate": {`Basic realm="x"`}}, ""), getEmpty, []error{replication.ErrDenied}, false, "login"},
		"rate limit":                    {answer(429, http.Header{"Retry-After": {"7"}}, errorBody("TOOMANYREQUESTS", "slow down")), getEmpty, []error{replication.ErrRateLimited}, true, "429"},
		"failure":                       {answer(500, nil, ""), getEmpty, []error{replication.ErrUnavailable}, true, "500"},
		"no such method":                {answer(501, nil, ""), getEmpty, []error{errors.ErrUnsupported}, false, "501"},
		"connection dropped":            {dropped, getEmpty, []error{replication.ErrUnavailable}, true, ""},
		"redirects for ever": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.Path+"x", http.StatusTemporaryRedirect)
		}, getEmpty, []error{replication.ErrUnavailable}, false, "redirect"},
		"a code that is none":              {answer(400, nil, errorBody("\x1b[31m", strings.Repeat("é", 1000))), getEmpty, nil, false, strings.Repeat("é", 200) + "…"},
		"an error of a megabyte":           {answer(400, nil, strings.Repeat("[", 1<<20)), getEmpty, nil, false, "400"},
		"tags: no JSON":                    {answer(200, nil, "<html>"), tagsOf, []error{replication.ErrContent}, false, "no list"},
		"tags: null":                       {answer(200, nil, `{"tags":null}`), tagsOf, nil, false, ""},
		"tags: none is known":              {answer(404, nil, errorBody("NAME_UNKNOWN", "")), tagsOf, nil, false, ""},
		"tags: of no registry":             {answer(404, nil, "404 page not found"), tagsOf, []error{manifest.ErrNotFound}, false, "404"},
		"tags: one that is none":           {answer(200, nil, `{"tags":["../x"]}`), tagsOf, []error{replication.ErrContent, manifest.ErrName}, false, "../x"},
		"tags: Link to itself":             {page(`{"tags":["a"]}`, `</v2/a/b/tags/list>; rel="next"`), tagsOf, []error{replication.ErrContent}, false, "does not end"},
		"tags: Link for ever":              {page(`{"tags":["a"]}`, `</v2/a/b/tags/list?last=N>; rel=next`), tagsOf, []error{replication.ErrContent}, false, "does not end"},
		"tags: empty pages for ever":       {page(`{"tags":[]}`, `</v2/a/b/tags/list?last=N>; rel=next`), tagsOf, []error{replication.ErrContent}, false, "does not end"},
		"tags: Link elsewhere":             {page(`{"tags":["a"]}`, `<http://127.0.0.2:1/v2/a/b/tags/list>; rel="next"`), tagsOf, []error{replication.ErrContent}, false, "elsewhere"},
		"tags: Link to file":               {page(`{"tags":["a"]}`, `<file:///etc/passwd>; rel="next"`), tagsOf, []error{replication.ErrContent}, false, "elsewhere"},
		"referrers: no index":              {answer(200, nil, `{"manifests":{}}`), referrersOf, []error{replication.ErrContent}, false, "no list"},
		"referrers: Link for ever":         {page(empty, `</v2/a/b/referrers/N>; rel="next"`), referrersOf, []error{replication.ErrContent}, false, "does not end"},
		"referrers: a page of more than 4": {answer(200, index, strings.Repeat(" ", manifest.MaxSize)+empty), referrersOf, []error{replication.ErrContent}, false, "more than"},
	} {
		t.Run(name, func(t *testing.T) {
			err := c.act(serve(t, c.h))
			if (err == nil) != (len(c.is) == 0 && c.says == "") {
				t.Fatalf("error %v", err)
			}
			for _, is := range c.is {
				if !errors.Is(err, is) {
					t.Errorf("%v: want %v", err, is)
				}
			}
			if _, temporary := errors.AsType[*replication.TemporaryError](err); temporary != c.temporary {
				t.Errorf("temporary: %v: %v", temporary, err)
			}
			if err != nil && (!strings.Contains(err.Error(), c.says) || len(err.Error()) > 1000 || strings.Contains(err.Error(), "\x1b")) {
				t.Errorf("the error says %q, want %q", err, c.says)
			}
		})
	}
}

// A listing that gets longer with each page, or has pages for ever, ends at a bound.
func TestEndlessListings(t *testing.T) {
	for name, c := range map[string]struct{ grows, least, most int }{"grows": {2, 10, 25}, "does not": {1, maxPages, maxPages}} {
		t.Run(name, func(t *testing.T) {
			requests, fresh := 0, 1
			r := fake(func(req *http.Request) *http.Response {
				requests++
				return text(200, "{}", "Link", fmt.Sprintf(`</v2/a/b/tags/list?p=%d>; rel="next"`, requests))
			})
			err := r.pages(t.Context(), of(http.MethodGet, "a/b", "tags/list", ""), maxPage, func([]byte) (int, error) {
				fresh *= c.grows
				return fresh, nil
			})
			if !errors.Is(err, replication.ErrContent) || requests < c.least || requests > c.most {
				t.Errorf("after %d pages: %v", requests, err)
			}
		})
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for s, want := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, " 0 ": 0, "-5": 0, "99999999999": 24 * time.Hour, "9999999999999999999999": 0, "soon": 0,
		"Thu, 01 Jan 2026 00:01:00 GMT": time.Minute, "Wed, 31 Dec 2025 00:00:00 GMT": 0, "Fri, 01 Jan 2100 00:00:00 GMT": 24 * time.Hour,
	} {
		if got := retryAfter(s, now); got != want {
			t.Errorf("%q: %v, want %v", s, got, want)
		}
	}
	r := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", "Thu, 01 Jan 2026 00:01:00 GMT")
		w.WriteHeader(503)
	}))
	r.Now = func() time.Time { return now }
	if e, ok := errors.AsType[*replication.TemporaryError](getEmpty(r)); !ok || e.After != time.Minute {
		t.Errorf("got %+v", e)
	}
}

// fake answers without a network, so that a bubble's clock runs.
func fake(answer func(req *http.Request) *http.Response) *Registry {
	return &Registry{Host: "registry.example", Transport: roundTripper(func(req *http.Request) (*http.Response, error) {
		if req.Body != nil {
			if _, err := io.Copy(io.Discard, req.Body); err != nil {
				return nil, err
			}
			req.Body.Close()
		}
		resp := answer(req)
		if resp == nil {
			<-req.Context().Done()
			return nil, req.Context().Err()
		}
		if resp.Body == nil {
			resp.Body = http.NoBody
		}
		resp.Request = req
		return resp, nil
	})}
}

// Before the limit is reached, requests of that kind slow down to what comes back.
func TestRateLimitSlowsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		left := 14
		r := fake(func(req *http.Request) *http.Response {
			if strings.Contains(req.URL.Path, "/blobs/") {
				return status(200)
			}
			left--
			return text(200, empty, "Content-Type", manifest.MediaTypeIndex, "RateLimit-Limit", "100;w=1000", "RateLimit-Remaining", fmt.Sprintf("%d;w=1000", left))
		})
		var took []time.Duration
		for range 8 {
			began := time.Now()
			if err := getEmpty(r); err != nil {
				t.Fatal(err)
			}
			took = append(took, time.Since(began))
		}
		s := time.Second
		if want := []time.Duration{0, 0, 0, 0, 0, 0, 10 * s, 10 * s}; !slices.Equal(took, want) { // 100 in 1000 s
			t.Errorf("requests took %v, want %v", took, want)
		}
		began := time.Now()
		if _, err := r.Target().Blobs.(blob.Reader).Stat(t.Context(), "a/b", []digest.Digest{emptyDigest}); err != nil || time.Since(began) != 0 {
			t.Errorf("another kind waits %v: %v", time.Since(began), err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := r.Source().Manifests.Get(ctx, "a/b", emptyDigest); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v, want that of the context", err)
		}
	})
	for s, want := range map[string][2]int64{"76;w=21600": {76, 21600}, " 5 ": {5, 0}, "": {-1, 0}, "x;w=1": {-1, 0}, "1;x=2; w=3": {1, 3}, "1;w=-3": {1, 0}} {
		if n, w := rateLimit(s); n != want[0] || w != want[1] {
			t.Errorf("%q: %d, %d", s, n, w)
		}
	}
}

// Who gives up while it waits for its turn leaves that to others: however many do, one
// request in half a minute gets through.
func TestTurnsThatAreGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		r := fake(func(*http.Request) *http.Response {
			asked++
			return text(200, empty, "Content-Type", manifest.MediaTypeIndex, "RateLimit-Limit", "100;w=21600", "RateLimit-Remaining", "1;w=21600")
		})
		for range 100 {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			if _, err := r.Source().Manifests.Get(ctx, "a/b", emptyDigest); err != nil && !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
			cancel()
		}
		if asked < 50 {
			t.Errorf("%d of 100 requests in %v got through", asked, 100*20*time.Second)
		}
		began := time.Now()
		if err := getEmpty(r); err != nil || time.Since(began) > 30*time.Second {
			t.Errorf("the next one took %v, %v", time.Since(began), err)
		}
	})
}

// stalls yields some bytes, and then nothing until the request ends.
type stalls struct {
	some io.Reader
	ctx  context.Context
}

func (s stalls) Read(p []byte) (int, error) {
	if n, _ := s.some.Read(p); n > 0 {
		return n, nil
	}
	<-s.ctx.Done()
	return 0, s.ctx.Err()
}

// A side that sends nothing for Idle ends the request; one that is slow does not.
func TestStalledBodiesEnd(t *testing.T) {
	check := func(name string, r *Registry, act func(context.Context, *Registry) error, want time.Duration) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				err := act(t.Context(), r)
				_, temporary := errors.AsType[*replication.TemporaryError](err)
				if !errors.Is(err, replication.ErrUnavailable) || !temporary || !strings.Contains(err.Error(), "too long") || time.Since(began) != want {
					t.Errorf("after %v, want %v: %v", time.Since(began), want, err)
				}
			})
		})
	}
	silent := fake(func(*http.Request) *http.Response { return nil })
	check("no answer", silent, resolve, 2*time.Minute)
	half := fake(func(req *http.Request) *http.Response {
		resp := status(200)
		resp.ContentLength = 10
		resp.Body = io.NopCloser(stalls{strings.NewReader("some"), req.Context()})
		return resp
	})
	half.Idle = time.Second
	check("half an answer", half, open, time.Second)
	session := fake(func(req *http.Request) *http.Response {
		if req.Method == http.MethodPost {
			return status(202, "Location", "/v2/a/b/blobs/uploads/1")
		}
		return nil
	})
	check("no answer to content", session, put, 2*time.Minute)

	synctest.Test(t, func(t *testing.T) { // slow, both to be read and to read
		slow := fake(func(req *http.Request) *http.Response {
			if req.Method == http.MethodPost {
				return status(202, "Location", "/v2/a/b/blobs/uploads/1")
			}
			if req.Method == http.MethodPut {
				return status(201)
			}
			resp := text(200, strings.Repeat("x", 10))
			resp.Body = io.NopCloser(&trickle{left: 10, each: 50 * time.Second})
			return resp
		})
		content, _, err := slow.Source().Blobs.Open(t.Context(), "a/b", digest.FromString("xxxxxxxxxx"), 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour) // the reader is in no hurry
		if b, err := io.ReadAll(content); err != nil || len(b) != 10 {
			t.Errorf("read %d bytes: %v", len(b), err)
		}
		content.Close()
		err = blob.Put(t.Context(), slow.Target().Blobs, "a/b", ocispec.Descriptor{Digest: digest.FromString("xxxxx"), Size: 5}, &trickle{left: 5, each: time.Hour})
		if err != nil {
			t.Errorf("slow content: %v", err)
		}
	})
}

// trickle yields a byte at a time.
type trickle struct {
	left int
	each time.Duration
}

func (s *trickle) Read(p []byte) (int, error) {
	if s.left == 0 {
		return 0, io.EOF
	}
	time.Sleep(s.each)
	p[0] = 'x'
	s.left--
	return 1, nil
}

// No more requests than Parallel wait for an answer; those with content have places of their
// own, since it may be read from the same registry.
func TestParallel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		now, most := map[bool]int{}, map[bool]int{}
		r := fake(func(req *http.Request) *http.Response {
			content := req.Body != nil
			mu.Lock()
			now[content]++
			most[content] = max(most[content], now[content])
			mu.Unlock()
			time.Sleep(time.Second)
			mu.Lock()
			now[content]--
			mu.Unlock()
			switch req.Method {
			case http.MethodPost:
				return status(202, "Location", "/v2/a/b/blobs/uploads/1")
			case http.MethodPut:
				return status(201)
			}
			return text(200, "x")
		})
		r.Parallel = 3
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				_, err := r.Target().Blobs.(replication.Receiver).Receive(t.Context(), "a/b", ocispec.Descriptor{Digest: digest.FromString("x"), Size: 1}, nil,
					func(ctx context.Context, off int64) (io.ReadCloser, error) {
						content, _, err := r.Source().Blobs.Open(ctx, "a/b", digest.FromString("x"), off, -1)
						return content, err
					})
				if err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if most[false] > 3 || most[true] > 3 || most[false] < 2 || most[true] < 2 {
			t.Errorf("at once without content %d, with content %d: want at most 3 each", most[false], most[true])
		}
	})
}

// A layer that says where it is to be had elsewhere is read here or not at all.
func TestURLsOfForeignLayersAreNotFollowed(t *testing.T) {
	port, accepted := listen(t)
	h := wharfage.NewMemory()
	r := serve(t, h)
	r.Allow = []string{"127.0.0.1:" + port}
	raw, _, err := manifest.ImageDraft{ArtifactType: "a/b", Layers: []ocispec.Descriptor{{MediaType: ocispec.MediaTypeImageLayerNonDistributableGzip, //lint:ignore SA1019 they exist
		Digest: digest.FromString("x"), Size: 1, URLs: []string{"http://127.0.0.1:" + port + "/x"}}}}.Build()
	if err != nil {
		t.Fatal(err)
	}
	if err := blob.Put(t.Context(), r.Target().Blobs, "a/b", ocispec.DescriptorEmptyJSON, strings.NewReader("{}")); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Target().Manifests.Push(t.Context(), "a/b", manifest.PushRequest{Raw: raw}); err != nil {
		t.Fatal(err)
	}
	rec, err := r.Source().Manifests.Get(t.Context(), "a/b", digest.FromBytes(raw))
	if err != nil || len(rec.Blobs) != 2 {
		t.Fatal(rec, err)
	}
	if _, _, err := r.Source().Blobs.Open(t.Context(), "a/b", digest.FromString("x"), 0, -1); !errors.Is(err, blob.ErrNotFound) || accepted.Load() > 0 {
		t.Errorf("error %v, %d connections elsewhere", err, accepted.Load())
	}
}
