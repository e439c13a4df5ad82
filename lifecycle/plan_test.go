package lifecycle_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/lifecycle"
	. "github.com/wharfage/wharfage/lifecycle/lifecycletest"
)

func TestUnknownTimesKeep(t *testing.T) {
	unknown := Image("v0", NoPushTime())
	images := []lifecycle.Image{unknown, Image("v1", PushedDaysAgo(9)), Image("v2", PushedDaysAgo(8)), Image("v3")}
	// It takes no place in a count: two of the others stay.
	Expect(t, policy(t, "1 expire v* count 2"), images, Now(), Expires(1, "v1"), Keeps(lifecycle.ReasonTimeUnknown, "v0"))
	Expect(t, policy(t, "1 expire v* pushed 1"), images, Now(), Expires(1, "v1", "v2"), Keeps(lifecycle.ReasonTimeUnknown, "v0"))
	Expect(t, policy(t, "1 transition v* pulled 1"), images, Now(), Archives(1, "v1", "v2"), Keeps(lifecycle.ReasonTimeUnknown, "v0"))
	// A pull, or a restore, is a time.
	unknown.PulledAt = DaysLater(-5)
	Expect(t, policy(t, "1 transition v* pulled 1"), []lifecycle.Image{unknown}, Now(), Archives(1, "v0"))
	unknown.RestoredAt = DaysLater(-3)
	Expect(t, policy(t, "1 expire v* pushed 2"), []lifecycle.Image{unknown}, Now(), Expires(1, "v0"))
	archived := Image("v0", ArchivedDaysAgo(100))
	archived.ArchivedAt = time.Time{}
	orphan := Untagged("orphan", NoPushTime(), RefersTo(Image("gone")))
	plan := Expect(t, policy(t, "1 expire v* archived 90"), []lifecycle.Image{archived, orphan}, Now(), Keeps(lifecycle.ReasonTimeUnknown, "v0", "orphan"))
	for i, want := range []string{"rule 1 needs the time of its move to the archive, which is not known", "when it came to its storage class is not known"} {
		if s := plan.Verdict(i).String(); !strings.Contains(s, want) {
			t.Errorf("%q does not say %q", s, want)
		}
	}
	if s := plan.Summary(); s.Unknown != 2 || !strings.Contains(s.String(), "2 of unknown age, nothing to do") {
		t.Errorf("%+v: %s", s, s)
	}
}

func TestStorageClassesThatNoRuleSees(t *testing.T) {
	class := func(c lifecycle.StorageClass) Option { return func(im *lifecycle.Image) { im.StorageClass = c } }
	old := PushedDaysAgo(900)
	images := []lifecycle.Image{
		Image("a", old, class(lifecycle.Activating)), Image("b", old, class("glacier")), Image("c", old, ArchivedDaysAgo(500)), Image("d", old, class(lifecycle.Standard)),
		Untagged("e", old, class(lifecycle.Activating), RefersTo(Image("gone"))),
	}
	plan := Expect(t, policy(t, "1 expire any pushed 1"), images, Now(), Expires(1, "d"), Keeps(lifecycle.ReasonClass, "a", "b", "e"), Keeps(lifecycle.ReasonNoRule, "c"))
	for i, want := range []string{"on its way back from the archive", `its storage class "glacier" is not known`} {
		if s := plan.Verdict(i).String(); !strings.Contains(s, want) {
			t.Errorf("%q does not say %q", s, want)
		}
	}
	Expect(t, policy(t, "1 expire any archived 90"), images, Now(), Expires(1, "c"), Keeps(lifecycle.ReasonClass, "a", "b", "e"), Keeps(lifecycle.ReasonNoRule, "d"))
	Expect(t, policy(t, "1 expire x count 1"), images[:2], Now(), Keeps(lifecycle.ReasonClass, "a", "b"))
}

func TestTimesInTheFutureAreNewest(t *testing.T) {
	images := []lifecycle.Image{Image("v1", PushedDaysAgo(-3)), Image("v2", PushedDaysAgo(2)), Image("v3", PushedDaysAgo(-100*365))}
	Expect(t, policy(t, "1 expire v* count 1"), images, Now(), Expires(1, "v1", "v2"))
	plan := Expect(t, policy(t, "1 expire v* pushed 1"), images, Now(), Expires(1, "v2"))
	if s := plan.Verdict(0).String(); !strings.Contains(s, "pushed in the future, by 3 days") {
		t.Error(s)
	}
	// Times that no clock has are in order, and nothing wraps.
	images[0].PushedAt, images[2].PushedAt = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(99999, 1, 1, 0, 0, 0, 0, time.UTC)
	Expect(t, policy(t, "1 expire v* count 1"), images, Now(), Expires(1, "v1", "v2"))
	images[1].PushedAt = time.Date(-5000, 1, 1, 0, 0, 0, 0, time.UTC)
	Expect(t, policy(t, "1 expire v* pushed 1"), images, Now(), Expires(1, "v2"))
	Expect(t, policy(t, fmt.Sprint("1 expire v* pushed ", int64(1)<<62)), images, Now())
	Expect(t, policy(t, "1 expire v* pushed 1"), images, time.Time{})
}

func TestReferencesInCircles(t *testing.T) {
	circle := func(n int, link func(*lifecycle.Image, digest.Digest)) (images []lifecycle.Image) {
		for i := range n {
			im := Untagged(fmt.Sprint(i), PushedDaysAgo(9))
			link(&im, Digest(fmt.Sprint((i+1)%n)))
			images = append(images, im)
		}
		return images
	}
	p := policy(t, "1 expire any pushed 1")
	all := func(n int) (names []string) {
		for i := range n {
			names = append(names, fmt.Sprint(i))
		}
		return names
	}
	for n := range 4 {
		subjects := circle(n, func(im *lifecycle.Image, d digest.Digest) { im.Subject = d })
		Expect(t, p, subjects, Now(), Keeps(lifecycle.ReasonCircle, all(n)...))
		lists := circle(n, func(im *lifecycle.Image, d digest.Digest) { im.Manifests = append(im.Manifests, d) })
		Expect(t, p, lists, Now(), Keeps(lifecycle.ReasonListed, all(n)...))
		Expect(t, with(t, p, lifecycle.Options{SamePassChildren: true}), lists, Now(), Keeps(lifecycle.ReasonListed, all(n)...))
		Expect(t, extended(t, p, lifecycle.Extensions{Units: true}), lists, Now())
	}
}

// A chain as long as somebody cares to push must not cost a stack.
func TestLongChains(t *testing.T) {
	const n = 50_000
	subjects, lists := make([]lifecycle.Image, n), make([]lifecycle.Image, n)
	for i := range n {
		im := lifecycle.Image{Digest: digest.Digest(fmt.Sprint("sha256:", i)), PushedAt: DaysLater(-9)}
		subjects[i], lists[i] = im, im
		if i > 0 {
			subjects[i].Subject = subjects[i-1].Digest
		}
		if i < n-1 {
			lists[i].Manifests = []digest.Digest{digest.Digest(fmt.Sprint("sha256:", i+1))}
		}
	}
	p := policy(t, "1 expire any pushed 1")
	reversed := slices.Clone(subjects)
	slices.Reverse(reversed)
	for _, images := range [][]lifecycle.Image{subjects, reversed} {
		plan := lifecycle.Evaluate(p, images, Now())
		order := plan.Order()
		if len(order) != n {
			t.Fatalf("%d of %d go", len(order), n)
		}
		for j, i := range order {
			if want := digest.Digest(fmt.Sprint("sha256:", j)); plan.Image(i).Digest != want {
				t.Fatalf("%s is number %d", plan.Image(i).Digest, j)
			}
		}
	}
	if got := lifecycle.Evaluate(p, lists, Now()).Summary(); got.Expiring != 1 || got.Blocked != n-1 {
		t.Errorf("%+v", got)
	}
	plan := lifecycle.Evaluate(with(t, p, lifecycle.Options{SamePassChildren: true}), lists, Now())
	if got := plan.Summary(); got.Expiring != n {
		t.Errorf("in one pass %+v", got)
	}
	for j, i := range plan.Order() {
		if i != j {
			t.Fatalf("image %d is number %d: lists go first", i, j)
		}
	}
	if got := lifecycle.Evaluate(extended(t, p, lifecycle.Extensions{Units: true}), lists, Now()).Summary(); got.Expiring != 1 || got.Following != n-1 {
		t.Errorf("as one unit %+v", got)
	}
}

// Each of two images with one digest is protected, whichever an index means.
func TestADigestGivenTwice(t *testing.T) {
	part := Untagged("part", PushedDaysAgo(9))
	images := []lifecycle.Image{part, part, Image("index", Lists(part, part))}
	plan := lifecycle.Evaluate(policy(t, "1 expire untagged pushed 1"), images, Now())
	for i := range 2 {
		if v := plan.Verdict(i); v.Reason != lifecycle.ReasonListed || len(v.Blocked.ReferencedBy) != 1 {
			t.Error(v)
		}
	}
}

func TestNothingIsDoneWithNothing(t *testing.T) {
	for _, p := range []*lifecycle.Policy{nil, {}, policy(t, "1 expire any count 1")} {
		plan := lifecycle.Evaluate(p, nil, Now())
		if plan.Len() != 0 || len(plan.Order()) != 0 || len(plan.Outcome()) != 0 || plan.Summary() != (lifecycle.Summary{}) {
			t.Errorf("%s", plan)
		}
		plan = lifecycle.Evaluate(p, []lifecycle.Image{Image("v1")}, Now())
		if plan.Action(0) != lifecycle.Keep {
			t.Errorf("%s", plan)
		}
	}
}

func TestCountsLargerThanAnyRepository(t *testing.T) {
	Expect(t, policy(t, fmt.Sprint("1 expire any count ", int64(1)<<33)), []lifecycle.Image{Image("v1"), Image("v2")}, Now())
}

func TestPlanAsJSON(t *testing.T) {
	part := Untagged("part", PushedDaysAgo(9))
	v1 := Image("v1", PushedDaysAgo(3))
	images := []lifecycle.Image{v1, Image("v2", Lists(part)), part, Untagged("sbom", PushedDaysAgo(2), RefersTo(v1))}
	plan := Expect(t, policy(t, "1 expire v* count 1", "2 transition untagged pushed 7"), images, Now(), Expires(1, "v1"), Follows("sbom"))
	text, err := json.Marshal(plan)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Now     time.Time
		Policy  *lifecycle.Policy
		Summary map[string]int
		Images  []struct {
			Digest  digest.Digest
			Tags    []string
			Action  lifecycle.ActionType
			Via     lifecycle.Via
			Rule    int64
			Age     int64
			Subject digest.Digest
			Blocked *lifecycle.Blocked
			Why     string
		}
	}
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	if !got.Now.Equal(Now()) || !got.Policy.Equal(plan.Policy()) || len(got.Images) != 4 || got.Summary["expiring"] != 1 || got.Summary["following"] != 1 || got.Summary["blocked"] != 1 {
		t.Errorf("%s", text)
	}
	im := got.Images[2]
	if im.Tags == nil || im.Age != 9*86400 || im.Blocked.Rule != 2 || im.Blocked.Action != lifecycle.Transition || !slices.Equal(im.Blocked.ReferencedBy, []digest.Digest{Digest("v2")}) {
		t.Errorf("%s", text)
	}
	if got.Images[3].Subject != v1.Digest || got.Images[3].Via != lifecycle.ViaSubject || got.Images[0].Rule != 1 {
		t.Errorf("%s", text)
	}
}

func TestPreview(t *testing.T) {
	images := []lifecycle.Image{
		Image("cold", PushedDaysAgo(90)), Image("v1", PushedDaysAgo(30)), Image("v2", PushedAgo(1500*time.Millisecond)),
		Untagged("sbom", PushedDaysAgo(20), RefersTo(Image("v1"))), Image("frozen", PushedDaysAgo(500), ArchivedDaysAgo(100)),
	}
	plan := Expect(t, policy(t, "1 expire v* count 1", "2 transition cold pulled 60", "3 expire any archived 90"), images, Now(),
		Expires(1, "v1"), Expires(3, "frozen"), Archives(2, "cold"), Follows("sbom"))
	text, err := json.Marshal(plan.Preview())
	if err != nil {
		t.Fatal(err)
	}
	_, got, _ := strings.Cut(string(text), `"status"`)
	want := fmt.Sprintf(`:"COMPLETE","previewResults":[`+
		`{"imageTags":["frozen"],"imageDigest":"%s","imagePushedAt":%d,"storageClass":"ARCHIVE","action":{"type":"EXPIRE"},"appliedRulePriority":3},`+
		`{"imageTags":["cold"],"imageDigest":"%s","imagePushedAt":%d,"storageClass":"STANDARD","action":{"type":"TRANSITION","targetStorageClass":"ARCHIVE"},"appliedRulePriority":2},`+
		`{"imageTags":["v1"],"imageDigest":"%s","imagePushedAt":%d,"storageClass":"STANDARD","action":{"type":"EXPIRE"},"appliedRulePriority":1}],`+
		`"summary":{"expiringImageTotalCount":2,"transitioningImageTotalCounts":[{"targetStorageClass":"ARCHIVE","imageTotalCount":1}]}}`,
		Digest("frozen"), DaysLater(-500).Unix(), Digest("cold"), DaysLater(-90).Unix(), Digest("v1"), DaysLater(-30).Unix())
	// What was archived 100 days ago is older than what was pushed 90 days ago.
	if got != want {
		t.Errorf("preview is %s\nwant %s", got, want)
	}
}

// TestExplainSaysWhatEachRuleThinks compares the view of the owner with the
// verdict, and has each way not to be seen.
func TestExplainSaysWhatEachRuleThinks(t *testing.T) {
	part := Untagged("part", PushedDaysAgo(20))
	images := []lifecycle.Image{
		Image("v1", PushedDaysAgo(20), Tags("x")), Image("v2", PushedDaysAgo(10), Lists(part)), Image("v3", PushedDaysAgo(3)), part, Untagged("u", PushedDaysAgo(9)),
		Image("frozen", PushedDaysAgo(500), ArchivedDaysAgo(95)), Untagged("sbom", RefersTo(part)), Image("v0", NoPushTime()), Image("cold", PushedDaysAgo(70)),
	}
	p := policy(t, "1 expire v*&x count 5", "2 expire v* count 1", "3 expire untagged pushed 8", "4 transition ^cold&^co pulled 60", "5 expire any pushed 15", "6 expire any archived 90")
	for _, p := range []*lifecycle.Policy{p, extended(t, p, lifecycle.Extensions{
		Units: true, Rules: []lifecycle.RuleExtension{{Priority: 2, Exclude: []string{"v3"}}, {Priority: 5, KeepNewest: 1}}, Keep: []lifecycle.KeepRule{{Digests: []digest.Digest{Digest("part")}}},
	})} {
		plan := lifecycle.Evaluate(p, images, Now())
		var all strings.Builder
		for v := range plan.Verdicts() {
			x, err := lifecycle.Explain(plan, string(v.Image.Digest))
			if err != nil || len(x.Rules) != 6 {
				t.Fatal(err)
			}
			all.WriteString(x.String())
			seen := []int64{}
			for _, r := range x.Rules {
				if r.Sees {
					seen = append(seen, r.Priority)
				}
				if r.Priority == v.Owner && r.Due != (v.Action != lifecycle.Keep || v.Reason == lifecycle.ReasonListed) {
					t.Errorf("%s: its owner says due: %v", v, r.Due)
				}
				if r.Why == "" || strings.HasSuffix(r.Why, "one of ") {
					t.Errorf("%s: rule %d says %q", v, r.Priority, r.Why)
				}
			}
			want := v.Also
			if v.Owner != 0 {
				want = append([]int64{v.Owner}, v.Also...)
			}
			if !slices.Equal(seen, want) {
				t.Errorf("%s: seen by %v", v, seen)
			}
		}
		for _, part := range []string{`no tag matches "x"`, "it has a tag", "it has no tag", `no tag begins with "cold"`, "it is in the storage class archive", "it is in the storage class standard", "a referrer follows its subject", "needs its push time, which is not known"} {
			if !strings.Contains(all.String(), part) {
				t.Errorf("nothing says %q:\n%s", part, all.String())
			}
		}
	}
}

// TestExplainReferrers that rules count, by what the rules say of them.
func TestExplainReferrers(t *testing.T) {
	p := with(t, policy(t, "1 expire any count 1"), lifecycle.Options{CountReferrers: true})
	old := Image("v1", PushedDaysAgo(3))
	plan := lifecycle.Evaluate(p, []lifecycle.Image{old, Image("signature", PushedDaysAgo(2), RefersTo(old))}, Now())
	x, err := lifecycle.Explain(plan, "signature")
	if err != nil || len(x.Rules) != 1 || !x.Rules[0].Sees || x.Rules[0].Due || x.Verdict.Via != lifecycle.ViaSubject {
		t.Errorf("%v, %v", x, err)
	}
	// What is spared would have gone with its subject, and not by its rule.
	p = extended(t, p, lifecycle.Extensions{Keep: []lifecycle.KeepRule{{Name: "signed", TagPatterns: []string{"sig*"}}}})
	plan = lifecycle.Evaluate(p, []lifecycle.Image{old, Image("signature", PushedDaysAgo(2), RefersTo(old))}, Now())
	if v := plan.Verdict(1); v.String() != `keep: its subject, or its index, would expire it, but the keep rule "signed" names it` {
		t.Error(v)
	}
	plan = lifecycle.Evaluate(p, []lifecycle.Image{old, Image("signature", PushedDaysAgo(2), RefersTo(old)), Image("v2")}, Now())
	if v := plan.Verdict(1); v.String() != `keep: rule 1 would expire it, but the keep rule "signed" names it` {
		t.Error(v)
	}
}

// TestSentencesAreOneLine, whatever a policy has: who prints them is not who wrote it.
func TestSentencesAreOneLine(t *testing.T) {
	p, err := lifecycle.Parse(`{"rules":[{"rulePriority":1,"description":"a\nb\t\u001b[2Jé","selection":{"tagStatus":"any","countType":"imageCountMoreThan","countNumber":1},"action":{"type":"expire"}}]}`)
	if err != nil {
		t.Fatal(err)
	}
	if v := lifecycle.Evaluate(p, []lifecycle.Image{Image("v1")}, Now()).Verdict(0); !strings.HasPrefix(v.String(), "keep: rule 1 (a b  [2Jé) keeps") {
		t.Errorf("%q", v)
	}
	if s := lifecycle.Evaluate(policy(t, "1 expire v* count 1", "2 expire ^a\x1b,\x1b count 2"), []lifecycle.Image{Image("a\x1b,\x1b")}, Now()).Verdict(0).String(); strings.ContainsRune(s, '\x1b') {
		t.Errorf("%q", s)
	}
	if _, err := lifecycle.Parse(`{"rules":[],"\u001b[2J":1}`); err == nil || strings.ContainsRune(err.Error(), '\x1b') {
		t.Errorf("%q", err)
	}
}

func TestDiffPairsByDigest(t *testing.T) {
	p := policy(t, "1 expire v* pushed 7", "2 transition w* pushed 7")
	images := []lifecycle.Image{Image("v1", PushedDaysAgo(8)), Image("v2", PushedDaysAgo(7)), Image("w", PushedDaysAgo(7)), Image("x")}
	today := lifecycle.Evaluate(p, images, Now())
	later := append(slices.Clone(images[1:]), Image("y"))
	slices.Reverse(later)
	d := lifecycle.Diff(today, lifecycle.Evaluate(p, later, DaysLater(1)))
	if len(d.Deleted) != 1 || d.Deleted[0].After.Image.Digest != Digest("v2") || len(d.Spared) != 0 || len(d.Other) != 1 || d.Same != 1 || d.Only != 2 {
		t.Errorf("%+v", d)
	}
	if d = lifecycle.Diff(today, today); d.Same != 4 || d.Only+len(d.Deleted)+len(d.Spared)+len(d.Other) != 0 {
		t.Errorf("%+v", d)
	}
	if d = lifecycle.Diff(lifecycle.Evaluate(p, nil, Now()), lifecycle.Evaluate(p, nil, Now())); d.Same+d.Only+len(d.Deleted) != 0 {
		t.Errorf("%+v", d)
	}
}

// TestForecastIsWhatPassesDo compares a forecast with a pass a day.
func TestForecastIsWhatPassesDo(t *testing.T) {
	rnd := rand.New(rand.NewPCG(7, 8))
	var images []lifecycle.Image
	for i := range 300 {
		im := Image(fmt.Sprint([]string{"v", "dev-", "base-"}[rnd.IntN(3)], i), PushedAgo(time.Duration(rnd.IntN(60*24))*time.Hour), Bytes(rnd.Int64N(100)))
		if i%5 == 4 {
			im.Tags, im.Subject = nil, images[rnd.IntN(i)].Digest
		}
		if i%7 == 6 {
			im.Manifests = []digest.Digest{images[rnd.IntN(i)].Digest}
		}
		images = append(images, im)
	}
	p := extended(t, policy(t, "1 expire v* count 20", "2 expire ^dev- pushed 30", "3 transition ^base- pulled 50", "4 expire any archived 90"),
		lifecycle.Extensions{Rules: []lifecycle.RuleExtension{{Priority: 2, TagsOnly: true}}})
	line := lifecycle.Forecast(p, images, Now(), DaysLater(200))
	r := &Repository{Policy: p, Images: images, Now: Now()}
	n := 0
	for _, day := range line.Days {
		if !day.At.Equal(r.Now) {
			t.Fatalf("day %v, want %v", day.At, r.Now)
		}
		plan := r.Pass()
		for _, i := range plan.Order() {
			v, d := plan.Verdict(i), line.Departures[n]
			if d.Digest != v.Image.Digest || d.Action != v.Action || d.Rule != v.Rule || d.Via != v.Via || !d.At.Equal(r.Now) || d.Why != v.String() {
				t.Fatalf("departure %d is %+v, a pass did %s", n, d, v)
			}
			n++
		}
		var want lifecycle.Day
		for _, im := range r.Images {
			want.Images++
			want.Bytes += im.Size
			if im.StorageClass == lifecycle.Archive {
				want.Archived++
				want.ArchivedBytes += im.Size
			}
		}
		if day.Images != want.Images || day.Bytes != want.Bytes || day.Archived != want.Archived || day.ArchivedBytes != want.ArchivedBytes {
			t.Fatalf("day %+v, the repository has %+v", day, want)
		}
		r.Now = r.Now.Add(24 * time.Hour)
	}
	if n != len(line.Departures) || n < 200 || len(line.Days) != 201 {
		t.Errorf("%d departures of %d in %d days", n, len(line.Departures), len(line.Days))
	}
	last := line.Departures[n-1]
	if of := line.Of(last.Digest); len(of) == 0 || of[len(of)-1].At != last.At {
		t.Errorf("of %s: %+v", last.Digest, of)
	}
	if line = lifecycle.Forecast(p, images, Now(), DaysLater(-1)); len(line.Days) != 0 || len(line.Departures) != 0 {
		t.Errorf("a time that ends before it begins: %+v", line)
	}
}

// TestPlanIsSafeForConcurrentUse is for the race detector.
func TestPlanIsSafeForConcurrentUse(t *testing.T) {
	v1 := Image("v1", PushedDaysAgo(9))
	images := []lifecycle.Image{v1, Image("v2", Lists(v1)), Untagged("s", RefersTo(v1)), Image("v3", PushedDaysAgo(8))}
	p := extended(t, policy(t, "1 expire v* count 1"), lifecycle.Extensions{Keep: []lifecycle.KeepRule{{Newest: 1}}, InUse: func(*lifecycle.Image) string { return "" }})
	plan := lifecycle.Evaluate(p, images, Now())
	want := plan.String()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if got := plan.String(); got != want {
				t.Error(got)
			}
			if _, err := lifecycle.Explain(plan, "v1"); err != nil {
				t.Error(err)
			}
			if got := lifecycle.Evaluate(p, images, Now()).String(); got != want {
				t.Error(got)
			}
			plan.Preview()
			_ = p.String()
		})
	}
	wg.Wait()
}

type failing struct{ after int }

func (f *failing) Write(b []byte) (int, error) {
	if f.after--; f.after < 0 {
		return 0, os.ErrClosed
	}
	return len(b), nil
}

func TestAFailingWriterIsReported(t *testing.T) {
	plan := lifecycle.Evaluate(policy(t, "1 expire v* count 1"), []lifecycle.Image{Image("v1"), Image("v2")}, Now())
	line := lifecycle.Forecast(plan.Policy(), []lifecycle.Image{Image("v1")}, Now(), Now())
	for n := range 2 {
		if err := plan.WriteText(&failing{n}); !errors.Is(err, os.ErrClosed) {
			t.Errorf("the plan, after %d writes: %v", n, err)
		}
		if err := line.WriteCSV(&failing{n}); !errors.Is(err, os.ErrClosed) {
			t.Errorf("the series, after %d writes: %v", n, err)
		}
	}
}
