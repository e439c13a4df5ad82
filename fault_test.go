package wharfage_test

import (
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/wharfage/wharfage"
	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/blob/blobtest"
	"github.com/wharfage/wharfage/blob/dirblob"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/manifest/memmanifest"
	"github.com/wharfage/wharfage/wharfagetest"
)

// TestFaultsInMemory fails every call of every store. WHARFAGE_FAULT is a case to
// run alone, as a failure prints it.
func TestFaultsInMemory(t *testing.T) {
	wharfagetest.TestFaults(t, wharfagetest.Options{
		New: func(testing.TB) (blob.Store, manifest.Store) {
			h := wharfage.NewMemory()
			return h.Blobs, h.Manifests
		},
		Only: os.Getenv("WHARFAGE_FAULT"),
	})
}

func TestFaultsInDirectory(t *testing.T) {
	wharfagetest.TestFaults(t, wharfagetest.Options{
		New: func(t testing.TB) (blob.Store, manifest.Store) {
			blobs, manifests := &dirblob.Store{Dir: filepath.Join(t.TempDir(), "blobs"), Unsynced: true}, new(memmanifest.Store)
			manifests.MissingBlobs = blob.Missing(blobs)
			blobs.Guard = wharfage.GuardBlobs(manifests)
			return blobs, manifests
		},
		Left: func(t testing.TB, blobs blob.Store) (files []string) {
			err := filepath.WalkDir(blobs.(*dirblob.Store).Dir, func(path string, d fs.DirEntry, err error) error {
				if err == nil && !d.IsDir() {
					files = append(files, path)
				}
				return err
			})
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Fatal(err)
			}
			return files
		},
		Errors: []error{syscall.ENOSPC},
		Only:   os.Getenv("WHARFAGE_FAULT"),
	})
}

// A full disk is answered 507, however deep the error lies.
func TestFullDiskIs507(t *testing.T) {
	for _, full := range []error{syscall.ENOSPC, syscall.EDQUOT} {
		err := &blob.Error{Op: "begin", Err: &os.PathError{Op: "write", Path: "/secret", Err: full}}
		faulty, _ := blobtest.Faulty(wharfage.NewMemory().Blobs, blobtest.Fault{Call: 1, Err: err})
		w := httptest.NewRecorder()
		h := &wharfage.Handler{Blobs: faulty, Manifests: new(memmanifest.Store)}
		h.ServeHTTP(w, httptest.NewRequest("POST", "/v2/a/blobs/uploads/", nil))
		if w.Code != http.StatusInsufficientStorage || !strings.Contains(w.Body.String(), "no room left") {
			t.Errorf("%v is answered %d %s", full, w.Code, w.Body)
		}
	}
}
