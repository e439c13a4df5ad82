package referrers

import (
	"context"
	"errors"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/manifest"
)

// StoreTags is a [TagStore] over a manifest store. Clients that race lose
// nothing. A list that another replaces is deleted, unless it has a tag of its
// own or an index lists it.
type StoreTags struct {
	Store manifest.Store
	Now   func() time.Time // nil means time.Now
}

// GetTag implements [TagStore].
func (s StoreTags) GetTag(ctx context.Context, repo, tag string) (ocispec.Descriptor, []byte, error) {
	var last manifest.Tag
	for {
		t, err := s.Store.Resolve(ctx, repo, tag)
		if err != nil {
			return ocispec.Descriptor{}, nil, err
		}
		rec, err := s.Store.Get(ctx, repo, t.Digest)
		if manifest.IsNotFound(err) && (t.Digest != last.Digest || !t.MovedAt.Equal(last.MovedAt)) { // replaced since Resolve, maybe by what it was before
			last = t
			continue
		}
		if manifest.IsNotFound(err) { // not to be taken for a tag that is not there
			return ocispec.Descriptor{}, nil, errors.New("the tag names a manifest that is not there")
		}
		return rec.Desc, rec.Raw, err
	}
}

// PutTag implements [TagStore].
func (s StoreTags) PutTag(ctx context.Context, repo, tag string, raw []byte, old digest.Digest) error {
	m, err := manifest.Parse(manifest.MediaTypeIndex, raw)
	if err != nil {
		return err
	}
	now := s.Now
	if now == nil {
		now = time.Now
	}
	dgst := manifest.Digest(digest.SHA256, raw)
	c := manifest.Change{
		Put:  []manifest.Record{m.Record(dgst, raw)},
		Tags: []manifest.TagMove{{Name: tag, To: dgst, From: old}},
		At:   now(),
	}
	if old != manifest.Absent && old != dgst {
		c.Delete = []manifest.Removal{{Digest: old, IfUntagged: true, IfUnlisted: true}}
	}
	err = s.Store.Apply(ctx, repo, c)
	if conflict := (*manifest.ConflictError)(nil); errors.As(err, &conflict) && conflict.Digest == old {
		c.Delete = nil
		err = s.Store.Apply(ctx, repo, c)
	}
	return err
}
