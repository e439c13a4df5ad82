package memmanifest

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// FuzzOrdered takes each byte pair of ops as one operation, and compares the
// ordered map with a plain one.
func FuzzOrdered(f *testing.F) {
	many := make([]byte, 0, 4*3*maxBlock)
	for i := range 3 * maxBlock {
		many = append(many, byte(i*7), byte(i*31>>3)&^4)
	}
	f.Add([]byte{})
	f.Add([]byte("aabbaccadd"))
	f.Add(many)
	again := slices.Clone(many)
	for i := 1; i < len(again); i += 2 {
		again[i] |= 4 // delete
	}
	f.Add(append(many, again...))
	f.Fuzz(func(t *testing.T, ops []byte) {
		var m ordered[int]
		want := map[string]int{}
		for i := 0; i+1 < len(ops); i += 2 {
			key := fmt.Sprintf("%02x%x", ops[i], ops[i+1]&3)
			switch ops[i+1] >> 5 { // also keys that differ late, in length only, and from the first byte on
			case 5:
				key = "sha256:0000000000" + key
			case 6:
				key = "sha256:0" + strings.Repeat("\x00", int(ops[i]>>4))
			case 7:
				key = "sha512:" + key
			}
			if _, there := want[key]; there && ops[i+1]&4 != 0 {
				delete(want, key)
				m.delete(key)
			} else {
				want[key] = i
				m.set(key, i)
			}
		}
		check(t, &m, want)
		keys := slices.Collect(maps.Keys(want))
		slices.SortFunc(keys, func(a, b string) int { return cmp.Compare(want[a], want[b]) })
		for _, key := range keys {
			m.delete(key)
			m.delete(key)
			delete(want, key)
			if len(want)%200 == 0 {
				check(t, &m, want)
			}
		}
		if len(m.blocks)+len(m.firsts) > 0 {
			t.Error("an empty map has blocks")
		}
	})
}

func check(t *testing.T, m *ordered[int], want map[string]int) {
	t.Helper()
	keys := slices.Sorted(maps.Keys(want))
	if m.len() != len(keys) {
		t.Fatalf("len is %d, want %d", m.len(), len(keys))
	}
	for i, from := range append([]string{""}, keys...) {
		if i > 3 && i%(len(keys)/4+1) != 0 {
			continue
		}
		for _, from := range []string{from, from + "!", from[:len(from)/2]} {
			at, exact := slices.BinarySearch(keys, from)
			if exact {
				at++
			}
			for key, val := range m.after(from) {
				if at == len(keys) || key != keys[at] || val != want[key] {
					t.Fatalf("after %q: %q = %d, which is not entry %d of %q", from, key, val, at, keys)
				}
				at++
			}
			if at != len(keys) {
				t.Fatalf("after %q: ends before entry %d of %q", from, at, keys)
			}
			val, found := m.get(from)
			if w, there := want[from]; val != w || found != there {
				t.Fatalf("get %q = %d, %t, want %d, %t", from, val, found, w, there)
			}
		}
	}
	for range m.after("") {
		break
	}
}
