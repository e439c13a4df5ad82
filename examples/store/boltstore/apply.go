package boltstore

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/examples/store/parts"
	"github.com/wharfage/wharfage/manifest"
)

// Behind a manifest in its table.
const (
	tagMark    = 't'
	parentMark = 'p'
)

const features = manifest.BasicFeatures | manifest.FeatureUnchanged | manifest.FeatureDeleteOrphan | manifest.FeatureClasses

// addition is a record to be put, as it is to stand in the database.
type addition struct {
	stored
	digest []byte // in keys
	row    []byte
	json   []byte // in lists of referrers
	lost   string // key of the body of the manifest that is there, if nothing is under it any more

	// Found out by the transaction:
	isNew   bool
	was     stored // if it is not
	repairs bool   // it is not, and its body is the one that is lost: then was has the new one
}

// errBody is a manifest that was there when its body was about to be written,
// and is not any more.
var errBody = errors.New("a body is to be written first")

// Apply implements [manifest.Writer]: step 3 of model/collect.pml. Its cost follows c, not what the repository
// holds.
func (m *Manifests) Apply(ctx context.Context, repo string, c manifest.Change) error {
	if c.Needs()&^features != 0 {
		return manifestError("apply", repo, "", manifest.ErrUnsupported)
	}
	p := plan{Change: &c, repo: name(repo), add: make([]*addition, len(c.Put))}
	if m.db.KeepEvents {
		var err error
		if p.event, err = eventRow(repo, c); err != nil {
			return manifestError("apply", repo, "", err)
		}
	}
	var err error
	for err = errBody; err == errBody; {
		if err = m.writeBodies(ctx, &p); err == nil {
			err = m.db.update(ctx, func(t *tx) error {
				p.tx, p.unused = t, nil
				return p.apply()
			})
		}
	}
	var added []string
	for _, a := range p.add {
		if a != nil && a.body.Key != "" {
			added = append(added, a.body.Key)
		}
	}
	m.db.settle(ctx, err, added, p.unused)
	return manifestError("apply", repo, p.object, err)
}

// writeBodies makes objects of the bytes of the manifests that are not there, or
// have lost theirs, so that a push repairs a manifest.
func (m *Manifests) writeBodies(ctx context.Context, p *plan) error {
	was := make([]stored, len(p.Put))
	if len(p.Put) > 0 {
		if err := m.db.view(ctx, func(t *tx) (err error) {
			for i := range p.Put {
				if was[i], _, err = t.record(p.repo, p.Put[i].Desc.Digest); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			return err
		}
	}
	for i, rec := range p.Put {
		if p.add[i] == nil {
			p.add[i] = newAddition(rec, p.Change)
		}
		a := p.add[i]
		if a.body.Key != "" {
			continue
		}
		if was[i].body.Key != "" {
			whole, err := m.db.files.Whole(ctx, parts.Content{Parts: []parts.Part{was[i].body}})
			if err != nil {
				return err
			}
			if whole {
				continue
			}
			a.lost = was[i].body.Key
		}
		c, err := m.db.files.Put(ctx, bytes.NewReader(rec.Raw))
		if err != nil {
			return err
		}
		a.body = c.Parts[0]
		a.row = recordRow(&a.stored)
	}
	return nil
}

func newAddition(rec manifest.Record, c *manifest.Change) *addition {
	a := &addition{stored: stored{Record: rec}}
	a.PushedAt, a.TouchedAt = c.At, c.At
	a.StorageClass, a.ArchivedAt, a.RestoredAt = manifest.Standard, time.Time{}, time.Time{}
	a.digest, _ = appendDigest(nil, rec.Desc.Digest)
	if rec.Subject != "" {
		a.json = []byte(manifest.NewReferrerJSON(rec.Desc).JSON)
	}
	return a
}

// plan is a change beside the transaction that it is for.
type plan struct {
	*manifest.Change
	*tx
	repo  []byte // prefix of its rows
	add   []*addition
	event []byte

	object string   // that the error is about
	unused []string // keys of objects that nothing refers to when all is done
}

// apply checks all, and then writes.
func (p *plan) apply() error {
	p.object = ""
	for _, a := range p.add {
		was, found, err := p.record(p.repo, a.Desc.Digest)
		if err != nil {
			return err
		}
		a.isNew, a.was = !found, was
		a.repairs = found && a.lost == was.body.Key
		switch {
		case a.isNew && a.body.Key == "":
			return errBody
		case a.isNew, a.repairs:
			if err := p.checkEras(a.body.Key); err != nil {
				return err
			}
			if a.repairs {
				a.was.body = a.body
				p.unused = append(p.unused, a.lost)
			}
		case a.body.Key != "":
			p.unused = append(p.unused, a.body.Key)
		}
	}
	if err := p.missing(); err != nil {
		return err
	}
	if err := p.checkUnchanged(); err != nil {
		return err
	}
	moved, err := p.checkTags()
	if err != nil {
		return err
	}
	classes, err := p.checkClasses()
	if err != nil {
		return err
	}
	removed, err := p.checkRemovals()
	if err != nil {
		return err
	}
	for _, a := range p.add {
		if a.isNew {
			p.putRecord(a)
			continue
		}
		if a.repairs {
			p.repair(a)
		}
		p.touch(a)
	}
	for i, t := range p.Tags {
		p.move(moved[i], manifest.Tag{Name: t.Name, Digest: t.To, MovedAt: p.At})
	}
	for i := range classes {
		p.put(manifestRows, digestRow(p.repo, classes[i].Desc.Digest), recordRow(&classes[i]))
	}
	for _, s := range removed {
		p.remove(s)
	}
	if p.event != nil {
		p.putEvent(p.event)
	}
	return nil
}

// hasManifest tells whether a manifest is there after Put.
func (p *plan) hasManifest(dgst digest.Digest) bool {
	return slices.ContainsFunc(p.add, func(a *addition) bool { return a.Desc.Digest == dgst }) || p.has(manifestRows, digestRow(p.repo, dgst))
}

// missing returns what the change requires and the repository does not have, or
// nil.
func (p *plan) missing() error {
	var m manifest.MissingError
	blobs, manifests := map[digest.Digest]bool{}, map[digest.Digest]bool{} // listed in m: a document names thousands
	for _, d := range p.RequireBlobs {
		if !p.has(linkRows, digestRow(p.repo, d)) && !blobs[d] {
			blobs[d] = true
			m.Blobs = append(m.Blobs, d)
		}
	}
	need := func(d digest.Digest) {
		if !p.hasManifest(d) && !manifests[d] {
			manifests[d] = true
			m.Manifests = append(m.Manifests, d)
		}
	}
	for _, d := range p.RequireManifests {
		need(d)
	}
	for _, t := range p.Tags {
		if t.To != "" {
			need(t.To)
		}
	}
	if len(m.Blobs)+len(m.Manifests) > 0 {
		return &m
	}
	return nil
}

// checkTags returns where each tag of the change is.
func (p *plan) checkTags() ([]manifest.Tag, error) {
	at := make([]manifest.Tag, len(p.Tags))
	for i, t := range p.Tags {
		p.object = t.Name
		tag, found, err := p.tag(p.repo, t.Name)
		if err != nil {
			return nil, err
		}
		have := manifest.Absent
		if found {
			have = tag.Digest
		}
		if t.From != "" && t.From != have {
			return nil, &manifest.ConflictError{Tag: t.Name, Want: t.From, Have: have}
		}
		if t.To == "" && t.From == "" && !found {
			return nil, manifest.ErrNotFound
		}
		at[i] = tag
	}
	p.object = ""
	return at, nil
}

// after returns a record that is there after Put, but for its class.
func (p *plan) after(dgst digest.Digest) (stored, error) {
	for _, a := range p.add {
		if a.Desc.Digest == dgst && a.isNew {
			return a.stored, nil
		}
		if a.Desc.Digest == dgst {
			s := a.was
			s.TouchedAt = p.Touch(s.TouchedAt)
			return s, nil
		}
	}
	s, found, err := p.record(p.repo, dgst)
	if err == nil && !found {
		err = manifest.ErrNotFound
	}
	return s, err
}

func (p *plan) removed() map[digest.Digest]bool {
	removed := make(map[digest.Digest]bool, len(p.Delete))
	for _, d := range p.Delete {
		removed[d.Digest] = true
	}
	return removed
}

// checkUnchanged compares manifests with what was seen of them.
func (p *plan) checkUnchanged() error {
	for _, seen := range p.Unchanged {
		p.object = string(seen.Digest)
		s, found, err := p.record(p.repo, seen.Digest)
		if err != nil {
			return err
		}
		if !found {
			return manifest.ErrNotFound
		}
		was := make(map[string]bool, len(seen.Tags))
		for _, name := range seen.Tags {
			was[name] = true
			at, found, err := p.tag(p.repo, name)
			if err != nil {
				return err
			}
			if !found {
				at.Digest = manifest.Absent
			}
			if at.Digest != seen.Digest {
				return &manifest.ConflictError{Tag: name, Want: seen.Digest, Have: at.Digest}
			}
		}
		prefix := p.behind(seen.Digest, tagMark)
		for k := range p.under(manifestRows, prefix, prefix) {
			if tag := string(k[len(prefix):]); !was[tag] {
				return &manifest.ConflictError{Digest: seen.Digest, Tag: tag}
			}
		}
		if since := s.ClassSince(); !since.Equal(seen.Since) {
			return &manifest.ConflictError{Digest: seen.Digest, Since: since}
		}
	}
	p.object = ""
	return nil
}

// checkClasses returns the records that change their class, in Put or in
// Classes.
func (p *plan) checkClasses() ([]stored, error) {
	var moves []manifest.ClassMove
	for _, a := range p.add {
		if !a.isNew {
			moves = append(moves, manifest.ClassMove{Digest: a.Desc.Digest})
		}
	}
	moves = append(moves, p.Classes...)
	class := make(map[digest.Digest]manifest.StorageClass, len(moves))
	for _, m := range moves {
		class[m.Digest] = m.To
	}
	skip := p.removed() // what is no reason to keep what it lists out of the archive
	for dgst, to := range class {
		if to == manifest.Archive {
			skip[dgst] = true
		}
	}
	var out []stored
	for _, m := range moves {
		p.object = string(m.Digest)
		s, err := p.after(m.Digest)
		if err != nil {
			return nil, err
		}
		if m.IfUnlisted {
			for parent := range p.parents(m.Digest) {
				if _, moved := class[parent]; moved || skip[parent] {
					continue
				}
				s, err := p.after(parent)
				if err != nil {
					return nil, err
				}
				if s.StorageClass == manifest.Archive {
					skip[parent] = true
				}
			}
			if parent, found := p.parentOf(m.Digest, skip); found {
				return nil, &manifest.ConflictError{Digest: m.Digest, Parent: parent}
			}
		}
		if i := slices.IndexFunc(out, func(o stored) bool { return o.Desc.Digest == m.Digest }); i >= 0 {
			s = out[i] // before Delete, which clears it
			out = slices.Delete(out, i, i+1)
		}
		if s.StorageClass == m.To {
			continue
		}
		s.StorageClass = m.To
		if m.To == manifest.Archive {
			s.ArchivedAt = p.At
		} else {
			s.RestoredAt = p.At
		}
		out = append(out, s)
	}
	p.object = ""
	return out, nil
}

// checkRemovals returns the records that go, each once.
func (p *plan) checkRemovals() ([]stored, error) {
	removed := p.removed()
	out := make([]stored, 0, len(p.Delete))
	for _, d := range p.Delete {
		p.object = string(d.Digest)
		s, err := p.after(d.Digest)
		if err != nil {
			return nil, err
		}
		if d.IfUntagged {
			if tag, found := p.tagOf(d.Digest); found {
				return nil, &manifest.ConflictError{Digest: d.Digest, Tag: tag}
			}
		}
		if d.TooYoung(s.TouchedAt) {
			return nil, &manifest.ConflictError{Digest: d.Digest, TouchedAt: s.TouchedAt}
		}
		if d.IfUnlisted {
			if parent, found := p.parentOf(d.Digest, removed); found {
				return nil, &manifest.ConflictError{Digest: d.Digest, Parent: parent}
			}
		}
		if d.IfOrphan && s.Subject != "" && !removed[s.Subject] && p.hasManifest(s.Subject) {
			return nil, &manifest.ConflictError{Digest: d.Digest, Subject: s.Subject}
		}
		if !slices.ContainsFunc(out, func(s stored) bool { return s.Desc.Digest == d.Digest }) {
			out = append(out, s)
		}
	}
	p.object = ""
	return out, nil
}

// behind returns the prefix of what is noted behind a manifest.
func (p *plan) behind(dgst digest.Digest, mark byte) []byte {
	return append(digestRow(p.repo, dgst), mark)
}

// tagOf finds a tag that names dgst after Tags.
func (p *plan) tagOf(dgst digest.Digest) (string, bool) {
	for _, t := range p.Tags {
		if t.To == dgst {
			return t.Name, true
		}
	}
	prefix := p.behind(dgst, tagMark)
	for k := range p.under(manifestRows, prefix, prefix) {
		tag := string(k[len(prefix):])
		if !slices.ContainsFunc(p.Tags, func(t manifest.TagMove) bool { return t.Name == tag }) {
			return tag, true
		}
	}
	return "", false
}

// parentOf finds a manifest that lists dgst and stays.
func (p *plan) parentOf(dgst digest.Digest, removed map[digest.Digest]bool) (digest.Digest, bool) {
	for _, a := range p.add {
		if a.isNew && !removed[a.Desc.Digest] && slices.Contains(a.Manifests, dgst) {
			return a.Desc.Digest, true
		}
	}
	for parent := range p.parents(dgst) {
		if !removed[parent] {
			return parent, true
		}
	}
	return "", false
}

// parents yields what lists dgst before the change.
func (p *plan) parents(dgst digest.Digest) iter.Seq[digest.Digest] {
	return func(yield func(digest.Digest) bool) {
		prefix := p.behind(dgst, parentMark)
		for k := range p.under(manifestRows, prefix, prefix) {
			if parent, _ := readDigest(k[len(prefix):]); !yield(parent) {
				return
			}
		}
	}
}

// fact is a row that is derived from a record.
type fact struct {
	table int
	key   []byte
	value []byte
}

// facts returns the rows that are derived from a record. What is named by a
// digest under which nothing can be stored has none.
func facts(repo []byte, s *stored, dgst, json []byte) []fact {
	out := make([]fact, 0, len(s.Blobs)+len(s.Manifests)+2)
	for _, d := range s.Blobs {
		if key, ok := appendDigest(repo[:len(repo):len(repo)], d); ok {
			// By time: of a blob that many manifests need, the last of its rows are
			// in one page.
			out = append(out, fact{linkRows, appendKey(key, s.body.Key), dgst})
		}
	}
	for _, d := range s.Manifests {
		if key, ok := appendDigest(repo[:len(repo):len(repo)], d); ok {
			out = append(out, fact{manifestRows, append(append(key, parentMark), dgst...), nothing})
		}
	}
	if s.Subject != "" {
		repo, typ := string(repo[:len(repo)-1]), s.Desc.ArtifactType
		out = append(out, fact{referrerRows, append(referrerPrefix(repo, s.Subject, ""), dgst...), json})
		if typ != "" {
			out = append(out, fact{referrerRows, append(referrerPrefix(repo, s.Subject, typ), dgst...), json})
		}
	}
	return out
}

// putRecord adds a manifest that is not there.
func (p *plan) putRecord(a *addition) {
	p.put(manifestRows, append(p.repo[:len(p.repo):len(p.repo)], a.digest...), a.row)
	for _, f := range facts(p.repo, &a.stored, a.digest, a.json) {
		p.put(f.table, f.key, f.value)
	}
	p.refer(a.body.Key)
}

// repair gives a manifest another body. What it needs is noted under the key of that.
func (p *plan) repair(a *addition) {
	lost := a.was
	lost.body.Key = a.lost
	for _, f := range p.factsOf(p.repo, lost) {
		p.delete(f.table, f.key)
	}
	p.unrefer(a.lost)
	for _, f := range p.factsOf(p.repo, a.was) {
		p.put(f.table, f.key, f.value)
	}
	p.refer(a.body.Key)
	p.put(manifestRows, append(p.repo[:len(p.repo):len(p.repo)], a.digest...), recordRow(&a.was))
}

// touch notes that a manifest was pushed again.
func (p *plan) touch(a *addition) {
	if at := p.Touch(a.was.TouchedAt); !at.Equal(a.was.TouchedAt) {
		a.was.TouchedAt = at
		p.put(manifestRows, append(p.repo[:len(p.repo):len(p.repo)], a.digest...), recordRow(&a.was))
	}
}

// move points a tag, which is at, at a manifest that is there, or removes it if
// to.Digest is "".
func (p *plan) move(at, to manifest.Tag) {
	if at.Digest == to.Digest {
		return
	}
	if at.Digest != "" {
		p.delete(manifestRows, append(p.behind(at.Digest, tagMark), to.Name...))
	}
	row := append(p.repo[:len(p.repo):len(p.repo)], to.Name...)
	if to.Digest == "" {
		p.delete(tagRows, row)
		return
	}
	p.put(manifestRows, append(p.behind(to.Digest, tagMark), to.Name...), nothing)
	p.put(tagRows, row, tagRow(to))
}

// remove takes away a manifest, with its tags.
func (p *plan) remove(s stored) {
	row := digestRow(p.repo, s.Desc.Digest)
	prefix := append(row[:len(row):len(row)], tagMark)
	var tags []string
	for k := range p.under(manifestRows, prefix, prefix) {
		tags = append(tags, string(k[len(prefix):]))
	}
	for _, tag := range tags {
		p.delete(manifestRows, append(prefix[:len(prefix):len(prefix)], tag...))
		p.delete(tagRows, append(p.repo[:len(p.repo):len(p.repo)], tag...))
	}
	for _, f := range facts(p.repo, &s, row[len(p.repo):], nil) {
		p.delete(f.table, f.key)
	}
	p.delete(manifestRows, row)
	if p.has(pullRows, row) {
		p.delete(pullRows, row)
	}
	p.unrefer(s.body.Key)
	p.unused = append(p.unused, s.body.Key)
}
