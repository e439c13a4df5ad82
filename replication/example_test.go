package replication_test

import (
	"bytes"
	"context"
	"fmt"
	"os"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/blob/memblob"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/manifest/memmanifest"
	"github.com/wharfage/wharfage/replication"
)

// filled returns stores with one image, which an SBOM refers to.
func filled() (*memblob.Store, *memmanifest.Store) {
	blobs, manifests := empty()
	config, content := manifest.Empty()
	must(blob.Put(context.Background(), blobs, "team/app", config, bytes.NewReader(content)))
	push := func(draft manifest.ImageDraft, tags ...string) ocispec.Descriptor {
		raw, desc, err := draft.Build()
		must(err)
		_, err = (&manifest.Pusher{Store: manifests}).Push(context.Background(), "team/app", manifest.PushRequest{Raw: raw, Tags: tags})
		must(err)
		return desc
	}
	image := push(manifest.ImageDraft{ArtifactType: "application/vnd.example.image"}, "v1", "latest")
	subject := ocispec.Descriptor{MediaType: image.MediaType, Digest: image.Digest, Size: image.Size}
	push(manifest.ImageDraft{ArtifactType: "application/spdx+json", Subject: &subject})
	return blobs, manifests
}

// An image is copied with what refers to it. Again, there is nothing to do.
func ExampleCopier_Copy() {
	here, hereManifests := filled()
	there, thereManifests := empty()

	var copier replication.Copier
	for range 2 {
		got, err := copier.Copy(context.Background(),
			replication.LocalSource(here, hereManifests), "team/app", "v1",
			replication.LocalTarget(there, thereManifests), "mirror/app",
			replication.CopyOptions{Referrers: replication.AllReferrers})
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(got.Tags, "manifests sent:", got.Manifests.Sent, "blobs sent:", got.Blobs.Sent)
	}
	// Output:
	// [v1] manifests sent: 2 blobs sent: 1
	// [v1] manifests sent: 0 blobs sent: 0
}

// Events carry all that a bar needs.
func ExampleEvent() {
	here, hereManifests := filled()
	there, thereManifests := empty()
	_, err := new(replication.Copier).Copy(context.Background(),
		replication.LocalSource(here, hereManifests), "team/app", "v1",
		replication.LocalTarget(there, thereManifests), "mirror/app",
		replication.CopyOptions{OnEvent: func(e replication.Event) {
			fmt.Printf("%-7s %3d of %3d bytes\n", e.Kind, e.Total.DoneBytes, e.Total.Bytes)
		}})
	if err != nil {
		fmt.Println(err)
	}
	// Output:
	// found     0 of   0 bytes
	// began     0 of 427 bytes
	// found     0 of 429 bytes
	// began     0 of 429 bytes
	// bytes     2 of 429 bytes
	// sent      2 of 429 bytes
	// sent    429 of 429 bytes
}

// A mirror of chosen tags: what is not at the source any more goes, unless that
// would be too much.
func ExampleCopier_Sync() {
	here, hereManifests := filled()
	there, thereManifests := empty()
	mirror := replication.SyncOptions{
		CopyOptions: replication.CopyOptions{Referrers: 1},
		Tags:        replication.Names{Include: []string{"v*"}, Exclude: []string{"*-rc*"}},
		Delete:      replication.SyncDelete{Tags: true, Max: 10, MaxShare: 0.2},
	}
	source, target := replication.LocalSource(here, hereManifests), replication.LocalTarget(there, thereManifests)
	var copier replication.Copier
	for range 2 {
		report, err := copier.Sync(context.Background(), source, target, mirror)
		fmt.Println("created", report.Created, "unchanged", report.Unchanged, "sent", report.Manifests.Sent, err)
	}
	// Output:
	// created 1 unchanged 0 sent 2 <nil>
	// created 0 unchanged 1 sent 0 <nil>
}

func ExampleNames() {
	names := replication.Names{Include: []string{"v1.*", "latest"}, Exclude: []string{"*-rc*"}}
	fmt.Println(names.Match("v1.2"), names.Match("v1.2-rc1"), names.Match("latest"), names.Match("v2.0"))
	// Output: true false true false
}

// A registry with rules of its own: tags that are immutable stay where they are.
func ExampleLocalManifests() {
	here, hereManifests := filled()
	there, thereManifests := empty()
	target := replication.LocalTarget(there, thereManifests)
	target.Manifests = replication.LocalManifests{
		Reader: thereManifests,
		Pusher: &manifest.Pusher{Store: thereManifests, MoveTag: manifest.TagMutability{Mode: manifest.Immutable}.MoveTag},
	}
	must(thereManifests.Apply(context.Background(), "mirror/app", manifest.Change{
		Put:  []manifest.Record{{Desc: ocispec.Descriptor{Digest: digest.FromString("other")}}},
		Tags: []manifest.TagMove{{Name: "v1", To: digest.FromString("other")}},
	}))
	got, err := new(replication.Copier).Copy(context.Background(), replication.LocalSource(here, hereManifests), "team/app", "v1",
		target, "mirror/app", replication.CopyOptions{Tags: []string{"v1", "v2"}})
	fmt.Println("moved", got.Tags, "kept", got.Kept, err)
	// Output: moved [v2] kept [v1] <nil>
}

// A long blob goes on in the next process, if both use the same folder.
func ExampleDirJournal() {
	dir, err := os.MkdirTemp("", "journal")
	must(err)
	defer os.RemoveAll(dir)
	copier := replication.Copier{Journal: replication.DirJournal(dir)}
	here, hereManifests := filled()
	there, thereManifests := empty()
	got, err := copier.Copy(context.Background(), replication.LocalSource(here, hereManifests), "team/app", "v1",
		replication.LocalTarget(there, thereManifests), "mirror/app", replication.CopyOptions{})
	fmt.Println(got.Blobs.Sent, err)
	// Output: 1 <nil>
}

func empty() (*memblob.Store, *memmanifest.Store) {
	blobs, manifests := new(memblob.Store), new(memmanifest.Store)
	manifests.MissingBlobs = blob.Missing(blobs)
	return blobs, manifests
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
