package boltstore

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"

	"github.com/wharfage/wharfage/manifest"
)

// dump returns all rows of the tables that Reindex mends.
func dump(t *testing.T, db *DB) map[string]string {
	t.Helper()
	rows := map[string]string{}
	if err := db.bolt.View(func(b *bolt.Tx) error {
		for _, i := range []int{linkRows, manifestRows, tagRows, referrerRows} {
			b.Bucket(buckets[i]).ForEach(func(k, v []byte) error {
				rows[string(buckets[i])+" "+string(k)] = string(v)
				return nil
			})
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return rows
}

func same(t *testing.T, got, want map[string]string, when string) {
	t.Helper()
	for k, v := range want {
		if got[k] != v {
			t.Errorf("%s, the row %q is %q, want %q", when, k, got[k], v)
		}
	}
	for k := range got {
		if _, ok := want[k]; !ok {
			t.Errorf("%s, there is a row %q", when, k)
		}
	}
}

func TestReindexMendsWhatIsDerived(t *testing.T) {
	db := open(t, Options{Unsynced: true})
	subject := push(t, db, repo, "subject", nil)
	push(t, db, repo, "one", &ocispec.Descriptor{MediaType: subject.Desc.MediaType, Digest: subject.Desc.Digest, Size: subject.Desc.Size})
	two := push(t, db, repo, "two", nil)
	child := ocispec.Descriptor{MediaType: two.Desc.MediaType, Digest: two.Desc.Digest, Size: two.Desc.Size}
	odd := child
	odd.MediaType = "application/vnd.example.odd" // which Pusher finds to be a manifest here
	odd.Digest, odd.Size = subject.Desc.Digest, subject.Desc.Size
	index := pushDoc(t, db, repo, "index", ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{child, odd}})
	if len(index.Manifests) != 2 {
		t.Fatalf("the index lists %s", index.Manifests)
	}
	push(t, db, otherRepo, "other", nil)
	want := dump(t, db)
	if n, err := db.Reindex(t.Context(), repo); n != 0 || err != nil {
		t.Fatalf("of a sound repository: %d, %v", n, err)
	}

	// Each derived row away, one after the other, and then all.
	prefix := name(repo)
	var derived []fact
	db.bolt.View(func(b *bolt.Tx) error {
		for _, i := range []int{linkRows, manifestRows, referrerRows} {
			c := b.Bucket(buckets[i]).Cursor()
			for k, v := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, v = c.Next() {
				if i == referrerRows || len(k) > len(prefix)+digestLen(k[len(prefix):]) {
					derived = append(derived, fact{i, bytes.Clone(k), bytes.Clone(v)})
				}
			}
		}
		return nil
	})
	// 2 blobs of each of 3 images; 2 children; 4 tags; a referrer twice.
	if len(derived) != 6+2+4+2 {
		t.Fatalf("there are %d derived rows", len(derived))
	}
	without := func(rows ...fact) {
		if err := db.bolt.Update(func(b *bolt.Tx) error {
			for _, f := range rows {
				if err := b.Bucket(buckets[f.table]).Delete(f.key); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range derived {
		without(f)
		if n, err := db.Reindex(t.Context(), repo); n != 1 || err != nil {
			t.Errorf("without %q: %d, %v, want one row", f.key, n, err)
		}
		same(t, dump(t, db), want, "with one row mended")
	}
	without(derived...)
	if err := db.Blobs().Delete(t.Context(), repo, digest.FromString("two"), never); err != nil {
		t.Fatalf("without its edge, a blob can be deleted: %v", err)
	}
	put(t, db, repo, "two")
	if n, err := db.Reindex(t.Context(), repo); n != len(derived) || err != nil {
		t.Errorf("without all: %d, %v, want %d", n, err, len(derived))
	}
	got := dump(t, db)
	if err := db.Blobs().Delete(t.Context(), repo, digest.FromString("two"), never); err == nil {
		t.Error("a blob that a manifest needs is deleted")
	}
	key := string(buckets[linkRows]) + " " + string(digestRow(prefix, digest.FromString("two")))
	got[key] = want[key] // put anew, at another time
	same(t, got, want, "with all mended")

	// Too many, and wrong facts in a record.
	stale := []fact{}
	for _, f := range derived {
		k := bytes.Clone(f.key)
		k[len(k)-1] ^= 1
		stale = append(stale, fact{f.table, k, f.value})
	}
	want = dump(t, db)
	wrong := stored{Record: two}
	db.view(t.Context(), func(tx *tx) error {
		wrong, _, _ = tx.record(prefix, two.Desc.Digest)
		return nil
	})
	pushedAt := wrong.PushedAt
	wrong.Subject, wrong.Blobs, wrong.Desc.ArtifactType = "sha256:00", nil, "wrong"
	stale = append(stale, fact{manifestRows, digestRow(prefix, two.Desc.Digest), recordRow(&wrong)})
	if err := db.bolt.Update(func(b *bolt.Tx) error {
		for _, f := range stale {
			if err := b.Bucket(buckets[f.table]).Put(f.key, f.value); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if n, err := db.Reindex(t.Context(), repo); n != len(stale) || err != nil {
		t.Errorf("with rows too many: %d, %v, want %d", n, err, len(stale))
	}
	same(t, dump(t, db), want, "with too many removed")
	if rec, err := db.Manifests().Get(t.Context(), repo, two.Desc.Digest); err != nil || !rec.PushedAt.Equal(pushedAt) || len(rec.Blobs) != 2 {
		t.Errorf("the record is %+v, %v", rec, err)
	}
}

func TestReindexKeepsWhatItCannotRead(t *testing.T) {
	db := open(t, Options{Unsynced: true, CacheBytes: -1})
	rec := push(t, db, repo, "one", nil)
	opaque := manifest.Record{Raw: []byte("no JSON"), Blobs: rec.Blobs, Desc: ocispec.Descriptor{MediaType: rec.Desc.MediaType, Digest: digest.FromString("no JSON"), Size: 7}}
	if err := db.Manifests().Apply(t.Context(), repo, manifest.Change{Put: []manifest.Record{opaque}}); err != nil {
		t.Fatal(err)
	}
	want := dump(t, db)
	if n, err := db.Reindex(t.Context(), repo); n != 0 || !errors.Is(err, manifest.ErrInvalid) {
		t.Errorf("with bytes that cannot be parsed: %d, %v", n, err)
	}
	os.RemoveAll(filepath.Join(db.Dir, "objects"))
	if n, err := db.Reindex(t.Context(), repo); n != 0 || err == nil {
		t.Errorf("without bytes: %d, %v", n, err)
	}
	same(t, dump(t, db), want, "when nothing could be read")
}

// TestReindexTakesMemoryByTheNumberOfRows, and so time, of manifests that list many.
func TestReindexTakesMemoryByTheNumberOfRows(t *testing.T) {
	db := open(t, Options{Unsynced: true})
	allocated := func(n int) float64 {
		repo := fmt.Sprint("r", n)
		raw := fmt.Append(nil, n)
		rec := manifest.Record{Raw: raw, Desc: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: digest.FromBytes(raw), Size: int64(len(raw))}}
		for i := range n {
			rec.Manifests = append(rec.Manifests, digest.FromString(fmt.Sprint("m", i)))
			rec.Blobs = append(rec.Blobs, digest.FromString(fmt.Sprint("b", i)))
		}
		if err := db.Manifests().Apply(t.Context(), repo, manifest.Change{Put: []manifest.Record{rec}}); err != nil {
			t.Fatal(err)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for _, table := range []int{linkRows, manifestRows} {
			if n, err := db.removeStale(t.Context(), repo, table); n != 0 || err != nil {
				t.Fatal(n, err)
			}
		}
		runtime.ReadMemStats(&after)
		return float64(after.TotalAlloc - before.TotalAlloc)
	}
	if few, many := allocated(200), allocated(1000); many > 8*few {
		t.Errorf("%.0f bytes for 200, and %.0f for 1000", few, many)
	}
}
