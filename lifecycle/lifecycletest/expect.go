package lifecycletest

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/lifecycle"
)

// Policy parses a policy, or ends the test with all its faults.
func Policy(t testing.TB, text string) *lifecycle.Policy {
	t.Helper()
	p, err := lifecycle.Parse(text)
	if err != nil {
		fatal(t, err)
	}
	return p
}

// PolicyFile parses the policy in a file, or ends the test with all its faults.
func PolicyFile(t testing.TB, path string) *lifecycle.Policy {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return Policy(t, string(text))
}

func fatal(t testing.TB, err error) {
	t.Helper()
	if invalid, ok := err.(*lifecycle.InvalidError); ok {
		var b strings.Builder
		for _, f := range invalid.Fields {
			fmt.Fprintf(&b, "\n  %s", f)
		}
		t.Fatalf("the policy is not valid:%s", b.String())
	} else {
		t.Fatal(err)
	}
}

// Expectation is what a plan must say of some images. Images are named by a tag,
// or by the name that [Untagged] was given.
type Expectation struct {
	names  []string
	action lifecycle.ActionType // "" for Follows: any but Keep
	rule   int64                // with ViaRule
	via    lifecycle.Via        // "" for Keeps
	reason lifecycle.Reason     // "" for any
}

// Expires says that the rule of a priority deletes the images.
func Expires(rule int64, names ...string) Expectation {
	return Expectation{names: names, action: lifecycle.Expire, rule: rule, via: lifecycle.ViaRule}
}

// Archives says that the rule of a priority moves the images to the archive.
func Archives(rule int64, names ...string) Expectation {
	return Expectation{names: names, action: lifecycle.Transition, rule: rule, via: lifecycle.ViaRule}
}

// Untags says that the rule of a priority removes tags of the images
// ([lifecycle.RuleExtension.TagsOnly]).
func Untags(rule int64, names ...string) Expectation {
	return Expectation{names: names, action: lifecycle.Untag, rule: rule, via: lifecycle.ViaRule}
}

// Follows says that the images go, or are archived, with their subject or their
// index.
func Follows(names ...string) Expectation {
	return Expectation{names: names, via: lifecycle.ViaSubject}
}

// Keeps says that the images stay, for a reason or, with "", for any. Those that
// no expectation names must stay as well.
func Keeps(reason lifecycle.Reason, names ...string) Expectation {
	return Expectation{names: names, action: lifecycle.Keep, reason: reason}
}

// String says what is expected.
func (e Expectation) String() string {
	switch {
	case e.action == "":
		return "follow its subject or its index"
	case e.action == lifecycle.Keep && e.reason != "":
		return "keep, for the reason " + string(e.reason)
	case e.action == lifecycle.Keep:
		return "keep"
	}
	return fmt.Sprintf("%s by rule %d", e.action, e.rule)
}

func (e Expectation) holds(v lifecycle.Verdict) bool {
	switch e.action {
	case "":
		return v.Via == lifecycle.ViaSubject || v.Via == lifecycle.ViaIndex
	case lifecycle.Keep:
		return v.Action == lifecycle.Keep && (e.reason == "" || e.reason == v.Reason)
	}
	return v.Action == e.action && v.Via == e.via && v.Rule == e.rule
}

// Expect fails the test unless policy, applied to images at now, does just what
// is expected: to each image that is named what is said of it, to all others
// nothing. For each difference it says what the rules think of the image. It
// returns the plan.
func Expect(t testing.TB, policy *lifecycle.Policy, images []lifecycle.Image, now time.Time, want ...Expectation) *lifecycle.Plan {
	t.Helper()
	plan := lifecycle.Evaluate(policy, images, now)
	if diff := differences(plan, want, nil); diff != "" {
		t.Errorf("at %s the plan is not as expected:\n%s", now.UTC().Format(time.RFC3339), diff)
	}
	return plan
}

// differences is "" if all is as expected. names are those of images that are not
// tags, by digest.
func differences(plan *lifecycle.Plan, want []Expectation, names map[digest.Digest]string) string {
	var b strings.Builder
	said := make([]*Expectation, plan.Len())
	for _, e := range want {
		for _, name := range e.names {
			i, problem := named(plan, name)
			switch {
			case problem != "":
				fmt.Fprintf(&b, "  %s: %s\n", name, problem)
			case said[i] != nil:
				fmt.Fprintf(&b, "  %s: is expected to %s, and to %s\n", name, said[i], e)
			default:
				said[i] = &e
			}
		}
	}
	for i := range plan.Len() {
		e := said[i]
		if e == nil {
			e = &Expectation{action: lifecycle.Keep}
		}
		v := plan.Verdict(i)
		if e.holds(v) {
			continue
		}
		ref := string(v.Image.Digest)
		name := names[v.Image.Digest]
		if len(v.Image.Tags) > 0 {
			name = v.Image.Tags[0]
		}
		for _, n := range e.names {
			if v.Image.Digest == Digest(n) {
				name = n
			}
		}
		fmt.Fprintf(&b, "  %s\n    want %s\n    got  ", cmp.Or(name, ref), e)
		x, err := lifecycle.Explain(plan, ref)
		if err != nil {
			fmt.Fprintf(&b, "%s: %v\n", ref, err)
			continue
		}
		b.WriteString(strings.ReplaceAll(strings.TrimSuffix(x.String(), "\n"), "\n", "\n       ") + "\n")
	}
	return b.String()
}

// named finds the image of a name, or says what is wrong with it.
func named(plan *lifecycle.Plan, name string) (i int, problem string) {
	found := -1
	for i := range plan.Len() {
		im := plan.Image(i)
		if im.Digest == Digest(name) || slices.Contains(im.Tags, name) {
			if found >= 0 {
				return 0, "two images have this name"
			}
			found = i
		}
	}
	if found < 0 {
		return 0, "no image has this name"
	}
	return found, ""
}
