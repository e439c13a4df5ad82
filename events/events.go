// Package events tells what happened in a registry to those outside: in the
// shapes of Amazon ECR's EventBridge events, and as CloudEvents 1.0.
//
// Nothing is told before it is committed, since an event is derived from the
// [manifest.Change] that was, by a function without any state: [Origin].Events.
// There are two ways to hand events on.
//
//   - [Drain] takes them from a [manifest.Outbox], which is written in the step that
//     commits a change. None is lost, whatever crashes, and each is delivered at
//     least once, in the order of commits for each repository. Its ID stays the same.
//   - [Fanout] hands them to subscribers in this process, and never waits for one: what
//     a queue has no room for is dropped and counted. Call it in Handler.OnCommit.
package events

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/manifest"
)

// Origin is the registry that events come from, in ECR's terms.
type Origin struct {
	Account string // "111122223333", or whatever names the owner
	Region  string
	// URI is the source of CloudEvents, a URI reference; "" means
	// arn:aws:ecr:REGION:ACCOUNT.
	URI string
}

// Event is one thing that happened. As JSON it is in the shape of EventBridge.
type Event struct {
	// ID is a UUID. That of an event from an outbox is the same each time it is read.
	ID     string
	Time   time.Time
	Origin Origin
	Detail Detail
}

// Detail is what an Event tells: [Image], [Storage], [Replication],
// [PullThroughCache], [Scan] or [ScanFrequency].
type Detail interface {
	// DetailType is EventBridge's detail-type.
	DetailType() string
}

// What ECR calls the results and the actions.
const (
	Success = "SUCCESS"
	Failed  = "FAILED"

	Push   = "PUSH"
	Delete = "DELETE"
)

// About is the manifest that an [Image] or [Storage] is about.
type About struct {
	Repository   string
	Digest       digest.Digest
	MediaType    string        // "" means unknown
	ArtifactType string        // "" means unknown, or none
	Subject      digest.Digest // that of a referrer, which has a type of its own; ECR has no member for it
}

func (a About) detailType() string {
	if a.Subject != "" {
		return "ECR Referrer Action"
	}
	return "ECR Image Action"
}

// Image is a push or a deletion. There is one for each tag, and one for what has
// no tag.
type Image struct {
	About
	Action string // Push or Delete
	Tag    string // "" for what has none
	Result string // "" means Success
}

// DetailType implements [Detail].
func (i Image) DetailType() string { return i.detailType() }

// Storage is a move to the archive, or back.
type Storage struct {
	About
	Class       manifest.StorageClass
	ActivatedAt time.Time // of a move back
	Result      string    // "" means Success
}

// DetailType implements [Detail].
func (s Storage) DetailType() string { return s.detailType() }

// Replication is a copy from another registry. It is told by the one that has got
// it, or that should have.
type Replication struct {
	Repository                  string
	Digest                      digest.Digest
	Tag                         string // "" for what has none
	SourceAccount, SourceRegion string
	Result                      string // "" means Success
}

// DetailType implements [Detail].
func (Replication) DetailType() string { return "ECR Replication Action" }

// PullThroughCache is an attempt to fetch from upstream.
type PullThroughCache struct {
	Repository  string
	Prefix      string // of the rule
	UpstreamURL string
	Tag         string
	Digest      digest.Digest // "" if it is not known, as of what failed
	Status      string        // "" means Success
	// Of what has Failed:
	FailureCode, FailureReason string
}

// DetailType implements [Detail].
func (PullThroughCache) DetailType() string { return "ECR Pull Through Cache Action" }

// Scan is the end of a scan of an image.
type Scan struct {
	Repository string
	Digest     digest.Digest
	Tags       []string
	Status     string         // "COMPLETE", "FAILED" …
	Counts     map[string]int // findings by severity; zeros are left out
}

// DetailType implements [Detail].
func (Scan) DetailType() string { return "ECR Image Scan" }

// ScanFrequency is a change of how often repositories are scanned.
type ScanFrequency struct {
	Repositories []RepositoryScanFrequency
}

// RepositoryScanFrequency is one repository of a [ScanFrequency].
type RepositoryScanFrequency struct {
	Repository string
	Frequency  string // "SCAN_ON_PUSH", "CONTINUOUS_SCAN", "MANUAL"
	Previous   string
}

// DetailType implements [Detail].
func (ScanFrequency) DetailType() string { return "ECR Scan Resource Change" }

// New returns an event of what no Change tells: a scan, a copy, an attempt of a
// cache. Its ID is made of all that it says.
func (o Origin) New(at time.Time, d Detail) Event { return o.event("", 0, at, d) }

// Events returns what a committed change tells, in the order in which a change
// applies: a push for each tag that came to name a manifest, or for a manifest that
// was put without one; a deletion for each tag that went, alone or with its
// manifest; each move to the archive or back that the change asks for. c may come from an
// outbox, or have no Position.
//
// Tags that went with a manifest are told as far as the change names them, in Tags or
// in Unchanged: [manifest.Deleter] and the runs of policies do. A push of what was
// there already with its tag tells nothing, if [manifest.Pusher].MoveTag was set;
// one without a tag cannot be told from the first. That a push has brought an image back
// from the archive no change tells: it is a push like others, and nothing if the tag was
// there.
func (o Origin) Events(c manifest.Committed) []Event {
	var out []Event
	for _, d := range details(c.Event) {
		out = append(out, o.event(c.Position, len(out), c.Change.At, d))
	}
	return out
}

// event gives d an ID: a UUID of version 8 (RFC 9562) made by a hash.
func (o Origin) event(position string, n int, at time.Time, d Detail) Event {
	text, _ := json.Marshal([]any{o, position, n, at.UTC(), d.DetailType(), d}) // structs of strings, and times of this age
	sum := sha256.Sum256(text)
	sum[6], sum[8] = sum[6]&0x0f|0x80, sum[8]&0x3f|0x80
	return Event{fmt.Sprintf("%x-%x-%x-%x-%x", sum[:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16]), at, o, d}
}

func details(e manifest.Event) (out []Detail) {
	c := &e.Change
	known := map[digest.Digest]About{}
	for _, recs := range [][]manifest.Record{c.Known, c.Put} {
		for _, rec := range recs {
			known[rec.Desc.Digest] = About{e.Repo, rec.Desc.Digest, rec.Desc.MediaType, rec.Desc.ArtifactType, rec.Subject}
		}
	}
	about := func(d digest.Digest) About {
		a := known[d]
		a.Repository, a.Digest = e.Repo, d
		return a
	}
	pushed, untagged := map[digest.Digest]bool{}, map[digest.Digest]bool{}
	for _, t := range c.Tags {
		pushed[t.To] = true
	}
	for _, rec := range c.Put {
		if d := rec.Desc.Digest; !pushed[d] {
			out = append(out, Image{About: about(d), Action: Push})
		}
	}
	gone := map[string]bool{}
	for _, t := range c.Tags {
		switch {
		case t.To == "" && t.From != manifest.Absent:
			out = append(out, Image{About: about(t.From), Action: Delete, Tag: t.Name})
			gone[t.Name], untagged[t.From] = true, true
		case t.To != t.From && t.To != "":
			out = append(out, Image{About: about(t.To), Action: Push, Tag: t.Name})
		}
	}
	for _, m := range c.Classes {
		s := Storage{About: about(m.Digest), Class: m.To}
		if m.To == manifest.Standard {
			s.ActivatedAt = c.At
		}
		out = append(out, s)
	}
	for _, r := range c.Delete {
		for _, seen := range c.Unchanged {
			if seen.Digest != r.Digest {
				continue
			}
			for _, tag := range seen.Tags {
				if untagged[r.Digest] = true; !gone[tag] {
					out = append(out, Image{About: about(r.Digest), Action: Delete, Tag: tag})
				}
			}
		}
		if !untagged[r.Digest] {
			out = append(out, Image{About: about(r.Digest), Action: Delete})
		}
	}
	return out
}
