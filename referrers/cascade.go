package referrers

import (
	"context"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/manifest"
)

// CascadeOptions say what goes along with a manifest. The zero value is what Amazon
// ECR does: referrers follow their subject, and what an index lists stays.
type CascadeOptions struct {
	// Children lets go what a going index lists, unless another index lists it,
	// it has a tag, or it refers to something else.
	Children bool
	// KeepTagged keeps referrers that have a tag.
	KeepTagged bool
}

// Reason is why a manifest goes or stays in a cascade.
type Reason string

// Reasons to go.
const (
	ReasonAsked   Reason = "asked"   // it was asked for
	ReasonSubject Reason = "subject" // its subject By goes, or is not there
	ReasonIndex   Reason = "index"   // every index that lists it goes: By, and maybe others
)

// Reasons to stay.
const (
	ReasonListed  Reason = "listed"  // the index By lists it, and stays
	ReasonTagged  Reason = "tagged"  // it has a tag
	ReasonRefers  Reason = "refers"  // its subject By stays
	ReasonChild   Reason = "child"   // the index By goes without its children
	ReasonMissing Reason = "missing" // it is not in the repository
)

// Fate is what a cascade does to a manifest.
type Fate struct {
	Step
	Goes   bool
	Reason Reason
	By     digest.Digest
}

// String is the fate in words.
func (f Fate) String() string {
	by := ""
	if f.By != "" {
		by = " " + short(f.By)
	}
	switch f.Reason {
	case ReasonAsked:
		return "goes"
	case ReasonSubject:
		return "goes with its subject"
	case ReasonIndex:
		return "goes with its index"
	case ReasonListed:
		return "stays: the index" + by + " lists it"
	case ReasonTagged:
		return "stays: it is tagged " + strings.Trim(tags(f.Step), "[]")
	case ReasonRefers:
		return "stays: it refers to" + by
	case ReasonChild:
		return "stays: the index" + by + " goes without its children"
	}
	return "nothing to delete"
}

// Cascade says what would go if the manifests dgsts went, each manifest once, in
// the order of [Graph.Walk] from each of them. It changes nothing: who deletes
// has to compare again, in the Change that deletes ([manifest.Removal]).
//
// A manifest that a staying index lists never goes, not even if it is asked for;
// of those that are asked for no tag keeps any. Filter and Depth of g are
// not looked at. Manifests are read as in Walk; indexes and tags are found
// by one listing each, and memory follows all of these. With an error, which
// may be a *[LimitError], there is no answer.
func (g *Graph) Cascade(ctx context.Context, dgsts []digest.Digest, o CascadeOptions) ([]Fate, error) {
	if len(dgsts) == 0 {
		return nil, nil
	}
	whole := *g
	whole.Filter, whole.Depth, whole.Tags = Filter{}, 0, true
	parents, err := whole.parents(ctx)
	if err != nil {
		return nil, &manifest.Error{Op: "cascade", Repo: g.Repo, Err: err}
	}
	c := cascade{o: o, at: map[digest.Digest]int{}, asked: map[digest.Digest]bool{}, from: map[digest.Digest][]link{}}
	for _, d := range dgsts {
		c.asked[d] = true
	}
	for step, err := range whole.walk(ctx, dgsts, whole.below(ctx)) {
		if err != nil {
			return nil, err
		}
		c.add(step)
	}
	c.decide(parents)
	return c.fates, nil
}

// cascade lets everything go that was reached, and then keeps what must stay,
// and what must stay because of that, until nothing changes.
type cascade struct {
	o     CascadeOptions
	fates []Fate
	at    map[digest.Digest]int // in fates
	asked map[digest.Digest]bool
	from  map[digest.Digest][]link
	kept  []digest.Digest // of which nothing has followed yet
}

type link struct {
	to   digest.Digest
	edge Edge
}

func (c *cascade) add(s Step) {
	if s.From != "" {
		c.from[s.From] = append(c.from[s.From], link{s.Digest, s.Edge})
	}
	if s.State != StateNew && s.State != StateMissing {
		return
	}
	f := Fate{Step: s, Goes: true, Reason: ReasonAsked, By: s.From}
	switch {
	case c.asked[s.Digest]:
		f.By = ""
	case s.Edge == EdgeReferrer:
		f.Reason = ReasonSubject
	case s.Edge == EdgeChild:
		f.Reason = ReasonIndex
	}
	c.at[s.Digest] = len(c.fates)
	c.fates = append(c.fates, f)
}

func (c *cascade) decide(parents map[digest.Digest][]digest.Digest) {
	for _, f := range c.fates {
		for _, p := range parents[f.Digest] {
			if _, reached := c.at[p]; !reached {
				c.keep(f.Digest, ReasonListed, p)
			}
		}
		_, subjectReached := c.at[f.Subject]
		switch {
		case c.asked[f.Digest]:
		case len(f.Tags) > 0 && (c.o.KeepTagged || f.Edge == EdgeChild):
			c.keep(f.Digest, ReasonTagged, "")
		case f.Subject != "" && !subjectReached:
			c.keep(f.Digest, ReasonRefers, f.Subject)
		}
		if !c.o.Children {
			for _, l := range c.from[f.Digest] {
				if l.edge == EdgeChild && !c.asked[l.to] {
					c.keep(l.to, ReasonChild, f.Digest)
				}
			}
		}
	}
	for len(c.kept) > 0 {
		by := c.kept[0]
		c.kept = c.kept[1:]
		for _, l := range c.from[by] {
			switch {
			case l.edge == EdgeChild:
				c.keep(l.to, ReasonListed, by)
			case !c.asked[l.to]:
				c.keep(l.to, ReasonRefers, by)
			}
		}
	}
	for i := range c.fates {
		f := &c.fates[i]
		switch {
		case f.State == StateMissing:
			f.Goes, f.Reason, f.By = false, ReasonMissing, ""
		case f.Reason == ReasonChild && !c.fates[c.at[f.By]].Goes:
			f.Reason = ReasonListed
		}
	}
}

func (c *cascade) keep(dgst digest.Digest, why Reason, by digest.Digest) {
	if f := &c.fates[c.at[dgst]]; f.Goes {
		f.Goes, f.Reason, f.By = false, why, by
		c.kept = append(c.kept, dgst)
	}
}
