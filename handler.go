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
	"github.com/wharfage/wharfage/repository"
)

// Handler serves the OCI distribution API, version 1.1 and what its main branch
// adds, over Blobs and Manifests. Its other fields are optional. They must not
// be changed once it serves.
//
// It answers paths below /v2, and must see them as they were sent. An
// http.ServeMux in front of it is to have the patterns "/v2" and "/v2/"; that it
// redirects paths with "//" or ".." does no harm, since no name has them.
//
// Uploads that clients begin and leave, and blobs that nothing needs, stay until
// they are collected. A GET of a blob is answered with a redirect if Blobs is a
// [blob.Redirector] and names a URL.
type Handler struct {
	Blobs     blob.Store
	Manifests manifest.Store

	// Referrers is where referrers are listed from. nil means Manifests, if it
	// is an Index too, else a scan of it, which costs time by the number of
	// manifests.
	Referrers referrers.Index

	// Catalog lists repositories. nil means Repositories, else Manifests, if it can, else
	// /v2/_catalog is answered 404.
	Catalog manifest.Catalog

	// Pusher says how manifests are taken: media types, limits, tag mutability.
	// Its Store and BlobSizes are set for it where they are nil, and OnCommit and
	// Now are those of the Handler.
	Pusher manifest.Pusher

	// Deleter says what may be deleted: its KeepTag protects tags, and so images. Its
	// Store is set for it where it is nil, and Cause, OnCommit and Now are those of the
	// Handler.
	Deleter manifest.Deleter

	// Authorize decides whether a request may do what it asks, before a store is
	// asked anything. nil allows all. An error that is an *AuthError decides the
	// answer; any other is told OnError and answered 403. For a mount it is also
	// asked for ActionPull of the source, and a refusal looks like a source
	// without the blob.
	Authorize func(r *http.Request, repo string, a Action) error

	// AuthorizeChange decides about what a request would change, once that is known:
	// Authorize cannot tell a new tag from one that moves. It is asked about each tag
	// that is made, moved or removed, about a manifest that goes, before its tags are,
	// and about one that comes without a tag; not when nothing changes, and not
	// about blobs.
	// What it has allowed is a condition of the Change: when a tag turns out to be
	// elsewhere at commit, it is asked again. Errors are as for Authorize. nil allows
	// all.
	AuthorizeChange func(r *http.Request, repo string, t Transition) error

	// Repositories says which repositories there are, what is set for them, and
	// which a push makes. Each request looks its repository up, and is answered 404
	// NAME_UNKNOWN if there is none. nil means that any name is a repository.
	Repositories *repository.Registry

	// Upstream tells whether the stores fetch from elsewhere what repo lacks. A pull from
	// such a repository is served though Repositories does not have it: the stores then
	// make it. nil means that no repository is such.
	Upstream func(repo string) bool

	// Cause tells why a request changes something, and through which registries that
	// came ([manifest.Change].Via). Decide by who asks, since a client may claim anything: a
	// copy makes its repository, by the templates of Repositories for copies or else with
	// the defaults. nil means manifest.CauseClient.
	Cause func(r *http.Request) (cause manifest.Cause, via []string)

	// HideArchived keeps clients from what is in the archive ([manifest.Archive]), as
	// ECR does: a pull is answered 404 until it is restored, which a push of it
	// does, and lists of referrers leave it out. Its tags stay taken and listed, and
	// [Images] tells of it. Lists of referrers then cost lookups, many records at a
	// time ([manifest.Describe]); a HEAD of a manifest costs none more. False serves what is
	// in the archive like all else.
	HideArchived bool

	// NoDelete answers every deletion with 405.
	NoDelete bool

	Limits Limits

	// OnCommit is told of each committed Change of manifests and tags, on the
	// goroutine of the request, which waits for it. Its ctx does not end when the
	// client goes away, since the Change stays.
	OnCommit func(ctx context.Context, e manifest.Event)

	// OnPull is told of each manifest that is got, by its digest, also if the answer
	// is that the client has it. A HEAD is no pull: clients poll tags with it. It runs
	// on the goroutine of the request, before the answer is sent.
	OnPull func(r *http.Request, repo string, dgst digest.Digest)

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
	ActionPing    Action = "ping"    // GET /v2/, repo is ""
	ActionCatalog Action = "catalog" // list repositories, repo is ""
	ActionPull    Action = "pull"    // read, and list
	ActionPush    Action = "push"    // upload blobs, put manifests and tags
	ActionDelete  Action = "delete"  // remove blobs, manifests and tags

	ActionCreateRepository Action = "create-repository" // make the repository that a push goes to; asked after ActionPush
)

// Limits bounds what requests may ask for. A zero field means its default.
type Limits struct {
	PageBytes int   // of a listing's body; default just under 4 MiB, which clients rely on. One entry may be longer
	PageItems int   // of a listing; default: as many as fit
	Tags      int   // in one manifest push; default 100
	BlobSize  int64 // of one blob, in bytes; default: no limit

	// Quotas are looked at before a push, by manifest.Count, which lists the
	// repository if the store cannot count. Pushes at once may exceed them by one
	// each. What is there stays.
	Images       int // manifests in a repository; default: no limit
	TagsPerImage int // default: no limit
}

// ECRLimits are the quotas of Amazon ECR that limit what is stored. That of
// repositories, 100,000, is repository.Registry.MaxRepositories.
func ECRLimits() Limits {
	return Limits{BlobSize: 52_000 << 20, Images: 100_000, TagsPerImage: 1_000}
}

const (
	defaultPageBytes = 4<<20 - 4096 // clients stop reading at 4 MiB; some of it is the envelope
	defaultTags      = 100
)

// ServeHTTP implements http.Handler. It panics if Blobs or Manifests is nil.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if h.Blobs == nil || h.Manifests == nil {
		panic("wharfage: a Handler needs both Blobs and Manifests; NewMemory has both")
	}
	rt, err := parseRoute(r.URL)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	serve, action := h.method(rt, r.Method)
	if serve == nil {
		w.Header().Set("Allow", rt.kind.allow(true))
		h.fail(w, r, &statusError{http.StatusMethodNotAllowed, codeUnsupported, r.Method + " is not for this path"})
		return
	}
	if h.Authorize != nil {
		if err := h.denied(r, h.Authorize(r, rt.repo, action)); err != nil {
			h.fail(w, r, err)
			return
		}
	}
	if action == ActionDelete && h.NoDelete {
		h.fail(w, r, notAllowed(w, rt, "deletion is disabled"))
		return
	}
	if rt.query, err = parseQuery(r.URL.RawQuery); err == nil {
		err = h.admit(r, &rt, action)
	}
	if err == nil {
		err = serve(w, r, rt)
	}
	if err != nil {
		h.fail(w, r, err)
	}
}

type serveFunc func(w http.ResponseWriter, r *http.Request, rt route) error

// method finds what answers a request. HEAD goes where GET goes, unless there
// is less to do; the server leaves out the body.
func (h *Handler) method(rt route, method string) (serveFunc, Action) {
	get := method == http.MethodGet || method == http.MethodHead
	switch rt.kind {
	case routePing:
		if get {
			return h.ping, ActionPing
		}
	case routeCatalog:
		if get {
			return h.catalog, ActionCatalog
		}
	case routeTags:
		if get {
			return h.tags, ActionPull
		}
	case routeReferrers:
		if get {
			return h.referrers, ActionPull
		}
	case routeManifest:
		switch {
		case method == http.MethodHead:
			return h.headManifest, ActionPull
		case get:
			return h.getManifest, ActionPull
		case method == http.MethodPut:
			return h.putManifest, ActionPush
		case method == http.MethodDelete:
			return h.deleteManifest, ActionDelete
		}
	case routeBlob:
		switch method {
		case http.MethodHead:
			return h.headBlob, ActionPull
		case http.MethodGet:
			return h.getBlob, ActionPull
		case http.MethodDelete:
			return h.deleteBlob, ActionDelete
		}
	case routeUploads:
		if method == http.MethodPost {
			return h.postUpload, ActionPush
		}
	case routeUpload:
		switch method {
		case http.MethodGet, http.MethodHead:
			return h.getUpload, ActionPush
		case http.MethodPatch:
			return h.patchUpload, ActionPush
		case http.MethodPut:
			return h.putUpload, ActionPush
		case http.MethodDelete:
			return h.deleteUpload, ActionPush // its own upload, no content
		}
	}
	return nil, ""
}

// allow lists the methods for a path, deletion only if that is possible.
func (k routeKind) allow(deletion bool) string {
	switch {
	case k == routeManifest && deletion:
		return "GET, HEAD, PUT, DELETE"
	case k == routeManifest:
		return "GET, HEAD, PUT"
	case k == routeBlob && deletion:
		return "GET, HEAD, DELETE"
	}
	switch k {
	case routeUploads:
		return "POST"
	case routeUpload:
		return "GET, HEAD, PATCH, PUT, DELETE"
	}
	return "GET, HEAD"
}

// notAllowed is the answer to a deletion that is refused.
func notAllowed(w http.ResponseWriter, rt route, why string) error {
	w.Header().Set("Allow", rt.kind.allow(false))
	return &statusError{http.StatusMethodNotAllowed, codeDenied, why}
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

func (h *Handler) cause(r *http.Request) (manifest.Cause, []string) {
	if h.Cause != nil {
		return h.Cause(r)
	}
	return manifest.CauseClient, nil
}

func (h *Handler) committed(ctx context.Context, e manifest.Event) {
	if h.OnCommit != nil {
		h.OnCommit(context.WithoutCancel(ctx), e)
	}
}

// tell reports a failure that the client does not see.
func (h *Handler) tell(r *http.Request, err error) {
	if h.OnError != nil && r.Context().Err() == nil {
		h.OnError(r, err)
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
	if s == "" {
		return "", badRequest(codeDigestInvalid, "the digest is missing")
	}
	if err := manifest.CheckContentDigest(s); err != nil {
		return "", &statusError{http.StatusBadRequest, codeDigestInvalid, "digest " + quote(s) + ": " + err.Error()}
	}
	return digest.Digest(s), nil
}

func isDigest(ref string) bool { return strings.IndexByte(ref, ':') >= 0 }
