package manifesttest

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/manifest"
)

// ErrFault is the error of a [Fault] that names none.
var ErrFault = errors.New("injected fault")

// Fault fails a call of a store. It is a line of text, by String and
// [ParseFault], so that a failing case can be written down and run again.
// It must not be copied after its first use.
type Fault struct {
	Op string // the method that is counted: "Get", "Apply" …; "" counts all
	N  int    // which call fails, from 1; 0 fails none
	// After fails the call when its work is done, as a connection does that
	// breaks before the answer. A listing fails after its first entry.
	After bool
	// Sticky fails all calls of Op from that one on.
	Sticky bool

	Err error // nil means ErrFault; no part of the text

	calls, surfaced atomic.Int64
}

func (f *Fault) String() string {
	op, when := f.Op, "before"
	if op == "" {
		op = "any"
	}
	if f.After {
		when = "after"
	}
	text := fmt.Sprintf("%s %s #%d", when, op, f.N)
	if f.Sticky {
		text += " sticky"
	}
	return text
}

// ParseFault reads what [Fault.String] wrote.
func ParseFault(s string) (*Fault, error) {
	f := new(Fault)
	words := strings.Split(s, " ")
	if len(words) == 4 && words[3] == "sticky" {
		f.Sticky = true
		words = words[:3]
	}
	if len(words) != 3 || words[0] != "before" && words[0] != "after" || !strings.HasPrefix(words[2], "#") {
		return nil, fmt.Errorf("fault %q is not of the form: before|after <method>|any #<number> [sticky]", s)
	}
	f.After = words[0] == "after"
	if words[1] != "any" {
		f.Op = words[1]
	}
	var err error
	if f.N, err = strconv.Atoi(words[2][1:]); err != nil || f.N < 0 {
		return nil, fmt.Errorf("fault %q: the number of a call is to be 0 or more", s)
	}
	return f, nil
}

// Calls is how many calls were counted.
func (f *Fault) Calls() int { return int(f.calls.Load()) }

// Surfaced is how often the error was returned. A test that tries every N is
// done when a run leaves it at 0.
func (f *Fault) Surfaced() int { return int(f.surfaced.Load()) }

// hit counts a call and tells whether it is to fail.
func (f *Fault) hit(op string) bool {
	if f.Op != "" && f.Op != op {
		return false
	}
	n := f.calls.Add(1)
	return n == int64(f.N) || f.Sticky && f.N > 0 && n > int64(f.N)
}

func (f *Fault) fail(op string) error {
	f.surfaced.Add(1)
	err := f.Err
	if err == nil {
		err = ErrFault
	}
	return fmt.Errorf("%s: %w", op, err)
}

// Faulty returns s with the fault f. It is a [manifest.Catalog], a
// [manifest.Stater] and an [Index] just if s is, and always a
// [manifest.Describer].
func Faulty(s manifest.Store, f *Fault) manifest.Store {
	base := faulty{s, f}
	repos, isCatalog := s.(manifest.Catalog)
	stat, isStater := s.(manifest.Stater)
	index, isIndex := s.(Index)
	c, st, x := faultyCatalog{repos, f}, faultyStater{stat, f}, faultyIndex{index, f}
	switch {
	case isCatalog && isStater && isIndex:
		return struct {
			faulty
			faultyCatalog
			faultyStater
			faultyIndex
		}{base, c, st, x}
	case isCatalog && isStater:
		return struct {
			faulty
			faultyCatalog
			faultyStater
		}{base, c, st}
	case isCatalog && isIndex:
		return struct {
			faulty
			faultyCatalog
			faultyIndex
		}{base, c, x}
	case isStater && isIndex:
		return struct {
			faulty
			faultyStater
			faultyIndex
		}{base, st, x}
	case isCatalog:
		return struct {
			faulty
			faultyCatalog
		}{base, c}
	case isStater:
		return struct {
			faulty
			faultyStater
		}{base, st}
	case isIndex:
		return struct {
			faulty
			faultyIndex
		}{base, x}
	}
	return base
}

type faulty struct {
	s manifest.Store
	f *Fault
}

// call runs do, and fails before or after if it is f's turn.
func call[T any](f *Fault, op string, do func() (T, error)) (T, error) {
	var zero T
	hit := f.hit(op)
	if hit && !f.After {
		return zero, f.fail(op)
	}
	v, err := do()
	if hit && err == nil {
		return zero, f.fail(op)
	}
	return v, err
}

func listing[T any](f *Fault, op string, seq iter.Seq2[T, error]) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var zero T
		hit := f.hit(op)
		if hit && !f.After {
			yield(zero, f.fail(op))
			return
		}
		for v, err := range seq {
			if !yield(v, err) {
				return
			}
			if hit && err == nil {
				break
			}
		}
		if hit {
			yield(zero, f.fail(op))
		}
	}
}

func (s faulty) Get(ctx context.Context, repo string, dgst digest.Digest) (manifest.Record, error) {
	return call(s.f, "Get", func() (manifest.Record, error) { return s.s.Get(ctx, repo, dgst) })
}

func (s faulty) Describe(ctx context.Context, repo string, dgsts []digest.Digest) ([]manifest.Record, error) {
	return call(s.f, "Describe", func() ([]manifest.Record, error) { return manifest.Describe(ctx, s.s, repo, dgsts) })
}

func (s faulty) Resolve(ctx context.Context, repo, tag string) (manifest.Tag, error) {
	return call(s.f, "Resolve", func() (manifest.Tag, error) { return s.s.Resolve(ctx, repo, tag) })
}

func (s faulty) Manifests(ctx context.Context, repo string, after digest.Digest) iter.Seq2[manifest.Record, error] {
	return listing(s.f, "Manifests", s.s.Manifests(ctx, repo, after))
}

func (s faulty) Tags(ctx context.Context, repo, after string) iter.Seq2[manifest.Tag, error] {
	return listing(s.f, "Tags", s.s.Tags(ctx, repo, after))
}

func (s faulty) Apply(ctx context.Context, repo string, c manifest.Change) error {
	_, err := call(s.f, "Apply", func() (struct{}, error) { return struct{}{}, s.s.Apply(ctx, repo, c) })
	return err
}

type faultyCatalog struct {
	catalog manifest.Catalog
	f       *Fault
}

func (s faultyCatalog) Repos(ctx context.Context, after string) iter.Seq2[string, error] {
	return listing(s.f, "Repos", s.catalog.Repos(ctx, after))
}

type faultyStater struct {
	stater manifest.Stater
	f      *Fault
}

func (s faultyStater) Stat(ctx context.Context, repo string, dgsts []digest.Digest) ([]ocispec.Descriptor, error) {
	return call(s.f, "Stat", func() ([]ocispec.Descriptor, error) { return s.stater.Stat(ctx, repo, dgsts) })
}

type faultyIndex struct {
	index Index
	f     *Fault
}

func (s faultyIndex) Referrers(ctx context.Context, repo string, subject digest.Digest, artifactType string, after digest.Digest) iter.Seq2[ocispec.Descriptor, error] {
	return listing(s.f, "Referrers", s.index.Referrers(ctx, repo, subject, artifactType, after))
}
