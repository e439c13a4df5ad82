package replication

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
)

// SyncOptions say what a Sync brings up to date. The zero value copies each tag of each
// repository, under the same names.
type SyncOptions struct {
	// CopyOptions are those of each image. Tags has no meaning here. Referrers are looked
	// for with each tag, also if it has not changed.
	CopyOptions

	// Repositories of the source. One that Include names exactly is looked at in any
	// case; for others the source must be a [manifest.Catalog], which lists those
	// that hold something.
	Repositories Names
	// Rename returns the name at the target; nil keeps it. It must return different names for
	// different ones.
	Rename func(repo string) string

	Tags          Names
	ArtifactTypes []string // of the images that tags name, as [manifest.Manifest] has it; none means all

	// Untagged copies manifests without a tag too, those with a subject only if Referrers is
	// not 0. Both sides must list manifests, and all tags are to be chosen.
	Untagged bool

	Delete SyncDelete

	// OnChange is told, one at a time, what became of tags, and of images that were deleted;
	// with DryRun what would. It must not call the Copier.
	OnChange func(SyncChange)
}

// SyncChange is what a Sync has done to one tag or image of the target.
type SyncChange struct {
	Kind ChangeKind    `json:"kind"`
	Repo string        `json:"repository"`
	Ref  string        `json:"ref"`            // a tag, or the digest of an image that was deleted by it
	From digest.Digest `json:"from,omitempty"` // "" is nothing, or what was not looked at
	To   digest.Digest `json:"to,omitempty"`   // "" is nothing
}

// ChangeKind is what has happened to a tag.
type ChangeKind string

// The kinds.
const (
	TagCreated ChangeKind = "created"
	TagMoved   ChangeKind = "moved"
	TagKept    ChangeKind = "kept" // immutable: it is From, not To
	TagDeleted ChangeKind = "deleted"
)

// SyncDelete says what a Sync deletes: nothing, unless asked for. It does so at its end, if
// nothing has failed.
type SyncDelete struct {
	Tags bool // those chosen that the source does not have
	// Images are manifests that the source does not have, with their tags. Both
	// sides must list manifests, and all tags are to be chosen.
	Images bool
	// Max is how many tags and images may go, zero means 100, and MaxShare which part
	// of those that were looked at, zero means 0.5. Else *[DeleteLimitError], and
	// none goes.
	Max      int
	MaxShare float64
}

// Names chooses names: those that fit one of Include, or any if that is empty, and
// none of Exclude. In a pattern * stands for any characters, "/" too; without
// one it is an exact name.
type Names struct{ Include, Exclude []string }

// Match tells whether a name is chosen.
func (n Names) Match(name string) bool {
	fits := func(pattern string) bool { return matchPattern(pattern, name) }
	return (len(n.Include) == 0 || slices.ContainsFunc(n.Include, fits)) && !slices.ContainsFunc(n.Exclude, fits)
}

// matchPattern takes for each part the leftmost place, which is as good as any.
func matchPattern(pattern, name string) bool {
	parts := strings.Split(pattern, "*")
	name, ok := strings.CutPrefix(name, parts[0])
	if len(parts) == 1 {
		return ok && name == ""
	}
	for _, part := range parts[1 : len(parts)-1] {
		if ok {
			_, name, ok = strings.Cut(name, part)
		}
	}
	return ok && strings.HasSuffix(name, parts[len(parts)-1])
}

// SyncReport is what a Sync has done, or would do with DryRun.
type SyncReport struct {
	Repositories int `json:"repositories"`

	// Tags by what became of them.
	Unchanged int `json:"unchanged"`
	Created   int `json:"created"`
	Moved     int `json:"moved"`
	Kept      int `json:"kept"` // that name something else at the target, and may not move
	Left      int `json:"left"` // of an artifact type that is not chosen
	Deleted   int `json:"deleted"`

	Untagged      int `json:"untagged"`      // manifests that were copied by their digests
	DeletedImages int `json:"deletedImages"` // by their digests

	Manifests Tally         `json:"manifests"`
	Blobs     Tally         `json:"blobs"`
	Skipped   int           `json:"skipped"`
	Failed    []SyncFailure `json:"failed,omitempty"` // the first 1,000
	Failures  int           `json:"failures"`
}

// SyncFailure is something that a Sync could not do.
type SyncFailure struct {
	Repo string `json:"repository"` // at the source, or for a deletion at the target
	Ref  string `json:"ref"`        // tag or digest; "" for the repository as a whole
	Err  error  `json:"-"`          // "error" in JSON, as text
}

// MarshalJSON has the text of the error too.
func (f SyncFailure) MarshalJSON() ([]byte, error) {
	type fields SyncFailure
	return json.Marshal(struct {
		fields
		Error string `json:"error"`
	}{fields(f), errorText(f.Err)})
}

// SyncError is a Sync that has failed in part. It unwraps to the first failure.
type SyncError struct {
	Failures int
	First    SyncFailure
}

func (e *SyncError) Error() string {
	return fmt.Sprintf("%d failures, first %s %s: %v", e.Failures, e.First.Repo, e.First.Ref, e.First.Err)
}

func (e *SyncError) Unwrap() error { return e.First.Err }

// Why a Sync refuses.
var (
	ErrOptions     = errors.New("options that do not go together")
	ErrDeleteLimit = errors.New("too much would be deleted")
)

// DeleteLimitError is a Sync that would delete more than it may. It unwraps to
// [ErrDeleteLimit].
type DeleteLimitError struct {
	Going, Of int // tags and images
	Max       int
	MaxShare  float64
}

func (e *DeleteLimitError) Error() string {
	return fmt.Sprintf("%v: %d of %d tags and images, the limits are %d (Max) and a share of %v (MaxShare)", ErrDeleteLimit, e.Going, e.Of, e.Max, e.MaxShare)
}

func (e *DeleteLimitError) Unwrap() error { return ErrDeleteLimit }

// Sync makes the repositories of dst show what those of src do. It compares listings of
// both sides and keeps no state: what was there before, what was missed and what comes
// twice are all the same to it, and running it again is the way to go on after any failure.
//
// What fails is in the report, and the rest goes on; then the error is a
// *[SyncError]. Others are that of ctx, of a list of repositories, *[DeleteLimitError], and ErrOptions. The
// report is valid with each.
//
// A tag with the same digest on both sides is not looked into, unless Verify is set: by the
// order in which a Copier and registries work, what has a tag is complete. The tags of
// the referrers tag schema are lists that each registry's clients keep, and are left alone.
func (c *Copier) Sync(ctx context.Context, src Source, dst Target, o SyncOptions) (SyncReport, error) {
	y := &syncer{c: c, src: src, dst: dst, o: o, bar: &bar{on: o.OnEvent}, named: map[string]bool{}}
	err := y.check()
	if err == nil {
		err = y.repositories(ctx)
	}
	if err == nil && y.report.Failures == 0 {
		err = y.delete(ctx)
	}
	if err == nil && y.report.Failures > 0 {
		err = &SyncError{y.report.Failures, y.report.Failed[0]}
	}
	return y.report, err
}
