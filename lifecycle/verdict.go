package lifecycle

import (
	"math/bits"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
)

// Via says what an action comes from.
type Via string

// What an action can come from.
const (
	ViaRule    Via = "rule"
	ViaSubject Via = "subject" // it follows what it refers to
	ViaIndex   Via = "index"   // it is one with the indexes that list it ([Extensions.Units])
)

// Verdict is what becomes of one image, and why.
type Verdict struct {
	Image  *Image // must not be changed
	Action ActionType
	Via    Via   // "" with Keep
	Rule   int64 // priority of the rule that acts; 0 if none does
	Reason Reason

	Owner int64   // priority of the rule that alone may act on the image; 0 if no rule is about it
	Also  []int64 // priorities of the other rules that are about it, and count it

	Rank, Count int           // place among the images of Owner, newest first from 1, and their number; 0 if Owner counts none
	Since       time.Time     // what Owner measures the age from; zero if it is no age, or not known
	Age         time.Duration // at the time of the plan, negative in the future

	Blocked *Blocked      // if an index keeps the image from an action
	Subject digest.Digest // what a referrer follows: at the end of a chain, the last; "" if it is no referrer
	By      string        // the keep rule that spares it, or who uses it
	Tags    []string      // with Untag: which

	plan *Plan
	i    int
}

// Blocked is an action that does not happen, as ECR reports it
// (ImageReferencedByManifestList).
type Blocked struct {
	Rule         int64           `json:"rule,omitempty"` // 0 if the image would follow its subject
	Action       ActionType      `json:"action"`
	ReferencedBy []digest.Digest `json:"referencedBy"` // the indexes that must go, or be archived, first
}

// via says what the action, if any, comes from.
func (m *mark) via() Via {
	if m.action == keep {
		return ""
	}
	switch m.reason {
	case reasonSubjectGoes, reasonSubjectGone:
		return ViaSubject
	case reasonUnitGoes:
		return ViaIndex
	}
	return ViaRule
}

// Verdict returns what becomes of the i-th image.
func (p *Plan) Verdict(i int) Verdict {
	im, mk := &p.images[i], &p.marks[i]
	v := Verdict{Image: im, Action: p.Action(i), Via: mk.via(), Reason: reasons[mk.reason], plan: p, i: i}
	if mk.owner != none {
		owner := &p.policy.rules[mk.owner]
		v.Owner = owner.Priority
		for rest := mk.rules & (mk.rules - 1); rest != 0; rest &= rest - 1 {
			v.Also = append(v.Also, p.policy.rules[bits.TrailingZeros64(rest)].Priority)
		}
		if mk.rank > 0 {
			v.Rank, v.Count = int(mk.rank), int(p.counts[mk.owner])
		}
		v.Since = im.since(owner.Selection.CountType)
		if !v.Since.IsZero() {
			v.Age = p.now.Sub(v.Since)
		}
	}
	if v.Via == ViaRule {
		v.Rule = v.Owner
	}
	if im.Subject != "" {
		v.Subject = p.follows(i)
	}
	switch mk.reason {
	case reasonListed, reasonFollowerListed:
		v.Blocked = p.blocked(i)
	case reasonKeepRule:
		v.By = p.keeper(i).Name
	case reasonInUse:
		v.By = p.users[i]
	}
	if mk.action == untag {
		v.Tags = p.untagged(i)
	}
	return v
}

// since returns what an age of im is measured from; zero if c is no age.
func (im *Image) since(c CountType) time.Time {
	switch c {
	case SinceImagePushed:
		return im.pushTime()
	case SinceImagePulled:
		return im.pullTime()
	case SinceImageTransitioned:
		return im.ArchivedAt
	}
	return time.Time{}
}

// follows returns the digest that referrer i follows in the end.
func (p *Plan) follows(i int) digest.Digest {
	if p.graph.root[i] == circle {
		return p.images[i].Subject
	}
	at := i
	for {
		next := -1
		p.find(p.images[at].Subject, func(s uint32) { next = int(s) })
		if next < 0 || p.images[next].Subject == "" {
			return p.images[at].Subject
		}
		at = next
	}
}

func (p *Plan) blocked(i int) *Blocked {
	mk := &p.marks[i]
	b := &Blocked{Action: Expire}
	if mk.want == transition {
		b.Action = Transition
	}
	if mk.reason == reasonListed {
		b.Rule = p.policy.rules[mk.owner].Priority
	}
	for _, l := range p.listing(i) {
		if p.blocks(l, mk.want) {
			b.ReferencedBy = append(b.ReferencedBy, p.images[l].Digest)
		}
	}
	slices.Sort(b.ReferencedBy)
	b.ReferencedBy = slices.Compact(b.ReferencedBy)
	return b
}
