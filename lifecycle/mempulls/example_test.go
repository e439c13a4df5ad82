package mempulls_test

import (
	"context"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/lifecycle"
	"github.com/wharfage/wharfage/lifecycle/mempulls"
)

func ExampleStore() {
	ctx := context.Background()
	store := new(mempulls.Store)
	pulled := lifecycle.Pull{Digest: digest.FromString("image"), At: time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)}
	if err := store.Touch(ctx, "team/app", []lifecycle.Pull{pulled}); err != nil {
		fmt.Println(err)
	}
	for p, err := range store.Pulls(ctx, "team/app", "") {
		fmt.Println(p.Digest == pulled.Digest, p.At, err)
	}
	// Output: true 2026-01-01 12:00:00 +0000 UTC <nil>
}
