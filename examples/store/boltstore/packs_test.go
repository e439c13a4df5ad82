package boltstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/blob"
)

// packed returns how long each pack is, by its number.
func packed(t testing.TB, db *DB) map[uint32]int64 {
	t.Helper()
	numbers, err := db.packs.numbers()
	if err != nil {
		t.Fatal(err)
	}
	sizes := map[uint32]int64{}
	for _, n := range numbers {
		info, err := os.Stat(db.packs.path(n))
		if err != nil {
			t.Fatal(err)
		}
		sizes[n] = info.Size()
	}
	return sizes
}

func TestShortContentSharesFiles(t *testing.T) {
	db := open(t, Options{Unsynced: true, PackBelow: 1000})
	for i, size := range []int{0, 1, 999, 1000, 1001, 5000} {
		content := strings.Repeat(fmt.Sprint(i), size)
		dgst := put(t, db, repo, content)
		if got, err := read(t, db, repo, dgst); got != content {
			t.Errorf("%d bytes are read as %d, %v", size, len(got), err)
		}
	}
	if n, sizes := objects(t, db), packed(t, db); n != 3 || len(sizes) != 1 || sizes[1] != 1000 {
		t.Errorf("there are %d objects and packs of %v bytes, want 3 objects and 1000 bytes in one pack", n, sizes)
	}
}

func TestAPartOfPackedContent(t *testing.T) {
	db := open(t, Options{Unsynced: true})
	put(t, db, repo, "before")
	dgst := put(t, db, repo, "0123456789")
	put(t, db, repo, "after")
	for off := range int64(11) {
		for n := int64(-1); n < 13; n++ {
			want := "0123456789"[off:]
			if n >= 0 {
				want = want[:min(n, int64(len(want)))]
			}
			r, _, err := db.Blobs().Open(t.Context(), repo, dgst, off, n)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(iotest.OneByteReader(r)); string(got) != want || err != nil {
				t.Errorf("%d bytes from %d are %q, %v, want %q", n, off, got, err, want)
			}
			r.Close()
		}
	}
}

// A body that was cut ends with this error.
func TestUnexpectedEOFIsAFailure(t *testing.T) {
	db := open(t, Options{Unsynced: true})
	cut := io.MultiReader(strings.NewReader("half"), iotest.ErrReader(io.ErrUnexpectedEOF))
	if err := db.Blobs().Put(t.Context(), repo, ocispec.Descriptor{Digest: digest.FromString("half")}, cut); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("Put = %v", err)
	}
	if _, err := read(t, db, repo, digest.FromString("half")); !errors.Is(err, blob.ErrNotFound) {
		t.Errorf("what was cut is there: %v", err)
	}
}

func TestNoProcessWritesToThePackOfAnother(t *testing.T) {
	db := open(t, Options{Unsynced: true})
	one := put(t, db, repo, "one")
	db = reopen(t, db)
	two := put(t, db, repo, "two")
	if sizes := packed(t, db); len(sizes) != 2 || sizes[1] != 3 || sizes[2] != 3 {
		t.Errorf("packs have %v bytes", sizes)
	}
	for dgst, want := range map[digest.Digest]string{one: "one", two: "two"} {
		if got, err := read(t, db, repo, dgst); got != want {
			t.Errorf("%s is %q, %v", dgst, got, err)
		}
	}
}

func TestNothingIsAcknowledgedAfterAFailedSync(t *testing.T) {
	db := open(t, Options{})
	p := db.packs
	before := put(t, db, repo, "before")
	_, first, err := p.write("", []byte("first"))
	if err != nil {
		t.Fatal(err)
	}
	_, second, err := p.write("", []byte("second"))
	if err != nil {
		t.Fatal(err)
	}
	c := p.current
	good := c.file
	if c.file, err = os.Open(os.DevNull); err != nil {
		t.Fatal(err)
	}
	if err := second.sync(t.Context()); err == nil && runtime.GOOS != "windows" { // where the null device can be synced
		t.Error("a sync that failed says that all is well")
	}
	c.file.Close()
	c.file = good
	if err := first.sync(t.Context()); err == nil && runtime.GOOS != "windows" {
		t.Error("a sync after one that failed says that all is well")
	}
	if put(t, db, repo, "after"); p.current == c && runtime.GOOS != "windows" {
		t.Error("the pack is written to")
	}
	if got, err := read(t, db, repo, before); got != "before" {
		t.Errorf("what was synced before is %q, %v", got, err)
	}
}

// fillBlobs puts blobs of 100 bytes, and returns them.
func fillBlobs(t testing.TB, db *DB, from, to int) map[digest.Digest]string {
	all := map[digest.Digest]string{}
	for i := from; i < to; i++ {
		content := fmt.Sprintf("%0100d", i)
		all[put(t, db, repo, content)] = content
	}
	return all
}

func remove(t testing.TB, db *DB, all map[digest.Digest]string, n int) {
	for dgst := range all {
		if n--; n < 0 {
			return
		}
		if err := db.Blobs().Delete(t.Context(), repo, dgst, never); err != nil {
			t.Fatal(err)
		}
		delete(all, dgst)
	}
}

func allRead(t testing.TB, db *DB, all map[digest.Digest]string) {
	t.Helper()
	for dgst, want := range all {
		if got, err := read(t, db, repo, dgst); got != want {
			t.Fatalf("%s is %q, %v", dgst, got, err)
		}
	}
}

func TestASweepGivesBackTheSpaceOfPackedContent(t *testing.T) {
	db := open(t, Options{Unsynced: true})
	all := fillBlobs(t, db, 0, 100)
	db = reopen(t, db)
	for dgst, content := range fillBlobs(t, db, 100, 200) {
		all[dgst] = content
	}
	sweep(t, db, time.Now(), false)
	if sizes := packed(t, db); len(sizes) != 2 || sizes[1]+sizes[2] != 20_000 {
		t.Fatalf("packs with nothing to give back have %v bytes after a sweep", sizes)
	}
	for len(all) > 0 {
		remove(t, db, all, 30)
		for range 2 {
			sweep(t, db, time.Now(), true)
		}
		sweep(t, db, time.Now(), false)
		var sum int64
		for _, size := range packed(t, db) {
			sum += size
		}
		if most := int64(len(all)) * 100 * 16 / 15; sum > most {
			t.Errorf("%d bytes are in packs when %d are in use", sum, len(all)*100)
		}
		allRead(t, db, all)
		if len(all)%20 == 0 {
			db = reopen(t, db)
			allRead(t, db, all)
		}
	}
}

// What a crash between the move and the removal leaves is of no use, and goes.
func TestAPackThatWasMovedAndNotRemoved(t *testing.T) {
	db := open(t, Options{Unsynced: true})
	all := fillBlobs(t, db, 0, 10)
	remove(t, db, all, 5)
	old, err := os.ReadFile(db.packs.path(1))
	if err != nil {
		t.Fatal(err)
	}
	sweep(t, db, time.Now(), false)
	if err := os.WriteFile(db.packs.path(1), old, 0o666); err != nil {
		t.Fatal(err)
	}
	db = reopen(t, db)
	sweep(t, db, time.Now(), false)
	if sizes := packed(t, db); len(sizes) != 1 || sizes[2] != 500 {
		t.Errorf("packs have %v bytes, want 500 in the second", sizes)
	}
	allRead(t, db, all)
}

func TestWhatCannotBeReadStaysAndStopsNothingElse(t *testing.T) {
	db := open(t, Options{Unsynced: true})
	fillBlobs(t, db, 0, 10)
	db = reopen(t, db)
	sound := fillBlobs(t, db, 10, 20)
	for i := range 5 {
		if err := db.Blobs().Delete(t.Context(), repo, digest.FromString(fmt.Sprintf("%0100d", i)), never); err != nil {
			t.Fatal(err)
		}
	}
	remove(t, db, sound, 5)
	db = reopen(t, db)
	if err := os.Truncate(db.packs.path(1), 950); err != nil {
		t.Fatal(err)
	}
	failures := sweepFailures(t, db, time.Now())
	if sizes := packed(t, db); failures != 1 || len(sizes) != 2 || sizes[1] != 950 || sizes[3] != 900 {
		t.Errorf("%d failures, and packs of %v bytes, want the first as it was, and the rest moved", failures, sizes)
	}
	allRead(t, db, sound)
}

// sweepFailures returns how many errors a sweep tells.
func sweepFailures(t *testing.T, db *DB, cutoff time.Time) (n int) {
	for _, err := range db.Blobs().Sweep(t.Context(), cutoff, false) {
		if err != nil {
			n++
		}
	}
	return n
}

func TestAPackThatCannotBeReadKeepsNoFilesOfACrash(t *testing.T) {
	db := open(t, Options{Unsynced: true})
	remove(t, db, fillBlobs(t, db, 0, 5), 5)
	fillBlobs(t, db, 5, 10)
	db = reopen(t, db)
	if err := os.Truncate(db.packs.path(1), 950); err != nil {
		t.Fatal(err)
	}
	left := filepath.Join(db.Dir, "objects", "~tmp", "LEFT")
	if err := os.MkdirAll(filepath.Dir(left), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(left, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	failures := sweepFailures(t, db, time.Now().Add(time.Hour))
	if _, err := os.Stat(left); failures != 1 || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%d failures, and the file that a crash has left: %v", failures, err)
	}
}

// On a full disk nothing can be moved, and what needs no move gives its space back.
func TestPacksOfNothingGoWhenOthersCannotBeMoved(t *testing.T) {
	db := open(t, Options{Unsynced: true})
	some := fillBlobs(t, db, 0, 10)
	db = reopen(t, db)
	none := fillBlobs(t, db, 10, 20)
	remove(t, db, some, 5)
	remove(t, db, none, 10)
	db = reopen(t, db)
	stays := fillBlobs(t, db, 20, 21)
	c := db.packs.current
	good := c.file
	var err error
	if c.file, err = os.Open(good.Name()); err != nil { // which cannot be written to
		t.Fatal(err)
	}
	failures := sweepFailures(t, db, time.Now())
	if sizes := packed(t, db); failures != 1 || len(sizes) != 2 || sizes[1] != 1000 || sizes[3] != 100 {
		t.Errorf("%d failures, and packs of %v bytes, want one, and the first and the third as they were", failures, sizes)
	}
	c.file.Close()
	c.file = good
	sweep(t, db, time.Now(), false)
	if sizes := packed(t, db); len(sizes) != 1 || sizes[3] != 600 {
		t.Errorf("when all can be moved, packs have %v bytes", sizes)
	}
	allRead(t, db, some)
	allRead(t, db, stays)
}

// looking is a context that does something whenever it is asked.
type looking struct {
	context.Context
	look func()
}

func (c looking) Err() error {
	c.look()
	return c.Context.Err()
}

// Packs are not all there twice before the first of them goes.
func TestASweepTakesLittleSpaceBeforeItGivesSomeBack(t *testing.T) {
	const blobs, lost, n = 20, 4, 16
	db := open(t, Options{Unsynced: true})
	db.packs.atOnce = 2 * blobs * 100
	all := map[digest.Digest]string{}
	for i := range n {
		some := fillBlobs(t, db, i*blobs, (i+1)*blobs)
		remove(t, db, some, lost)
		maps.Copy(all, some)
		db.packs.writing.Lock()
		db.packs.turn()
		db.packs.writing.Unlock()
	}
	var most int64
	ctx := looking{t.Context(), func() {
		var sum int64
		for _, size := range packed(t, db) {
			sum += size
		}
		most = max(most, sum)
	}}
	for _, err := range db.Blobs().Sweep(ctx, time.Now(), false) {
		t.Error(err)
	}
	if limit := int64(n*blobs*100) + db.packs.atOnce; most > limit {
		t.Errorf("packs have up to %d bytes during a sweep, want %d at most", most, limit)
	}
	if sizes := packed(t, db); len(sizes) != 1 {
		t.Errorf("packs have %v bytes when %d are in use", sizes, len(all)*100)
	}
	allRead(t, db, all)
}

// What is put and not yet referred to stays while its era is open.
func TestASweepLeavesWhatIsPending(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	db := open(t, Options{Unsynced: true, Now: func() time.Time { return now }})
	fillBlobs(t, db, 0, 10) // of which a stray is little
	c := stray(t, db)
	sweep(t, db, now.Add(-time.Hour), false)
	if err := db.Blobs().put(t.Context(), repo, digest.FromString("stray"), c); err != nil {
		t.Fatal(err)
	}
	if got, err := read(t, db, repo, digest.FromString("stray")); got != "stray" {
		t.Errorf("the blob is %q, %v", got, err)
	}
	stray(t, db)
	if now = now.Add(time.Hour); len(db.packs.pending) != 1 {
		t.Fatalf("%d are pending", len(db.packs.pending))
	}
	for range 2 {
		sweep(t, db, now, false)
	}
	if n := len(db.packs.pending); n != 0 {
		t.Errorf("%d are pending, in eras that are closed", n)
	}
	if got, err := read(t, db, repo, digest.FromString("stray")); got != "stray" {
		t.Errorf("the blob is %q, %v", got, err)
	}
}

// Readers and writers never notice that content moves.
func TestSweepsBesideReadersAndWriters(t *testing.T) {
	db := open(t, Options{Unsynced: true})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stays := fillBlobs(t, db, 0, 50)
	var all sync.WaitGroup
	for w := range 3 {
		all.Go(func() {
			defer cancel()
			for i := range 200 {
				content := fmt.Sprintf("%0100d of writer %d", i, w)
				dgst := put(t, db, repo, content)
				if got, err := read(t, db, repo, dgst); got != content {
					t.Errorf("%q is %q, %v", content, got, err)
				}
				if err := db.Blobs().Delete(context.Background(), repo, dgst, never); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Go(func() {
		for ctx.Err() == nil {
			for dgst, want := range stays {
				if got, err := read(t, db, repo, dgst); got != want {
					t.Errorf("%s is %q, %v", dgst, got, err)
				}
			}
		}
	})
	for ctx.Err() == nil {
		sweep(t, db, time.Now().Add(-time.Hour), false)
	}
	all.Wait()
	sweep(t, db, time.Now().Add(time.Hour), false)
	if sizes := packed(t, db); len(sizes) != 1 {
		t.Errorf("packs have %v bytes when 50 blobs of 100 are left", sizes)
	}
	if n := len(db.packs.open); n > 1 {
		t.Errorf("%d files are open", n)
	}
	allRead(t, db, stays)
}

func TestFewFilesAreOpen(t *testing.T) {
	db := open(t, Options{Unsynced: true})
	all := map[digest.Digest]string{}
	for i := range 2 * openPacks {
		for dgst, content := range fillBlobs(t, db, i, i+1) {
			all[dgst] = content
		}
		db.packs.writing.Lock()
		db.packs.turn()
		db.packs.writing.Unlock()
	}
	for range 2 {
		allRead(t, db, all)
	}
	if n := len(db.packs.open); n > openPacks {
		t.Errorf("%d files are open, want %d at most", n, openPacks)
	}
}

func TestPackBelowMayBeAnotherEachTime(t *testing.T) {
	db := open(t, Options{Unsynced: true})
	var all []string
	for i, below := range []int{0, -1, 10, -1, 0} {
		db.Close()
		db = open(t, Options{Dir: db.Dir, Unsynced: true, CacheBytes: -1, PackBelow: below})
		for _, size := range []int{1, 20, 40 << 10} {
			all = append(all, strings.Repeat(fmt.Sprint(i), size))
			put(t, db, repo, all[len(all)-1])
		}
		rec := push(t, db, repo, fmt.Sprint("layer", i), nil)
		db.Close()
		db = open(t, Options{Dir: db.Dir, Unsynced: true, CacheBytes: -1, PackBelow: -1})
		if got, err := db.Manifests().Get(t.Context(), repo, rec.Desc.Digest); err != nil || !bytes.Equal(got.Raw, rec.Raw) {
			t.Errorf("PackBelow was %d: %q, %v", below, got.Raw, err)
		}
		if err := db.Blobs().Delete(t.Context(), repo, digest.FromString(all[len(all)-3]), never); err != nil {
			t.Fatal(err)
		}
		all = slices.Delete(all, len(all)-3, len(all)-2)
		if got := sweep(t, db, time.Now().Add(time.Hour), false); len(got) > 0 {
			t.Errorf("strays: %q", got)
		}
		for _, content := range all {
			r, _, err := db.Blobs().Open(t.Context(), repo, digest.FromString(content), 0, -1)
			if err != nil {
				t.Fatal(err)
			}
			var got strings.Builder
			if _, err := io.Copy(&got, r); err != nil || got.String() != content {
				t.Errorf("PackBelow was %d: %d bytes of %d, %v", below, got.Len(), len(content), err)
			}
			r.Close()
		}
	}
}
