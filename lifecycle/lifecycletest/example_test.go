package lifecycletest_test

import (
	"testing"

	"github.com/wharfage/wharfage/lifecycle"
	"github.com/wharfage/wharfage/lifecycle/lifecycletest"
	"github.com/wharfage/wharfage/lifecycle/mempulls"
)

func ExampleTestActivity() {
	var t *testing.T // of a func TestStore(t *testing.T)
	test := func() {
		lifecycletest.TestActivity(t, func(testing.TB) lifecycle.Activity { return new(mempulls.Store) })
	}
	_ = test
	// Output:
}
