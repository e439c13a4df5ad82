package manifest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
)

// TagMode says whether a tag that is there may be moved. The names are ECR's.
type TagMode string

// The modes. With the last two, the tags that a filter matches are the exception.
const (
	Mutable                TagMode = "MUTABLE" // and so is ""
	Immutable              TagMode = "IMMUTABLE"
	ImmutableWithExclusion TagMode = "IMMUTABLE_WITH_EXCLUSION"
	MutableWithExclusion   TagMode = "MUTABLE_WITH_EXCLUSION"
)

// Limits of exclusion filters.
const (
	MaxTagFilters   = 5   // in a TagMutability
	MaxTagFilterLen = 128 // characters
	MaxTagWildcards = 2   // in a filter
)

// TagMutability is the setting of a repository that says which of its tags may
// be moved. The zero value lets all. As JSON it is ECR's imageTagMutability
// with imageTagMutabilityExclusionFilters.
//
//	p := manifest.Pusher{Store: s, MoveTag: m.MoveTag}
//	d := manifest.Deleter{Store: s, KeepTag: m.KeepTag} // protects from deletion too, as ECR does not
//
// It may change at any time; tags that are there are judged by the new one.
type TagMutability struct {
	Mode TagMode
	// Filters are 1 to MaxTagFilters tags, with * for any number of characters, if
	// Mode has an exclusion, else none. A filter matches the whole of a tag, and
	// tells upper from lower case.
	Filters []string
}

// Check says what is wrong with m, as *InvalidError.
func (m TagMutability) Check() error {
	const at = "/imageTagMutabilityExclusionFilters"
	var faults []FieldError
	fault := func(pointer string, rule Rule, value, detail string) {
		faults = append(faults, FieldError{pointer, rule, value, detail})
	}
	switch m.Mode {
	case "", Mutable, Immutable:
		if len(m.Filters) > 0 {
			fault(at, RuleExclusion, strconv.Itoa(len(m.Filters)), "is for modes with an exclusion only")
		}
	case ImmutableWithExclusion, MutableWithExclusion:
		switch n := len(m.Filters); {
		case n == 0:
			fault(at, RuleRequired, "", "is to have 1 to 5 filters")
		case n > MaxTagFilters:
			fault(at, RuleTooMany, strconv.Itoa(n), "is to have 1 to 5 filters")
		}
	default:
		fault("/imageTagMutability", RuleTagMode, shorten(string(m.Mode)), "is to be MUTABLE, IMMUTABLE, IMMUTABLE_WITH_EXCLUSION or MUTABLE_WITH_EXCLUSION")
	}
	for i, f := range m.Filters {
		if len(faults) == MaxFieldErrors {
			break
		}
		if rule, detail := checkTagFilter(f); rule != "" {
			fault(at+"/"+strconv.Itoa(i)+"/filter", rule, shorten(f), detail)
		}
	}
	if faults != nil {
		return &InvalidError{faults}
	}
	return nil
}

// checkTagFilter returns the rule that a filter breaks.
func checkTagFilter(f string) (rule Rule, detail string) {
	switch {
	case f == "":
		return RuleRequired, "is to have 1 to 128 characters"
	case len(f) > MaxTagFilterLen:
		return RuleTooLong, "is to have 1 to 128 characters"
	}
	for i := range len(f) {
		switch c := f[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '_', c == '-', c == '*':
		default:
			return RuleTagFilter, "takes letters, digits, . _ - and *"
		}
	}
	if strings.Count(f, "*") > MaxTagWildcards {
		return RuleWildcards, "is to have at most 2 *"
	}
	return "", ""
}

// Immutable tells whether tag may not be moved once it is there.
func (m TagMutability) Immutable(tag string) bool {
	switch m.Mode {
	case Immutable:
		return true
	case ImmutableWithExclusion:
		return !m.excludes(tag)
	case MutableWithExclusion:
		return m.excludes(tag)
	}
	return false
}

func (m TagMutability) excludes(tag string) bool {
	for _, f := range m.Filters {
		if matchTag(f, tag) {
			return true
		}
	}
	return false
}

// matchTag compares a filter with the whole of a tag. The leftmost place for each
// part is as good as any.
func matchTag(filter, tag string) bool {
	part, rest, open := strings.Cut(filter, "*")
	if !open {
		return tag == filter
	}
	tag, ok := strings.CutPrefix(tag, part)
	for ok {
		if part, rest, open = strings.Cut(rest, "*"); !open {
			return strings.HasSuffix(tag, part)
		}
		_, tag, ok = strings.Cut(tag, part)
	}
	return false
}

// MoveTag is a [Pusher].MoveTag: it refuses to move an immutable tag, with
// *TagImmutableError.
func (m TagMutability) MoveTag(_ context.Context, repo, tag string, from, _ digest.Digest) error {
	if from == Absent || !m.Immutable(tag) {
		return nil
	}
	return &TagImmutableError{Repo: repo, Tag: tag, Digest: from}
}

// KeepTag is a [Deleter].KeepTag: it refuses to delete an immutable tag, and so
// the manifest that has it, with *TagImmutableError.
func (m TagMutability) KeepTag(_ context.Context, repo, tag string, dgst digest.Digest) error {
	if !m.Immutable(tag) {
		return nil
	}
	return &TagImmutableError{Repo: repo, Tag: tag, Digest: dgst, Deletion: true}
}

// ErrTagImmutable is what a *TagImmutableError unwraps to.
var ErrTagImmutable = errors.New("tag is immutable")

// TagImmutableError is a tag that stays where it is.
type TagImmutableError struct {
	Repo, Tag string
	Digest    digest.Digest // what it names
	Deletion  bool          // it was to go, not to move
}

func (e *TagImmutableError) Error() string {
	verb := "overwritten"
	if e.Deletion {
		verb = "deleted"
	}
	return fmt.Sprintf("the tag %s exists in the repository %s and cannot be %s because it is immutable", e.Tag, e.Repo, verb)
}

func (e *TagImmutableError) Unwrap() error { return ErrTagImmutable }

// tagMutabilityJSON is the form that ECR has for a [TagMutability].
type tagMutabilityJSON struct {
	Mode    TagMode         `json:"imageTagMutability,omitempty"`
	Filters []tagFilterJSON `json:"imageTagMutabilityExclusionFilters,omitempty"`
}

type tagFilterJSON struct {
	Type   string `json:"filterType"`
	Filter string `json:"filter"`
}

const tagFilterType = "WILDCARD"

// MarshalJSON implements json.Marshaler.
func (m TagMutability) MarshalJSON() ([]byte, error) {
	out := tagMutabilityJSON{Mode: m.Mode}
	if out.Mode == "" {
		out.Mode = Mutable
	}
	for _, f := range m.Filters {
		out.Filters = append(out.Filters, tagFilterJSON{tagFilterType, f})
	}
	return json.Marshal(out)
}

// UnmarshalJSON implements json.Unmarshaler. It refuses what Check does.
func (m *TagMutability) UnmarshalJSON(text []byte) error {
	var in tagMutabilityJSON
	if err := json.Unmarshal(text, &in); err != nil {
		return err
	}
	out := TagMutability{Mode: in.Mode}
	for i, f := range in.Filters {
		rule := RuleTagFilter
		if f.Type == "" {
			rule = RuleRequired
		}
		if f.Type != tagFilterType {
			return &InvalidError{[]FieldError{{fmt.Sprintf("/imageTagMutabilityExclusionFilters/%d/filterType", i), rule, shorten(f.Type), "is to be WILDCARD"}}}
		}
		out.Filters = append(out.Filters, f.Filter)
	}
	if err := out.Check(); err != nil {
		return err
	}
	*m = out
	return nil
}
