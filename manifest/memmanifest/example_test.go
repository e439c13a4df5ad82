package memmanifest_test

import (
	"context"
	"fmt"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/manifest/memmanifest"
)

func Example() {
	ctx := context.Background()
	store := new(memmanifest.Store)
	raw := []byte(`{"schemaVersion": 2, …}`)
	dgst := digest.FromBytes(raw)
	err := store.Apply(ctx, "team/app", manifest.Change{
		Put: []manifest.Record{{
			Desc: ocispec.Descriptor{MediaType: manifest.MediaTypeImage, Digest: dgst, Size: int64(len(raw))},
			Raw:  raw,
		}},
		Tags: []manifest.TagMove{{Name: "v1", To: dgst, From: manifest.Absent}},
	})
	if err != nil {
		fmt.Println(err)
	}
	for tag, err := range store.Tags(ctx, "team/app", "") {
		fmt.Println(tag.Name, tag.Digest == dgst, err)
	}
	// Output: v1 true <nil>
}

// A blob store asks this store before it removes a blob, and this store asks
// the blob store before it takes a manifest. remove stands for the former's
// removal, have for what it has.
func ExampleStore_Unneeded() {
	ctx := context.Background()
	const layer, spare = digest.Digest("sha256:aa"), digest.Digest("sha256:bb")
	have := map[digest.Digest]bool{layer: true, spare: true}
	store := &memmanifest.Store{
		MissingBlobs: func(_ context.Context, _ string, dgsts []digest.Digest) (missing []digest.Digest, _ error) {
			for _, d := range dgsts {
				if !have[d] {
					missing = append(missing, d)
				}
			}
			return missing, nil
		},
	}
	image := manifest.Record{Desc: ocispec.Descriptor{Digest: "sha256:cc"}, Blobs: []digest.Digest{layer}}
	if err := store.Apply(ctx, "team/app", manifest.Change{RequireBlobs: image.Blobs, Put: []manifest.Record{image}}); err != nil {
		fmt.Println(err)
	}
	for _, dgst := range []digest.Digest{layer, spare} {
		needed, err := store.Unneeded(ctx, "team/app", dgst, func() error {
			delete(have, dgst)
			return nil
		})
		fmt.Println(dgst, "needed:", needed, "there:", have[dgst], err)
	}
	// Output:
	// sha256:aa needed: true there: true <nil>
	// sha256:bb needed: false there: false <nil>
}

// A worker reads what has happened, does what follows from it, and forgets it.
func ExampleStore_Events() {
	ctx := context.Background()
	store := &memmanifest.Store{KeepEvents: true}
	image := manifest.Record{Desc: ocispec.Descriptor{Digest: "sha256:cc"}}
	for _, c := range []manifest.Change{
		{Put: []manifest.Record{image}, Tags: []manifest.TagMove{{Name: "v1", To: image.Desc.Digest}}},
		{Delete: []manifest.Removal{{Digest: image.Desc.Digest}}},
	} {
		if err := store.Apply(ctx, "team/app", c); err != nil {
			fmt.Println(err)
		}
	}
	for e, err := range store.Events(ctx, "") {
		fmt.Println(e.Repo, "put", len(e.Change.Put), "delete", len(e.Change.Delete), err)
		if err := store.Forget(ctx, e.Position); err != nil {
			fmt.Println(err)
		}
	}
	// Output:
	// team/app put 1 delete 0 <nil>
	// team/app put 0 delete 1 <nil>
}
