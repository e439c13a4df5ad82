package lifecycle

import (
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
)

// Difference is what changes from one plan to another.
type Difference struct {
	Deleted []Change // expire now, and did not before
	Spared  []Change // do not expire any more
	Other   []Change // another action otherwise
	Same    int      // images with the same action
	Only    int      // images that only one of the plans has
}

// Change is an image with two verdicts.
type Change struct{ Before, After Verdict }

// Diff compares two plans: what a change of policy would delete or spare, or what
// time will. It pairs images by digest; lists are in the order of after.
func Diff(before, after *Plan) *Difference {
	d := &Difference{}
	var index map[digest.Digest]int
	same := len(before.images) == len(after.images) && (len(before.images) == 0 || &before.images[0] == &after.images[0])
	if !same {
		index = make(map[digest.Digest]int, len(before.images))
		for i := range before.images {
			index[before.images[i].Digest] = i
		}
	}
	paired := 0
	for i := range after.images {
		j := i
		if !same {
			var ok bool
			if j, ok = index[after.images[i].Digest]; !ok {
				d.Only++
				continue
			}
		}
		paired++
		was, is := before.marks[j].action, after.marks[i].action
		if was == is {
			d.Same++
			continue
		}
		c := Change{before.Verdict(j), after.Verdict(i)}
		switch {
		case is == expire:
			d.Deleted = append(d.Deleted, c)
		case was == expire:
			d.Spared = append(d.Spared, c)
		default:
			d.Other = append(d.Other, c)
		}
	}
	d.Only += len(before.images) - paired
	return d
}

// String lists the changes, with both sentences of each.
func (d *Difference) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d newly deleted, %d newly spared, %d other, %d as before\n", len(d.Deleted), len(d.Spared), len(d.Other), d.Same)
	list := func(title string, changes []Change) {
		for _, c := range changes {
			fmt.Fprintf(&b, "%s %s\n  before: %s\n  after:  %s\n", title, c.After.Image.name(), c.Before, c.After)
		}
	}
	list("-", d.Deleted)
	list("+", d.Spared)
	list("~", d.Other)
	return b.String()
}
