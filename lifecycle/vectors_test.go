package lifecycle

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/internal/vectors"
)

var vectorsDir = flag.String("vectors", "../testdata/vectors", "folder of the vectors, laid out like testdata/vectors")

// A vectorSet is a file of the lifecycle vectors; its README says what the
// fields mean.
type vectorSet struct {
	Kind  string
	Cases []*vectorCase
}

type vectorCase struct {
	ID, Title, Basis string
	Now              time.Time
	Policy           json.RawMessage
	PolicyText       *string
	Images           []vectorImage
	Expect           struct {
		// Of an evaluation.
		Results []vectorResult
		Summary *struct{ Expiring, Transitioning int }
		Order   *[]digest.Digest
		// Of a validation.
		Valid  bool
		Errors []Category
		Why    string
	}
}

type vectorImage struct {
	ID                                     string
	Digest, Subject                        digest.Digest
	Tags                                   []string
	PushedAt, LastPulledAt, LastArchivedAt time.Time
	LastActivatedAt                        time.Time
	StorageClass                           StorageClass
	MediaType, ArtifactType                string
	Manifests                              []digest.Digest
}

type vectorResult struct {
	ID      string
	Digest  digest.Digest
	Action  string
	Rule    int64
	Via     Via
	Why     string
	Blocked *struct {
		Rule         int64
		Action       ActionType
		ReferencedBy []digest.Digest
	}
}

func (c *vectorCase) text() string {
	if c.PolicyText != nil {
		return *c.PolicyText
	}
	return string(c.Policy)
}

func (c *vectorCase) images() []Image {
	var out []Image
	for _, im := range c.Images {
		out = append(out, Image{
			Digest: im.Digest, Tags: im.Tags, PushedAt: im.PushedAt, PulledAt: im.LastPulledAt, StorageClass: im.StorageClass, ArchivedAt: im.LastArchivedAt,
			RestoredAt: im.LastActivatedAt, Subject: im.Subject, Manifests: im.Manifests, MediaType: im.MediaType, ArtifactType: im.ArtifactType,
		})
	}
	return out
}

// readVectors reads all files of the folder lifecycle.
func readVectors(t testing.TB) map[string]*vectorSet {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(*vectorsDir, "lifecycle", "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no vectors in %s: %v", *vectorsDir, err)
	}
	sets := map[string]*vectorSet{}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		set := new(vectorSet)
		if err := json.Unmarshal(raw, set); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if len(set.Cases) == 0 || set.Kind != "evaluate" && set.Kind != "validate" {
			t.Fatalf("%s has %d cases of kind %q", file, len(set.Cases), set.Kind)
		}
		sets[strings.TrimSuffix(filepath.Base(file), ".json")] = set
	}
	return sets
}

func TestVectors(t *testing.T) {
	kinds := map[string]bool{}
	for name, set := range readVectors(t) {
		kinds[set.Kind] = true
		for _, c := range set.Cases {
			t.Run(name+"/"+c.ID, func(t *testing.T) {
				if set.Kind == "validate" {
					validateVector(t, c)
				} else {
					evaluateVector(t, c)
				}
			})
		}
	}
	if len(kinds) != 2 {
		t.Errorf("there are only kinds %v", kinds)
	}
	hostileVectors(t)
}

// validateVector: each case has one defect, and each category reported must be
// one that the case accepts.
func validateVector(t *testing.T, c *vectorCase) {
	text := c.text()
	p, err := Parse(text)
	if c.Expect.Valid {
		if err != nil {
			t.Fatalf("refused: %v", err)
		}
		checkRoundTrip(t, p)
		return
	}
	var invalid *InvalidError
	if !errors.As(err, &invalid) || len(invalid.Fields) == 0 {
		t.Fatalf("err = %v: %s", err, c.Expect.Why)
	}
	for _, f := range invalid.Fields {
		if !slices.Contains(c.Expect.Errors, f.Category) && !(f.Category == CategoryLength && len(text) < 100) {
			t.Errorf("%v: want one of %v: %s", f, c.Expect.Errors, c.Expect.Why)
		}
		if f.Allowed == "" {
			t.Errorf("%v says not what is allowed", f)
		}
	}
}

func evaluateVector(t *testing.T, c *vectorCase) {
	p, err := Parse(c.text())
	if err != nil {
		t.Fatal(err)
	}
	checkRoundTrip(t, p)
	images := c.images()
	if len(images) != len(c.Expect.Results) {
		t.Fatalf("%d images, %d results", len(images), len(c.Expect.Results))
	}
	plan := Evaluate(p, images, c.Now)
	for i, diff := range vectorDiffs(c, plan) {
		t.Errorf("image %s: %s\nwant, since %s\n%s", c.Images[i].ID, diff, c.Expect.Results[i].Why, plan.Verdict(i))
	}
	sum := plan.Summary()
	if want := c.Expect.Summary; want != nil && (sum.Expiring != want.Expiring || sum.Transitioning != want.Transitioning) {
		t.Errorf("summary is %+v, want %+v", sum, *want)
	}
	if want := c.Expect.Order; want != nil {
		if got := ruleOrder(plan); !slices.Equal(got, *want) {
			t.Errorf("order is %v, want %v", got, *want)
		}
	}
}

// ruleOrder returns what rules act on, in order.
func ruleOrder(p *Plan) (out []digest.Digest) {
	for _, i := range p.Order() {
		if v := p.Verdict(i); v.Via == ViaRule {
			out = append(out, v.Image.Digest)
		}
	}
	return out
}

// vectorDiffs compares the verdicts with the results of c, by image.
func vectorDiffs(c *vectorCase, plan *Plan) map[int]string {
	diffs := map[int]string{}
	for i, want := range c.Expect.Results {
		v := plan.Verdict(i)
		action := string(v.Action)
		if v.Action == Keep {
			action = "none"
		}
		switch {
		case v.Image.Digest != want.Digest:
			diffs[i] = "it is " + string(v.Image.Digest)
		case action != want.Action || v.Rule != want.Rule || v.Via != want.Via:
			diffs[i] = "action " + want.Action + ", via " + string(want.Via)
		case (v.Blocked != nil) != (want.Blocked != nil):
			diffs[i] = "blocked or not"
		case want.Blocked != nil:
			refs := slices.Sorted(slices.Values(want.Blocked.ReferencedBy))
			if v.Blocked.Rule != want.Blocked.Rule || v.Blocked.Action != want.Blocked.Action || !slices.Equal(v.Blocked.ReferencedBy, refs) {
				diffs[i] = "blocked otherwise"
			}
		}
	}
	return diffs
}

// checkRoundTrip: a policy is the same after it was written and read.
func checkRoundTrip(t *testing.T, p *Policy) {
	t.Helper()
	again, err := Parse(p.String())
	if err != nil {
		t.Fatalf("%s: %v", p, err)
	}
	if again.String() != p.String() || !p.Equal(again) {
		t.Errorf("%s became %s", p, again)
	}
	made, err := New(p.Rules()...)
	if err != nil || !made.Equal(p) {
		t.Errorf("New of the rules of %s is %v, %v", p, made, err)
	}
}

// hostileVectors runs the policies and the scenarios of the hostile corpus.
func hostileVectors(t *testing.T) {
	cases, err := vectors.Hostile(*vectorsDir, "policy", "scenario")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		t.Run("hostile/"+c.ID, func(t *testing.T) {
			if c.Kind == "scenario" {
				scenario(t, c)
				return
			}
			p, err := Parse(string(c.Input))
			if (err == nil) != c.Accept() {
				t.Fatalf("err = %v: %s", err, c.Why)
			}
			if most, ok := c.Assert["deletes_from_fresh_repo"].(float64); ok {
				now := time.Date(2026, 1, 31, 0, 0, 0, 0, time.UTC)
				plan := Evaluate(p, []Image{{Digest: "sha256:a", PushedAt: now.Add(-time.Hour)}, {Digest: "sha256:b", PushedAt: now.AddDate(-250, 0, 0)}}, now)
				if got := len(plan.Order()); got > int(most) {
					t.Errorf("%d images go: %s", got, plan)
				}
			}
		})
	}
}

// scenario runs a policy over a world until nothing goes any more. What the
// evaluator cannot know are blobs, and manifests that nobody can read: a world
// with one of these has no listing, so there is nothing to evaluate.
func scenario(t *testing.T, c vectors.Case) {
	var world struct {
		Now    time.Time
		Images []struct {
			ID, Subject    string
			Pushed         time.Time
			Tags, Children []string
			Unreadable     bool
		}
		Policy      json.RawMessage
		MustSurvive []string `json:"must_survive"`
		Exactly     *int
	}
	if err := json.Unmarshal(c.Input, &world); err != nil {
		t.Fatal(err)
	}
	p, err := Parse(string(world.Policy))
	if err != nil {
		t.Fatal(err)
	}
	var images []Image
	for _, im := range world.Images {
		if im.Unreadable {
			images = nil
			break
		}
		out := Image{Digest: digest.Digest(im.ID), Tags: im.Tags, PushedAt: im.Pushed, Subject: digest.Digest(im.Subject)}
		for _, child := range im.Children {
			out.Manifests = append(out.Manifests, digest.Digest(child))
		}
		images = append(images, out)
	}
	unreadable := images == nil
	for range 3 {
		slices.Reverse(images)
		plan := Evaluate(p, images, world.Now)
		for i := range plan.Len() {
			if v := plan.Verdict(i); v.Action != Keep && slices.Contains(world.MustSurvive, string(v.Image.Digest)) {
				t.Errorf("%s: %s", c.Why, v)
			}
		}
		images = plan.Outcome()
	}
	if world.Exactly != nil && !unreadable && len(images) != *world.Exactly {
		t.Errorf("%d images are left, want %d: %s", len(images), *world.Exactly, c.Why)
	}
}
