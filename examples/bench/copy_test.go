//go:build linux

package bench

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/regclient/regclient"
	"github.com/regclient/regclient/config"
	"github.com/regclient/regclient/types/ref"
	"oras.land/oras-go/v2"
	orasremote "oras.land/oras-go/v2/registry/remote"

	"github.com/wharfage/wharfage"
	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/examples/store/remote"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/replication"
)

const copied = "team/app"

// counted is a registry in memory that counts requests, and answers each after a
// delay.
type counted struct {
	*wharfage.Handler
	host     string
	delay    time.Duration
	requests atomic.Int64
}

func newCounted(tb testing.TB, delay time.Duration) *counted {
	c := &counted{Handler: wharfage.NewMemory(), delay: delay}
	s := httptest.NewServer(c)
	tb.Cleanup(s.Close)
	c.host = strings.TrimPrefix(s.URL, "http://")
	return c
}

func (c *counted) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/v2/" { // by which clients learn of authorization
		c.requests.Add(1)
	}
	time.Sleep(c.delay)
	c.Handler.ServeHTTP(w, r)
}

func (c *counted) put(content string) ocispec.Descriptor {
	desc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromString(content), Size: int64(len(content))}
	must(blob.Put(context.Background(), c.Blobs, copied, desc, strings.NewReader(content)))
	return desc
}

func (c *counted) push(raw []byte, desc ocispec.Descriptor, err error, tags ...string) ocispec.Descriptor {
	must(err)
	_, err = (&manifest.Pusher{Store: c.Manifests}).Push(context.Background(), copied, manifest.PushRequest{MediaType: desc.MediaType, Raw: raw, Tags: tags})
	must(err)
	return ocispec.Descriptor{MediaType: desc.MediaType, Digest: desc.Digest, Size: desc.Size}
}

// count returns how many manifests and blobs there are.
func (c *counted) count() (manifests, blobs int) {
	for _, err := range c.Manifests.Manifests(context.Background(), copied, "") {
		must(err)
		manifests++
	}
	for _, err := range c.Blobs.Blobs(context.Background(), copied, "") {
		must(err)
		blobs++
	}
	return manifests, blobs
}

// copyJob is what is copied, and the least requests for it: GET and PUT a manifest; GET, POST
// and PUT a blob; a listing of referrers.
type copyJob struct {
	name      string
	referrers bool
	fill      func(c *counted)
	listings  int
}

func copyJobs(referrers int) []copyJob {
	return []copyJob{
		{fmt.Sprintf("image and %d referrers", referrers), true, func(c *counted) {
			c.put("{}")
			raw, desc, err := manifest.ImageDraft{ArtifactType: "application/vnd.example", Layers: []ocispec.Descriptor{c.put("layer")}}.Build()
			image := c.push(raw, desc, err, "v1")
			for i := range referrers {
				raw, desc, err := manifest.ImageDraft{ArtifactType: "application/vnd.example.signature", Subject: &image,
					Layers: []ocispec.Descriptor{c.put(fmt.Sprintf("signature %d %s", i, strings.Repeat("x", 4<<10)))}}.Build()
				c.push(raw, desc, err)
			}
		}, 1},
		{"index of 20 platforms and 8 layers", false, func(c *counted) {
			var index manifest.IndexDraft
			for i := range 20 {
				config := c.put(fmt.Sprintf(`{"architecture":"arch%d"}`, i))
				config.MediaType = ocispec.MediaTypeImageConfig
				draft := manifest.ImageDraft{Config: &config}
				for j := range 8 {
					draft.Layers = append(draft.Layers, c.put(fmt.Sprintf("layer %d of %d %s", j, i, strings.Repeat("x", 64<<10))))
				}
				raw, desc, err := draft.Build()
				child := c.push(raw, desc, err)
				child.Platform = &ocispec.Platform{OS: "linux", Architecture: fmt.Sprintf("arch%d", i)}
				index.Manifests = append(index.Manifests, child)
			}
			raw, desc, err := index.Build()
			c.push(raw, desc, err, "v1")
		}, 0},
	}
}

// copiers copy team/app:v1 between two hosts, 16 at once unless they say otherwise.
var copiers = []string{"wharfage", "oras-go", "regclient", "regclient, 16"}

func runCopier(name string, job copyJob, from, to *counted) error {
	ctx := context.Background()
	switch name {
	case "wharfage":
		src, dst := &remote.Registry{Host: from.host}, &remote.Registry{Host: to.host}
		o := replication.CopyOptions{}
		if job.referrers {
			o.Referrers = 1
		}
		_, err := new(replication.Copier).Copy(ctx, src.Source(), copied, "v1", dst.Target(), copied, o)
		return err
	case "oras-go":
		repo := func(host string) *orasremote.Repository {
			r, err := orasremote.NewRepository(host + "/" + copied)
			must(err)
			r.PlainHTTP = true
			return r
		}
		if job.referrers {
			o := oras.DefaultExtendedCopyOptions
			o.Concurrency = 16
			_, err := oras.ExtendedCopy(ctx, repo(from.host), "v1", repo(to.host), "v1", o)
			return err
		}
		o := oras.DefaultCopyOptions
		o.Concurrency = 16
		_, err := oras.Copy(ctx, repo(from.host), "v1", repo(to.host), "v1", o)
		return err
	}
	var hosts []config.Host
	for _, c := range []*counted{from, to} {
		h := config.HostNewName(c.host)
		h.TLS = config.TLSDisabled
		if name == "regclient, 16" {
			h.ReqConcurrent = 16
		}
		hosts = append(hosts, *h)
	}
	rc := regclient.New(regclient.WithConfigHost(hosts...))
	src, err := ref.New(from.host + "/" + copied + ":v1")
	must(err)
	dst, err := ref.New(to.host + "/" + copied + ":v1")
	must(err)
	var o []regclient.ImageOpts
	if job.referrers {
		o = append(o, regclient.ImageWithReferrers())
	}
	return rc.ImageCopy(ctx, src, dst, o...)
}

// BenchmarkCopy copies between two registries that answer each request after 20 ms,
// and once more when there is nothing new.
func BenchmarkCopy(b *testing.B) {
	referrers, rounds := 1000, 1
	if testing.Short() {
		referrers = 50
	}
	for _, job := range copyJobs(referrers) {
		results := map[string][]figures{}
		var least float64
		for range rounds {
			for _, name := range copiers {
				from, to := newCounted(b, 20*time.Millisecond), newCounted(b, 20*time.Millisecond)
				job.fill(from)
				manifests, blobs := from.count()
				least = float64(2*manifests + 3*blobs + job.listings)
				run := func() (wall, requests float64) {
					before := from.requests.Load() + to.requests.Load()
					began := time.Now()
					if err := runCopier(name, job, from, to); err != nil {
						b.Fatalf("%s: %v", name, err)
					}
					return time.Since(began).Seconds(), float64(from.requests.Load() + to.requests.Load() - before)
				}
				wall, requests := run()
				if m, n := to.count(); m != manifests || n != blobs {
					b.Fatalf("%s: %d manifests and %d blobs came, of %d and %d", name, m, n, manifests, blobs)
				}
				againWall, again := run()
				results[name] = append(results[name], figures{
					"requests": requests, "x least": requests / least, "s": wall,
					"again": again, "again s": againWall,
				})
			}
		}
		for _, name := range copiers {
			for i, f := range results[name] {
				f["x time"] = f["s"] / results["wharfage"][i]["s"]
				f["x again"] = f["again s"] / results["wharfage"][i]["again s"]
			}
		}
		printTable(fmt.Sprintf("Copy, %s, 20 ms a request; the least is %.0f requests", job.name, least), copiers,
			[]string{"requests", "x least", "s", "x time", "again", "again s", "x again"}, results)
	}
}

// TestCopyRequests holds a copy over HTTP to 1.05 times the least requests, and one
// with nothing new to a handful.
func TestCopyRequests(t *testing.T) {
	for i, job := range copyJobs(1000) {
		from, to := newCounted(t, 0), newCounted(t, 0)
		job.fill(from)
		manifests, blobs := from.count()
		least := int64(2*manifests + 3*blobs + job.listings)
		for _, most := range []int64{least * 105 / 100, []int64{6, 3}[i]} {
			from.requests.Store(0)
			to.requests.Store(0)
			if err := runCopier("wharfage", job, from, to); err != nil {
				t.Fatal(err)
			}
			got := from.requests.Load() + to.requests.Load()
			t.Logf("%s: %d requests, at most %d, least %d", job.name, got, most, least)
			if got > most {
				t.Errorf("%s: %d requests, want at most %d", job.name, got, most)
			}
		}
	}
}
