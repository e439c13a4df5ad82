//go:build linux

package bench

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/manifest"
)

// rounds is odd, for the medians.
const rounds = 5

// measure runs a load and returns what it took of the clock and of the server.
func (p *process) measure(tb testing.TB, conns, n int, job func(c *client, i int) error) (wall, cpu time.Duration) {
	before, _ := p.used()
	wall = load(tb, p.addr, conns, n, job)
	after, _ := p.used()
	return wall, after - before
}

// figures are what one round found, by column of a table.
type figures map[string]float64

// inTurn runs round for each name, so many times, each time in another order, so
// that what else the machine does is shared out, and what a server finds as the
// one before has left it: memory that the host has taken back meanwhile costs
// more to write than what is still there. It returns the figures of each name.
func inTurn(names []string, rounds int, round func(name string) figures) map[string][]figures {
	out, order := map[string][]figures{}, rand.New(rand.NewPCG(0, 0))
	for range rounds {
		for _, j := range order.Perm(len(names)) {
			out[names[j]] = append(out[names[j]], round(names[j]))
		}
	}
	return out
}

// timesBare is the column before it, as a multiple of the row "bare".
const timesBare = "x bare"

func printTable(title string, names, columns []string, results map[string][]figures) {
	fmt.Printf("\n\n%s\n", title)
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 3, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "\t%s\t\n", strings.Join(columns, "\t"))
	for _, name := range names {
		fmt.Fprintf(w, "%s\t", name)
		for i, column := range columns {
			var all []float64
			for j, f := range results[name] {
				if column == timesBare {
					all = append(all, f[columns[i-1]]/results["bare"][j][columns[i-1]])
				} else {
					all = append(all, f[column])
				}
			}
			slices.Sort(all)
			fmt.Fprintf(w, "%.4g\t", all[len(all)/2])
		}
		fmt.Fprintln(w)
	}
	w.Flush()
}

// artifact is a layer and its manifest.
type artifact struct {
	layer  net.Buffers
	digest digest.Digest
	raw    []byte
	tag    string
}

func newArtifact(i, size int) artifact {
	content := layer(uint64(i), size)
	a := artifact{layer: content, digest: digestOfLayer(content), tag: "v" + strconv.Itoa(i)}
	raw, _, err := manifest.ImageDraft{
		ArtifactType: "application/vnd.example.file",
		Layers:       []ocispec.Descriptor{{MediaType: "application/octet-stream", Digest: a.digest, Size: int64(size)}},
	}.Build()
	must(err)
	a.raw = raw
	return a
}

const repo = "/v2/team/app"

// prepare pushes the config that all artifacts have.
func prepare(c *client, _ int) error {
	_, empty := manifest.Empty()
	return c.put(repo, digest.FromBytes(empty), net.Buffers{empty})
}

func (a artifact) push(c *client) error {
	if err := c.put(repo, a.digest, a.layer); err != nil {
		return err
	}
	_, err := c.do(http.StatusCreated, "PUT", repo+"/manifests/"+a.tag, manifest.MediaTypeImage, net.Buffers{a.raw})
	return err
}

func (a artifact) pull(c *client) error {
	if err := c.get(repo+"/manifests/"+a.tag, len(a.raw)); err != nil {
		return err
	}
	return c.get(repo+"/blobs/"+string(a.digest), length(a.layer))
}

func artifacts(n, size int) []artifact { return artifactsFrom(0, n, size) }

func artifactsFrom(first, n, size int) []artifact {
	all := make([]artifact, n)
	for i := range all {
		all[i] = newArtifact(first+i, size)
	}
	return all
}

func BenchmarkHTTPSmall(b *testing.B) {
	const n, conns = 2000, 16
	all := artifacts(n, 16<<10)
	results := inTurn(registries, rounds, func(name string) figures {
		p := start(name)
		defer p.stop()
		load(b, p.addr, 1, 1, prepare)
		f := figures{}
		wall, cpu := p.measure(b, conns, n, func(c *client, i int) error { return all[i].push(c) })
		f["push: CPU us/req"], f["push: req/s"] = micros(cpu)/(3*n), 3*n/wall.Seconds()
		wall, cpu = p.measure(b, conns, n, func(c *client, i int) error { return all[i].pull(c) })
		f["pull: CPU us/req"], f["pull: req/s"] = micros(cpu)/(2*n), 2*n/wall.Seconds()
		return f
	})
	printTable("2,000 artifacts of 16 KiB, 16 connections", registries,
		[]string{"push: CPU us/req", timesBare, "pull: CPU us/req", timesBare, "push: req/s", "pull: req/s"}, results)
	b.ReportMetric(0, "ns/op") // which would be the whole
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

func BenchmarkHTTPLarge(b *testing.B) {
	large := func(n, size, conns, pulls int) func(name string) figures {
		all, mb := artifacts(n, size), float64(n*size)/1e6
		return func(name string) figures {
			p := start(name)
			defer p.stop()
			f := figures{}
			wall, cpu := p.measure(b, conns, n, func(c *client, i int) error { return c.put(repo, all[i].digest, all[i].layer) })
			f["push: MB/CPU s"], f["push: MB/s"] = mb/cpu.Seconds(), mb/wall.Seconds()
			wall, cpu = p.measure(b, conns, n*pulls, func(c *client, i int) error {
				return c.get(repo+"/blobs/"+string(all[i%n].digest), size)
			})
			mb := mb * float64(pulls)
			f["pull: MB/CPU s"], f["pull: MB/s"] = mb/cpu.Seconds(), mb/wall.Seconds()
			_, peak := p.used()
			f["peak MiB"] = float64(peak) / (1 << 20)
			return f
		}
	}
	columns := []string{"push: MB/CPU s", timesBare, "push: MB/s", timesBare, "pull: MB/CPU s", timesBare, "pull: MB/s", timesBare, "peak MiB"}
	printTable("8 layers of 32 MiB, 4 connections", registries, columns, inTurn(registries, 2*rounds+1, large(8, 32<<20, 4, 4)))

	names := []string{"bare", "wharfage, files"}
	once := large(1, 1<<30, 1, 1)
	printTable("one layer of 1 GiB, once", names, columns, map[string][]figures{names[0]: {once(names[0])}, names[1]: {once(names[1])}})
	b.ReportMetric(0, "ns/op")
}

// TestServersAgree shows that the servers are compared on the same work: what
// is pushed to each comes back.
func TestServersAgree(t *testing.T) {
	a := newArtifact(1, 3<<20/2)
	for _, name := range registries {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewServer(servers[name](t.TempDir()))
			defer s.Close()
			addr := s.Listener.Addr().String()
			load(t, addr, 1, 1, prepare)
			load(t, addr, 1, 1, func(c *client, _ int) error { return a.push(c) })
			load(t, addr, 1, 1, func(c *client, _ int) error { return a.pull(c) })
			if got := body(t, s.URL+repo+"/manifests/"+a.tag); !bytes.Equal(got, a.raw) {
				t.Errorf("pulled the manifest %s", got)
			}
			if got := body(t, s.URL+repo+"/blobs/"+string(a.digest)); digest.FromBytes(got) != a.digest {
				t.Error("pulled another layer")
			}
			load(t, addr, 1, 1, func(c *client, _ int) error {
				if c.put(repo, a.digest, layer(2, 100)) == nil {
					t.Error("content with another digest was taken")
				}
				return nil
			})
		})
	}
}

func body(t *testing.T, url string) []byte {
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatal(url, resp.Status, err)
	}
	return b
}
