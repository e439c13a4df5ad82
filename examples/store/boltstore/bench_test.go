package boltstore

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/blob/dirblob"
	"github.com/wharfage/wharfage/examples/store/parts"
	"github.com/wharfage/wharfage/manifest"
)

const layerSize = 16 << 10

// artifact is the i-th one that a benchmark pushes: a layer and its manifest.
type artifact struct {
	tag   string
	layer []byte
	desc  ocispec.Descriptor
	raw   []byte
}

func newArtifact(i int, subject *ocispec.Descriptor) artifact {
	a := artifact{tag: fmt.Sprintf("v%x", sha256.Sum256(fmt.Append(nil, i)))[:20], layer: make([]byte, layerSize)}
	binary.BigEndian.PutUint64(a.layer, uint64(i))
	a.desc = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromBytes(a.layer), Size: layerSize}
	a.raw = a.manifest(subject)
	return a
}

func (a *artifact) manifest(subject *ocispec.Descriptor) []byte {
	config, _ := manifest.Empty()
	m := ocispec.Manifest{
		MediaType: ocispec.MediaTypeImageManifest, ArtifactType: "application/vnd.example", Config: config, Subject: subject,
		Layers: []ocispec.Descriptor{a.desc}, Annotations: map[string]string{ocispec.AnnotationCreated: "2026-01-01T00:00:00Z"},
	}
	m.SchemaVersion = 2
	raw, _ := json.Marshal(m)
	return raw
}

// fill gives the store the rows of n artifacts, by many small transactions as
// pushes make them. Their objects are not there.
func fill(tb testing.TB, db *DB, n int, subject *ocispec.Descriptor) {
	tb.Helper()
	config, _ := manifest.Empty()
	const each = 32
	for from := 0; from < n; from += each {
		if err := db.update(tb.Context(), func(t *tx) error {
			for i := from; i < min(n, from+each); i++ {
				var a artifact
				a.tag = fmt.Sprintf("v%x", sha256.Sum256(fmt.Append(nil, "old", i)))[:20]
				a.desc = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromString(fmt.Sprint(i)), Size: layerSize}
				raw := a.manifest(subject)
				key := func(size int) parts.Part { return parts.Part{Key: parts.NewKey(1, time.Now()), Size: int64(size)} }
				published := publication{dgst: a.desc.Digest, content: parts.Content{Parts: []parts.Part{key(layerSize)}}}
				if err := published.write(t); err != nil {
					return err
				}
				t.setLink(repo, a.desc.Digest, link{time.Now(), layerSize})
				rec := manifest.Record{
					Desc: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromBytes(raw), Size: int64(len(raw)), ArtifactType: "application/vnd.example"},
					Raw:  raw, Blobs: []digest.Digest{config.Digest, a.desc.Digest},
				}
				if subject != nil {
					rec.Subject = subject.Digest
				}
				c := manifest.Change{Put: []manifest.Record{rec}, Tags: []manifest.TagMove{{Name: a.tag, To: rec.Desc.Digest}}, At: time.Now()}
				add := newAddition(rec, &c)
				add.body = key(len(raw))
				add.row = recordRow(&add.stored)
				p := plan{Change: &c, tx: t, repo: name(repo), add: []*addition{add}}
				p.putRecord(add)
				p.move(manifest.Tag{}, manifest.Tag{Name: a.tag, Digest: rec.Desc.Digest, MovedAt: c.At})
			}
			return nil
		}); err != nil {
			tb.Fatal(err)
		}
	}
}

func pushArtifact(tb testing.TB, db *DB, a *artifact) {
	ctx, s := tb.Context(), db.Blobs()
	u, err := s.Begin(ctx, repo, digest.SHA256)
	if err == nil {
		err = blob.Finish(ctx, s, u, -1, bytes.NewReader(a.layer), a.desc.Digest)
	}
	if err == nil {
		p := manifest.Pusher{Store: db.Manifests(), BlobSizes: blobSizes(s)}
		_, err = p.Push(ctx, repo, manifest.PushRequest{Raw: a.raw, Tags: []string{a.tag}})
	}
	if err != nil {
		tb.Error(err)
	}
}

// blobSizes asks as a handler does.
func blobSizes(s *Blobs) func(ctx context.Context, repo string, dgsts []digest.Digest) ([]int64, error) {
	return func(ctx context.Context, repo string, dgsts []digest.Digest) ([]int64, error) {
		infos, err := s.Stat(ctx, repo, dgsts)
		sizes := make([]int64, len(infos))
		for i, info := range infos {
			sizes[i] = info.Size
		}
		return sizes, err
	}
}

const writers = 16

// BenchmarkPush pushes an artifact by each of 16 writers at once.
func BenchmarkPush(b *testing.B) {
	for _, synced := range []bool{false, true} {
		for _, n := range []int{100, 100_000} {
			b.Run(fmt.Sprintf("synced-%t/manifests-%d", synced, n), func(b *testing.B) {
				dir := b.TempDir()
				db := open(b, Options{Dir: dir, Unsynced: true})
				fill(b, db, n, nil)
				db.Close()
				db = open(b, Options{Dir: dir, Unsynced: !synced})
				put(b, db, repo, "{}")
				warm(b, db)
				artifacts := make([]artifact, b.N*writers)
				for i := range artifacts {
					artifacts[i] = newArtifact(i, nil)
				}
				var next atomic.Int64
				before, cpu := id(db), processorTime()
				b.ResetTimer()
				var all sync.WaitGroup
				for range writers {
					all.Go(func() {
						for i := next.Add(1) - 1; i < int64(len(artifacts)); i = next.Add(1) - 1 {
							pushArtifact(b, db, &artifacts[i])
						}
					})
				}
				all.Wait()
				b.StopTimer()
				pushes := float64(len(artifacts))
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/pushes/1e3, "µs/push")
				b.ReportMetric(float64(processorTime()-cpu)/pushes/1e3, "cpu-µs/push")
				b.ReportMetric(2*pushes/float64(id(db)-before), "updates/tx")
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}

// warm makes the folders of objects.
func warm(b *testing.B, db *DB) {
	o, ok := db.Objects.(*dirblob.Objects)
	if !ok {
		return
	}
	for i := range 256 {
		if _, err := o.Put(b.Context(), fmt.Sprintf("%02x/warm", i), bytes.NewReader(nil)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPull(b *testing.B) {
	for _, n := range []int{100, 100_000} {
		db := open(b, Options{Unsynced: true})
		fill(b, db, n, nil)
		put(b, db, repo, "{}")
		a := newArtifact(0, nil)
		pushArtifact(b, db, &a)
		ctx, m, s := b.Context(), db.Manifests(), db.Blobs()
		dgst := digest.FromBytes(a.raw)
		for name, pull := range map[string]func() error{
			"resolve": func() error { _, err := m.Resolve(ctx, repo, a.tag); return err },
			"get":     func() error { _, err := m.Get(ctx, repo, dgst); return err },
			"stat":    func() error { _, err := s.Stat(ctx, repo, []digest.Digest{a.desc.Digest}); return err },
			"open": func() error {
				r, _, err := s.Open(ctx, repo, a.desc.Digest, 0, -1)
				if err == nil {
					r.Close()
				}
				return err
			},
		} {
			b.Run(fmt.Sprintf("%s/manifests-%d", name, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if err := pull(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
		db.Close()
	}
}

// BenchmarkPage lists the first page of many tags and referrers.
func BenchmarkPage(b *testing.B) {
	subject := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("subject"), Size: 1}
	for _, n := range []int{1000, 100_000} { // of 100, the second page read would be shorter
		db := open(b, Options{Unsynced: true})
		fill(b, db, n, &subject)
		b.Run(fmt.Sprintf("tags/manifests-%d", n), func(b *testing.B) {
			for b.Loop() {
				i := 0
				for range db.Manifests().Tags(b.Context(), repo, "") {
					if i++; i == 100 {
						break
					}
				}
			}
		})
		b.Run(fmt.Sprintf("referrers/manifests-%d", n), func(b *testing.B) {
			for b.Loop() {
				i := 0
				for range db.Manifests().ReferrersJSON(b.Context(), repo, subject.Digest, "application/vnd.example", "") {
					if i++; i == 100 {
						break
					}
				}
			}
		})
		db.Close()
	}
}
