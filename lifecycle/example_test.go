package lifecycle_test

import (
	"context"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/lifecycle"
	"github.com/wharfage/wharfage/lifecycle/mempulls"
)

// A registry adds each pull, and flushes now and then.
func ExampleBuffer() {
	ctx := context.Background()
	store := new(mempulls.Store)
	buffer := &lifecycle.Buffer{Activity: store}
	noon := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	for minute := range 5 {
		pull := lifecycle.Pull{Digest: digest.FromString("image"), At: noon.Add(time.Duration(minute) * time.Minute)}
		if err := buffer.Add(ctx, "team/app", pull); err != nil {
			fmt.Println(err)
		}
	}
	fmt.Println(buffer.Flush(ctx))
	for pull, err := range store.Pulls(ctx, "team/app", "") {
		fmt.Println(pull.At.Format(time.TimeOnly), err)
	}
	// Output:
	// <nil>
	// 12:04:00 <nil>
}
