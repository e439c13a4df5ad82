package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// registry is a server that was started here.
type registry struct {
	addr string
	dir  string
	cmd  *exec.Cmd
	done chan struct{} // closed when its log has ended

	mu     sync.Mutex
	failed []string // lines of its log
}

func start(ctx context.Context, o options) (*registry, error) {
	dir, err := os.MkdirTemp("", "wharfage-soak")
	if err != nil {
		return nil, err
	}
	r := &registry{dir: dir, done: make(chan struct{})}
	if err := r.start(ctx, o); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return r, nil
}

func (r *registry) start(ctx context.Context, o options) error {
	binary := filepath.Join(r.dir, "registry")
	build := exec.CommandContext(ctx, "go", "build", "-o", binary, "github.com/wharfage/wharfage/examples/registry")
	if text, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build the registry: %w\n%s", err, text)
	}
	// A small cache is full before memory is judged.
	args := []string{"-addr", "127.0.0.1:0", "-drain-delay", "0", "-cache", "1000000", "-data", r.data(), "-collect-every", o.every.String(), "-lease", o.lease.String()}
	r.cmd = exec.Command(binary, append(args, o.args...)...)
	log, err := r.cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := r.cmd.Start(); err != nil {
		return err
	}
	listens := make(chan string, 1)
	go r.follow(log, listens)
	select {
	case r.addr = <-listens:
		return nil
	case <-r.done:
		r.cmd.Wait()
		return fmt.Errorf("the registry did not start: %q", r.failures())
	case <-ctx.Done():
		r.cmd.Process.Kill()
		return ctx.Err()
	}
}

func (r *registry) data() string { return filepath.Join(r.dir, "data") }

// follow reads the log, and keeps what must not be there.
func (r *registry) follow(log io.Reader, listens chan<- string) {
	defer close(r.done)
	for lines := bufio.NewScanner(log); lines.Scan(); {
		line := lines.Text()
		if _, addr, ok := strings.Cut(line, "registry listens addr="); ok {
			listens <- addr
		}
		if strings.Contains(line, "ERROR") || strings.Contains(line, "panic") || strings.Contains(line, "DATA RACE") {
			fmt.Fprintln(os.Stderr, line)
			r.mu.Lock()
			r.failed = append(r.failed, line)
			r.mu.Unlock()
		}
	}
}

func (r *registry) failures() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failed
}

// stop ends the server in good order, and removes what it has stored unless
// somebody will want to look at it.
func (r *registry) stop(remove bool) error {
	r.cmd.Process.Signal(syscall.SIGTERM)
	<-r.done
	if err := r.cmd.Wait(); err != nil {
		return fmt.Errorf("the registry ended with %w; its data is in %s", err, r.data())
	}
	if !remove {
		fmt.Fprintf(os.Stderr, "what the registry has stored is in %s\n", r.data())
		return nil
	}
	return os.RemoveAll(r.dir)
}

// watch looks at a registry from outside. Without one, and where the system
// does not tell, all is 0.
type watch struct {
	registry *registry
	samples  []sample
}

type sample struct {
	at        time.Duration // since the begin
	rss, anon int64         // bytes, and those of them that are of no file
}

func (w *watch) sample(at time.Duration) {
	if rss := w.status("VmRSS"); rss > 0 {
		w.samples = append(w.samples, sample{at, rss, w.status("RssAnon")})
	}
}

// status returns bytes from the status of the process.
func (w *watch) status(field string) (kb int64) {
	if w.registry == nil {
		return 0
	}
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.registry.cmd.Process.Pid))
	_, rest, _ := strings.Cut(string(text), "\n"+field+":")
	fmt.Sscan(rest, &kb)
	return kb << 10
}

func (w *watch) goroutines() (n int) {
	if w.registry == nil {
		return 0
	}
	resp, err := http.Get("http://" + w.registry.addr + "/metrics")
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	_, rest, _ := strings.Cut(string(text), "\ngo_goroutines ")
	fmt.Sscan(rest, &n)
	return n
}

// stored returns how many bytes of content there are in the data folder.
func (w *watch) stored() (total int64) {
	if w.registry == nil {
		return 0
	}
	for _, folder := range []string{"objects", "packs"} {
		filepath.WalkDir(filepath.Join(w.registry.data(), folder), func(_ string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return nil // gone, perhaps
			}
			if info, err := d.Info(); err == nil {
				total += info.Size()
			}
			return nil
		})
	}
	return total
}

// slope is that of the straight line that fits bytes best after warm, in MB in
// 10 minutes.
func (w *watch) slope(warm time.Duration, bytes func(s sample) int64) (slope float64, n int) {
	var x, y, xx, xy float64
	for _, s := range w.samples {
		if s.at >= warm {
			t, v := s.at.Minutes()/10, mb(bytes(s))
			x, y, xx, xy, n = x+t, y+v, xx+t*t, xy+t*v, n+1
		}
	}
	if d := float64(n)*xx - x*x; d > 0 {
		slope = (float64(n)*xy - x*y) / d
	}
	return slope, n
}
