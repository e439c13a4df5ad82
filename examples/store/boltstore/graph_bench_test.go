//go:build linux

package boltstore

import (
	"fmt"
	"io"
	"iter"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/referrers"
)

// BenchmarkGraphExport writes the graph of a subject with 100,000 referrers, out
// of a store that was just opened. anon-MB is the most memory that the process
// takes for itself meanwhile. rss-MB is that and pages of the database file,
// which the system maps as far as it has them and takes back when it wants to.
func BenchmarkGraphExport(b *testing.B) {
	const n, each = 100_000, 1000
	db := open(b, Options{Unsynced: true, PackBelow: 64 << 10})
	raw, subject, err := manifest.ImageDraft{ArtifactType: "application/vnd.example"}.Build()
	if err != nil {
		b.Fatal(err)
	}
	push := func(raws ...[]byte) {
		c := manifest.Change{At: time.Now()}
		for _, raw := range raws {
			m, err := manifest.Parse(manifest.MediaTypeImage, raw)
			if err != nil {
				b.Fatal(err)
			}
			c.Put = append(c.Put, m.Record(manifest.Digest(digest.SHA256, raw), raw))
		}
		if err := db.Manifests().Apply(b.Context(), "repo", c); err != nil {
			b.Fatal(err)
		}
	}
	push(raw)
	to := ocispec.Descriptor{MediaType: subject.MediaType, Digest: subject.Digest, Size: subject.Size}
	for i := 0; i < n; i += each {
		raws := make([][]byte, each)
		for j := range raws {
			raws[j], _, err = manifest.ImageDraft{ArtifactType: "application/spdx+json", Subject: &to, Annotations: map[string]string{
				ocispec.AnnotationCreated: "2026-01-01T00:00:00Z", ocispec.AnnotationTitle: fmt.Sprint("sbom ", i+j)}}.Build()
			if err != nil {
				b.Fatal(err)
			}
		}
		push(raws...)
	}
	x := referrers.Export{}
	for name, write := range map[string]func(io.Writer, iter.Seq2[referrers.Step, error]) error{"JSON": x.JSON, "Tree": x.Tree, "DOT": x.DOT, "Mermaid": x.Mermaid} {
		b.Run(fmt.Sprint(name, "/", n), func(b *testing.B) {
			db = reopen(b, db)
			debug.FreeOSMemory()
			if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil {
				b.Log("the peak is that of filling too: ", err)
			}
			out := new(meter)
			for b.Loop() {
				g := &referrers.Graph{Repo: "repo", Manifests: db.Manifests()}
				if err := write(out, g.Walk(b.Context(), subject.Digest)); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(memory("VmHWM"), "rss-MB")
			b.ReportMetric(out.anon, "anon-MB")
		})
	}
}

// meter looks at the memory of the process while something is written to it.
type meter struct {
	writes int
	anon   float64
}

func (m *meter) Write(p []byte) (int, error) {
	if m.writes++; m.writes%64 == 0 {
		m.anon = max(m.anon, memory("RssAnon"))
	}
	return len(p), nil
}

// memory is a line of what Linux tells of this process, in MB.
func memory(line string) float64 {
	status, _ := os.ReadFile("/proc/self/status")
	_, after, _ := strings.Cut(string(status), line+":")
	after, _, _ = strings.Cut(after, " kB")
	kb, _ := strconv.ParseFloat(strings.TrimSpace(after), 64)
	return kb * 1024 / 1e6
}
