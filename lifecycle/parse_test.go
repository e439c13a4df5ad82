package lifecycle

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// ruleText makes a policy of one rule out of the members of its selection.
func ruleText(selection, action string) string {
	return `{"rules":[{"rulePriority":1,"selection":{` + selection + `},"action":{` + action + `}}]}`
}

const (
	anyCount = `"tagStatus":"any","countType":"imageCountMoreThan","countNumber":1`
	toExpire = `"type":"expire"`
)

// TestAllFaultsAreReported: one text with many faults, each found in its place.
func TestAllFaultsAreReported(t *testing.T) {
	got := faults(t, `{"rules":[
		{"rulePriority":0,"Description":"x","selection":{"tagStatus":"ANY","countType":"imageCountMoreThan","countUnit":"days","countNumber":1.5},"action":{"type":"keep"}},
		{"rulePriority":2,"selection":{"tagStatus":"any","countType":"sinceImagePulled","countNumber":"3"},"action":{"type":"expire"}},
		{"rulePriority":2,"selection":{"tagStatus":"tagged","tagPatternList":["","a*b*c*d*e*f",7],"countType":"sinceImageTransitioned","countUnit":"weeks","countNumber":5},"action":{"type":"transition"}},
		null
	],"ver/s~n":1}`)
	const want = `/rules/0/rulePriority rule_priority 0
/rules/0/Description unknown_property "x"
/rules/0/selection/tagStatus tag_status "ANY"
/rules/0/selection/countNumber type 1.5
/rules/0/selection/countUnit count_unit_not_allowed "days"
/rules/0/action/type action_type "keep"
/rules/1/selection/countNumber type "3"
/rules/1/selection count_unit_required 
/rules/1/action/type action_count_type "expire"
/rules/2/selection/tagPatternList/0 tag_entry ""
/rules/2/selection/tagPatternList/1 wildcards "a*b*c*d*e*f"
/rules/2/selection/tagPatternList/2 type 7
/rules/2/selection/countUnit count_unit "weeks"
/rules/2/selection storage_class_required 
/rules/2/selection/countNumber archive_minimum 5
/rules/2/action target_storage_class 
/rules/2/action/type action_count_type "transition"
/rules/3 type null
/ver~1s~0n unknown_property 1
/rules/2/rulePriority duplicate_priority 2
`
	if got != want {
		t.Errorf("faults are\n%s", got)
	}
}

// faults returns a line for each fault of text.
func faults(t testing.TB, text string) string {
	t.Helper()
	p, err := Parse(text)
	if err == nil {
		return ""
	}
	var invalid *InvalidError
	if p != nil || !errors.Is(err, ErrInvalid) || !errors.As(err, &invalid) || len(invalid.Fields) == 0 {
		t.Fatalf("Parse = %v, %v", p, err)
	}
	var b strings.Builder
	for _, f := range invalid.Fields {
		fmt.Fprintf(&b, "%s %s %s\n", f.Pointer, f.Category, f.Value)
		if f.Allowed == "" || !strings.Contains(err.Error(), f.Allowed) {
			t.Errorf("%s: what is allowed?", f)
		}
	}
	return b.String()
}

// TestAMisspeltMemberIsToldWhatMayStandThere: the names of its place, not that its
// value were wrong.
func TestAMisspeltMemberIsToldWhatMayStandThere(t *testing.T) {
	_, err := Parse(`{"rules":[{"rulePriority":1,"selection":{"tagStatus":"any","countType":"imageCountMoreThan","countNumber":1},"action":{"typ":"expire"}}]}`)
	const want = "/rules/0/action/typ: unknown_property: allowed is: type, targetStorageClass; "
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v\ndoes not contain %s", err, want)
	}
}

// categories returns those of the faults of err.
func categories(err error) string {
	var out []string
	var invalid *InvalidError
	if errors.As(err, &invalid) {
		for _, f := range invalid.Fields {
			out = append(out, string(f.Category))
		}
	}
	return strings.Join(out, " ")
}

func TestFaults(t *testing.T) {
	long := strings.Repeat("a", 129)
	for _, test := range []struct{ text, want string }{
		{ruleText(anyCount, toExpire), ""},
		// The text.
		{"", "parse"}, {"{", "parse"}, {"null", "type"}, {`"x"`, "type"}, {"[]", "type"}, {ruleText(anyCount, toExpire) + "{}", "parse"}, {"\ufeff" + ruleText(anyCount, toExpire), "parse"},
		{strings.Replace(ruleText(anyCount, toExpire), `"tagStatus"`, `"tagStatus":"any","tagStatus"`, 1), "parse"},
		{strings.Replace(ruleText(anyCount, toExpire), `"any"`, "\"an\xff\"", 1), "parse"},
		{strings.Repeat(" ", MaxLength) + "{}", "length"},
		{`{"rules":[{"rulePriority":1,"description":"` + strings.Repeat("é", MaxLength-155) + `","selection":{` + anyCount + `},"action":{` + toExpire + `}}]}`, ""},
		{`{"rules":[{"rulePriority":1,"description":"` + strings.Repeat("é", MaxLength-153) + `","selection":{` + anyCount + `},"action":{` + toExpire + `}}]}`, "length"},
		// Structure.
		{"{}", "missing_property"}, {`{"rules":null}`, "type"}, {`{"rules":{}}`, "type"}, {`{"rules":[]}`, "rules_count"}, {`{"Rules":[]}`, "unknown_property missing_property"},
		{`{"rules":[1]}`, "type"}, {`{"rules":[[]]}`, "type"}, {`{"rules":[{}]}`, "missing_property missing_property missing_property"},
		{`{"rules":[{"rulePriority":1,"selection":null,"action":7}]}`, "type type"},
		{`{"rules":[{"rulePriority":1,"selection":{},"action":{}}]}`, "missing_property missing_property missing_property missing_property"},
		{`{"rules":[{"rulePriority":1,"description":null,"selection":{` + anyCount + `},"action":{` + toExpire + `}}]}`, "type"},
		// Numbers.
		{strings.Replace(ruleText(anyCount, toExpire), `"rulePriority":1`, `"rulePriority":-1`, 1), "rule_priority"},
		{strings.Replace(ruleText(anyCount, toExpire), `"rulePriority":1`, `"rulePriority":1e0`, 1), "type"},
		{strings.Replace(ruleText(anyCount, toExpire), `"rulePriority":1`, `"rulePriority":9223372036854775807`, 1), ""},
		{strings.Replace(ruleText(anyCount, toExpire), `"rulePriority":1`, `"rulePriority":9223372036854775808`, 1), "rule_priority"},
		{ruleText(`"tagStatus":"any","countType":"imageCountMoreThan","countNumber":1.0`, toExpire), "type"},
		{ruleText(`"tagStatus":"any","countType":"imageCountMoreThan","countNumber":18446744073709551617`, toExpire), "count_number"},
		{ruleText(`"tagStatus":"any","countType":"imageCountMoreThan","countNumber":-0`, toExpire), "count_number"},
		{ruleText(`"tagStatus":"any","countType":"imageCountMoreThan","countNumber":true`, toExpire), "type"},
		// Tags.
		{ruleText(`"tagPrefixList":["a"],`+anyCount, toExpire), "tag_list_not_allowed"}, {ruleText(`"tagPrefixList":[],"tagPatternList":[],`+anyCount, toExpire), ""},
		{ruleText(strings.Replace(anyCount, "any", "tagged", 1), toExpire), "tag_list_required"},
		{ruleText(`"tagPatternList":[],`+strings.Replace(anyCount, "any", "tagged", 1), toExpire), "tag_list_required"},
		{ruleText(`"tagPatternList":["a"],"tagPrefixList":["b"],`+strings.Replace(anyCount, "any", "tagged", 1), toExpire), "tag_list_conflict"},
		{ruleText(`"tagPatternList":["a"],"tagPrefixList":[],`+strings.Replace(anyCount, "any", "tagged", 1), toExpire), ""},
		{ruleText(`"tagPatternList":"a",`+strings.Replace(anyCount, "any", "tagged", 1), toExpire), "type"},
		{ruleText(`"tagPatternList":["a",null],`+strings.Replace(anyCount, "any", "tagged", 1), toExpire), "type"},
		{ruleText(`"tagPrefixList":[""],`+strings.Replace(anyCount, "any", "tagged", 1), toExpire), "tag_entry"},
		{ruleText(`"tagPatternList":["****"],`+strings.Replace(anyCount, "any", "tagged", 1), toExpire), ""},
		{ruleText(`"tagPatternList":["*****"],`+strings.Replace(anyCount, "any", "tagged", 1), toExpire), "wildcards"},
		{ruleText(`"tagPrefixList":["*****"],`+strings.Replace(anyCount, "any", "tagged", 1), toExpire), ""},
		{ruleText(`"tagPatternList":["****`+long[1:]+`"],`+strings.Replace(anyCount, "any", "tagged", 1), toExpire), ""},
		{ruleText(`"tagPatternList":["`+long+`*"],`+strings.Replace(anyCount, "any", "tagged", 1), toExpire), "tag_entry"},
		{ruleText(`"tagPrefixList":["`+long+`"],`+strings.Replace(anyCount, "any", "tagged", 1), toExpire), "tag_entry"},
		// Counts and classes.
		{ruleText(`"tagStatus":"any","countType":"sinceImagePushed","countUnit":"Days","countNumber":1`, toExpire), "count_unit"},
		{ruleText(`"tagStatus":"any","countType":"sinceImagePushed","countUnit":null,"countNumber":1`, toExpire), "type"},
		{ruleText(`"tagStatus":"any","countType":"sinceimagepushed","countUnit":"days","countNumber":1`, toExpire), "count_type"},
		{ruleText(`"storageClass":"glacier",`+anyCount, toExpire), "storage_class"}, {ruleText(`"storageClass":"activating",`+anyCount, toExpire), "storage_class"},
		{ruleText(`"storageClass":"standard",`+anyCount, toExpire), ""}, {ruleText(`"storageClass":"archive",`+anyCount, toExpire), "storage_class"},
		{ruleText(`"storageClass":"standard","tagStatus":"any","countType":"sinceImageTransitioned","countUnit":"days","countNumber":90`, toExpire), "storage_class"},
		// Actions.
		{ruleText(anyCount, `"type":"untag"`), "action_type"}, {ruleText(anyCount, `"type":"transition","targetStorageClass":"archive"`), ""},
		{ruleText(anyCount, `"type":"transition","targetStorageClass":"standard"`), "target_storage_class"}, {ruleText(anyCount, `"type":"expire","targetStorageClass":"archive"`), "target_storage_class"},
		{ruleText(`"storageClass":"archive","tagStatus":"any","countType":"sinceImageTransitioned","countUnit":"days","countNumber":90`, `"type":"transition","targetStorageClass":"archive"`), "action_count_type"},
	} {
		_, err := Parse(test.text)
		if got := categories(err); got != test.want {
			t.Errorf("%.300s: %q, want %q", test.text, got, test.want)
		}
	}
}

// TestRulesTogether has rules as class, status or prefixes, and priority.
func TestRulesTogether(t *testing.T) {
	for rules, want := range map[string]string{
		"any 9, untagged 1, a 2":             "",
		"any 1, untagged 2":                  "any_not_last",
		"any 1, archive untagged 2":          "",
		"archive any 1, any 2":               "",
		"any 1, any 2":                       "multiple_any",
		"any 1, a 2, any 3":                  "any_not_last multiple_any",
		"untagged 1, untagged 2, untagged 3": "multiple_untagged multiple_untagged",
		"untagged 1, archive untagged 2":     "",
		"a 1, a 2":                           "duplicate_prefixes",
		"a 1, archive a 2":                   "",
		"a|b 1, b|a 2, a 3, b 4, a|b|c 5":    "duplicate_prefixes",
		"a|a 1, a 2":                         "duplicate_prefixes",
		"a 1, ab 2":                          "",
		"a 1, b 1, c 1":                      "duplicate_priority duplicate_priority",
		"a 1, archive b 1":                   "duplicate_priority",
	} {
		var list []Rule
		for _, text := range strings.Split(rules, ", ") {
			words := strings.Fields(text)
			r := Rule{Action: Action{Type: Expire}, Selection: Selection{CountType: ImageCountMoreThan, CountNumber: 1}}
			if words[0] == "archive" {
				r.Selection.StorageClass, r.Selection.CountType, r.Selection.CountUnit, r.Selection.CountNumber = Archive, SinceImageTransitioned, "days", 90
				words = words[1:]
			}
			if r.Selection.TagStatus = TagStatus(words[0]); r.Selection.TagStatus != Any && r.Selection.TagStatus != Untagged {
				r.Selection.TagStatus, r.Selection.TagPrefixes = Tagged, strings.Split(words[0], "|")
			}
			fmt.Sscan(words[1], &r.Priority)
			list = append(list, r)
		}
		_, err := New(list...)
		if got := categories(err); got != want {
			t.Errorf("%s: %q, want %q", rules, got, want)
		}
	}
}

// TestNormalForm: what Terraform takes for equal has one text.
func TestNormalForm(t *testing.T) {
	a := mustParse(t, ` { "rules" : [
		{"rulePriority":20,"selection":{"tagStatus":"any","tagPrefixList":[],"countType":"imageCountMoreThan","countNumber":1},"action":{"type":"expire"}},
		{"rulePriority":3,"description":"a < b & c","selection":{"countNumber":2,"tagStatus":"tagged","countType":"sinceImagePushed","countUnit":"days","tagPatternList":["z*","a*"]},
		 "action":{"targetStorageClass":"archive","type":"transition"}} ] } `)
	const want = `{"rules":[{"rulePriority":3,"description":"a < b & c","selection":{"tagStatus":"tagged","tagPatternList":["a*","z*"],"countType":"sinceImagePushed","countUnit":"days","countNumber":2},"action":{"type":"transition","targetStorageClass":"archive"}},{"rulePriority":20,"selection":{"tagStatus":"any","countType":"imageCountMoreThan","countNumber":1},"action":{"type":"expire"}}]}`
	if a.String() != want {
		t.Errorf("normal form is %s", a)
	}
	b := mustParse(t, want)
	if !a.Equal(b) || !b.Equal(a) {
		t.Error("not equal to its normal form")
	}
	if got := a.Rules()[0].Selection.TagPatterns; !slices.Equal(got, []string{"z*", "a*"}) {
		t.Errorf("the rule has %v: its order was lost", got)
	}
	a.Rules()[0].Selection.TagPatterns[0] = "mine"
	if a.String() != want {
		t.Error("a policy was changed from outside")
	}
	for _, other := range []string{`"countNumber":3`, `"description":"a"`, `"tagStatus":"any","storageClass":"standard"`} {
		name, _, _ := strings.Cut(other, ":")
		changed := want
		switch name {
		case `"countNumber"`:
			changed = strings.Replace(want, `"countNumber":2`, other, 1)
		case `"description"`:
			changed = strings.Replace(want, `"description":"a < b & c"`, other, 1)
		default:
			changed = strings.Replace(want, `"tagStatus":"any"`, other, 1)
		}
		if mustParse(t, changed).Equal(a) {
			t.Errorf("equal with %s", other)
		}
	}
	var in struct{ Policy *Policy }
	if err := json.Unmarshal([]byte(`{"Policy":`+want+`}`), &in); err != nil || !in.Policy.Equal(a) {
		t.Errorf("in another document: %v, %v", in.Policy, err)
	}
	if err := json.Unmarshal([]byte(`{"Policy":{"rules":[]}}`), &in); !errors.Is(err, ErrInvalid) {
		t.Errorf("an invalid one in another document: %v", err)
	}
}

func TestWarnings(t *testing.T) {
	for _, test := range []struct{ rules, want string }{
		{"^v, untagged, any", ""},
		{"^v, ^v1", "2 dead_rule"}, {"^v1, ^v", "2 overlapping_prefix"}, {"^v, v*", "2 dead_rule"}, {"v*, ^v", "2 dead_rule"}, {"v1, v*", ""},
		{"*, ^v", "2 dead_rule"}, {"*, untagged, any", "3 dead_rule"}, {"**, untagged, any", "3 dead_rule"}, {"*, any", ""}, {"untagged, any", ""},
		{"*, archive ^v", ""}, {"*a*, *b*a*b*", "2 dead_rule"}, {"*a*b*, *a*", ""}, {"*b*a*, *a*b*", ""}, {"v*, v*&*-rc", "2 dead_rule"}, {"v*&*-rc, v*", ""}, {"v*&*c, *bc&va*", "2 dead_rule"},
		{"a*z, a*b*z", "2 dead_rule"}, {"a*b*z, a*z", ""}, {"abc, abc", "2 dead_rule"}, {"a*, b*", ""},
		{"^v*", "1 star_in_prefix, 1 unmatchable"}, {"^v*, v*", "1 star_in_prefix, 1 unmatchable"}, {"^v*, v*x", "1 star_in_prefix, 1 unmatchable"},
		{"a/b*", "1 unmatchable"}, {"-a*", "1 unmatchable"}, {".a", "1 unmatchable"}, {"*é", "1 unmatchable"}, {"*.a-_Z9", ""},
		{"prod*&staging*", "1 several_tags"}, {"^prod&^p", ""}, {"a*&*b", ""}, {"*a&*b", "1 several_tags"}, {"ab&a*", ""}, {"ab&b*", "1 several_tags"}, {"ab&*c*", "1 several_tags"}, {"ab&*b*", ""}, {"ab&abc", "1 several_tags"},
	} {
		var rules []Rule
		for i, text := range strings.Split(test.rules, ", ") {
			r := Rule{Priority: int64(i + 1), Action: Action{Type: Expire}, Selection: Selection{TagStatus: TagStatus(text), CountType: ImageCountMoreThan, CountNumber: 1}}
			text, archived := strings.CutPrefix(text, "archive ")
			if archived {
				r.Selection.StorageClass, r.Selection.CountType, r.Selection.CountUnit, r.Selection.CountNumber = Archive, SinceImageTransitioned, "days", 90
			}
			if text != string(Any) && text != string(Untagged) {
				r.Selection.TagStatus = Tagged
				for _, entry := range strings.Split(text, "&") {
					if prefix, ok := strings.CutPrefix(entry, "^"); ok {
						r.Selection.TagPrefixes = append(r.Selection.TagPrefixes, prefix)
					} else {
						r.Selection.TagPatterns = append(r.Selection.TagPatterns, entry)
					}
				}
			}
			rules = append(rules, r)
		}
		p, err := New(rules...)
		if err != nil {
			t.Fatalf("%s: %v", test.rules, err)
		}
		var got []string
		for _, w := range p.Warnings() {
			got = append(got, fmt.Sprint(w.Rule, " ", w.Kind))
			if w.Text == "" || !strings.HasPrefix(w.String(), "rule ") {
				t.Errorf("%s: warning %v", test.rules, w)
			}
		}
		if have := strings.Join(got, ", "); have != test.want {
			t.Errorf("%s: %q, want %q", test.rules, have, test.want)
		}
	}
}
