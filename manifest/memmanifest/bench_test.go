package memmanifest_test

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/manifest/memmanifest"
)

// digestOf spreads i over all digests.
func digestOf(i int) digest.Digest {
	return digest.NewDigestFromBytes(digest.SHA256, func() []byte {
		sum := sha256.Sum256(binary.LittleEndian.AppendUint64(nil, uint64(i)))
		return sum[:]
	}())
}

// change pushes the i-th manifest: tagged, with two blobs, and a referrer of
// the one subject. Every 1000th has the type "rare".
func change(i int) manifest.Change {
	typ := "application/vnd.example.sbom"
	if i%1000 == 0 {
		typ = "rare"
	}
	d := digestOf(i)
	return manifest.Change{
		Put: []manifest.Record{{
			Desc: ocispec.Descriptor{
				MediaType: manifest.MediaTypeImage, Digest: d, Size: 500, ArtifactType: typ,
				Annotations: map[string]string{"org.opencontainers.image.created": "2026-01-01T00:00:00Z", "org.example.k": "v"},
			},
			Raw:     make([]byte, 500),
			Subject: digestOf(-1),
			Blobs:   []digest.Digest{digestOf(-2), digestOf(-3 - i)},
		}},
		Tags: []manifest.TagMove{{Name: fmt.Sprintf("v%d.%d", i%7, i), To: d}},
		At:   time.Unix(int64(i), 0),
	}
}

func filled(tb testing.TB, n int) *memmanifest.Store {
	s := &memmanifest.Store{MissingBlobs: memmanifest.Unchecked}
	for i := range n {
		if err := s.Apply(tb.Context(), "repo", change(i)); err != nil {
			tb.Fatal(err)
		}
	}
	return s
}

// BenchmarkMissing is a push that is refused, for each child that an index names in
// vain; 28,000 are as many as a document can have.
func BenchmarkMissing(b *testing.B) {
	for _, n := range []int{1_000, 28_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s := filled(b, 1)
			c := manifest.Change{RequireManifests: make([]digest.Digest, n)}
			for i := range n {
				c.RequireManifests[i] = digestOf(-3 - i)
			}
			for b.Loop() {
				if err := s.Apply(b.Context(), "repo", c); !errors.Is(err, manifest.ErrMissing) {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/child")
		})
	}
}

// BenchmarkPush is Parse, digest and Apply of one more manifest, which tags it
// and refers to the one subject, at 100 and at 100,000 of them; Apply is the
// last step alone. What a round adds is removed with the clock stopped.
func BenchmarkPush(b *testing.B) {
	for _, n := range []int{100, 100_000} {
		s := filled(b, n)
		const batch = 2000
		changes := make([]manifest.Change, batch)
		docs := make([][]byte, batch)
		var undo manifest.Change
		for i := range changes {
			changes[i] = change(n + i)
			docs[i] = document(n + i)
			undo.Delete = append(undo.Delete, manifest.Removal{Digest: changes[i].Put[0].Desc.Digest})
		}
		run := func(name string, prepare func(i int) error) {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				b.ReportAllocs()
				for i := 0; i < b.N; i++ {
					if i > 0 && i%batch == 0 {
						b.StopTimer()
						if err := s.Apply(b.Context(), "repo", undo); err != nil {
							b.Fatal(err)
						}
						b.StartTimer()
					}
					if err := prepare(i % batch); err != nil {
						b.Fatal(err)
					}
					if err := s.Apply(b.Context(), "repo", changes[i%batch]); err != nil {
						b.Fatal(err)
					}
				}
				b.StopTimer()
				var left manifest.Change
				for i := range (b.N-1)%batch + 1 {
					left.Delete = append(left.Delete, undo.Delete[i])
				}
				if err := s.Apply(b.Context(), "repo", left); err != nil {
					b.Fatal(err)
				}
			})
		}
		run("Apply", func(int) error { return nil })
		run("ParseDigestApply", func(i int) error {
			m, err := manifest.Parse(manifest.MediaTypeImage, docs[i])
			if err != nil {
				return err
			}
			if rec := m.Record(manifest.Digest(digest.SHA256, docs[i]), docs[i]); rec.Subject == "" {
				b.Fatal("no subject")
			}
			return nil
		})
	}
}

// document is an artifact as clients push it, of about 700 bytes.
func document(i int) []byte {
	return fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"artifactType":"application/vnd.example.sbom",`+
		`"config":{"mediaType":%q,"digest":%q,"size":2,"data":"e30="},`+
		`"layers":[{"mediaType":"application/json","digest":%q,"size":1234}],`+
		`"subject":{"mediaType":%q,"digest":%q,"size":500},`+
		`"annotations":{"org.opencontainers.image.created":"2026-01-01T00:00:00Z","org.example.k":"v"}}`,
		manifest.MediaTypeImage, manifest.MediaTypeEmpty, "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
		digestOf(-3-i), manifest.MediaTypeImage, digestOf(-1))
}

// BenchmarkReferrers lists a page of 1,000 from the middle, and all of a type
// that 100 of 100,000 have.
func BenchmarkReferrers(b *testing.B) {
	s := filled(b, 100_000)
	list := func(name, typ string, after digest.Digest, want int) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				n := 0
				for _, err := range s.Referrers(b.Context(), "repo", digestOf(-1), typ, after) {
					if err != nil {
						b.Fatal(err)
					}
					if n++; n == want {
						break
					}
				}
				if n != want {
					b.Fatalf("lists %d, want %d", n, want)
				}
			}
		})
	}
	list("page of 1000", "", "sha256:8", 1000)
	list("100 of a type", "rare", "", 100)
	list("all 100000", "", "", 100_000)
}

// BenchmarkHeap keeps 100,000 referrers of one subject as a push brings them,
// and tells what each holds of the heap.
func BenchmarkHeap(b *testing.B) {
	const n = 100_000
	for b.Loop() {
		before := heap()
		s := &memmanifest.Store{MissingBlobs: memmanifest.Unchecked}
		for i := range n {
			raw := document(i)
			m, err := manifest.Parse(manifest.MediaTypeImage, raw)
			if err != nil {
				b.Fatal(err)
			}
			c := manifest.Change{Put: []manifest.Record{m.Record(manifest.Digest(digest.SHA256, raw), raw)}, At: time.Unix(int64(i), 0)}
			if err := s.Apply(b.Context(), "repo", c); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(heap()-before)/n, "B/manifest")
		runtime.KeepAlive(s)
	}
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
