package pullthrough

import (
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/referrers"
	"github.com/wharfage/wharfage/replication"
)

// CachedReferrers lists the referrers that are here, those of upstream among them. What
// upstream lists is fetched, so that an entry says what its manifest does, and stays when
// upstream fails or has it no longer.
func (c *Cache) CachedReferrers() referrers.Index { return cachedReferrers{c} }

type cachedReferrers struct{ c *Cache }

func (x cachedReferrers) index() referrers.Index {
	if x.c.Referrers != nil {
		return x.c.Referrers
	}
	if index, ok := x.c.Manifests.(referrers.Index); ok {
		return index
	}
	return referrers.Scan(x.c.Manifests)
}

func (x cachedReferrers) Referrers(ctx context.Context, repo string, subject digest.Digest, artifactType string, after digest.Digest) iter.Seq2[ocispec.Descriptor, error] {
	return func(yield func(ocispec.Descriptor, error) bool) {
		if err := x.refresh(ctx, repo, subject); err != nil {
			yield(ocispec.Descriptor{}, err)
			return
		}
		x.index().Referrers(ctx, repo, subject, artifactType, after)(yield)
	}
}

// ReferrersJSON implements [referrers.JSONIndex].
func (x cachedReferrers) ReferrersJSON(ctx context.Context, repo string, subject digest.Digest, artifactType string, after digest.Digest) iter.Seq2[manifest.ReferrerJSON, error] {
	return func(yield func(manifest.ReferrerJSON, error) bool) {
		if err := x.refresh(ctx, repo, subject); err != nil {
			yield(manifest.ReferrerJSON{}, err)
			return
		}
		referrers.JSON(ctx, x.index(), repo, subject, artifactType, after)(yield)
	}
}

// refresh fetches the referrers that upstream has, unless that was done lately. Its
// only errors are those of ctx: upstream's are warned of, since what is here is listed in any case.
func (x cachedReferrers) refresh(ctx context.Context, repo string, subject digest.Digest) error {
	c := x.c
	p, covered := c.asked(ctx, repo)
	if !covered || c.freshReferrers(ctx, repo, subject) || c.authorize(ctx, repo) != nil {
		return ctx.Err()
	}
	_, err := c.lists.do(ctx, c, repo+" "+string(subject), func(ctx context.Context) (struct{}, error) {
		if c.freshReferrers(ctx, repo, subject) {
			return struct{}{}, nil
		}
		return struct{}{}, c.referrersOf(ctx, p, subject)
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil && !absent(err) {
		warn(ctx, fmt.Sprintf("%v; these are the referrers that are here", err))
	}
	return nil
}

func (c *Cache) freshReferrers(ctx context.Context, repo string, subject digest.Digest) bool {
	age := orDefault(c.ReferrersAge, 6*time.Hour)
	last, ok := c.checked.get(repo + " " + string(subject))
	return ok && age > 0 && !forced(ctx) && c.now().Sub(last.at) < age
}

func (c *Cache) referrersOf(ctx context.Context, p place, subject digest.Digest) error {
	most := int(orDefault(int64(c.MaxReferrers), 1000))
	var dgsts []digest.Digest
	list := p
	list.apart = true // many registries have no such API
	err := c.ask(ctx, list, "referrers of "+string(subject), func(ctx context.Context, s replication.Source) error {
		if s.Referrers == nil {
			return nil
		}
		for desc, err := range s.Referrers.Referrers(ctx, p.upstream, subject, "", "") {
			switch {
			case err != nil:
				return err
			case ctx.Err() != nil:
				return ctx.Err()
			case len(dgsts) == most:
				return wrong("more than %d referrers", most)
			case manifest.CheckContentDigest(string(desc.Digest)) != nil:
				return wrong("%.80q is no digest", string(desc.Digest))
			}
			dgsts = append(dgsts, desc.Digest)
		}
		return nil
	})
	// Those listed before an error are of use, too.
	fetched := c.fetchReferrers(ctx, p, dgsts)
	if err == nil {
		err = fetched
	}
	if err == nil {
		c.checked.set(p.repo+" "+string(subject), check{at: c.now()})
	}
	return err
}

func (c *Cache) fetchReferrers(ctx context.Context, p place, dgsts []digest.Digest) error {
	stored, err := manifest.Stat(ctx, c.Manifests, p.repo, dgsts)
	if err != nil {
		return err
	}
	const atOnce = 8
	var g errgroup.Group
	g.SetLimit(atOnce)
	for i, d := range dgsts {
		if stored[i].Digest == "" {
			g.Go(func() error {
				_, err := c.manifest(ctx, p, d)
				if isNotFound(err) { // deleted since it was listed
					return nil
				}
				return err
			})
		}
	}
	return g.Wait()
}
