package lifecycle

// Reason names why a [Verdict] is as it is. Programs match it, not the text.
type Reason string

// Reasons to act.
const (
	ReasonDue         Reason = "due"          // beyond the number, or older than the age, of its rule
	ReasonSubjectGoes Reason = "subject-goes" // its subject goes, or is or was archived
	ReasonSubjectGone Reason = "subject-gone" // its subject is not there
	ReasonIndexGoes   Reason = "index-goes"   // all indexes that list it do ([Extensions.Units])
)

// Reasons to keep.
const (
	ReasonNoRule       Reason = "no-rule"       // no rule is about it
	ReasonWithinCount  Reason = "within-count"  // among the newest that its rule keeps
	ReasonYoung        Reason = "young"         // not older than its rule says
	ReasonTimeUnknown  Reason = "time-unknown"  // a time that the decision needs is not known
	ReasonPullsUnknown Reason = "pulls-unknown" // it may have been pulled before pulls were recorded
	ReasonListed       Reason = "listed"        // an index that lists it must go first
	ReasonSubjectStays Reason = "subject-stays" // its subject does
	ReasonGrace        Reason = "grace"         // a referrer not long enough in its storage class
	ReasonCircle       Reason = "circle"        // it refers to itself, by way of others
	ReasonClass        Reason = "storage-class" // it is on its way back from the archive, or of an unknown class
)

// Reasons to keep that only [Extensions] give.
const (
	ReasonKeepRule   Reason = "keep-rule"   // a keep rule names it
	ReasonInUse      Reason = "in-use"      // somebody uses it
	ReasonKeepNewest Reason = "keep-newest" // old, but among the newest that its rule spares
	ReasonIndexStays Reason = "index-stays" // an index that lists it does
)

// reason is a Reason in a byte.
type reason uint8

const (
	reasonNoRule reason = iota
	reasonDue
	reasonSubjectGoes
	reasonSubjectGone
	reasonUnitGoes
	reasonCount
	reasonYoung
	reasonUnknown
	reasonPullsUnknown
	reasonListed
	reasonFollowerListed
	reasonSubjectStays
	reasonGrace
	reasonCircle
	reasonClass
	reasonKeepRule
	reasonInUse
	reasonNewest
	reasonUnitStays
	reasonHeld
)

var reasons = [...]Reason{
	reasonNoRule:         ReasonNoRule,
	reasonDue:            ReasonDue,
	reasonSubjectGoes:    ReasonSubjectGoes,
	reasonSubjectGone:    ReasonSubjectGone,
	reasonUnitGoes:       ReasonIndexGoes,
	reasonCount:          ReasonWithinCount,
	reasonYoung:          ReasonYoung,
	reasonUnknown:        ReasonTimeUnknown,
	reasonPullsUnknown:   ReasonPullsUnknown,
	reasonListed:         ReasonListed,
	reasonFollowerListed: ReasonListed,
	reasonSubjectStays:   ReasonSubjectStays,
	reasonGrace:          ReasonGrace,
	reasonCircle:         ReasonCircle,
	reasonClass:          ReasonClass,
	reasonKeepRule:       ReasonKeepRule,
	reasonInUse:          ReasonInUse,
	reasonNewest:         ReasonKeepNewest,
	reasonUnitStays:      ReasonIndexStays,
	reasonHeld:           ReasonSubjectStays,
}
