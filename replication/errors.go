package replication

import (
	"errors"
	"fmt"
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

// Side is the registry that an [Error] is about.
type Side string

// The sides.
const (
	SideSource Side = "source"
	SideTarget Side = "target"
)

// Error says which operation failed, on which side and on what. It unwraps to the
// cause.
type Error struct {
	Op     string // "resolve", "get", "push", "copy blob", "list tags" …
	Side   Side   // "" if it is about both, or neither
	Repo   string
	Object string // a digest or a tag, "" for the repository as a whole
	Err    error
}

func (e *Error) Error() string {
	s := e.Op
	if e.Object != "" {
		s += " " + e.Object
	}
	if e.Repo != "" {
		s += " in " + e.Repo
	}
	if e.Side != "" {
		s += fmt.Sprintf(" (%s)", e.Side)
	}
	return fmt.Sprintf("%s: %v", s, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }
