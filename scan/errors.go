package scan

import (
	"errors"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"
)

// The sentinels of this package. An image that is not there is
// manifest.ErrNotFound.
var (
	ErrInvalid     = errors.New("invalid scanning configuration")
	ErrNotFound    = errors.New("image has not been scanned")                   // ECR's ScanNotFoundException
	ErrUnsupported = errors.New("not an image that can be scanned")             // UnsupportedImageTypeException
	ErrArchived    = errors.New("image is in the archive")                      // ImageArchivedException
	ErrTooSoon     = errors.New("image has been scanned, or is being, already") // LimitExceededException
	ErrOff         = errors.New("scanning is off for the repository")
)

// Error says which operation failed on which image. It unwraps to the cause.
type Error struct {
	Op     string // "scan", "result", "findings"
	Repo   string
	Digest digest.Digest // "" for the repository as a whole
	Err    error
}

func (e *Error) Error() string {
	if e.Digest == "" {
		return fmt.Sprintf("%s %s: %v", e.Op, e.Repo, e.Err)
	}
	return fmt.Sprintf("%s %s in %s: %v", e.Op, e.Digest, e.Repo, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

// TooSoonError is a scan within [Runner.Every] of the one before. It unwraps to
// [ErrTooSoon].
type TooSoonError struct {
	Next time.Time // when the next may be; zero while one is under way
}

func (e *TooSoonError) Error() string {
	if e.Next.IsZero() {
		return "image is being scanned"
	}
	return "image was scanned already, the next scan may be at " + e.Next.UTC().Format(time.RFC3339)
}

func (e *TooSoonError) Unwrap() error { return ErrTooSoon }
