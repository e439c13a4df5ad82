//go:build linux

package bench

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage"
	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/manifest"
)

const manyReferrers = 100_000

// Of the artifact types, common has a quarter of the referrers, rare ten.
const (
	common = "application/vnd.example.signature"
	rare   = "application/vnd.example.rare"
	other  = "application/vnd.example.sbom"
)

var subject = ocispec.Descriptor{MediaType: manifest.MediaTypeImage, Digest: digestOf(-1), Size: 727}

// referrer makes the i-th of n referrers.
func referrer(i, n int) []byte {
	d := manifest.ImageDraft{ArtifactType: other, Subject: &subject, Annotations: map[string]string{
		ocispec.AnnotationCreated: time.Unix(int64(i), 0).UTC().Format(time.RFC3339)}}
	switch {
	case i%4 == 0:
		d.ArtifactType = common
	case i%(n/10) == 1:
		d.ArtifactType = rare
	}
	raw, _, err := d.Build()
	must(err)
	return raw
}

// filled returns a registry with n referrers of subject, and the way to push
// more.
func filled(n int) (*wharfage.Handler, func(raw []byte) digest.Digest) {
	h := wharfage.NewMemory()
	desc, empty := manifest.Empty()
	must(blob.Put(context.Background(), h.Blobs, "team/app", desc, bytes.NewReader(empty)))
	p := manifest.Pusher{Store: h.Manifests}
	push := func(raw []byte) digest.Digest {
		done, err := p.Push(context.Background(), "team/app", manifest.PushRequest{MediaType: manifest.MediaTypeImage, Raw: raw})
		must(err)
		return done.Record.Desc.Digest
	}
	for i := range n {
		push(referrer(i, n))
	}
	return h, push
}

func BenchmarkPush(b *testing.B) {
	var first float64
	for _, n := range []int{100, manyReferrers} {
		b.Run(fmt.Sprintf("referrers-%d", n), func(b *testing.B) {
			h, push := filled(n)
			docs := make([][]byte, 100)
			for i := range docs {
				docs[i] = referrer(n+i, n)
			}
			var used time.Duration
			runtime.GC()
			for b.Loop() {
				var undo manifest.Change // so that there are never many more than n
				used -= processorTime()
				for _, raw := range docs {
					undo.Delete = append(undo.Delete, manifest.Removal{Digest: push(raw)})
				}
				used += processorTime()
				if err := h.Manifests.Apply(b.Context(), "team/app", undo); err != nil {
					b.Fatal(err)
				}
			}
			each := float64(used) / float64(b.N*len(docs))
			if n == 100 || first == 0 {
				first = each
			}
			b.ReportMetric(0, "ns/op") // which would count the undoing
			b.ReportMetric(each, "cpu-ns/push")
			b.ReportMetric(each/first, "x")
		})
	}
}

// ready answers /ready/... with the bytes that the registry has answered to
// /... the first time.
type ready struct {
	registry http.Handler
	mu       sync.Mutex
	pages    map[string][]byte
}

func (s *ready) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	uri, ok := strings.CutPrefix(r.RequestURI, "/ready")
	if !ok {
		s.registry.ServeHTTP(w, r)
		return
	}
	s.mu.Lock()
	page, found := s.pages[uri]
	if !found {
		rec := httptest.NewRecorder()
		s.registry.ServeHTTP(rec, httptest.NewRequest("GET", uri, nil))
		page = rec.Body.Bytes()
		s.pages[uri] = page
	}
	s.mu.Unlock()
	writeBytes(w, page)
}

func newReferrers(n int) http.Handler {
	h, _ := filled(n)
	return &ready{registry: h, pages: map[string][]byte{}}
}

// queries are what is asked of the list, as far as pages go.
var queries = []struct {
	name, query string
	pages       int
}{
	{"first 1,000", "n=1000", 1},
	{"first page, just under 4 MiB", "", 1},
	{"all", "", 100},
	{"10 by type", "artifactType=" + rare, 100},
	{"25,000 by type", "artifactType=" + common, 100},
}

// pagesOf returns the URIs of a listing.
func pagesOf(c *client, query string, pages int) (uris []string, err error) {
	uri := repo + "/referrers/" + string(subject.Digest) + "?" + query
	for more := true; more && len(uris) < pages; {
		resp, err := c.do(http.StatusOK, "GET", uri, "", nil)
		if err != nil {
			return nil, err
		}
		uris = append(uris, uri)
		uri, _, more = strings.Cut(strings.TrimPrefix(resp.Header.Get("Link"), "<"), ">")
	}
	return uris, nil
}

func BenchmarkHTTPReferrers(b *testing.B) {
	p := start("referrers")
	defer p.stop()
	lists := map[string][]string{}
	var names []string
	load(b, p.addr, 1, len(queries), func(c *client, i int) (err error) {
		q := queries[i]
		names = append(names, q.name)
		lists[q.name], err = pagesOf(c, q.query, q.pages)
		return err
	})
	results := inTurn(names, rounds, func(name string) figures {
		ask := func(prefix string) (wall, cpu time.Duration) {
			uris := lists[name]
			again := 200 / len(uris) // so that connecting is nothing beside it
			job := func(c *client, i int) error {
				_, err := c.do(http.StatusOK, "GET", prefix+uris[i%len(uris)], "", nil)
				return err
			}
			load(b, p.addr, 1, len(uris), job) // ready has its pages from now on
			wall, cpu = p.measure(b, 1, again*len(uris), job)
			return wall / time.Duration(again), cpu / time.Duration(again)
		}
		wall, cpu := ask("")
		bareWall, bareCPU := ask("/ready")
		return figures{"CPU us": micros(cpu), "bare CPU us": micros(bareCPU), "x CPU": float64(cpu) / float64(bareCPU),
			"us": micros(wall), "bare us": micros(bareWall), "x": float64(wall) / float64(bareWall)}
	})
	printTable("referrers of a subject that has 100,000", names, []string{"CPU us", "bare CPU us", "x CPU", "us", "bare us", "x"}, results)
	b.ReportMetric(0, "ns/op")
}

// BenchmarkHTTPPushReferrer is the push that registries with one list per
// subject pay for by its length.
func BenchmarkHTTPPushReferrer(b *testing.B) {
	const n = 500 // few beside what is there, but for the first row
	docs := make([][]byte, n)
	for i := range docs {
		docs[i] = referrer(manyReferrers+i, manyReferrers)
	}
	names := []string{"referrers-100", "referrers"}
	results := inTurn(names, rounds, func(name string) figures {
		p := start(name)
		defer p.stop()
		wall, cpu := p.measure(b, 4, n, func(c *client, i int) error {
			_, err := c.do(http.StatusCreated, "PUT", repo+"/manifests/"+string(digest.FromBytes(docs[i])), manifest.MediaTypeImage, net.Buffers{docs[i]})
			return err
		})
		return figures{"CPU us": micros(cpu) / n, "us": micros(wall) / n}
	})
	results["bare"] = results["referrers-100"] // what the ratio is to
	printTable("a push over HTTP to a subject that has 100 and 100,000 referrers", names, []string{"CPU us", timesBare, "us"}, results)
	b.ReportMetric(0, "ns/op")
}

// TestReferrersAgree shows that the listings hold what they say.
func TestReferrersAgree(t *testing.T) {
	const n = 20_000
	s := httptest.NewServer(newReferrers(n))
	defer s.Close()
	for i, want := range []int{1000, 0, n, 10, n / 4} {
		q := queries[i]
		var uris []string
		load(t, s.Listener.Addr().String(), 1, 1, func(c *client, _ int) (err error) {
			uris, err = pagesOf(c, q.query, q.pages)
			return err
		})
		got := 0
		for _, uri := range uris {
			page := body(t, s.URL+uri)
			if !bytes.Equal(page, body(t, s.URL+"/ready"+uri)) {
				t.Errorf("%s: %s is not what ready answers", q.name, uri)
			}
			got += bytes.Count(page, []byte(`"digest":`))
		}
		if got != want && want > 0 {
			t.Errorf("%s: %d referrers on %d pages, want %d", q.name, got, len(uris), want)
		}
	}
}
