package boltstore

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/examples/store/parts"
	"github.com/wharfage/wharfage/manifest"
)

const repo, otherRepo = "team/app", "team/app2"

// never is a cutoff that refuses nothing.
var never time.Time

func put(t testing.TB, db *DB, repo, content string) digest.Digest {
	t.Helper()
	desc := ocispec.Descriptor{Digest: digest.FromString(content), Size: int64(len(content))}
	if err := blob.Put(t.Context(), db.Blobs(), repo, desc, strings.NewReader(content)); err != nil {
		t.Fatal(err)
	}
	return desc.Digest
}

func read(t testing.TB, db *DB, repo string, dgst digest.Digest) (string, error) {
	t.Helper()
	r, _, err := db.Blobs().Open(t.Context(), repo, dgst, 0, -1)
	if err != nil {
		return "", err
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	return string(b), err
}

// push pushes an image of a layer, with a tag.
func push(t testing.TB, db *DB, repo, content string, subject *ocispec.Descriptor) manifest.Record {
	t.Helper()
	config, empty := manifest.Empty()
	put(t, db, repo, string(empty))
	layer := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: put(t, db, repo, content), Size: int64(len(content))}
	return pushDoc(t, db, repo, content, ocispec.Manifest{
		MediaType: ocispec.MediaTypeImageManifest, ArtifactType: "application/vnd.example", Subject: subject,
		Config: config, Layers: []ocispec.Descriptor{layer}, Annotations: map[string]string{"org.example": content},
	})
}

func pushDoc(t testing.TB, db *DB, repo, tag string, doc any) manifest.Record {
	t.Helper()
	var raw []byte
	switch doc := doc.(type) {
	case ocispec.Manifest:
		doc.SchemaVersion = 2
		raw, _ = json.Marshal(doc)
	case ocispec.Index:
		doc.SchemaVersion = 2
		raw, _ = json.Marshal(doc)
	}
	p := manifest.Pusher{Store: db.Manifests()}
	done, err := p.Push(t.Context(), repo, manifest.PushRequest{Raw: raw, Tags: []string{tag}})
	if err != nil {
		t.Fatal(err)
	}
	return done.Record
}

func TestWhatWasAcknowledgedOutlivesTheProcess(t *testing.T) {
	db := open(t, Options{MinPart: 1000})
	rec := push(t, db, repo, "layer", nil)
	u, err := db.Blobs().Begin(t.Context(), repo, digest.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if u, err = blob.Append(t.Context(), db.Blobs(), u, -1, strings.NewReader(strings.Repeat("x", 700))); err != nil {
			t.Fatal(err)
		}
	}
	db = reopen(t, db)
	got, err := db.Manifests().Get(t.Context(), repo, rec.Desc.Digest)
	if err != nil || !bytes.Equal(got.Raw, rec.Raw) {
		t.Errorf("Get = %q, %v", got.Raw, err)
	}
	if tag, err := db.Manifests().Resolve(t.Context(), repo, "layer"); err != nil || tag.Digest != rec.Desc.Digest {
		t.Errorf("Resolve = %v, %v", tag, err)
	}
	if got, err := read(t, db, repo, digest.FromString("layer")); got != "layer" {
		t.Errorf("the layer is %q, %v", got, err)
	}
	if u, err = db.Blobs().Lookup(t.Context(), repo, u.ID); err != nil {
		t.Fatal(err)
	}
	all := strings.Repeat("x", 2100)
	if err := blob.Finish(t.Context(), db.Blobs(), u, -1, nil, digest.FromString(all)); err != nil {
		t.Fatal(err)
	}
	if got, err := read(t, db, repo, digest.FromString(all)); got != all {
		t.Errorf("the upload is %d bytes, %v", len(got), err)
	}
}

func TestASecondOpenIsRefused(t *testing.T) {
	db := open(t, Options{Unsynced: true})
	if second, err := Open(Options{Dir: db.Dir}); !errors.Is(err, ErrInUse) {
		t.Fatalf("Open = %v, %v, want ErrInUse", second, err)
	}
}

func TestANewerSchemaIsRefused(t *testing.T) {
	db := open(t, Options{Unsynced: true})
	if err := db.bolt.Update(func(b *bolt.Tx) error {
		return b.Bucket(buckets[metaRows]).Put(schemaRow, numberRow(schema+1))
	}); err != nil {
		t.Fatal(err)
	}
	era := db.era.Load()
	db.Close()
	if newer, err := Open(Options{Dir: db.Dir}); !errors.Is(err, ErrSchema) {
		t.Fatalf("Open = %v, %v, want ErrSchema", newer, err)
	}
	b, err := bolt.Open(filepath.Join(db.Dir, "store.bolt"), 0o666, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	b.View(func(b *bolt.Tx) error {
		if got := number(b.Bucket(buckets[metaRows]).Get(eraRow)); got != era {
			t.Errorf("the era is %d, was %d: a store that is refused is not changed", got, era)
		}
		return nil
	})
}

func TestABlobOfAnotherRepositoryIsKeptOnce(t *testing.T) {
	db := open(t, Options{Unsynced: true, PackBelow: -1})
	dgst := put(t, db, repo, "content")
	before := objects(t, db)
	put(t, db, otherRepo, "content")
	if n := objects(t, db); n != before {
		t.Errorf("there are %d objects, were %d", n, before)
	}
	for _, repo := range []string{repo, otherRepo} {
		if err := db.Blobs().Delete(t.Context(), repo, dgst, never); err != nil {
			t.Fatal(err)
		}
		if n := objects(t, db); repo == otherRepo && n != before-1 {
			t.Errorf("there are %d objects when no repository has the blob, want %d", n, before-1)
		}
	}
}

func TestAFirstChunkWritesNothingBeforeItIsSaved(t *testing.T) {
	db := open(t, Options{Unsynced: true})
	before, tx := things(t, db), id(db)
	u, err := db.Blobs().Begin(t.Context(), repo, digest.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Blobs().Abort(t.Context(), u); err != nil {
		t.Fatal(err)
	}
	if u, err = db.Blobs().Begin(t.Context(), repo, digest.SHA256); err != nil {
		t.Fatal(err)
	}
	if got := id(db); things(t, db) != before || got != tx {
		t.Errorf("%d transactions and %d things of sessions without bytes", got-tx, things(t, db)-before)
	}
	if err := blob.Finish(t.Context(), db.Blobs(), u, -1, strings.NewReader("content"), digest.FromString("content")); err != nil {
		t.Fatal(err)
	}
	if got := id(db); got != tx+1 {
		t.Errorf("a blob in one request takes %d transactions", got-tx)
	}
	if len(db.fresh.sessions) != 0 {
		t.Error("the session is still in memory")
	}
}

func TestSessionsWithoutBytesAreBounded(t *testing.T) {
	db := open(t, Options{Unsynced: true, MaxSessions: 2})
	s := db.Blobs()
	var last blob.Upload
	for range 2 {
		u, err := s.Begin(t.Context(), repo, digest.SHA256)
		if err != nil {
			t.Fatal(err)
		}
		last = u
	}
	if _, err := s.Begin(t.Context(), repo, digest.SHA256); !errors.Is(err, blob.ErrTooMany) {
		t.Fatalf("Begin = %v, want ErrTooMany", err)
	}
	if _, err := blob.Append(t.Context(), s, last, -1, strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Begin(t.Context(), repo, digest.SHA256); err != nil {
		t.Errorf("with one that has bytes: %v", err)
	}
}

func TestSessionsAreListedWhereverTheyAre(t *testing.T) {
	db := open(t, Options{Unsynced: true})
	s := db.Blobs()
	var want []string
	for i := range 2*pageLen + 100 {
		u, err := s.Begin(t.Context(), repo, digest.SHA256)
		if err == nil && i%4 != 0 {
			u, err = blob.Append(t.Context(), s, u, -1, strings.NewReader("x"))
		}
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, u.ID)
	}
	slices.Sort(want)
	for _, after := range []int{-1, 0, 100, len(want) - 2, len(want) - 1} {
		last := ""
		if after >= 0 {
			last = want[after]
		}
		var got []string
		for u, err := range s.Sessions(t.Context(), last) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, u.ID)
			if u, err = blob.Append(t.Context(), s, u, -1, strings.NewReader("y")); err != nil { // which moves it
				t.Fatal(err)
			}
		}
		if !slices.Equal(got, want[after+1:]) {
			t.Errorf("%d sessions are listed after number %d, want %d in order", len(got), after, len(want)-after-1)
		}
	}
}

// stray writes an object as a call does that never comes to its transaction.
func stray(t *testing.T, db *DB) parts.Content {
	t.Helper()
	c, err := db.files.Put(t.Context(), strings.NewReader("stray"))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func sweep(t *testing.T, db *DB, cutoff time.Time, dry bool) (keys []string) {
	t.Helper()
	for o, err := range db.Blobs().Sweep(t.Context(), cutoff, dry) {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, o.Key)
	}
	return keys
}

func TestASweepFindsStraysAndNothingElse(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	db := open(t, Options{Unsynced: true, MinPart: 3, PackBelow: -1, Now: func() time.Time { return now }})
	dgst := put(t, db, repo, "content")
	rec := push(t, db, repo, "layer", nil)
	u, err := db.Blobs().Begin(t.Context(), repo, digest.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	if u, err = blob.Append(t.Context(), db.Blobs(), u, -1, strings.NewReader("chunk")); err != nil {
		t.Fatal(err)
	}
	os.WriteFile(filepath.Join(db.Dir, "objects", "foreign"), nil, 0o666)
	key := stray(t, db).Parts[0].Key

	now = now.Add(time.Hour)
	if got := sweep(t, db, now.Add(-time.Second), false); len(got) != 0 {
		t.Fatalf("a sweep removes %s, whose era is open", got)
	}
	now = now.Add(time.Hour)
	cutoff := now.Add(-time.Minute) // after the end of the stray's era
	for range 2 {
		if got := sweep(t, db, cutoff, true); !slices.Equal(got, []string{key}) {
			t.Fatalf("a dry sweep lists %s, want %s", got, key)
		}
	}
	if got := sweep(t, db, cutoff, false); !slices.Equal(got, []string{key}) {
		t.Fatalf("a sweep removes %s, want %s", got, key)
	}
	if got := sweep(t, db, cutoff, false); len(got) != 0 {
		t.Fatalf("a second sweep removes %s", got)
	}
	if got, err := read(t, db, repo, dgst); got != "content" {
		t.Errorf("the blob is %q, %v", got, err)
	}
	if got, err := db.Manifests().Get(t.Context(), repo, rec.Desc.Digest); err != nil || !bytes.Equal(got.Raw, rec.Raw) {
		t.Errorf("the manifest: %v", err)
	}
	if err := blob.Finish(t.Context(), db.Blobs(), u, -1, nil, digest.FromString("chunk")); err != nil {
		t.Errorf("the session: %v", err)
	}
	if _, err := os.Stat(filepath.Join(db.Dir, "objects", "foreign")); err != nil {
		t.Errorf("a file that is not the store's: %v", err)
	}
}

func TestAWriteThatASweepHasOvertakenIsRefused(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	db := open(t, Options{Unsynced: true, MinPart: 3, Now: func() time.Time { return now }})
	b := db.Blobs()
	overtake := func() { now = now.Add(time.Hour); sweep(t, db, now, false) }
	refused := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, parts.ErrEra) || errors.Is(err, blob.ErrConflict) || errors.Is(err, blob.ErrNotFound) || errors.Is(err, blob.ErrUploadNotFound) {
			t.Errorf("%s = %v, want ErrEra", what, err)
		}
	}
	c := stray(t, db)
	overtake()
	refused("Put", b.put(t.Context(), repo, digest.FromString("stray"), c))
	if _, err := read(t, db, repo, digest.FromString("stray")); !errors.Is(err, blob.ErrNotFound) {
		t.Errorf("the blob that was refused: %v", err)
	}
	for _, saved := range []bool{false, true} {
		u, err := b.Begin(t.Context(), repo, digest.SHA256)
		if err != nil {
			t.Fatal(err)
		}
		if saved {
			if u, err = blob.Append(t.Context(), b, u, -1, strings.NewReader("one")); err != nil {
				t.Fatal(err)
			}
		}
		next, err := b.Append(t.Context(), u, strings.NewReader("two"))
		if err != nil {
			t.Fatal(err)
		}
		overtake()
		refused("Save", b.Save(t.Context(), u, next))
		if next, err = b.Append(t.Context(), u, strings.NewReader("two")); err != nil {
			t.Fatal(err)
		}
		overtake()
		refused("Commit", b.Commit(t.Context(), u, next, digest.FromString("whatever")))
		if err := b.Abort(t.Context(), u); err != nil {
			t.Errorf("Abort of a session whose changes were refused: %v", err)
		}
	}
	if n := objects(t, db); n != 0 {
		t.Errorf("%d objects are left", n)
	}
	// A manifest's body, by way of Objects that a sweep comes in between.
	rec := manifest.Record{Raw: []byte("{}"), Desc: ocispec.Descriptor{Digest: digest.FromString("{}"), Size: 2}}
	db.files.Objects = late{db.files.Objects, overtake}
	refused("Apply", db.Manifests().Apply(t.Context(), repo, manifest.Change{Put: []manifest.Record{rec}}))
}

// late is followed by something after each Put.
type late struct {
	blob.Objects
	after func()
}

func (o late) Put(ctx context.Context, key string, r io.Reader) (int64, error) {
	n, err := o.Objects.Put(ctx, key, r)
	o.after()
	return n, err
}

func TestReopeningClosesAllEras(t *testing.T) {
	db := open(t, Options{Unsynced: true, PackBelow: -1})
	dgst := put(t, db, repo, "content")
	key := stray(t, db).Parts[0].Key
	db = reopen(t, db)
	later := stray(t, db)
	if got := sweep(t, db, time.Unix(0, 0), false); !slices.Equal(got, []string{key}) {
		t.Errorf("a sweep with a cutoff of long ago removes %s, want %s of a process that is dead", got, key)
	}
	if err := db.Blobs().put(t.Context(), repo, digest.FromString("stray"), later); err != nil {
		t.Errorf("a write of this process: %v", err)
	}
	if got, err := read(t, db, repo, dgst); got != "content" {
		t.Errorf("the blob is %q, %v", got, err)
	}
}

func TestMissingBytesAreNotErrNotFound(t *testing.T) {
	for name, lose := range map[string]func(db *DB, file string) error{
		"of an object": func(db *DB, _ string) error { return os.RemoveAll(filepath.Join(db.Dir, "objects")) },
		"of a pack":    func(_ *DB, file string) error { return os.Remove(file) },
		"at its end":   func(_ *DB, file string) error { return os.Truncate(file, 4) },
	} {
		t.Run(name, func(t *testing.T) {
			o := Options{Unsynced: true, CacheBytes: -1}
			if name == "of an object" {
				o.PackBelow = -1
			}
			db := open(t, o)
			rec := push(t, db, repo, "layer", nil)
			db = reopen(t, db)
			if err := lose(db, filepath.Join(db.Dir, "packs", "00000001")); err != nil {
				t.Fatal(err)
			}
			if _, err := read(t, db, repo, digest.FromString("layer")); err == nil || err == io.EOF || errors.Is(err, blob.ErrNotFound) {
				t.Errorf("Open = %v, want an error that is not ErrNotFound", err)
			}
			if _, err := db.Manifests().Get(t.Context(), repo, rec.Desc.Digest); err == nil || errors.Is(err, manifest.ErrNotFound) || errors.Is(err, blob.ErrNotFound) {
				t.Errorf("Get = %v, want an error that is not ErrNotFound", err)
			}
		})
	}
}

// An object that goes between the look at the rows and its opening.
func TestAReadBesideADeletion(t *testing.T) {
	db := open(t, Options{Unsynced: true, CacheBytes: -1})
	rec := push(t, db, repo, "layer", nil)
	dgst := digest.FromString("layer")
	var between func()
	db.files.Objects = early{db.files.Objects, func() {
		if f := between; f != nil {
			between = nil
			f()
		}
	}}
	remove := func() {
		if err := db.Manifests().Apply(t.Context(), repo, manifest.Change{Delete: []manifest.Removal{{Digest: rec.Desc.Digest}}}); err != nil {
			t.Error(err)
		}
		if err := db.Blobs().Delete(t.Context(), repo, dgst, never); err != nil {
			t.Error(err)
		}
	}
	between = func() { remove(); push(t, db, repo, "layer", nil) }
	if got, err := read(t, db, repo, dgst); got != "layer" {
		t.Errorf("a blob that was deleted and put again is %q, %v", got, err)
	}
	between = func() { remove(); push(t, db, repo, "layer", nil) }
	if got, err := db.Manifests().Get(t.Context(), repo, rec.Desc.Digest); err != nil || !bytes.Equal(got.Raw, rec.Raw) {
		t.Errorf("a manifest that was deleted and put again: %v", err)
	}
	between = remove
	if _, err := read(t, db, repo, dgst); !errors.Is(err, blob.ErrNotFound) {
		t.Errorf("a blob that was deleted: %v, want ErrNotFound", err)
	}
	push(t, db, repo, "layer", nil)
	between = remove
	if _, err := db.Manifests().Get(t.Context(), repo, rec.Desc.Digest); !errors.Is(err, manifest.ErrNotFound) {
		t.Errorf("a manifest that was deleted: %v, want ErrNotFound", err)
	}
}

// early does something before each Open.
type early struct {
	blob.Objects
	before func()
}

func (o early) Open(ctx context.Context, key string, off, n int64) (io.ReadCloser, blob.Object, error) {
	o.before()
	return o.Objects.Open(ctx, key, off, n)
}

func TestLargeBlobsMayBeFetchedElsewhere(t *testing.T) {
	for _, above := range []int64{0, 5} {
		db := open(t, Options{Unsynced: true, LinkAbove: above, PackBelow: 5, MinPart: 1})
		small, large := put(t, db, repo, "1234"), put(t, db, repo, "12345")
		db.Objects = linked{db.Objects}
		u, err := db.Blobs().Begin(t.Context(), repo, digest.SHA256)
		for _, chunk := range []string{"123", "456"} {
			if err == nil {
				u, err = blob.Append(t.Context(), db.Blobs(), u, -1, strings.NewReader(chunk))
			}
		}
		if err == nil {
			err = blob.Finish(t.Context(), db.Blobs(), u, -1, nil, digest.FromString("123456"))
		}
		if err != nil {
			t.Fatal(err)
		}
		for dgst, link := range map[digest.Digest]bool{small: false, large: above > 0, digest.FromString("123456"): false} {
			url, err := db.Blobs().Redirect(t.Context(), repo, dgst)
			if err != nil || (url != "") != link {
				t.Errorf("above %d: Redirect(%s) = %q, %v, want a URL: %t", above, dgst, url, err, link)
			}
		}
		if url, err := db.Blobs().Redirect(t.Context(), otherRepo, large); url != "" || (above > 0) != errors.Is(err, blob.ErrNotFound) {
			t.Errorf("above %d: Redirect from another repository = %q, %v", above, url, err)
		}
	}
}

type linked struct{ blob.Objects }

func (linked) Link(ctx context.Context, key string, ttl time.Duration) (string, error) {
	return "https://example.com/" + key, nil
}

func TestTheCacheIsBoundedAndItsBytesAreTheCallers(t *testing.T) {
	c := cache{most: 4000}
	var all sync.WaitGroup
	for g := range 4 {
		all.Go(func() {
			for i := range 1000 {
				key := fmt.Sprint((i + g) % 100)
				if v, ok := c.get(key); ok && v != strings.Repeat(key, 20) {
					t.Errorf("%s is %q", key, v)
				}
				c.put(key, strings.Repeat(key, 20))
			}
		})
	}
	all.Wait()
	if n := len(c.now) + len(c.old); n > 40 || n == 0 {
		t.Errorf("%d entries are kept", n)
	}
	c.put("large", string(make([]byte, 3000)))
	if _, ok := c.get("large"); ok {
		t.Error("one entry takes it all")
	}
	db := open(t, Options{Unsynced: true})
	rec := push(t, db, repo, "layer", nil)
	for range 3 {
		got, err := db.Manifests().Get(t.Context(), repo, rec.Desc.Digest)
		if err != nil || !bytes.Equal(got.Raw, rec.Raw) {
			t.Fatalf("Get = %q, %v", got.Raw, err)
		}
		clear(got.Raw)
	}
}

func TestDigestsInKeysSortAsTheirText(t *testing.T) {
	var texts []string
	for i := range 40 {
		texts = append(texts, string(digest.FromString(fmt.Sprint(i))), string(digest.SHA512.FromString(fmt.Sprint(i))))
	}
	for _, sum := range []string{strings.Repeat("0", 64), strings.Repeat("f", 64), strings.Repeat("0", 63) + "1", "9" + strings.Repeat("f", 63), "a" + strings.Repeat("0", 63)} {
		texts = append(texts, "sha256:"+sum, "sha512:"+sum+sum)
	}
	slices.Sort(texts)
	keys := make([][]byte, len(texts))
	for i, text := range texts {
		keys[i] = digestRow(nil, digest.Digest(text))
		if got, n := readDigest(keys[i]); string(got) != text || n != len(keys[i]) {
			t.Fatalf("%s is read as %s", text, got)
		}
	}
	if !slices.IsSortedFunc(keys, bytes.Compare) {
		t.Fatal("keys are in another order than texts")
	}
	after := []string{"", "a", "sha1:ff", "sha256", "sha256:", "sha256:z", "sha256:0", "sha256:9", "sha256::", "sha256:a", "sha256:A", "sha256:f", "sha256:g", "sha384:00", "sha512", "sha512:", "sha512:F", "sha512:ffff", "sha512:g", "zz"}
	for _, text := range texts {
		after = append(after, text, text[:len(text)-1], text+"-", text[:20]+"~", text[:21]+"-", text[:len(text)-1]+"~", text[:len(text)-1]+"-")
	}
	for _, text := range after {
		least := afterDigest(text)
		for i, key := range keys {
			if got, want := bytes.Compare(key, least) >= 0, texts[i] > text; got != want {
				t.Fatalf("%s after %q: %t, want %t", texts[i], text, got, want)
			}
		}
	}
}

func TestKeysOfObjectsSortByTime(t *testing.T) {
	var last []byte
	for i := range 1000 {
		key := parts.NewKey(uint64(i/100), time.Unix(int64(i), 0))
		packed := appendKey(nil, key)
		if got := unpackKey(string(packed)); got != key || len(packed) != shortLen {
			t.Fatalf("%s is read as %s", key, got)
		}
		if bytes.Compare(packed, last) <= 0 {
			t.Fatalf("%s comes before an older one", key)
		}
		last = packed
	}
}

func TestDamagedRowsAreErrors(t *testing.T) {
	rec := stored{Record: manifest.Record{
		Desc:      ocispec.Descriptor{MediaType: "a/b", Digest: digest.FromString("x"), Size: 3, ArtifactType: "c/d", Annotations: map[string]string{"k": "v", "": ""}},
		Subject:   "blake3:00",
		Manifests: []digest.Digest{digest.FromString("m"), "multihash+base58:QmR"},
		Blobs:     []digest.Digest{digest.SHA512.FromString("b")},
	}, body: parts.Part{Key: parts.NewKey(1, time.Unix(5, 6)), Size: 3}}
	row := recordRow(&rec)
	got, err := readRecord(rec.Desc.Digest, row)
	if err != nil || fmt.Sprint(got) != fmt.Sprint(rec) || !got.PushedAt.IsZero() {
		t.Fatalf("read %+v, %v, want %+v", got, err, rec)
	}
	for n := range row {
		if _, err := readRecord(rec.Desc.Digest, row[:n]); !errors.Is(err, errRow) {
			t.Fatalf("%d of %d bytes: %v", n, len(row), err)
		}
	}
	row[0]++
	if _, err := readRecord(rec.Desc.Digest, row); !errors.Is(err, errRow) {
		t.Errorf("another form: %v", err)
	}
}

// TestATouchNeverGoesBack: who has begun before, and waited, takes nothing of a promise.
func TestATouchNeverGoesBack(t *testing.T) {
	late := time.Now()
	now := late
	db := open(t, Options{Unsynced: true, Now: func() time.Time { return now }})
	dgst := put(t, db, repo, "content")
	put(t, db, otherRepo, "content")
	now = now.Add(-time.Hour)
	put(t, db, repo, "content")
	if err := db.Blobs().Mount(t.Context(), otherRepo, repo, dgst); err != nil {
		t.Fatal(err)
	}
	infos, err := db.Blobs().Stat(t.Context(), repo, []digest.Digest{dgst})
	if err != nil || !infos[0].TouchedAt.Equal(late) {
		t.Errorf("touched at %v, %v, want %v", infos[0].TouchedAt, err, late)
	}
}

// TestAClockThatWentBackKeepsNoErasOpen sweeps with a clock that is right again.
func TestAClockThatWentBackKeepsNoErasOpen(t *testing.T) {
	now := time.Now()
	db := open(t, Options{Unsynced: true, PackBelow: -1, Now: func() time.Time { return now }})
	right := now
	now = now.AddDate(50, 0, 0)
	sweep(t, db, now.Add(-time.Hour), false)
	now = right
	key := stray(t, db).Parts[0].Key
	var got []string
	for range 3 {
		now = now.Add(2 * time.Hour)
		got = append(got, sweep(t, db, now.Add(-time.Hour), false)...)
	}
	if !slices.Equal(got, []string{key}) {
		t.Errorf("sweeps remove %q, want %s", got, key)
	}
}
