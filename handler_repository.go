package wharfage

import (
	"context"
	"errors"
	"net/http"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/repository"
)

// admit says why a request may not go to its repository, which a push may make,
// and notes in rt what is set for it.
func (h *Handler) admit(r *http.Request, rt *route, a Action) error {
	if h.Repositories == nil || rt.repo == "" {
		return nil
	}
	makes := rt.kind == routeUploads || rt.kind == routeManifest
	if a != ActionPush || !makes {
		_, err := h.Repositories.Get(r.Context(), rt.repo)
		if a == ActionPull && rt.kind != routeTags && errors.Is(err, repository.ErrNotFound) && h.Upstream != nil && h.Upstream(rt.repo) {
			return nil
		}
		return err
	}
	repo, _, err := h.Repositories.Ensure(r.Context(), rt.repo, repository.CausePush, func(repository.Settings) error {
		if h.Authorize == nil {
			return nil
		}
		return h.denied(r, h.Authorize(r, rt.repo, ActionCreateRepository))
	})
	rt.mutability = repo.Mutability()
	return err
}

// denied makes an error of a hook one that is answered as a refusal.
func (h *Handler) denied(r *http.Request, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*AuthError](err); !ok {
		h.tell(r, err)
		return &AuthError{}
	}
	return err
}

// checkQuotas says whether a push would bring more than Limits allow. A push of
// what is there already brings nothing.
func (h *Handler) checkQuotas(ctx context.Context, repo string, in *manifest.PushRequest) error {
	if h.Limits.Images <= 0 && h.Limits.TagsPerImage <= 0 {
		return nil
	}
	dgst := in.Digest
	if dgst == "" {
		dgst = manifest.Digest(digest.SHA256, in.Raw)
	}
	more := 0
	if h.Limits.TagsPerImage > 0 {
		for i, tag := range in.Tags {
			t, err := h.Manifests.Resolve(ctx, repo, tag)
			if err != nil && !manifest.IsNotFound(err) {
				return err
			}
			if t.Digest != dgst && !slices.Contains(in.Tags[:i], tag) {
				more++
			}
		}
	}
	stored, err := manifest.Stat(ctx, h.Manifests, repo, []digest.Digest{dgst})
	if err != nil {
		return err
	}
	isNew := h.Limits.Images > 0 && stored[0].Digest == ""
	if !isNew && more == 0 {
		return nil
	}
	images, tags, err := manifest.Count(ctx, h.Manifests, repo, dgst)
	switch {
	case err != nil:
		return err
	case isNew && images >= h.Limits.Images:
		return &repository.QuotaError{Quota: repository.QuotaImages, Limit: h.Limits.Images}
	case more > 0 && tags+more > h.Limits.TagsPerImage:
		return &repository.QuotaError{Quota: repository.QuotaTags, Limit: h.Limits.TagsPerImage}
	}
	return nil
}
