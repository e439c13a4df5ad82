//go:build linux

package crash

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/manifest"
)

// binary builds the registry.
var binary = sync.OnceValues(func() (string, error) {
	path := filepath.Join(scratch, "registry")
	text, err := exec.Command("go", "build", "-o", path, "../registry").CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%w\n%s", err, text)
	}
	return path, err
})

// server is a registry in a process of its own.
type server struct {
	cmd    *exec.Cmd
	addr   string
	client *http.Client

	mu     sync.Mutex
	log    bytes.Buffer
	logged chan struct{} // closed at the end of the log
}

var listens = regexp.MustCompile(`registry listens addr=(\S+)`)

// start runs the registry on a free port of loopback.
func start(t testing.TB, args ...string) *server {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	s := &server{cmd: exec.Command(path, append([]string{"-addr", "127.0.0.1:0", "-drain-delay", "0"}, args...)...), logged: make(chan struct{})}
	s.client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16, DisableCompression: true}}
	log, err := s.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.kill() })
	addr := make(chan string, 1)
	go func() {
		defer close(s.logged)
		defer close(addr)
		for lines := bufio.NewScanner(log); lines.Scan(); {
			s.mu.Lock()
			fmt.Fprintln(&s.log, lines.Text())
			s.mu.Unlock()
			if m := listens.FindStringSubmatch(lines.Text()); m != nil {
				addr <- m[1]
			}
		}
	}()
	if s.addr = <-addr; s.addr == "" {
		t.Fatalf("the registry did not start:\n%s", s.text())
	}
	return s
}

// command runs another command of the registry, and returns the last line that
// it says.
func command(t testing.TB, args ...string) string {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	text, err := exec.Command(path, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("registry %s: %v\n%.2000s", args, err, text)
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return lines[len(lines)-1]
}

// text returns what the server has logged.
func (s *server) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.String()
}

// kill ends the process at once, and returns when it is gone.
func (s *server) kill() {
	s.cmd.Process.Kill()
	<-s.logged
	s.cmd.Wait()
	s.client.CloseIdleConnections()
}

// stop asks the process to end, and returns how it did.
func (s *server) stop() error {
	s.cmd.Process.Signal(syscall.SIGTERM)
	<-s.logged
	s.client.CloseIdleConnections()
	return s.cmd.Wait()
}

// statusError is an answer other than the one hoped for.
type statusError struct {
	request string
	status  int
	header  http.Header
	body    []byte
}

func (e *statusError) Error() string {
	return fmt.Sprintf("%s: status %d: %.300s", e.request, e.status, e.body)
}

// do returns an answer that has the status want. uri begins with "/", or with
// "http://" as locations may.
func (s *server) do(ctx context.Context, want int, method, uri, contentType string, body []byte) (http.Header, []byte, error) {
	return s.send(ctx, want, method, uri, contentType, bytes.NewReader(body), int64(len(body)))
}

// send is do with a body of so many bytes.
func (s *server) send(ctx context.Context, want int, method, uri, contentType string, body io.Reader, size int64) (http.Header, []byte, error) {
	if strings.HasPrefix(uri, "/") {
		uri = "http://" + s.addr + uri
	}
	if size == 0 {
		body = nil
	}
	req, err := http.NewRequestWithContext(ctx, method, uri, body)
	if err != nil {
		return nil, nil, err
	}
	req.ContentLength = size
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != want {
		err = &statusError{method + " " + req.URL.Path, resp.StatusCode, resp.Header, text}
	}
	return resp.Header, text, err
}

// locate returns where an upload goes on, up to the name of a parameter.
func (s *server) locate(h http.Header) string {
	uri := h.Get("Location")
	if strings.HasPrefix(uri, "/") {
		uri = "http://" + s.addr + uri
	}
	if strings.Contains(uri, "?") {
		return uri + "&"
	}
	return uri + "?"
}

func describe(mediaType string, content []byte) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(content), Size: int64(len(content))}
}

// putBlob pushes content in chunks of so many bytes, then the rest. chunk == 0
// is one request.
func (s *server) putBlob(ctx context.Context, repo string, content []byte, chunk int) error {
	const octets = "application/octet-stream"
	h, _, err := s.do(ctx, http.StatusAccepted, "POST", "/v2/"+repo+"/blobs/uploads/", "", nil)
	rest := content
	for err == nil && chunk > 0 && len(rest) > chunk {
		h, _, err = s.do(ctx, http.StatusAccepted, "PATCH", h.Get("Location"), octets, rest[:chunk])
		rest = rest[chunk:]
	}
	if err == nil {
		_, _, err = s.do(ctx, http.StatusCreated, "PUT", s.locate(h)+"digest="+string(digest.FromBytes(content)), octets, rest)
	}
	return err
}

func (s *server) mountBlob(ctx context.Context, from, repo string, dgst digest.Digest) error {
	_, _, err := s.do(ctx, http.StatusCreated, "POST", "/v2/"+repo+"/blobs/uploads/?mount="+string(dgst)+"&from="+from, "", nil)
	return err
}

func (s *server) putManifest(ctx context.Context, repo, reference string, raw []byte) error {
	_, _, err := s.do(ctx, http.StatusCreated, "PUT", "/v2/"+repo+"/manifests/"+reference, ocispec.MediaTypeImageManifest, raw)
	return err
}

func (s *server) delete(ctx context.Context, repo, what, reference string) error {
	_, _, err := s.do(ctx, http.StatusAccepted, "DELETE", "/v2/"+repo+"/"+what+"/"+reference, "", nil)
	return err
}

// get returns what is under a reference, nil if there is nothing. What it
// returns has the digest that the server says.
func (s *server) get(ctx context.Context, repo, what, reference string) ([]byte, digest.Digest, error) {
	h, text, err := s.do(ctx, http.StatusOK, "GET", "/v2/"+repo+"/"+what+"/"+reference, "", nil)
	if e, ok := err.(*statusError); ok && e.status == http.StatusNotFound {
		return nil, "", nil
	}
	if err != nil {
		return nil, "", err
	}
	said := digest.Digest(h.Get("Docker-Content-Digest"))
	if got := digest.FromBytes(text); got != said || strings.Contains(reference, ":") && string(got) != reference {
		return nil, "", fmt.Errorf("%s %s in %s: wrong bytes: %s, said to be %s", what, reference, repo, got, said)
	}
	return text, said, nil
}

// tags lists all.
func (s *server) tags(ctx context.Context, repo string) ([]string, error) {
	var list struct{ Tags []string }
	var all []string
	for last := ""; ; {
		_, text, err := s.do(ctx, http.StatusOK, "GET", "/v2/"+repo+"/tags/list?n=500&last="+last, "", nil)
		if e, ok := err.(*statusError); ok && e.status == http.StatusNotFound {
			return all, nil
		}
		if err == nil {
			list.Tags = nil
			err = json.Unmarshal(text, &list)
		}
		if err != nil || len(list.Tags) == 0 {
			return all, err
		}
		all = append(all, list.Tags...)
		last = list.Tags[len(list.Tags)-1]
	}
}

// image is a manifest with the blobs it needs.
func image(layers [][]byte, note string) (raw []byte, dgst digest.Digest, err error) {
	config := describe(ocispec.MediaTypeImageConfig, layers[0])
	draft := manifest.ImageDraft{Config: &config, Annotations: map[string]string{"note": note}}
	for _, l := range layers {
		draft.Layers = append(draft.Layers, describe(ocispec.MediaTypeImageLayer, l))
	}
	raw, desc, err := draft.Build()
	return raw, desc.Digest, err
}
