package blobtest

import (
	"testing"
	"time"

	"github.com/wharfage/wharfage/blob"
)

// ObjectsOptions say how to make Objects and what can be asked of them.
type ObjectsOptions struct {
	// New returns empty Objects. Each clause has its own.
	New func(t testing.TB) blob.Objects

	// Reopen returns a second value over the state of o, as a process has after
	// a restart; o is not used any more. Nil skips what is promised about that.
	Reopen func(t testing.TB, o blob.Objects) blob.Objects

	// Things counts whatever lies there: files, objects, parts of them. Nil skips
	// the check that failures leave nothing behind.
	Things func(t testing.TB, o blob.Objects) int

	// Strand leaves behind what calls do that never return, and tells how many
	// things Sweep has to remove. Nil skips the check that it does.
	Strand func(t testing.TB, o blob.Objects) int

	// Sizes are lengths at which the implementation changes its ways. Those of
	// the kit are up to 3 MiB.
	Sizes []int
}

// TestObjects checks Objects. Each subtest is named by the sentence it checks.
// What is optional is checked if they have it: [blob.ObjectSweeper],
// [blob.Linker]. Listings grow to some forty objects: let pages be shorter.
func TestObjects(t *testing.T, o ObjectsOptions) { testObjects(t, o, time.Minute) }

func testObjects(t *testing.T, o ObjectsOptions, patience time.Duration) {
	for _, list := range [][]objectsClause{objectsPutClauses, objectsReadClauses, objectsListClauses, objectsOptionalClauses} {
		for _, c := range list {
			t.Run(c.name, func(t *testing.T) {
				c.check(&objectsKit{kit: kit{T: t, patience: patience}, options: o, o: o.New(t)})
			})
		}
	}
}

type objectsClause struct {
	name  string
	check func(*objectsKit)
}
