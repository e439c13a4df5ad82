package wharfage

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/blob"
)

func (h *Handler) headBlob(w http.ResponseWriter, r *http.Request, rt route) error {
	dgst, err := checkDigest(rt.ref)
	if err != nil {
		return err
	}
	infos, err := h.Blobs.Stat(r.Context(), rt.repo, []digest.Digest{dgst})
	if err != nil {
		return err
	}
	if infos[0].Digest == "" {
		return blobNotFound("stat", rt.repo, dgst)
	}
	setContent(w, "application/octet-stream", dgst)
	w.Header()["Accept-Ranges"] = acceptRanges
	setLength(w, infos[0].Size)
	w.WriteHeader(http.StatusOK)
	return nil
}

var acceptRanges = []string{"bytes"}

func blobNotFound(op, repo string, dgst digest.Digest) error {
	return &blob.Error{Op: op, Repo: repo, Digest: dgst, Err: blob.ErrNotFound}
}

func (h *Handler) getBlob(w http.ResponseWriter, r *http.Request, rt route) error {
	dgst, err := checkDigest(rt.ref)
	if err != nil {
		return err
	}
	if matchesETag(r.Header["If-None-Match"], dgst) {
		return h.notModified(w, r, rt, dgst)
	}
	if store, ok := blob.As[blob.Redirector](h.Blobs); ok {
		url, err := store.Redirect(r.Context(), rt.repo, dgst)
		if err != nil {
			return err
		}
		if url != "" { // the client sends its Range there
			setContent(w, "", dgst)
			w.Header().Set("Location", url)
			w.WriteHeader(http.StatusTemporaryRedirect)
			return nil
		}
	}
	var want byteRange
	if v := r.Header.Get("Range"); v != "" && (r.Header.Get("If-Range") == "" || r.Header.Get("If-Range") == etag(dgst)) {
		want = parseRange(v)
	}
	off, n, err := h.place(r.Context(), rt.repo, dgst, want)
	if err != nil {
		return err
	}
	content, info, err := h.Blobs.Open(r.Context(), rt.repo, dgst, off, n)
	if errors.Is(err, blob.ErrRange) {
		return h.rangeNotSatisfiable(w, r, rt.repo, dgst)
	}
	if err != nil {
		return err
	}
	defer content.Close()
	length := info.Size - off
	if n >= 0 {
		length = min(length, n)
	}
	status := http.StatusOK
	if want.ok {
		if length <= 0 {
			return h.rangeNotSatisfiable(w, r, rt.repo, dgst)
		}
		status = http.StatusPartialContent
		w.Header().Set("Content-Range", "bytes "+strconv.FormatInt(off, 10)+"-"+strconv.FormatInt(off+length-1, 10)+"/"+strconv.FormatInt(info.Size, 10))
	}
	setContent(w, "application/octet-stream", dgst)
	w.Header()["Accept-Ranges"] = acceptRanges
	setLength(w, length)
	w.WriteHeader(status)
	// What fails now is seen by the client as a body that is too short, since
	// the server closes the connection.
	if _, err := io.Copy(w, content); err != nil {
		h.tell(r, err)
	}
	return nil
}

// place turns a range into an offset and a length for Open.
func (h *Handler) place(ctx context.Context, repo string, dgst digest.Digest, want byteRange) (off, n int64, err error) {
	switch {
	case !want.ok:
		return 0, -1, nil
	case !want.suffix:
		return want.first, want.length(), nil
	}
	content, info, err := h.Blobs.Open(ctx, repo, dgst, 0, 0)
	if err != nil {
		return 0, 0, err
	}
	content.Close()
	return max(info.Size-want.last, 0), want.last, nil
}

func (h *Handler) rangeNotSatisfiable(w http.ResponseWriter, r *http.Request, repo string, dgst digest.Digest) error {
	content, info, err := h.Blobs.Open(r.Context(), repo, dgst, 0, 0)
	if err != nil {
		return err
	}
	content.Close()
	w.Header().Set("Content-Range", "bytes */"+strconv.FormatInt(info.Size, 10))
	return &statusError{http.StatusRequestedRangeNotSatisfiable, codeSizeInvalid, "the range is not within the " + strconv.FormatInt(info.Size, 10) + " bytes of the blob"}
}

// notModified answers that what the client has of a blob is what is here, if it
// is.
func (h *Handler) notModified(w http.ResponseWriter, r *http.Request, rt route, dgst digest.Digest) error {
	content, _, err := h.Blobs.Open(r.Context(), rt.repo, dgst, 0, 0)
	if err != nil {
		return err
	}
	content.Close()
	setContent(w, "", dgst)
	w.WriteHeader(http.StatusNotModified)
	return nil
}

func (h *Handler) deleteBlob(w http.ResponseWriter, r *http.Request, rt route) error {
	dgst, err := checkDigest(rt.ref)
	if err != nil {
		return err
	}
	err = h.Blobs.Delete(r.Context(), rt.repo, dgst, time.Time{})
	if errors.Is(err, blob.ErrConflict) {
		return notAllowed(w, rt, err.Error())
	}
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusAccepted)
	return nil
}
