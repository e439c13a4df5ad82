package lifecycle

import (
	"errors"
	"fmt"
	"strings"
)

// ErrInvalid is a policy that ECR would refuse, or an option that makes no
// sense.
var ErrInvalid = errors.New("invalid lifecycle policy")

// InvalidError lists all that is wrong with a policy. It unwraps to
// [ErrInvalid].
type InvalidError struct{ Fields []FieldError }

func (e *InvalidError) Error() string {
	parts := make([]string, len(e.Fields))
	for i, f := range e.Fields {
		parts[i] = f.String()
	}
	return ErrInvalid.Error() + ": " + strings.Join(parts, "; ")
}

func (e *InvalidError) Unwrap() error { return ErrInvalid }

// FieldError is one fault of a policy.
type FieldError struct {
	Pointer  string   // where, as a JSON Pointer (RFC 6901); "" is the document
	Category Category // what kind of fault
	Value    string   // what stands there, as JSON, shortened; "" if nothing does
	Allowed  string   // what may stand there
}

func (e FieldError) String() string {
	place := printable(e.Pointer)
	if place == "" {
		place = "document"
	}
	switch {
	case e.Category == CategoryUnknownProperty: // its value says nothing
		return fmt.Sprintf("%s: %s: allowed is: %s", place, e.Category, e.Allowed)
	case e.Value == "":
		return fmt.Sprintf("%s: %s: %s", place, e.Category, e.Allowed)
	}
	return fmt.Sprintf("%s: %s: is %s, allowed is: %s", place, e.Category, printable(e.Value), e.Allowed)
}

// Category names a kind of fault. Programs match it, not the text.
type Category string

// Faults of the text and its structure.
const (
	CategoryParse           Category = "parse"            // not one JSON value in strict form, or no object
	CategoryType            Category = "type"             // the wrong JSON type, null included
	CategoryMissingProperty Category = "missing_property" // a member that must be there
	CategoryUnknownProperty Category = "unknown_property" // a member that ECR does not know; names are case-sensitive
	CategoryLength          Category = "length"           // more than MaxLength characters
	CategoryRulesCount      Category = "rules_count"      // not 1 to MaxRules rules
)

// Faults of one rule.
const (
	CategoryRulePriority         Category = "rule_priority"          // below 1
	CategoryTagStatus            Category = "tag_status"             // not tagged, untagged, any
	CategoryTagListRequired      Category = "tag_list_required"      // tagged without entries
	CategoryTagListConflict      Category = "tag_list_conflict"      // patterns and prefixes
	CategoryTagListNotAllowed    Category = "tag_list_not_allowed"   // entries with untagged or any
	CategoryTagEntry             Category = "tag_entry"              // an empty entry, or one longer than any tag
	CategoryWildcards            Category = "wildcards"              // more than MaxWildcards in a pattern
	CategoryCountType            Category = "count_type"             // an unknown count type
	CategoryCountNumber          Category = "count_number"           // below 1
	CategoryCountUnit            Category = "count_unit"             // not days
	CategoryCountUnitRequired    Category = "count_unit_required"    // an age without a unit
	CategoryCountUnitNotAllowed  Category = "count_unit_not_allowed" // a count with a unit
	CategoryStorageClass         Category = "storage_class"          // an unknown class, or not with this count type
	CategoryStorageClassRequired Category = "storage_class_required" // sinceImageTransitioned without archive
	CategoryArchiveMinimum       Category = "archive_minimum"        // less than MinArchiveDays in the archive
	CategoryActionType           Category = "action_type"            // not expire, transition
	CategoryActionCountType      Category = "action_count_type"      // an action that the count type does not go with
	CategoryTargetStorageClass   Category = "target_storage_class"   // not archive with transition, or anything with expire
)

// Faults between rules. All but the first are within one storage class.
const (
	CategoryDuplicatePriority Category = "duplicate_priority" // a priority given twice
	CategoryAnyNotLast        Category = "any_not_last"       // the any rule has not the highest number
	CategoryMultipleAny       Category = "multiple_any"       // two rules for any image
	CategoryMultipleUntagged  Category = "multiple_untagged"  // two rules for untagged images
	CategoryDuplicatePrefixes Category = "duplicate_prefixes" // the same set of prefixes in two rules
)

// Faults of [Options] and [Extensions].
const (
	CategoryOption    Category = "option"    // a value out of range
	CategoryExtension Category = "extension" // a value out of range, or a rule that is not there
)
