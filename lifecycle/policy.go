package lifecycle

import (
	"bytes"
	"cmp"
	"encoding/json"
	"slices"
	"strings"
	"time"
)

// Policy is a lifecycle policy without fault, and how it is read: only [Parse],
// [New] and the methods of a Policy make one, so what breaks a rule of ECR is
// never evaluated. It does not change, and may be used from many goroutines at
// once. The zero Policy has no rules, and keeps everything.
type Policy struct {
	rules []Rule // by priority
	opts  Options
	ext   Extensions
	match matcher
}

// Rule says what becomes of some images.
type Rule struct {
	Priority    int64     `json:"rulePriority"` // 1 or more; the lowest number is applied first
	Description string    `json:"description,omitempty"`
	Selection   Selection `json:"selection"`
	Action      Action    `json:"action"`
}

// Selection says which images a rule is about, and which of them it acts on.
type Selection struct {
	TagStatus TagStatus `json:"tagStatus"`

	// A rule for tagged images has one of these. An image needs a tag for every
	// entry; one tag may do for several.
	TagPatterns []string `json:"tagPatternList,omitempty"` // whole tags, where * stands for any text
	TagPrefixes []string `json:"tagPrefixList,omitempty"`

	StorageClass StorageClass `json:"storageClass,omitempty"` // "" is Standard
	CountType    CountType    `json:"countType"`
	CountUnit    string       `json:"countUnit,omitempty"` // "days", or "" with ImageCountMoreThan
	CountNumber  int64        `json:"countNumber"`
}

// class returns the storage class of the images that s is about.
func (s *Selection) class() StorageClass { return cmp.Or(s.StorageClass, Standard) }

// Action is what a rule does with an image.
type Action struct {
	Type               ActionType   `json:"type"`
	TargetStorageClass StorageClass `json:"targetStorageClass,omitempty"` // Archive with Transition
}

// TagStatus says whether a rule is about images with tags.
type TagStatus string

// The tag states of a rule.
const (
	Tagged   TagStatus = "tagged"
	Untagged TagStatus = "untagged" // no tag at all
	Any      TagStatus = "any"
)

// CountType says what a rule counts.
type CountType string

// The count types of a rule. Ages are more than so many days: not just as many.
const (
	ImageCountMoreThan     CountType = "imageCountMoreThan"     // all but the newest by push
	SinceImagePushed       CountType = "sinceImagePushed"       // days since the push, or the last restore
	SinceImagePulled       CountType = "sinceImagePulled"       // days since the last pull, else the restore, else the push
	SinceImageTransitioned CountType = "sinceImageTransitioned" // days in the archive
)

// StorageClass is where an image lies.
type StorageClass string

// The storage classes.
const (
	Standard StorageClass = "standard"
	Archive  StorageClass = "archive"
	// Activating is an image on its way back from the archive, which no rule sees
	// until it is there. It stands in no policy.
	Activating StorageClass = "activating"
)

// ActionType is what becomes of an image.
type ActionType string

// The actions.
const (
	Keep       ActionType = "keep"       // the verdict where no rule acts; it stands in no policy
	Expire     ActionType = "expire"     // delete the image with all its tags
	Transition ActionType = "transition" // move the image to the archive
	Untag      ActionType = "untag"      // delete some of its tags; only with [RuleExtension.TagsOnly]
)

// New makes a policy of rules, by the same checks as [Parse]: pointers of its
// error are into {"rules": rules}.
func New(rules ...Rule) (*Policy, error) {
	text, err := encode(document{rules})
	if err != nil {
		return nil, err
	}
	return Parse(string(text))
}

// Rules returns the rules by priority. They belong to the caller.
func (p *Policy) Rules() []Rule {
	out := slices.Clone(p.rules)
	for i := range out {
		s := &out[i].Selection
		s.TagPatterns, s.TagPrefixes = slices.Clone(s.TagPatterns), slices.Clone(s.TagPrefixes)
	}
	return out
}

// String returns the policy as compact JSON in its normal form: rules by
// priority, entries of lists sorted, empty lists left out. Parse reads it back.
// Options and Extensions are no part of it.
func (p *Policy) String() string {
	text, err := p.MarshalJSON()
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// MarshalJSON returns what String does.
func (p *Policy) MarshalJSON() ([]byte, error) {
	rules := p.Rules()
	for i := range rules {
		slices.Sort(rules[i].Selection.TagPatterns)
		slices.Sort(rules[i].Selection.TagPrefixes)
	}
	return encode(document{rules})
}

// UnmarshalJSON is [Parse]. It keeps no options and no extensions.
func (p *Policy) UnmarshalJSON(text []byte) error {
	parsed, err := Parse(string(text))
	if err == nil {
		*p = *parsed
	}
	return err
}

// Equal tells whether two policies are the same as Terraform sees it: the order
// of rules and of the entries of a list says nothing, and an empty list is none.
// It does not look at Options and Extensions.
func (p *Policy) Equal(q *Policy) bool { return p.String() == q.String() }

type document struct {
	Rules []Rule `json:"rules"`
}

// encode leaves <, > and & as they are.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// describe says what r is about, in words.
func (r *Rule) describe() string {
	s := &r.Selection
	var what string
	switch s.TagStatus {
	case Any:
		what = "any image"
	case Untagged:
		what = "untagged images"
	default:
		entries := slices.Clone(s.TagPatterns)
		for _, p := range s.TagPrefixes {
			entries = append(entries, p+"…")
		}
		what = "images tagged " + printable(strings.Join(entries, " and "))
	}
	if s.class() == Archive {
		what += " in the archive"
	}
	return what
}

// limit returns how old an image must be for r to act, in nanoseconds, and
// false if no image can be: a day number that no clock reaches.
func (r *Rule) limit(day time.Duration) (time.Duration, bool) {
	n := r.Selection.CountNumber
	if n > int64(1<<63-1)/int64(day) {
		return 0, false
	}
	return time.Duration(n) * day, true
}
