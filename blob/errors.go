package blob

import (
	"errors"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
)

// The package comment says when each is returned.
var (
	ErrNotFound       = errors.New("blob not found")
	ErrUploadNotFound = errors.New("upload not found")
	ErrDigest         = errors.New("content does not have the digest")
	ErrSize           = errors.New("content does not have the size")
	ErrOffset         = errors.New("chunk out of order")
	ErrRange          = errors.New("range begins beyond the end")
	ErrConflict       = errors.New("conflict")
	ErrTooMany        = errors.New("too many uploads under way")
	ErrUnsupported    = fmt.Errorf("blob: %w", errors.ErrUnsupported)
)

// Error says which operation failed on what. Stores and the functions of this
// package return it; it unwraps to the cause.
type Error struct {
	Op     string // "put", "open", "append" …
	Repo   string
	Digest digest.Digest // what was asked for; "" for an upload or the whole
	ID     string        // of an upload
	Err    error
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Op)
	switch {
	case e.ID != "":
		b.WriteString(" upload " + e.ID)
	case e.Digest != "":
		b.WriteString(" " + string(e.Digest))
	}
	if e.Repo != "" {
		b.WriteString(" in " + e.Repo)
	}
	return fmt.Sprintf("%s: %v", &b, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

// DigestError is content under the wrong name. It unwraps to [ErrDigest].
type DigestError struct{ Want, Got digest.Digest }

func (e *DigestError) Error() string {
	return fmt.Sprintf("content has digest %s, not %s", e.Got, e.Want)
}

func (e *DigestError) Unwrap() error { return ErrDigest }

// SizeError is content of the wrong length. It unwraps to [ErrSize].
type SizeError struct {
	Want int64
	Got  int64 // Want+1 or more stands for "longer": reading stopped there
}

func (e *SizeError) Error() string {
	if e.Got > e.Want {
		return fmt.Sprintf("content is longer than %d bytes", e.Want)
	}
	return fmt.Sprintf("content has %d bytes, not %d", e.Got, e.Want)
}

func (e *SizeError) Unwrap() error { return ErrSize }

// OffsetError is a chunk that does not begin where the session ends. It unwraps
// to [ErrOffset].
type OffsetError struct {
	Size  int64 // where the next chunk must begin
	Start int64 // where this one did
}

func (e *OffsetError) Error() string {
	return fmt.Sprintf("chunk begins at %d, the upload ends at %d", e.Start, e.Size)
}

func (e *OffsetError) Unwrap() error { return ErrOffset }
