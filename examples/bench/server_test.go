//go:build linux

package bench

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"

	"github.com/wharfage/wharfage"
	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/blob/dirblob"
	"github.com/wharfage/wharfage/manifest/memmanifest"
)

// servers are what is compared. Those that keep files keep them in dir.
var servers = map[string]func(dir string) http.Handler{
	"bare":     func(string) http.Handler { return &bare{content: map[string][]byte{}} },
	"wharfage": func(string) http.Handler { return wharfage.NewMemory() },
	"wharfage, files": func(dir string) http.Handler {
		blobs, manifests := &dirblob.Store{Dir: dir, Unsynced: true}, new(memmanifest.Store)
		manifests.MissingBlobs = blob.Missing(blobs)
		blobs.Guard = wharfage.GuardBlobs(manifests)
		return &wharfage.Handler{Blobs: blobs, Manifests: manifests}
	},
	"ggcr": func(string) http.Handler { return registry.New(quiet) },
	"ggcr, files": func(dir string) http.Handler {
		return registry.New(quiet, registry.WithBlobHandler(registry.NewDiskBlobHandler(dir)))
	},
	"referrers": func(string) http.Handler { return newReferrers(manyReferrers) },
}

// registries are the servers that take all requests.
var registries = []string{"bare", "wharfage", "wharfage, files", "ggcr", "ggcr, files"}

var quiet = registry.Logger(log.New(io.Discard, "", 0))

// bare is the least that a registry can be. It trusts its client with
// everything but the digest.
type bare struct {
	mu      sync.RWMutex
	content map[string][]byte // by path
}

func (s *bare) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.Method {
	case http.MethodPost:
		w.Header().Set("Location", r.URL.Path+"1")
		w.WriteHeader(http.StatusAccepted)
	case http.MethodPut:
		body := make([]byte, r.ContentLength)
		if _, err := io.ReadFull(r.Body, body); err != nil {
			return
		}
		sum := sha256.Sum256(body)
		dgst, path := "sha256:"+hex.EncodeToString(sum[:]), r.URL.Path
		if want := r.URL.Query().Get("digest"); want != "" {
			if want != dgst {
				w.WriteHeader(http.StatusBadRequest)
				return
			}
			path = strings.TrimSuffix(path, "uploads/1") + dgst
		}
		s.mu.Lock()
		s.content[path] = body
		s.mu.Unlock()
		w.Header().Set("Docker-Content-Digest", dgst)
		w.WriteHeader(http.StatusCreated)
	default:
		s.mu.RLock()
		body, found := s.content[r.URL.Path]
		s.mu.RUnlock()
		if !found {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		writeBytes(w, body)
	}
}

func writeBytes(w http.ResponseWriter, body []byte) {
	w.Header().Set("Content-Type", "application/octet-stream") // or net/http would guess
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.Write(body)
}

// serverEnv names the server that a process is to be.
const serverEnv = "WHARFAGE_BENCH_SERVER"

func TestMain(m *testing.M) {
	if name := os.Getenv(serverEnv); name != "" {
		serve(servers[name](os.Args[1]))
		return
	}
	os.Exit(m.Run())
}

// serve answers each line of its input with what the process has used so far,
// and ends with its input, at the latest when the benchmark does.
func serve(h http.Handler) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	go http.Serve(l, h)
	fmt.Println(l.Addr())
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		fmt.Println(int64(processorTime()), peakMemory())
	}
}

var highWater = regexp.MustCompile(`VmHWM:\s*(\d+) kB`)

// peakMemory returns the most bytes that this process has had in memory. That
// of getrusage can be the parent's, who forked.
func peakMemory() int64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		log.Fatal(err)
	}
	kb, err := strconv.ParseInt(string(highWater.FindSubmatch(status)[1]), 10, 64)
	if err != nil {
		log.Fatal(err)
	}
	return kb << 10
}

// process is a server in a process of its own.
type process struct {
	addr string
	dir  string
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Scanner
}

func start(tb testing.TB, name string) *process {
	tb.Helper()
	dir, err := os.MkdirTemp("", "wharfage-bench")
	if err != nil {
		tb.Fatal(err)
	}
	p := &process{dir: dir, cmd: exec.Command(os.Args[0], dir)}
	p.cmd.Env = append(os.Environ(), serverEnv+"="+name)
	p.cmd.Stderr = os.Stderr
	in, err1 := p.cmd.StdinPipe()
	out, err2 := p.cmd.StdoutPipe()
	if err := errors.Join(err1, err2, p.cmd.Start()); err != nil {
		os.RemoveAll(dir)
		tb.Fatal(err)
	}
	p.in, p.out = in, bufio.NewScanner(out)
	p.addr = p.line(tb)
	return p
}

func (p *process) line(tb testing.TB) string {
	tb.Helper()
	if !p.out.Scan() {
		p.stop()
		tb.Fatal("the server has ended")
	}
	return p.out.Text()
}

// used returns the processor time and the peak memory of the server so far.
func (p *process) used(tb testing.TB) (cpu time.Duration, peak int64) {
	tb.Helper()
	fmt.Fprintln(p.in)
	if _, err := fmt.Sscan(p.line(tb), &cpu, &peak); err != nil {
		tb.Fatal(err)
	}
	return cpu, peak
}

func (p *process) stop() {
	p.in.Close()
	p.cmd.Wait()
	os.RemoveAll(p.dir)
}
