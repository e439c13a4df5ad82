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
