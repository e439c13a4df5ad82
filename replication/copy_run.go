package replication

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/semaphore"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/manifest"
)

// run is one call of Copy.
type run struct {
	c        *Copier
	src      Source
	from, to string
	dst      Target
	o        CopyOptions
	id       any // of the target
	session  *session
	bar      *bar

	// Abilities of dst, nil if it lacks them.
	receiver Receiver
	reader   blob.Reader
	mounter  blob.Mounter
	uploads  blob.Uploads
	stater   manifest.Stater

	root    digest.Digest
	rootRaw []byte                   // nil unless it was read
	have    map[string]digest.Digest // what the tags to give name at the target, "" if nothing
	moves   []string                 // those that are still to be moved
	lists   *referrerLists           // of the root, once they were listed

	mu      sync.Mutex
	objects map[object]*state
	reached []ocispec.Descriptor // manifests whose referrers are to be looked for
	result  CopyResult
}

func newRun(c *Copier, src Source, from string, dst Target, to string, o CopyOptions) *run {
	r := &run{c: c, src: src, from: from, dst: dst, to: to, o: o, objects: map[object]*state{}, have: map[string]digest.Digest{}}
	if r.bar = o.bar; r.bar == nil {
		r.bar = &bar{on: o.OnEvent}
	}
	switch {
	case dst.Registry != "":
		r.id = dst.Registry
	case reflect.ValueOf(dst.Blobs).Comparable():
		r.id = dst.Blobs
	default:
		r.id = r
	}
	r.receiver, _ = blob.As[Receiver](dst.Blobs)
	r.reader, _ = blob.As[blob.Reader](dst.Blobs)
	r.mounter, _ = blob.As[blob.Mounter](dst.Blobs)
	r.uploads, _ = blob.As[blob.Uploads](dst.Blobs)
	r.stater, _ = blob.As[manifest.Stater](dst.Manifests)
	return r
}

func (r *run) fail(op string, side Side, object string, err error) error {
	if _, ok := errors.AsType[*Error](err); ok || err == nil {
		return err
	}
	repo := r.to
	if side == SideSource {
		repo = r.from
	}
	switch e := err.(type) { // of the side itself, which says the same again
	case *manifest.Error:
		err = e.Err
	case *blob.Error:
		err = e.Err
	}
	return &Error{Op: op, Side: side, Repo: repo, Object: object, Err: err}
}

func (r *run) maxObjects() int { return orDefault(r.c.MaxObjects, 1_000_000) }

func (r *run) overBudget(what string, limit int) error {
	return r.fail("copy", "", string(r.root), fmt.Errorf("%w: more than %d %s", manifest.ErrBudget, limit, what))
}

// each calls f with 0 to n-1, in as many goroutines as there are helpers left and else
// in this one, so that it always goes on. The first error ends it.
func (r *run) each(ctx context.Context, n int, f func(ctx context.Context, i int) error) error {
	if n == 1 {
		return f(ctx, 0)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	call := func(i int) {
		if err := f(ctx, i); err != nil {
			cancel(err)
		}
	}
	var all sync.WaitGroup
	for i := 0; i < n && ctx.Err() == nil; i++ {
		select {
		case r.c.helpers <- struct{}{}:
			all.Go(func() {
				defer func() { <-r.c.helpers }()
				call(i)
			})
		default:
			call(i)
		}
	}
	all.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

// resolve returns the digest that ref names at the source, and finds what the tags
// to give name at the target. Both sides are asked at once.
func (r *run) resolve(ctx context.Context, ref string) (digest.Digest, error) {
	tags, root := r.o.Tags, digest.Digest(ref)
	isTag := !strings.Contains(ref, ":")
	var err error
	if isTag {
		err = manifest.CheckTag(ref)
	} else if err = manifest.CheckContentDigest(ref); err != nil {
		err = fmt.Errorf("%w: %w", manifest.ErrName, err)
	}
	if err != nil {
		return "", r.fail("copy", SideSource, "", err)
	}
	if isTag && tags == nil {
		tags = []string{ref}
	}
	have := make([]digest.Digest, len(tags))
	err = r.each(ctx, len(tags)+1, func(ctx context.Context, i int) (err error) {
		switch {
		case i < len(tags):
			have[i], err = r.resolveTag(ctx, tags[i])
		case isTag:
			err = r.c.try(ctx, func() error {
				t, err := r.src.Manifests.Resolve(ctx, r.from, ref)
				root = t.Digest
				return err
			})
			err = r.fail("resolve", SideSource, ref, err)
		}
		return err
	})
	for i, tag := range tags {
		r.have[tag] = have[i]
	}
	return root, err
}

// resolveTag returns "" for a tag that the target does not have.
func (r *run) resolveTag(ctx context.Context, tag string) (dgst digest.Digest, err error) {
	err = r.c.try(ctx, func() error {
		t, err := r.dst.Manifests.Resolve(ctx, r.to, tag)
		dgst = t.Digest
		if manifest.IsNotFound(err) {
			return nil
		}
		return err
	})
	return dgst, r.fail("resolve", SideTarget, tag, err)
}

// copy copies what root names, all that belongs to it, and then moves the tags of
// r.have.
func (r *run) copy(ctx context.Context, root digest.Digest) error {
	r.root = root
	desc := ocispec.Descriptor{Digest: root}
	if len(r.o.Platforms) > 0 && !r.o.Sparse {
		var err error
		if desc, err = r.selectPlatform(ctx, desc); err != nil {
			return err
		}
	}
	r.result.Root = desc
	at := step{root: true, ask: len(r.have) == 0 || r.o.Tags != nil} // another name often means that it is there by now
	for tag, dgst := range r.have {
		switch dgst {
		case desc.Digest:
			at.present = true
			r.result.Tags = append(r.result.Tags, tag)
			continue
		case "":
		default:
			r.session.probe()
		}
		r.moves = append(r.moves, tag)
	}
	slices.Sort(r.moves)
	err := r.manifest(ctx, desc, at)
	if err == nil && r.o.Referrers != 0 {
		err = r.followReferrers(ctx)
	}
	if err == nil && len(r.moves) > 0 {
		err = r.tag(ctx)
	}
	slices.Sort(r.result.Tags)
	return err
}

// selectPlatform returns the child of an index that runs on the one platform asked
// for, or what is no index.
func (r *run) selectPlatform(ctx context.Context, desc ocispec.Descriptor) (ocispec.Descriptor, error) {
	for range orDefault(r.c.MaxDepth, 100) {
		l, err := r.load(ctx, desc)
		if err != nil {
			return desc, err
		}
		l.release()
		if l.m.Kind != manifest.KindIndex {
			return l.desc, nil
		}
		child, ok := l.m.Select(r.o.Platforms[0])
		if !ok || len(r.o.Platforms) > 1 {
			return desc, r.fail("copy", SideSource, string(desc.Digest), &PlatformError{desc.Digest, r.o.Platforms})
		}
		desc = child.OCI()
	}
	return desc, r.overBudget("indexes in indexes", orDefault(r.c.MaxDepth, 100))
}

// step is how a run comes to a manifest.
type step struct {
	root    bool
	present bool          // the target shows it
	ask     bool          // whether the target shows it
	subject digest.Digest // whose referrer it is listed as
	depth   int           // of indexes above
}

func (r *run) manifest(ctx context.Context, desc ocispec.Descriptor, at step) error {
	first, err := r.visit(desc, true)
	if err != nil {
		return err
	}
	if first && r.o.Referrers != 0 {
		r.mu.Lock()
		r.reached = append(r.reached, desc)
		r.mu.Unlock()
	}
	mine, err := r.session.do(ctx, object{dgst: desc.Digest, manifest: true}, func() error { return r.copyManifest(ctx, desc, at) })
	if err != nil || mine || !first {
		return err
	}
	if r.o.Referrers != 0 && mayList(desc) { // somebody else has copied it, whom its children's referrers do not concern
		at.present = true
		return r.copyManifest(ctx, desc, at)
	}
	r.settle(desc, true, EventPresent)
	return nil
}

// mayList tells whether desc may be of an index.
func mayList(desc ocispec.Descriptor) bool {
	return desc.MediaType == "" || manifest.KindOf(desc.MediaType) == manifest.KindIndex
}

func (r *run) copyManifest(ctx context.Context, desc ocispec.Descriptor, at step) error {
	if limit := orDefault(r.c.MaxDepth, 100); at.depth > limit {
		return r.overBudget("indexes in indexes", limit)
	}
	if !at.present && r.stater != nil && (at.ask || r.o.Verify || r.o.DryRun || r.session.probes()) {
		var err error
		if at.present, err = r.shows(ctx, desc.Digest); err != nil {
			return err
		}
	}
	if at.present && !r.o.Verify && (r.o.Referrers == 0 || !mayList(desc)) {
		r.settle(desc, true, EventPresent)
		return nil
	}
	l, err := r.load(ctx, desc)
	if err != nil {
		return err
	}
	defer l.release()
	if at.subject != "" && l.m.Subject.Digest != at.subject {
		return errNoReferrer
	}
	if at.root {
		if r.o.accept != nil && !r.o.accept(l.m) {
			return errUnaccepted
		}
		r.result.Root, r.rootRaw = l.desc, l.raw
	}
	if !at.present {
		r.began(l.desc, true)
	}
	children, blobs := r.parts(l.m)
	if at.present && !r.o.Verify {
		blobs = nil
	}
	copyParts := func() error {
		return r.each(ctx, 1+len(children)+len(blobs), func(ctx context.Context, i int) error {
			switch {
			case i == 0:
				if !at.root || r.o.Referrers == 0 || r.lists != nil {
					return nil
				}
				var err error
				r.lists, err = r.listReferrers(ctx, l.desc.Digest)
				return err
			case i <= len(children):
				return r.manifest(ctx, children[i-1], step{depth: at.depth + 1, present: at.present && !r.o.Verify})
			}
			entry := -1
			if l.m.Kind == manifest.KindIndex {
				entry = at.depth
			}
			return r.blob(ctx, blobs[i-1-len(children)], entry)
		})
	}
	if err := copyParts(); err != nil {
		return err
	}
	if at.present {
		r.settle(l.desc, true, EventPresent)
		return nil
	}
	if l.raw == nil { // which there was no room for
		if err := r.read(ctx, l); err != nil {
			return err
		}
	}
	var tags []string
	if at.root && (r.o.Referrers == 0 || len(children) == 0 && r.lists.empty()) {
		tags = r.moves
	}
	err = r.push(ctx, l.desc, l.raw, tags)
	if errors.Is(err, manifest.ErrMissing) && len(r.o.Platforms) == 0 { // what the target had shown is gone since
		for _, d := range children {
			r.session.forget(object{dgst: d.Digest, manifest: true})
		}
		for _, d := range blobs {
			r.session.forget(object{dgst: d.Digest})
		}
		r.session.probe()
		if err = copyParts(); err == nil {
			err = r.push(ctx, l.desc, l.raw, tags)
		}
	}
	if err == nil {
		r.settle(l.desc, true, EventSent)
	}
	return err
}

// Why a listed referrer, and a root, is left out.
var (
	errNoReferrer = errors.New("listed as a referrer of what is not its subject")
	errUnaccepted = errors.New("not chosen")
)

// shows tells whether the target has a manifest.
func (r *run) shows(ctx context.Context, dgst digest.Digest) (shows bool, err error) {
	err = r.c.try(ctx, func() error {
		descs, err := r.stater.Stat(ctx, r.to, []digest.Digest{dgst})
		shows = len(descs) == 1 && descs[0].Digest == dgst
		return err
	})
	return shows, r.fail("look for", SideTarget, string(dgst), err)
}

// loaded is a verified manifest.
type loaded struct {
	desc    ocispec.Descriptor
	raw     []byte // nil if memory is short, and it has not waited for some
	m       *manifest.Manifest
	release func()
}

// load reads a manifest of the source. One that lists no others waits for memory; an
// index does not, since its children need some, and neither does one of unknown type, for which others
// may wait that have some, as if it were a blob.
func (r *run) load(ctx context.Context, desc ocispec.Descriptor) (*loaded, error) {
	l := &loaded{desc: desc, release: func() {}}
	weight := func(size int64) int64 { return min(2*max(size, 0), r.c.half()) } // the bytes, and what Parse keeps of them
	hold := func(memory *semaphore.Weighted, n int64) {
		l.release = sync.OnceFunc(func() { memory.Release(n) })
	}
	waits := !mayList(desc) && manifest.KindOf(desc.MediaType) != manifest.KindOpaque
	if waits {
		n := weight(desc.Size)
		if r.c.images.Acquire(ctx, n) != nil {
			return nil, context.Cause(ctx)
		}
		hold(r.c.images, n)
	}
	if err := r.read(ctx, l); err != nil {
		l.release()
		return nil, err
	}
	if !waits {
		if n := weight(l.desc.Size); r.c.indexes.TryAcquire(n) {
			hold(r.c.indexes, n)
		} else {
			l.raw = nil
		}
	}
	return l, nil
}

// read gets, verifies and parses l.desc.
func (r *run) read(ctx context.Context, l *loaded) error {
	return r.fail("get", SideSource, string(l.desc.Digest), r.readManifest(ctx, l))
}

func (r *run) readManifest(ctx context.Context, l *loaded) error {
	want := l.desc.Digest
	if err := manifest.CheckContentDigest(string(want)); err != nil {
		return fmt.Errorf("%w: %w", manifest.ErrDigest, err)
	}
	var rec manifest.Record
	err := r.c.try(ctx, func() (err error) {
		rec, err = r.src.Manifests.Get(ctx, r.from, want)
		return err
	})
	if err != nil {
		return err
	}
	size := int64(len(rec.Raw))
	if have := manifest.Digest(want.Algorithm(), rec.Raw); have != want {
		return fmt.Errorf("%w: %w", ErrContent, &blob.DigestError{Want: want, Got: have})
	}
	if l.desc.Size > 0 && l.desc.Size != size {
		return fmt.Errorf("%w: %w", ErrContent, &blob.SizeError{Want: l.desc.Size, Got: size})
	}
	mediaType := l.desc.MediaType
	if mediaType == "" {
		mediaType = rec.Desc.MediaType
	}
	if l.m, err = manifest.Parse(mediaType, rec.Raw); err != nil {
		return err
	}
	l.raw, l.desc.Size, l.desc.MediaType = rec.Raw, size, l.m.MediaType
	return nil
}

// parts returns what a manifest needs: other manifests and blobs. Layers of an index
// whose types are unknown count as blobs.
func (r *run) parts(m *manifest.Manifest) (children, blobs []ocispec.Descriptor) {
	chosen := map[digest.Digest]bool{}
	for _, d := range m.Manifests {
		desc := d.OCI()
		switch {
		case manifest.KindOf(d.MediaType) == manifest.KindOpaque:
			blobs = append(blobs, desc)
		case !r.chooses(desc, chosen):
			if first, err := r.visit(desc, true); first && err == nil {
				r.skip(desc, true, ErrPlatform)
			}
		default:
			chosen[d.Digest] = true
			children = append(children, desc)
		}
	}
	if !m.Config.IsZero() {
		blobs = append(blobs, m.Config.OCI())
	}
	for _, d := range m.Layers {
		desc := d.OCI()
		if m.Kind == manifest.KindSchema1 {
			desc.Size = -1
		}
		if !manifest.IsForeignLayer(desc.MediaType) {
			blobs = append(blobs, desc)
		} else if first, err := r.visit(desc, false); first && err == nil {
			r.skip(desc, false, ErrForeign)
		}
	}
	return children, blobs
}

// chooses tells whether a child of an index is for one of the platforms, or an
// attestation of one that is.
func (r *run) chooses(child ocispec.Descriptor, chosen map[digest.Digest]bool) bool {
	if !r.o.Sparse || len(r.o.Platforms) == 0 || chosen[digest.Digest(child.Annotations["vnd.docker.reference.digest"])] {
		return true
	}
	return child.Platform != nil && slices.ContainsFunc(r.o.Platforms, func(want ocispec.Platform) bool {
		return manifest.PlatformMatches(*child.Platform, want)
	})
}

// push stores a manifest, and points tags at it. Tags that may not move are left: not
// each registry says why it refuses.
func (r *run) push(ctx context.Context, desc ocispec.Descriptor, raw []byte, tags []string) error {
	send := func(tags []string) error {
		if r.o.DryRun {
			return nil
		}
		cause := r.c.Cause
		if cause == "" {
			cause = manifest.CauseReplication
		}
		err := r.c.try(ctx, func() error {
			_, err := r.dst.Manifests.Push(ctx, r.to, manifest.PushRequest{MediaType: desc.MediaType, Raw: raw, Digest: desc.Digest, Tags: tags, Cause: cause})
			return err
		})
		return r.fail("push", SideTarget, string(desc.Digest), err)
	}
	err := send(tags)
	if len(tags) > 0 && errors.Is(err, manifest.ErrRefused) || errors.Is(err, manifest.ErrTagImmutable) {
		if send(nil) != nil {
			return err
		}
		for i, tag := range tags {
			err := send([]string{tag})
			switch {
			case err == nil:
				r.result.Tags = append(r.result.Tags, tag)
			case errors.Is(err, manifest.ErrTagImmutable) || r.have[tag] != "" && errors.Is(err, manifest.ErrRefused):
				r.result.Kept = append(r.result.Kept, tag)
			default:
				r.moves = tags[i:]
				return err
			}
		}
		r.moves = nil
		return nil
	}
	if err == nil && len(tags) > 0 {
		r.result.Tags = append(r.result.Tags, tags...)
		r.moves = nil
	}
	return err
}

// tag moves the tags that did not come with the root.
func (r *run) tag(ctx context.Context) error {
	root, raw := r.result.Root, r.rootRaw
	if raw == nil {
		l := &loaded{desc: root}
		if err := r.read(ctx, l); err != nil {
			return err
		}
		root, raw = l.desc, l.raw
		r.result.Root = root
	}
	return r.push(ctx, root, raw, r.moves)
}
