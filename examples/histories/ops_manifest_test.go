package histories

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/lifecycle"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/referrers"
)

// wanted is a From that is settled when the operation runs.
type wanted int

const (
	fromAny wanted = iota
	fromCurrent
	fromAbsent
	fromDocument // some document's
)

var drawWanted = from([]wanted{fromAny, fromCurrent, fromAbsent, fromDocument})

func (r *run) from(w wanted, repo, tag string, doc *document) digest.Digest {
	switch w {
	case fromCurrent:
		if t, found := r.model.repo(repo).tags[tag]; found {
			return t.Digest
		}
		return manifest.Absent
	case fromAbsent:
		return manifest.Absent
	case fromDocument:
		return doc.record.Desc.Digest
	}
	return ""
}

func (w wanted) text(doc *document) string {
	return [...]string{"", " from current", " from absent", " from " + doc.name}[w]
}

// move is a TagMove whose From may be settled later.
type move struct {
	tag  string
	to   *document // nil removes
	from wanted
	doc  *document
}

func drawTagMove(d draws) move {
	m := move{tag: drawTag(d), from: drawWanted(d), doc: drawDocument(d)}
	if drawCount(d) != 2 {
		m.to = drawDocument(d)
	}
	return m
}

func (m move) settle(r *run, repo string) manifest.TagMove {
	move := manifest.TagMove{Name: m.tag, From: r.from(m.from, repo, m.tag, m.doc)}
	if m.to != nil {
		move.To = m.to.record.Desc.Digest
	}
	return move
}

func (m move) String() string {
	to := "nothing"
	if m.to != nil {
		to = m.to.name
	}
	return m.tag + "→" + to + m.from.text(m.doc)
}

// removal is a Removal whose Cutoff is settled when the operation runs.
type removal struct {
	manifest.Removal
	cutoff cutoff
}

type cutoff int

const (
	noCutoff cutoff = iota
	whenTouched
	beforeTouched
)

var drawCutoff = from([]cutoff{noCutoff, noCutoff, noCutoff, noCutoff, whenTouched, beforeTouched})

func drawRemoval(d draws) removal {
	return removal{manifest.Removal{Digest: drawDocument(d).record.Desc.Digest, IfUntagged: drawBool(d), IfUnlisted: drawBool(d), IfOrphan: drawBool(d)}, drawCutoff(d)}
}

func (m removal) settle(r *run, repo string) manifest.Removal {
	if m.cutoff == noCutoff {
		return m.Removal
	}
	out := m.Removal
	out.Cutoff = r.now
	if rec := r.model.repo(repo).manifests[m.Digest]; !rec.TouchedAt.IsZero() {
		out.Cutoff = rec.TouchedAt
	}
	if m.cutoff == beforeTouched {
		out.Cutoff = out.Cutoff.Add(-time.Second)
	}
	return out
}

var drawClass = from([]manifest.StorageClass{manifest.Standard, manifest.Archive})

func drawClassMove(d draws) manifest.ClassMove {
	return manifest.ClassMove{Digest: drawDocument(d).record.Desc.Digest, To: drawClass(d), IfUnlisted: drawBool(d)}
}

// sight is a Seen that is settled when the operation runs.
type sight struct {
	doc  *document
	flaw flaw
}

// flaw is what is wrong with what was seen.
type flaw int

const (
	noFlaw flaw = iota
	tagMissing
	tagTooMany
	otherTime
)

var drawFlaw = from([]flaw{noFlaw, noFlaw, noFlaw, tagMissing, tagTooMany, otherTime})

func drawSight(d draws) sight { return sight{drawDocument(d), drawFlaw(d)} }

func (s sight) settle(r *run, repo string) manifest.Seen {
	m := r.model.repo(repo)
	seen := manifest.Seen{Digest: s.doc.record.Desc.Digest}
	if rec, found := m.manifests[seen.Digest]; found {
		seen.Since = rec.ClassSince()
	}
	for _, name := range slices.Sorted(maps.Keys(m.tags)) {
		if m.tags[name].Digest == seen.Digest {
			seen.Tags = append(seen.Tags, name)
		}
	}
	switch {
	case s.flaw == tagMissing && seen.Tags != nil:
		seen.Tags = seen.Tags[1:]
	case s.flaw == tagTooMany && !slices.Contains(seen.Tags, "latest"):
		seen.Tags = append(seen.Tags, "latest")
	case s.flaw == otherTime:
		seen.Since = seen.Since.Add(time.Hour)
	}
	return seen
}

func (s sight) String() string {
	return s.doc.name + [...]string{"", " without a tag", " with another tag", " at another time"}[s.flaw]
}

// drawApply is a Change with any of its fields. What it puts need not have what
// it names.
func drawApply(d draws) op {
	repo := drawRepo(d)
	var c manifest.Change
	docName := func(doc *document) string { return doc.name }
	if drawSeldom(d) {
		for _, b := range some(d, drawContent, func(c content) string { return c.name }) {
			c.RequireBlobs = append(c.RequireBlobs, b.dgst)
		}
	}
	if drawSeldom(d) {
		for _, doc := range some(d, drawDocument, docName) {
			c.RequireManifests = append(c.RequireManifests, doc.record.Desc.Digest)
		}
	}
	if drawBool(d) {
		for _, doc := range some(d, drawDocument, docName) {
			c.Put = append(c.Put, doc.record)
		}
	}
	var moves []move
	if drawBool(d) {
		moves = some(d, drawTagMove, func(m move) string { return m.tag })
	}
	var removals []removal
	if drawBool(d) {
		removals = some(d, drawRemoval, func(m removal) digest.Digest { return m.Digest })
	}
	var cutoffs []string
	for _, m := range removals {
		c.Delete = append(c.Delete, m.Removal) // to be shown
		if m.cutoff != noCutoff {
			cutoffs = append(cutoffs, name(m.Digest)+[...]string{"", " when touched", " before it was touched"}[m.cutoff])
		}
	}
	if drawSeldom(d) {
		c.Classes = some(d, drawClassMove, func(m manifest.ClassMove) digest.Digest { return m.Digest })
	}
	var sights []sight
	if drawSeldom(d) {
		sights = some(d, drawSight, func(s sight) string { return s.doc.name })
	}
	unknown := drawSeldom(d)
	c.At = epoch // so that showChange does not say otherwise
	if unknown {
		c.At = time.Time{}
	}
	text := strings.TrimSuffix(showChange(c), "}")
	if moves != nil {
		text += fmt.Sprintf(" tags: %v", moves)
	}
	if sights != nil {
		text += fmt.Sprintf(" unchanged: %v", sights)
	}
	if cutoffs != nil {
		text += fmt.Sprintf(" cutoffs: %v", cutoffs)
	}
	return opf(func(r *run) {
		c := c
		for _, m := range moves {
			c.Tags = append(c.Tags, m.settle(r, repo))
		}
		c.Delete = nil
		for _, m := range removals {
			c.Delete = append(c.Delete, m.settle(r, repo))
		}
		for _, s := range sights {
			c.Unchanged = append(c.Unchanged, s.settle(r, repo))
		}
		if !unknown {
			c.At = r.now
		}
		r.apply(repo, c)
	}, "apply(%s, %s})", repo, text)
}

func (r *run) apply(repo string, c manifest.Change) {
	err := r.sys.manifests.Apply(r.ctx, repo, c)
	r.same(r.answer(err), r.model.apply(repo, c)...)
	if err != nil || r.sys.pulls == nil {
		return
	}
	for _, d := range c.Delete {
		r.mayDropPull(repo, d.Digest)
	}
}

// mayDropPull has the model follow a store that drops, or leaves out, the pull of a
// manifest that is not there.
func (r *run) mayDropPull(repo string, dgst digest.Digest) {
	listed := func(p lifecycle.Pull) string { return string(p.Digest) }
	if !strings.Contains(rendered(r, r.sys.pulls.Pulls(r.ctx, repo, ""), listed), string(dgst)) {
		delete(r.model.repo(repo).pulls, dgst)
	}
}

// drawMove is a Change that only moves a tag.
func drawMove(d draws) op {
	repo, m := drawRepo(d), drawTagMove(d)
	return opf(func(r *run) {
		r.apply(repo, manifest.Change{Tags: []manifest.TagMove{m.settle(r, repo)}, At: r.now})
	}, "tag(%s, %v)", repo, m)
}

// drawPush is a push of a document, in half of the cases with its blobs before
// it, as clients do.
func drawPush(d draws) op {
	repo, doc, sparse, complete := drawRepo(d), drawDocument(d), drawSeldom(d), drawBool(d)
	tags := some(d, drawTag, func(t string) string { return t })
	w, fromDoc := fromAny, doc
	if len(tags) == 1 {
		w, fromDoc = drawWanted(d), drawDocument(d)
	}
	what := ""
	if tags != nil {
		what += fmt.Sprintf(", tags %v%s", tags, w.text(fromDoc))
	}
	if sparse {
		what += ", sparse"
	}
	if complete {
		what += ", blobs too"
	}
	return opf(func(r *run) {
		if complete {
			for _, c := range contents {
				if slices.Contains(doc.record.Blobs, c.dgst) {
					r.same(r.answer(blob.Put(r.ctx, r.sys.blobs, repo, blobDescriptor(c), strings.NewReader(c.text))), r.model.put(repo, c.dgst, c.text))
				}
			}
		}
		in := manifest.PushRequest{MediaType: doc.record.Desc.MediaType, Raw: doc.record.Raw, Digest: doc.record.Desc.Digest, Tags: tags}
		if len(tags) == 1 {
			in.From = r.from(w, repo, tags[0], fromDoc)
		}
		p := manifest.Pusher{Store: r.sys.manifests, Sparse: sparse, BlobSizes: r.blobSizes, Now: func() time.Time { return r.now }}
		_, err := p.Push(r.ctx, repo, in)
		r.same(r.answer(err), r.model.push(repo, doc, tags, in.From, sparse)...)
	}, "push(%s, %s%s)", repo, doc.name, what)
}

func (r *run) blobSizes(ctx context.Context, repo string, dgsts []digest.Digest) ([]int64, error) {
	infos, err := r.sys.blobs.Stat(ctx, repo, dgsts)
	if err != nil {
		return nil, err
	}
	sizes := make([]int64, len(infos))
	for i, info := range infos {
		if sizes[i] = info.Size; info.Digest == "" {
			sizes[i] = -1
		}
	}
	return sizes, nil
}

func drawGet(d draws) op {
	repo, doc := drawRepo(d), drawDocument(d)
	return opf(func(r *run) {
		r.same(r.get(repo, doc.record.Desc.Digest), r.model.get(repo, doc.record.Desc.Digest))
	}, "get(%s, %s)", repo, doc.name)
}

func (r *run) get(repo string, dgst digest.Digest) string {
	rec, err := r.sys.manifests.Get(r.ctx, repo, dgst)
	if err != nil {
		return r.answer(err)
	}
	return showRecord(rec, string(rec.Raw))
}

func drawResolve(d draws) op {
	repo, tag := drawRepo(d), drawTag(d)
	return opf(func(r *run) {
		r.same(r.resolve(repo, tag), r.model.resolve(repo, tag))
	}, "resolve(%s, %s)", repo, tag)
}

func (r *run) resolve(repo, tag string) string {
	t, err := r.sys.manifests.Resolve(r.ctx, repo, tag)
	if err != nil {
		return r.answer(err)
	}
	return showTag(t)
}

func drawStatManifests(d draws) op {
	repo := drawRepo(d)
	var dgsts []digest.Digest
	for _, doc := range some(d, drawDocument, func(doc *document) string { return doc.name }) {
		dgsts = append(dgsts, doc.record.Desc.Digest)
	}
	return opf(func(r *run) {
		descs, err := manifest.Stat(r.ctx, r.sys.manifests, repo, dgsts)
		var got list
		for _, desc := range descs {
			got.add(showDescriptor(desc))
		}
		if err != nil {
			got.add(r.answer(err))
		}
		r.same(got.String(), r.model.statManifests(repo, dgsts))
	}, "statManifests(%s, %s)", repo, showSet(dgsts))
}

func drawManifests(d draws) op {
	repo, last := drawRepo(d), drawAfter(d)
	return opf(func(r *run) {
		r.same(rendered(r, r.sys.manifests.Manifests(r.ctx, repo, last), showListed), r.model.manifests(repo, last))
	}, "manifests(%s, after %s)", repo, name(last))
}

func drawTags(d draws) op {
	repo, last := drawRepo(d), drawName(d)
	return opf(func(r *run) {
		r.same(rendered(r, r.sys.manifests.Tags(r.ctx, repo, last), showTag), r.model.tags(repo, last))
	}, "tags(%s, after %q)", repo, last)
}

func drawManifestRepos(d draws) op {
	last := drawName(d)
	return opf(func(r *run) {
		r.same(rendered(r, r.sys.manifests.Repos(r.ctx, last), showString), r.model.manifestRepos(last))
	}, "manifestRepos(after %q)", last)
}

func drawReferrers(d draws) op {
	repo, subject, typ, last := drawRepo(d), drawSubject(d), drawType(d), drawAfter(d)
	return opf(func(r *run) {
		r.same(r.referrers(repo, subject, typ, last), r.model.referrers(repo, subject, typ, last))
	}, "referrers(%s, %s, %q, after %s)", repo, name(subject), typ, name(last))
}

// referrers asks twice: for descriptors, and for their JSON.
func (r *run) referrers(repo string, subject digest.Digest, typ string, last digest.Digest) string {
	var want list
	got := rendered(r, r.sys.manifests.Referrers(r.ctx, repo, subject, typ, last), func(d ocispec.Descriptor) string {
		want.add(manifest.NewReferrerJSON(d).JSON)
		return showDescriptor(d)
	})
	r.same(rendered(r, referrers.JSON(r.ctx, r.sys.manifests, repo, subject, typ, last), func(j manifest.ReferrerJSON) string {
		return j.JSON
	}), want.String())
	return got
}

func drawEvents(d draws) op {
	n := drawNumber(d)
	return opf(func(r *run) { r.events(n) }, "events(after the first %d)", n)
}

// events compares the outbox: all of it, and once more after the first n. Of
// events of several repositories the store chooses the order, once.
func (r *run) events(n int) {
	box, is := r.sys.manifests.(manifest.Outbox)
	if !is {
		return
	}
	waiting, before := r.model.events, r.positions
	r.model.events, r.positions = nil, nil
	for e, err := range box.Events(r.ctx, r.forgotten) {
		r.same(r.answer(err), ok)
		i := slices.IndexFunc(waiting, func(w manifest.Event) bool { return w.Repo == e.Repo })
		if i < 0 {
			r.same("event "+showEvent(e.Event), "no more events of "+e.Repo)
		}
		want := waiting[i]
		want.Change.Put = slices.Clone(want.Change.Put)
		for i := range want.Change.Put {
			want.Change.Put[i].Raw = nil
		}
		r.same(showEvent(e.Event), showEvent(want))
		if n := len(r.positions); n < len(before) && before[n] != e.Position || slices.Contains(r.positions, e.Position) {
			r.same("an event at a place that was listed", "events that are new at the end")
		}
		r.model.events = append(r.model.events, waiting[i])
		r.positions = append(r.positions, e.Position)
		waiting = slices.Delete(slices.Clone(waiting), i, i+1)
	}
	for _, e := range waiting {
		r.same("the end", "event "+showEvent(e))
	}
	if n > 0 && n <= len(r.positions) {
		got := rendered(r, box.Events(r.ctx, r.positions[n-1]), func(e manifest.Committed) string { return e.Position })
		r.same(got, strings.Join(r.positions[n:], "; "))
	}
}

func drawForget(d draws) op {
	n := drawNumber(d)
	return opf(func(r *run) {
		r.events(0)
		box, is := r.sys.manifests.(manifest.Outbox)
		if !is || n == 0 || n > len(r.positions) {
			return
		}
		through := r.positions[n-1]
		r.same(r.answer(box.Forget(r.ctx, through)), ok)
		r.positions, r.model.events = r.positions[n:], r.model.events[n:]
		if n%2 == 0 {
			r.forgotten = through // else the next listing is from the beginning
		}
		r.events(0)
	}, "forget(the first %d events)", n)
}

func drawTouchPull(d draws) op {
	repo, doc, age := drawRepo(d), drawDocument(d), drawAge(d)
	return opf(func(r *run) {
		if r.sys.pulls == nil {
			return
		}
		dgst, at := doc.record.Desc.Digest, r.now.Add(-age)
		r.same(r.answer(r.sys.pulls.Touch(r.ctx, repo, []lifecycle.Pull{{Digest: dgst, At: at}})), r.model.touchPull(repo, dgst, at))
		if _, there := r.model.repo(repo).manifests[dgst]; !there {
			r.mayDropPull(repo, dgst)
		}
	}, "pulled(%s, %s, %v ago)", repo, doc.name, age)
}

func drawPulls(d draws) op {
	repo, last := drawRepo(d), drawAfter(d)
	return opf(func(r *run) {
		if r.sys.pulls != nil {
			r.same(r.pulls(repo, last), r.model.pulls(repo, last))
		}
	}, "pulls(%s, after %s)", repo, name(last))
}

func (r *run) pulls(repo string, last digest.Digest) string {
	return rendered(r, r.sys.pulls.Pulls(r.ctx, repo, last), func(p lifecycle.Pull) string { return showPull(p.Digest, p.At) })
}
