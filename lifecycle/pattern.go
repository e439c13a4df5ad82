package lifecycle

import "strings"

// pattern is an entry of a tag list, ready to be compared: text at both ends
// and between stars. Matching is linear in the tag, whatever the pattern: the
// leftmost place for each part is as good as any.
type pattern struct {
	prefix, suffix string
	middle         []string // none is empty
	open           bool     // there is a star
	least          int      // bytes of a tag that it takes
}

func newPattern(entry string) pattern {
	parts := strings.Split(entry, "*")
	p := pattern{prefix: parts[0], open: len(parts) > 1}
	if p.open {
		p.suffix = parts[len(parts)-1]
		for _, part := range parts[1 : len(parts)-1] {
			if part != "" {
				p.middle = append(p.middle, part)
			}
		}
	}
	p.least = len(entry) - len(parts) + 1
	return p
}

// newPrefix has no wildcard: a star in it is a star.
func newPrefix(entry string) pattern {
	return pattern{prefix: entry, open: true, least: len(entry)}
}

// mayHave tells whether a tag that p matches may begin, and may end, with c.
func (p *pattern) mayHave(c byte) (first, last bool) {
	end := p.suffix
	if !p.open {
		end = p.prefix
	}
	return p.prefix == "" || p.prefix[0] == c, end == "" || end[len(end)-1] == c
}

func (p *pattern) match(tag string) bool {
	if len(tag) < p.least || tag[:len(p.prefix)] != p.prefix {
		return false
	}
	if !p.open {
		return len(tag) == len(p.prefix)
	}
	end := len(tag) - len(p.suffix)
	if tag[end:] != p.suffix {
		return false
	}
	rest := tag[len(p.prefix):end]
	for _, part := range p.middle {
		i := strings.Index(rest, part)
		if i < 0 {
			return false
		}
		rest = rest[i+len(part):]
	}
	return true
}

// covers tells whether each tag that q matches is matched by p.
func (p *pattern) covers(q *pattern) bool {
	text := q.prefix
	if q.open {
		// A star of q can only be taken by one of p, since no literal has one.
		text += "*"
		for _, part := range q.middle {
			text += part + "*"
		}
		text += q.suffix
	}
	return p.match(text)
}

// ends are the first and the last eight bytes of a text, zeros where there are
// less. They tell most tags from most patterns.
type ends struct{ first, last uint64 }

func endsOf(s string) ends {
	n := len(s)
	if n >= 8 {
		return ends{load32(s) | load32(s[4:])<<32, load32(s[n-8:]) | load32(s[n-4:])<<32}
	}
	return shortEnds(s)
}

func shortEnds(s string) ends {
	n := len(s)
	var v uint64
	switch {
	case n >= 4: // the two loads overlap in equal bytes
		v = load32(s) | load32(s[n-4:])<<(8*(n-4))
	case n > 0:
		v = uint64(s[0]) | uint64(s[n/2])<<(8*(n/2)) | uint64(s[n-1])<<(8*(n-1))
	}
	return ends{v, v << (8 * (8 - n))}
}

func load32(s string) uint64 {
	_ = s[3]
	return uint64(uint32(s[0]) | uint32(s[1])<<8 | uint32(s[2])<<16 | uint32(s[3])<<24)
}

// edges returns what the ends of each tag that p matches have in common, which
// bits of them, and whether a tag of at least p.least bytes needs no other check.
func (p *pattern) edges() (common, bits ends, all bool) {
	first, last := p.prefix, p.suffix
	if !p.open {
		last = p.prefix
	}
	common.first, bits.first = endsOf(first).first, mask(len(first))
	common.last, bits.last = endsOf(last).last, ^mask(8-min(8, len(last)))
	return common, bits, p.open && p.middle == nil && len(first) <= 8 && len(last) <= 8
}

// mask has the bits of the first n bytes, at most eight.
func mask(n int) uint64 {
	if n >= 8 {
		return ^uint64(0)
	}
	return 1<<(8*n) - 1
}

// rarestByte returns a byte between the stars of p, the one that fewest tags have
// by the frequency of letters in English, eight times; 0 if there is none.
func (p *pattern) rarestByte() uint64 {
	const frequent = "-.0123456789_etaoinsrhldcumfpgwybvkxjqz"
	best, least := byte(0), -1
	for _, part := range p.middle {
		for i := range len(part) {
			at := strings.IndexByte(frequent, part[i])
			if at < 0 {
				at = len(frequent)
			}
			if at > least {
				best, least = part[i], at
			}
		}
	}
	return uint64(best) * lowBits
}

const lowBits = 0x0101010101010101

// lack tells whether a text of at most 16 bytes has not the byte that eights has.
func (e *ends) lack(eights uint64) bool {
	a, b := e.first^eights, e.last^eights
	return ((a-lowBits)&^a|(b-lowBits)&^b)&(lowBits<<7) == 0
}

// grams is a set of the bytes and the pairs of bytes of a text, by a hash: what it
// lacks, the text lacks.
type grams [4]uint64

func (g *grams) add(s string) {
	for i := range len(s) {
		at := s[i] ^ 0x80
		g[at/64] |= 1 << (at % 64)
		if i > 0 {
			at = s[i-1]<<4 ^ s[i]
			g[at/64] |= 1 << (at % 64)
		}
	}
}

// lack tells whether some of need is not in g.
func (g *grams) lack(need *grams) bool {
	return need[0]&^g[0]|need[1]&^g[1]|need[2]&^g[2]|need[3]&^g[3] != 0
}
