package lifecycle

import (
	"cmp"
	"iter"
	"slices"
	"strings"
	"time"
)

// Plan is what [Evaluate] decided: one [Verdict] for each image, in the order of
// the images, made when it is asked for. A Plan does not change, and may be used
// from many goroutines at once.
type Plan struct {
	policy *Policy
	images []Image
	now    time.Time
	marks  []mark
	counts []uint32       // by rule: images in its count, if it needs one
	newest []uint8        // by image: the keep rule with a number that names it, from 1
	users  map[int]string // who uses what is spared for that
	graph  graph
}

// Policy returns what was applied.
func (p *Plan) Policy() *Policy { return p.policy }

// Now returns the instant for which the plan holds.
func (p *Plan) Now() time.Time { return p.now }

// Len returns the number of images.
func (p *Plan) Len() int { return len(p.marks) }

// Image returns the i-th image, which must not be changed.
func (p *Plan) Image(i int) *Image { return &p.images[i] }

// Action returns what becomes of the i-th image. It costs nothing.
func (p *Plan) Action(i int) ActionType {
	return [...]ActionType{keep: Keep, expire: Expire, transition: Transition, untag: Untag}[p.marks[i].action]
}

// Verdicts yields the verdicts in the order of the images.
func (p *Plan) Verdicts() iter.Seq[Verdict] {
	return func(yield func(Verdict) bool) {
		for i := range p.marks {
			if !yield(p.Verdict(i)) {
				return
			}
		}
	}
}

// Order returns the images that do not stay as they are, in the order in which
// to act on them: what rules act on, oldest first, and of the same age the
// greater digest; what goes in one pass with the index that lists it after that
// index; then referrers, each after its subject.
func (p *Plan) Order() []int {
	type step struct {
		i, level int
		at       time.Time
	}
	var steps []step
	for i := range p.marks {
		if p.marks[i].action == keep {
			continue
		}
		s := step{i: i, at: p.images[i].pushTime()}
		if p.images[i].StorageClass == Archive {
			s.at = p.images[i].ArchivedAt
		}
		steps = append(steps, s)
	}
	levels := p.levels()
	for j := range steps {
		if levels != nil {
			steps[j].level = levels[steps[j].i]
		}
	}
	slices.SortFunc(steps, func(a, b step) int {
		c := strings.Compare(string(p.images[b.i].Digest), string(p.images[a.i].Digest))
		if p.policy.opts.DescendingTies {
			c = -c
		}
		return cmp.Or(cmp.Compare(a.level, b.level), a.at.Compare(b.at), c)
	})
	out := make([]int, len(steps))
	for j, s := range steps {
		out[j] = s.i
	}
	return out
}

// levels says of what must be acted on after others how far it is from them; 0
// for all the rest. It is nil if nothing must.
func (p *Plan) levels() []int {
	var out []int
	set := func(i, level int) {
		if out == nil {
			out = make([]int, len(p.marks))
		}
		out[i] = max(out[i], level)
	}
	// Lists before what they list, so far as both go.
	if p.policy.opts.SamePassChildren || p.policy.ext.Units {
		left := make([]int, len(p.marks))
		var queue []int
		for i := range p.marks {
			if left[i] = len(p.listing(i)); left[i] == 0 {
				queue = append(queue, i)
			}
		}
		for n := 0; n < len(queue); n++ {
			i := queue[n]
			for _, child := range p.images[i].Manifests {
				p.find(child, func(c uint32) {
					if p.marks[i].action != keep && p.marks[c].action != keep {
						level := 1
						if out != nil {
							level += out[i]
						}
						set(int(c), level)
					}
					if left[c]--; left[c] == 0 {
						queue = append(queue, int(c))
					}
				})
			}
		}
	}
	deepest := 0
	for _, level := range out {
		deepest = max(deepest, level)
	}
	// Subjects before referrers: the depth of each, by way of those known already.
	if p.graph.root == nil {
		return out
	}
	depth := make([]int, len(p.marks))
	var path []int
	for i := range p.marks {
		if p.marks[i].via() != ViaSubject {
			continue
		}
		path = path[:0]
		at := i
		for depth[at] == 0 && p.images[at].Subject != "" {
			path = append(path, at)
			depth[at] = -1
			next := -1
			p.find(p.images[at].Subject, func(s uint32) { next = int(s) })
			if next < 0 {
				break
			}
			at = next
		}
		d := max(0, depth[at])
		for _, at := range slices.Backward(path) {
			d++
			depth[at] = d
		}
		set(i, deepest+depth[i])
	}
	return out
}

// Summary counts what rules act on. What follows a subject or an index is not
// in the first two, as in ECR's preview.
type Summary struct {
	Images        int `json:"images"` // all
	Expiring      int `json:"expiring"`
	Transitioning int `json:"transitioning"`
	Untagging     int `json:"untagging"`
	Following     int `json:"following"` // expired or archived with their subject or index
	Blocked       int `json:"blocked"`   // kept only because an index lists them
	Unknown       int `json:"unknown"`   // kept because a time is not known
}

// Summary counts.
func (p *Plan) Summary() Summary {
	s := Summary{Images: len(p.marks)}
	for i := range p.marks {
		switch mk := &p.marks[i]; {
		case mk.action != keep && mk.via() != ViaRule:
			s.Following++
		case mk.action == expire:
			s.Expiring++
		case mk.action == transition:
			s.Transitioning++
		case mk.action == untag:
			s.Untagging++
		case mk.reason == reasonListed, mk.reason == reasonFollowerListed:
			s.Blocked++
		case mk.reason == reasonUnknown:
			s.Unknown++
		}
	}
	return s
}

// Outcome returns the images as they are once the plan was carried out, apart
// from the given ones: without those that expire, those that are archived in the
// archive since Now.
func (p *Plan) Outcome() []Image {
	out := make([]Image, 0, len(p.images))
	for i := range p.images {
		im := p.images[i]
		switch p.marks[i].action {
		case expire:
			continue
		case transition:
			im.StorageClass, im.ArchivedAt = Archive, p.now
		case untag:
			gone := p.untagged(i)
			im.Tags = slices.DeleteFunc(slices.Clone(im.Tags), func(t string) bool { return slices.Contains(gone, t) })
		}
		out = append(out, im)
	}
	return out
}

// untagged returns the tags of image i that its rule is about.
func (p *Plan) untagged(i int) (out []string) {
	s := &p.policy.rules[p.marks[i].owner].Selection
	for _, tag := range p.images[i].Tags {
		if s.TagStatus == Any || s.about(tag, p.policy.opts.IgnoreCase) {
			out = append(out, tag)
		}
	}
	return out
}

// about tells whether an entry of s matches tag.
func (s *Selection) about(tag string, folded bool) bool {
	if folded {
		tag = fold(tag)
	}
	match := func(list []string, compile func(string) pattern) bool {
		return slices.ContainsFunc(list, func(entry string) bool {
			if folded {
				entry = fold(entry)
			}
			pat := compile(entry)
			return pat.match(tag)
		})
	}
	return match(s.TagPatterns, newPattern) || match(s.TagPrefixes, newPrefix)
}
