//go:build linux

package riverqueue_test

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/replication"
)

var (
	kills = flag.Int("kills", 4, "how often a worker is killed")
	jobs  = flag.Int("jobs", 300, "how many there are")
)

// TestKilledWorkers: two processes do the jobs of a registry that is pushed to, and
// are killed again and again. Each image comes to the destination, once.
func TestKilledWorkers(t *testing.T) {
	dir := t.TempDir()
	p, source, target := newPair(t, dir, nil)
	began := time.Now()
	start := func() *exec.Cmd {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "RIVER_WORKER="+source+" "+target+" "+dir)
		cmd.Stderr = os.Stderr
		if _, err := cmd.StdinPipe(); err != nil { // it ends when this process does
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return cmd
	}
	workers := []*exec.Cmd{start(), start()}
	kill := func(i int) {
		workers[i].Process.Kill()
		workers[i].Wait()
	}
	defer func() { kill(0); kill(1) }()

	want := map[string]digest.Digest{}
	var mu sync.Mutex
	var pushers sync.WaitGroup
	const writers = 4
	for w := range writers {
		pushers.Go(func() {
			for n := w; n < *jobs; n += writers {
				repo, tag := fmt.Sprint("team/app", n%7), fmt.Sprint("v", n)
				d, err := p.push(t.Context(), repo, tag)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				want[repo+":"+tag] = d
				mu.Unlock()
			}
		})
	}
	done := func() (n int) {
		if err := p.pool.QueryRow(t.Context(), `select count(*) from river_job where state = 'completed'`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	random := rand.New(rand.NewPCG(1, 2))
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	atWork := 0 // kills of a worker that had a job
	for n := range *kills {
		// Some are kept by workers that are dead until River rescues them.
		for limit := time.Now().Add(time.Minute); done() < (n+1)**jobs*6/10 / *kills && time.Now().Before(limit); {
			<-tick.C
		}
		<-time.After(time.Duration(random.IntN(30)) * time.Millisecond)
		i := random.IntN(2)
		if _, by := p.entries(t, replication.EntryFilter{State: replication.StateRunning}); by[replication.StateRunning] > 0 {
			atWork++
		}
		kill(i)
		workers[i] = start()
	}
	pushers.Wait()
	killed := time.Since(began)
	p.until(t, 3*time.Minute, func(by map[replication.State]int) bool { return by[replication.StateDone] == *jobs })

	retried := 0
	all, _ := p.entries(t, replication.EntryFilter{})
	for _, e := range all {
		if e.Attempts > 1 {
			retried++
		}
	}
	if len(all) != *jobs {
		t.Errorf("%d jobs, want %d", len(all), *jobs)
	}
	got := map[string]int{}
	for c, err := range p.target.Manifests().Events(context.Background(), "") {
		if err != nil {
			t.Fatal(err)
		}
		for _, move := range c.Change.Tags {
			got[c.Repo+":"+move.Name+"@"+string(move.To)]++
		}
	}
	for name, d := range want {
		key := name + "@" + string(d)
		if got[key] != 1 {
			t.Errorf("%s has come %d times", key, got[key])
		}
		delete(got, key)
	}
	if len(got) > 0 {
		t.Errorf("%d that nobody has pushed, as %v", len(got), got)
	}
	t.Logf("%d jobs, %d kills (%d while jobs ran) in %v, %d jobs begun more than once, all done after %v",
		len(all), *kills, atWork, killed.Round(time.Millisecond), retried, time.Since(began).Round(time.Millisecond))
}
