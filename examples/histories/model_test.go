package histories

import (
	"maps"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/manifest"
)

// model is a registry as the contracts of blob, manifest, referrers and
// lifecycle describe it: maps, one caller, nothing else. Answers are text, see
// answers_test.go. Where the contracts leave a choice, a method returns all
// answers that are right.
type model struct {
	now   time.Time
	lease time.Duration

	// sharedTouch is for dirblob, where a touch of a mounted blob touches it in
	// all repositories.
	sharedTouch bool
	latest      map[digest.Digest]time.Time // when a blob was last touched anywhere

	repos   map[string]*repository // only those that anything was asked of
	uploads []*upload
	events  []manifest.Event // what was committed and not forgotten
}

type repository struct {
	blobs     map[digest.Digest]*link
	manifests map[digest.Digest]manifest.Record
	tags      map[string]manifest.Tag
	pulls     map[digest.Digest]time.Time
}

// link is a blob in a repository.
type link struct {
	content  string
	promised time.Time // the last put, mount, finish or positive Stat
	latest   time.Time // the last thing that may have been a touch
}

func newModel(now time.Time, lease time.Duration) *model {
	return &model{now: now, lease: lease, latest: map[digest.Digest]time.Time{}, repos: map[string]*repository{}}
}

func (m *model) repo(name string) *repository {
	r := m.repos[name]
	if r == nil {
		r = &repository{map[digest.Digest]*link{}, map[digest.Digest]manifest.Record{}, map[string]manifest.Tag{}, map[digest.Digest]time.Time{}}
		m.repos[name] = r
	}
	return r
}

// Blobs.

func (m *model) touch(repo string, dgst digest.Digest) {
	m.repo(repo).blobs[dgst].promised = m.now
	m.mayTouch(repo, dgst)
}

func (m *model) mayTouch(repo string, dgst digest.Digest) {
	if l := m.repo(repo).blobs[dgst]; l != nil {
		l.latest, m.latest[dgst] = m.now, m.now
	}
}

// touched returns the range of right values of TouchedAt.
func (m *model) touched(repo string, dgst digest.Digest) (earliest, latest time.Time) {
	l := m.repo(repo).blobs[dgst]
	latest = l.latest
	if m.sharedTouch {
		latest = m.latest[dgst]
	}
	return l.promised.Add(-m.lease / 2), latest
}

func (m *model) stat(repo string, dgsts []digest.Digest) string {
	var out list
	for _, d := range dgsts {
		l := m.repo(repo).blobs[d]
		if l != nil {
			m.touch(repo, d)
		}
		out.add(showBlob(d, l))
	}
	return out.String()
}

func (m *model) open(repo string, dgst digest.Digest, off, n int64) string {
	l := m.repo(repo).blobs[dgst]
	switch {
	case l == nil:
		return blobNotFound
	case off > int64(len(l.content)):
		return blobRange
	}
	rest := l.content[off:]
	if n >= 0 && n < int64(len(rest)) {
		rest = rest[:n]
	}
	return opened(showBlob(dgst, l), rest)
}

func (m *model) put(repo string, dgst digest.Digest, content string) string {
	r := m.repo(repo)
	if r.blobs[dgst] == nil {
		r.blobs[dgst] = &link{content: content}
	}
	m.touch(repo, dgst)
	return ok
}

func (m *model) mount(from, repo string, dgst digest.Digest) string {
	source := m.repo(from).blobs[dgst]
	if source == nil {
		return blobNotFound
	}
	m.mayTouch(from, dgst)
	return m.put(repo, dgst, source.content)
}

func (m *model) locate(dgst digest.Digest) string {
	var out list
	for _, name := range after(m.repos, "") {
		if m.repo(name).blobs[dgst] != nil {
			out.add(name)
		}
	}
	return out.String()
}

func (m *model) blobs(repo string, last digest.Digest) string {
	var out list
	r := m.repo(repo)
	for _, d := range after(r.blobs, last) {
		out.add(showBlob(d, r.blobs[d]))
	}
	return out.String()
}

// needed tells whether a manifest of repo names a blob.
func (m *model) needed(repo string, dgst digest.Digest) bool {
	for _, rec := range m.repo(repo).manifests {
		if slices.Contains(rec.Blobs, dgst) {
			return true
		}
	}
	return false
}

// deleteBlob is told whether the blob was touched after the cutoff.
func (m *model) deleteBlob(repo string, dgst digest.Digest, young bool) []string {
	r, needed := m.repo(repo), m.needed(repo, dgst)
	switch {
	case r.blobs[dgst] == nil && needed:
		return []string{blobNotFound, blobConflict}
	case r.blobs[dgst] == nil:
		return []string{blobNotFound}
	case needed || young:
		return []string{blobConflict}
	}
	delete(r.blobs, dgst)
	return []string{ok}
}

// collectable tells whether a collection that spares what was touched after
// cutoff must remove a blob, and whether it may.
func (m *model) collectable(repo string, dgst digest.Digest, cutoff time.Time) (must, may bool) {
	earliest, latest := m.touched(repo, dgst)
	needed := m.needed(repo, dgst)
	return !needed && !latest.After(cutoff), !needed && !earliest.After(cutoff)
}

func (m *model) blobRepos(last string) string {
	var out list
	for _, name := range after(m.repos, last) {
		if len(m.repo(name).blobs) > 0 {
			out.add(name)
		}
	}
	return out.String()
}

// Uploads.

// upload is a session, as last saved.
type upload struct {
	repo    string
	alg     digest.Algorithm
	version int
	content string
	updated time.Time
	saved   bool // ever
	ended   bool
}

// value is an Upload that a caller holds: a version of a session, or, with
// base, what Append made of one.
type value struct {
	*upload // nil for a variable without a value
	version int
	content string
	base    *value
	staged  time.Time // of base
}

func (m *model) begin(repo string, alg digest.Algorithm) value {
	u := &upload{repo: repo, alg: alg, updated: m.now}
	m.uploads = append(m.uploads, u)
	return value{upload: u}
}

func (u *upload) current() value { return value{upload: u, version: u.version, content: u.content} }

// check says why v cannot replace the session, or "ok".
func (v value) check() string {
	if v.base != nil {
		v = *v.base
	}
	switch {
	case v.ended:
		return uploadNotFound
	case v.version != v.upload.version:
		return blobConflict
	}
	return ok
}

func (m *model) lookup(v value, repo string) (value, string) {
	if v.ended || repo != v.repo {
		return value{}, uploadNotFound
	}
	return v.current(), ok
}

// append is blob.Append; start says that the offset is right.
func (m *model) append(v value, start bool, chunk string) (value, string) {
	if !start {
		return v, blobOffset
	}
	next := m.stage(v, chunk)
	answer := m.save(next)
	if answer != ok {
		return v, answer
	}
	return v.current(), answer
}

// stage is Uploads.Append, for when it succeeds.
func (m *model) stage(v value, chunk string) value {
	return value{upload: v.upload, version: -1, content: v.content + chunk, base: &v, staged: m.now}
}

func (m *model) save(v value) string {
	answer := v.check()
	if answer == ok {
		v.upload.version++
		v.upload.content, v.upload.updated, v.saved = v.content, m.now, true
	}
	return answer
}

func (m *model) commit(v value, dgst digest.Digest) string {
	answer := v.check()
	if answer == ok {
		m.put(v.repo, dgst, v.content)
		v.ended = true
	}
	return answer
}

func (m *model) abort(v value) string {
	answer := v.check()
	if answer == ok {
		v.ended = true
	}
	return answer
}

func (m *model) reread(v value) []string {
	switch answer := v.check(); answer {
	case uploadNotFound:
		return []string{answer}
	case blobConflict: // unless the bytes are still there
		return []string{answer, quote(v.content)}
	}
	return []string{quote(v.content)}
}

// Manifests.

// apply returns the one right answer, or, where several conditions do not hold,
// what may be said of one of them.
func (m *model) apply(repo string, c manifest.Change) []string {
	r := m.repo(repo)
	manifests, tags := maps.Clone(r.manifests), maps.Clone(r.tags)

	for _, rec := range c.Put {
		was, found := manifests[rec.Desc.Digest]
		if !found {
			was = rec
			was.PushedAt, was.TouchedAt = c.At, c.At
		}
		if c.At.IsZero() || c.At.After(was.TouchedAt) {
			was.TouchedAt = c.At
		}
		manifests[rec.Desc.Digest] = reclass(was, manifest.Standard, c.At)
	}

	var missing manifest.MissingError
	for _, d := range c.RequireBlobs {
		m.mayTouch(repo, d)
		if r.blobs[d] == nil {
			missing.Blobs = append(missing.Blobs, d)
		}
	}
	need := func(d digest.Digest) {
		if _, found := manifests[d]; !found && !slices.Contains(missing.Manifests, d) {
			missing.Manifests = append(missing.Manifests, d)
		}
	}
	for _, d := range c.RequireManifests {
		need(d)
	}
	for _, t := range c.Tags {
		if t.To != "" {
			need(t.To)
		}
	}
	if len(missing.Blobs)+len(missing.Manifests) > 0 {
		return []string{missingAnswer(&missing)}
	}

	faults := r.changes(c.Unchanged)
	if faults != nil {
		return faults
	}
	for _, t := range c.Tags {
		tag, found := tags[t.Name]
		if !found {
			tag.Digest = manifest.Absent
		}
		switch {
		case t.From != "" && t.From != tag.Digest:
			faults = append(faults, conflictAnswer(&manifest.ConflictError{Tag: t.Name, Want: t.From, Have: tag.Digest}))
		case t.To == "" && t.From == "" && !found:
			faults = append(faults, manifestNotFound)
		case t.To == "":
			delete(tags, t.Name)
		case t.To != tag.Digest:
			tags[t.Name] = manifest.Tag{Name: t.Name, Digest: t.To, MovedAt: c.At}
		}
	}
	if faults != nil {
		return faults
	}

	for _, m := range c.Classes {
		rec, found := manifests[m.Digest]
		if !found {
			faults = append(faults, manifestNotFound)
			continue
		}
		manifests[m.Digest] = reclass(rec, m.To, c.At)
	}
	deleted := maps.Clone(manifests)
	for _, d := range c.Delete {
		delete(deleted, d.Digest)
	}
	for _, m := range c.Classes {
		for parent, rec := range deleted {
			if m.IfUnlisted && rec.StorageClass == manifest.Standard && slices.Contains(rec.Manifests, m.Digest) {
				faults = append(faults, conflictAnswer(&manifest.ConflictError{Digest: m.Digest, Parent: parent}))
			}
		}
	}
	if faults != nil {
		return faults
	}
	for _, d := range c.Delete {
		if rec, found := manifests[d.Digest]; !found {
			faults = append(faults, manifestNotFound)
		} else if at := rec.TouchedAt; !d.Cutoff.IsZero() && (at.IsZero() || at.After(d.Cutoff)) {
			faults = append(faults, conflictAnswer(&manifest.ConflictError{Digest: d.Digest, TouchedAt: at}))
		}
		subject := manifests[d.Digest].Subject
		if _, found := deleted[subject]; found && d.IfOrphan {
			faults = append(faults, conflictAnswer(&manifest.ConflictError{Digest: d.Digest, Subject: subject}))
		}
	}
	for _, d := range c.Delete {
		for _, t := range tags {
			if d.IfUntagged && t.Digest == d.Digest {
				faults = append(faults, conflictAnswer(&manifest.ConflictError{Digest: d.Digest, Tag: t.Name}))
			}
		}
		for parent, rec := range deleted {
			if d.IfUnlisted && slices.Contains(rec.Manifests, d.Digest) {
				faults = append(faults, conflictAnswer(&manifest.ConflictError{Digest: d.Digest, Parent: parent}))
			}
		}
	}
	if faults != nil {
		return faults
	}
	maps.DeleteFunc(tags, func(_ string, t manifest.Tag) bool { _, stays := deleted[t.Digest]; return !stays })

	r.manifests, r.tags = deleted, tags
	m.events = append(m.events, manifest.Event{Repo: repo, Change: c})
	return []string{ok}
}

func reclass(rec manifest.Record, to manifest.StorageClass, at time.Time) manifest.Record {
	switch {
	case rec.StorageClass == to:
		return rec
	case to == manifest.Archive:
		rec.ArchivedAt = at
	default:
		rec.RestoredAt = at
	}
	rec.StorageClass = to
	return rec
}

// changes returns all that is not as it was seen.
func (r *repository) changes(unchanged []manifest.Seen) (faults []string) {
	for _, seen := range unchanged {
		rec, found := r.manifests[seen.Digest]
		if !found {
			faults = append(faults, manifestNotFound)
			continue
		}
		for _, name := range seen.Tags {
			if t, found := r.tags[name]; !found {
				faults = append(faults, conflictAnswer(&manifest.ConflictError{Tag: name, Want: seen.Digest, Have: manifest.Absent}))
			} else if t.Digest != seen.Digest {
				faults = append(faults, conflictAnswer(&manifest.ConflictError{Tag: name, Want: seen.Digest, Have: t.Digest}))
			}
		}
		for name, t := range r.tags {
			if t.Digest == seen.Digest && !slices.Contains(seen.Tags, name) {
				faults = append(faults, conflictAnswer(&manifest.ConflictError{Digest: seen.Digest, Tag: name}))
			}
		}
		if since := rec.ClassSince(); !since.Equal(seen.Since) {
			faults = append(faults, conflictAnswer(&manifest.ConflictError{Digest: seen.Digest, Since: since}))
		}
	}
	return faults
}

// push is manifest.Pusher.Push with BlobSizes.
func (m *model) push(repo string, doc *document, tags []string, from digest.Digest, sparse bool) []string {
	r, rec := m.repo(repo), doc.record
	if len(rec.Manifests) > 0 { // of an index, entries of unknown types that are manifests here are children
		rec.Manifests, rec.Blobs = slices.Clone(rec.Manifests), nil
		for _, d := range doc.record.Blobs {
			if _, found := r.manifests[d]; found {
				rec.Manifests = append(rec.Manifests, d)
			} else {
				rec.Blobs = append(rec.Blobs, d)
			}
		}
	}
	for _, d := range rec.Blobs {
		if r.blobs[d] != nil {
			m.touch(repo, d) // by Stat
		}
	}
	if r.blobs[doc.wrongSize] != nil {
		return []string{manifestInvalid}
	}
	c := manifest.Change{RequireManifests: rec.Manifests, Put: []manifest.Record{rec}, At: m.now}
	if sparse {
		c.RequireManifests = nil
	}
	for _, d := range rec.Blobs {
		if d != doc.foreign {
			c.RequireBlobs = append(c.RequireBlobs, d)
		}
	}
	for _, t := range tags {
		c.Tags = append(c.Tags, manifest.TagMove{Name: t, To: rec.Desc.Digest, From: from})
	}
	return m.apply(repo, c)
}

func (m *model) get(repo string, dgst digest.Digest) string {
	rec, found := m.repo(repo).manifests[dgst]
	if !found {
		return manifestNotFound
	}
	return showRecord(rec, string(rec.Raw))
}

func (m *model) resolve(repo, tag string) string {
	t, found := m.repo(repo).tags[tag]
	if !found {
		return manifestNotFound
	}
	return showTag(t)
}

func (m *model) statManifests(repo string, dgsts []digest.Digest) string {
	var out list
	for _, d := range dgsts {
		rec := m.repo(repo).manifests[d]
		rec.Desc.Annotations = nil
		out.add(showDescriptor(rec.Desc))
	}
	return out.String()
}

func (m *model) manifests(repo string, last digest.Digest) string {
	var out list
	r := m.repo(repo)
	for _, d := range after(r.manifests, last) {
		out.add(showRecord(r.manifests[d], ""))
	}
	return out.String()
}

func (m *model) tags(repo, last string) string {
	var out list
	r := m.repo(repo)
	for _, name := range after(r.tags, last) {
		out.add(showTag(r.tags[name]))
	}
	return out.String()
}

func (m *model) manifestRepos(last string) string {
	var out list
	for _, name := range after(m.repos, last) {
		if len(m.repo(name).manifests) > 0 {
			out.add(name)
		}
	}
	return out.String()
}

func (m *model) referrers(repo string, subject digest.Digest, artifactType string, last digest.Digest) string {
	var out list
	r := m.repo(repo)
	for _, d := range after(r.manifests, last) {
		if rec := r.manifests[d]; rec.Subject == subject && (artifactType == "" || artifactType == rec.Desc.ArtifactType) {
			out.add(showDescriptor(rec.Desc))
		}
	}
	return out.String()
}

// touchPull has any store record pulls, of manifests that are not there too.
func (m *model) touchPull(repo string, dgst digest.Digest, at time.Time) string {
	r := m.repo(repo)
	if at.After(r.pulls[dgst]) {
		r.pulls[dgst] = at
	}
	return ok
}

func (m *model) pulls(repo string, last digest.Digest) string {
	var out list
	r := m.repo(repo)
	for _, d := range after(r.pulls, last) {
		out.add(showPull(d, r.pulls[d]))
	}
	return out.String()
}
