//go:build linux

package bench

import (
	"bufio"
	"cmp"
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
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"

	"github.com/wharfage/wharfage"
	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/blob/dirblob"
	"github.com/wharfage/wharfage/examples/store/pgstore/pgtest"
	"github.com/wharfage/wharfage/manifest/memmanifest"
)

// servers are what is compared. Those that keep files keep them in dir.
var servers = map[string]func(dir string) http.Handler{
	"bare": func(string) http.Handler { return &bare{content: map[string][]byte{}} },
	"bare, files": func(dir string) http.Handler {
		return &bareFiles{bare{content: map[string][]byte{}}, dir}
	},
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
	"referrers":     func(string) http.Handler { return newReferrers(manyReferrers) },
	"referrers-100": func(string) http.Handler { return newReferrers(100) },
}

var registries = []string{"bare", "bare, files", "wharfage", "wharfage, files", "ggcr", "ggcr, files"}

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
		body := s.content[r.URL.Path]
		s.mu.RUnlock()
		writeBytes(w, body)
	}
}

// bareFiles is bare with blobs in files, which cost more than memory does.
type bareFiles struct {
	bare
	dir string
}

func (s *bareFiles) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	dgst := r.URL.Query().Get("digest")
	switch _, blob, isBlob := strings.Cut(r.URL.Path, "/blobs/sha256:"); {
	case dgst != "":
		path := filepath.Join(s.dir, strings.TrimPrefix(dgst, "sha256:"))
		f, err := os.Create(path)
		must(err)
		h := sha256.New()
		_, err = io.CopyBuffer(io.MultiWriter(f, h), r.Body, make([]byte, 64<<10))
		must(errors.Join(err, f.Close()))
		if filepath.Base(path) != hex.EncodeToString(h.Sum(nil)) {
			os.Remove(path)
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		w.WriteHeader(http.StatusCreated)
	case isBlob:
		w.Header().Set("Content-Type", "application/octet-stream")
		http.ServeFile(w, r, filepath.Join(s.dir, blob))
	default:
		s.bare.ServeHTTP(w, r)
	}
}

func writeBytes(w http.ResponseWriter, body []byte) {
	w.Header().Set("Content-Type", "application/octet-stream") // or net/http would guess
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.Write(body)
}

// serverEnv names the server that a process is to be.
const serverEnv = "WHARFAGE_BENCH_SERVER"

// addrEnv is where it is to listen. Without, it chooses.
const addrEnv = "WHARFAGE_BENCH_ADDR"

func TestMain(m *testing.M) {
	name := os.Getenv(serverEnv)
	if name == "" {
		code := pgtest.Main(m)
		removeRegistry()
		os.Exit(code)
	}
	serve(servers[name](os.Args[1]))
}

// serve answers each line of its input with what the process has used so far,
// and ends with its input, at the latest when the benchmark does.
func serve(h http.Handler) {
	l, err := net.Listen("tcp", cmp.Or(os.Getenv(addrEnv), "127.0.0.1:0"))
	must(err)
	go http.Serve(l, h)
	fmt.Println(l.Addr())
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		fmt.Println(int64(processorTime()), peakMemory())
	}
}

// peakMemory returns the most bytes that this process has had in memory. That
// of getrusage can be the parent's, who forked.
func peakMemory() (kb int64) {
	status, _ := os.ReadFile("/proc/self/status")
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	fmt.Sscan(rest, &kb)
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

func start(name string) *process {
	dir, err := os.MkdirTemp("", "wharfage-bench")
	must(err)
	p := &process{dir: dir, cmd: exec.Command(os.Args[0], dir)}
	p.cmd.Env = append(os.Environ(), serverEnv+"="+name)
	p.cmd.Stderr = os.Stderr
	p.in, err = p.cmd.StdinPipe()
	must(err)
	out, err := p.cmd.StdoutPipe()
	must(err)
	p.out = bufio.NewScanner(out)
	must(p.cmd.Start())
	p.out.Scan()
	p.addr = p.out.Text()
	return p
}

// used returns the processor time and the peak memory of the server so far.
func (p *process) used() (cpu time.Duration, peak int64) {
	fmt.Fprintln(p.in)
	p.out.Scan()
	_, err := fmt.Sscan(p.out.Text(), &cpu, &peak)
	must(err)
	return cpu, peak
}

func (p *process) stop() {
	p.in.Close()
	p.cmd.Wait()
	os.RemoveAll(p.dir)
}
