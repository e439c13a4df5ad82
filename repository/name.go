package repository

import (
	"fmt"
	"strings"

	"github.com/wharfage/wharfage/manifest"
)

// Names is a grammar of repository names: that of the specification, which is
// also ECR's since February 2026, with bounds on the length. The zero Names are
// the specification's: 1 to [manifest.MaxRepositoryLen] characters.
type Names struct {
	Min, Max int // characters, without the registry's host; 0 means the default
}

// ECRNames are as long as ECR takes them: 2 to 256 characters. wharfage.Handler
// serves no name above 255, since clients send none.
var ECRNames = Names{Min: 2, Max: 256}

// NameFault says what is wrong with a name.
type NameFault string

// The faults of names. Of several, the first in this order is told.
const (
	NameTooShort         NameFault = "too_short"
	NameTooLong          NameFault = "too_long"
	NameInvalidChars     NameFault = "invalid_chars"     // anything but a-z 0-9 . _ - /
	NameEmptyComponent   NameFault = "empty_component"   // a slash at an end, or two in a row
	NameInvalidSeparator NameFault = "invalid_separator" // a component that does not begin and end with a letter or digit, or joins with other than one of . _ __ or dashes
)

// NameError is a string that is no repository name. It unwraps to
// [manifest.ErrName].
type NameError struct {
	Name  string
	Fault NameFault
	At    int // the byte of Name where the fault is; its length for one of length
}

func (e *NameError) Error() string {
	const most = 64
	name := e.Name
	if len(name) > most {
		name = strings.ToValidUTF8(name[:most], "") + "…"
	}
	return fmt.Sprintf("repository %q: %v: %s at byte %d%s", name, manifest.ErrName, strings.ReplaceAll(string(e.Fault), "_", " "), e.At, nameHints[e.Fault])
}

var nameHints = map[NameFault]string{
	NameInvalidChars:     ": lower case letters, digits and . _ - / are allowed",
	NameEmptyComponent:   ": a slash stands between two components",
	NameInvalidSeparator: ": one of . _ __ or dashes stands between letters or digits",
}

func (e *NameError) Unwrap() error { return manifest.ErrName }

// Check says why s is no name, as a *[NameError].
func (n Names) Check(s string) error {
	if n.Min == 0 {
		n.Min = 1
	}
	if n.Max == 0 {
		n.Max = manifest.MaxRepositoryLen
	}
	fault, at := n.fault(s)
	if fault == "" {
		return nil
	}
	return &NameError{s, fault, at}
}

func (n Names) fault(s string) (NameFault, int) {
	switch {
	case len(s) < n.Min:
		return NameTooShort, len(s)
	case len(s) > n.Max:
		return NameTooLong, len(s)
	}
	for i := range len(s) {
		if c := s[i]; !alnum(c) && c != '.' && c != '_' && c != '-' && c != '/' {
			return NameInvalidChars, i
		}
	}
	at := 0
	for component := range strings.SplitSeq(s, "/") {
		if component == "" {
			return NameEmptyComponent, at
		}
		at += len(component) + 1
	}
	for i := 0; i < len(s); i++ {
		if alnum(s[i]) {
			continue
		}
		from := i
		for i < len(s) && !alnum(s[i]) {
			i++
		}
		sep := s[from:i]
		joins := sep == "." || sep == "_" || sep == "__" || sep == "/" || strings.Trim(sep, "-") == ""
		if from == 0 || i == len(s) || !joins {
			return NameInvalidSeparator, from
		}
	}
	return "", 0
}

func alnum(c byte) bool { return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' }
