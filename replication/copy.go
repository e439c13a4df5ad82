package replication

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/semaphore"

	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/referrers"
)

// Copier copies images with all that belongs to them. Its zero value is ready; it
// must not be copied after its first use, and its methods may be called at once.
// What several calls bring to one repository at once is transferred once.
//
// Whatever a target shows is complete: blobs go before the manifest that names
// them, children before their index, a subject before its referrers, and tags go
// last. Every byte is verified before the target shows it. So a copy may end
// anywhere, and be started again: what is there then is not sent again.
type Copier struct {
	// Requests bounds what is transferred at once: that many manifests and blobs,
	// each with one request under way on a side. Zero means [DefaultRequests].
	Requests int
	// Memory bounds the manifests that are held, in bytes. Blobs pass through a
	// buffer. Zero means [DefaultMemory].
	Memory int64
	// PartSize is from which size on a blob is sent in parts of that size, if the
	// target has [blob.Uploads], and at most what a failure lets send again. Zero means
	// [DefaultPartSize].
	PartSize int64
	// Journal keeps the sessions of blobs that are sent in parts, so that another
	// process can continue them. nil keeps none.
	Journal Journal

	// Attempts is how often a request is tried that fails with a [TemporaryError], zero
	// means 5. Backoff is the wait after the first, zero means 500 ms; each
	// is twice the one before, up to 30 s and less a random part of up to a half. The
	// error's own After is waited for if it is longer. MaxWait bounds
	// the waits for one request together, zero means 2 min: a longer After ends it.
	Attempts int
	Backoff  time.Duration
	MaxWait  time.Duration

	// MaxObjects bounds the manifests and blobs of one copy, and MaxDepth indexes in
	// indexes and referrers of referrers, else an error that matches
	// [manifest.ErrBudget]. Zero means 1,000,000 and 100.
	MaxObjects, MaxDepth int

	Cause manifest.Cause // of what is pushed; "" means [manifest.CauseReplication]

	once     sync.Once
	slots    chan struct{}       // one is held by whoever has a request under way
	helpers  chan struct{}       // one is held by each goroutine of a run
	images   *semaphore.Weighted // half of Memory: whoever has some goes on without more
	indexes  *semaphore.Weighted // the other half: whoever has some waits for others
	mu       sync.Mutex
	sessions map[place]*session
	known    map[object]string // a repository of a target that has a blob
}

// Defaults of a Copier.
const (
	DefaultRequests = 16
	DefaultMemory   = 64 << 20
	DefaultPartSize = 16 << 20
)

// CopyOptions say what is copied with an image. The zero value copies the image, and
// all children if it is an index.
type CopyOptions struct {
	// Tags are those to give it. nil means the ref, if that is a tag. A tag that names
	// something else at the target, which refuses to move it, is left, and no
	// failure: see [CopyResult].
	Tags []string

	// Referrers says how far referrers are followed: 1 copies what refers to the
	// image or to what it lists, 2 what refers to those too. [AllReferrers] goes on, which
	// costs each referrer a listing on both sides.
	Referrers int
	// Filter chooses among the referrers.
	Filter referrers.Filter

	// Platforms choose among the children of an index. One platform without Sparse
	// copies the first child that runs on it in place of the index, under the same tag. With
	// Sparse the index is copied, with the children that run on any of them, and with
	// what refers to those by BuildKit's annotation; the target must take an
	// index whose children are missing. Anything else is a *[PlatformError].
	Platforms []ocispec.Platform
	Sparse    bool

	// MountFrom names repositories of the target that may have blobs already. Those
	// that the Copier itself has filled, and the source's if it is of the same registry, need
	// not be named.
	MountFrom []string

	// Verify compares everything. Without it, what has the same digest at the target is
	// taken to be complete, since it can only come after what it needs.
	Verify bool
	// DryRun changes nothing, and tells what would be. What the target cannot be asked for
	// counts as sent.
	DryRun bool

	// OnEvent is told of each step, one at a time, by the goroutine that does it, which waits.
	// It must not call the Copier.
	OnEvent func(Event)

	accept  func(*manifest.Manifest) bool // of the root; nil accepts all
	session *session                      // nil means one by what it is
	bar     *bar                          // nil means one of its own
}

// AllReferrers as CopyOptions.Referrers follows referrers without end.
const AllReferrers = -1

// Tally counts what became of manifests or of blobs.
type Tally struct {
	Sent    int   `json:"sent"`
	Mounted int   `json:"mounted"`
	Present int   `json:"present"` // there before, or brought by another call of the Copier meanwhile
	Bytes   int64 `json:"bytes"`   // of those sent; those of unknown size count 0
}

func (t *Tally) add(how Received, size int64) {
	switch how {
	case Sent:
		t.Sent++
		t.Bytes += max(size, 0)
	case Mounted:
		t.Mounted++
	case Present:
		t.Present++
	}
}

func (t *Tally) sum(u Tally) {
	t.Sent, t.Mounted, t.Present, t.Bytes = t.Sent+u.Sent, t.Mounted+u.Mounted, t.Present+u.Present, t.Bytes+u.Bytes
}

// CopyResult is what became of a copy, or would have with DryRun.
type CopyResult struct {
	Root      ocispec.Descriptor `json:"root"`              // what was copied; its Size may be 0 if it was there
	Tags      []string           `json:"tags"`              // that name Root at the target now
	Kept      []string           `json:"kept,omitempty"`    // that name something else there, and may not move
	Manifests Tally              `json:"manifests"`         // of which those below what was Present are not counted
	Blobs     Tally              `json:"blobs"`             // likewise
	Skipped   []Skipped          `json:"skipped,omitempty"` // what was left out
}

// Skipped is something that was left out of a copy, and is no failure.
type Skipped struct {
	Descriptor ocispec.Descriptor `json:"descriptor"`
	Why        error              `json:"-"` // ErrForeign, ErrPlatform, or of a listed referrer that is gone or is none; "reason" in JSON, as text
}

// MarshalJSON has the text of the reason too.
func (s Skipped) MarshalJSON() ([]byte, error) {
	type fields Skipped
	return json.Marshal(struct {
		fields
		Reason string `json:"reason"`
	}{fields(s), errorText(s.Why)})
}

// errorText is "" for none.
func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// Why something is left out of a copy.
var (
	// ErrForeign: a layer of a type that registries do not hold. Its URLs are not followed.
	ErrForeign = errors.New("foreign layer")
	// ErrPlatform: a child of an index that is for another platform.
	ErrPlatform = errors.New("platform")
)

// PlatformError is an index that cannot be copied in part. It unwraps to
// [ErrPlatform].
type PlatformError struct {
	Index digest.Digest
	Want  []ocispec.Platform
}

func (e *PlatformError) Error() string {
	if len(e.Want) == 1 {
		return fmt.Sprintf("index %s has no child for the platform %s", e.Index, platformName(e.Want[0]))
	}
	return fmt.Sprintf("index %s cannot take the place of its children for %d platforms: copy one, or let it be sparse", e.Index, len(e.Want))
}

func (e *PlatformError) Unwrap() error { return ErrPlatform }

func platformName(p ocispec.Platform) string {
	return strings.TrimSuffix(p.OS+"/"+p.Architecture+"/"+p.Variant, "/")
}

// Copy copies the image that ref, a tag or a digest, names in the repository from of
// src to the repository to of dst. An error may leave a part of what belongs to the
// image there, but nothing that lacks something; the result counts it.
//
// Errors are an *[Error], which unwraps to what the side has said, and to: ErrContent for
// wrong bytes, [manifest.ErrNotFound] and [blob.ErrNotFound] for what the source lacks,
// *[PlatformError], [manifest.ErrBudget], [manifest.ErrName].
func (c *Copier) Copy(ctx context.Context, src Source, from, ref string, dst Target, to string, o CopyOptions) (CopyResult, error) {
	r, err := c.begin(src, from, dst, to, o)
	if err != nil {
		return CopyResult{}, err
	}
	defer r.end()
	root, err := r.resolve(ctx, ref)
	if err == nil {
		err = r.copy(ctx, root)
	}
	return r.result, err
}

// place is a repository of a target.
type place struct{ target, repo any }

// object is a blob or a manifest, of a target or of a repository.
type object struct {
	target   any
	dgst     digest.Digest
	manifest bool
}

func (c *Copier) begin(src Source, from string, dst Target, to string, o CopyOptions) (*run, error) {
	for side, repo := range map[Side]string{SideSource: from, SideTarget: to} {
		if err := manifest.CheckRepository(repo); err != nil {
			return nil, &Error{Op: "copy", Side: side, Err: err}
		}
	}
	for _, tag := range o.Tags {
		if err := manifest.CheckTag(tag); err != nil {
			return nil, &Error{Op: "copy", Side: SideTarget, Repo: to, Err: err}
		}
	}
	c.once.Do(func() {
		c.slots = make(chan struct{}, orDefault(c.Requests, DefaultRequests))
		c.helpers = make(chan struct{}, 4*cap(c.slots))
		c.images, c.indexes = semaphore.NewWeighted(c.half()), semaphore.NewWeighted(c.half())
		c.sessions, c.known = map[place]*session{}, map[object]string{}
	})
	r := newRun(c, src, from, dst, to, o)
	if o.session != nil {
		r.session = o.session
		return r, nil
	}
	r.session = &session{flights: map[object]*flight{}}
	if o.DryRun || o.Verify || len(o.Platforms) > 0 { // what these call done is not for others
		return r, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	p := place{r.id, to}
	if shared := c.sessions[p]; shared != nil {
		r.session = shared
		shared.land()
	}
	c.sessions[p] = r.session
	r.session.users++
	return r, nil
}

func (c *Copier) half() int64 { return (orDefault(c.Memory, DefaultMemory) + 1) / 2 }

func (r *run) end() {
	r.c.mu.Lock()
	defer r.c.mu.Unlock()
	if r.session.users--; r.session.users == 0 {
		delete(r.c.sessions, place{r.id, r.to})
	}
}

func orDefault[T int | int64 | time.Duration](n, standard T) T {
	if n <= 0 {
		return standard
	}
	return n
}

// maxKnown bounds what is remembered for mounting.
const maxKnown = 100_000

// remember notes that a blob is in a repository of a target.
func (c *Copier) remember(target any, repo string, dgst digest.Digest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.known) >= maxKnown {
		clear(c.known)
	}
	c.known[object{target, dgst, false}] = repo
}

func (c *Copier) whereIs(target any, dgst digest.Digest) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.known[object{target, dgst, false}]
}

// session is what the runs share that go to one repository at once.
type session struct {
	mu      sync.Mutex
	users   int // under Copier.mu
	flights map[object]*flight
	probing bool // something was there before, so that asking pays
}

// flight is one object on its way, or there.
type flight struct {
	done chan struct{}
	err  error // once done
}

// do calls f unless that was done, or is being done by somebody else, and tells
// whether it has. Whoever waits for one that fails does it himself.
func (s *session) do(ctx context.Context, o object, f func() error) (mine bool, err error) {
	for {
		s.mu.Lock()
		other := s.flights[o]
		if other == nil {
			own := &flight{done: make(chan struct{}), err: errors.New("did not return")}
			s.flights[o] = own
			s.mu.Unlock()
			defer func() {
				if own.err != nil {
					s.forget(o)
				}
				close(own.done)
			}()
			own.err = f()
			return true, own.err
		}
		s.mu.Unlock()
		select {
		case <-other.done:
			if other.err == nil {
				return false, nil
			}
		case <-ctx.Done():
			return false, context.Cause(ctx)
		}
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
	}
}

// land forgets what has been done: it was not at once with a call that begins now, before which it may
// have gone again.
func (s *session) land() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for o, f := range s.flights {
		select {
		case <-f.done:
			delete(s.flights, o)
		default:
		}
	}
}

func (s *session) forget(o object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.flights, o)
}

func (s *session) probe() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.probing = true
}

func (s *session) probes() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.probing
}
