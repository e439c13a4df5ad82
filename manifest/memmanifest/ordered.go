package memmanifest

import (
	"iter"
	"slices"
	"strings"
)

// ordered is a map from strings to V, in byte order of the keys: sorted blocks
// of entries, each block before the next. Its zero value is empty.
type ordered[V any] struct {
	blocks [][]pair[V] // none of them empty
	firsts []place     // of each block
	prefix string      // all keys have it
	n      int
}

type pair[V any] struct {
	place
	val V
}

// place is a key with the 8 bytes that follow the prefix, which settle most
// comparisons. A search that read every key it meets would wait for memory
// each time: in a large map that is most of what an insert costs.
type place struct {
	hint uint64
	key  string
}

func (p place) less(q place) bool {
	return p.hint < q.hint || p.hint == q.hint && p.key < q.key
}

// maxBlock bounds what one insert moves. With blocks half full, a million
// entries make 16,000 blocks, whose list moves once in 64 inserts.
const maxBlock = 128

func (m *ordered[V]) len() int { return m.n }

// place is for keys with the prefix.
func (m *ordered[V]) place(key string) place {
	p := place{key: key}
	rest := key[len(m.prefix):]
	if len(rest) >= 8 {
		_ = rest[7]
		p.hint = uint64(rest[0])<<56 | uint64(rest[1])<<48 | uint64(rest[2])<<40 | uint64(rest[3])<<32 |
			uint64(rest[4])<<24 | uint64(rest[5])<<16 | uint64(rest[6])<<8 | uint64(rest[7])
		return p
	}
	for i := range len(rest) {
		p.hint |= uint64(rest[i]) << (56 - 8*i)
	}
	return p
}

// shorten makes the prefix one that key has too. Each call that changes it
// takes time in proportion to the map, and there are at most as many as the
// prefix had bytes.
func (m *ordered[V]) shorten(key string) {
	if strings.HasPrefix(key, m.prefix) {
		return
	}
	same := 0
	for same < len(key) && key[same] == m.prefix[same] {
		same++
	}
	m.prefix = m.prefix[:same]
	for b, block := range m.blocks {
		for i := range block {
			block[i].place = m.place(block[i].key)
		}
		m.firsts[b] = block[0].place
	}
}

// find returns where key is, or where it belongs.
func (m *ordered[V]) find(key string) (b, i int, found bool) {
	if !strings.HasPrefix(key, m.prefix) {
		if key < m.prefix {
			return 0, 0, false
		}
		return len(m.blocks), 0, false
	}
	p := m.place(key)
	lo, hi := 0, len(m.firsts) // firsts[:lo] <= p < firsts[hi:]
	for lo < hi {
		if mid := (lo + hi) / 2; p.less(m.firsts[mid]) {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	if lo == 0 {
		return 0, 0, false
	}
	b = lo - 1
	block := m.blocks[b]
	lo, hi = 0, len(block) // block[:lo] < p <= block[hi:]
	for lo < hi {
		if mid := (lo + hi) / 2; block[mid].less(p) {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return b, lo, lo < len(block) && block[lo].key == key
}

func (m *ordered[V]) get(key string) (val V, found bool) {
	if b, i, found := m.find(key); found {
		return m.blocks[b][i].val, true
	}
	return val, false
}

func (m *ordered[V]) set(key string, val V) {
	if m.n == 0 {
		m.prefix = key
		p := m.place(key)
		m.blocks, m.firsts, m.n = [][]pair[V]{{{p, val}}}, []place{p}, 1
		return
	}
	m.shorten(key)
	b, i, found := m.find(key)
	if found {
		m.blocks[b][i].val = val
		return
	}
	m.n++
	block := slices.Insert(m.blocks[b], i, pair[V]{m.place(key), val})
	if len(block) > maxBlock {
		half := len(block) / 2
		right := append(make([]pair[V], 0, maxBlock+1), block[half:]...)
		m.blocks = slices.Insert(m.blocks, b+1, right)
		m.firsts = slices.Insert(m.firsts, b+1, right[0].place)
		clear(block[half:])
		block = block[:half]
	}
	m.blocks[b], m.firsts[b] = block, block[0].place
}

func (m *ordered[V]) delete(key string) {
	b, i, found := m.find(key)
	if !found {
		return
	}
	m.n--
	block := slices.Delete(m.blocks[b], i, i+1)
	if len(block) == 0 {
		m.blocks = slices.Delete(m.blocks, b, b+1)
		m.firsts = slices.Delete(m.firsts, b, b+1)
		return
	}
	m.blocks[b], m.firsts[b] = block, block[0].place
}

// after yields the entries whose keys are greater than key. The map must not
// change meanwhile.
func (m *ordered[V]) after(key string) iter.Seq2[string, V] {
	return func(yield func(string, V) bool) {
		b, i, found := m.find(key)
		if found {
			i++
		}
		for ; b < len(m.blocks); b, i = b+1, 0 {
			for _, p := range m.blocks[b][i:] {
				if !yield(p.key, p.val) {
					return
				}
			}
		}
	}
}
