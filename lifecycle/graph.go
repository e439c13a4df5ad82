package lifecycle

import (
	"hash/maphash"
	"math/bits"
	"slices"

	"github.com/opencontainers/go-digest"
)

// graph is which images list, and which refer to, which. Images are their
// indexes. It takes a few allocations, whatever the number of images.
type graph struct {
	slots []uint64 // the hash of a digest, its low half replaced by the image, from 1; open addressing
	seed  maphash.Seed

	start   []uint32 // the lists of image i are parents[start[i]:start[i+1]]
	parents []uint32
	linked  bool

	root []uint32 // of a referrer: the image that it, or what it refers to, follows in the end; or absent, circle
}

// Roots that are no image.
const (
	absent  = ^uint32(0)     // not among the images
	circle  = ^uint32(0) - 1 // referrers that refer to one another
	pending = ^uint32(0) - 2
)

func (p *Plan) index() {
	if p.graph.slots != nil {
		return
	}
	g := &p.graph
	g.seed = maphash.MakeSeed()
	g.slots = make([]uint64, 1<<bits.Len(uint(2*len(p.images)+1)))
	for i := range p.images {
		h := maphash.String(g.seed, string(p.images[i].Digest))
		at := g.slot(h)
		for g.slots[at] != 0 {
			at = (at + 1) & (len(g.slots) - 1)
		}
		g.slots[at] = h&^lowHalf | uint64(i+1)
	}
}

const lowHalf = 1<<32 - 1

// slot is where a hash is looked for first. Slots tell hashes apart by their high
// halves, so it takes the low one.
func (g *graph) slot(hash uint64) int { return int(hash & lowHalf & uint64(len(g.slots)-1)) }

// find calls f with each image that has the digest: one, if images are as they
// should be.
func (p *Plan) find(d digest.Digest, f func(i uint32)) {
	g := &p.graph
	h := maphash.String(g.seed, string(d))
	for at := g.slot(h); g.slots[at] != 0; at = (at + 1) & (len(g.slots) - 1) {
		s := g.slots[at]
		if i := uint32(s) - 1; (s^h)&^lowHalf == 0 && p.images[i].Digest == d {
			f(i)
		}
	}
}

// linkLists finds the lists of each image.
func (p *Plan) linkLists() {
	g := &p.graph
	if g.linked {
		return
	}
	g.linked = true
	n := 0
	for i := range p.images {
		n += len(p.images[i].Manifests)
	}
	if n == 0 {
		return
	}
	p.index()
	g.start = make([]uint32, len(p.images)+1)
	type edge struct{ child, parent uint32 }
	edges := make([]edge, 0, n)
	for i := range p.images {
		for _, child := range p.images[i].Manifests {
			p.find(child, func(c uint32) {
				edges = append(edges, edge{c, uint32(i)})
				g.start[c+1]++
			})
		}
	}
	for i := range p.images {
		g.start[i+1] += g.start[i]
	}
	g.parents = make([]uint32, len(edges))
	next := make([]uint32, len(p.images))
	copy(next, g.start)
	for _, e := range edges {
		g.parents[next[e.child]] = e.parent
		next[e.child]++
	}
}

// listing returns the images that list image i.
func (p *Plan) listing(i int) []uint32 {
	if p.graph.start == nil {
		return nil
	}
	return p.graph.parents[p.graph.start[i]:p.graph.start[i+1]]
}

func (p *Plan) isListed(i int) bool { return len(p.listing(i)) > 0 }

// linkSubjects finds the root of each referrer.
func (p *Plan) linkSubjects() {
	p.index()
	g := &p.graph
	g.root = make([]uint32, len(p.images))
	for i := range g.root {
		g.root[i] = pending
	}
	var path []uint32
	for i := range p.images {
		at, root := uint32(i), pending
		path = path[:0]
		for root == pending {
			switch {
			case g.root[at] != pending:
				root = g.root[at]
			case p.images[at].Subject == "":
				root = at
			default:
				g.root[at] = circle // if it is met again on this path
				path = append(path, at)
				subject := absent
				p.find(p.images[at].Subject, func(s uint32) { subject = s })
				if subject == absent {
					root = absent
				}
				at = subject
			}
		}
		for _, i := range path {
			g.root[i] = root
		}
	}
}

// blocks tells whether the list l keeps what it lists from an action, as things
// are when the pass begins.
func (p *Plan) blocks(l uint32, a act) bool {
	switch a {
	case expire:
		return true
	case transition:
		return p.images[l].StorageClass != Archive
	}
	return false
}

// block keeps what is listed by others, which must go first.
func (e *evaluation) block() {
	if e.policy.opts.SamePassChildren || e.policy.ext.Units {
		e.blockInTurn()
		return
	}
	for i := range e.marks {
		if mk := &e.marks[i]; mk.action != keep {
			for _, l := range e.listing(i) {
				if e.blocks(l, mk.action) {
					mk.action, mk.reason = keep, reasonListed
					break
				}
			}
		}
	}
}

// blockInTurn is block where what an index lists can go in one pass with it:
// an image is judged after all that list it. What lists itself by way of others
// stays, as does what a referrer lists.
func (e *evaluation) blockInTurn() {
	left := make([]uint32, len(e.marks)) // lists to be judged
	queue := make([]uint32, 0, len(e.marks))
	for i := range e.marks {
		left[i] = uint32(len(e.listing(i)))
		if left[i] == 0 {
			queue = append(queue, uint32(i))
		}
	}
	judged := make([]bool, len(e.marks))
	for n := 0; n < len(queue); n++ {
		i := queue[n]
		e.judge(int(i))
		judged[i] = true
		for _, child := range e.images[i].Manifests {
			e.find(child, func(c uint32) {
				if left[c]--; left[c] == 0 {
					queue = append(queue, c)
				}
			})
		}
	}
	for i := range judged {
		if mk := &e.marks[i]; !judged[i] && mk.action != keep && mk.action != untag {
			mk.action, mk.reason = keep, reasonListed
		}
	}
}

// judge decides about an image when all that list it were decided about.
func (e *evaluation) judge(i int) {
	mk := &e.marks[i]
	all := expire // what all of its lists come to, at least
	for _, l := range e.listing(i) {
		switch f := e.fate(l); {
		case f == keep:
			all = keep
		case f == transition && all == expire:
			all = transition
		}
	}
	if mk.reason == reasonUnitStays {
		mk.want = all
		if mk.want == transition && e.images[i].class() != Standard {
			mk.want = keep
		}
		if mk.want != keep && !e.spared(i) {
			mk.action, mk.reason = mk.want, reasonUnitGoes
		}
		return
	}
	listed := e.isListed(i) && (mk.action == expire && all != expire || mk.action == transition && all == keep)
	if !e.policy.opts.SamePassChildren {
		for _, l := range e.listing(i) {
			listed = listed || e.blocks(l, mk.action)
		}
	}
	if listed {
		mk.action, mk.reason = keep, reasonListed
	}
}

// fate is what an image comes to in this pass: expire, transition (or archived
// already) or keep.
func (e *evaluation) fate(i uint32) act {
	switch a := e.marks[i].action; {
	case a == expire:
		return expire
	case a == transition || e.images[i].StorageClass == Archive:
		return transition
	}
	return keep
}

// follow decides about referrers, once all else is decided.
func (e *evaluation) follow() {
	p := e.policy
	for i := range e.marks {
		im, mk := &e.images[i], &e.marks[i]
		if im.Subject == "" || mk.action != keep || mk.want != keep {
			continue
		}
		root := e.graph.root[i]
		if root == circle {
			mk.reason = reasonCircle
			continue
		}
		gone := root == absent
		var a act
		switch {
		case gone:
			a = expire
		case p.opts.NextPassReferrers:
			a = keep
			if e.images[root].StorageClass == Archive {
				a = transition
			}
		default:
			a = e.fate(root)
		}
		if a == transition && im.class() != Standard {
			a = keep
		}
		if a == keep {
			continue
		}
		mk.want = a
		switch since := im.classTime(); {
		case im.class() != Standard && im.class() != Archive:
			mk.reason = reasonClass
		case since.IsZero():
			mk.reason = reasonUnknown
		case since.After(e.Plan.now.Add(-p.grace())):
			mk.reason = reasonGrace
		case e.spared(i):
		default:
			mk.reason, mk.action = reasonSubjectGoes, a
			if gone {
				mk.reason = reasonSubjectGone
			}
			for _, l := range e.listing(i) {
				if e.blocks(l, a) {
					mk.action, mk.reason = keep, reasonFollowerListed
				}
			}
		}
	}
}

// hold keeps a referrer whose own subject is a referrer that stays, though what both
// follow in the end goes.
func (e *evaluation) hold() {
	const free, held = 1, 2
	known := make([]uint8, len(e.marks))
	var path []uint32
	for i := range e.marks {
		mk := &e.marks[i]
		if mk.via() != ViaSubject {
			continue
		}
		path = path[:0]
		at := uint32(i)
		for at != absent && e.images[at].Subject != "" && known[at] == 0 {
			path = append(path, at)
			next := absent
			e.find(e.images[at].Subject, func(s uint32) { next = s })
			at = next
		}
		for _, below := range slices.Backward(path) {
			known[below] = free
			if at != absent && e.images[at].Subject != "" {
				archived := mk.want == transition && e.images[at].StorageClass == Archive
				if f := e.fate(at); f == keep || mk.want == expire && f != expire || known[at] == held && !archived {
					known[below] = held
				}
			}
			at = below
		}
		if known[i] == held {
			mk.reason, mk.want, mk.action = reasonHeld, keep, keep
		}
	}
}
