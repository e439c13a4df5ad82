package lifecycletest

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/internal/txtar"
	"github.com/wharfage/wharfage/lifecycle"
)

// Scenarios runs the scenarios in the files that match a pattern, each as a
// subtest of its file's name. A scenario is a text archive:
//
//	Releases are kept by number, the rest by age.
//	-- policy --
//	{"rules": […]}
//	-- images --
//	v1          pushed=40d
//	v2          pushed=3d tags=v2,stable
//	build       pushed=20d tags=
//	index       pushed=9d lists=amd64,arm64
//	signature   pushed=9d tags= subject=v1
//	old         pushed=400d pulled=90d archived=80d
//	-- now --
//	2026-01-01T12:00:00Z
//	-- want --
//	expire 1 v1
//	follow signature
//	-- want 30d --
//	expire 2 v2
//	keep young index
//
// The policy may be a file, by its path from the scenario's folder, in the place of
// its text:
//
//	-- policy ../policy.json --
//
// An image has a name, and its name as tag unless tags says otherwise. Times are
// ages before now, in days and [time.ParseDuration]'s units, instants, or unknown;
// pushed is now if it is left out; archived puts the image into the archive, and
// restored takes it back.
// now may be left out for [Now]. Lines of want are actions (expire, transition,
// untag) with a rule and names, follow with names, or keep with a [lifecycle.Reason],
// or any, and names; images that no line names must stay. A want with an age is
// the plan so much later, after one pass on each day until then.
func Scenarios(t *testing.T, pattern string) {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Fatalf("no scenario matches %s", pattern)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), filepath.Ext(file)), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			run(t, string(text), filepath.Dir(file))
		})
	}
}

// Scenario runs one scenario, as [Scenarios] describes it. Its folder is the one in
// which the test runs.
func Scenario(t testing.TB, text string) {
	t.Helper()
	run(t, text, ".")
}

func run(t testing.TB, text, folder string) {
	t.Helper()
	comment, files := txtar.Parse(text)
	s := scenario{folder: folder, now: noon}
	for _, f := range files {
		if err := s.read(f); err != nil {
			t.Fatal(err)
		}
	}
	if s.policy == "" || len(s.wants) == 0 {
		t.Fatal("a scenario has a policy and a want")
	}
	images, err := s.images()
	if err != nil {
		t.Fatal(err)
	}
	names := map[digest.Digest]string{}
	for _, l := range s.lines {
		names[Digest(l.words[0])] = l.words[0]
	}
	r := &Repository{Policy: Policy(t, s.policy), Images: images, Now: s.now}
	for _, w := range s.wants {
		for at := s.now.Add(w.after); r.Now.Before(at); r.Now = r.Now.Add(24 * time.Hour) {
			r.Pass()
		}
		if diff := differences(lifecycle.Evaluate(r.Policy, r.Images, s.now.Add(w.after)), w.what, names); diff != "" {
			t.Errorf("%s%s: the plan is not as expected:\n%s", comment, w.title, diff)
		}
	}
}

// scenario is one as it is read.
type scenario struct {
	folder string
	policy string
	lines  []line
	now    time.Time
	wants  []want
}

type line struct {
	number int
	words  []string
}

type want struct {
	title string
	after time.Duration
	what  []Expectation
}

func (s *scenario) read(f txtar.File) error {
	name, arg, _ := strings.Cut(f.Name, " ")
	switch {
	case name == "policy" && arg == "":
		s.policy = f.Data
	case name == "policy":
		text, err := os.ReadFile(filepath.Join(s.folder, arg))
		if err != nil {
			return fmt.Errorf("line %d: %w", f.Line-1, err)
		}
		s.policy = string(text)
	case name == "images" && arg == "":
		s.lines = lines(f)
	case name == "now" && arg == "":
		now, err := time.Parse(time.RFC3339, strings.TrimSpace(f.Data))
		if err != nil {
			return fmt.Errorf("line %d: %w", f.Line, err)
		}
		s.now = now
	case name == "want":
		w := want{title: f.Name}
		if arg != "" {
			d, err := age(arg)
			if err != nil {
				return fmt.Errorf("line %d: %w", f.Line-1, err)
			}
			w.after = d
		}
		if n := len(s.wants); n > 0 && w.after <= s.wants[n-1].after {
			return fmt.Errorf("line %d: it is not later than the want before it", f.Line-1)
		}
		for _, l := range lines(f) {
			e, err := l.expectation()
			if err != nil {
				return fmt.Errorf("line %d: %w", l.number, err)
			}
			w.what = append(w.what, e)
		}
		s.wants = append(s.wants, w)
	default:
		return fmt.Errorf("line %d: unknown part %q: policy, images, now or want", f.Line-1, f.Name)
	}
	return nil
}

// lines splits into words, without empty lines and comments.
func lines(f txtar.File) (out []line) {
	n := f.Line
	for text := range strings.Lines(f.Data) {
		text, _, _ = strings.Cut(text, "#")
		if words := strings.Fields(text); len(words) > 0 {
			out = append(out, line{n, words})
		}
		n++
	}
	return out
}

func (l line) expectation() (Expectation, error) {
	verb, rest := l.words[0], l.words[1:]
	if verb == "follow" && len(rest) > 0 {
		return Follows(rest...), nil
	}
	if len(rest) < 2 {
		return Expectation{}, fmt.Errorf("%q says too little: a verb, a rule or a reason, and names", strings.Join(l.words, " "))
	}
	if verb == "keep" {
		reason := lifecycle.Reason(rest[0])
		if reason == "any" {
			reason = ""
		}
		return Keeps(reason, rest[1:]...), nil
	}
	rule, err := strconv.ParseInt(rest[0], 10, 64)
	if err != nil {
		return Expectation{}, fmt.Errorf("%q is no rule's priority", rest[0])
	}
	switch action := lifecycle.ActionType(verb); action {
	case lifecycle.Expire, lifecycle.Transition, lifecycle.Untag:
		return Expectation{names: rest[1:], action: action, rule: rule, via: lifecycle.ViaRule}, nil
	}
	return Expectation{}, fmt.Errorf("unknown verb %q: expire, transition, untag, follow or keep", verb)
}

func (s *scenario) images() ([]lifecycle.Image, error) {
	var out []lifecycle.Image
	seen := map[string]bool{}
	for _, l := range s.lines {
		im, err := s.image(l)
		if err == nil && seen[l.words[0]] {
			err = fmt.Errorf("%s is there twice", l.words[0])
		}
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", l.number, err)
		}
		seen[l.words[0]] = true
		out = append(out, im)
	}
	return out, nil
}

func (s *scenario) image(l line) (lifecycle.Image, error) {
	name := l.words[0]
	im := lifecycle.Image{Digest: Digest(name), Tags: []string{name}, PushedAt: s.now}
	for _, word := range l.words[1:] {
		key, value, ok := strings.Cut(word, "=")
		if !ok {
			return im, fmt.Errorf("%q is no key=value", word)
		}
		var err error
		var list []string
		if value != "" {
			list = strings.Split(value, ",")
		}
		switch key {
		case "tags":
			im.Tags = list
		case "lists":
			for _, child := range list {
				im.Manifests = append(im.Manifests, Digest(child))
			}
		case "subject":
			im.Subject = Digest(value)
		case "size":
			im.Size, err = strconv.ParseInt(value, 10, 64)
		case "pushed":
			im.PushedAt, err = s.instant(value)
		case "pulled":
			im.PulledAt, err = s.instant(value)
		case "restored":
			im.StorageClass = lifecycle.Standard
			im.RestoredAt, err = s.instant(value)
		case "archived":
			if im.StorageClass == "" {
				im.StorageClass = lifecycle.Archive
			}
			im.ArchivedAt, err = s.instant(value)
		case "class":
			im.StorageClass = lifecycle.StorageClass(value)
		default:
			err = fmt.Errorf("unknown key %q: tags, pushed, pulled, archived, restored, class, lists, subject or size", key)
		}
		if err != nil {
			return im, err
		}
	}
	return im, nil
}

// instant is an age before now, a time, or unknown.
func (s *scenario) instant(text string) (time.Time, error) {
	if text == "unknown" {
		return time.Time{}, nil
	}
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t, nil
	}
	d, err := age(text)
	return s.now.Add(-d), err
}

// age reads days and, after them, what time.ParseDuration does: 40d, 1d12h, 90m.
func age(text string) (time.Duration, error) {
	var sum time.Duration
	rest := text
	if days, after, ok := strings.Cut(text, "d"); ok {
		n, err := strconv.ParseInt(days, 10, 32)
		if err != nil {
			return 0, fmt.Errorf("%q is no age, as 40d or 36h are", text)
		}
		if sum, rest = time.Duration(n)*24*time.Hour, after; rest == "" {
			return sum, nil
		}
	}
	d, err := time.ParseDuration(rest)
	if err != nil {
		return 0, fmt.Errorf("%q is no age, as 40d or 36h are", text)
	}
	return sum + d, nil
}
