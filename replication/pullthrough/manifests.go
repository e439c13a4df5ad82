package pullthrough

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/replication"
)

// CachedManifests is Manifests, and what it lacks and a rule covers. Listings are of what is
// here. It is a [manifest.Stater], a [manifest.Describer] and a [manifest.Counter], and a
// [manifest.Catalog] if Manifests is one.
func (c *Cache) CachedManifests() manifest.Store {
	if catalog, ok := c.Manifests.(manifest.Catalog); ok {
		return struct {
			cachedManifests
			manifest.Catalog
		}{cachedManifests{c}, catalog}
	}
	return cachedManifests{c}
}

type cachedManifests struct{ c *Cache }

func (m cachedManifests) Manifests(ctx context.Context, repo string, after digest.Digest) iter.Seq2[manifest.Record, error] {
	return m.c.Manifests.Manifests(ctx, repo, after)
}

func (m cachedManifests) Tags(ctx context.Context, repo, after string) iter.Seq2[manifest.Tag, error] {
	return m.c.Manifests.Tags(ctx, repo, after)
}

func (m cachedManifests) Count(ctx context.Context, repo string, dgst digest.Digest) (manifests, tags int, err error) {
	return manifest.Count(ctx, m.c.Manifests, repo, dgst)
}

func (m cachedManifests) Stat(ctx context.Context, repo string, dgsts []digest.Digest) ([]ocispec.Descriptor, error) {
	out, err := manifest.Stat(ctx, m.c.Manifests, repo, dgsts)
	if err != nil {
		return nil, err
	}
	return out, m.fetch(ctx, repo, dgsts, func(i int) bool { return out[i].Digest == "" }, func(i int, rec manifest.Record) {
		out[i] = ocispec.Descriptor{MediaType: rec.Desc.MediaType, Digest: rec.Desc.Digest, Size: rec.Desc.Size, ArtifactType: rec.Desc.ArtifactType}
	})
}

// Describe implements [manifest.Describer]. To be described is no use.
func (m cachedManifests) Describe(ctx context.Context, repo string, dgsts []digest.Digest) ([]manifest.Record, error) {
	out, err := manifest.Describe(ctx, m.c.Manifests, repo, dgsts)
	if err != nil {
		return nil, err
	}
	return out, m.fetch(ctx, repo, dgsts, func(i int) bool { return out[i].Desc.Digest == "" }, func(i int, rec manifest.Record) {
		rec.Raw = nil
		out[i] = rec
	})
}

// fetch gets those that are lacking from upstream, if that has them.
func (m cachedManifests) fetch(ctx context.Context, repo string, dgsts []digest.Digest, lacking func(i int) bool, got func(i int, rec manifest.Record)) error {
	p, covered := m.c.asked(ctx, repo)
	for i, dgst := range dgsts {
		if !covered || !lacking(i) {
			continue
		}
		rec, err := m.c.manifest(ctx, p, dgst)
		switch {
		case err == nil:
			got(i, rec)
		case !absent(err):
			return err
		}
	}
	return nil
}

// absent tells whether an upstream does not have what was asked for, as far as this
// registry may know. Some deny what is not there.
func absent(err error) bool { return isNotFound(err) || errors.Is(err, replication.ErrDenied) }

func (m cachedManifests) Get(ctx context.Context, repo string, dgst digest.Digest) (manifest.Record, error) {
	rec, err := m.c.Manifests.Get(ctx, repo, dgst)
	p, covered := m.c.asked(ctx, repo)
	if !covered {
		return rec, err
	}
	if manifest.IsNotFound(err) {
		rec, err = m.c.manifest(ctx, p, dgst)
	}
	if err == nil {
		m.c.used.set(repo+" "+string(dgst), m.c.now())
	}
	return rec, err
}

// manifest returns what is not here, or was not just before.
func (c *Cache) manifest(ctx context.Context, p place, dgst digest.Digest) (manifest.Record, error) {
	if err := c.authorize(ctx, p.repo); err != nil {
		return manifest.Record{}, err
	}
	return c.manifests.do(ctx, c, p.repo+" "+string(dgst), func(ctx context.Context) (manifest.Record, error) {
		rec, err := c.Manifests.Get(ctx, p.repo, dgst)
		if !manifest.IsNotFound(err) {
			return rec, err // somebody else was faster
		}
		rec, err = c.manifestOf(ctx, p, dgst)
		if err == nil {
			err = c.apply(ctx, p.repo, manifest.Change{Put: []manifest.Record{rec}})
		}
		c.told(ctx, Sync{p.repo, p.rule, "", dgst, err})
		rec.PushedAt = c.now()
		return rec, err
	})
}

func (m cachedManifests) Resolve(ctx context.Context, repo, tag string) (manifest.Tag, error) {
	c := m.c
	have, err := c.Manifests.Resolve(ctx, repo, tag)
	p, covered := c.asked(ctx, repo)
	if !covered || err != nil && !manifest.IsNotFound(err) {
		return have, err
	}
	cached := err == nil
	if at, ok := c.fresh(ctx, repo, have); cached && ok {
		return at, nil
	}
	if err := c.authorize(ctx, repo); err != nil {
		if cached {
			return have, nil
		}
		return manifest.Tag{}, err
	}
	got, err := c.tags.do(ctx, c, repo+" "+tag, func(ctx context.Context) (manifest.Tag, error) {
		have, err := c.Manifests.Resolve(ctx, repo, tag)
		switch {
		case manifest.IsNotFound(err):
			have = manifest.Tag{Name: tag, Digest: manifest.Absent}
		case err != nil:
			return have, err
		default:
			if at, ok := c.fresh(ctx, repo, have); ok {
				return at, nil // since just now
			}
		}
		return c.refresh(ctx, p, have)
	})
	if err != nil && cached && ctx.Err() == nil {
		warn(ctx, fmt.Sprintf("%v; this is the copy of %s", err, have.MovedAt.UTC().Format(time.RFC3339)))
		return have, nil
	}
	return got, err
}

// fresh returns where a tag is without asking upstream, if that was asked lately.
func (c *Cache) fresh(ctx context.Context, repo string, have manifest.Tag) (manifest.Tag, bool) {
	const skew = time.Minute // between the clocks of those who share a store
	age, now := orDefault(c.TagAge, 24*time.Hour), c.now()
	future := func(at time.Time) bool { return at.After(now.Add(skew)) } // by a clock that was wrong
	last, _ := c.checked.get(repo + " " + have.Name)
	if have.MovedAt.After(last.at) && !future(have.MovedAt) { // by a push, or before a restart
		last = check{at: have.MovedAt}
	}
	if age < 0 || forced(ctx) || last.at.IsZero() || future(last.at) || now.Sub(last.at) >= age {
		return have, false
	}
	if last.digest != "" {
		have.Digest = last.digest
	}
	return have, true
}

// refresh asks upstream where a tag is, and fetches what it names.
func (c *Cache) refresh(ctx context.Context, p place, have manifest.Tag) (got manifest.Tag, err error) {
	got.Name = have.Name
	key := p.repo + " " + have.Name
	err = c.ask(ctx, p, have.Name, func(ctx context.Context, s replication.Source) error {
		t, err := s.Manifests.Resolve(ctx, p.upstream, have.Name)
		if err == nil && manifest.CheckContentDigest(string(t.Digest)) != nil {
			err = wrong("%.80q is no digest", string(t.Digest))
		}
		got.Digest = t.Digest
		return err
	})
	if err == nil && got.Digest == have.Digest {
		c.checked.set(key, check{at: c.now()})
		return have, nil
	}
	var rec manifest.Record
	if err == nil {
		if rec, err = c.Manifests.Get(ctx, p.repo, got.Digest); manifest.IsNotFound(err) {
			rec, err = c.manifestOf(ctx, p, got.Digest)
		}
	}
	if err != nil {
		c.told(ctx, Sync{p.repo, p.rule, have.Name, got.Digest, err})
		return got, err
	}
	move := []manifest.TagMove{{Name: have.Name, To: got.Digest, From: have.Digest}}
	later := c.Background != nil && have.Digest != manifest.Absent
	err = c.mayMove(ctx, p.repo, move)
	if err == nil {
		change := manifest.Change{Put: []manifest.Record{rec}}
		if !later {
			change.Tags = move
		}
		err = c.apply(ctx, p.repo, change)
	}
	switch {
	case errors.Is(err, manifest.ErrRefused):
		c.checked.set(key, check{at: c.now()})
		c.told(ctx, Sync{p.repo, p.rule, have.Name, got.Digest, err})
		return have, nil
	case errors.Is(err, manifest.ErrConflict): // somebody has moved or removed it meanwhile
		return c.Manifests.Resolve(ctx, p.repo, have.Name)
	case err != nil:
		c.told(ctx, Sync{p.repo, p.rule, have.Name, got.Digest, err})
		return got, err
	}
	now := check{at: c.now()}
	if later {
		now.digest = got.Digest
	}
	c.checked.set(key, now)
	if !later {
		c.told(ctx, Sync{p.repo, p.rule, have.Name, got.Digest, nil})
	}
	if c.Background != nil {
		c.Background(func(ctx context.Context) error { return c.finish(ctx, p, move, later) })
	}
	got.MovedAt = now.at
	return got, nil
}

func (c *Cache) mayMove(ctx context.Context, repo string, moves []manifest.TagMove) error {
	for _, m := range moves {
		if c.MoveTag == nil {
			break
		}
		if err := c.MoveTag(ctx, repo, m.Name, m.From, m.To); err != nil {
			return fmt.Errorf("tag %s: %w: %w", m.Name, manifest.ErrRefused, err)
		}
	}
	return nil
}

// finish is the job of Background: it imports an image, and then moves the tag, if
// it waits for that. When that fails, upstream is asked again.
func (c *Cache) finish(ctx context.Context, p place, moves []manifest.TagMove, later bool) error {
	to := moves[0]
	err := c.Import(ctx, p.repo, to.To)
	if !later {
		return err
	}
	key := p.repo + " " + to.Name
	if last, _ := c.checked.get(key); last.digest != to.To {
		return err // the tag is to go elsewhere by now
	}
	if err == nil {
		if err = c.mayMove(ctx, p.repo, moves); err == nil {
			err = c.apply(ctx, p.repo, manifest.Change{Tags: moves})
		}
	}
	if err != nil {
		c.checked.drop(key)
	} else {
		c.checked.set(key, check{at: c.now()})
	}
	c.told(ctx, Sync{p.repo, p.rule, to.Name, to.To, err})
	return err
}

// Apply is that of Manifests. What a change requires, and only upstream has, is
// fetched for it: clients were told that it is here.
func (m cachedManifests) Apply(ctx context.Context, repo string, change manifest.Change) error {
	err := m.c.Manifests.Apply(ctx, repo, change)
	p, covered := m.c.place(repo)
	if !covered {
		return err
	}
	if missing, ok := errors.AsType[*manifest.MissingError](err); ok {
		for _, d := range missing.Manifests {
			if _, e := m.c.manifest(ctx, p, d); e != nil {
				return lacking(e, err)
			}
		}
		for _, d := range missing.Blobs {
			if e := m.c.fetchBlob(ctx, p, d); e != nil {
				return lacking(e, err)
			}
		}
		err = m.c.Manifests.Apply(ctx, repo, change)
	}
	if err == nil {
		for _, t := range change.Tags {
			m.c.checked.drop(repo + " " + t.Name)
		}
	}
	return err
}

// lacking is why a change cannot be made: missing, if upstream has not got it either.
func lacking(err, missing error) error {
	if absent(err) {
		return missing
	}
	return err
}
