package pullthrough

import (
	"context"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/wharfage/wharfage/internal/ocidigest"
	"github.com/wharfage/wharfage/manifest"
)

// Import fetches all that a manifest of a cached repository consists of and that is not
// here: the manifests that it lists, and theirs, and their blobs. Foreign layers stay where they
// are. It fetches several blobs at once, and may be repeated after a failure.
//
// Errors: *[UpstreamError], manifest.ErrNotFound for a repository that no rule covers,
// *manifest.BudgetError.
func (c *Cache) Import(ctx context.Context, repo string, dgst digest.Digest) error {
	p, covered := c.place(repo)
	if !covered {
		return &manifest.Error{Op: "import", Repo: repo, Object: string(dgst), Err: manifest.ErrNotFound}
	}
	const atOnce = 4
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for rec, err := range manifest.Walk(ctx, cachedManifests{c}, repo, dgst, 0) {
		if err != nil {
			g.Go(func() error { return err })
			break
		}
		blobs, err := needed(rec)
		if err != nil {
			g.Go(func() error { return err })
			break
		}
		for _, d := range blobs {
			g.Go(func() error { return c.fetchBlob(ctx, p, d) })
		}
	}
	return g.Wait()
}

// needed lists the blobs that a manifest names and that a registry is to have.
func needed(rec manifest.Record) (dgsts []digest.Digest, err error) {
	m, err := manifest.Parse(rec.Desc.MediaType, rec.Raw)
	if err != nil {
		return nil, err
	}
	foreign := map[digest.Digest]bool{}
	for _, d := range m.Layers {
		foreign[d.Digest] = manifest.IsForeignLayer(d.MediaType)
	}
	for _, d := range rec.Blobs {
		if !foreign[d] && ocidigest.Supported(d) {
			dgsts = append(dgsts, d)
		}
	}
	return dgsts, nil
}
