package remote

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"iter"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/referrers"
	"github.com/wharfage/wharfage/replication"
)

// Bounds of one listing. A page may be long: some registries do not cut theirs.
const (
	maxPages   = 10_000
	maxEntries = 2_000_000
	maxPage    = 256 << 20
)

// pages reads a listing to its end. decode reads a page and returns how many entries
// that were not there before it has brought: a listing that goes on without any never ends.
func (r *Registry) pages(ctx context.Context, q request, limit int64, decode func(body []byte) (fresh int, err error)) error {
	sum := 0
	for range maxPages {
		body, resp, err := r.read(ctx, q, limit, http.StatusOK)
		if err != nil {
			return err
		}
		fresh, err := decode(body)
		if err != nil {
			return fmt.Errorf("%w: the answer is no list: %w", replication.ErrContent, err)
		}
		next := nextPage(resp.Header["Link"])
		if next == "" {
			return nil
		}
		at, _, err := wharfage.ResolveLocation(resp.Request.URL, next)
		if err != nil || !sameOrigin(r.base, at) {
			return fmt.Errorf("%w: the next page is elsewhere: %.200q", replication.ErrContent, next)
		}
		if sum += fresh; fresh == 0 || sum > maxEntries {
			return fmt.Errorf("%w: the listing does not end", replication.ErrContent)
		}
		q.at = at
	}
	return fmt.Errorf("%w: the listing has more than %d pages", replication.ErrContent, maxPages)
}

// nextPage returns the target of the link with rel="next" (RFC 8288), or "".
func nextPage(links []string) string {
	for _, l := range links {
		for l != "" {
			_, after, _ := strings.Cut(l, "<")
			target, parameters, ok := strings.Cut(after, ">")
			if !ok {
				break
			}
			if parameters, l, ok = strings.Cut(parameters, "<"); ok {
				l = "<" + l
			}
			for p := range strings.FieldsFuncSeq(parameters, func(c rune) bool { return c == ';' || c == ',' || c == ' ' }) {
				if name, value, _ := strings.Cut(p, "="); strings.EqualFold(name, "rel") && strings.EqualFold(strings.Trim(value, `"`), "next") {
					return target
				}
			}
		}
	}
	return ""
}

// names lists what pages hold under member, in byte order, whatever that of the
// registry is.
func (r *Registry) names(ctx context.Context, q request, member string, check func(string) error, also func(map[string]json.RawMessage) error) ([]string, error) {
	seen := map[string]bool{}
	err := r.pages(ctx, q, maxPage, func(body []byte) (int, error) {
		var page map[string]json.RawMessage
		var list []string
		err := json.Unmarshal(body, &page)
		if err == nil && page[member] != nil {
			err = json.Unmarshal(page[member], &list)
		}
		if err == nil && also != nil {
			err = also(page)
		}
		before := len(seen)
		for _, name := range list {
			if err == nil {
				err = check(name)
			}
			seen[name] = true
		}
		return len(seen) - before, err
	})
	var out []string
	for name := range seen {
		out = append(out, name)
	}
	slices.Sort(out)
	return out, err
}

// Tags implements [replication.ManifestReader]: names, without a Digest. A repository that
// the registry does not know is empty, if it says so (NAME_UNKNOWN); any other 404 may be
// that of something that is no registry, and is manifest.ErrNotFound.
func (m *Manifests) Tags(ctx context.Context, repo, after string) iter.Seq2[manifest.Tag, error] {
	return func(yield func(manifest.Tag, error) bool) {
		names, err := m.TagNames(ctx, repo, nil)
		if e, ok := errors.AsType[*StatusError](err); ok && e.Status == http.StatusNotFound && e.Code == "NAME_UNKNOWN" {
			return
		}
		if err != nil {
			yield(manifest.Tag{}, err)
			return
		}
		for _, name := range names {
			if name > after && !yield(manifest.Tag{Name: name}, nil) {
				return
			}
		}
	}
}

// TagNames lists all tags by name. page, if not nil, is shown the members of each page, for
// what some registries add. manifest.ErrNotFound.
func (m *Manifests) TagNames(ctx context.Context, repo string, page func(members map[string]json.RawMessage) error) ([]string, error) {
	names, err := m.r.names(ctx, of(http.MethodGet, repo, "tags/list", "?n=1000", actions(m.push)...), "tags", manifest.CheckTag, page)
	return names, manifestError("list tags", repo, "", notFound(err, manifest.ErrNotFound))
}

// Repos implements [manifest.Catalog], where the registry has one.
func (m *Manifests) Repos(ctx context.Context, after string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		q := request{method: http.MethodGet, path: "_catalog?n=1000", kind: "_catalog", scopes: []string{"registry:catalog:*"}}
		names, err := m.r.names(ctx, q, "repositories", manifest.CheckRepository, nil)
		if err != nil {
			yield("", fmt.Errorf("list repositories: %w", err))
			return
		}
		for _, name := range names {
			if name > after && !yield(name, nil) {
				return
			}
		}
	}
}

// Referrers implements [referrers.Index]: by the referrers API, or, where there is none
// (404), by the list under the fallback tag.
func (m *Manifests) Referrers(ctx context.Context, repo string, subject digest.Digest, artifactType string, after digest.Digest) iter.Seq2[ocispec.Descriptor, error] {
	return func(yield func(ocispec.Descriptor, error) bool) {
		list, err := m.referrers(ctx, repo, subject, artifactType)
		if err != nil {
			yield(ocispec.Descriptor{}, manifestError("list referrers", repo, string(subject), err))
			return
		}
		for _, d := range list {
			if d.Digest > after && (artifactType == "" || d.ArtifactType == artifactType) && !yield(d, nil) {
				return
			}
		}
	}
}

func (m *Manifests) referrers(ctx context.Context, repo string, subject digest.Digest, artifactType string) (out []ocispec.Descriptor, err error) {
	list := func() ([]ocispec.Descriptor, error) {
		return (&referrers.TagSchema{Tags: &tags{m: m}}).List(ctx, repo, subject)
	}
	if m.r.referrersAPI.Load() == no {
		return list()
	}
	query := ""
	if artifactType != "" {
		query = "?artifactType=" + url.QueryEscape(artifactType)
	}
	seen := map[digest.Digest]bool{}
	err = m.r.pages(ctx, of(http.MethodGet, repo, "referrers/", string(subject)+query, actions(m.push)...), manifest.MaxSize, func(body []byte) (int, error) {
		doc, err := manifest.Parse(manifest.MediaTypeIndex, body)
		if err != nil {
			return 0, err
		}
		before := len(out)
		for i := range doc.Manifests {
			if d := doc.Manifests[i].OCI(); !seen[d.Digest] {
				seen[d.Digest] = true
				out = append(out, d)
			}
		}
		return len(out) - before, nil
	})
	if e, ok := errors.AsType[*StatusError](err); ok && (e.Status == http.StatusNotFound || e.Status == http.StatusMethodNotAllowed || e.Status == http.StatusNotImplemented) {
		if e.Code != "NAME_UNKNOWN" { // which registries with the API say of a repository that is not there
			m.r.referrersAPI.CompareAndSwap(unknown, no)
		}
		return list()
	}
	if err == nil {
		m.r.referrersAPI.Store(yes)
	}
	slices.SortFunc(out, func(a, b ocispec.Descriptor) int { return cmp.Compare(a.Digest, b.Digest) })
	if err == nil {
		err = m.complete(ctx, repo, out)
	}
	return out, err
}

// complete reads the documents of entries that say the type of an empty config: so does
// go-containerregistry of all artifacts.
func (m *Manifests) complete(ctx context.Context, repo string, list []ocispec.Descriptor) error {
	var doubtful []digest.Digest
	at := map[digest.Digest]*ocispec.Descriptor{}
	for i := range list {
		if d := &list[i]; d.ArtifactType == manifest.MediaTypeEmpty {
			doubtful, at[d.Digest] = append(doubtful, d.Digest), d
		}
	}
	return each(ctx, doubtful, func(ctx context.Context, _ int, d digest.Digest) error {
		rec, _, err := m.get(ctx, repo, string(d), d)
		if err == nil {
			at[d].ArtifactType, at[d].Annotations = rec.Desc.ArtifactType, rec.Desc.Annotations
		}
		if manifest.IsNotFound(err) {
			return nil
		}
		return err
	})
}

// HasReferrers tells whether the registry has the referrers API, and asks it if that is not
// known.
func (m *Manifests) HasReferrers(ctx context.Context, repo string, subject digest.Digest) (bool, error) {
	if m.r.referrersAPI.Load() == unknown {
		if _, err := m.referrers(ctx, repo, subject, ""); err != nil {
			return false, err
		}
	}
	return m.r.referrersAPI.Load() == yes, nil
}

// list changes a list under a fallback tag. In one process changes wait for one another, as
// most registries cannot hold them against each other.
func (m *Manifests) list(ctx context.Context, repo string, subject digest.Digest, change func(*referrers.TagSchema) error) error {
	turn := m.r.lists[maphash.String(seed, repo+":"+referrers.FallbackTag(subject))%uint64(len(m.r.lists))]
	select {
	case turn <- struct{}{}:
		defer func() { <-turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	return change(&referrers.TagSchema{Tags: &tags{m: m}})
}

var seed = maphash.MakeSeed()

// tags is the [referrers.TagStore] of one change. Its writes are conditional on what it has
// read, where the registry has ETags.
type tags struct {
	m    *Manifests
	head http.Header // of the last GetTag
}

// GetTag implements [referrers.TagStore].
func (t *tags) GetTag(ctx context.Context, repo, tag string) (ocispec.Descriptor, []byte, error) {
	rec, head, err := t.m.get(ctx, repo, tag, "")
	t.head = head
	return rec.Desc, rec.Raw, err
}

// PutTag implements [referrers.TagStore].
func (t *tags) PutTag(ctx context.Context, repo, tag string, raw []byte, old digest.Digest) error {
	desc := ocispec.Descriptor{MediaType: manifest.MediaTypeIndex, Digest: manifest.Digest(digest.SHA256, raw)}
	_, _, err := t.m.put(ctx, repo, tag, manifest.Pushed{Record: manifest.Record{Desc: desc, Raw: raw}}, ifMatch(old, t.head))
	return err
}
