package manifest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/internal/ocidigest"
)

// DefaultAccept is what a [Pusher] takes when its Accept is nil. Schema 1, the
// withdrawn OCI artifact manifest and unknown types can be added.
func DefaultAccept() []string {
	return []string{MediaTypeImage, MediaTypeIndex, MediaTypeDockerManifest, MediaTypeDockerList, MediaTypeORASArtifact}
}

// Pusher is the way into a [Store]: it reads a document, checks it, and applies
// the one Change that makes it, its tags and its place among the referrers
// visible together. Only Store is required.
type Pusher struct {
	Store Store

	Accept  []string // media types that may be pushed; nil means DefaultAccept
	MaxSize int64    // of a document in bytes; 0 or more than the constant MaxSize means that
	Strict  bool     // refuse what Parse only warns of
	Sparse  bool     // let an index list manifests that the repository lacks

	// BlobSizes returns the sizes of blobs, in the order asked, -1 for one that
	// is not in repo. With it, a descriptor whose size is wrong is refused.
	BlobSizes func(ctx context.Context, repo string, dgsts []digest.Digest) ([]int64, error)

	// MoveTag may refuse that a tag moves from one digest, Absent if it is new,
	// to another; Push then fails with its error, which matches ErrRefused too.
	// Its decision is part of the Change: when the tag turns out to be elsewhere
	// at commit, it is asked again. It is not asked when the tag is there
	// already; about deletions, [Deleter].KeepTag is. nil allows all.
	//
	// With it, a Change also tells a push of what is there already from others: From
	// and To of the TagMove are the same.
	MoveTag func(ctx context.Context, repo, tag string, from, to digest.Digest) error

	Now func() time.Time // nil means time.Now

	// OnCommit runs after each committed Change, on the goroutine of Push, which
	// waits for it.
	OnCommit func(ctx context.Context, e Event)
}

// PushRequest is one document to store.
type PushRequest struct {
	MediaType string        // the Content-Type it came with; "" leaves it to the document
	Raw       []byte        // not to be changed afterwards
	Digest    digest.Digest // what it must have; "" means its sha256
	Tags      []string      // to point at it
	// From, if not "", is what each of Tags must name now, or Absent. Else
	// *ConflictError.
	From digest.Digest
	// New refuses, with ErrUnchanged, what is there already with all of Tags: so does
	// ECR's PutImage. Else that is a success, as the OCI specification has it.
	New bool
	// Cause and Via are those of the Change.
	Cause Cause
	Via   []string
}

// Pushed is what became of a PushRequest.
type Pushed struct {
	Record   Record
	Manifest *Manifest
	Tags     []string // those asked for, without repetition
}

// maxRaces bounds how often MoveTag is asked about one push. Each time somebody
// else has moved the tag in between.
const maxRaces = 100

// Push stores a document. On error nothing of it is visible.
//
// Errors: *InvalidError, ErrTooLarge, ErrDigest, ErrUnsupported for a digest
// that cannot be computed, ErrName, *MissingError for blobs and children that
// are not in the repository (a subject need not be), *ConflictError, ErrRefused,
// and ErrUnchanged.
func (p *Pusher) Push(ctx context.Context, repo string, in PushRequest) (Pushed, error) {
	done, err := p.push(ctx, repo, in)
	if err != nil {
		object := string(in.Digest)
		if len(in.Tags) > 0 {
			object = in.Tags[0]
		}
		return Pushed{}, &Error{Op: "push", Repo: repo, Object: object, Err: err}
	}
	return done, nil
}

func (p *Pusher) push(ctx context.Context, repo string, in PushRequest) (Pushed, error) {
	if err := CheckRepository(repo); err != nil {
		return Pushed{}, err
	}
	tags := make([]string, 0, len(in.Tags))
	for _, t := range in.Tags {
		if err := CheckTag(t); err != nil {
			return Pushed{}, err
		}
		if !slices.Contains(tags, t) {
			tags = append(tags, t)
		}
	}
	in.Tags = tags
	m, dgst, err := p.check(in)
	if err != nil {
		return Pushed{}, err
	}
	rec := m.Record(dgst, in.Raw)
	if err := p.checkContent(ctx, repo, m, &rec); err != nil {
		return Pushed{}, err
	}
	c := Change{Cause: in.Cause, Via: in.Via, At: p.now(), RequireBlobs: m.required(rec.Blobs), RequireManifests: rec.Manifests}
	if p.Sparse {
		c.RequireManifests = nil
	}
	// What no store can hold is missing, and is not what stores are asked about.
	absent := &MissingError{unsupported(c.RequireBlobs), unsupported(c.RequireManifests)}
	if absent.Blobs != nil || absent.Manifests != nil {
		return Pushed{}, absent
	}
	c.Put = []Record{rec}
	if err := p.apply(ctx, repo, in, dgst, c); err != nil {
		return Pushed{}, err
	}
	return Pushed{rec, m, tags}, nil
}

// check is everything that needs the document alone.
func (p *Pusher) check(in PushRequest) (*Manifest, digest.Digest, error) {
	limit := p.MaxSize
	if limit <= 0 || limit > MaxSize {
		limit = MaxSize
	}
	if int64(len(in.Raw)) > limit {
		return nil, "", tooLarge(len(in.Raw), int(limit))
	}
	alg := digest.SHA256
	if in.Digest != "" {
		if err := CheckContentDigest(string(in.Digest)); err != nil {
			return nil, "", fmt.Errorf("%w: %w", ErrDigest, err)
		}
		alg = in.Digest.Algorithm()
	}
	m, err := Parse(in.MediaType, in.Raw)
	if err != nil {
		return nil, "", err
	}
	accept := p.Accept
	if accept == nil {
		accept = DefaultAccept()
	}
	if !slices.Contains(accept, m.MediaType) {
		return nil, "", &InvalidError{[]FieldError{{"", RuleUnsupported, shorten(m.MediaType), "is to be of a media type that this registry takes"}}}
	}
	if p.Strict && len(m.Warnings) > 0 {
		return nil, "", &InvalidError{m.Warnings}
	}
	dgst := Digest(alg, in.Raw)
	if in.Digest != "" && in.Digest != dgst {
		return nil, "", fmt.Errorf("%w %s, its own is %s", ErrDigest, in.Digest, dgst)
	}
	return m, dgst, nil
}

// checkContent compares descriptors with what is in the repository, and settles
// which entries of an index of unknown types are manifests there. What is missing is
// left to Apply to find, in the same step as the commit.
func (p *Pusher) checkContent(ctx context.Context, repo string, m *Manifest, rec *Record) error {
	var faults []FieldError
	wrong := func(pointer string, d Descriptor, size int64) {
		if len(faults) < MaxFieldErrors {
			faults = append(faults, FieldError{pointer + "/size", RuleSize, strconv.FormatInt(d.Size, 10),
				fmt.Sprintf("is to be the size of %s, %d", d.Digest, size)})
		}
	}
	if len(m.Manifests) > 0 {
		sizes, err := p.childSizes(ctx, repo, rec)
		if err != nil {
			return err
		}
		for i, d := range m.Manifests {
			if n, ok := sizes[d.Digest]; ok && n != d.Size {
				wrong("/manifests/"+strconv.Itoa(i), d, n)
			}
		}
		// Entries of a type that Parse does not know, and that are manifests here.
		isManifest := func(d digest.Digest) bool { _, ok := sizes[d]; return ok }
		for _, d := range rec.Blobs {
			if isManifest(d) {
				rec.Manifests = append(rec.Manifests, d)
			}
		}
		rec.Blobs = slices.DeleteFunc(rec.Blobs, isManifest)
	}
	if p.BlobSizes != nil && len(rec.Blobs) > 0 {
		known := slices.DeleteFunc(slices.Clone(rec.Blobs), func(d digest.Digest) bool { return !ocidigest.Supported(d) })
		sizes, err := p.BlobSizes(ctx, repo, known)
		if err != nil {
			return err
		}
		have := make(map[digest.Digest]int64, len(sizes))
		for i, d := range known {
			have[d] = sizes[i]
		}
		compare := func(pointer string, d Descriptor) {
			if n, ok := have[d.Digest]; ok && n >= 0 && n != d.Size {
				wrong(pointer, d, n)
			}
		}
		if !m.Config.IsZero() {
			compare("/config", m.Config)
		}
		list := "/layers/"
		if m.Kind == KindArtifact {
			list = "/blobs/"
		}
		for i, d := range m.Layers {
			if m.Kind != KindSchema1 { // which does not tell sizes
				compare(list+strconv.Itoa(i), d)
			}
		}
	}
	if faults != nil {
		return &InvalidError{faults}
	}
	return nil
}

// childSizes returns the sizes of the entries of an index that are manifests in
// the repository. It asks for some at a time, since answers are larger than
// questions.
func (p *Pusher) childSizes(ctx context.Context, repo string, rec *Record) (map[digest.Digest]int64, error) {
	sizes := map[digest.Digest]int64{}
	entries := slices.DeleteFunc(slices.Concat(rec.Manifests, rec.Blobs), func(d digest.Digest) bool { return !ocidigest.Supported(d) })
	for some := range slices.Chunk(entries, 256) {
		stored, err := Stat(ctx, p.Store, repo, some)
		if err != nil {
			return nil, err
		}
		for _, desc := range stored {
			if desc.Digest != "" {
				sizes[desc.Digest] = desc.Size
			}
		}
	}
	return sizes, nil
}

func unsupported(dgsts []digest.Digest) (out []digest.Digest) {
	for _, d := range dgsts {
		if !ocidigest.Supported(d) {
			out = append(out, d)
		}
	}
	return out
}

// required leaves out of blobs the layers that may be absent.
func (m *Manifest) required(blobs []digest.Digest) []digest.Digest {
	foreign := func(d Descriptor) bool { return IsForeignLayer(d.MediaType) }
	if !slices.ContainsFunc(m.Layers, foreign) {
		return blobs
	}
	absent := map[digest.Digest]bool{}
	for _, d := range m.Layers {
		if foreign(d) {
			absent[d.Digest] = true
		}
	}
	return slices.DeleteFunc(slices.Clone(blobs), func(d digest.Digest) bool { return absent[d] })
}

func (p *Pusher) apply(ctx context.Context, repo string, in PushRequest, dgst digest.Digest, c Change) error {
	for race := 0; ; race++ {
		c.Tags = nil
		moved := 0
		for _, name := range in.Tags {
			move := TagMove{Name: name, To: dgst, From: in.From}
			if p.MoveTag != nil || in.New {
				from := Absent
				switch t, err := p.Store.Resolve(ctx, repo, name); {
				case err == nil:
					from = t.Digest
				case !IsNotFound(err):
					return err
				}
				if in.From != "" && in.From != from {
					return &ConflictError{Tag: name, Want: in.From, Have: from}
				}
				if from != dgst {
					moved++
				}
				if from != dgst && p.MoveTag != nil {
					if err := p.MoveTag(ctx, repo, name, from, dgst); err != nil {
						return fmt.Errorf("tag %s: %w: %w", name, ErrRefused, err)
					}
				}
				move.From = from
			}
			c.Tags = append(c.Tags, move)
		}
		if in.New && moved == 0 {
			switch have, err := Stat(ctx, p.Store, repo, []digest.Digest{dgst}); {
			case err != nil:
				return err
			case have[0].Digest != "":
				return ErrUnchanged
			}
		}
		err := p.Store.Apply(ctx, repo, c)
		if err == nil {
			break
		}
		if in.From != "" || !errors.Is(err, ErrConflict) || race == maxRaces {
			return err
		}
	}
	if p.OnCommit != nil {
		p.OnCommit(ctx, Event{repo, c})
	}
	return nil
}

func (p *Pusher) now() time.Time {
	if p.Now != nil {
		return p.Now()
	}
	return time.Now()
}
