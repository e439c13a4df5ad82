package dirblob

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/blob/blobtest"
)

func TestObjectsKit(t *testing.T) {
	blobtest.TestObjects(t, blobtest.ObjectsOptions{
		New: func(t testing.TB) blob.Objects { return &Objects{Dir: t.TempDir(), Unsynced: true} },
		Reopen: func(t testing.TB, o blob.Objects) blob.Objects {
			return &Objects{Dir: o.(*Objects).Dir, Unsynced: true}
		},
		Things: func(t testing.TB, o blob.Objects) int { return len(files(t, o.(*Objects).Dir)) },
		Strand: func(t testing.TB, o blob.Objects) int {
			for range 3 { // as a process that is killed in the middle of stage
				path := filepath.Join(o.(*Objects).Dir, temp, random())
				if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte("half"), 0o666); err != nil {
					t.Fatal(err)
				}
			}
			return 3
		},
		Sizes: []int{bufferSize - 1, bufferSize, bufferSize + 1},
	})
}
