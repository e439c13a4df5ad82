package lifecycle

import "slices"

// matcher says which rules of a policy are about an image. Sets of rules are
// bit masks: rule i, by priority, is bit i.
type matcher struct {
	entries []pattern     // the distinct entries of all lists
	first   [256][]uint16 // by the first byte of a tag: entries that may match it
	words   int           // uint64s that a set of entries takes
	alone   []uint64      // by entry: rules that need no other
	exclude []uint64      // by entry: rules that do not see what has it
	several []several

	class    [2]uint64 // rules of the standard class, and of the archive
	any      uint64
	untagged uint64

	fold bool
	keep []keeper
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
	add := func(entry string, prefix bool) int {
		if m.fold {
			entry = fold(entry)
		}
		key, pat := "="+entry, newPattern(entry)
		if prefix {
			key, pat = "^"+entry, newPrefix(entry)
		}
		i, ok := index[key]
		if !ok {
			i = len(m.entries)
			index[key] = i
			m.entries = append(m.entries, pat)
			m.alone, m.exclude = append(m.alone, 0), append(m.exclude, 0)
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
		switch s.TagStatus {
		case Any:
			m.any |= bit
		case Untagged:
			m.untagged |= bit
		}
		for _, entry := range s.TagPatterns {
			lists[r] = append(lists[r], add(entry, false))
		}
		for _, entry := range s.TagPrefixes {
			lists[r] = append(lists[r], add(entry, true))
		}
		for _, entry := range p.extension(r).Exclude {
			m.exclude[add(entry, false)] |= bit
		}
	}
	m.words = (len(m.entries) + 63) / 64
	for r, list := range lists {
		slices.Sort(list)
		switch list = slices.Compact(list); len(list) {
		case 0:
		case 1:
			m.alone[list[0]] |= 1 << r
		default:
			need := make([]uint64, m.words)
			for _, e := range list {
				need[e/64] |= 1 << (e % 64)
			}
			m.several = append(m.several, several{1 << r, need})
		}
	}
	for c := range m.first {
		for e := range m.entries {
			if start := m.entries[e].prefix; start == "" || start[0] == byte(c) {
				m.first[c] = append(m.first[c], uint16(e))
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
		return m.any | m.untagged
	}
	clear(seen)
	mask, without := m.any, uint64(0)
	for _, tag := range tags {
		if m.fold {
			tag = fold(tag)
		}
		c := byte(0)
		if tag != "" {
			c = tag[0]
		}
		for _, e := range m.first[c] {
			word, bit := &seen[e/64], uint64(1)<<(e%64)
			if *word&bit == 0 && m.entries[e].match(tag) {
				*word |= bit
				mask |= m.alone[e]
				without |= m.exclude[e]
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
