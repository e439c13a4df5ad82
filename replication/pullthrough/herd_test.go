package pullthrough_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/blob/dirblob"
)

var (
	herdSize    = flag.Int64("herd-size", 4<<20, "bytes of the image that TestHerd pulls")
	herdClients = flag.Int("herd-clients", 100, "clients of TestHerd")
	herdMemory  = flag.Int64("herd-memory", 0, "bytes of the large image of TestHerdMemory, for herd-clients; 0: 64 MiB for 10")
)

var block = pattern(64<<10, 7)

// stream is content of any length that takes no memory.
type stream struct{ off, size int64 }

func (s *stream) Read(p []byte) (int, error) {
	if s.off == s.size {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), s.size-s.off)]
	for i := 0; i < len(p); {
		at := s.off + int64(i)
		n := copy(p[i:], block[at%int64(len(block)):])
		if at%int64(len(block)) == 0 && n >= 8 {
			binary.BigEndian.PutUint64(p[i:], uint64(at)) // so that no block is like another
		}
		i += n
	}
	s.off += int64(len(p))
	return len(p), nil
}

// TestHerd: many clients pull one image at once that is not here. Upstream sends each blob
// once. The last half of the layer leaves upstream when each client has its first byte.
func TestHerd(t *testing.T) { herd(t, *herdSize, *herdClients) }

// herd returns the digest of the layer.
func herd(t testing.TB, size int64, clients int) {
	w := newWorld(t, nil)
	store := &dirblob.Store{Dir: t.TempDir()}
	w.cache.Blobs, w.cache.SpoolDir = store, t.TempDir()
	w.handle()
	server := httptest.NewServer(w.serve)
	defer server.Close()
	// A connection for each, as they are clients of their own.
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: clients, DisableCompression: true}}

	hash := sha256.New()
	io.Copy(hash, &stream{0, size})
	layer := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.NewDigest(digest.SHA256, hash), Size: size}
	image := w.image("herd", []ocispec.Descriptor{layer}, nil, "v1")
	var begun sync.WaitGroup
	begun.Add(clients)
	half := make(chan struct{})
	go func() { begun.Wait(); close(half) }()
	w.open = func(ctx context.Context, dgst digest.Digest, off int64) (io.ReadCloser, blob.Info, error) {
		if dgst != layer.Digest {
			content := w.blobs[dgst]
			return io.NopCloser(bytes.NewReader(content[off:])), blob.Info{Size: int64(len(content))}, nil
		}
		return io.NopCloser(io.MultiReader(&stream{off, size / 2}, gated{ctx, half}, &stream{size / 2, size})), blob.Info{Size: size}, nil
	}
	get := func(path string, first func()) (int64, digest.Digest, error) {
		resp, err := client.Get(server.URL + "/v2/up/app/" + path)
		if err != nil {
			return 0, "", err
		}
		defer resp.Body.Close()
		if resp.StatusCode != 200 {
			return 0, "", errors.New(resp.Status)
		}
		one := make([]byte, 1)
		if _, err := io.ReadFull(resp.Body, one); err != nil {
			return 0, "", err
		}
		first()
		hash := sha256.New()
		hash.Write(one)
		n, err := io.Copy(hash, resp.Body)
		return n + 1, digest.NewDigest(digest.SHA256, hash), err
	}
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			_, dgst, err := get("manifests/v1", func() {})
			if err != nil || dgst != image.Digest {
				t.Errorf("manifest: %s %v", dgst, err)
			}
			once := sync.OnceFunc(begun.Done)
			defer once()
			if n, dgst, err := get("blobs/"+string(layer.Digest), once); err != nil || n != size || dgst != layer.Digest {
				t.Errorf("layer: %d bytes, %s, %v", n, dgst, err)
			}
		})
	}
	wg.Wait()
	for call, want := range map[string]int{"resolve": 1, "get": 1, "open " + string(layer.Digest): 1, "probe": 0} {
		if n := w.count(call); n != want {
			t.Errorf("upstream was asked %d times to %s, not %d", n, call, want)
		}
	}
	infos, err := store.Stat(t.Context(), "up/app", []digest.Digest{layer.Digest})
	if err != nil || infos[0].Size != size {
		t.Errorf("stored: %+v %v", infos, err)
	}
	client.CloseIdleConnections()
}

// TestHerdMemory: what a herd takes does not follow the size of the image. Each size runs in
// a process of its own, which tells its peak.
func TestHerdMemory(t *testing.T) {
	if os.Getenv("HERD") != "" {
		size, _ := strconv.ParseInt(os.Getenv("HERD"), 10, 64)
		herd(t, size, *herdClients)
		return
	}
	if _, err := os.Stat("/proc/self/status"); err != nil {
		t.Skip("no /proc to read the peak from")
	}
	if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		t.Skip("the race detector takes memory of its own")
	}
	size, clients := *herdMemory, *herdClients
	if size == 0 {
		size, clients = 64<<20, 10
	}
	peak := func(size int64) int64 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestHerdMemory$", "-test.v", "-herd-clients="+strconv.Itoa(clients))
		cmd.Env = append(os.Environ(), fmt.Sprint("HERD=", size), "HERD_PEAK=1")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		for line := range strings.Lines(string(out)) {
			if v, ok := strings.CutPrefix(line, "VmHWM:"); ok {
				kb, _ := strconv.ParseInt(strings.Fields(v)[0], 10, 64)
				return kb << 10
			}
		}
		t.Fatalf("no peak in\n%s", out)
		return 0
	}
	small, large := peak(1<<20), peak(size)
	t.Logf("%d clients: peak %d MiB for 1 MiB, %d MiB for %d MiB", clients, small>>20, large>>20, size>>20)
	if large-small > 24<<20 {
		t.Errorf("the peak has grown from %d to %d bytes", small, large)
	}
}

func TestMain(m *testing.M) {
	flag.Parse()
	code := m.Run()
	if os.Getenv("HERD_PEAK") != "" {
		f, err := os.Open("/proc/self/status")
		if err == nil {
			for s := bufio.NewScanner(f); s.Scan(); {
				if strings.HasPrefix(s.Text(), "VmHWM:") {
					fmt.Println(s.Text())
				}
			}
		}
	}
	os.Exit(code)
}

// BenchmarkHerd is a herd before an image of 256 MiB; its bytes are those of all clients.
func BenchmarkHerd(b *testing.B) {
	const size = 256 << 20
	b.SetBytes(size * int64(*herdClients))
	for b.Loop() {
		herd(b, size, *herdClients)
	}
}
