package lifecycle_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/lifecycle"
	"github.com/wharfage/wharfage/lifecycle/mempulls"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/manifest/memmanifest"
)

// now is that of most clauses.
var now = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

func daysAgo(n float64) time.Time { return now.Add(-time.Duration(n * 24 * float64(time.Hour))) }

// doc is a manifest to be put.
type doc struct {
	name     string
	tags     []string
	at       time.Time
	subject  digest.Digest
	children []digest.Digest
}

func (d doc) digest() digest.Digest { return digest.FromString(d.name) }

func (d doc) record() manifest.Record {
	rec := manifest.Record{Desc: ocispec.Descriptor{MediaType: manifest.MediaTypeImage, Digest: d.digest(), Size: int64(len(d.name))}, Raw: []byte(d.name), Subject: d.subject, Manifests: d.children}
	if d.children != nil {
		rec.Desc.MediaType = manifest.MediaTypeIndex
	}
	return rec
}

func (d doc) change() manifest.Change {
	c := manifest.Change{Put: []manifest.Record{d.record()}, At: d.at}
	for _, t := range d.tags {
		c.Tags = append(c.Tags, manifest.TagMove{Name: t, To: d.digest()})
	}
	return c
}

func image(name string, age float64, tags ...string) doc {
	return doc{name: name, tags: tags, at: daysAgo(age)}
}

const testRepo = "team/app"

func newStore(docs ...doc) *memmanifest.Store {
	s := &memmanifest.Store{MissingBlobs: memmanifest.Unchecked}
	for _, d := range docs {
		must(s.Apply(context.Background(), testRepo, d.change()))
	}
	return s
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func parsed(text string) *lifecycle.Policy {
	p, err := lifecycle.Parse(text)
	must(err)
	return p
}

const (
	expireOld = `{"rules":[{"rulePriority":1,"selection":{"tagStatus":"tagged","tagPatternList":["keep*"],"countType":"imageCountMoreThan","countNumber":1000},"action":{"type":"expire"}},
		{"rulePriority":2,"selection":{"tagStatus":"any","countType":"sinceImagePushed","countUnit":"days","countNumber":10},"action":{"type":"expire"}}]}`
	archiveOld    = `{"rules":[{"rulePriority":1,"selection":{"tagStatus":"any","countType":"sinceImagePushed","countUnit":"days","countNumber":10},"action":{"type":"transition","targetStorageClass":"archive"}}]}`
	archiveIdle   = `{"rules":[{"rulePriority":1,"selection":{"tagStatus":"any","countType":"sinceImagePulled","countUnit":"days","countNumber":10},"action":{"type":"transition","targetStorageClass":"archive"}}]}`
	expireArchive = `{"rules":[{"rulePriority":1,"selection":{"tagStatus":"any","storageClass":"archive","countType":"sinceImageTransitioned","countUnit":"days","countNumber":90},"action":{"type":"expire"}}]}`
)

// names says what is in a store, sorted: "name" or "name (archive)", and tags.
func names(s manifest.Reader, docs ...doc) (out []string) {
	known := map[digest.Digest]string{}
	for _, d := range docs {
		known[d.digest()] = d.name
	}
	for rec, err := range s.Manifests(context.Background(), testRepo, "") {
		must(err)
		name := known[rec.Desc.Digest]
		if rec.StorageClass != manifest.Standard {
			name += " (" + string(rec.StorageClass) + ")"
		}
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

func want(s manifest.Reader, docs []doc, names_ ...string) error {
	slices.Sort(names_)
	if got := names(s, docs...); !slices.Equal(got, names_) {
		return fmt.Errorf("there are %q, want %q", got, names_)
	}
	return nil
}

// hooked is a store with something in front of its methods.
type hooked struct {
	manifest.Store
	apply     func(ctx context.Context, repo string, c manifest.Change) error
	manifests func(manifest.Record, int) (manifest.Record, error) // of the n-th
	tags      func(n int) error
	quiet     bool // listings end at their error without saying so
}

func (s *hooked) Apply(ctx context.Context, repo string, c manifest.Change) error {
	if s.apply == nil {
		return s.Store.Apply(ctx, repo, c)
	}
	return s.apply(ctx, repo, c)
}

func (s *hooked) Manifests(ctx context.Context, repo string, after digest.Digest) iter.Seq2[manifest.Record, error] {
	return hook(s.Store.Manifests(ctx, repo, after), s.quiet, s.manifests)
}

func (s *hooked) Tags(ctx context.Context, repo, after string) iter.Seq2[manifest.Tag, error] {
	if s.tags == nil {
		return hook(s.Store.Tags(ctx, repo, after), s.quiet, nil)
	}
	return hook(s.Store.Tags(ctx, repo, after), s.quiet, func(t manifest.Tag, n int) (manifest.Tag, error) { return t, s.tags(n) })
}

func hook[T any](seq iter.Seq2[T, error], quiet bool, f func(T, int) (T, error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		n := 0
		for v, err := range seq {
			if n++; err == nil && f != nil {
				v, err = f(v, n)
			}
			if err != nil && quiet || !yield(v, err) || err != nil {
				return
			}
		}
	}
}

// runFunc is Run of a Runner, or of one that is wrong.
type runFunc func(ctx context.Context, r lifecycle.Runner, p *lifecycle.Policy) (lifecycle.Report, error)

func rightRun(ctx context.Context, r lifecycle.Runner, p *lifecycle.Policy) (lifecycle.Report, error) {
	return r.Run(ctx, testRepo, p)
}

func runner(s manifest.Store) lifecycle.Runner {
	return lifecycle.Runner{Manifests: s, Confirm: true, Now: func() time.Time { return now }}
}

// runnerClauses are what is promised of a Runner. A clause returns how the
// promise was broken.
var runnerClauses = []struct {
	name  string
	check func(ctx context.Context, run runFunc) error
}{
	{"what the policy says goes, and a second run changes nothing", func(ctx context.Context, run runFunc) error {
		docs := []doc{image("old", 20, "v1", "v2"), image("older", 30), image("young", 5, "v3"), image("kept", 30, "keep-1")}
		s := newStore(docs...)
		report, err := run(ctx, runner(s), parsed(expireOld))
		if err != nil {
			return err
		}
		if err := want(s, docs, "young", "kept"); err != nil {
			return err
		}
		if len(report.Acted) != 2 || report.Acted[0].Image.Digest != docs[1].digest() || report.Acted[1].Image.Digest != docs[0].digest() {
			return fmt.Errorf("acted on %+v, want older and then old", report.Acted)
		}
		if report, err = run(ctx, runner(s), parsed(expireOld)); err != nil || len(report.Acted) != 0 {
			return fmt.Errorf("a second run acts on %+v, %v", report.Acted, err)
		}
		return nil
	}},
	{"an image that changed since the plan is spared, and reported", func(ctx context.Context, run runFunc) error {
		old, other := image("old", 20, "v1"), image("other", 1, "w")
		tag := func(name string, to doc) manifest.Change {
			return manifest.Change{Tags: []manifest.TagMove{{Name: name, To: to.digest()}}, At: now}
		}
		for what, c := range map[string][]manifest.Change{
			"a tag came":       {tag("keep-it", old)},
			"a tag moved away": {tag("v1", other)},
			"a tag was gone":   {{Tags: []manifest.TagMove{{Name: "v1"}}, At: now}},
			"tags swapped":     {tag("v1", other), tag("w", old)},
			"it was restored":  {{Classes: []manifest.ClassMove{{Digest: old.digest(), To: manifest.Archive}}, At: now}, {Put: []manifest.Record{old.record()}, At: now}},
			"it came again":    {{Delete: []manifest.Removal{{Digest: old.digest()}}}, doc{name: "old", tags: old.tags, at: now}.change()},
		} {
			s := newStore(old, other)
			meddling := &hooked{Store: s}
			meddling.apply = func(ctx context.Context, repo string, change manifest.Change) error {
				for _, c := range c {
					must(s.Apply(ctx, repo, c))
				}
				c = nil
				return s.Apply(ctx, repo, change)
			}
			report, err := run(ctx, runner(meddling), parsed(expireOld))
			if err != nil {
				return fmt.Errorf("%s: %w", what, err)
			}
			if err := want(s, []doc{old, other}, "old", "other"); err != nil {
				return fmt.Errorf("%s: %w", what, err)
			}
			if len(report.Failures) != 1 || report.Failures[0].Code != lifecycle.FailureChanged || report.Failures[0].RulePriority != 2 {
				return fmt.Errorf("%s: failures are %+v", what, report.Failures)
			}
		}
		return nil
	}},
	{"an image that came to be listed since the plan is spared", func(ctx context.Context, run runFunc) error {
		for _, text := range []string{expireOld, archiveOld} {
			child := image("child", 20)
			index := doc{name: "index", tags: []string{"latest"}, at: now, children: []digest.Digest{child.digest()}}
			s := newStore(child)
			pushed := false
			meddling := &hooked{Store: s, apply: func(ctx context.Context, repo string, c manifest.Change) error {
				if !pushed {
					pushed = true
					must(s.Apply(ctx, repo, index.change()))
				}
				return s.Apply(ctx, repo, c)
			}}
			report, err := run(ctx, runner(meddling), parsed(text))
			if err != nil {
				return err
			}
			if err := want(s, []doc{child, index}, "child", "index"); err != nil {
				return err
			}
			reason := "Requested image referenced by manifest list: [" + string(index.digest()) + "]"
			if len(report.Failures) != 1 || report.Failures[0].Code != lifecycle.FailureListed || report.Failures[0].Reason != reason {
				return fmt.Errorf("failures are %+v", report.Failures)
			}
		}
		return nil
	}},
	{"an index goes before what it lists, and its children in the next run", func(ctx context.Context, run runFunc) error {
		child, leaf := image("child", 25), image("leaf", 30)
		inner := doc{name: "inner", at: daysAgo(22), children: []digest.Digest{leaf.digest()}}
		index := doc{name: "index", tags: []string{"v1"}, at: daysAgo(20), children: []digest.Digest{child.digest(), inner.digest()}}
		docs := []doc{leaf, child, inner, index}
		s := newStore(docs...)
		report, err := run(ctx, runner(s), parsed(expireOld))
		if err != nil {
			return err
		}
		if err := want(s, docs, "leaf", "child", "inner"); err != nil {
			return err
		}
		if len(report.Failures) != 3 || report.Failures[0].Code != lifecycle.FailureListed {
			return fmt.Errorf("failures are %+v", report.Failures)
		}
		together, err := parsed(expireOld).With(lifecycle.Options{SamePassChildren: true})
		must(err)
		s = newStore(docs...)
		watched := &hooked{Store: s, apply: func(ctx context.Context, repo string, c manifest.Change) error {
			if err := s.Apply(ctx, repo, c); err != nil {
				return err
			}
			return dangling(s, docs)
		}}
		if _, err := run(ctx, runner(watched), together); err != nil {
			return err
		}
		return want(s, docs)
	}},
	{"a referrer goes after its subject, and stays with one that is spared", func(ctx context.Context, run runFunc) error {
		subject := image("subject", 20, "v1")
		sbom := doc{name: "sbom", at: daysAgo(19), subject: subject.digest()}
		signature := doc{name: "signature", at: daysAgo(18), subject: sbom.digest()}
		docs := []doc{subject, sbom, signature}
		s := newStore(docs...)
		watched := &hooked{Store: s, apply: func(ctx context.Context, repo string, c manifest.Change) error {
			if err := s.Apply(ctx, repo, c); err != nil {
				return err
			}
			return stripped(s, docs)
		}}
		if _, err := run(ctx, runner(watched), parsed(expireOld)); err != nil {
			return err
		}
		if err := want(s, docs); err != nil {
			return err
		}
		// The subject is spared, or comes back when it went.
		for name, meddle := range map[string]func(n int) *manifest.Change{
			"spared": func(n int) *manifest.Change {
				if n > 1 {
					return nil
				}
				return &manifest.Change{Tags: []manifest.TagMove{{Name: "keep", To: subject.digest()}}}
			},
			"back": func(n int) *manifest.Change {
				if n != 2 {
					return nil
				}
				c := subject.change()
				return &c
			},
		} {
			s, n := newStore(docs...), 0
			meddling := &hooked{Store: s, apply: func(ctx context.Context, repo string, c manifest.Change) error {
				if n++; meddle(n) != nil {
					must(s.Apply(ctx, repo, *meddle(n)))
				}
				return s.Apply(ctx, repo, c)
			}}
			report, err := run(ctx, runner(meddling), parsed(expireOld))
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			if err := want(s, docs, "subject", "sbom", "signature"); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			if last := report.Failures[len(report.Failures)-1]; last.Code != lifecycle.FailureSubject {
				return fmt.Errorf("%s: failures are %+v", name, report.Failures)
			}
		}
		return nil
	}},
	{"a run that would remove too many tagged images is refused with the numbers", func(ctx context.Context, run runFunc) error {
		var docs []doc
		for i := range 8 {
			docs = append(docs, image(fmt.Sprint("image ", i), 1, fmt.Sprint("v", i)), image(fmt.Sprint("untagged ", i), 1))
		}
		for i := range 3 {
			docs[2*i] = image(docs[2*i].name, 20, docs[2*i].tags...)
		}
		s := newStore(docs...)
		r := runner(s)
		r.Confirm = false
		for _, r.MaxShare = range []float64{0, -1, math.NaN()} {
			_, err := run(ctx, r, parsed(expireOld))
			share, ok := errors.AsType[*lifecycle.ShareError](err)
			if !ok || share.Going != 3 || share.Of != 8 || share.Max != 0.25 || !errors.Is(err, lifecycle.ErrShare) {
				return fmt.Errorf("the run ends with %v, want 3 of 8", err)
			}
			if got := len(names(s)); got != len(docs) {
				return fmt.Errorf("%d of %d are left", got, len(docs))
			}
		}
		for _, change := range []func(*lifecycle.Runner){
			func(r *lifecycle.Runner) { r.Few = 3 }, func(r *lifecycle.Runner) { r.MaxShare = 3. / 8 }, func(r *lifecycle.Runner) { r.Confirm = true },
		} {
			s, r := newStore(docs...), r
			r.Manifests = s
			change(&r)
			if report, err := run(ctx, r, parsed(expireOld)); err != nil || len(report.Acted) != 3 {
				return fmt.Errorf("%+v: %d went, %v", r, len(report.Acted), err)
			}
		}
		return nil
	}},
	{"what cannot be read, or is empty, deletes nothing", func(ctx context.Context, run runFunc) error {
		docs := []doc{image("old", 20, "keep-1"), image("older", 30, "keep-2"), image("oldest", 40)}
		broken := errors.New("broken")
		for name, make := range map[string]func(*lifecycle.Runner, *hooked){
			"manifests": func(_ *lifecycle.Runner, s *hooked) {
				s.manifests = func(rec manifest.Record, n int) (manifest.Record, error) {
					return rec, map[bool]error{true: broken}[n > 2]
				}
			},
			"tags":  func(_ *lifecycle.Runner, s *hooked) { s.tags = func(int) error { return broken } },
			"pulls": func(r *lifecycle.Runner, _ *hooked) { r.Activity = brokenActivity{broken} },
		} {
			s := newStore(docs...)
			h := &hooked{Store: s}
			r := runner(h)
			make(&r, h)
			if _, err := run(ctx, r, parsed(expireOld)); !errors.Is(err, broken) {
				return fmt.Errorf("%s: the run ends with %v", name, err)
			}
			if err := want(s, docs, "old", "older", "oldest"); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		// A store that has forgotten its tags for a moment.
		s := newStore(docs...)
		h := &hooked{Store: s, quiet: true, tags: func(int) error { return broken }}
		if _, err := run(ctx, runner(h), parsed(expireOld)); err != nil {
			return err
		}
		return want(s, docs, "old", "older")
	}},
	{"an odd clock refuses the run", func(ctx context.Context, run runFunc) error {
		docs := []doc{image("old", 20, "v1"), image("new", -1, "v2")}
		oddly := func(what string, r lifecycle.Runner, s manifest.Reader, left ...string) error {
			if _, err := run(ctx, r, parsed(expireOld)); !errors.Is(err, lifecycle.ErrClock) {
				return fmt.Errorf("%s: the run ends with %v", what, err)
			}
			return want(s, docs, left...)
		}
		s := newStore(docs...)
		if err := oddly("a push in the future", runner(s), s, "old", "new"); err != nil {
			return err
		}
		for what, last := range map[string]time.Time{"before the last run": now.Add(time.Minute), "long after the last run": now.AddDate(0, 0, -11)} {
			s = newStore(docs[0])
			r := runner(s)
			r.Last, r.Interval = last, 24*time.Hour
			if err := oddly(what, r, s, "old"); err != nil {
				return err
			}
		}
		s = newStore(docs[0])
		r := runner(s)
		r.Last, r.Interval = now.AddDate(0, 0, -1), 24*time.Hour
		if _, err := run(ctx, r, parsed(expireOld)); err != nil {
			return err
		}
		return want(s, docs)
	}},
	{"a run that is cancelled at any point leaves a consistent repository", func(ctx context.Context, run runFunc) error {
		var docs []doc
		for i := range 5 {
			child := image(fmt.Sprint("child ", i), 30+float64(i))
			index := doc{name: fmt.Sprint("index ", i), tags: []string{fmt.Sprint("v", i)}, at: daysAgo(20 + float64(i)), children: []digest.Digest{child.digest()}}
			docs = append(docs, child, index, doc{name: fmt.Sprint("signature ", i), at: daysAgo(20), subject: index.digest()})
		}
		p, err := parsed(expireOld).With(lifecycle.Options{SamePassChildren: true})
		must(err)
		for at := 1; at <= len(docs); at++ {
			s, n := newStore(docs...), 0
			cancelled, cancel := context.WithCancel(ctx)
			h := &hooked{Store: s, apply: func(ctx context.Context, repo string, c manifest.Change) error {
				if n++; n == at {
					cancel()
				}
				if err := s.Apply(ctx, repo, c); err != nil {
					return err
				}
				return errors.Join(dangling(s, docs), stripped(s, docs))
			}}
			report, err := run(cancelled, runner(h), p)
			if at < len(docs) && !errors.Is(err, context.Canceled) {
				return fmt.Errorf("cancelled at %d: %v", at, err)
			}
			if n > at || len(report.Acted)+report.Later != len(docs) {
				return fmt.Errorf("cancelled at %d: %d calls, %d acted, %d later", at, n, len(report.Acted), report.Later)
			}
			if _, err := run(ctx, runner(s), p); err != nil {
				return err
			}
			if err := want(s, docs); err != nil {
				return fmt.Errorf("cancelled at %d, and run again: %w", at, err)
			}
			cancel()
		}
		return nil
	}},
	{"a dry run tells the same, and changes nothing", func(ctx context.Context, run runFunc) error {
		subject := image("subject", 20, "v1")
		docs := []doc{subject, image("older", 30), image("young", 5, "v3"), {name: "sbom", at: daysAgo(19), subject: subject.digest()}}
		s := newStore(docs...)
		var told [2][]string
		for i, dry := range []bool{true, false} {
			r := runner(s)
			r.Dry = dry
			r.Each = func(o lifecycle.Outcome) { told[i] = append(told[i], fmt.Sprint(o.N, o.Of, o.Verdict, o.Failure)) }
			report, err := run(ctx, r, parsed(expireOld))
			if err != nil {
				return err
			}
			if len(report.Acted) != 3 || report.Dry != dry {
				return fmt.Errorf("dry %v: acted on %+v", dry, report.Acted)
			}
			if dry {
				if err := want(s, docs, "subject", "older", "young", "sbom"); err != nil {
					return err
				}
			}
		}
		if !reflect.DeepEqual(told[0], told[1]) || len(told[0]) != 3 {
			return fmt.Errorf("the dry run tells %q, the other %q", told[0], told[1])
		}
		return want(s, docs, "young")
	}},
	{"what is to be archived is archived, or stays", func(ctx context.Context, run runFunc) error {
		subject := image("old", 20, "v1")
		docs := []doc{subject, {name: "signature", at: daysAgo(19), subject: subject.digest()}, image("young", 5)}
		s := newStore(docs...)
		if _, err := run(ctx, runner(s), parsed(archiveOld)); err != nil {
			return err
		}
		if err := want(s, docs, "old (archive)", "signature (archive)", "young"); err != nil {
			return err
		}
		s = newStore(docs...)
		without := &hooked{Store: s, apply: func(ctx context.Context, repo string, c manifest.Change) error {
			if c.Needs()&manifest.FeatureClasses != 0 {
				return manifest.ErrUnsupported
			}
			return s.Apply(ctx, repo, c)
		}}
		report, err := run(ctx, runner(without), parsed(archiveOld))
		if err != nil {
			return err
		}
		if len(report.Failures) != 2 || report.Failures[0].Code != lifecycle.FailureUnsupported {
			return fmt.Errorf("failures are %+v", report.Failures)
		}
		return want(s, docs, "old", "signature", "young")
	}},
	{"what leaves the archive in time stays", func(ctx context.Context, run runFunc) error {
		old := image("old", 200, "v1")
		s := newStore(old)
		must(s.Apply(ctx, testRepo, manifest.Change{Classes: []manifest.ClassMove{{Digest: old.digest(), To: manifest.Archive}}, At: daysAgo(100)}))
		meddling := &hooked{Store: s, apply: func(ctx context.Context, repo string, c manifest.Change) error {
			must(s.Apply(ctx, repo, manifest.Change{Classes: []manifest.ClassMove{{Digest: old.digest()}}, At: now}))
			return s.Apply(ctx, repo, c)
		}}
		if _, err := run(ctx, runner(meddling), parsed(expireArchive)); err != nil {
			return err
		}
		if err := want(s, []doc{old}, "old"); err != nil {
			return err
		}
		s = newStore(old)
		must(s.Apply(ctx, testRepo, manifest.Change{Classes: []manifest.ClassMove{{Digest: old.digest(), To: manifest.Archive}}, At: daysAgo(100)}))
		if _, err := run(ctx, runner(s), parsed(expireArchive)); err != nil {
			return err
		}
		return want(s, []doc{old})
	}},
	{"unknown times keep", func(ctx context.Context, run runFunc) error {
		unknown := doc{name: "unknown", tags: []string{"v1"}}
		docs := []doc{unknown, {name: "orphan", subject: digest.FromString("gone")}}
		s := newStore(docs...)
		if _, err := run(ctx, runner(s), parsed(expireOld)); err != nil {
			return err
		}
		return want(s, docs, "unknown", "orphan")
	}},
	{"unknown pulls keep", func(ctx context.Context, run runFunc) error {
		docs := []doc{image("idle", 100), image("pulled", 100)}
		pulls := func(since time.Time) *mempulls.Store {
			a := &mempulls.Store{Now: func() time.Time { return since }}
			must(a.Touch(ctx, testRepo, []lifecycle.Pull{{Digest: docs[1].digest(), At: daysAgo(1)}}))
			return a
		}
		for _, c := range []struct {
			a    lifecycle.Activity
			want []string
		}{
			{nil, []string{"idle", "pulled"}},
			{pulls(daysAgo(5)), []string{"idle", "pulled"}},
			{pulls(daysAgo(50)), []string{"idle (archive)", "pulled"}},
		} {
			s := newStore(docs...)
			r := runner(s)
			r.Activity = c.a
			if _, err := run(ctx, r, parsed(archiveIdle)); err != nil {
				return err
			}
			if err := want(s, docs, c.want...); err != nil {
				return err
			}
		}
		return nil
	}},
	{"no more go than the Limit, and those are the oldest", func(ctx context.Context, run runFunc) error {
		docs := []doc{image("b", 20), image("a", 30), image("d", 40), image("c", 25)}
		s := newStore(docs...)
		r := runner(s)
		r.Limit = 2
		report, err := run(ctx, r, parsed(expireOld))
		if err != nil || report.Later != 2 {
			return fmt.Errorf("%d are left for later, %v", report.Later, err)
		}
		return want(s, docs, "b", "c")
	}},
	{"what is spared takes no place in the Limit", func(ctx context.Context, run runFunc) error {
		docs := []doc{image("protected", 40, "v1"), image("old", 30, "v2"), image("less old", 20, "v3")}
		s := newStore(docs...)
		r := runner(s)
		r.Limit = 1
		r.KeepTag = manifest.TagMutability{Mode: manifest.MutableWithExclusion, Filters: []string{"v1"}}.KeepTag
		report, err := run(ctx, r, parsed(expireOld))
		if err != nil || report.Later != 1 || len(report.Failures) != 1 {
			return fmt.Errorf("%d are left for later, %d failed, %v", report.Later, len(report.Failures), err)
		}
		return want(s, docs, "protected", "less old")
	}},
	{"what others removed is no error, and what fails leaves the rest", func(ctx context.Context, run runFunc) error {
		docs := []doc{image("a", 20), image("b", 30), image("c", 40)}
		s := newStore(docs...)
		broken := errors.New("broken")
		n := 0
		h := &hooked{Store: s, apply: func(ctx context.Context, repo string, c manifest.Change) error {
			switch n++; n {
			case 1:
				must(s.Apply(ctx, repo, manifest.Change{Delete: c.Delete}))
			case 2:
				return broken
			}
			return s.Apply(ctx, repo, c)
		}}
		report, err := run(ctx, runner(h), parsed(expireOld))
		if !errors.Is(err, broken) {
			return fmt.Errorf("the run ends with %v", err)
		}
		var codes []lifecycle.FailureCode
		for _, f := range report.Failures {
			codes = append(codes, f.Code)
		}
		if !slices.Equal(codes, []lifecycle.FailureCode{lifecycle.FailureNotFound, lifecycle.FailureInternal}) || len(report.Acted) != 1 {
			return fmt.Errorf("failures are %v, acted on %+v", codes, report.Acted)
		}
		return want(s, docs, "b")
	}},
	{"tags go alone where the policy says so", func(ctx context.Context, run runFunc) error {
		p, err := parsed(`{"rules":[{"rulePriority":1,"selection":{"tagStatus":"tagged","tagPatternList":["pr-*"],"countType":"sinceImagePushed","countUnit":"days","countNumber":10},"action":{"type":"expire"}}]}`).
			Extend(lifecycle.Extensions{Rules: []lifecycle.RuleExtension{{Priority: 1, TagsOnly: true}}})
		must(err)
		docs := []doc{image("a", 20, "pr-1", "v1", "pr-2"), image("b", 20, "pr-3")}
		s := newStore(docs...)
		r := runner(s)
		r.Confirm = false
		if _, err := run(ctx, r, p); !errors.Is(err, lifecycle.ErrShare) { // b would lose its last
			return fmt.Errorf("the run ends with %v", err)
		}
		if _, err := run(ctx, runner(s), p); err != nil {
			return err
		}
		var tags []string
		for t, err := range s.Tags(ctx, testRepo, "") {
			must(err)
			tags = append(tags, t.Name)
		}
		if !slices.Equal(tags, []string{"v1"}) {
			return fmt.Errorf("tags are %q", tags)
		}
		return want(s, docs, "a", "b")
	}},
}

// dangling finds a child that went before an index which lists it.
func dangling(s manifest.Reader, docs []doc) error {
	there := names(s, docs...)
	for _, d := range docs {
		for _, c := range docs {
			if slices.Contains(d.children, c.digest()) && slices.Contains(there, d.name) && !slices.Contains(there, c.name) {
				return fmt.Errorf("%s lists %s, which went", d.name, c.name)
			}
		}
	}
	return nil
}

// stripped finds a referrer that went before its subject.
func stripped(s manifest.Reader, docs []doc) error {
	there := names(s, docs...)
	for _, d := range docs {
		for _, ref := range docs {
			if ref.subject == d.digest() && slices.Contains(there, d.name) && !slices.Contains(there, ref.name) {
				return fmt.Errorf("%s is there without %s", d.name, ref.name)
			}
		}
	}
	return nil
}

type brokenActivity struct{ err error }

func (a brokenActivity) Touch(context.Context, string, []lifecycle.Pull) error { return a.err }
func (a brokenActivity) Pulls(context.Context, string, digest.Digest) iter.Seq2[lifecycle.Pull, error] {
	return func(yield func(lifecycle.Pull, error) bool) { yield(lifecycle.Pull{}, a.err) }
}
func (a brokenActivity) Since(context.Context, string) (time.Time, error) { return daysAgo(1000), nil }

func TestRunner(t *testing.T) {
	for _, c := range runnerClauses {
		t.Run(c.name, func(t *testing.T) {
			if err := c.check(t.Context(), rightRun); err != nil {
				t.Error(err)
			}
		})
	}
}

// changing is a Runner whose changes are rewritten before they are applied.
func changing(f func(*manifest.Change)) runFunc {
	return func(ctx context.Context, r lifecycle.Runner, p *lifecycle.Policy) (lifecycle.Report, error) {
		s := r.Manifests
		r.Manifests = &hooked{Store: s, apply: func(ctx context.Context, repo string, c manifest.Change) error {
			c.Unchanged, c.Classes, c.Delete = slices.Clone(c.Unchanged), slices.Clone(c.Classes), slices.Clone(c.Delete)
			f(&c)
			return s.Apply(ctx, repo, c)
		}}
		return r.Run(ctx, testRepo, p)
	}
}

func setting(f func(*lifecycle.Runner)) runFunc {
	return func(ctx context.Context, r lifecycle.Runner, p *lifecycle.Policy) (lifecycle.Report, error) {
		f(&r)
		return r.Run(ctx, testRepo, p)
	}
}

// inOrder carries a plan out without looking back, in an order of its own.
func inOrder(order func([]int) []int) runFunc {
	return func(ctx context.Context, r lifecycle.Runner, p *lifecycle.Policy) (report lifecycle.Report, err error) {
		images, _, err := lifecycle.Images(ctx, r.Manifests, r.Activity, testRepo)
		if err != nil {
			return report, err
		}
		plan := lifecycle.Evaluate(p, images, r.Now())
		for n, i := range order(plan.Order()) {
			if n == r.Limit && n > 0 {
				report.Later = len(plan.Order()) - n
				break
			}
			if err := r.Manifests.Apply(ctx, testRepo, manifest.Change{Delete: []manifest.Removal{{Digest: images[i].Digest}}}); err != nil {
				return report, err
			}
			report.Acted = append(report.Acted, lifecycle.Acted{Image: lifecycle.EventImage{Digest: images[i].Digest}})
		}
		return report, nil
	}
}

// TestRunnerClausesReject shows that the clauses find Runners that are wrong in one
// way each.
func TestRunnerClausesReject(t *testing.T) {
	reverse := func(order []int) []int { slices.Reverse(order); return order }
	for name, m := range map[string]struct {
		run    runFunc
		clause string
	}{
		"ignores tags in the compare": {func(ctx context.Context, r lifecycle.Runner, p *lifecycle.Policy) (lifecycle.Report, error) {
			s := r.Manifests
			r.Manifests = &hooked{Store: s, apply: func(ctx context.Context, repo string, c manifest.Change) error {
				err := s.Apply(ctx, repo, c)
				if conflict, ok := errors.AsType[*manifest.ConflictError](err); ok && conflict.Tag != "" {
					c.Unchanged = nil
					return s.Apply(ctx, repo, c)
				}
				return err
			}}
			return r.Run(ctx, testRepo, p)
		}, "an image that changed"},
		"compares nothing":           {changing(func(c *manifest.Change) { c.Unchanged = nil }), "an image that changed"},
		"ignores new indexes":        {changing(func(c *manifest.Change) { unlisted(c, false) }), "an image that came to be listed"},
		"ignores what leaves":        {changing(func(c *manifest.Change) { c.Unchanged = nil }), "what leaves the archive"},
		"ignores subjects":           {changing(orphans), "a referrer goes after"},
		"acts on children first":     {inOrder(reverse), "an index goes before"},
		"acts on referrers first":    {inOrder(reverse), "a referrer goes after"},
		"acts on the youngest first": {inOrder(reverse), "no more go than the Limit"},
		"ignores the limit":          {setting(func(r *lifecycle.Runner) { r.Limit = 0 }), "no more go than the Limit"},
		"ignores the cap":            {setting(func(r *lifecycle.Runner) { r.Confirm = true }), "a run that would remove too many"},
		"ignores the cap (tags)":     {setting(func(r *lifecycle.Runner) { r.Confirm = true }), "tags go alone"},
		"takes a part for the whole": {func(ctx context.Context, r lifecycle.Runner, p *lifecycle.Policy) (lifecycle.Report, error) {
			r.Manifests.(*hooked).quiet = true
			return r.Run(ctx, testRepo, p)
		}, "what cannot be read"},
		"does without pulls":    {setting(func(r *lifecycle.Runner) { r.Activity = nil }), "what cannot be read"},
		"ignores the last run":  {setting(func(r *lifecycle.Runner) { r.Last = time.Time{} }), "an odd clock"},
		"believes in the clock": {inOrder(func(order []int) []int { return order }), "an odd clock"},
		"goes on when cancelled": {func(ctx context.Context, r lifecycle.Runner, p *lifecycle.Policy) (lifecycle.Report, error) {
			return r.Run(context.WithoutCancel(ctx), testRepo, p)
		}, "a run that is cancelled"},
		"writes in a dry run": {func(ctx context.Context, r lifecycle.Runner, p *lifecycle.Policy) (lifecycle.Report, error) {
			dry := r.Dry
			r.Dry = false
			report, err := r.Run(ctx, testRepo, p)
			report.Dry = dry
			return report, err
		}, "a dry run tells"},
		"deletes instead of archiving": {func(ctx context.Context, r lifecycle.Runner, p *lifecycle.Policy) (lifecycle.Report, error) {
			s := r.Manifests
			r.Manifests = &hooked{Store: s, apply: func(ctx context.Context, repo string, c manifest.Change) error {
				err := s.Apply(ctx, repo, c)
				if errors.Is(err, manifest.ErrUnsupported) {
					return s.Apply(ctx, repo, manifest.Change{Delete: []manifest.Removal{{Digest: c.Classes[0].Digest}}})
				}
				return err
			}}
			return r.Run(ctx, testRepo, p)
		}, "what is to be archived"},
		"takes unknown for old": {func(ctx context.Context, r lifecycle.Runner, p *lifecycle.Policy) (lifecycle.Report, error) {
			s := r.Manifests
			h := &hooked{Store: s, manifests: func(rec manifest.Record, _ int) (manifest.Record, error) {
				if rec.PushedAt.IsZero() {
					rec.PushedAt = time.Unix(0, 0)
				}
				return rec, nil
			}}
			h.apply = func(ctx context.Context, repo string, c manifest.Change) error {
				c.Unchanged = nil
				return s.Apply(ctx, repo, c)
			}
			r.Manifests = h
			return r.Run(ctx, testRepo, p)
		}, "unknown times"},
		"takes no pulls for none": {setting(func(r *lifecycle.Runner) {
			if r.Activity == nil {
				r.Activity = &mempulls.Store{Now: func() time.Time { return daysAgo(1000) }}
				must(r.Activity.Touch(context.Background(), testRepo, nil))
			}
		}), "unknown pulls"},
	} {
		t.Run(name, func(t *testing.T) {
			found := false
			for _, c := range runnerClauses {
				if strings.HasPrefix(c.name, m.clause) {
					found = true
					if err := c.check(t.Context(), m.run); err == nil {
						t.Errorf("the clause %q passes a Runner that %s", c.name, name)
					}
				}
			}
			if !found {
				t.Errorf("there is no clause %q", m.clause)
			}
		})
	}
}

func unlisted(c *manifest.Change, want bool) {
	for i := range c.Delete {
		c.Delete[i].IfUnlisted = want
	}
	for i := range c.Classes {
		c.Classes[i].IfUnlisted = want
	}
}

func orphans(c *manifest.Change) {
	for i := range c.Delete {
		c.Delete[i].IfOrphan = false
	}
}

// TestKeepTagSparesImages: what is protected stays, whatever a policy says, and is
// a failure of the report.
func TestKeepTagSparesImages(t *testing.T) {
	docs := []doc{image("old", 30, "v1", "x"), image("older", 40, "dev"), image("untagged", 30)}
	s := newStore(docs...)
	var events []manifest.Event
	r := &lifecycle.Runner{
		Manifests: s, Confirm: true, Now: func() time.Time { return now },
		KeepTag:  manifest.TagMutability{Mode: manifest.MutableWithExclusion, Filters: []string{"v*"}}.KeepTag,
		OnCommit: func(_ context.Context, e manifest.Event) { events = append(events, e) },
	}
	report, err := r.Run(t.Context(), testRepo, parsed(expireOld))
	if err != nil || len(report.Failures) != 1 || report.Failures[0].Code != lifecycle.FailureProtected || !errors.Is(report.Failures[0].Err, manifest.ErrTagImmutable) {
		t.Errorf("failures %+v, %v", report.Failures, err)
	}
	if err := want(s, docs, "old"); err != nil {
		t.Error(err)
	}
	for _, e := range events {
		if c := e.Change; len(c.Known) != 1 || c.Known[0].Desc.Digest != c.Delete[0].Digest || c.Known[0].Desc.MediaType != manifest.MediaTypeImage {
			t.Errorf("the event does not tell what has gone: %+v", c)
		}
	}
}

func TestReapRemovesOrphansAfterTheGrace(t *testing.T) {
	subject := image("subject", 100, "v1")
	sbom := doc{name: "sbom", at: daysAgo(50), subject: digest.FromString("gone")}
	docs := []doc{
		subject, image("old", 100), sbom,
		{name: "signature", at: daysAgo(40), subject: sbom.digest()},
		{name: "young", at: daysAgo(0.5), subject: digest.FromString("gone")},
		{name: "its own", at: daysAgo(50), subject: subject.digest()},
		{name: "of the archive", at: daysAgo(50), subject: image("archived", 60).digest()},
		image("archived", 60),
	}
	reap := func(change func(*lifecycle.Runner), left ...string) {
		t.Helper()
		s := newStore(docs...)
		must(s.Apply(t.Context(), testRepo, manifest.Change{Classes: []manifest.ClassMove{{Digest: docs[7].digest(), To: manifest.Archive}}, At: daysAgo(30)}))
		r := runner(s)
		change(&r)
		report, err := r.Reap(t.Context(), testRepo)
		if err != nil {
			t.Fatal(err)
		}
		if err := want(s, docs, append(left, "subject", "old", "its own", "of the archive", "archived (archive)")...); err != nil {
			t.Error(err)
		}
		for _, a := range report.Acted {
			if a.RulePriority != 0 || a.Action != lifecycle.Expire {
				t.Errorf("acted: %+v", a)
			}
		}
	}
	reap(func(*lifecycle.Runner) {}, "young")
	reap(func(r *lifecycle.Runner) { r.Grace = -1 })
	reap(func(r *lifecycle.Runner) { r.Grace = 45 * 24 * time.Hour }, "young", "signature")
	reap(func(r *lifecycle.Runner) { r.Dry = true }, "young", "signature", "sbom")
}
