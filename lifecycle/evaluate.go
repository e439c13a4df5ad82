package lifecycle

import (
	"math"
	"math/bits"
	"time"
)

// Evaluate says what a policy does to images at an instant: to each exactly one
// of [Keep], [Expire], [Transition] and, with an extension, [Untag]. It is a pure
// function: equal arguments give equal plans, whatever the order of images, and
// nothing is changed. The plan holds on to policy and images, which must not
// change while it is in use.
//
// The rule of lowest priority number whose storage class and tags an image fits
// owns it: no other rule acts on it. Each rule counts all images that it fits,
// owned or not. In doubt an image stays: when a time is unknown, when it is
// listed by an index, or when it comes from the future.
func Evaluate(policy *Policy, images []Image, now time.Time) *Plan {
	if policy == nil {
		policy = new(Policy)
	}
	e := evaluation{Plan: &Plan{policy: policy, images: images, now: now, marks: make([]mark, len(images))}}
	e.now = instant(now)
	e.prepare()
	if policy.ext.Units {
		e.linkLists()
	}
	e.matchAll()
	e.count()
	if len(policy.ext.Keep) > 0 || policy.ext.InUse != nil {
		e.spareAll()
	}
	if e.lists > 0 {
		e.linkLists()
		e.block()
	}
	if e.referrers > 0 {
		e.linkSubjects()
		e.follow()
		e.hold()
	}
	return e.Plan
}

// mark is what is known of one image.
type mark struct {
	rules  uint64 // that it fits
	rank   uint32 // in its owner's count, newest first from 1; 0 if it was not counted
	owner  uint8  // the first of rules, or none
	want   act    // what its owner, or its subject, is about to do
	action act    // what becomes of it
	reason reason
}

const none = 64 // no rule

// act is an ActionType in a byte.
type act uint8

const (
	keep act = iota
	expire
	transition
	untag
)

// evaluation is a Plan in the making.
type evaluation struct {
	*Plan
	now       int64
	lists     int // images that list others
	referrers int // images that follow others

	limits  [MaxRules]int64  // by rule: what came before this is old
	spare   [MaxRules]uint32 // by rule: so many newest images are spared
	acts    [MaxRules]act
	clocks  [MaxRules]CountType
	counted uint64 // rules that need ranks

	keys []uint64 // push times of the images to be counted
	of   []uint32 // which these are
	seen []uint64 // room for the matcher
}

func (e *evaluation) prepare() {
	p := e.policy
	e.seen = make([]uint64, p.match.words)
	for r := range p.rules {
		rule, x := &p.rules[r], p.extension(r)
		e.clocks[r] = rule.Selection.CountType
		e.acts[r] = expire
		if rule.Action.Type == Transition {
			e.acts[r] = transition
		}
		if x.TagsOnly {
			e.acts[r] = untag
		}
		e.spare[r] = clamp(int64(x.KeepNewest))
		if e.clocks[r] == ImageCountMoreThan {
			e.spare[r] = max(e.spare[r], clamp(rule.Selection.CountNumber))
		}
		if e.spare[r] > 0 {
			e.counted |= 1 << r
		}
		e.limits[r] = unknown
		if limit, ok := rule.limit(p.day()); ok {
			e.limits[r] = saturated(e.now, limit)
		}
	}
}

func clamp(n int64) uint32 { return uint32(min(n, math.MaxUint32)) }

// matchAll finds the owner of each image, and which ones are old.
func (e *evaluation) matchAll() {
	p, m := e.policy, &e.policy.match
	since := unknown + int64(1)
	if !p.opts.PullsSince.IsZero() {
		since = instant(p.opts.PullsSince)
	}
	newest := 0 // of all keep rules
	for i := range m.keep {
		newest = max(newest, m.keep[i].Newest)
	}
	if e.counted != 0 || newest > 0 {
		e.keys = make([]uint64, 0, len(e.images))
		e.of = make([]uint32, 0, len(e.images))
	}
	for i := range e.images {
		im, mk := &e.images[i], &e.marks[i]
		mk.owner = none
		if len(im.Manifests) > 0 {
			e.lists++
		}
		if im.Subject != "" && !p.opts.CountReferrers {
			e.referrers++
			mk.reason = reasonSubjectStays
			continue
		}
		if im.Subject != "" {
			e.referrers++
		}
		if p.ext.Units && len(im.Tags) == 0 && e.isListed(i) {
			mk.reason = reasonUnitStays
			continue
		}
		mk.rules = m.rules(im.Tags, e.seen) & m.of(im.StorageClass)
		pushed := instant(im.pushTime())
		if pushed != unknown && (mk.rules&e.counted != 0 || newest > 0) {
			e.keys = append(e.keys, sortable(pushed))
			e.of = append(e.of, uint32(i))
		}
		if mk.rules == 0 {
			mk.reason = reasonNoRule
			if c := im.class(); c != Standard && c != Archive {
				mk.reason = reasonClass
			}
			continue
		}
		r := bits.TrailingZeros64(mk.rules)
		mk.owner = uint8(r)
		var t int64
		switch e.clocks[r] {
		case ImageCountMoreThan:
			mk.reason = reasonCount
			if pushed == unknown {
				mk.reason = reasonUnknown
			}
			continue
		case SinceImagePushed:
			t = pushed
		case SinceImagePulled:
			t = instant(im.pullTime())
			if t != unknown && t < e.limits[r] && since >= e.limits[r] {
				mk.reason = reasonPullsUnknown
				continue
			}
		default:
			t = instant(im.ArchivedAt)
		}
		switch {
		case t == unknown || e.spare[r] > 0 && pushed == unknown:
			mk.reason = reasonUnknown
		case t >= e.limits[r]:
			mk.reason = reasonYoung
		default:
			mk.reason, mk.want, mk.action = reasonDue, e.acts[r], e.acts[r]
		}
	}
}

// count gives ranks, newest first, and decides by them.
func (e *evaluation) count() {
	if len(e.keys) == 0 {
		return
	}
	order := newestFirst(e.images, e.keys, e.of, e.policy.opts.DescendingTies)
	var counts [MaxRules]uint32
	// Marks lie scattered. Reading some ahead lets the processor wait for all of
	// them at once.
	var ahead [32]uint64
	for rest := order; len(rest) > 0; rest = rest[min(len(ahead), len(rest)):] {
		block := rest[:min(len(ahead), len(rest))]
		for j, o := range block {
			ahead[j] = e.marks[uint32(o)].rules
		}
		for j, o := range block {
			for rules := ahead[j] & e.counted; rules != 0; rules &= rules - 1 {
				counts[bits.TrailingZeros64(rules)]++
			}
			e.decide(&e.marks[uint32(o)], &counts)
		}
	}
	e.counts = counts[:len(e.policy.rules)]
	e.keepNewest(order)
}

// decide is for an image whose place in the counts is known.
func (e *evaluation) decide(mk *mark, counts *[MaxRules]uint32) {
	r := mk.owner
	if r == none || e.counted>>r&1 == 0 {
		return
	}
	mk.rank = counts[r]
	switch beyond := mk.rank > e.spare[r]; {
	case mk.reason == reasonCount && beyond:
		mk.reason, mk.want, mk.action = reasonDue, e.acts[r], e.acts[r]
	case mk.want != keep && !beyond:
		mk.reason, mk.want, mk.action = reasonNewest, keep, keep
	}
}

// keepNewest marks what the keep rules with a number name.
func (e *evaluation) keepNewest(order []uint64) {
	keepers := e.policy.match.keep
	for k := range keepers {
		left := keepers[k].Newest
		for j := 0; j < len(order) && left > 0; j++ {
			i := uint32(order[j])
			if keepers[k].names(&e.images[i], e.policy.opts.IgnoreCase) {
				left--
				if e.newest == nil {
					e.newest = make([]uint8, len(e.images))
				}
				if e.newest[i] == 0 {
					e.newest[i] = uint8(k + 1)
				}
			}
		}
	}
}

// spareAll asks what always wins about all that rules want.
func (e *evaluation) spareAll() {
	for i := range e.marks {
		if mk := &e.marks[i]; mk.action != keep && e.spared(i) {
			mk.action = keep
		}
	}
}

// spared tells whether an image that is about to go is kept by an extension, and
// then says so in its mark.
func (e *evaluation) spared(i int) bool {
	x, im, mk := &e.policy.ext, &e.images[i], &e.marks[i]
	if len(x.Keep) > 0 && e.keeper(i) != nil {
		mk.reason = reasonKeepRule
		return true
	}
	if x.InUse == nil {
		return false
	}
	who := x.InUse(im)
	if who == "" {
		return false
	}
	if e.users == nil {
		e.users = map[int]string{}
	}
	e.users[i] = who
	mk.reason = reasonInUse
	return true
}

// keeper returns the first keep rule that names an image, or nil.
func (p *Plan) keeper(i int) *keeper {
	keepers := p.policy.match.keep
	for k := range keepers {
		if keepers[k].Newest > 0 {
			if p.newest != nil && int(p.newest[i]) == k+1 {
				return &keepers[k]
			}
		} else if keepers[k].names(&p.images[i], p.policy.opts.IgnoreCase) {
			return &keepers[k]
		}
	}
	return nil
}
