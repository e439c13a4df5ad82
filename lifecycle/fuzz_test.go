package lifecycle

import (
	"encoding/json"
	"math/rand/v2"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

// FuzzParse compares Parse with a second reader: what is valid, and what it says.
func FuzzParse(f *testing.F) {
	for _, set := range readVectors(f) {
		for _, c := range set.Cases {
			f.Add(c.text())
		}
	}
	f.Add(tenRules)
	f.Add(strings.Replace(tenRules, "tagStatus", `tag\u0053tatus`, 1))
	f.Add(strings.Replace(tenRules, "release-", `\ud83d\ude00\ud83d`, 1))
	f.Fuzz(func(t *testing.T, text string) { compareParsers(t, text) })
}

func compareParsers(t *testing.T, text string) {
	t.Helper()
	p, err := Parse(text)
	rules, valid := secondParse(text)
	if valid != (err == nil) {
		t.Fatalf("%q: err = %v, the second reader says valid = %v", text, err, valid)
	}
	if !valid {
		faults(t, text)
		return
	}
	checkRoundTrip(t, p)
	var again struct{ Rules []map[string]any }
	raw, err := encode(document{p.Rules()})
	if err != nil {
		t.Fatal(err)
	}
	d := json.NewDecoder(strings.NewReader(string(raw)))
	d.UseNumber()
	if err := d.Decode(&again); err != nil {
		t.Fatal(err)
	}
	for i := range rules {
		if rules[i]["description"] == "" {
			delete(rules[i], "description")
		}
	}
	if !reflect.DeepEqual(again.Rules, rules) {
		t.Errorf("%q was read as %s, the second reader has %v", text, raw, rules)
	}
	p.Warnings()
}

// TestParsersAgree damages policies in the ways people do.
func TestParsersAgree(t *testing.T) {
	var texts []string
	for _, set := range readVectors(t) {
		for _, c := range set.Cases {
			if text := c.text(); len(text) < 4000 {
				texts = append(texts, text)
			}
		}
	}
	words := regexp.MustCompile(`"[^"]*"|[0-9]+|[{}\[\],:]`)
	rnd := rand.New(rand.NewPCG(3, 4))
	valid := 0
	for range 5_000 {
		text := texts[rnd.IntN(len(texts))]
		other := words.FindAllString(texts[rnd.IntN(len(texts))], -1)
		places := words.FindAllStringIndex(text, -1)
		if len(places) == 0 || len(other) == 0 {
			continue
		}
		for range 1 + rnd.IntN(2) {
			at := places[rnd.IntN(len(places))]
			if at[1] > len(text) {
				break
			}
			with := other[rnd.IntN(len(other))]
			if rnd.IntN(4) == 0 {
				with = ""
			}
			text = text[:at[0]] + with + text[at[1]:]
		}
		compareParsers(t, text)
		if _, err := Parse(text); err == nil {
			valid++
		}
	}
	if valid < 100 || valid > 4_000 {
		t.Errorf("%d damaged texts are valid: no good damage", valid)
	}
}

// FuzzPattern compares patterns and prefixes with regular expressions, alone and
// among others.
func FuzzPattern(f *testing.F) {
	for _, s := range [][2]string{
		{"*", ""}, {"a*b", "ab"}, {"a*b", "aXb"}, {"*a*a*", "aa"}, {"*a*a*", "a"}, {"ab*ba", "aba"}, {"*-rc*", "v1.2.3-rc1"}, {"a*", "A"}, {"?.[", "?.["},
		{"12345678*", "12345678"}, {"*12345678", "x12345678"}, {"123456789*12345678", "12345678912345678"}, {"*q*", "0123456789abcdefq"}, {"*\x00*", "a"}, {"**", "\xff"},
	} {
		f.Add(s[0], s[1], false)
		f.Add(s[0], s[1], true)
	}
	f.Fuzz(comparePattern)
}

func comparePattern(t *testing.T, entry, tag string, prefix bool) {
	t.Helper()
	expr := `^` + strings.ReplaceAll(regexp.QuoteMeta(entry), `\*`, `[\x00-\x{10ffff}]*`) + `$`
	pat := newPattern(entry)
	rule := Rule{Priority: 1, Selection: Selection{TagStatus: Tagged, TagPatterns: []string{entry}}}
	if prefix {
		expr = `^` + regexp.QuoteMeta(entry)
		pat = newPrefix(entry)
		rule.Selection.TagPatterns, rule.Selection.TagPrefixes = nil, []string{entry}
	}
	re, err := regexp.Compile(expr)
	if err != nil || strings.ToValidUTF8(tag, "") != tag || strings.ToValidUTF8(entry, "") != entry {
		return // regexp matches runes, and patterns bytes: in UTF-8 that is the same
	}
	want := re.MatchString(tag)
	if got := pat.match(tag); got != want {
		t.Fatalf("%q on %q: %v, %s says %v", entry, tag, got, expr, want)
	}
	few := Rule{Priority: 2, Selection: Selection{TagStatus: Tagged, TagPatterns: []string{"x*", "*y", "*z*"}}}
	more := Rule{Priority: 3, Selection: Selection{TagStatus: Tagged, TagPatterns: []string{"*q*", "*ba*", "*ab*aa*", "*12*"}}}
	for _, rules := range [][]Rule{{rule, few}, {rule, few, more}} {
		p := &Policy{rules: rules}
		p.compile()
		comparePolicy(t, p, re, entry, tag, want)
	}
}

func comparePolicy(t *testing.T, p *Policy, re *regexp.Regexp, entry, tag string, want bool) {
	t.Helper()
	seen := make([]uint64, p.match.words)
	for _, tags := range [][]string{{tag}, {tag, "x", "xyz"}, {"", tag}} {
		alone := want
		if len(tags) > 1 {
			alone = alone || re.MatchString(tags[0]) || re.MatchString(tags[1])
		}
		if len(tags) > 2 {
			alone = alone || re.MatchString(tags[2])
		}
		if got := p.match.rules(tags, seen)&1 == 1; got != alone {
			t.Fatalf("%q on %q in a policy: %v, want %v", entry, tags, got, alone)
		}
	}
}

// TestPatterns compares all short patterns on all short tags, and longer ones
// around the eight and sixteen bytes that the matcher takes at once.
func TestPatterns(t *testing.T) {
	var short func(letters string, n int) []string
	short = func(letters string, n int) []string {
		out := []string{""}
		if n > 0 {
			for _, rest := range short(letters, n-1) {
				for _, c := range letters {
					out = append(out, string(c)+rest)
				}
			}
		}
		return out
	}
	tags := short("ab", 5)
	for _, entry := range short("ab*", 4) {
		pat := newPattern(entry)
		re := regexp.MustCompile(`^` + strings.ReplaceAll(entry, "*", ".*") + `$`)
		for _, tag := range tags {
			if pat.match(tag) != re.MatchString(tag) {
				t.Fatalf("%q on %q: %v", entry, tag, pat.match(tag))
			}
		}
	}
	rnd := rand.New(rand.NewPCG(5, 6))
	text := func(letters string, n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = letters[rnd.IntN(len(letters))]
		}
		return string(b)
	}
	for range 4_000 {
		entry := text("aaab*", rnd.IntN(20))
		comparePattern(t, entry, text("aaab", rnd.IntN(20)), rnd.IntN(4) == 0)
		comparePattern(t, entry, strings.ReplaceAll(entry, "*", text("ab", rnd.IntN(4))), rnd.IntN(4) == 0)
	}
}
