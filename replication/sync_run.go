package replication

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/manifest"
)

// lister is what a side has that lists manifests.
type lister interface {
	Manifests(ctx context.Context, repo string, after digest.Digest) iter.Seq2[manifest.Record, error]
}

// syncer is one call of Sync.
type syncer struct {
	c                *Copier
	src              Source
	dst              Target
	o                SyncOptions
	bar              *bar
	named            map[string]bool // repositories that have been looked at
	srcList, dstList lister
	remover          Remover

	mu     sync.Mutex
	report SyncReport
	seen   int    // tags and images of the target that may be deleted
	going  int    // how many of those are to be
	doomed []doom // as many as may go
}

func (y *syncer) check() error {
	bad := func(format string, args ...any) error {
		return &Error{Op: "sync", Err: fmt.Errorf("%w: %s", ErrOptions, fmt.Sprintf(format, args...))}
	}
	o := &y.o
	if o.Untagged || o.Delete.Images {
		var ok, alsoOK bool
		y.srcList, ok = blob.As[lister](y.src.Manifests)
		y.dstList, alsoOK = blob.As[lister](y.dst.Manifests)
		switch {
		case !ok || !alsoOK:
			return bad("manifests are compared only if both sides list them")
		case len(o.Tags.Include)+len(o.Tags.Exclude)+len(o.ArtifactTypes)+len(o.Platforms) > 0:
			return bad("manifests are compared only if all tags, types and platforms are chosen")
		}
	}
	if o.Delete.Tags || o.Delete.Images {
		var ok bool
		if y.remover, ok = blob.As[Remover](y.dst.Manifests); !ok {
			return bad("the target deletes nothing")
		}
	}
	if len(o.ArtifactTypes) > 0 {
		o.accept = func(m *manifest.Manifest) bool { return slices.Contains(o.ArtifactTypes, m.ArtifactType) }
	}
	return nil
}

func (y *syncer) repositories(ctx context.Context) error {
	patterns := len(y.o.Repositories.Include) == 0
	for _, name := range y.o.Repositories.Include {
		if strings.Contains(name, "*") {
			patterns = true
		} else if err := y.repository(ctx, name); err != nil {
			return err
		}
	}
	if !patterns {
		return nil
	}
	catalog, ok := blob.As[manifest.Catalog](y.src.Manifests)
	if !ok {
		return &Error{Op: "list repositories", Side: SideSource, Err: fmt.Errorf("%w: the source does not list them: name those to look at", errors.ErrUnsupported)}
	}
	list := func(after string) iter.Seq2[string, error] { return catalog.Repos(ctx, after) }
	for name, err := range ascending(ctx, y.c, list, func(name string) string { return name }) {
		if err != nil {
			return &Error{Op: "list repositories", Side: SideSource, Err: err}
		}
		if err := y.repository(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// ascending is a listing that goes on after temporary failures, and ends in an error
// unless its keys ascend.
func ascending[T any, K ~string](ctx context.Context, c *Copier, list func(after K) iter.Seq2[T, error], key func(T) K) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var last K
		var zero T
		p := patience{c: c}
		for {
			var failed error
			for v, err := range list(last) {
				if err == nil && key(v) <= last {
					err = fmt.Errorf("%w: %q comes after %q in a list", ErrContent, key(v), last)
				}
				if failed = err; err != nil {
					break
				}
				last, p = key(v), patience{c: c}
				if !yield(v, nil) {
					return
				}
			}
			if failed == nil {
				failed = ctx.Err()
			}
			if failed == nil {
				return
			}
			if err := p.wait(ctx, failed); err != nil {
				yield(zero, err)
				return
			}
		}
	}
}

// merge walks two ascending listings together. Of each key it has what the one side
// lists, the other, or both.
func merge[T any, K ~string](a, b iter.Seq2[T, error], key func(T) K, each func(a, b *T) error) error {
	nextA, stopA := iter.Pull2(a)
	defer stopA()
	nextB, stopB := iter.Pull2(b)
	defer stopB()
	va, errA, okA := nextA()
	vb, errB, okB := nextB()
	for okA || okB {
		if err := errors.Join(errA, errB); err != nil {
			return err
		}
		var err error
		switch a, b := va, vb; {
		case !okB || okA && key(a) < key(b):
			err = each(&a, nil)
			va, errA, okA = nextA()
		case !okA || key(b) < key(a):
			err = each(nil, &b)
			vb, errB, okB = nextB()
		default:
			err = each(&a, &b)
			va, errA, okA = nextA()
			vb, errB, okB = nextB()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// repository returns the error of ctx only; others are in the report.
func (y *syncer) repository(ctx context.Context, from string) error {
	if y.named[from] || !y.o.Repositories.Match(from) {
		return nil
	}
	y.named[from] = true
	y.report.Repositories++
	to := from
	if y.o.Rename != nil {
		to = y.o.Rename(from)
	}
	o := y.o.CopyOptions
	o.session, o.bar, o.Tags = &session{flights: map[object]*flight{}}, y.bar, nil
	r, err := y.c.begin(y.src, from, y.dst, to, o) // which checks the names
	if err == nil {
		err = y.tags(ctx, r, o)
	}
	if err == nil && y.srcList != nil {
		err = y.manifests(ctx, r, o)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		y.failed(from, "", err)
	}
	return nil
}

func (y *syncer) tags(ctx context.Context, r *run, o CopyOptions) error {
	key := func(t manifest.Tag) string { return t.Name }
	list := func(side Side, repo string, tags func(context.Context, string, string) iter.Seq2[manifest.Tag, error]) iter.Seq2[manifest.Tag, error] {
		return wrapped(ascending(ctx, y.c, func(after string) iter.Seq2[manifest.Tag, error] { return tags(ctx, repo, after) }, key),
			func(err error) error { return r.fail("list tags", side, "", err) })
	}
	jobs, ctx := errgroup.WithContext(ctx)
	jobs.SetLimit(cap(y.c.slots))
	err := merge(list(SideSource, r.from, y.src.Manifests.Tags), list(SideTarget, r.to, y.dst.Manifests.Tags), key, func(a, b *manifest.Tag) error {
		name := ""
		if a != nil {
			name = a.Name
		} else {
			name = b.Name
		}
		if !y.o.Tags.Match(name) || isReferrersTag(name) {
			return ctx.Err()
		}
		if b != nil && y.o.Delete.Tags {
			y.doom(a == nil, doom{r.from, r.to, name, b.Digest})
		}
		if a != nil {
			jobs.Go(func() error { return y.tag(ctx, r, o, *a, b) })
		}
		return ctx.Err()
	})
	if failed := jobs.Wait(); failed != nil {
		return failed
	}
	return err
}

// isReferrersTag tells whether a tag is one of the referrers tag schema.
func isReferrersTag(name string) bool {
	algorithm, encoded, ok := strings.Cut(name, "-")
	return ok && (algorithm == "sha256" || algorithm == "sha512") && len(encoded) == 64 && strings.Trim(encoded, "0123456789abcdef") == ""
}

func wrapped[T any](list iter.Seq2[T, error], wrap func(error) error) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for v, err := range list {
			if !yield(v, wrap(err)) {
				return
			}
		}
	}
}

// tag copies what one tag names. Only what concerns the whole repository is an error.
func (y *syncer) tag(ctx context.Context, repo *run, o CopyOptions, a manifest.Tag, b *manifest.Tag) error {
	o.Tags = []string{a.Name}
	r, err := y.c.begin(y.src, repo.from, y.dst, repo.to, o)
	root, have := a.Digest, digest.Digest("")
	if err == nil && (root == "" || b != nil && b.Digest == "") { // lists of names only
		root, err = r.resolve(ctx, a.Name)
		have = r.have[a.Name]
	} else if b != nil {
		have = b.Digest
	}
	if manifest.IsNotFound(err) {
		return nil // since it was listed
	}
	if err == nil && (have != root || o.Verify || o.Referrers != 0) {
		r.have[a.Name] = have
		err = r.copy(ctx, root)
	}
	y.mu.Lock()
	defer y.mu.Unlock()
	y.count(r)
	switch n := &y.report; {
	case errors.Is(err, errUnaccepted):
		n.Left++
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, ErrDenied): // as will be what follows
		return err
	case err != nil:
		y.failure(repo.from, a.Name, err)
	case len(r.result.Kept) > 0:
		n.Kept++
		y.changed(TagKept, r.to, a.Name, have, r.result.Root.Digest)
	case have == "":
		n.Created++
		y.changed(TagCreated, r.to, a.Name, "", r.result.Root.Digest)
	case have == root || have == r.result.Root.Digest:
		n.Unchanged++
	default:
		n.Moved++
		y.changed(TagMoved, r.to, a.Name, have, r.result.Root.Digest)
	}
	return nil
}

func (y *syncer) changed(kind ChangeKind, repo, ref string, from, to digest.Digest) {
	if y.o.OnChange != nil {
		y.o.OnChange(SyncChange{kind, repo, ref, from, to})
	}
}

// manifests copies what has no tag, and finds what the source does not have.
func (y *syncer) manifests(ctx context.Context, r *run, o CopyOptions) error {
	key := func(m manifest.Record) digest.Digest { return m.Desc.Digest }
	list := func(side Side, repo string, l lister) iter.Seq2[manifest.Record, error] {
		return wrapped(ascending(ctx, y.c, func(after digest.Digest) iter.Seq2[manifest.Record, error] { return l.Manifests(ctx, repo, after) }, key),
			func(err error) error { return r.fail("list manifests", side, "", err) })
	}
	jobs, ctx := errgroup.WithContext(ctx)
	jobs.SetLimit(cap(y.c.slots))
	o.Referrers = 0 // which are listed too
	err := merge(list(SideSource, r.from, y.srcList), list(SideTarget, r.to, y.dstList), key, func(a, b *manifest.Record) error {
		if b != nil && y.o.Delete.Images {
			y.doom(a == nil, doom{from: r.from, repo: r.to, dgst: b.Desc.Digest})
		}
		if a == nil || b != nil && !o.Verify || !y.o.Untagged || a.Subject != "" && y.o.Referrers == 0 {
			return ctx.Err()
		}
		jobs.Go(func() error {
			one, err := y.c.begin(y.src, r.from, y.dst, r.to, o)
			if err == nil {
				err = one.copy(ctx, a.Desc.Digest)
			}
			y.mu.Lock()
			defer y.mu.Unlock()
			y.count(one)
			switch {
			case err == nil && b == nil:
				y.report.Untagged++
			case err == nil, manifest.IsNotFound(err): // since it was listed
			case ctx.Err() != nil:
				return context.Cause(ctx)
			case errors.Is(err, ErrDenied): // as will be what follows
				return err
			default:
				y.failure(r.from, string(a.Desc.Digest), err)
			}
			return nil
		})
		return ctx.Err()
	})
	if failed := jobs.Wait(); failed != nil {
		return failed
	}
	return err
}

func (y *syncer) count(r *run) {
	if r == nil { // of a name that is none
		return
	}
	y.report.Manifests.sum(r.result.Manifests)
	y.report.Blobs.sum(r.result.Blobs)
	y.report.Skipped += len(r.result.Skipped)
}

func (y *syncer) failed(repo, ref string, err error) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.failure(repo, ref, err)
}

func (y *syncer) failure(repo, ref string, err error) {
	const most = 1000
	if y.report.Failures++; len(y.report.Failed) < most {
		y.report.Failed = append(y.report.Failed, SyncFailure{repo, ref, err})
	}
}
