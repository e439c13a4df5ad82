package memmanifest

import (
	"context"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/manifest"
)

// Apply implements [manifest.Writer]. Its cost follows c, not what the
// repository holds.
func (s *Store) Apply(ctx context.Context, repo string, c manifest.Change) error {
	fail := func(object string, err error) error {
		return &manifest.Error{Op: "apply", Repo: repo, Object: object, Err: err}
	}
	if c.Needs()&^manifest.AllFeatures != 0 {
		return fail("", manifest.ErrUnsupported)
	}
	r, err := s.acquire(ctx, repo)
	if err != nil {
		return err
	}
	defer s.release(repo, r)

	p := plan{Change: &c, r: r}
	p.resolve()
	if err := s.missing(ctx, repo, &c, p.has); err != nil {
		return fail("", err)
	}
	if object, err := p.check(); err != nil {
		return fail(object, err)
	}

	r.mu.Lock()
	defer r.mu.Unlock()
	for _, rec := range p.put {
		r.put(rec)
	}
	for key, at := range p.touched {
		if e, found := r.manifests.get(string(key)); found {
			e.touched.Store(&at)
		}
	}
	for _, t := range c.Tags {
		r.move(manifest.Tag{Name: t.Name, Digest: t.To, MovedAt: c.At})
	}
	for _, d := range c.Delete {
		r.remove(d.Digest)
	}
	if s.KeepEvents {
		s.events.add(repo, c)
	}
	return nil
}

// plan is a change beside the repository that it is for, which does not change
// while there is a plan.
type plan struct {
	*manifest.Change
	r       *repository
	put     map[digest.Digest]manifest.Record // those that are new
	touched map[digest.Digest]time.Time       // what TouchedAt of all of Put becomes
	moved   map[string]digest.Digest
	removed map[digest.Digest]bool
}

func (p *plan) resolve() {
	p.put = make(map[digest.Digest]manifest.Record, len(p.Put))
	p.touched = make(map[digest.Digest]time.Time, len(p.Put))
	for _, rec := range p.Put {
		p.touched[rec.Desc.Digest] = p.At
		if e, found := p.r.manifests.get(string(rec.Desc.Digest)); !found {
			rec.PushedAt = p.At
			p.put[rec.Desc.Digest] = rec
		} else {
			p.touched[rec.Desc.Digest] = p.Touch(*e.touched.Load())
		}
	}
	p.moved = make(map[string]digest.Digest, len(p.Tags))
	for _, t := range p.Tags {
		p.moved[t.Name] = t.To
	}
	p.removed = make(map[digest.Digest]bool, len(p.Delete))
	for _, d := range p.Delete {
		p.removed[d.Digest] = true
	}
}

// has tells whether a manifest is there after Put.
func (p *plan) has(dgst digest.Digest) bool {
	if _, found := p.put[dgst]; found {
		return true
	}
	_, found := p.r.manifests.get(string(dgst))
	return found
}

// check returns what is wrong with Tags or Delete, and about which tag or
// digest.
func (p *plan) check() (object string, err error) {
	for _, t := range p.Tags {
		at, found := p.r.tags.get(t.Name)
		have := manifest.Absent
		if found {
			have = at.Digest
		}
		if t.From != "" && t.From != have {
			return t.Name, &manifest.ConflictError{Tag: t.Name, Want: t.From, Have: have}
		}
		if t.To == "" && t.From == "" && !found {
			return t.Name, manifest.ErrNotFound
		}
	}
	for _, d := range p.Delete {
		if !p.has(d.Digest) {
			return string(d.Digest), manifest.ErrNotFound
		}
		if d.IfUntagged {
			if tag, found := p.tagOf(d.Digest); found {
				return string(d.Digest), &manifest.ConflictError{Digest: d.Digest, Tag: tag}
			}
		}
		if touched := p.touchedAt(d.Digest); d.TooYoung(touched) {
			return string(d.Digest), &manifest.ConflictError{Digest: d.Digest, TouchedAt: touched}
		}
		if d.IfUnlisted {
			if parent, found := p.parentOf(d.Digest); found {
				return string(d.Digest), &manifest.ConflictError{Digest: d.Digest, Parent: parent}
			}
		}
	}
	return "", nil
}

// touchedAt is when a manifest, which is there after Put, was touched.
func (p *plan) touchedAt(dgst digest.Digest) time.Time {
	if at, found := p.touched[dgst]; found {
		return at
	}
	e, _ := p.r.manifests.get(string(dgst))
	return *e.touched.Load()
}

// tagOf finds a tag that names dgst after Tags.
func (p *plan) tagOf(dgst digest.Digest) (string, bool) {
	for _, t := range p.Tags {
		if t.To == dgst {
			return t.Name, true
		}
	}
	if e, found := p.r.manifests.get(string(dgst)); found {
		for tag := range e.tags.after("") {
			if _, moved := p.moved[tag]; !moved {
				return tag, true
			}
		}
	}
	return "", false
}

// parentOf finds a manifest that lists dgst after Delete.
func (p *plan) parentOf(dgst digest.Digest) (digest.Digest, bool) {
	for _, rec := range p.Put {
		if _, isNew := p.put[rec.Desc.Digest]; isNew && !p.removed[rec.Desc.Digest] {
			for _, child := range rec.Manifests {
				if child == dgst {
					return rec.Desc.Digest, true
				}
			}
		}
	}
	if parents := p.r.parents[dgst]; parents != nil {
		for parent := range parents.after("") {
			if !p.removed[digest.Digest(parent)] {
				return digest.Digest(parent), true
			}
		}
	}
	return "", false
}

// put adds a manifest that is not there.
func (r *repository) put(rec manifest.Record) {
	rec.Desc = ocispec.Descriptor{
		MediaType: rec.Desc.MediaType, Digest: rec.Desc.Digest, Size: rec.Desc.Size,
		ArtifactType: rec.Desc.ArtifactType, Annotations: rec.Desc.Annotations,
	}
	e := &entry{rec: rec}
	key := string(rec.Desc.Digest)
	r.manifests.set(key, e)
	for _, d := range rec.Blobs {
		r.blobs[d]++
	}
	for _, d := range rec.Manifests {
		if r.parents[d] == nil {
			r.parents[d] = new(ordered[struct{}])
		}
		r.parents[d].set(key, struct{}{})
	}
	if rec.Subject == "" {
		return
	}
	sub := r.subjects[rec.Subject]
	if sub == nil {
		sub = &subject{byType: map[string]*ordered[referrer]{}}
		r.subjects[rec.Subject] = sub
	}
	ref := referrer{e, manifest.NewReferrerJSON(rec.Desc).JSON}
	sub.all.set(key, ref)
	typ := rec.Desc.ArtifactType
	if sub.byType[typ] == nil {
		sub.byType[typ] = new(ordered[referrer])
	}
	sub.byType[typ].set(key, ref)
}

// remove takes away a manifest that is there, with its tags.
func (r *repository) remove(dgst digest.Digest) {
	key := string(dgst)
	e, _ := r.manifests.get(key)
	if e == nil {
		return // named twice in Delete
	}
	r.manifests.delete(key)
	for tag := range e.tags.after("") {
		r.tags.delete(tag)
	}
	for _, d := range e.rec.Blobs {
		if r.blobs[d]--; r.blobs[d] == 0 {
			delete(r.blobs, d)
		}
	}
	for _, d := range e.rec.Manifests {
		if parents := r.parents[d]; parents != nil { // nil for a child that the record names twice
			if parents.delete(key); parents.len() == 0 {
				delete(r.parents, d)
			}
		}
	}
	if sub := r.subjects[e.rec.Subject]; sub != nil {
		typ := e.rec.Desc.ArtifactType
		if sub.byType[typ].delete(key); sub.byType[typ].len() == 0 {
			delete(sub.byType, typ)
		}
		if sub.all.delete(key); sub.all.len() == 0 {
			delete(r.subjects, e.rec.Subject)
		}
	}
}

// move points a tag at a manifest that is there, or removes it if to.Digest is "".
func (r *repository) move(to manifest.Tag) {
	at, found := r.tags.get(to.Name)
	if found && at.Digest == to.Digest {
		return
	}
	if found {
		e, _ := r.manifests.get(string(at.Digest))
		e.tags.delete(to.Name)
	}
	if to.Digest == "" {
		r.tags.delete(to.Name)
		return
	}
	e, _ := r.manifests.get(string(to.Digest))
	e.tags.set(to.Name, struct{}{})
	r.tags.set(to.Name, to)
}
