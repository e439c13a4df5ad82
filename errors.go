package wharfage

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	specs "github.com/opencontainers/distribution-spec/specs-go/v1"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/replication"
	"github.com/wharfage/wharfage/repository"
)

// The codes of distribution-spec, "Error Codes"; it allows no others.
const (
	codeBlobUnknown         = "BLOB_UNKNOWN"
	codeUploadInvalid       = "BLOB_UPLOAD_INVALID"
	codeUploadUnknown       = "BLOB_UPLOAD_UNKNOWN"
	codeDigestInvalid       = "DIGEST_INVALID"
	codeManifestBlobUnknown = "MANIFEST_BLOB_UNKNOWN"
	codeManifestInvalid     = "MANIFEST_INVALID"
	codeManifestUnknown     = "MANIFEST_UNKNOWN"
	codeNameInvalid         = "NAME_INVALID"
	codeNameUnknown         = "NAME_UNKNOWN"
	codeSizeInvalid         = "SIZE_INVALID"
	codeUnauthorized        = "UNAUTHORIZED"
	codeDenied              = "DENIED"
	codeUnsupported         = "UNSUPPORTED"
	codeTooManyRequests     = "TOOMANYREQUESTS"
)

// codeUnknown is for answers 5xx, which the list of the specification does not
// cover.
const codeUnknown = "UNKNOWN"

// AuthError is the answer to a request that may not do what it asks.
type AuthError struct {
	// Challenge is the WWW-Authenticate header of a 401, as in
	// `Bearer realm="https://…",service="…",scope="repository:a/b:pull"`. "" makes it a
	// 403.
	Challenge string
	Message   string // for people; "" means a general one
}

func (e *AuthError) Error() string {
	switch {
	case e.Message != "":
		return e.Message
	case e.Challenge != "":
		return "authentication required"
	}
	return "access denied"
}

// statusError is an answer that no store gave.
type statusError struct {
	status  int
	code    string
	message string
}

func (e *statusError) Error() string { return e.message }

func badRequest(code, format string, args ...any) error {
	return &statusError{http.StatusBadRequest, code, fmt.Sprintf(format, args...)}
}

// bodyError is a request body that could not be read to its end.
type bodyError struct {
	err  error
	code string
}

func (e *bodyError) Error() string { return "request body: " + e.err.Error() }
func (e *bodyError) Unwrap() error { return e.err }

// body marks errors of a request's body as the client's, with a code.
type body struct {
	r    io.Reader
	code string
}

func (b body) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if err != nil && err != io.EOF {
		err = &bodyError{err, b.code}
	}
	return n, err
}

// classify finds the answer to an error.
func classify(err error) (status int, code string) {
	if e, ok := errors.AsType[*statusError](err); ok {
		return e.status, e.code
	}
	if e, ok := errors.AsType[*AuthError](err); ok {
		if e.Challenge != "" {
			return http.StatusUnauthorized, codeUnauthorized
		}
		return http.StatusForbidden, codeDenied
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return http.StatusRequestEntityTooLarge, codeSizeInvalid
	}
	if e, ok := errors.AsType[*bodyError](err); ok {
		return http.StatusBadRequest, e.code
	}
	if e, ok := errors.AsType[*manifest.InvalidError](err); ok {
		if e.Fields[0].Rule == manifest.RuleUnsupported {
			return http.StatusUnsupportedMediaType, codeUnsupported
		}
		return http.StatusBadRequest, codeManifestInvalid
	}
	for _, c := range answers {
		if errors.Is(err, c.err) {
			return c.status, c.code
		}
	}
	if IsFull(err) {
		return http.StatusInsufficientStorage, codeUnknown
	}
	return http.StatusInternalServerError, codeUnknown
}

// IsFull tells whether err is of a store that has no room left, on its disk or by its
// quota there. The Handler answers it with 507. What is stored can still be pulled, and
// deleted if the store needs no room for that.
func IsFull(err error) bool {
	return slices.ContainsFunc(diskFull, func(full error) bool { return errors.Is(err, full) })
}

var answers = []struct {
	err    error
	status int
	code   string
}{
	{replication.ErrDenied, http.StatusForbidden, codeDenied}, // by an upstream
	{replication.ErrRateLimited, http.StatusTooManyRequests, codeTooManyRequests},
	{replication.ErrUnavailable, http.StatusServiceUnavailable, codeUnknown},
	{replication.ErrContent, http.StatusBadGateway, codeUnknown},
	{manifest.ErrNotFound, http.StatusNotFound, codeManifestUnknown},
	{manifest.ErrTooLarge, http.StatusRequestEntityTooLarge, codeSizeInvalid},
	{manifest.ErrDigest, http.StatusBadRequest, codeDigestInvalid},
	{manifest.ErrName, http.StatusBadRequest, codeNameInvalid},
	{manifest.ErrMissing, http.StatusBadRequest, codeManifestBlobUnknown},
	{manifest.ErrConflict, http.StatusPreconditionFailed, codeDenied},
	{manifest.ErrRefused, http.StatusConflict, codeDenied},
	{repository.ErrNotFound, http.StatusNotFound, codeNameUnknown},
	{repository.ErrQuota, http.StatusForbidden, codeDenied}, // not 429, which clients try again
	{blob.ErrNotFound, http.StatusNotFound, codeBlobUnknown},
	{blob.ErrUploadNotFound, http.StatusNotFound, codeUploadUnknown},
	{blob.ErrDigest, http.StatusBadRequest, codeDigestInvalid},
	{blob.ErrSize, http.StatusBadRequest, codeSizeInvalid},
	{blob.ErrOffset, http.StatusRequestedRangeNotSatisfiable, codeUploadInvalid},
	{blob.ErrConflict, http.StatusRequestedRangeNotSatisfiable, codeUploadInvalid}, // of an upload: somebody else was first
	{blob.ErrTooMany, http.StatusTooManyRequests, codeTooManyRequests},
	{blob.ErrUnsupported, http.StatusBadRequest, codeUnsupported},
	{blob.ErrRange, http.StatusRequestedRangeNotSatisfiable, codeSizeInvalid},
}

// Of a refused body so much is read, after the answer; then the connection is
// closed.
const (
	drainBytes = 64 << 20
	drainTime  = 5 * time.Second
)

// fail answers a request with an error.
func (h *Handler) fail(w http.ResponseWriter, r *http.Request, err error) {
	status, code := classify(err)
	message := err.Error()
	if status >= 500 {
		h.tell(r, err)
		message = http.StatusText(status)
	}
	if status == http.StatusInsufficientStorage {
		message = "the registry has no room left; what it has can still be pulled"
	}
	if e, ok := errors.AsType[*http.MaxBytesError](err); ok {
		message = fmt.Sprintf("the body would be more than the limit of %d bytes", e.Limit)
	}
	if e, ok := errors.AsType[*AuthError](err); ok && e.Challenge != "" {
		w.Header().Set("WWW-Authenticate", e.Challenge)
	}
	if e, ok := errors.AsType[*replication.TemporaryError](err); ok && e.After > 0 { // as an upstream has asked
		w.Header().Set("Retry-After", strconv.FormatInt(int64((e.After+time.Second-1)/time.Second), 10))
	}
	// Clients that send all of a body before they read an answer see a broken
	// connection unless somebody takes the rest. So the answer goes out at once,
	// and then some of the rest is read. Not for those who may not send it, nor
	// for those who wait to be asked.
	c := http.NewResponseController(w)
	drained := r.ContentLength != 0 && status != http.StatusUnauthorized && status != http.StatusForbidden && r.Header.Get("Expect") == ""
	drained = drained && c.EnableFullDuplex() == nil
	answer, _ := json.Marshal(specs.ErrorResponse{Errors: []specs.ErrorInfo{{Code: code, Message: message, Detail: detail(err)}}})
	w.Header().Set("Content-Type", "application/json")
	setLength(w, int64(len(answer)))
	w.WriteHeader(status)
	w.Write(answer)
	if drained && c.Flush() == nil && c.SetReadDeadline(time.Now().Add(drainTime)) == nil {
		io.CopyN(io.Discard, r.Body, drainBytes) // whatever comes of it
	}
}

// detail is a string since clients decode it with specs-go, though the text of
// the specification allows any JSON.
func detail(err error) string {
	e, ok := errors.AsType[*manifest.InvalidError](err)
	if !ok {
		return ""
	}
	parts := make([]string, len(e.Fields))
	for i, f := range e.Fields {
		parts[i] = f.Pointer + " " + string(f.Rule)
	}
	return strings.Join(parts, "\n")
}

func quote(s string) string {
	const most = 80
	if len(s) > most {
		return fmt.Sprintf("%q…", strings.ToValidUTF8(s[:most], ""))
	}
	return fmt.Sprintf("%q", s)
}
