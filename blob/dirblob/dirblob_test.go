package dirblob

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/blob/blobtest"
)

func TestStore(t *testing.T) {
	blobtest.TestStore(t, blobtest.Options{
		New: func(t testing.TB) blob.Store { return &Store{Dir: t.TempDir(), Unsynced: true} },
		Reopen: func(t testing.TB, s blob.Store) blob.Store {
			return &Store{Dir: s.(*Store).Dir, Unsynced: true}
		},
		SetNow:   func(s blob.Store, now func() time.Time) { s.(*Store).Now = now },
		SetGuard: func(s blob.Store, g blob.Guard) { s.(*Store).Guard = g },
		Things:   func(t testing.TB, s blob.Store) int { return len(files(t, s.(*Store).Dir)) },
	})
}

// files returns the paths of the regular files below dir.
func files(t testing.TB, dir string) (paths []string) {
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			rel, _ := filepath.Rel(dir, path)
			paths = append(paths, filepath.ToSlash(rel))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

// counted returns a store that counts syncs.
func counted(dir string) (*Store, *atomic.Int64) {
	s, n := &Store{Dir: dir}, new(atomic.Int64)
	s.files().syncs = func(string) { n.Add(1) }
	return s, n
}

func put(t testing.TB, s *Store, repo, content string) digest.Digest {
	t.Helper()
	desc := ocispec.Descriptor{Digest: digest.FromString(content), Size: int64(len(content))}
	if err := blob.Put(t.Context(), s, repo, desc, strings.NewReader(content)); err != nil {
		t.Fatal(err)
	}
	return desc.Digest
}

func TestSyncs(t *testing.T) {
	ctx := t.Context()
	for _, unsynced := range []bool{false, true} {
		s, n := counted(t.TempDir())
		s.files().Unsynced = unsynced
		expect := func(what string, want int64) {
			t.Helper()
			if unsynced {
				want = 0
			}
			if got := n.Swap(0); got != want {
				t.Errorf("%s: %d syncs, want %d (unsynced %v)", what, got, want, unsynced)
			}
		}
		dgst := put(t, s, "team/app", "content")
		n.Store(0)
		put(t, s, "team/app", "content")
		expect("Put", 2)
		put(t, s, "team/app", strings.Repeat("content", 1<<20))
		n.Store(0)
		put(t, s, "team/app", strings.Repeat("content", 1<<20))
		expect("Put of 7 MiB", 2)
		if _, err := s.Stat(ctx, "team/app", []digest.Digest{dgst}); err != nil {
			t.Fatal(err)
		}
		expect("Stat of a warm blob", 0)
		put(t, s, "team/other", "content")
		n.Store(0)
		if err := s.Mount(ctx, "team/app", "team/other", dgst); err != nil {
			t.Fatal(err)
		}
		expect("Mount", 1)
		if _, err := s.Begin(ctx, "team/app", digest.SHA256); err != nil { // makes the folder
			t.Fatal(err)
		}
		n.Store(0)
		u, err := s.Begin(ctx, "team/app", digest.SHA256)
		if err != nil {
			t.Fatal(err)
		}
		expect("Begin", 0)
		if u, err = blob.Append(ctx, s, u, 0, strings.NewReader("con")); err != nil {
			t.Fatal(err)
		}
		expect("the first Append", 4)
		if u, err = blob.Append(ctx, s, u, 3, strings.NewReader("tent")); err != nil {
			t.Fatal(err)
		}
		expect("Append", 4)
		if err := blob.Finish(ctx, s, u, -1, nil, dgst); err != nil {
			t.Fatal(err)
		}
		expect("Finish of one part", 1)
		if err := s.Delete(ctx, "team/app", dgst, time.Time{}); err != nil {
			t.Fatal(err)
		}
		expect("Delete", 1)
	}
}

// Everything that a killed process can leave behind lies where no blob is, is
// ignored, and goes by age.
func TestLeftovers(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	s := &Store{Dir: dir, Unsynced: true}
	dgst := put(t, s, "team/app", "content")
	u, err := s.Begin(ctx, "team/app", digest.SHA256)
	if err == nil {
		u, err = blob.Append(ctx, s, u, 0, strings.NewReader("chunk"))
	}
	if err == nil { // killed between Append and Save
		_, err = s.Append(ctx, u, strings.NewReader("never saved"))
	}
	if err != nil {
		t.Fatal(err)
	}
	stray := random()
	for path, content := range map[string]string{
		"~tmp/" + random():                                    "half a blob",
		"uploads/" + u.ID + "/" + random():                    "half a part",
		"uploads/" + stray + "/" + random():                   "a session that is gone",
		"uploads/" + random() + "/session":                    "",
		"blobs/+team+app/sha256/ab/notes.txt":                 "somebody's",
		"blobs/+team+app/sha256/ab/.DS_Store":                 "somebody's",
		"uploads/README":                                      "somebody's",
		"blobs/+team+app/sha256/" + dgst.Encoded()[:2] + "/x": "somebody's",
	} {
		path = filepath.Join(dir, filepath.FromSlash(path))
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	s = &Store{Dir: dir, Unsynced: true}
	for info, err := range s.Blobs(ctx, "team/app", "") {
		if err != nil || info.Digest != dgst {
			t.Errorf("Blobs lists %+v, %v", info, err)
		}
	}
	if _, err := s.Lookup(ctx, "team/app", stray); !errors.Is(err, blob.ErrUploadNotFound) {
		t.Errorf("Lookup of a session without its file = %v", err)
	}
	swept := func(cutoff time.Time, dry bool) (keys []string) {
		t.Helper()
		for obj, err := range s.Sweep(ctx, cutoff, dry) {
			if err != nil {
				t.Fatal(err)
			}
			keys = append(keys, obj.Key)
		}
		return keys
	}
	if got := swept(time.Now().Add(-time.Hour), false); len(got) != 0 {
		t.Errorf("Sweep of what is young = %q", got)
	}
	would := swept(time.Now().Add(time.Hour), true)
	if got := swept(time.Now().Add(time.Hour), false); len(got) != 5 || !slices.Equal(got, would) {
		t.Errorf("Sweep = %q, want five files, and the same dry: %q", got, would)
	}
	if u, err = s.Lookup(ctx, "team/app", u.ID); err != nil || u.Size != 5 {
		t.Fatalf("Lookup = %+v, %v", u, err)
	}
	for _, path := range files(t, dir) {
		if strings.HasPrefix(path, "~tmp") || strings.HasPrefix(path, "uploads/") && !strings.HasPrefix(path, "uploads/"+u.ID) && path != "uploads/README" {
			t.Errorf("Sweep has left %s", path)
		}
	}
	if err := s.Abort(ctx, u); err != nil {
		t.Error(err)
	}
	if got, err := filepath.Glob(filepath.Join(dir, "uploads", "*")); len(got) != 1 || err != nil {
		t.Errorf("uploads/ has %q, %v", got, err)
	}
	if _, err := blob.ReadAll(ctx, s, "team/app", ocispec.Descriptor{Digest: dgst, Size: 7}); err != nil {
		t.Error(err)
	}
}

// A crash between the two steps of Commit: the blob is there, its session too,
// without its bytes.
func TestHalfCommit(t *testing.T) {
	ctx := t.Context()
	s := &Store{Dir: t.TempDir(), Unsynced: true}
	u, err := s.Begin(ctx, "a", digest.SHA256)
	if err == nil {
		u, err = blob.Append(ctx, s, u, 0, strings.NewReader("content"))
	}
	if err != nil {
		t.Fatal(err)
	}
	v, err := parse(u)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(v.paths(s.sessionDir(u.ID))[0]); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{
		"Finish": blob.Finish(ctx, s, u, -1, nil, digest.FromString("content")),
		"Append": func() error { _, err := blob.Append(ctx, s, u, -1, strings.NewReader("x")); return err }(),
	} {
		if !errors.Is(err, blob.ErrUploadNotFound) {
			t.Errorf("%s = %v, want ErrUploadNotFound", what, err)
		}
	}
}

// A part that has lost bytes, to a crash without syncs or to a bad disk, makes no
// blob: its hash was taken on the way in.
func TestACutPartMakesNoBlob(t *testing.T) {
	ctx := t.Context()
	content := strings.Repeat("content", minPart/7+1)
	for _, parts := range []int{1, 2} {
		s := &Store{Dir: t.TempDir(), Unsynced: true}
		u, err := s.Begin(ctx, "a", digest.SHA256)
		for range parts {
			if err == nil {
				u, err = blob.Append(ctx, s, u, -1, strings.NewReader(content))
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		v, err := parse(u)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(v.paths(s.sessionDir(u.ID))[parts-1], 10); err != nil {
			t.Fatal(err)
		}
		dgst := digest.FromString(strings.Repeat(content, parts))
		err = blob.Finish(ctx, s, u, -1, nil, dgst)
		if infos, failed := s.Stat(ctx, "a", []digest.Digest{dgst}); err == nil || failed != nil || infos[0].Digest != "" {
			t.Errorf("%d parts: Finish = %v, and Stat tells %v, %v", parts, err, infos, failed)
		}
		if again, err := s.Lookup(ctx, "a", u.ID); err != nil || again.Size != u.Size {
			t.Errorf("%d parts: then the session is %v, %v", parts, again, err)
		}
		if got := len(files(t, s.Dir)); got != 1+parts {
			t.Errorf("%d parts: %d files are left", parts, got)
		}
	}
}

// Nor does a chunk go on in it, which is no conflict that a client could resolve.
func TestACutPartIsNotContinued(t *testing.T) {
	ctx := t.Context()
	s := &Store{Dir: t.TempDir(), Unsynced: true}
	u, err := s.Begin(ctx, "a", digest.SHA256)
	if err == nil {
		u, err = blob.Append(ctx, s, u, -1, strings.NewReader("content"))
	}
	if err != nil {
		t.Fatal(err)
	}
	v, err := parse(u)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(v.paths(s.sessionDir(u.ID))[0], 3); err != nil {
		t.Fatal(err)
	}
	if _, err := blob.Append(ctx, s, u, -1, strings.NewReader("more")); !errors.Is(err, errDamaged) {
		t.Errorf("Append = %v", err)
	}
	if got := len(files(t, s.Dir)); got != 2 {
		t.Errorf("%d files are left", got)
	}
}

// What cannot be read is kept, and told; the rest is not affected.
func TestDamagedSessionStays(t *testing.T) {
	ctx := t.Context()
	s := &Store{Dir: t.TempDir(), Unsynced: true}
	var ids []string
	for range 3 {
		u, err := s.Begin(ctx, "a", digest.SHA256)
		if err == nil {
			u, err = blob.Append(ctx, s, u, 0, strings.NewReader("content"))
		}
		if err == nil {
			_, err = s.Append(ctx, u, strings.NewReader("never saved"))
		}
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, u.ID)
	}
	slices.Sort(ids)
	if err := os.WriteFile(filepath.Join(s.sessionDir(ids[1]), sessionName), []byte(`{"repo":"a","sta`), 0o666); err != nil {
		t.Fatal(err)
	}
	damaged := len(files(t, s.sessionDir(ids[1])))
	var got []string
	var failed error
	for u, err := range s.Sessions(ctx, "") {
		if failed = err; err == nil {
			got = append(got, u.ID)
		}
	}
	if !slices.Equal(got, []string{ids[0], ids[2]}) || failed == nil || !strings.Contains(failed.Error(), ids[1]) {
		t.Errorf("Sessions lists %q and ends in %v, want all but the second and its name", got, failed)
	}
	n := 0
	for _, err := range s.Sweep(ctx, time.Now().Add(time.Hour), false) {
		if failed = err; err == nil {
			n++
		}
	}
	if n != 2 || failed == nil || !strings.Contains(failed.Error(), ids[1]) {
		t.Errorf("Sweep took %d files and ended in %v, want two and the name of the damaged one", n, failed)
	}
	if got := len(files(t, s.sessionDir(ids[1]))); got != damaged {
		t.Errorf("of %d files beside a damaged session %d are left", damaged, got)
	}
}

func TestSmallChunksShareParts(t *testing.T) {
	ctx := t.Context()
	s := &Store{Dir: t.TempDir(), Unsynced: true}
	u, err := s.Begin(ctx, "a", digest.SHA256)
	chunk := strings.Repeat("x", minPart/4)
	for range 17 {
		if err == nil {
			u, err = blob.Append(ctx, s, u, -1, strings.NewReader(chunk))
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	if got := files(t, s.Dir); len(got) != 1+5 {
		t.Errorf("17 chunks of a quarter of a part make %v, want a session and 5 parts", got)
	}
}

func TestHostileState(t *testing.T) {
	ctx := t.Context()
	s := &Store{Dir: t.TempDir(), Unsynced: true}
	u, err := s.Begin(ctx, "a", digest.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	for _, state := range []string{"", "x", random() + "\n../../x 5", random() + "\nsession 5", random() + "\n" + random() + " -5", random() + "\n" + random() + " 6", "\n"} {
		bad := u
		bad.Size, bad.State = 5, []byte(state)
		if err := s.Commit(ctx, u, bad, digest.FromString("x")); !errors.Is(err, blob.ErrConflict) {
			t.Errorf("Commit of state %q = %v", state, err)
		}
		if err := s.Save(ctx, u, bad); !errors.Is(err, blob.ErrConflict) {
			t.Errorf("Save of state %q = %v", state, err)
		}
	}
}

func BenchmarkPut(b *testing.B) {
	for _, size := range []int{16 << 10, 64 << 20} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			s := &Store{Dir: b.TempDir(), Unsynced: true}
			if dir := os.Getenv("DIRBLOB_BENCH"); dir != "" {
				s.Dir = dir
			}
			content := bytes.Repeat([]byte("0123456789abcdef"), size/16)
			desc := ocispec.Descriptor{Digest: digest.FromBytes(content), Size: int64(size)}
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if err := blob.Put(b.Context(), s, "team/app", desc, bytes.NewReader(content)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestAGuardThatFailsIsNotNotFound has one that keeps its manifests in files.
func TestAGuardThatFailsIsNotNotFound(t *testing.T) {
	s := &Store{Dir: t.TempDir(), Unsynced: true}
	dgst := digest.FromString("content")
	if err := blob.Put(t.Context(), s, "r", ocispec.Descriptor{Digest: dgst, Size: 7}, strings.NewReader("content")); err != nil {
		t.Fatal(err)
	}
	s.Guard = func(context.Context, string, digest.Digest, func() error) error {
		_, err := os.ReadFile(filepath.Join(s.Dir, "manifests"))
		return err
	}
	if err := s.Delete(t.Context(), "r", dgst, time.Time{}); !errors.Is(err, fs.ErrNotExist) || errors.Is(err, blob.ErrNotFound) {
		t.Errorf("Delete = %v, want the error of the Guard", err)
	}
}

// TestAPutThatASweepHasOvertakenIsTold that, and not that a file of the store is missing.
func TestAPutThatASweepHasOvertakenIsTold(t *testing.T) {
	s := &Store{Dir: t.TempDir(), Unsynced: true}
	overtaken := func() io.Reader {
		return io.MultiReader(strings.NewReader("content"), readerFunc(func([]byte) (int, error) {
			for range s.Sweep(t.Context(), time.Now().Add(time.Hour), false) {
			}
			return 0, io.EOF
		}))
	}
	err := blob.Put(t.Context(), s, "r", ocispec.Descriptor{Digest: digest.FromString("content"), Size: 7}, overtaken())
	if !errors.Is(err, errSwept) || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Put of a blob = %v", err)
	}
	if _, err = s.files().Put(t.Context(), "key", overtaken()); !errors.Is(err, errSwept) || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Put of an object = %v", err)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

// TestABeginThatFailsLeavesNothing has a session whose folder can be made, and no file in it, as
// on a full disk.
func TestABeginThatFailsLeavesNothing(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("goes by the length of a path that Linux allows")
	}
	const most = 4095
	dir := t.TempDir()
	for folder := most - len("/uploads/ABCDEFGHIJKLMNOPQRSTUVWXYZ"); len(dir) < folder; {
		n := min(folder-len(dir)-1, 200)
		if rest := folder - len(dir) - 1 - n; rest == 1 {
			n--
		}
		dir += "/" + strings.Repeat("d", n)
	}
	s := &Store{Dir: dir, Unsynced: true}
	if _, err := s.Begin(t.Context(), "r", digest.SHA256); !errors.Is(err, syscall.ENAMETOOLONG) {
		t.Fatalf("Begin = %v", err)
	}
	if left, err := os.ReadDir(filepath.Join(dir, "uploads")); len(left) > 0 || err != nil {
		t.Errorf("%v, %v", left, err)
	}
}

// TestNoPromiseBeforeItIsDurable asks for a blob that a call under way has made visible, or has
// touched, and has not synced yet.
func TestNoPromiseBeforeItIsDurable(t *testing.T) {
	now := time.Now()
	s := &Store{Dir: t.TempDir(), Now: func() time.Time { return now }}
	dgst := digest.FromString("content")
	path, err := s.blobPath("r", dgst)
	if err != nil {
		t.Fatal(err)
	}
	asked := map[string]bool{} // what was about to be synced when it was asked
	var asking string
	s.files().syncs = func(synced string) {
		if asking != "" {
			if asking == synced {
				asking = ""
			}
			return
		}
		if infos, err := stat(path); err != nil || infos.Size() == 0 || asked[synced] || synced != path && synced != filepath.Dir(path) {
			return
		}
		asked[synced], asking = true, synced
		infos, err := s.Stat(t.Context(), "r", []digest.Digest{dgst})
		if err != nil || infos[0].Digest == "" {
			t.Errorf("Stat = %v, %v", infos, err)
		}
		if asking != "" {
			t.Errorf("Stat has answered before %s was synced", asking)
		}
		asking = ""
	}
	if err := blob.Put(t.Context(), s, "r", ocispec.Descriptor{Digest: dgst, Size: 7}, strings.NewReader("content")); err != nil {
		t.Fatal(err)
	}
	now = now.Add(20 * time.Hour)
	if _, err := s.Stat(t.Context(), "r", []digest.Digest{dgst}); err != nil {
		t.Fatal(err)
	}
	if len(asked) != 2 {
		t.Errorf("asked at syncs of %v, want the folder's and the file's", asked)
	}
}
