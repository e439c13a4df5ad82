package lifecycle

import (
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

var worlds = flag.Int("worlds", 3000, "random worlds to compare with the oracle")

// world is a random policy over random images, small and full of coincidences.
type world struct {
	*rand.Rand
	now time.Time
}

var worldNow = time.Date(2026, 3, 15, 12, 0, 0, 0, time.UTC)

func one[T any](w *world, of ...T) T { return of[w.IntN(len(of))] }

func (w *world) chance(percent int) bool { return w.IntN(100) < percent }

// some returns up to n of a list, without repetition.
func some[T any](w *world, n int, of ...T) (out []T) {
	for _, i := range w.Perm(len(of))[:min(len(of), w.IntN(n+1))] {
		out = append(out, of[i])
	}
	return out
}

func (w *world) time() time.Time {
	switch w.IntN(20) {
	case 0:
		return time.Time{}
	case 1:
		return w.now.AddDate(one(w, -1000, 400, -300), 0, 0)
	}
	t := w.now.AddDate(0, 0, -one(w, -1, 0, 1, 2, 3, 4, 89, 90, 91, 92))
	return t.Add(one(w, 0, 0, 0, time.Nanosecond, -time.Nanosecond, time.Hour, -time.Hour))
}

func (w *world) sometimes(t time.Time, percent int) time.Time {
	if w.chance(percent) {
		return t
	}
	return time.Time{}
}

func worldDigest(n int) digest.Digest {
	return digest.Digest(fmt.Sprintf("sha256:%02d", n*37%100))
}

func (w *world) images() []Image {
	n := w.IntN(9)
	images := make([]Image, n)
	for i := range images {
		im := &images[i]
		im.Digest = worldDigest(i)
		im.Tags = some(w, 3, "a", "ab", "abc", "b", "ba", "A", "aab", "long-tag-abc-with-more-than-16")
		im.PushedAt = w.time()
		im.PulledAt = w.sometimes(w.time(), 40)
		im.StorageClass = one(w, "", Standard, Standard, Archive, Archive)
		if w.chance(3) {
			im.StorageClass = one(w, Activating, "glacier")
		}
		im.ArchivedAt = w.sometimes(w.time(), 80)
		im.RestoredAt = w.sometimes(w.time(), 20)
		if w.chance(30) {
			im.Subject = worldDigest(w.IntN(n + 2))
		}
		for w.chance(25) {
			im.Manifests = append(im.Manifests, worldDigest(w.IntN(n+2)))
		}
	}
	w.Shuffle(n, func(i, j int) { images[i], images[j] = images[j], images[i] })
	return images
}

func (w *world) policy(t *testing.T) *Policy {
	for {
		var rules []Rule
		for range 1 + w.IntN(5) {
			r := Rule{Priority: 1 + w.Int64N(9)}
			s := &r.Selection
			s.TagStatus = one(w, Tagged, Tagged, Untagged, Any)
			s.CountType = one(w, ImageCountMoreThan, ImageCountMoreThan, SinceImagePushed, SinceImagePulled, SinceImageTransitioned)
			s.CountNumber = one[int64](w, 1, 1, 2, 3)
			if s.CountType != ImageCountMoreThan {
				s.CountUnit = "days"
			}
			r.Action.Type = one(w, Expire, Transition)
			switch s.CountType {
			case SinceImageTransitioned:
				s.CountNumber, s.StorageClass, r.Action.Type = one[int64](w, 90, 91), Archive, Expire
			case SinceImagePulled:
				r.Action.Type = Transition
			default:
				s.StorageClass = one(w, "", Standard)
			}
			if w.chance(2) {
				s.CountNumber = one[int64](w, 106_751, 106_752, 400_000, 1<<62)
			}
			if r.Action.Type == Transition {
				r.Action.TargetStorageClass = Archive
			}
			if s.TagStatus == Tagged {
				if w.chance(60) {
					s.TagPatterns = some(w, 2, "*", "a*", "*b", "*a*", "ab", "a*b*c", "*a*b*", "**", "b*a", "*abc*", "*q*")
				} else {
					s.TagPrefixes = some(w, 2, "a", "ab", "b", "A", "aab", "long-tag-a")
				}
			}
			rules = append(rules, r)
		}
		if p, err := New(rules...); err == nil {
			return p
		}
	}
}

// choose gives a policy other options and extensions.
func (w *world) choose(t *testing.T, p *Policy) *Policy {
	t.Helper()
	p, err := p.With(Options{
		DescendingTies: w.chance(30), IgnoreCase: w.chance(30), CountReferrers: w.chance(30), NextPassReferrers: w.chance(30), SamePassChildren: w.chance(40),
		Day: one(w, 0, 0, time.Hour, 23*time.Hour), ReferrerGrace: one(w, 0, 0, -1, time.Hour, 48*time.Hour), PullsSince: w.sometimes(w.time(), 30),
	})
	if err != nil {
		t.Fatal(err)
	}
	x := Extensions{Units: w.chance(40)}
	for w.chance(40) {
		k := KeepRule{Name: "k", Newest: one(w, 0, 1, 2)}
		k.TagPatterns = some(w, 2, "a*", "b", "*c", "")
		k.TagPatterns = slices.DeleteFunc(k.TagPatterns, func(s string) bool { return s == "" })
		if w.chance(30) {
			k.Digests = []digest.Digest{worldDigest(w.IntN(9))}
		}
		x.Keep = append(x.Keep, k)
	}
	for _, r := range p.Rules() {
		if w.chance(40) {
			x.Rules = append(x.Rules, RuleExtension{
				Priority: r.Priority, Exclude: some(w, 2, "ab*", "b"), KeepNewest: one(w, 0, 0, 1, 2),
				TagsOnly: w.chance(40) && r.Action.Type == Expire && r.Selection.TagStatus != Untagged,
			})
		}
	}
	if w.chance(30) {
		used := worldDigest(w.IntN(9))
		x.InUse = func(im *Image) string {
			if im.Digest == used {
				return "a test"
			}
			return ""
		}
	}
	if p, err = p.Extend(x); err != nil {
		t.Fatal(err)
	}
	return p
}

// TestOracle compares the evaluator with the oracle in random worlds, half of
// them as ECR is, half with options and extensions. 100 000 of them:
//
//	go test ./lifecycle -run TestOracle -worlds 100000
func TestOracle(t *testing.T) {
	for seed := range uint64(*worlds) {
		w := &world{rand.New(rand.NewPCG(seed, 0)), worldNow}
		p, images := w.policy(t), w.images()
		if seed%2 == 1 {
			p = w.choose(t, p)
		}
		compare(t, seed, p, images, w.now)
		if t.Failed() {
			t.Fatalf("seed %d: policy %s\noptions %+v\nextensions %+v\nimages %s", seed, p, p.Options(), p.Extensions(), describeImages(images))
		}
	}
}

// TestExplainAgrees compares what the owner of an image says of it with the verdict,
// in random worlds.
func TestExplainAgrees(t *testing.T) {
	all := []*world{{rand.New(rand.NewPCG(50598, 0)), worldNow}} // KeepNewest, and neither the push nor the pulls known
	for seed := range uint64(*worlds / 4) {
		all = append(all, &world{rand.New(rand.NewPCG(seed, 1)), worldNow})
	}
	for n, w := range all {
		p, images := w.policy(t), w.images()
		plan := Evaluate(w.choose(t, p), images, w.now)
		for i := range images {
			x, err := Explain(plan, string(images[i].Digest))
			if err != nil {
				t.Fatal(err)
			}
			v := x.Verdict
			for _, r := range x.Rules {
				if r.Priority != v.Owner || v.Image.Subject != "" {
					continue
				}
				due := v.Reason == ReasonDue || v.Reason == ReasonListed || v.Reason == ReasonKeepRule || v.Reason == ReasonInUse
				if r.Due != due || !due && !strings.HasPrefix(v.String(), "keep: "+r.Why) {
					t.Errorf("world %d: %s\nbut %s", n, v, x)
				}
			}
		}
	}
}

// TestManyEntries has more entries than a word has bits.
func TestManyEntries(t *testing.T) {
	w := &world{rand.New(rand.NewPCG(1, 9)), worldNow}
	acts := 0
	for round := range uint64(5) {
		var rules []Rule
		for i := range 40 {
			s := Selection{TagStatus: Tagged, CountType: ImageCountMoreThan, CountNumber: int64(1 + i%2)}
			for j := range 1 + i%4 {
				letter := string(rune('a' + (i*3+j)%26))
				if i%3 == 0 {
					s.TagPrefixes = append(s.TagPrefixes, letter+fmt.Sprint(i*5 + j)[:1])
				} else {
					s.TagPatterns = append(s.TagPatterns, one(w, letter+"*", "*"+letter, "*"+letter+"*", letter+"*"+fmt.Sprint(i%10)))
				}
			}
			rules = append(rules, Rule{Priority: int64(i + 1), Selection: s, Action: Action{Type: Expire}})
		}
		p, err := New(slices.DeleteFunc(rules, func(r Rule) bool { return r.Priority%3 == 1 && r.Priority > 22 })...)
		if err != nil {
			t.Fatal(err)
		}
		if p.match.words < 2 {
			t.Fatalf("only %d entries", len(p.match.entries))
		}
		images := make([]Image, 40)
		for i := range images {
			images[i] = Image{Digest: worldDigest(i), PushedAt: w.now.Add(-time.Duration(w.IntN(100)) * time.Hour)}
			for range w.IntN(5) {
				images[i].Tags = append(images[i].Tags, string(rune('a'+w.IntN(26)))+fmt.Sprint(w.IntN(300))+string(rune('a'+w.IntN(26))))
			}
		}
		compare(t, round, p, images, w.now)
		acts += len(Evaluate(p, images, w.now).Order())
	}
	if acts < 30 {
		t.Errorf("rules act on %d images only", acts)
	}
}

func describeImages(images []Image) (s string) {
	for i, im := range images {
		s += fmt.Sprintf("\n%d %s %q pushed %v pulled %v archived %v restored %v class %q subject %s lists %s", i, im.Digest, im.Tags,
			im.PushedAt, im.PulledAt, im.ArchivedAt, im.RestoredAt, im.StorageClass, im.Subject, im.Manifests)
	}
	return s
}

func compare(t *testing.T, seed uint64, p *Policy, images []Image, now time.Time) {
	t.Helper()
	given := slices.Clone(images)
	plan := Evaluate(p, images, now)
	if !reflect.DeepEqual(given, images) {
		t.Error("images were changed")
	}
	o := newOracle(p, images, now)
	outs := o.evaluate()
	for i, want := range outs {
		v := plan.Verdict(i)
		got := outcome{action: v.Action, rule: v.Rule, via: v.Via, untag: v.Tags, owner: v.Owner, also: v.Also, rank: v.Rank, at: want.at}
		if v.Blocked != nil {
			got.blocked, got.wanted, got.by = v.Blocked.ReferencedBy, v.Blocked.Action, v.Blocked.Rule
			if got.blocked == nil {
				got.blocked = []digest.Digest{}
			}
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("seed %d, image %d: %+v, the oracle says %+v\n%s", seed, i, got, want, v)
		}
	}
	if p.opts.SamePassChildren || p.ext.Units {
		checkOrder(t, plan)
	} else if got, want := ruleOrder(plan), o.order(outs); !slices.Equal(got, want) {
		t.Errorf("seed %d: order %v, the oracle says %v", seed, got, want)
	}
	// The order of the images says nothing.
	if seed%8 == 0 {
		slices.Reverse(given)
		again := Evaluate(p, given, now)
		for i := range images {
			a, b := plan.Verdict(i), again.Verdict(len(images)-1-i)
			if a.String() != b.String() {
				t.Errorf("seed %d, image %d: %s; in another order of images: %s", seed, i, a, b)
			}
		}
	}
}

// checkOrder: what lists is done before what it lists, subjects before referrers.
func checkOrder(t *testing.T, plan *Plan) {
	t.Helper()
	place := map[digest.Digest]int{}
	for n, i := range plan.Order() {
		place[plan.Image(i).Digest] = n + 1
	}
	for _, i := range plan.Order() {
		im := plan.Image(i)
		if s := place[im.Subject]; plan.Verdict(i).Via == ViaSubject && s > place[im.Digest] {
			t.Errorf("%s is done before its subject", im.Digest)
		}
		for _, child := range im.Manifests {
			if c := place[child]; c > 0 && c < place[im.Digest] && plan.Verdict(i).Via != ViaSubject {
				t.Errorf("%s is done before %s, which lists it", child, im.Digest)
			}
		}
	}
}

// TestWrongEvaluators: each of the known wrong evaluators is told from the
// oracle by the vectors, and the oracle agrees with them.
func TestWrongEvaluators(t *testing.T) {
	if len(wrongs) != 27 {
		t.Errorf("%d wrong evaluators, not 27", len(wrongs))
	}
	caught := map[string]string{}
	for name, set := range readVectors(t) {
		for _, c := range set.Cases {
			if set.Kind != "evaluate" {
				continue
			}
			p := mustParse(t, c.text())
			for _, wrong := range append([]string{""}, wrongs...) {
				o := newOracle(p, c.images(), c.Now)
				if o.wrong = wrong; wrong == "list order instead of priority" {
					o.rules = writtenOrder(t, c)
				}
				if oracleDiffers(o, c) {
					caught[wrong] = name + "/" + c.ID
				}
			}
		}
	}
	if c, bad := caught[""]; bad {
		t.Errorf("the oracle is wrong in %s", c)
	}
	for _, wrong := range wrongs {
		if caught[wrong] == "" {
			t.Errorf("%q is not caught by any vector", wrong)
		}
	}
}

// writtenOrder returns the rules of c as they stand in its document.
func writtenOrder(t *testing.T, c *vectorCase) []Rule {
	var doc document
	if err := json.Unmarshal(c.Policy, &doc); err != nil {
		t.Fatal(err)
	}
	return doc.Rules
}

func oracleDiffers(o *oracle, c *vectorCase) bool {
	outs := o.evaluate()
	expiring, transitioning := 0, 0
	for i, want := range c.Expect.Results {
		got := outs[i]
		action := string(got.action)
		if got.action == Keep {
			action = "none"
		}
		if got.via == ViaRule && got.action == Expire {
			expiring++
		}
		if got.via == ViaRule && got.action == Transition {
			transitioning++
		}
		if action != want.Action || got.rule != want.Rule || got.via != want.Via || (got.blocked != nil) != (want.Blocked != nil) {
			return true
		}
		if want.Blocked != nil && (got.by != want.Blocked.Rule || got.wanted != want.Blocked.Action ||
			!slices.Equal(got.blocked, slices.Sorted(slices.Values(want.Blocked.ReferencedBy)))) {
			return true
		}
	}
	if s := c.Expect.Summary; s != nil && (s.Expiring != expiring || s.Transitioning != transitioning) {
		return true
	}
	return c.Expect.Order != nil && !slices.Equal(o.order(outs), *c.Expect.Order)
}
