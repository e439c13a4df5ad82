//go:build linux

package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/examples/store/remote"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/replication"
)

// TestCopyKilled: a copy over HTTP of an index of 40 blobs is killed at each request, on
// either side, and begun again as if by another process. The target never shows what
// lacks something, and what is sent twice is less than a chunk.
func TestCopyKilled(t *testing.T) {
	const platforms, layers, part = 8, 4, 4 << 10
	from := newCounted(t, 0)
	var index manifest.IndexDraft
	for i := range platforms {
		config := from.put(fmt.Sprintf(`{"architecture":"arch%d"}`, i))
		config.MediaType = ocispec.MediaTypeImageConfig
		draft := manifest.ImageDraft{Config: &config}
		for j := range layers { // of three parts and a bit, and of less than one
			draft.Layers = append(draft.Layers, from.put(fmt.Sprintf("layer %d of %d %s", j, i, strings.Repeat("x", (j%2)*3*part+100))))
		}
		raw, desc, err := draft.Build()
		index.Manifests = append(index.Manifests, from.push(raw, desc, err))
	}
	raw, desc, err := index.Build()
	from.push(raw, desc, err, "v1")
	size := int64(0)
	for info, err := range from.Blobs.Blobs(t.Context(), copied, "") {
		must(err)
		size += info.Size
	}

	requests, worst := 0, int64(0)
	step := int64(1)
	if testing.Short() {
		step = 9
	}
	for n := int64(1); ; n += step {
		to := newCounted(t, 0)
		kill := newKiller(from, to, n)
		copier := func() *replication.Copier {
			return &replication.Copier{Requests: 1, PartSize: part, Journal: kill.journal}
		}
		kill.journal = replication.DirJournal(t.TempDir())
		ctx, cancel := context.WithCancel(t.Context())
		kill.cancel = cancel
		err := kill.copy(ctx, copier())
		cancel()
		if kill.requests.Load() < n {
			must(err)
			break
		}
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Fatalf("killed at %d: %v", n, err)
		}
		requests++
		kill.cancel = nil
		if err := kill.copy(t.Context(), copier()); err != nil {
			t.Fatalf("after %d: %v", n, err)
		}
		if tag, err := to.Manifests.Resolve(t.Context(), copied, "v1"); err != nil || tag.Digest != desc.Digest {
			t.Fatalf("after %d: %+v, %v", n, tag, err)
		}
		if again := kill.sent.Load() - size; again >= part {
			t.Errorf("killed at %d: %d bytes were sent again, a chunk has %d", n, again, part)
		} else {
			worst = max(worst, again)
		}
		kill.check(t, n)
	}
	t.Logf("killed at each of %d requests: at most %d bytes of %d sent again, a chunk has %d", requests, worst, size, part)
	if requests < 200/int(step) {
		t.Errorf("%d requests", requests)
	}
}

// killer is a transport that cancels a copy at its n-th request, counts what blobs take,
// and looks at the target when a manifest has come.
type killer struct {
	from, to *counted
	journal  replication.Journal
	n        int64
	cancel   context.CancelFunc // nil lets all pass
	requests atomic.Int64
	sent     atomic.Int64
	broken   atomic.Value // what the target has shown too early
}

func newKiller(from, to *counted, n int64) *killer { return &killer{from: from, to: to, n: n} }

func (k *killer) copy(ctx context.Context, c *replication.Copier) error {
	src, dst := &remote.Registry{Host: k.from.host, Transport: k}, &remote.Registry{Host: k.to.host, Transport: k}
	_, err := c.Copy(ctx, src.Source(), copied, "v1", dst.Target(), copied, replication.CopyOptions{})
	return err
}

func (k *killer) RoundTrip(r *http.Request) (*http.Response, error) {
	dies := k.requests.Add(1) == k.n && k.cancel != nil
	var cut func() // half-way through the content
	if dies && k.n%2 == 1 && r.ContentLength > 1 {
		cut = k.cancel
	} else if dies { // when it is made, and its answer is lost
		defer k.cancel()
	}
	if r.Body != nil {
		n := new(atomic.Int64)
		if strings.Contains(r.URL.Path, "/blobs/") {
			n = &k.sent
		}
		r = r.Clone(r.Context())
		r.Body = &countedBody{r.Body, n, r.ContentLength / 2, cut}
	}
	resp, err := http.DefaultTransport.RoundTrip(r)
	if r.Method != http.MethodPut || !strings.Contains(r.URL.Path, "/manifests/") {
		return resp, err
	}
	for rec, err := range k.to.Manifests.Manifests(context.Background(), copied, "") {
		must(err)
		infos, err := k.to.Blobs.Stat(context.Background(), copied, rec.Blobs)
		must(err)
		for i, info := range infos {
			if info.Digest == "" {
				k.broken.Store(fmt.Sprintf("%s without blob %s", rec.Desc.Digest, rec.Blobs[i]))
			}
		}
		for _, child := range rec.Manifests {
			if _, err := k.to.Manifests.Get(context.Background(), copied, child); err != nil {
				k.broken.Store(fmt.Sprintf("%s without child %s", rec.Desc.Digest, child))
			}
		}
	}
	return resp, err
}

func (k *killer) check(t *testing.T, n int64) {
	if what := k.broken.Load(); what != nil {
		t.Errorf("killed at %d: the target has shown %v", n, what)
	}
}

// countedBody ends in an error after half of what it has, if cut is not nil.
type countedBody struct {
	io.ReadCloser
	n    *atomic.Int64
	half int64
	cut  func()
}

func (b *countedBody) Read(p []byte) (int, error) {
	if b.cut != nil && b.half == 0 {
		b.cut()
		return 0, io.ErrUnexpectedEOF
	}
	if b.cut != nil {
		p = p[:min(int64(len(p)), b.half)]
	}
	n, err := b.ReadCloser.Read(p)
	b.n.Add(int64(n))
	b.half -= int64(n)
	return n, err
}
