package wharfage

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/manifest"
)

// Collection says what [Collect] may remove.
type Collection struct {
	// Blobs is for blob.Collect. Needed is set for it, and Now if it is nil.
	Blobs blob.CollectOptions
	// Untagged lets manifests without a tag go first; nil keeps them. Now and
	// OnCommit are set where they are nil, to those of the Handler.
	Untagged *manifest.UntaggedOptions
	// Dry does all but remove. What is needed by manifests that would go is still
	// counted as needed.
	Dry bool
}

// Collected is what became of a Collection.
type Collected struct {
	Blobs    blob.CollectReport
	Untagged manifest.UntaggedReport // of all repositories together
}

// Collect removes what nothing needs from the stores of h, while it serves or
// not: see [blob.Collect] and [manifest.CollectUntagged]. A repository that
// cannot be read, or whose untagged manifests are too many, is left alone, and
// the others go on.
//
// The result is valid with an error too, which is nil only if all could be
// looked at and removed.
func Collect(ctx context.Context, h *Handler, c Collection) (Collected, error) {
	var done Collected
	c.Blobs.Needed = NeededBlobs(h.Manifests)
	c.Blobs.Dry = c.Blobs.Dry || c.Dry
	if c.Blobs.Now == nil {
		c.Blobs.Now = h.now
	}
	if err := c.Blobs.CheckClock(); err != nil {
		return done, err
	}
	var errs []error
	if c.Untagged != nil {
		o := *c.Untagged
		o.Dry = o.Dry || c.Blobs.Dry
		c.Blobs.Dry = o.Dry
		if o.Now == nil {
			o.Now = h.now
		}
		if o.OnCommit == nil {
			o.OnCommit = h.committed
		}
		var err error
		if errs, err = h.collectUntagged(ctx, o, &done.Untagged); err != nil {
			return done, errors.Join(append(errs, err)...)
		}
	}
	var err error
	done.Blobs, err = blob.Collect(ctx, h.Blobs, c.Blobs)
	return done, errors.Join(append(errs, err)...)
}

// collectUntagged returns the errors of single repositories, and that which
// ends it.
func (h *Handler) collectUntagged(ctx context.Context, o manifest.UntaggedOptions, sum *manifest.UntaggedReport) (errs []error, _ error) {
	sum.Kept = map[manifest.Reason]int{}
	for repo, err := range h.manifestRepos(ctx) {
		if err != nil {
			return errs, err
		}
		r, err := manifest.CollectUntagged(ctx, h.Manifests, repo, o)
		sum.Looked += r.Looked
		sum.Removed += r.Removed
		sum.More = sum.More || r.More
		for reason, n := range r.Kept {
			sum.Kept[reason] += n
		}
		if ctx.Err() != nil {
			return errs, ctx.Err()
		}
		if err != nil {
			errs = append(errs, err)
		}
	}
	return errs, nil
}

// manifestRepos lists the repositories that hold a manifest.
func (h *Handler) manifestRepos(ctx context.Context) iter.Seq2[string, error] {
	catalog := h.Catalog
	if catalog == nil {
		catalog, _ = h.Manifests.(manifest.Catalog)
	}
	if catalog == nil {
		return func(yield func(string, error) bool) {
			yield("", fmt.Errorf("the store cannot list its repositories: %w", manifest.ErrUnsupported))
		}
	}
	return catalog.Repos(ctx, "")
}

// NeededBlobs makes the Needed of [blob.CollectOptions] from a manifest store.
func NeededBlobs(r manifest.Reader) func(ctx context.Context, repo string) iter.Seq2[digest.Digest, error] {
	return func(ctx context.Context, repo string) iter.Seq2[digest.Digest, error] {
		return func(yield func(digest.Digest, error) bool) {
			for rec, err := range r.Manifests(ctx, repo, "") {
				if err != nil {
					yield("", err)
					return
				}
				for _, dgst := range rec.Blobs {
					if !yield(dgst, nil) {
						return
					}
				}
			}
		}
	}
}
