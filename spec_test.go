package wharfage

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/distribution-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/manifest"
)

// TestSpec runs the scripts of testdata/spec: what the distribution
// specification says of each endpoint, and what implementations got wrong. A
// script is a list of cases, each on a new registry and named by its "# " line:
//
//	blob REPO CONTENT           push a blob
//	doc NAME TEXT               define a document
//	push REPO REF NAME          push the document, by its mediaType
//	METHOD PATH                 a request, with
//	> Header: value             a header
//	>> CONTENT                  a body; "@NAME" is a document
//	< 200|201                   and its answer: status,
//	< Header: value             header, in which * is anything, and "-" means none
//	< code CODE                 error code
//	<< CONTENT                  whole body
//	<~ CONTENT                  part of the body
//
// In all of them {loc} is the last Location, {sha256 CONTENT}, {sha512 CONTENT},
// {len CONTENT} speak of a content, CONTENT may be @NAME, and {nl} is a line end.
func TestSpec(t *testing.T) {
	files, err := filepath.Glob("testdata/spec/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for i, c := range strings.Split("\n"+string(text), "\n# ")[1:] {
			name, body, _ := strings.Cut(c, "\n")
			t.Run(strings.TrimSuffix(path.Base(f), ".txt")+"/"+name, func(t *testing.T) {
				server := httptest.NewServer(NewMemory())
				defer server.Close()
				s := &script{t: t, url: server.URL, docs: map[string]string{}, at: fmt.Sprintf("%s, case %d", f, i+1)}
				s.run(body)
			})
		}
	}
}

type script struct {
	t    *testing.T
	at   string
	url  string
	docs map[string]string
	loc  string

	pending *http.Request
	body    string
	resp    *http.Response
	answer  string
	checked bool
}

func (s *script) run(text string) {
	for line := range strings.SplitSeq(text, "\n") {
		if line == "" {
			continue
		}
		word, rest, _ := strings.Cut(s.expand(line), " ")
		switch word {
		case ">":
			k, v, _ := strings.Cut(rest, ": ")
			s.pending.Header.Add(k, v)
		case ">>":
			s.body = s.content(rest)
		case "<", "<<", "<~":
			s.send()
			s.check(word, rest)
		case "blob":
			repo, content, _ := strings.Cut(rest, " ")
			content = s.content(content)
			s.request("POST", "/v2/"+repo+"/blobs/uploads/?digest="+string(digest.FromString(content)), content)
			s.check("<", "201")
		case "doc":
			name, content, _ := strings.Cut(rest, " ")
			s.docs[name] = content
		case "push":
			var repo, ref, name string
			fmt.Sscan(rest, &repo, &ref, &name)
			s.request("PUT", "/v2/"+repo+"/manifests/"+ref, s.docs[name])
			s.check("<", "201")
		default:
			s.send()
			if !s.checked {
				s.t.Errorf("%s: nothing is checked before %q", s.at, line)
			}
			req, err := http.NewRequest(word, s.url+rest, nil)
			if err != nil {
				s.t.Fatalf("%s: %q: %v", s.at, line, err)
			}
			s.pending, s.body, s.checked = req, "", false
		}
	}
	s.send()
	if !s.checked {
		s.t.Errorf("%s: the last answer is not checked", s.at)
	}
}

func (s *script) request(method, path, body string) {
	s.send()
	req, err := http.NewRequest(method, s.url+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	s.pending, s.body = req, body
	s.send()
}

var variable = regexp.MustCompile(`\{(sha256|sha512|len|x) (\{\}|[^{}]*)\}`)

func (s *script) expand(line string) string {
	line = strings.NewReplacer("{loc}", s.loc, "{nl}", "\n").Replace(line)
	return variable.ReplaceAllStringFunc(line, func(v string) string {
		m := variable.FindStringSubmatch(v)
		content := s.content(m[2])
		switch m[1] {
		case "len":
			return fmt.Sprint(len(content))
		case "x": // a thousand of them
			return strings.Repeat(content, 1000)
		}
		return string(digest.Algorithm(m[1]).FromString(content))
	})
}

// content is text, or the document that it names.
func (s *script) content(text string) string {
	name, ok := strings.CutPrefix(text, "@")
	if !ok {
		return text
	}
	doc, ok := s.docs[name]
	if !ok {
		s.t.Fatalf("%s: there is no document %s", s.at, name)
	}
	return doc
}

func (s *script) send() {
	if s.pending == nil {
		s.checked = s.checked || s.resp == nil
		return
	}
	req := s.pending
	s.pending = nil
	if s.body != "" {
		req.Body, req.ContentLength = io.NopCloser(strings.NewReader(s.body)), int64(len(s.body))
		if req.Header.Get("Transfer-Encoding") != "" {
			req.Header.Del("Transfer-Encoding")
			req.ContentLength = -1
		}
	}
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		s.t.Fatalf("%s: %s %s: %v", s.at, req.Method, req.URL, err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatalf("%s: %s %s: body: %v", s.at, req.Method, req.URL, err)
	}
	s.resp, s.answer = resp, string(raw)
	if l := resp.Header.Get("Location"); l != "" {
		s.loc = l
	}
	s.wellFormed()
}

// errorCodes are the ones that the specification allows.
var errorCodes = strings.Fields("BLOB_UNKNOWN BLOB_UPLOAD_INVALID BLOB_UPLOAD_UNKNOWN DIGEST_INVALID MANIFEST_BLOB_UNKNOWN MANIFEST_INVALID MANIFEST_UNKNOWN NAME_INVALID NAME_UNKNOWN SIZE_INVALID UNAUTHORIZED DENIED UNSUPPORTED TOOMANYREQUESTS")

// wellFormed checks what holds for every answer: no 5xx, and errors in JSON
// with a known code and a message.
func (s *script) wellFormed() {
	s.t.Helper()
	if s.resp.StatusCode < 400 || s.resp.Request.Method == "HEAD" {
		return
	}
	var e specs.ErrorResponse
	if err := json.Unmarshal([]byte(s.answer), &e); err != nil || len(e.Errors) != 1 || !slices.Contains(errorCodes, e.Errors[0].Code) || e.Errors[0].Message == "" || s.resp.StatusCode >= 500 {
		s.t.Errorf("%s: %s %s: answer %s %s", s.at, s.resp.Request.Method, s.resp.Request.URL, s.resp.Status, s.answer)
	}
}

func (s *script) check(kind, want string) {
	s.t.Helper()
	s.checked = true
	what := fmt.Sprintf("%s: %s %s", s.at, s.resp.Request.Method, s.resp.Request.URL.RequestURI())
	fail := func(got any) {
		s.t.Helper()
		s.t.Errorf("%s\n got %v\nwant %s\nbody %.300s", what, got, want, s.answer)
	}
	switch {
	case kind == "<<":
		if s.answer != s.content(want) {
			fail(s.answer)
		}
	case kind == "<~":
		if !strings.Contains(s.answer, s.content(want)) {
			fail(s.answer)
		}
	case strings.HasPrefix(want, "code "):
		var e specs.ErrorResponse
		json.Unmarshal([]byte(s.answer), &e)
		if len(e.Errors) == 0 || e.Errors[0].Code != want[len("code "):] {
			fail(s.answer)
		}
	case strings.Contains(want, ": "):
		k, v, _ := strings.Cut(want, ": ")
		got := s.resp.Header.Values(k)
		if v == "-" {
			if len(got) != 0 {
				fail(got)
			}
			return
		}
		like := regexp.MustCompile("^" + strings.ReplaceAll(regexp.QuoteMeta(v), `\*`, ".*") + "$")
		if !slices.ContainsFunc(got, like.MatchString) {
			fail(got)
		}
	default:
		if !slices.Contains(strings.Split(want, "|"), fmt.Sprint(s.resp.StatusCode)) {
			fail(s.resp.Status)
		}
	}
}

// TestErrorsNameTheField: a refusal says where and by which rule.
func TestErrorsNameTheField(t *testing.T) {
	server := httptest.NewServer(NewMemory())
	defer server.Close()
	doc := `{"schemaVersion":2,"mediaType":"` + manifest.MediaTypeIndex + `","manifests":[{"mediaType":"a/b","digest":"sha256:x","size":1}]}`
	req, _ := http.NewRequest("PUT", server.URL+"/v2/r/manifests/t", bytes.NewReader([]byte(doc)))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var e specs.ErrorResponse
	if err := json.NewDecoder(resp.Body).Decode(&e); err != nil {
		t.Fatal(err)
	}
	if got := e.Errors[0]; !strings.Contains(got.Message, "/manifests/0/digest: is to be a digest") || got.Detail != "/manifests/0/digest digest" {
		t.Errorf("%+v", got)
	}
}
