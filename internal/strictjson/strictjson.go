// Package strictjson reads JSON in one pass and refuses whatever two readers
// could understand differently: duplicate names, invalid UTF-8, lone
// surrogates, deep nesting, bytes after the value. That is I-JSON (RFC 7493)
// as image-spec main requires it, plus a depth limit. Names are compared
// exactly.
//
// It exists because encoding/json folds the case of names, takes the last of
// two duplicates and replaces bad UTF-8.
package strictjson

import (
	"fmt"
	"math/bits"
	"slices"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// MaxDepth is how deep objects and arrays may nest.
const MaxDepth = 128

// Rules that a [SyntaxError] can name.
const (
	RuleSyntax    = "json-syntax"
	RuleUTF8      = "json-utf8"
	RuleDuplicate = "json-duplicate-name"
	RuleDepth     = "json-depth"
)

// SyntaxError is the first fault of a text.
type SyntaxError struct {
	Offset int    // in bytes
	Rule   string // one of the Rule constants
	Detail string
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("%s at byte %d: %s", e.Rule, e.Offset, e.Detail)
}

// Reader reads one text. After an error it is at the end of an empty text, and
// Err tells.
type Reader struct {
	Name string // of the member that Object.Next came to last

	s     string
	pos   int
	depth int
	err   *SyntaxError

	// The names of open objects, to find duplicates: the first eight of each in
	// few, while there is room, to be compared at once; all others in many, to be
	// sorted at the object's end.
	few  [16]string
	nfew int
	many []string
}

// Reset makes r read s. The strings that r returns share its memory.
func (r *Reader) Reset(s string) {
	r.s, r.pos, r.depth, r.err = s, 0, 0, nil
	r.nfew, r.many = 0, nil
}

// Err returns the first fault found, or nil.
func (r *Reader) Err() *SyntaxError { return r.err }

// Pos returns how many bytes have been read.
func (r *Reader) Pos() int { return r.pos }

// Left returns how many bytes have not been read.
func (r *Reader) Left() int { return len(r.s) - r.pos }

// Since returns the text read since Pos was start, "" after an error.
func (r *Reader) Since(start int) string {
	if r.err != nil {
		return ""
	}
	return r.s[start:r.pos]
}

func (r *Reader) fail(rule, detail string) {
	if r.err == nil {
		r.err = &SyntaxError{r.pos, rule, detail}
	}
	r.s, r.pos = "", 0
}

// Stop ends the reading, with an error of no rule.
func (r *Reader) Stop() { r.fail("", "stopped") }

// Peek skips white space and returns the first byte of what follows, 0 at the
// end.
func (r *Reader) Peek() byte {
	c := r.here()
	if c <= ' ' {
		c = r.peekSlow()
	}
	return c
}

// here is Peek without the white space. Where speed counts it stands, inlined,
// before peekSlow.
func (r *Reader) here() byte {
	if r.pos < len(r.s) {
		return r.s[r.pos]
	}
	return 0
}

func (r *Reader) peekSlow() byte {
	for r.pos < len(r.s) {
		switch c := r.s[r.pos]; c {
		case ' ', '\t', '\n', '\r':
			r.pos++
		case 0:
			r.fail(RuleSyntax, "NUL outside a string")
		default:
			return c
		}
	}
	return 0
}

// End checks that nothing but white space follows.
func (r *Reader) End() {
	if c := r.Peek(); c != 0 {
		r.fail(RuleSyntax, "data after the value")
	}
}

// Object is a cursor over the members of one object.
type Object struct {
	r     *Reader
	begun bool
	few   int // where in r.few its names begin
	many  int // and in r.many
}

// Object begins to read an object. The value of each member must be read, or
// skipped, before the next.
func (r *Reader) Object() Object {
	r.open('{', "expected an object")
	return Object{r: r, few: r.nfew, many: len(r.many)}
}

func (r *Reader) open(bracket byte, expected string) {
	if r.Peek() != bracket {
		r.fail(RuleSyntax, expected)
		return
	}
	r.pos++
	if r.depth++; r.depth > MaxDepth {
		r.fail(RuleDepth, "nested more than "+strconv.Itoa(MaxDepth)+" deep")
	}
}

// Next reads the name of the next member. It is false at the end of the object
// and after an error.
func (o *Object) Next() bool {
	r := o.r
	c := r.here()
	if c <= ' ' {
		c = r.peekSlow()
	}
	if c == '}' {
		r.pos++
		r.depth--
		if o.many < len(r.many) {
			o.checkMany()
		}
		r.nfew = o.few
		return false
	}
	if o.begun {
		if c != ',' {
			r.fail(RuleSyntax, "expected a comma or the end of the object")
			return false
		}
		r.pos++
		if c = r.here(); c <= ' ' {
			c = r.peekSlow()
		}
	}
	if c != '"' {
		r.fail(RuleSyntax, "expected a name")
		return false
	}
	at := r.pos
	name := r.str()
	if c = r.here(); c <= ' ' {
		c = r.peekSlow()
	}
	if c != ':' {
		r.fail(RuleSyntax, "expected a colon")
		return false
	}
	r.pos++
	if n := r.nfew; n < min(o.few+8, len(r.few)) {
		for i := o.few; i < n; i++ {
			if r.few[i] == name {
				r.pos = at
				r.fail(RuleDuplicate, "name "+quote(name)+" is there twice")
				return false
			}
		}
		r.few[n] = name
		r.nfew++
	} else {
		r.remember(name)
	}
	o.begun = true
	r.Name = name // not a field of o, which would move r to the heap
	return true
}

// remember appends to r.many, which grows by what is left to read: a member
// that is new among many has eight bytes.
func (r *Reader) remember(name string) {
	if n := len(r.many); n == cap(r.many) {
		r.many = append(make([]string, 0, min(4*n+64, n+1+r.Left()/8)), r.many...)
	}
	r.many = append(r.many, name)
}

func (o *Object) checkMany() {
	r := o.r
	names := r.many[o.many:]
	slices.Sort(names)
	twice := func(name string) { r.fail(RuleDuplicate, "name "+quote(name)+" is there twice") }
	for i := 1; i < len(names); i++ {
		if names[i] == names[i-1] {
			twice(names[i])
		}
	}
	for _, name := range r.few[o.few:r.nfew] {
		if _, found := slices.BinarySearch(names, name); found {
			twice(name)
		}
	}
	r.many = r.many[:o.many]
}

// Array is a cursor over the elements of one array.
type Array struct {
	r     *Reader
	begun bool
}

// Array begins to read an array.
func (r *Reader) Array() Array {
	r.open('[', "expected an array")
	return Array{r: r}
}

// Next tells whether another element follows, which must then be read or
// skipped.
func (a *Array) Next() bool {
	r := a.r
	c := r.here()
	if c <= ' ' {
		c = r.peekSlow()
	}
	if c == ']' {
		r.pos++
		r.depth--
		return false
	}
	if a.begun {
		if c != ',' {
			r.fail(RuleSyntax, "expected a comma or the end of the array")
			return false
		}
		r.pos++
		if c = r.Peek(); c == ']' {
			r.fail(RuleSyntax, "comma before the end of the array")
			return false
		}
	}
	a.begun = true
	if c == 0 {
		r.fail(RuleSyntax, "array without end")
		return false
	}
	return true
}

// String reads a string.
func (r *Reader) String() string {
	s, ok := r.TryString()
	if !ok {
		r.fail(RuleSyntax, "expected a string")
	}
	return s
}

// TryString reads a string if one is what follows.
func (r *Reader) TryString() (string, bool) {
	c := r.here()
	if c <= ' ' {
		c = r.peekSlow()
	}
	if c != '"' {
		return "", false
	}
	return r.str(), true
}

const (
	lsb = 0x0101010101010101
	msb = 0x8080808080808080
)

func load64(s string, i int) uint64 {
	_ = s[i+7]
	return uint64(s[i]) | uint64(s[i+1])<<8 | uint64(s[i+2])<<16 | uint64(s[i+3])<<24 |
		uint64(s[i+4])<<32 | uint64(s[i+5])<<40 | uint64(s[i+6])<<48 | uint64(s[i+7])<<56
}

// special marks, with their top bits, the bytes of w that are a quote, a
// backslash, a control character or not ASCII. Only the lowest mark is exact:
// what lies above it may have lost a borrow.
func special(w uint64) uint64 {
	quote, backslash, control := (w^'"'*lsb)-lsb, (w^'\\'*lsb)-lsb, w-' '*lsb
	return (quote | backslash | control | w) & msb
}

// str reads the string whose quote is at pos.
func (r *Reader) str() string {
	s, i := r.s, r.pos+1
	start, ascii := i, true
	for {
		for i+8 <= len(s) {
			if m := special(load64(s, i)); m != 0 {
				i += bits.TrailingZeros64(m) >> 3
				break
			}
			i += 8
		}
		if i >= len(s) {
			r.pos = len(s)
			r.fail(RuleSyntax, "string without end")
			return ""
		}
		switch c := s[i]; {
		case c == '"':
			r.pos = i + 1
			if out := s[start:i]; ascii || utf8.ValidString(out) {
				return out
			}
			r.pos = start
			r.fail(RuleUTF8, "string is not UTF-8")
			return ""
		case c == '\\':
			return r.strEscaped(start)
		case c < ' ':
			r.pos = i
			r.fail(RuleSyntax, "control character in a string")
			return ""
		case c >= utf8.RuneSelf:
			ascii = false
		}
		i++ // an ordinary byte near the end of the text, or one of a longer rune
	}
}

// strEscaped reads a string that has an escape.
func (r *Reader) strEscaped(start int) string {
	s := r.s
	var out []byte
	for i := start; i < len(s); {
		switch c := s[i]; {
		case c == '"':
			r.pos = i + 1
			if !utf8.Valid(out) {
				r.fail(RuleUTF8, "string is not UTF-8")
			}
			return string(out)
		case c < ' ':
			r.pos = i
			r.fail(RuleSyntax, "control character in a string")
			return ""
		case c != '\\':
			out = append(out, c)
			i++
		default:
			n, ok := 0, false
			if out, n, ok = r.escape(out, i); !ok {
				return ""
			}
			i += n
		}
	}
	r.pos = len(s)
	r.fail(RuleSyntax, "string without end")
	return ""
}

// escape appends what the escape at i stands for and returns its length.
func (r *Reader) escape(out []byte, i int) ([]byte, int, bool) {
	s := r.s
	r.pos = i
	if i+1 < len(s) {
		switch c := s[i+1]; c {
		case '"', '\\', '/':
			return append(out, c), 2, true
		case 'b':
			return append(out, '\b'), 2, true
		case 'f':
			return append(out, '\f'), 2, true
		case 'n':
			return append(out, '\n'), 2, true
		case 'r':
			return append(out, '\r'), 2, true
		case 't':
			return append(out, '\t'), 2, true
		case 'u':
			u, ok := hex4(s, i+2)
			if !ok {
				break
			}
			if !utf16.IsSurrogate(u) {
				return utf8.AppendRune(out, u), 6, true
			}
			if i+7 < len(s) && s[i+6] == '\\' && s[i+7] == 'u' {
				if v, ok := hex4(s, i+8); ok {
					if u = utf16.DecodeRune(u, v); u != utf8.RuneError {
						return utf8.AppendRune(out, u), 12, true
					}
				}
			}
			r.fail(RuleUTF8, "half of a surrogate pair")
			return out, 0, false
		}
	}
	r.fail(RuleSyntax, "bad escape")
	return out, 0, false
}

func hex4(s string, i int) (rune, bool) {
	if i+4 > len(s) {
		return 0, false
	}
	var u rune
	for _, c := range []byte(s[i : i+4]) {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		u = u<<4 | rune(c)
	}
	return u, true
}

// Int64 reads a number. It is false when the number is no integer, is written
// with a fraction or an exponent, or does not fit; the number has then been
// read all the same.
func (r *Reader) Int64() (int64, bool) {
	if c := r.Peek(); c != '-' && (c < '0' || c > '9') {
		r.fail(RuleSyntax, "expected a number")
		return 0, false
	}
	s, start := r.s, r.pos
	var n int64
	i := start
	for i < len(s) && '0' <= s[i] && s[i] <= '9' {
		n = n*10 + int64(s[i]-'0') // may overflow, then it is not used
		i++
	}
	// Nearly always: up to 18 digits, which fit, and no more than digits.
	if k := i - start; 0 < k && k <= 18 && (s[start] != '0' || k == 1) && i < len(s) && s[i] != '.' && s[i]|0x20 != 'e' {
		r.pos = i
		return n, true
	}
	if !r.number() {
		return 0, false
	}
	n, err := strconv.ParseInt(r.Since(start), 10, 64)
	return n, err == nil
}

// number reads a number and tells whether it is written as an integer.
func (r *Reader) number() (integer bool) {
	s, i := r.s, r.pos
	if i < len(s) && s[i] == '-' {
		i++
	}
	digits := func() bool {
		from := i
		for i < len(s) && '0' <= s[i] && s[i] <= '9' {
			i++
		}
		return i > from
	}
	ok := true
	if i < len(s) && s[i] == '0' {
		i++
	} else {
		ok = digits()
	}
	integer = ok
	if ok && i < len(s) && s[i] == '.' {
		i++
		integer, ok = false, digits()
	}
	if ok && i < len(s) && s[i]|0x20 == 'e' {
		i++
		if i < len(s) && (s[i] == '+' || s[i] == '-') {
			i++
		}
		integer, ok = false, digits()
	}
	r.pos = i
	if !ok {
		r.fail(RuleSyntax, "bad number")
	}
	return integer
}

// Skip reads and checks one value of any kind.
func (r *Reader) Skip() {
	switch c := r.Peek(); c {
	case '{':
		for o := r.Object(); o.Next(); {
			r.Skip()
		}
	case '[':
		for a := r.Array(); a.Next(); {
			r.Skip()
		}
	case '"':
		r.str()
	case 't':
		r.word("true")
	case 'f':
		r.word("false")
	case 'n':
		r.word("null")
	case 0:
		r.fail(RuleSyntax, "text ends where a value should be")
	default:
		if c != '-' && (c < '0' || c > '9') {
			r.fail(RuleSyntax, "expected a value")
			return
		}
		r.number()
	}
}

// Null reads null if it is what follows.
func (r *Reader) Null() bool {
	if r.Peek() != 'n' {
		return false
	}
	r.word("null")
	return r.err == nil
}

func (r *Reader) word(w string) {
	if len(r.s)-r.pos < len(w) || r.s[r.pos:r.pos+len(w)] != w {
		r.fail(RuleSyntax, "expected a value")
		return
	}
	r.pos += len(w)
}

// quote shortens what a document says for an error message.
func quote(s string) string {
	const most = 64
	if len(s) > most {
		return strconv.Quote(s[:most]) + "…"
	}
	return strconv.Quote(s)
}
