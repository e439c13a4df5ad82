package wharfage

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/blob/dirblob"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/manifest/memmanifest"
)

// registries are the handlers that the tests of concurrency run on.
func registries(t *testing.T) map[string]*Handler {
	blobs, manifests := &dirblob.Store{Dir: filepath.Join(t.TempDir(), "blobs"), Unsynced: true}, new(memmanifest.Store)
	manifests.MissingBlobs = blob.Missing(blobs)
	blobs.Guard = GuardBlobs(manifests)
	return map[string]*Handler{"memory": NewMemory(), "dirblob": {Blobs: blobs, Manifests: manifests}}
}

func send(t *testing.T, method, url string, body []byte, header ...string) (*http.Response, []byte) {
	t.Helper()
	req, err := http.NewRequest(method, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Error(err)
		return &http.Response{Header: http.Header{}}, nil
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Error(err)
	}
	return resp, answer
}

// TestReferrersOfManyClientsAreAllListed: 60 referrers from 12 clients at once,
// 20 rounds.
func TestReferrersOfManyClientsAreAllListed(t *testing.T) {
	for name, h := range registries(t) {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(h)
			defer server.Close()
			for round := range 20 {
				subject := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString(fmt.Sprint(name, round)), Size: 1}
				var clients errgroup.Group
				start := make(chan bool)
				for client := range 12 {
					clients.Go(func() error {
						<-start
						for i := range 5 {
							raw, desc, err := manifest.IndexDraft{ArtifactType: "a/b", Subject: &subject, Annotations: map[string]string{"n": fmt.Sprint(client, i)}}.Build()
							if err != nil {
								return err
							}
							resp, answer := send(t, "PUT", server.URL+"/v2/r/manifests/"+string(desc.Digest), raw)
							if resp.StatusCode != 201 || resp.Header.Get("OCI-Subject") != string(subject.Digest) {
								return fmt.Errorf("%d %q %s", resp.StatusCode, resp.Header.Get("OCI-Subject"), answer)
							}
						}
						return nil
					})
				}
				close(start)
				if err := clients.Wait(); err != nil {
					t.Fatal(err)
				}
				_, answer := send(t, "GET", server.URL+"/v2/r/referrers/"+string(subject.Digest), nil)
				var index ocispec.Index
				if err := json.Unmarshal(answer, &index); err != nil || len(index.Manifests) != 60 {
					t.Fatalf("round %d: %d are listed, %v", round, len(index.Manifests), err)
				}
			}
		})
	}
}

// TestTwoChunksAtOneOffset: of two PATCHes at once one is 202 and one 416, and
// the blob is that of the winner, 200 rounds; with Content-Range and without.
func TestTwoChunksAtOneOffset(t *testing.T) {
	for name, h := range registries(t) {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(h)
			defer server.Close()
			for round := range 200 {
				resp, _ := send(t, "POST", server.URL+"/v2/r/blobs/uploads/", nil)
				location := server.URL + resp.Header.Get("Location")
				contents := []string{strings.Repeat("a", 9000), strings.Repeat("b", 9000)}
				var wg sync.WaitGroup
				start, status := make(chan bool), make([]int, 2)
				for i, content := range contents {
					wg.Go(func() {
						<-start
						var header []string
						if round%2 == 0 {
							header = []string{"Content-Range", "0-8999"}
						}
						resp, _ := send(t, "PATCH", location, []byte(content), header...)
						status[i] = resp.StatusCode
					})
				}
				close(start)
				wg.Wait()
				// Without Content-Range the second may come after the first, and is then
				// a chunk of its own.
				content := ""
				switch {
				case status[0] == 202 && status[1] == 416:
					content = contents[0]
				case status[0] == 416 && status[1] == 202:
					content = contents[1]
				case round%2 == 1 && status[0] == 202 && status[1] == 202:
					if resp, _ := send(t, "GET", location, nil); resp.Header.Get("Range") != "0-17999" {
						t.Fatalf("round %d: two chunks, %s", round, resp.Header.Get("Range"))
					}
					for _, content := range []string{contents[0] + contents[1], contents[1] + contents[0]} {
						if resp, _ := send(t, "PUT", location+"?digest="+string(digest.FromString(content)), nil); resp.StatusCode == 201 {
							status = nil
							break
						}
					}
					if status != nil {
						t.Fatalf("round %d: neither order is what was stored", round)
					}
					continue
				default:
					t.Fatalf("round %d: %v", round, status)
				}
				dgst := string(digest.FromString(content))
				if resp, answer := send(t, "PUT", location+"?digest="+dgst, nil); resp.StatusCode != 201 {
					t.Fatalf("round %d: close: %d %s", round, resp.StatusCode, answer)
				}
				if _, got := send(t, "GET", server.URL+"/v2/r/blobs/"+dgst, nil); string(got) != content {
					t.Fatalf("round %d: wrong bytes", round)
				}
			}
		})
	}
}

// TestBlobDeletionNeverPassesAPush: either the push is refused or the deletion
// is, and what was acknowledged can be pulled.
func TestBlobDeletionNeverPassesAPush(t *testing.T) {
	for name, h := range registries(t) {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(h)
			defer server.Close()
			for round := range 100 {
				content := fmt.Sprint("layer", round)
				layer := ocispec.Descriptor{MediaType: "text/plain", Digest: digest.FromString(content), Size: int64(len(content))}
				send(t, "POST", server.URL+"/v2/r/blobs/uploads/?digest="+string(layer.Digest), []byte(content))
				send(t, "POST", server.URL+"/v2/r/blobs/uploads/?digest="+string(digest.FromString("{}")), []byte("{}"))
				raw, desc, err := manifest.ImageDraft{ArtifactType: "a/b", Layers: []ocispec.Descriptor{layer}}.Build()
				if err != nil {
					t.Fatal(err)
				}
				var wg sync.WaitGroup
				start := make(chan bool)
				var pushed, deleted int
				wg.Go(func() {
					<-start
					resp, _ := send(t, "PUT", server.URL+"/v2/r/manifests/"+string(desc.Digest), raw)
					pushed = resp.StatusCode
				})
				wg.Go(func() {
					<-start
					resp, _ := send(t, "DELETE", server.URL+"/v2/r/blobs/"+string(layer.Digest), nil)
					deleted = resp.StatusCode
				})
				close(start)
				wg.Wait()
				if (pushed == 201) == (deleted == 202) {
					t.Fatalf("round %d: push %d, deletion %d", round, pushed, deleted)
				}
				if resp, _ := send(t, "GET", server.URL+"/v2/r/blobs/"+string(layer.Digest), nil); (resp.StatusCode == 200) != (pushed == 201) {
					t.Fatalf("round %d: push %d, and then the layer %d", round, pushed, resp.StatusCode)
				}
			}
		})
	}
}
