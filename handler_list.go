package wharfage

import (
	"encoding/json"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	specs "github.com/opencontainers/distribution-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/referrers"
)

func (h *Handler) tags(w http.ResponseWriter, r *http.Request, rt route) error {
	p, err := h.pageOf(rt)
	if err != nil {
		return err
	}
	tags, known := []string{}, false
	for t, err := range h.Manifests.Tags(r.Context(), rt.repo, p.last) {
		if err != nil {
			return err
		}
		if known = true; !p.take(len(t.Name) + 3) {
			break
		}
		tags = append(tags, t.Name)
	}
	if !known && h.Repositories == nil { // else it is there, and was asked about
		if known, err = h.exists(r, rt.repo); err != nil {
			return err
		}
		if !known {
			return &statusError{http.StatusNotFound, codeNameUnknown, "repository " + quote(rt.repo) + " has no manifests"}
		}
	}
	if p.more {
		p.link(w, r, tags[len(tags)-1])
	}
	answer, err := json.Marshal(specs.TagList{Name: rt.repo, Tags: tags})
	if err != nil {
		return err
	}
	writeJSON(w, "application/json", answer)
	return nil
}

// exists tells whether a repository holds a manifest.
func (h *Handler) exists(r *http.Request, repo string) (bool, error) {
	for _, err := range h.Manifests.Manifests(r.Context(), repo, "") {
		return err == nil, err
	}
	return false, nil
}

func (h *Handler) catalog(w http.ResponseWriter, r *http.Request, rt route) error {
	c := h.Catalog
	if c == nil && h.Repositories != nil {
		c = h.Repositories
	}
	if c == nil {
		var ok bool
		if c, ok = h.Manifests.(manifest.Catalog); !ok {
			return errNoRoute
		}
	}
	p, err := h.pageOf(rt)
	if err != nil {
		return err
	}
	repos := []string{}
	for repo, err := range c.Repos(r.Context(), p.last) {
		if err != nil {
			return err
		}
		if !p.take(len(repo) + 3) {
			break
		}
		repos = append(repos, repo)
	}
	if p.more {
		p.link(w, r, repos[len(repos)-1])
	}
	answer, err := json.Marshal(specs.RepositoryList{Repositories: repos})
	if err != nil {
		return err
	}
	writeJSON(w, "application/json", answer)
	return nil
}

func (h *Handler) referrers(w http.ResponseWriter, r *http.Request, rt route) error {
	// Any grammatical digest: subjects need not be of an algorithm known here.
	if err := manifest.CheckDigest(rt.ref); err != nil {
		return badRequest(codeDigestInvalid, "digest %s: %v", quote(rt.ref), err)
	}
	p, err := h.pageOf(rt)
	if err != nil {
		return err
	}
	if p.last != "" {
		if _, err := checkDigest(p.last); err != nil {
			return err
		}
	}
	// Asked for several types, this does not filter, and says so by leaving the
	// header out: the client then filters by itself.
	filter := ""
	if types := rt.query["artifactType"]; len(types) == 1 {
		// A space that no type has is a plus that was not escaped. Parameters may
		// have one.
		typ, _, _ := strings.Cut(types[0], ";")
		filter = strings.ReplaceAll(typ, " ", "+") + types[0][len(typ):]
	}
	index := h.Referrers
	if index == nil {
		var ok bool
		if index, ok = h.Manifests.(referrers.Index); !ok {
			index = referrers.Scan(h.Manifests)
		}
	}
	list := referrers.JSON(r.Context(), index, rt.repo, digest.Digest(rt.ref), filter, digest.Digest(p.last))
	if h.HideArchived {
		first := fewAhead
		if p.items > 0 { // and the one that tells that there are more
			first = min(p.items, 1000) + 1
		}
		list = h.active(r, rt.repo, list, first)
	}
	b := h.page()
	defer func() {
		if b.Cap() <= 2*defaultPageBytes { // else one long entry would be paid for ever after
			h.pages.Put(b)
		}
	}()
	b.WriteString(`{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageIndex + `","manifests":[`)
	var last digest.Digest
	for e, err := range list {
		if err != nil {
			return err
		}
		if !p.take(len(e.JSON) + 1) {
			break
		}
		if last != "" {
			b.WriteByte(',')
		}
		b.WriteString(e.JSON)
		last = e.Digest
	}
	b.WriteString("]}")
	if filter != "" {
		w.Header().Set("OCI-Filters-Applied", "artifactType")
	}
	if p.more {
		p.link(w, r, string(last))
	}
	writeJSON(w, ocispec.MediaTypeImageIndex, b.Bytes())
	return nil
}

// active leaves out what is in the archive.
func (h *Handler) active(r *http.Request, repo string, list iter.Seq2[manifest.ReferrerJSON, error], first int) iter.Seq2[manifest.ReferrerJSON, error] {
	return func(yield func(manifest.ReferrerJSON, error) bool) {
		digestOf := func(e *manifest.ReferrerJSON) digest.Digest { return e.Digest }
		size := func(e *manifest.ReferrerJSON) int { return len(e.JSON) }
		for e, err := range described(r.Context(), h.Manifests, repo, list, first, digestOf, size) {
			if err == nil && e.record.StorageClass == manifest.Archive {
				continue
			}
			if !yield(e.item, err) || err != nil {
				return
			}
		}
	}
}

// page is one page of a listing: what was asked for and what is left of it.
type page struct {
	last  string
	items int // -1: no limit
	bytes int
	taken bool
	more  bool // there is an item that did not fit
}

func (h *Handler) pageOf(rt route) (page, error) {
	p := page{items: -1, bytes: h.Limits.PageBytes}
	if p.bytes <= 0 {
		p.bytes = defaultPageBytes
	}
	if h.Limits.PageItems > 0 {
		p.items = h.Limits.PageItems
	}
	p.last = rt.query.Get("last")
	if v := rt.query.Get("n"); v != "" {
		for _, c := range []byte(v) {
			if c < '0' || c > '9' {
				return p, badRequest(codeUnsupported, "n=%s is to be a number of items", quote(v))
			}
		}
		n, err := strconv.Atoi(v)
		if err != nil {
			n = int(^uint(0) >> 1) // more than there can be
		}
		if p.items < 0 || n < p.items {
			p.items = n
		}
	}
	return p, nil
}

// take tells whether an item of size bytes is on the page. The first fits
// whatever its size, so that there is progress.
func (p *page) take(size int) bool {
	if p.items == 0 || p.taken && size > p.bytes {
		p.more = p.taken // asked for none, the client gets no next page either
		return false
	}
	p.items--
	p.bytes -= size
	p.taken = true
	return true
}

// link points at the next page, with all else that the request asked for.
func (p *page) link(w http.ResponseWriter, r *http.Request, last string) {
	q := r.URL.Query()
	q.Set("last", last)
	next := url.URL{Path: r.URL.Path, RawQuery: q.Encode()}
	w.Header().Set("Link", "<"+next.String()+`>; rel="next"`)
}
