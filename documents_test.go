package wharfage_test

import (
	"context"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/wharfage/wharfage"
	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/blob/dirblob"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/manifest/manifesttest"
	"github.com/wharfage/wharfage/manifest/memmanifest"
)

func open(testing.TB) manifest.Store { return new(memmanifest.Store) }

// What README.md and IMPLEMENTING.md show, for the compiler.
var _ = func(dir string) {
	h := wharfage.NewMemory()
	http.ListenAndServe("127.0.0.1:5000", h)
	{
		blobs := &dirblob.Store{Dir: "/var/lib/registry/blobs"}
		manifests := &memmanifest.Store{MissingBlobs: blob.Missing(blobs)}
		blobs.Guard = wharfage.GuardBlobs(manifests)

		h := &wharfage.Handler{
			Blobs:     blobs,
			Manifests: manifests,
			Authorize: func(r *http.Request, repo string, a wharfage.Action) error { return nil },
			OnCommit:  func(ctx context.Context, e manifest.Event) {},
		}
		_ = h
	}
	blobs := &dirblob.Store{Dir: dir}
	manifests := &memmanifest.Store{MissingBlobs: blob.Missing(blobs)}
	blobs.Guard = wharfage.GuardBlobs(manifests)
}

var _ = func(t *testing.T) {
	manifesttest.TestStore(t, manifesttest.Options{
		New: func(t testing.TB) manifest.Store { return open(t) },
	})
}

// TestDocumentsShowCodeThatCompiles: each line of Go in them is in this file, or, for the
// whole store of IMPLEMENTING.md, in examples/store/skeleton, whose test compares it.
func TestDocumentsShowCodeThatCompiles(t *testing.T) {
	read := func(name string) string {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	compiled := map[string]bool{}
	for line := range strings.Lines(read("documents_test.go")) {
		compiled[strings.TrimSpace(line)] = true
	}
	bodies, block := strings.NewReplacer("func TestStore(", "var _ = func(", "error { … }", "error { return nil }", "{ … }", "{}"), regexp.MustCompile("(?ms)^ *```go\n(.*?)^ *```$")
	for name, want := range map[string]int{"README.md": 2, "IMPLEMENTING.md": 3} {
		blocks := block.FindAllStringSubmatch(read(name), -1)
		if len(blocks) != want {
			t.Errorf("%s has %d pieces of Go, not %d", name, len(blocks), want)
		}
		for _, b := range blocks {
			if strings.Contains(b[1], "package skeleton") {
				continue
			}
			for line := range strings.Lines(b[1]) {
				code, _, _ := strings.Cut(bodies.Replace(line), " // ")
				if code = strings.TrimSpace(code); code != "" && !compiled[code] {
					t.Errorf("%s shows a line that is compiled nowhere: %s", name, code)
				}
			}
		}
	}
}
