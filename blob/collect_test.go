package blob_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage"
	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/blob/blobtest"
	"github.com/wharfage/wharfage/blob/dirblob"
	"github.com/wharfage/wharfage/blob/memblob"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/manifest/memmanifest"
)

var day0 = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

const day = 24 * time.Hour

// world is a blob store and a manifest store that guards it, under one clock.
type world struct {
	testing.TB
	blobs     blob.Store
	manifests *memmanifest.Store
	dir       string // of dirblob

	mu  sync.Mutex
	now time.Time
}

func (w *world) time() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *world) set(now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = now
}

func newWorld(t testing.TB, kind string) *world {
	w := &world{TB: t, manifests: new(memmanifest.Store), now: day0}
	if kind == "memory" {
		w.blobs = &memblob.Store{Now: w.time, Guard: wharfage.GuardBlobs(w.manifests)}
	} else {
		w.dir = t.TempDir()
		w.blobs = &dirblob.Store{Dir: w.dir, Unsynced: true, Now: w.time, Guard: wharfage.GuardBlobs(w.manifests)}
	}
	w.manifests.MissingBlobs = blob.Missing(w.blobs)
	return w
}

func eachWorld(t *testing.T, do func(t *testing.T, w *world)) {
	for _, kind := range []string{"memory", "dirblob"} {
		t.Run(kind, func(t *testing.T) { do(t, newWorld(t, kind)) })
	}
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *world) put(repo, content string) digest.Digest {
	w.Helper()
	desc := describe(content)
	w.must(blob.Put(w.Context(), w.blobs, repo, desc, strings.NewReader(content)))
	return desc.Digest
}

// apply makes a manifest of repo that needs the blobs.
func (w *world) apply(repo string, blobs ...digest.Digest) error {
	raw := fmt.Sprint(blobs)
	rec := manifest.Record{Desc: ocispec.Descriptor{MediaType: "a/b", Digest: digest.FromString(raw), Size: int64(len(raw))}, Raw: []byte(raw), Blobs: blobs}
	return w.manifests.Apply(w.Context(), repo, manifest.Change{RequireBlobs: blobs, Put: []manifest.Record{rec}})
}

func (w *world) unapply(repo string, blobs ...digest.Digest) error {
	return w.manifests.Apply(w.Context(), repo, manifest.Change{Delete: []manifest.Removal{{Digest: digest.FromString(fmt.Sprint(blobs))}}})
}

func (w *world) begin(repo, content string) blob.Upload {
	w.Helper()
	u, err := w.blobs.Begin(w.Context(), repo, digest.SHA256)
	w.must(err)
	u, err = blob.Append(w.Context(), w.blobs, u, 0, strings.NewReader(content))
	w.must(err)
	return u
}

func (w *world) options() blob.CollectOptions {
	return blob.CollectOptions{Needed: wharfage.NeededBlobs(w.manifests), Now: w.time}
}

// content lists what is visible: blobs of repositories, and sessions.
func (w *world) content() (names []string) {
	w.Helper()
	ctx := context.Background()
	catalog, _ := blob.As[blob.Catalog](w.blobs)
	for repo, err := range catalog.Repos(ctx, "") {
		w.must(err)
		for info, err := range w.blobs.Blobs(ctx, repo, "") {
			w.must(err)
			names = append(names, repo+" "+string(info.Digest))
		}
	}
	sessions, _ := blob.As[blob.SessionLister](w.blobs)
	for u, err := range sessions.Sessions(ctx, "") {
		w.must(err)
		names = append(names, u.Repo+" session "+fmt.Sprint(u.Size))
	}
	slices.Sort(names)
	return names
}

func (w *world) is(want ...string) {
	w.Helper()
	slices.Sort(want)
	if got := w.content(); !slices.Equal(got, want) {
		w.Errorf("the store has\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

func in(repo string, dgst digest.Digest) string { return repo + " " + string(dgst) }

func tallies(t blob.CollectTally) string {
	s := fmt.Sprintf("looked %v, removed %v", t.Looked, t.Removed)
	for _, r := range slices.Sorted(maps.Keys(t.Kept)) {
		s += fmt.Sprintf(", %s %v", r, t.Kept[r])
	}
	return s
}

func TestCollectRemovesWhatNothingNeeds(t *testing.T) {
	eachWorld(t, func(t *testing.T, w *world) {
		ctx := t.Context()
		needed, shared, gone := w.put("a", "needed needed"), w.put("a", "shared"), w.put("a", "gone")
		w.put("b", "shared")
		w.must(w.apply("a", needed))
		w.must(w.apply("b", shared))
		w.begin("a", "idle")
		w.set(day0.Add(2 * day))
		young := w.put("a", "young")
		alive := w.begin("b", "alive")
		var told []string
		o := w.options()
		o.Each = func(it blob.Collected) {
			told = append(told, fmt.Sprint(it.Kind, " ", it.Repo, " ", it.Digest, " ", it.Size, " ", it.Removed, " ", it.Reason))
		}
		before := w.content()
		dry := o
		dry.Dry = true
		would, err := blob.Collect(ctx, w.blobs, dry)
		w.must(err)
		w.is(before...)
		toldDry := told
		told = nil
		report, err := blob.Collect(ctx, w.blobs, o)
		w.must(err)
		w.is(in("a", needed), in("a", young), in("b", shared), "b session "+fmt.Sprint(alive.Size))
		if got, want := tallies(report.Blobs), "looked {5 34}, removed {2 10}, leased {1 5}, needed {2 19}"; got != want {
			t.Errorf("blobs: %s\nwant   %s", got, want)
		}
		if len(told) != 3 || !slices.Equal(told[:2], []string{
			fmt.Sprint("blob a ", min(shared, gone), " ", map[bool]int{true: 6, false: 4}[shared < gone], " true unneeded"),
			fmt.Sprint("blob a ", max(shared, gone), " ", map[bool]int{true: 4, false: 6}[shared < gone], " true unneeded"),
		}) {
			t.Errorf("told %q", told)
		}
		if got, want := tallies(report.Sessions), "looked {2 9}, removed {1 4}, leased {1 5}"; got != want {
			t.Errorf("sessions: %s\nwant      %s", got, want)
		}
		if tallies(would.Blobs) != tallies(report.Blobs) || tallies(would.Sessions) != tallies(report.Sessions) || !slices.Equal(toldDry, told) {
			t.Errorf("a dry run says\n%+v\nand the run\n%+v", would, report)
		}
		report, err = blob.Collect(ctx, w.blobs, w.options())
		if err != nil || report.Blobs.Removed.Count+report.Sessions.Removed.Count+report.Strays.Removed.Count != 0 {
			t.Errorf("the next run: %+v, %v", report, err)
		}
	})
}

func paths(t testing.TB, dir, prefix string) (out []string) {
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(dir, path)
		if err == nil && d.Type().IsRegular() && strings.HasPrefix(filepath.ToSlash(rel), prefix) {
			out = append(out, rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestCollectSweepsStrays(t *testing.T) {
	w := newWorld(t, "dirblob")
	u := w.begin("a", "saved")
	w.set(day0.Add(2 * day))
	_, err := w.blobs.Append(t.Context(), u, strings.NewReader("never saved"))
	w.must(err)
	w.must(w.blobs.Save(t.Context(), u, u)) // it goes on
	tmp := filepath.Join(w.dir, "~tmp", "LEFTBYACRASH")
	w.must(os.MkdirAll(filepath.Dir(tmp), 0o777))
	w.must(os.WriteFile(tmp, []byte("half a blob"), 0o666))
	w.must(os.Chtimes(tmp, w.time(), w.time()))
	w.set(day0.Add(2*day + time.Hour))
	o := w.options()
	report, err := blob.Collect(t.Context(), w.blobs, o)
	if err != nil || report.Strays.Looked.Count != 0 {
		t.Errorf("strays of an hour: %+v, %v", report.Strays, err)
	}
	w.set(day0.Add(4 * day))
	cur, err := w.blobs.Lookup(t.Context(), "a", u.ID)
	w.must(err)
	w.must(w.blobs.Save(t.Context(), cur, cur))
	o.Few = 2
	report, err = blob.Collect(t.Context(), w.blobs, o)
	if err != nil || report.Strays.Removed != (blob.Tally{Count: 2, Bytes: 16 + 11}) {
		t.Errorf("strays: %+v, %v", report.Strays, err)
	}
	if got := paths(t, w.dir, "~tmp"); len(got) != 0 {
		t.Errorf("%q is left", got)
	}
	w.must(blob.Finish(t.Context(), w.blobs, cur, -1, nil, digest.FromString("saved")))
}

// Bytes that nothing refers to may be those of another store.
func TestCollectRefusesTooManyStrays(t *testing.T) {
	w := newWorld(t, "dirblob")
	needed := w.put("a", strings.Repeat("needed", 10))
	w.must(w.apply("a", needed))
	w.put("a", "gone")
	for i := range 3 {
		tmp := filepath.Join(w.dir, "~tmp", fmt.Sprint("NOTOURS", i))
		w.must(os.MkdirAll(filepath.Dir(tmp), 0o777))
		w.must(os.WriteFile(tmp, []byte(strings.Repeat("of others", 10)), 0o666))
		w.must(os.Chtimes(tmp, day0, day0))
	}
	w.set(day0.Add(2 * day))
	for _, dry := range []bool{true, false} {
		o := w.options()
		o.Few, o.Dry = 2, dry
		report, err := blob.Collect(t.Context(), w.blobs, o)
		share := (*blob.ShareError)(nil)
		if !errors.As(err, &share) || share.Kind != blob.KindStray || share.Going != (blob.Tally{Count: 3, Bytes: 270}) || share.Of != (blob.Tally{Count: 5, Bytes: 334}) || !strings.Contains(err.Error(), "3 strays") {
			t.Errorf("dry %v: %v, want a *ShareError that says it all", dry, err)
		}
		if n := report.Blobs.Removed.Count + report.Strays.Removed.Count; n != 0 || len(paths(t, w.dir, "~tmp")) != 3 {
			t.Errorf("dry %v: a run that is refused has removed %d things", dry, n)
		}
	}
	for name, let := range map[string]func(o *blob.CollectOptions){
		"Few":      func(o *blob.CollectOptions) { o.Few = 3 },
		"MaxShare": func(o *blob.CollectOptions) { o.MaxShare = 0.9 },
		"Confirm":  func(o *blob.CollectOptions) { o.Confirm = true },
	} {
		o := w.options()
		o.Dry = true
		let(&o)
		if report, err := blob.Collect(t.Context(), w.blobs, o); err != nil || report.Strays.Removed.Count != 3 {
			t.Errorf("with %s: %+v, %v", name, report.Strays, err)
		}
	}
	// What cannot be counted stays.
	s, _ := blobtest.Faulty(w.blobs, blobtest.Fault{Op: "sweep", Call: 1, After: 1})
	o := w.options()
	o.MaxShare = 0.9
	report, err := blob.Collect(t.Context(), s, o)
	if !errors.Is(err, blobtest.ErrFault) || report.Blobs.Removed.Count != 1 || len(paths(t, w.dir, "~tmp")) != 3 {
		t.Errorf("strays that cannot be counted: %+v, %v", report, err)
	}
}

// Whatever is odd about a run, nothing goes.
func TestCollectRefuses(t *testing.T) {
	for _, c := range []struct {
		name string
		odd  func(w *world, o *blob.CollectOptions)
		want error
		then func(o *blob.CollectOptions) // lets the run go on, if set
	}{
		{"no needs", func(_ *world, o *blob.CollectOptions) { o.Needed = nil }, nil, nil},
		{"a store without a guard", func(w *world, _ *blob.CollectOptions) { w.blobs.(*memblob.Store).Guard = nil }, blob.ErrUnguarded,
			func(o *blob.CollectOptions) { o.Offline = true }},
		{"a store without Guarded", func(w *world, _ *blob.CollectOptions) {
			w.blobs = only{w.blobs, []any{catalogOf(w.blobs), sessionsOf(w.blobs)}}
		}, blob.ErrUnguarded, func(o *blob.CollectOptions) { o.Offline = true }},
		{"a store without a catalog", func(w *world, o *blob.CollectOptions) {
			w.blobs, o.Offline = only{w.blobs, nil}, true
		}, blob.ErrUnsupported, nil},
		{"a catalog that fails at once", func(w *world, _ *blob.CollectOptions) {
			w.blobs, _ = blobtest.Faulty(w.blobs, blobtest.Fault{Op: "repos", Call: 1})
		}, blobtest.ErrFault, func(*blob.CollectOptions) {}},
		{"a catalog that fails at last", func(w *world, _ *blob.CollectOptions) {
			w.blobs, _ = blobtest.Faulty(w.blobs, blobtest.Fault{Op: "repos", Call: 1, After: 1})
		}, blobtest.ErrFault, func(*blob.CollectOptions) {}},
		{"a touch from the future", func(w *world, _ *blob.CollectOptions) {
			w.set(w.time().Add(61 * time.Minute))
			w.put("z", "from the future")
			w.set(w.time().Add(-61 * time.Minute))
		}, blob.ErrClock, nil},
		{"a session from the future", func(w *world, _ *blob.CollectOptions) {
			w.set(w.time().Add(61 * time.Minute))
			w.begin("z", "from the future")
			w.set(w.time().Add(-61 * time.Minute))
		}, blob.ErrClock, nil},
		{"a clock that was set back", func(w *world, o *blob.CollectOptions) { o.Last = w.time().Add(time.Second) }, blob.ErrClock,
			func(o *blob.CollectOptions) { o.Last = time.Time{} }},
		{"a clock that leaps", func(w *world, o *blob.CollectOptions) { o.Last, o.Interval = w.time().Add(-11*time.Hour), time.Hour }, blob.ErrClock,
			func(o *blob.CollectOptions) { o.Last = o.Last.Add(2 * time.Hour) }},
		{"a clock that leaps by centuries", func(w *world, o *blob.CollectOptions) {
			o.Last, o.Interval = day0.AddDate(-500, 0, 0), time.Hour
		}, blob.ErrClock, nil},
		{"needs that come up empty", func(_ *world, o *blob.CollectOptions) {
			o.Needed = func(context.Context, string) iter.Seq2[digest.Digest, error] {
				return func(func(digest.Digest, error) bool) {}
			}
		}, blob.ErrShare, func(o *blob.CollectOptions) { o.Confirm = true }},
		{"needs that come up empty, and a share that is no number", func(_ *world, o *blob.CollectOptions) {
			o.MaxShare = math.NaN()
			o.Needed = func(context.Context, string) iter.Seq2[digest.Digest, error] {
				return func(func(digest.Digest, error) bool) {}
			}
		}, blob.ErrShare, func(o *blob.CollectOptions) { o.Confirm = true }},
		{"needs that come up empty, beyond the Limit", func(_ *world, o *blob.CollectOptions) {
			o.Limit, o.Needed = 1, func(context.Context, string) iter.Seq2[digest.Digest, error] {
				return func(func(digest.Digest, error) bool) {}
			}
		}, blob.ErrShare, nil},
		{"more than MaxShare", func(_ *world, o *blob.CollectOptions) { o.MaxShare = 0.05 }, blob.ErrShare,
			func(o *blob.CollectOptions) { o.MaxShare = 0.2 }},
		{"more than Few", func(_ *world, o *blob.CollectOptions) { o.MaxShare, o.Few = 0.05, 0 }, blob.ErrShare,
			func(o *blob.CollectOptions) { o.Few = 1 }},
		{"ctx has ended", func(_ *world, o *blob.CollectOptions) {}, context.Canceled, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, "memory")
			needed, gone := w.put("a", "needed 9."), w.put("b", "!")
			w.must(w.apply("a", needed))
			w.begin("a", "idle")
			w.set(day0.Add(2 * day))
			o, good := w.options(), w.blobs
			c.odd(w, &o)
			store := w.blobs
			w.blobs = good
			before := w.content()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if c.want == context.Canceled {
				cancel()
			}
			told := 0
			o.Each = func(blob.Collected) { told++ }
			report, err := blob.Collect(ctx, store, o)
			if err == nil || c.want != nil && !errors.Is(err, c.want) || told > 0 || report.Blobs.Removed.Count != 0 {
				t.Errorf("Collect = %+v, %v, and told of %d; want a refusal that matches %v", report, err, told, c.want)
			}
			for _, tally := range []blob.CollectTally{report.Blobs, report.Sessions} {
				sum := tally.Removed
				for _, kept := range tally.Kept {
					sum.Count, sum.Bytes = sum.Count+kept.Count, sum.Bytes+kept.Bytes
				}
				if sum != tally.Looked {
					t.Errorf("%s: Looked is to be Removed and all of Kept", tallies(tally))
				}
			}
			if share := (*blob.ShareError)(nil); errors.As(err, &share) && (!strings.Contains(err.Error(), "MaxShare") || share.Of.Bytes != 10 || share.Going.Bytes == 0) {
				t.Errorf("%v does not say it all", err)
			}
			w.is(before...)
			if c.then == nil {
				return
			}
			o.Each = nil
			c.then(&o)
			if report, err := blob.Collect(t.Context(), store, o); err != nil {
				t.Errorf("then: %+v, %v", report, err)
			}
			if got := strings.Join(w.content(), " "); strings.Contains(got, string(gone)) {
				t.Error("then it removed nothing")
			}
		})
	}
}

// TestCollectMayTakeHours: what is touched while it plans is not from the future.
func TestCollectMayTakeHours(t *testing.T) {
	w := newWorld(t, "memory")
	gone, stays := w.put("a", "!"), w.put("b", "needed")
	w.must(w.apply("b", stays))
	w.set(day0.Add(2 * day))
	o := w.options()
	needed := o.Needed
	o.Needed = func(ctx context.Context, repo string) iter.Seq2[digest.Digest, error] {
		if repo == "a" {
			w.set(w.time().Add(2 * time.Hour))
			w.put("b", "pushed meanwhile")
			w.begin("b", "begun meanwhile")
		}
		return needed(ctx, repo)
	}
	report, err := blob.Collect(t.Context(), w.blobs, o)
	if err != nil || report.Blobs.Removed.Count != 1 {
		t.Errorf("Collect = %+v, %v", report, err)
	}
	if got := strings.Join(w.content(), " "); strings.Contains(got, string(gone)) || !strings.Contains(got, string(describe("pushed meanwhile").Digest)) {
		t.Errorf("there is %s", got)
	}
}

// promiser is a store with a lease that others know.
type promiser struct {
	blob.Store
	lease time.Duration
	err   error
}

func (p *promiser) Promised(context.Context) (time.Duration, error) { return p.lease, p.err }
func (p *promiser) Abilities() []any                                { return []any{p.Store} }

func TestCollectKeepsThePromiseOfTheStore(t *testing.T) {
	broken := errors.New("broken")
	for _, c := range []struct {
		name     string
		lease    time.Duration // of the run
		promised time.Duration
		err      error
		want     error
		goes     bool // what was touched two days ago
	}{
		{"that of the store", 0, 3 * day, nil, nil, false},
		{"that of the store, shorter than the default", 0, time.Hour, nil, nil, true},
		{"a store that says nothing", 0, 0, nil, nil, true},
		{"a longer one", 4 * day, 3 * day, nil, nil, false},
		{"the same", day, day, nil, nil, true},
		{"a shorter one", day, 3 * day, nil, blob.ErrLease, false},
		{"unknown", day, 0, broken, broken, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, "memory")
			w.put("a", "gone")
			w.set(day0.Add(2 * day))
			o := w.options()
			o.Lease, o.Confirm = c.lease, true
			report, err := blob.Collect(t.Context(), &promiser{w.blobs, c.promised, c.err}, o)
			if !errors.Is(err, c.want) || report.Blobs.Removed.Count > 0 != c.goes {
				t.Errorf("%+v, %v, want %v", report.Blobs, err, c.want)
			}
			if short := (*blob.LeaseError)(nil); errors.As(err, &short) && (short.Lease != c.lease || short.Promised != c.promised) {
				t.Errorf("%v does not say it all", err)
			}
		})
	}
}

// only is a store with those abilities.
type only struct {
	blob.Store
	abilities []any
}

func (s only) Abilities() []any { return s.abilities }

func catalogOf(s blob.Store) any  { return struct{ blob.Catalog }{s.(blob.Catalog)} }
func sessionsOf(s blob.Store) any { return struct{ blob.SessionLister }{s.(blob.SessionLister)} }

// An error in one repository keeps all of that repository, whatever was listed
// before it, and the others go on.
func TestCollectKeepsWhatItCannotRead(t *testing.T) {
	for _, what := range []string{"blobs at once", "blobs in the middle", "needs at once", "needs at the end"} {
		for limit := range 4 {
			t.Run(fmt.Sprint(what, " ", limit), func(t *testing.T) {
				w := newWorld(t, "memory")
				for _, repo := range []string{"a", "b", "c"} {
					w.must(w.apply(repo, w.put(repo, "needed needed needed needed")))
					for i := range 3 {
						w.put(repo, fmt.Sprint(i))
					}
				}
				w.set(day0.Add(2 * day))
				o := w.options()
				o.Limit = limit * 5
				broken := errors.New("broken")
				store := blob.Store(listsBadly{w.blobs.(*memblob.Store), "b", map[string]int{"blobs at once": 0, "blobs in the middle": 3}, what, broken})
				o.Needed = func(ctx context.Context, repo string) iter.Seq2[digest.Digest, error] {
					return func(yield func(digest.Digest, error) bool) {
						if repo == "b" && what == "needs at once" {
							yield("", broken)
							return
						}
						wharfage.NeededBlobs(w.manifests)(ctx, repo)(yield)
						if repo == "b" && what == "needs at the end" {
							yield("", broken)
						}
					}
				}
				report, err := blob.Collect(t.Context(), store, o)
				var e *blob.Error
				if !errors.Is(err, broken) || len(report.Errors) != 1 || !errors.As(err, &e) || e.Repo != "b" {
					t.Errorf("Collect = %v, want the error of b alone", err)
				}
				want := 6
				if o.Limit > 0 {
					want = min(want, o.Limit)
				}
				if report.Blobs.Removed.Count != want {
					t.Errorf("%s", tallies(report.Blobs))
				}
				if _, ok := report.Blobs.Kept[blob.ReasonUnread]; !ok && what != "blobs at once" {
					t.Errorf("%s", tallies(report.Blobs))
				}
				n := 0
				for range w.blobs.Blobs(t.Context(), "b", "") {
					n++
				}
				if n != 4 {
					t.Errorf("b has %d blobs left of 4", n)
				}
			})
		}
	}
}

// listsBadly fails to list the blobs of one repository.
type listsBadly struct {
	*memblob.Store
	repo  string
	after map[string]int
	what  string
	err   error
}

func (s listsBadly) Blobs(ctx context.Context, repo string, after digest.Digest) iter.Seq2[blob.Info, error] {
	n, bad := s.after[s.what]
	if repo != s.repo || !bad {
		return s.Store.Blobs(ctx, repo, after)
	}
	return func(yield func(blob.Info, error) bool) {
		for info, err := range s.Store.Blobs(ctx, repo, "") {
			if n == 0 {
				yield(blob.Info{}, s.err)
				return
			}
			if n--; info.Digest > after && !yield(info, err) {
				return
			}
		}
	}
}

// An unknown time is no old one.
func TestCollectKeepsWhatHasNoTime(t *testing.T) {
	w := newWorld(t, "memory")
	w.put("a", "x")
	w.begin("a", "y")
	w.set(day0.Add(2 * day))
	o := w.options()
	o.Confirm = true
	report, err := blob.Collect(t.Context(), undated{w.blobs.(*memblob.Store)}, o)
	if err != nil || report.Blobs.Kept[blob.ReasonUndated].Count != 1 || report.Sessions.Kept[blob.ReasonUndated].Count != 1 {
		t.Errorf("%+v, %v", report, err)
	}
}

type undated struct{ *memblob.Store }

func (s undated) Blobs(ctx context.Context, repo string, after digest.Digest) iter.Seq2[blob.Info, error] {
	return func(yield func(blob.Info, error) bool) {
		for info, err := range s.Store.Blobs(ctx, repo, after) {
			info.TouchedAt = time.Time{}
			if !yield(info, err) {
				return
			}
		}
	}
}

func (s undated) Sessions(ctx context.Context, after string) iter.Seq2[blob.Upload, error] {
	return func(yield func(blob.Upload, error) bool) {
		for u, err := range s.Store.Sessions(ctx, after) {
			u.UpdatedAt = time.Time{}
			if !yield(u, err) {
				return
			}
		}
	}
}

// What a plan names and what happens before it is carried out.
func TestCollectLooksAgain(t *testing.T) {
	eachWorld(t, func(t *testing.T, w *world) {
		var dgsts []digest.Digest
		for i := range 5 {
			dgsts = append(dgsts, w.put("a", fmt.Sprint(i)))
		}
		slices.Sort(dgsts)
		w.put("b", "so that there is something else")
		w.must(w.apply("b", digest.FromString("so that there is something else")))
		alive, done, idle := w.begin("a", "alive"), w.begin("a", "done"), w.begin("a", "idle")
		w.set(day0.Add(2 * day))
		o := w.options()
		first := true
		got := map[string]blob.Reason{}
		o.Each = func(it blob.Collected) {
			got[string(it.Digest)+it.ID] = it.Reason
			if !first {
				return
			}
			first = false
			if _, err := w.blobs.Stat(t.Context(), "a", dgsts[1:2]); err != nil {
				t.Error(err)
			}
			w.must(w.apply("a", dgsts[2]))
			w.must(w.blobs.Delete(t.Context(), "a", dgsts[3], time.Time{}))
			if _, err := blob.Append(t.Context(), w.blobs, alive, -1, strings.NewReader("!")); err != nil {
				t.Error(err)
			}
			w.must(w.blobs.Abort(t.Context(), done))
		}
		report, err := blob.Collect(t.Context(), w.blobs, o)
		w.must(err)
		want := map[string]blob.Reason{
			string(dgsts[0]): blob.ReasonUnneeded, string(dgsts[1]): blob.ReasonMeanwhile, string(dgsts[2]): blob.ReasonMeanwhile,
			string(dgsts[3]): blob.ReasonGone, string(dgsts[4]): blob.ReasonUnneeded,
			alive.ID: blob.ReasonMeanwhile, done.ID: blob.ReasonGone, idle.ID: blob.ReasonIdle,
		}
		if !maps.Equal(got, want) {
			t.Errorf("got  %v\nwant %v", got, want)
		}
		if report.Blobs.Removed.Count != 2 || report.Sessions.Removed.Count != 1 {
			t.Errorf("%+v", report)
		}
	})
}

func TestCollectHoldsNoMoreThanItsLimit(t *testing.T) {
	w := newWorld(t, "memory")
	for _, repo := range []string{"a", "b"} {
		for i := range 10 {
			needed := w.put(repo, fmt.Sprint("needed and long enough ", i))
			w.must(w.apply(repo, needed))
			w.put(repo, fmt.Sprint(i))
			w.begin(repo, "x")
		}
	}
	w.set(day0.Add(2 * day))
	for run := range 8 {
		o := w.options()
		o.Limit = 3
		report, err := blob.Collect(t.Context(), w.blobs, o)
		w.must(err)
		want := max(0, min(3, 20-3*run))
		if report.Blobs.Removed.Count != want || report.Sessions.Removed.Count != want || report.More != (run < 6) {
			t.Errorf("run %d: %+v", run, report)
		}
		if report.Blobs.Looked.Count != 40-3*run && run < 7 {
			t.Errorf("run %d: looked at %d", run, report.Blobs.Looked.Count)
		}
	}
	if got := len(w.content()); got != 20 {
		t.Errorf("%d things are left, want the 20 blobs that are needed", got)
	}
}

func TestCollectLeavesARepositoryAfterManyFailures(t *testing.T) {
	w := newWorld(t, "memory")
	w.must(w.apply("z", w.put("z", strings.Repeat("needed ", 30))))
	for i := range 30 {
		w.put([]string{"a", "b"}[i%2], fmt.Sprint(i))
	}
	w.set(day0.Add(2 * day))
	s, _ := blobtest.Faulty(w.blobs, blobtest.Fault{Op: "delete", Call: 1, Sticky: true})
	report, err := blob.Collect(t.Context(), s, w.options())
	if !errors.Is(err, blobtest.ErrFault) || len(report.Errors) != 20 {
		t.Errorf("%d errors: %v", len(report.Errors), err)
	}
	if got, want := tallies(report.Blobs), "looked {31 260}, removed {0 0}, failed {20 "; !strings.HasPrefix(got, want) || report.Blobs.Kept[blob.ReasonLater].Count != 10 {
		t.Errorf("%s", got)
	}
}

// Every call of a run fails once, before its work, in the middle or after it.
// What is needed stays, and the next run removes the rest.
func TestCollectUnderFaults(t *testing.T) {
	for _, kind := range []string{"memory", "dirblob"} {
		for _, f := range []blobtest.Fault{{}, {After: 1}, {Late: true}, {Sticky: true}} {
			total := 0
			for f.Call = 1; ; f.Call++ {
				w := newWorld(t, kind)
				var stay []string
				for _, repo := range []string{"a", "b"} {
					needed := w.put(repo, "needed needed")
					w.must(w.apply(repo, needed))
					stay = append(stay, in(repo, needed))
					w.put(repo, "1")
					w.put(repo, "2")
					w.begin(repo, "idle")
				}
				w.set(day0.Add(2 * day))
				s, surfaced := blobtest.Faulty(w.blobs, f)
				report, err := blob.Collect(t.Context(), s, w.options())
				if surfaced() == 0 {
					if err != nil {
						t.Errorf("%v", err)
					}
					break
				}
				total++
				if !errors.Is(err, blobtest.ErrFault) {
					t.Errorf("%s %v surfaced, but Collect = %+v, %v", kind, s, report, err)
				}
				got := w.content()
				for _, name := range stay {
					if !slices.Contains(got, name) {
						t.Errorf("%s %v: %s is gone", kind, s, name)
					}
				}
				_, err = blob.Collect(t.Context(), w.blobs, w.options())
				w.must(err)
				w.is(stay...)
			}
			if total < 9 {
				t.Errorf("%s %v: only %d faults", kind, f, total)
			}
		}
	}
}

// A run whose ctx ends goes no further, and the next one does the rest.
func TestCollectCanceled(t *testing.T) {
	eachWorld(t, func(t *testing.T, w *world) {
		needed := w.put("a", strings.Repeat("needed", 10))
		w.must(w.apply("a", needed))
		for i := range 6 {
			w.put("a", fmt.Sprint(i))
			w.begin("a", "idle")
		}
		w.set(day0.Add(2 * day))
		for left := 12; left > 0; left-- {
			ctx, cancel := context.WithCancel(t.Context())
			o := w.options()
			o.Each = func(blob.Collected) { cancel() }
			report, err := blob.Collect(ctx, w.blobs, o)
			if !errors.Is(err, context.Canceled) || report.Blobs.Removed.Count+report.Sessions.Removed.Count != 1 {
				t.Errorf("%+v, %v", report, err)
			}
			if n := len(report.Errors); n > 0 {
				t.Errorf("%v", report.Errors)
			}
			if got := len(w.content()); got != left {
				t.Errorf("%d things are left, want %d", got, left)
			}
		}
		w.is(in("a", needed))
		// Needs that stop when ctx ends, and do not say so.
		w.put("a", "young")
		w.set(day0.Add(4 * day))
		ctx, cancel := context.WithCancel(t.Context())
		o := w.options()
		o.Confirm = true
		o.Needed = func(context.Context, string) iter.Seq2[digest.Digest, error] {
			return func(func(digest.Digest, error) bool) { cancel() }
		}
		if report, err := blob.Collect(ctx, w.blobs, o); !errors.Is(err, context.Canceled) || report.Blobs.Removed.Count > 0 {
			t.Errorf("%+v, %v", report, err)
		}
	})
}

// Pushers who skip what is there, collectors, and deletions, all at once: what
// was acknowledged is there, and nobody is refused within the lease.
func TestCollectRaces(t *testing.T) {
	eachWorld(t, func(t *testing.T, w *world) {
		const rounds = 30
		repos := []string{"a", "b", "a", "b"}
		for round := range rounds {
			w.set(day0.Add(time.Duration(round) * 10 * day))
			content := "content of every second round " + fmt.Sprint(round/2)
			dgst := digest.FromString(content)
			if round%3 > 0 {
				w.put("a", content)
				w.put("b", content)
			}
			w.set(w.time().Add(3 * day)) // past the lease
			var start, done sync.WaitGroup
			start.Add(1)
			errs := make(chan error, 16)
			for i, repo := range repos {
				done.Go(func() {
					start.Wait()
					infos, err := w.blobs.Stat(t.Context(), repo, []digest.Digest{dgst})
					if err == nil && infos[0].Digest == "" {
						err = blob.Put(t.Context(), w.blobs, repo, describe(content), strings.NewReader(content))
					}
					if err == nil {
						err = w.apply(repo, dgst)
					}
					if err == nil && i >= 2 {
						if err = w.unapply(repo, dgst); errors.Is(err, manifest.ErrNotFound) {
							err = nil
						}
					}
					if err == nil && i >= 2 {
						err = w.apply(repo, dgst)
					}
					errs <- err
				})
			}
			for range 2 {
				done.Go(func() {
					start.Wait()
					o := w.options()
					o.Confirm = true
					_, err := blob.Collect(t.Context(), w.blobs, o)
					errs <- err
				})
			}
			start.Done()
			done.Wait()
			close(errs)
			for err := range errs {
				if err != nil {
					t.Fatalf("round %d: %v", round, err)
				}
			}
			for _, repo := range []string{"a", "b"} {
				got, err := blob.ReadAll(t.Context(), w.blobs, repo, describe(content))
				if err != nil || string(got) != content {
					t.Fatalf("round %d: acknowledged in %s, and then %q, %v", round, repo, got, err)
				}
				w.must(w.unapply(repo, dgst))
			}
		}
	})
}

func ExampleCollect() {
	ctx := context.Background()
	manifests := new(memmanifest.Store)
	store := &memblob.Store{Guard: wharfage.GuardBlobs(manifests)}
	if err := blob.Put(ctx, store, "team/app", describe("hello"), strings.NewReader("hello")); err != nil {
		fmt.Println(err)
		return
	}
	report, err := blob.Collect(ctx, store, blob.CollectOptions{
		Needed:  wharfage.NeededBlobs(manifests),
		Confirm: true,                                                       // that all may go
		Now:     func() time.Time { return time.Now().Add(48 * time.Hour) }, // past the lease
		Each:    func(it blob.Collected) { fmt.Println(it.Kind, it.Repo, it.Size, it.Reason) },
	})
	fmt.Println(report.Blobs.Removed.Count, err)
	// Output:
	// blob team/app 5 unneeded
	// 1 <nil>
}
