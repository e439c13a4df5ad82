package manifest

import (
	"time"

	"github.com/opencontainers/go-digest"
)

// Change is a set of writes to one repository, and plain data: what is applied
// is also the event, the audit entry and the dry run. Fields apply in order. A
// manifest or a tag appears once in each.
type Change struct {
	// RequireBlobs must be in the repository when the change commits, else
	// *MissingError. This check and blob.Deleter.Delete never pass each other.
	RequireBlobs []digest.Digest
	// RequireManifests likewise, after Put.
	RequireManifests []digest.Digest
	// Unchanged must be in the repository as they were seen before, when the change
	// commits and before it is made, else ErrNotFound or *ConflictError.
	Unchanged []Seen

	// Put adds manifests, in the class Standard, whose PushedAt and TouchedAt become
	// At. One that is there already is kept as it is, but comes back from the
	// archive, and is touched: its TouchedAt becomes At too, unless both are known
	// and it is later.
	Put []Record
	// Tags moves and removes tags, after Put.
	Tags []TagMove
	// Classes moves manifests to other storage classes.
	Classes []ClassMove
	// Delete removes manifests, each with the tags that still name it. They
	// leave referrers lists at once; what refers to them stays.
	Delete []Removal

	// Known is what somebody saw of manifests that Tags, Classes and Delete name,
	// without Raw. It is for those who read the event: a store keeps it there, and
	// compares nothing with it.
	Known []Record `json:",omitempty"`

	// Cause is what the change was made for. It is for those who read the event, too.
	Cause Cause `json:",omitempty"`

	// Via names the registries that a copy has come through, the one where it was
	// pushed first. Who relays copies sends none to where it has been. It is for those
	// who read the event, as well.
	Via []string `json:",omitempty"`

	// At is recorded as PushedAt, TouchedAt, MovedAt, ArchivedAt and RestoredAt. Zero
	// records "unknown".
	At time.Time
}

// Cause is what a Change was made for. Who replicates goes by it: a copy starts no
// other copy.
type Cause string

// The causes.
const (
	CauseClient      Cause = ""
	CauseReplication Cause = "replication"        // a copy from another registry
	CauseCache       Cause = "pull-through-cache" // an import from upstream
	CauseLifecycle   Cause = "lifecycle"          // a policy
)

// Seen is what somebody saw of a manifest.
type Seen struct {
	Digest digest.Digest
	Tags   []string  // all that name it, in any order
	Since  time.Time // [Record.ClassSince], as the store has told it
}

// TagMove points a tag at a manifest.
type TagMove struct {
	Name string
	// To must be in the repository after Put, else *MissingError. "" removes the
	// tag: a tag that is not there is then ErrNotFound, unless From is Absent. A
	// move to where the tag is already is none: MovedAt stays.
	To digest.Digest
	// From is what the tag must name when the change commits, else
	// *ConflictError: a digest, or [Absent], or "" for anything. It is compared
	// also when the move is none.
	From digest.Digest
}

// Touch returns what Put makes of the TouchedAt of a manifest that is there
// already. It is for stores.
func (c *Change) Touch(was time.Time) time.Time {
	if !c.At.IsZero() && was.After(c.At) {
		return was
	}
	return c.At
}

// Absent as a TagMove's From demands that the tag does not exist.
const Absent digest.Digest = "absent"

// ClassMove moves a manifest to another storage class, or refuses with
// ErrNotFound. A move to where it is already is none: the times stay. One to the
// Archive sets ArchivedAt, one to Standard RestoredAt.
type ClassMove struct {
	Digest digest.Digest
	To     StorageClass
	// IfUnlisted refuses with *ConflictError when a manifest that is not in the
	// archive after Classes, and stays, lists this one as its child.
	IfUnlisted bool
}

// Removal deletes a manifest, under conditions.
type Removal struct {
	Digest digest.Digest
	// IfUntagged refuses with *ConflictError when a tag is left after Tags. It is
	// compared before IfUnlisted.
	IfUntagged bool
	// IfUnlisted refuses with *ConflictError when a manifest that stays lists this one as its
	// child.
	IfUnlisted bool
	// Cutoff refuses with *ConflictError what was touched after it, this change
	// included, or at an unknown time. Zero refuses nothing by age.
	Cutoff time.Time `json:",omitzero"`
	// IfOrphan refuses with *ConflictError when the subject of the manifest is there
	// after Delete.
	IfOrphan bool
}

// TooYoung tells whether Cutoff refuses a manifest by its TouchedAt. It is for
// stores.
func (d *Removal) TooYoung(touched time.Time) bool {
	return !d.Cutoff.IsZero() && (touched.IsZero() || touched.After(d.Cutoff))
}

// Features is a set of abilities that a store needs in order to apply a Change.
type Features uint64

// The features there are. A store that finds others than those it knows in
// [Change.Needs] refuses the change with ErrUnsupported, instead of ignoring a
// field that came after it.
const (
	FeatureRequireBlobs Features = 1 << iota
	FeatureRequireManifests
	FeaturePut
	FeatureTags
	FeatureTagFrom
	FeatureDelete
	FeatureDeleteIf
	FeatureDeleteCutoff
	FeatureUnchanged
	FeatureDeleteOrphan
	FeatureClasses

	// BasicFeatures are what a registry needs of each store. They never grow. The
	// others are for lifecycle policies.
	BasicFeatures = FeatureUnchanged - 1
)

// Needs returns the features that c makes use of.
func (c *Change) Needs() Features {
	var f Features
	set := func(used bool, bit Features) {
		if used {
			f |= bit
		}
	}
	set(len(c.RequireBlobs) > 0, FeatureRequireBlobs)
	set(len(c.RequireManifests) > 0, FeatureRequireManifests)
	set(len(c.Unchanged) > 0, FeatureUnchanged)
	set(len(c.Put) > 0, FeaturePut)
	set(len(c.Tags) > 0, FeatureTags)
	for _, t := range c.Tags {
		set(t.From != "", FeatureTagFrom)
	}
	set(len(c.Classes) > 0, FeatureClasses)
	set(len(c.Delete) > 0, FeatureDelete)
	for _, d := range c.Delete {
		set(d.IfUntagged || d.IfUnlisted, FeatureDeleteIf)
		set(!d.Cutoff.IsZero(), FeatureDeleteCutoff)
		set(d.IfOrphan, FeatureDeleteOrphan)
	}
	return f
}

// Event tells of a Change that was committed.
type Event struct {
	Repo   string
	Change Change
}
