package referrers

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/manifest"
)

// Graph answers what refers to a manifest, and what refers to that: the
// manifests of a repository, joined by their subjects and by what indexes list.
// It reads, and keeps nothing between calls.
type Graph struct {
	Repo      string
	Manifests manifest.Reader
	// Index lists referrers. nil means Manifests if it is an Index, else a
	// [Snapshot] of it for each call.
	Index Index

	// Filter says which referrers are followed. Children of indexes always are.
	Filter Filter
	// Depth is how many edges from where it begins a walk goes. Zero means all. A
	// manifest that it first comes to at that depth is not followed further, though
	// a shorter way may lead there later.
	Depth int
	// Tags adds the tags of each manifest to its Step, for which all tags of the
	// repository are listed first.
	Tags bool

	// A walk that would yield more than MaxSteps, or go further than MaxDepth
	// edges from where it began, ends in a *[LimitError]. Zero means
	// [DefaultMaxSteps] and [DefaultMaxDepth]. Memory follows MaxSteps: some 150
	// bytes a step.
	MaxSteps, MaxDepth int
}

// Limits of walks that set none.
const (
	DefaultMaxSteps = 250_000
	DefaultMaxDepth = 4_096
)

// LimitError says which limit ended a walk, and where. It unwraps to
// [manifest.ErrBudget].
type LimitError struct {
	Limit string // "MaxSteps", "MaxDepth", or "MaxDrawn"
	Max   int
	Root  digest.Digest // where the walk began
	At    digest.Digest // whose edges were not all followed
}

func (e *LimitError) Error() string {
	return fmt.Sprintf("%v: the walk from %s goes beyond %s (%d) at %s", manifest.ErrBudget, e.Root, e.Limit, e.Max, e.At)
}

func (e *LimitError) Unwrap() error { return manifest.ErrBudget }

// Edge is what a manifest is to the one that a walk came from.
type Edge string

// Edges. Walk goes along the first two, Up along the others.
const (
	EdgeChild    Edge = "child"    // the index it came from lists it
	EdgeReferrer Edge = "referrer" // its subject is the one it came from
	EdgeParent   Edge = "parent"   // it is an index that lists the one it came from
	EdgeSubject  Edge = "subject"  // it is the subject of the one it came from
)

// State is whether a step came to a manifest, and for the first time.
type State string

// States.
const (
	StateNew     State = ""        // the manifest, for the first time
	StateAgain   State = "again"   // a step before came to it; what follows from it is there, as far as Depth goes
	StateCycle   State = "cycle"   // it is one that this step came through, which honest digests cannot do
	StateMissing State = "missing" // for the first time, and it is not in the repository: an absent child, a dangling subject
)

// Step is one edge of a walk, and the manifest that it leads to.
type Step struct {
	// Descriptor is the manifest's as a list of referrers shows it, and for a
	// child the Platform that the index gives. Unless the State is new it has
	// what the edge tells of the manifest: at least the Digest.
	ocispec.Descriptor

	From  digest.Digest `json:"from,omitempty"` // where the step came from; "" for the first
	Edge  Edge          `json:"edge,omitempty"` // "" for the first
	State State         `json:"state,omitempty"`
	Depth int           `json:"depth"`          // edges from the first
	Next  int           `json:"next,omitempty"` // how many steps lead on from here; 0 unless the manifest is visited for the first time
	// Subject is what the manifest refers to, in this graph or outside of it.
	Subject digest.Digest `json:"subject,omitempty"`
	Tags    []string      `json:"tags,omitempty"` // if the Graph has Tags

	group     string // steps of one edge and type stand together
	groupEnds bool   // no step of this group follows from From
	last      bool   // no group follows from From
	role      string // what an index says a child is for, as BuildKit does
}

// Walk yields the manifest root, and whatever refers to it: referrers, children
// of indexes, and the referrers and children of those. What root itself refers
// to is what [Graph.Up] yields.
//
// Each manifest is read once, and each edge is a step, depth first: below a
// manifest come its children in the order of the index, then its referrers by
// artifact type and digest. What is not in the repository is a step of
// StateMissing, root too, and its referrers follow, as a subject may be absent.
// The index is asked once for each manifest and artifact type of the Filter.
//
// The walk ends with its first error: of a name, of a read or listing, of ctx,
// or a *[LimitError]. Steps before an error are right. Manifests that change
// meanwhile may be seen as they were or as they are.
func (g *Graph) Walk(ctx context.Context, root digest.Digest) iter.Seq2[Step, error] {
	return g.walk(ctx, []digest.Digest{root}, g.below(ctx))
}

// below makes the expander of Walk.
func (g *Graph) below(ctx context.Context) func(*walk) (expander, error) {
	return func(w *walk) (expander, error) {
		index := g.Index
		if index == nil {
			index, _ = g.Manifests.(Index)
		}
		if index == nil {
			var err error
			if index, err = Snapshot(ctx, g.Manifests, g.Repo); err != nil {
				return nil, err
			}
		}
		return func(ctx context.Context, dgst digest.Digest, rec manifest.Record, most int) ([]edge, error) {
			return w.down(ctx, index, dgst, rec, most)
		}, nil
	}
}

// Up yields the manifest dgst, and whatever it belongs to: its subject, the
// indexes that list it, and the subjects and indexes of those. Steps are as those
// of Walk, the other way round; the Filter is not asked. Indexes
// are found by one listing of the repository, and memory follows what they list.
func (g *Graph) Up(ctx context.Context, dgst digest.Digest) iter.Seq2[Step, error] {
	return g.walk(ctx, []digest.Digest{dgst}, func(*walk) (expander, error) {
		parents, err := g.parents(ctx)
		return func(_ context.Context, dgst digest.Digest, rec manifest.Record, most int) ([]edge, error) {
			var out []edge
			if rec.Subject != "" {
				out = append(out, edge{to: rec.Subject, kind: EdgeSubject, group: "subject"})
			}
			for _, p := range parents[dgst] {
				out = append(out, edge{to: p, kind: EdgeParent, group: "listed by"})
			}
			return out[:min(len(out), most)], nil
		}, err
	})
}

// Roots returns the manifests that dgst belongs to and that belong to nothing
// themselves, by digest: dgst itself if it is such. Those of StateMissing are subjects that dangle. A
// cycle has no root.
func (g *Graph) Roots(ctx context.Context, dgst digest.Digest) ([]Step, error) {
	var out []Step
	for step, err := range g.Up(ctx, dgst) {
		if err != nil {
			return nil, err
		}
		if step.Next == 0 && (step.State == StateNew || step.State == StateMissing) {
			out = append(out, step)
		}
	}
	slices.SortFunc(out, func(a, b Step) int { return cmp.Compare(a.Digest, b.Digest) })
	return out, nil
}

// parents returns the indexes that list a manifest, in order of digest.
func (g *Graph) parents(ctx context.Context) (map[digest.Digest][]digest.Digest, error) {
	out := map[digest.Digest][]digest.Digest{}
	for rec, err := range g.Manifests.Manifests(ctx, g.Repo, "") {
		if err != nil {
			return nil, err
		}
		for _, d := range rec.Manifests {
			out[d] = append(out[d], rec.Desc.Digest)
		}
	}
	return out, ctx.Err()
}

// edge is a step that has not been taken yet.
type edge struct {
	to       digest.Digest
	kind     Edge
	group    string
	platform *ocispec.Platform
	role     string
}

// expander returns the edges that lead on from dgst, at most most of them.
type expander func(ctx context.Context, dgst digest.Digest, rec manifest.Record, most int) ([]edge, error)

// walk is a depth-first walk with a stack of its own: a chain as long as anyone
// likes takes memory, not stack.
type walk struct {
	g       *Graph
	roots   []digest.Digest
	tags    map[digest.Digest][]string
	expand  expander
	onPath  map[digest.Digest]bool // has what was visited
	taken   int                    // steps
	waiting int                    // edges in stack
	stack   []frame
}

// frame is a manifest, and the edges from it that are still to be taken.
type frame struct {
	dgst  digest.Digest
	edges []edge
	cut   bool // there are more, beyond a limit
}

func (g *Graph) walk(ctx context.Context, roots []digest.Digest, start func(*walk) (expander, error)) iter.Seq2[Step, error] {
	return func(yield func(Step, error) bool) {
		w := &walk{g: g, roots: roots, onPath: map[digest.Digest]bool{}}
		fail := func(at digest.Digest, err error) {
			yield(Step{}, &manifest.Error{Op: "walk referrers", Repo: g.Repo, Object: string(at), Err: err})
		}
		err := manifest.CheckRepository(g.Repo)
		first := frame{}
		for _, d := range roots {
			if err == nil {
				err = manifest.CheckDigest(string(d))
			}
			first.edges = append(first.edges, edge{to: d})
		}
		if most := w.maxSteps(); err == nil && len(roots) > most {
			err = w.limit(roots[most], 0)
		}
		if err == nil && g.Tags {
			w.tags, err = g.tags(ctx)
		}
		if err == nil {
			w.expand, err = start(w)
		}
		if err != nil {
			fail(roots[0], err)
			return
		}
		w.stack, w.waiting = []frame{first}, len(roots)
		for len(w.stack) > 0 {
			step, more, err := w.next(ctx)
			if more && !yield(step, nil) {
				return
			}
			if err != nil {
				fail(cmp.Or(step.Digest, roots[0]), err)
				return
			}
		}
	}
}

func (g *Graph) tags(ctx context.Context) (map[digest.Digest][]string, error) {
	out := map[digest.Digest][]string{}
	for t, err := range g.Manifests.Tags(ctx, g.Repo, "") {
		if err != nil {
			return nil, err
		}
		out[t.Digest] = append(out[t.Digest], t.Name)
	}
	return out, ctx.Err()
}

// next takes the next edge, if any is left, or goes back by one. With an error
// the step may still be one to yield.
func (w *walk) next(ctx context.Context) (step Step, more bool, err error) {
	depth := len(w.stack) - 1
	f := &w.stack[depth]
	if len(f.edges) == 0 {
		if f.cut {
			return Step{}, false, w.limit(f.dgst, depth)
		}
		w.onPath[f.dgst] = false
		w.stack = w.stack[:depth]
		return Step{}, false, nil
	}
	e := f.edges[0]
	f.edges = f.edges[1:]
	w.waiting--
	w.taken++
	step = Step{
		Descriptor: ocispec.Descriptor{Digest: e.to, Platform: e.platform},
		From:       f.dgst, Edge: e.kind, Depth: depth, Tags: w.tags[e.to],
		group: e.group, role: e.role,
		groupEnds: len(f.edges) == 0 || f.edges[0].group != e.group,
		last:      len(f.edges) == 0 || f.edges[len(f.edges)-1].group == e.group,
	}
	if onPath, visited := w.onPath[e.to]; visited {
		step.State = StateAgain
		if onPath {
			step.State = StateCycle
		}
		return step, true, nil
	}
	rec, err := w.read(ctx, e.to)
	if err == nil {
		err = ctx.Err() // which a store in memory may not ask for
	}
	if err != nil {
		return step, false, err
	}
	if rec.Desc.Digest == "" {
		step.State = StateMissing
	} else {
		step.Descriptor, step.Platform, step.Subject = rec.Desc, e.platform, rec.Subject
	}
	w.onPath[e.to] = true
	if w.g.Depth > 0 && depth >= w.g.Depth {
		w.onPath[e.to] = false
		return step, true, nil
	}
	most := w.maxSteps() - w.taken - w.waiting
	if depth == w.maxDepth() {
		most = 0
	}
	// One more than may be, to know that there are more.
	edges, err := w.expand(ctx, e.to, rec, most+1)
	if err != nil {
		return step, true, err
	}
	below := frame{dgst: e.to, edges: edges, cut: len(edges) > most}
	step.Next = len(edges)
	below.edges = edges[:min(len(edges), most)]
	w.waiting += len(below.edges)
	w.stack = append(w.stack, below)
	return step, true, nil
}

func (w *walk) maxSteps() int { return orDefault(w.g.MaxSteps, DefaultMaxSteps) }
func (w *walk) maxDepth() int { return orDefault(w.g.MaxDepth, DefaultMaxDepth) }

func orDefault(n, standard int) int {
	if n <= 0 {
		return standard
	}
	return n
}

func (w *walk) limit(at digest.Digest, depth int) error {
	if depth > w.maxDepth() {
		return &LimitError{"MaxDepth", w.maxDepth(), w.roots[0], at}
	}
	return &LimitError{"MaxSteps", w.maxSteps(), w.roots[0], at}
}

// read returns the zero Record for what is not there.
func (w *walk) read(ctx context.Context, dgst digest.Digest) (manifest.Record, error) {
	if manifest.CheckContentDigest(string(dgst)) != nil { // which no store can hold
		return manifest.Record{}, nil
	}
	rec, err := w.g.Manifests.Get(ctx, w.g.Repo, dgst)
	if manifest.IsNotFound(err) {
		return manifest.Record{}, nil
	}
	return rec, err
}

// down returns children and referrers.
func (w *walk) down(ctx context.Context, index Index, dgst digest.Digest, rec manifest.Record, most int) ([]edge, error) {
	out := children(rec, most)
	first := len(out)
	types := w.g.Filter.ArtifactTypes
	if len(types) == 0 {
		types = []string{""}
	}
	groups := map[string]string{} // one string for each type, however many have it
	looked := 0
	for _, typ := range slices.Compact(slices.Sorted(slices.Values(types))) {
		for desc, err := range index.Referrers(ctx, w.g.Repo, dgst, typ, "") {
			if err != nil {
				return nil, err
			}
			if len(out) == most {
				break
			}
			if looked++; looked > w.maxSteps() { // of a list without an end the Filter may pass nothing
				return nil, w.limit(dgst, 0)
			}
			if !w.g.Filter.Match(desc) {
				continue
			}
			group, ok := groups[groupOf(desc)]
			if !ok {
				group = groupOf(desc)
				groups[group] = group
			}
			out = append(out, edge{to: desc.Digest, kind: EdgeReferrer, group: group})
		}
	}
	slices.SortStableFunc(out[first:], func(a, b edge) int {
		return cmp.Or(cmp.Compare(a.group, b.group), cmp.Compare(a.to, b.to))
	})
	return out, nil
}

// groupOf is what referrers are sorted by.
func groupOf(desc ocispec.Descriptor) string {
	return cmp.Or(desc.ArtifactType, desc.MediaType)
}

// children returns what an index lists, with what it says of each.
func children(rec manifest.Record, most int) []edge {
	if len(rec.Manifests) == 0 {
		return nil
	}
	listed := map[digest.Digest]ocispec.Descriptor{}
	if m, err := manifest.Parse(rec.Desc.MediaType, rec.Raw); err == nil {
		for _, d := range m.Manifests {
			if _, ok := listed[d.Digest]; !ok {
				listed[d.Digest] = d.OCI()
			}
		}
	}
	var out []edge
	for _, d := range rec.Manifests[:min(len(rec.Manifests), most)] {
		e := edge{to: d, kind: EdgeChild, group: "child", role: listed[d].Annotations["vnd.docker.reference.type"]}
		if p := listed[d].Platform; p != nil && p.OS != "unknown" { // which is how BuildKit says that it is for none
			e.platform = p
		}
		out = append(out, e)
	}
	return out
}
