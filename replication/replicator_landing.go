package replication

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/events"
	"github.com/wharfage/wharfage/manifest"
)

// landing is the Manifests of a Destination as a job sees it: it marks what comes, and
// notes it. What is in the archive there it does not show, so that it is pushed again,
// and so comes back.
type landing struct {
	ManifestWriter
	job    Job
	get    getter          // nil if nobody can tell what is in the archive
	stater manifest.Stater // nil if there is none

	mu   sync.Mutex
	came []arrival
}

type getter interface {
	Get(ctx context.Context, repo string, dgst digest.Digest) (manifest.Record, error)
}

// arrival is an image that has come.
type arrival struct {
	digest digest.Digest
	tags   []string
}

func newLanding(m ManifestWriter, job Job) *landing {
	l := &landing{ManifestWriter: m, job: job}
	l.get, _ = blob.As[getter](m)
	l.stater, _ = blob.As[manifest.Stater](m)
	return l
}

// Push implements [ManifestWriter].
func (l *landing) Push(ctx context.Context, repo string, in manifest.PushRequest) (manifest.Pushed, error) {
	dgst := in.Digest
	if dgst == "" {
		dgst = digest.FromBytes(in.Raw)
	}
	in.Via = l.job.Via
	if dgst != l.job.Digest && len(in.Tags) == 0 {
		// What is brought along may have come another way, on which it is not to be missed.
		in.Via = in.Via[max(len(in.Via)-1, 0):]
	}
	done, err := l.ManifestWriter.Push(ctx, repo, in)
	if err != nil {
		return done, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.IndexFunc(l.came, func(a arrival) bool { return a.digest == dgst })
	if i < 0 {
		i, l.came = len(l.came), append(l.came, arrival{digest: dgst})
	}
	l.came[i].tags = append(l.came[i].tags, in.Tags...)
	return done, nil
}

func (l *landing) archived(ctx context.Context, repo string, dgst digest.Digest) (bool, error) {
	if l.get == nil {
		return false, nil
	}
	rec, err := l.get.Get(ctx, repo, dgst)
	if manifest.IsNotFound(err) || errors.Is(err, ErrContent) { // what cannot be read may be replaced all the same
		return false, nil
	}
	return rec.StorageClass == manifest.Archive, err
}

// Resolve implements [ManifestWriter].
func (l *landing) Resolve(ctx context.Context, repo, tag string) (manifest.Tag, error) {
	t, err := l.ManifestWriter.Resolve(ctx, repo, tag)
	if err != nil {
		return t, err
	}
	archived, err := l.archived(ctx, repo, t.Digest)
	if archived {
		err = manifest.ErrNotFound
	}
	if err != nil {
		return manifest.Tag{}, err
	}
	return t, nil
}

// Abilities implements [blob.Able].
func (l *landing) Abilities() []any {
	if l.stater == nil {
		return nil
	}
	return []any{landed{l}}
}

// landed is a [manifest.Stater].
type landed struct{ l *landing }

func (s landed) Stat(ctx context.Context, repo string, dgsts []digest.Digest) ([]ocispec.Descriptor, error) {
	out, err := s.l.stater.Stat(ctx, repo, dgsts)
	for i := range out {
		if err != nil {
			break
		}
		if out[i].Digest == "" {
			continue
		}
		var archived bool
		if archived, err = s.l.archived(ctx, repo, out[i].Digest); archived {
			out[i] = ocispec.Descriptor{}
		}
	}
	return out, err
}

func (l *landing) remover() Remover {
	r, _ := blob.As[Remover](l.ManifestWriter)
	return r
}

func (l *landing) pushes() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.came)
}

// events tell what has come.
func (l *landing) events(from Registry, repo string) (out []events.Replication) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, a := range l.came {
		if a.tags == nil {
			a.tags = []string{""}
		}
		for _, tag := range a.tags {
			out = append(out, events.Replication{Repository: repo, Digest: a.digest, Tag: tag, SourceAccount: from.ID, SourceRegion: from.Region})
		}
	}
	return out
}
