package scan

import (
	"fmt"
	"slices"
	"strings"
)

// Type is the kind of scanning of a registry, in the words of ECR's API.
type Type string

// The types there are.
const (
	Basic    Type = "BASIC"    // on push and by hand
	Enhanced Type = "ENHANCED" // on push and continuously
)

// Frequency is when the images of a repository are scanned, in the words of
// ECR's API.
type Frequency string

// The frequencies there are.
const (
	Off        Frequency = "" // never
	Manual     Frequency = "MANUAL"
	OnPush     Frequency = "SCAN_ON_PUSH"
	Continuous Frequency = "CONTINUOUS_SCAN" // on push, and again and again
)

// Configuration says what is scanned when, in the form of ECR's
// PutRegistryScanningConfiguration. The zero Configuration is Basic without
// rules: by hand only.
type Configuration struct {
	Type  Type   `json:"scanType,omitempty"` // "" is Basic
	Rules []Rule `json:"rules"`
}

// Rule sets a frequency for the repositories that one of its filters matches.
type Rule struct {
	Frequency Frequency `json:"scanFrequency"`
	Filters   []Filter  `json:"repositoryFilters"` // none match no repository
}

// Filter selects repositories.
type Filter struct {
	Filter string `json:"filter"`     // without a "*" any part of the name; with one all of it, where each "*" is any text, slashes too
	Type   string `json:"filterType"` // WILDCARD
}

// The limits of a configuration (ECR API model).
const (
	MaxRules        = 2
	MaxFilters      = 100 // of a rule
	MaxFilterLength = 255
)

// FilterWildcard is the type of all filters.
const FilterWildcard = "WILDCARD"

// ConfigError is what is wrong with a Configuration. It unwraps to [ErrInvalid].
type ConfigError struct {
	Pointer string // where, as a JSON Pointer (RFC 6901)
	Detail  string // what would be right
}

func (e *ConfigError) Error() string {
	return fmt.Sprintf("%v: %s: %s", ErrInvalid, e.Pointer, e.Detail)
}
func (e *ConfigError) Unwrap() error { return ErrInvalid }

// Check says what is wrong with a configuration that is to be used, as a
// *[ConfigError].
func (c *Configuration) Check() error {
	if c.Type != "" && c.Type != Basic && c.Type != Enhanced {
		return &ConfigError{"/scanType", "takes BASIC and ENHANCED"}
	}
	if len(c.Rules) > MaxRules {
		return &ConfigError{"/rules", fmt.Sprintf("takes at most %d, has %d", MaxRules, len(c.Rules))}
	}
	for i, r := range c.Rules {
		at := fmt.Sprintf("/rules/%d", i)
		allowed := []Frequency{OnPush, Manual}
		if c.Type == Enhanced {
			allowed[1] = Continuous
		}
		if !slices.Contains(allowed, r.Frequency) {
			return &ConfigError{at + "/scanFrequency", fmt.Sprintf("takes %s and %s with this scanType", allowed[0], allowed[1])}
		}
		if len(r.Filters) > MaxFilters {
			return &ConfigError{at + "/repositoryFilters", fmt.Sprintf("takes at most %d, has %d", MaxFilters, len(r.Filters))}
		}
		for j, f := range r.Filters {
			if f.Type != FilterWildcard {
				return &ConfigError{fmt.Sprintf("%s/repositoryFilters/%d/filterType", at, j), "takes " + FilterWildcard}
			}
			if !validFilter(f.Filter) {
				return &ConfigError{fmt.Sprintf("%s/repositoryFilters/%d/filter", at, j), fmt.Sprintf("takes 1 to %d characters: lower case letters, digits and *, with single . _ - / between them", MaxFilterLength)}
			}
		}
	}
	return nil
}

// validFilter is `^[a-z0-9*](?:[._\-/a-z0-9*]?[a-z0-9*]+)*$` of ECR's model.
func validFilter(s string) bool {
	if s == "" || len(s) > MaxFilterLength {
		return false
	}
	was := false // whether the last character was a letter, digit or star
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '*':
			was = true
		case was && strings.IndexByte("._-/", c) >= 0:
			was = false
		default:
			return false
		}
	}
	return was
}

// Frequency returns when images of a repository are scanned, and the filters
// that say so. Continuous comes before OnPush, that before Manual; a
// repository that nothing matches is Manual under Basic and Off under Enhanced.
func (c *Configuration) Frequency(repo string) (f Frequency, applied []Filter) {
	f = Manual
	if c.Type == Enhanced {
		f = Off
	}
	order := []Frequency{Off, Manual, OnPush, Continuous}
	for _, r := range c.Rules {
		for _, filter := range r.Filters {
			if !filter.Match(repo) {
				continue
			}
			switch better := slices.Index(order, r.Frequency) - slices.Index(order, f); {
			case better > 0:
				f, applied = r.Frequency, []Filter{filter}
			case better == 0:
				applied = append(applied, filter)
			}
		}
	}
	return f, applied
}

// Match tells whether the filter covers a repository, in a time that is linear
// in its name.
func (f Filter) Match(repo string) bool {
	first, rest, star := strings.Cut(f.Filter, "*")
	if !star {
		return strings.Contains(repo, f.Filter)
	}
	repo, ok := strings.CutPrefix(repo, first)
	for ok {
		var part string
		if part, rest, star = strings.Cut(rest, "*"); !star {
			return strings.HasSuffix(repo, part)
		}
		// The leftmost place is as good as any.
		_, repo, ok = strings.Cut(repo, part)
	}
	return false
}
