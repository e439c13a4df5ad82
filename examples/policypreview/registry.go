package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
	"oras.land/oras-go/v2/registry"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/examples/store/remote"
	"github.com/wharfage/wharfage/lifecycle"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/replication"
)

const (
	parallel    = 8
	maxDocument = 4 << 20 // of a config
	maxImages   = 200_000
)

// repository is one of a registry, by HTTP.
type repository struct {
	name      registry.Reference
	blobs     *remote.Blobs
	manifests *remote.Manifests
	notes     []string // what a reader should know

	mu sync.Mutex
}

// open reads a reference, and the credentials that docker has.
func open(reference string, plain bool) (*repository, error) {
	if strings.Contains(reference, "://") {
		return nil, fmt.Errorf("%q: want REGISTRY/REPOSITORY, without a scheme", reference)
	}
	ref, err := registry.ParseReference(reference)
	if err != nil {
		return nil, fmt.Errorf("%q is no repository, which is REGISTRY/NAME with the name in lower case: %w", reference, err)
	}
	if ref.Reference != "" {
		return nil, fmt.Errorf("%q names one image: want REGISTRY/REPOSITORY, without a tag and a digest", reference)
	}
	login, err := remote.DockerCredentials()
	if err != nil {
		return nil, err
	}
	r := &remote.Registry{Host: ref.Registry, Credential: login, Proxy: http.ProxyFromEnvironment, UserAgent: "wharfage-policypreview", Parallel: parallel}
	if plain {
		r.Scheme = "http"
	}
	source := r.Source()
	return &repository{name: ref, blobs: source.Blobs.(*remote.Blobs), manifests: source.Manifests.(*remote.Manifests)}, nil
}

// advise adds what to do about an error.
func advise(err error) error {
	switch {
	case errors.Is(err, replication.ErrDenied):
		return fmt.Errorf("%w: log in with docker login, or ask for the right to pull", err)
	case errors.Is(err, replication.ErrRateLimited):
		return fmt.Errorf("%w: try again later, or log in", err)
	}
	return err
}

// source says where the time of an image is from.
type source string

const (
	fromRegistry source = "pushed"           // the registry says so
	fromConfig   source = "created"          // the image's config, or its annotation, says so
	fromChild    source = "created (newest)" // of what an index lists
	fromNowhere  source = "unknown"
)

// found is an image and where its time is from.
type found struct {
	lifecycle.Image
	source source
}

// googleEntry is what Google's registries say of each manifest in a list of tags.
type googleEntry struct {
	Tag            []string
	TimeUploadedMs string
}

// images reads the whole repository.
func (r *repository) images(ctx context.Context) ([]found, error) {
	google := map[digest.Digest]googleEntry{}
	names, err := r.manifests.TagNames(ctx, r.name.Repository, func(members map[string]json.RawMessage) error {
		page := map[digest.Digest]googleEntry{}
		if text := members["manifest"]; text != nil {
			if err := json.Unmarshal(text, &page); err != nil {
				return err
			}
		}
		maps.Copy(google, page)
		return nil
	})
	if manifest.IsNotFound(err) {
		return nil, fmt.Errorf("there is no repository %s, or it is empty: %w", r.name, err)
	}
	if err != nil {
		return nil, advise(err)
	}
	c := crawl{repository: r, images: map[digest.Digest]*found{}, created: map[digest.Digest]time.Time{}}
	if err := c.tags(ctx, names); err != nil {
		return nil, advise(err)
	}
	if len(google) == 0 {
		r.notes = append(r.notes, "the registry does not list manifests without a tag: those that no tag, index or subject leads to are not seen")
	}
	for d := range google {
		if manifest.CheckContentDigest(string(d)) == nil {
			c.meet(d)
		}
	}
	if err := c.all(ctx); err != nil {
		return nil, advise(err)
	}
	return c.finish(google), nil
}

// crawl follows what names what.
type crawl struct {
	*repository
	images  map[digest.Digest]*found
	created map[digest.Digest]time.Time // by their own word
	queue   []digest.Digest

	noReferrers bool // has been noted
}

// meet notes a manifest to be read.
func (c *crawl) meet(d digest.Digest) *found {
	im := c.images[d]
	if im == nil {
		im = &found{Image: lifecycle.Image{Digest: d}, source: fromNowhere}
		c.images[d] = im
		c.queue = append(c.queue, d)
	}
	return im
}

// tags resolves tags.
func (c *crawl) tags(ctx context.Context, names []string) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for _, name := range names {
		g.Go(func() error {
			tag, err := c.manifests.Resolve(ctx, c.name.Repository, name)
			if manifest.IsNotFound(err) {
				return nil // deleted since
			}
			if err != nil {
				return err
			}
			c.mu.Lock()
			defer c.mu.Unlock()
			im := c.meet(tag.Digest)
			im.Tags = append(im.Tags, name)
			return nil
		})
	}
	return g.Wait()
}

// all reads manifests until nothing new is met.
func (c *crawl) all(ctx context.Context) error {
	for len(c.queue) > 0 {
		if len(c.images) > maxImages {
			return fmt.Errorf("%s has more than %d manifests", c.name, maxImages)
		}
		now := c.queue
		c.queue = nil
		g, ctx := errgroup.WithContext(ctx)
		g.SetLimit(parallel)
		for _, d := range now {
			g.Go(func() error { return c.read(ctx, d) })
		}
		if err := g.Wait(); err != nil {
			return err
		}
	}
	return nil
}

// read reads a manifest, what it says of its creation, and what refers to it.
func (c *crawl) read(ctx context.Context, d digest.Digest) error {
	rec, err := c.manifests.Get(ctx, c.name.Repository, d)
	if manifest.IsNotFound(err) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if len(c.images[d].Tags) > 0 {
			c.notes = append(c.notes, "the tag "+c.images[d].Tags[0]+" names "+string(d)+", which is not there")
		}
		delete(c.images, d) // an index may list what is not there
		return nil
	}
	if err != nil {
		return err
	}
	m, err := manifest.Parse(rec.Desc.MediaType, rec.Raw)
	if err != nil {
		return err
	}
	created, err := c.createdAt(ctx, m)
	if err != nil {
		return err
	}
	referrers, err := c.referrers(ctx, d)
	if err != nil {
		return err
	}

	c.mu.Lock()
	defer c.mu.Unlock()
	im := c.images[d]
	im.Subject, im.Manifests, im.MediaType, im.ArtifactType, im.Size = rec.Subject, rec.Manifests, m.MediaType, m.ArtifactType, m.Size()
	if !rec.PushedAt.IsZero() {
		im.PushedAt, im.source = rec.PushedAt, fromRegistry
	}
	c.created[d] = created
	for _, child := range rec.Manifests {
		if manifest.CheckContentDigest(string(child)) == nil {
			c.meet(child)
		}
	}
	for _, ref := range referrers {
		c.meet(ref)
	}
	return nil
}

// createdAt returns what an image says of its creation; zero if that is nothing,
// or a placeholder of builds that are to be the same each time.
func (c *crawl) createdAt(ctx context.Context, m *manifest.Manifest) (time.Time, error) {
	text := m.Annotations()[ocispec.AnnotationCreated]
	if isConfig := strings.HasSuffix(m.Config.MediaType, "+json") || strings.HasSuffix(m.Config.MediaType, "/json"); text == "" && isConfig && m.Config.Size <= maxDocument &&
		manifest.CheckContentDigest(string(m.Config.Digest)) == nil && m.Config.MediaType != ocispec.MediaTypeEmptyJSON {
		body, err := blob.ReadAll(ctx, c.blobs, c.name.Repository, m.Config.OCI())
		if err != nil {
			return time.Time{}, fmt.Errorf("config of an image: %w", err)
		}
		var config struct{ Created string }
		if json.Unmarshal(body, &config) == nil {
			text = config.Created
		}
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil || t.Year() <= 1980 {
		return time.Time{}, nil
	}
	return t, nil
}

// referrers lists what refers to a manifest.
func (c *crawl) referrers(ctx context.Context, d digest.Digest) (out []digest.Digest, err error) {
	for desc, err := range c.manifests.Referrers(ctx, c.name.Repository, d, "", "") {
		if err != nil {
			return nil, err
		}
		if manifest.CheckContentDigest(string(desc.Digest)) == nil {
			out = append(out, desc.Digest)
		}
	}
	has, err := c.manifests.HasReferrers(ctx, c.name.Repository, d)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil && !has && !c.noReferrers {
		c.noReferrers = true
		c.notes = append(c.notes, "the registry has no referrers API: referrers without a tag, and on no list under a fallback tag, are not seen")
	}
	return out, err
}

// finish gives each image its time, in the order of digests.
func (c *crawl) finish(google map[digest.Digest]googleEntry) (out []found) {
	for d, im := range c.images {
		slices.Sort(im.Tags)
		if ms, err := strconv.ParseInt(google[d].TimeUploadedMs, 10, 64); err == nil && ms > 0 {
			im.PushedAt, im.source = time.UnixMilli(ms), fromRegistry
		}
		if im.source == fromNowhere && !c.created[d].IsZero() {
			im.PushedAt, im.source = c.created[d], fromConfig
		}
	}
	for _, im := range c.images {
		for _, child := range im.Manifests {
			if t := c.created[child]; (im.source == fromNowhere || im.source == fromChild) && t.After(im.PushedAt) {
				im.PushedAt, im.source = t, fromChild
			}
		}
	}
	for _, im := range c.images {
		out = append(out, *im)
	}
	slices.SortFunc(out, func(a, b found) int { return strings.Compare(string(a.Digest), string(b.Digest)) })
	return out
}
