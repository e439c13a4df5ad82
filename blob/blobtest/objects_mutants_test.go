package blobtest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"iter"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wharfage/wharfage/blob"
)

// Each mutant breaks one promise of Objects in memory, and the kit must reject
// it, in the clause given at least.
var objectsMutants = []struct {
	name   string
	clause string
	mutate func(*objects)
}{
	{"none", "", func(*objects) {}},
	{"forgets on a restart", "Put/it_is_durable", func(o *objects) { o.forgets = true }},
	{"a deletion comes back on a restart", "Delete/it_removes_the_bytes", func(o *objects) { o.undeletes = true }},
	{"counts wrong", "Put/it_is_durable", func(o *objects) {
		put := o.put
		o.put = func(ctx context.Context, key string, r io.Reader) (int64, error) {
			n, err := put(ctx, key, r)
			return max(n-1, 0), err
		}
	}},
	{"visible from the first byte on", "Put/it_is_visible_all", func(o *objects) { o.early = true }},
	{"visible in halves", "Put/who_looks", func(o *objects) { o.halves = true }},
	{"stops at a short read", "Put/it_stores_what_r_yields", func(o *objects) {
		o.readAll = func(r io.Reader) ([]byte, error) {
			b := make([]byte, 4<<20)
			n, err := r.Read(b)
			if err == io.EOF {
				err = nil
			}
			return b[:n], err
		}
	}},
	{"keeps what a failing reader yielded", "Put/an_error_from_r", func(o *objects) {
		o.readAll = func(r io.Reader) ([]byte, error) { b, _ := io.ReadAll(r); return b, nil }
	}},
	{"leaves a file behind", "Put/an_error_from_r", func(o *objects) { o.litters = true }},
	{"hides the reader's error", "Put/an_error_from_r", func(o *objects) {
		o.readAll = func(r io.Reader) ([]byte, error) {
			b, err := io.ReadAll(r)
			if err != nil {
				err = errors.New("put failed")
			}
			return b, err
		}
	}},
	{"calls a failure not found", "Put/an_error_from_r", func(o *objects) {
		o.readAll = func(r io.Reader) ([]byte, error) {
			b, err := io.ReadAll(r)
			if errors.Is(err, os.ErrNotExist) {
				err = errors.Join(err, blob.ErrNotFound)
			}
			return b, err
		}
	}},
	{"writers share a buffer", "Put/many_may_put", func(o *objects) {
		var buf []byte
		var mu sync.Mutex
		o.readAll = func(r io.Reader) ([]byte, error) {
			mu.Lock()
			buf = nil
			mu.Unlock()
			for {
				p := make([]byte, 1000)
				n, err := r.Read(p)
				mu.Lock()
				buf = append(buf, p[:n]...)
				b := buf
				mu.Unlock()
				runtime.Gosched() // so that others come in between, also on one processor
				if err == io.EOF {
					return b, nil
				}
				if err != nil {
					return nil, err
				}
			}
		}
	}},
	{"takes any key", "Objects/a_key_is", func(o *objects) { o.valid = func(string) bool { return true } }},
	{"takes no long key", "Objects/a_key_is", func(o *objects) {
		o.valid = func(key string) bool { return validKey(key) && len(key) < 1000 }
	}},
	{"begins with an ended ctx", "Objects/they_refuse", func(o *objects) { o.ctx = func(context.Context) error { return nil } }},
	{"reads on after ctx", "Put/it_honours_ctx", func(o *objects) { o.deaf = true }},
	{"range one too long", "Open/n_bytes", func(o *objects) {
		o.cut = func(b []byte, off, n int64) ([]byte, error) { return goodCut(b, off, n+min(n+1, 1)) }
	}},
	{"all of no bytes", "Open/n_bytes", func(o *objects) {
		o.cut = func(b []byte, off, n int64) ([]byte, error) {
			if n == 0 {
				n = -1
			}
			return goodCut(b, off, n)
		}
	}},
	{"the end is out of range", "Open/n_bytes", func(o *objects) {
		o.cut = func(b []byte, off, n int64) ([]byte, error) {
			if off == int64(len(b)) {
				return nil, blob.ErrRange
			}
			return goodCut(b, off, n)
		}
	}},
	{"an end that overflows", "Open/n_bytes", func(o *objects) {
		o.cut = func(b []byte, off, n int64) ([]byte, error) {
			if end := off + n; n >= 0 && end < 0 {
				return nil, blob.ErrRange
			}
			return goodCut(b, off, n)
		}
	}},
	{"beyond the end is empty", "Open/ErrRange", func(o *objects) {
		o.cut = func(b []byte, off, n int64) ([]byte, error) { return goodCut(b, min(off, int64(len(b))), n) }
	}},
	{"folders are found", "Open/ErrNotFound", func(o *objects) { o.folders = true }},
	{"ends early when deleted", "Open/the_reader_never", func(o *objects) { o.endsEarly = true }},
	{"deletes all that begins so", "Delete/it_removes_the_bytes", func(o *objects) { o.deletesPrefix = true }},
	{"a second deletion fails", "Delete/when_there_are_none", func(o *objects) { o.deleteError = errors.New("no such file") }},
	{"lists in order of folders", "List/in_byte_order", func(o *objects) {
		o.sort = func(a, b string) int {
			return strings.Compare(strings.ReplaceAll(a, "/", "\x00"), strings.ReplaceAll(b, "/", "\x00"))
		}
	}},
	{"lists in any order", "List/in_byte_order", func(o *objects) { o.sort = func(a, b string) int { return strings.Compare(b, a) } }},
	{"lists without sizes", "List/in_byte_order", func(o *objects) { o.bare = true }},
	{"lists after too", "List/strictly_after", func(o *objects) {
		o.selects = func(key, under, after string) bool { return strings.HasPrefix(key, under) && key >= after }
	}},
	{"under is any prefix", "List/what_lies", func(o *objects) {
		o.selects = func(key, under, after string) bool {
			return strings.HasPrefix(key, strings.TrimSuffix(under, "/")) && key > after
		}
	}},
	{"goes on after its error", "List/it_ends_at", func(o *objects) { o.stubborn = true }},
	{"ends with its ctx, silently", "List/it_ends_at", func(o *objects) { o.silent = true }},
	{"pages are counted", "List/what_is_there", func(o *objects) { o.counts = true }},
	{"lock held in the loop body", "List/what_is_there", func(o *objects) { o.locks = true }},
	{"sweeps the young", "Sweep/it_removes", func(o *objects) { o.sweeps = func(time.Time) bool { return true } }},
	{"sweeps nothing", "Sweep/it_removes", func(o *objects) { o.sweeps = func(time.Time) bool { return false } }},
	{"puts half of what was swept", "Sweep/a_call_that", func(o *objects) { o.revives = true }},
}

// Like TestMutants.
func TestObjectsMutants(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range objectsMutants {
		t.Run(m.name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), exe, "-test.run=^TestObjectsMutant$/"+m.clause, "-test.timeout=5m")
			cmd.Env = append(os.Environ(), mutantVar+"="+m.name)
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			switch {
			case m.clause == "" && err != nil:
				t.Errorf("the kit rejects good objects: %v\n%s", err, out)
			case m.clause != "" && !errors.As(err, &exit):
				t.Errorf("the kit accepts it (error %v), want a failure of %s", err, m.clause)
			case m.clause != "" && !bytes.Contains(out, []byte("--- FAIL: TestObjectsMutant/"+m.clause)):
				t.Errorf("the kit rejects it, but not by %s:\n%.4000s", m.clause, out)
			}
		})
	}
}

// TestObjectsMutant is the other process.
func TestObjectsMutant(t *testing.T) {
	name := os.Getenv(mutantVar)
	if name == "" {
		t.Skip("run by TestObjectsMutants")
	}
	for _, m := range objectsMutants {
		if m.name == name {
			testObjects(t, ObjectsOptions{
				New: func(testing.TB) blob.Objects {
					o := newObjects()
					m.mutate(o)
					return o
				},
				Reopen: func(_ testing.TB, o blob.Objects) blob.Objects {
					again := o.(*objects)
					if again.forgets {
						clear(again.all)
					}
					if again.undeletes {
						maps.Copy(again.all, again.gone)
					}
					return again
				},
				Things: func(_ testing.TB, o blob.Objects) int {
					o.(*objects).mu.Lock()
					defer o.(*objects).mu.Unlock()
					return len(o.(*objects).all) + len(o.(*objects).temp)
				},
				Strand: func(_ testing.TB, o blob.Objects) int {
					now := time.Now()
					o.(*objects).temp[&now] = now
					return 1
				},
			}, patienceWith(m.clause))
			return
		}
	}
	t.Fatalf("no mutant %q", name)
}

// objects are in memory, and good unless mutated.
type objects struct {
	mu          sync.Mutex
	all, gone   map[string]object
	temp        map[*time.Time]time.Time // puts under way, and what they left
	put         func(context.Context, string, io.Reader) (int64, error)
	readAll     func(io.Reader) ([]byte, error)
	valid       func(key string) bool
	ctx         func(context.Context) error
	cut         func(b []byte, off, n int64) ([]byte, error)
	selects     func(key, under, after string) bool
	sort        func(a, b string) int
	sweeps      func(time.Time) bool
	deleteError error
	seen        chan struct{} // closed by the next Open that finds something

	forgets, undeletes, early, halves, litters, deaf, folders, endsEarly, deletesPrefix, bare, stubborn, silent, counts, locks, revives bool
}

type object struct {
	content []byte
	at      time.Time
}

func newObjects() *objects {
	o := &objects{
		all: map[string]object{}, gone: map[string]object{}, temp: map[*time.Time]time.Time{},
		readAll: io.ReadAll, valid: validKey, ctx: context.Context.Err, cut: goodCut, sort: strings.Compare,
		selects:     func(key, under, after string) bool { return strings.HasPrefix(key, under) && key > after },
		deleteError: blob.ErrNotFound,
	}
	o.put = o.goodPut
	return o
}

func validKey(key string) bool {
	return len(key) <= 1000 && regexp.MustCompile(`^[\w+=-]([\w.+=-]*[\w+=-])?(/[\w+=-]([\w.+=-]*[\w+=-])?)*$`).MatchString(key) &&
		!slices.ContainsFunc(strings.Split(key, "/"), func(part string) bool { return len(part) > 200 })
}

func goodCut(b []byte, off, n int64) ([]byte, error) {
	if off > int64(len(b)) {
		return nil, blob.ErrRange
	}
	if b = b[off:]; n >= 0 && n < int64(len(b)) {
		b = b[:n]
	}
	return b, nil
}

func (o *objects) check(ctx context.Context, key string) error {
	if !o.valid(key) {
		return blob.ErrUnsupported
	}
	return o.ctx(ctx)
}

func (o *objects) Put(ctx context.Context, key string, r io.Reader) (int64, error) {
	if err := o.check(ctx, key); err != nil {
		return 0, err
	}
	return o.put(ctx, key, r)
}

func (o *objects) goodPut(ctx context.Context, key string, r io.Reader) (int64, error) {
	now := time.Now()
	o.mu.Lock()
	o.temp[&now] = now
	if o.early {
		o.all[key] = object{nil, now}
	}
	o.mu.Unlock()
	if !o.deaf {
		r = obedient{o, ctx, r}
	}
	b, err := o.readAll(r)
	if o.halves && err == nil {
		o.mu.Lock()
		o.all[key] = object{b[:len(b)/2], now}
		seen := make(chan struct{})
		o.seen = seen
		o.mu.Unlock()
		select { // however busy the machine is
		case <-seen:
		case <-time.After(10 * time.Second):
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	_, there := o.temp[&now]
	if err == nil && !there {
		if err = errors.New("swept"); o.revives {
			o.all[key] = object{b[:len(b)/2], now}
		}
	}
	if err != nil {
		if !o.litters {
			delete(o.temp, &now)
		}
		return 0, err
	}
	delete(o.temp, &now)
	o.all[key] = object{b, now}
	return int64(len(b)), nil
}

type obedient struct {
	o   *objects
	ctx context.Context
	r   io.Reader
}

func (r obedient) Read(p []byte) (int, error) {
	if err := r.o.ctx(r.ctx); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

func (o *objects) Open(ctx context.Context, key string, off, n int64) (io.ReadCloser, blob.Object, error) {
	if err := o.check(ctx, key); err != nil {
		return nil, blob.Object{}, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	obj, ok := o.all[key]
	for other := range o.all {
		if o.folders && strings.HasPrefix(other, key+"/") {
			ok = true
		}
	}
	if !ok {
		return nil, blob.Object{}, blob.ErrNotFound
	}
	if o.seen != nil {
		close(o.seen)
		o.seen = nil
	}
	b, err := o.cut(obj.content, off, n)
	if err != nil {
		return nil, blob.Object{}, err
	}
	return &objectReader{o, key, bytes.NewReader(b)}, blob.Object{Key: key, Size: int64(len(obj.content)), ModTime: obj.at}, nil
}

type objectReader struct {
	o   *objects
	key string
	r   *bytes.Reader
}

func (r *objectReader) Read(p []byte) (int, error) {
	r.o.mu.Lock()
	defer r.o.mu.Unlock()
	if _, ok := r.o.all[r.key]; !ok && r.o.endsEarly {
		return 0, io.EOF
	}
	return r.r.Read(p)
}

func (r *objectReader) Close() error { return nil }

func (o *objects) Delete(ctx context.Context, key string) error {
	if err := o.check(ctx, key); err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	obj, ok := o.all[key]
	if !ok {
		return o.deleteError
	}
	o.gone[key] = obj
	delete(o.all, key)
	if o.deletesPrefix {
		maps.DeleteFunc(o.all, func(other string, _ object) bool { return strings.HasPrefix(other, key) })
	}
	return nil
}

func (o *objects) List(ctx context.Context, under, after string) iter.Seq2[blob.Object, error] {
	return func(yield func(blob.Object, error) bool) {
		err := o.ctx(ctx)
		if under != "" && err == nil {
			err = o.check(ctx, under)
			under += "/"
		}
		if err != nil {
			yield(blob.Object{}, err)
			return
		}
		last := ""
		for n := 0; ; n++ {
			obj, ok := o.next(under, after, last, n)
			if !ok {
				return
			}
			if err := o.ctx(ctx); err != nil && (o.silent || !yield(blob.Object{}, err) || !o.stubborn) {
				return
			}
			if last = obj.Key; o.locks {
				o.mu.Lock()
			}
			more := yield(obj, nil)
			if o.locks {
				o.mu.Unlock()
			}
			if !more {
				return
			}
		}
	}
}

// next returns the object that comes after last, or, in a mutant, the n-th.
func (o *objects) next(under, after, last string, n int) (blob.Object, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, key := range slices.SortedFunc(maps.Keys(o.all), o.sort) {
		switch {
		case !o.selects(key, under, after):
			continue
		case o.counts && n > 0:
			n--
			continue
		case !o.counts && last != "" && o.sort(key, last) <= 0:
			continue
		case o.bare:
			return blob.Object{Key: key}, true
		}
		obj := o.all[key]
		return blob.Object{Key: key, Size: int64(len(obj.content)), ModTime: obj.at}, true
	}
	return blob.Object{}, false
}

func (o *objects) Sweep(ctx context.Context, cutoff time.Time) (int, error) {
	if err := o.ctx(ctx); err != nil {
		return 0, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	before := len(o.temp)
	maps.DeleteFunc(o.temp, func(_ *time.Time, at time.Time) bool {
		if o.sweeps != nil {
			return o.sweeps(at)
		}
		return at.Before(cutoff)
	})
	return before - len(o.temp), nil
}
