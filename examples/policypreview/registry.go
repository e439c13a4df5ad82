package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
	"oras.land/oras-go/v2/registry"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/credentials"

	"github.com/wharfage/wharfage"
	"github.com/wharfage/wharfage/lifecycle"
	"github.com/wharfage/wharfage/manifest"
)

const (
	parallel    = 8
	maxDocument = 4 << 20   // of a manifest, a config, or a page of a listing that is not one of tags
	maxListing  = 256 << 20 // of a page of tags, which Google's registries do not cut
	maxImages   = 200_000
)

// repository is one of a registry, by HTTP.
type repository struct {
	name   registry.Reference
	base   *url.URL // …/v2/NAME/
	client *auth.Client
	notes  []string // what a reader should know

	mu          sync.Mutex
	noReferrers bool // the registry has no such API
}

// open reads a reference, and the credentials that docker has.
func open(reference string, plain bool) (*repository, error) {
	if strings.Contains(reference, "://") {
		return nil, fmt.Errorf("%q: want REGISTRY/REPOSITORY, without a scheme", reference)
	}
	ref, err := registry.ParseReference(reference)
	if err != nil {
		return nil, fmt.Errorf("%q is no repository: %w", reference, err)
	}
	if ref.Reference != "" {
		return nil, fmt.Errorf("%q names one image: want REGISTRY/REPOSITORY, without a tag and a digest", reference)
	}
	store, err := credentials.NewStoreFromDocker(credentials.StoreOptions{})
	if err != nil {
		return nil, fmt.Errorf("credentials of docker: %w", err)
	}
	base := &url.URL{Scheme: "https", Host: ref.Host(), Path: "/v2/" + ref.Repository + "/"}
	if ip := net.ParseIP(base.Hostname()); plain || base.Hostname() == "localhost" || ip != nil && ip.IsLoopback() {
		base.Scheme = "http"
	}
	client := &auth.Client{Client: &http.Client{Timeout: time.Minute}, Cache: auth.NewCache(), Credential: credentials.Credential(store)}
	client.SetUserAgent("wharfage-policypreview")
	return &repository{name: ref, base: base, client: client}, nil
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

// statusError is an answer that is no success.
type statusError struct {
	status int
	what   string
	detail string
}

func (e *statusError) Error() string {
	s := fmt.Sprintf("%s: the registry answers %d %s", e.what, e.status, http.StatusText(e.status))
	if e.detail != "" {
		s += " (" + e.detail + ")"
	}
	switch e.status {
	case http.StatusUnauthorized, http.StatusForbidden:
		s += ": log in with docker login, or ask for the right to pull"
	case http.StatusTooManyRequests:
		s += ": try again later, or log in"
	}
	return s
}

func isStatus(err error, status int) bool {
	e, ok := errors.AsType[*statusError](err)
	return ok && e.status == status
}

// request sends a request below the repository, and reads no more than limit bytes of the
// answer.
func (r *repository) request(ctx context.Context, method, ref string, limit int64) ([]byte, *http.Response, error) {
	u, err := r.base.Parse(ref)
	if err != nil {
		return nil, nil, err
	}
	what := method + " " + u.Path
	req, err := http.NewRequestWithContext(ctx, method, u.String(), nil)
	if err != nil {
		return nil, nil, err
	}
	if strings.HasPrefix(ref, "manifests/") {
		for _, t := range manifest.DefaultAccept() {
			req.Header.Add("Accept", t)
		}
		req.Header.Add("Accept", "*/*")
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", what, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
		return nil, nil, &statusError{resp.StatusCode, what, errorDetail(text)}
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", what, err)
	}
	if int64(len(body)) > limit {
		return nil, nil, fmt.Errorf("%s: the answer has more than %d bytes", what, limit)
	}
	return body, resp, nil
}

// errorDetail is what the registry says of an error.
func errorDetail(text []byte) string {
	var e struct {
		Errors []struct{ Code, Message string }
	}
	if json.Unmarshal(text, &e) != nil || len(e.Errors) == 0 {
		return ""
	}
	return strings.TrimSpace(e.Errors[0].Code + " " + e.Errors[0].Message)
}

// pages reads a listing to its end: decode reads a page.
func (r *repository) pages(ctx context.Context, ref string, limit int64, decode func([]byte) error) error {
	seen := map[string]bool{}
	for ref != "" && !seen[ref] {
		seen[ref] = true
		body, resp, err := r.request(ctx, http.MethodGet, ref, limit)
		if err != nil {
			return err
		}
		if err := decode(body); err != nil {
			return fmt.Errorf("%s of %s: the answer is no list: %w", ref, r.name, err)
		}
		link, rest, ok := strings.Cut(strings.TrimPrefix(resp.Header.Get("Link"), "<"), ">")
		if !ok || !strings.Contains(rest, `rel="next"`) && !strings.Contains(rest, `rel=next`) {
			return nil
		}
		next, same, err := wharfage.ResolveLocation(resp.Request.URL, link)
		if err != nil || !same {
			return fmt.Errorf("%s of %s: the next page is elsewhere: %q", ref, r.name, link)
		}
		ref = next.String()
	}
	return nil
}

// googleEntry is what Google's registries say of each manifest in a list of tags.
type googleEntry struct {
	Tag            []string
	TimeUploadedMs string
}

// images reads the whole repository.
func (r *repository) images(ctx context.Context) ([]found, error) {
	ctx = auth.AppendRepositoryScope(ctx, r.name, auth.ActionPull)
	var names []string
	google := map[digest.Digest]googleEntry{}
	err := r.pages(ctx, "tags/list?n=1000", maxListing, func(body []byte) error {
		var page struct {
			Tags     []string
			Manifest map[digest.Digest]googleEntry
		}
		err := json.Unmarshal(body, &page)
		names = append(names, page.Tags...)
		for d, e := range page.Manifest {
			google[d] = e
		}
		return err
	})
	if isStatus(err, http.StatusNotFound) {
		return nil, fmt.Errorf("there is no repository %s, or it is empty: %w", r.name, err)
	}
	if err != nil {
		return nil, err
	}
	c := crawl{repository: r, images: map[digest.Digest]*found{}, created: map[digest.Digest]time.Time{}}
	if err := c.tags(ctx, names); err != nil {
		return nil, err
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
		return nil, err
	}
	return c.finish(google), nil
}

// crawl follows what names what.
type crawl struct {
	*repository
	images  map[digest.Digest]*found
	created map[digest.Digest]time.Time // by their own word
	queue   []digest.Digest
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
	for _, tag := range names {
		if err := manifest.CheckTag(tag); err != nil {
			return fmt.Errorf("the registry lists the tag %q: %w", tag, err)
		}
		g.Go(func() error {
			_, resp, err := c.request(ctx, http.MethodHead, "manifests/"+tag, 0)
			if isStatus(err, http.StatusNotFound) {
				return nil // deleted since
			}
			if err != nil {
				return err
			}
			d := resp.Header.Get("Docker-Content-Digest")
			if manifest.CheckContentDigest(d) != nil {
				body, _, err := c.request(ctx, http.MethodGet, "manifests/"+tag, maxDocument)
				if err != nil {
					return err
				}
				d = string(manifest.Digest(digest.SHA256, body))
			}
			c.mu.Lock()
			defer c.mu.Unlock()
			im := c.meet(digest.Digest(d))
			im.Tags = append(im.Tags, tag)
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
	raw, resp, err := c.request(ctx, http.MethodGet, "manifests/"+string(d), manifest.MaxSize)
	if isStatus(err, http.StatusNotFound) {
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
	if manifest.Digest(d.Algorithm(), raw) != d {
		return fmt.Errorf("manifest %s of %s has other bytes: the registry, or a proxy, is wrong", d, c.name)
	}
	m, err := manifest.Parse(resp.Header.Get("Content-Type"), raw)
	if err != nil {
		return fmt.Errorf("manifest %s of %s: %w", d, c.name, err)
	}
	created, err := c.createdAt(ctx, m)
	if err != nil {
		return err
	}
	referrers, err := c.referrers(ctx, d)
	if err != nil {
		return err
	}
	rec := m.Record(d, raw)

	c.mu.Lock()
	defer c.mu.Unlock()
	im := c.images[d]
	im.Subject, im.Manifests, im.MediaType, im.ArtifactType, im.Size = rec.Subject, rec.Manifests, m.MediaType, m.ArtifactType, m.Size()
	if t, err := http.ParseTime(resp.Header.Get("Last-Modified")); err == nil {
		im.PushedAt, im.source = t, fromRegistry
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
		body, _, err := c.request(ctx, http.MethodGet, "blobs/"+string(m.Config.Digest), maxDocument)
		if err != nil {
			return time.Time{}, fmt.Errorf("config of an image: %w", err)
		}
		if manifest.Digest(m.Config.Digest.Algorithm(), body) != m.Config.Digest {
			return time.Time{}, fmt.Errorf("config %s of %s has other bytes: the registry, or a proxy, is wrong", m.Config.Digest, c.name)
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

// referrers lists what refers to a manifest, if the registry can tell.
func (c *crawl) referrers(ctx context.Context, d digest.Digest) (out []digest.Digest, err error) {
	c.mu.Lock()
	skip := c.noReferrers
	c.mu.Unlock()
	if skip {
		return nil, nil
	}
	err = c.pages(ctx, "referrers/"+string(d), maxDocument, func(body []byte) error {
		var page struct {
			Manifests []struct{ Digest digest.Digest }
		}
		err := json.Unmarshal(body, &page)
		for _, m := range page.Manifests {
			if manifest.CheckContentDigest(string(m.Digest)) == nil {
				out = append(out, m.Digest)
			}
		}
		return err
	})
	if isStatus(err, http.StatusNotFound) || isStatus(err, http.StatusMethodNotAllowed) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if !c.noReferrers {
			c.noReferrers = true
			c.notes = append(c.notes, "the registry has no referrers API: referrers without a tag are not seen")
		}
		return nil, nil
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
