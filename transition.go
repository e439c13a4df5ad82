package wharfage

import (
	"context"
	"net/http"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/manifest"
)

// Transition is what a request does to one tag or manifest, from what there is
// to what will be.
type Transition struct {
	Action   Action        // ActionCreate, ActionUpdate or ActionDelete
	Tag      string        // "" for a manifest, which is never updated
	Old, New digest.Digest // what Tag names, or the manifest itself; "" if there is none
}

// The actions of a [Transition]; the third is [ActionDelete].
const (
	ActionCreate Action = "create" // a tag or a manifest that is not there
	ActionUpdate Action = "update" // a tag that moves to another manifest
)

// authorizePush has AuthorizeChange asked about a push by p: in MoveTag, whose
// decision is part of the Change, about each tag that it makes or moves; without
// tags about a manifest that is not there.
func (h *Handler) authorizePush(r *http.Request, repo string, p *manifest.Pusher, in *manifest.PushRequest) error {
	if h.AuthorizeChange == nil {
		return nil
	}
	if len(in.Tags) == 0 {
		stored, err := manifest.Stat(r.Context(), h.Manifests, repo, []digest.Digest{in.Digest})
		if err != nil || stored[0].Digest != "" {
			return err
		}
		return h.denied(r, h.AuthorizeChange(r, repo, Transition{Action: ActionCreate, New: in.Digest}))
	}
	alsoAsk(p, func(_ context.Context, repo, tag string, from, to digest.Digest) error {
		t := Transition{ActionUpdate, tag, from, to}
		if from == manifest.Absent {
			t.Action, t.Old = ActionCreate, ""
		}
		return h.denied(r, h.AuthorizeChange(r, repo, t))
	})
	return nil
}

// alsoAsk has p ask mayMove about tags when its own MoveTag has allowed a move.
func alsoAsk(p *manifest.Pusher, mayMove func(ctx context.Context, repo, tag string, from, to digest.Digest) error) {
	first := p.MoveTag
	p.MoveTag = func(ctx context.Context, repo, tag string, from, to digest.Digest) error {
		if first != nil {
			if err := first(ctx, repo, tag, from, to); err != nil {
				return err
			}
		}
		return mayMove(ctx, repo, tag, from, to)
	}
}

// authorizeDelete has AuthorizeChange asked about a deletion by d: in KeepTag,
// whose decision is part of the Change, about each tag that goes; before that
// about the manifest that is to go, if it is there.
func (h *Handler) authorizeDelete(r *http.Request, rt route, d *manifest.Deleter) error {
	if h.AuthorizeChange == nil {
		return nil
	}
	mayGo := d.KeepTag
	d.KeepTag = func(ctx context.Context, repo, tag string, dgst digest.Digest) error {
		if mayGo != nil {
			if err := mayGo(ctx, repo, tag, dgst); err != nil {
				return err
			}
		}
		return h.denied(r, h.AuthorizeChange(r, repo, Transition{Action: ActionDelete, Tag: tag, Old: dgst}))
	}
	if !isDigest(rt.ref) {
		return nil
	}
	dgst := digest.Digest(rt.ref)
	stored, err := manifest.Stat(r.Context(), h.Manifests, rt.repo, []digest.Digest{dgst})
	if err != nil || stored[0].Digest == "" {
		return err
	}
	return h.denied(r, h.AuthorizeChange(r, rt.repo, Transition{Action: ActionDelete, Old: dgst}))
}
