package pullthrough_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/replication"
	"github.com/wharfage/wharfage/replication/pullthrough"
)

// script is a body that yields what it is told, in pieces, and then ends, breaks or stalls.
type script struct {
	ctx     context.Context
	content []byte
	piece   int
	end     error // nil: stall until ctx ends
}

func (s *script) Read(p []byte) (int, error) {
	if len(s.content) == 0 {
		if s.end == nil {
			<-s.ctx.Done()
			return 0, s.ctx.Err()
		}
		return 0, s.end
	}
	n := copy(p[:min(len(p), s.piece)], s.content)
	s.content = s.content[n:]
	return n, nil
}

func (s *script) Close() error { return nil }

var errReset = errors.New("connection reset by peer")

// offsets are one of each class: nothing, the first byte, within the memory of the
// spool, at its end, beyond, before the last byte.
func offsets(size int) []int {
	var out []int
	for _, at := range []int{0, 1, 1000, 64<<10 - 1, 64 << 10, 64<<10 + 1, 100_000, size - 1} {
		if at < size {
			out = append(out, at)
		}
	}
	return out
}

// TestBadUpstream: whatever an upstream does to a blob, a client gets the right bytes or a body that
// is visibly cut, and the store holds right bytes or none. With cured, the next pull
// succeeds.
func TestBadUpstream(t *testing.T) {
	type lie struct {
		serves bool // what the client gets in the end
		opens  int  // how often upstream is asked; 0 is not compared
		open   func(ctx context.Context, content []byte, at int, off int64, call int) (io.ReadCloser, blob.Info, error)
	}
	body := func(ctx context.Context, content []byte, end error, size int) (io.ReadCloser, blob.Info, error) {
		return &script{ctx, content, 999, end}, blob.Info{Size: int64(size)}, nil
	}
	flip := func(content []byte, at int) []byte {
		bad := bytes.Clone(content)
		bad[at] ^= 1
		return bad
	}
	lies := map[string]lie{
		"honest": {true, 1, func(ctx context.Context, content []byte, _ int, off int64, _ int) (io.ReadCloser, blob.Info, error) {
			return body(ctx, content[off:], io.EOF, len(content))
		}},
		"size unknown": {true, 1, func(ctx context.Context, content []byte, _ int, off int64, _ int) (io.ReadCloser, blob.Info, error) {
			return body(ctx, content[off:], io.EOF, -1)
		}},
		"truncated once": {true, 2, func(ctx context.Context, content []byte, at int, off int64, call int) (io.ReadCloser, blob.Info, error) {
			if call == 1 {
				return body(ctx, content[:at], io.EOF, len(content))
			}
			return body(ctx, content[off:], io.EOF, len(content))
		}},
		"broken once": {true, 2, func(ctx context.Context, content []byte, at int, off int64, call int) (io.ReadCloser, blob.Info, error) {
			if call == 1 {
				return body(ctx, content[:at], errReset, len(content))
			}
			return body(ctx, content[off:], io.EOF, len(content))
		}},
		"stalled once": {true, 2, func(ctx context.Context, content []byte, at int, off int64, call int) (io.ReadCloser, blob.Info, error) {
			if call == 1 {
				return body(ctx, content[:at], nil, len(content))
			}
			return body(ctx, content[off:], io.EOF, len(content))
		}},
		"unavailable once": {true, 2, func(ctx context.Context, content []byte, _ int, off int64, call int) (io.ReadCloser, blob.Info, error) {
			if call == 1 {
				return nil, blob.Info{}, &replication.TemporaryError{Err: replication.ErrUnavailable}
			}
			return body(ctx, content[off:], io.EOF, len(content))
		}},
		"rate limited once": {true, 2, func(ctx context.Context, content []byte, _ int, off int64, call int) (io.ReadCloser, blob.Info, error) {
			if call == 1 {
				return nil, blob.Info{}, &replication.TemporaryError{After: 3 * time.Second, Err: replication.ErrRateLimited}
			}
			return body(ctx, content[off:], io.EOF, len(content))
		}},
		"rate limited for an hour": {false, 1, func(context.Context, []byte, int, int64, int) (io.ReadCloser, blob.Info, error) {
			return nil, blob.Info{}, &replication.TemporaryError{After: time.Hour, Err: replication.ErrRateLimited}
		}},
		"always truncated": {false, 5, func(ctx context.Context, content []byte, at int, off int64, _ int) (io.ReadCloser, blob.Info, error) {
			return body(ctx, content[min(off, int64(at)):at], io.EOF, len(content))
		}},
		"truncated, size unknown": {false, 1, func(ctx context.Context, content []byte, at int, off int64, _ int) (io.ReadCloser, blob.Info, error) {
			return body(ctx, content[off:at], io.EOF, -1)
		}},
		"always stalled": {false, 5, func(ctx context.Context, content []byte, at int, off int64, _ int) (io.ReadCloser, blob.Info, error) {
			return body(ctx, content[min(off, int64(at)):at], nil, len(content))
		}},
		"never answers": {false, 5, func(ctx context.Context, _ []byte, _ int, _ int64, _ int) (io.ReadCloser, blob.Info, error) {
			<-ctx.Done()
			return nil, blob.Info{}, ctx.Err()
		}},
		"always unavailable": {false, 5, func(context.Context, []byte, int, int64, int) (io.ReadCloser, blob.Info, error) {
			return nil, blob.Info{}, &replication.TemporaryError{Err: replication.ErrUnavailable}
		}},
		"denied": {false, 1, func(context.Context, []byte, int, int64, int) (io.ReadCloser, blob.Info, error) {
			return nil, blob.Info{}, replication.ErrDenied
		}},
		"flipped": {false, 1, func(ctx context.Context, content []byte, at int, off int64, _ int) (io.ReadCloser, blob.Info, error) {
			return body(ctx, flip(content, at)[off:], io.EOF, len(content))
		}},
		"flipped, size unknown": {false, 1, func(ctx context.Context, content []byte, at int, off int64, _ int) (io.ReadCloser, blob.Info, error) {
			return body(ctx, flip(content, at)[off:], io.EOF, -1)
		}},
		"resumes from the wrong place": {false, 2, func(ctx context.Context, content []byte, at int, off int64, call int) (io.ReadCloser, blob.Info, error) {
			if call == 1 {
				return body(ctx, content[:at], errReset, len(content))
			}
			return body(ctx, append([]byte("x"), content[off:]...), io.EOF, len(content))
		}},
		"says that it is longer": {false, 5, func(ctx context.Context, content []byte, _ int, off int64, _ int) (io.ReadCloser, blob.Info, error) {
			return body(ctx, content[off:], io.EOF, len(content)+1)
		}},
		"says that it is shorter": {false, 1, func(ctx context.Context, content []byte, _ int, off int64, _ int) (io.ReadCloser, blob.Info, error) {
			return body(ctx, content[off:], io.EOF, len(content)-1)
		}},
		"says that it is empty": {false, 1, func(ctx context.Context, content []byte, _ int, off int64, _ int) (io.ReadCloser, blob.Info, error) {
			return body(ctx, content[off:], io.EOF, 0)
		}},
		"changes its size": {false, 2, func(ctx context.Context, content []byte, at int, off int64, call int) (io.ReadCloser, blob.Info, error) {
			return body(ctx, content[off:at], errReset, len(content)+call)
		}},
		"another digest": {false, 1, func(ctx context.Context, content []byte, _ int, _ int64, _ int) (io.ReadCloser, blob.Info, error) {
			return &script{ctx, content, 999, io.EOF}, blob.Info{Digest: digest.FromString("x"), Size: int64(len(content))}, nil
		}},
		"too large": {false, 1, func(ctx context.Context, content []byte, _ int, _ int64, _ int) (io.ReadCloser, blob.Info, error) {
			return body(ctx, content, io.EOF, 1<<30) // MaxBlob is less
		}},
		"without end": {false, 0, func(ctx context.Context, content []byte, _ int, _ int64, _ int) (io.ReadCloser, blob.Info, error) {
			return &script{ctx, bytes.Repeat(content, 100), 64 << 10, nil}, blob.Info{Size: -1}, nil
		}},
	}
	for name, lie := range lies {
		for _, size := range []int{10, 200_000} {
			for _, at := range offsets(size) {
				inBubble(t, fmt.Sprintf("%s/%d of %d", name, at, size), func(t *testing.T) {
					dir := t.TempDir()
					w := newWorld(t, func(c *pullthrough.Cache) { c.SpoolDir, c.MaxBlob = dir, 1<<20 })
					content := pattern(size, 1)
					desc := w.blob(content)
					calls, cured := 0, false
					w.open = func(ctx context.Context, _ digest.Digest, off int64) (io.ReadCloser, blob.Info, error) {
						calls++
						if cured {
							return body(ctx, content[off:], io.EOF, size)
						}
						return lie.open(ctx, content, at, off, calls)
					}
					begun := time.Now()
					status, got, err := w.download(desc.Digest)
					complete := status == 200 && err == nil
					if complete != lie.serves || complete && !bytes.Equal(got, content) {
						t.Errorf("status %d, %d bytes, %v", status, len(got), err)
					}
					if status == 200 && !complete && len(got) >= size && name != "says that it is longer" {
						t.Error("the last byte was sent")
					}
					w.cache.Close()
					if stored := w.stored(t); (len(stored) == 1) != lie.serves {
						t.Errorf("stored: %v", stored)
					}
					if lie.opens > 0 && calls != lie.opens && name != "always truncated" && name != "says that it is longer" {
						t.Errorf("upstream was asked %d times, not %d", calls, lie.opens)
					}
					if calls > 5 || time.Since(begun) > 5*time.Minute {
						t.Errorf("%d attempts in %v", calls, time.Since(begun))
					}
					if left, _ := os.ReadDir(dir); len(left) > 0 {
						t.Errorf("%d files are left", len(left))
					}
					// The next pull, once upstream is well.
					cured = true
					w2 := newWorld(t, func(c *pullthrough.Cache) {
						c.Blobs, c.Manifests, c.Upstream = w.cache.Blobs, w.cache.Manifests, w.cache.Upstream
					})
					if status, got, err := w2.download(desc.Digest); status != 200 || err != nil || !bytes.Equal(got, content) {
						t.Errorf("cured: %d %v", status, err)
					}
				})
			}
		}
	}
}

// download gets a blob of up/app over a connection, with what the server does at its end.
func (w *world) download(dgst digest.Digest) (status int, content []byte, err error) {
	rec := &cutRecorder{ResponseRecorder: httptest.NewRecorder()}
	r := httptest.NewRequest("GET", "/v2/up/app/blobs/"+string(dgst), nil)
	w.serve.ServeHTTP(rec, r)
	content = rec.Body.Bytes()
	if v := rec.Header().Get("Content-Length"); v != fmt.Sprint(len(content)) {
		err = fmt.Errorf("%d bytes of %s", len(content), v) // for which a server cuts the connection
	}
	return rec.Code, content, err
}

type cutRecorder struct{ *httptest.ResponseRecorder }

// TestBadManifests: what has not the digest, or cannot be read, is neither stored nor
// served; the copy is.
func TestBadManifests(t *testing.T) {
	for name, lie := range map[string]func(w *world, rec *manifest.Record){
		"other bytes":   func(_ *world, rec *manifest.Record) { rec.Raw = append(bytes.Clone(rec.Raw), ' ') },
		"flipped":       func(_ *world, rec *manifest.Record) { rec.Raw = bytes.Clone(rec.Raw); rec.Raw[10] ^= 1 },
		"nothing":       func(_ *world, rec *manifest.Record) { rec.Raw = nil },
		"another type":  func(_ *world, rec *manifest.Record) { rec.Desc.MediaType = ocispec.MediaTypeImageIndex },
		"too large":     func(_ *world, rec *manifest.Record) { rec.Raw = make([]byte, 5<<20) },
		"not there":     func(w *world, rec *manifest.Record) { w.loses(rec.Desc.Digest) },
		"no digest":     func(w *world, _ *manifest.Record) { w.tags["v1"] = "sha256:../../etc" },
		"blake3 digest": func(w *world, _ *manifest.Record) { w.tags["v1"] = digest.Digest("blake3:" + strings.Repeat("a", 64)) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, nil)
			good := w.image("good", nil, nil, "v1")
			w.want(t, "app/manifests/v1", 200, w.raw(good.Digest))
			bad := w.image("bad", nil, nil, "v1", "v2")
			rec := w.docs[bad.Digest]
			lie(w, &rec)
			if _, ok := w.docs[bad.Digest]; ok {
				w.docs[bad.Digest] = rec
			}
			w.advance(25 * time.Hour)
			if r := w.want(t, "app/manifests/v1", 200, w.raw(good.Digest)); r.Header().Get("Warning") == "" {
				t.Error("no warning")
			}
			if !strings.Contains(name, "digest") {
				if r := w.get("app/manifests/v2"); r.Code != 502 && r.Code != 404 {
					t.Errorf("without a copy: %d", r.Code)
				}
				if r := w.get("app/manifests/" + string(bad.Digest)); r.Code != 502 && r.Code != 404 {
					t.Errorf("by digest: %d", r.Code)
				}
			}
			for rec, err := range w.store.Manifests.Manifests(t.Context(), "up/app", "") {
				if err != nil || rec.Desc.Digest != good.Digest {
					t.Errorf("stored: %s %v", rec.Desc.Digest, err)
				}
			}
		})
	}
}

// TestEndlessReferrers: a list without end is left at MaxReferrers, and one that stalls after
// Silence. What was listed is there.
func TestEndlessReferrers(t *testing.T) {
	for _, stalls := range []bool{false, true} {
		inBubble(t, fmt.Sprint("stalls ", stalls), func(t *testing.T) {
			w := newWorld(t, func(c *pullthrough.Cache) { c.MaxReferrers = 10 })
			image := w.image("a", nil, nil)
			var descs []ocispec.Descriptor
			for i := range 8 {
				descs = append(descs, w.image(fmt.Sprint(i), nil, &image))
			}
			yielded := 0
			w.refers = func() iter.Seq2[ocispec.Descriptor, error] {
				return func(yield func(ocispec.Descriptor, error) bool) {
					for _, d := range descs {
						yielded++
						if !yield(d, nil) {
							return
						}
					}
					for i := 0; ; i++ {
						if stalls {
							time.Sleep(time.Minute)
						}
						yielded++
						if !yield(ocispec.Descriptor{Digest: digest.FromString(fmt.Sprint(i))}, nil) {
							return
						}
					}
				}
			}
			rec := w.want(t, "app/referrers/"+string(image.Digest), 200, nil)
			if n := strings.Count(rec.Body.String(), `"digest"`); n != len(descs) {
				t.Errorf("%d referrers are listed", n)
			}
			if rec.Header().Get("Warning") == "" || yielded > 11 {
				t.Errorf("warning %q after %d entries", rec.Header().Get("Warning"), yielded)
			}
		})
	}
}

// failingStore is a blob store that is full.
type failingStore struct{ blob.Store }

var errFull = errors.New("no space left on device")

func (s failingStore) Put(_ context.Context, _ string, _ ocispec.Descriptor, r io.Reader) error {
	io.CopyN(io.Discard, r, 5)
	return errFull
}

// TestFullStore: a store that takes nothing does not keep clients from what is right.
func TestFullStore(t *testing.T) {
	var mu sync.Mutex
	var told []error
	w := newWorld(t, func(c *pullthrough.Cache) {
		c.Blobs = failingStore{c.Blobs}
		c.OnError = func(_ context.Context, err error) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, err)
		}
	})
	content := pattern(200_000, 1)
	desc := w.blob(content)
	w.want(t, "app/blobs/"+string(desc.Digest), 200, content)
	image := w.image("a", []ocispec.Descriptor{desc}, nil)
	if err := w.cache.Import(t.Context(), "up/app", image.Digest); !errors.Is(err, errFull) {
		t.Errorf("import: %v", err)
	}
	mu.Lock()
	if len(told) == 0 || !errors.Is(told[0], errFull) {
		t.Errorf("told %v", told)
	}
	mu.Unlock()
	desc = w.blob(pattern(200_000, 2))
	w.lie(desc.Digest, content)
	if status, got, err := w.download(desc.Digest); err == nil && status == 200 || len(got) >= len(content) {
		t.Errorf("bad bytes: %d %v", status, err)
	}
}

// slowStore has read all that it is given a while before it says so.
type slowStore struct{ blob.Store }

func (s slowStore) Put(ctx context.Context, repo string, desc ocispec.Descriptor, r io.Reader) error {
	content, err := io.ReadAll(r)
	if time.Sleep(time.Minute); err != nil {
		return err
	}
	return s.Store.Put(ctx, repo, desc, bytes.NewReader(content))
}

// TestAnyLength: the last byte of a range that goes on beyond the end waits for the check, too.
func TestAnyLength(t *testing.T) {
	for _, n := range []int64{-1, 999, 1000, math.MaxInt64} {
		inBubble(t, fmt.Sprint(n), func(t *testing.T) {
			w := newWorld(t, func(c *pullthrough.Cache) { c.Blobs = slowStore{c.Blobs} })
			desc := w.blob(pattern(1000, 1))
			w.lie(desc.Digest, pattern(1000, 2))
			body, _, err := w.cache.CachedBlobs().Open(t.Context(), "up/app", desc.Digest, 1, n)
			if err != nil {
				t.Fatal(err)
			}
			defer body.Close()
			if got, err := io.ReadAll(body); !errors.Is(err, replication.ErrContent) || len(got) >= 999 {
				t.Errorf("%d bytes of wrong content, %v", len(got), err)
			}
		})
	}
}

// lateStore gets a blob just after it was asked for it.
type lateStore struct {
	blob.Store
	once    *sync.Once
	content []byte
}

func (s lateStore) Open(ctx context.Context, repo string, dgst digest.Digest, off, n int64) (io.ReadCloser, blob.Info, error) {
	body, info, err := s.Store.Open(ctx, repo, dgst, off, n)
	s.once.Do(func() {
		blob.Put(ctx, s.Store, repo, ocispec.Descriptor{Digest: dgst, Size: int64(len(s.content))}, bytes.NewReader(s.content))
	})
	return body, info, err
}

// TestStoredMeanwhile: who just missed the end of a transfer does not begin another.
func TestStoredMeanwhile(t *testing.T) {
	content := pattern(1000, 1)
	w := newWorld(t, func(c *pullthrough.Cache) { c.Blobs = lateStore{c.Blobs, new(sync.Once), content} })
	desc := w.blob(content)
	w.want(t, "app/blobs/"+string(desc.Digest), 200, content)
	if w.count("open") != 0 {
		t.Error("upstream was asked")
	}
}

// TestClientsLeave: who goes does not stop the others, and not the transfer, unless
// StopAlone is set and nobody is left. Ranges end with a checked byte, too.
func TestClientsLeave(t *testing.T) {
	for _, stop := range []bool{false, true} {
		inBubble(t, fmt.Sprint("StopAlone ", stop), func(t *testing.T) {
			w := newWorld(t, func(c *pullthrough.Cache) { c.StopAlone = stop })
			content := pattern(100_000, 1)
			desc := w.blob(content)
			gate := make(chan struct{})
			ended := make(chan error, 10)
			w.open = func(ctx context.Context, _ digest.Digest, off int64) (io.ReadCloser, blob.Info, error) {
				context.AfterFunc(ctx, func() { ended <- ctx.Err() })
				return io.NopCloser(io.MultiReader(bytes.NewReader(content[off:50_000]), gated{ctx, gate}, bytes.NewReader(content[50_000:]))),
					blob.Info{Size: int64(len(content))}, nil
			}
			store := w.cache.CachedBlobs()
			open := func(off, n int64) io.ReadCloser {
				body, _, err := store.Open(t.Context(), "up/app", desc.Digest, off, n)
				if err != nil {
					t.Fatal(err)
				}
				return body
			}
			a, b, part := open(0, -1), open(0, -1), open(10, 100)
			buf := make([]byte, 99)
			if _, err := io.ReadFull(part, buf); err != nil || !bytes.Equal(buf, content[10:109]) {
				t.Fatal(err)
			}
			last := make(chan error, 1)
			go func() {
				_, err := io.ReadFull(part, buf[:1])
				last <- err
			}()
			synctest.Wait()
			if len(last) > 0 {
				t.Error("the last byte of a range came before the check")
			}
			a.Close()
			if stop {
				part.Close()
				b.Close()
				synctest.Wait()
				if len(ended) != 1 || len(w.stored(t)) != 0 {
					t.Error("the transfer goes on alone")
				}
				close(gate)
				if got, err := io.ReadAll(open(0, -1)); err != nil || !bytes.Equal(got, content) {
					t.Errorf("the next client: %v", err)
				}
				return
			}
			close(gate)
			if got, err := io.ReadAll(b); err != nil || !bytes.Equal(got, content) {
				t.Errorf("the client that stayed: %v", err)
			}
			if err := <-last; err != nil {
				t.Error(err)
			}
			b.Close()
			part.Close()
			if len(w.stored(t)) != 1 || w.count("open") != 1 {
				t.Errorf("%d stored, upstream was asked %d times", len(w.stored(t)), w.count("open"))
			}
		})
	}
}

// gated is an empty reader that ends when the gate opens.
type gated struct {
	ctx  context.Context
	gate chan struct{}
}

func (g gated) Read([]byte) (int, error) {
	select {
	case <-g.gate:
		return 0, io.EOF
	case <-g.ctx.Done():
		return 0, g.ctx.Err()
	}
}

// TestClose: it ends what is under way, and leaves nothing.
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		content := pattern(100_000, 1)
		desc := w.blob(content)
		w.open = func(ctx context.Context, _ digest.Digest, _ int64) (io.ReadCloser, blob.Info, error) {
			return &script{ctx, content[:50_000], 999, nil}, blob.Info{Size: int64(len(content))}, nil
		}
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				if status, got, err := w.download(desc.Digest); status == http.StatusOK && err == nil {
					t.Errorf("complete: %d bytes", len(got))
				}
			})
		}
		synctest.Wait()
		w.cache.Close()
		wg.Wait()
		if status, _, _ := w.download(desc.Digest); status != 500 {
			t.Errorf("after Close: %d", status)
		}
	})
}
