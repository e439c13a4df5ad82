package manifest

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// The sentinels of this package. The package comment says when each is
// returned.
var (
	ErrNotFound    = errors.New("manifest or tag not found")
	ErrInvalid     = errors.New("invalid manifest")
	ErrMissing     = errors.New("content that the manifest needs is missing")
	ErrConflict    = errors.New("conflict")
	ErrDigest      = errors.New("manifest does not have the digest")
	ErrTooLarge    = errors.New("manifest too large")
	ErrName        = errors.New("invalid name")
	ErrRefused     = errors.New("refused")
	ErrUnchanged   = errors.New("there already, and nothing to change")
	ErrUnsupported = fmt.Errorf("manifest: %w", errors.ErrUnsupported)
)

// IsNotFound tells whether err says that a manifest or tag is not there.
func IsNotFound(err error) bool { return errors.Is(err, ErrNotFound) }

// Error says which operation failed on what. It unwraps to the cause.
type Error struct {
	Op     string // "get", "resolve", "push", "apply" …
	Repo   string
	Object string // a digest or a tag, "" for the repository as a whole
	Err    error
}

func (e *Error) Error() string {
	if e.Object == "" {
		return fmt.Sprintf("%s %s: %v", e.Op, e.Repo, e.Err)
	}
	return fmt.Sprintf("%s %s in %s: %v", e.Op, e.Object, e.Repo, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

// MissingError lists all that a change requires, or would point a tag at, and
// the repository does not have: blobs and manifests together. It unwraps to
// [ErrMissing].
type MissingError struct {
	Blobs     []digest.Digest
	Manifests []digest.Digest
}

func (e *MissingError) Error() string {
	var parts []string
	say := func(what string, missing []digest.Digest) {
		const most = 3
		for i, d := range missing {
			if i == most {
				parts = append(parts, fmt.Sprintf("and %d more", len(missing)-most))
				break
			}
			parts = append(parts, what+" "+string(d))
		}
	}
	say("blob", e.Blobs)
	say("manifest", e.Manifests)
	return "not in the repository: " + strings.Join(parts, ", ")
}

func (e *MissingError) Unwrap() error { return ErrMissing }

// ConflictError is a condition of a [Change] that does not hold. It unwraps to
// [ErrConflict].
type ConflictError struct {
	Tag       string        // the tag that was to move or to stay, or that names Digest and was not to
	Digest    digest.Digest // the manifest that was to go, to move, or to be unchanged
	Want      digest.Digest // what Tag was to name: TagMove.From, Seen.Digest
	Have      digest.Digest // what Tag names instead, or Absent
	Parent    digest.Digest // a manifest that lists Digest
	Subject   digest.Digest // of Digest, which is there
	Since     time.Time     // since when Digest is in its class, if that is what has changed
	TouchedAt time.Time     // of Digest, if that is what keeps it; zero means unknown
}

func (e *ConflictError) Error() string {
	switch {
	case e.Parent != "":
		return fmt.Sprintf("manifest %s is listed by %s", e.Digest, e.Parent)
	case e.Subject != "":
		return fmt.Sprintf("manifest %s has its subject %s", e.Digest, e.Subject)
	case e.Digest != "" && e.Tag == "" && !e.Since.IsZero():
		return fmt.Sprintf("manifest %s is not as it was: it is in its storage class since %v", e.Digest, e.Since)
	case e.Digest != "" && e.Tag == "":
		return fmt.Sprintf("manifest %s was touched at %v", e.Digest, e.TouchedAt)
	case e.Digest != "":
		return fmt.Sprintf("manifest %s has the tag %s", e.Digest, e.Tag)
	}
	return fmt.Sprintf("tag %s is at %s, not at %s", e.Tag, e.Have, e.Want)
}

func (e *ConflictError) Unwrap() error { return ErrConflict }

// FieldError is one fault of a document, or one thing that it should not do.
type FieldError struct {
	Pointer string // where, as a JSON Pointer (RFC 6901); "" is the document
	Rule    Rule   // which rule it breaks
	Value   string // what stands there, shortened; "" if nothing does
	Detail  string // what would be right
}

func (e FieldError) String() string {
	var b strings.Builder
	if e.Pointer == "" {
		b.WriteString("document")
	} else {
		b.WriteString(e.Pointer)
	}
	b.WriteString(": ")
	b.WriteString(e.Detail)
	if e.Value != "" {
		b.WriteString(" (is ")
		b.WriteString(e.Value)
		b.WriteString(")")
	}
	return b.String()
}

// InvalidError lists what is wrong with a document, in the order of the
// document; after [MaxFieldErrors] it stops. It unwraps to [ErrInvalid].
type InvalidError struct{ Fields []FieldError }

// MaxFieldErrors is how many faults of one document are listed.
const MaxFieldErrors = 20

func (e *InvalidError) Error() string {
	parts := make([]string, len(e.Fields))
	for i, f := range e.Fields {
		parts[i] = f.String()
	}
	return strings.Join(parts, "; ")
}

func (e *InvalidError) Unwrap() error { return ErrInvalid }

// Rule names what a [FieldError] is about; tests and programs match it, not
// the text.
type Rule string

// Rules that refuse a document.
const (
	RuleSyntax        Rule = "json-syntax"         // RFC 8259, one value, an object
	RuleUTF8          Rule = "json-utf8"           // RFC 7493 2.1
	RuleDuplicateName Rule = "json-duplicate-name" // RFC 7493 2.3
	RuleDepth         Rule = "json-depth"          // at most 128
	RuleType          Rule = "type"                // a member of the wrong JSON type
	RuleRequired      Rule = "required"            // a member that must be there
	RuleSchemaVersion Rule = "schema-version"      // 2, or 1 for schema 1
	RuleMediaType     Rule = "media-type"          // RFC 6838 4.2
	RuleMismatch      Rule = "media-type-mismatch" // Content-Type and mediaType
	RuleUnsupported   Rule = "media-type-accepted" // not one that a push takes
	RuleAmbiguous     Rule = "ambiguous"           // members of two kinds of manifest (CVE-2021-41190)
	RuleDigest        Rule = "digest"              // descriptor.md, "Digests"
	RuleSize          Rule = "size"                // an integer, not negative, the content's own
	RuleURL           Rule = "url"                 // RFC 3986
	RuleData          Rule = "data"                // RFC 4648 section 4, the content itself
	RuleArtifactType  Rule = "artifact-type"       // RFC 6838 4.2
	RuleTooLong       Rule = "too-long"            // a type of more than 127 characters on a side, or 255 in all; a tag filter of more than 128
)

// Rules that refuse a [TagMutability].
const (
	RuleTagMode   Rule = "tag-mode"             // none of the four
	RuleExclusion Rule = "tag-exclusion"        // filters, in a mode without an exclusion
	RuleTooMany   Rule = "too-many"             // more than 5 filters
	RuleTagFilter Rule = "tag-filter"           // not of the form of a filter
	RuleWildcards Rule = "tag-filter-wildcards" // more than 2 in a filter
)

// Rules that only warn, unless a Pusher is Strict.
const (
	RuleCase          Rule = "case"                   // a name that differs from a known one in case alone
	RuleParameter     Rule = "media-type-parameter"   // a type with a parameter
	RuleNull          Rule = "null"                   // null for a member that should be left out
	RuleEmptyConfig   Rule = "artifact-type-required" // empty config without artifactType (image-spec manifest.md)
	RulePlatform      Rule = "platform"               // a platform without os or architecture
	RuleEmptyArtifact Rule = "artifact-type-empty"    // "" for artifactType
)

func tooLarge(size, limit int) error {
	return fmt.Errorf("%w: %d bytes, the limit is %d", ErrTooLarge, size, limit)
}
