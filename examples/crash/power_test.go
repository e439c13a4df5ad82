//go:build linux

package crash

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/examples/store/pgstore/pgtest"
)

var (
	histories = flag.Int("histories", 6, "how many histories lose power, of each store")
	firstSeed = flag.Uint64("seed", 1, "of the first history")
)

const planVariable = "WHARFAGE_CRASH_PLAN"

func TestMain(m *testing.M) {
	if text := os.Getenv(planVariable); text != "" {
		var p plan
		err := json.Unmarshal([]byte(text), &p)
		if err == nil {
			err = runHistory(p)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	flag.Parse()
	var err error
	if scratch, err = os.MkdirTemp("", "crash"); err != nil {
		panic(err)
	}
	code := pgtest.Main(m)
	os.RemoveAll(scratch)
	os.Exit(code)
}

// scratch is a folder for as long as the tests run.
var scratch string

// TestPowerLoss: whatever a disk keeps when the power fails, at any system call,
// the store opens, and has what was acknowledged.
func TestPowerLoss(t *testing.T) {
	for _, name := range slices.Sorted(maps.Keys(stores)) {
		t.Run(name, func(t *testing.T) {
			var sum figures
			t.Run("seeds", func(t *testing.T) {
				for i := range *histories {
					seed := *firstSeed + uint64(i)
					t.Run(fmt.Sprint(seed), func(t *testing.T) {
						t.Parallel()
						r := record(t, planOf(name, seed))
						if err := r.lose(t, newDisk(r.root), &sum); err != nil {
							t.Error(err)
						}
					})
				}
			})
			t.Logf("%d histories: %v", *histories, &sum)
		})
	}
}

// planOf makes some of the histories concurrent: of a few operations, when
// folders are used for the first time, or of more.
func planOf(store string, seed uint64) plan {
	switch seed % 4 {
	case 0:
		return plan{Store: store, Seed: seed, Ops: 12, Workers: 2}
	case 2:
		return plan{Store: store, Seed: seed, Ops: 3, Workers: 6}
	}
	return plan{Store: store, Seed: seed, Ops: 24, Workers: 1}
}

// recording is a history and the system calls that it came to.
type recording struct {
	plan
	root string
	log  string // file of strace
}

// record runs a history in a process of its own.
func record(t *testing.T, p plan) *recording {
	t.Helper()
	dir := ramDir(t)
	r := &recording{root: filepath.Join(dir, "root"), log: filepath.Join(t.TempDir(), "log")}
	if err := os.Mkdir(r.root, 0o777); err != nil {
		t.Fatal(err)
	}
	p.Dir, p.Said = filepath.Join(r.root, storeDir), filepath.Join(dir, "said")
	r.plan = p
	text, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := strace(t, r.log, self)
	cmd.Env = append(os.Environ(), planVariable+"="+string(text), "GODEBUG=asyncpreemptoff=1")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("seed %d: %v\n%s", p.Seed, err, text)
	}
	return r
}

// storeDir is not right below what is durable from the start.
const storeDir = "var/store"

// figures count what was done.
type figures struct {
	mu                           sync.Mutex
	calls, syncs, acked, crashes int
}

func (f *figures) add(calls, syncs, acked, crashes int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls, f.syncs, f.acked, f.crashes = f.calls+calls, f.syncs+syncs, f.acked+acked, f.crashes+crashes
}

func (f *figures) String() string {
	return fmt.Sprintf("%d system calls, %d syncs, %d acknowledgements, %d crashes", f.calls, f.syncs, f.acked, f.crashes)
}

// lose loses power at each call on the disk d, and returns the first thing that
// was lost with it.
func (r *recording) lose(t *testing.T, d *disk, sum *figures) error {
	log, err := os.Open(r.log)
	if err != nil {
		return err
	}
	defer log.Close()
	l := &loss{recording: r, d: d, promises: newPromises(), dir: ramDir(t)}
	for _, fate := range []fate{{name: "nothing that was not synced"}, {name: "folders, but no contents that were not synced", entries: true}, {name: "by chance", random: true}} {
		l.fates = append(l.fates, &tried{fate: fate})
	}
	all, err := events(log)
	for i := 0; i < len(all) && err == nil; i++ {
		err = l.next(all[i])
	}
	if err == nil {
		err = l.crash()
	}
	if err == nil && len(l.under) > 0 {
		err = errors.New("the history did not come to its end")
	}
	if err == nil {
		err = d.differs(r.root)
	}
	sum.add(len(all)/2, l.syncs, l.acked, l.crashes)
	if err != nil {
		err = fmt.Errorf("seed %d: after %v; %s: %w", r.Seed, l.at, l.last, err)
	}
	return err
}

type loss struct {
	*recording
	*promises
	d                      *disk
	dir                    string
	fates                  []*tried
	at                     *call
	syncs, points, crashes int
}

// tried is the state after which a fate was last tried.
type tried struct {
	fate
	acked int
	state [3]int
}

// of returns numbers that change when what f keeps may.
func (f *tried) of(d *disk) [3]int {
	if !f.random && !f.entries {
		return [3]int{d.kept, 0, 0}
	}
	return [3]int{d.kept, d.shown, d.unsettled}
}

func (l *loss) next(e event) error {
	if !e.end {
		return l.d.begin(e.call)
	}
	if fd, err := e.number(0); err == nil && e.name == "write" && l.d.open[fd] != nil && l.d.open[fd].path == l.Said {
		return errors.Join(l.said(e.call), l.d.end(e.call))
	}
	if err := l.crash(); err != nil { // before the call
		return err
	}
	if l.at = e.call; e.name == "fsync" || e.name == "fdatasync" {
		l.syncs++
	}
	return l.d.end(e.call)
}

func (l *loss) said(c *call) error {
	text, err := c.bytes(1)
	if err != nil {
		return err
	}
	var s said
	if err := json.Unmarshal(text, &s); err != nil {
		return err
	}
	if s.What != "" { // from here on less is promised
		if err := l.crash(); err != nil {
			return err
		}
	}
	l.fold(s)
	return nil
}

var errLoss = errors.New("a crash lost more than power")

// crash tries each fate that may come out otherwise than when it was last
// tried. As chance is dear, it is left out half of the times.
func (l *loss) crash() error {
	for _, f := range l.fates {
		state := f.of(l.d)
		if f.acked == l.acked && f.state == state {
			continue
		}
		often := !f.random && (f.acked != l.acked || f.state[0] != state[0] || f.state[1] != state[1])
		f.acked, f.state = l.acked, state
		f.seed = l.Seed<<32 + uint64(l.points)
		l.points++
		if !often && f.coin(0, -5) {
			continue
		}
		l.crashes++
		if err := l.restart(f.fate); err != nil {
			return fmt.Errorf("%w: it kept %s (crash %d): %w", errLoss, f.name, l.crashes, err)
		}
	}
	return nil
}

func (l *loss) restart(f fate) (err error) {
	ctx := context.Background()
	dir := filepath.Join(l.dir, fmt.Sprint(l.crashes))
	if err := f.write(l.d, dir); err != nil {
		return fmt.Errorf("writing the model: %w", err)
	}
	// What a mutant spoils may panic, or end a file within a mapping of it.
	panicked := true
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	s, err := stores[l.Store](filepath.Join(dir, storeDir), 24*time.Hour, true)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	defer func() {
		if !panicked {
			err = errors.Join(err, s.close(), os.RemoveAll(dir))
		}
	}()
	err = l.use(ctx, s)
	panicked = false
	return err
}

// use checks a store that was opened after a crash.
func (l *loss) use(ctx context.Context, s *store) error {
	if l.crashes%2 == 0 { // sweeps remove nothing that anybody needs
		if _, err := s.sweep(ctx, time.Now().Add(-time.Hour)); err != nil {
			return err
		}
	}
	if err := l.check(ctx, s); err != nil {
		return err
	}
	// It is as good as new.
	const text = "pushed after the crash"
	desc := ocispec.Descriptor{Digest: digest.FromString(text), Size: int64(len(text))}
	for _, repo := range append(l.repos(), "new") {
		if err := blob.Put(ctx, s.blobs, repo, desc, strings.NewReader(text)); err != nil {
			return err
		}
		if err := same([]byte(text), func() (io.ReadCloser, error) {
			r, _, err := s.blobs.Open(ctx, repo, desc.Digest, 0, -1)
			return r, err
		}); err != nil {
			return err
		}
	}
	return s.noStrays(ctx, time.Now())
}

// ramDir returns a folder that is in memory, if there is one.
func ramDir(t testing.TB) string {
	dir, err := os.MkdirTemp("/dev/shm", "crash")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}
