package lifecycle_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/lifecycle"
	. "github.com/wharfage/wharfage/lifecycle/lifecycletest"
)

// policy makes one of rules as "1 expire v* count 3" or "2 transition ^dev- pushed 14".
func policy(t testing.TB, rules ...string) *lifecycle.Policy {
	t.Helper()
	var list []lifecycle.Rule
	for _, text := range rules {
		var r lifecycle.Rule
		var who, what string
		if _, err := fmt.Sscan(text, &r.Priority, &r.Action.Type, &who, &what, &r.Selection.CountNumber); err != nil {
			t.Fatal(text, err)
		}
		s := &r.Selection
		if r.Action.Type == lifecycle.Transition {
			r.Action.TargetStorageClass = lifecycle.Archive
		}
		switch prefix, ok := strings.CutPrefix(who, "^"); {
		case who == "any" || who == "untagged":
			s.TagStatus = lifecycle.TagStatus(who)
		case ok:
			s.TagStatus, s.TagPrefixes = lifecycle.Tagged, strings.Split(prefix, "&")
		default:
			s.TagStatus, s.TagPatterns = lifecycle.Tagged, strings.Split(who, "&")
		}
		s.CountType, s.CountUnit = map[string]lifecycle.CountType{"count": lifecycle.ImageCountMoreThan, "pushed": lifecycle.SinceImagePushed,
			"pulled": lifecycle.SinceImagePulled, "archived": lifecycle.SinceImageTransitioned}[what], "days"
		if what == "count" {
			s.CountUnit = ""
		}
		if what == "archived" {
			s.StorageClass = lifecycle.Archive
		}
		list = append(list, r)
	}
	p, err := lifecycle.New(list...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func extended(t testing.TB, p *lifecycle.Policy, x lifecycle.Extensions) *lifecycle.Policy {
	t.Helper()
	p, err := p.Extend(x)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func with(t testing.TB, p *lifecycle.Policy, o lifecycle.Options) *lifecycle.Policy {
	t.Helper()
	p, err := p.With(o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// In ECR only a higher rule spares an image, and then from all lower rules and
// out of no count (containers-roadmap 1128, 1129).
func TestKeepRulesAlwaysWin(t *testing.T) {
	p := policy(t, "1 expire v* count 1", "2 expire untagged pushed 1")
	v1 := Image("v1", Tags("prod"), PushedDaysAgo(9))
	images := []lifecycle.Image{
		v1, Image("v2", PushedDaysAgo(8)), Image("v3", PushedDaysAgo(7)), Image("v4", PushedDaysAgo(6)),
		Untagged("pinned", PushedDaysAgo(5)), Untagged("old", PushedDaysAgo(4)), Untagged("signature", RefersTo(v1), PushedDaysAgo(9)),
	}
	Expect(t, p, images, Now(), Expires(1, "v1", "v2", "v3"), Expires(2, "pinned", "old"), Follows("signature"))
	p = extended(t, p, lifecycle.Extensions{Keep: []lifecycle.KeepRule{
		{Name: "in production", TagPatterns: []string{"staging", "prod*"}},
		{Name: "pinned", Digests: []digest.Digest{Digest("pinned")}},
		{Name: "two releases", TagPatterns: []string{"v*"}, Newest: 2},
	}})
	plan := Expect(t, p, images, Now(), Expires(1, "v2"), Expires(2, "old"), Keeps(lifecycle.ReasonKeepRule, "v1", "v3", "pinned"), Keeps(lifecycle.ReasonWithinCount, "v4"))
	if v := plan.Verdict(0); v.By != "in production" || !strings.Contains(v.String(), `rule 1 would expire it, but the keep rule "in production" names it`) {
		t.Errorf("%q: %s", v.By, v)
	}
	// A keep rule spares referrers as well, and counts as it finds.
	p = extended(t, p, lifecycle.Extensions{Keep: []lifecycle.KeepRule{{Name: "all", Newest: 1}, {Digests: []digest.Digest{Digest("signature")}}}})
	Expect(t, p, images, Now(), Expires(1, "v1", "v2", "v3"), Expires(2, "pinned"), Keeps(lifecycle.ReasonKeepRule, "old", "signature"))
}

// What refers to a referrer that is spared has a subject, and stays with it.
func TestReferrersOfWhatIsSparedStay(t *testing.T) {
	v1 := Image("v1", PushedDaysAgo(9))
	sbom := Untagged("sbom", RefersTo(v1), PushedDaysAgo(9))
	signature := Untagged("signature", RefersTo(sbom), PushedDaysAgo(9))
	stamp := Untagged("stamp", RefersTo(signature), PushedDaysAgo(9))
	images := []lifecycle.Image{stamp, signature, v1, sbom, Untagged("other", RefersTo(v1), PushedDaysAgo(9))}
	keep := lifecycle.Extensions{Keep: []lifecycle.KeepRule{{Digests: []digest.Digest{sbom.Digest}}}}
	expire, archive := policy(t, "1 expire v* pushed 8"), policy(t, "1 transition v* pushed 8")
	Expect(t, expire, images, Now(), Expires(1, "v1"), Follows("sbom", "signature", "stamp", "other"))
	plan := Expect(t, extended(t, expire, keep), images, Now(), Expires(1, "v1"), Follows("other"),
		Keeps(lifecycle.ReasonKeepRule, "sbom"), Keeps(lifecycle.ReasonSubjectStays, "signature", "stamp"))
	if v := plan.Verdict(1); v.String() != "keep: its subject "+string(sbom.Digest[:19])+" stays, though what both follow goes" {
		t.Error(v)
	}
	Expect(t, extended(t, archive, keep), images, Now(), Archives(1, "v1"), Follows("other"),
		Keeps(lifecycle.ReasonKeepRule, "sbom"), Keeps(lifecycle.ReasonSubjectStays, "signature", "stamp"))
}

// In ECR a rule says what it is about, and never what not (1738).
func TestExcludedImagesAreLeftToLowerRules(t *testing.T) {
	p := policy(t, "1 expire v* count 1", "2 expire any pushed 30")
	images := []lifecycle.Image{Image("v1", PushedDaysAgo(9)), Image("v2-rc", PushedDaysAgo(8)), Image("v3", Tags("keep-me"), PushedDaysAgo(40)), Image("v4", PushedDaysAgo(7))}
	Expect(t, p, images, Now(), Expires(1, "v1", "v2-rc", "v3"))
	p = extended(t, p, lifecycle.Extensions{Rules: []lifecycle.RuleExtension{{Priority: 1, Exclude: []string{"*-rc", "keep*"}}}})
	plan := Expect(t, p, images, Now(), Expires(1, "v1"), Expires(2, "v3"), Keeps(lifecycle.ReasonYoung, "v2-rc"))
	if x, err := lifecycle.Explain(plan, "v3"); err != nil || !strings.Contains(x.String(), "rule 1 does not see it: it has a tag that is excluded: one of *-rc, keep*") {
		t.Errorf("%s, %v", x, err)
	}
}

// "Older than 30 days, but keep the last 2" (aws-cdk 28885).
func TestAMinimumIsKeptBesideAnAge(t *testing.T) {
	p := extended(t, policy(t, "1 expire v* pushed 30", "2 expire any pushed 100"), lifecycle.Extensions{Rules: []lifecycle.RuleExtension{{Priority: 1, KeepNewest: 2}}})
	old := []lifecycle.Image{Image("v1", PushedDaysAgo(60)), Image("v2", PushedDaysAgo(50)), Image("v3", PushedDaysAgo(40)), Image("v4", NoPushTime())}
	plan := Expect(t, p, old, Now(), Expires(1, "v1"), Keeps(lifecycle.ReasonKeepNewest, "v2", "v3"), Keeps(lifecycle.ReasonTimeUnknown, "v4"))
	if v := plan.Verdict(1); v.String() != "keep: rule 1 spares the 2 newest, and this is number 2 of 3, although it was pushed 50 days ago; rule 2 would see it too, but only the first may act" {
		t.Error(v)
	}
	Expect(t, p, append(old, Image("v5")), Now(), Expires(1, "v1", "v2"), Keeps(lifecycle.ReasonKeepNewest, "v3"), Keeps(lifecycle.ReasonYoung, "v5"))
}

// What runs somewhere stays (images used by ECS, EKS, Lambda).
func TestImagesInUseAreKept(t *testing.T) {
	asked := map[digest.Digest]int{}
	p := extended(t, policy(t, "1 expire any count 1"), lifecycle.Extensions{InUse: func(im *lifecycle.Image) string {
		asked[im.Digest]++
		if slices.Contains(im.Tags, "v1") {
			return "service web in production"
		}
		return ""
	}})
	v2 := Image("v2", PushedDaysAgo(2))
	plan := Expect(t, p, []lifecycle.Image{Image("v1", PushedDaysAgo(3)), v2, Image("v3"), Untagged("s", PushedDaysAgo(2), RefersTo(v2))}, Now(),
		Expires(1, "v2"), Keeps(lifecycle.ReasonInUse, "v1"), Follows("s"))
	if v := plan.Verdict(0); v.By != "service web in production" || v.String() != "keep: rule 1 would expire it, but it is in use by service web in production" {
		t.Errorf("%q: %s", v.By, v)
	}
	if len(asked) != 3 || asked[Digest("v3")] > 0 || asked[Digest("v1")] != 1 {
		t.Errorf("asked %v", asked)
	}
}

// An index and its children are one thing to people (1466, 1596, 2613).
func TestUnits(t *testing.T) {
	platforms := func(v string, days int) []lifecycle.Image {
		a, b := Untagged(v+"-amd64", PushedDaysAgo(days+1)), Untagged(v+"-arm64", PushedDaysAgo(days+1))
		return []lifecycle.Image{a, b, Image(v, PushedDaysAgo(days), Lists(a, b)), Untagged(v+"-sbom", PushedDaysAgo(days), RefersTo(a))}
	}
	images := slices.Concat(platforms("v1", 9), platforms("v2", 5), platforms("v3", 2))
	p := policy(t, "1 expire any count 2")
	// To ECR these are nine images, of which two are kept.
	Expect(t, p, images, Now(), Expires(1, "v1", "v2"), Keeps(lifecycle.ReasonListed, "v1-amd64", "v1-arm64", "v2-amd64", "v2-arm64", "v3-arm64"), Keeps("", "v3", "v3-amd64"))
	p = extended(t, p, lifecycle.Extensions{Units: true})
	plan := Expect(t, p, images, Now(), Expires(1, "v1"), Follows("v1-amd64", "v1-arm64", "v1-sbom"), Keeps(lifecycle.ReasonIndexStays, "v2-amd64", "v3-arm64"))
	var order []string
	for _, i := range plan.Order() {
		order = append(order, string(plan.Verdict(i).Via))
	}
	if got := strings.Join(order, " "); got != "rule index index subject" {
		t.Errorf("order is %s", got)
	}
	// What another index lists too stays, and a tagged child is by itself.
	shared := Untagged("shared", PushedDaysAgo(9))
	tagged := Image("tool", PushedDaysAgo(9))
	images = []lifecycle.Image{shared, tagged, Image("v1", Lists(shared, tagged), PushedDaysAgo(8)), Image("v2", Lists(shared), PushedDaysAgo(1)), Image("v3")}
	Expect(t, p, images, Now(), Expires(1, "v1"), Keeps(lifecycle.ReasonIndexStays, "shared"), Keeps(lifecycle.ReasonListed, "tool"))
	archive := extended(t, policy(t, "1 transition v* count 1"), lifecycle.Extensions{Units: true})
	Expect(t, archive, images, Now(), Archives(1, "v1", "v2"), Follows("shared"))
}

// A rule can be about tags rather than images (2568).
func TestTagsOnly(t *testing.T) {
	p := extended(t, policy(t, "1 expire build-* count 1", "2 expire untagged pushed 5"), lifecycle.Extensions{Rules: []lifecycle.RuleExtension{{Priority: 1, TagsOnly: true}}})
	part := Image("build-0", PushedDaysAgo(9))
	images := []lifecycle.Image{
		Image("build-1", PushedDaysAgo(8), Tags("v1", "build-x")), Image("build-2", PushedDaysAgo(7)), Image("build-3", PushedDaysAgo(6)), part,
		Image("index", Lists(part)),
	}
	plan := Expect(t, p, images, Now(), Untags(1, "build-0", "build-1", "build-2"))
	if v := plan.Verdict(0); !slices.Equal(v.Tags, []string{"build-1", "build-x"}) || !strings.HasSuffix(v.String(), "; it loses tags build-1, build-x, and stays") {
		t.Errorf("%v: %s", v.Tags, v)
	}
	after := plan.Outcome()
	if !slices.Equal(after[0].Tags, []string{"v1"}) || len(after[1].Tags) > 0 || len(after) != 5 || len(images[0].Tags) != 3 {
		t.Errorf("after it %+v", after)
	}
	// Untagged, they are what the other rule is about.
	Expect(t, p, after, Now(), Expires(2, "build-2"), Keeps(lifecycle.ReasonListed, "build-0"))
}

// A rule for any image that takes tags only is done with what has none: it neither
// acts on it, again in each run, nor counts it.
func TestTagsOnlySeesNoUntaggedImages(t *testing.T) {
	tagsOnly := lifecycle.Extensions{Rules: []lifecycle.RuleExtension{{Priority: 1, TagsOnly: true}}}
	images := []lifecycle.Image{Image("v1", PushedDaysAgo(9)), Image("v2", PushedDaysAgo(8)), Untagged("left", PushedDaysAgo(7))}
	for _, p := range []*lifecycle.Policy{extended(t, policy(t, "1 expire any pushed 8"), tagsOnly), extended(t, policy(t, "1 expire any count 1"), tagsOnly)} {
		plan := Expect(t, p, images, Now(), Untags(1, "v1"), Keeps(lifecycle.ReasonNoRule, "left"))
		if x, err := lifecycle.Explain(plan, string(Digest("left"))); err != nil || x.Rules[0].Why != "it has no tag" {
			t.Errorf("%v, %v", x, err)
		}
		Expect(t, p, plan.Outcome(), Now())
	}
}

func TestExtensionsAreChecked(t *testing.T) {
	p := policy(t, "1 expire v* count 1", "2 expire untagged pushed 5", "3 transition any pushed 5")
	long := strings.Repeat("x", 257)
	for want, x := range map[string]lifecycle.Extensions{
		"/extensions/Keep/1/Newest":        {Keep: []lifecycle.KeepRule{{}, {Newest: -1}}},
		"/extensions/Keep/0/TagPatterns/1": {Keep: []lifecycle.KeepRule{{TagPatterns: []string{"a", ""}}}},
		"/extensions/Keep":                 {Keep: make([]lifecycle.KeepRule, 201)},
		"/extensions/Rules/0/Priority":     {Rules: []lifecycle.RuleExtension{{Priority: 4}}},
		"/extensions/Rules/1/Priority":     {Rules: []lifecycle.RuleExtension{{Priority: 1}, {Priority: 1}}},
		"/extensions/Rules/0/Exclude/0":    {Rules: []lifecycle.RuleExtension{{Priority: 1, Exclude: []string{long}}}},
		"/extensions/Rules/0/KeepNewest":   {Rules: []lifecycle.RuleExtension{{Priority: 1, KeepNewest: -1}}},
		"/extensions/Rules/0/TagsOnly":     {Rules: []lifecycle.RuleExtension{{Priority: 2, TagsOnly: true}}},
		"/extensions/Rules/0/TagsOnly ":    {Rules: []lifecycle.RuleExtension{{Priority: 3, TagsOnly: true}}},
	} {
		q, err := p.Extend(x)
		var invalid *lifecycle.InvalidError
		if q != nil || !errors.As(err, &invalid) || len(invalid.Fields) != 1 || invalid.Fields[0].Pointer != strings.TrimSpace(want) || invalid.Fields[0].Category != lifecycle.CategoryExtension {
			t.Errorf("%s: %v", want, err)
		}
	}
	if _, err := p.With(lifecycle.Options{Day: -1}); !errors.Is(err, lifecycle.ErrInvalid) {
		t.Errorf("a negative day: %v", err)
	}
	mine := lifecycle.Extensions{Keep: []lifecycle.KeepRule{{TagPatterns: []string{"v1"}}}, Rules: []lifecycle.RuleExtension{{Priority: 1, Exclude: []string{"v2"}}}}
	q := extended(t, p, mine)
	for _, x := range []lifecycle.Extensions{mine, q.Extensions()} {
		x.Keep[0].TagPatterns[0], x.Rules[0].Exclude[0], x.Keep[0].Newest = "x", "x", 1
	}
	if x := q.Extensions(); x.Keep[0].TagPatterns[0] != "v1" || x.Rules[0].Exclude[0] != "v2" || x.Keep[0].Newest != 0 {
		t.Error("extensions were changed from outside")
	}
	if got := extended(t, p, lifecycle.Extensions{Units: true}); !got.Equal(p) || !got.Extensions().Units || p.Extensions().Units {
		t.Error("Extend changes the policy")
	}
}

func TestOptions(t *testing.T) {
	count, age := policy(t, "1 expire v* count 1"), policy(t, "1 expire v* pushed 2")
	tie := []lifecycle.Image{Image("v1"), Image("v2")}
	first, second := "v1", "v2" // by digest
	if Digest("v1") > Digest("v2") {
		first, second = second, first
	}
	Expect(t, count, tie, Now(), Expires(1, second))
	Expect(t, with(t, count, lifecycle.Options{DescendingTies: true}), tie, Now(), Expires(1, first))

	v1 := Image("v1", PushedDaysAgo(2))
	Expect(t, age, []lifecycle.Image{v1}, Now())
	Expect(t, with(t, age, lifecycle.Options{Day: 23 * time.Hour}), []lifecycle.Image{v1}, Now(), Expires(1, "v1"))

	upper := []lifecycle.Image{Image("V1", PushedDaysAgo(3))}
	Expect(t, age, upper, Now(), Keeps(lifecycle.ReasonNoRule, "V1"))
	Expect(t, with(t, age, lifecycle.Options{IgnoreCase: true}), upper, Now(), Expires(1, "V1"))

	old := Image("v1", PushedDaysAgo(3))
	signature := Image("vsig", PushedAgo(25*time.Hour), RefersTo(old))
	both := []lifecycle.Image{old, signature}
	Expect(t, age, both, Now(), Expires(1, "v1"), Follows("vsig"))
	Expect(t, with(t, age, lifecycle.Options{NextPassReferrers: true}), both, Now(), Expires(1, "v1"), Keeps(lifecycle.ReasonSubjectStays, "vsig"))
	Expect(t, with(t, age, lifecycle.Options{ReferrerGrace: 26 * time.Hour}), both, Now(), Expires(1, "v1"), Keeps(lifecycle.ReasonGrace, "vsig"))
	Expect(t, with(t, count, lifecycle.Options{CountReferrers: true}), both, Now(), Expires(1, "v1"), Follows("vsig"))
	Expect(t, with(t, count, lifecycle.Options{CountReferrers: true}), both[1:], Now(), Follows("vsig"))

	part := Untagged("part", PushedDaysAgo(3))
	index := []lifecycle.Image{Image("v1", PushedDaysAgo(3), Lists(part)), part}
	all := policy(t, "1 expire any pushed 2")
	Expect(t, all, index, Now(), Expires(1, "v1"), Keeps(lifecycle.ReasonListed, "part"))
	plan := Expect(t, with(t, all, lifecycle.Options{SamePassChildren: true}), index, Now(), Expires(1, "v1", "part"))
	if order := plan.Order(); !slices.Equal(order, []int{0, 1}) {
		t.Errorf("order is %v: the index goes first", order)
	}

	cold := policy(t, "1 transition v* pulled 10")
	pulls := []lifecycle.Image{Image("v1", PushedDaysAgo(50)), Image("v2", PushedDaysAgo(50), PulledDaysAgo(3)), Image("v3", NoPushTime()), Image("v4", PushedDaysAgo(10))}
	Expect(t, cold, pulls, Now(), Archives(1, "v1"), Keeps(lifecycle.ReasonTimeUnknown, "v3"))
	since := with(t, cold, lifecycle.Options{PullsSince: DaysLater(-5)})
	plan = Expect(t, since, pulls, Now(), Keeps(lifecycle.ReasonPullsUnknown, "v1"), Keeps(lifecycle.ReasonYoung, "v2", "v4"), Keeps(lifecycle.ReasonTimeUnknown, "v3"))
	if v := plan.Verdict(0); !strings.Contains(v.String(), "pulls are only known since 2025-12-27T12:00:00Z") {
		t.Error(v)
	}
	Expect(t, since, pulls, DaysLater(5), Keeps(lifecycle.ReasonPullsUnknown, "v1", "v4"))
	Expect(t, since, pulls, DaysLater(6), Archives(1, "v1", "v4"))
}
