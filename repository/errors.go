package repository

import (
	"errors"
	"fmt"
)

// The sentinels of this package. A name that is none is [manifest.ErrName].
var (
	ErrNotFound = errors.New("repository not found")
	ErrExists   = errors.New("repository exists already")
	ErrConflict = errors.New("repository has changed")
	ErrNotEmpty = errors.New("repository is not empty")
	ErrInvalid  = errors.New("invalid setting")
	ErrQuota    = errors.New("quota exceeded")
)

// Error says which operation failed on which repository. It unwraps to the
// cause.
type Error struct {
	Op   string // "get", "create", "update", "delete" …
	Name string
	Err  error
}

func (e *Error) Error() string { return fmt.Sprintf("%s repository %s: %v", e.Op, e.Name, e.Err) }
func (e *Error) Unwrap() error { return e.Err }

// InvalidError is a setting that is not possible. It unwraps to [ErrInvalid],
// and to Err.
type InvalidError struct {
	Field  string // as in ECR's API: "lifecyclePolicy", "prefix" …
	Detail string // what would be right
	Err    error  // why, if another package says so
}

func (e *InvalidError) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("%s: %s: %v", e.Field, e.Detail, e.Err)
	}
	return e.Field + ": " + e.Detail
}

func (e *InvalidError) Unwrap() []error {
	if e.Err == nil {
		return []error{ErrInvalid}
	}
	return []error{ErrInvalid, e.Err}
}

// Quota names what is limited.
type Quota string

// The quotas.
const (
	QuotaRepositories Quota = "repositories per registry"
	QuotaImages       Quota = "images per repository"
	QuotaTags         Quota = "tags per image"
)

// QuotaError is a change that would bring more than there may be. It unwraps to
// [ErrQuota].
type QuotaError struct {
	Quota Quota
	Limit int
}

func (e *QuotaError) Error() string { return fmt.Sprintf("%v: %d %s", ErrQuota, e.Limit, e.Quota) }
func (e *QuotaError) Unwrap() error { return ErrQuota }
