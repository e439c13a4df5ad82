package histories

import (
	"context"
	"flag"
	"fmt"
	"io"
	"iter"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"pgregory.net/rapid"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/blob/memblob"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/manifest/memmanifest"
)

// mutant is a store in memory with a fault.
type mutant struct {
	name string
	harm func(*system, *memblob.Store, *memmanifest.Store)
}

var mutants = []mutant{
	{"Stat makes no promise", func(s *system, b *memblob.Store, m *memmanifest.Store) { b.Lease = 1000 * lease }},
	{"Open finds blobs of other repositories", func(s *system, b *memblob.Store, m *memmanifest.Store) { s.blobs = leaky{b} }},
	{"Open returns a byte too many", func(s *system, b *memblob.Store, m *memmanifest.Store) { s.blobs = long{b} }},
	{"Delete has no cutoff", func(s *system, b *memblob.Store, m *memmanifest.Store) { s.blobs = hasty{b} }},
	{"Delete does not know what manifests need", func(s *system, b *memblob.Store, m *memmanifest.Store) { b.Guard = nil }},
	{"Abort ends what has moved on", func(s *system, b *memblob.Store, m *memmanifest.Store) { s.blobs = rude{b} }},
	{"a restart loses sessions", func(s *system, b *memblob.Store, m *memmanifest.Store) {
		s.reopen = func(s *system) error { return forgetSessions(b) }
	}},
	{"Apply does not look for blobs", changed(func(c *manifest.Change) { c.RequireBlobs = nil })},
	{"Apply ignores From", changed(func(c *manifest.Change) {
		for i := range c.Tags {
			c.Tags[i].From = ""
		}
	})},
	{"Apply ignores IfUnlisted", changed(func(c *manifest.Change) {
		for i := range c.Delete {
			c.Delete[i].IfUnlisted = false
		}
	})},
	{"Apply ignores IfOrphan", changed(func(c *manifest.Change) {
		for i := range c.Delete {
			c.Delete[i].IfOrphan = false
		}
	})},
	{"Apply ignores Cutoff", changed(func(c *manifest.Change) {
		for i := range c.Delete {
			c.Delete[i].Cutoff = time.Time{}
		}
	})},
	{"Apply ignores Unchanged", changed(func(c *manifest.Change) { c.Unchanged = nil })},
	{"Apply ignores IfUnlisted of a class move", changed(func(c *manifest.Change) {
		for i := range c.Classes {
			c.Classes[i].IfUnlisted = false
		}
	})},
	{"Apply makes the known of an unknown time", changed(func(c *manifest.Change) {
		if c.At.IsZero() {
			c.At = epoch
		}
	})},
	{"Tags lists the tag that it is to start after", func(s *system, b *memblob.Store, m *memmanifest.Store) { s.manifests = inclusive{m} }},
	{"Referrers lists what was deleted", func(s *system, b *memblob.Store, m *memmanifest.Store) {
		s.manifests = stale{m, map[string][]ocispec.Descriptor{}}
	}},
	{"Referrers ignores the type", func(s *system, b *memblob.Store, m *memmanifest.Store) { s.manifests = untyped{m} }},
	{"Events forgets tags that moved", func(s *system, b *memblob.Store, m *memmanifest.Store) { s.manifests = silent{m} }},
}

// TestHistoriesRejectBrokenStores: the model finds each fault.
func TestHistoriesRejectBrokenStores(t *testing.T) {
	setFlag(t, "rapid.shrinktime", "2s")
	for _, m := range mutants {
		t.Run(m.name, func(t *testing.T) { t.Log(reject(t, m)) })
	}
}

// TestFailuresFitAScreen: what is printed can be read.
func TestFailuresFitAScreen(t *testing.T) {
	i := slices.IndexFunc(mutants, func(m mutant) bool { return m.name == "Apply does not look for blobs" })
	text := reject(t, mutants[i])
	if lines := strings.Count(text, "\n"); lines > 40 {
		t.Errorf("the report has %d lines:\n%s", lines, text)
	}
}

// reject returns the report of a fault, which must be found.
func reject(t *testing.T, m mutant) string {
	t.Helper()
	checks := 3000 // a fault is mostly found within 20, one of a rare condition within some hundred
	if testing.Short() {
		checks *= 5 // of which rapid does a fifth then
	}
	setFlag(t, "rapid.checks", strconv.Itoa(checks))
	text := failure(t.Name(), func(t *rapid.T) {
		_, err := runHistory(histories.Draw(t, "history"), func(now func() time.Time) (*system, error) {
			s, err := openMemory(now)
			if err == nil {
				m.harm(s, s.blobs.(*memblob.Store), s.manifests.(*memmanifest.Store))
			}
			return s, err
		})
		fail(t, err)
	})
	if text == "" {
		t.Fatal("no history found the fault")
	}
	return text
}

// setFlag sets a flag for the time of a test.
func setFlag(t *testing.T, name, value string) {
	t.Helper()
	f := flag.Lookup(name)
	old := f.Value.String()
	if err := f.Value.Set(value); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Value.Set(old) })
}

// failure returns what rapid says of a property that does not hold, "" if it
// does.
func failure(name string, property func(*rapid.T)) string {
	r := &recorder{name: name}
	done := make(chan struct{})
	go func() {
		defer close(done)
		rapid.Check(r, property)
	}()
	<-done
	if !r.failed {
		return ""
	}
	return r.text.String()
}

// recorder is a test that may fail.
type recorder struct {
	name   string
	failed bool
	text   strings.Builder
}

func (r *recorder) Helper()                   {}
func (r *recorder) Name() string              { return r.name }
func (r *recorder) Failed() bool              { return r.failed }
func (r *recorder) Fail()                     { r.failed = true }
func (r *recorder) FailNow()                  { r.failed = true; runtime.Goexit() }
func (r *recorder) SkipNow()                  { runtime.Goexit() }
func (r *recorder) Log(args ...any)           { fmt.Fprintln(&r.text, args...) }
func (r *recorder) Logf(f string, a ...any)   { fmt.Fprintf(&r.text, f+"\n", a...) }
func (r *recorder) Error(args ...any)         { r.Log(args...); r.Fail() }
func (r *recorder) Errorf(f string, a ...any) { r.Logf(f, a...); r.Fail() }
func (r *recorder) Fatal(args ...any)         { r.Log(args...); r.FailNow() }
func (r *recorder) Fatalf(f string, a ...any) { r.Logf(f, a...); r.FailNow() }
func (r *recorder) Skip(args ...any)          { r.Log(args...); r.SkipNow() }
func (r *recorder) Skipf(f string, a ...any)  { r.Logf(f, a...); r.SkipNow() }

type leaky struct{ *memblob.Store }

func (s leaky) Open(ctx context.Context, repo string, dgst digest.Digest, off, n int64) (io.ReadCloser, blob.Info, error) {
	for other, err := range s.Locate(ctx, dgst) {
		if err == nil {
			repo = other
		}
	}
	return s.Store.Open(ctx, repo, dgst, off, n)
}

type long struct{ *memblob.Store }

func (s long) Open(ctx context.Context, repo string, dgst digest.Digest, off, n int64) (io.ReadCloser, blob.Info, error) {
	if n > 0 {
		n++
	}
	return s.Store.Open(ctx, repo, dgst, off, n)
}

type hasty struct{ *memblob.Store }

func (s hasty) Delete(ctx context.Context, repo string, dgst digest.Digest, _ time.Time) error {
	return s.Store.Delete(ctx, repo, dgst, time.Time{})
}

type rude struct{ *memblob.Store }

func (s rude) Abort(ctx context.Context, u blob.Upload) error {
	u, err := s.Lookup(ctx, u.Repo, u.ID)
	if err != nil {
		return err
	}
	return s.Store.Abort(ctx, u)
}

func forgetSessions(b *memblob.Store) error {
	for u, err := range b.Sessions(context.Background(), "") {
		if err != nil {
			return err
		}
		if err := b.Abort(context.Background(), u); err != nil {
			return err
		}
	}
	return nil
}

// changed breaks a Change on its way to the store, but not in the caller's
// hands.
func changed(harm func(*manifest.Change)) func(*system, *memblob.Store, *memmanifest.Store) {
	return func(s *system, _ *memblob.Store, m *memmanifest.Store) { s.manifests = changing{m, harm} }
}

// changing hides that m is an Outbox, whose events would tell.
type changing struct {
	manifests
	harm func(*manifest.Change)
}

func (s changing) Apply(ctx context.Context, repo string, c manifest.Change) error {
	c.Tags, c.Classes, c.Delete = slices.Clone(c.Tags), slices.Clone(c.Classes), slices.Clone(c.Delete)
	s.harm(&c)
	return s.manifests.Apply(ctx, repo, c)
}

type inclusive struct{ *memmanifest.Store }

func (s inclusive) Tags(ctx context.Context, repo, after string) iter.Seq2[manifest.Tag, error] {
	return func(yield func(manifest.Tag, error) bool) {
		if t, err := s.Resolve(ctx, repo, after); err == nil && !yield(t, nil) {
			return
		}
		s.Store.Tags(ctx, repo, after)(yield)
	}
}

// stale remembers what was listed.
type stale struct {
	*memmanifest.Store
	listed map[string][]ocispec.Descriptor
}

func (s stale) Referrers(ctx context.Context, repo string, subject digest.Digest, artifactType string, after digest.Digest) iter.Seq2[ocispec.Descriptor, error] {
	return func(yield func(ocispec.Descriptor, error) bool) {
		key := fmt.Sprint(repo, subject, artifactType, after)
		if _, found := s.listed[key]; !found {
			for d, err := range s.Store.Referrers(ctx, repo, subject, artifactType, after) {
				if err != nil {
					yield(d, err)
					return
				}
				s.listed[key] = append(s.listed[key], d)
			}
		}
		for _, d := range s.listed[key] {
			if !yield(d, nil) {
				return
			}
		}
	}
}

type untyped struct{ *memmanifest.Store }

func (s untyped) Referrers(ctx context.Context, repo string, subject digest.Digest, _ string, after digest.Digest) iter.Seq2[ocispec.Descriptor, error] {
	return s.Store.Referrers(ctx, repo, subject, "", after)
}

// silent has no event of a Change that only moves tags.
type silent struct{ *memmanifest.Store }

func (s silent) Events(ctx context.Context, after string) iter.Seq2[manifest.Committed, error] {
	return func(yield func(manifest.Committed, error) bool) {
		for e, err := range s.Store.Events(ctx, after) {
			if tagsOnly := err == nil && e.Change.Needs() == manifest.FeatureTags; !tagsOnly && !yield(e, err) {
				return
			}
		}
	}
}
