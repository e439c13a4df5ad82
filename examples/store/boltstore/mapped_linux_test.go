package boltstore

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/manifest"
)

// TestListingKeepsLittleMapped lists more than may stay in the memory of the process.
func TestListingKeepsLittleMapped(t *testing.T) {
	db, err := Open(Options{Dir: t.TempDir(), Unsynced: true})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	const total, each = 40_000, 1000
	note := strings.Repeat("n", 3000)
	for i := 0; i < total; i += each {
		c := manifest.Change{At: time.Now()}
		for j := range each {
			raw, desc, err := manifest.ImageDraft{ArtifactType: "application/vnd.example", Annotations: map[string]string{"i": fmt.Sprint(i + j), "note": note}}.Build()
			if err != nil {
				t.Fatal(err)
			}
			c.Put = append(c.Put, manifest.Record{Desc: desc, Raw: raw})
		}
		if err := db.Manifests().Apply(t.Context(), "repo", c); err != nil {
			t.Fatal(err)
		}
	}
	before, most, n := filesMapped(), int64(0), 0
	for _, err := range db.Manifests().Manifests(t.Context(), "repo", digest.Digest("")) {
		if err != nil {
			t.Fatal(err)
		}
		if n++; n%256 == 0 && n > 2*listedCheck { // what filling has mapped is gone by then
			most = max(most, filesMapped())
		}
	}
	if n != total {
		t.Fatalf("%d manifests listed of %d", n, total)
	}
	// 64 MiB, and rows of 3 KB until the next look, in pages half empty and with neighbours that the kernel maps too.
	if limit := int64(96 << 20); most > limit || before < limit {
		t.Errorf("at most %d MB of files in memory, not over %d MB; %d MB before", most>>20, limit>>20, before>>20)
	}
	t.Logf("%d MB before, at most %d MB", before>>20, most>>20)
}
