package referrers_test

import (
	"context"
	"fmt"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/manifest/memmanifest"
	"github.com/wharfage/wharfage/referrers"
)

func ExampleScan() {
	ctx := context.Background()
	store := new(memmanifest.Store)
	raw := []byte(`{"schemaVersion": 2, …}`)
	err := store.Apply(ctx, "team/app", manifest.Change{Put: []manifest.Record{{
		Desc: ocispec.Descriptor{
			MediaType: manifest.MediaTypeImage, Digest: digest.FromBytes(raw), Size: int64(len(raw)),
			ArtifactType: "application/vnd.example.sbom",
		},
		Raw:     raw,
		Subject: "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
	}}})
	if err != nil {
		fmt.Println(err)
	}
	index := referrers.Scan(store)
	for desc, err := range index.Referrers(ctx, "team/app", "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a", "", "") {
		if err != nil {
			fmt.Println(err)
			break
		}
		fmt.Println(desc.ArtifactType, desc.Digest)
	}
	// Output:
	// application/vnd.example.sbom sha256:8f835c0d6f59386e47d1770ff338f97bcb79cc87fbff0695c1dfe542ac18576e
}

func ExampleFallbackTag() {
	fmt.Println(referrers.FallbackTag("sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"))
	fmt.Println(referrers.FallbackTag("multihash+base58:QmRZxt2b1FVZPNqd8hsiykDL3TdBDeTSPX9Kv46HmX4Gx8"))
	// Output:
	// sha256-44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a
	// multihash-base58-QmRZxt2b1FVZPNqd8hsiykDL3TdBDeTSPX9Kv46HmX4Gx8
}

func ExampleTagSchema() {
	ctx := context.Background()
	schema := &referrers.TagSchema{Tags: referrers.StoreTags{Store: new(memmanifest.Store)}}
	const subject = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
	err := schema.Add(ctx, "team/app", subject, ocispec.Descriptor{
		MediaType:    manifest.MediaTypeImage,
		Digest:       digest.FromString("a signature"),
		Size:         11,
		ArtifactType: "application/vnd.example.signature",
	})
	if err != nil {
		fmt.Println(err)
	}
	list, err := schema.List(ctx, "team/app", subject)
	fmt.Println(len(list), list[0].ArtifactType, err)
	// Output: 1 application/vnd.example.signature <nil>
}
