//go:build linux

package bench

import (
	"cmp"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// goal is a ratio or an amount that a table ends in.
type goal struct {
	name, metric  string
	atLeast, most float64 // one of them, the other is 0; both for what is only to be seen
	found         float64
}

// report prints goals, and adds them to the figures of b.
func report(b *testing.B, goals []goal) {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w)
	for _, g := range goals {
		sign, bound, held := ">=", g.atLeast, g.found >= g.atLeast
		if g.most > 0 {
			sign, bound, held = "<=", g.most, g.found <= g.most
		}
		verdict := "reached"
		if !held {
			verdict = "MISSED"
		}
		if bound == 0 {
			fmt.Fprintf(w, "%s\t%.4g\t\t\n", g.name, g.found)
		} else {
			fmt.Fprintf(w, "%s\t%.4g\t%s %.4g\t%s\n", g.name, g.found, sign, bound, verdict)
		}
		b.ReportMetric(g.found, g.metric)
	}
	w.Flush()
	b.ReportMetric(0, "ns/op") // which would be the whole
}

func median[T cmp.Ordered](all []T) T {
	all = slices.Sorted(slices.Values(all))
	return all[len(all)/2]
}

// ratio is the median of a column's ratios within a round.
func ratio(results map[string][]figures, column, name, to string) float64 {
	var all []float64
	for i, f := range results[name] {
		all = append(all, f[column]/results[to][i][column])
	}
	return median(all)
}

// few is n, or less of it when there is little time.
func few(n int) int {
	if testing.Short() {
		return n / 10
	}
	return n
}

// BenchmarkStorageSmall is HTTPSmall for registries that keep all on the disk. The bare
// handler, which keeps all in memory and checks nothing but digests, shows what
// any other could reach on the same machine.
func BenchmarkStorageSmall(b *testing.B) {
	registryBinary(b)
	awaitDisk(b)
	const conns = 16
	n := few(2000)
	all := artifacts(n, 16<<10)
	names := []string{"wharfage", "wharfage, unsynced", "distribution", "go-containerregistry", "bare, keeps nothing"}
	results := inTurn(names, rounds, func(name string) figures {
		dir := tempDir(b)
		settle()
		r := run(b, name, dir)
		defer r.stop()
		load(b, r.addr, 1, 1, prepare)
		f := figures{}
		wall, cpu := r.measure(conns, n, func(c *client, i int) error { return all[i].push(c) })
		f["push: req/s"], f["push: CPU us/req"] = float64(3*n)/wall.Seconds(), micros(cpu)/float64(3*n)
		settle()
		wall, cpu = r.measure(conns, n, func(c *client, i int) error { return all[i].pull(c) })
		f["pull: req/s"], f["pull: CPU us/req"] = float64(2*n)/wall.Seconds(), micros(cpu)/float64(2*n)
		return f
	})
	printTable(fmt.Sprintf("%d artifacts of 16 KiB, 16 connections, on the disk", n), names,
		[]string{"push: req/s", "push: CPU us/req", "pull: req/s", "pull: CPU us/req"}, results)
	report(b, []goal{
		{name: "push, synced, to distribution's", metric: "push-x-distribution", atLeast: 6, found: ratio(results, "push: req/s", "wharfage", "distribution")},
		{name: "push, unsynced, to go-containerregistry's", metric: "unsynced-x-ggcr", atLeast: 2.5, found: ratio(results, "push: req/s", "wharfage, unsynced", "go-containerregistry")},
		{name: "the same of a bare handler", metric: "bare-x-ggcr", found: ratio(results, "push: req/s", "bare, keeps nothing", "go-containerregistry")},
		{name: "pull, to distribution's", metric: "pull-x-distribution", atLeast: 8, found: ratio(results, "pull: req/s", "wharfage", "distribution")},
		{name: "pull, to go-containerregistry's", metric: "pull-x-ggcr", atLeast: 1.1, found: ratio(results, "pull: req/s", "wharfage", "go-containerregistry")},
	})
}

// tempDir returns a new folder, which stays until the benchmark ends: deletions
// would make the next rounds slow, as awaitDisk says.
func tempDir(b *testing.B) string {
	dir, err := os.MkdirTemp("", "wharfage-bench")
	must(err)
	b.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// awaitDisk waits until the file system is quick to make files. For minutes after
// many were deleted, ext4 takes ten times as long: it looks at each number of an
// inode that it does not want to use again so soon. Who makes the most files
// suffers the most.
func awaitDisk(b *testing.B) {
	const files, quick, pause, patience = 500, 80 * time.Microsecond, 15 * time.Second, 6 * time.Minute
	for began := time.Now(); ; time.Sleep(pause) {
		dir := tempDir(b)
		used := -processorTime()
		for i := range files {
			must(os.WriteFile(filepath.Join(dir, strconv.Itoa(i)), []byte("x"), 0o666))
		}
		if used += processorTime(); used < files*quick {
			return
		}
		if testing.Short() || time.Since(began) > patience {
			b.Logf("making a file takes %v: expect less of all servers, and least of those that make many", used/files)
			return
		}
	}
}

// Manifests of the two stores.
const (
	fewManifests  = 100
	manyManifests = 100_000
)

// BenchmarkStorageGrowth is what a store of many manifests, and ten times as many
// links, costs more than one of few.
func BenchmarkStorageGrowth(b *testing.B) {
	registryBinary(b)
	awaitDisk(b)
	const conns, page = 16, 20
	sizes := map[string]int{"few": fewManifests, "many": few(manyManifests)}
	names := []string{"few", "many"}
	pushes, pulls, pages := few(1000), few(10_000), few(5000)
	original := map[string]string{}
	type target struct{ manifest, blob string }
	targets := map[string][]target{}
	for name, n := range sizes {
		for i := range min(n, pulls) {
			i = i * 7919 % n // all, or spread over them
			_, first := smallManifest(i, n)
			targets[name] = append(targets[name], target{repo + "/manifests/" + smallTag(i), repo + "/blobs/" + string(first.Digest)})
		}
		original[name] = tempDir(b)
		fill(original[name], n)
	}
	settle()
	var all []artifact // of which none has been pushed
	fresh := func(n int) []artifact {
		next := artifactsFrom(len(all), n, 16<<10)
		all = append(all, next...)
		return next
	}
	raw, _ := smallManifest(0, 100)
	_, layer := smallLayer(0)
	results := inTurn(names, rounds, func(name string) figures {
		f, n, dir := figures{}, sizes[name], original[name]
		if name == "few" { // which stays that small
			dir = tempDir(b)
			must(os.CopyFS(dir, os.DirFS(original[name])))
		}
		for server, column := range map[string]string{"wharfage": "push", "wharfage, unsynced": "push, unsynced"} {
			todo := fresh(pushes)
			settle()
			r := run(b, server, dir)
			wall, cpu := r.measure(conns, pushes, func(c *client, i int) error { return todo[i].push(c) })
			f[column+": us"], f[column+": CPU us"] = micros(wall)/float64(3*pushes), micros(cpu)/float64(3*pushes)
			r.stop()
		}
		settle()
		r := run(b, "wharfage", dir)
		defer r.stop()
		f["start ms"] = micros(r.after) / 1000
		ask := func(column string, times int, job func(c *client, i int) error) {
			load(b, r.addr, conns, times/10, job)
			wall, cpu := r.measure(conns, times, job)
			f[column+": us"], f[column+": CPU us"] = micros(wall)/float64(times), micros(cpu)/float64(times)
		}
		ask("pull", pulls, func(c *client, i int) error {
			t := targets[name][i%len(targets[name])]
			if err := c.get(t.manifest, len(raw)); err != nil {
				return err
			}
			return c.get(t.blob, int(layer.Size))
		})
		ask("referrers page", pages, func(c *client, i int) error {
			uri := fmt.Sprintf("%s/referrers/%s?n=%d", repo, subject.Digest, page)
			if i%2 == 1 { // from the middle
				uri += "&last=sha256:4" + strings.Repeat("0", 63)
			}
			return c.page(uri, 7000)
		})
		ask("tag page", pages, func(c *client, i int) error {
			return c.page(fmt.Sprintf("%s/tags/list?n=%d&last=%s", repo, page, smallTag(i*7919%(n-page))), 200)
		})
		return f
	})
	var goals []goal
	var columns []string
	for _, column := range []string{"push", "push, unsynced", "pull", "referrers page", "tag page"} {
		columns = append(columns, column+": us", column+": CPU us")
		metric := strings.NewReplacer(", ", "-", " ", "-").Replace(column)
		goals = append(goals, goal{name: column + ", times that of few", metric: metric + "-growth", most: 1.3, found: ratio(results, column+": us", "many", "few")},
			goal{name: column + ", CPU, times that of few", metric: metric + "-cpu-growth", most: 1.3, found: ratio(results, column+": CPU us", "many", "few")})
	}
	printTable(fmt.Sprintf("%d and %d manifests, and ten times as many links", sizes["few"], sizes["many"]), names, append(columns, "start ms"), results)

	var cold []float64
	for range rounds {
		forget(original["many"])
		r := run(b, "wharfage", original["many"])
		cold = append(cold, r.after.Seconds())
		r.stop()
	}
	report(b, append(goals, goal{name: "seconds to start, nothing of it in memory", metric: "start-s", most: 2, found: median(cold)}))
}

// forget has the operating system read the database in dir from the disk again.
func forget(dir string) {
	settle()
	entries, err := os.ReadDir(dir)
	must(err)
	for _, e := range entries {
		if e.Type().IsRegular() {
			f, err := os.Open(filepath.Join(dir, e.Name()))
			must(err)
			must(unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED))
			f.Close()
		}
	}
}

// page fetches a page of a listing, which has another and is about size bytes
// long.
func (c *client) page(uri string, size int64) error {
	resp, err := c.do(http.StatusOK, "GET", uri, "", nil)
	if err == nil && (resp.Header.Get("Link") == "" || resp.ContentLength < size/2 || resp.ContentLength > size*2) {
		err = fmt.Errorf("GET %s: a page of %d bytes, another: %q", uri, resp.ContentLength, resp.Header.Get("Link"))
	}
	return err
}

// BenchmarkStorageMemory pushes and pulls large blobs, all at once.
func BenchmarkStorageMemory(b *testing.B) {
	registryBinary(b)
	const streams = 8
	size := 1 << 30
	if testing.Short() {
		size = 64 << 20
	}
	r := run(b, "wharfage", tempDir(b))
	defer r.stop()
	idle := r.peak()
	all := make([]artifact, streams)
	for i := range all {
		all[i] = artifact{layer: layer(uint64(i), size)}
		all[i].digest = digestOfLayer(all[i].layer)
	}
	mb := float64(streams*size) / 1e6
	wall, cpu := r.measure(streams, streams, func(c *client, i int) error {
		if i%2 == 0 {
			return c.put(repo, all[i].digest, all[i].layer)
		}
		return c.putInChunk(repo, all[i].digest, all[i].layer)
	})
	up := r.peak()
	fmt.Printf("\n\n%d blobs of %d MiB, all at once\npush: %.0f MB/s, %.0f MB/CPU s, peak %.1f MiB, of which idle %.1f\n",
		streams, size>>20, mb/wall.Seconds(), mb/cpu.Seconds(), float64(up)/(1<<20), float64(idle)/(1<<20))
	wall, cpu = r.measure(streams, streams, func(c *client, i int) error {
		return c.get(repo+"/blobs/"+string(all[i].digest), size)
	})
	fmt.Printf("pull: %.0f MB/s, %.0f MB/CPU s, peak %.1f MiB\n", mb/wall.Seconds(), mb/cpu.Seconds(), float64(r.peak())/(1<<20))
	report(b, []goal{{name: "MiB at most, of the server", metric: "peak-MiB", most: 64 + streams, found: float64(r.peak()) / (1 << 20)}})
}

// putInChunk pushes as Docker does: POST, PATCH with all, PUT with nothing.
func (c *client) putInChunk(repo string, dgst digest.Digest, body net.Buffers) error {
	resp, err := c.do(http.StatusAccepted, "POST", repo+"/blobs/uploads/", "", nil)
	if err == nil {
		resp, err = c.do(http.StatusAccepted, "PATCH", resp.Header.Get("Location"), "application/octet-stream", body)
	}
	if err == nil {
		_, err = c.do(http.StatusCreated, "PUT", resp.Header.Get("Location")+"?digest="+string(dgst), "", nil)
	}
	return err
}
