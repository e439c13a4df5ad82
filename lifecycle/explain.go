package lifecycle

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// ErrNoImage is an image that a plan does not have.
var ErrNoImage = errors.New("no such image in the plan")

// Explanation is a verdict with what each rule says of the image.
type Explanation struct {
	Verdict Verdict
	Rules   []RuleView // by priority
}

// RuleView is one rule's view of one image.
type RuleView struct {
	Priority int64
	Sees     bool   // it is about the image, and counts it
	Due      bool   // it would act on the image, were it the owner
	Why      string // in words
}

// Explain says why one image is treated as it is, by its digest or by a tag.
// ErrNoImage.
func Explain(plan *Plan, ref string) (*Explanation, error) {
	i := -1
	for j := range plan.images {
		if im := &plan.images[j]; string(im.Digest) == ref || slices.Contains(im.Tags, ref) {
			i = j
			break
		}
	}
	if i < 0 {
		return nil, fmt.Errorf("explain %s: %w", ref, ErrNoImage)
	}
	x := &Explanation{Verdict: plan.Verdict(i)}
	for r := range plan.policy.rules {
		x.Rules = append(x.Rules, plan.view(r, i))
	}
	return x, nil
}

// String has the verdict, and a line for each rule.
func (x *Explanation) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s\n", x.Verdict.Image.name(), x.Verdict)
	for _, r := range x.Rules {
		said := "does not see it"
		switch {
		case r.Sees && r.Due:
			said = "sees it as due"
		case r.Sees:
			said = "sees it, not as due"
		}
		fmt.Fprintf(&b, "  rule %d %s: %s\n", r.Priority, said, r.Why)
	}
	return b.String()
}

// view is what rule r says of image i.
func (p *Plan) view(r, i int) RuleView {
	rule, im, mk := &p.policy.rules[r], &p.images[i], p.marks[i]
	v := RuleView{Priority: rule.Priority, Sees: mk.rules>>r&1 == 1}
	if !v.Sees {
		v.Why = p.unseen(rule, p.policy.extension(r), i)
		return v
	}
	// The verdict as if r were the owner.
	alone := Plan{policy: p.policy, images: p.images, now: p.now, counts: p.counts, graph: p.graph, marks: make([]mark, i+1)}
	mk.owner, mk.want, mk.rank = uint8(r), expire, 0
	n, spare := clamp(rule.Selection.CountNumber), clamp(int64(p.policy.extension(r).KeepNewest))
	since := im.since(rule.Selection.CountType)
	limit, ok := rule.limit(p.policy.day())
	border := saturated(instant(p.now), limit)
	count := rule.Selection.CountType == ImageCountMoreThan
	if count || spare > 0 {
		mk.rank = p.rank(r, i)
	}
	switch {
	case count && mk.rank == 0, !count && since.IsZero():
		mk.reason = reasonUnknown
	case count && mk.rank <= max(n, spare):
		mk.reason = reasonCount
	case count:
		mk.reason, v.Due = reasonDue, true
	case rule.Selection.CountType == SinceImagePulled && !p.policy.opts.PullsSince.IsZero() &&
		ok && instant(since) < border && instant(p.policy.opts.PullsSince) >= border:
		mk.reason = reasonPullsUnknown
	case spare > 0 && mk.rank == 0:
		mk.reason = reasonUnknown
	case !ok || instant(since) >= border:
		mk.reason = reasonYoung
	case spare > 0 && mk.rank <= spare:
		mk.reason = reasonNewest
	default:
		mk.reason, v.Due = reasonDue, true
	}
	alone.marks[i] = mk
	v.Why = alone.Verdict(i).because()
	return v
}

// unseen says why a rule is not about an image.
func (p *Plan) unseen(rule *Rule, x RuleExtension, i int) string {
	s, im := &rule.Selection, &p.images[i]
	switch {
	case im.Subject != "" && !p.policy.opts.CountReferrers:
		return "a referrer follows its subject"
	case p.policy.ext.Units && len(im.Tags) == 0 && p.isListed(i):
		return "it is one with the index that lists it"
	case im.class() != s.class():
		return "it is in the storage class " + string(im.class())
	case s.TagStatus == Untagged:
		return "it has a tag"
	case len(im.Tags) == 0 && (s.TagStatus == Tagged || x.TagsOnly):
		return "it has no tag"
	}
	missing := func(list []string, what string, prefixes bool) string {
		for _, entry := range list {
			one := Selection{TagPatterns: []string{entry}}
			if prefixes {
				one = Selection{TagPrefixes: []string{entry}}
			}
			if !slices.ContainsFunc(im.Tags, func(tag string) bool { return one.about(tag, p.policy.opts.IgnoreCase) }) {
				return "no tag " + what + " " + strconv.Quote(entry)
			}
		}
		return ""
	}
	if m := missing(s.TagPatterns, "matches", false); m != "" {
		return m
	}
	if m := missing(s.TagPrefixes, "begins with", true); m != "" {
		return m
	}
	return "it has a tag that is excluded: one of " + strings.Join(x.Exclude, ", ")
}

// rank returns the place of image i in the count of rule r; 0 if its push time is
// not known.
func (p *Plan) rank(r, i int) uint32 {
	if instant(p.images[i].pushTime()) == unknown {
		return 0
	}
	rank := uint32(1)
	for j := range p.images {
		if j != i && p.marks[j].rules>>r&1 == 1 && instant(p.images[j].pushTime()) != unknown &&
			newer(&p.images[j], &p.images[i], p.policy.opts.DescendingTies) < 0 {
			rank++
		}
	}
	return rank
}
