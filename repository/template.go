package repository

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Cause is what makes a repository, in the words of ECR's API.
type Cause string

// The causes there are.
const (
	CauseReplication Cause = "REPLICATION"
	CauseCache       Cause = "PULL_THROUGH_CACHE"
	CausePush        Cause = "CREATE_ON_PUSH"
)

// Root is the prefix of a template for all repositories that no other covers.
const Root = "ROOT"

// Template is what is set for repositories that come to be by themselves, under
// the names of ECR's API. It has no effect on those that are there.
type Template struct {
	Prefix      string  `json:"prefix"` // whole components of a name, with or without a slash at the end; or Root
	AppliedFor  []Cause `json:"appliedFor"`
	Description string  `json:"description,omitempty"`
	Settings
}

// Check says what is wrong with a template, as an *[InvalidError].
func (t *Template) Check() error {
	// A prefix has the same length limits as a name, and may end in a slash.
	if t.Prefix != Root {
		if err := (Names{Max: ECRNames.Max}).Check(strings.TrimSuffix(t.Prefix, "/")); err != nil {
			return &InvalidError{"prefix", "is to be the beginning of a name, or " + Root, err}
		}
	}
	if len(t.AppliedFor) == 0 {
		return &InvalidError{Field: "appliedFor", Detail: "is missing"}
	}
	for i, c := range t.AppliedFor {
		switch {
		case c != CauseReplication && c != CauseCache && c != CausePush:
			return &InvalidError{Field: "appliedFor", Detail: fmt.Sprintf("takes %s, %s and %s, not %q", CauseReplication, CauseCache, CausePush, c)}
		case slices.Contains(t.AppliedFor[:i], c):
			return &InvalidError{Field: "appliedFor", Detail: fmt.Sprintf("has %s twice", c)}
		}
	}
	if n := utf8.RuneCountInString(t.Description); n > MaxDescription {
		return &InvalidError{Field: "description", Detail: fmt.Sprintf("takes at most %d characters, has %d", MaxDescription, n)}
	}
	return t.Settings.Check()
}

// CheckTemplates says what is wrong with templates that are to be used
// together: each by itself, and that no two have the same prefix.
func CheckTemplates(templates []Template) error {
	for i := range templates {
		if err := templates[i].Check(); err != nil {
			return fmt.Errorf("template %d: %w", i, err)
		}
		key := strings.TrimSuffix(templates[i].Prefix, "/")
		if slices.ContainsFunc(templates[:i], func(t Template) bool { return strings.TrimSuffix(t.Prefix, "/") == key }) {
			return fmt.Errorf("template %d: %w", i, &InvalidError{Field: "prefix", Detail: fmt.Sprintf("%q has a template already", key)})
		}
	}
	return nil
}

// covers tells how many bytes of name the prefix takes, with the slash that
// always follows it; -1 if it does not cover name.
func (t *Template) covers(name string) int {
	if t.Prefix == Root {
		return 0
	}
	prefix := strings.TrimSuffix(t.Prefix, "/")
	if len(name) > len(prefix)+1 && name[len(prefix)] == '/' && strings.HasPrefix(name, prefix) {
		return len(prefix) + 1
	}
	return -1
}

// ForCreation returns the template for a repository that is to be made for a
// cause, nil if it is made with the defaults, and whether it is made at all.
//
// Of the templates for that cause the one with the longest prefix wins, Root
// after all others; one for other causes is no obstacle. Without any, a push
// makes no repository; a replication and a cache do.
func ForCreation(templates []Template, name string, c Cause) (t *Template, create bool) {
	best := -1
	for i := range templates {
		if n := templates[i].covers(name); n > best && slices.Contains(templates[i].AppliedFor, c) {
			t, best = &templates[i], n
		}
	}
	return t, t != nil || c != CausePush
}
