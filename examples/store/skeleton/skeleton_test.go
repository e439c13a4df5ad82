package skeleton

import (
	"context"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/manifest/manifesttest"
)

// blobs is a set of digests, in place of a blob store.
type blobs struct {
	mu  sync.Mutex
	set map[string]bool
}

func (b *blobs) missing(_ context.Context, repo string, dgsts []digest.Digest) (missing []digest.Digest, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, d := range dgsts {
		if !b.set[repo+" "+string(d)] {
			missing = append(missing, d)
		}
	}
	return missing, nil
}

func TestStore(t *testing.T) {
	all := map[manifest.Store]*blobs{}
	manifesttest.TestStore(t, manifesttest.Options{
		New: func(testing.TB) manifest.Store {
			b := &blobs{set: map[string]bool{}}
			s := &Store{MissingBlobs: b.missing}
			all[s] = b
			return s
		},
		PutBlobs: func(_ testing.TB, s manifest.Store, repo string, dgsts ...digest.Digest) {
			b := all[s]
			b.mu.Lock()
			defer b.mu.Unlock()
			for _, d := range dgsts {
				b.set[repo+" "+string(d)] = true
			}
		},
	})
}

// TestImplementingShowsThisFile: what the guide prints is what passes the kit.
func TestImplementingShowsThisFile(t *testing.T) {
	guide, err := os.ReadFile("../../../IMPLEMENTING.md")
	if err != nil {
		t.Fatal(err)
	}
	code, err := os.ReadFile("skeleton.go")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(guide), "```go\n"+string(code)+"```\n") {
		t.Error("IMPLEMENTING.md does not have skeleton.go as it is")
	}
	if n := strings.Count(string(code), "\n"); n >= 200 {
		t.Errorf("the skeleton has %d lines, and is to have fewer than 200", n)
	}
}
