package manifesttest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/manifest/manifesttest"
	"github.com/wharfage/wharfage/manifest/memmanifest"
)

// base is a store that keeps every promise, and blobs for it to require.
type base struct {
	*memmanifest.Store
	*blobs
}

type blobs struct {
	mu  sync.Mutex
	set map[string]bool
}

func newBase() base {
	b := &blobs{set: map[string]bool{}}
	return base{&memmanifest.Store{MissingBlobs: b.missing}, b}
}

func (b *blobs) missing(_ context.Context, repo string, dgsts []digest.Digest) (out []digest.Digest, _ error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, d := range dgsts {
		if !b.set[repo+"@"+string(d)] {
			out = append(out, d)
		}
	}
	return out, nil
}

func (b *blobs) putBlobs(repo string, dgsts ...digest.Digest) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, d := range dgsts {
		b.set[repo+"@"+string(d)] = true
	}
}

func (b base) deleteBlob(ctx context.Context, repo string, dgst digest.Digest) error {
	needed, err := b.Unneeded(ctx, repo, dgst, func() error {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.set, repo+"@"+string(dgst))
		return nil
	})
	if needed {
		return errors.New("needed")
	}
	return err
}

func options(open func() manifest.Store) manifesttest.Options {
	return manifesttest.Options{
		New: func(testing.TB) manifest.Store { return open() },
		PutBlobs: func(_ testing.TB, s manifest.Store, repo string, dgsts ...digest.Digest) {
			s.(interface {
				putBlobs(string, ...digest.Digest)
			}).putBlobs(repo, dgsts...)
		},
		DeleteBlob: func(t testing.TB, s manifest.Store, repo string, dgst digest.Digest) error {
			return s.(interface {
				deleteBlob(context.Context, string, digest.Digest) error
			}).deleteBlob(t.Context(), repo, dgst)
		},
	}
}

// mutants are stores that break one promise each, and the clause that is to
// notice.
var mutants = map[string]struct {
	open   func() manifest.Store
	clause string
}{
	"applies step by step":             {func() manifest.Store { return stepwise{newBase()} }, "all of a change becomes visible, or nothing"},
	"checks, lets go, writes":          {func() manifest.Store { return lostUpdate{newBase()} }, "of racing moves from Absent one wins"},
	"checks, lets go, writes (digest)": {func() manifest.Store { return lostUpdate{newBase()} }, "of racing moves from a digest one wins"},
	"stamps a second push":             {func() manifest.Store { return restamp{newBase()} }, "a manifest that is there is kept, with its PushedAt"},
	"does not touch":                   {func() manifest.Store { return untouched{newBase()} }, "a manifest that is put again is touched"},
	"touches in the past":              {func() manifest.Store { return backdated{newBase()} }, "a manifest that is put again is touched"},
	"ignores Cutoff":                   {change(func(c *manifest.Change) { eachRemoval(c, func(d *manifest.Removal) { d.Cutoff = time.Time{} }) }), "Cutoff refuses what was touched after it"},
	"stamps a tag that stays":          {func() manifest.Store { return retag{newBase()} }, "a tag moved to where it is keeps MovedAt"},
	"makes up a time":                  {change(func(c *manifest.Change) { setNow(c) }), "a zero At stays zero"},
	"sorts without case":               {func() manifest.Store { return foldedOrder{newBase()} }, "tags are listed in byte order, after the given one"},
	"lists after inclusively":          {func() manifest.Store { return inclusive{newBase()} }, "tags are listed in byte order, after the given one"},
	"needs after to exist":             {func() manifest.Store { return afterExact{newBase()} }, "manifests are listed in byte order of the digest, after the given one, without Raw"},
	"loses the second page":            {func() manifest.Store { return onePage{newBase()} }, "a long listing is whole"},
	"keeps tags of what goes":          {func() manifest.Store { return &danglingTags{base: newBase()} }, "a removal takes tags along"},
	"ignores From":                     {change(func(c *manifest.Change) { eachTag(c, false) }), "From is what the tag must name"},
	"ignores Absent":                   {change(func(c *manifest.Change) { eachTag(c, true) }), "From is what the tag must name"},
	"ignores IfUnlisted":               {change(func(c *manifest.Change) { eachRemoval(c, func(d *manifest.Removal) { d.IfUnlisted = false }) }), "IfUnlisted refuses when a manifest that stays lists it"},
	"ignores IfUntagged":               {change(func(c *manifest.Change) { eachRemoval(c, func(d *manifest.Removal) { d.IfUntagged = false }) }), "IfUntagged refuses when a tag is left after Tags"},
	"judges IfUnlisted first":          {func() manifest.Store { return listsFirst{newBase()} }, "IfUntagged is compared before IfUnlisted"},
	"judges IfUnlisted before Delete":  {func() manifest.Store { return early{newBase()} }, "IfUnlisted refuses when a manifest that stays lists it"},
	"ignores Unchanged":                {change(func(c *manifest.Change) { c.Unchanged = nil }), "Unchanged refuses a manifest that is not as it was seen"},
	"compares the first seen only":     {change(func(c *manifest.Change) { c.Unchanged = c.Unchanged[:min(1, len(c.Unchanged))] }), "Unchanged refuses a manifest that is not as it was seen"},
	"compares tags alone":              {func() manifest.Store { return seenNow{newBase(), false} }, "Unchanged refuses a manifest that went and came again"},
	"compares times alone":             {func() manifest.Store { return seenNow{newBase(), true} }, "Unchanged refuses a manifest that is not as it was seen"},
	"compares, lets go, writes":        {func() manifest.Store { return lateRemoval{newBase()} }, "a tag that comes and a removal of what was seen without it never both succeed"},
	"ignores IfOrphan":                 {change(func(c *manifest.Change) { eachRemoval(c, func(d *manifest.Removal) { d.IfOrphan = false }) }), "IfOrphan refuses while the subject is there"},
	"ignores Classes":                  {change(func(c *manifest.Change) { c.Classes = nil }), "a store moves to the archive and back, with the times, or refuses"},
	"stamps a class that stays":        {func() manifest.Store { return reclassed{newBase()} }, "a store moves to the archive and back, with the times, or refuses"},
	"refuses a class, and tags":        {func() manifest.Store { return halfRefusal{newBase()} }, "a store moves to the archive and back, with the times, or refuses"},
	"leaves in the archive":            {func() manifest.Store { return &archivist{base: newBase()} }, "what is put again comes back from the archive"},
	"forgets a class for a put": {change(func(c *manifest.Change) {
		put := func(m manifest.ClassMove) bool {
			return slices.ContainsFunc(c.Put, func(rec manifest.Record) bool { return rec.Desc.Digest == m.Digest })
		}
		c.Classes = slices.DeleteFunc(slices.Clone(c.Classes), put)
	}), "what is put again comes back from the archive"},
	"archives children first":          {change(func(c *manifest.Change) { eachClass(c, func(m *manifest.ClassMove) { m.IfUnlisted = false }) }), "IfUnlisted keeps from the archive what a manifest outside of it lists"},
	"archives with the last list only": {func() manifest.Store { return strictLists{newBase()} }, "IfUnlisted keeps from the archive what a manifest outside of it lists"},
	"ignores RequireManifests":         {change(func(c *manifest.Change) { c.RequireManifests = nil }), "RequireManifests lists all that are missing after Put"},
	"ignores RequireBlobs":             {change(func(c *manifest.Change) { c.RequireBlobs = nil }), "RequireBlobs lists all that are missing"},
	"lists one missing blob":           {func() manifest.Store { return firstMissing{newBase()} }, "RequireBlobs lists all that are missing"},
	"checks blobs, then applies":       {func() manifest.Store { return unlinkedBlobs{newBase()} }, "a push that requires a blob and the blob's removal never both succeed"},
	"forgives unknown removals":        {func() manifest.Store { return forgiving{newBase()} }, "a removal of what is not there is ErrNotFound"},
	"fails on unknown repositories":    {func() manifest.Store { return strictRepos{newBase()} }, "an unknown repository is empty"},
	"shares manifests":                 {func() manifest.Store { return shared{newBase()} }, "repositories do not share manifests and tags"},
	"formats Raw":                      {func() manifest.Store { return reformat{newBase()} }, "Get returns the exact bytes and every field"},
	"lists Raw":                        {func() manifest.Store { return rawListings{newBase()} }, "manifests are listed in byte order of the digest, after the given one, without Raw"},
	"gives its own maps away":          {func() manifest.Store { return &aliasing{base: newBase()} }, "results belong to the caller"},
	"holds a lock in loops":            {func() manifest.Store { return &lockedLoops{base: newBase()} }, "the loop body may call the store"},
	"ends quietly when cancelled":      {func() manifest.Store { return quiet{newBase()} }, "a listing with a cancelled ctx ends in its error"},
	"keeps empty repositories":         {func() manifest.Store { return &allRepos{base: newBase()} }, "Repos lists the repositories that hold a manifest"},
	"counts all tags":                  {func() manifest.Store { return tagCount{newBase()} }, "Count agrees with the listings"},
	"leaves gaps out of Stat":          {func() manifest.Store { return denseStat{newBase()} }, "Stat answers in the order asked, with zero for what is not there"},
	"describes in its own order":       {func() manifest.Store { return ownOrder{newBase()} }, describeClause},
	"describes without a class":        {func() manifest.Store { return classless{newBase()} }, describeClause},
	"lists a referrer twice":           {func() manifest.Store { return newIndexed(doubled) }, "a referrer is listed with all its facts from its Apply to its removal"},
	"shares referrers":                 {func() manifest.Store { return newIndexed(leaking) }, "referrers of one repository are not those of another"},
	"filters by prefix":                {func() manifest.Store { return newIndexed(prefix) }, "an artifactType lists those of exactly that type"},
	"lists referrers bare":             {func() manifest.Store { return newIndexed(bare) }, "a referrer is listed with all its facts from its Apply to its removal"},
	"indexes known digests only":       {func() manifest.Store { return newIndexed(knownOnly) }, "a subject may be absent, and of any algorithm"},
	"loses racing referrers":           {func() manifest.Store { return newIndexed(racy) }, "racing referrers are all listed"},
	"indexes in the order of arrival":  {func() manifest.Store { return newIndexed(arrival) }, "referrers are listed in byte order, after the given one"},
	"shows a change in halves":         {func() manifest.Store { return halves{newBase()} }, "a reader never sees half a change"},
	"folds the case of tags":           {func() manifest.Store { return caseless{newBase()} }, "what is not there is ErrNotFound"},
}

const describeClause = "Describe tells what Get does but for Raw, in the order asked, with zero for what is not there"

const mutantVar = "MANIFESTTEST_MUTANT"

// TestMutant runs the kit on the mutant that the environment names.
func TestMutant(t *testing.T) {
	m, ok := mutants[os.Getenv(mutantVar)]
	if !ok {
		t.Skip("run by TestKitRejects")
	}
	manifesttest.TestStore(t, options(m.open))
}

func TestKitAccepts(t *testing.T) {
	manifesttest.TestStore(t, options(func() manifest.Store { return newBase() }))
}

func TestKitRejects(t *testing.T) {
	for name, m := range mutants {
		t.Run(name, func(t *testing.T) {
			clause := strings.ReplaceAll(m.clause, " ", "_")
			pattern := fmt.Sprintf("^TestMutant$/^%s$", strings.NewReplacer("(", `\(`, ")", `\)`, ".", `\.`).Replace(clause))
			timeout := "30s"
			if name == "holds a lock in loops" {
				timeout = "1s" // it hangs
			}
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", pattern, "-test.timeout", timeout)
			cmd.Env = append(os.Environ(), mutantVar+"="+name)
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || !bytes.Contains(out, []byte("TestMutant/"+clause)) {
				t.Errorf("the clause %q passes a store that %s: %v\n%s", m.clause, name, err, out)
			}
		})
	}
}

// changing rewrites each change before it is applied.
type changing struct {
	base
	f func(*manifest.Change)
}

func change(f func(*manifest.Change)) func() manifest.Store {
	return func() manifest.Store { return changing{newBase(), f} }
}

func (s changing) Apply(ctx context.Context, repo string, c manifest.Change) error {
	c.Tags, c.Classes, c.Delete = slices.Clone(c.Tags), slices.Clone(c.Classes), slices.Clone(c.Delete)
	s.f(&c)
	return s.Store.Apply(ctx, repo, c)
}

func setNow(c *manifest.Change) {
	if c.At.IsZero() {
		c.At = time.Now()
	}
}

func eachTag(c *manifest.Change, absent bool) {
	for i := range c.Tags {
		if (c.Tags[i].From == manifest.Absent) == absent {
			c.Tags[i].From = ""
		}
	}
}

func eachRemoval(c *manifest.Change, f func(*manifest.Removal)) {
	for i := range c.Delete {
		f(&c.Delete[i])
	}
}

func eachClass(c *manifest.Change, f func(*manifest.ClassMove)) {
	for i := range c.Classes {
		f(&c.Classes[i])
	}
}

// seenNow compares with what was seen either the times or the tags.
type seenNow struct {
	base
	anyTags bool
}

func (s seenNow) Apply(ctx context.Context, repo string, c manifest.Change) error {
	c.Unchanged = slices.Clone(c.Unchanged)
	for i := range c.Unchanged {
		seen := &c.Unchanged[i]
		rec, err := s.Get(ctx, repo, seen.Digest)
		switch {
		case err != nil:
		case !s.anyTags:
			seen.Since = rec.ClassSince()
		default:
			seen.Tags = nil
			for t := range s.Tags(ctx, repo, "") {
				if t.Digest == seen.Digest {
					seen.Tags = append(seen.Tags, t.Name)
				}
			}
		}
	}
	return s.Store.Apply(ctx, repo, c)
}

// lateRemoval compares in another step than it removes in.
type lateRemoval struct{ base }

func (s lateRemoval) Apply(ctx context.Context, repo string, c manifest.Change) error {
	if err := s.Store.Apply(ctx, repo, manifest.Change{Unchanged: c.Unchanged}); err != nil {
		return err
	}
	runtime.Gosched()
	c.Unchanged = nil
	return s.Store.Apply(ctx, repo, c)
}

// reclassed moves through the other class to where a manifest is.
type reclassed struct{ base }

func (s reclassed) Apply(ctx context.Context, repo string, c manifest.Change) error {
	for _, m := range c.Classes {
		other := manifest.Archive
		if m.To == manifest.Archive {
			other = manifest.Standard
		}
		_ = s.Store.Apply(ctx, repo, manifest.Change{Classes: []manifest.ClassMove{{Digest: m.Digest, To: other}}, At: c.At})
	}
	return s.Store.Apply(ctx, repo, c)
}

// halfRefusal says that it does not know classes when the rest is done.
type halfRefusal struct{ base }

func (s halfRefusal) Apply(ctx context.Context, repo string, c manifest.Change) error {
	for _, m := range c.Classes {
		_ = s.Store.Apply(ctx, repo, manifest.Change{Delete: []manifest.Removal{{Digest: m.Digest}}})
	}
	if len(c.Classes) > 0 {
		return manifest.ErrUnsupported
	}
	return s.Store.Apply(ctx, repo, c)
}

// archivist puts nothing that is there.
type archivist struct{ base }

func (s *archivist) Apply(ctx context.Context, repo string, c manifest.Change) error {
	c.Put = slices.DeleteFunc(slices.Clone(c.Put), func(rec manifest.Record) bool {
		_, err := s.Get(ctx, repo, rec.Desc.Digest)
		return err == nil
	})
	return s.Store.Apply(ctx, repo, c)
}

// strictLists takes IfUnlisted of a class move for that of a removal.
type strictLists struct{ base }

func (s strictLists) Apply(ctx context.Context, repo string, c manifest.Change) error {
	for _, m := range c.Classes {
		for rec := range s.Manifests(ctx, repo, "") {
			if m.IfUnlisted && slices.Contains(rec.Manifests, m.Digest) {
				return &manifest.ConflictError{Digest: m.Digest, Parent: rec.Desc.Digest}
			}
		}
	}
	return s.Store.Apply(ctx, repo, c)
}

// listsFirst compares IfUnlisted before IfUntagged.
type listsFirst struct{ base }

func (s listsFirst) Apply(ctx context.Context, repo string, c manifest.Change) error {
	err := s.Store.Apply(ctx, repo, c)
	if errors.Is(err, manifest.ErrConflict) {
		c.Delete = slices.Clone(c.Delete)
		eachRemoval(&c, func(d *manifest.Removal) { d.IfUntagged = false })
		if conflict, ok := errors.AsType[*manifest.ConflictError](s.dry(ctx, repo, c)); ok && conflict.Parent != "" {
			return conflict
		}
	}
	return err
}

// dry returns what would refuse c.
func (s listsFirst) dry(ctx context.Context, repo string, c manifest.Change) error {
	never := []manifest.Removal{{Digest: "sha256:" + digest.Digest(strings.Repeat("f", 64))}}
	c.Delete = append(slices.Clone(c.Delete), never...)
	return s.Store.Apply(ctx, repo, c)
}

type stepwise struct{ base }

func (s stepwise) Apply(ctx context.Context, repo string, c manifest.Change) error {
	if err := s.Store.Apply(ctx, repo, manifest.Change{RequireBlobs: c.RequireBlobs, RequireManifests: c.RequireManifests, Put: c.Put, At: c.At}); err != nil {
		return err
	}
	return s.Store.Apply(ctx, repo, manifest.Change{Tags: c.Tags, Delete: c.Delete, At: c.At})
}

type halves struct{ base }

func (s halves) Apply(ctx context.Context, repo string, c manifest.Change) error {
	for _, d := range c.Delete {
		if err := s.Store.Apply(ctx, repo, manifest.Change{Delete: []manifest.Removal{d}}); err != nil {
			return err
		}
	}
	runtime.Gosched()
	c.Delete = nil
	return s.Store.Apply(ctx, repo, c)
}

// lostUpdate has no concurrency control between From and the move.
type lostUpdate struct{ base }

func (s lostUpdate) Apply(ctx context.Context, repo string, c manifest.Change) error {
	c.Tags = slices.Clone(c.Tags)
	for i, t := range c.Tags {
		if t.From == "" {
			continue
		}
		have := manifest.Absent
		if at, err := s.Resolve(ctx, repo, t.Name); err == nil {
			have = at.Digest
		}
		if have != t.From {
			return &manifest.ConflictError{Tag: t.Name, Want: t.From, Have: have}
		}
		runtime.Gosched()
		c.Tags[i].From = ""
	}
	return s.Store.Apply(ctx, repo, c)
}

type restamp struct{ base }

func (s restamp) Apply(ctx context.Context, repo string, c manifest.Change) error {
	for _, rec := range c.Put {
		_ = s.Store.Apply(ctx, repo, manifest.Change{Delete: []manifest.Removal{{Digest: rec.Desc.Digest}}})
	}
	return s.Store.Apply(ctx, repo, c)
}

// untouched shows the first push for the last.
type untouched struct{ base }

func (s untouched) Get(ctx context.Context, repo string, dgst digest.Digest) (manifest.Record, error) {
	rec, err := s.Store.Get(ctx, repo, dgst)
	rec.TouchedAt = rec.PushedAt
	return rec, err
}

// backdated believes whatever push comes last.
type backdated struct{ base }

func (s backdated) Apply(ctx context.Context, repo string, c manifest.Change) error {
	again := c
	again.Put, again.Tags, again.Delete, again.At = c.Put, nil, nil, time.Time{}
	if s.Store.Apply(ctx, repo, manifest.Change{RequireManifests: digestsOf(c.Put)}) == nil {
		_ = s.Store.Apply(ctx, repo, again)
	}
	return s.Store.Apply(ctx, repo, c)
}

func digestsOf(recs []manifest.Record) (out []digest.Digest) {
	for _, rec := range recs {
		out = append(out, rec.Desc.Digest)
	}
	return out
}

type retag struct{ base }

func (s retag) Apply(ctx context.Context, repo string, c manifest.Change) error {
	for _, t := range c.Tags {
		if at, err := s.Resolve(ctx, repo, t.Name); err == nil && at.Digest == t.To && t.From == "" {
			_ = s.Store.Apply(ctx, repo, manifest.Change{Tags: []manifest.TagMove{{Name: t.Name}}})
		}
	}
	return s.Store.Apply(ctx, repo, c)
}

type foldedOrder struct{ base }

func (s foldedOrder) Tags(ctx context.Context, repo, after string) iter.Seq2[manifest.Tag, error] {
	tags := all(s.Store.Tags(ctx, repo, ""))
	slices.SortStableFunc(tags, func(a, b manifest.Tag) int { return strings.Compare(strings.ToLower(a.Name), strings.ToLower(b.Name)) })
	return yieldAll(slices.DeleteFunc(tags, func(t manifest.Tag) bool { return after != "" && strings.ToLower(t.Name) <= strings.ToLower(after) }))
}

type inclusive struct{ base }

func (s inclusive) Tags(ctx context.Context, repo, after string) iter.Seq2[manifest.Tag, error] {
	return yieldAll(slices.DeleteFunc(all(s.Store.Tags(ctx, repo, "")), func(t manifest.Tag) bool { return t.Name < after }))
}

type afterExact struct{ base }

func (s afterExact) Manifests(ctx context.Context, repo string, after digest.Digest) iter.Seq2[manifest.Record, error] {
	if _, err := s.Get(ctx, repo, after); err != nil {
		after = ""
	}
	return s.Store.Manifests(ctx, repo, after)
}

type onePage struct{ base }

func (s onePage) Tags(ctx context.Context, repo, after string) iter.Seq2[manifest.Tag, error] {
	tags := all(s.Store.Tags(ctx, repo, after))
	return yieldAll(tags[:min(len(tags), 1000)])
}

// danglingTags goes on to resolve tags of manifests that went.
type danglingTags struct {
	base
	mu   sync.Mutex
	tags map[string]manifest.Tag
}

func (s *danglingTags) Apply(ctx context.Context, repo string, c manifest.Change) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tags == nil {
		s.tags = map[string]manifest.Tag{}
	}
	if len(c.Tags) == 0 {
		for t := range s.Store.Tags(ctx, repo, "") {
			s.tags[repo+t.Name] = t
		}
	}
	for _, t := range c.Tags {
		s.tags[repo+t.Name] = manifest.Tag{Name: t.Name, Digest: t.To}
	}
	return s.Store.Apply(ctx, repo, c)
}

func (s *danglingTags) Resolve(ctx context.Context, repo, tag string) (manifest.Tag, error) {
	t, err := s.Store.Resolve(ctx, repo, tag)
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.tags[repo+tag]; err != nil && old.Digest != "" {
		return old, nil
	}
	return t, err
}

// early judges removals one at a time, in the order given.
type early struct{ base }

func (s early) Apply(ctx context.Context, repo string, c manifest.Change) error {
	for _, d := range c.Delete {
		if err := s.Store.Apply(ctx, repo, manifest.Change{Delete: []manifest.Removal{d}}); err != nil {
			return err
		}
	}
	c.Delete = nil
	return s.Store.Apply(ctx, repo, c)
}

type firstMissing struct{ base }

func (s firstMissing) Apply(ctx context.Context, repo string, c manifest.Change) error {
	err := s.Store.Apply(ctx, repo, c)
	if m := (*manifest.MissingError)(nil); errors.As(err, &m) && len(m.Blobs) > 1 {
		m.Blobs = m.Blobs[:1]
	}
	return err
}

// unlinkedBlobs checks blobs outside of the step that applies, as two systems
// without a protocol do.
type unlinkedBlobs struct{ base }

func (s unlinkedBlobs) Apply(ctx context.Context, repo string, c manifest.Change) error {
	if missing, _ := s.missing(ctx, repo, c.RequireBlobs); len(missing) > 0 {
		return &manifest.MissingError{Blobs: missing}
	}
	runtime.Gosched()
	c.RequireBlobs = nil
	return s.Store.Apply(ctx, repo, c)
}

type forgiving struct{ base }

func (s forgiving) Apply(ctx context.Context, repo string, c manifest.Change) error {
	if err := s.Store.Apply(ctx, repo, c); !manifest.IsNotFound(err) {
		return err
	}
	return nil
}

type strictRepos struct{ base }

func (s strictRepos) Tags(ctx context.Context, repo, after string) iter.Seq2[manifest.Tag, error] {
	for name := range s.Repos(ctx, "") {
		if name == repo {
			return s.Store.Tags(ctx, repo, after)
		}
	}
	return func(yield func(manifest.Tag, error) bool) { yield(manifest.Tag{}, manifest.ErrNotFound) }
}

type shared struct{ base }

func (s shared) Get(ctx context.Context, repo string, dgst digest.Digest) (rec manifest.Record, err error) {
	rec, err = s.Store.Get(ctx, repo, dgst)
	for name := range s.Repos(ctx, "") {
		if err != nil {
			rec, err = s.Store.Get(ctx, name, dgst)
		}
	}
	return rec, err
}

type reformat struct{ base }

func (s reformat) Get(ctx context.Context, repo string, dgst digest.Digest) (manifest.Record, error) {
	rec, err := s.Store.Get(ctx, repo, dgst)
	if err == nil {
		var b bytes.Buffer
		_ = json.Compact(&b, rec.Raw)
		rec.Raw = b.Bytes()
	}
	return rec, err
}

type rawListings struct{ base }

func (s rawListings) Manifests(ctx context.Context, repo string, after digest.Digest) iter.Seq2[manifest.Record, error] {
	recs := all(s.Store.Manifests(ctx, repo, after))
	for i := range recs {
		recs[i], _ = s.Get(ctx, repo, recs[i].Desc.Digest)
	}
	return yieldAll(recs)
}

// aliasing returns the same record each time.
type aliasing struct {
	base
	recs sync.Map
}

func (s *aliasing) Get(ctx context.Context, repo string, dgst digest.Digest) (manifest.Record, error) {
	rec, err := s.Store.Get(ctx, repo, dgst)
	if err != nil {
		return rec, err
	}
	kept, _ := s.recs.LoadOrStore(dgst, rec)
	return kept.(manifest.Record), nil
}

type lockedLoops struct {
	base
	mu sync.RWMutex
}

func (s *lockedLoops) Apply(ctx context.Context, repo string, c manifest.Change) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.Store.Apply(ctx, repo, c)
}

func (s *lockedLoops) Tags(ctx context.Context, repo, after string) iter.Seq2[manifest.Tag, error] {
	return func(yield func(manifest.Tag, error) bool) {
		s.mu.RLock()
		defer s.mu.RUnlock()
		s.Store.Tags(ctx, repo, after)(yield)
	}
}

type quiet struct{ base }

func (s quiet) Manifests(ctx context.Context, repo string, after digest.Digest) iter.Seq2[manifest.Record, error] {
	return yieldAll(all(s.Store.Manifests(ctx, repo, after)))
}

type allRepos struct {
	base
	mu    sync.Mutex
	names []string
}

func (s *allRepos) Apply(ctx context.Context, repo string, c manifest.Change) error {
	s.mu.Lock()
	s.names = append(s.names, repo)
	s.mu.Unlock()
	return s.Store.Apply(ctx, repo, c)
}

func (s *allRepos) Repos(ctx context.Context, after string) iter.Seq2[string, error] {
	s.mu.Lock()
	defer s.mu.Unlock()
	names := slices.Compact(slices.Sorted(slices.Values(s.names)))
	return yieldAll(slices.DeleteFunc(names, func(name string) bool { return name <= after }))
}

// ownOrder describes by digest.
type ownOrder struct{ base }

func (s ownOrder) Describe(ctx context.Context, repo string, dgsts []digest.Digest) ([]manifest.Record, error) {
	return s.Store.Describe(ctx, repo, slices.Sorted(slices.Values(dgsts)))
}

// classless describes all as if nothing was ever archived.
type classless struct{ base }

func (s classless) Describe(ctx context.Context, repo string, dgsts []digest.Digest) ([]manifest.Record, error) {
	recs, err := s.Store.Describe(ctx, repo, dgsts)
	for i := range recs {
		recs[i].StorageClass, recs[i].ArchivedAt = manifest.Standard, time.Time{}
	}
	return recs, err
}

type denseStat struct{ base }

func (s denseStat) Stat(ctx context.Context, repo string, dgsts []digest.Digest) ([]ocispec.Descriptor, error) {
	descs, err := s.Store.Stat(ctx, repo, dgsts)
	return slices.DeleteFunc(descs, func(desc ocispec.Descriptor) bool { return desc.Digest == "" }), err
}

type tagCount struct{ base }

func (s tagCount) Count(ctx context.Context, repo string, dgst digest.Digest) (manifests, tags int, err error) {
	manifests, _, err = s.Store.Count(ctx, repo, dgst)
	for range s.Store.Tags(ctx, repo, "") {
		tags++
	}
	return manifests, tags, err
}

type caseless struct{ base }

func (s caseless) Resolve(ctx context.Context, repo, tag string) (manifest.Tag, error) {
	return s.Store.Resolve(ctx, repo, strings.ToLower(tag))
}

// indexed answers Referrers from a list of its own, with a flaw.
type indexed struct {
	base
	flaw    flaw
	mu      sync.Mutex
	entries []indexEntry
}

type indexEntry struct {
	repo    string
	subject digest.Digest
	desc    ocispec.Descriptor
}

type flaw int

const (
	doubled flaw = iota
	leaking
	prefix
	bare
	knownOnly
	racy
	arrival
)

func newIndexed(f flaw) manifest.Store { return &indexed{base: newBase(), flaw: f} }

func (s *indexed) Apply(ctx context.Context, repo string, c manifest.Change) error {
	if err := s.Store.Apply(ctx, repo, c); err != nil {
		return err
	}
	s.mu.Lock()
	entries := slices.Clone(s.entries)
	if s.flaw == racy { // reads and writes under a lock, but not under one
		s.mu.Unlock()
		runtime.Gosched()
		s.mu.Lock()
	}
	defer s.mu.Unlock()
	for _, rec := range c.Put {
		there := slices.ContainsFunc(entries, func(e indexEntry) bool { return e.repo == repo && e.desc.Digest == rec.Desc.Digest })
		known := strings.HasPrefix(string(rec.Subject), "sha")
		if rec.Subject != "" && (!there || s.flaw == doubled) && (known || s.flaw != knownOnly) {
			entries = append(entries, indexEntry{repo, rec.Subject, rec.Desc})
		}
	}
	for _, d := range c.Delete {
		entries = slices.DeleteFunc(entries, func(e indexEntry) bool { return e.repo == repo && e.desc.Digest == d.Digest })
	}
	s.entries = entries
	return nil
}

func (s *indexed) Referrers(ctx context.Context, repo string, subject digest.Digest, artifactType string, after digest.Digest) iter.Seq2[ocispec.Descriptor, error] {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []ocispec.Descriptor
	for _, e := range s.entries {
		typed := e.desc.ArtifactType == artifactType || artifactType == "" ||
			s.flaw == prefix && strings.HasPrefix(e.desc.ArtifactType, artifactType)
		if (e.repo == repo || s.flaw == leaking) && e.subject == subject && typed && e.desc.Digest > after {
			if s.flaw == bare {
				e.desc.ArtifactType, e.desc.Annotations = "", nil
			}
			out = append(out, e.desc)
		}
	}
	if s.flaw != arrival {
		slices.SortFunc(out, func(a, b ocispec.Descriptor) int { return strings.Compare(string(a.Digest), string(b.Digest)) })
	}
	return yieldAll(out)
}

func all[T any](seq iter.Seq2[T, error]) (out []T) {
	for v, err := range seq {
		if err == nil {
			out = append(out, v)
		}
	}
	return out
}

func yieldAll[T any](vals []T) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for _, v := range vals {
			if !yield(v, nil) {
				return
			}
		}
	}
}
