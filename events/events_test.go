package events

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/manifest/memmanifest"
)

var vectorsDir = flag.String("vectors", "../testdata/vectors", "folder of the vectors, laid out like testdata/vectors")

type vectorCase struct {
	ID, Why  string
	Expected json.RawMessage
	Optional []string `json:"optional_detail"`
	Given    struct {
		Kind                                 string
		ID                                   string `json:"event_id"`
		Time, LastActivatedAt                time.Time
		Region, Account, Repository          string
		Digest                               digest.Digest
		Tag                                  string
		Tags                                 []string
		ManifestMediaType, ArtifactMediaType string
		SyncStatus, EcrRepositoryPrefix      string
		UpstreamRegistryURL                  string
		FailureCode, FailureReason           string
		ScanStatus                           string
		FindingSeverityCounts                map[string]int
		SourceAccount, SourceRegion, Result  string
		Repositories                         []struct{ Repository, ScanFrequency, PreviousScanFrequency string }
	}
}

func (c *vectorCase) detail(t *testing.T) Detail {
	g := c.Given
	about := About{Repository: g.Repository, Digest: g.Digest, MediaType: g.ManifestMediaType, ArtifactType: g.ArtifactMediaType}
	what, did, _ := strings.Cut(g.Kind, "_")
	if what == "referrer" {
		about.Subject = "sha256:anything"
	}
	switch {
	case g.Kind == "image_scan":
		return Scan{Repository: g.Repository, Digest: g.Digest, Tags: g.Tags, Status: g.ScanStatus, Counts: g.FindingSeverityCounts}
	case g.Kind == "scan_resource_change":
		var d ScanFrequency
		for _, r := range g.Repositories {
			d.Repositories = append(d.Repositories, RepositoryScanFrequency{r.Repository, r.ScanFrequency, r.PreviousScanFrequency})
		}
		return d
	case g.Kind == "replicated":
		return Replication{Repository: g.Repository, Digest: g.Digest, Tag: g.Tag, SourceAccount: g.SourceAccount, SourceRegion: g.SourceRegion, Result: g.Result}
	case g.Kind == "pull_through_cache":
		return PullThroughCache{g.Repository, g.EcrRepositoryPrefix, g.UpstreamRegistryURL, g.Tag, g.Digest, g.SyncStatus, g.FailureCode, g.FailureReason}
	case did == "pushed":
		return Image{About: about, Action: Push, Tag: g.Tag, Result: g.Result}
	case did == "deleted":
		return Image{About: about, Action: Delete, Tag: g.Tag, Result: g.Result}
	case did == "archived":
		return Storage{About: about, Class: manifest.Archive, Result: g.Result}
	case did == "restored":
		return Storage{About: about, ActivatedAt: g.LastActivatedAt, Result: g.Result}
	}
	t.Fatalf("kind %s is not known here", g.Kind)
	return nil
}

func TestVectors(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join(*vectorsDir, "platform", "events.json"))
	if err != nil {
		t.Fatal(err)
	}
	var set struct{ Cases []*vectorCase }
	if err := json.Unmarshal(raw, &set); err != nil {
		t.Fatal(err)
	}
	if len(set.Cases) == 0 {
		t.Fatal("events has no cases")
	}
	for _, c := range set.Cases {
		t.Run("events/"+c.ID, func(t *testing.T) {
			g := c.Given
			text, err := json.Marshal(Event{g.ID, g.Time, Origin{Account: g.Account, Region: g.Region}, c.detail(t)})
			if err != nil {
				t.Fatal(err)
			}
			var got, want map[string]any
			if err := errors.Join(json.Unmarshal(text, &got), json.Unmarshal(c.Expected, &want)); err != nil {
				t.Fatal(err)
			}
			for _, e := range []map[string]any{got, want} {
				for _, key := range c.Optional {
					delete(e["detail"].(map[string]any), key)
				}
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got  %s\nwant %s\n%s", text, c.Expected, c.Why)
			}
		})
	}
}

var origin = Origin{Account: "111122223333", Region: "eu-west-1"}

var day = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)

// short is an event on a line.
func short(e Event) string {
	c, err := e.CloudEvent()
	if err != nil {
		return err.Error()
	}
	return strings.TrimPrefix(c.Type, "com.amazonaws.ecr.") + " " + c.Subject
}

// TestAChangeTellsWhatItDid, a line an event.
func TestAChangeTellsWhatItDid(t *testing.T) {
	const a, b, s = digest.Digest("sha256:aa"), digest.Digest("sha256:bb"), digest.Digest("sha256:cc")
	record := func(d, subject digest.Digest) manifest.Record {
		return manifest.Record{Desc: ocispec.Descriptor{MediaType: manifest.MediaTypeImage, Digest: d, ArtifactType: "x/y"}, Subject: subject}
	}
	removal := []manifest.Removal{{Digest: a}}
	for _, c := range []struct {
		name   string
		change manifest.Change
		want   []string
	}{
		{"a push without a tag", manifest.Change{Put: []manifest.Record{record(a, "")}}, []string{"image.push r@sha256:aa"}},
		{"a push with two tags", manifest.Change{Put: []manifest.Record{record(a, "")}, Tags: []manifest.TagMove{{Name: "v1", To: a}, {Name: "v2", To: a, From: b}}}, []string{"image.push r:v1", "image.push r:v2"}},
		{"a push of what is there", manifest.Change{Put: []manifest.Record{record(a, "")}, Tags: []manifest.TagMove{{Name: "v1", To: a, From: a}}}, nil},
		{"a referrer", manifest.Change{Put: []manifest.Record{record(a, s)}}, []string{"referrer.push r@sha256:aa"}},
		{"a tag for what is there", manifest.Change{Tags: []manifest.TagMove{{Name: "v1", To: a, From: manifest.Absent}}}, []string{"image.push r:v1"}},
		{"a tag goes", manifest.Change{Tags: []manifest.TagMove{{Name: "v1", From: a}, {Name: "v2", To: a, From: a}}}, []string{"image.delete r:v1"}},
		{"a tag that was not there goes", manifest.Change{Tags: []manifest.TagMove{{Name: "v1", From: manifest.Absent}}}, nil},
		{"an image without a tag goes", manifest.Change{Delete: removal}, []string{"image.delete r@sha256:aa"}},
		{"an image goes with its tags", manifest.Change{Tags: []manifest.TagMove{{Name: "v1", From: a}, {Name: "v2", From: a}}, Delete: removal}, []string{"image.delete r:v1", "image.delete r:v2"}},
		{"a policy removes an image", manifest.Change{Unchanged: []manifest.Seen{{Digest: a, Tags: []string{"v1", "v2"}}}, Delete: removal}, []string{"image.delete r:v1", "image.delete r:v2"}},
		{"both", manifest.Change{Unchanged: []manifest.Seen{{Digest: a, Tags: []string{"v1", "v2"}}}, Tags: []manifest.TagMove{{Name: "v1", From: a}}, Delete: removal}, []string{"image.delete r:v1", "image.delete r:v2"}},
		{"a referrer goes", manifest.Change{Known: []manifest.Record{record(a, s)}, Delete: removal}, []string{"referrer.delete r@sha256:aa"}},
		{"classes", manifest.Change{Classes: []manifest.ClassMove{{Digest: a, To: manifest.Archive}, {Digest: b}}}, []string{"image.archive r@sha256:aa", "image.restore r@sha256:bb"}},
		{"checks alone", manifest.Change{RequireManifests: []digest.Digest{a}}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.change.At = day
			committed := manifest.Committed{Position: "7", Event: manifest.Event{Repo: "r", Change: c.change}}
			var got []string
			ids := map[string]bool{}
			for _, e := range origin.Events(committed) {
				got = append(got, short(e))
				ids[e.ID] = true
				if !regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`).MatchString(e.ID) || !e.Time.Equal(day) {
					t.Errorf("ID %s, time %v", e.ID, e.Time)
				}
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("tells %q, want %q", got, c.want)
			}
			if len(ids) != len(got) || !reflect.DeepEqual(origin.Events(committed), origin.Events(committed)) {
				t.Error("IDs are not one for each event, and the same each time")
			}
			committed.Position = "8"
			for _, e := range origin.Events(committed) {
				if ids[e.ID] {
					t.Error("another change has the same ID")
				}
			}
		})
	}
}

// TestTimesAreUTC, in each member of an event, whatever the clock's zone.
func TestTimesAreUTC(t *testing.T) {
	c := manifest.Committed{Event: manifest.Event{Repo: "r", Change: manifest.Change{Classes: []manifest.ClassMove{{Digest: "sha256:aa"}}, At: day.In(time.FixedZone("", 3600))}}}
	for _, e := range origin.Events(c) {
		cloud, err := e.CloudEvent()
		if err != nil {
			t.Fatal(err)
		}
		bridge, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(cloud)
		if err != nil {
			t.Fatal(err)
		}
		if at := day.Format(time.RFC3339); strings.Count(string(bridge), at) != 2 || strings.Count(string(text), at) != 2 {
			t.Errorf("%s\n%s", bridge, text)
		}
	}
}

func TestCloudEventsOfOtherDetails(t *testing.T) {
	for _, d := range []Detail{Replication{Repository: "r", Tag: "v1"}, PullThroughCache{Repository: "r", Tag: "v1"}, Scan{Repository: "r", Digest: "sha256:aa"}, ScanFrequency{}} {
		e := origin.New(day, d)
		c, err := e.CloudEvent()
		if err != nil || c.ID != e.ID || c.SpecVersion != "1.0" || c.Source == "" || !json.Valid(c.Data) || strings.HasSuffix(c.Type, ".") {
			t.Errorf("%T: %+v, %v", d, c, err)
		}
	}
	if _, err := json.Marshal(Event{Detail: foreign{}}); err == nil {
		t.Error("a detail of another package is written")
	}
}

type foreign struct{}

func (foreign) DetailType() string { return "foreign" }

// filled returns an outbox with the events of n pushes of one repository.
func filled(t testing.TB, n int) *memmanifest.Store {
	s := &memmanifest.Store{KeepEvents: true}
	for i := range n {
		d := digest.FromString(fmt.Sprint(i))
		c := manifest.Change{Put: []manifest.Record{{Desc: ocispec.Descriptor{Digest: d}}}, Tags: []manifest.TagMove{{Name: fmt.Sprint("v", i), To: d}, {Name: "latest", To: d}}, At: day}
		if err := s.Apply(t.Context(), "r", c); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// TestDrainLosesNothing: whatever delivery fails, each event is delivered in order,
// and again only if it is of the Change that was under way.
func TestDrainLosesNothing(t *testing.T) {
	const changes = 220 // more than twice what is forgotten at once
	s := filled(t, changes)
	broken := errors.New("broken")
	var got []string
	seen := map[string]bool{}
	again, call := 0, 0
	for {
		_, err := Drain(t.Context(), s, origin, func(_ context.Context, e Event) error {
			if call++; call%7 == 0 {
				return broken
			}
			if seen[e.ID] {
				again++
			} else {
				got = append(got, short(e))
			}
			seen[e.ID] = true
			return nil
		})
		if err == nil {
			break
		}
		if !errors.Is(err, broken) {
			t.Fatal(err)
		}
	}
	var want []string
	for i := range changes {
		want = append(want, fmt.Sprint("image.push r:v", i), "image.push r:latest")
	}
	if !slices.Equal(got, want) {
		t.Errorf("%d of %d events, or in another order", len(got), len(want))
	}
	if again > call/7 {
		t.Errorf("%d were delivered again", again)
	}
	if n, err := Drain(t.Context(), s, origin, nil); n != 0 || err != nil {
		t.Errorf("%d are left: %v", n, err)
	}
}

func TestDrainForgetsWhatWasDeliveredWhenItIsStopped(t *testing.T) {
	s := filled(t, 3)
	ctx, cancel := context.WithCancel(t.Context())
	_, err := Drain(ctx, s, origin, func(ctx context.Context, _ Event) error {
		cancel()
		return nil
	})
	left := 0
	for _, err := range s.Events(t.Context(), "") {
		if left++; err != nil {
			t.Fatal(err)
		}
	}
	if left > 2 {
		t.Errorf("%d changes are left, %v", left, err)
	}
}

// TestFanoutNeverWaits for a subscriber, and counts what it drops.
func TestFanoutNeverWaits(t *testing.T) {
	var f Fanout
	slow, fast := f.Subscribe(2), f.Subscribe(10)
	defer slow.Close()
	for i := range 5 {
		f.Publish(origin.New(day, Image{About: About{Repository: "r"}, Action: Push, Tag: fmt.Sprint(i)}))
	}
	fast.Close()
	fast.Close()
	f.Publish(Event{})
	n := 0
	for e := range fast.C {
		if e.Detail.(Image).Tag != fmt.Sprint(n) {
			t.Errorf("event %d is of tag %s", n, e.Detail.(Image).Tag)
		}
		n++
	}
	if n != 5 || fast.Dropped() != 0 || slow.Dropped() != 4 {
		t.Errorf("fast has got %d and lost %d, slow has lost %d", n, fast.Dropped(), slow.Dropped())
	}
}
