package lifecycle

import (
	"context"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/manifest"
)

// never is when pulls are known from, if none are recorded.
var never = time.Date(9999, time.December, 31, 0, 0, 0, 0, time.UTC)

// Images reads what a policy needs to know of repo, by digest. pullsSince is for
// [Options.PullsSince]: from when on a records pulls. If a is nil, or never did,
// it lies far in the future, so that no image counts as long unused.
//
// An error, also of a, means that nothing is known, and no images are returned.
// What is pushed or moved meanwhile may be seen or not: see [Runner] for what
// comes of that. Sizes are left 0, since they take reading each document; [Sizes]
// does.
func Images(ctx context.Context, r manifest.Reader, a Activity, repo string) (images []Image, pullsSince time.Time, err error) {
	at := map[digest.Digest]int{}
	for rec, err := range r.Manifests(ctx, repo, "") {
		if err != nil {
			return nil, never, fmt.Errorf("images of %s: manifests: %w", repo, err)
		}
		at[rec.Desc.Digest] = len(images)
		images = append(images, imageOf(&rec))
	}
	for t, err := range r.Tags(ctx, repo, "") {
		if err != nil {
			return nil, never, fmt.Errorf("images of %s: tags: %w", repo, err)
		}
		if i, ok := at[t.Digest]; ok { // else it was pushed since
			images[i].Tags = append(images[i].Tags, t.Name)
		}
	}
	if pullsSince, err = pulls(ctx, a, repo, func(p Pull) {
		if i, ok := at[p.Digest]; ok {
			images[i].PulledAt = p.At
		}
	}); err != nil {
		return nil, never, fmt.Errorf("images of %s: pulls: %w", repo, err)
	}
	return images, pullsSince, ctx.Err()
}

func imageOf(rec *manifest.Record) Image {
	im := Image{
		Digest:   rec.Desc.Digest,
		PushedAt: rec.PushedAt, StorageClass: StorageClass(rec.StorageClass), ArchivedAt: rec.ArchivedAt, RestoredAt: rec.RestoredAt,
		Subject: rec.Subject, Manifests: rec.Manifests,
		MediaType: rec.Desc.MediaType, ArtifactType: rec.Desc.ArtifactType,
	}
	if rec.StorageClass == manifest.Standard {
		im.StorageClass = Standard
	}
	return im
}

func pulls(ctx context.Context, a Activity, repo string, each func(Pull)) (since time.Time, err error) {
	if a == nil {
		return never, nil
	}
	if since, err = a.Since(ctx, repo); err != nil || since.IsZero() {
		return never, err
	}
	for p, err := range a.Pulls(ctx, repo, "") {
		if err != nil {
			return never, err
		}
		each(p)
	}
	return since, nil
}

// Sizes sets the Size of each image: that of the document and of the blobs which
// it names. It reads and parses every document. What is gone meanwhile has none.
func Sizes(ctx context.Context, r manifest.Reader, repo string, images []Image) error {
	for i := range images {
		rec, err := r.Get(ctx, repo, images[i].Digest)
		if manifest.IsNotFound(err) {
			continue
		}
		if err != nil {
			return fmt.Errorf("sizes of %s: %w", repo, err)
		}
		m, err := manifest.Parse(rec.Desc.MediaType, rec.Raw)
		if err != nil {
			return fmt.Errorf("sizes of %s: %s: %w", repo, images[i].Digest, err)
		}
		images[i].Size = m.Size()
	}
	return nil
}
