package lifecycle

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// Options decide what ECR's documentation leaves open. The zero value is what
// this package recommends.
type Options struct {
	// DescendingTies: of images pushed at the same time the one with the greater
	// digest counts as newer. By default it is the one with the smaller digest.
	DescendingTies bool

	// Day is how long a day is. Zero is 24 hours.
	Day time.Duration

	// IgnoreCase compares tags without regard to the case of ASCII letters.
	IgnoreCase bool

	// CountReferrers makes rules select and count manifests with a subject as any
	// other; what no rule acts on still follows its subject. By default rules
	// do not see them.
	CountReferrers bool

	// NextPassReferrers lets a referrer follow only what is gone or archived
	// already. By default it goes in the same pass.
	NextPassReferrers bool

	// ReferrerGrace is how long a referrer must have been in its storage class
	// before it follows its subject. Zero is 24 hours, negative is none.
	ReferrerGrace time.Duration

	// SamePassChildren lets what an index lists go in one pass with the index. By
	// default an index that is there when the pass begins protects its children.
	SamePassChildren bool

	// PullsSince is from when on pulls were recorded, as [Activity] knows. An image
	// may have been pulled until then, so its last pull counts as no earlier. Zero
	// says that all pulls are known.
	PullsSince time.Time
}

// With returns a policy that is read with o in place of its options.
func (p *Policy) With(o Options) (*Policy, error) {
	if o.Day < 0 {
		return nil, &InvalidError{[]FieldError{{"/options/Day", CategoryOption, o.Day.String(), "a positive duration, or 0 for 24 hours"}}}
	}
	q := *p
	q.opts = o
	q.compile()
	return &q, nil
}

// Options returns how the policy is read.
func (p *Policy) Options() Options { return p.opts }

func (p *Policy) day() time.Duration {
	if p.opts.Day == 0 {
		return 24 * time.Hour
	}
	return p.opts.Day
}

func (p *Policy) grace() time.Duration {
	if p.opts.ReferrerGrace == 0 {
		return 24 * time.Hour
	}
	return max(0, p.opts.ReferrerGrace)
}

// Extensions are what ECR cannot say. They stand outside the policy document,
// and the zero value has none of them.
type Extensions struct {
	// Keep are rules that always win: what one of them names is neither expired
	// nor archived nor untagged. It is counted all the same.
	Keep []KeepRule

	// Rules change single rules of the policy.
	Rules []RuleExtension

	// InUse, if not nil, says who uses an image, "" for nobody. What is in use is
	// kept. It is asked at most once about each image that would go, on the
	// goroutine of [Evaluate], must answer the same for the same image, and must
	// not keep or change it.
	InUse func(*Image) string

	// Units makes an index and the untagged manifests it lists one: they are not
	// selected and not counted by themselves, and go, or are archived, in one pass
	// with the last index that lists them. A tagged one remains by itself.
	Units bool
}

// KeepRule names images that stay.
type KeepRule struct {
	Name        string          // for explanations
	TagPatterns []string        // images with a tag that matches one of these, …
	Digests     []digest.Digest // … or with one of these digests; without both: all images
	Newest      int             // of these, only so many newest by push time; 0: all
}

// RuleExtension changes the rule of a priority.
type RuleExtension struct {
	Priority int64

	// Exclude are patterns: the rule does not see images that have a tag which
	// matches one of them, so lower rules may act on these.
	Exclude []string

	// KeepNewest spares the newest so many of the images that the rule sees,
	// whatever their age.
	KeepNewest int

	// TagsOnly makes an expire rule remove the tags that the rule is about, and
	// leave the image with its other tags, or untagged. It does not see images
	// without tags.
	TagsOnly bool
}

// Extend returns a policy with x in place of its extensions. The error is an
// [*InvalidError] that names fields of x.
func (p *Policy) Extend(x Extensions) (*Policy, error) {
	var faults []FieldError
	fault := func(at, value, allowed string) {
		faults = append(faults, FieldError{"/extensions" + at, CategoryExtension, value, allowed})
	}
	patterns := func(at string, list []string) {
		for i, entry := range list {
			if entry == "" || len(entry) > 2*MaxTagLength {
				fault(at+"/"+strconv.Itoa(i), strconv.Quote(entry), "1 to "+strconv.Itoa(2*MaxTagLength)+" characters")
			}
		}
	}
	if len(x.Keep) > maxKeep {
		fault("/Keep", strconv.Itoa(len(x.Keep))+" rules", "at most "+strconv.Itoa(maxKeep))
	}
	for i, k := range x.Keep {
		at := "/Keep/" + strconv.Itoa(i)
		patterns(at+"/TagPatterns", k.TagPatterns)
		if k.Newest < 0 {
			fault(at+"/Newest", strconv.Itoa(k.Newest), "0 or more")
		}
	}
	for i, e := range x.Rules {
		at := "/Rules/" + strconv.Itoa(i)
		r := p.rule(e.Priority)
		if r < 0 {
			fault(at+"/Priority", strconv.FormatInt(e.Priority, 10), "the priority of a rule")
			continue
		}
		for _, before := range x.Rules[:i] {
			if before.Priority == e.Priority {
				fault(at+"/Priority", strconv.FormatInt(e.Priority, 10), "each rule once")
			}
		}
		patterns(at+"/Exclude", e.Exclude)
		if e.KeepNewest < 0 {
			fault(at+"/KeepNewest", strconv.Itoa(e.KeepNewest), "0 or more")
		}
		if e.TagsOnly && (p.rules[r].Action.Type != Expire || p.rules[r].Selection.TagStatus == Untagged) {
			fault(at+"/TagsOnly", "true", "an expire rule for images with tags")
		}
	}
	if len(faults) > 0 {
		return nil, &InvalidError{faults}
	}
	q := *p
	q.ext = x.clone()
	q.compile()
	return &q, nil
}

// Extensions returns what the policy was extended by. It belongs to the caller.
func (p *Policy) Extensions() Extensions { return p.ext.clone() }

func (x Extensions) clone() Extensions {
	x.Keep, x.Rules = slices.Clone(x.Keep), slices.Clone(x.Rules)
	for i := range x.Keep {
		k := &x.Keep[i]
		k.TagPatterns, k.Digests = slices.Clone(k.TagPatterns), slices.Clone(k.Digests)
	}
	for i := range x.Rules {
		x.Rules[i].Exclude = slices.Clone(x.Rules[i].Exclude)
	}
	return x
}

// maxKeep is how many keep rules there may be.
const maxKeep = 200

// rule returns the index of the rule of a priority, or -1.
func (p *Policy) rule(priority int64) int {
	for i := range p.rules {
		if p.rules[i].Priority == priority {
			return i
		}
	}
	return -1
}

// extension returns what p.rules[r] is extended by.
func (p *Policy) extension(r int) RuleExtension {
	for _, e := range p.ext.Rules {
		if e.Priority == p.rules[r].Priority {
			return e
		}
	}
	return RuleExtension{}
}

// fold is strings.ToLower for ASCII, as tags are.
func fold(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			r += 'a' - 'A'
		}
		return r
	}, s)
}
