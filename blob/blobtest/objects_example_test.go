package blobtest_test

import (
	"testing"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/blob/blobtest"
	"github.com/wharfage/wharfage/blob/dirblob"
)

func ExampleTestObjects() {
	var t *testing.T // of a func TestObjects(t *testing.T)
	test := func() {
		blobtest.TestObjects(t, blobtest.ObjectsOptions{
			New: func(t testing.TB) blob.Objects { return &dirblob.Objects{Dir: t.TempDir()} },
		})
	}
	_ = test
	// Output:
}
