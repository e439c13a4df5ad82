package wharfage

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/internal/vectors"
	"github.com/wharfage/wharfage/manifest"
)

var vectorsDir = flag.String("vectors", "testdata/vectors", "folder of the vectors, laid out like testdata/vectors")

// TestVectors runs the hostile corpus over HTTP, and what of it only clients
// meet, directly.
func TestVectors(t *testing.T) {
	cases, err := vectors.Hostile(*vectorsDir, "manifest", "index", "descriptor", "digest", "repository", "tag", "content-range", "location", "graph")
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(NewMemory())
	defer server.Close()
	for i, v := range cases {
		t.Run("hostile/"+v.ID, func(t *testing.T) {
			corpus{t, server.URL, fmt.Sprintf("hostile/%d", i)}.run(v)
		})
	}
}

type corpus struct {
	t    *testing.T
	url  string
	repo string // a new one for each case
}

// send makes a request, whose path is sent as it is, and returns the answer.
// Any answer 5xx and any dropped connection is a failure.
func (c corpus) send(method, path, contentType string, body []byte, header ...string) (status int, answer string, head http.Header) {
	c.t.Helper()
	req, err := http.NewRequest(method, c.url+"/", bytes.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	req.URL.Opaque = "//" + req.URL.Host + path
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header[header[i]] = []string{header[i+1]}
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		c.t.Fatalf("%s: %v", method, err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatalf("%s: %v", method, err)
	}
	if resp.StatusCode >= 500 {
		c.t.Errorf("%s %.200s: %s: %s", method, path, resp.Status, raw)
	}
	return resp.StatusCode, string(raw), resp.Header
}

func (c corpus) run(v vectors.Case) {
	t := c.t
	accepted := false
	switch v.Kind {
	case "manifest", "index":
		accepted = c.push(v.ContentType, v.Input, "t")
	case "descriptor":
		accepted = c.push(manifest.MediaTypeImage, []byte(`{"schemaVersion":2,"config":{"mediaType":"a/b","digest":"`+string(digest.FromString("c"))+`","size":1},"layers":[`+string(v.Input)+`]}`), "t")
	case "digest":
		if hasControl(v.Input) { // no HTTP request can carry it
			t.Log("checked in package manifest only")
			return
		}
		// A subject may have any digest; only the referrers API takes them all.
		status, _, _ := c.send("GET", "/v2/"+c.repo+"/referrers/"+escape(v.Input), "", nil)
		accepted = status == 200
	case "repository":
		status, answer, _ := c.send("GET", "/v2/"+escape(v.Input)+"/tags/list", "", nil)
		accepted = status == 200 || status == 404 && strings.Contains(answer, "has no manifests")
	case "tag":
		status, _, _ := c.send("PUT", "/v2/"+c.repo+"/manifests/"+escape(v.Input), manifest.MediaTypeIndex, []byte(`{"schemaVersion":2,"mediaType":"`+manifest.MediaTypeIndex+`","manifests":[]}`))
		accepted = status == 201
	case "content-range":
		c.contentRange(v)
		return
	case "location":
		var in struct{ Request, Location string }
		if err := json.Unmarshal(v.Input, &in); err != nil {
			t.Fatal(err)
		}
		request, err := url.Parse(in.Request)
		if err != nil {
			t.Fatal(err)
		}
		_, sameOrigin, err := ResolveLocation(request, in.Location)
		accepted = sameOrigin && err == nil
	case "graph":
		accepted = true
		for _, d := range v.Docs {
			if !c.push(d.MediaType, d.Raw, "") {
				accepted = false
				break
			}
		}
	}
	if accepted != v.Accept() {
		t.Errorf("accepted is %v: %s", accepted, v.Why)
	}
}

// push pushes a document after the content that it names, and checks that what
// is accepted is served as the same bytes, and what is refused leaves nothing.
func (c corpus) push(contentType string, raw []byte, ref string) bool {
	c.t.Helper()
	if m, err := manifest.Parse(contentType, raw); err == nil {
		c.provide(m)
	}
	dgst := string(digest.FromBytes(raw))
	if ref == "" {
		ref = dgst
	}
	status, answer, _ := c.send("PUT", "/v2/"+c.repo+"/manifests/"+ref, contentType, raw)
	got, body, _ := c.send("GET", "/v2/"+c.repo+"/manifests/"+dgst, "", nil)
	switch status {
	case 201:
		if got != 200 || body != string(raw) {
			c.t.Errorf("accepted, and then answered %d with %d bytes, not %d", got, len(body), len(raw))
		}
		return true
	case 400:
		// Digests and sizes in the corpus are made up: content that does not exist,
		// or has another size here, is no fault of the document.
		if strings.Contains(answer, "MANIFEST_BLOB_UNKNOWN") || strings.Contains(answer, "is to be the size of") {
			c.t.Log("accepted but for content that does not exist")
			return true
		}
	}
	if status < 400 || got != 404 {
		c.t.Errorf("answer %d %s, and then %d", status, answer, got)
	}
	return false
}

// known are the contents whose digests the corpus uses.
var known = []string{"", "{}", "hello", "c"}

func (c corpus) provide(m *manifest.Manifest) {
	for _, d := range append(m.Layers, m.Config) {
		for _, content := range known {
			if d.Digest == digest.FromString(content) {
				c.send("POST", "/v2/"+c.repo+"/blobs/uploads/?digest="+string(d.Digest), "", []byte(content))
			}
		}
	}
}

// contentRange sends a chunk with the range, of the length that it says where
// it says one.
func (c corpus) contentRange(v vectors.Case) {
	_, _, head := c.send("POST", "/v2/"+c.repo+"/blobs/uploads/", "", nil)
	chunk := []byte("hello!")
	if _, last, ok := parseContentRange(string(v.Input)); ok && last < 1<<16 {
		chunk = bytes.Repeat([]byte("x"), int(last)+1)
	}
	if hasControl(v.Input) {
		return
	}
	status, _, _ := c.send("PATCH", head.Get("Location"), "", chunk, "Content-Range", string(v.Input))
	if accepted := status == 202; accepted != v.Accept() {
		c.t.Errorf("answer %d: %s", status, v.Why)
	}
	if status >= 300 && status != 400 && status != 416 {
		c.t.Errorf("answer %d", status)
	}
}

func hasControl(b []byte) bool {
	return bytes.ContainsFunc(b, func(r rune) bool { return r < ' ' || r == 0x7f })
}

// escape makes any bytes a path segment; a slash stays one, as a client that
// does not care would send it.
func escape(b []byte) string {
	return strings.ReplaceAll(url.PathEscape(string(b)), "%2F", "/")
}

func TestResolveLocation(t *testing.T) {
	request, _ := url.Parse("https://r.example:443/v2/a/blobs/uploads/")
	for location, want := range map[string]struct {
		to   string
		same bool
	}{
		"x?y=z":                       {"https://r.example:443/v2/a/blobs/uploads/x?y=z", true},
		"https://R.example/v2/":       {"https://R.example/v2/", true},
		"//other/x":                   {"https://other/x", false},
		"http://r.example/x":          {"http://r.example/x", false},
		"https://r.example:8443/x":    {"https://r.example:8443/x", false},
		"https://a:b@r.example/x":     {"", false},
		"file:///etc/passwd":          {"", false},
		"https://r.example/x y":       {"", false},
		"https:\\\\evil.test\\x":      {"", false},
		"/\t/evil.test":               {"", false},
		"https://r.example\x00.evil/": {"", false},
		"https://r.example\u0085/x":   {"", false},
		"/x\u00a0y":                   {"", false},
	} {
		to, same, err := ResolveLocation(request, location)
		if (err == nil) != (want.to != "") || err == nil && to.String() != want.to || same != want.same {
			t.Errorf("%q: %v %v %v", location, to, same, err)
		}
	}
	request.User = url.UserPassword("a", "b") // which is not the Location's
	for location, want := range map[string]string{"x": "https://a:b@r.example:443/v2/a/blobs/uploads/x", "https://r.example/x": "https://r.example/x", "//c@r.example/x": ""} {
		to, same, err := ResolveLocation(request, location)
		if (err == nil) != (want != "") || err == nil && (to.String() != want || !same) {
			t.Errorf("%q, asked with user information: %v %v %v", location, to, same, err)
		}
	}
}
