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
	// commit, abort, blobs, delete, mount, reread, locate. Empty means any.
	Op string
	// Call says which call of Op fails, from 1. Zero means none.
	Call int
	// After, if positive, lets the call begin well and fail in the middle: after
	// so many bytes of what put and append are given and open and reread return,
	// or so many elements of a listing. A call without such a middle fails at once.
	After int64
	// Late lets a call do its work and then fail all the same, as when the answer
	// is lost. It is for methods that return nothing but an error.
	Late bool

	Err error // nil means ErrFault; no part of the text
}

// String returns the fault as [ParseFault] reads it: "put#2" is the second Put,
// "put#2@100" its 101st byte, "save#1+late" a Save whose answer is lost, "*#7"
// the seventh call whatever it is.
func (f Fault) String() string {
	op, after, late := f.Op, "", ""
	if op == "" {
		op = "*"
	}
	if f.After > 0 {
		after = "@" + strconv.FormatInt(f.After, 10)
	}
	if f.Late {
		late = "+late"
	}
	return op + "#" + strconv.Itoa(f.Call) + after + late
}

// ParseFault reads what [Fault.String] wrote.
func ParseFault(s string) (Fault, error) {
	m := regexp.MustCompile(`^(\*|[a-z]+)#([0-9]+)(?:@([0-9]+))?(\+late)?$`).FindStringSubmatch(s)
	if m == nil {
		return Fault{}, fmt.Errorf("fault %q is not of the form op#call@after+late", s)
	}
	f := Fault{Op: m[1], Late: m[4] != ""}
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
// surfaced: a test whose fault never did has tested nothing. The store has those
// optional abilities that s has, and no others.
func Faulty(s blob.Store, f Fault) (store blob.Store, surfaced func() int) {
	if f.Err == nil {
		f.Err = ErrFault
	}
	fs := &faulty{s: s, f: f}
	return fs.able(), func() int { return int(fs.surfaced.Load()) }
}

type faulty struct {
	s               blob.Store
	f               Fault
	calls, surfaced atomic.Int64
}

// able adds the optional abilities of s.
func (f *faulty) able() blob.Store {
	_, m := f.s.(blob.Mounter)
	_, r := f.s.(blob.Rereader)
	_, l := f.s.(blob.Locator)
	switch {
	case m && r && l:
		return struct {
			*faulty
			mounter
			rereader
			locator
		}{f, mounter{f}, rereader{f}, locator{f}}
	case m && r:
		return struct {
			*faulty
			mounter
			rereader
		}{f, mounter{f}, rereader{f}}
	case m && l:
		return struct {
			*faulty
			mounter
			locator
		}{f, mounter{f}, locator{f}}
	case r && l:
		return struct {
			*faulty
			rereader
			locator
		}{f, rereader{f}, locator{f}}
	case m:
		return struct {
			*faulty
			mounter
		}{f, mounter{f}}
	case r:
		return struct {
			*faulty
			rereader
		}{f, rereader{f}}
	case l:
		return struct {
			*faulty
			locator
		}{f, locator{f}}
	}
	return f
}

func (f *faulty) String() string { return f.f.String() }

// due tells whether this call of op is the one.
func (f *faulty) due(op string) bool {
	return (f.f.Op == "" || f.f.Op == op) && f.calls.Add(1) == int64(f.f.Call)
}

func (f *faulty) fail() error {
	f.surfaced.Add(1)
	return f.f.Err
}

// early is for methods with an answer that cannot be lost in part.
func (f *faulty) early(op string) error {
	if f.due(op) {
		return f.fail()
	}
	return nil
}

// run is for methods that return nothing but an error.
func (f *faulty) run(op string, do func() error) error {
	due := f.due(op)
	if due && !f.f.Late {
		return f.fail()
	}
	err := do()
	if due && err == nil {
		err = f.fail()
	}
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
	if err := f.early("stat"); err != nil {
		return nil, err
	}
	return f.s.Stat(ctx, repo, dgsts)
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
	if err := f.early("begin"); err != nil {
		return blob.Upload{}, err
	}
	return f.s.Begin(ctx, repo, alg)
}

func (f *faulty) Lookup(ctx context.Context, repo, id string) (blob.Upload, error) {
	if err := f.early("lookup"); err != nil {
		return blob.Upload{}, err
	}
	return f.s.Lookup(ctx, repo, id)
}

func (f *faulty) Append(ctx context.Context, u blob.Upload, r io.Reader) (blob.Upload, error) {
	due := f.due("append")
	if due && f.f.After <= 0 {
		return u, f.fail()
	}
	return f.s.Append(ctx, u, f.body(due, r))
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
	}
}

func (f *faulty) Delete(ctx context.Context, repo string, dgst digest.Digest, cutoff time.Time) error {
	return f.run("delete", func() error { return f.s.Delete(ctx, repo, dgst, cutoff) })
}

type mounter struct{ f *faulty }

func (m mounter) Mount(ctx context.Context, from, repo string, dgst digest.Digest) error {
	return m.f.run("mount", func() error { return m.f.s.(blob.Mounter).Mount(ctx, from, repo, dgst) })
}

type rereader struct{ f *faulty }

func (r rereader) Reread(ctx context.Context, u blob.Upload) (io.ReadCloser, error) {
	due := r.f.due("reread")
	if due && r.f.f.After <= 0 {
		return nil, r.f.fail()
	}
	content, err := r.f.s.(blob.Rereader).Reread(ctx, u)
	if err == nil && due {
		content = readCloser{r.f.body(due, content), content}
	}
	return content, err
}

type locator struct{ f *faulty }

func (l locator) Locate(ctx context.Context, dgst digest.Digest) iter.Seq2[string, error] {
	return cut(l.f, "locate", l.f.s.(blob.Locator).Locate(ctx, dgst))
}
