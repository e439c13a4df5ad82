package pullthrough

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/replication"
)

// EvictOptions say what Evict may remove. Only MaxBytes is required.
type EvictOptions struct {
	// MaxBytes is how large cached repositories may be together. What several hold counts in
	// each.
	MaxBytes int64
	// LastUse returns when manifests of repo were last pulled, as far as it is known, for
	// example from a lifecycle.Activity. What this process has served since it began, and
	// the time of import, count in any case.
	LastUse func(ctx context.Context, repo string) (map[digest.Digest]time.Time, error)
	// Lease is that of [blob.CollectOptions]: a blob touched within it is left to a
	// collection. Zero means 24h.
	Lease time.Duration
	Dry   bool // do all but remove
}

// Eviction is one image that went, or was to go.
type Eviction struct {
	Repo      string
	Digest    digest.Digest
	Tags      []string
	LastUse   time.Time
	Size      int64 // bytes of what only it needs: manifests and blobs
	Manifests int   // how many go: its own, and those that it lists
	Err       error // why it stays; nil if it went, or would but for Dry
}

// EvictReport is what became of a run.
type EvictReport struct {
	Before, After int64 // bytes in cached repositories, After without what only evicted images need
	Freed         int64 // bytes that are gone, or would be but for Dry; what leases keep is left to a collection
	Images        []Eviction
}

// errKept is why an image stays that could not be had again.
var errKept = errors.New("upstream has not got it")

// Evict makes room in cached repositories: it removes images, the longest unused first, until
// what is left fits. It removes only what upstream has at that moment, and with each
// of its tags, so that the next pull brings it back: what was pushed here stays, and so
// does all while upstream fails. A manifest that another lists goes after that, and
// blobs after manifests. Others may use the stores meanwhile.
//
// The stores must be a [manifest.Catalog] and [blob.Guarded]. The report is valid with an
// error too; what keeps a single image is in the report, not among the errors.
func (c *Cache) Evict(ctx context.Context, o EvictOptions) (EvictReport, error) {
	var report EvictReport
	catalog, ok := c.Manifests.(manifest.Catalog)
	if !ok {
		return report, fmt.Errorf("evict: the store cannot list its repositories: %w", manifest.ErrUnsupported)
	}
	if g, ok := blob.As[blob.Guarded](c.Blobs); !ok || !g.Guarded() {
		return report, fmt.Errorf("evict: %w", blob.ErrUnguarded)
	}
	var images []*evictee
	for repo, err := range catalog.Repos(ctx, "") {
		if err != nil {
			return report, err
		}
		p, covered := c.place(repo)
		if !covered {
			continue
		}
		h, err := c.holdings(ctx, p, o)
		if err != nil {
			return report, err
		}
		images = append(images, h.images...)
		report.Before += h.bytes
	}
	report.After = report.Before
	slices.SortStableFunc(images, func(a, b *evictee) int { return a.LastUse.Compare(b.LastUse) })
	for _, e := range images {
		if report.After <= o.MaxBytes {
			break
		}
		freed, err := c.evict(ctx, e, o)
		if ctx.Err() != nil {
			return report, ctx.Err()
		}
		if e.Err = err; err == nil {
			report.After -= e.Size
			report.Freed += freed
		}
		report.Images = append(report.Images, e.Eviction)
	}
	return report, nil
}

// holdings is what a cached repository holds.
type holdings struct {
	place
	recs   map[digest.Digest]manifest.Record
	tags   map[digest.Digest][]string
	blobs  map[digest.Digest]int64 // sizes
	lists  map[digest.Digest]int   // by how many a manifest is listed
	needs  map[digest.Digest]int   // by how many a blob is needed
	bytes  int64
	images []*evictee
}

// evictee is an image, and what it is in.
type evictee struct {
	Eviction
	h *holdings
}

func (c *Cache) holdings(ctx context.Context, p place, o EvictOptions) (*holdings, error) {
	h := &holdings{p, map[digest.Digest]manifest.Record{}, map[digest.Digest][]string{}, map[digest.Digest]int64{},
		map[digest.Digest]int{}, map[digest.Digest]int{}, 0, nil}
	for rec, err := range c.Manifests.Manifests(ctx, p.repo, "") {
		if err != nil {
			return nil, err
		}
		h.recs[rec.Desc.Digest] = rec
		h.bytes += rec.Desc.Size
		for _, d := range rec.Manifests {
			h.lists[d]++
		}
		for _, d := range rec.Blobs {
			h.needs[d]++
		}
	}
	for t, err := range c.Manifests.Tags(ctx, p.repo, "") {
		if err != nil {
			return nil, err
		}
		h.tags[t.Digest] = append(h.tags[t.Digest], t.Name)
	}
	for info, err := range c.Blobs.Blobs(ctx, p.repo, "") {
		if err != nil {
			return nil, err
		}
		h.blobs[info.Digest] = info.Size
		h.bytes += info.Size
	}
	used := map[digest.Digest]time.Time{}
	if o.LastUse != nil {
		var err error
		if used, err = o.LastUse(ctx, p.repo); err != nil {
			return nil, err
		}
	}
	for dgst := range h.recs {
		if h.lists[dgst] > 0 {
			continue
		}
		e := &evictee{Eviction{Repo: p.repo, Digest: dgst, Tags: h.tags[dgst]}, h}
		for _, d := range h.below(dgst) {
			here, _ := c.used.get(p.repo + " " + string(d))
			for _, at := range []time.Time{here, used[d], h.recs[d].TouchedAt} {
				if at.After(e.LastUse) {
					e.LastUse = at
				}
			}
		}
		h.images = append(h.images, e)
	}
	slices.SortFunc(h.images, func(a, b *evictee) int { return cmp.Compare(a.Digest, b.Digest) })
	return h, nil
}

// below lists an image and what goes with it, parents first: what it lists, unless that has a
// tag or another parent.
func (h *holdings) below(root digest.Digest) []digest.Digest {
	out, lists := []digest.Digest{root}, map[digest.Digest]int{}
	for i := 0; i < len(out); i++ {
		for _, d := range h.recs[out[i]].Manifests {
			lists[d]++
			if _, has := h.recs[d]; has && lists[d] == h.lists[d] && len(h.tags[d]) == 0 {
				out = append(out, d)
			}
		}
	}
	return out
}

func (c *Cache) evict(ctx context.Context, e *evictee, o EvictOptions) (freed int64, err error) {
	h, going := e.h, e.h.below(e.Digest)
	needs := map[digest.Digest]int{}
	var blobs []digest.Digest
	for _, d := range going {
		e.Size += h.recs[d].Desc.Size
		for _, b := range h.recs[d].Blobs {
			if needs[b]++; needs[b] == h.needs[b] {
				blobs = append(blobs, b)
				e.Size += h.blobs[b]
			}
		}
	}
	e.Manifests = len(going)
	if err := c.again(ctx, e, going); err != nil {
		return 0, err
	}
	deleter := manifest.Deleter{Store: c.Manifests, Cause: manifest.CauseCache, Now: c.now, OnCommit: c.OnCommit,
		KeepTag: func(_ context.Context, _, tag string, dgst digest.Digest) error {
			if slices.Contains(e.Tags, tag) && dgst == e.Digest {
				return nil
			}
			return errors.New("it is new")
		}}
	for i, d := range going {
		if !o.Dry {
			_, err := deleter.Delete(ctx, h.repo, manifest.ImageID{Digest: d})
			if i == 0 && err != nil {
				return 0, err
			}
			if err != nil && !manifest.IsNotFound(err) {
				c.tell(ctx, err) // it has got a tag or a parent since, and stays
				continue
			}
			c.checked.drop(h.repo + " " + string(h.recs[d].Subject))
			c.checked.drop(h.repo + " " + string(d))
		}
		freed += h.recs[d].Desc.Size
		for _, b := range h.recs[d].Blobs {
			h.needs[b]--
		}
		for _, child := range h.recs[d].Manifests {
			h.lists[child]--
		}
		delete(h.recs, d)
	}
	for _, tag := range e.Tags {
		if !o.Dry {
			c.checked.drop(h.repo + " " + tag)
		}
	}
	cutoff := c.now().Add(-orDefault(o.Lease, 24*time.Hour))
	for _, b := range blobs {
		if _, has := h.blobs[b]; !has {
			continue
		}
		if !o.Dry {
			if err := c.Blobs.Delete(ctx, h.repo, b, cutoff); err != nil {
				if !errors.Is(err, blob.ErrConflict) && !errors.Is(err, blob.ErrNotFound) {
					c.tell(ctx, err)
				}
				continue // a collection takes it
			}
		}
		freed += h.blobs[b]
		delete(h.blobs, b)
	}
	return freed, nil
}

// again tells why an image could not be had again.
func (c *Cache) again(ctx context.Context, e *evictee, going []digest.Digest) error {
	for _, d := range going {
		if _, err := c.manifestOf(ctx, e.h.place, d); err != nil {
			return kept(err)
		}
	}
	for _, tag := range e.Tags {
		err := c.ask(ctx, e.h.place, tag, func(ctx context.Context, s replication.Source) error {
			_, err := s.Manifests.Resolve(ctx, e.h.upstream, tag)
			return err
		})
		if err != nil {
			return kept(err)
		}
	}
	return nil
}

func kept(err error) error {
	if isNotFound(err) {
		return fmt.Errorf("%w: %w", errKept, err)
	}
	return err
}
