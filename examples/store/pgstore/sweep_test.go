package pgstore

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/examples/store/parts"
)

// never and always are cutoffs that give all the grace there is, and none.
var never, always = time.Unix(0, 0), time.Now().AddDate(1, 0, 0)

func sweep(t testing.TB, db *DB, cutoff time.Time, dry bool) (keys []string) {
	t.Helper()
	for o, err := range db.Blobs().Sweep(t.Context(), cutoff, dry) {
		if err != nil {
			t.Fatalf("Sweep: %v", err)
		}
		keys = append(keys, o.Key)
	}
	return keys
}

func putObject(t testing.TB, db *DB, key string) string {
	t.Helper()
	if _, err := db.o.Objects.Put(t.Context(), key, strings.NewReader("stray")); err != nil {
		t.Fatal(err)
	}
	return key
}

func TestSweepFindsStraysAndNothingElse(t *testing.T) {
	db := open(t, Options{MinPart: 4})
	dgst := put(t, db, "r", "a blob")
	u, err := db.Blobs().Begin(t.Context(), "r", digest.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	u, err = blob.Append(t.Context(), db.Blobs(), u, -1, strings.NewReader("a session's"))
	if err != nil {
		t.Fatal(err)
	}
	stray := putObject(t, db, parts.NewKey(1, time.Now()))
	foreign := putObject(t, db, "somebody/elses")
	future := putObject(t, db, parts.NewKey(1<<30, time.Now())) // as after a restore from a backup

	if got := sweep(t, db, never, false); len(got) != 0 {
		t.Fatalf("with all the grace there is, it takes %q", got)
	}
	before := things(t, db)
	for range 2 {
		if got := sweep(t, db, always, true); !slices.Equal(got, []string{stray}) {
			t.Fatalf("a dry one finds %q, want %q", got, stray)
		}
	}
	if after := things(t, db); after != before {
		t.Fatalf("a dry one has changed something: %d things, were %d", after, before)
	}
	if err := tryPut(t.Context(), db, "r", "another"); err != nil {
		t.Fatalf("Put after a dry one: %v", err)
	}
	if got := sweep(t, db, always, false); !slices.Equal(got, []string{stray}) {
		t.Fatalf("it takes %q, want %q", got, stray)
	}
	if got := sweep(t, db, always, false); len(got) != 0 {
		t.Fatalf("a second one takes %q", got)
	}
	for _, key := range []string{foreign, future} {
		r, _, err := db.o.Objects.Open(t.Context(), key, 0, -1)
		if err != nil {
			t.Fatalf("object %s: %v", key, err)
		}
		r.Close()
	}
	if got, err := read(t.Context(), db, "r", dgst); got != "a blob" {
		t.Fatalf("the blob is %q, %v", got, err)
	}
	// The session's objects are of an era that is closed by now.
	u, err = blob.Append(t.Context(), db.Blobs(), u, -1, strings.NewReader(" content"))
	if err == nil {
		err = blob.Finish(t.Context(), db.Blobs(), u, -1, strings.NewReader("!"), digest.FromString("a session's content!"))
	}
	if err != nil {
		t.Fatalf("a session that is older than the sweep: %v", err)
	}
}

// spy calls look before the end.
type spy struct {
	r    io.Reader
	look func()
}

func (s *spy) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err == io.EOF && s.look != nil {
		s.look()
		s.look = nil
	}
	return n, err
}

func TestAKeyOfAClosedEraIsRefused(t *testing.T) {
	dbs := two(t)
	dbs[1].o.Objects = &objects{Objects: dbs[1].o.Objects} // no blob.ObjectSweeper, which would fail calls before we do
	desc := ocispec.Descriptor{Digest: digest.FromString("late"), Size: 4}
	slow := func(cutoff time.Time) io.Reader {
		return &spy{strings.NewReader("late"), func() { sweep(t, dbs[1], cutoff, false) }}
	}
	b := dbs[0].Blobs()
	err := blob.Put(t.Context(), b, "r", desc, slow(always))
	if !errors.Is(err, parts.ErrEra) || errors.Is(err, blob.ErrNotFound) || errors.Is(err, blob.ErrConflict) {
		t.Fatalf("Put across a sweep without grace = %v, want ErrEra", err)
	}
	if n := things(t, dbs[0]); n != 0 {
		t.Fatalf("%d things are left", n)
	}
	if err := blob.Put(t.Context(), b, "r", desc, slow(time.Now().Add(-time.Hour))); err != nil {
		t.Fatalf("Put across a sweep with grace: %v", err)
	}
	if err := b.Delete(t.Context(), "r", desc.Digest, time.Time{}); err != nil {
		t.Fatal(err)
	}

	dbs[0].o.MinPart = 4
	u, err := b.Begin(t.Context(), "r", digest.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	before := things(t, dbs[0])
	if _, err := blob.Append(t.Context(), b, u, -1, slow(always)); !errors.Is(err, parts.ErrEra) {
		t.Fatalf("Append across a sweep without grace = %v, want ErrEra", err)
	}
	if err := blob.Finish(t.Context(), b, u, -1, slow(always), desc.Digest); !errors.Is(err, parts.ErrEra) {
		t.Fatalf("Finish across a sweep without grace = %v, want ErrEra", err)
	}
	if after := things(t, dbs[0]); after != before {
		t.Fatalf("%d things, were %d", after, before)
	}
	if err := blob.Finish(t.Context(), b, u, -1, strings.NewReader("late"), desc.Digest); err != nil {
		t.Fatalf("the session is not as it was: %v", err)
	}
}

func TestAContentThatIsThereIsSharedAndTheOwnObjectDropped(t *testing.T) {
	db := open(t, Options{MinPart: 1})
	dgst := put(t, db, "a", "content")
	before := things(t, db)
	put(t, db, "b", "content")
	u, err := db.Blobs().Begin(t.Context(), "c", digest.SHA256)
	if err == nil {
		u, err = blob.Append(t.Context(), db.Blobs(), u, -1, strings.NewReader("cont"))
	}
	if err == nil {
		err = blob.Finish(t.Context(), db.Blobs(), u, -1, strings.NewReader("ent"), dgst)
	}
	if err != nil {
		t.Fatal(err)
	}
	if after := things(t, db); after != before+2 {
		t.Fatalf("there are %d things, want %d and two links", after, before)
	}
}

// objects lets a test step in.
type objects struct {
	blob.Objects
	opening func()
	wrote   func()
}

func (o *objects) Open(ctx context.Context, key string, off, n int64) (io.ReadCloser, blob.Object, error) {
	if do := o.opening; do != nil {
		o.opening = nil
		do()
	}
	return o.Objects.Open(ctx, key, off, n)
}

func (o *objects) Put(ctx context.Context, key string, r io.Reader) (int64, error) {
	n, err := o.Objects.Put(ctx, key, r)
	if do := o.wrote; do != nil {
		o.wrote = nil
		do()
	}
	return n, err
}

func TestOpenLooksAgainWhenAnObjectIsMissing(t *testing.T) {
	db := open(t, Options{})
	o := &objects{Objects: db.o.Objects}
	db.o.Objects = o
	dgst := put(t, db, "r", "content")
	remove := func() {
		if err := db.Blobs().Delete(t.Context(), "r", dgst, time.Time{}); err != nil {
			t.Error(err)
		}
	}
	o.opening = func() {
		remove()
		put(t, db, "r", "content")
	}
	if got, err := read(t.Context(), db, "r", dgst); got != "content" {
		t.Errorf("deleted and put again meanwhile: %q, %v", got, err)
	}
	o.opening = remove
	if _, err := read(t.Context(), db, "r", dgst); !errors.Is(err, blob.ErrNotFound) {
		t.Errorf("deleted meanwhile: %v, want ErrNotFound", err)
	}
	put(t, db, "r", "content")
	for _, key := range keysThere(t, db) {
		if err := db.o.Objects.Delete(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := read(t.Context(), db, "r", dgst); err == nil || errors.Is(err, blob.ErrNotFound) {
		t.Errorf("bytes that are lost: %v, want an error that is not ErrNotFound", err)
	}
}

type linker struct{ blob.Objects }

func (linker) Link(_ context.Context, key string, ttl time.Duration) (string, error) {
	return "link:" + key + ":" + ttl.String(), nil
}

func TestRedirectSendsLargeBlobsOfOneObjectElsewhere(t *testing.T) {
	db := open(t, Options{LinkAbove: 5, MinPart: 1})
	b := db.Blobs()
	redirect := func(dgst digest.Digest) string {
		t.Helper()
		url, err := b.Redirect(t.Context(), "r", dgst)
		if err != nil {
			t.Fatal(err)
		}
		return url
	}
	large, small := put(t, db, "r", "large"), put(t, db, "r", "tiny")
	if url := redirect(large); url != "" {
		t.Errorf("objects without links: %q", url)
	}
	db.o.Objects = linker{db.o.Objects}
	if url := redirect(large); !strings.HasPrefix(url, "link:") || !strings.HasSuffix(url, ":15m0s") {
		t.Errorf("a large blob: %q", url)
	}
	if url := redirect(small); url != "" {
		t.Errorf("a small blob: %q", url)
	}
	u, err := b.Begin(t.Context(), "r", digest.SHA256)
	if err == nil {
		u, err = blob.Append(t.Context(), b, u, -1, strings.NewReader("two "))
	}
	if err == nil {
		err = blob.Finish(t.Context(), b, u, -1, strings.NewReader("objects"), digest.FromString("two objects"))
	}
	if err != nil {
		t.Fatal(err)
	}
	if url := redirect(digest.FromString("two objects")); url != "" {
		t.Errorf("a blob of two objects: %q", url)
	}
	if _, err := b.Redirect(t.Context(), "other", large); !errors.Is(err, blob.ErrNotFound) {
		t.Errorf("a blob that is not there: %v", err)
	}
}
