package manifesttest_test

import (
	"errors"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/manifest/manifesttest"
	"github.com/wharfage/wharfage/manifest/memmanifest"
)

func TestFaultIsALine(t *testing.T) {
	for _, f := range []*manifesttest.Fault{{}, {N: 3}, {Op: "Apply", N: 1, After: true}, {N: 2, After: true, Sticky: true}} {
		got, err := manifesttest.ParseFault(f.String())
		if err != nil || got.Op != f.Op || got.N != f.N || got.After != f.After || got.Sticky != f.Sticky {
			t.Errorf("ParseFault(%q) = %v, %v", f, got, err)
		}
	}
	for _, s := range []string{"", "before any 1", "before any #x", "before any #-1", "during any #1", "before any #1 ", "before any #1 sticky x"} {
		if f, err := manifesttest.ParseFault(s); err == nil {
			t.Errorf("ParseFault(%q) = %v, want an error", s, f)
		}
	}
}

func TestFaultyFailsTheNthCall(t *testing.T) {
	const dgst = digest.Digest("sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a")
	ctx := t.Context()
	var rec manifest.Record
	rec.Desc.Digest = dgst
	run := func(s manifest.Store) error {
		if err := s.Apply(ctx, "repo", manifest.Change{Put: []manifest.Record{rec}, Tags: []manifest.TagMove{{Name: "a", To: dgst}}}); err != nil {
			return err
		}
		if _, err := s.Get(ctx, "repo", dgst); err != nil {
			return err
		}
		if _, err := s.Resolve(ctx, "repo", "a"); err != nil {
			return err
		}
		if _, err := manifest.Stat(ctx, s, "repo", []digest.Digest{dgst}); err != nil {
			return err
		}
		for _, err := range s.Manifests(ctx, "repo", "") {
			if err != nil {
				return err
			}
		}
		for _, err := range s.(manifest.Catalog).Repos(ctx, "") {
			if err != nil {
				return err
			}
		}
		for _, err := range s.(manifesttest.Index).Referrers(ctx, "repo", dgst, "", "") {
			if err != nil {
				return err
			}
		}
		for _, err := range s.Tags(ctx, "repo", "") {
			if err != nil {
				return err
			}
		}
		return nil
	}
	for _, after := range []bool{false, true} {
		n := 1
		for ; ; n++ {
			f := &manifesttest.Fault{N: n, After: after}
			inner := &memmanifest.Store{}
			err := run(manifesttest.Faulty(inner, f))
			if f.Surfaced() == 0 {
				if err != nil {
					t.Errorf("%v: %v, without the fault", f, err)
				}
				break
			}
			if !errors.Is(err, manifesttest.ErrFault) || f.Surfaced() != 1 || f.Calls() != n {
				t.Errorf("%v: %v, surfaced %d times in %d calls", f, err, f.Surfaced(), f.Calls())
			}
			if _, err := inner.Get(ctx, "repo", dgst); (err == nil) != (after || n > 1) {
				t.Errorf("%v: the store then says %v", f, err)
			}
		}
		if n != 9 {
			t.Errorf("8 calls, but a fault surfaces in %d of them", n-1)
		}
	}
	f := &manifesttest.Fault{Op: "Resolve", N: 1}
	if err := run(manifesttest.Faulty(&memmanifest.Store{}, f)); !errors.Is(err, manifesttest.ErrFault) || f.Calls() != 1 {
		t.Errorf("%v: %v in %d calls", f, err, f.Calls())
	}
}

func TestFaultyHasTheAbilitiesOfItsStore(t *testing.T) {
	type plain struct{ manifest.Store }
	for _, s := range []manifest.Store{
		&memmanifest.Store{},
		plain{},
		struct {
			plain
			manifest.Catalog
		}{},
		struct {
			plain
			manifest.Stater
		}{},
		struct {
			plain
			manifesttest.Index
		}{},
		struct {
			plain
			manifest.Catalog
			manifest.Stater
		}{},
		struct {
			plain
			manifest.Catalog
			manifesttest.Index
		}{},
		struct {
			plain
			manifest.Stater
			manifesttest.Index
		}{},
	} {
		f := manifesttest.Faulty(s, &manifesttest.Fault{})
		if got, want := abilities(f), abilities(s); got != want {
			t.Errorf("Faulty of a store with %v has %v", want, got)
		}
	}
}

func abilities(s manifest.Store) (has [3]bool) {
	_, has[0] = s.(manifest.Catalog)
	_, has[1] = s.(manifest.Stater)
	_, has[2] = s.(manifesttest.Index)
	return has
}

// A store that passes the kit passes it with a fault that never comes.
func TestFaultyWithoutFault(t *testing.T) {
	manifesttest.TestStore(t, manifesttest.Options{
		New: func(testing.TB) manifest.Store {
			return manifesttest.Faulty(&memmanifest.Store{}, &manifesttest.Fault{})
		},
		NoBlobs: "there is no blob store here",
	})
}

func TestStickyFaultsStay(t *testing.T) {
	own := errors.New("own")
	f := &manifesttest.Fault{Op: "Apply", N: 2, Sticky: true, Err: own}
	s := manifesttest.Faulty(new(memmanifest.Store), f)
	for i := range 4 {
		err := s.Apply(t.Context(), "r", manifest.Change{})
		if (err == nil) != (i == 0) || err != nil && !errors.Is(err, own) {
			t.Errorf("call %d: %v", i+1, err)
		}
	}
	if f.Surfaced() != 3 {
		t.Errorf("surfaced %d times", f.Surfaced())
	}
}
