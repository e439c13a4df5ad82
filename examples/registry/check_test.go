package main

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage"
	"github.com/wharfage/wharfage/blob"
)

// TestJSONTellsWhatFailed: an error is an empty object in JSON.
func TestJSONTellsWhatFailed(t *testing.T) {
	where := place{data: t.TempDir(), unsynced: true}
	store, err := where.open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	content := strings.Repeat("x", 100<<10)
	desc := ocispec.Descriptor{Digest: digest.FromString(content), Size: int64(len(content))}
	err = blob.Put(t.Context(), store.blobs, "r", desc, strings.NewReader(content))
	if err = errors.Join(err, store.close()); err != nil {
		t.Fatal(err)
	}
	lost := 0
	filepath.WalkDir(where.data, func(path string, d fs.DirEntry, err error) error {
		if info, e := d.Info(); err == nil && e == nil && info.Size() == desc.Size {
			lost++
			return os.Remove(path)
		}
		return err
	})
	if lost != 1 {
		t.Fatalf("%d objects are lost", lost)
	}
	out := captured(t, func() error {
		if err := check(t.Context(), []string{"-data", where.data, "-bytes", "-json"}); err == nil {
			t.Error("check has found nothing")
		}
		return nil
	})
	if !strings.Contains(out, `the store is damaged"`) {
		t.Errorf("%s", out)
	}
	sum, err := json.Marshal(sumOf(wharfage.Collected{Blobs: blob.CollectReport{More: true, Errors: []error{errors.New("the reason")}}}))
	if err != nil || !strings.Contains(string(sum), `"Errors":["the reason"]`) || !strings.Contains(string(sum), `"More":true`) {
		t.Errorf("%s, %v", sum, err)
	}
}
