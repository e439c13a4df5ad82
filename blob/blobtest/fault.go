package blobtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"regexp"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/blob"
)

// ErrFault is the error of a [Fault] that names none.
var ErrFault = errors.New("injected fault")

// Fault is one failure of a store, for [Faulty].
type Fault struct {
	// Op is a method in lower case: stat, open, put, begin, lookup, append, save,
	// commit, abort, blobs, delete, mount, reread, locate, repos, sessions, sweep,
	// redirect. Empty means any.
	Op string
	// Call says which call of Op fails, from 1. Zero means none.
	Call int
	// After, if positive, lets the call begin well and fail in the middle: after
	// so many bytes of what put and append are given and open and reread return,
	// or so many elements of a listing, or at the end if that comes first. A call
	// without such a middle fails at once.
	After int64
	// Late lets a call do its work and then fail all the same, as when the answer
	// is lost. Calls whose work is the answer, as those of open and the listings, fail at
	// once.
	Late bool
	// Sticky lets all calls of Op from that one on fail.
	Sticky bool

	Err error // nil means ErrFault; no part of the text
}

// String returns the fault as [ParseFault] reads it: "put#2" is the second Put,
// "put#2@100" its 101st byte, "save#1+late" a Save whose answer is lost, "*#7"
// the seventh call whatever it is, "*#7+sticky" that and all after it.
func (f Fault) String() string {
	op, after, late, sticky := f.Op, "", "", ""
	if op == "" {
		op = "*"
	}
	if f.After > 0 {
		after = "@" + strconv.FormatInt(f.After, 10)
	}
	if f.Late {
		late = "+late"
	}
	if f.Sticky {
		sticky = "+sticky"
	}
	return op + "#" + strconv.Itoa(f.Call) + after + late + sticky
}

// ParseFault reads what [Fault.String] wrote.
func ParseFault(s string) (Fault, error) {
	m := regexp.MustCompile(`^(\*|[a-z]+)#([0-9]+)(?:@([0-9]+))?(\+late)?(\+sticky)?$`).FindStringSubmatch(s)
	if m == nil {
		return Fault{}, fmt.Errorf("fault %q is not of the form op#call@after+late+sticky", s)
	}
	f := Fault{Op: m[1], Late: m[4] != "", Sticky: m[5] != ""}
	if f.Op == "*" {
		f.Op = ""
	}
	var err error
	if f.Call, err = strconv.Atoi(m[2]); err != nil {
		return Fault{}, fmt.Errorf("fault %q: %w", s, err)
	}
	if m[3] != "" {
		if f.After, err = strconv.ParseInt(m[3], 10, 64); err != nil {
			return Fault{}, fmt.Errorf("fault %q: %w", s, err)
		}
	}
	return f, nil
}

// Faulty returns s with one fault, and a function that tells how often it has
// surfaced: a test whose fault never did has tested nothing. The store is
// [blob.Able] of those optional abilities that s has, and of no others.
func Faulty(s blob.Store, f Fault) (store blob.Store, surfaced func() int) {
	if f.Err == nil {
		f.Err = ErrFault
	}
	fs := &faulty{s: s, f: f}
	return fs, func() int { return int(fs.surfaced.Load()) }
}

type faulty struct {
	s               blob.Store
	f               Fault
	calls, surfaced atomic.Int64
}

// Abilities implements blob.Able.
func (f *faulty) Abilities() (out []any) {
	if s, ok := blob.As[blob.Mounter](f.s); ok {
		out = append(out, mounter{f, s})
	}
	if s, ok := blob.As[blob.Rereader](f.s); ok {
		out = append(out, rereader{f, s})
	}
	if s, ok := blob.As[blob.Locator](f.s); ok {
		out = append(out, locator{f, s})
	}
	if s, ok := blob.As[blob.Redirector](f.s); ok {
		out = append(out, redirector{f, s})
	}
	if s, ok := blob.As[blob.Catalog](f.s); ok {
		out = append(out, catalog{f, s})
	}
	if s, ok := blob.As[blob.Guarded](f.s); ok {
		out = append(out, guarded{s})
	}
	if s, ok := blob.As[blob.Promiser](f.s); ok {
		out = append(out, promiser{f, s})
	}
	if s, ok := blob.As[blob.SessionLister](f.s); ok {
		out = append(out, sessionLister{f, s})
	}
	if s, ok := blob.As[blob.Sweeper](f.s); ok {
		out = append(out, sweeper{f, s})
	}
	return out
}

func (f *faulty) String() string { return f.f.String() }

// due tells whether this call of op is to fail.
func (f *faulty) due(op string) bool {
	if f.f.Call <= 0 || f.f.Op != "" && f.f.Op != op {
		return false
	}
	n := f.calls.Add(1)
	return n == int64(f.f.Call) || f.f.Sticky && n > int64(f.f.Call)
}

func (f *faulty) fail() error {
	f.surfaced.Add(1)
	return f.f.Err
}

// answer is for methods with an answer, which is what gets lost if they fail
// late.
func answer[T any](f *faulty, op string, do func() (T, error)) (T, error) {
	var lost T
	due := f.due(op)
	if due && !f.f.Late {
		return lost, f.fail()
	}
	v, err := do()
	if due && err == nil {
		return lost, f.fail()
	}
	return v, err
}

// run is for methods that return nothing but an error.
func (f *faulty) run(op string, do func() error) error {
	_, err := answer(f, op, func() (struct{}, error) { return struct{}{}, do() })
	return err
}

// body returns r, which is to fail in the middle if due.
func (f *faulty) body(due bool, r io.Reader) io.Reader {
	if !due {
		return r
	}
	return io.MultiReader(io.LimitReader(r, f.f.After), failure{f})
}

type failure struct{ f *faulty }

func (r failure) Read([]byte) (int, error) { return 0, r.f.fail() }

type readCloser struct {
	io.Reader
	io.Closer
}

func (f *faulty) Stat(ctx context.Context, repo string, dgsts []digest.Digest) ([]blob.Info, error) {
	return answer(f, "stat", func() ([]blob.Info, error) { return f.s.Stat(ctx, repo, dgsts) })
}

func (f *faulty) Open(ctx context.Context, repo string, dgst digest.Digest, off, n int64) (io.ReadCloser, blob.Info, error) {
	due := f.due("open")
	if due && f.f.After <= 0 {
		return nil, blob.Info{}, f.fail()
	}
	r, info, err := f.s.Open(ctx, repo, dgst, off, n)
	if err == nil && due {
		r = readCloser{f.body(due, r), r}
	}
	return r, info, err
}

func (f *faulty) Put(ctx context.Context, repo string, desc ocispec.Descriptor, r io.Reader) error {
	due := f.due("put")
	if due && f.f.After <= 0 && !f.f.Late {
		return f.fail()
	}
	err := f.s.Put(ctx, repo, desc, f.body(due && f.f.After > 0, r))
	if due && f.f.Late && err == nil {
		err = f.fail()
	}
	return err
}

func (f *faulty) Begin(ctx context.Context, repo string, alg digest.Algorithm) (blob.Upload, error) {
	return answer(f, "begin", func() (blob.Upload, error) { return f.s.Begin(ctx, repo, alg) })
}

func (f *faulty) Lookup(ctx context.Context, repo, id string) (blob.Upload, error) {
	return answer(f, "lookup", func() (blob.Upload, error) { return f.s.Lookup(ctx, repo, id) })
}

func (f *faulty) Append(ctx context.Context, u blob.Upload, r io.Reader) (blob.Upload, error) {
	due := f.due("append")
	if due && f.f.After <= 0 && !f.f.Late {
		return u, f.fail()
	}
	next, err := f.s.Append(ctx, u, f.body(due && f.f.After > 0, r))
	if due && f.f.Late && err == nil {
		return u, f.fail()
	}
	return next, err
}

func (f *faulty) Save(ctx context.Context, old, new blob.Upload) error {
	return f.run("save", func() error { return f.s.Save(ctx, old, new) })
}

func (f *faulty) Commit(ctx context.Context, old, u blob.Upload, dgst digest.Digest) error {
	return f.run("commit", func() error { return f.s.Commit(ctx, old, u, dgst) })
}

func (f *faulty) Abort(ctx context.Context, u blob.Upload) error {
	return f.run("abort", func() error { return f.s.Abort(ctx, u) })
}

func (f *faulty) Blobs(ctx context.Context, repo string, after digest.Digest) iter.Seq2[blob.Info, error] {
	return cut(f, "blobs", f.s.Blobs(ctx, repo, after))
}

// cut lets a listing fail in the middle.
func cut[T any](f *faulty, op string, seq iter.Seq2[T, error]) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		due, n := f.due(op), int64(0)
		var zero T
		if due && f.f.After <= 0 {
			yield(zero, f.fail())
			return
		}
		for v, err := range seq {
			if due && n == f.f.After {
				yield(zero, f.fail())
				return
			}
			n++
			if !yield(v, err) {
				return
			}
		}
		if due {
			yield(zero, f.fail())
		}
	}
}

func (f *faulty) Delete(ctx context.Context, repo string, dgst digest.Digest, cutoff time.Time) error {
	return f.run("delete", func() error { return f.s.Delete(ctx, repo, dgst, cutoff) })
}

type mounter struct {
	f *faulty
	s blob.Mounter
}

func (m mounter) Mount(ctx context.Context, from, repo string, dgst digest.Digest) error {
	return m.f.run("mount", func() error { return m.s.Mount(ctx, from, repo, dgst) })
}

type rereader struct {
	f *faulty
	s blob.Rereader
}

func (r rereader) Reread(ctx context.Context, u blob.Upload) (io.ReadCloser, error) {
	due := r.f.due("reread")
	if due && r.f.f.After <= 0 {
		return nil, r.f.fail()
	}
	content, err := r.s.Reread(ctx, u)
	if err == nil && due {
		content = readCloser{r.f.body(due, content), content}
	}
	return content, err
}

type locator struct {
	f *faulty
	s blob.Locator
}

func (l locator) Locate(ctx context.Context, dgst digest.Digest) iter.Seq2[string, error] {
	return cut(l.f, "locate", l.s.Locate(ctx, dgst))
}

type redirector struct {
	f *faulty
	s blob.Redirector
}

func (r redirector) Redirect(ctx context.Context, repo string, dgst digest.Digest) (string, error) {
	return answer(r.f, "redirect", func() (string, error) { return r.s.Redirect(ctx, repo, dgst) })
}

type catalog struct {
	f *faulty
	s blob.Catalog
}

func (c catalog) Repos(ctx context.Context, after string) iter.Seq2[string, error] {
	return cut(c.f, "repos", c.s.Repos(ctx, after))
}

// guarded has nothing to fail.
type guarded struct{ s blob.Guarded }

func (g guarded) Guarded() bool { return g.s.Guarded() }

type promiser struct {
	f *faulty
	s blob.Promiser
}

func (p promiser) Promised(ctx context.Context) (time.Duration, error) {
	return answer(p.f, "promised", func() (time.Duration, error) { return p.s.Promised(ctx) })
}

type sessionLister struct {
	f *faulty
	s blob.SessionLister
}

func (l sessionLister) Sessions(ctx context.Context, after string) iter.Seq2[blob.Upload, error] {
	return cut(l.f, "sessions", l.s.Sessions(ctx, after))
}

type sweeper struct {
	f *faulty
	s blob.Sweeper
}

func (s sweeper) Sweep(ctx context.Context, cutoff time.Time, dry bool) iter.Seq2[blob.Object, error] {
	return cut(s.f, "sweep", s.s.Sweep(ctx, cutoff, dry))
}
