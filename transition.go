package wharfage

import (
	"context"
	"errors"
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
	mayMove := p.MoveTag
	p.MoveTag = func(ctx context.Context, repo, tag string, from, to digest.Digest) error {
		if mayMove != nil {
			if err := mayMove(ctx, repo, tag, from, to); err != nil {
				return err
			}
		}
		t := Transition{ActionUpdate, tag, from, to}
		if from == manifest.Absent {
			t.Action, t.Old = ActionCreate, ""
		}
		return h.denied(r, h.AuthorizeChange(r, repo, t))
	}
	return nil
}

// maxRaces bounds how often a deletion is judged again. Each time somebody else
// has moved a tag in between.
const maxRaces = 100

// deleteAuthorized applies a deletion of one tag or one manifest after
// AuthorizeChange has seen what goes. The Change holds it to that: when it is no longer
// so at commit, the hook is asked again.
func (h *Handler) deleteAuthorized(r *http.Request, repo string, c manifest.Change) (manifest.Change, error) {
	ctx := r.Context()
	if c.Tags != nil && c.Tags[0].From == manifest.Absent {
		return c, h.Manifests.Apply(ctx, repo, c) // removes nothing
	}
	asked := c
	for race := 0; ; race++ {
		c = asked
		var goes []Transition
		if asked.Delete != nil {
			dgst := asked.Delete[0].Digest
			c.Tags = nil
			for t, err := range h.Manifests.Tags(ctx, repo, "") {
				if err != nil {
					return c, err
				}
				if t.Digest == dgst {
					c.Tags = append(c.Tags, manifest.TagMove{Name: t.Name, From: dgst})
					goes = append(goes, Transition{Action: ActionDelete, Tag: t.Name, Old: dgst})
				}
			}
			removal := asked.Delete[0]
			removal.IfUntagged = true
			c.Delete = []manifest.Removal{removal}
			goes = append(goes, Transition{Action: ActionDelete, Old: dgst})
			stored, err := manifest.Stat(ctx, h.Manifests, repo, []digest.Digest{dgst})
			if err != nil {
				return c, err
			}
			if stored[0].Digest == "" {
				return c, &manifest.Error{Op: "delete", Repo: repo, Object: string(dgst), Err: manifest.ErrNotFound}
			}
		} else {
			t, err := h.Manifests.Resolve(ctx, repo, asked.Tags[0].Name)
			if err != nil {
				return c, err
			}
			move := asked.Tags[0]
			if move.From == "" {
				move.From = t.Digest
			}
			c.Tags = []manifest.TagMove{move}
			goes = append(goes, Transition{Action: ActionDelete, Tag: t.Name, Old: t.Digest})
		}
		for _, t := range goes {
			if err := h.denied(r, h.AuthorizeChange(r, repo, t)); err != nil {
				return c, err
			}
		}
		err := h.Manifests.Apply(ctx, repo, c)
		conflict, isConflict := errors.AsType[*manifest.ConflictError](err)
		raced := manifest.IsNotFound(err) || isConflict && conflict.Tag != "" && (asked.Tags == nil || asked.Tags[0].From == "")
		if !raced || race == maxRaces {
			return c, err
		}
	}
}
