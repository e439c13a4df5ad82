package referrers_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/internal/vectors"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/manifest/manifesttest"
	"github.com/wharfage/wharfage/manifest/memmanifest"
	"github.com/wharfage/wharfage/referrers"
)

var vectorsDir = flag.String("vectors", "../testdata/vectors", "folder of the vectors, laid out like testdata/vectors")

// reads counts the manifests that are read from a store.
type reads struct {
	*memmanifest.Store
	n map[digest.Digest]int
}

func (r *reads) Get(ctx context.Context, repo string, dgst digest.Digest) (manifest.Record, error) {
	r.n[dgst]++
	return r.Store.Get(ctx, repo, dgst)
}

func (r *reads) total() (n int) {
	for _, k := range r.n {
		n += k
	}
	return n
}

// TestVectors walks the graphs of the hostile corpus from their roots: each
// manifest is read once, and each edge is a step.
func TestVectors(t *testing.T) {
	cases, err := vectors.Hostile(*vectorsDir, "graph")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		t.Run("hostile/"+c.ID, func(t *testing.T) {
			s := new(memmanifest.Store)
			var all []manifest.Record
			for _, doc := range c.Docs {
				m, err := manifest.Parse(doc.MediaType, doc.Raw)
				if err != nil {
					t.Fatal(err)
				}
				rec := m.Record(manifest.Digest(digest.SHA256, doc.Raw), doc.Raw)
				all = append(all, rec)
				if err := s.Apply(t.Context(), "repo", manifest.Change{Put: []manifest.Record{rec}}); err != nil {
					t.Fatal(err)
				}
			}
			roots, err := (&referrers.Graph{Repo: "repo", Manifests: s}).Roots(t.Context(), all[len(all)-1].Desc.Digest)
			if err != nil || len(roots) != 1 {
				t.Fatalf("Roots = %v, %v", roots, err)
			}
			most := 0
			if limit, ok := c.Assert["max_visits"].(float64); ok {
				most = int(limit)
			}
			checkWhole(t, s, all, roots[0].Digest, most)
		})
	}
}

// checkWhole walks all manifests of a repository from root, and writes them in every format.
func checkWhole(t *testing.T, s *memmanifest.Store, all []manifest.Record, root digest.Digest, most int) {
	t.Helper()
	counted := &reads{s, map[digest.Digest]int{}}
	g := &referrers.Graph{Repo: "repo", Manifests: counted}
	steps := collect(t, g.Walk(t.Context(), root))
	nodes := map[digest.Digest]bool{}
	edges := map[string]bool{}
	for _, s := range steps {
		nodes[s.Digest] = true
		edges[fmt.Sprint(s.From, s.Edge, s.Digest)] = true
	}
	if len(nodes) != len(all) || counted.total() != len(all) || most > 0 && counted.total() > most {
		t.Errorf("%d manifests in %d reads, there are %d", len(nodes), counted.total(), len(all))
	}
	want := 0
	for _, rec := range all {
		if rec.Subject != "" {
			want++
			if !edges[fmt.Sprint(rec.Subject, referrers.EdgeReferrer, rec.Desc.Digest)] {
				t.Fatalf("the edge from %s to its subject is missing", rec.Desc.Digest)
			}
		}
		for _, d := range rec.Manifests {
			want++
			if !edges[fmt.Sprint(rec.Desc.Digest, referrers.EdgeChild, d)] {
				t.Fatalf("the edge from %s to its child %s is missing", rec.Desc.Digest, d)
			}
		}
	}
	if len(steps) != want+1 {
		t.Errorf("%d steps, want %d edges and the root", len(steps), want)
	}
	x := referrers.Export{MaxDrawn: len(steps)}
	for _, write := range writers(x) {
		if err := write(io.Discard, g.Walk(t.Context(), root)); err != nil {
			t.Error(err)
		}
	}
}

type writer = func(io.Writer, iter.Seq2[referrers.Step, error]) error

func writers(x referrers.Export) map[string]writer {
	return map[string]writer{"Tree": x.Tree, "JSON": x.JSON, "DOT": x.DOT, "Mermaid": x.Mermaid, "SVG": x.SVG}
}

func collect(t *testing.T, walk iter.Seq2[referrers.Step, error]) (out []referrers.Step) {
	t.Helper()
	for s, err := range walk {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, s)
	}
	return out
}

// name makes a digest of a number; those in order are in the order of numbers.
func name(i int) digest.Digest { return digest.Digest(fmt.Sprintf("sha256:%064x", i)) }

// bare is a manifest that is nothing but its place in a graph.
func bare(i int, subject digest.Digest, children ...digest.Digest) manifest.Record {
	return manifest.Record{
		Desc:    ocispec.Descriptor{MediaType: manifest.MediaTypeImage, Digest: name(i), ArtifactType: fmt.Sprintf("application/vnd.example.%d", i%3)},
		Subject: subject, Manifests: children,
	}
}

func fill(t testing.TB, recs ...manifest.Record) *memmanifest.Store {
	t.Helper()
	s := new(memmanifest.Store)
	for some := range slices.Chunk(recs, 1000) {
		if err := s.Apply(t.Context(), "repo", manifest.Change{Put: some}); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// Graphs that only someone who means ill would make, from digests that are none.
func TestHostileGraphs(t *testing.T) {
	fan, chain, ring := []manifest.Record{bare(0, "")}, []manifest.Record{bare(0, "")}, []manifest.Record(nil)
	for i := range 5_000 {
		fan = append(fan, bare(i+1, name(0)))
	}
	for i := range 1_000 {
		chain = append(chain, bare(i+1, name(i)))
		ring = append(ring, bare(i, name((i+999)%1000)))
	}
	both := []manifest.Record{bare(0, name(1), name(1)), bare(1, name(0), name(0))}
	for id, all := range map[string][]manifest.Record{"fan": fan, "chain": chain, "ring": ring, "both": both, "self": {bare(0, name(0), name(0))}} {
		t.Run(id, func(t *testing.T) {
			checkWhole(t, fill(t, all...), all, name(0), len(all))
		})
	}
	t.Run("a cycle is told from what was seen before", func(t *testing.T) {
		steps := collect(t, (&referrers.Graph{Repo: "repo", Manifests: fill(t, ring...)}).Walk(t.Context(), name(0)))
		if last := steps[len(steps)-1]; last.State != referrers.StateCycle || last.Digest != name(0) {
			t.Errorf("the last step of a ring is %v", last)
		}
		roots, err := (&referrers.Graph{Repo: "repo", Manifests: fill(t, ring...)}).Roots(t.Context(), name(5))
		if err != nil || len(roots) != 0 {
			t.Errorf("a ring has the roots %v, %v", roots, err)
		}
	})
	t.Run("a chain takes no stack", func(t *testing.T) {
		long := []manifest.Record{bare(0, "")}
		for i := range 20_000 {
			long = append(long, bare(i+1, name(i)))
		}
		g := &referrers.Graph{Repo: "repo", Manifests: fill(t, long...), MaxDepth: 20_000}
		n := &longest{}
		if err := (referrers.Export{}).Tree(n, g.Walk(t.Context(), name(0))); err != nil {
			t.Error(err)
		}
		if n.most > 1000 {
			t.Errorf("a line has %d bytes", n.most)
		}
	})
}

// longest measures lines.
type longest struct{ now, most int }

func (l *longest) Write(p []byte) (int, error) {
	for _, c := range p {
		if l.now++; c == '\n' {
			l.most, l.now = max(l.most, l.now), 0
		}
	}
	return len(p), nil
}

// world is a random graph, with cycles and with what is not there.
type world struct {
	all  []manifest.Record
	tags map[digest.Digest]string
	*memmanifest.Store
}

func random(t testing.TB, seed uint64) *world {
	r := rand.New(rand.NewPCG(seed, 4))
	n := 1 + r.IntN(14)
	w := &world{tags: map[digest.Digest]string{}}
	some := func() digest.Digest { return name(r.IntN(n + 2)) }
	for i := range n {
		rec := bare(i, "")
		if r.IntN(3) > 0 {
			rec.Subject = some()
		}
		if r.IntN(3) == 0 {
			for range 1 + r.IntN(3) {
				if d := some(); !slices.Contains(rec.Manifests, d) {
					rec.Manifests = append(rec.Manifests, d)
				}
			}
		}
		if r.IntN(8) > 0 {
			w.all = append(w.all, rec)
		}
	}
	w.Store = fill(t, w.all...)
	for _, rec := range w.all {
		if r.IntN(5) == 0 {
			w.tags[rec.Desc.Digest] = "t" + rec.Desc.Digest.Encoded()[60:]
			if err := w.Apply(t.Context(), "repo", manifest.Change{Tags: []manifest.TagMove{{Name: w.tags[rec.Desc.Digest], To: rec.Desc.Digest}}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	return w
}

func (w *world) get(d digest.Digest) (manifest.Record, bool) {
	i := slices.IndexFunc(w.all, func(r manifest.Record) bool { return r.Desc.Digest == d })
	if i < 0 {
		return manifest.Record{}, false
	}
	return w.all[i], true
}

// walk is Walk as one would write it first.
func (w *world) walk(from, d digest.Digest, edge referrers.Edge, depth int, state map[digest.Digest]string, out *[]string) {
	rec, there := w.get(d)
	line := fmt.Sprint(depth, from, edge, d)
	switch {
	case state[d] != "":
		*out = append(*out, line+state[d])
		return
	case !there:
		line += "missing"
	}
	*out = append(*out, line)
	state[d] = "cycle"
	for _, c := range rec.Manifests {
		w.walk(d, c, referrers.EdgeChild, depth+1, state, out)
	}
	for typ := range 3 {
		for _, r := range w.all {
			if r.Subject == d && strings.HasSuffix(r.Desc.ArtifactType, fmt.Sprint(typ)) {
				w.walk(d, r.Desc.Digest, referrers.EdgeReferrer, depth+1, state, out)
			}
		}
	}
	state[d] = "again"
}

func TestWalkAgreesWithRecursion(t *testing.T) {
	for seed := range uint64(500) {
		checkRandom(t, seed)
	}
}

func FuzzWalk(f *testing.F) {
	f.Add(uint64(1))
	f.Fuzz(func(t *testing.T, seed uint64) {
		checkRandom(t, seed)
		checkCascade(t, seed)
	})
}

func checkRandom(t *testing.T, seed uint64) {
	t.Helper()
	w := random(t, seed)
	var want []string
	w.walk("", name(0), "", 0, map[digest.Digest]string{}, &want)
	for _, x := range []referrers.Index{nil, referrers.Scan(w.Store), snapshot(t, w.Store)} {
		counted := &reads{w.Store, map[digest.Digest]int{}}
		var got []string
		below := map[int]int{-1: 1}
		for _, s := range collect(t, (&referrers.Graph{Repo: "repo", Manifests: counted, Index: x, Tags: true}).Walk(t.Context(), name(0))) {
			got = append(got, fmt.Sprint(s.Depth, s.From, s.Edge, s.Digest)+string(s.State))
			if below[s.Depth-1]--; below[s.Depth-1] < 0 {
				t.Errorf("seed %d: more steps lead on to %s than were announced", seed, s.Digest)
			}
			below[s.Depth] = s.Next
			if rec, there := w.get(s.Digest); there && s.State == referrers.StateNew && (s.Subject != rec.Subject || strings.Join(s.Tags, "") != w.tags[s.Digest]) {
				t.Errorf("seed %d: step %v is of %v", seed, s, rec)
			}
		}
		if !slices.Equal(got, want) {
			t.Fatalf("seed %d: Walk yields\n\t%s\nwant\n\t%s", seed, strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
		}
		for d, n := range counted.n {
			if n != 1 {
				t.Fatalf("seed %d: %s is read %d times", seed, d, n)
			}
		}
	}
	checkUp(t, seed, w)
}

func snapshot(t *testing.T, r manifest.Reader) referrers.Index {
	t.Helper()
	x, err := referrers.Snapshot(t.Context(), r, "repo")
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// checkUp looks whether each manifest goes up to those that come down to it,
// along the same edges.
func checkUp(t *testing.T, seed uint64, w *world) {
	t.Helper()
	g := &referrers.Graph{Repo: "repo", Manifests: w}
	down := map[string]bool{}
	reach := map[digest.Digest]map[digest.Digest]bool{}
	for i := range 16 {
		reach[name(i)] = map[digest.Digest]bool{}
		for _, s := range collect(t, g.Walk(t.Context(), name(i))) {
			reach[name(i)][s.Digest] = true
			if s.From != "" {
				down[fmt.Sprint(s.From, s.Digest, s.Edge == referrers.EdgeChild)] = true
			}
		}
	}
	for i := range 16 {
		up := map[digest.Digest]bool{}
		for _, s := range collect(t, g.Up(t.Context(), name(i))) {
			up[s.Digest] = true
			if s.From != "" && !down[fmt.Sprint(s.Digest, s.From, s.Edge == referrers.EdgeParent)] {
				t.Fatalf("seed %d: Up takes an edge %v that Walk does not", seed, s)
			}
		}
		for j := range 16 {
			if reach[name(j)][name(i)] != up[name(j)] {
				t.Fatalf("seed %d: %d reaches %d: %v, and the other way %v", seed, j, i, reach[name(j)][name(i)], up[name(j)])
			}
		}
	}
}

func TestLimitsAreTypedAndSayWhere(t *testing.T) {
	for seed := range uint64(50) {
		w := random(t, seed)
		whole := collect(t, (&referrers.Graph{Repo: "repo", Manifests: w}).Walk(t.Context(), name(0)))
		deepest := 0
		edges := map[string]bool{}
		for _, s := range whole {
			deepest = max(deepest, s.Depth)
			edges[fmt.Sprint(s.From, s.Edge, s.Digest)] = true
		}
		for most := 1; most <= len(whole)+1; most++ {
			n := 0
			var limit *referrers.LimitError
			for s, err := range (&referrers.Graph{Repo: "repo", Manifests: w, MaxSteps: most}).Walk(t.Context(), name(0)) {
				if err != nil {
					if !errors.As(err, &limit) || !errors.Is(err, manifest.ErrBudget) || limit.Limit != "MaxSteps" || limit.Max != most || limit.Root != name(0) || limit.At == "" {
						t.Fatalf("the limit of %d steps is %v", most, err)
					}
					continue
				}
				if n++; !edges[fmt.Sprint(s.From, s.Edge, s.Digest)] {
					t.Fatalf("limited, a walk has the edge %v", s)
				}
			}
			if n > most || (limit == nil) != (most >= len(whole)) {
				t.Fatalf("seed %d: %d steps of %d with a limit of %d, %v", seed, n, len(whole), most, limit)
			}
		}
		for most := 1; most <= deepest+1; most++ {
			var limit *referrers.LimitError
			for s, err := range (&referrers.Graph{Repo: "repo", Manifests: w, MaxDepth: most}).Walk(t.Context(), name(0)) {
				if err != nil && (!errors.As(err, &limit) || limit.Limit != "MaxDepth" || limit.Max != most) || s.Depth > most {
					t.Fatalf("the limit of depth %d yields %v, %v", most, s, err)
				}
			}
			if (limit == nil) != (most >= deepest) {
				t.Fatalf("seed %d: depth %d of %d, %v", seed, most, deepest, limit)
			}
			for _, s := range collect(t, (&referrers.Graph{Repo: "repo", Manifests: w, Depth: most}).Walk(t.Context(), name(0))) {
				if s.Depth > most || s.Depth == most && s.Next != 0 {
					t.Fatalf("a walk of %d edges yields %v", most, s)
				}
			}
		}
	}
}

func TestACascadeOfMoreThanMaxSteps(t *testing.T) {
	w := random(t, 1)
	for most := 1; most <= 5; most++ {
		var limit *referrers.LimitError
		_, err := (&referrers.Graph{Repo: "repo", Manifests: w, MaxSteps: most}).Cascade(t.Context(), []digest.Digest{name(1000), name(1001), name(1002), name(1003)}, referrers.CascadeOptions{})
		if errors.As(err, &limit) != (most < 4) || most >= 4 && err != nil {
			t.Errorf("of 4, with a limit of %d: %v", most, err)
		}
	}
}

// endless lists referrers without end (CVE-2023-33957).
type endless struct{ typ string }

func (x endless) Referrers(context.Context, string, digest.Digest, string, digest.Digest) iter.Seq2[ocispec.Descriptor, error] {
	return func(yield func(ocispec.Descriptor, error) bool) {
		for i := 1; yield(ocispec.Descriptor{Digest: name(i), ArtifactType: x.typ}, nil); i++ {
		}
	}
}

func TestAListWithoutAnEndEnds(t *testing.T) {
	for _, filter := range []referrers.Filter{{}, {ArtifactTypes: []string{"other"}}} {
		g := &referrers.Graph{Repo: "repo", Manifests: fill(t, bare(0, "")), Index: endless{"x"}, Filter: filter, MaxSteps: 1000}
		n := 0
		for _, err := range g.Walk(t.Context(), name(0)) {
			if n++; err != nil && !errors.Is(err, manifest.ErrBudget) {
				t.Error(err)
			}
		}
		if n > 1001 {
			t.Errorf("%d steps", n)
		}
	}
}

func TestWalkOfWhatIsNotThere(t *testing.T) {
	s := fill(t, bare(1, name(0)), bare(2, "multihash+base58:QmRZ"))
	g := &referrers.Graph{Repo: "repo", Manifests: s}
	for root, want := range map[digest.Digest]int{name(0): 2, name(9): 1, "multihash+base58:QmRZ": 2} {
		steps := collect(t, g.Walk(t.Context(), root))
		if len(steps) != want || steps[0].State != referrers.StateMissing {
			t.Errorf("from %s: %v", root, steps)
		}
	}
	roots, err := g.Roots(t.Context(), name(1))
	if err != nil || len(roots) != 1 || roots[0].State != referrers.StateMissing || roots[0].Digest != name(0) {
		t.Errorf("the root of a referrer whose subject is missing: %v, %v", roots, err)
	}
	for _, err := range g.Walk(t.Context(), "latest") {
		if !errors.Is(err, manifest.ErrName) && !strings.Contains(fmt.Sprint(err), "latest") {
			t.Errorf("no digest: %v", err)
		}
	}
	for _, err := range (&referrers.Graph{Repo: "Not a repository", Manifests: s}).Walk(t.Context(), name(0)) {
		if !errors.Is(err, manifest.ErrName) {
			t.Errorf("no repository: %v", err)
		}
	}
}

func TestEveryFailureOfAStoreEndsTheWalk(t *testing.T) {
	w := random(t, 11)
	ops := map[string]func(manifest.Reader) error{
		"Walk": func(r manifest.Reader) error {
			return last((&referrers.Graph{Repo: "repo", Manifests: r, Index: referrers.Scan(r), Tags: true}).Walk(t.Context(), name(0)))
		},
		"Snapshot": func(r manifest.Reader) error {
			return last((&referrers.Graph{Repo: "repo", Manifests: r}).Walk(t.Context(), name(0)))
		},
		"Up": func(r manifest.Reader) error {
			return last((&referrers.Graph{Repo: "repo", Manifests: r}).Up(t.Context(), name(0)))
		},
		"Cascade": func(r manifest.Reader) error {
			_, err := (&referrers.Graph{Repo: "repo", Manifests: r}).Cascade(t.Context(), []digest.Digest{name(0)}, referrers.CascadeOptions{})
			return err
		},
	}
	for op, run := range ops {
		for n := 1; ; n++ {
			err := run(manifesttest.Faulty(w.Store, &manifesttest.Fault{N: n}))
			if err == nil {
				if n < 3 {
					t.Errorf("%s makes %d calls", op, n-1)
				}
				break
			}
			if !errors.Is(err, manifesttest.ErrFault) {
				t.Errorf("%s, fault %d: %v", op, n, err)
			}
		}
	}
}

func last(walk iter.Seq2[referrers.Step, error]) (err error) {
	for _, err = range walk {
	}
	return err
}

func TestWalkHonoursContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	w := fill(t, bare(0, ""), bare(1, name(0)), bare(2, name(0)))
	n := 0
	for _, err := range (&referrers.Graph{Repo: "repo", Manifests: w}).Walk(ctx, name(0)) {
		if n++; n == 1 {
			cancel()
		} else if !errors.Is(err, context.Canceled) {
			t.Errorf("after cancel: %v", err)
		}
	}
	if n != 2 {
		t.Errorf("%d steps", n)
	}
}

func TestFilterPrunesReferrersNotChildren(t *testing.T) {
	s, index, _ := signed()
	for _, tt := range []struct {
		filter referrers.Filter
		want   int
	}{
		{referrers.Filter{}, 7},
		{referrers.Filter{ArtifactTypes: []string{spdx}}, 4},
		{referrers.Filter{ArtifactTypes: []string{notation}}, 3},
		{referrers.Filter{ArtifactTypes: []string{notation, spdx, spdx}}, 5},
		{referrers.Filter{Annotations: map[string]string{predicate: ""}}, 5},
		{referrers.Filter{Annotations: map[string]string{predicate: "https://slsa.dev/provenance/v1"}}, 4},
		{referrers.Filter{ArtifactTypes: []string{spdx}, Annotations: map[string]string{predicate: ""}}, 3},
	} {
		steps := collect(t, (&referrers.Graph{Repo: "team/app", Manifests: s, Filter: tt.filter}).Walk(t.Context(), index.Digest))
		if len(steps) != tt.want {
			t.Errorf("%v: %d steps, want %d", tt.filter, len(steps), tt.want)
		}
	}
}

func TestSnapshotIsAnIndex(t *testing.T) {
	for seed := range uint64(50) {
		w := random(t, seed)
		x := snapshot(t, w)
		for i := range 16 {
			for _, typ := range []string{"", "application/vnd.example.1"} {
				for after := range 16 {
					got := fmt.Sprint(slices.Collect(keysOf(x.Referrers(t.Context(), "repo", name(i), typ, name(after)))))
					want := fmt.Sprint(slices.Collect(keysOf(referrers.Scan(w).Referrers(t.Context(), "repo", name(i), typ, name(after)))))
					if got != want {
						t.Fatalf("seed %d: Snapshot lists %s, Scan %s", seed, got, want)
					}
				}
			}
		}
	}
}

func keysOf(list iter.Seq2[ocispec.Descriptor, error]) iter.Seq[string] {
	return func(yield func(string) bool) {
		for d, err := range list {
			if !yield(fmt.Sprint(d.Digest, err)) {
				return
			}
		}
	}
}

// A walk beside writers sees each manifest as it was or as it is, and ends.
func TestWalkBesideWriters(t *testing.T) {
	s := fill(t, bare(0, ""))
	g := &referrers.Graph{Repo: "repo", Manifests: s, Tags: true}
	var wg sync.WaitGroup
	start := make(chan struct{})
	for k := range 4 {
		wg.Go(func() {
			<-start
			for i := range 100 {
				n := 1 + k*100 + i
				c := manifest.Change{Put: []manifest.Record{bare(n, name(max(0, n-3)))}, At: time.Unix(1, 0)}
				if err := s.Apply(t.Context(), "repo", c); err != nil {
					t.Error(err)
				}
				if i%3 == 0 {
					if err := s.Apply(t.Context(), "repo", manifest.Change{Delete: []manifest.Removal{{Digest: name(n)}}}); err != nil {
						t.Error(err)
					}
				}
			}
		})
		wg.Go(func() {
			<-start
			for range 20 {
				if err := last(g.Walk(t.Context(), name(0))); err != nil {
					t.Error(err)
				}
				if _, err := g.Cascade(t.Context(), []digest.Digest{name(0)}, referrers.CascadeOptions{}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	close(start)
	wg.Wait()
}
