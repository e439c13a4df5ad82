package lifecycle

import (
	"math/bits"
	"slices"
)

// matcher says which rules of a policy are about an image. Sets of rules are
// bit masks: rule i, by priority, is bit i.
type matcher struct {
	words   int // uint64s that a set of entries takes
	entries []entry
	first   []uint64 // by the first byte of a tag: the set of entries that may match it
	last    []uint64 // by the last byte
	several []several
	between int // entries with text between stars

	class    [2]uint64 // rules of the standard class, and of the archive
	any      uint64    // rules for any image, if it has tags
	untagged uint64    // rules for images without

	fold bool
	keep []keeper
}

// entry is one of the distinct entries of all lists.
type entry struct {
	pattern
	common  ends   // of what it matches
	bits    ends   // which bits of common count
	all     bool   // common and pattern.least decide
	rarest  uint64 // a byte that it has between stars, eight times; 0 if there is none
	grams   grams  // of what it has between stars
	alone   uint64 // rules that need no other
	exclude uint64 // rules that do not see what has it
}

// several is a rule that needs several entries.
type several struct {
	rule uint64
	need []uint64 // a set of entries
}

// keeper is a KeepRule, ready to be compared.
type keeper struct {
	*KeepRule
	patterns []pattern
}

func (p *Policy) compile() {
	m := matcher{fold: p.opts.IgnoreCase}
	index := map[string]int{}
	add := func(text string, prefix bool) int {
		if m.fold {
			text = fold(text)
		}
		key, pat := "="+text, newPattern(text)
		if prefix {
			key, pat = "^"+text, newPrefix(text)
		}
		i, ok := index[key]
		if !ok {
			i = len(m.entries)
			index[key] = i
			e := entry{pattern: pat}
			e.common, e.bits, e.all = pat.edges()
			e.rarest = pat.rarestByte()
			for _, part := range pat.middle {
				e.grams.add(part)
			}
			if len(pat.middle) > 0 {
				m.between++
			}
			m.entries = append(m.entries, e)
		}
		return i
	}
	lists := make([][]int, len(p.rules))
	for r := range p.rules {
		s, bit := &p.rules[r].Selection, uint64(1)<<r
		if s.class() == Archive {
			m.class[1] |= bit
		} else {
			m.class[0] |= bit
		}
		if s.TagStatus == Any {
			m.any |= bit
		}
		if s.TagStatus == Untagged || s.TagStatus == Any && !p.extension(r).TagsOnly {
			m.untagged |= bit
		}
		for _, entry := range s.TagPatterns {
			lists[r] = append(lists[r], add(entry, false))
		}
		for _, entry := range s.TagPrefixes {
			lists[r] = append(lists[r], add(entry, true))
		}
		for _, entry := range p.extension(r).Exclude {
			m.entries[add(entry, false)].exclude |= bit
		}
	}
	m.words = (len(m.entries) + 63) / 64
	for r, list := range lists {
		slices.Sort(list)
		switch list = slices.Compact(list); len(list) {
		case 0:
		case 1:
			m.entries[list[0]].alone |= 1 << r
		default:
			need := make([]uint64, m.words)
			for _, e := range list {
				need[e/64] |= 1 << (e % 64)
			}
			m.several = append(m.several, several{1 << r, need})
		}
	}
	m.first, m.last = make([]uint64, 256*m.words), make([]uint64, 256*m.words)
	for e := range m.entries {
		for c := range 256 {
			first, last := m.entries[e].mayHave(byte(c))
			if first {
				m.first[c*m.words+e/64] |= 1 << (e % 64)
			}
			if last {
				m.last[c*m.words+e/64] |= 1 << (e % 64)
			}
		}
	}
	for i := range p.ext.Keep {
		k := keeper{KeepRule: &p.ext.Keep[i]}
		for _, entry := range k.TagPatterns {
			if m.fold {
				entry = fold(entry)
			}
			k.patterns = append(k.patterns, newPattern(entry))
		}
		m.keep = append(m.keep, k)
	}
	p.match = m
}

// rules returns the rules that are about an image with these tags, of any
// storage class. seen is room for a set of entries.
func (m *matcher) rules(tags []string, seen []uint64) uint64 {
	if len(tags) == 0 {
		return m.untagged
	}
	clear(seen)
	mask, without := m.any, uint64(0)
	for _, tag := range tags {
		if m.fold {
			tag = fold(tag)
		}
		var first, last int
		if tag != "" {
			first, last = int(tag[0]), int(tag[len(tag)-1])
		}
		at := endsOf(tag)
		var have grams
		if m.between >= many {
			have.add(tag)
		}
		firsts, lasts := m.first[first*m.words:][:len(seen)], m.last[last*m.words:][:len(seen)]
		for w := range seen {
			for may := firsts[w] & lasts[w] &^ seen[w]; may != 0; may &= may - 1 {
				e := &m.entries[w*64+bits.TrailingZeros64(may)]
				if (at.first^e.common.first)&e.bits.first|(at.last^e.common.last)&e.bits.last == 0 &&
					len(tag) >= e.least && (e.all || !m.lacks(tag, &at, &have, e) && e.match(tag)) {
					seen[w] |= may & -may
					mask |= e.alone
					without |= e.exclude
				}
			}
		}
	}
	for i := range m.several {
		all := true
		for w, need := range m.several[i].need {
			all = all && seen[w]&need == need
		}
		if all {
			mask |= m.several[i].rule
		}
	}
	return mask &^ without
}

// many entries make it worth while to gather the grams of each tag.
const many = 4

// lacks tells whether tag, with its ends and grams, lacks what e has between stars.
func (m *matcher) lacks(tag string, at *ends, have *grams, e *entry) bool {
	if e.rarest == 0 {
		return false
	}
	return len(tag) <= 16 && at.lack(e.rarest) || m.between >= many && have.lack(&e.grams)
}

// of returns the rules of a storage class.
func (m *matcher) of(class StorageClass) uint64 {
	switch class {
	case "", Standard:
		return m.class[0]
	case Archive:
		return m.class[1]
	}
	return 0
}

// names tells whether k is about im, apart from Newest.
func (k *keeper) names(im *Image, folded bool) bool {
	if len(k.patterns) == 0 && len(k.Digests) == 0 {
		return true
	}
	for _, tag := range im.Tags {
		if folded {
			tag = fold(tag)
		}
		for i := range k.patterns {
			if k.patterns[i].match(tag) {
				return true
			}
		}
	}
	return slices.Contains(k.Digests, im.Digest)
}
