package replication

import (
	"context"
	"errors"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/manifest"
)

// referrerLists are what refers to one subject at the source, by whether the target
// lists it too.
type referrerLists struct{ missing, present []ocispec.Descriptor }

func (l *referrerLists) empty() bool { return len(l.missing)+len(l.present) == 0 }

// followReferrers copies what refers to the manifests that were reached, level by
// level: so a subject is there before its referrers, also if one of these lists
// a manifest that is above another's subject.
func (r *run) followReferrers(ctx context.Context) error {
	for depth := 1; r.o.Referrers < 0 || depth <= r.o.Referrers; depth++ {
		subjects := r.reached
		r.reached = nil
		if len(subjects) == 0 {
			return nil
		}
		if limit := orDefault(r.c.MaxDepth, 100); depth > limit {
			return r.overBudget("referrers of referrers", limit)
		}
		last := depth == r.o.Referrers
		err := r.each(ctx, len(subjects), func(ctx context.Context, i int) error {
			subject := subjects[i].Digest
			lists := r.lists
			if subject != r.result.Root.Digest || lists == nil {
				var err error
				if lists, err = r.listReferrers(ctx, subject); err != nil {
					return err
				}
			}
			return r.each(ctx, len(lists.present)+len(lists.missing), func(ctx context.Context, i int) error {
				if i >= len(lists.present) {
					return r.referrer(ctx, lists.missing[i-len(lists.present)], step{subject: subject})
				}
				desc := lists.present[i]
				if last && !r.o.Verify {
					_, err := r.visit(desc, true)
					r.settle(desc, true, EventPresent)
					return err
				}
				return r.referrer(ctx, desc, step{subject: subject, present: true})
			})
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// referrer copies what is listed, and leaves out what is gone since or was never a
// referrer: lists of the tag schema have such entries.
func (r *run) referrer(ctx context.Context, desc ocispec.Descriptor, at step) error {
	err := r.manifest(ctx, desc, at)
	gone, ok := errors.AsType[*Error](err)
	if errors.Is(err, errNoReferrer) || ok && gone.Op == "get" && gone.Object == string(desc.Digest) && manifest.IsNotFound(err) {
		r.skip(desc, true, err)
		return nil
	}
	return err
}

// listReferrers asks both sides at once.
func (r *run) listReferrers(ctx context.Context, subject digest.Digest) (*referrerLists, error) {
	var all []ocispec.Descriptor
	there := map[digest.Digest]bool{}
	err := r.each(ctx, 2, func(ctx context.Context, i int) (err error) {
		if i == 0 {
			all, err = r.listSource(ctx, subject)
			return r.fail("list referrers of", SideSource, string(subject), err)
		}
		if r.dst.Referrers == nil {
			return nil
		}
		err = r.c.try(ctx, func() error {
			n := 0
			for desc, err := range r.dst.Referrers.Referrers(ctx, r.to, subject, r.artifactType(), "") {
				if err != nil {
					return err
				}
				if n++; n > r.maxObjects() {
					return r.overBudget("referrers", r.maxObjects())
				}
				there[desc.Digest] = true
			}
			return ctx.Err()
		})
		return r.fail("list referrers of", SideTarget, string(subject), err)
	})
	if err == nil && r.dst.Referrers == nil && r.stater != nil {
		err = r.statAll(ctx, all, there)
	}
	if err != nil {
		return nil, err
	}
	lists := &referrerLists{}
	for _, desc := range all {
		if there[desc.Digest] {
			lists.present = append(lists.present, desc)
		} else {
			lists.missing = append(lists.missing, desc)
		}
	}
	return lists, nil
}

func (r *run) listSource(ctx context.Context, subject digest.Digest) (all []ocispec.Descriptor, err error) {
	if r.src.Referrers == nil {
		return nil, nil
	}
	err = r.c.try(ctx, func() error {
		all = nil
		n := 0
		for desc, err := range r.src.Referrers.Referrers(ctx, r.from, subject, r.artifactType(), "") {
			if err != nil {
				return err
			}
			if n++; n > r.maxObjects() {
				return r.overBudget("referrers", r.maxObjects())
			}
			if r.o.Filter.Match(desc) {
				all = append(all, ocispec.Descriptor{MediaType: desc.MediaType, Digest: desc.Digest, Size: desc.Size, ArtifactType: desc.ArtifactType})
			}
		}
		return ctx.Err()
	})
	return all, err
}

// artifactType lets the registry filter, if it can.
func (r *run) artifactType() string {
	if len(r.o.Filter.ArtifactTypes) == 1 {
		return r.o.Filter.ArtifactTypes[0]
	}
	return ""
}

// statAll asks a target that lists no referrers.
func (r *run) statAll(ctx context.Context, all []ocispec.Descriptor, there map[digest.Digest]bool) error {
	for some := range slices.Chunk(all, 100) {
		dgsts := make([]digest.Digest, len(some))
		for i, desc := range some {
			dgsts[i] = desc.Digest
		}
		err := r.c.try(ctx, func() error {
			descs, err := r.stater.Stat(ctx, r.to, dgsts)
			for _, desc := range descs {
				there[desc.Digest] = true
			}
			return err
		})
		if err != nil {
			return r.fail("look for", SideTarget, string(dgsts[0]), err)
		}
	}
	return nil
}
