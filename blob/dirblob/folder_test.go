package dirblob

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
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
