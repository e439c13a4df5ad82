package lifecycle

import (
	"math/bits"
	"slices"
)

// newestFirst sorts images by push time. keys are the instants of some images, as
// sortable makes them, and of is which: keys[j] belongs to images[of[j]]. It
// overwrites keys, and returns indexes of images in the low halves of its result.
func newestFirst(images []Image, keys []uint64, of []uint32, descendingTies bool) []uint64 {
	n := len(keys)
	if n == 0 {
		return nil
	}
	least, most := keys[0], keys[0]
	rising, falling := true, true
	for j := 1; j < n; j++ {
		rising = rising && keys[j] >= keys[j-1]
		falling = falling && keys[j] <= keys[j-1]
		least, most = min(least, keys[j]), max(most, keys[j])
	}
	// The high halves are times, newest first, as precise as fits. What has the
	// same there is compared at the end.
	shift := max(0, bits.Len64(most-least)-32)
	order := keys
	for j, k := range keys {
		order[j] = (most-k)>>shift<<32 | uint64(of[j])
	}
	switch {
	case falling:
	case rising:
		slices.Reverse(order)
	case n < 512:
		slices.Sort(order)
	default:
		order = radix(order, make([]uint64, n))
	}
	for from, j := 0, 1; j <= n; j++ {
		if j < n && order[j]>>32 == order[from]>>32 {
			continue
		}
		if j-from > 1 {
			slices.SortFunc(order[from:j], func(a, b uint64) int {
				return newer(&images[uint32(a)], &images[uint32(b)], descendingTies)
			})
		}
		from = j
	}
	return order
}

// radix sorts a by the high halves, 11 bits at a time from the lowest, with b as
// room. It returns the one of the two where the result is.
func radix(a, b []uint64) []uint64 {
	const width, passes = 11, 3
	var counts [passes][1 << width]uint32
	for _, v := range a {
		for p := range passes {
			counts[p][v>>(32+p*width)&(1<<width-1)]++
		}
	}
	for p := range passes {
		c, at := &counts[p], 32+p*width
		if c[a[0]>>at&(1<<width-1)] == uint32(len(a)) {
			continue // all the same
		}
		sum := uint32(0)
		for i, n := range c {
			c[i] = sum
			sum += n
		}
		for _, v := range a {
			slot := &c[v>>at&(1<<width-1)]
			b[*slot] = v
			*slot++
		}
		a, b = b, a
	}
	return a
}

// sortable maps instants to numbers in the same order.
func sortable(instant int64) uint64 { return uint64(instant) ^ 1<<63 }
