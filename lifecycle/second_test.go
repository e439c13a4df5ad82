package lifecycle

import (
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// secondParse is a second reader of policies, written apart from Parse: on
// encoding/json and maps, it only says whether a text is a valid policy, and what
// its rules are by priority.
func secondParse(text string) ([]map[string]any, bool) {
	if !utf8.ValidString(text) || utf8.RuneCountInString(text) > 30720 || loneSurrogate(text) {
		return nil, false
	}
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	doc, err := secondValue(d, 0)
	if err != nil {
		return nil, false
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, false
	}
	top, ok := doc.(map[string]any)
	if !ok || len(top) != 1 {
		return nil, false
	}
	list, ok := top["rules"].([]any)
	if !ok || len(list) < 1 || len(list) > 50 {
		return nil, false
	}
	var rules []map[string]any
	for _, v := range list {
		r, ok := v.(map[string]any)
		if !ok || !secondRule(r) {
			return nil, false
		}
		rules = append(rules, r)
	}
	slices.SortFunc(rules, func(a, b map[string]any) int {
		return int(min(1, max(-1, number(a["rulePriority"])-number(b["rulePriority"]))))
	})
	return rules, secondTogether(rules)
}

// loneSurrogate: encoding/json replaces half a surrogate pair, which no strict
// reader takes.
func loneSurrogate(text string) bool {
	var s string
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' {
			continue
		}
		if i+6 <= len(text) && text[i+1] == 'u' {
			if json.Unmarshal([]byte(`"`+text[i:i+6]+`"`), &s) == nil && s == "\ufffd" && !strings.EqualFold(text[i:i+6], `\ufffd`) {
				if i+12 > len(text) || json.Unmarshal([]byte(`"`+text[i:i+12]+`"`), &s) != nil || len(s) != 4 {
					return true
				}
				i += 6
			}
		}
		i++
	}
	return false
}

var errSecond = errors.New("refused")

// secondValue reads a value, and refuses names given twice.
func secondValue(d *json.Decoder, depth int) (any, error) {
	if depth > 128 {
		return nil, errSecond
	}
	token, err := d.Token()
	if err != nil {
		return nil, err
	}
	switch token {
	case json.Delim('{'):
		object := map[string]any{}
		for d.More() {
			name, err := d.Token()
			if err != nil {
				return nil, err
			}
			if _, twice := object[name.(string)]; twice {
				return nil, errSecond
			}
			if object[name.(string)], err = secondValue(d, depth+1); err != nil {
				return nil, err
			}
		}
		_, err := d.Token()
		return object, err
	case json.Delim('['):
		list := []any{}
		for d.More() {
			v, err := secondValue(d, depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		_, err := d.Token()
		return list, err
	}
	return token, nil
}

// number returns an integer of 1 or more, or 0.
func number(v any) int64 {
	n, ok := v.(json.Number)
	if !ok || strings.ContainsAny(string(n), ".eE") {
		return 0
	}
	i, err := strconv.ParseInt(string(n), 10, 64)
	if err != nil || i < 1 {
		return 0
	}
	return i
}

// only tells whether the names of m are all among names.
func only(m map[string]any, names ...string) bool {
	for name := range m {
		if !slices.Contains(names, name) {
			return false
		}
	}
	return true
}

func secondRule(r map[string]any) bool {
	s, ok := r["selection"].(map[string]any)
	a, ok2 := r["action"].(map[string]any)
	if !ok || !ok2 || !only(r, "rulePriority", "description", "selection", "action") || number(r["rulePriority"]) == 0 {
		return false
	}
	if d, has := r["description"]; has {
		if _, ok := d.(string); !ok {
			return false
		}
	}
	if !only(s, "tagStatus", "tagPatternList", "tagPrefixList", "storageClass", "countType", "countUnit", "countNumber") || !only(a, "type", "targetStorageClass") {
		return false
	}
	// The list of tags.
	lists := 0
	for _, name := range []string{"tagPatternList", "tagPrefixList"} {
		v, has := s[name]
		if !has {
			continue
		}
		list, ok := v.([]any)
		if !ok {
			return false
		}
		if len(list) == 0 {
			delete(s, name)
			continue
		}
		lists++
		for _, e := range list {
			text, ok := e.(string)
			letters := text
			if name == "tagPatternList" {
				letters = strings.ReplaceAll(text, "*", "")
			}
			if !ok || text == "" || len(text)-len(letters) > 4 || len(letters) > 128 {
				return false
			}
		}
	}
	switch s["tagStatus"] {
	case "tagged":
		if lists != 1 {
			return false
		}
	case "untagged", "any":
		if lists != 0 {
			return false
		}
	default:
		return false
	}
	// What goes with the count type.
	unit, hasUnit := s["countUnit"]
	class, hasClass := s["storageClass"]
	target, hasTarget := a["targetStorageClass"]
	n := number(s["countNumber"])
	standard := !hasClass || class == "standard"
	expire := a["type"] == "expire" && !hasTarget
	transition := a["type"] == "transition" && target == "archive"
	days := hasUnit && unit == "days"
	switch s["countType"] {
	case "imageCountMoreThan":
		return n >= 1 && !hasUnit && standard && (expire || transition)
	case "sinceImagePushed":
		return n >= 1 && days && standard && (expire || transition)
	case "sinceImagePulled":
		return n >= 1 && days && standard && transition
	case "sinceImageTransitioned":
		return n >= 90 && days && class == "archive" && expire
	}
	return false
}

// secondTogether checks rules, by priority, with one another.
func secondTogether(rules []map[string]any) bool {
	type scope struct {
		archive bool
		what    string
	}
	seen := map[scope]bool{}
	for i, r := range rules {
		if i > 0 && number(rules[i-1]["rulePriority"]) == number(r["rulePriority"]) {
			return false
		}
		s := r["selection"].(map[string]any)
		archive := s["storageClass"] == "archive"
		if seen[scope{archive, "any"}] { // it must be the last
			return false
		}
		key := scope{archive, s["tagStatus"].(string)}
		if list, ok := s["tagPrefixList"].([]any); ok {
			var set []string
			for _, e := range list {
				set = append(set, e.(string))
			}
			slices.Sort(set)
			key.what = "\x00" + strings.Join(slices.Compact(set), "\x00")
		} else if key.what == "tagged" {
			continue
		}
		if seen[key] {
			return false
		}
		seen[key] = true
	}
	return true
}
