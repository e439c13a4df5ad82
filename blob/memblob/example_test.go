package memblob_test

import (
	"context"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/blob/memblob"
)

func ExampleStore() {
	store := &memblob.Store{}
	desc := ocispec.Descriptor{Digest: digest.FromString("hello"), Size: 5}
	fmt.Println(blob.Put(context.Background(), store, "team/app", desc, strings.NewReader("hello")))
	// Output: <nil>
}
