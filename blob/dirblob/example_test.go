package dirblob_test

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/blob/dirblob"
)

func ExampleStore() {
	dir, err := os.MkdirTemp("", "blobs")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	ctx, store := context.Background(), &dirblob.Store{Dir: dir}
	desc := ocispec.Descriptor{Digest: digest.FromString("hello"), Size: 5}
	if err := blob.Put(ctx, store, "team/app", desc, strings.NewReader("hello")); err != nil {
		fmt.Println(err)
		return
	}
	again := &dirblob.Store{Dir: dir} // in the next process
	content, err := blob.ReadAll(ctx, again, "team/app", desc)
	fmt.Println(string(content), err)
	// Output: hello <nil>
}

// A store that keeps its links in a database keeps bytes in Objects, under keys
// of its own.
func ExampleObjects() {
	dir, err := os.MkdirTemp("", "objects")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	ctx, objects := context.Background(), &dirblob.Objects{Dir: dir}
	for _, key := range []string{"ab/1", "cd/2"} {
		if _, err := objects.Put(ctx, key, strings.NewReader("hello")); err != nil {
			fmt.Println(err)
			return
		}
	}
	if _, err := objects.Join(ctx, "ef/3", "ab/1", "cd/2"); err != nil {
		fmt.Println(err)
		return
	}
	for obj, err := range objects.List(ctx, "", "ab/1") {
		fmt.Println(obj.Key, obj.Size, err)
	}
	// Output:
	// cd/2 5 <nil>
	// ef/3 10 <nil>
}
