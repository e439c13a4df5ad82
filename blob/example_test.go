package blob_test

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/blob/memblob"
)

func Example() {
	ctx := context.Background()
	store := &memblob.Store{}
	desc := ocispec.Descriptor{Digest: digest.FromString("hello"), Size: 5}
	if err := blob.Put(ctx, store, "team/app", desc, strings.NewReader("hello")); err != nil {
		fmt.Println(err)
		return
	}
	content, err := blob.ReadAll(ctx, store, "team/app", desc)
	fmt.Println(string(content), err)
	// Output: hello <nil>
}

func ExamplePut() {
	desc := ocispec.Descriptor{Digest: digest.FromString("hello"), Size: 5}
	err := blob.Put(context.Background(), &memblob.Store{}, "team/app", desc, strings.NewReader("jello"))
	fmt.Println(errors.Is(err, blob.ErrDigest))
	// Output: true
}

// An upload is a value: whoever has its ID can go on, in another process too.
func ExampleAppend() {
	ctx := context.Background()
	store := &memblob.Store{}
	u, err := store.Begin(ctx, "team/app", digest.SHA256)
	if err != nil {
		fmt.Println(err)
		return
	}
	id := u.ID
	if _, err := blob.Append(ctx, store, u, 0, strings.NewReader("hel")); err != nil {
		fmt.Println(err)
		return
	}
	if u, err = store.Lookup(ctx, "team/app", id); err != nil {
		fmt.Println(err)
		return
	}
	_, err = blob.Append(ctx, store, u, 0, strings.NewReader("hel"))
	var out *blob.OffsetError
	if errors.As(err, &out) {
		fmt.Println("go on at", out.Size)
	}
	err = blob.Finish(ctx, store, u, 3, strings.NewReader("lo"), digest.FromString("hello"))
	fmt.Println(err)
	// Output:
	// go on at 3
	// <nil>
}

func ExampleFinish() {
	ctx := context.Background()
	store := &memblob.Store{}
	u, err := store.Begin(ctx, "team/app", digest.SHA256)
	if err == nil {
		u, err = blob.Append(ctx, store, u, -1, strings.NewReader("hello"))
	}
	if err == nil {
		err = blob.Finish(ctx, store, u, -1, nil, digest.FromString("hello"))
	}
	fmt.Println(u.Size, err)
	// Output: 5 <nil>
}

func ExampleMount() {
	ctx := context.Background()
	store := &memblob.Store{}
	desc := ocispec.Descriptor{Digest: digest.FromString("hello"), Size: 5}
	if err := blob.Put(ctx, store, "team/base", desc, strings.NewReader("hello")); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(blob.Mount(ctx, store, "team/base", "team/app", desc.Digest))
	content, err := blob.ReadAll(ctx, store, "team/app", desc)
	fmt.Println(string(content), err)
	// Output:
	// <nil>
	// hello <nil>
}

func ExampleMissing() {
	ctx := context.Background()
	store := &memblob.Store{}
	desc := ocispec.Descriptor{Digest: digest.FromString("hello"), Size: 5}
	if err := blob.Put(ctx, store, "team/app", desc, strings.NewReader("hello")); err != nil {
		fmt.Println(err)
		return
	}
	missing, err := blob.Missing(store)(ctx, "team/app", []digest.Digest{desc.Digest, digest.FromString("")})
	fmt.Println(missing, err)
	// Output: [sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855] <nil>
}
