package manifest

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/opencontainers/go-digest"
)

// ErrBudget is a walk that met more manifests than it may.
var ErrBudget = errors.New("too many manifests")

// BudgetError says where a walk stopped. It unwraps to [ErrBudget].
type BudgetError struct {
	Root  digest.Digest
	Limit int // manifests
}

func (e *BudgetError) Error() string {
	return fmt.Sprintf("below %s there are more than %d manifests", e.Root, e.Limit)
}

func (e *BudgetError) Unwrap() error { return ErrBudget }

// DefaultWalkLimit is how many manifests a Walk reads when it is given no limit.
const DefaultWalkLimit = 100_000

// Walk yields the manifest root and those below it, children of indexes and
// theirs, each once however often it is listed, a parent before its children.
// It reads each manifest once and at most limit of them (0 means
// [DefaultWalkLimit]), then ends in a *[BudgetError]. A child that is not in the repository
// ends it in a *[MissingError]; so does the root.
func Walk(ctx context.Context, r Reader, repo string, root digest.Digest, limit int) iter.Seq2[Record, error] {
	if limit <= 0 {
		limit = DefaultWalkLimit
	}
	return func(yield func(Record, error) bool) {
		seen := map[digest.Digest]bool{root: true}
		queue := []digest.Digest{root}
		for len(queue) > 0 {
			d := queue[0]
			queue = queue[1:]
			rec, err := r.Get(ctx, repo, d)
			if IsNotFound(err) {
				err = &MissingError{Manifests: []digest.Digest{d}}
			}
			if err != nil {
				yield(Record{}, &Error{Op: "walk", Repo: repo, Object: string(root), Err: err})
				return
			}
			if !yield(rec, nil) {
				return
			}
			for _, child := range rec.Manifests {
				if seen[child] {
					continue
				}
				if len(seen) == limit {
					yield(Record{}, &Error{Op: "walk", Repo: repo, Object: string(root), Err: &BudgetError{root, limit}})
					return
				}
				seen[child] = true
				queue = append(queue, child)
			}
		}
	}
}
