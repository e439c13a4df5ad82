package manifest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
)

// Deleter is the way out of a [Store]: it removes tags and images, each in one
// Change that names all that goes, so that its event does too. Only Store is
// required. Blobs that nothing needs then, and referrers of what has gone, are
// left to collections (package lifecycle reaps referrers).
type Deleter struct {
	Store Store

	// KeepTag may refuse that a tag is deleted, alone or with the manifest dgst that
	// it names; a deletion then fails with its error, which matches ErrRefused too. Its
	// decision is part of the Change, as that of [Pusher].MoveTag is. nil allows all.
	KeepTag func(ctx context.Context, repo, tag string, dgst digest.Digest) error

	Cause Cause            // of each Change
	Now   func() time.Time // nil means time.Now

	// OnCommit runs after each committed Change, on the caller's goroutine, which
	// waits for it.
	OnCommit func(ctx context.Context, e Event)
}

// ImageID names an image as ECR does: by digest, by tag, or by both. As JSON it
// is ECR's ImageIdentifier.
type ImageID struct {
	Digest digest.Digest `json:"imageDigest,omitempty"`
	Tag    string        `json:"imageTag,omitempty"`
}

// Untag removes a tag and leaves the image, also if that was its last tag: what
// the OCI API does, and ECR cannot. from, if not "", is what the tag must name, else
// *ConflictError.
//
// Errors: ErrName, ErrNotFound, *ConflictError, ErrRefused.
func (d *Deleter) Untag(ctx context.Context, repo, tag string, from digest.Digest) error {
	err := checkNames(repo, tag)
	if err == nil {
		_, err = d.deleteTag(ctx, repo, ImageID{from, tag}, false)
	}
	return deletionError("untag", repo, tag, err)
}

// Delete removes an image by ECR's rules, and returns what went, a tag each. By
// digest, the image goes with all its tags. By tag, with a digest or without, the
// tag goes; the image goes too if that was its last one.
//
// Errors: ErrName, ErrDigest for what is no digest, ErrNotFound, ErrRefused, and
// *ConflictError: with Parent if the image is to go and a manifest lists it, with
// Want and Have if the tag does not name the digest.
func (d *Deleter) Delete(ctx context.Context, repo string, id ImageID) ([]ImageID, error) {
	gone, err := d.delete(ctx, repo, id)
	object := id.Tag
	if object == "" {
		object = string(id.Digest)
	}
	return gone, deletionError("delete", repo, object, err)
}

func (d *Deleter) delete(ctx context.Context, repo string, id ImageID) ([]ImageID, error) {
	if err := CheckRepository(repo); err != nil {
		return nil, err
	}
	if id == (ImageID{}) {
		return nil, errNoID
	}
	if id.Digest != "" {
		if err := CheckContentDigest(string(id.Digest)); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrDigest, err)
		}
	}
	if id.Tag == "" {
		return d.deleteImage(ctx, repo, id.Digest)
	}
	if err := CheckTag(id.Tag); err != nil {
		return nil, err
	}
	dgst, err := d.deleteTag(ctx, repo, id, true)
	if err != nil {
		return nil, err
	}
	return []ImageID{{dgst, id.Tag}}, nil
}

var errNoID = fmt.Errorf("%w: neither a digest nor a tag", ErrName)

func checkNames(repo, tag string) error {
	if err := CheckRepository(repo); err != nil {
		return err
	}
	return CheckTag(tag)
}

func deletionError(op, repo, object string, err error) error {
	if err == nil {
		return nil
	}
	return &Error{Op: op, Repo: repo, Object: object, Err: err}
}

// fewTags are found by asking for the removal, one at a time; more by a listing
// of the repository.
const fewTags = 8

// deleteImage removes a manifest and all its tags. The Change names them, and is
// refused if one has come since.
func (d *Deleter) deleteImage(ctx context.Context, repo string, dgst digest.Digest) ([]ImageID, error) {
	rec, err := d.known(ctx, repo, dgst)
	if err != nil {
		return nil, err
	}
	var tags []string
	for race := 0; ; race++ {
		c := Change{Known: []Record{rec}, Delete: []Removal{{Digest: dgst, IfUntagged: true, IfUnlisted: true}}, Cause: d.Cause, At: d.now()}
		for _, tag := range tags {
			if err := d.keep(ctx, repo, tag, dgst); err != nil {
				return nil, err
			}
			c.Tags = append(c.Tags, TagMove{Name: tag, From: dgst})
		}
		err := d.apply(ctx, repo, c)
		conflict, ok := errors.AsType[*ConflictError](err)
		switch {
		case err == nil && len(tags) == 0:
			return []ImageID{{Digest: dgst}}, nil
		case err == nil:
			gone := make([]ImageID, len(tags))
			for i, tag := range tags {
				gone[i] = ImageID{dgst, tag}
			}
			return gone, nil
		case !ok || conflict.Tag == "" || race == maxRaces:
			return nil, err
		case conflict.Digest == "": // the tag has moved since
			tags = slices.DeleteFunc(tags, func(tag string) bool { return tag == conflict.Tag })
		case len(tags) < fewTags:
			tags = append(tags, conflict.Tag)
		default:
			if tags, err = d.tags(ctx, repo, dgst); err != nil {
				return nil, err
			}
		}
	}
}

func (d *Deleter) tags(ctx context.Context, repo string, dgst digest.Digest) (names []string, err error) {
	for t, err := range d.Store.Tags(ctx, repo, "") {
		if err != nil {
			return nil, err
		}
		if t.Digest == dgst {
			names = append(names, t.Name)
		}
	}
	return names, nil
}

// deleteTag removes a tag, and with last what it names if it has no other. It
// returns what the tag named.
func (d *Deleter) deleteTag(ctx context.Context, repo string, id ImageID, last bool) (digest.Digest, error) {
	for race := 0; ; race++ {
		t, err := d.Store.Resolve(ctx, repo, id.Tag)
		switch {
		case IsNotFound(err) && id.Digest != "" && id.Digest != Absent && !last:
			return "", &ConflictError{Tag: id.Tag, Want: id.Digest, Have: Absent}
		case err != nil:
			return "", err
		case id.Digest != "" && id.Digest != t.Digest:
			return "", &ConflictError{Tag: id.Tag, Want: id.Digest, Have: t.Digest}
		}
		if err := d.keep(ctx, repo, id.Tag, t.Digest); err != nil {
			return "", err
		}
		rec, err := d.known(ctx, repo, t.Digest)
		if IsNotFound(err) && race < maxRaces {
			continue // gone since, with the tag
		}
		if err != nil {
			return "", err
		}
		c := Change{Known: []Record{rec}, Tags: []TagMove{{Name: id.Tag, From: t.Digest}}, Cause: d.Cause, At: d.now()}
		if last {
			c.Delete = []Removal{{Digest: t.Digest, IfUntagged: true, IfUnlisted: true}}
		}
		err = d.apply(ctx, repo, c)
		conflict, ok := errors.AsType[*ConflictError](err)
		if ok && conflict.Digest != "" && conflict.Tag != "" { // another one, which is to stay: two that go at once would leave none
			c.Delete, c.Tags = nil, append(c.Tags, TagMove{Name: conflict.Tag, To: t.Digest, From: t.Digest})
			err = d.apply(ctx, repo, c)
			conflict, ok = errors.AsType[*ConflictError](err)
		}
		if !ok || conflict.Parent != "" || race == maxRaces {
			return t.Digest, err
		}
	}
}

// known returns what is told of a manifest that goes.
func (d *Deleter) known(ctx context.Context, repo string, dgst digest.Digest) (Record, error) {
	rec, err := d.Store.Get(ctx, repo, dgst)
	rec.Raw = nil
	return rec, err
}

func (d *Deleter) keep(ctx context.Context, repo, tag string, dgst digest.Digest) error {
	if d.KeepTag == nil {
		return nil
	}
	if err := d.KeepTag(ctx, repo, tag, dgst); err != nil {
		return fmt.Errorf("tag %s: %w: %w", tag, ErrRefused, err)
	}
	return nil
}

func (d *Deleter) apply(ctx context.Context, repo string, c Change) error {
	err := d.Store.Apply(ctx, repo, c)
	if err == nil && d.OnCommit != nil {
		d.OnCommit(ctx, Event{repo, c})
	}
	return err
}

func (d *Deleter) now() time.Time {
	if d.Now != nil {
		return d.Now()
	}
	return time.Now()
}
