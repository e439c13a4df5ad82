package replication

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/manifest"
)

// doom is a tag or an image that is to go.
type doom struct {
	from, repo, tag string // from is the repository at the source
	dgst            digest.Digest
}

// ref is what goes: the tag, or the digest of an image.
func (d doom) ref() string {
	if d.tag != "" {
		return d.tag
	}
	return string(d.dgst)
}

// doom counts what may go, and keeps what is to.
func (y *syncer) doom(goes bool, d doom) {
	y.seen++
	if !goes {
		return
	}
	if y.going++; y.going <= y.maxDelete() {
		y.doomed = append(y.doomed, d)
	}
}

func (y *syncer) maxDelete() int { return orDefault(y.o.Delete.Max, 100) }

// delete removes tags and then images, an index before what it lists.
func (y *syncer) delete(ctx context.Context) error {
	share := y.o.Delete.MaxShare
	if share <= 0 {
		share = 0.5
	}
	if y.going > y.maxDelete() || float64(y.going) > share*float64(y.seen) {
		return &Error{Op: "sync", Side: SideTarget, Err: &DeleteLimitError{y.going, y.seen, y.maxDelete(), share}}
	}
	conflicts := map[doom]error{}
	for left := y.doomed; len(left) > 0; left = slices.Collect(maps.Keys(conflicts)) {
		clear(conflicts)
		for _, d := range left {
			has, err := y.has(ctx, d)
			if err == nil && !has {
				err = y.remove(ctx, d)
			}
			switch {
			case has: // since it was listed
			case ctx.Err() != nil:
				return context.Cause(ctx)
			case errors.Is(err, manifest.ErrConflict) && d.tag == "":
				conflicts[d] = err
			case errors.Is(err, manifest.ErrConflict), manifest.IsNotFound(err): // moved, or gone, since
			case err != nil:
				y.failure(d.repo, d.ref(), err)
			case d.tag != "":
				y.report.Deleted++
				y.changed(TagDeleted, d.repo, d.ref(), d.dgst, "")
			default:
				y.report.DeletedImages++
				y.changed(TagDeleted, d.repo, d.ref(), d.dgst, "")
			}
		}
		if len(conflicts) == len(left) { // listed by what stays
			for d, err := range conflicts {
				y.failure(d.repo, d.ref(), err)
			}
			break
		}
	}
	return nil
}

// has tells whether the source has by now what is to go.
func (y *syncer) has(ctx context.Context, d doom) (bool, error) {
	err := y.c.try(ctx, func() error {
		if d.tag != "" {
			_, err := y.src.Manifests.Resolve(ctx, d.from, d.tag)
			return err
		}
		_, err := y.src.Manifests.Get(ctx, d.from, d.dgst)
		return err
	})
	if manifest.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, &Error{Op: "look for", Side: SideSource, Repo: d.from, Object: d.ref(), Err: err}
	}
	return true, nil
}

func (y *syncer) remove(ctx context.Context, d doom) error {
	if y.o.DryRun {
		return nil
	}
	err := y.c.try(ctx, func() error {
		if d.tag != "" {
			return y.remover.Untag(ctx, d.repo, d.tag, d.dgst)
		}
		_, err := y.remover.Delete(ctx, d.repo, manifest.ImageID{Digest: d.dgst})
		return err
	})
	if err != nil {
		return &Error{Op: "delete", Side: SideTarget, Repo: d.repo, Object: d.ref(), Err: err}
	}
	return nil
}
