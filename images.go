package wharfage

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/lifecycle"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/referrers"
)

// Images answers what people ask about the images of a repository: ECR's
// DescribeImages, ListImages and ListImageReferrers. Only Manifests is required.
// [Handler.Images] makes one.
//
// Every manifest is an image, also an index, a child of one, and an artifact.
// Listings are by digest. What changes meanwhile may be seen or not. Tags are read
// first, so that an image that comes later is told without them, and counts as
// untagged. A failure of a store is an error, and never a shorter answer.
type Images struct {
	Manifests manifest.Reader

	// Blobs tells sizes to Describe and Usage, without touching what it lists. nil leaves sizes of
	// listings 0; Find reads them in the documents.
	Blobs blob.Lister

	Activity lifecycle.Activity // last pulls; nil tells none

	// Referrers is where referrers are listed from. nil means Manifests, if it is
	// an Index too, else a scan of it.
	Referrers referrers.Index

	Scans    bool   // tell results of scans, which costs Describe another pass over the manifests
	Registry string // in answers; registryId of ECR
}

// Images returns the Images of h, without last pulls and scans, which are yours
// to set.
func (h *Handler) Images() *Images {
	return &Images{Manifests: h.Manifests, Blobs: h.Blobs, Referrers: h.Referrers}
}

// ImageID names an image by digest, by tag, or by both.
type ImageID struct {
	Digest digest.Digest `json:"imageDigest,omitempty"`
	Tag    string        `json:"imageTag,omitempty"`
}

// ImageStatus says whether an image can be pulled, in the words of ECR's API.
type ImageStatus string

// The statuses there are.
const (
	ImageActive     ImageStatus = "ACTIVE"
	ImageArchived   ImageStatus = "ARCHIVED"
	ImageActivating ImageStatus = "ACTIVATING" // on its way out of an archive; no store here knows it
	ImageAny        ImageStatus = "ANY"        // in filters
)

func statusOf(c manifest.StorageClass) ImageStatus {
	if c == manifest.Archive {
		return ImageArchived
	}
	return ImageActive
}

// TagStatus selects images by whether they have a tag, in the words of ECR's
// API.
type TagStatus string

// The tag statuses there are.
const (
	Tagged   TagStatus = "TAGGED"
	Untagged TagStatus = "UNTAGGED"
	TagAny   TagStatus = "ANY"
)

// ImageFilter selects images. The zero ImageFilter selects those that are
// active, as ECR does.
type ImageFilter struct {
	Tags          TagStatus   // "" is TagAny
	Status        ImageStatus // "" is ImageActive
	ArtifactTypes []string    // exactly one of these, as [ImageDetail].ArtifactType tells; none is any
}

// ErrFilter is a filter, or an image ID, that no image can fit.
var ErrFilter = errors.New("invalid filter")

func (f *ImageFilter) check() error {
	if !slices.Contains([]TagStatus{"", Tagged, Untagged, TagAny}, f.Tags) {
		return fmt.Errorf("%w: tag status %s", ErrFilter, quote(string(f.Tags)))
	}
	return f.Status.check()
}

func (s ImageStatus) check() error {
	if !slices.Contains([]ImageStatus{"", ImageActive, ImageArchived, ImageActivating, ImageAny}, s) {
		return fmt.Errorf("%w: image status %s", ErrFilter, quote(string(s)))
	}
	return nil
}

// selects tells whether a filter for s takes an image in class c.
func (s ImageStatus) selects(c manifest.StorageClass) bool {
	return s == ImageAny || statusOf(c) == s || s == "" && statusOf(c) == ImageActive
}

func (f *ImageFilter) selects(rec *manifest.Record, tagged bool) bool {
	return f.Status.selects(rec.StorageClass) &&
		(f.Tags == "" || f.Tags == TagAny || (f.Tags == Tagged) == tagged) &&
		(len(f.ArtifactTypes) == 0 || slices.Contains(f.ArtifactTypes, rec.Desc.ArtifactType))
}

// List lists the images of a repository by digest, then tag: one ID for each
// tag, one without for an image that has none. It starts after the ID after, or
// with the zero ID at the beginning.
//
// It reads all tags once and keeps them in memory, and then the manifests from
// after on. Take a page with [Page].
func (s *Images) List(ctx context.Context, repo string, f ImageFilter, after ImageID) iter.Seq2[ImageID, error] {
	return func(yield func(ImageID, error) bool) {
		if err := s.list(ctx, repo, &f, after, func(id ImageID) bool { return yield(id, nil) }); err != nil {
			yield(ImageID{}, &manifest.Error{Op: "list images of", Repo: repo, Err: err})
		}
	}
}

func (s *Images) list(ctx context.Context, repo string, f *ImageFilter, after ImageID, yield func(ImageID) bool) error {
	tags, err := s.tags(ctx, repo, f)
	if err != nil {
		return err
	}
	ids := func(rec *manifest.Record, tags []string) (more bool) {
		if len(tags) == 0 {
			return yield(ImageID{Digest: rec.Desc.Digest})
		}
		for _, tag := range tags {
			if !yield(ImageID{rec.Desc.Digest, tag}) {
				return false
			}
		}
		return true
	}
	if after.Tag != "" { // the others of that image come first
		at, found := slices.BinarySearch(tags[after.Digest], after.Tag)
		if found {
			at++
		}
		if rest := tags[after.Digest][at:]; len(rest) > 0 {
			rec, err := s.Manifests.Get(ctx, repo, after.Digest)
			switch {
			case manifest.IsNotFound(err):
			case err != nil:
				return err
			case f.selects(&rec, true):
				if !ids(&rec, rest) {
					return nil
				}
			}
		}
	}
	for rec, err := range s.each(ctx, repo, f, tags, after.Digest) {
		if err != nil {
			return err
		}
		if !ids(&rec, tags[rec.Desc.Digest]) {
			return nil
		}
	}
	return nil
}

// each lists the manifests after after that a filter selects.
func (s *Images) each(ctx context.Context, repo string, f *ImageFilter, tags map[digest.Digest][]string, after digest.Digest) iter.Seq2[manifest.Record, error] {
	return func(yield func(manifest.Record, error) bool) {
		for rec, err := range s.Manifests.Manifests(ctx, repo, after) {
			if err == nil && !f.selects(&rec, len(tags[rec.Desc.Digest]) > 0) {
				continue
			}
			if !yield(rec, err) || err != nil {
				return
			}
		}
	}
}

// tags returns the tags of each manifest in order, after a look at what is asked
// for.
func (s *Images) tags(ctx context.Context, repo string, f *ImageFilter) (map[digest.Digest][]string, error) {
	if err := errors.Join(manifest.CheckRepository(repo), f.check()); err != nil {
		return nil, err
	}
	tags := map[digest.Digest][]string{}
	for t, err := range s.Manifests.Tags(ctx, repo, "") {
		if err != nil {
			return nil, err
		}
		tags[t.Digest] = append(tags[t.Digest], t.Name)
	}
	return tags, nil
}

// Page takes the first n items of a listing, and tells whether there are more.
// The last item of a page is where the next begins. An error is returned without
// items.
func Page[T any](listing iter.Seq2[T, error], n int) (items []T, more bool, err error) {
	for item, err := range listing {
		if err != nil {
			return nil, false, err
		}
		if len(items) >= n {
			return items, true, nil
		}
		items = append(items, item)
	}
	return items, false, nil
}

// ImageReferrer is an artifact that refers to an image, in the form of ECR's
// API.
type ImageReferrer struct {
	Digest       digest.Digest     `json:"digest"`
	MediaType    string            `json:"mediaType"`
	ArtifactType string            `json:"artifactType,omitempty"`
	Size         int64             `json:"size"` // of the document
	Annotations  map[string]string `json:"annotations,omitempty"`
	Status       ImageStatus       `json:"artifactStatus"`
}

// ReferrerFilter selects referrers. The zero ReferrerFilter selects those that
// are active, as ECR does.
type ReferrerFilter struct {
	ArtifactTypes []string    // exactly one of these; none is any
	Status        ImageStatus // "" is ImageActive
}

// ImageReferrers lists what refers to an image, by digest, strictly after the
// digest after. The image need not be there. Take a page with [Page]; ECR's have
// 20, and at most 50.
//
// It reads the index, with a single type only entries of that type, and the
// records of the entries that the types select, some at a time, since a list of
// referrers does not tell what is in the archive.
func (s *Images) ImageReferrers(ctx context.Context, repo string, image digest.Digest, f ReferrerFilter, after digest.Digest) iter.Seq2[ImageReferrer, error] {
	return func(yield func(ImageReferrer, error) bool) {
		if err := s.imageReferrers(ctx, repo, image, f, after, func(r ImageReferrer) bool { return yield(r, nil) }); err != nil {
			yield(ImageReferrer{}, &manifest.Error{Op: "list referrers of", Repo: repo, Object: string(image), Err: err})
		}
	}
}

func (s *Images) imageReferrers(ctx context.Context, repo string, image digest.Digest, f ReferrerFilter, after digest.Digest, yield func(ImageReferrer) bool) error {
	if err := errors.Join(manifest.CheckRepository(repo), manifest.CheckDigest(string(image)), f.Status.check()); err != nil {
		return err
	}
	only := ""
	if len(f.ArtifactTypes) == 1 {
		only = f.ArtifactTypes[0]
	}
	selected := func(yield func(ocispec.Descriptor, error) bool) {
		for desc, err := range s.index().Referrers(ctx, repo, image, only, after) {
			if err == nil && len(f.ArtifactTypes) > 0 && !slices.Contains(f.ArtifactTypes, desc.ArtifactType) {
				continue
			}
			if !yield(desc, err) || err != nil {
				return
			}
		}
	}
	digestOf := func(d *ocispec.Descriptor) digest.Digest { return d.Digest }
	size := func(d *ocispec.Descriptor) int { return annotationsSize(d.Annotations) }
	for r, err := range described(ctx, s.Manifests, repo, selected, fewAhead, digestOf, size) {
		if err != nil {
			return err
		}
		d, class := &r.item, r.record.StorageClass
		if f.Status.selects(class) && !yield(ImageReferrer{d.Digest, d.MediaType, d.ArtifactType, d.Size, d.Annotations, statusOf(class)}) {
			return nil
		}
	}
	return nil
}

func (s *Images) index() referrers.Index {
	if s.Referrers != nil {
		return s.Referrers
	}
	if index, ok := s.Manifests.(referrers.Index); ok {
		return index
	}
	return referrers.Scan(s.Manifests)
}

// ImageNotFoundError is an ID that names no image. It unwraps to
// [manifest.ErrNotFound].
type ImageNotFoundError struct {
	ID             ImageID
	Repo, Registry string
}

// Error is in ECR's words, which clients look for.
func (e *ImageNotFoundError) Error() string {
	named := func(s string) string {
		if s == "" {
			s = "null"
		}
		return "'" + strings.ReplaceAll(s, "'", "’") + "'"
	}
	return fmt.Sprintf("The image with imageId {imageDigest:%s, imageTag:%s} does not exist within the repository with name %s in the registry with id %s",
		named(string(e.ID.Digest)), named(e.ID.Tag), named(e.Repo), named(e.Registry))
}

func (e *ImageNotFoundError) Unwrap() error { return manifest.ErrNotFound }
