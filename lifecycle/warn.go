package lifecycle

import (
	"fmt"
	"strconv"
	"strings"
)

// Warning is something in a valid policy that is probably not meant.
type Warning struct {
	Rule int64 // the priority of the rule that it is about
	Kind WarningKind
	Text string
}

func (w Warning) String() string { return "rule " + strconv.FormatInt(w.Rule, 10) + ": " + w.Text }

// WarningKind names a kind of warning. Programs match it, not the text.
type WarningKind string

// The kinds of warnings.
const (
	WarnDead        WarningKind = "dead_rule"          // rules before it own all images that it is about
	WarnUnmatchable WarningKind = "unmatchable"        // an entry that no tag can match, so the rule is about nothing
	WarnStar        WarningKind = "star_in_prefix"     // a * that is no wildcard there
	WarnSeveralTags WarningKind = "several_tags"       // no single tag matches all entries: an image needs several tags
	WarnOverlap     WarningKind = "overlapping_prefix" // images may have the prefixes of two rules; the first owns them
)

// Warnings says what in the policy is probably not meant, by rule. It finds a
// dead rule where one rule before it covers it, or where those for tagged and
// for untagged images together do.
func (p *Policy) Warnings() []Warning {
	var out []Warning
	for r := range p.rules {
		rule := &p.rules[r]
		warn := func(k WarningKind, format string, args ...any) {
			out = append(out, Warning{rule.Priority, k, fmt.Sprintf(format, args...)})
		}
		for _, entry := range rule.Selection.TagPrefixes {
			if strings.Contains(entry, "*") {
				warn(WarnStar, "the * in the prefix %q is no wildcard, and no tag has one", entry)
			}
		}
		entries := rule.Selection.patterns()
		for i := range entries {
			if why := entries[i].unmatchable(); why != "" {
				warn(WarnUnmatchable, "no tag can match %q: %s", rule.Selection.entry(i), why)
			}
		}
		if a, b, ok := apart(entries); ok {
			warn(WarnSeveralTags, "an image needs a tag for %q and another for %q; for images with either, make two rules",
				rule.Selection.entry(a), rule.Selection.entry(b))
		}
		if by := p.shields(r); by != "" {
			warn(WarnDead, "it never acts: %s all images that it is about", by)
			continue
		}
		for h := range p.rules[:r] {
			if longer, prefix, ok := overlap(&p.rules[h].Selection, &rule.Selection); ok {
				warn(WarnOverlap, "images tagged %s… fit its prefix %q too, and belong to rule %d", printable(longer), prefix, p.rules[h].Priority)
			}
		}
	}
	return out
}

func (s *Selection) patterns() (out []pattern) {
	for _, entry := range s.TagPatterns {
		out = append(out, newPattern(entry))
	}
	for _, entry := range s.TagPrefixes {
		out = append(out, newPrefix(entry))
	}
	return out
}

// entry returns the text of what patterns returns.
func (s *Selection) entry(i int) string {
	if i < len(s.TagPatterns) {
		return s.TagPatterns[i]
	}
	return s.TagPrefixes[i-len(s.TagPatterns)]
}

// unmatchable says why no tag, by the grammar of the distribution specification,
// is matched; "" if one can be.
func (p *pattern) unmatchable() string {
	parts := append([]string{p.prefix, p.suffix}, p.middle...)
	for _, part := range parts {
		for _, c := range part {
			if !(c == '_' || c == '.' || c == '-' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z') {
				return "tags have no " + strconv.QuoteRune(c)
			}
		}
	}
	if p.prefix != "" && (p.prefix[0] == '.' || p.prefix[0] == '-') {
		return "tags do not begin with " + strconv.QuoteRune(rune(p.prefix[0]))
	}
	return ""
}

// apart finds two entries that no one tag matches, as their ends say.
func apart(entries []pattern) (a, b int, ok bool) {
	for b := range entries {
		for a := range b {
			x, y := &entries[a], &entries[b]
			n := min(len(x.prefix), len(y.prefix))
			m := min(len(x.suffix), len(y.suffix))
			if x.prefix[:n] != y.prefix[:n] || x.suffix[len(x.suffix)-m:] != y.suffix[len(y.suffix)-m:] ||
				!x.open && !y.match(x.prefix) || !y.open && !x.match(y.prefix) {
				return a, b, true
			}
		}
	}
	return 0, 0, false
}

// shields names the rules that own all that rule r is about, "" if none do.
func (p *Policy) shields(r int) string {
	s := &p.rules[r].Selection
	all, untagged := -1, -1 // rules before r for all tagged and for all untagged images
	for h := range p.rules[:r] {
		o := &p.rules[h].Selection
		if o.class() != s.class() || len(p.extension(h).Exclude) > 0 {
			continue
		}
		owns := "rule " + strconv.FormatInt(p.rules[h].Priority, 10) + " owns"
		if o.TagStatus == Untagged {
			untagged = h
			continue
		}
		if o.covers(&Selection{TagStatus: Tagged, TagPatterns: []string{"*"}}) {
			all = h
		}
		if s.TagStatus == Tagged && o.covers(s) {
			return owns
		}
	}
	if s.TagStatus == Any && all >= 0 && untagged >= 0 {
		return fmt.Sprintf("rules %d and %d own", p.rules[all].Priority, p.rules[untagged].Priority)
	}
	return ""
}

// covers tells whether each image that fits the tag list of t fits that of s: for
// each entry of s there is one of t that matches less.
func (s *Selection) covers(t *Selection) bool {
	theirs := t.patterns()
	for _, ours := range s.patterns() {
		found := false
		for i := range theirs {
			found = found || ours.unmatchable() == "" && ours.covers(&theirs[i])
		}
		if !found {
			return false
		}
	}
	return true
}

// overlap finds a prefix of b that the only prefix of a, which is before b,
// begins with.
func overlap(a, b *Selection) (longer, prefix string, ok bool) {
	if a.class() != b.class() || len(a.TagPrefixes) != 1 {
		return "", "", false
	}
	for _, prefix := range b.TagPrefixes {
		if strings.HasPrefix(a.TagPrefixes[0], prefix) {
			return a.TagPrefixes[0], prefix, true
		}
	}
	return "", "", false
}
