//go:build linux

package bench

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"iter"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/examples/store/boltstore"
	"github.com/wharfage/wharfage/manifest"
)

// A filled store has n manifests in one repository. Each has a tag and ten
// layers, and each layer is in ten of them. The repository has n layers, which
// nine other repositories have too. Half of the manifests are referrers of
// subject, the others of something else.
const (
	layersEach   = 10
	repositories = 10
)

// smallLayer returns the i-th layer of a filled store.
func smallLayer(i int) ([]byte, ocispec.Descriptor) {
	content := append(binary.LittleEndian.AppendUint64(nil, uint64(i)), "as small as that"...)
	return content, ocispec.Descriptor{MediaType: "application/octet-stream", Digest: digest.FromBytes(content), Size: int64(len(content))}
}

func smallTag(i int) string { return fmt.Sprintf("t%06d", i) }

// smallManifest returns the i-th of n manifests, and its first layer.
func smallManifest(i, n int) (raw []byte, first ocispec.Descriptor) {
	d := manifest.ImageDraft{ArtifactType: other}
	for j := range layersEach {
		_, desc := smallLayer((i + j*(n/layersEach)) % n)
		d.Layers = append(d.Layers, desc)
	}
	d.Subject = &subject
	if i%2 == 1 {
		of := subject
		of.Digest = digestOf(-2)
		d.Subject = &of
	}
	raw, _, err := d.Build()
	must(err)
	return raw, d.Layers[0]
}

// fill makes a store of n manifests in dir.
func fill(dir string, n int) {
	db, err := boltstore.Open(boltstore.Options{Dir: dir, Unsynced: true})
	must(err)
	ctx, blobs, manifests := context.Background(), db.Blobs(), db.Manifests()
	name := func(i int) string {
		if i == 0 {
			return repo[len("/v2/"):]
		}
		return fmt.Sprintf("team/other%d", i)
	}
	desc, empty := manifest.Empty()
	must(blob.Put(ctx, blobs, name(0), desc, bytes.NewReader(empty)))
	// No more at once than clients would do: of a transaction with thousands of
	// changes thousands of free pages are left, which each later one pays for.
	all := func(jobs iter.Seq[func() error]) {
		var g errgroup.Group
		g.SetLimit(32)
		for job := range jobs {
			g.Go(job)
		}
		must(g.Wait())
	}
	all(func(yield func(func() error) bool) {
		for i := range n {
			yield(func() error {
				content, desc := smallLayer(i)
				return blob.Put(ctx, blobs, name(0), desc, bytes.NewReader(content))
			})
		}
	})
	all(func(yield func(func() error) bool) {
		for r := 1; r < repositories; r++ {
			for i := range n {
				yield(func() error {
					_, desc := smallLayer(i)
					return blob.Mount(ctx, blobs, name(0), name(r), desc.Digest)
				})
			}
		}
	})
	all(func(yield func(func() error) bool) {
		for i := range n {
			yield(func() error {
				raw, _ := smallManifest(i, n)
				m, err := manifest.Parse(manifest.MediaTypeImage, raw)
				if err != nil {
					return err
				}
				rec := m.Record(digest.FromBytes(raw), raw)
				return manifests.Apply(ctx, name(0), manifest.Change{
					RequireBlobs: rec.Blobs,
					Put:          []manifest.Record{rec},
					Tags:         []manifest.TagMove{{Name: smallTag(i), To: rec.Desc.Digest}},
				})
			})
		}
	})
	must(db.Close())
}
