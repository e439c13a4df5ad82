package remote

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"

	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/replication"
)

const (
	maxError = 64 << 10     // bytes that are read of an answer that is an error
	maxAfter = 24 * 60 * 60 // seconds that a registry may put its clients off
)

var (
	errRedirect = errors.New("a redirect that is not followed")
	errOneShot  = errors.New("the content cannot be sent a second time")
)

// StatusError is an answer of a registry that is no success.
type StatusError struct {
	Status  int
	Code    string // as in "MANIFEST_UNKNOWN"; "" if the registry gave none
	Message string // for people, shortened; "" if the registry gave none
}

func (e *StatusError) Error() string {
	s := fmt.Sprintf("the registry answers %d %s", e.Status, http.StatusText(e.Status))
	if detail := strings.TrimSpace(e.Code + " " + e.Message); detail != "" {
		s += " (" + detail + ")"
	}
	return s
}

// Unwrap returns the errors of packages replication, manifest and blob that the answer
// stands for. What 404 says depends on what was asked for, and is added there.
func (e *StatusError) Unwrap() []error {
	switch {
	case e.Status == http.StatusTooManyRequests:
		return []error{replication.ErrRateLimited}
	case e.Status == http.StatusNotImplemented, e.Code == "UNSUPPORTED":
		return []error{errors.ErrUnsupported}
	case e.Status >= 500, e.Status == http.StatusRequestTimeout:
		return []error{replication.ErrUnavailable}
	case e.Status == http.StatusUnauthorized, e.Status == http.StatusForbidden:
		return []error{replication.ErrDenied}
	case e.Status == http.StatusPreconditionFailed:
		return []error{manifest.ErrConflict}
	case e.Code == "TAG_INVALID": // as ECR says of an immutable tag
		return []error{manifest.ErrTagImmutable, manifest.ErrRefused}
	case e.Code == "DENIED":
		return []error{replication.ErrDenied, manifest.ErrRefused}
	case e.Code == "MANIFEST_BLOB_UNKNOWN":
		return []error{manifest.ErrMissing}
	case e.Code == "MANIFEST_INVALID":
		return []error{manifest.ErrInvalid}
	case e.Code == "DIGEST_INVALID":
		return []error{blob.ErrDigest, manifest.ErrDigest}
	case e.Code == "SIZE_INVALID":
		return []error{blob.ErrSize}
	case e.Code == "NAME_INVALID":
		return []error{manifest.ErrName}
	case e.Status == http.StatusRequestEntityTooLarge:
		return []error{manifest.ErrTooLarge}
	case e.Status == http.StatusConflict, e.Status == http.StatusRequestedRangeNotSatisfiable:
		return []error{blob.ErrConflict, manifest.ErrConflict}
	case e.Status == http.StatusMethodNotAllowed:
		return []error{errors.ErrUnsupported}
	}
	return nil
}

// statusError reads an answer that is no success. secrets are not to be in the
// error, should the other side repeat them.
func (r *Registry) statusError(resp *http.Response, secrets ...string) error {
	text, _ := io.ReadAll(io.LimitReader(resp.Body, maxError)) // the status says enough
	var body struct {
		Errors  []struct{ Code, Message string }
		Details string // of Docker Hub's tokens
	}
	e := &StatusError{Status: resp.StatusCode}
	if json.Unmarshal(text, &body) == nil && len(body.Errors) > 0 {
		e.Code, e.Message = body.Errors[0].Code, body.Errors[0].Message
	}
	scheme, sent, _ := strings.Cut(resp.Request.Header.Get("Authorization"), " ")
	secrets = append(secrets, sent)
	if pair, err := base64.StdEncoding.DecodeString(sent); err == nil && strings.EqualFold(scheme, "basic") {
		_, password, _ := strings.Cut(string(pair), ":")
		secrets = append(secrets, string(pair), password)
	}
	e.Message = clean(cmp.Or(e.Message, body.Details), 200, secrets)
	if strings.Trim(e.Code, "ABCDEFGHIJKLMNOPQRSTUVWXYZ_") != "" || len(e.Code) > 64 {
		e.Code = ""
	}
	switch resp.StatusCode {
	case http.StatusNotImplemented, http.StatusHTTPVersionNotSupported:
		return e
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
	default:
		if resp.StatusCode < 500 {
			return e
		}
	}
	return &replication.TemporaryError{After: retryAfter(resp.Header.Get("Retry-After"), r.now()), Err: e}
}

// clean is s without secrets and without what a terminal could obey, shortened.
func clean(s string, most int, secrets []string) string {
	for _, secret := range secrets {
		if secret != "" {
			s = strings.ReplaceAll(s, secret, "…")
		}
	}
	s = strings.Map(func(c rune) rune {
		if !unicode.IsPrint(c) {
			return ' '
		}
		return c
	}, strings.ToValidUTF8(s, "?"))
	if runes := []rune(s); len(runes) > most {
		s = string(runes[:most]) + "…"
	}
	return strings.TrimSpace(s)
}

// retryAfter reads a Retry-After header (RFC 9110 section 10.2.3): seconds or a date.
func retryAfter(s string, now time.Time) time.Duration {
	seconds, err := strconv.ParseInt(strings.TrimSpace(s), 10, 64)
	if err != nil {
		at, err := http.ParseTime(s)
		if err != nil {
			return 0
		}
		return max(0, min(at.Sub(now), maxAfter*time.Second))
	}
	return time.Duration(max(0, min(seconds, maxAfter))) * time.Second
}

// sentError tells why there was no answer.
func sentError(ctx context.Context, err error) error {
	if login, ok := errors.AsType[*loginError](err); ok {
		if ctx.Err() != nil && context.Cause(ctx) != errStalled {
			return ctx.Err()
		}
		return login.err
	}
	switch {
	case errors.Is(err, auth.ErrBasicCredentialNotFound):
		return fmt.Errorf("%w: the registry wants a login, and there is none for it", replication.ErrDenied)
	case errors.Is(err, errOneShot):
		err = errOneShot
	}
	return networkError(ctx, plain(err))
}

// plain is err without the URL that net/http puts before it.
func plain(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}

func isPermanent(err error) bool {
	_, certificate := errors.AsType[*tls.CertificateVerificationError](err)
	return certificate || errors.Is(err, ErrAddress) || errors.Is(err, errRedirect)
}

// notFound is err, which matches missing too if it is an answer 404.
func notFound(err, missing error) error {
	if e, ok := errors.AsType[*StatusError](err); ok && e.Status == http.StatusNotFound {
		return fmt.Errorf("%w: %w", missing, err)
	}
	return err
}
