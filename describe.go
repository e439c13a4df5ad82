package wharfage

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/internal/epoch"
	"github.com/wharfage/wharfage/lifecycle"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/scan"
)

// ImageDetail is what is known of an image. A zero time is one that is not
// known, or that never was.
type ImageDetail struct {
	Registry, Repo string
	Digest         digest.Digest
	Tags           []string // in order
	MediaType      string   // of the manifest
	ArtifactType   string   // its own, else the type of its config; "" for an index without

	// Size is ECR's imageSizeInBytes: the config and the layers, each once; of an
	// index that of its largest child. It sums up to more than is stored, and for an
	// index to less.
	Size int64
	// StoredSize is what is stored for the image: its document, its blobs, and
	// those of all its children, each once.
	StoredSize int64
	// Incomplete tells that something which the image names is not in the
	// repository, as foreign layers are and the children of sparse indexes, and is
	// not counted.
	Incomplete bool

	PushedAt   time.Time // first push
	PulledAt   time.Time // last recorded pull
	Subject    digest.Digest
	Status     ImageStatus
	ArchivedAt time.Time
	RestoredAt time.Time

	Scan *scan.Result // the last one; nil if there is none, or nobody asked
}

// MarshalJSON writes the detail as an ImageDetail of ECR's API, with times in seconds
// since 1970. StoredSize and Incomplete are not part of that.
func (d ImageDetail) MarshalJSON() ([]byte, error) {
	type status struct {
		Status      scan.Status `json:"status"`
		Description string      `json:"description,omitempty"`
	}
	type summary struct {
		CompletedAt     epoch.Time            `json:"imageScanCompletedAt,omitzero"`
		SourceUpdatedAt epoch.Time            `json:"vulnerabilitySourceUpdatedAt,omitzero"`
		Counts          map[scan.Severity]int `json:"findingSeverityCounts"`
	}
	out := struct {
		Registry     string        `json:"registryId,omitempty"`
		Repo         string        `json:"repositoryName"`
		Digest       digest.Digest `json:"imageDigest"`
		Tags         []string      `json:"imageTags,omitempty"`
		Size         int64         `json:"imageSizeInBytes,omitempty"`
		PushedAt     epoch.Time    `json:"imagePushedAt,omitzero"`
		ScanStatus   *status       `json:"imageScanStatus,omitempty"`
		ScanSummary  *summary      `json:"imageScanFindingsSummary,omitempty"`
		MediaType    string        `json:"imageManifestMediaType"`
		ArtifactType string        `json:"artifactMediaType,omitempty"`
		PulledAt     epoch.Time    `json:"lastRecordedPullTime,omitzero"`
		Subject      digest.Digest `json:"subjectManifestDigest,omitempty"`
		Status       ImageStatus   `json:"imageStatus"`
		ArchivedAt   epoch.Time    `json:"lastArchivedAt,omitzero"`
		RestoredAt   epoch.Time    `json:"lastActivatedAt,omitzero"`
	}{
		Registry: d.Registry, Repo: d.Repo, Digest: d.Digest, Tags: d.Tags, Size: d.Size, PushedAt: epoch.Time{Time: d.PushedAt}, MediaType: d.MediaType, ArtifactType: d.ArtifactType,
		PulledAt: epoch.Time{Time: d.PulledAt}, Subject: d.Subject, Status: d.Status, ArchivedAt: epoch.Time{Time: d.ArchivedAt}, RestoredAt: epoch.Time{Time: d.RestoredAt},
	}
	if d.Scan != nil {
		out.ScanStatus = &status{d.Scan.Status, d.Scan.Description}
		if d.Scan.Counts != nil {
			out.ScanSummary = &summary{epoch.Time{Time: d.Scan.CompletedAt}, epoch.Time{Time: d.Scan.SourceUpdatedAt}, d.Scan.Counts}
		}
	}
	return json.Marshal(out)
}

func (s *Images) detail(repo string, rec *manifest.Record, tags []string) ImageDetail {
	return ImageDetail{
		Registry: s.Registry, Repo: repo, Digest: rec.Desc.Digest, Tags: tags, MediaType: rec.Desc.MediaType, ArtifactType: rec.Desc.ArtifactType,
		PushedAt: rec.PushedAt, Subject: rec.Subject, Status: statusOf(rec.StorageClass), ArchivedAt: rec.ArchivedAt, RestoredAt: rec.RestoredAt,
	}
}

// Describe lists details of the images of a repository, by digest, strictly
// after the digest after.
//
// It makes one pass over the tags and one over the blobs, whose names stay in
// memory, and then one over the manifests and the pulls from after on, some at a
// time. What these manifests list as indexes is looked up in two steps for each
// level, or more if that is long ([manifest.Stat], [manifest.Describe]). If Scans is
// set, it makes another pass over all manifests. No image costs a read of its own.
func (s *Images) Describe(ctx context.Context, repo string, f ImageFilter, after digest.Digest) iter.Seq2[ImageDetail, error] {
	return func(yield func(ImageDetail, error) bool) {
		if err := s.describe(ctx, repo, f, after, func(d ImageDetail) bool { return yield(d, nil) }); err != nil {
			yield(ImageDetail{}, &manifest.Error{Op: "describe images of", Repo: repo, Err: err})
		}
	}
}

func (s *Images) describe(ctx context.Context, repo string, f ImageFilter, after digest.Digest, yield func(ImageDetail) bool) error {
	tags, err := s.tags(ctx, repo, &f)
	if err != nil {
		return err
	}
	pulled, stop := s.pulls(ctx, repo, after)
	defer stop()
	sizes, err := s.blobSizes(ctx, repo)
	if err != nil {
		return err
	}
	var scans map[digest.Digest]*scan.Result
	for recs, err := range ahead(s.each(ctx, repo, &f, tags, after), fewAhead, sizeOf) {
		if err == nil && s.Blobs != nil {
			err = s.below(ctx, repo, recs, sizes)
		}
		if err == nil && s.Scans && scans == nil {
			scans, err = s.scans(ctx, repo)
		}
		if err != nil {
			return err
		}
		for i := range recs {
			d := s.detail(repo, &recs[i], tags[recs[i].Desc.Digest])
			if s.Blobs != nil {
				d.Size, d.StoredSize, d.Incomplete = sizes.of(&recs[i])
			}
			d.Scan = scans[d.Digest]
			if d.PulledAt, err = pulled(d.Digest); err != nil {
				return err
			}
			if !yield(d) {
				return nil
			}
		}
	}
	return nil
}

// blobSizes reads the sizes of all blobs.
func (s *Images) blobSizes(ctx context.Context, repo string) (*sizes, error) {
	z := newSizes()
	if s.Blobs == nil {
		return z, nil
	}
	for info, err := range s.Blobs.Blobs(ctx, repo, "") {
		if err != nil {
			return nil, err
		}
		z.blob(info.Digest, info.Size)
	}
	return z, nil
}

// below reads what manifests list, and what that lists, into sizes.
func (s *Images) below(ctx context.Context, repo string, recs []manifest.Record, sizes *sizes) error {
	asked := map[digest.Digest]bool{}
	for len(recs) > 0 {
		var level []digest.Digest
		for _, rec := range recs {
			for _, child := range rec.Manifests {
				if _, known := sizes.nodes[child]; !known && !asked[child] && canBeStored(child) {
					asked[child] = true
					level = append(level, child)
				}
			}
		}
		recs = nil
		const most, mostBytes = 1000, 4 << 20 // in one step
		for dgsts := range slices.Chunk(level, most) {
			stored, err := manifest.Stat(ctx, s.Manifests, repo, dgsts)
			if err != nil {
				return err
			}
			for len(dgsts) > 0 {
				n, bytes := 1, stored[0].Size
				for n < len(dgsts) && bytes+stored[n].Size <= mostBytes {
					bytes += stored[n].Size
					n++
				}
				found, err := manifest.Describe(ctx, s.Manifests, repo, dgsts[:n])
				if err != nil {
					return err
				}
				for _, rec := range found {
					if rec.Desc.Digest != "" {
						sizes.add(&rec)
						recs = append(recs, manifest.Record{Manifests: rec.Manifests})
					}
				}
				dgsts, stored = dgsts[n:], stored[n:]
			}
		}
	}
	return nil
}

// canBeStored tells whether a store may be asked for a manifest: an index names what it
// likes.
func canBeStored(d digest.Digest) bool { return manifest.CheckContentDigest(string(d)) == nil }

// scans reads the last results of scans out of all manifests.
func (s *Images) scans(ctx context.Context, repo string) (map[digest.Digest]*scan.Result, error) {
	scans := map[digest.Digest]*scan.Result{}
	for rec, err := range s.Manifests.Manifests(ctx, repo, "") {
		if err != nil {
			return nil, err
		}
		if rec.Subject == "" {
			continue
		}
		if r, ok := scan.ResultOf(repo, rec.Subject, rec.Desc); ok {
			scans[rec.Subject] = later(scans[rec.Subject], &r)
		}
	}
	return scans, nil
}

func later(a, b *scan.Result) *scan.Result {
	if a != nil && a.CompletedAt.After(b.CompletedAt) {
		return a
	}
	return b
}

// pulls returns a function that is to be asked for digests in ascending order.
func (s *Images) pulls(ctx context.Context, repo string, after digest.Digest) (last func(digest.Digest) (time.Time, error), stop func()) {
	if s.Activity == nil {
		return func(digest.Digest) (time.Time, error) { return time.Time{}, nil }, func() {}
	}
	next, stop := iter.Pull2(s.Activity.Pulls(ctx, repo, after))
	var p lifecycle.Pull
	more := true
	return func(d digest.Digest) (time.Time, error) {
		for more && p.Digest < d {
			var err error
			if p, err, more = next(); more && err != nil {
				return time.Time{}, err
			}
		}
		if more && p.Digest == d {
			return p.At, nil
		}
		return time.Time{}, nil
	}, stop
}

// Find describes images by their IDs, each once, in the order of first mention,
// whatever their status. It reads all tags and pulls once, and the documents of
// these images and of the children of indexes.
//
// Errors: *ImageNotFoundError for the first ID that names none, also if its
// digest and its tag do not go together; ErrFilter for one without both.
func (s *Images) Find(ctx context.Context, repo string, ids ...ImageID) ([]ImageDetail, error) {
	out, err := s.find(ctx, repo, ids)
	if err != nil {
		return nil, &manifest.Error{Op: "describe images of", Repo: repo, Err: err}
	}
	return out, nil
}

func (s *Images) find(ctx context.Context, repo string, ids []ImageID) ([]ImageDetail, error) {
	for _, id := range ids {
		if id == (ImageID{}) {
			return nil, fmt.Errorf("%w: an image ID has neither digest nor tag", ErrFilter)
		}
	}
	tags, err := s.tags(ctx, repo, &ImageFilter{})
	if err != nil {
		return nil, err
	}
	tagged := map[string]digest.Digest{}
	for d, names := range tags {
		for _, name := range names {
			tagged[name] = d
		}
	}
	var out []ImageDetail
	seen := map[digest.Digest]bool{}
	sizes := newSizes()
	for _, id := range ids {
		d := id.Digest
		if id.Tag != "" {
			if at := tagged[id.Tag]; at == "" || d != "" && d != at {
				return nil, &ImageNotFoundError{id, repo, s.Registry}
			}
			d = tagged[id.Tag]
		}
		if seen[d] {
			continue
		}
		seen[d] = true
		rec, err := s.read(ctx, repo, d, sizes)
		if manifest.IsNotFound(err) {
			return nil, &ImageNotFoundError{id, repo, s.Registry}
		}
		if err != nil {
			return nil, err
		}
		one := s.detail(repo, &rec, tags[d])
		one.Size, one.StoredSize, one.Incomplete = sizes.of(&rec)
		if s.Scans {
			if one.Scan, err = s.scanOf(ctx, repo, d); err != nil {
				return nil, err
			}
		}
		out = append(out, one)
	}
	return out, s.setPulls(ctx, repo, out)
}

// read gets a manifest, and what is below it, into sizes.
func (s *Images) read(ctx context.Context, repo string, root digest.Digest, sizes *sizes) (rec manifest.Record, err error) {
	if !canBeStored(root) {
		return rec, manifest.ErrNotFound
	}
	queue, asked := []digest.Digest{root}, map[digest.Digest]bool{root: true}
	for i := 0; i < len(queue); i++ {
		if _, known := sizes.nodes[queue[i]]; known && i > 0 {
			continue
		}
		below, err := s.Manifests.Get(ctx, repo, queue[i])
		if i == 0 {
			rec = below
		}
		if manifest.IsNotFound(err) && i > 0 {
			continue // not counted
		}
		if err != nil {
			return rec, err
		}
		m, err := manifest.Parse(below.Desc.MediaType, below.Raw)
		if err != nil {
			return rec, fmt.Errorf("manifest %s: %w", queue[i], err)
		}
		for _, d := range append(m.Layers, m.Config) {
			if !d.IsZero() && !manifest.IsForeignLayer(d.MediaType) {
				sizes.blob(d.Digest, d.Size)
			}
		}
		sizes.add(&below)
		for _, child := range below.Manifests {
			if !asked[child] && canBeStored(child) && len(queue) < manifest.DefaultWalkLimit {
				asked[child] = true
				queue = append(queue, child)
			}
		}
	}
	return rec, nil
}

func (s *Images) scanOf(ctx context.Context, repo string, image digest.Digest) (last *scan.Result, err error) {
	for desc, err := range s.index().Referrers(ctx, repo, image, scan.ArtifactType, "") {
		if err != nil {
			return nil, err
		}
		if r, ok := scan.ResultOf(repo, image, desc); ok {
			last = later(last, &r)
		}
	}
	return last, nil
}

func (s *Images) setPulls(ctx context.Context, repo string, details []ImageDetail) error {
	if s.Activity == nil || details == nil {
		return nil
	}
	at := map[digest.Digest]int{}
	for i, d := range details {
		at[d.Digest] = i
	}
	for p, err := range s.Activity.Pulls(ctx, repo, "") {
		if err != nil {
			return err
		}
		if i, ok := at[p.Digest]; ok {
			details[i].PulledAt = p.At
		}
	}
	return nil
}

// Usage is what a repository holds.
type Usage struct {
	Images, Untagged, Archived int
	Tags                       int
	Blobs                      int   // those that no manifest names too
	StoredBytes                int64 // all documents and blobs, each once in this repository
	ListedBytes                int64 // the sum of imageSizeInBytes, as ECR's users add it up: shared layers once for each image, an index as its largest child
}

// Usage counts what a repository holds, in one pass over its tags, one over its blobs,
// and two over its manifests. Blobs is required for the bytes.
func (s *Images) Usage(ctx context.Context, repo string) (Usage, error) {
	u, err := s.usage(ctx, repo)
	if err != nil {
		return Usage{}, &manifest.Error{Op: "usage of", Repo: repo, Err: err}
	}
	return u, nil
}

func (s *Images) usage(ctx context.Context, repo string) (u Usage, err error) {
	all := ImageFilter{Status: ImageAny}
	tags, err := s.tags(ctx, repo, &all)
	if err != nil {
		return u, err
	}
	sizes, err := s.blobSizes(ctx, repo)
	if err != nil {
		return u, err
	}
	u.Blobs = len(sizes.size)
	for _, n := range sizes.size {
		u.StoredBytes += n
	}
	if s.Blobs != nil {
		for rec, err := range s.Manifests.Manifests(ctx, repo, "") {
			if err != nil {
				return u, err
			}
			sizes.add(&rec)
		}
	}
	for rec, err := range s.each(ctx, repo, &all, tags, "") {
		if err != nil {
			return u, err
		}
		named := len(tags[rec.Desc.Digest])
		u.Images++
		u.Tags += named
		if named == 0 {
			u.Untagged++
		}
		if rec.StorageClass == manifest.Archive {
			u.Archived++
		}
		u.StoredBytes += rec.Desc.Size
		if s.Blobs != nil {
			n, _, _ := sizes.of(&rec)
			u.ListedBytes += n
		}
	}
	return u, nil
}

// sizes adds up what images take. Digests of blobs are kept once, and by number
// otherwise, since repositories share most layers.
type sizes struct {
	number map[digest.Digest]int32
	size   []int64 // by number
	nodes  map[digest.Digest]node
}

// node is a manifest.
type node struct {
	size       int64 // of the document
	blobs      []int32
	children   []digest.Digest
	incomplete bool // blobs are missing
}

func newSizes() *sizes {
	return &sizes{number: map[digest.Digest]int32{}, nodes: map[digest.Digest]node{}}
}

func (z *sizes) blob(d digest.Digest, size int64) {
	if _, known := z.number[d]; !known {
		z.number[d] = int32(len(z.size))
		z.size = append(z.size, size)
	}
}

func (z *sizes) node(rec *manifest.Record) node {
	n := node{size: rec.Desc.Size, children: rec.Manifests}
	for _, d := range rec.Blobs {
		if i, known := z.number[d]; known {
			n.blobs = append(n.blobs, i)
		} else {
			n.incomplete = true
		}
	}
	return n
}

func (z *sizes) add(rec *manifest.Record) { z.nodes[rec.Desc.Digest] = z.node(rec) }

// of returns the sizes of a manifest whose children, if they are there, are
// known. Each manifest below it is looked at once.
func (z *sizes) of(rec *manifest.Record) (size, stored int64, incomplete bool) {
	root := z.node(rec)
	if len(root.children) == 0 {
		for _, i := range root.blobs {
			size += z.size[i]
		}
		return size, size + root.size, root.incomplete
	}
	blobs := map[int32]bool{}
	seen := map[digest.Digest]bool{rec.Desc.Digest: true}
	queue := []node{root}
	for i := 0; i < len(queue); i++ {
		n := queue[i]
		stored += n.size
		incomplete = incomplete || n.incomplete
		var own int64
		for _, b := range n.blobs {
			own += z.size[b]
			if !blobs[b] {
				blobs[b] = true
				stored += z.size[b]
			}
		}
		size = max(size, own) // the largest child is the largest manifest below
		for _, child := range n.children {
			if seen[child] {
				continue
			}
			seen[child] = true
			if below, known := z.nodes[child]; known && len(queue) < manifest.DefaultWalkLimit {
				queue = append(queue, below)
			} else {
				incomplete = true
			}
		}
	}
	return size, stored, incomplete
}
