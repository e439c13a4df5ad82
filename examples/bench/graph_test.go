//go:build linux

package bench

import (
	"context"
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

	"github.com/wharfage/wharfage/blob/dirblob"
	"github.com/wharfage/wharfage/examples/store/boltstore"
	"github.com/wharfage/wharfage/examples/store/pgstore"
	"github.com/wharfage/wharfage/examples/store/pgstore/pgtest"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/referrers"
)

// BenchmarkGraphExport writes the graph of a subject with 100,000 referrers, out
// of a store that was just opened. rss-MB is the most memory of this process
// meanwhile, and anon-MB that without pages of mapped files, as boltstore's database
// is one.
func BenchmarkGraphExport(b *testing.B) {
	const n = 100_000
	opens := map[string]func(b *testing.B) func() manifest.Store{
		"boltstore": func(b *testing.B) func() manifest.Store {
			dir, db := b.TempDir(), (*boltstore.DB)(nil)
			b.Cleanup(func() { db.Close() })
			return func() manifest.Store {
				if db != nil {
					must(db.Close())
				}
				var err error
				db, err = boltstore.Open(boltstore.Options{Dir: dir, Unsynced: true})
				must(err)
				return db.Manifests()
			}
		},
		"pgstore": func(b *testing.B) func() manifest.Store {
			dsn, dir := pgtest.Start(b), b.TempDir()
			return func() manifest.Store {
				db, err := pgstore.Open(context.Background(), pgstore.Options{DSN: dsn, Objects: &dirblob.Objects{Dir: dir, Unsynced: true}})
				must(err)
				b.Cleanup(func() { db.Close() })
				return db.Manifests()
			}
		},
	}
	x := referrers.Export{}
	for _, name := range []string{"boltstore", "pgstore"} {
		b.Run(name, func(b *testing.B) {
			open := opens[name](b)
			subject := fillReferrers(b, open(), n)
			for form, write := range map[string]func(io.Writer, iter.Seq2[referrers.Step, error]) error{"JSON": x.JSON, "Tree": x.Tree, "DOT": x.DOT, "Mermaid": x.Mermaid} {
				b.Run(form, func(b *testing.B) {
					g := &referrers.Graph{Repo: "repo", Manifests: open()}
					debug.FreeOSMemory()
					if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil {
						b.Log("the peak is that of filling too: ", err)
					}
					out := new(meter)
					for b.Loop() {
						if err := write(out, g.Walk(b.Context(), subject)); err != nil {
							b.Fatal(err)
						}
					}
					b.ReportMetric(memory("VmHWM"), "rss-MB")
					b.ReportMetric(out.anon, "anon-MB")
				})
			}
		})
	}
}

// fillReferrers puts a subject into "repo", and n manifests that refer to it.
func fillReferrers(b *testing.B, s manifest.Store, n int) digest.Digest {
	const each = 1000
	push := func(raws ...[]byte) {
		c := manifest.Change{At: time.Now()}
		for _, raw := range raws {
			m, err := manifest.Parse(manifest.MediaTypeImage, raw)
			must(err)
			c.Put = append(c.Put, m.Record(manifest.Digest(digest.SHA256, raw), raw))
		}
		must(s.Apply(b.Context(), "repo", c))
	}
	raw, subject, err := manifest.ImageDraft{ArtifactType: "application/vnd.example"}.Build()
	must(err)
	push(raw)
	to := ocispec.Descriptor{MediaType: subject.MediaType, Digest: subject.Digest, Size: subject.Size}
	for i := 0; i < n; i += each {
		raws := make([][]byte, each)
		for j := range raws {
			raws[j], _, err = manifest.ImageDraft{ArtifactType: "application/spdx+json", Subject: &to, Annotations: map[string]string{
				ocispec.AnnotationCreated: "2026-01-01T00:00:00Z", ocispec.AnnotationTitle: fmt.Sprint("sbom ", i+j)}}.Build()
			must(err)
		}
		push(raws...)
	}
	return subject.Digest
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
