package replication

import (
	"errors"
	"time"
)

// Errors of registries, found with errors.Is. What is missing is
// [manifest.ErrNotFound] or [blob.ErrNotFound].
var (
	// ErrDenied: the registry refuses who asks, or what is asked (401, 403).
	ErrDenied = errors.New("denied")
	// ErrRateLimited: it has had too many requests (429).
	ErrRateLimited = errors.New("too many requests")
	// ErrUnavailable: it cannot be reached, or fails (5xx).
	ErrUnavailable = errors.New("unavailable")
	// ErrContent: it has answered with other bytes than those asked for.
	ErrContent = errors.New("wrong content")
)

// TemporaryError wraps an error that may not come again. Only what is wrapped in
// one is tried again.
type TemporaryError struct {
	After time.Duration // not before; 0 means unknown
	Err   error
}

func (e *TemporaryError) Error() string { return e.Err.Error() }
func (e *TemporaryError) Unwrap() error { return e.Err }
