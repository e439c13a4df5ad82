package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/referrers"
	"github.com/wharfage/wharfage/replication"
)

// Manifests are those of a registry, with their tags and referrers. See
// [Registry.Source] and [Registry.Target].
type Manifests struct {
	r    *Registry
	push bool
}

var (
	_ replication.ManifestReader = (*Manifests)(nil)
	_ replication.ManifestWriter = (*Manifests)(nil)
	_ replication.Remover        = (*Manifests)(nil)
	_ manifest.Stater            = (*Manifests)(nil)
	_ manifest.Catalog           = (*Manifests)(nil)
	_ referrers.Index            = (*Manifests)(nil)
)

func (m *Manifests) request(method, repo, ref string) request {
	q := of(method, repo, "manifests/", ref, actions(m.push)...)
	q.header = http.Header{"Accept": {strings.Join(append(manifest.DefaultAccept(), manifest.MediaTypeOCIArtifact, "*/*"), ", ")}}
	return q
}

// Get implements [manifest.Reader], verified. A document that is refused, or has another
// type than the registry says, is replication.ErrContent. PushedAt is the Last-Modified
// of the answer, where there is one.
func (m *Manifests) Get(ctx context.Context, repo string, dgst digest.Digest) (manifest.Record, error) {
	rec, _, err := m.get(ctx, repo, string(dgst), dgst)
	return rec, manifestError("get", repo, string(dgst), err)
}

// get reads what ref names, which is to be dgst if that is not "".
func (m *Manifests) get(ctx context.Context, repo, ref string, dgst digest.Digest) (manifest.Record, http.Header, error) {
	raw, resp, err := m.r.read(ctx, m.request(http.MethodGet, repo, ref), manifest.MaxSize, http.StatusOK)
	if err != nil {
		return manifest.Record{}, nil, notFound(err, manifest.ErrNotFound)
	}
	if dgst == "" {
		if dgst = claimed(resp); dgst == "" {
			dgst = manifest.Digest(digest.SHA256, raw)
		}
	} else if err := sameDigest(resp, dgst); err != nil {
		return manifest.Record{}, nil, err
	}
	if got := manifest.Digest(dgst.Algorithm(), raw); got != dgst {
		return manifest.Record{}, nil, fmt.Errorf("%w: %w: it has %s", replication.ErrContent, manifest.ErrDigest, got)
	}
	typ, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
	switch strings.TrimSpace(typ) { // what servers say that do not know
	case "application/octet-stream", "application/json", "text/plain":
		typ = ""
	}
	doc, err := manifest.Parse(typ, raw)
	if err != nil {
		return manifest.Record{}, nil, fmt.Errorf("%w: %w", replication.ErrContent, err)
	}
	rec := doc.Record(dgst, raw)
	if at, err := http.ParseTime(resp.Header.Get("Last-Modified")); err == nil {
		rec.PushedAt = at
	}
	return rec, resp.Header, nil
}

// claimed is the digest that an answer says it has; "" if it says none.
func claimed(resp *http.Response) digest.Digest {
	if d := resp.Header.Get("Docker-Content-Digest"); manifest.CheckContentDigest(d) == nil {
		return digest.Digest(d)
	}
	return ""
}

// Resolve implements [manifest.Reader]: by HEAD, or by GET where that is refused or names
// no digest. When the tag moved stays unknown.
func (m *Manifests) Resolve(ctx context.Context, repo, tag string) (manifest.Tag, error) {
	d, _, err := m.resolve(ctx, repo, tag)
	return manifest.Tag{Name: tag, Digest: d}, manifestError("resolve", repo, tag, err)
}

func (m *Manifests) resolve(ctx context.Context, repo, tag string) (digest.Digest, http.Header, error) {
	if m.r.digestOfHead.Load() != no {
		resp, err := m.r.done(ctx, m.request(http.MethodHead, repo, tag), http.StatusOK)
		e, isStatus := errors.AsType[*StatusError](err)
		switch {
		case err == nil && claimed(resp) != "":
			return claimed(resp), resp.Header, nil
		case err == nil || isStatus && (e.Status == http.StatusMethodNotAllowed || e.Status == http.StatusNotImplemented || e.Status == http.StatusBadRequest):
			m.r.digestOfHead.Store(no)
		default:
			return "", nil, notFound(err, manifest.ErrNotFound)
		}
	}
	rec, head, err := m.get(ctx, repo, tag, "")
	return rec.Desc.Digest, head, err
}

// Stat implements [manifest.Stater] with a HEAD for each digest. It does not tell
// ArtifactType, which only the document has.
func (m *Manifests) Stat(ctx context.Context, repo string, dgsts []digest.Digest) ([]ocispec.Descriptor, error) {
	out := make([]ocispec.Descriptor, len(dgsts))
	err := each(ctx, dgsts, func(ctx context.Context, i int, d digest.Digest) error {
		resp, err := m.r.done(ctx, m.request(http.MethodHead, repo, string(d)), http.StatusOK, http.StatusNotFound)
		if err == nil {
			err = sameDigest(resp, d)
		}
		if err == nil && resp.StatusCode == http.StatusOK {
			typ, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
			out[i] = ocispec.Descriptor{MediaType: strings.TrimSpace(typ), Digest: d, Size: resp.ContentLength}
		}
		return manifestError("stat", repo, string(d), err)
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// Push implements [replication.ManifestWriter]. From is looked at before, and is a
// condition of the request (If-Match) that some registries ignore; New is ignored. Where
// a registry does not say that it lists a referrer, the list under the fallback tag is
// written too.
func (m *Manifests) Push(ctx context.Context, repo string, in manifest.PushRequest) (manifest.Pushed, error) {
	done, err := m.pushAll(ctx, repo, in)
	if err != nil {
		object := string(in.Digest)
		if len(in.Tags) > 0 {
			object = in.Tags[0]
		}
		return manifest.Pushed{}, manifestError("push", repo, object, err)
	}
	return done, nil
}

func (m *Manifests) pushAll(ctx context.Context, repo string, in manifest.PushRequest) (manifest.Pushed, error) {
	doc, err := manifest.Parse(in.MediaType, in.Raw)
	if err != nil {
		return manifest.Pushed{}, err
	}
	if in.Digest == "" {
		in.Digest = manifest.Digest(digest.SHA256, in.Raw)
	} else if manifest.CheckContentDigest(string(in.Digest)) != nil || manifest.Digest(in.Digest.Algorithm(), in.Raw) != in.Digest {
		return manifest.Pushed{}, manifest.ErrDigest
	}
	done := manifest.Pushed{Record: doc.Record(in.Digest, in.Raw), Manifest: doc, Tags: slices.Compact(slices.Sorted(slices.Values(in.Tags)))}
	var listed bool
	switch {
	case len(done.Tags) == 0:
		listed, _, err = m.put(ctx, repo, string(in.Digest), done, nil)
	case in.From == "" && (len(done.Tags) > 1 || in.Digest.Algorithm() != digest.SHA256) && m.r.tagParameter.Load() != no:
		var tagged []string
		listed, tagged, err = m.put(ctx, repo, string(in.Digest)+"?"+url.Values{"tag": done.Tags}.Encode(), done, nil)
		left := slices.DeleteFunc(slices.Clone(done.Tags), func(tag string) bool { return slices.Contains(tagged, tag) })
		if err == nil && len(tagged) == 0 {
			m.r.tagParameter.Store(no)
		}
		for _, tag := range left {
			if err == nil {
				_, _, err = m.put(ctx, repo, tag, done, nil)
			}
		}
	default:
		for _, tag := range done.Tags {
			var head http.Header
			if head, err = m.condition(ctx, repo, tag, in.From); err == nil {
				listed, _, err = m.put(ctx, repo, tag, done, head)
			}
			if err != nil {
				break
			}
		}
	}
	if err == nil && done.Record.Subject != "" && !listed {
		err = m.list(ctx, repo, done.Record.Subject, func(s *referrers.TagSchema) error {
			return s.Add(ctx, repo, done.Record.Subject, done.Record.Desc)
		})
	}
	return done, err
}

// put sends a document. It tells whether the registry lists it as a referrer, and which
// tags of a query it has set.
func (m *Manifests) put(ctx context.Context, repo, ref string, in manifest.Pushed, head http.Header) (listed bool, tagged []string, err error) {
	q := of(http.MethodPut, repo, "manifests/", ref, auth.ActionPull, auth.ActionPush)
	if q.header = head.Clone(); q.header == nil {
		q.header = http.Header{}
	}
	q.header.Set("Content-Type", in.Record.Desc.MediaType)
	q.size = int64(len(in.Record.Raw))
	q.open = func(context.Context) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(in.Record.Raw)), nil }
	resp, err := m.r.done(ctx, q, http.StatusCreated, http.StatusOK, http.StatusAccepted)
	if e, ok := errors.AsType[*StatusError](err); ok && (e.Code == "BLOB_UNKNOWN" || e.Code == "MANIFEST_UNKNOWN") {
		return false, nil, fmt.Errorf("%w: %w", manifest.ErrMissing, err)
	}
	if err != nil {
		return false, nil, err
	}
	for _, v := range resp.Header["Oci-Tag"] {
		for tag := range strings.SplitSeq(v, ",") {
			tagged = append(tagged, strings.TrimSpace(tag))
		}
	}
	return resp.Header.Get("OCI-Subject") != "", tagged, sameDigest(resp, in.Record.Desc.Digest)
}

// condition returns the headers that make a change of tag depend on what it names now:
// from, Absent, or, with "", anything.
func (m *Manifests) condition(ctx context.Context, repo, tag string, from digest.Digest) (http.Header, error) {
	if from == "" {
		return nil, nil
	}
	have, head, err := m.resolve(ctx, repo, tag)
	if manifest.IsNotFound(err) {
		have, err = manifest.Absent, nil
	}
	if err == nil && have != from {
		err = &manifest.ConflictError{Tag: tag, Want: from, Have: have}
	}
	return ifMatch(have, head), err
}

// ifMatch are the headers of a change of what was there under head.
func ifMatch(have digest.Digest, head http.Header) http.Header {
	etag := head.Get("ETag")
	switch {
	case have == manifest.Absent:
		return http.Header{"If-None-Match": {"*"}}
	case etag != "" && !strings.HasPrefix(etag, "W/"): // If-Match compares strongly
		return http.Header{"If-Match": {etag}}
	}
	return nil
}

// Delete implements [replication.Remover]: by digest. Its tags go if the registry
// removes them, as it should. An id with a Tag is Untag. A referrer is taken off
// the list under the fallback tag where there is no referrers API.
func (m *Manifests) Delete(ctx context.Context, repo string, id manifest.ImageID) ([]manifest.ImageID, error) {
	if id.Tag != "" {
		return []manifest.ImageID{id}, m.Untag(ctx, repo, id.Tag, id.Digest)
	}
	err := m.delete(ctx, repo, id.Digest)
	if err != nil {
		return nil, manifestError("delete", repo, string(id.Digest), err)
	}
	return []manifest.ImageID{id}, nil
}

func (m *Manifests) delete(ctx context.Context, repo string, dgst digest.Digest) error {
	var subject digest.Digest
	if has, err := m.HasReferrers(ctx, repo, dgst); err != nil {
		return err
	} else if !has {
		rec, _, err := m.get(ctx, repo, string(dgst), dgst)
		if err != nil && !errors.Is(err, replication.ErrContent) {
			return err
		}
		subject = rec.Subject
	}
	if err := m.remove(ctx, repo, string(dgst), nil); err != nil || subject == "" {
		return err
	}
	return m.list(ctx, repo, subject, func(s *referrers.TagSchema) error { return s.Remove(ctx, repo, subject, dgst) })
}

// Untag implements [replication.Remover]. From is looked at as for Push.
func (m *Manifests) Untag(ctx context.Context, repo, tag string, from digest.Digest) error {
	head, err := m.condition(ctx, repo, tag, from)
	if err == nil {
		err = m.remove(ctx, repo, tag, head)
	}
	return manifestError("untag", repo, tag, err)
}

func (m *Manifests) remove(ctx context.Context, repo, ref string, head http.Header) error {
	q := of(http.MethodDelete, repo, "manifests/", ref, auth.ActionPull, auth.ActionDelete)
	q.header = head
	_, err := m.r.done(ctx, q, http.StatusAccepted, http.StatusOK, http.StatusNoContent)
	return notFound(err, manifest.ErrNotFound)
}
