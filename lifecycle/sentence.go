package lifecycle

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/opencontainers/go-digest"
)

// String says in a sentence what becomes of the image, and why.
func (v Verdict) String() string {
	s := string(v.Action) + ": " + v.because()
	if len(v.Tags) > 0 {
		s += "; it loses " + nouns("tag", v.Tags) + ", and stays"
	}
	if len(v.Also) > 0 {
		also := make([]string, len(v.Also))
		for i, r := range v.Also {
			also[i] = strconv.FormatInt(r, 10)
		}
		s += "; " + nouns("rule", also) + " would see it too, but only the first may act"
	}
	return s
}

func (v Verdict) because() string {
	p, mk := v.plan, &v.plan.marks[v.i]
	var rule *Rule
	if mk.owner != none {
		rule = &p.policy.rules[mk.owner]
	}
	subject := short(v.Subject)
	switch v.Reason {
	case ReasonDue, ReasonYoung:
		if rule.Selection.CountType == ImageCountMoreThan {
			return v.place(rule)
		}
		return rule.name() + " is for " + rule.describe() + " " + rule.old() + ", and this one was " + v.ago()
	case ReasonWithinCount:
		return v.place(rule)
	case ReasonKeepNewest:
		return fmt.Sprintf("%s spares %s, and this is number %d of %d, although it was %s",
			rule.name(), newest(int64(p.policy.extension(int(mk.owner)).KeepNewest)), v.Rank, v.Count, v.ago())
	case ReasonNoRule:
		return "no rule is about it"
	case ReasonTimeUnknown:
		if rule == nil {
			return "it would go with its subject " + subject + ", but when it came to its storage class is not known"
		}
		return rule.name() + " needs " + v.needs(rule) + ", which is not known"
	case ReasonPullsUnknown:
		return rule.name() + " is for " + rule.describe() + " " + rule.old() + ", but pulls are only known since " + stamp(p.policy.opts.PullsSince)
	case ReasonListed:
		var lists []string
		for _, d := range v.Blocked.ReferencedBy {
			lists = append(lists, short(d))
		}
		if len(lists) == 0 {
			return v.wanted(rule) + ", but an index lists it and lists itself by way of others"
		}
		verb, first := "lists", "go first"
		if v.Blocked.Action == Transition {
			first = "be archived first"
		}
		if len(lists) > 1 {
			verb = "list"
		}
		return v.wanted(rule) + ", but " + nouns("index", lists) + " " + verb + " it and must " + first
	case ReasonSubjectGoes:
		return "it follows its subject " + subject + ", which " + p.fateOf(v.i)
	case ReasonSubjectGone:
		return "its subject " + subject + " is not there"
	case ReasonSubjectStays:
		if mk.reason == reasonHeld {
			return "its subject " + short(v.Image.Subject) + " stays, though what both follow goes"
		}
		return "it follows its subject " + subject + ", which stays"
	case ReasonGrace:
		return fmt.Sprintf("it would follow its subject %s, but has been in its storage class for %s, and less than %s is too short",
			subject, span(p.now.Sub(v.Image.classTime())), span(p.policy.grace()))
	case ReasonCircle:
		return "it refers to " + subject + ", which refers back to it"
	case ReasonClass:
		if v.Image.class() == Activating {
			return "it is on its way back from the archive"
		}
		return "its storage class " + strconv.Quote(string(v.Image.StorageClass)) + " is not known"
	case ReasonKeepRule:
		return v.wanted(rule) + ", but the keep rule " + strconv.Quote(v.By) + " names it"
	case ReasonInUse:
		return v.wanted(rule) + ", but it is in use by " + v.By
	case ReasonIndexGoes:
		return "it is one with " + p.listers(v.i) + ", and goes or is archived with them"
	case ReasonIndexStays:
		return "it is one with " + p.listers(v.i) + ", which not all go"
	}
	return string(v.Reason)
}

// place says where the image is in the count of rule.
func (v Verdict) place(rule *Rule) string {
	return fmt.Sprintf("%s keeps %s of %s, and this is number %d of %d", rule.name(), newest(rule.Selection.CountNumber), rule.describe(), v.Rank, v.Count)
}

func newest(n int64) string {
	if n == 1 {
		return "the newest"
	}
	return fmt.Sprintf("the %d newest", n)
}

// wanted says what would happen but for something.
func (v Verdict) wanted(rule *Rule) string {
	want, mk := "expire", &v.plan.marks[v.i]
	switch mk.want {
	case transition:
		want = "archive"
	case untag:
		want = "untag"
	}
	if rule == nil || mk.reason == reasonFollowerListed || v.Subject != "" && !v.plan.view(int(mk.owner), v.i).Due {
		return "its subject, or its index, would " + want + " it"
	}
	return rule.name() + " would " + want + " it"
}

// needs names the time that a rule judges by.
func (v Verdict) needs(rule *Rule) string {
	if rule.Selection.CountType == SinceImageTransitioned {
		return "the time of its move to the archive"
	}
	return "its push time"
}

// ago says how old the image is, by what its owner measures.
func (v Verdict) ago() string {
	verb, im := "pushed", v.Image
	switch {
	case v.plan.policy.rules[v.plan.marks[v.i].owner].Selection.CountType == SinceImageTransitioned:
		verb = "archived"
	case v.Since.Equal(im.RestoredAt):
		verb = "restored"
	case v.plan.policy.rules[v.plan.marks[v.i].owner].Selection.CountType == SinceImagePulled:
		if verb = "pulled"; im.PulledAt.IsZero() {
			verb = "never pulled, and pushed"
		}
	}
	if v.Age < 0 {
		return verb + " in the future, by " + span(-v.Age)
	}
	return verb + " " + span(v.Age) + " ago"
}

// old says what a rule takes for old.
func (r *Rule) old() string {
	verb := map[CountType]string{SinceImagePushed: "pushed", SinceImagePulled: "last pulled", SinceImageTransitioned: "archived"}[r.Selection.CountType]
	return fmt.Sprintf("%s more than %s ago", verb, plural(r.Selection.CountNumber, "day"))
}

func (r *Rule) name() string {
	s := "rule " + strconv.FormatInt(r.Priority, 10)
	if r.Description != "" {
		s += " (" + printable(r.Description) + ")"
	}
	return s
}

// printable has a space for what would end a line or do things to a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, s)
}

// fateOf says what becomes of what referrer i follows.
func (p *Plan) fateOf(i int) string {
	switch root := p.graph.root[i]; {
	case p.marks[root].action == expire:
		return "expires"
	case p.marks[root].action == transition:
		return "is archived"
	}
	return "is in the archive"
}

// listers names the indexes that list image i.
func (p *Plan) listers(i int) string {
	var out []string
	for _, l := range p.listing(i) {
		out = append(out, short(p.images[l].Digest))
	}
	slices.Sort(out)
	return nouns("index", slices.Compact(out))
}

// nouns is "index a" or "indexes a, b".
func nouns(noun string, list []string) string {
	if len(list) > 1 {
		noun += "s"
		noun = strings.Replace(noun, "xs", "xes", 1)
	}
	return noun + " " + strings.Join(list, ", ")
}

func plural(n int64, unit string) string {
	if n != 1 {
		unit += "s"
	}
	return strconv.FormatInt(n, 10) + " " + unit
}

// span prints a duration as people say it, rounded down, to two units.
func span(d time.Duration) string {
	const day = 24 * time.Hour
	days, hours, minutes, seconds := int64(d/day), int64(d%day/time.Hour), int64(d%time.Hour/time.Minute), int64(d%time.Minute/time.Second)
	big, small := plural(days, "day"), ""
	switch {
	case days > 0 && hours > 0:
		small = plural(hours, "hour")
	case days > 0 && minutes+seconds > 0 || days > 0 && d%time.Second > 0:
		small = "some minutes"
		if minutes > 0 {
			small = plural(minutes, "minute")
		}
	case days > 0:
	case hours > 0:
		if big = plural(hours, "hour"); minutes > 0 {
			small = plural(minutes, "minute")
		}
	case minutes > 0:
		big = plural(minutes, "minute")
	default:
		big = plural(seconds, "second")
	}
	if small != "" {
		return big + " " + small
	}
	return big
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// short is a digest as people read it.
func short(d digest.Digest) string {
	const most = 12
	if at := strings.IndexByte(string(d), ':'); at >= 0 && len(d) > at+1+most {
		return string(d[:at+1+most])
	}
	return string(d)
}
