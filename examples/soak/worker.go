package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// worker does one operation after the other, in repositories that no other
// worker writes to.
type worker struct {
	client
	id      int
	o       options
	rand    *rand.Rand
	all     *model
	layers  *layers
	repos   []*repository
	fresh   uint64 // number of the next layer that nobody else has
	ops     atomic.Int64
	doing   string
	counter int
}

const reposEach = 3

func repoName(worker, i int) string { return fmt.Sprintf("soak/w%d/r%d", worker, i) }

func newWorker(id int, o options, all *model, l *layers) *worker {
	w := &worker{id: id, o: o, rand: rand.New(rand.NewPCG(o.seed, uint64(id))), all: all, layers: l, fresh: uint64(id+1) << 32}
	w.http = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 2}, Timeout: 2 * time.Minute}
	w.base = &url.URL{Scheme: "http", Host: o.addr, Path: "/"}
	for i := range reposEach {
		w.repos = append(w.repos, &repository{name: repoName(id, i), manifests: map[digest.Digest]*document{}, tags: map[string]digest.Digest{}})
	}
	return w
}

// operation is a thing to do, and how often in comparison.
type operation struct {
	name   string
	weight int
	do     func(w *worker, ctx context.Context, r *repository) error
}

var operations = []operation{
	{"push an image", 26, (*worker).pushImage},
	{"push an index", 5, (*worker).pushIndex},
	{"push a referrer", 9, (*worker).pushReferrer},
	{"pull", 22, (*worker).pull},
	{"move a tag", 7, (*worker).moveTag},
	{"delete a tag", 4, (*worker).deleteTag},
	{"delete a manifest", 4, (*worker).deleteManifest},
	{"delete a blob that is needed", 2, (*worker).deleteNeeded},
	{"push a blob for nothing", 3, (*worker).pushOrphan},
	{"end an upload", 3, (*worker).endUpload},
	{"abandon an upload", 2, (*worker).abandonUpload},
	{"break off a chunk", 3, (*worker).breakChunk},
	{"push under a wrong digest", 1, (*worker).wrongDigest},
	{"list tags", 4, (*worker).listTags},
	{"list referrers", 4, (*worker).listReferrers},
	{"ask for what is gone", 3, (*worker).askGone},
}

// work does operations at the rate that is its share.
func (w *worker) work(ctx context.Context, began, end time.Time) error {
	total := 0
	for _, op := range operations {
		total += op.weight
	}
	each := time.Duration(float64(time.Second) * float64(w.o.workers) / w.o.rate)
	for next := began.Add(time.Duration(w.rand.Int64N(int64(each)))); next.Before(end); next = next.Add(each) {
		if late := time.Since(next); late > time.Second {
			next = next.Add(late) // what could not be done in time is left out
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Until(next)):
		}
		if time.Now().After(end) {
			return nil
		}
		op := operations[0]
		pick := w.rand.IntN(total)
		for _, op = range operations {
			if pick -= op.weight; pick < 0 {
				break
			}
		}
		r := w.repos[w.rand.IntN(len(w.repos))]
		if len(r.order) > w.o.images/(w.o.workers*reposEach) && w.rand.IntN(2) == 0 {
			op = operation{"delete a manifest, as there are many", 0, (*worker).deleteManifest}
		}
		w.doing = op.name + " in " + r.name
		if err := op.do(w, ctx, r); err != nil {
			return err
		}
		w.ops.Add(1)
	}
	return nil
}

// newLayer returns one that all share, or one of its own.
func (w *worker) newLayer() layer {
	if w.rand.IntN(3) > 0 {
		return w.layers.shared[w.rand.IntN(sharedLayers)]
	}
	w.fresh++
	return w.layers.make(w.fresh)
}

func (w *worker) pushImage(ctx context.Context, r *repository) error {
	return w.putImage(ctx, r, nil)
}

func (w *worker) pushReferrer(ctx context.Context, r *repository) error {
	doc := w.any(r)
	if doc == nil {
		return nil
	}
	return w.putImage(ctx, r, &doc.desc)
}

// putImage pushes blobs and then a manifest, of which there is no other.
func (w *worker) putImage(ctx context.Context, r *repository, subject *ocispec.Descriptor) error {
	w.counter++
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Subject: subject,
		Annotations: map[string]string{"example.number": fmt.Sprintf("%d/%d/%d", w.o.seed, w.id, w.counter)}}
	if subject != nil {
		m.ArtifactType = "application/vnd.example." + []string{"signature", "sbom", "attestation"}[w.rand.IntN(3)]
	}
	doc := &document{}
	for i := range 1 + 1 + w.rand.IntN(3) {
		l := w.newLayer()
		if slices.ContainsFunc(doc.blobs, func(d ocispec.Descriptor) bool { return d.Digest == l.Digest }) {
			continue
		}
		if err := w.ensure(ctx, r, l); err != nil {
			return err
		}
		doc.blobs = append(doc.blobs, l.Descriptor)
		if i == 0 {
			m.Config = l.Descriptor
			m.Config.MediaType = ocispec.MediaTypeImageConfig
		} else {
			m.Layers = append(m.Layers, l.Descriptor)
		}
	}
	if len(m.Layers) == 0 {
		m.Layers = []ocispec.Descriptor{doc.blobs[0]}
	}
	if subject != nil {
		doc.subject = subject.Digest
	}
	return w.put(ctx, r, doc, m.MediaType, m)
}

func (w *worker) pushIndex(ctx context.Context, r *repository) error {
	w.counter++
	x := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex,
		Annotations: map[string]string{"example.number": fmt.Sprintf("%d/%d/%d", w.o.seed, w.id, w.counter)}}
	doc := &document{}
	for range 1 + w.rand.IntN(3) {
		child := w.any(r)
		if child == nil {
			return nil
		}
		x.Manifests = append(x.Manifests, child.desc)
		doc.children = append(doc.children, child.desc.Digest)
	}
	return w.put(ctx, r, doc, x.MediaType, x)
}

// put pushes a manifest, by tag or by digest.
func (w *worker) put(ctx context.Context, r *repository, doc *document, mediaType string, v any) (err error) {
	if doc.raw, err = json.Marshal(v); err != nil {
		return err
	}
	doc.desc = ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(doc.raw), Size: int64(len(doc.raw))}
	ref, tag := string(doc.desc.Digest), ""
	if doc.subject == "" && w.rand.IntN(4) > 0 {
		tag = w.newTag()
		ref = tag
	}
	a, err := w.do(ctx, "PUT", manifestOf(r, ref), contentType(mediaType), doc.raw, http.StatusCreated)
	if err != nil {
		return err
	}
	if got := a.header.Get("Docker-Content-Digest"); got != string(doc.desc.Digest) {
		return fmt.Errorf("%s was pushed, the answer is about %q", doc.desc.Digest, got)
	}
	r.manifests[doc.desc.Digest] = doc
	r.order = append(r.order, doc.desc.Digest)
	if tag != "" {
		r.tags[tag] = doc.desc.Digest
	}
	w.all.count(doc, 1)
	return nil
}

func (w *worker) newTag() string { return "v" + strconv.Itoa(w.rand.IntN(30)) }

func manifestOf(r *repository, ref string) string { return "/v2/" + r.name + "/manifests/" + ref }
func blobOf(r *repository, d digest.Digest) string {
	return "/v2/" + r.name + "/blobs/" + string(d)
}

// any returns a manifest of r, if there is one.
func (w *worker) any(r *repository) *document {
	if len(r.order) == 0 {
		return nil
	}
	return r.manifests[r.order[w.rand.IntN(len(r.order))]]
}

// anyTag returns a tag of r, if there is one.
func (w *worker) anyTag(r *repository) string {
	tags := slices.Sorted(maps.Keys(r.tags))
	if len(tags) == 0 {
		return ""
	}
	return tags[w.rand.IntN(len(tags))]
}

func (w *worker) moveTag(ctx context.Context, r *repository) error {
	doc := w.any(r)
	if doc == nil {
		return nil
	}
	tag := w.newTag()
	_, err := w.do(ctx, "PUT", manifestOf(r, tag), contentType(doc.desc.MediaType), doc.raw, http.StatusCreated)
	if err == nil {
		r.tags[tag] = doc.desc.Digest
	}
	return err
}

func (w *worker) deleteTag(ctx context.Context, r *repository) error {
	tag := w.anyTag(r)
	if tag == "" {
		return nil
	}
	if _, err := w.do(ctx, "DELETE", manifestOf(r, tag), nil, nil, http.StatusAccepted); err != nil {
		return err
	}
	delete(r.tags, tag)
	_, err := w.do(ctx, "GET", manifestOf(r, tag), nil, nil, http.StatusNotFound)
	return err
}

// deleteManifest also tries it with what an index lists, which is refused.
func (w *worker) deleteManifest(ctx context.Context, r *repository) error {
	doc := w.any(r)
	if doc == nil {
		return nil
	}
	dgst, want := doc.desc.Digest, http.StatusAccepted
	if r.listed(dgst) {
		want = http.StatusMethodNotAllowed
	}
	if _, err := w.do(ctx, "DELETE", manifestOf(r, string(dgst)), nil, nil, want); err != nil || want != http.StatusAccepted {
		return err
	}
	delete(r.manifests, dgst)
	r.order = slices.DeleteFunc(r.order, func(d digest.Digest) bool { return d == dgst })
	maps.DeleteFunc(r.tags, func(_ string, d digest.Digest) bool { return d == dgst })
	if r.gone = append(r.gone, dgst); len(r.gone) > 50 {
		r.gone = r.gone[1:]
	}
	w.all.count(doc, -1)
	return nil
}

func (w *worker) deleteNeeded(ctx context.Context, r *repository) error {
	doc := w.any(r)
	if doc == nil || len(doc.blobs) == 0 {
		return nil
	}
	_, err := w.do(ctx, "DELETE", blobOf(r, doc.blobs[0].Digest), nil, nil, http.StatusMethodNotAllowed)
	return err
}

func (w *worker) askGone(ctx context.Context, r *repository) error {
	if len(r.gone) == 0 {
		return nil
	}
	_, err := w.do(ctx, "GET", manifestOf(r, string(r.gone[w.rand.IntN(len(r.gone))])), nil, nil, http.StatusNotFound)
	return err
}

func (w *worker) pull(ctx context.Context, r *repository) error {
	doc, ref := w.any(r), ""
	if tag := w.anyTag(r); tag != "" && w.rand.IntN(2) == 0 {
		doc, ref = r.manifests[r.tags[tag]], tag
	}
	if doc == nil {
		return nil
	}
	if ref == "" {
		ref = string(doc.desc.Digest)
	}
	return w.check(ctx, r, doc, ref)
}

// check pulls a manifest and its blobs, and compares.
func (w *worker) check(ctx context.Context, r *repository, doc *document, ref string) error {
	a, err := w.do(ctx, "GET", manifestOf(r, ref), nil, nil, http.StatusOK)
	if err != nil {
		return err
	}
	if string(a.body) != string(doc.raw) || a.header.Get("Content-Type") != doc.desc.MediaType {
		return fmt.Errorf("%s is %s, want %s", ref, digest.FromBytes(a.body), doc.desc.Digest)
	}
	for _, b := range doc.blobs {
		if err := w.checkBlob(ctx, r, b); err != nil {
			return fmt.Errorf("of %s: %w", doc.desc.Digest, err)
		}
	}
	return nil
}

func (w *worker) checkBlob(ctx context.Context, r *repository, b ocispec.Descriptor) error {
	if w.rand.IntN(4) == 0 {
		first := w.rand.Int64N(b.Size)
		last := first + w.rand.Int64N(b.Size-first)
		a, err := w.do(ctx, "GET", blobOf(r, b.Digest), http.Header{"Range": {fmt.Sprintf("bytes=%d-%d", first, last)}}, nil, http.StatusPartialContent)
		if err == nil && int64(len(a.body)) != last-first+1 {
			err = fmt.Errorf("bytes %d to %d of %s are %d bytes", first, last, b.Digest, len(a.body))
		}
		return err
	}
	a, err := w.do(ctx, "GET", blobOf(r, b.Digest), nil, nil, http.StatusOK)
	if err == nil && digest.FromBytes(a.body) != b.Digest {
		err = fmt.Errorf("%s has %d bytes with another digest", b.Digest, len(a.body))
	}
	return err
}

func (w *worker) listTags(ctx context.Context, r *repository) error {
	uri := "/v2/" + r.name + "/tags/list"
	if len(r.manifests) == 0 {
		_, err := w.do(ctx, "GET", uri, nil, nil, http.StatusNotFound)
		return err
	}
	if w.rand.IntN(2) == 0 {
		uri = with(uri, "n", strconv.Itoa(1+w.rand.IntN(10)))
	}
	var got []string
	err := w.pages(ctx, uri, func(body []byte) error {
		var page struct{ Tags []string }
		err := json.Unmarshal(body, &page)
		got = append(got, page.Tags...)
		return err
	})
	if want := slices.Sorted(maps.Keys(r.tags)); err == nil && !slices.Equal(got, want) {
		err = fmt.Errorf("tags are %q, want %q", got, want)
	}
	return err
}

func (w *worker) listReferrers(ctx context.Context, r *repository) error {
	doc := w.any(r)
	if doc == nil {
		return nil
	}
	return w.checkReferrers(ctx, r, doc.desc.Digest)
}

func (w *worker) checkReferrers(ctx context.Context, r *repository, subject digest.Digest) error {
	uri := "/v2/" + r.name + "/referrers/" + string(subject)
	if w.rand.IntN(2) == 0 {
		uri = with(uri, "n", strconv.Itoa(1+w.rand.IntN(3)))
	}
	var got, want []digest.Digest
	err := w.pages(ctx, uri, func(body []byte) error {
		var page ocispec.Index
		err := json.Unmarshal(body, &page)
		for _, d := range page.Manifests {
			got = append(got, d.Digest)
		}
		return err
	})
	for d, doc := range r.manifests {
		if doc.subject == subject {
			want = append(want, d)
		}
	}
	slices.Sort(want)
	if err == nil && !slices.Equal(got, want) {
		err = fmt.Errorf("referrers of %s are %q, want %q", subject, got, want)
	}
	return err
}

// verify pulls all that is alive, and asks for some that is not.
func (w *worker) verify(ctx context.Context) error {
	for _, r := range w.repos {
		w.doing = "the last look at " + r.name
		for _, dgst := range r.order {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err := w.check(ctx, r, r.manifests[dgst], string(dgst)); err != nil {
				return err
			}
			if err := w.checkReferrers(ctx, r, dgst); err != nil {
				return err
			}
		}
		for tag, dgst := range r.tags {
			if err := w.check(ctx, r, r.manifests[dgst], tag); err != nil {
				return err
			}
		}
		for _, dgst := range r.gone {
			if _, err := w.do(ctx, "GET", manifestOf(r, string(dgst)), nil, nil, http.StatusNotFound); err != nil {
				return err
			}
		}
		if err := w.listTags(ctx, r); err != nil {
			return err
		}
	}
	return nil
}
