package wharfage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/manifest"
)

func (h *Handler) getManifest(w http.ResponseWriter, r *http.Request, rt route) error {
	rec, err := h.find(r.Context(), rt, h.Manifests.Get)
	if err == nil {
		err = h.hidden(rt, &rec)
	}
	if err != nil {
		return err
	}
	if h.OnPull != nil {
		h.OnPull(r, rt.repo, rec.Desc.Digest)
	}
	if isDigest(rt.ref) && !rec.PushedAt.IsZero() {
		w.Header()["Last-Modified"] = []string{rec.PushedAt.UTC().Format(http.TimeFormat)}
	}
	if h.manifestHead(w, r, rec.Desc) {
		w.Write(rec.Raw)
	}
	return nil
}

// headManifest does not fetch the content: clients poll tags.
func (h *Handler) headManifest(w http.ResponseWriter, r *http.Request, rt route) error {
	rec, err := h.find(r.Context(), rt, h.describe)
	if err == nil {
		err = h.hidden(rt, &rec)
	}
	if err != nil {
		return err
	}
	h.manifestHead(w, r, rec.Desc)
	return nil
}

// describe returns what the headers of a manifest tell, and its storage class if
// that matters.
func (h *Handler) describe(ctx context.Context, repo string, dgst digest.Digest) (rec manifest.Record, err error) {
	if h.HideArchived {
		recs, err := manifest.Describe(ctx, h.Manifests, repo, []digest.Digest{dgst})
		if err != nil {
			return rec, err
		}
		rec = recs[0]
	} else {
		descs, err := manifest.Stat(ctx, h.Manifests, repo, []digest.Digest{dgst})
		if err != nil {
			return rec, err
		}
		rec.Desc = descs[0]
	}
	if rec.Desc.Digest == "" {
		return rec, &manifest.Error{Op: "find", Repo: repo, Object: string(dgst), Err: manifest.ErrNotFound}
	}
	return rec, nil
}

// hidden says why clients may not see a manifest.
func (h *Handler) hidden(rt route, rec *manifest.Record) error {
	if !h.HideArchived || rec.StorageClass != manifest.Archive {
		return nil
	}
	return &manifest.Error{Op: "find", Repo: rt.repo, Object: quote(rt.ref), Err: fmt.Errorf("%w: it is in the archive, and a push of it restores it", manifest.ErrNotFound)}
}

// manifestHead answers with the headers of a manifest, and tells whether its
// content is to follow.
func (h *Handler) manifestHead(w http.ResponseWriter, r *http.Request, desc ocispec.Descriptor) bool {
	if matchesETag(r.Header["If-None-Match"], desc.Digest) {
		setContent(w, "", desc.Digest)
		w.WriteHeader(http.StatusNotModified)
		return false
	}
	// The stored type, whatever Accept says: peers that answer 404 instead break
	// clients with a short list, and the specification has no rule.
	setContent(w, desc.MediaType, desc.Digest)
	setLength(w, desc.Size)
	w.WriteHeader(http.StatusOK)
	return true
}

// find gets the manifest that a path names.
func (h *Handler) find(ctx context.Context, rt route, get func(context.Context, string, digest.Digest) (manifest.Record, error)) (manifest.Record, error) {
	if isDigest(rt.ref) {
		dgst, err := checkDigest(rt.ref)
		if err != nil {
			return manifest.Record{}, err
		}
		return get(ctx, rt.repo, dgst)
	}
	if manifest.CheckTag(rt.ref) != nil {
		return manifest.Record{}, noSuchTag(rt)
	}
	for range 3 {
		tag, err := h.Manifests.Resolve(ctx, rt.repo, rt.ref)
		if err != nil {
			return manifest.Record{}, err
		}
		rec, err := get(ctx, rt.repo, tag.Digest)
		if !manifest.IsNotFound(err) {
			return rec, err
		}
		// Deleted since: the tag went along, or is elsewhere by now.
	}
	return manifest.Record{}, noSuchTag(rt)
}

// noSuchTag also answers for what is no tag at all, which is how the
// conformance suite of version 1.1.1 asks for a manifest that is not there.
func noSuchTag(rt route) error {
	return &manifest.Error{Op: "find", Repo: rt.repo, Object: quote(rt.ref), Err: manifest.ErrNotFound}
}

func (h *Handler) putManifest(w http.ResponseWriter, r *http.Request, rt route) error {
	p := h.pusher()
	if h.Repositories != nil {
		alsoAsk(p, rt.mutability.MoveTag)
	}
	in := manifest.PushRequest{MediaType: r.Header.Get("Content-Type")}
	in.Cause, in.Via = h.cause(r)
	tags := rt.query["tag"]
	limit := h.Limits.Tags
	if limit == 0 {
		limit = defaultTags
	}
	switch {
	case !isDigest(rt.ref):
		if len(tags) > 0 {
			return badRequest(codeUnsupported, "the parameter tag goes with a push by digest")
		}
		in.Tags = []string{rt.ref}
	case len(tags) > limit:
		return &statusError{http.StatusRequestURITooLong, codeUnsupported, fmt.Sprintf("%d tags in one push, the limit is %d", len(tags), limit)}
	default:
		dgst, err := checkDigest(rt.ref)
		if err != nil {
			return err
		}
		in.Digest, in.Tags = dgst, tags
	}
	for _, tag := range in.Tags { // Push looks too, after what is asked about them here
		if err := manifest.CheckTag(tag); err != nil {
			return err
		}
	}
	var err error
	if in.From, err = h.condition(r, rt); err != nil {
		return err
	}
	if in.Raw, err = readManifest(r, p.MaxSize); err != nil {
		return err
	}
	if err = h.checkQuotas(r.Context(), rt.repo, &in); err != nil {
		return err
	}
	if err = h.authorizePush(r, rt.repo, p, &in); err != nil {
		return err
	}
	done, err := p.Push(r.Context(), rt.repo, in)
	if err != nil {
		if in.From == "" && errors.Is(err, manifest.ErrConflict) {
			return &statusError{http.StatusConflict, codeDenied, err.Error()} // more racing writers than anybody waits for
		}
		return err
	}
	head, dgst := w.Header(), string(done.Record.Desc.Digest)
	head["Location"] = []string{"/v2/" + rt.repo + "/manifests/" + dgst}
	head["Docker-Content-Digest"] = []string{dgst}
	if s := done.Record.Subject; s != "" {
		head["Oci-Subject"] = []string{string(s)}
	}
	if in.Digest != "" && len(done.Tags) > 0 {
		head["Oci-Tag"] = done.Tags
	}
	if len(done.Manifest.Warnings) > 0 {
		texts := make([]string, len(done.Manifest.Warnings))
		for i, f := range done.Manifest.Warnings {
			texts[i] = f.String()
		}
		warn(w, texts)
	}
	w.WriteHeader(http.StatusCreated)
	return nil
}

func (h *Handler) pusher() *manifest.Pusher {
	p := h.Pusher
	if p.Store == nil {
		p.Store = h.Manifests
	}
	if p.BlobSizes == nil {
		p.BlobSizes = h.blobSizes
	}
	p.Now, p.OnCommit = h.now, h.committed
	return &p
}

func (h *Handler) blobSizes(ctx context.Context, repo string, dgsts []digest.Digest) ([]int64, error) {
	infos, err := h.Blobs.Stat(ctx, repo, dgsts)
	if err != nil {
		return nil, err
	}
	sizes := make([]int64, len(infos))
	for i, info := range infos {
		sizes[i] = info.Size
		if info.Digest == "" {
			sizes[i] = -1
		}
	}
	return sizes, nil
}

// condition reads If-Match and If-None-Match, which make a change of a tag a
// compare-and-swap (RFC 9110 section 13.1). For a manifest named by its digest,
// which never changes, they are judged here.
func (h *Handler) condition(r *http.Request, rt route) (digest.Digest, error) {
	match, noneMatch := r.Header.Get("If-Match"), r.Header.Get("If-None-Match")
	if match == "" && noneMatch == "" {
		return "", nil
	}
	var from digest.Digest
	switch {
	case noneMatch == "*" && match == "":
		from = manifest.Absent
	case noneMatch != "":
		return "", badRequest(codeUnsupported, "If-None-Match takes * here, and does not go with If-Match")
	default:
		d, _ := strings.CutPrefix(match, `"`)
		d, _ = strings.CutSuffix(d, `"`)
		if from = digest.Digest(d); match != "*" && (match != etag(from) || manifest.CheckContentDigest(d) != nil) {
			return "", badRequest(codeUnsupported, "If-Match takes * or one ETag of a manifest here")
		}
	}
	if match != "*" && !isDigest(rt.ref) {
		return from, nil
	}
	rec, err := h.find(r.Context(), rt, h.describe)
	have := rec.Desc.Digest
	switch {
	case manifest.IsNotFound(err):
		have = manifest.Absent
	case err != nil:
		return "", err
	}
	if from != have && (match != "*" || have == manifest.Absent) {
		return "", &manifest.ConflictError{Tag: rt.ref, Want: from, Have: have}
	}
	if isDigest(rt.ref) {
		return "", nil
	}
	return have, nil
}

// readManifest reads the body of r, if it is within the limit.
func readManifest(r *http.Request, limit int64) ([]byte, error) {
	if limit <= 0 || limit > manifest.MaxSize {
		limit = manifest.MaxSize
	}
	tooLarge := &http.MaxBytesError{Limit: limit}
	if r.ContentLength > limit {
		return nil, tooLarge
	}
	var b bytes.Buffer
	const trusted = 64 << 10 // a length that is taken at its word
	b.Grow(int(min(max(r.ContentLength, 0), trusted)) + bytes.MinRead)
	if _, err := b.ReadFrom(io.LimitReader(body{r.Body, codeManifestInvalid}, limit+1)); err != nil {
		return nil, err
	}
	if int64(b.Len()) > limit {
		return nil, tooLarge
	}
	return b.Bytes(), nil
}

func (h *Handler) deleteManifest(w http.ResponseWriter, r *http.Request, rt route) error {
	d := h.Deleter
	if d.Store == nil {
		d.Store = h.Manifests
	}
	d.Cause, _ = h.cause(r)
	d.Now, d.OnCommit = h.now, h.committed
	switch {
	case isDigest(rt.ref):
		if _, err := checkDigest(rt.ref); err != nil {
			return err
		}
	case manifest.CheckTag(rt.ref) != nil:
		return noSuchTag(rt)
	}
	from, err := h.condition(r, rt)
	if err == nil {
		err = h.authorizeDelete(r, rt, &d)
	}
	if err != nil {
		return err
	}
	if isDigest(rt.ref) {
		_, err = d.Delete(r.Context(), rt.repo, manifest.ImageID{Digest: digest.Digest(rt.ref)})
	} else {
		err = d.Untag(r.Context(), rt.repo, rt.ref, from)
	}
	if denied, ok := errors.AsType[*AuthError](err); ok {
		return denied
	}
	if errors.Is(err, manifest.ErrRefused) || errors.Is(err, manifest.ErrConflict) && isDigest(rt.ref) {
		return notAllowed(w, rt, err.Error())
	}
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusAccepted)
	return nil
}
