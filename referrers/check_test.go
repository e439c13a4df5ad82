package referrers_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/manifest/manifesttest"
	"github.com/wharfage/wharfage/manifest/memmanifest"
	"github.com/wharfage/wharfage/referrers"
)

// bent is an index with faults.
type bent struct {
	store *memmanifest.Store
	bend  func(list []ocispec.Descriptor, subject digest.Digest, typ string) []ocispec.Descriptor
}

func (x bent) Referrers(ctx context.Context, repo string, subject digest.Digest, typ string, after digest.Digest) iter.Seq2[ocispec.Descriptor, error] {
	return func(yield func(ocispec.Descriptor, error) bool) {
		var list []ocispec.Descriptor
		for d := range x.store.Referrers(ctx, repo, subject, typ, after) {
			list = append(list, d)
		}
		for _, d := range x.bend(list, subject, typ) {
			if !yield(d, nil) {
				return
			}
		}
	}
}

func TestCheckFindsEachDifference(t *testing.T) {
	s := fill(t, bare(0, ""), bare(1, name(0)), bare(2, name(0)), bare(3, name(9)))
	type list = []ocispec.Descriptor
	for what, tt := range map[string]struct {
		bend func(list list, subject digest.Digest, typ string) list
		want []string
	}{
		"nothing": {func(l list, _ digest.Digest, _ string) list { return l }, nil},
		"an entry that is missing": {func(l list, _ digest.Digest, _ string) list {
			return slices.DeleteFunc(l, func(d ocispec.Descriptor) bool { return d.Digest == name(2) })
		}, []string{"the list of referrers of " + string(name(0)) + " lacks it " + string(name(2))}},
		"an entry that is missing when asked for by type": {func(l list, _ digest.Digest, typ string) list {
			return slices.DeleteFunc(l, func(d ocispec.Descriptor) bool { return typ != "" && d.Digest == name(2) })
		}, []string{"the list of referrers of " + string(name(0)) + ` lacks it, asked for "application/vnd.example.2" ` + string(name(2))}},
		"an entry too many": {func(l list, subject digest.Digest, typ string) list {
			if subject == name(1) && typ == "" {
				l = append(l, ocispec.Descriptor{Digest: name(7)})
			}
			return l
		}, []string{"the list of referrers of " + string(name(1)) + " has it, and it is none " + string(name(7))}},
		"an entry without annotations": {func(l list, _ digest.Digest, _ string) list {
			for i := range l {
				if l[i].Digest == name(3) {
					l[i].Size = 7
				}
			}
			return l
		}, []string{"the list of referrers of " + string(name(9)) + " has an entry that is not the manifest's " + string(name(3))}},
	} {
		var got []string
		for d, err := range referrers.Check(t.Context(), bent{s, tt.bend}, s, "repo") {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, fmt.Sprint(d, " ", d.Digest))
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, want %q", what, got, tt.want)
		}
	}
}

// What comes or goes between two looks is no difference.
func TestCheckBesideWriters(t *testing.T) {
	s := fill(t, bare(0, ""), bare(1, name(0)), bare(2, name(0)))
	writes := []manifest.Change{
		{Delete: []manifest.Removal{{Digest: name(1)}}},
		{Put: []manifest.Record{bare(4, name(0)), bare(1, name(2))}},
		{Delete: []manifest.Removal{{Digest: name(4)}}},
	}
	moving := bent{s, func(list []ocispec.Descriptor, _ digest.Digest, _ string) []ocispec.Descriptor {
		if len(writes) > 0 {
			if err := s.Apply(t.Context(), "repo", writes[0]); err != nil {
				t.Error(err)
			}
			writes = writes[1:]
		}
		return list
	}}
	for d, err := range referrers.Check(t.Context(), moving, s, "repo") {
		t.Error(d, err)
	}
}

func TestCheckEndsAtAnError(t *testing.T) {
	s := fill(t, bare(0, ""), bare(1, name(0)))
	lost := bent{s, func([]ocispec.Descriptor, digest.Digest, string) []ocispec.Descriptor { return nil }}
	for n := 1; n <= 3; n++ {
		var failed error
		for _, err := range referrers.Check(t.Context(), lost, manifesttest.Faulty(s, &manifesttest.Fault{N: n}), "repo") {
			failed = err
		}
		if !errors.Is(failed, manifesttest.ErrFault) {
			t.Errorf("fault %d: %v", n, failed)
		}
	}
}
