package dirblob

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/blob"
)

// TestFoldersAreSyncedThoughTheyAreThere: who made them may have been killed
// before it synced them, or may be about to.
func TestFoldersAreSyncedThoughTheyAreThere(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "objects")
	if err := os.MkdirAll(filepath.Join(dir, "a", "b"), 0o777); err != nil {
		t.Fatal(err)
	}
	synced := map[string]bool{}
	o := &Objects{Dir: dir, syncs: func(path string) { synced[path] = true }}
	if _, err := o.Put(context.Background(), "a/b/key", strings.NewReader("content")); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{filepath.Dir(dir), dir, filepath.Join(dir, "a"), filepath.Join(dir, "a", "b")} {
		if !synced[path] {
			t.Errorf("%s was not synced, only %q were", path, slices.Sorted(maps.Keys(synced)))
		}
	}
}

// Folders that somebody removes below a running store are made again.
func TestFoldersThatWereRemovedAreMadeAgain(t *testing.T) {
	ctx, content := context.Background(), "content"
	desc := ocispec.Descriptor{Digest: digest.FromString(content), Size: int64(len(content))}
	s := &Store{Dir: filepath.Join(t.TempDir(), "store"), Unsynced: true}
	for _, remove := range []string{"", temp, "uploads", "blobs", "."} {
		if err := os.RemoveAll(filepath.Join(s.Dir, remove)); err != nil {
			t.Fatal(err)
		}
		if err := blob.Put(ctx, s, "team/app", desc, strings.NewReader(content)); err != nil {
			t.Errorf("without %s: %v", remove, err)
		}
		if err := blob.Mount(ctx, s, "team/app", "team/app2", desc.Digest); err != nil {
			t.Errorf("without %s: %v", remove, err)
		}
		if _, err := s.Begin(ctx, "team/app", digest.SHA256); err != nil {
			t.Errorf("without %s: %v", remove, err)
		}
	}
}
