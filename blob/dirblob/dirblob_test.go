package dirblob

import (
	"io/fs"
	"path/filepath"
	"testing"
	"time"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/blob/blobtest"
)

func TestStore(t *testing.T) {
	blobtest.TestStore(t, blobtest.Options{
		New: func(t testing.TB) blob.Store { return &Store{Dir: t.TempDir(), Unsynced: true} },
		Reopen: func(t testing.TB, s blob.Store) blob.Store {
			return &Store{Dir: s.(*Store).Dir, Unsynced: true}
		},
		SetNow:   func(s blob.Store, now func() time.Time) { s.(*Store).Now = now },
		SetGuard: func(s blob.Store, g blob.Guard) { s.(*Store).Guard = g },
		Things:   func(t testing.TB, s blob.Store) int { return len(files(t, s.(*Store).Dir)) },
	})
}

// files returns the paths of the regular files below dir.
func files(t testing.TB, dir string) (paths []string) {
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			rel, _ := filepath.Rel(dir, path)
			paths = append(paths, filepath.ToSlash(rel))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}
