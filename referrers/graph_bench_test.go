package referrers_test

import (
	"context"
	"fmt"
	"io"
	"iter"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/internal/vectors"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/referrers"
)

// crowd is a store of an image with referrers, whose documents it makes when
// they are asked for, so that the memory of a process is that of the walk.
type crowd struct {
	manifest.Reader // no other method is called
	n               int
}

func (c crowd) record(i int) manifest.Record {
	rec := manifest.Record{
		Raw: []byte(strings.Repeat(" ", 900)),
		Desc: ocispec.Descriptor{MediaType: manifest.MediaTypeImage, Digest: name(i), Size: 900, ArtifactType: strings.Clone(bundle),
			Annotations: map[string]string{predicate: "https://slsa.dev/provenance/v1", "org.opencontainers.image.created": "2026-11-26T00:00:00Z"}},
	}
	if i > 0 {
		rec.Subject = name(0)
	}
	return rec
}

func (c crowd) Get(_ context.Context, _ string, dgst digest.Digest) (manifest.Record, error) {
	i, err := strconv.ParseInt(dgst.Encoded(), 16, 32)
	return c.record(int(i)), err
}

func (c crowd) Referrers(_ context.Context, _ string, subject digest.Digest, _ string, _ digest.Digest) iter.Seq2[ocispec.Descriptor, error] {
	return func(yield func(ocispec.Descriptor, error) bool) {
		for i := 1; subject == name(0) && i <= c.n && yield(c.record(i).Desc, nil); i++ {
		}
	}
}

func (c crowd) Manifests(context.Context, string, digest.Digest) iter.Seq2[manifest.Record, error] {
	return func(yield func(manifest.Record, error) bool) {
		for i := 0; i <= c.n && yield(c.record(i), nil); i++ {
		}
	}
}

func (c crowd) Tags(context.Context, string, string) iter.Seq2[manifest.Tag, error] {
	return func(func(manifest.Tag, error) bool) {}
}

// BenchmarkGraph walks 100,000 referrers of one subject, and writes them.
// peak-MB is the most memory that the process has had (Linux).
func BenchmarkGraph(b *testing.B) {
	const n = 100_000
	g, subject := &referrers.Graph{Repo: "repo", Manifests: crowd{n: n}}, name(0)
	x := referrers.Export{}
	for _, format := range []struct {
		name  string
		write writer
	}{{"JSON", x.JSON}, {"Tree", x.Tree}, {"DOT", x.DOT}, {"Mermaid", x.Mermaid}} {
		b.Run(fmt.Sprintf("%s/%d", format.name, n), func(b *testing.B) {
			for b.Loop() {
				if err := format.write(io.Discard, g.Walk(b.Context(), subject)); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(peak(), "peak-MB")
		})
	}
	b.Run(fmt.Sprintf("Cascade/%d", n), func(b *testing.B) {
		for b.Loop() {
			fates, err := g.Cascade(b.Context(), []digest.Digest{subject}, referrers.CascadeOptions{})
			if err != nil || len(fates) != n+1 {
				b.Fatal(len(fates), err)
			}
		}
		b.ReportMetric(peak(), "peak-MB")
	})
}

// peak is the largest resident set so far, in MB; 0 where /proc does not tell.
func peak() float64 {
	status, _ := os.ReadFile("/proc/self/status")
	_, after, _ := strings.Cut(string(status), "VmHWM:")
	kb, _ := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(strings.SplitN(after, "\n", 2)[0]), " kB"), 64)
	return kb * 1024 / 1e6
}

// BenchmarkFirstPage lists 20 referrers of a subject that has more and more.
func BenchmarkFirstPage(b *testing.B) {
	for _, n := range []int{100, 10_000, 100_000} {
		recs := []manifest.Record{bare(0, "")}
		for i := range n {
			recs = append(recs, bare(i+1, name(0)))
		}
		s := fill(b, recs...)
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			for b.Loop() {
				left := 20
				for _, err := range s.Referrers(b.Context(), "repo", name(0), "", "") {
					if err != nil {
						b.Fatal(err)
					}
					if left--; left == 0 {
						break
					}
				}
			}
		})
	}
}

// BenchmarkLadder walks a graph of 31 manifests and 2^30 paths.
func BenchmarkLadder(b *testing.B) {
	cases, err := vectors.Hostile(*vectorsDir, "graph")
	if err != nil {
		b.Fatal(err)
	}
	for _, c := range cases {
		b.Run(c.ID, func(b *testing.B) {
			var recs []manifest.Record
			for _, doc := range c.Docs {
				m, err := manifest.Parse(doc.MediaType, doc.Raw)
				if err != nil {
					b.Fatal(err)
				}
				recs = append(recs, m.Record(manifest.Digest(digest.SHA256, doc.Raw), doc.Raw))
			}
			g := &referrers.Graph{Repo: "repo", Manifests: fill(b, recs...)}
			for b.Loop() {
				if err := last(g.Walk(b.Context(), recs[len(recs)-1].Desc.Digest)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
