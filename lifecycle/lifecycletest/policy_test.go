package lifecycletest

import (
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wharfage/wharfage/lifecycle"
)

// fakeT is a test that notes how it fails.
type fakeT struct {
	testing.TB
	log    strings.Builder
	failed bool
}

func (f *fakeT) Helper() {}

func (f *fakeT) Errorf(format string, args ...any) {
	f.failed = true
	fmt.Fprintf(&f.log, format+"\n", args...)
}

func (f *fakeT) Error(args ...any) {
	f.failed = true
	fmt.Fprintln(&f.log, args...)
}

func (f *fakeT) Fatal(args ...any) {
	f.Error(args...)
	runtime.Goexit()
}

func (f *fakeT) Fatalf(format string, args ...any) {
	f.Errorf(format, args...)
	runtime.Goexit()
}

// outcome calls test, and returns what it said; "" if it did not fail.
func outcome(t *testing.T, test func(testing.TB)) string {
	f := &fakeT{TB: t}
	done := make(chan bool)
	go func() {
		defer close(done)
		test(f)
	}()
	<-done
	if f.failed != (f.log.Len() > 0) {
		t.Error("it fails without a word")
	}
	return f.log.String()
}

// says fails t unless text has all parts; without parts, unless it is empty.
func says(t *testing.T, text string, parts ...string) {
	t.Helper()
	if len(parts) == 0 && text != "" {
		t.Errorf("it fails, with\n%s", text)
	}
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("it does not say %q, but\n%s", part, text)
		}
	}
}

const keepTwo = `{"rules":[
	{"rulePriority":1,"description":"two releases","selection":{"tagStatus":"tagged","tagPatternList":["v*"],"countType":"imageCountMoreThan","countNumber":2},"action":{"type":"expire"}},
	{"rulePriority":2,"selection":{"tagStatus":"untagged","countType":"sinceImagePushed","countUnit":"days","countNumber":7},"action":{"type":"expire"}},
	{"rulePriority":3,"selection":{"tagStatus":"tagged","tagPrefixList":["cold-"],"countType":"sinceImagePulled","countUnit":"days","countNumber":30},"action":{"type":"transition","targetStorageClass":"archive"}}]}`

// releases: v1 goes with its signature, v2 and v3 stay, and so does their part.
func releases() []lifecycle.Image {
	v1 := Image("v1", PushedDaysAgo(30))
	part := Untagged("part", PushedDaysAgo(20))
	return []lifecycle.Image{
		v1, Image("v2", PushedDaysAgo(20), Lists(part), Tags("stable")), Image("v3"), part,
		Untagged("signature", PushedDaysAgo(29), RefersTo(v1)), Untagged("old", PushedDaysAgo(8)),
		Image("cold-a", PushedDaysAgo(50), PulledDaysAgo(31)), Image("cold-b", PushedDaysAgo(50), PulledDaysAgo(30)),
	}
}

func TestExpect(t *testing.T) {
	all := []Expectation{Expires(1, "v1"), Expires(2, "old"), Archives(3, "cold-a"), Follows("signature"), Keeps(lifecycle.ReasonListed, "part"), Keeps("", "v3", "stable")}
	for name, test := range map[string]struct {
		want []Expectation
		says []string
	}{
		"all as it is":            {all, nil},
		"what stays may be left":  {all[:4], nil},
		"an image that goes":      {all[1:], []string{"v1 sha256:", "want keep", "got  v1", "rule 1 (two releases) keeps the 2 newest", "number 3 of 3"}},
		"another rule":            {append([]Expectation{Expires(2, "v1")}, all[1:]...), []string{"want expire by rule 2", "expire: rule 1", "rule 2 does not see it: it has a tag"}},
		"another action":          {append([]Expectation{Archives(1, "v1")}, all[1:]...), []string{"want transition by rule 1", "expire: rule 1"}},
		"an image that stays":     {append([]Expectation{Expires(1, "v3")}, all[:5]...), []string{"want expire by rule 1", "got  v3", "number 1 of 3"}},
		"another reason":          {append([]Expectation{Keeps(lifecycle.ReasonYoung, "v3")}, all[:5]...), []string{"want keep, for the reason young", "number 1 of 3"}},
		"what does not follow":    {append([]Expectation{Follows("v3")}, all[:5]...), []string{"want follow its subject"}},
		"a rule where it follows": {append([]Expectation{Expires(1, "signature")}, append(all[:3:3], all[4:]...)...), []string{"want expire by rule 1", "it follows its subject"}},
		"no such image":           {append([]Expectation{Keeps("", "v9")}, all...), []string{"v9: no image has this name"}},
		"said twice":              {append([]Expectation{Keeps("", "v1")}, all...), []string{"v1: is expected to keep, and to expire by rule 1"}},
	} {
		t.Run(name, func(t *testing.T) {
			says(t, outcome(t, func(t testing.TB) { Expect(t, Policy(t, keepTwo), releases(), Now(), test.want...) }), test.says...)
		})
	}
	two := append(releases(), Image("other", Tags("v1")))
	says(t, outcome(t, func(t testing.TB) { Expect(t, Policy(t, keepTwo), two, Now(), Expires(1, "v1")) }), "v1: two images have this name")
}

func TestPolicy(t *testing.T) {
	says(t, outcome(t, func(t testing.TB) { Policy(t, keepTwo) }))
	says(t, outcome(t, func(t testing.TB) { Policy(t, `{"rules":[{"rulePriority":0}]}`) }), "not valid:", "/rules/0/rulePriority: rule_priority: is 0", "selection is required")
	says(t, outcome(t, func(t testing.TB) { PolicyFile(t, filepath.Join(t.TempDir(), "none")) }), "no such file")
}

func TestExtensionsCanBeExpected(t *testing.T) {
	p, err := Policy(t, keepTwo).Extend(lifecycle.Extensions{Rules: []lifecycle.RuleExtension{{Priority: 1, TagsOnly: true}}})
	if err != nil {
		t.Fatal(err)
	}
	Expect(t, p, releases(), Now(), Untags(1, "v1"), Expires(2, "old"), Archives(3, "cold-a"))
}

func TestRepository(t *testing.T) {
	r := &Repository{Policy: Policy(t, keepTwo)}
	for day := range 10 {
		r.Push(Image(fmt.Sprint("v", day)), Image("moving", func(im *lifecycle.Image) { im.Digest = Digest(fmt.Sprint("build", day)) }))
		r.Wait(1)
	}
	// A build is untagged when the next one comes, and goes when it was pushed more
	// than seven days ago: on day 10 those of days 3 to 9 are left.
	names := r.Names()
	if len(names) != 9 || names[0] != "moving" || !slices.Equal(names[7:], []string{"v8", "v9"}) {
		t.Errorf("what is left: %v", names)
	}
	if !r.Now.Equal(DaysLater(10)) {
		t.Errorf("it is %v", r.Now)
	}
	r = &Repository{Policy: Policy(t, keepTwo)}
	r.Push(Image("cold-a"), Image("cold-b"))
	r.Wait(20)
	if !r.Pull("cold-a") || r.Pull("none") {
		t.Error("Pull finds what it must not, or not what it must")
	}
	r.Wait(11)
	if a, b := r.Images[0].StorageClass, r.Images[1].StorageClass; a == lifecycle.Archive || b != lifecycle.Archive {
		t.Errorf("classes %s and %s, want cold-b in the archive", a, b)
	}
	if r.Pull("cold-b") {
		t.Error("pulled from the archive")
	}
	r.Push(Image("cold-b", Tags("more")))
	if im := r.Images[1]; im.StorageClass != lifecycle.Standard || !im.RestoredAt.Equal(r.Now) || !im.PushedAt.Equal(Now()) || !slices.Equal(im.Tags, []string{"cold-b", "more"}) {
		t.Errorf("pushed again it is %+v", im)
	}
}

func TestNeverExpires(t *testing.T) {
	tagged := func(tag string) func(*lifecycle.Image, []lifecycle.Image) bool {
		return func(im *lifecycle.Image, _ []lifecycle.Image) bool { return slices.Contains(im.Tags, tag) }
	}
	newest := func(im *lifecycle.Image, all []lifecycle.Image) bool {
		return len(im.Tags) > 0 && !slices.ContainsFunc(all, func(o lifecycle.Image) bool { return len(o.Tags) > 0 && o.PushedAt.After(im.PushedAt) })
	}
	release, prod, other := Image("v1"), Image("v1", Tags("prod")), Image("main")
	shielded := strings.Replace(keepTwo, `{"rules":[`, `{"rules":[{"rulePriority":9,"selection":{"tagStatus":"any","countType":"imageCountMoreThan","countNumber":1},"action":{"type":"expire"}},`, 1)
	for name, test := range map[string]struct {
		policy string
		safe   func(*lifecycle.Image, []lifecycle.Image) bool
		like   []lifecycle.Image
		says   []string
	}{
		"what no rule sees":         {keepTwo, tagged("main"), []lifecycle.Image{release, other}, nil},
		"the newest":                {keepTwo, newest, []lifecycle.Image{release, other}, nil},
		"what is counted":           {keepTwo, tagged("prod"), []lifecycle.Image{release, prod}, []string{"expires what it must not", "3 images, 1 to expire", "v1,prod"}},
		"what many are kept of":     {strings.Replace(keepTwo, `"countNumber":2`, `"countNumber":700`, 1), tagged("prod"), []lifecycle.Image{release, prod}, []string{"701 images, 1 to expire"}},
		"what a lower rule sees":    {shielded, tagged("main"), []lifecycle.Image{release, other}, []string{"2 images, 1 to expire", "rule 9"}},
		"a test that tests nothing": {keepTwo, tagged("none"), []lifecycle.Image{release}, []string{"tests nothing"}},
		"a test without images":     {keepTwo, newest, nil, []string{"needs an image"}},
	} {
		t.Run(name, func(t *testing.T) {
			says(t, outcome(t, func(t testing.TB) { NeverExpires(t, Policy(t, test.policy), test.safe, test.like...) }), test.says...)
		})
	}
}

func TestScenarios(t *testing.T) { Scenarios(t, "testdata/*.txtar") }

func TestScenarioFails(t *testing.T) {
	const head = "-- policy --\n" + keepTwo + "\n-- images --\nv1 pushed=3d\nv2 pushed=2d\nv3 pushed=1d\n"
	for text, part := range map[string]string{
		head + "-- want --\nexpire 1 v1\n":                                     "",
		head + "-- now --\n2027-01-01T00:00:00+01:00\n-- want --\nexpire 1 v1": "",
		head + "-- want --\n":                                                  "want: the plan is not as expected",
		head + "-- want --\nexpire 2 v1\n":                                     "want expire by rule 2",
		head + "-- want 5d --\nkeep any v1\n":                                  "no image has this name",
		head + "-- want 5d --\n":                                               "",
		head + "-- want 5d --\n-- want 5d --\n":                                "not later",
		head + "-- want 5 --\n":                                                "is no age",
		head + "-- want xd --\n":                                               "is no age",
		head:                                                                   "has a policy and a want",
		"-- want --\n":                                                         "has a policy and a want",
		head + "-- wants --\n":                                                 `line 10: unknown part "wants"`,
		head + "-- want --\nexpire v1\n":                                       "line 11: ",
		head + "-- want --\nexpire x v1\n":                                     "no rule's priority",
		head + "-- want --\ndelete 1 v1\n":                                     "unknown verb",
		head + "-- now --\nnoon\n-- want --\n":                                 "line 11: parsing time",
		"-- policy --\n{}\n-- want --\n":                                       "rules is required",
		head + "-- images --\nx tag=y\n-- want --\n":                           "unknown key",
		head + "-- images --\nx pushed\n-- want --\n":                          "no key=value",
		head + "-- images --\nx pushed=3\n-- want --\n":                        "is no age",
		head + "-- images --\nx size=big\n-- want --\n":                        "invalid syntax",
		head + "-- images --\nx\nx\n-- want --\n":                              "line 12: x is there twice",
	} {
		got := outcome(t, func(t testing.TB) { Scenario(t, text) })
		if part == "" && got != "" || !strings.Contains(got, part) {
			t.Errorf("%s\nsays %q, want %q", text[strings.LastIndex(text, "\n-- "):], got, part)
		}
	}
}

func TestAge(t *testing.T) {
	for text, want := range map[string]time.Duration{"0d": 0, "40d": 960 * time.Hour, "1d12h": 36 * time.Hour, "36h": 36 * time.Hour, "1d1ns": 24*time.Hour + 1, "90m": 90 * time.Minute} {
		if got, err := age(text); err != nil || got != want {
			t.Errorf("age %s is %v, %v", text, got, err)
		}
	}
}
