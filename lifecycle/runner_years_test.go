package lifecycle_test

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage"
	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/blob/memblob"
	"github.com/wharfage/wharfage/lifecycle"
	"github.com/wharfage/wharfage/lifecycle/mempulls"
	"github.com/wharfage/wharfage/manifest"
)

var years = flag.Int("years", 1, "how many years of daily runs to live through")

const yearsPolicy = `{"rules":[
	{"rulePriority":1,"description":"releases","selection":{"tagStatus":"tagged","tagPatternList":["v*"],"countType":"imageCountMoreThan","countNumber":30},"action":{"type":"expire"}},
	{"rulePriority":2,"description":"pull requests","selection":{"tagStatus":"tagged","tagPatternList":["pr-*"],"countType":"sinceImagePushed","countUnit":"days","countNumber":14},"action":{"type":"expire"}},
	{"rulePriority":3,"description":"leftovers","selection":{"tagStatus":"untagged","countType":"sinceImagePushed","countUnit":"days","countNumber":3},"action":{"type":"expire"}},
	{"rulePriority":4,"description":"unused","selection":{"tagStatus":"any","countType":"sinceImagePulled","countUnit":"days","countNumber":30},"action":{"type":"transition","targetStorageClass":"archive"}},
	{"rulePriority":5,"description":"archive","selection":{"tagStatus":"any","storageClass":"archive","countType":"sinceImageTransitioned","countUnit":"days","countNumber":90},"action":{"type":"expire"}}]}`

// TestYearsOfDailyRuns lives with a policy for years: a team pushes builds, pull
// requests, releases of several platforms and signatures, pulls some of them and pushes
// old ones again; each day the policy runs, and blobs are collected.
func TestYearsOfDailyRuns(t *testing.T) {
	l := newLife(t)
	days := *years * 365
	for range days {
		l.team()
		l.policy()
		l.collect()
		l.invariants()
		if t.Failed() {
			t.Fatalf("on day %d", l.day)
		}
		l.day++
	}
	if l.expired == 0 || l.archived == 0 && days > 50 || l.restored == 0 && days > 300 || l.followed == 0 {
		t.Errorf("in %d days %d expired, %d with a subject, %d archived, %d restored", days, l.expired, l.followed, l.archived, l.restored)
	}
	t.Logf("%d days: %d pushed, %d expired, %d with a subject, %d archived, %d restored, %d left", days, l.pushed, l.expired, l.followed, l.archived, l.restored, l.left)
}

// life is a repository and the days that it has seen.
type life struct {
	t      *testing.T
	h      *wharfage.Handler
	pulls  *mempulls.Store
	buffer *lifecycle.Buffer
	rules  *lifecycle.Policy
	rng    *rand.Rand
	begin  time.Time
	day    int
	last   time.Time // of the runs

	acknowledged map[digest.Digest]bool          // and not gone by the policy
	subjects     map[digest.Digest]digest.Digest // of referrers
	recent       []manifest.Record

	pushed, expired, followed, archived, restored, left int
}

func newLife(t *testing.T) *life {
	l := &life{
		t: t, h: wharfage.NewMemory(), rules: parsed(yearsPolicy), rng: rand.New(rand.NewPCG(1, 2)),
		begin:        time.Date(2026, 1, 1, 3, 0, 0, 0, time.UTC),
		acknowledged: map[digest.Digest]bool{}, subjects: map[digest.Digest]digest.Digest{},
	}
	l.h.Now = l.now
	l.h.Blobs.(*memblob.Store).Now = l.now
	l.pulls = &mempulls.Store{Now: l.now}
	l.buffer = &lifecycle.Buffer{Activity: l.pulls}
	if err := l.pulls.Touch(t.Context(), testRepo, nil); err != nil { // pulls are recorded from now on
		t.Fatal(err)
	}
	return l
}

func (l *life) now() time.Time { return l.begin.AddDate(0, 0, l.day) }

func (l *life) push(raw []byte, tags ...string) manifest.Record {
	l.t.Helper()
	p := manifest.Pusher{Store: l.h.Manifests, Now: l.now}
	done, err := p.Push(l.t.Context(), testRepo, manifest.PushRequest{Raw: raw, Tags: tags})
	if err != nil {
		l.t.Fatal(err)
	}
	l.pushed++
	l.acknowledged[done.Record.Desc.Digest] = true
	if s := done.Record.Subject; s != "" {
		l.subjects[done.Record.Desc.Digest] = s
	}
	return done.Record
}

func (l *life) blob(content string) ocispec.Descriptor {
	desc := ocispec.Descriptor{MediaType: "application/vnd.example", Digest: digest.FromString(content), Size: int64(len(content))}
	if err := blob.Put(l.t.Context(), l.h.Blobs, testRepo, desc, strings.NewReader(content)); err != nil {
		l.t.Fatal(err)
	}
	return desc
}

func (l *life) image(name string, subject *manifest.Record, tags ...string) manifest.Record {
	config, layer := l.blob("config of "+name), l.blob("layer of "+name)
	d := manifest.ImageDraft{Config: &config, Layers: []ocispec.Descriptor{layer, l.blob("base")}}
	if subject != nil {
		d.Subject = &subject.Desc
		d.Subject.Annotations = nil
	}
	raw, _, err := d.Build()
	must(err)
	return l.push(raw, tags...)
}

func (l *life) team() {
	build := l.image(fmt.Sprint("build ", l.day), nil, "latest", fmt.Sprint("main-", l.day))
	l.image(fmt.Sprint("signature ", l.day), &build)
	l.image(fmt.Sprint("pull request ", l.day), nil, fmt.Sprint("pr-", l.day))
	l.image(fmt.Sprint("test ", l.day), nil)
	if l.day%7 == 0 {
		var children []ocispec.Descriptor
		for _, arch := range []string{"amd64", "arm64"} {
			child := l.image(fmt.Sprint("release ", l.day, arch), nil)
			children = append(children, ocispec.Descriptor{MediaType: child.Desc.MediaType, Digest: child.Desc.Digest, Size: child.Desc.Size})
		}
		raw, _, err := manifest.IndexDraft{Manifests: children}.Build()
		must(err)
		index := l.push(raw, fmt.Sprint("v", l.day))
		sbom := l.image(fmt.Sprint("sbom ", l.day), &index)
		l.image(fmt.Sprint("signature of sbom ", l.day), &sbom)
	}
	l.recent = append(l.recent, build)
	for range 3 {
		rec := l.recent[l.rng.IntN(len(l.recent))]
		if at, err := l.h.Manifests.Get(l.t.Context(), testRepo, rec.Desc.Digest); err == nil && at.StorageClass == manifest.Standard {
			must(l.buffer.Add(l.t.Context(), testRepo, lifecycle.Pull{Digest: rec.Desc.Digest, At: l.now()}))
		}
	}
	if l.day%30 == 29 { // somebody needs an old one again
		n := l.rng.IntN(len(l.recent))
		old := l.recent[n]
		at, err := l.h.Manifests.Get(l.t.Context(), testRepo, old.Desc.Digest)
		if l.image(fmt.Sprint("build ", l.day-(len(l.recent)-1-n)), nil).Desc.Digest != old.Desc.Digest {
			l.t.Error("another image was pushed")
		}
		if err == nil && at.StorageClass == manifest.Archive {
			l.restored++
		}
	}
	if len(l.recent) > 120 {
		l.recent = l.recent[1:]
	}
}

func (l *life) policy() {
	ctx := l.t.Context()
	must(l.buffer.Flush(ctx))
	r := lifecycle.Runner{Manifests: l.h.Manifests, Activity: l.pulls, Now: l.now, Last: l.last, Interval: 24 * time.Hour, Few: 20}
	first := l.run(ctx, r)
	if outcome := first.Plan.Outcome(); !l.same(ctx, outcome) {
		l.t.Error("the repository is not as the plan's outcome")
	}
	protected := map[digest.Digest]bool{}
	for _, f := range first.Failures {
		if f.Code != lifecycle.FailureListed {
			l.t.Errorf("a run that is alone fails with %+v", f)
		}
		protected[f.Image.Digest] = true
	}
	for _, a := range l.run(ctx, r).Acted {
		if !protected[a.Image.Digest] {
			l.t.Errorf("a second run acts on %s, which the first left", a.Image.Digest)
		}
	}
	l.last = l.now()
}

func (l *life) run(ctx context.Context, r lifecycle.Runner) lifecycle.Report {
	report, err := r.Run(ctx, testRepo, l.rules)
	if err != nil {
		l.t.Fatal(err)
	}
	for _, a := range report.Acted {
		switch {
		case a.Action == lifecycle.Transition:
			l.archived++
			continue
		case a.RulePriority == 0:
			l.followed++
		default:
			l.expired++
		}
		if !l.acknowledged[a.Image.Digest] {
			l.t.Errorf("%s went twice", a.Image.Digest)
		}
		delete(l.acknowledged, a.Image.Digest)
	}
	return report
}

// same tells whether a repository has these images, with their tags and classes.
func (l *life) same(ctx context.Context, outcome []lifecycle.Image) bool {
	now, _, err := lifecycle.Images(ctx, l.h.Manifests, l.pulls, testRepo)
	must(err)
	return slices.EqualFunc(outcome, now, func(a, b lifecycle.Image) bool {
		return a.Digest == b.Digest && a.StorageClass == b.StorageClass && a.ArchivedAt.Equal(b.ArchivedAt) && slices.Equal(a.Tags, b.Tags)
	})
}

func (l *life) collect() {
	if _, err := wharfage.Collect(l.t.Context(), l.h, wharfage.Collection{Blobs: blob.CollectOptions{Confirm: true}}); err != nil {
		l.t.Fatal(err)
	}
}

// invariants are those of ARCHITECTURE.md, as far as deletions can break them.
func (l *life) invariants() {
	ctx := l.t.Context()
	there := map[digest.Digest]manifest.Record{}
	for rec, err := range l.h.Manifests.Manifests(ctx, testRepo, "") {
		must(err)
		there[rec.Desc.Digest] = rec
	}
	l.left = len(there)
	for d := range l.acknowledged {
		if _, ok := there[d]; !ok {
			l.t.Errorf("%s was acknowledged, and is not there", d)
		}
	}
	if len(there) != len(l.acknowledged) {
		l.t.Errorf("%d manifests are there, want %d", len(there), len(l.acknowledged))
	}
	releases := 0
	for d, rec := range there {
		for _, child := range rec.Manifests {
			if c, ok := there[child]; !ok || c.StorageClass == manifest.Archive && rec.StorageClass == manifest.Standard {
				l.t.Errorf("%s lists %s, which went, or is in the archive", d, child)
			}
		}
		infos, err := l.h.Blobs.Stat(ctx, testRepo, rec.Blobs)
		must(err)
		for i, info := range infos {
			if info.Digest == "" {
				l.t.Errorf("%s names the blob %s, which went", d, rec.Blobs[i])
			}
		}
	}
	for ref, subject := range l.subjects {
		_, has := there[subject]
		switch _, ok := there[ref]; {
		case has && !ok:
			l.t.Errorf("%s refers to %s, and went before it", ref, subject)
		case !has && ok && there[ref].PushedAt.Before(l.now().AddDate(0, 0, -2)):
			l.t.Errorf("%s refers to %s, which went, and is there", ref, subject)
		case !ok:
			delete(l.subjects, ref)
		}
	}
	for tag, err := range l.h.Manifests.Tags(ctx, testRepo, "") {
		must(err)
		if _, ok := there[tag.Digest]; !ok {
			l.t.Errorf("the tag %s dangles", tag.Name)
		}
		if tag.Name[0] == 'v' {
			releases++
		}
	}
	if releases > 30 {
		l.t.Errorf("there are %d releases", releases)
	}
	if l.day%50 == 0 { // every byte
		for d, rec := range there {
			got, err := l.h.Manifests.Get(ctx, testRepo, d)
			must(err)
			if manifest.Digest(digest.SHA256, got.Raw) != d {
				l.t.Errorf("%s has other bytes", d)
			}
			infos, err := l.h.Blobs.Stat(ctx, testRepo, rec.Blobs)
			must(err)
			for _, info := range infos {
				if _, err := blob.ReadAll(ctx, l.h.Blobs, testRepo, ocispec.Descriptor{Digest: info.Digest, Size: info.Size}); err != nil {
					l.t.Error(err)
				}
			}
		}
	}
}
