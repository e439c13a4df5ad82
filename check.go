package wharfage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/referrers"
)

// CheckOptions say what Check looks at.
type CheckOptions struct {
	// Repos are the repositories to check. nil means all: those of the Catalog,
	// and of Blobs as a [blob.Catalog], which with Bytes it must be.
	Repos []string

	// Bytes reads all blobs to their ends, whether a manifest needs them or not,
	// and compares them with their digests.
	Bytes bool
}

// ProblemKind is what is wrong with something.
type ProblemKind string

// The kinds of problems. Object is what stands in brackets.
const (
	// The store failed to read or to list [digest or tag, "" for a list of the
	// repository]. What is there is not known.
	ProblemUnread ProblemKind = "unread"

	// [Manifest or blob] is listed, and cannot be opened; or the manifest By
	// names the [blob], which is not there.
	ProblemMissing ProblemKind = "missing"

	// The index By lists the [manifest], which is not there.
	ProblemChild ProblemKind = "missing-child"

	// The [tag] names the manifest By, which is not there.
	ProblemDangling ProblemKind = "dangling"

	// The list of tags and Resolve do not say the same of the [tag].
	ProblemTag ProblemKind = "tag"

	// The content of [manifest or blob] has another digest.
	ProblemDigest ProblemKind = "digest"

	// [Manifest or blob] has another size than its store says, or than the
	// manifest By says.
	ProblemSize ProblemKind = "size"

	// [Manifest] cannot be parsed, or is under a name that is no digest; the same
	// of a [blob]'s name.
	ProblemInvalid ProblemKind = "invalid"

	// What the store tells of the [manifest] does not follow from its document.
	ProblemFacts ProblemKind = "facts"

	// The list of referrers of the subject By lacks the [manifest], has it
	// wrongly, or has it though it is none.
	ProblemReferrers ProblemKind = "referrers"
)

// Problem is one thing that Check found.
type Problem struct {
	Repo   string
	Object string // a digest or a tag; "" is the repository as a whole
	Kind   ProblemKind
	By     digest.Digest // the manifest or subject that Kind speaks of, else ""
	Detail string        // for people
	Err    error         // of the store, or what reading found; often nil
}

func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.Repo)
	if p.Object != "" {
		b.WriteString(" " + p.Object)
	}
	b.WriteString(": " + string(p.Kind))
	if p.Detail != "" {
		b.WriteString(": " + p.Detail)
	}
	if p.Err != nil {
		b.WriteString(": " + p.Err.Error())
	}
	return b.String()
}

// Reindexer is implemented by stores that keep what can be derived from the
// documents, and can derive it again. It mends [ProblemFacts] and
// [ProblemReferrers].
type Reindexer interface {
	// Reindex derives all of that for repo, and returns how many rows it
	// corrected, added or removed. It neither makes nor removes manifests and
	// tags. The repository may be in use meanwhile.
	Reindex(ctx context.Context, repo string) (changed int, err error)
}

// Check compares what the stores of h say of repositories with the content
// that they hold, and yields whatever does not fit:
//
//   - Each manifest that is listed can be read, has its digest and size, can be
//     parsed, and its Record says what the document says.
//   - What manifests name is there: children, unless the Pusher is Sparse, and
//     blobs, with their sizes, except for foreign layers. A subject may be
//     absent.
//   - Each tag that is listed resolves to what the list says, which is there.
//   - The list of referrers of each subject, and of each manifest, has the
//     entries that the documents make, and no others, also by artifact type.
//     What an index may still hold of subjects that are neither is not seen.
//   - With Bytes, each blob has its digest and size.
//
// It changes nothing, and touches no blob: it opens and lists, and makes no
// promise. Others may use the stores meanwhile: whatever seems wrong is looked
// at again, and is no problem if it, or what names it, went or came to be
// otherwise.
//
// What cannot be read is a [ProblemUnread], never missing, and Check goes on.
// An error ends it: of a list of repositories, of a name in Repos, or of ctx.
// It comes with the zero Problem.
//
// Memory follows the number of digests in the largest repository: some hundred
// bytes for each manifest, and for each blob that manifests name. Repositories
// are checked one after the other; several Checks may run at once.
func Check(ctx context.Context, h *Handler, o CheckOptions) iter.Seq2[Problem, error] {
	return func(yield func(Problem, error) bool) {
		index := h.Referrers
		if index == nil {
			index, _ = h.Manifests.(referrers.Index)
		}
		for repo, err := range checkRepos(ctx, h, o) {
			if err == nil {
				c := &checker{
					h: h, index: index, repo: repo, yield: yield,
					manifests: map[digest.Digest]bool{}, sizes: map[digest.Digest]int64{},
					told: map[string]bool{}, referrers: &referrers.Checker{Index: index, Repo: repo},
				}
				err = c.check(ctx, o.Bytes)
			}
			if err != nil {
				if err != errStopped {
					yield(Problem{}, err)
				}
				return
			}
		}
	}
}

// errStopped ends a check whose caller has seen enough.
var errStopped = errors.New("stopped")

// checkRepos lists the repositories to check, each once. It ends with an error
// of ctx too.
func checkRepos(ctx context.Context, h *Handler, o CheckOptions) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		if o.Repos != nil {
			repos := slices.Compact(slices.Sorted(slices.Values(o.Repos)))
			for _, repo := range repos {
				if err := manifest.CheckRepository(repo); err != nil {
					yield("", fmt.Errorf("check %s: %w", quote(repo), err))
					return
				}
			}
			for _, repo := range repos {
				if err := ctx.Err(); !yield(repo, err) || err != nil {
					return
				}
			}
			return
		}
		catalog := h.Catalog
		if catalog == nil {
			catalog, _ = h.Manifests.(manifest.Catalog)
		}
		blobs, ok := blob.As[blob.Catalog](h.Blobs)
		if catalog == nil || o.Bytes && !ok {
			yield("", fmt.Errorf("check: repositories cannot be listed: %w", errors.ErrUnsupported))
			return
		}
		lists := []iter.Seq2[string, error]{catalog.Repos(ctx, "")}
		if ok {
			lists = append(lists, blobs.Repos(ctx, ""))
		}
		for repo, err := range merge(lists) {
			if err == nil {
				err = ctx.Err()
			}
			if !yield(repo, err) || err != nil {
				return
			}
		}
		if err := ctx.Err(); err != nil { // a list that ends early with ctx, and does not say so, is none
			yield("", err)
		}
	}
}

// merge yields what ascending lists have, each item once, until one of them
// fails.
func merge(lists []iter.Seq2[string, error]) iter.Seq2[string, error] {
	type head struct {
		next func() (string, error, bool)
		item string
		more bool
	}
	return func(yield func(string, error) bool) {
		heads := make([]head, len(lists))
		advance := func(h *head) (err error) {
			h.item, err, h.more = h.next()
			return err
		}
		for i, list := range lists {
			next, stop := iter.Pull2(list)
			defer stop()
			heads[i].next = next
			if err := advance(&heads[i]); err != nil {
				yield("", err)
				return
			}
		}
		for {
			least := -1
			for i, h := range heads {
				if h.more && (least < 0 || h.item < heads[least].item) {
					least = i
				}
			}
			if least < 0 {
				return
			}
			item := heads[least].item
			if !yield(item, nil) {
				return
			}
			for i := range heads {
				for heads[i].more && heads[i].item <= item {
					if err := advance(&heads[i]); err != nil {
						yield("", err)
						return
					}
				}
			}
		}
	}
}

// looks is how often something must be found wrong before it is a problem.
// Between looks, what names it must be there, the same as before: by the time
// of its push or move one look is enough to know. The others are for times that
// are not known.
const looks = 8

// checker checks one repository. Its methods return an error that ends the
// whole check.
type checker struct {
	h     *Handler
	index referrers.Index // nil: a scan, which cannot disagree
	repo  string
	yield func(Problem, error) bool

	manifests map[digest.Digest]bool  // listed, or found as a child
	sizes     map[digest.Digest]int64 // of blobs that were found
	told      map[string]bool         // what could not be read, and blobs that are missing
	referrers *referrers.Checker      // of what documents make of them
}

func (c *checker) check(ctx context.Context, bytes bool) error {
	steps := []func(context.Context) error{c.checkManifests, c.checkTags, c.checkReferrers}
	if bytes {
		steps = append(steps, c.checkBlobs)
	}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

func (c *checker) report(p Problem) error {
	p.Repo = c.repo
	if !c.yield(p, nil) {
		return errStopped
	}
	return nil
}

// unread reports a failure of a store, once for each object.
func (c *checker) unread(ctx context.Context, object string, by digest.Digest, detail string, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if object != "" {
		if c.told[object] {
			return nil
		}
		c.told[object] = true
	}
	return c.report(Problem{Object: object, Kind: ProblemUnread, By: by, Detail: detail, Err: err})
}

func (c *checker) checkManifests(ctx context.Context) error {
	for rec, err := range c.h.Manifests.Manifests(ctx, c.repo, "") {
		if err != nil {
			return c.unread(ctx, "", "", "manifests cannot be listed", err)
		}
		if err := c.checkManifest(ctx, rec); err != nil {
			return err
		}
	}
	return nil
}

func (c *checker) checkManifest(ctx context.Context, listed manifest.Record) error {
	dgst := listed.Desc.Digest
	if err := manifest.CheckContentDigest(string(dgst)); err != nil {
		return c.report(Problem{Object: string(dgst), Kind: ProblemInvalid, Detail: "a manifest is listed under what is no digest", Err: err})
	}
	c.manifests[dgst] = true
	rec, err := c.h.Manifests.Get(ctx, c.repo, dgst)
	switch {
	case manifest.IsNotFound(err):
		return c.confirmListed(ctx, listed)
	case err != nil:
		c.expect(listed)
		return c.unread(ctx, string(dgst), "", "", err)
	}
	facts, m, p := judge(dgst, rec)
	if m == nil {
		c.expect(listed)
		return c.report(p)
	}
	c.expect(facts)
	if p.Kind == "" {
		// By itself, as the manifest may have been pushed again since.
		listed.Raw = rec.Raw
		_, _, p = judge(dgst, listed)
	}
	if p.Kind != "" {
		if err := c.report(p); err != nil {
			return err
		}
	}
	if err := c.checkChildren(ctx, rec, facts.Manifests); err != nil {
		return err
	}
	return c.checkNeeds(ctx, rec, m, facts.Blobs)
}

// confirmListed is about a manifest that is listed and was not found.
func (c *checker) confirmListed(ctx context.Context, listed manifest.Record) error {
	dgst := listed.Desc.Digest
	for range looks {
		now, err := c.findManifest(ctx, dgst)
		if err != nil {
			return c.unread(ctx, string(dgst), "", "manifests cannot be listed again", err)
		}
		if now.Desc.Digest == "" || !now.PushedAt.Equal(listed.PushedAt) {
			return nil
		}
		if _, err := c.h.Manifests.Get(ctx, c.repo, dgst); err == nil {
			return nil
		} else if !manifest.IsNotFound(err) {
			return c.unread(ctx, string(dgst), "", "", err)
		}
	}
	return c.report(Problem{Object: string(dgst), Kind: ProblemMissing, Detail: "the manifest is listed"})
}

// findManifest returns the zero Record if dgst is not listed.
func (c *checker) findManifest(ctx context.Context, dgst digest.Digest) (manifest.Record, error) {
	for rec, err := range c.h.Manifests.Manifests(ctx, c.repo, before(dgst)) {
		if err != nil || rec.Desc.Digest == dgst {
			return rec, err
		}
		if rec.Desc.Digest > dgst {
			break
		}
	}
	return manifest.Record{}, ctx.Err()
}

// judge compares a record with its document. facts is what that says, of which
// m is nil if it is not to be trusted.
func judge(dgst digest.Digest, rec manifest.Record) (facts manifest.Record, m *manifest.Manifest, p Problem) {
	p.Object = string(dgst)
	if got := manifest.Digest(dgst.Algorithm(), rec.Raw); got != dgst {
		p.Kind, p.Err = ProblemDigest, fmt.Errorf("%w, but %s", manifest.ErrDigest, got)
		return rec, nil, p
	}
	m, err := manifest.Parse(rec.Desc.MediaType, rec.Raw)
	if err != nil {
		if m, _ = manifest.Parse("", rec.Raw); m == nil { // else just the media type is wrong
			p.Kind, p.Err = ProblemInvalid, err
			return rec, nil, p
		}
	}
	facts = m.Record(dgst, rec.Raw)
	settle(&facts, rec)
	if rec.Desc.Size != facts.Desc.Size {
		p.Kind, p.Detail = ProblemSize, fmt.Sprintf("the document has %d bytes, its record says %d", facts.Desc.Size, rec.Desc.Size)
	} else if what := difference(rec, facts); what != "" {
		p.Kind, p.Detail = ProblemFacts, "the record does not have the "+what+" of the document"
	}
	return facts, m, p
}

// settle moves those entries of an index to Manifests that may be blobs or
// manifests by their types, and were manifests when it was pushed.
func settle(facts *manifest.Record, stored manifest.Record) {
	if len(facts.Blobs) == 0 || len(stored.Manifests) == 0 {
		return
	}
	moved := map[digest.Digest]bool{}
	for _, d := range stored.Manifests {
		moved[d] = true
	}
	for _, d := range stored.Blobs {
		delete(moved, d)
	}
	for _, d := range facts.Blobs {
		if moved[d] {
			facts.Manifests = append(facts.Manifests, d)
		}
	}
	facts.Blobs = slices.DeleteFunc(facts.Blobs, func(d digest.Digest) bool { return moved[d] })
}

// difference says which fact of a record is not that of the document.
func difference(rec, facts manifest.Record) string {
	switch {
	case rec.Desc.Digest != facts.Desc.Digest:
		return "digest"
	case rec.Desc.MediaType != facts.Desc.MediaType:
		return "media type"
	case rec.Desc.ArtifactType != facts.Desc.ArtifactType:
		return "artifact type"
	case !maps.Equal(rec.Desc.Annotations, facts.Desc.Annotations):
		return "annotations"
	case rec.Subject != facts.Subject:
		return "subject"
	case !sameSet(rec.Manifests, facts.Manifests):
		return "children"
	case !sameSet(rec.Blobs, facts.Blobs):
		return "blobs"
	}
	return ""
}

func sameSet(a, b []digest.Digest) bool {
	if slices.Equal(a, b) {
		return true
	}
	return slices.Equal(slices.Compact(slices.Sorted(slices.Values(a))), slices.Compact(slices.Sorted(slices.Values(b))))
}

// expect notes the entry that a manifest makes in a list of referrers.
func (c *checker) expect(rec manifest.Record) {
	if c.index != nil {
		c.referrers.Add(rec)
	}
}

// checkChildren looks for the manifests that rec lists.
func (c *checker) checkChildren(ctx context.Context, rec manifest.Record, children []digest.Digest) error {
	if c.h.Pusher.Sparse {
		return nil
	}
	lost := func(child digest.Digest) error {
		return c.report(Problem{Object: string(child), Kind: ProblemChild, By: rec.Desc.Digest, Detail: fmt.Sprintf("index %s lists it", rec.Desc.Digest)})
	}
	var unknown []digest.Digest
	for _, d := range children {
		if manifest.CheckContentDigest(string(d)) != nil { // which no store can hold
			if err := lost(d); err != nil {
				return err
			}
		} else if !c.manifests[d] {
			unknown = append(unknown, d)
		}
	}
	for some := range slices.Chunk(unknown, 256) { // answers are larger than questions
		absent, err := c.absent(ctx, some)
		if err != nil {
			return c.unread(ctx, string(rec.Desc.Digest), "", "its children cannot be looked for", err)
		}
		for _, d := range some {
			if !slices.Contains(absent, d) {
				c.manifests[d] = true
			}
		}
		for _, d := range absent {
			gone, err := c.persists(ctx, rec, func() (bool, error) {
				absent, err := c.absent(ctx, []digest.Digest{d})
				return len(absent) > 0, err
			})
			switch {
			case err != nil:
				err = c.unread(ctx, string(d), rec.Desc.Digest, "", err)
			case gone:
				err = lost(d)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// absent returns those that are no manifests here.
func (c *checker) absent(ctx context.Context, dgsts []digest.Digest) (out []digest.Digest, err error) {
	descs, err := manifest.Stat(ctx, c.h.Manifests, c.repo, dgsts)
	if err != nil {
		return nil, err
	}
	for i, d := range dgsts {
		if descs[i].Digest == "" {
			out = append(out, d)
		}
	}
	return out, nil
}

// persists tells whether something about rec is wrong at each look, and rec
// there all the time.
func (c *checker) persists(ctx context.Context, rec manifest.Record, wrong func() (bool, error)) (bool, error) {
	for range looks {
		if is, err := wrong(); !is || err != nil {
			return false, err
		}
		again, err := c.h.Manifests.Get(ctx, c.repo, rec.Desc.Digest)
		if manifest.IsNotFound(err) || err == nil && !again.PushedAt.Equal(rec.PushedAt) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
	}
	return true, nil
}

// checkNeeds looks for the blobs that rec names.
func (c *checker) checkNeeds(ctx context.Context, rec manifest.Record, m *manifest.Manifest, blobs []digest.Digest) error {
	by := rec.Desc.Digest
	foreign := map[digest.Digest]bool{}
	want := map[digest.Digest]int64{} // entries of an index have none: a push does not compare them
	if !m.Config.IsZero() {
		want[m.Config.Digest] = m.Config.Size
	}
	for _, d := range m.Layers {
		if manifest.IsForeignLayer(d.MediaType) {
			foreign[d.Digest] = true
		}
		if m.Kind != manifest.KindSchema1 { // which does not tell sizes
			want[d.Digest] = d.Size
		}
	}
	for _, d := range blobs {
		if foreign[d] {
			continue
		}
		size, err := c.blobSize(ctx, d)
		if errors.Is(err, blob.ErrNotFound) {
			var gone bool
			gone, err = c.persists(ctx, rec, func() (bool, error) {
				_, err := c.blobSize(ctx, d)
				if errors.Is(err, blob.ErrNotFound) {
					return true, nil
				}
				return false, err
			})
			if gone {
				c.told[string(d)] = true
				if err := c.report(Problem{Object: string(d), Kind: ProblemMissing, By: by, Detail: fmt.Sprintf("manifest %s names the blob", by)}); err != nil {
					return err
				}
			}
			if err == nil {
				continue
			}
		}
		if err != nil {
			if err := c.unread(ctx, string(d), by, "", err); err != nil {
				return err
			}
			continue
		}
		if n, ok := want[d]; ok && n != size {
			if err := c.report(Problem{Object: string(d), Kind: ProblemSize, By: by, Detail: fmt.Sprintf("the blob has %d bytes, manifest %s says %d", size, by, n)}); err != nil {
				return err
			}
		}
	}
	return nil
}

// blobSize opens a blob that it has not seen yet. Stat would be a promise, and
// touch it.
func (c *checker) blobSize(ctx context.Context, dgst digest.Digest) (int64, error) {
	if size, ok := c.sizes[dgst]; ok {
		return size, nil
	}
	if manifest.CheckContentDigest(string(dgst)) != nil { // which no store can hold
		return 0, blob.ErrNotFound
	}
	content, info, err := c.h.Blobs.Open(ctx, c.repo, dgst, 0, 0)
	if err != nil {
		return 0, err
	}
	content.Close()
	c.sizes[dgst] = info.Size
	return info.Size, nil
}

func (c *checker) checkTags(ctx context.Context) error {
	last := ""
	for t, err := range c.h.Manifests.Tags(ctx, c.repo, "") {
		if err != nil {
			return c.unread(ctx, "", "", "tags cannot be listed", err)
		}
		if err := c.checkTag(ctx, t, last); err != nil {
			return err
		}
		last = t.Name
	}
	return nil
}

func sameTag(a, b manifest.Tag) bool {
	return a.Name == b.Name && a.Digest == b.Digest && a.MovedAt.Equal(b.MovedAt)
}

// checkTag is about a tag that was listed after last.
func (c *checker) checkTag(ctx context.Context, listed manifest.Tag, last string) error {
	var p Problem
	for look := range looks {
		if look > 0 {
			now, err := c.findTag(ctx, last, listed.Name)
			if err != nil {
				return c.unread(ctx, listed.Name, "", "tags cannot be listed again", err)
			}
			if !sameTag(now, listed) {
				return nil
			}
		}
		p = Problem{Object: listed.Name, Kind: ProblemTag, By: listed.Digest}
		t, err := c.h.Manifests.Resolve(ctx, c.repo, listed.Name)
		switch {
		case manifest.IsNotFound(err):
			p.Detail = "the tag is listed, and does not resolve"
			continue
		case err != nil:
			return c.unread(ctx, listed.Name, "", "", err)
		case !sameTag(t, listed):
			p.Detail = fmt.Sprintf("the tag is listed for %s, and resolves to %s", listed.Digest, t.Digest)
			if t.Digest == listed.Digest {
				p.Detail = fmt.Sprintf("the tag is listed as moved at %v, and resolves as moved at %v", listed.MovedAt, t.MovedAt)
			}
			continue
		case c.manifests[t.Digest]:
			return nil
		}
		if manifest.CheckContentDigest(string(t.Digest)) == nil {
			if _, err = c.h.Manifests.Get(ctx, c.repo, t.Digest); err == nil {
				return nil
			} else if !manifest.IsNotFound(err) {
				return c.unread(ctx, string(t.Digest), "", "", err)
			}
		}
		p.Kind, p.Detail = ProblemDangling, fmt.Sprintf("the tag names %s, which is not there", t.Digest)
	}
	return c.report(p)
}

// findTag returns the zero Tag if name is not listed. last is before it.
func (c *checker) findTag(ctx context.Context, last, name string) (manifest.Tag, error) {
	for t, err := range c.h.Manifests.Tags(ctx, c.repo, last) {
		if err != nil || t.Name == name {
			return t, err
		}
		if t.Name > name {
			break
		}
	}
	return manifest.Tag{}, ctx.Err()
}

func (c *checker) checkReferrers(ctx context.Context) error {
	if c.index == nil {
		return nil
	}
	c.referrers.Read = c.facts
	for d := range c.manifests {
		c.referrers.AddSubject(d)
	}
	for _, subject := range c.referrers.Subjects() {
		differences, err := c.referrers.Compare(ctx, subject)
		for _, d := range differences {
			if err := c.report(Problem{Object: string(d.Digest), Kind: ProblemReferrers, By: subject, Detail: d.String()}); err != nil {
				return err
			}
		}
		if err != nil && err != errStopped {
			err = c.unread(ctx, string(subject), "", "its referrers cannot be listed", err)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// facts reads what the document of a manifest says, if it can be trusted.
func (c *checker) facts(ctx context.Context, dgst digest.Digest) (manifest.Record, bool, error) {
	rec, err := c.h.Manifests.Get(ctx, c.repo, dgst)
	if manifest.IsNotFound(err) {
		return manifest.Record{}, true, nil
	}
	if err != nil {
		return manifest.Record{}, false, c.unread(ctx, string(dgst), "", "", err)
	}
	facts, m, _ := judge(dgst, rec)
	facts.PushedAt = rec.PushedAt
	return facts, m != nil, nil
}

func (c *checker) checkBlobs(ctx context.Context) error {
	for info, err := range c.h.Blobs.Blobs(ctx, c.repo, "") {
		if err != nil {
			return c.unread(ctx, "", "", "blobs cannot be listed", err)
		}
		if c.told[string(info.Digest)] {
			continue
		}
		if err := c.checkBlob(ctx, info); err != nil {
			return err
		}
	}
	return nil
}

func (c *checker) checkBlob(ctx context.Context, listed blob.Info) error {
	p := Problem{Object: string(listed.Digest)}
	if err := manifest.CheckContentDigest(p.Object); err != nil {
		p.Kind, p.Detail, p.Err = ProblemInvalid, "a blob is listed under what is no digest", err
		return c.report(p)
	}
	var err error
	same := false // touched when it was, so that it was there all the time
	for look := 0; look < looks && (!same || errors.Is(err, blob.ErrNotFound)); look++ {
		if err = c.readBlob(ctx, listed); err == nil {
			return nil
		}
		now, failed := c.findBlob(ctx, listed.Digest)
		if failed != nil {
			return c.unread(ctx, p.Object, "", "blobs cannot be listed again", failed)
		}
		if now.Digest == "" {
			return ctx.Err()
		}
		same = now.TouchedAt.Equal(listed.TouchedAt)
		listed = now
	}
	switch {
	case errors.Is(err, blob.ErrDigest):
		p.Kind = ProblemDigest
	case errors.Is(err, blob.ErrSize):
		p.Kind = ProblemSize
	case !same:
		return ctx.Err()
	case errors.Is(err, blob.ErrNotFound):
		p.Kind, p.Detail = ProblemMissing, "the blob is listed"
		return c.report(p)
	default:
		return c.unread(ctx, p.Object, "", "", err)
	}
	p.Err = err
	return c.report(p)
}

// findBlob returns the zero Info if dgst is not listed.
func (c *checker) findBlob(ctx context.Context, dgst digest.Digest) (blob.Info, error) {
	for info, err := range c.h.Blobs.Blobs(ctx, c.repo, before(dgst)) {
		if err != nil || info.Digest == dgst {
			return info, err
		}
		if info.Digest > dgst {
			break
		}
	}
	return blob.Info{}, ctx.Err()
}

// readBlob reads a blob to its end.
func (c *checker) readBlob(ctx context.Context, listed blob.Info) error {
	content, info, err := c.h.Blobs.Open(ctx, c.repo, listed.Digest, 0, -1)
	if err != nil {
		return err
	}
	defer content.Close()
	if info.Size != listed.Size {
		return &blob.SizeError{Want: listed.Size, Got: info.Size}
	}
	_, err = io.Copy(io.Discard, untilDone{ctx, blob.Verify(content, ocispec.Descriptor{Digest: listed.Digest, Size: listed.Size})})
	return err
}

// untilDone ends with ctx.
type untilDone struct {
	ctx context.Context
	r   io.Reader
}

func (u untilDone) Read(p []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.r.Read(p)
}

// before returns a digest that is before dgst in byte order, with little or
// nothing between them.
func before(dgst digest.Digest) digest.Digest {
	b := []byte(dgst)
	for i := len(b) - 1; b[i] != ':'; i-- {
		switch b[i] {
		case '0':
			b[i] = 'f'
			continue
		case 'a':
			b[i] = '9'
		default:
			b[i]--
		}
		return digest.Digest(b)
	}
	return ""
}
