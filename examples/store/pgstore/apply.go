package pgstore

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/manifest"
)

const features = manifest.BasicFeatures | manifest.FeatureUnchanged | manifest.FeatureDeleteOrphan | manifest.FeatureClasses

// Apply implements [manifest.Writer], step 3 of model/collect.pml, in two round
// trips: one that takes the
// repository's lock and reads all that the checks need, and one that writes and
// commits.
func (m *Manifests) Apply(ctx context.Context, repo string, c manifest.Change) error {
	if c.Needs()&^features != 0 {
		return manifestError("apply", repo, "", manifest.ErrUnsupported)
	}
	object := ""
	err := m.db.write(ctx, func(t *tx) error {
		t.lockRepo(m.db, repo)
		p := look(t, repo, &c)
		if err := t.send(ctx); err != nil {
			return err
		}
		object = ""
		p.resolve()
		err := p.missing()
		if err == nil {
			object, err = p.check()
		}
		if err == nil {
			p.write(t)
			if m.db.o.KeepEvents {
				err = keepEvent(t, repo, c)
			}
			if err == nil && m.db.o.InTx != nil {
				if err = t.send(ctx); err == nil {
					err = m.db.o.InTx(ctx, joined{t.conn}, manifest.Event{Repo: repo, Change: withoutRaw(c)})
				}
			}
		}
		return err
	})
	if err != nil {
		return manifestError("apply", repo, object, err)
	}
	return nil
}

// plan is a change beside what the repository has, which nobody changes
// meanwhile.
type plan struct {
	*manifest.Change
	repo string

	blobs     map[digest.Digest]bool            // of RequireBlobs
	manifests map[digest.Digest]bool            // of those that the change names, after Put
	before    map[digest.Digest]manifest.Record // of those, the class and its times, and the subject, before Put
	tags      map[string]digest.Digest          // of those that the change moves, or that were seen, before Tags
	gained    map[digest.Digest]string          // of Unchanged, the first tag that none of them was seen with
	tagOf     map[digest.Digest]string          // of Delete, the first tag that Tags does not move
	parentOf  map[digest.Digest]digest.Digest   // of Delete, the first parent that Delete does not remove
	listedBy  map[digest.Digest]digest.Digest   // of Classes, the first parent that is neither removed nor archived after the change
	subjects  map[digest.Digest]bool            // of Delete, those that are there before Put

	put     []manifest.Record           // those that are new
	moves   []manifest.ClassMove        // of what Put brings back, and Classes
	edges   map[string]edges            // of those that go and were there before
	touched map[digest.Digest]time.Time // TouchedAt of those that the change names, after Put
}

// edges are what a manifest names.
type edges struct{ blobs, manifests []string }

// look queues what finds out. The plan is there when that is sent.
func look(t *tx, repo string, c *manifest.Change) *plan {
	p := &plan{
		Change: c, repo: repo,
		blobs: map[digest.Digest]bool{}, manifests: map[digest.Digest]bool{}, tags: map[string]digest.Digest{},
		tagOf: map[digest.Digest]string{}, parentOf: map[digest.Digest]digest.Digest{},
		touched: map[digest.Digest]time.Time{}, edges: map[string]edges{},
		before: map[digest.Digest]manifest.Record{}, gained: map[digest.Digest]string{},
		listedBy: map[digest.Digest]digest.Digest{}, subjects: map[digest.Digest]bool{},
	}
	var named, names, untagged, unlisted, orphans []string
	for _, rec := range c.Put {
		named = append(named, string(rec.Desc.Digest))
	}
	named = append(named, texts(c.RequireManifests)...)
	for _, move := range c.Tags {
		names = append(names, move.Name)
		if move.To != "" {
			named = append(named, string(move.To))
		}
	}
	removed := p.removed()
	named = append(named, removed...)
	moving, archiving, restoring := p.classes()
	named = append(named, moving...)
	var seen, seenTags []string
	for _, s := range c.Unchanged {
		seen, seenTags = append(seen, string(s.Digest)), append(seenTags, s.Tags...)
	}
	named = append(named, seen...)
	for _, d := range c.Delete {
		if d.IfUntagged {
			untagged = append(untagged, string(d.Digest))
		}
		if d.IfUnlisted {
			unlisted = append(unlisted, string(d.Digest))
		}
		if d.IfOrphan {
			orphans = append(orphans, string(d.Digest))
		}
	}
	var a, b string
	var at *time.Time
	var e edges
	if len(removed) > 0 {
		each(t.queue(`select digest, blobs, manifests from manifest where repo = $1 and digest = any($2)`, repo, removed),
			[]any{&a, &e.blobs, &e.manifests}, func() { p.edges[a], e = e, edges{} })
	}
	if len(c.RequireBlobs) > 0 {
		each(t.queue(`select digest from link where repo = $1 and digest = any($2)`, repo, texts(c.RequireBlobs)),
			[]any{&a}, func() { p.blobs[digest.Digest(a)] = true })
	}
	if named != nil {
		var subject string
		var pushed, archived, restored *time.Time
		each(t.queue(`select digest, coalesce(subject, ''), storage_class, pushed_at, touched_at, archived_at, restored_at from manifest where repo = $1 and digest = any($2)`, repo, named),
			[]any{&a, &subject, &b, &pushed, &at, &archived, &restored}, func() {
				p.manifests[digest.Digest(a)], p.touched[digest.Digest(a)] = true, known(at)
				p.before[digest.Digest(a)] = manifest.Record{
					Subject: digest.Digest(subject), StorageClass: manifest.StorageClass(b),
					PushedAt: known(pushed), ArchivedAt: known(archived), RestoredAt: known(restored),
				}
			})
	}
	if names != nil || seenTags != nil {
		each(t.queue(`select name, digest from tag where repo = $1 and name = any($2)`, repo, slices.Concat(names, seenTags)),
			[]any{&a, &b}, func() { p.tags[a] = digest.Digest(b) })
	}
	if seen != nil {
		each(t.queue(`select digest, min(name) from tag where repo = $1 and digest = any($2) and name <> all($3) group by digest`, repo, seen, texts(seenTags)),
			[]any{&a, &b}, func() { p.gained[digest.Digest(a)] = b })
	}
	if moving != nil {
		each(t.queue(`select child, min(manifest) from parent e where repo = $1 and child = any($2) and manifest <> all($3) and manifest <> all($4) and
			(manifest = any($5) or exists (select from manifest m where m.repo = $1 and m.digest = e.manifest and m.storage_class = '')) group by child`,
			repo, moving, removed, archiving, restoring),
			[]any{&a, &b}, func() { p.listedBy[digest.Digest(a)] = digest.Digest(b) })
	}
	if orphans != nil {
		each(t.queue(`select digest from manifest where repo = $1 and digest = any(array(select subject from manifest where repo = $1 and digest = any($2))
			|| $3::text[])`, repo, orphans, p.subjectsPut()),
			[]any{&a}, func() { p.subjects[digest.Digest(a)] = true })
	}
	if untagged != nil {
		each(t.queue(`select digest, min(name) from tag where repo = $1 and digest = any($2) and name <> all($3) group by digest`, repo, untagged, texts(names)),
			[]any{&a, &b}, func() { p.tagOf[digest.Digest(a)] = b })
	}
	if unlisted != nil {
		each(t.queue(`select child, min(manifest) from parent where repo = $1 and child = any($2) and manifest <> all($3) group by child`, repo, unlisted, removed),
			[]any{&a, &b}, func() { p.parentOf[digest.Digest(a)] = digest.Digest(b) })
	}
	return p
}

func (p *plan) removed() []string {
	out := make([]string, len(p.Delete))
	for i, d := range p.Delete {
		out[i] = string(d.Digest)
	}
	return out
}

// classes returns what Classes moves, and what it and Put bring to either class
// as far as it is there.
func (p *plan) classes() (moving, archiving, restoring []string) {
	archiving, restoring = []string{}, []string{}
	class := map[digest.Digest]manifest.StorageClass{}
	for _, rec := range p.Put {
		class[rec.Desc.Digest] = manifest.Standard
	}
	for _, m := range p.Classes {
		class[m.Digest] = m.To
		moving = append(moving, string(m.Digest))
	}
	for d, to := range class {
		if to == manifest.Archive {
			archiving = append(archiving, string(d))
		} else {
			restoring = append(restoring, string(d))
		}
	}
	return moving, archiving, restoring
}

// subjectsPut are the subjects of Put.
func (p *plan) subjectsPut() []string {
	out := []string{}
	for _, rec := range p.Put {
		if rec.Subject != "" {
			out = append(out, string(rec.Subject))
		}
	}
	return out
}

// resolve finds what of Put is new, touches the rest, and finds what of it comes
// back from the archive.
func (p *plan) resolve() {
	for _, rec := range p.Put {
		p.touched[rec.Desc.Digest] = p.Touch(p.touched[rec.Desc.Digest])
		if p.manifests[rec.Desc.Digest] {
			p.moves = append(p.moves, manifest.ClassMove{Digest: rec.Desc.Digest})
			continue
		}
		p.manifests[rec.Desc.Digest] = true
		p.put = append(p.put, rec)
	}
	p.moves = append(p.moves, p.Classes...)
}

// missing returns what is required and not there, or nil.
func (p *plan) missing() error {
	var m manifest.MissingError
	blobs, manifests := map[digest.Digest]bool{}, map[digest.Digest]bool{} // listed in m: a document names thousands
	for _, d := range p.RequireBlobs {
		if !p.blobs[d] && !blobs[d] {
			blobs[d] = true
			m.Blobs = append(m.Blobs, d)
		}
	}
	need := func(d digest.Digest) {
		if !p.manifests[d] && !manifests[d] {
			manifests[d] = true
			m.Manifests = append(m.Manifests, d)
		}
	}
	for _, d := range p.RequireManifests {
		need(d)
	}
	for _, move := range p.Tags {
		if move.To != "" {
			need(move.To)
		}
	}
	if len(m.Blobs)+len(m.Manifests) > 0 {
		return &m
	}
	return nil
}

// changed returns how a manifest is not as it was seen, or nil.
func (p *plan) changed(seen manifest.Seen) error {
	rec, found := p.before[seen.Digest]
	if !found {
		return manifest.ErrNotFound
	}
	for _, name := range seen.Tags {
		have, found := p.tags[name]
		if !found {
			have = manifest.Absent
		}
		if have != seen.Digest {
			return &manifest.ConflictError{Tag: name, Want: seen.Digest, Have: have}
		}
	}
	if tag := p.gained[seen.Digest]; tag != "" {
		return &manifest.ConflictError{Digest: seen.Digest, Tag: tag}
	}
	for _, other := range p.Unchanged { // a tag of another one that is here would have moved there
		for _, name := range other.Tags {
			if p.tags[name] == seen.Digest && !slices.Contains(seen.Tags, name) {
				return &manifest.ConflictError{Digest: seen.Digest, Tag: name}
			}
		}
	}
	if since := rec.ClassSince(); !since.Equal(seen.Since) {
		return &manifest.ConflictError{Digest: seen.Digest, Since: since}
	}
	return nil
}

// check returns what is wrong with Unchanged, Tags, Classes or Delete, and
// about which tag or digest.
func (p *plan) check() (object string, err error) {
	for _, seen := range p.Unchanged {
		if err := p.changed(seen); err != nil {
			return string(seen.Digest), err
		}
	}
	for _, move := range p.Tags {
		have, found := p.tags[move.Name]
		if !found {
			have = manifest.Absent
		}
		if move.From != "" && move.From != have {
			return move.Name, &manifest.ConflictError{Tag: move.Name, Want: move.From, Have: have}
		}
		if move.To == "" && move.From == "" && !found {
			return move.Name, manifest.ErrNotFound
		}
	}
	for _, m := range p.Classes {
		if !p.manifests[m.Digest] {
			return string(m.Digest), manifest.ErrNotFound
		}
		if m.IfUnlisted {
			if parent := p.lister(m.Digest); parent != "" {
				return string(m.Digest), &manifest.ConflictError{Digest: m.Digest, Parent: parent}
			}
		}
	}
	for _, d := range p.Delete {
		if !p.manifests[d.Digest] {
			return string(d.Digest), manifest.ErrNotFound
		}
		if d.IfUntagged {
			if tag := p.tag(d.Digest); tag != "" {
				return string(d.Digest), &manifest.ConflictError{Digest: d.Digest, Tag: tag}
			}
		}
		if touched := p.touched[d.Digest]; d.TooYoung(touched) {
			return string(d.Digest), &manifest.ConflictError{Digest: d.Digest, TouchedAt: touched}
		}
		if d.IfUnlisted {
			if parent := p.parent(d.Digest); parent != "" {
				return string(d.Digest), &manifest.ConflictError{Digest: d.Digest, Parent: parent}
			}
		}
		if d.IfOrphan {
			if subject := p.subject(d.Digest); subject != "" {
				return string(d.Digest), &manifest.ConflictError{Digest: d.Digest, Subject: subject}
			}
		}
	}
	return "", nil
}

// stays tells whether Delete leaves a manifest.
func (p *plan) stays(dgst digest.Digest) bool {
	return !slices.ContainsFunc(p.Delete, func(d manifest.Removal) bool { return d.Digest == dgst })
}

// subject returns that of a manifest, if it is there after Delete.
func (p *plan) subject(dgst digest.Digest) digest.Digest {
	subject := p.before[dgst].Subject
	for _, rec := range p.put {
		if rec.Desc.Digest == dgst {
			subject = rec.Subject
		}
	}
	if subject == "" || !p.stays(subject) || !p.subjects[subject] && !p.manifests[subject] {
		return ""
	}
	return subject
}

// lister finds a manifest that lists dgst, and is not in the archive after
// Classes, and stays.
func (p *plan) lister(dgst digest.Digest) digest.Digest {
	for _, rec := range p.put {
		archived := slices.ContainsFunc(p.Classes, func(m manifest.ClassMove) bool { return m.Digest == rec.Desc.Digest && m.To == manifest.Archive })
		if !archived && p.stays(rec.Desc.Digest) && slices.Contains(rec.Manifests, dgst) {
			return rec.Desc.Digest
		}
	}
	return p.listedBy[dgst]
}

// tag finds one that names dgst after Tags.
func (p *plan) tag(dgst digest.Digest) string {
	for _, move := range p.Tags {
		if move.To == dgst {
			return move.Name
		}
	}
	return p.tagOf[dgst]
}

// parent finds a manifest that lists dgst after Delete.
func (p *plan) parent(dgst digest.Digest) digest.Digest {
	for _, rec := range p.put {
		if p.stays(rec.Desc.Digest) && slices.Contains(rec.Manifests, dgst) {
			return rec.Desc.Digest
		}
	}
	return p.parentOf[dgst]
}

// write queues what makes the change.
func (p *plan) write(t *tx) {
	at := optional(p.At)
	var fresh []string
	for i := range p.put {
		f := factsOf(&p.put[i])
		raw := p.put[i].Raw
		if raw == nil {
			raw = []byte{}
		}
		t.queue(`insert into manifest (repo, digest, descriptor, artifact_type, subject, manifests, blobs, pushed_at, touched_at, raw)
			values ($1, $2, $3, $4, $5, $6, $7, $8, $8, $9)`,
			p.repo, p.put[i].Desc.Digest, f.descriptor, f.artifactType, f.subject, f.manifests, f.blobs, at, raw)
		fresh = append(fresh, string(p.put[i].Desc.Digest))
		p.edges[fresh[i]] = edges{f.blobs, f.manifests}
	}
	if fresh != nil {
		writeEdges(t, p.repo, fresh)
	}
	if len(p.Put) > len(p.put) {
		var again []string
		for _, rec := range p.Put {
			if !slices.Contains(fresh, string(rec.Desc.Digest)) {
				again = append(again, string(rec.Desc.Digest))
			}
		}
		t.queue(`update manifest set touched_at = case when $3::timestamptz is not null then greatest(touched_at, $3) end
			where repo = $1 and digest = any($2)`, p.repo, again, at)
	}
	var gone, names, to []string
	for _, move := range p.Tags {
		have, found := p.tags[move.Name]
		switch {
		case move.To == "" && found:
			gone = append(gone, move.Name)
		case move.To != "" && move.To != have:
			names, to = append(names, move.Name), append(to, string(move.To))
		}
	}
	if gone != nil {
		t.queue(`delete from tag where repo = $1 and name = any($2)`, p.repo, gone)
	}
	if names != nil {
		t.queue(`insert into tag (repo, name, digest, moved_at) select $1, name, digest, $4::timestamptz from unnest($2::text[], $3::text[]) as move (name, digest)
			on conflict (repo, name) do update set digest = excluded.digest, moved_at = excluded.moved_at`, p.repo, names, to, at)
	}
	for _, m := range p.moves {
		column := "archived_at"
		if m.To != manifest.Archive {
			column = "restored_at"
		}
		if p.before[m.Digest].StorageClass != m.To || len(p.Classes) > 0 {
			t.queue(`update manifest set storage_class = $3, `+column+` = $4 where repo = $1 and digest = $2 and storage_class <> $3`, p.repo, m.Digest, m.To, at)
		}
	}
	if removed := p.removed(); len(removed) > 0 {
		// By their whole keys: for a join with manifest, a plan for any arguments
		// reads all edges of the repository.
		for _, dgst := range removed {
			e := p.edges[dgst]
			if len(e.blobs) > 0 {
				t.queue(`delete from need where repo = $1 and blob = any($2) and manifest = $3`, p.repo, e.blobs, dgst)
			}
			if len(e.manifests) > 0 {
				t.queue(`delete from parent where repo = $1 and child = any($2) and manifest = $3`, p.repo, e.manifests, dgst)
			}
		}
		t.queue(`delete from pull where repo = $1 and digest = any($2)`, p.repo, removed)
		t.queue(`delete from manifest where repo = $1 and digest = any($2)`, p.repo, removed) // and its tags
	}
}

// writeEdges queues what adds the edges of manifests that are there, unless
// they are there too.
func writeEdges(t *tx, repo string, dgsts []string) {
	t.queue(`insert into need (repo, blob, manifest) select $1, named, digest from manifest, unnest(blobs) as named
		where repo = $1 and digest = any($2) on conflict do nothing`, repo, dgsts)
	t.queue(`insert into parent (repo, child, manifest) select $1, named, digest from manifest, unnest(manifests) as named
		where repo = $1 and digest = any($2) on conflict do nothing`, repo, dgsts)
}

// derived are the columns of a manifest that follow from its document.
type derived struct {
	descriptor, artifactType string
	subject                  *string
	manifests, blobs         []string
}

func factsOf(rec *manifest.Record) derived {
	d := derived{
		descriptor: manifest.NewReferrerJSON(rec.Desc).JSON, artifactType: rec.Desc.ArtifactType,
		manifests: texts(rec.Manifests), blobs: texts(rec.Blobs),
	}
	if rec.Subject != "" {
		subject := string(rec.Subject)
		d.subject = &subject
	}
	return d
}

func withoutRaw(c manifest.Change) manifest.Change {
	c.Put = slices.Clone(c.Put)
	for i := range c.Put {
		c.Put[i].Raw = nil
	}
	return c
}

// keepEvent queues what tells of c.
func keepEvent(t *tx, repo string, c manifest.Change) error {
	change, err := json.Marshal(withoutRaw(c))
	if err != nil {
		return err
	}
	t.queue(`insert into event (repo, change) values ($1, $2)`, repo, string(change))
	return nil
}
