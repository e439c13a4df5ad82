package blobtest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/blob/blobtest"
	"github.com/wharfage/wharfage/blob/memblob"
)

// A store with a fault that never comes is as good as the store.
func TestFaultyIsTransparent(t *testing.T) {
	blobtest.TestStore(t, blobtest.Options{New: func(t testing.TB) blob.Store {
		s, _ := blobtest.Faulty(&memblob.Store{}, blobtest.Fault{})
		return s
	}})
}

func TestFaultText(t *testing.T) {
	for _, f := range []blobtest.Fault{{Call: 7}, {Op: "put", Call: 2}, {Op: "put", Call: 2, After: 100}, {Op: "save", Call: 1, Late: true}, {Call: 3, Late: true, Sticky: true}, {Op: "append", Call: 3, After: 1, Sticky: true}} {
		got, err := blobtest.ParseFault(f.String())
		if err != nil || got != f {
			t.Errorf("ParseFault(%q) = %+v, %v, want %+v", f, got, err, f)
		}
	}
	for _, bad := range []string{"", "put", "put#", "put#x", "put#1@", "#1", "put#99999999999999999999", "put#1@99999999999999999999"} {
		if _, err := blobtest.ParseFault(bad); err == nil {
			t.Errorf("ParseFault(%q) has no error", bad)
		}
	}
}

func abilities(s blob.Store) (out string) {
	add := func(name string, ok bool) {
		if ok {
			out += name + " "
		}
	}
	_, ok := blob.As[blob.Mounter](s)
	add("Mounter", ok)
	_, ok = blob.As[blob.Rereader](s)
	add("Rereader", ok)
	_, ok = blob.As[blob.Locator](s)
	add("Locator", ok)
	_, ok = blob.As[blob.Redirector](s)
	add("Redirector", ok)
	_, ok = blob.As[blob.Catalog](s)
	add("Catalog", ok)
	_, ok = blob.As[blob.Guarded](s)
	add("Guarded", ok)
	_, ok = blob.As[blob.Promiser](s)
	add("Promiser", ok)
	_, ok = blob.As[blob.SessionLister](s)
	add("SessionLister", ok)
	_, ok = blob.As[blob.Sweeper](s)
	add("Sweeper", ok)
	return out
}

func TestFaultyAbilities(t *testing.T) {
	mem := &memblob.Store{}
	stores := []blob.Store{
		mem,
		struct{ blob.Store }{mem},
		struct {
			blob.Store
			blob.Mounter
		}{mem, mem},
		struct {
			blob.Store
			blob.Rereader
		}{mem, mem},
		struct {
			blob.Store
			blob.Locator
		}{mem, mem},
		struct {
			blob.Store
			blob.Mounter
			blob.Rereader
		}{mem, mem, mem},
		struct {
			blob.Store
			blob.Mounter
			blob.Locator
		}{mem, mem, mem},
		struct {
			blob.Store
			blob.Rereader
			blob.Locator
		}{mem, mem, mem},
		struct {
			blob.Store
			blob.Redirector
			blob.Promiser
			blob.Sweeper
		}{mem, nil, nil, nil},
		struct {
			blob.Store
			blob.Catalog
			blob.Guarded
			blob.SessionLister
		}{mem, nil, nil, nil},
	}
	for i, s := range stores {
		f, _ := blobtest.Faulty(s, blobtest.Fault{})
		if had, has := abilities(s), abilities(f); had != has {
			t.Errorf("store %d: %s became %s", i, had, has)
		}
		if got := fmt.Sprint(f); got != "*#0" {
			t.Errorf("store %d prints as %q", i, got)
		}
	}
}

// Whatever call fails, at whatever byte, its error comes out, and what was
// there before stays: then the same again without the fault succeeds.
func TestEveryFaultSurfaces(t *testing.T) {
	ctx, repo := context.Background(), "team/app"
	content := strings.Repeat("0123456789", 100)
	dgst := digest.FromString(content)
	all := func(s blob.Store, id *string) error {
		if err := blob.Put(ctx, s, "base", ocispec.Descriptor{Digest: dgst, Size: 1000}, strings.NewReader(content)); err != nil {
			return err
		}
		if err := blob.Mount(ctx, s, "base", repo, dgst); err != nil {
			return err
		}
		if _, err := s.Stat(ctx, repo, []digest.Digest{dgst}); err != nil {
			return err
		}
		for _, err := range s.Blobs(ctx, repo, "") {
			if err != nil {
				return err
			}
		}
		u, err := s.Begin(ctx, repo, digest.SHA256)
		if err != nil {
			return err
		}
		*id = u.ID
		if u, err = blob.Append(ctx, s, u, 0, strings.NewReader(content)); err != nil {
			return err
		}
		if u, err = s.Lookup(ctx, repo, u.ID); err != nil {
			return err
		}
		if err := blob.Finish(ctx, s, u, 1000, strings.NewReader(content), digest.SHA512.FromString(content+content)); err != nil {
			return err
		}
		if u, err = s.Begin(ctx, repo, digest.SHA256); err != nil {
			return err
		}
		if err := s.Abort(ctx, u); err != nil {
			return err
		}
		if _, err := blob.ReadAll(ctx, s, repo, ocispec.Descriptor{Digest: dgst, Size: 1000}); err != nil {
			return err
		}
		return s.Delete(ctx, "base", dgst, time.Time{})
	}
	for _, kind := range []blobtest.Fault{{}, {After: 500}, {Late: true}} {
		n := 0
		for call := 1; ; call++ {
			kind.Call = call
			mem := &memblob.Store{}
			s, surfaced := blobtest.Faulty(mem, kind)
			var id string
			err := all(s, &id)
			if err == nil && surfaced() == 0 {
				if kind.After == 0 && call < 12 {
					t.Errorf("there were only %d calls", call-1)
				}
				if call > 20 {
					break
				}
				continue
			}
			n++
			if surfaced() != 1 || !errors.Is(err, blobtest.ErrFault) {
				t.Errorf("%v surfaced %d times, and the error is %v", s, surfaced(), err)
			}
			if u, err := mem.Lookup(ctx, repo, id); err == nil && u.Size != 0 && u.Size != 1000 {
				t.Errorf("%v: the session has %d bytes", s, u.Size)
			}
			if err := all(mem, &id); err != nil {
				t.Errorf("%v: once more without a fault: %v", s, err)
			}
		}
		t.Logf("%v: %d faults", kind, n)
	}
}

// A store that ends a body early is caught by what reads it.
func TestFaultInBody(t *testing.T) {
	ctx := context.Background()
	s, surfaced := blobtest.Faulty(&memblob.Store{}, blobtest.Fault{Op: "open", Call: 1, After: 3})
	if err := blob.Put(ctx, s, "a", ocispec.Descriptor{Digest: digest.FromString("content"), Size: 7}, strings.NewReader("content")); err != nil {
		t.Fatal(err)
	}
	r, _, err := s.Open(ctx, "a", digest.FromString("content"), 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got, err := io.ReadAll(r)
	if string(got) != "con" || !errors.Is(err, blobtest.ErrFault) || surfaced() != 1 {
		t.Fatalf("read %q, %v; surfaced %d times", got, err, surfaced())
	}
}

func TestStickyFaultsStay(t *testing.T) {
	s, surfaced := blobtest.Faulty(&memblob.Store{}, blobtest.Fault{Op: "stat", Call: 2, Sticky: true})
	for i := range 4 {
		if _, err := s.Stat(t.Context(), "a", nil); (err == nil) != (i == 0) {
			t.Errorf("call %d: %v", i+1, err)
		}
	}
	if _, err := s.Begin(t.Context(), "a", digest.SHA256); err != nil || surfaced() != 3 {
		t.Errorf("Begin: %v; surfaced %d times", err, surfaced())
	}
}

// What a lost answer told of was done all the same.
func TestLateFaultsDoTheWork(t *testing.T) {
	ctx := t.Context()
	mem := &memblob.Store{}
	fail := func(op string) blob.Store {
		s, _ := blobtest.Faulty(mem, blobtest.Fault{Op: op, Call: 1, Late: true})
		return s
	}
	if _, err := fail("begin").Begin(ctx, "a", digest.SHA256); !errors.Is(err, blobtest.ErrFault) {
		t.Errorf("Begin: %v", err)
	}
	sessions := 0
	for _, err := range mem.Sessions(ctx, "") {
		if sessions++; err != nil {
			t.Error(err)
		}
	}
	desc := ocispec.Descriptor{Digest: digest.FromString("content"), Size: 7}
	if err := blob.Put(ctx, fail("put"), "a", desc, strings.NewReader("content")); !errors.Is(err, blobtest.ErrFault) {
		t.Errorf("Put: %v", err)
	}
	if _, err := blob.ReadAll(ctx, mem, "a", desc); err != nil || sessions != 1 {
		t.Errorf("%d sessions; ReadAll: %v", sessions, err)
	}
}
