package replication_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/replication"
)

func syncAll(t *testing.T, src replication.Source, dst replication.Target, o replication.SyncOptions) replication.SyncReport {
	t.Helper()
	got, err := new(replication.Copier).Sync(ctx, src, dst, o)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// TestSyncConverges: after each of many random changes, and some failures, one Sync
// makes both sides equal, and the next finds nothing to do.
func TestSyncConverges(t *testing.T) {
	for seed := range uint64(8) {
		r := rand.New(rand.NewPCG(seed, 1))
		src, dst := newRegistry(t), newRegistry(t)
		repos := []string{"a", "b/c"}
		o := replication.SyncOptions{
			CopyOptions: replication.CopyOptions{Referrers: replication.AllReferrers},
			Untagged:    true,
			Delete:      replication.SyncDelete{Tags: true, Images: true, Max: 1000, MaxShare: 1},
		}
		for round := range 12 {
			for range 5 {
				repo := repos[r.IntN(2)]
				tag := fmt.Sprintf("v%d", r.IntN(6))
				switch r.IntN(4) {
				case 0:
					image := src.image(repo, []string{fmt.Sprint("layer", r.IntN(30)), fmt.Sprint("layer", r.IntN(30), "x")}, tag)
					src.referrer(repo, image, "a/sbom", fmt.Sprint("sbom", r.IntN(9)))
				case 1:
					src.index(repo, []ocispec.Descriptor{src.image(repo, []string{fmt.Sprint("layer", r.IntN(30))}), src.image(repo, []string{"b"})}, tag)
				case 2:
					d := manifest.Deleter{Store: src.manifests}
					if err := d.Untag(ctx, repo, tag, ""); err != nil && !manifest.IsNotFound(err) {
						t.Fatal(err)
					}
				case 3:
					d := manifest.Deleter{Store: src.manifests}
					for rec, err := range src.manifests.Manifests(ctx, repo, "") {
						if err != nil {
							t.Fatal(err)
						}
						if r.IntN(8) == 0 {
							_, _ = d.Delete(ctx, repo, manifest.ImageID{Digest: rec.Desc.Digest}) // which is refused to children
						}
					}
				}
			}
			if round%3 == 1 { // a run that fails somewhere harms nothing
				p := &tap{after: dst.complete, before: func(n int, _ string) error {
					if n%7 == 3 {
						return errTap
					}
					return nil
				}}
				if _, err := new(replication.Copier).Sync(ctx, p.source(src.source()), p.target(dst, round%2 == 0), o); err == nil {
					t.Log("no call failed")
				}
			}
			syncAll(t, src.source(), dst.target(), o)
			for _, repo := range repos {
				a, b := src.content(repo), dst.content(repo)
				for x := range a {
					if !b[x] && !strings.HasPrefix(x, "blob") {
						t.Fatalf("seed %d, round %d: the target lacks %s in %s", seed, round, x, repo)
					}
				}
				for x := range b {
					if !a[x] && !strings.HasPrefix(x, "blob") {
						t.Fatalf("seed %d, round %d: the target has %s in %s", seed, round, x, repo)
					}
				}
			}
			if again := syncAll(t, src.source(), dst.target(), o); again.Created+again.Moved+again.Deleted+again.DeletedImages+again.Untagged+again.Manifests.Sent+again.Blobs.Sent > 0 {
				t.Fatalf("seed %d, round %d: again %+v", seed, round, again)
			}
		}
	}
}

// TestSyncDeletesOnlyWhenAsked, and never more than it may.
func TestSyncDeletesOnlyWhenAsked(t *testing.T) {
	fill := func() (src, dst registry) {
		src, dst = newRegistry(t), newRegistry(t)
		for i := range 10 {
			dst.image(to, []string{"a"}, fmt.Sprintf("v%d", i))
		}
		src.image(to, []string{"a"}, "v0", "v1", "v2", "v3", "v4", "v5", "v6")
		return src, dst
	}
	tags := func(g registry) (n int) {
		for _, err := range g.manifests.Tags(ctx, to, "") {
			if err != nil {
				t.Fatal(err)
			}
			n++
		}
		return n
	}
	for name, c := range map[string]struct {
		o    replication.SyncOptions
		left int
		err  error
	}{
		"by default":  {replication.SyncOptions{}, 10, nil},
		"tags":        {replication.SyncOptions{Delete: replication.SyncDelete{Tags: true}}, 7, nil},
		"chosen":      {replication.SyncOptions{Delete: replication.SyncDelete{Tags: true}, Tags: replication.Names{Exclude: []string{"v8"}}}, 8, nil},
		"dry":         {replication.SyncOptions{Delete: replication.SyncDelete{Tags: true}, CopyOptions: replication.CopyOptions{DryRun: true}}, 10, nil},
		"too many":    {replication.SyncOptions{Delete: replication.SyncDelete{Tags: true, Max: 2}}, 10, replication.ErrDeleteLimit},
		"a share":     {replication.SyncOptions{Delete: replication.SyncDelete{Tags: true, MaxShare: 0.29}}, 10, replication.ErrDeleteLimit},
		"just enough": {replication.SyncOptions{Delete: replication.SyncDelete{Tags: true, Max: 3, MaxShare: 0.3}}, 7, nil},
	} {
		t.Run(name, func(t *testing.T) {
			src, dst := fill()
			var deleted []string
			c.o.OnChange = func(change replication.SyncChange) {
				if change.Kind == replication.TagDeleted && change.Repo == to {
					deleted = append(deleted, change.Ref)
				}
			}
			got, err := new(replication.Copier).Sync(ctx, src.source(), dst.target(), c.o)
			if len(deleted) != got.Deleted || got.Deleted == 3 && strings.Join(deleted, " ") != "v7 v8 v9" {
				t.Errorf("told of %q, and %d were deleted", deleted, got.Deleted)
			}
			if !errors.Is(err, c.err) {
				t.Errorf("error %v, want %v", err, c.err)
			}
			if n := tags(dst); n != c.left {
				t.Errorf("%d tags are left, want %d (%+v)", n, c.left, got)
			}
			if name == "dry" && got.Deleted != 3 {
				t.Errorf("%+v, want 3 that would be deleted", got)
			}
		})
	}
}

// early is a source as it was before something came.
type early struct {
	replication.LocalManifests
	tag  string
	dgst digest.Digest
}

func (m early) Tags(ctx context.Context, repo, after string) iter.Seq2[manifest.Tag, error] {
	return func(yield func(manifest.Tag, error) bool) {
		for t, err := range m.LocalManifests.Tags(ctx, repo, after) {
			if t.Name != m.tag && !yield(t, err) {
				return
			}
		}
	}
}

func (m early) Manifests(ctx context.Context, repo string, after digest.Digest) iter.Seq2[manifest.Record, error] {
	return func(yield func(manifest.Record, error) bool) {
		for rec, err := range m.LocalManifests.Manifests(ctx, repo, after) {
			if rec.Desc.Digest != m.dgst && !yield(rec, err) {
				return
			}
		}
	}
}

// TestSyncDeletesNothingThatHasCome since the source was listed, which may be long ago.
func TestSyncDeletesNothingThatHasCome(t *testing.T) {
	for name, o := range map[string]replication.SyncDelete{"tags": {Tags: true}, "images": {Images: true}} {
		src, dst := newRegistry(t), newRegistry(t)
		for _, g := range []registry{src, dst} {
			g.image("app", []string{"a"}, "v1")
			g.image("app", []string{"b"}, "late")
		}
		dst.image("app", []string{"c"}, "old")
		source := src.source()
		late, err := src.manifests.Resolve(ctx, "app", "late")
		if err != nil {
			t.Fatal(err)
		}
		source.Manifests = early{replication.LocalManifests{Reader: src.manifests}, "late", late.Digest}
		o.MaxShare = 1
		got := syncAll(t, source, dst.target(), replication.SyncOptions{Repositories: replication.Names{Include: []string{"app"}}, Delete: o})
		if have, err := dst.manifests.Resolve(ctx, "app", "late"); err != nil || have.Digest != late.Digest || got.Deleted+got.DeletedImages != 1 {
			t.Errorf("%s: %v, %+v", name, err, got)
		}
	}
}

// TestSyncLeavesOtherRepositories that the source does not list, unless one is named.
func TestSyncLeavesOtherRepositories(t *testing.T) {
	src, dst := newRegistry(t), newRegistry(t)
	src.image("mine", []string{"a"}, "v1")
	dst.image("theirs", []string{"a"}, "v1")
	o := replication.SyncOptions{Delete: replication.SyncDelete{Tags: true, MaxShare: 1}}
	if got := syncAll(t, src.source(), dst.target(), o); got.Deleted != 0 || got.Created != 1 {
		t.Errorf("%+v", got)
	}
	o.Repositories.Include = []string{"theirs"}
	if got := syncAll(t, src.source(), dst.target(), o); got.Deleted != 1 || got.Repositories != 1 {
		t.Errorf("%+v", got)
	}
}

// TestSyncGoesOnAfterFailures, deletes nothing then, and says what failed.
func TestSyncGoesOnAfterFailures(t *testing.T) {
	src, dst := newRegistry(t), newRegistry(t)
	for i := range 6 {
		src.image(from, []string{fmt.Sprint(i)}, fmt.Sprintf("v%d", i))
	}
	dst.image(from, []string{"old"}, "old")
	if err := src.blobs.Delete(ctx, from, digest.FromString("3"), zero); err != nil {
		t.Fatal(err)
	}
	got, err := new(replication.Copier).Sync(ctx, src.source(), dst.target(), replication.SyncOptions{Delete: replication.SyncDelete{Tags: true}})
	e, ok := errors.AsType[*replication.SyncError](err)
	if !ok || e.Failures != 1 || e.First.Ref != "v3" || got.Created != 5 || got.Deleted != 0 || got.Failures != 1 {
		t.Errorf("%+v, %v", got, err)
	}
	text, err := json.Marshal(got)
	if want, _ := json.Marshal(e.First.Err.Error()); err != nil || !strings.Contains(string(text), `"ref":"v3","error":`+string(want)) {
		t.Errorf("the report as JSON does not say why: %s, %v", text, err)
	}
	dst.complete()
}

// TestSyncSaysWhatItCannotDelete, by the tag or the digest.
func TestSyncSaysWhatItCannotDelete(t *testing.T) {
	src, dst := newRegistry(t), newRegistry(t)
	src.image(to, []string{"a"}, "v1")
	dst.image(to, []string{"a"}, "v1")
	gone := dst.image(to, []string{"b"}, "gone")
	keep := errors.New("kept")
	target := dst.target()
	target.Manifests = replication.LocalManifests{Reader: dst.manifests, Pusher: &manifest.Pusher{Store: dst.manifests}, Deleter: &manifest.Deleter{
		Store: dst.manifests, KeepTag: func(context.Context, string, string, digest.Digest) error { return keep },
	}}
	for ref, o := range map[string]replication.SyncDelete{"gone": {Tags: true}, string(gone.Digest): {Images: true}} {
		got, err := new(replication.Copier).Sync(ctx, src.source(), target, replication.SyncOptions{Delete: o})
		if e, ok := errors.AsType[*replication.Error](err); !errors.Is(err, keep) || !ok || e.Object != ref || len(got.Failed) != 1 || got.Failed[0].Ref != ref {
			t.Errorf("%+v, %v, want a failure of %s", got, err, ref)
		}
	}
}

// TestSyncStopsAtARefusal: a repository that may not be read is one failure, not one for each
// of its images.
func TestSyncStopsAtARefusal(t *testing.T) {
	for _, tagged := range []bool{true, false} {
		src, dst := newRegistry(t), newRegistry(t)
		const images = 100
		for i := range images {
			var tags []string
			if tagged {
				tags = []string{fmt.Sprint("v", i)}
			}
			src.image(from, []string{fmt.Sprint(i)}, tags...)
		}
		p := &tap{before: func(int, string) error { return replication.ErrDenied }}
		source := src.source()
		source.Blobs = p.source(source).Blobs
		got, err := new(replication.Copier).Sync(ctx, source, dst.target(), replication.SyncOptions{Untagged: true})
		if !errors.Is(err, replication.ErrDenied) || got.Failures != 1 || p.total > images/2 {
			t.Errorf("tagged %v: %v, %d failures, %d requests", tagged, err, got.Failures, p.total)
		}
	}
}

// TestSyncTellsOfChanges: by their tags, dry as for real.
func TestSyncTellsOfChanges(t *testing.T) {
	src, dst := newRegistry(t), newRegistry(t)
	old := dst.image(to, []string{"old"}, "moved")
	image := src.image(to, []string{"a"}, "created", "moved", "same")
	dst.image(to, []string{"a"}, "same")
	for _, dry := range []bool{true, false} {
		got := map[string]replication.SyncChange{}
		syncAll(t, src.source(), dst.target(), replication.SyncOptions{
			CopyOptions: replication.CopyOptions{DryRun: dry},
			OnChange:    func(c replication.SyncChange) { got[c.Ref] = c },
		})
		if len(got) != 2 || got["created"] != (replication.SyncChange{Kind: replication.TagCreated, Repo: to, Ref: "created", To: image.Digest}) ||
			got["moved"] != (replication.SyncChange{Kind: replication.TagMoved, Repo: to, Ref: "moved", From: old.Digest, To: image.Digest}) {
			t.Errorf("dry %v: %+v", dry, got)
		}
	}
}

func TestSyncChooses(t *testing.T) {
	src := newRegistry(t)
	src.image("team/app", []string{"a"}, "v1", "v2", "dev-1", "latest")
	src.signed("team/chart", 1, "v1")
	src.image("other", []string{"b"}, "v1")
	for name, c := range map[string]struct {
		o             replication.SyncOptions
		repos, create int
	}{
		"all":           {replication.SyncOptions{}, 3, 6},
		"repositories":  {replication.SyncOptions{Repositories: replication.Names{Include: []string{"team/*"}}}, 2, 5},
		"one by name":   {replication.SyncOptions{Repositories: replication.Names{Include: []string{"other"}}}, 1, 1},
		"but one":       {replication.SyncOptions{Repositories: replication.Names{Exclude: []string{"team/chart"}}}, 2, 5},
		"tags":          {replication.SyncOptions{Tags: replication.Names{Include: []string{"v*", "latest"}, Exclude: []string{"*2"}}}, 3, 4},
		"artifact type": {replication.SyncOptions{ArtifactTypes: []string{"a/image"}}, 3, 1},
	} {
		t.Run(name, func(t *testing.T) {
			got := syncAll(t, src.source(), newRegistry(t).target(), c.o)
			if got.Repositories != c.repos || got.Created != c.create {
				t.Errorf("%+v, want %d repositories and %d tags", got, c.repos, c.create)
			}
		})
	}
}

// TestSyncWithListsOfNames: the sides are asked for each tag, and lists of the tag
// schema are left alone.
func TestSyncWithListsOfNames(t *testing.T) {
	src, dst := newRegistry(t), newRegistry(t)
	src.signed(from, 1000, "v1")
	src.image(from, []string{"list"}, "sha256-"+strings.Repeat("a", 64))
	p := &tap{}
	source, target := p.source(src.source()), p.target(dst, true)
	source.Manifests = names{source.Manifests}
	target.Manifests = struct {
		replication.ManifestWriter
	}{namesTarget{target.Manifests}}
	o := replication.SyncOptions{CopyOptions: replication.CopyOptions{Referrers: 1}, Repositories: replication.Names{Include: []string{from}}}
	for _, want := range []int{5009 + 2 + 2 + 1 + 2, 7} {
		p.total = 0
		got := syncAll(t, source, target, o)
		if p.total > want || got.Created+got.Unchanged != 1 {
			t.Errorf("%d requests, want at most %d: %+v %v", p.total, want, got, p.requests)
		}
	}
}

func TestSyncRefusesOptions(t *testing.T) {
	g := newRegistry(t)
	target := g.target()
	target.Manifests = struct{ replication.ManifestWriter }{target.Manifests}
	for name, c := range map[string]struct {
		o      replication.SyncOptions
		target replication.Target
	}{
		"no list of manifests": {replication.SyncOptions{Untagged: true}, target},
		"no remover":           {replication.SyncOptions{Delete: replication.SyncDelete{Tags: true}}, target},
		"images of some tags":  {replication.SyncOptions{Delete: replication.SyncDelete{Images: true}, Tags: replication.Names{Include: []string{"v*"}}}, g.target()},
	} {
		if _, err := new(replication.Copier).Sync(ctx, g.source(), c.target, c.o); !errors.Is(err, replication.ErrOptions) {
			t.Errorf("%s: error %v, want ErrOptions", name, err)
		}
	}
}

// TestSyncRefusesAListWithoutOrder: what would take a tag for missing is no list.
func TestSyncRefusesAListWithoutOrder(t *testing.T) {
	src, dst := newRegistry(t), newRegistry(t)
	src.image(to, []string{"a"}, "v1", "v2")
	dst.image(to, []string{"a"}, "v1", "v2")
	source := src.source()
	source.Manifests = disordered{source.Manifests}
	got, err := new(replication.Copier).Sync(ctx, source, dst.target(), replication.SyncOptions{
		Repositories: replication.Names{Include: []string{to}}, Delete: replication.SyncDelete{Tags: true, MaxShare: 1}})
	if !errors.Is(err, replication.ErrContent) || got.Deleted > 0 {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestNames(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"a", "a", true}, {"a", "ab", false}, {"*", "", true}, {"*", "a/b", true}, {"a*", "a", true}, {"a*b", "ab", true},
		{"a*b", "a", false}, {"ab*ba", "aba", false}, {"*a*", "bab", true}, {"a*b*c", "a-b-c-c", true}, {"", "a", false}, {"a*b*c", "acb", false},
	} {
		if got := (replication.Names{Include: []string{c.pattern}}).Match(c.name); got != c.want {
			t.Errorf("%q fits %q: %v", c.name, c.pattern, got)
		}
	}
}

// names lists tags without digests.
type names struct{ replication.ManifestReader }

func (n names) Tags(ctx context.Context, repo, after string) iter.Seq2[manifest.Tag, error] {
	return nameless(n.ManifestReader.Tags(ctx, repo, after))
}

type namesTarget struct{ replication.ManifestWriter }

func (n namesTarget) Tags(ctx context.Context, repo, after string) iter.Seq2[manifest.Tag, error] {
	return nameless(n.ManifestWriter.Tags(ctx, repo, after))
}

func nameless(list iter.Seq2[manifest.Tag, error]) iter.Seq2[manifest.Tag, error] {
	return func(yield func(manifest.Tag, error) bool) {
		for t, err := range list {
			if !yield(manifest.Tag{Name: t.Name}, err) {
				return
			}
		}
	}
}

type disordered struct{ replication.ManifestReader }

func (d disordered) Tags(ctx context.Context, repo, after string) iter.Seq2[manifest.Tag, error] {
	return func(yield func(manifest.Tag, error) bool) {
		_ = yield(manifest.Tag{Name: "v2"}, nil) && yield(manifest.Tag{Name: "v1"}, nil)
	}
}

// TestSkippedSaysWhyInJSON, which has no place for errors.
func TestSkippedSaysWhyInJSON(t *testing.T) {
	for want, s := range map[string]replication.Skipped{
		`"reason":"foreign layer"}`: {Why: replication.ErrForeign},
		`"reason":""}`:              {},
	} {
		if text, err := json.Marshal(s); err != nil || !strings.HasPrefix(string(text), `{"descriptor":{`) || !strings.HasSuffix(string(text), want) {
			t.Errorf("%s, %v, want it to end in %s", text, err, want)
		}
	}
}
