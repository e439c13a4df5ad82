package scan_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/blob/memblob"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/manifest/manifesttest"
	"github.com/wharfage/wharfage/manifest/memmanifest"
	"github.com/wharfage/wharfage/scan"
	"github.com/wharfage/wharfage/scan/scantest"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// world is a registry with a runner.
type world struct {
	*testing.T
	blobs     *memblob.Store
	manifests *memmanifest.Store
	scanner   *scantest.Scanner
	runner    *scan.Runner
	now       time.Time
	config    scan.Configuration
}

func newWorld(t *testing.T) *world {
	w := &world{T: t, blobs: new(memblob.Store), scanner: new(scantest.Scanner), now: noon}
	w.manifests = &memmanifest.Store{MissingBlobs: blob.Missing(w.blobs)}
	w.runner = &scan.Runner{
		Scanner: w.scanner, Blobs: w.blobs, Manifests: w.manifests, Now: func() time.Time { return w.now },
		Configuration: func(context.Context) (scan.Configuration, error) { return w.config, nil },
	}
	return w
}

func (w *world) always(f scan.Frequency) {
	w.config = scan.Configuration{Type: scan.Enhanced, Rules: []scan.Rule{{Frequency: f, Filters: []scan.Filter{{Filter: "*", Type: scan.FilterWildcard}}}}}
}

// push stores a manifest in the repository "app", and returns the event.
func (w *world) push(draft interface {
	Build() ([]byte, ocispec.Descriptor, error)
}) (ocispec.Descriptor, manifest.Event) {
	w.Helper()
	raw, desc, err := draft.Build()
	if err != nil {
		w.Fatal(err)
	}
	empty, content := manifest.Empty()
	if err := blob.Put(w.Context(), w.blobs, "app", empty, bytes.NewReader(content)); err != nil {
		w.Fatal(err)
	}
	var event manifest.Event
	p := &manifest.Pusher{Store: w.manifests, Now: func() time.Time { return w.now }, OnCommit: func(_ context.Context, e manifest.Event) { event = e }}
	if _, err := p.Push(w.Context(), "app", manifest.PushRequest{MediaType: desc.MediaType, Raw: raw}); err != nil {
		w.Fatal(err)
	}
	return desc, event
}

// image is an image of a name. Its config is the empty object, under its type.
func image(name string) manifest.ImageDraft {
	config, _ := manifest.Empty()
	config.MediaType = ocispec.MediaTypeImageConfig
	return manifest.ImageDraft{Config: &config, Annotations: map[string]string{"name": name}}
}

func (w *world) referrers(subject digest.Digest) (types []string) {
	w.Helper()
	for desc, err := range w.manifests.Referrers(w.Context(), "app", subject, "", "") {
		if err != nil {
			w.Fatal(err)
		}
		types = append(types, desc.ArtifactType)
	}
	slices.Sort(types)
	return types
}

func finds(report scan.Report) func(context.Context, string, ocispec.Descriptor) (scan.Report, error) {
	return func(context.Context, string, ocispec.Descriptor) (scan.Report, error) { return report, nil }
}

func TestAPushIsScannedAsConfigured(t *testing.T) {
	w := newWorld(t)
	_, event := w.push(image("1"))
	for _, c := range []struct {
		config scan.Configuration
		scans  int
	}{
		{scan.Configuration{}, 0},
		{scan.Configuration{Type: scan.Enhanced}, 0},
		{scan.Configuration{Rules: []scan.Rule{{Frequency: scan.OnPush, Filters: []scan.Filter{{Filter: "other", Type: scan.FilterWildcard}}}}}, 0},
		{scan.Configuration{Rules: []scan.Rule{{Frequency: scan.OnPush, Filters: []scan.Filter{{Filter: "ap", Type: scan.FilterWildcard}}}}}, 1},
	} {
		w.config = c.config
		done, err := w.runner.Pushed(t.Context(), event)
		if err != nil || len(done) != c.scans || len(w.scanner.Calls()) != c.scans {
			t.Errorf("%+v: %d results, %v, after scans of %v", c.config, len(done), err, w.scanner.Calls())
		}
	}
	w.always(scan.Continuous)
	w.scanner = new(scantest.Scanner)
	w.runner.Scanner = w.scanner
	_, index := w.push(manifest.IndexDraft{})
	_, artifact := w.push(manifest.ImageDraft{ArtifactType: "application/spdx+json"})
	for _, e := range []manifest.Event{index, artifact, event, {Repo: "app"}} {
		if done, err := w.runner.Pushed(t.Context(), e); err != nil || done != nil || w.scanner.Calls() != nil {
			t.Errorf("an index, an artifact, an image scanned before, or nothing: %v, %v", done, err)
		}
	}
	w.runner.Configuration = func(context.Context) (scan.Configuration, error) { return scan.Configuration{}, manifesttest.ErrFault }
	if _, err := w.runner.Pushed(t.Context(), event); !errors.Is(err, manifesttest.ErrFault) {
		t.Errorf("a configuration that cannot be read: %v", err)
	}
}

func TestAnImageIsScannedOnceADay(t *testing.T) {
	w := newWorld(t)
	desc, _ := w.push(image("1"))
	scanned := func(want error) {
		t.Helper()
		if _, err := w.runner.Scan(t.Context(), "app", desc.Digest); !errors.Is(err, want) || want == nil && err != nil {
			t.Errorf("at %v: %v, want %v", w.now, err, want)
		}
	}
	scanned(nil)
	w.now = noon.Add(scan.Every - time.Second)
	scanned(scan.ErrTooSoon)
	_, err := w.runner.Scan(t.Context(), "app", desc.Digest)
	if e, ok := errors.AsType[*scan.TooSoonError](err); !ok || !e.Next.Equal(noon.Add(scan.Every)) {
		t.Errorf("%v does not tell when", err)
	}
	w.now = noon.Add(scan.Every)
	scanned(nil)

	// From the archive it comes back like a new one.
	move := func(to manifest.StorageClass) manifest.Event {
		c := manifest.Change{Classes: []manifest.ClassMove{{Digest: desc.Digest, To: to}}, At: w.now}
		if err := w.manifests.Apply(t.Context(), "app", c); err != nil {
			t.Fatal(err)
		}
		return manifest.Event{Repo: "app", Change: c}
	}
	w.now = w.now.Add(time.Minute)
	move(manifest.Archive)
	scanned(scan.ErrArchived)
	w.always(scan.OnPush)
	if done, err := w.runner.Pushed(t.Context(), move(manifest.Standard)); err != nil || len(done) != 1 {
		t.Errorf("restored: %v, %v", done, err)
	}
	scanned(scan.ErrTooSoon)
	w.runner.Every = -1
	scanned(nil)

	// A clock that was wrong keeps nobody waiting.
	w.runner.Every = 0
	w.now = noon
	scanned(nil)
}

func TestAFailedScanMayBeTriedAgain(t *testing.T) {
	w := newWorld(t)
	desc, _ := w.push(image("1"))
	broken := errors.New("secret host is down")
	w.scanner.Report = finds(scan.Report{Findings: []scan.Finding{{Name: "CVE-1", Severity: scan.High}}})
	if _, err := w.runner.Scan(t.Context(), "app", desc.Digest); err != nil {
		t.Fatal(err)
	}
	w.now = noon.Add(25 * time.Hour)
	w.scanner.Report = func(context.Context, string, ocispec.Descriptor) (scan.Report, error) { return scan.Report{}, broken }
	for range 2 {
		w.now = w.now.Add(time.Minute)
		result, err := w.runner.Scan(t.Context(), "app", desc.Digest)
		if !errors.Is(err, broken) || result.Status != scan.StatusFailed || strings.Contains(result.Description, "secret") {
			t.Errorf("%+v, %v", result, err)
		}
	}
	if got := w.referrers(desc.Digest); len(got) != 2 { // what was found before, and the last failure
		t.Errorf("results: %v", got)
	}
	if r, err := w.runner.Result(t.Context(), "app", desc.Digest); err != nil || r.Status != scan.StatusFailed {
		t.Errorf("%+v, %v", r, err)
	}
	w.scanner.Report = nil
	w.now = w.now.Add(time.Minute)
	if _, err := w.runner.Scan(t.Context(), "app", desc.Digest); err != nil {
		t.Fatal(err)
	}
	if got := w.referrers(desc.Digest); len(got) != 1 {
		t.Errorf("results: %v", got)
	}
}

func TestAResultIsAReferrer(t *testing.T) {
	w := newWorld(t)
	desc, _ := w.push(image("1"))
	sbom := scan.Attachment{ArtifactType: "application/spdx+json", Content: []byte("{}")}
	w.scanner.Report = finds(scan.Report{
		SourceUpdatedAt: noon.Add(-time.Hour),
		Findings:        []scan.Finding{{Name: "CVE-1", Severity: scan.Critical, Attributes: []scan.Attribute{{Key: "package_name", Value: "a<b"}}}, {Name: "CVE-2", Severity: "BAD"}},
		Attachments:     []scan.Attachment{sbom},
	})
	var told []scan.Result
	var events []manifest.Event
	w.runner.OnResult = func(_ context.Context, r scan.Result) { told = append(told, r) }
	w.runner.OnCommit = func(_ context.Context, e manifest.Event) { events = append(events, e) }
	if _, err := w.runner.Result(t.Context(), "app", desc.Digest); !errors.Is(err, scan.ErrNotFound) {
		t.Error(err)
	}
	for i := range 3 {
		w.now = noon.Add(time.Duration(i) * 48 * time.Hour)
		if _, err := w.runner.Scan(t.Context(), "app", desc.Digest); err != nil {
			t.Fatal(err)
		}
		if got := w.referrers(desc.Digest); !slices.Equal(got, []string{sbom.ArtifactType, scan.ArtifactType}) {
			t.Fatalf("referrers: %v", got)
		}
	}
	r, err := w.runner.Result(t.Context(), "app", desc.Digest)
	if err != nil || r.Status != scan.StatusComplete || !r.CompletedAt.Equal(w.now) || !r.SourceUpdatedAt.Equal(noon.Add(-time.Hour)) || !maps.Equal(r.Counts, map[scan.Severity]int{scan.Critical: 1, scan.Undefined: 1}) {
		t.Errorf("%+v, %v", r, err)
	}
	found, err := w.runner.Findings(t.Context(), r)
	if err != nil || len(found) != 2 || found[0].Attributes[0].Value != "a<b" || found[1].Name != "CVE-2" {
		t.Errorf("%+v, %v", found, err)
	}
	if len(told) != 3 || told[2].Digest != r.Digest || len(events) != 3 || len(events[2].Change.Delete) != 1 {
		t.Errorf("told of %d results and %d changes", len(told), len(events))
	}
	if c := events[2].Change; len(c.Known) != 1 || c.Known[0].Desc.Digest != c.Delete[0].Digest || c.Known[0].Subject != desc.Digest || c.Known[0].Desc.ArtifactType != scan.ArtifactType {
		t.Errorf("the event does not tell what has gone: %+v", c.Known)
	}
	if _, err := w.runner.Findings(t.Context(), told[0]); !manifest.IsNotFound(err) {
		t.Errorf("findings of a result that was replaced: %v", err)
	}
	if done, err := w.runner.Pushed(t.Context(), events[2]); err != nil || done != nil {
		t.Errorf("a result is scanned: %v, %v", done, err)
	}
	if !scan.IsResult(events[2].Change.Put[1].Desc) || scan.IsResult(desc) {
		t.Error("IsResult")
	}
}

func TestAResultNeedsItsImage(t *testing.T) {
	w := newWorld(t)
	desc, event := w.push(image("1"))
	w.scanner.Report = func(ctx context.Context, repo string, image ocispec.Descriptor) (scan.Report, error) {
		return scan.Report{}, w.manifests.Apply(ctx, repo, manifest.Change{Delete: []manifest.Removal{{Digest: image.Digest}}})
	}
	if _, err := w.runner.Scan(t.Context(), "app", desc.Digest); !errors.Is(err, manifest.ErrMissing) {
		t.Error(err)
	}
	if got := w.referrers(desc.Digest); got != nil {
		t.Errorf("a deleted image has results: %v", got)
	}
	w.always(scan.Continuous)
	for name, scan := range map[string]func() ([]scan.Result, error){
		"Pushed": func() ([]scan.Result, error) { return w.runner.Pushed(t.Context(), event) },
		"Due":    func() ([]scan.Result, error) { return w.runner.Due(t.Context(), "app") },
	} {
		w.push(image("1"))
		if done, err := scan(); done != nil || err != nil {
			t.Errorf("%s, of an image that is deleted meanwhile: %v, %v", name, done, err)
		}
	}
}

func TestAResultThatSomebodyListsStays(t *testing.T) {
	w := newWorld(t)
	desc, _ := w.push(image("1"))
	first, err := w.runner.Scan(t.Context(), "app", desc.Digest)
	if err != nil {
		t.Fatal(err)
	}
	rec, err := w.manifests.Get(t.Context(), "app", first.Digest)
	if err != nil {
		t.Fatal(err)
	}
	w.push(manifest.IndexDraft{Manifests: []ocispec.Descriptor{{MediaType: rec.Desc.MediaType, Digest: rec.Desc.Digest, Size: rec.Desc.Size}}})
	w.now = noon.Add(48 * time.Hour)
	second, err := w.runner.Scan(t.Context(), "app", desc.Digest)
	if err != nil || len(w.referrers(desc.Digest)) != 2 {
		t.Errorf("%v: %v", err, w.referrers(desc.Digest))
	}
	if last, err := w.runner.Result(t.Context(), "app", desc.Digest); err != nil || last.Digest != second.Digest {
		t.Errorf("%+v, %v", last, err)
	}
}

func TestAResultThatHasATagStays(t *testing.T) {
	w := newWorld(t)
	desc, _ := w.push(image("1"))
	first, err := w.runner.Scan(t.Context(), "app", desc.Digest)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.manifests.Apply(t.Context(), "app", manifest.Change{Tags: []manifest.TagMove{{Name: "audited", To: first.Digest}}}); err != nil {
		t.Fatal(err)
	}
	w.now = noon.Add(48 * time.Hour)
	second, err := w.runner.Scan(t.Context(), "app", desc.Digest)
	if err != nil {
		t.Fatal(err)
	}
	if tag, err := w.manifests.Resolve(t.Context(), "app", "audited"); err != nil || tag.Digest != first.Digest {
		t.Errorf("the tag is at %q: %v", tag.Digest, err)
	}
	if last, err := w.runner.Result(t.Context(), "app", desc.Digest); err != nil || last.Digest != second.Digest {
		t.Errorf("%+v, %v", last, err)
	}
}

func TestOfRacingScansOneRuns(t *testing.T) {
	w := newWorld(t)
	for round := range 50 {
		desc, _ := w.push(image(fmt.Sprint(round)))
		before := len(w.scanner.Calls())
		var wg sync.WaitGroup
		start := make(chan struct{})
		for range 8 {
			wg.Go(func() {
				<-start
				if _, err := w.runner.Scan(t.Context(), "app", desc.Digest); err != nil && !errors.Is(err, scan.ErrTooSoon) {
					t.Error(err)
				}
			})
		}
		close(start)
		wg.Wait()
		if n := len(w.scanner.Calls()) - before; n != 1 {
			t.Fatalf("%d scans", n)
		}
	}
}

func TestRunnersOfTwoProcessesLeaveOneResult(t *testing.T) {
	w := newWorld(t)
	other := &scan.Runner{Scanner: w.scanner, Blobs: w.blobs, Manifests: w.manifests, Now: func() time.Time { return noon.Add(time.Second) }, Every: -1}
	w.runner.Every = -1
	for round := range 30 {
		desc, _ := w.push(image(fmt.Sprint(round)))
		var wg sync.WaitGroup
		for _, r := range []*scan.Runner{w.runner, other} {
			wg.Go(func() {
				if _, err := r.Scan(t.Context(), "app", desc.Digest); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		// Both may have come before they saw each other's; the next replaces both.
		if _, err := w.runner.Scan(t.Context(), "app", desc.Digest); err != nil || len(w.referrers(desc.Digest)) != 1 {
			t.Fatalf("%v: %v", err, w.referrers(desc.Digest))
		}
	}
}

func TestFindingsThatCannotBeReadBackAreNotKept(t *testing.T) {
	w := newWorld(t)
	desc, _ := w.push(image("1"))
	w.scanner.Report = finds(scan.Report{Findings: []scan.Finding{{Name: "CVE-1", Description: strings.Repeat("x", 64<<20)}}})
	if _, err := w.runner.Scan(t.Context(), "app", desc.Digest); err == nil || !strings.Contains(err.Error(), "at most 67108864") {
		t.Errorf("Scan = %v, want an error that says how many bytes findings may have", err)
	}
	if types := w.referrers(desc.Digest); len(types) != 0 {
		t.Errorf("the image has the referrers %q", types)
	}
}

func TestWhileItRunsItIsInProgress(t *testing.T) {
	w := newWorld(t)
	desc, _ := w.push(image("1"))
	w.scanner.Report = func(ctx context.Context, repo string, image ocispec.Descriptor) (scan.Report, error) {
		r, err := w.runner.Result(ctx, repo, image.Digest)
		if err != nil || r.Status != scan.StatusInProgress {
			t.Errorf("%+v, %v", r, err)
		}
		if _, err := w.runner.Findings(ctx, r); !errors.Is(err, scan.ErrNotFound) {
			t.Error(err)
		}
		_, err = w.runner.Scan(ctx, repo, image.Digest)
		if e, ok := errors.AsType[*scan.TooSoonError](err); !ok || !e.Next.IsZero() {
			t.Error(err)
		}
		return scan.Report{Status: scan.StatusUnsupportedImage}, nil
	}
	if r, err := w.runner.Scan(t.Context(), "app", desc.Digest); err != nil || r.Status != scan.StatusUnsupportedImage {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestAnEndedScanLeavesNothing(t *testing.T) {
	w := newWorld(t)
	desc, _ := w.push(image("1"))
	ctx, cancel := context.WithCancel(t.Context())
	w.scanner.Report = func(context.Context, string, ocispec.Descriptor) (scan.Report, error) {
		cancel()
		return scan.Report{}, nil
	}
	if _, err := w.runner.Scan(ctx, "app", desc.Digest); !errors.Is(err, context.Canceled) || w.referrers(desc.Digest) != nil {
		t.Errorf("%v: %v", err, w.referrers(desc.Digest))
	}
}

// TestAnEndedContextEndsARun, with one error and not with one for each image.
func TestAnEndedContextEndsARun(t *testing.T) {
	w := newWorld(t)
	w.always(scan.Continuous)
	var all manifest.Event
	for i := range 30 {
		_, event := w.push(image(fmt.Sprint(i)))
		all = manifest.Event{Repo: event.Repo, Change: manifest.Change{Put: append(all.Change.Put, event.Change.Put...)}}
	}
	for name, run := range map[string]func(context.Context) ([]scan.Result, error){
		"Pushed": func(ctx context.Context) ([]scan.Result, error) { return w.runner.Pushed(ctx, all) },
		"Due":    func(ctx context.Context) ([]scan.Result, error) { return w.runner.Due(ctx, "app") },
	} {
		ctx, cancel := context.WithCancel(t.Context())
		w.scanner.Report = func(context.Context, string, ocispec.Descriptor) (scan.Report, error) {
			cancel()
			return scan.Report{}, nil
		}
		if done, err := run(ctx); done != nil || !errors.Is(err, context.Canceled) || strings.Count(err.Error(), context.Canceled.Error()) != 1 {
			t.Errorf("%s: %v, %v", name, done, err)
		}
	}
}

func TestDueScansWhatIsOld(t *testing.T) {
	w := newWorld(t)
	first, _ := w.push(image("1"))
	w.push(manifest.IndexDraft{})
	if done, err := w.runner.Due(t.Context(), "app"); err != nil || done != nil {
		t.Errorf("without a rule: %v, %v", done, err)
	}
	w.always(scan.Continuous)
	for i, want := range []int{1, 0, 2, 0, 2} {
		done, err := w.runner.Due(t.Context(), "app")
		if err != nil || len(done) != want {
			t.Errorf("round %d: %d scans, %v, want %d", i, len(done), err, want)
		}
		switch i {
		case 1:
			w.push(image("2"))
			w.now = w.now.Add(scan.Every)
		case 3:
			w.now = w.now.Add(scan.Every)
		}
	}
	w.always(scan.OnPush)
	w.config.Rules = nil
	if _, err := w.runner.Scan(t.Context(), "app", first.Digest); !errors.Is(err, scan.ErrOff) {
		t.Error(err)
	}
	if _, err := w.runner.Scan(t.Context(), "app", digest.FromString("none")); !errors.Is(err, scan.ErrOff) {
		t.Error(err)
	}
	w.config = scan.Configuration{}
	if _, err := w.runner.Scan(t.Context(), "app", digest.FromString("none")); !manifest.IsNotFound(err) {
		t.Error(err)
	}
}

// TestFaultsSurface fails each call of the manifest store in turn: a scan then
// says so, and what is there afterwards is a whole result or none.
func TestFaultsSurface(t *testing.T) {
	for n := 1; ; n++ {
		w := newWorld(t)
		desc, _ := w.push(image("1"))
		fault := &manifesttest.Fault{N: n}
		w.runner.Manifests = manifesttest.Faulty(w.manifests, fault)
		_, err := w.runner.Scan(t.Context(), "app", desc.Digest)
		if fault.Surfaced() == 0 {
			if err != nil {
				t.Error(err)
			}
			if n < 4 {
				t.Errorf("a scan makes %d calls only", n-1)
			}
			return
		}
		if err == nil {
			t.Errorf("call %d fails, and the scan does not say so", n)
		}
		if manifest.IsNotFound(err) || errors.Is(err, scan.ErrNotFound) {
			t.Errorf("call %d: a failing store is %v", n, err)
		}
		r, err := w.runner.Result(t.Context(), "app", desc.Digest)
		if err == nil {
			_, err = w.runner.Findings(t.Context(), r)
		} else if errors.Is(err, scan.ErrNotFound) {
			err = nil
		}
		if err != nil {
			t.Errorf("after call %d failed: %v", n, err)
		}
	}
}

func ExampleRunner() {
	ctx := context.Background()
	blobs := new(memblob.Store)
	manifests := &memmanifest.Store{MissingBlobs: blob.Missing(blobs)}
	runner := &scan.Runner{
		Scanner: &scantest.Scanner{Report: finds(scan.Report{Findings: []scan.Finding{{Name: "CVE-2026-1", Severity: scan.High}}})}, // yours
		Blobs:   blobs, Manifests: manifests,
		Configuration: func(context.Context) (scan.Configuration, error) {
			prod := []scan.Filter{{Filter: "prod/*", Type: scan.FilterWildcard}}
			return scan.Configuration{Rules: []scan.Rule{{Frequency: scan.OnPush, Filters: prod}}}, nil
		},
		OnResult: func(_ context.Context, r scan.Result) { fmt.Println(r.Repo, r.Status, r.Counts) },
	}
	pusher := &manifest.Pusher{Store: manifests, OnCommit: func(ctx context.Context, e manifest.Event) {
		if _, err := runner.Pushed(ctx, e); err != nil { // better from a worker
			fmt.Println(err)
		}
	}}
	raw, desc, err := image("app").Build()
	if err != nil {
		fmt.Println(err)
		return
	}
	empty, content := manifest.Empty()
	if err := blob.Put(ctx, blobs, "prod/app", empty, bytes.NewReader(content)); err != nil {
		fmt.Println(err)
	}
	if _, err := pusher.Push(ctx, "prod/app", manifest.PushRequest{Raw: raw, Tags: []string{"v1"}}); err != nil {
		fmt.Println(err)
	}
	for r, err := range manifests.Referrers(ctx, "prod/app", desc.Digest, "", "") {
		fmt.Println(r.ArtifactType, err)
	}
	// Output:
	// prod/app COMPLETE map[HIGH:1]
	// application/vnd.wharfage.scan.v1+json <nil>
}

func ExampleConfiguration_Frequency() {
	c := scan.Configuration{Type: scan.Enhanced, Rules: []scan.Rule{
		{Frequency: scan.OnPush, Filters: []scan.Filter{{Filter: "*", Type: scan.FilterWildcard}}},
		{Frequency: scan.Continuous, Filters: []scan.Filter{{Filter: "prod", Type: scan.FilterWildcard}}},
	}}
	for _, repo := range []string{"team/prod-api", "team/dev"} {
		f, applied := c.Frequency(repo)
		fmt.Println(repo, f, applied[0].Filter)
	}
	// Output:
	// team/prod-api CONTINUOUS_SCAN prod
	// team/dev SCAN_ON_PUSH *
}
