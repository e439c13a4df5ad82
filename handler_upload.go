package wharfage

import (
	"errors"
	"io"
	"net/http"
	"strconv"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/manifest"
)

func (h *Handler) postUpload(w http.ResponseWriter, r *http.Request, rt route) error {
	q := rt.query
	if from := q.Get("mount"); from != "" {
		dgst, err := checkDigest(from)
		if err != nil {
			return err
		}
		mounted, err := h.mount(r, rt.repo, q.Get("from"), dgst)
		if err != nil {
			return err
		}
		if mounted {
			blobCreated(w, rt.repo, dgst)
			return nil
		}
	}
	if d := q.Get("digest"); d != "" {
		dgst, err := checkDigest(d)
		if err != nil {
			return err
		}
		if err := blob.Put(r.Context(), h.Blobs, rt.repo, ocispec.Descriptor{Digest: dgst, Size: r.ContentLength}, h.blobBody(r, 0)); err != nil {
			return err
		}
		blobCreated(w, rt.repo, dgst)
		return nil
	}
	alg := digest.SHA256
	if a := q.Get("digest-algorithm"); a != "" {
		if alg = digest.Algorithm(a); alg != digest.SHA256 && alg != digest.SHA512 {
			return badRequest(codeDigestInvalid, "digest-algorithm %s: only sha256 and sha512 can be computed here", quote(a))
		}
	}
	u, err := h.Blobs.Begin(r.Context(), rt.repo, alg)
	if err != nil {
		return err
	}
	uploadStatus(w, u)
	w.WriteHeader(http.StatusAccepted)
	return nil
}

// mount makes dgst of another repository visible in repo. It is false, without a
// reason, when that cannot be: who may not read the source must not learn what
// is there.
func (h *Handler) mount(r *http.Request, repo, from string, dgst digest.Digest) (bool, error) {
	may := func(from string) bool {
		return h.Authorize == nil || h.denied(r, h.Authorize(r, from, ActionPull)) == nil
	}
	var err error
	switch {
	case from == "":
		err = blob.MountAny(r.Context(), h.Blobs, repo, dgst, may)
	case manifest.CheckRepository(from) != nil || !may(from):
		return false, nil
	default:
		err = blob.Mount(r.Context(), h.Blobs, from, repo, dgst)
	}
	switch {
	case errors.Is(err, blob.ErrNotFound):
		return false, nil
	case errors.Is(err, blob.ErrDigest), errors.Is(err, blob.ErrSize): // the source is damaged, which an upload mends
		h.tell(r, err)
		return false, nil
	}
	return err == nil, err
}

// blobBody returns the body of r, up to what the limit leaves to a blob that has
// so many bytes already.
func (h *Handler) blobBody(r *http.Request, have int64) io.Reader {
	if h.Limits.BlobSize > 0 {
		return body{&atMost{r.Body, max(h.Limits.BlobSize-have, 0), h.Limits.BlobSize}, codeUploadInvalid}
	}
	return body{r.Body, codeUploadInvalid}
}

// atMost is a reader that fails when r has more than left bytes.
type atMost struct {
	r           io.Reader
	left, limit int64
}

func (a *atMost) Read(p []byte) (int, error) {
	n, err := a.r.Read(p)
	if a.left -= int64(n); a.left < 0 {
		return 0, &http.MaxBytesError{Limit: a.limit}
	}
	return n, err
}

func (h *Handler) getUpload(w http.ResponseWriter, r *http.Request, rt route) error {
	u, err := h.Blobs.Lookup(r.Context(), rt.repo, rt.ref)
	if err != nil {
		return err
	}
	uploadStatus(w, u)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (h *Handler) deleteUpload(w http.ResponseWriter, r *http.Request, rt route) error {
	for range 3 {
		u, err := h.Blobs.Lookup(r.Context(), rt.repo, rt.ref)
		if err != nil {
			return err
		}
		err = h.Blobs.Abort(r.Context(), u)
		if err == nil {
			w.WriteHeader(http.StatusNoContent)
			return nil
		}
		if !errors.Is(err, blob.ErrConflict) {
			return err
		}
	}
	return &statusError{http.StatusConflict, codeUploadInvalid, "somebody keeps adding to the upload"}
}

func (h *Handler) patchUpload(w http.ResponseWriter, r *http.Request, rt route) error {
	u, err := h.Blobs.Lookup(r.Context(), rt.repo, rt.ref)
	if err != nil {
		return err
	}
	start, chunk, err := h.chunk(r, u)
	if err != nil {
		return h.chunkFailed(w, r, rt, err)
	}
	u, err = blob.Append(r.Context(), h.Blobs, u, start, chunk)
	if err != nil {
		return h.chunkFailed(w, r, rt, err)
	}
	uploadStatus(w, u)
	w.WriteHeader(http.StatusAccepted)
	return nil
}

func (h *Handler) putUpload(w http.ResponseWriter, r *http.Request, rt route) error {
	dgst, err := checkDigest(rt.query.Get("digest"))
	if err != nil {
		return err
	}
	u, err := h.Blobs.Lookup(r.Context(), rt.repo, rt.ref)
	if err != nil {
		return err
	}
	start, chunk, err := h.chunk(r, u)
	if err != nil {
		return h.chunkFailed(w, r, rt, err)
	}
	if u.Size == 0 { // the whole blob in one request, which a store takes with the least work
		if err = blob.Put(r.Context(), h.Blobs, rt.repo, ocispec.Descriptor{Digest: dgst, Size: r.ContentLength}, chunk); err == nil {
			// The blob is here, whatever becomes of the upload: if somebody has added
			// to it meanwhile, it stays theirs.
			err := h.Blobs.Abort(r.Context(), u)
			if err != nil && !errors.Is(err, blob.ErrUploadNotFound) && !errors.Is(err, blob.ErrConflict) {
				h.tell(r, err)
			}
		}
	} else {
		if r.ContentLength == 0 {
			chunk = nil
		}
		err = blob.Finish(r.Context(), h.Blobs, u, start, chunk, dgst)
	}
	if err != nil {
		return h.chunkFailed(w, r, rt, err)
	}
	blobCreated(w, rt.repo, dgst)
	return nil
}

// chunk checks what a request says of its body, and returns where it begins, -1
// for "at the end", and a reader that fails unless it is as long as the request
// says.
func (h *Handler) chunk(r *http.Request, u blob.Upload) (start int64, content io.Reader, err error) {
	content = h.blobBody(r, u.Size)
	if h.Limits.BlobSize > 0 && u.Size > h.Limits.BlobSize-max(r.ContentLength, 0) {
		return 0, nil, &http.MaxBytesError{Limit: h.Limits.BlobSize}
	}
	v := r.Header.Get("Content-Range")
	if v == "" {
		return -1, content, nil
	}
	first, last, ok := parseContentRange(v)
	if !ok {
		return 0, nil, badRequest(codeUploadInvalid, "Content-Range %s is to be the first and the last byte, as in 0-1023", quote(v))
	}
	size := last - first + 1
	if r.ContentLength >= 0 && r.ContentLength != size {
		return 0, nil, badRequest(codeSizeInvalid, "Content-Range %s is of %d bytes, the body of %d", v, size, r.ContentLength)
	}
	if first != u.Size {
		return 0, nil, &blob.OffsetError{Size: u.Size, Start: first}
	}
	return first, &exactly{content, size}, nil
}

// exactly is a reader that fails unless r ends after n bytes.
type exactly struct {
	r io.Reader
	n int64
}

func (e *exactly) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	if e.n -= int64(n); e.n < 0 || err == io.EOF && e.n > 0 {
		return n, badRequest(codeSizeInvalid, "the body is not as long as Content-Range says")
	}
	return n, err
}

// chunkFailed adds to a 416 where the upload stands, so that the client can go
// on from there.
func (h *Handler) chunkFailed(w http.ResponseWriter, r *http.Request, rt route, err error) error {
	if status, _ := classify(err); status == http.StatusRequestedRangeNotSatisfiable {
		if u, err := h.Blobs.Lookup(r.Context(), rt.repo, rt.ref); err == nil {
			uploadStatus(w, u)
		}
	}
	return err
}

// uploadStatus sets the headers that tell where an upload is and how far it
// got. The location is relative, since a registry does not know what name a
// proxy has given it.
func uploadStatus(w http.ResponseWriter, u blob.Upload) {
	head := w.Header()
	head["Location"] = []string{"/v2/" + u.Repo + "/blobs/uploads/" + u.ID}
	// An empty upload is 0-0 too: clients want a Range that they can parse.
	head["Range"] = []string{"0-" + strconv.FormatInt(max(u.Size-1, 0), 10)}
	head["Docker-Upload-Uuid"] = []string{u.ID}
}

func blobCreated(w http.ResponseWriter, repo string, dgst digest.Digest) {
	head := w.Header()
	head["Location"] = []string{"/v2/" + repo + "/blobs/" + string(dgst)}
	head["Docker-Content-Digest"] = []string{string(dgst)}
	w.WriteHeader(http.StatusCreated)
}
