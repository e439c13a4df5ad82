package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/referrers"
	"github.com/wharfage/wharfage/scan"
)

// How much a page shows at a time.
const (
	reposPerPage  = 50
	imagesPerPage = 50
	mostCounted   = 1000 // manifests, and tags, of a repository in the list of them
)

func repoURL(repo string) string { return "/ui/repo/" + repo }
func imageURL(repo string, dgst digest.Digest) string {
	return "/ui/image/" + repo + "@" + string(dgst)
}

// repositories lists them, those whose name has q in it.
func (p *page) repositories(r *http.Request, _ string) (*view, error) {
	if err := onlyMethods(r); err != nil {
		return nil, err
	}
	if err := p.authorize(r, "", wharfage.ActionCatalog); err != nil {
		return nil, err
	}
	catalog := p.handler.Catalog
	if catalog == nil && p.handler.Repositories != nil {
		catalog = p.handler.Repositories
	}
	if catalog == nil {
		catalog, _ = p.handler.Manifests.(manifest.Catalog)
	}
	if catalog == nil {
		return nil, notFound("The storage of this registry cannot list its repositories.")
	}
	type row struct {
		Name, URL      string
		Manifests, Tag string // how many
	}
	var data struct {
		Query, After string
		Rows         []row
		Next         string
	}
	ctx, q := r.Context(), r.URL.Query()
	data.Query, data.After = q.Get("q"), q.Get("after")
	for name, err := range catalog.Repos(ctx, data.After) {
		if err != nil {
			return nil, err
		}
		if !strings.Contains(name, data.Query) {
			continue
		}
		if len(data.Rows) == reposPerPage {
			data.Next = "/ui/?" + url.Values{"q": {data.Query}, "after": {data.Rows[reposPerPage-1].Name}}.Encode()
			break
		}
		data.Rows = append(data.Rows, row{Name: name, URL: repoURL(name)})
	}
	for i := range data.Rows {
		row := &data.Rows[i]
		if p.authorize(r, row.Name, wharfage.ActionPull) != nil {
			continue
		}
		manifests, err := firstOf(ctx, mostCounted, p.handler.Manifests.Manifests(ctx, row.Name, ""))
		if err != nil {
			return nil, err
		}
		tags, err := firstOf(ctx, mostCounted, p.handler.Manifests.Tags(ctx, row.Name, ""))
		if err != nil {
			return nil, err
		}
		row.Manifests, row.Tag = upTo(manifests), upTo(tags)
	}
	return &view{name: "repositories", Title: "Repositories", Data: data}, nil
}

// upTo is a count that ended there.
func upTo(n int) string {
	if n == mostCounted {
		return number(n) + "+"
	}
	return number(n)
}

// entry is what the page knows of a manifest of a repository.
type entry struct {
	manifest.Record
	URL      string
	Tags     []string
	PulledAt time.Time
	Name     string // what people call it
	Kind     referrers.Kind
	Parents  []*entry // indexes that list it
	Attached []attached

	Size    int64 // what is stored for it and for what it lists, each thing once
	AtLeast bool  // some of that is not there
	Scan    *scan.Result
}

// attached says how many of a kind refer to an image or to what it lists.
type attached struct {
	Kind referrers.Kind
	N    int
}

func (a attached) String() string {
	name := string(a.Kind)
	switch a.Kind {
	case referrers.KindSBOM:
		name = "SBOM"
	case referrers.KindOther:
		name = "artifact"
	}
	if a.N > 1 {
		return number(a.N) + " " + name + "s"
	}
	return name
}

// entries reads a repository: those pushed last come first.
func (p *page) entries(ctx context.Context, repo string) ([]*entry, error) {
	var list []*entry
	at := map[digest.Digest]*entry{}
	for rec, err := range p.handler.Manifests.Manifests(ctx, repo, "") {
		if err != nil {
			return nil, err
		}
		e := &entry{Record: rec, URL: imageURL(repo, rec.Desc.Digest)}
		e.Name, e.Kind = referrers.Recognize(rec.Desc)
		at[rec.Desc.Digest] = e
		list = append(list, e)
	}
	if len(list) == 0 && p.handler.Repositories == nil {
		return nil, notFound("There is no repository %s, or it is empty.", repo)
	}
	for tag, err := range p.handler.Manifests.Tags(ctx, repo, "") {
		if err != nil {
			return nil, err
		}
		if e := at[tag.Digest]; e != nil { // else it was pushed since
			e.Tags = append(e.Tags, tag.Name)
		}
	}
	for pull, err := range p.pulls.Pulls(ctx, repo, "") {
		if err != nil {
			return nil, err
		}
		if e := at[pull.Digest]; e != nil {
			e.PulledAt = pull.At
		}
	}
	for _, e := range list {
		for _, child := range e.Manifests {
			if c := at[child]; c != nil {
				c.Parents = append(c.Parents, e)
			}
		}
	}
	for _, e := range list {
		if subject := at[e.Subject]; subject != nil {
			subject.attach(e.Kind)
			for _, index := range subject.Parents {
				index.attach(e.Kind)
			}
		}
	}
	slices.SortFunc(list, func(a, b *entry) int {
		return cmp.Or(b.PushedAt.Compare(a.PushedAt), cmp.Compare(a.Desc.Digest, b.Desc.Digest))
	})
	return list, nil
}

func (e *entry) attach(k referrers.Kind) {
	for i := range e.Attached {
		if e.Attached[i].Kind == k {
			e.Attached[i].N++
			return
		}
	}
	e.Attached = append(e.Attached, attached{k, 1})
	slices.SortFunc(e.Attached, func(a, b attached) int { return cmp.Compare(a.Kind, b.Kind) })
}

// measure tells sizes, and what scans have found. What is gone by now has neither.
func (p *page) measure(ctx context.Context, repo string, list ...*entry) error {
	images := p.handler.Images()
	images.Scans = len(list) == 1
	at := map[digest.Digest]*entry{}
	var ids []wharfage.ImageID
	for _, e := range list {
		at[e.Desc.Digest] = e
		ids = append(ids, wharfage.ImageID{Digest: e.Desc.Digest})
	}
	for {
		found, err := images.Find(ctx, repo, ids...)
		if gone, ok := errors.AsType[*wharfage.ImageNotFoundError](err); ok {
			at[gone.ID.Digest].AtLeast = true
			ids = slices.DeleteFunc(ids, func(id wharfage.ImageID) bool { return id == gone.ID })
			continue
		}
		for _, d := range found {
			e := at[d.Digest]
			e.Size, e.AtLeast, e.Scan = d.StoredSize, d.Incomplete, d.Scan
		}
		return err
	}
}

// Findings says what the scan has found, worst first.
func (e *entry) Findings() string {
	var out []string
	for _, s := range []scan.Severity{scan.Critical, scan.High, scan.Medium, scan.Low, scan.Informational, scan.Undefined} {
		if n := e.Scan.Counts[s]; n > 0 {
			out = append(out, number(n)+" "+strings.ToLower(string(s)))
		}
	}
	if out == nil {
		return "no findings"
	}
	return strings.Join(out, ", ")
}

// selections are what a list of images can show.
var selections = []struct {
	name, title string
	has         func(*entry) bool
}{
	{"", "Images", func(e *entry) bool { return e.Subject == "" && (len(e.Parents) == 0 || len(e.Tags) > 0) }},
	{"tagged", "Tagged", func(e *entry) bool { return len(e.Tags) > 0 }},
	{"untagged", "Untagged", func(e *entry) bool { return len(e.Tags) == 0 }},
	{"listed", "In an index", func(e *entry) bool { return len(e.Parents) > 0 }},
	{"attached", "Attached", func(e *entry) bool { return e.Subject != "" }},
	{"all", "All", func(*entry) bool { return true }},
}

// repository lists images, those with q in a tag or the digest.
func (p *page) repository(r *http.Request, repo string) (*view, error) {
	if err := p.read(r, repo); err != nil {
		return nil, err
	}
	ctx, q := r.Context(), r.URL.Query()
	list, err := p.entries(ctx, repo)
	if err != nil {
		return nil, err
	}
	type tab struct {
		Title, URL string
		N          int
		Here       bool
	}
	var data struct {
		Repo, Query, Show string
		Tabs              []tab
		Rows              []*entry
		Found             int
		Page, Pages       int
		Before, After     string
		Settings          *settingsView
	}
	if data.Settings, err = p.settings(r, repo); err != nil {
		return nil, err
	}
	data.Repo, data.Query, data.Show = repo, q.Get("q"), q.Get("show")
	link := func(show string, page int) string {
		v := url.Values{}
		for key, value := range map[string]string{"show": show, "q": data.Query, "page": strconv.Itoa(page)} {
			if value != "" && !(key == "page" && page == 1) {
				v.Set(key, value)
			}
		}
		if len(v) == 0 {
			return repoURL(repo)
		}
		return repoURL(repo) + "?" + v.Encode()
	}
	var found []*entry
	known := false
	for _, s := range selections {
		t := tab{Title: s.title, URL: link(s.name, 1), Here: s.name == data.Show}
		for _, e := range list {
			if !s.has(e) || data.Query != "" && !e.named(data.Query) {
				continue
			}
			if t.N++; t.Here {
				found = append(found, e)
			}
		}
		known = known || t.Here
		data.Tabs = append(data.Tabs, t)
	}
	if !known {
		return nil, &pageError{http.StatusBadRequest, "There is no such selection of images."}
	}
	if data.Page, data.Pages, err = pageNumber(q.Get("page"), len(found), imagesPerPage); err != nil {
		return nil, err
	}
	data.Found = len(found)
	data.Rows = found[(data.Page-1)*imagesPerPage : min(data.Page*imagesPerPage, len(found))]
	if data.Page > 1 {
		data.Before = link(data.Show, data.Page-1)
	}
	if data.Page < data.Pages {
		data.After = link(data.Show, data.Page+1)
	}
	if err := p.measure(ctx, repo, data.Rows...); err != nil {
		return nil, err
	}
	return &view{name: "repository", Title: repo, Trail: []crumb{{repo, ""}}, Data: data}, nil
}

// named tells whether q is in a tag or begins the digest.
func (e *entry) named(q string) bool {
	encoded := strings.TrimPrefix(string(e.Desc.Digest), string(e.Desc.Digest.Algorithm())+":")
	return strings.HasPrefix(string(e.Desc.Digest), q) || strings.HasPrefix(encoded, q) ||
		slices.ContainsFunc(e.Tags, func(tag string) bool { return strings.Contains(tag, q) })
}

// find returns the digest that a reference, as team/app:v1 or team/app@sha256:…,
// names.
func (p *page) find(r *http.Request, ref string) (repo string, dgst digest.Digest, err error) {
	repo, encoded, byDigest := strings.Cut(ref, "@")
	tag := ""
	if !byDigest {
		repo, tag, _ = strings.Cut(ref, ":")
	}
	if err := p.read(r, repo); err != nil {
		return "", "", err
	}
	switch {
	case byDigest && manifest.CheckDigest(encoded) == nil:
		return repo, digest.Digest(encoded), nil
	case byDigest:
		return "", "", notFound("%q is no digest.", visible(clip(encoded, 100)))
	case manifest.CheckTag(tag) != nil:
		return "", "", notFound("%q is no tag.", visible(clip(tag, 200)))
	}
	t, err := p.handler.Manifests.Resolve(r.Context(), repo, tag)
	if manifest.IsNotFound(err) {
		err = notFound("There is no tag %s in %s.", tag, repo)
	}
	return repo, t.Digest, err
}

// image shows one manifest, and what refers to it.
func (p *page) image(r *http.Request, ref string) (*view, error) {
	repo, dgst, err := p.find(r, ref)
	if err != nil {
		return nil, err
	}
	ctx := r.Context()
	rec, err := p.handler.Manifests.Get(ctx, repo, dgst)
	if err != nil {
		return nil, err
	}
	list, err := p.entries(ctx, repo)
	if err != nil {
		return nil, err
	}
	at := slices.IndexFunc(list, func(e *entry) bool { return e.Desc.Digest == dgst })
	if at < 0 {
		return nil, manifest.ErrNotFound
	}
	type pair struct{ Key, Value string }
	var data struct {
		*entry
		Repo, RepoURL, GraphURL, LifecycleURL string
		Pull                                  string
		SubjectURL                            string
		SubjectThere                          bool
		Annotations                           []pair
		More                                  int // annotations that are not shown
		Manifest                              *manifest.Manifest
		Raw                                   string
		Graph                                 *graphView
	}
	data.entry, data.Repo, data.RepoURL = list[at], repo, repoURL(repo)
	data.GraphURL = "/ui/graph/" + repo + "@" + string(dgst)
	data.LifecycleURL = "/ui/lifecycle/" + repo + "?image=" + url.QueryEscape(string(dgst))
	name := repo + "@" + string(dgst)
	if len(data.Tags) > 0 {
		name = repo + ":" + data.Tags[0]
	}
	data.Pull = pullCommand(data.Kind, r.Host, name)
	if data.Subject != "" {
		data.SubjectURL = imageURL(repo, data.Subject)
		data.SubjectThere = slices.ContainsFunc(list, func(e *entry) bool { return e.Desc.Digest == data.Subject })
	}
	if err := p.measure(ctx, repo, data.entry); err != nil {
		return nil, err
	}
	const mostAnnotations = 100
	for i, key := range slices.Sorted(maps.Keys(rec.Desc.Annotations)) {
		if i == mostAnnotations {
			data.More = len(rec.Desc.Annotations) - i
			break
		}
		data.Annotations = append(data.Annotations, pair{key, rec.Desc.Annotations[key]})
	}
	data.Manifest, _ = manifest.Parse(rec.Desc.MediaType, rec.Raw) // or the document is shown as it is
	data.Raw = document(rec.Raw)
	if data.Graph, err = p.drawGraph(ctx, repo, name, dgst); err != nil {
		return nil, err
	}
	title := short(dgst)
	if len(data.Tags) > 0 {
		title = data.Tags[0]
	}
	return &view{name: "image", Title: title + " · " + repo, Trail: []crumb{{repo, data.RepoURL}, {title, ""}}, Data: data}, nil
}

// document is a manifest for people to read, cut where it gets long.
func document(raw []byte) string {
	const most = 64 << 10
	var b bytes.Buffer
	if len(raw) > most || json.Indent(&b, raw, "", "  ") != nil {
		b.Reset()
		b.Write(raw[:min(len(raw), most)])
		if len(raw) > most {
			b.WriteString("…")
		}
	}
	return b.String()
}

// pullCommand is how one gets what is there.
func pullCommand(k referrers.Kind, host, name string) string {
	switch k {
	case referrers.KindImage, referrers.KindIndex:
		return "docker pull " + host + "/" + name
	case referrers.KindChart:
		return "helm pull oci://" + host + "/" + name
	}
	return "oras pull " + host + "/" + name
}
