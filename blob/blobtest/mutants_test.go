package blobtest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"iter"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/blob/memblob"
)

// Each mutant breaks one promise of a memory store, and the kit must reject it,
// in the clause given at least.
var mutants = []struct {
	name   string
	clause string
	mutate func(good) blob.Store
}{
	{"none", "", func(g good) blob.Store { return g }},
	{"puts bad content", "Put/an_error_from_r", func(g good) blob.Store { return putsBad{g} }},
	{"visible before the end", "Put/the_blob_is_visible_only_when", func(g good) blob.Store { return visibleEarly{g} }},
	{"put is no touch", "Put/putting_a_blob_that_is_there_is_a_touch", func(g good) blob.Store { return putNoTouch{g} }},
	{"put ignores ctx", "Put/a_method_returns", func(g good) blob.Store { return putForever{g} }},
	{"leaves a file behind", "Put/an_error_from_r", func(g good) blob.Store { return &leavesFile{good: g} }},
	{"range one too long", "Open/n_bytes", func(g good) blob.Store { return rangeLong{g} }},
	{"range beyond the end is empty", "Open/ErrRange", func(g good) blob.Store { return rangeEmpty{g} }},
	{"reader ends early after delete", "Open/the_reader_keeps", func(g good) blob.Store { return endsEarly{g} }},
	{"stat in order of digests", "Stat/one_Info_per", func(g good) blob.Store { return statSorted{g} }},
	{"stat without gaps", "Stat/one_Info_per", func(g good) blob.Store { return statDense{g} }},
	{"stat does not touch", "Stat/a_positive_answer", func(g good) blob.Store { return statCold{g} }},
	{"stat touches too late", "Stat/a_promise_and_a_deletion", func(g good) blob.Store { return statLate{g} }},
	{"repositories leak", "Reader/a_blob_is_visible", func(g good) blob.Store { return leaks{g} }},
	{"mount from anywhere", "Mount/what_the_source", func(g good) blob.Store { return mountsAny{g} }},
	{"locate remembers", "Locate/it_lists", func(g good) blob.Store { return locates{g, func(r []string) []string { return append(r, "gone") }} }},
	{"locate in another order", "Locate/it_lists", func(g good) blob.Store {
		return locates{g, func(r []string) []string {
			slices.SortFunc(r, func(a, b string) int {
				return strings.Compare(strings.ReplaceAll(a, "/", "+"), strings.ReplaceAll(b, "/", "+"))
			})
			return r
		}}
	}},
	{"mount is no touch", "Mount/it_is_a_touch", func(g good) blob.Store { return mountNoTouch{g} }},
	{"delete ignores cutoff", "Delete/it_refuses_what_was_touched", func(g good) blob.Store { return deletesYoung{g} }},
	{"delete in all repositories", "Delete/it_removes", func(g good) blob.Store { return deletesAll{g} }},
	{"delete without guard", "Delete/it_refuses_what_a_manifest", func(g good) blob.Store { return unguarded{g} }},
	{"list repeats", "Blobs/in_ascending", func(g good) blob.Store { return listMutant{g, listTwice} }},
	{"list includes after", "Blobs/in_ascending", func(g good) blob.Store { return listMutant{g, listFrom} }},
	{"list in reverse", "Blobs/in_ascending", func(g good) blob.Store { return listMutant{g, listReverse} }},
	{"list swallows its error", "Blobs/it_ends_at", func(g good) blob.Store { return listMutant{g, listSilent} }},
	{"list touches", "Blobs/it_does_not_touch", func(g good) blob.Store { return listMutant{g, listTouch} }},
	{"lock held in the loop body", "Blobs/no_lock", func(g good) blob.Store { return &locks{good: g} }},
	{"lookup from any repository", "Lookup/", func(g good) blob.Store { return &lookupAny{good: g} }},
	{"every save wins", "Save/of_several", func(g good) blob.Store { return saveWins{g} }},
	{"last save wins", "Save/ErrConflict", func(g good) blob.Store { return saveLast{g} }},
	{"failed save spends the chunk", "Save/after_any_other", func(g good) blob.Store { return &spends{good: g} }},
	{"failed commit spends the chunk", "Commit/after_any_other", func(g good) blob.Store { return &spends{good: g} }},
	{"failed append counts", "Append/an_error_from_r", func(g good) blob.Store { return appendPartly{g} }},
	{"append saves", "Append/nobody_else", func(g good) blob.Store { return appendSaves{g} }},
	{"appends mix", "Append/two_calls", func(g good) blob.Store { return &appendsMix{good: g, files: map[string][]byte{}} }},
	{"commit ends nothing", "Commit/it_ends", func(g good) blob.Store { return commitKeeps{g} }},
	{"commit against anything", "Save/ErrConflict", func(g good) blob.Store { return commitWins{g} }},
	{"abort keeps", "Abort/it_ends", func(g good) blob.Store { return abortKeeps{g} }},
	{"abort ends whatever is there", "Abort/it_ends", func(g good) blob.Store { return abortsAny{g} }},
	{"reread forgets the last chunk", "Reread/", func(g good) blob.Store { return rereadShort{g} }},
	{"repos remembers", "Repos/it_lists", func(g good) blob.Store { return reposMutant{g, reposForever} }},
	{"repos includes after", "Repos/it_lists", func(g good) blob.Store { return reposMutant{g, reposFrom} }},
	{"repos in another order", "Repos/it_lists", func(g good) blob.Store { return reposMutant{g, reposFolders} }},
	{"repos swallows its error", "Repos/it_ends_at", func(g good) blob.Store { return reposMutant{g, reposSilent} }},
	{"guarded without a guard", "Guarded/", func(g good) blob.Store { return saysGuarded{g, true} }},
	{"never guarded", "Guarded/", func(g good) blob.Store { return saysGuarded{g, false} }},
	{"sessions of one repository", "Sessions/it_lists", func(g good) blob.Store { return sessionsMutant{g, sessionsOfOne} }},
	{"sessions includes after", "Sessions/it_lists", func(g good) blob.Store { return sessionsMutant{g, sessionsFrom} }},
	{"sessions without their state", "Sessions/what_is_listed", func(g good) blob.Store { return sessionsMutant{g, sessionsBare} }},
	{"sessions swallows its error", "Sessions/it_ends_at", func(g good) blob.Store { return sessionsMutant{g, sessionsSilent} }},
	{"no mutant on a disk", "", func(g good) blob.Store { return onDisk(g) }},
	{"sweep removes nothing", "Sweep/it_removes", func(g good) blob.Store { return &sweeps{disk: onDisk(g), mutate: sweepNothing} }},
	{"sweep counts only", "Sweep/it_removes", func(g good) blob.Store { return &sweeps{disk: onDisk(g), mutate: sweepSilently} }},
	{"dry sweep removes", "Sweep/with_dry", func(g good) blob.Store { return &sweeps{disk: onDisk(g), mutate: sweepWet} }},
	{"sweep spares nobody", "Sweep/it_leaves_alone", func(g good) blob.Store { return &sweeps{disk: onDisk(g), mutate: sweepYoung} }},
	{"sweep takes what is saved", "Sweep/it_removes", func(g good) blob.Store { return &sweeps{disk: onDisk(g), mutate: sweepSaved} }},
	{"a call that sweep has overtaken commits what is left", "Sweep/a_call_that_began_earlier", func(g good) blob.Store { return &putsLeftovers{disk: onDisk(g)} }},
	{"sweep ignores ctx", "Sweep/it_ends_in", func(g good) blob.Store { return &sweeps{disk: onDisk(g), mutate: sweepForever} }},
}

const mutantVar = "BLOBTEST_MUTANT"

// A kit that fails does so by the testing package, hence each mutant runs in a
// process of its own.
func TestMutants(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mutants {
		t.Run(m.name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), exe, "-test.run=^TestMutant$/"+m.clause, "-test.timeout=5m")
			cmd.Env = append(os.Environ(), mutantVar+"="+m.name)
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			switch {
			case m.clause == "" && err != nil:
				t.Errorf("the kit rejects a good store: %v\n%s", err, out)
			case m.clause != "" && !errors.As(err, &exit):
				t.Errorf("the kit accepts it (error %v), want a failure of %s", err, m.clause)
			case m.clause != "" && !bytes.Contains(out, []byte("--- FAIL: TestMutant/"+m.clause)):
				t.Errorf("the kit rejects it, but not by %s:\n%.4000s", m.clause, out)
			}
		})
	}
}

// TestMutant is the other process.
func TestMutant(t *testing.T) {
	name := os.Getenv(mutantVar)
	if name == "" {
		t.Skip("run by TestMutants")
	}
	for _, m := range mutants {
		if m.name == name {
			testStore(t, Options{
				New: func(t testing.TB) blob.Store { return m.mutate(good{&memblob.Store{}, t.TempDir()}) },
				SetNow: func(s blob.Store, now func() time.Time) {
					if s, ok := s.(interface{ setNow(func() time.Time) }); ok {
						s.setNow(now)
						return
					}
					s.(interface{ base() *memblob.Store }).base().Now = now
				},
				SetGuard: func(s blob.Store, g blob.Guard) {
					if s, ok := s.(interface{ setGuard(blob.Guard) }); ok {
						s.setGuard(g)
						return
					}
					s.(interface{ base() *memblob.Store }).base().Guard = g
				},
				Things: func(t testing.TB, s blob.Store) int {
					if s, ok := s.(interface{ things(t testing.TB) int }); ok {
						return s.things(t)
					}
					names, err := filepath.Glob(filepath.Join(s.(interface{ folder() string }).folder(), "*"))
					if err != nil {
						t.Fatal(err)
					}
					return len(names)
				},
			}, patienceWith(m.clause))
			return
		}
	}
	t.Fatalf("no mutant %q", name)
}

// patienceWith is short for a mutant, which may hang, and long for a good store on a busy
// machine.
func patienceWith(clause string) time.Duration {
	if clause == "" {
		return time.Minute
	}
	return time.Second
}

type good struct {
	*memblob.Store
	dir string
}

func (g good) base() *memblob.Store { return g.Store }
func (g good) folder() string       { return g.dir }

// locates rewrites what Locate lists.
type locates struct {
	good
	f func([]string) []string
}

func (s locates) Locate(ctx context.Context, dgst digest.Digest) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		var repos []string
		for repo, err := range s.good.Locate(ctx, dgst) {
			if err != nil {
				yield("", err)
				return
			}
			repos = append(repos, repo)
		}
		if repos == nil {
			return
		}
		for _, repo := range s.f(repos) {
			if !yield(repo, nil) {
				return
			}
		}
	}
}

type putsBad struct{ good }

func (s putsBad) Put(ctx context.Context, repo string, desc ocispec.Descriptor, r io.Reader) error {
	b, err := io.ReadAll(r)
	return errors.Join(err, s.good.Put(ctx, repo, desc, bytes.NewReader(b)))
}

type visibleEarly struct{ good }

func (s visibleEarly) Put(ctx context.Context, repo string, desc ocispec.Descriptor, r io.Reader) error {
	if err := s.good.Put(ctx, repo, desc, strings.NewReader("")); err != nil {
		return err
	}
	b, err := io.ReadAll(r)
	if e := s.Delete(ctx, repo, desc.Digest, never); e != nil || err != nil {
		return errors.Join(e, err)
	}
	return s.good.Put(ctx, repo, desc, bytes.NewReader(b))
}

type putNoTouch struct{ good }

func (s putNoTouch) Put(ctx context.Context, repo string, desc ocispec.Descriptor, r io.Reader) error {
	if c, _, err := s.Open(ctx, repo, desc.Digest, 0, 0); err == nil {
		c.Close()
		_, err = io.Copy(io.Discard, r)
		return err
	}
	return s.good.Put(ctx, repo, desc, r)
}

type putForever struct{ good }

func (s putForever) Put(ctx context.Context, repo string, desc ocispec.Descriptor, r io.Reader) error {
	return s.good.Put(context.WithoutCancel(ctx), repo, desc, io.LimitReader(r, 8<<20))
}

type leavesFile struct {
	good
	mu sync.Mutex
	n  int
}

func (s *leavesFile) Put(ctx context.Context, repo string, desc ocispec.Descriptor, r io.Reader) error {
	err := s.good.Put(ctx, repo, desc, r)
	if err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.n++
		return errors.Join(err, os.WriteFile(filepath.Join(s.dir, "temp"+string(rune('a'+s.n%20))), nil, 0o666))
	}
	return nil
}

type rangeLong struct{ good }

func (s rangeLong) Open(ctx context.Context, repo string, dgst digest.Digest, off, n int64) (io.ReadCloser, blob.Info, error) {
	if n > 0 {
		n++
	}
	return s.good.Open(ctx, repo, dgst, off, n)
}

type rangeEmpty struct{ good }

func (s rangeEmpty) Open(ctx context.Context, repo string, dgst digest.Digest, off, n int64) (io.ReadCloser, blob.Info, error) {
	r, info, err := s.good.Open(ctx, repo, dgst, off, n)
	if errors.Is(err, blob.ErrRange) {
		return s.good.Open(ctx, repo, dgst, 0, 0)
	}
	return r, info, err
}

type endsEarly struct{ good }

func (s endsEarly) Open(ctx context.Context, repo string, dgst digest.Digest, off, n int64) (io.ReadCloser, blob.Info, error) {
	r, info, err := s.good.Open(ctx, repo, dgst, off, n)
	if err == nil {
		content := r
		r = io.NopCloser(readFunc(func(p []byte) (int, error) {
			if c, _, err := s.good.Open(ctx, repo, dgst, 0, 0); err != nil {
				return 0, io.EOF
			} else {
				c.Close()
			}
			return content.Read(p)
		}))
	}
	return r, info, err
}

type readFunc func([]byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }

type statSorted struct{ good }

func (s statSorted) Stat(ctx context.Context, repo string, dgsts []digest.Digest) ([]blob.Info, error) {
	return s.good.Stat(ctx, repo, slices.Sorted(slices.Values(dgsts)))
}

type statDense struct{ good }

func (s statDense) Stat(ctx context.Context, repo string, dgsts []digest.Digest) ([]blob.Info, error) {
	infos, err := s.good.Stat(ctx, repo, dgsts)
	dense := slices.DeleteFunc(slices.Clone(infos), func(i blob.Info) bool { return i.Digest == "" })
	return append(dense, infos[:len(infos)-len(dense)]...), err
}

// The answer says that it touched.
type statCold struct{ good }

func (s statCold) Stat(ctx context.Context, repo string, dgsts []digest.Digest) ([]blob.Info, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	infos := make([]blob.Info, len(dgsts))
	for i, dgst := range dgsts {
		if r, info, err := s.Open(ctx, repo, dgst, 0, 0); err == nil {
			r.Close()
			infos[i] = info
			if s.Now != nil {
				infos[i].TouchedAt = s.Now()
			}
		}
	}
	return infos, nil
}

// The look and the touch are two steps.
type statLate struct{ good }

func (s statLate) Stat(ctx context.Context, repo string, dgsts []digest.Digest) ([]blob.Info, error) {
	infos, err := statCold(s).Stat(ctx, repo, dgsts)
	time.Sleep(time.Millisecond)
	if err == nil {
		_, err = s.good.Stat(ctx, repo, dgsts)
	}
	return infos, err
}

type leaks struct{ good }

func (s leaks) Open(ctx context.Context, repo string, dgst digest.Digest, off, n int64) (io.ReadCloser, blob.Info, error) {
	r, info, err := s.good.Open(ctx, repo, dgst, off, n)
	if errors.Is(err, blob.ErrNotFound) {
		for any := range s.Locate(ctx, dgst) {
			return s.good.Open(ctx, any, dgst, off, n)
		}
	}
	return r, info, err
}

type mountsAny struct{ good }

func (s mountsAny) Mount(ctx context.Context, from, repo string, dgst digest.Digest) error {
	err := s.good.Mount(ctx, from, repo, dgst)
	if errors.Is(err, blob.ErrNotFound) {
		for any := range s.Locate(ctx, dgst) {
			return s.good.Mount(ctx, any, repo, dgst)
		}
	}
	return err
}

type mountNoTouch struct{ good }

func (s mountNoTouch) Mount(ctx context.Context, from, repo string, dgst digest.Digest) error {
	if r, _, err := s.Open(ctx, repo, dgst, 0, 0); err == nil {
		return r.Close()
	}
	return s.good.Mount(ctx, from, repo, dgst)
}

type deletesYoung struct{ good }

func (s deletesYoung) Delete(ctx context.Context, repo string, dgst digest.Digest, cutoff time.Time) error {
	return s.good.Delete(ctx, repo, dgst, never)
}

type deletesAll struct{ good }

func (s deletesAll) Delete(ctx context.Context, repo string, dgst digest.Digest, cutoff time.Time) error {
	err := s.good.Delete(ctx, repo, dgst, cutoff)
	if err == nil {
		for any := range s.Locate(ctx, dgst) {
			err = errors.Join(err, s.good.Delete(ctx, any, dgst, cutoff))
		}
	}
	return err
}

type unguarded struct{ good }

func (s unguarded) Delete(ctx context.Context, repo string, dgst digest.Digest, cutoff time.Time) error {
	s.Guard = nil
	return s.good.Delete(ctx, repo, dgst, cutoff)
}

type listing = iter.Seq2[blob.Info, error]

type listMutant struct {
	good
	list func(s good, ctx context.Context, repo string, after digest.Digest) listing
}

func (s listMutant) Blobs(ctx context.Context, repo string, after digest.Digest) listing {
	return s.list(s.good, ctx, repo, after)
}

func listTwice(s good, ctx context.Context, repo string, after digest.Digest) listing {
	return func(yield func(blob.Info, error) bool) {
		for info, err := range s.Blobs(ctx, repo, after) {
			if !yield(info, err) || info.Size == 2 && !yield(info, err) {
				return
			}
		}
	}
}

func listFrom(s good, ctx context.Context, repo string, after digest.Digest) listing {
	if after == "" {
		return s.Blobs(ctx, repo, after)
	}
	last := len(after) - 1
	return s.Blobs(ctx, repo, after[:last]+digest.Digest(after[last]-1)+"zzzz")
}

func listReverse(s good, ctx context.Context, repo string, after digest.Digest) listing {
	return func(yield func(blob.Info, error) bool) {
		var infos []blob.Info
		for info, err := range s.Blobs(ctx, repo, after) {
			if err != nil {
				yield(info, err)
				return
			}
			infos = append(infos, info)
		}
		for _, info := range slices.Backward(infos) {
			if !yield(info, nil) {
				return
			}
		}
	}
}

func listSilent(s good, ctx context.Context, repo string, after digest.Digest) listing {
	return func(yield func(blob.Info, error) bool) {
		for info, err := range s.Blobs(ctx, repo, after) {
			if err != nil || !yield(info, nil) {
				return
			}
		}
	}
}

func listTouch(s good, ctx context.Context, repo string, after digest.Digest) listing {
	return func(yield func(blob.Info, error) bool) {
		for info, err := range s.Blobs(ctx, repo, after) {
			if err == nil {
				_, err = s.Stat(ctx, repo, []digest.Digest{info.Digest})
			}
			if !yield(info, err) {
				return
			}
		}
	}
}

type locks struct {
	good
	mu sync.RWMutex
}

func (s *locks) Put(ctx context.Context, repo string, desc ocispec.Descriptor, r io.Reader) error {
	b, err := io.ReadAll(readFunc(func(p []byte) (int, error) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		return r.Read(p)
	}))
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.good.Put(ctx, repo, desc, bytes.NewReader(b))
}

func (s *locks) Blobs(ctx context.Context, repo string, after digest.Digest) listing {
	return func(yield func(blob.Info, error) bool) {
		s.mu.RLock()
		defer s.mu.RUnlock()
		s.good.Blobs(ctx, repo, after)(yield)
	}
}

type lookupAny struct {
	good
	repos sync.Map
}

func (s *lookupAny) Begin(ctx context.Context, repo string, alg digest.Algorithm) (blob.Upload, error) {
	u, err := s.good.Begin(ctx, repo, alg)
	s.repos.Store(u.ID, repo)
	return u, err
}

func (s *lookupAny) Lookup(ctx context.Context, repo, id string) (blob.Upload, error) {
	if r, ok := s.repos.Load(id); ok {
		repo = r.(string)
	}
	return s.good.Lookup(ctx, repo, id)
}

// Of two racing callers both are told that they won.
type saveWins struct{ good }

func (s saveWins) Save(ctx context.Context, old, new blob.Upload) error {
	if err := s.good.Save(ctx, old, new); !errors.Is(err, blob.ErrConflict) {
		return err
	}
	return nil
}

// Whoever comes last replaces what others saved.
type saveLast struct{ good }

func (s saveLast) Save(ctx context.Context, old, new blob.Upload) error {
	err := s.good.Save(ctx, old, new)
	if !errors.Is(err, blob.ErrConflict) {
		return err
	}
	cur, err := s.Lookup(ctx, old.Repo, old.ID)
	if err != nil {
		return err
	}
	next, err := s.good.Append(ctx, cur, strings.NewReader(""))
	if err != nil {
		return err
	}
	return s.good.Save(ctx, cur, next)
}

// What a call was to make use of goes when it fails.
type spends struct {
	good
	spent sync.Map // by state
}

func (s *spends) once(u blob.Upload, do func() error) error {
	if _, spent := s.spent.Load(string(u.State)); spent {
		return errors.New("its bytes are gone")
	}
	err := do()
	if err != nil {
		s.spent.Store(string(u.State), true)
	}
	return err
}

func (s *spends) Save(ctx context.Context, old, new blob.Upload) error {
	return s.once(new, func() error { return s.good.Save(ctx, old, new) })
}

func (s *spends) Commit(ctx context.Context, old, u blob.Upload, dgst digest.Digest) error {
	return s.once(u, func() error { return s.good.Commit(ctx, old, u, dgst) })
}

type appendPartly struct{ good }

func (s appendPartly) Append(ctx context.Context, u blob.Upload, r io.Reader) (blob.Upload, error) {
	b, bad := io.ReadAll(r)
	next, err := s.good.Append(ctx, u, bytes.NewReader(b))
	if bad != nil {
		if err == nil {
			err = s.Save(ctx, u, next)
		}
		return u, errors.Join(bad, err)
	}
	return next, err
}

type appendSaves struct{ good }

func (s appendSaves) Append(ctx context.Context, u blob.Upload, r io.Reader) (blob.Upload, error) {
	next, err := s.good.Append(ctx, u, r)
	if err == nil {
		err = s.good.Save(ctx, u, next)
	}
	return next, err
}

func (s appendSaves) Save(ctx context.Context, old, new blob.Upload) error {
	return s.good.Save(ctx, new, new)
}

// One file per session, written at the offset where it ends.
type appendsMix struct {
	good
	mu    sync.Mutex
	files map[string][]byte
}

func (s *appendsMix) Append(ctx context.Context, u blob.Upload, r io.Reader) (blob.Upload, error) {
	start, at := int(u.Size), int(u.Size)
	block := make([]byte, 4096)
	for {
		n, err := r.Read(block)
		s.mu.Lock()
		f := s.files[u.ID]
		if grow := at + n - len(f); grow > 0 {
			f = append(f, make([]byte, grow)...)
		}
		copy(f[at:], block[:n])
		at += n
		s.files[u.ID] = f
		s.mu.Unlock()
		if err == io.EOF {
			break
		}
		if err != nil {
			return u, err
		}
	}
	s.mu.Lock()
	b := slices.Clone(s.files[u.ID][start:at])
	s.mu.Unlock()
	return s.good.Append(ctx, u, bytes.NewReader(b))
}

type commitKeeps struct{ good }

func (s commitKeeps) Commit(ctx context.Context, old, u blob.Upload, dgst digest.Digest) error {
	r, err := s.Reread(ctx, u)
	if err != nil {
		return err
	}
	return s.Put(ctx, u.Repo, ocispec.Descriptor{Digest: dgst, Size: u.Size}, r)
}

// Commit does not look whether the session is old still.
type commitWins struct{ good }

func (s commitWins) Commit(ctx context.Context, old, u blob.Upload, dgst digest.Digest) error {
	err := s.good.Commit(ctx, old, u, dgst)
	if errors.Is(err, blob.ErrConflict) {
		var cur blob.Upload
		if cur, err = s.Lookup(ctx, old.Repo, old.ID); err == nil {
			err = s.good.Commit(ctx, cur, cur, dgst)
		}
	}
	return err
}

type abortsAny struct{ good }

func (s abortsAny) Abort(ctx context.Context, u blob.Upload) error {
	u, err := s.good.Lookup(ctx, u.Repo, u.ID)
	if err != nil {
		return err
	}
	return s.good.Abort(ctx, u)
}

type abortKeeps struct{ good }

func (s abortKeeps) Abort(ctx context.Context, u blob.Upload) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	_, err := s.Lookup(ctx, u.Repo, u.ID)
	return err
}

type rereadShort struct{ good }

func (s rereadShort) Reread(ctx context.Context, u blob.Upload) (io.ReadCloser, error) {
	r, err := s.good.Reread(ctx, u)
	if err == nil && u.Size > 0 {
		r = io.NopCloser(io.LimitReader(r, u.Size-1))
	}
	return r, err
}
