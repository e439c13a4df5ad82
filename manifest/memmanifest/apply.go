package memmanifest

import (
	"context"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/manifest"
)

const features = manifest.BasicFeatures | manifest.FeatureUnchanged | manifest.FeatureDeleteOrphan | manifest.FeatureClasses

// Apply implements [manifest.Writer]. Its cost follows c, not what the
// repository holds.
func (s *Store) Apply(ctx context.Context, repo string, c manifest.Change) error {
	fail := func(object string, err error) error {
		return &manifest.Error{Op: "apply", Repo: repo, Object: object, Err: err}
	}
	if c.Needs()&^features != 0 {
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
		if e, found := r.manifests.get(string(key)); found && *e.touched.Load() != at {
			e.touched.Store(&at)
		}
	}
	for _, t := range c.Tags {
		r.move(manifest.Tag{Name: t.Name, Digest: t.To, MovedAt: c.At})
	}
	for _, m := range p.classes {
		r.reclass(m, c.At)
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
	classes []manifest.ClassMove // of what Put brings back, and then Classes
	class   map[digest.Digest]manifest.StorageClass
	removed map[digest.Digest]bool
}

func (p *plan) resolve() {
	p.put = make(map[digest.Digest]manifest.Record, len(p.Put))
	p.touched = make(map[digest.Digest]time.Time, len(p.Put))
	for _, rec := range p.Put {
		p.touched[rec.Desc.Digest] = p.At
		if e, found := p.r.manifests.get(string(rec.Desc.Digest)); found {
			p.touched[rec.Desc.Digest] = p.Touch(*e.touched.Load())
			p.classes = append(p.classes, manifest.ClassMove{Digest: rec.Desc.Digest})
			continue
		}
		rec.PushedAt = p.At
		rec.StorageClass, rec.ArchivedAt, rec.RestoredAt = manifest.Standard, time.Time{}, time.Time{}
		p.put[rec.Desc.Digest] = rec
	}
	p.classes = append(p.classes, p.Classes...)
	p.class = make(map[digest.Digest]manifest.StorageClass, len(p.classes))
	for _, m := range p.classes {
		p.class[m.Digest] = m.To
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

// check returns what is wrong with Unchanged, Tags, Classes or Delete, and
// about which tag or digest.
func (p *plan) check() (object string, err error) {
	for _, seen := range p.Unchanged {
		if err := p.r.changed(seen); err != nil {
			return string(seen.Digest), err
		}
	}
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
	for _, m := range p.Classes {
		if !p.has(m.Digest) {
			return string(m.Digest), manifest.ErrNotFound
		}
		if m.IfUnlisted {
			if parent, found := p.parentOf(m.Digest, p.archived); found {
				return string(m.Digest), &manifest.ConflictError{Digest: m.Digest, Parent: parent}
			}
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
			if parent, found := p.parentOf(d.Digest, nil); found {
				return string(d.Digest), &manifest.ConflictError{Digest: d.Digest, Parent: parent}
			}
		}
		if d.IfOrphan {
			if subject := p.subjectOf(d.Digest); subject != "" && !p.removed[subject] && p.has(subject) {
				return string(d.Digest), &manifest.ConflictError{Digest: d.Digest, Subject: subject}
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

// changed returns how a manifest is not as it was seen, or nil.
func (r *repository) changed(seen manifest.Seen) error {
	e, found := r.manifests.get(string(seen.Digest))
	if !found {
		return manifest.ErrNotFound
	}
	was := make(map[string]bool, len(seen.Tags))
	for _, tag := range seen.Tags {
		was[tag] = true
		at, found := r.tags.get(tag)
		if !found {
			at.Digest = manifest.Absent
		}
		if at.Digest != seen.Digest {
			return &manifest.ConflictError{Tag: tag, Want: seen.Digest, Have: at.Digest}
		}
	}
	for tag := range e.tags.after("") {
		if !was[tag] {
			return &manifest.ConflictError{Digest: seen.Digest, Tag: tag}
		}
	}
	rec := e.listed()
	if since := rec.ClassSince(); !since.Equal(seen.Since) {
		return &manifest.ConflictError{Digest: seen.Digest, Since: since}
	}
	return nil
}

// subjectOf returns the subject of a manifest that is there after Put.
func (p *plan) subjectOf(dgst digest.Digest) digest.Digest {
	if rec, isNew := p.put[dgst]; isNew {
		return rec.Subject
	}
	e, _ := p.r.manifests.get(string(dgst))
	return e.subject
}

// archived tells whether a manifest is in the archive after Classes.
func (p *plan) archived(dgst digest.Digest) bool {
	class, moved := p.class[dgst]
	if e, found := p.r.manifests.get(string(dgst)); found && !moved {
		class = e.class()
	}
	return class == manifest.Archive
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

// parentOf finds a manifest that lists dgst after Delete, and is not skipped.
func (p *plan) parentOf(dgst digest.Digest, skip func(digest.Digest) bool) (digest.Digest, bool) {
	stays := func(parent digest.Digest) bool { return !p.removed[parent] && (skip == nil || !skip(parent)) }
	for _, rec := range p.Put {
		if _, isNew := p.put[rec.Desc.Digest]; isNew && stays(rec.Desc.Digest) {
			for _, child := range rec.Manifests {
				if child == dgst {
					return rec.Desc.Digest, true
				}
			}
		}
	}
	if parents := p.r.parents[dgst]; parents != nil {
		for parent := range parents.after("") {
			if stays(digest.Digest(parent)) {
				return digest.Digest(parent), true
			}
		}
	}
	return "", false
}

// put adds a manifest that is not there.
func (r *repository) put(rec manifest.Record) {
	e := newEntry(&rec)
	key := string(e.digest)
	r.manifests.set(key, e)
	r.list(e)
	for _, d := range e.blobs {
		r.blobs[d]++
	}
	for _, d := range e.manifests {
		if r.parents[d] == nil {
			r.parents[d] = new(ordered[struct{}])
		}
		r.parents[d].set(key, struct{}{})
	}
}

// list notes e with its subject, if it has one.
func (r *repository) list(e *entry) {
	if e.subject == "" {
		return
	}
	sub := r.subjects[e.subject]
	if sub == nil {
		sub = &subject{byType: map[string]*ordered[*entry]{}}
		r.subjects[e.subject] = sub
	}
	sub.all.set(string(e.digest), e)
	if sub.byType[e.artifactType] == nil {
		sub.byType[e.artifactType] = new(ordered[*entry])
	}
	sub.byType[e.artifactType].set(string(e.digest), e)
}

// reclass moves a manifest that is there to a storage class. Readers may hold
// its entry, which stays as it was.
func (r *repository) reclass(m manifest.ClassMove, at time.Time) {
	e, _ := r.manifests.get(string(m.Digest))
	if e.class() == m.To {
		return
	}
	e = e.to(m.To, at)
	r.manifests.set(string(e.digest), e)
	r.list(e)
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
	for _, d := range e.blobs {
		if r.blobs[d]--; r.blobs[d] == 0 {
			delete(r.blobs, d)
		}
	}
	for _, d := range e.manifests {
		if parents := r.parents[d]; parents != nil { // nil for a child that the record names twice
			if parents.delete(key); parents.len() == 0 {
				delete(r.parents, d)
			}
		}
	}
	if sub := r.subjects[e.subject]; sub != nil {
		typ := e.artifactType
		if sub.byType[typ].delete(key); sub.byType[typ].len() == 0 {
			delete(sub.byType, typ)
		}
		if sub.all.delete(key); sub.all.len() == 0 {
			delete(r.subjects, e.subject)
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
