package boltstore

import (
	"runtime"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/manifest"
)

// TestLongRowsAreReadAFewAtATime: a row may be as long as a document, and whoever
// wants one entry of a list does not pay for a page of such.
func TestLongRowsAreReadAFewAtATime(t *testing.T) {
	const images, long = 24, 1 << 20
	db := open(t, Options{Unsynced: true, MinPart: 2 * long})
	config, empty := manifest.Empty()
	put(t, db, repo, string(empty))
	subject := config
	subject.MediaType = ocispec.MediaTypeImageManifest
	for i := range images {
		pushDoc(t, db, repo, "t", ocispec.Manifest{
			MediaType: ocispec.MediaTypeImageManifest, ArtifactType: "application/vnd.example", Subject: &subject,
			Config: config, Layers: []ocispec.Descriptor{config},
			Annotations: map[string]string{"long": strings.Repeat(string(rune('a'+i)), long)},
		})
		u, err := db.Blobs().Begin(t.Context(), repo, digest.SHA256)
		if err == nil {
			_, err = blob.Append(t.Context(), db.Blobs(), u, -1, strings.NewReader(strings.Repeat("x", long)))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	first := func(list func()) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		list()
		runtime.ReadMemStats(&after)
		if got := after.TotalAlloc - before.TotalAlloc; got > 8*long {
			t.Errorf("the first entry took %d bytes of memory", got)
		}
	}
	m := db.Manifests()
	first(func() {
		for range m.Manifests(t.Context(), repo, "") {
			break
		}
	})
	first(func() {
		for range m.ReferrersJSON(t.Context(), repo, subject.Digest, "", "") {
			break
		}
	})
	first(func() {
		for range db.Blobs().Sessions(t.Context(), "") {
			break
		}
	})
	all := 0
	for u, err := range db.Blobs().Sessions(t.Context(), "") {
		if all++; err != nil || u.Size != long {
			t.Fatal(u.ID, err)
		}
	}
	for rec, err := range m.Manifests(t.Context(), repo, "") {
		if all++; err != nil || len(rec.Desc.Annotations["long"]) != long {
			t.Fatal(rec.Desc.Digest, err)
		}
	}
	for e, err := range m.ReferrersJSON(t.Context(), repo, subject.Digest, "", "") {
		if all++; err != nil || len(e.JSON) < long {
			t.Fatal(e.Digest, err)
		}
	}
	if all != 3*images {
		t.Errorf("%d entries of %d", all, 3*images)
	}
}
