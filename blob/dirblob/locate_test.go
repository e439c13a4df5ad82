package dirblob

import (
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/blob"
)

func TestLocateFindsRepositoriesOfAnyName(t *testing.T) {
	s := &Store{Dir: t.TempDir(), Unsynced: true}
	long := strings.Repeat("a", 127) + "/" + strings.Repeat("b", 126) + "c"
	want := []string{"a", "a/b", "con", "team/app", strings.Repeat("x", 128), strings.Repeat("x", 129), long}
	slices.Sort(want)
	desc := ocispec.Descriptor{Digest: digest.FromString("x"), Size: 1}
	for _, repo := range want {
		if err := blob.Put(t.Context(), s, repo, desc, strings.NewReader("x")); err != nil {
			t.Fatal(err)
		}
	}
	if err := blob.Put(t.Context(), s, "other", ocispec.Descriptor{Digest: digest.FromString("y"), Size: 1}, strings.NewReader("y")); err != nil {
		t.Fatal(err)
	}
	var got []string
	for repo, err := range s.Locate(t.Context(), desc.Digest) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, repo)
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// What cannot be looked at is not taken for what is not there.
func TestLocateEndsAtAnError(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("symbolic links need a privilege")
	}
	s := &Store{Dir: t.TempDir(), Unsynced: true}
	desc := ocispec.Descriptor{Digest: digest.FromString("x"), Size: 1}
	for _, repo := range []string{"a", "c"} {
		if err := blob.Put(t.Context(), s, repo, desc, strings.NewReader("x")); err != nil {
			t.Fatal(err)
		}
	}
	path, err := s.blobPath("b", desc.Digest)
	if err != nil {
		t.Fatal(err)
	}
	loop := filepath.Dir(path) // leads nowhere but to itself
	if err := os.MkdirAll(filepath.Dir(loop), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(loop, loop); err != nil {
		t.Fatal(err)
	}
	var got []string
	var failed error
	for repo, err := range s.Locate(t.Context(), desc.Digest) {
		if failed = err; err == nil {
			got = append(got, repo)
		}
	}
	if failed == nil || !slices.Equal(got, []string{"a"}) {
		t.Errorf("Locate lists %q and ends in %v", got, failed)
	}
}
