package scan

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/referrers"
)

// Every is how long a [Runner] leaves a scanned image alone, as ECR does.
const Every = 24 * time.Hour

// Runner scans images when they are due, and keeps the results as their
// referrers. Scanner, Blobs and Manifests are required. It must not be copied
// after its first use.
//
// One Runner does not scan an image twice at once. Two, in two processes, may:
// the result of one of them is kept.
type Runner struct {
	Scanner Scanner
	Blobs   interface { // where results are kept
		blob.Reader
		blob.Writer
	}
	Manifests manifest.Store

	// Referrers finds results. nil means Manifests, if it is an Index too, else a
	// scan of it, which costs time by the number of manifests.
	Referrers referrers.Index

	// Configuration says what is scanned when; it is asked each time. nil means the
	// zero Configuration.
	Configuration func(ctx context.Context) (Configuration, error)

	Every time.Duration    // 0 means the constant Every; negative lets images be scanned at any time
	Now   func() time.Time // nil means time.Now

	// OnResult is told of each scan that has ended, after its result is kept, and
	// OnCommit of the Change that kept it. They run on the goroutine of the scan,
	// which waits for them.
	OnResult func(ctx context.Context, r Result)
	OnCommit func(ctx context.Context, e manifest.Event)

	mu      sync.Mutex
	running map[place]bool
}

type place struct {
	repo  string
	image digest.Digest
}

// CanScan tells whether a manifest is an image by its media type and its config.
// Indexes are not: their children are.
func CanScan(desc ocispec.Descriptor) bool {
	return manifest.KindOf(desc.MediaType) == manifest.KindImage &&
		(desc.ArtifactType == ocispec.MediaTypeImageConfig || desc.ArtifactType == "application/vnd.docker.container.image.v1+json")
}

// Scan scans one image now, whatever the Frequency of its repository, unless
// that is Off. It is ECR's StartImageScan, and waits for the result.
//
// Errors: manifest.ErrNotFound, ErrUnsupported, ErrArchived, *TooSoonError, ErrOff, and
// what the stores say. An error of the Scanner is returned together with a
// result that is StatusFailed.
func (r *Runner) Scan(ctx context.Context, repo string, image digest.Digest) (Result, error) {
	f, err := r.frequency(ctx, repo)
	if err == nil && f == Off {
		err = ErrOff
	}
	var rec manifest.Record
	if err == nil {
		rec, err = r.Manifests.Get(ctx, repo, image)
	}
	if err != nil {
		return Result{}, &Error{"scan", repo, image, err}
	}
	return r.scan(ctx, repo, &rec)
}

// Pushed scans what a change has brought, or has brought back from the archive,
// if its repository is scanned on push or continuously. What was scanned lately
// and what is no image is left out. Call it with each event, best from a worker
// that reads an outbox: it waits for the scans.
//
// The error joins those of single images, whose results are returned with it.
func (r *Runner) Pushed(ctx context.Context, e manifest.Event) ([]Result, error) {
	var brought []digest.Digest
	for _, rec := range e.Change.Put {
		if CanScan(rec.Desc) {
			brought = append(brought, rec.Desc.Digest)
		}
	}
	for _, c := range e.Change.Classes {
		if c.To == manifest.Standard {
			brought = append(brought, c.Digest)
		}
	}
	if brought == nil {
		return nil, nil
	}
	f, err := r.frequency(ctx, e.Repo)
	if err != nil {
		return nil, &Error{Op: "scan", Repo: e.Repo, Err: err}
	}
	if f != OnPush && f != Continuous {
		return nil, nil
	}
	var done []Result
	var errs []error
	for _, image := range brought {
		rec, err := r.Manifests.Get(ctx, e.Repo, image)
		if manifest.IsNotFound(err) {
			continue // deleted since
		}
		if err == nil {
			var one Result
			if one, err = r.scan(ctx, e.Repo, &rec); one.Status != "" {
				done = append(done, one)
			}
		}
		if err != nil && !isSkip(err) {
			if errs = append(errs, err); ctx.Err() != nil {
				break // the others would say the same
			}
		}
	}
	return done, errors.Join(errs...)
}

func isSkip(err error) bool {
	if missing, ok := errors.AsType[*manifest.MissingError](err); ok && missing.Manifests != nil {
		return true // the image was deleted while it was scanned
	}
	return errors.Is(err, ErrTooSoon) || errors.Is(err, ErrUnsupported) || errors.Is(err, ErrArchived)
}

// Due scans the images of a repository that is scanned continuously whose last
// scan is older than Every, or which have none. Call it now and then. It lists the repository
// once, and asks for the results of each image.
//
// The error joins those of single images, whose results are returned with it.
func (r *Runner) Due(ctx context.Context, repo string) ([]Result, error) {
	f, err := r.frequency(ctx, repo)
	if err != nil {
		return nil, &Error{Op: "scan", Repo: repo, Err: err}
	}
	if f != Continuous {
		return nil, nil
	}
	var done []Result
	var errs []error
	for rec, err := range r.Manifests.Manifests(ctx, repo, "") {
		if err != nil {
			errs = append(errs, &Error{Op: "scan", Repo: repo, Err: err})
			break
		}
		one, err := r.scan(ctx, repo, &rec)
		if one.Status != "" {
			done = append(done, one)
		}
		if err != nil && !isSkip(err) {
			if errs = append(errs, err); ctx.Err() != nil {
				break // the others would say the same
			}
		}
	}
	return done, errors.Join(errs...)
}

func (r *Runner) frequency(ctx context.Context, repo string) (Frequency, error) {
	var c Configuration
	if r.Configuration != nil {
		var err error
		if c, err = r.Configuration(ctx); err != nil {
			return Off, err
		}
	}
	f, _ := c.Frequency(repo)
	return f, nil
}

// scan scans one image if it may.
func (r *Runner) scan(ctx context.Context, repo string, rec *manifest.Record) (Result, error) {
	image := rec.Desc.Digest
	done, err := r.begin(ctx, repo, rec)
	if err != nil {
		return Result{}, &Error{"scan", repo, image, err}
	}
	defer done()
	report, scanErr := r.Scanner.Scan(ctx, repo, ocispec.Descriptor{MediaType: rec.Desc.MediaType, Digest: image, Size: rec.Desc.Size, ArtifactType: rec.Desc.ArtifactType})
	if err := ctx.Err(); err != nil {
		return Result{}, &Error{"scan", repo, image, errors.Join(err, scanErr)}
	}
	if scanErr != nil {
		report = Report{Status: StatusFailed, Description: "the scanner failed"} // not why: that may tell of its host
	}
	if report.Status == "" {
		report.Status = StatusComplete
	}
	result := Result{
		Repo: repo, Image: image, Status: report.Status, Description: report.Description,
		CompletedAt: r.now().UTC().Truncate(time.Millisecond), SourceUpdatedAt: report.SourceUpdatedAt.UTC().Truncate(time.Millisecond), Counts: report.counts(),
	}
	if err := r.keep(ctx, &result, &report, rec.Desc); err != nil {
		return Result{}, &Error{"scan", repo, image, errors.Join(scanErr, err)}
	}
	if r.OnResult != nil {
		r.OnResult(ctx, result)
	}
	if scanErr != nil {
		return result, &Error{"scan", repo, image, scanErr}
	}
	return result, nil
}

// begin says why an image may not be scanned now, or keeps others from it until
// done is called.
func (r *Runner) begin(ctx context.Context, repo string, rec *manifest.Record) (done func(), err error) {
	switch {
	case !CanScan(rec.Desc):
		return nil, ErrUnsupported
	case rec.StorageClass != manifest.Standard:
		return nil, ErrArchived
	}
	at := place{repo, rec.Desc.Digest}
	r.mu.Lock()
	if r.running[at] {
		r.mu.Unlock()
		return nil, &TooSoonError{}
	}
	if r.running == nil {
		r.running = map[place]bool{}
	}
	r.running[at] = true
	r.mu.Unlock()
	done = func() {
		r.mu.Lock()
		delete(r.running, at)
		r.mu.Unlock()
	}
	// Only now: a scan that ended before has its result there.
	results, _, err := r.results(ctx, repo, rec.Desc.Digest)
	if err == nil {
		err = r.tooSoon(rec, results)
	}
	if err != nil {
		done()
		return nil, err
	}
	return done, nil
}

// tooSoon says whether one of the results is too young for another scan. One
// that failed is none, and one from the future counts for nothing.
func (r *Runner) tooSoon(rec *manifest.Record, results []Result) error {
	every := r.Every
	if every == 0 {
		every = Every
	}
	now := r.now()
	for _, last := range results {
		next := last.CompletedAt.Add(every)
		if last.Status != StatusFailed && !last.CompletedAt.After(now) && now.Before(next) && !rec.RestoredAt.After(last.CompletedAt) {
			return &TooSoonError{next}
		}
	}
	return nil
}

// results returns the results of an image, and all the referrers that results
// have brought.
func (r *Runner) results(ctx context.Context, repo string, image digest.Digest) (results []Result, all []ocispec.Descriptor, err error) {
	index := r.Referrers
	if index == nil {
		var ok bool
		if index, ok = r.Manifests.(referrers.Index); !ok {
			index = referrers.Scan(r.Manifests)
		}
	}
	for desc, err := range index.Referrers(ctx, repo, image, "", "") {
		if err != nil {
			return nil, nil, err
		}
		if IsResult(desc) {
			all = append(all, desc)
		}
		if one, ok := ResultOf(repo, image, desc); ok {
			results = append(results, one)
		}
	}
	return results, all, nil
}

// maxRaces bounds how often a result is kept again because others have changed
// what it replaces.
const maxRaces = 100

// keep stores a result in the place of those before it, in one step. A failure
// replaces failures only.
func (r *Runner) keep(ctx context.Context, result *Result, report *Report, image ocispec.Descriptor) error {
	made, err := artifacts(result, report, image)
	if err != nil {
		return err
	}
	empty, content := manifest.Empty()
	change := manifest.Change{RequireManifests: []digest.Digest{image.Digest}, At: result.CompletedAt}
	if err := blob.Put(ctx, r.Blobs, result.Repo, empty, bytes.NewReader(content)); err != nil {
		return err
	}
	for _, a := range made {
		if err := blob.Put(ctx, r.Blobs, result.Repo, a.layer, bytes.NewReader(a.content)); err != nil {
			return err
		}
		for _, d := range a.record.Blobs {
			if !slices.Contains(change.RequireBlobs, d) {
				change.RequireBlobs = append(change.RequireBlobs, d)
			}
		}
		if !slices.ContainsFunc(change.Put, func(have manifest.Record) bool { return have.Desc.Digest == a.record.Desc.Digest }) {
			change.Put = append(change.Put, a.record)
		}
	}
	named := map[digest.Digest]bool{} // by a tag or an index of somebody's, so that they stay
	for race := 0; ; race++ {
		_, old, err := r.results(ctx, result.Repo, image.Digest)
		if err != nil {
			return err
		}
		change.Delete, change.Known = nil, nil
		for _, desc := range old {
			again := slices.ContainsFunc(change.Put, func(rec manifest.Record) bool { return rec.Desc.Digest == desc.Digest })
			failed := desc.Annotations[annotationStatus] == string(StatusFailed)
			if !again && !named[desc.Digest] && (failed || result.Status != StatusFailed) {
				change.Delete = append(change.Delete, manifest.Removal{Digest: desc.Digest, IfUntagged: true, IfUnlisted: true})
				change.Known = append(change.Known, manifest.Record{Desc: desc, Subject: image.Digest})
			}
		}
		err = r.Manifests.Apply(ctx, result.Repo, change)
		if err == nil {
			break
		}
		conflict, isConflict := errors.AsType[*manifest.ConflictError](err)
		if race == maxRaces || !isConflict && !manifest.IsNotFound(err) {
			return err
		}
		if isConflict {
			named[conflict.Digest] = true
		}
	}
	if r.OnCommit != nil {
		r.OnCommit(ctx, manifest.Event{Repo: result.Repo, Change: change})
	}
	return nil
}

// Result returns the last result of an image, or one that is StatusInProgress
// while this Runner scans it. Errors: ErrNotFound.
func (r *Runner) Result(ctx context.Context, repo string, image digest.Digest) (Result, error) {
	r.mu.Lock()
	running := r.running[place{repo, image}]
	r.mu.Unlock()
	if running {
		return Result{Repo: repo, Image: image, Status: StatusInProgress}, nil
	}
	results, _, err := r.results(ctx, repo, image)
	if err == nil && results == nil {
		err = ErrNotFound
	}
	if err != nil {
		return Result{}, &Error{"result", repo, image, err}
	}
	return slices.MaxFunc(results, func(a, b Result) int { return a.CompletedAt.Compare(b.CompletedAt) }), nil
}

// Findings reads the findings of a result. Errors: manifest.ErrNotFound when it
// has been replaced, ErrNotFound for one without a Digest.
func (r *Runner) Findings(ctx context.Context, result Result) ([]Finding, error) {
	findings, err := r.findings(ctx, result)
	if err != nil {
		return nil, &Error{"findings", result.Repo, result.Image, err}
	}
	return findings, nil
}

func (r *Runner) findings(ctx context.Context, result Result) ([]Finding, error) {
	if result.Digest == "" {
		return nil, ErrNotFound
	}
	rec, err := r.Manifests.Get(ctx, result.Repo, result.Digest)
	if err != nil {
		return nil, err
	}
	m, err := manifest.Parse(rec.Desc.MediaType, rec.Raw)
	if err != nil {
		return nil, err
	}
	if len(m.Layers) != 1 || m.Layers[0].Size > maxFindings {
		return nil, fmt.Errorf("%s has no document of findings", result.Digest)
	}
	raw, err := blob.ReadAll(ctx, r.Blobs, result.Repo, m.Layers[0].OCI())
	if err != nil {
		return nil, err
	}
	var d document
	if err := json.Unmarshal(raw, &d); err != nil {
		return nil, fmt.Errorf("findings of %s: %w", result.Digest, err)
	}
	return d.Findings, nil
}

func (r *Runner) now() time.Time {
	if r.Now != nil {
		return r.Now()
	}
	return time.Now()
}
