package strictjson

import (
	"encoding/json"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"unicode/utf8"
)

func read(s string) *SyntaxError {
	var r Reader
	r.Reset(s)
	r.Skip()
	r.End()
	return r.Err()
}

// TestStringsAtEveryAlignment: each byte value, raw and escaped, at each place
// of a string, at each distance from the end of the text, is read as
// encoding/json reads it, or refused.
func TestStringsAtEveryAlignment(t *testing.T) {
	for before := range 18 {
		for after := range 10 {
			for c := range 256 {
				s := `"` + strings.Repeat("a", before) + string([]byte{byte(c)}) + strings.Repeat("b", after) + `"`
				var want string
				valid := json.Unmarshal([]byte(s), &want) == nil && utf8.ValidString(s)
				var r Reader
				r.Reset(s)
				got := r.String()
				r.End()
				if (r.Err() == nil) != valid || valid && got != want {
					t.Fatalf("%q: got %q, %v", s, got, r.Err())
				}
			}
			for _, e := range []string{`\n`, `\"`, `\\`, `\/`, `\u0041`, `\u00e9`, `\ud83d\ude00`, "é", "\u20ac", "😀"} {
				s := `"` + strings.Repeat("a", before) + e + strings.Repeat("b", after) + `"`
				var want string
				if err := json.Unmarshal([]byte(s), &want); err != nil {
					t.Fatal(err)
				}
				var r Reader
				r.Reset(s)
				if got := r.String(); got != want || r.Err() != nil {
					t.Fatalf("%q: got %q, %v", s, got, r.Err())
				}
			}
		}
	}
}

func TestRules(t *testing.T) {
	object := func(names ...string) string {
		var members []string
		for _, n := range names {
			members = append(members, fmt.Sprintf("%q:0", n))
		}
		return "{" + strings.Join(members, ",") + "}"
	}
	var many []string
	for i := range 100 {
		many = append(many, fmt.Sprint("n", i))
	}
	deepObjects := strings.Repeat(`{"a":0,"b":`, 60) + object(many...) + strings.Repeat("}", 60)
	for s, rule := range map[string]string{
		`{}`: "", ` [ ] `: "", `{"a":{"a":{"a":0}}}`: "", object(many...): "", `[` + object(many...) + "," + object(many...) + `]`: "", deepObjects: "",
		strings.Repeat("[", MaxDepth) + strings.Repeat("]", MaxDepth): "", "-0": "", "1e400": "", "0.5E-1": "",
		strings.Repeat("[", MaxDepth+1): RuleDepth, strings.Repeat(`{"a":`, 200): RuleDepth,
		`{"a":0,"a":0}`: RuleDuplicate, `{"a":0,"\u0061":0}`: RuleDuplicate, `[{"b":{"a":0,"c":0,"a":0}}]`: RuleDuplicate,
		object(append(many, "n0")...): RuleDuplicate, object(append(many, "n99")...): RuleDuplicate, object(append(many, "n50")...): RuleDuplicate,
		strings.Replace(deepObjects, `"n99"`, `"n3"`, 1): RuleDuplicate,
		strings.Replace(deepObjects, `"b"`, `"a"`, 1):    RuleDuplicate,
		"\"\xff\"": RuleUTF8, "\"\xed\xa0\x80\"": RuleUTF8, "\"\xc0\xaf\"": RuleUTF8, `"\ud800"`: RuleUTF8, `"\ud800\u0041"`: RuleUTF8, `"\udc00"`: RuleUTF8,
		"": RuleSyntax, " ": RuleSyntax, "{": RuleSyntax, "[": RuleSyntax, "[0": RuleSyntax, "[0,": RuleSyntax, "[,0]": RuleSyntax, "[0,]": RuleSyntax, "[0 0]": RuleSyntax, `{"a"}`: RuleSyntax, `{"a":}`: RuleSyntax,
		`{"a":0,}`: RuleSyntax, `{,}`: RuleSyntax, `{a:0}`: RuleSyntax, `{"a":0 "b":0}`: RuleSyntax, `"a`: RuleSyntax, `"\x"`: RuleSyntax, `"\`: RuleSyntax, `"\u12g4"`: RuleSyntax, "\"\n\"": RuleSyntax,
		"01": RuleSyntax, "+1": RuleSyntax, ".5": RuleSyntax, "5.": RuleSyntax, "1e": RuleSyntax, "-": RuleSyntax, "0x1": RuleSyntax, "NaN": RuleSyntax, "nul": RuleSyntax, "truex": RuleSyntax, "0 0": RuleSyntax,
		"\ufeff{}": RuleSyntax, "{}\x00": RuleSyntax, "\x00": RuleSyntax, "/**/0": RuleSyntax, "'a'": RuleSyntax,
	} {
		err := read(s)
		if rule == "" && err != nil || rule != "" && (err == nil || err.Rule != rule || err.Offset > len(s)) {
			t.Errorf("%.60q: %v, want %q", s, err, rule)
		}
	}
}

func TestInt64(t *testing.T) {
	for _, s := range []string{"0", "-0", "7", "-7", "123456789012345678", "1234567890123456789", "9223372036854775807", "9223372036854775808", "-9223372036854775808", "-9223372036854775809", "99999999999999999999", "1.0", "1e0", "10000000000000000.5"} {
		for _, after := range []string{"", " ", ",", "]"} {
			var r Reader
			r.Reset(" " + s + after)
			got, ok := r.Int64()
			want, isInt := new(big.Int).SetString(s, 10)
			isInt = isInt && want.IsInt64()
			if ok != isInt || ok && got != want.Int64() || r.Err() != nil || r.Left() != len(after) {
				t.Errorf("%q: %d %v %v, %d left", s+after, got, ok, r.Err(), r.Left())
			}
		}
	}
}

// FuzzReader: whatever is accepted is JSON for encoding/json too, and means the same.
func FuzzReader(f *testing.F) {
	f.Add(`{"a":[1,-2.5e3,"\u00e9",true,null,{}]}`)
	f.Fuzz(func(t *testing.T, s string) {
		err := read(s)
		if err != nil {
			if err.Rule == RuleSyntax && json.Valid([]byte(s)) {
				t.Fatalf("refused %q: %v", s, err)
			}
			return
		}
		if !json.Valid([]byte(s)) || !utf8.ValidString(s) {
			t.Fatalf("accepted %q", s)
		}
		var r Reader
		r.Reset(s)
		if got, ok := r.TryString(); ok {
			var want string
			if json.Unmarshal([]byte(s), &want) != nil || got != want {
				t.Fatalf("%q: %q, not %q", s, got, want)
			}
		}
	})
}
