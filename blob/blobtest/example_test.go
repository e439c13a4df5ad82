package blobtest_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/blob/blobtest"
	"github.com/wharfage/wharfage/blob/memblob"
)

func ExampleTestStore() {
	var t *testing.T // of a func TestStore(t *testing.T)
	test := func() {
		blobtest.TestStore(t, blobtest.Options{
			New: func(t testing.TB) blob.Store { return &memblob.Store{} },
		})
	}
	_ = test
	// Output:
}

func ExampleFaulty() {
	store, surfaced := blobtest.Faulty(&memblob.Store{}, blobtest.Fault{Op: "put", Call: 1, After: 3})
	desc := ocispec.Descriptor{Digest: digest.FromString("hello"), Size: 5}
	for range 2 {
		fmt.Println(blob.Put(context.Background(), store, "team/app", desc, strings.NewReader("hello")))
	}
	fmt.Println(store, surfaced())
	// Output:
	// put sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824 in team/app: injected fault
	// <nil>
	// put#1@3 1
}
