//go:build linux

package bench

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// storages are registries that keep what they have on the disk, as their users
// run them: each the command to serve a folder on an address.
var storages = map[string]func(tb testing.TB, dir, addr string) *exec.Cmd{
	"wharfage": func(tb testing.TB, dir, addr string) *exec.Cmd {
		return exec.Command(registryBinary(tb), "-addr", addr, "-drain-delay", "0", "-data", dir)
	},
	"wharfage, unsynced": func(tb testing.TB, dir, addr string) *exec.Cmd {
		return exec.Command(registryBinary(tb), "-addr", addr, "-drain-delay", "0", "-data", dir, "-unsynced")
	},
	"distribution": func(tb testing.TB, dir, addr string) *exec.Cmd {
		config := filepath.Join(dir, "config.yml")
		must(os.WriteFile(config, fmt.Appendf(nil, distributionConfig, dir, addr), 0o644))
		cmd := exec.Command(distributionBinary(tb), "serve", config)
		cmd.Env = append(os.Environ(), "OTEL_TRACES_EXPORTER=none")
		return cmd
	},
	"go-containerregistry": ourselves("ggcr, files"),
	"bare, keeps nothing":  ourselves("bare"),
}

// ourselves runs one of servers in a process of its own.
func ourselves(name string) func(tb testing.TB, dir, addr string) *exec.Cmd {
	return func(_ testing.TB, dir, addr string) *exec.Cmd {
		cmd := exec.Command(os.Args[0], dir)
		cmd.Env = append(os.Environ(), serverEnv+"="+name, addrEnv+"="+addr)
		return cmd
	}
}

// distributionConfig is the one that it ships with, except that it may delete,
// wants no password, and neither logs requests nor probes its disk.
const distributionConfig = `version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage:
  cache: {blobdescriptor: inmemory}
  filesystem: {rootdirectory: %s/data}
  tag: {concurrencylimit: 8}
  delete: {enabled: true}
http: {addr: '%s'}
`

const distributionVersion = "v3.1.2"

// distributionBinary returns the path of the registry of distribution, which is
// installed once.
func distributionBinary(tb testing.TB) string {
	tb.Helper()
	cache, err := os.UserCacheDir()
	must(err)
	path := filepath.Join(cache, "wharfage-tools", "distribution-"+distributionVersion)
	if _, err := os.Stat(path); err == nil {
		return path
	}
	bin := tb.TempDir()
	cmd := exec.Command("go", "install", "github.com/distribution/distribution/v3/cmd/registry@"+distributionVersion)
	cmd.Env = append(os.Environ(), "GOBIN="+bin, "GOWORK=off", "GOFLAGS=")
	cmd.Dir = bin // no module's
	if text, err := cmd.CombinedOutput(); err != nil {
		tb.Fatalf("install distribution: %v\n%s", err, text)
	}
	must(os.MkdirAll(filepath.Dir(path), 0o755))
	text, err := exec.Command("cp", filepath.Join(bin, "registry"), path).CombinedOutput() // to another file system, perhaps
	if err != nil {
		tb.Fatalf("%v: %s", err, text)
	}
	return path
}

var registryPath = sync.OnceValues(func() (string, error) {
	path := filepath.Join(os.TempDir(), fmt.Sprintf("wharfage-bench-registry-%d", os.Getpid()))
	if text, err := exec.Command("go", "build", "-o", path, "../registry").CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the registry: %w\n%s", err, text)
	}
	return path, nil
})

// registryBinary returns the path of examples/registry, which is built once.
func registryBinary(tb testing.TB) string {
	tb.Helper()
	path, err := registryPath()
	if err != nil {
		tb.Fatal(err)
	}
	return path
}

// removeRegistry removes what registryBinary has made.
func removeRegistry() {
	os.Remove(filepath.Join(os.TempDir(), fmt.Sprintf("wharfage-bench-registry-%d", os.Getpid())))
}

// running is a storage that answers.
type running struct {
	tb    testing.TB
	addr  string
	after time.Duration // from its start to its first answer
	cmd   *exec.Cmd
	stdin interface{ Close() error }
	log   string
}

// run starts a storage on a folder that may have content.
func run(tb testing.TB, name, dir string) *running {
	tb.Helper()
	r := &running{tb: tb, addr: freeAddr(), log: filepath.Join(dir, "bench.log")}
	r.cmd = storages[name](tb, dir, r.addr)
	log, err := os.OpenFile(r.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	must(err)
	defer log.Close()
	r.cmd.Stdout, r.cmd.Stderr = log, log
	r.stdin, err = r.cmd.StdinPipe()
	must(err)
	began := time.Now()
	must(r.cmd.Start())
	for {
		c, err := dial(r.addr)
		if err == nil {
			_, err = c.do(http.StatusOK, "GET", "/v2/", "", nil)
			c.conn.Close()
		}
		if err == nil {
			r.after = time.Since(began)
			return r
		}
		if time.Since(began) > time.Minute {
			r.stop()
			text, _ := os.ReadFile(r.log)
			tb.Fatalf("%s does not answer: %v\n%s", name, err, text)
		}
		time.Sleep(time.Millisecond) // a foreign program says nothing when it is ready
	}
}

// freeAddr returns an address on loopback that nobody listens on.
func freeAddr() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	defer l.Close()
	return l.Addr().String()
}

// stop ends the server in good order.
func (r *running) stop() {
	r.tb.Helper()
	r.cmd.Process.Signal(syscall.SIGTERM)
	r.stdin.Close()
	err := r.cmd.Wait()
	if text, _ := os.ReadFile(r.log); err != nil && strings.Contains(r.cmd.Path, "wharfage-bench-registry") {
		r.tb.Errorf("the registry ended with %v\n%s", err, text)
	}
}

// used returns the processor time of the server so far, in steps of 10 ms.
func (r *running) used() time.Duration {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", r.cmd.Process.Pid))
	must(err)
	_, rest, _ := strings.Cut(string(stat), ") ") // a name may have spaces
	fields := strings.Fields(rest)
	var user, system int64
	_, err = fmt.Sscan(fields[11]+" "+fields[12], &user, &system)
	must(err)
	return time.Duration(user+system) * 10 * time.Millisecond
}

// peak returns the most bytes that the server has had in memory.
func (r *running) peak() (kb int64) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", r.cmd.Process.Pid))
	must(err)
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	_, err = fmt.Sscan(rest, &kb)
	must(err)
	return kb << 10
}

// measure is like that of process.
func (r *running) measure(conns, n int, job func(c *client, i int) error) (wall, cpu time.Duration) {
	r.tb.Helper()
	before := r.used()
	wall = load(r.tb, r.addr, conns, n, job)
	return wall, r.used() - before
}

// settle has the disk done with what went before, so that the next server does
// not wait for it.
func settle() { syscall.Sync() }
