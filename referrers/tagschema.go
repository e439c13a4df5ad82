package referrers

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/manifest"
)

// FallbackTag returns the tag under which clients keep the referrers of subject
// in a registry that has no referrers API (distribution-spec, "Referrers Tag
// Schema"). Digests longer than 64 characters are cut, so two of sha512 may
// share a tag.
func FallbackTag(subject digest.Digest) string {
	const maxAlgorithm, maxEncoded = 32, 64
	algorithm, encoded, _ := strings.Cut(string(subject), ":")
	algorithm = algorithm[:min(len(algorithm), maxAlgorithm)]
	encoded = encoded[:min(len(encoded), maxEncoded)]
	return strings.Map(func(c rune) rune {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '_', c == '.':
			return c
		}
		return '-'
	}, algorithm+"-"+encoded)
}

// TagStore is what [TagSchema] needs of a registry.
type TagStore interface {
	// GetTag returns the manifest that tag names, with the digest and the media
	// type it has in desc; the implementer has verified the digest. It returns
	// manifest.ErrNotFound if there is no such tag, and for nothing else.
	GetTag(ctx context.Context, repo, tag string) (desc ocispec.Descriptor, raw []byte, err error)

	// PutTag stores raw as an image index and points tag at it, if tag still
	// names old, which is [manifest.Absent] or a digest that GetTag returned;
	// else it returns manifest.ErrConflict and changes nothing. Over a registry without
	// conditional requests an implementer can only ignore old, and then loses
	// entries when clients race.
	PutTag(ctx context.Context, repo, tag string, raw []byte, old digest.Digest) error
}

// TagSchema keeps lists of referrers under tags, as clients do for registries
// without the referrers API. It implements [Index].
//
// A tag that names anything but an image index is never written to: methods
// then fail with an error that matches [manifest.ErrInvalid].
type TagSchema struct {
	Tags TagStore

	// Attempts is how often a change is tried when others change the same list
	// meanwhile; 0 means 100. Afterwards Add and Remove fail with
	// manifest.ErrConflict, and have changed nothing.
	Attempts int
}

var _ Index = (*TagSchema)(nil)

// List returns the referrers of subject in ascending order of digest, each
// once, with what their entries say: ArtifactType and Annotations may be
// missing where another client left them out. No list is an empty one.
func (s *TagSchema) List(ctx context.Context, repo string, subject digest.Digest) ([]ocispec.Descriptor, error) {
	index, _, err := s.read(ctx, repo, FallbackTag(subject))
	return index.Manifests, err
}

// Referrers implements [Index]. It reads the list once, when the loop begins.
func (s *TagSchema) Referrers(ctx context.Context, repo string, subject digest.Digest, artifactType string, after digest.Digest) iter.Seq2[ocispec.Descriptor, error] {
	return func(yield func(ocispec.Descriptor, error) bool) {
		list, err := s.List(ctx, repo, subject)
		if err != nil {
			yield(ocispec.Descriptor{}, err)
			return
		}
		for _, desc := range list {
			if desc.Digest > after && hasType(desc, artifactType) && !yield(desc, nil) {
				return
			}
		}
	}
}

// Add puts desc on the list of subject. Desc.ArtifactType and Desc.Annotations
// are to be those of the manifest, as [manifest.Record] has them. An entry with
// that digest is left as it is.
func (s *TagSchema) Add(ctx context.Context, repo string, subject digest.Digest, desc ocispec.Descriptor) error {
	return s.change(ctx, repo, subject, func(list []ocispec.Descriptor, i int, found bool) []ocispec.Descriptor {
		if found {
			return nil
		}
		return slices.Insert(list, i, desc)
	}, desc.Digest)
}

// Remove takes the manifest dgst off the list of subject. That it is not there
// is a success. The list stays, even when it is empty.
func (s *TagSchema) Remove(ctx context.Context, repo string, subject, dgst digest.Digest) error {
	return s.change(ctx, repo, subject, func(list []ocispec.Descriptor, i int, found bool) []ocispec.Descriptor {
		if !found {
			return nil
		}
		return slices.Delete(list, i, i+1)
	}, dgst)
}

// change reads the list, edits it and writes it back, until nobody was faster.
// edit gets the place of dgst in the list, and returns nil to leave it.
func (s *TagSchema) change(ctx context.Context, repo string, subject digest.Digest, edit func(list []ocispec.Descriptor, i int, found bool) []ocispec.Descriptor, dgst digest.Digest) error {
	tag := FallbackTag(subject)
	attempts := s.Attempts
	if attempts == 0 {
		attempts = 100
	}
	for {
		index, old, err := s.read(ctx, repo, tag)
		if err != nil {
			return err
		}
		i, found := slices.BinarySearchFunc(index.Manifests, dgst, compareDigest)
		list := edit(index.Manifests, i, found)
		if list == nil {
			return nil
		}
		index.Manifests = list
		raw, err := json.Marshal(index) // the same list has the same bytes: members in order, map keys sorted
		if err == nil && len(raw) > manifest.MaxSize {
			err = fmt.Errorf("%w: the list would have %d bytes, the limit is %d", manifest.ErrTooLarge, len(raw), manifest.MaxSize)
		}
		if err == nil {
			err = s.Tags.PutTag(ctx, repo, tag, raw, old)
		}
		if err == nil {
			return nil
		}
		if attempts--; attempts <= 0 || !errors.Is(err, manifest.ErrConflict) {
			return &manifest.Error{Op: "write referrers list", Repo: repo, Object: tag, Err: err}
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

// read returns the list under tag, sorted and without repetition, and the
// digest that the tag names.
func (s *TagSchema) read(ctx context.Context, repo, tag string) (ocispec.Index, digest.Digest, error) {
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: manifest.MediaTypeIndex, Manifests: []ocispec.Descriptor{}}
	fail := func(err error) (ocispec.Index, digest.Digest, error) {
		return ocispec.Index{}, "", &manifest.Error{Op: "read referrers list", Repo: repo, Object: tag, Err: err}
	}
	desc, raw, err := s.Tags.GetTag(ctx, repo, tag)
	if manifest.IsNotFound(err) {
		return index, manifest.Absent, nil
	}
	if err != nil {
		return fail(err)
	}
	m, err := manifest.Parse(desc.MediaType, raw)
	if err != nil {
		return fail(err)
	}
	if m.MediaType != manifest.MediaTypeIndex {
		return fail(fmt.Errorf("%w: is no image index, but %q", manifest.ErrInvalid, m.MediaType))
	}
	index.ArtifactType, index.Annotations = m.ArtifactType, m.Annotations()
	if !m.Subject.IsZero() {
		subject := m.Subject.OCI()
		index.Subject = &subject
	}
	for _, d := range m.Manifests {
		index.Manifests = append(index.Manifests, d.OCI())
	}
	slices.SortStableFunc(index.Manifests, func(a, b ocispec.Descriptor) int { return compareDigest(a, b.Digest) })
	index.Manifests = slices.CompactFunc(index.Manifests, func(a, b ocispec.Descriptor) bool { return a.Digest == b.Digest })
	return index, desc.Digest, nil
}

func compareDigest(desc ocispec.Descriptor, dgst digest.Digest) int {
	return cmp.Compare(desc.Digest, dgst)
}
