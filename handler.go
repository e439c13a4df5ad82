package wharfage

import (
	"bytes"
	"context"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/referrers"
)

// Handler serves the OCI distribution API, version 1.1 and what its main branch
// adds, over Blobs and Manifests. Its other fields are optional. They must not
// be changed once it serves.
//
// It answers paths below /v2 and is not to stand behind an http.ServeMux that
// cleans paths other than by a pattern "/v2/".
type Handler struct {
	Blobs     blob.Store
	Manifests manifest.Store

	// Referrers is where referrers are listed from. nil means Manifests, if it
	// is an Index too, else a scan of it, which costs time by the number of
	// manifests.
	Referrers referrers.Index

	// Catalog lists repositories. nil means Manifests, if it can, else
	// /v2/_catalog is answered 404.
	Catalog manifest.Catalog

	// Pusher says how manifests are taken: media types, limits, tag mutability.
	// Its Store and BlobSizes are set for it where they are nil, and OnCommit and
	// Now are those of the Handler.
	Pusher manifest.Pusher

	// Authorize decides whether a request may do what it asks, before anything
	// else is looked at. nil allows all. An error that is an *AuthError decides the answer,
	// any other is 403. For a mount it is also asked for Pull of the source, and
	// a refusal looks like a source without the blob.
	Authorize func(r *http.Request, repo string, a Action) error

	// NoDelete answers every deletion with 405.
	NoDelete bool

	Limits Limits

	// OnCommit is told of each committed Change, on the goroutine of the request,
	// which waits for it.
	OnCommit func(ctx context.Context, e manifest.Event)

	// OnError is told of failures of the stores, which are answered with 5xx and
	// no details. It runs on the goroutine of the request.
	OnError func(r *http.Request, err error)

	Now func() time.Time // nil means time.Now

	pages sync.Pool // of *bytes.Buffer
}

// Action is what a request does to a repository.
type Action string

// The actions that Authorize is asked about.
const (
	Ping    Action = "ping"    // GET /v2/, repo is ""
	Catalog Action = "catalog" // list repositories, repo is ""
	Pull    Action = "pull"    // read, and list
	Push    Action = "push"    // upload blobs, put manifests and tags
	Delete  Action = "delete"  // remove blobs, manifests and tags
)

// Limits bounds what requests may ask for. A zero field means its default.
type Limits struct {
	PageBytes int   // of a listing's body; default just under 4 MiB, which clients rely on
	PageItems int   // of a listing; default: as many as fit
	Tags      int   // in one manifest push; default 100
	BlobSize  int64 // of one blob, in bytes; default: no limit
}

const (
	defaultPageBytes = 4<<20 - 4096 // clients stop reading at 4 MiB; some of it is the envelope
	defaultTags      = 100
)

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rt, err := parseRoute(r.URL)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	serve, action := h.method(rt, r.Method)
	if serve == nil {
		w.Header().Set("Allow", rt.kind.allow())
		h.fail(w, r, &statusError{http.StatusMethodNotAllowed, codeUnsupported, r.Method + " is not for this path"})
		return
	}
	if h.Authorize != nil {
		if err := h.Authorize(r, rt.repo, action); err != nil {
			h.fail(w, r, asAuthError(err))
			return
		}
	}
	if action == Delete && h.NoDelete {
		h.fail(w, r, &statusError{http.StatusMethodNotAllowed, codeUnsupported, "deletion is disabled"})
		return
	}
	if err := serve(w, r, rt); err != nil {
		h.fail(w, r, err)
	}
}

type serveFunc func(w http.ResponseWriter, r *http.Request, rt route) error

// method finds what answers a request. HEAD is answered like GET where the
// server can leave out the body.
func (h *Handler) method(rt route, method string) (serveFunc, Action) {
	get := method == http.MethodGet || method == http.MethodHead
	switch rt.kind {
	case routePing:
		if get {
			return h.ping, Ping
		}
	case routeCatalog:
		if get {
			return h.catalog, Catalog
		}
	case routeTags:
		if get {
			return h.tags, Pull
		}
	case routeReferrers:
		if get {
			return h.referrers, Pull
		}
	case routeManifest:
		switch {
		case get:
			return h.getManifest, Pull
		case method == http.MethodPut:
			return h.putManifest, Push
		case method == http.MethodDelete:
			return h.deleteManifest, Delete
		}
	case routeBlob:
		switch method {
		case http.MethodHead:
			return h.headBlob, Pull
		case http.MethodGet:
			return h.getBlob, Pull
		case http.MethodDelete:
			return h.deleteBlob, Delete
		}
	case routeUploads:
		if method == http.MethodPost {
			return h.postUpload, Push
		}
	case routeUpload:
		switch method {
		case http.MethodGet, http.MethodHead:
			return h.getUpload, Push
		case http.MethodPatch:
			return h.patchUpload, Push
		case http.MethodPut:
			return h.putUpload, Push
		case http.MethodDelete:
			return h.deleteUpload, Push // its own upload, no content
		}
	}
	return nil, ""
}

func (k routeKind) allow() string {
	switch k {
	case routeManifest:
		return "GET, HEAD, PUT, DELETE"
	case routeBlob:
		return "GET, HEAD, DELETE"
	case routeUploads:
		return "POST"
	case routeUpload:
		return "GET, HEAD, PATCH, PUT, DELETE"
	}
	return "GET, HEAD"
}

func (h *Handler) ping(w http.ResponseWriter, _ *http.Request, _ route) error {
	// Old Docker clients look for it.
	w.Header().Set("Docker-Distribution-API-Version", "registry/2.0")
	writeJSON(w, "application/json", []byte("{}"))
	return nil
}

func (h *Handler) now() time.Time {
	if h.Now != nil {
		return h.Now()
	}
	return time.Now()
}

func (h *Handler) committed(ctx context.Context, e manifest.Event) {
	if h.OnCommit != nil {
		h.OnCommit(ctx, e)
	}
}

func (h *Handler) page() *bytes.Buffer {
	if b, ok := h.pages.Get().(*bytes.Buffer); ok {
		b.Reset()
		return b
	}
	return new(bytes.Buffer)
}

func writeJSON(w http.ResponseWriter, contentType string, body []byte) {
	setLength(w, int64(len(body)))
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(http.StatusOK)
	w.Write(body) // a client that went away needs no answer
}

// checkDigest is for a digest that names content here.
func checkDigest(s string) (digest.Digest, error) {
	if err := manifest.CheckContentDigest(s); err != nil {
		return "", &statusError{http.StatusBadRequest, codeDigestInvalid, "digest " + quote(s) + ": " + err.Error()}
	}
	return digest.Digest(s), nil
}

func isDigest(ref string) bool { return strings.IndexByte(ref, ':') >= 0 }
