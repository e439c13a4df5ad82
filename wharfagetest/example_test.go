package wharfagetest_test

import (
	"testing"

	"github.com/wharfage/wharfage"
	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/wharfagetest"
)

func ExampleTestFaults() {
	var t *testing.T // of a func TestFaults(t *testing.T)
	test := func() {
		wharfagetest.TestFaults(t, wharfagetest.Options{
			New: func(testing.TB) (blob.Store, manifest.Store) {
				h := wharfage.NewMemory()
				return h.Blobs, h.Manifests
			},
		})
	}
	_ = test
	// Output:
}
