package parts

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/blob/dirblob"
)

func open(t *testing.T, minPart int) *Files {
	t.Helper()
	return &Files{
		Objects: &dirblob.Objects{Dir: t.TempDir(), Unsynced: true},
		NewKey:  func() string { return NewKey(7, time.Unix(1e9, 0)) },
		MinPart: minPart,
	}
}

func objects(t *testing.T, f *Files) (n int) {
	t.Helper()
	for _, err := range f.Objects.List(t.Context(), "", "") {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	return n
}

// long returns n bytes that repeat nowhere near.
func long(n int) string {
	var b strings.Builder
	for i := 0; b.Len() < n; i++ {
		fmt.Fprint(&b, i, " ")
	}
	return b.String()[:n]
}

func read(t *testing.T, f *Files, c Content, off, n int64) (string, error) {
	t.Helper()
	r, err := f.Open(t.Context(), c, off, n)
	if err != nil {
		return "", err
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	return string(b), err
}

// contents are of all shapes.
func contents(t *testing.T, f *Files) map[string]Content {
	t.Helper()
	out := map[string]Content{}
	for _, sizes := range [][]int{{}, {0}, {3}, {100}, {100, 3}, {100, 200}, {100, 0, 200, 3}, {3, 3, 3}, {0, 100, 99, 1}, {100, 100, 100}} {
		var c Content
		text := long(1000)
		for _, n := range sizes {
			var err error
			if c, err = f.Append(t.Context(), c, strings.NewReader(text[:n])); err != nil {
				t.Fatal(err)
			}
			text = text[n:]
		}
		all := long(1000)[:1000-len(text)]
		if c.Size() != int64(len(all)) {
			t.Fatalf("chunks %d make %d bytes, want %d", sizes, c.Size(), len(all))
		}
		out[fmt.Sprint(sizes)] = c
		sealed, err := f.Seal(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		if len(sealed.Tail) != 0 || len(sealed.Parts) == 0 || sealed.Size() != c.Size() {
			t.Fatalf("chunks %d are sealed as %+v", sizes, sealed)
		}
		out[fmt.Sprint(sizes, " sealed")] = sealed
	}
	return out
}

func TestAnyRangeOfAnyContentIsRead(t *testing.T) {
	f := open(t, 50)
	for name, c := range contents(t, f) {
		size := c.Size()
		all := long(int(size))
		for off := range size + 1 {
			for _, n := range []int64{-1, 0, 1, 2, 99, 100, 101, size, size + 1} {
				want := all[off:]
				if n >= 0 {
					want = want[:min(n, size-off)]
				}
				if got, err := read(t, f, c, off, n); err != nil || got != want {
					t.Fatalf("%s: %d bytes from %d are %q, %v, want %q", name, n, off, got, err, want)
				}
			}
		}
		r, err := f.Open(t.Context(), c, 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		if err := iotest.TestReader(r, []byte(all)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if r, err = f.Open(t.Context(), c, size/3, -1); err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if _, err := io.Copy(&b, r); err != nil || b.String() != all[size/3:] {
			t.Errorf("%s: copied %q, %v", name, b.String(), err)
		}
	}
}

func TestShortChunksWaitInTheTail(t *testing.T) {
	f := open(t, 10)
	var c Content
	var err error
	for i := range 100 {
		if c, err = f.Append(t.Context(), c, strings.NewReader("abc"[i%3:i%3+1])); err != nil {
			t.Fatal(err)
		}
		if len(c.Tail) >= 10 {
			t.Fatalf("the tail has %d bytes", len(c.Tail))
		}
	}
	if n := objects(t, f); n != 10 || len(c.Parts) != 10 {
		t.Errorf("100 bytes are in %d objects and %d parts, want 10", n, len(c.Parts))
	}
	if open(t, 0).MinPart != 0 || DefaultMinPart != 1<<20 {
		t.Error("the default has changed")
	}
}

func TestAppendLeavesWhatItContinues(t *testing.T) {
	f := open(t, 4)
	c, err := f.Append(t.Context(), Content{}, strings.NewReader("12345"))
	if err == nil {
		c, err = f.Append(t.Context(), c, strings.NewReader("67"))
	}
	if err != nil {
		t.Fatal(err)
	}
	a, errA := f.Append(t.Context(), c, strings.NewReader("aaaa"))
	b, errB := f.Append(t.Context(), c, strings.NewReader("bbbb"))
	d, errD := f.Append(t.Context(), c, strings.NewReader("c"))
	if err := errors.Join(errA, errB, errD); err != nil {
		t.Fatal(err)
	}
	for want, c := range map[string]Content{"1234567": c, "1234567aaaa": a, "1234567bbbb": b, "1234567c": d} {
		if got, err := read(t, f, c, 0, -1); got != want {
			t.Errorf("reads %q, %v, want %q", got, err, want)
		}
	}
	if got := a.Without(b); len(got) != 1 || got[0] != a.Parts[1].Key {
		t.Errorf("a has %s alone", got)
	}
	f.Drop(t.Context(), a.Without(c)...)
	if got, err := read(t, f, b, 0, -1); got != "1234567bbbb" {
		t.Errorf("without the objects of a, b is %q, %v", got, err)
	}
}

func TestAnErrorLeavesNothing(t *testing.T) {
	f := open(t, 10)
	broken := errors.New("broken")
	c, err := f.Append(t.Context(), Content{}, strings.NewReader("one"))
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{0, 3, 7, 8, 100} {
		r := io.MultiReader(strings.NewReader(long(n)), iotest.ErrReader(broken))
		if _, err := f.Append(t.Context(), c, r); !errors.Is(err, broken) {
			t.Errorf("Append of %d bytes = %v", n, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, put := f.Put(ctx, strings.NewReader("x"))
	_, add := f.Append(ctx, c, strings.NewReader("x"))
	_, seal := f.Seal(ctx, c)
	for what, err := range map[string]error{"Put": put, "Append": add, "Seal": seal} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s with an ended context = %v", what, err)
		}
	}
	if n := objects(t, f); n != 0 {
		t.Errorf("%d objects are left", n)
	}
}

func TestDropWorksOnWhenTheContextHasEnded(t *testing.T) {
	f := open(t, 1)
	c, err := f.Put(t.Context(), strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	f.Drop(ctx, c.Parts[0].Key, NewKey(1, time.Now()))
	if n := objects(t, f); n != 0 {
		t.Errorf("%d objects are left", n)
	}
}

// What is missing or too short must be no blob that is not there, no bad range
// and no short content.
func TestDamageIsNotToldAsAbsence(t *testing.T) {
	f := open(t, 1)
	var c Content
	for _, s := range []string{"123", "456"} {
		var err error
		if c, err = f.Append(t.Context(), c, strings.NewReader(s)); err != nil {
			t.Fatal(err)
		}
	}
	one := Content{Parts: c.Parts[:1]}
	longer := Content{Parts: []Part{{c.Parts[0].Key, 5}}}
	for _, off := range []int64{0, 4} {
		if got, err := read(t, f, longer, off, -1); err == nil || errors.Is(err, blob.ErrRange) || errors.Is(err, blob.ErrNotFound) {
			t.Errorf("an object that is too short, from %d: %q, %v", off, got, err)
		}
	}
	f.Drop(t.Context(), c.Parts[1].Key)
	r, err := f.Open(t.Context(), c, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if string(b) != "123" || err == nil || errors.Is(err, blob.ErrNotFound) {
		t.Errorf("the reader yields %q, %v, want an error that is not ErrNotFound", b, err)
	}
	if n, again := r.Read(make([]byte, 1)); n != 0 || again == nil || again == io.EOF {
		t.Errorf("and after that %d, %v", n, again)
	}
	if r, err = f.Open(t.Context(), c, 0, -1); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, r); err == nil {
		t.Error("a copy ends without an error")
	}
	f.Drop(t.Context(), c.Parts[0].Key)
	for _, c := range []Content{one, c} {
		if _, err := f.Open(t.Context(), c, 0, -1); !errors.Is(err, blob.ErrNotFound) {
			t.Errorf("Open without the first object = %v, want ErrNotFound", err)
		}
	}
}

func TestAStateIsReadAsItWasWritten(t *testing.T) {
	f := open(t, 50)
	seen := map[string]bool{}
	for name, c := range contents(t, f) {
		for _, tail := range []string{string(c.Tail), "\n", "\n\n", "a b\n\x00"} {
			c.Tail = []byte(tail)
			state := State(c)
			if seen[string(state)] {
				t.Fatalf("%s: two versions have the same state", name)
			}
			seen[string(state)] = true
			got, err := ParseState(state)
			if err != nil || !slices.Equal(got.Parts, c.Parts) || string(got.Tail) != tail {
				t.Errorf("%s: %q is read as %+v, %v", name, state, got, err)
			}
			if bytes.Equal(State(c), state) {
				t.Errorf("%s: the next version has the same state", name)
			}
		}
	}
	key := NewKey(1, time.Now())
	for _, s := range []string{"", "x", "x\n", "x\n" + key + " 1", "x\n" + key + " 1\n", "x\n" + key + "\n\n", "x\n" + key + " -1\n\n", "x\n" + key + " 1x\n\n", "x\n../../etc/passwd 1\n\n", "x\n" + key + "/.. 1\n\n"} {
		if c, err := ParseState([]byte(s)); !errors.Is(err, blob.ErrConflict) {
			t.Errorf("%q is read as %+v, %v, want ErrConflict", s, c, err)
		}
	}
}

func TestKeysTellTheirEraAndSortByTime(t *testing.T) {
	seen := map[string]bool{}
	last := ""
	for i := range 1000 {
		era, now := uint64(i/100), time.Unix(1e9+int64(i), 0)
		key := NewKey(era, now)
		if got, ok := Era(key); got != era || !ok || seen[key] {
			t.Fatalf("%s is of era %d, %t, want %d", key, got, ok, era)
		}
		if seen[key] = true; Name(key) <= last || !strings.HasSuffix(key, "/"+Name(key)) {
			t.Fatalf("the name of %s comes before %s", key, last)
		}
		last = Name(key)
	}
	if key := NewKey(1<<32-1, time.Time{}); len(key) != len(NewKey(0, time.Now())) {
		t.Errorf("%s has another form", key)
	}
	good := NewKey(1, time.Now())
	for i := range good {
		bad := []byte(good)
		bad[i] = 'g'
		if era, ok := Era(string(bad)); ok {
			t.Errorf("%s is of era %d", bad, era)
		}
	}
	for _, bad := range []string{"", good[1:], good + "0", strings.ToUpper(good[:26]) + "-" + strings.Repeat("A", 20)} {
		if era, ok := Era(bad); ok {
			t.Errorf("%q is of era %d", bad, era)
		}
	}
}

func FuzzParseState(f *testing.F) {
	f.Add(State(Content{Parts: []Part{{NewKey(1, time.Now()), 5}}, Tail: []byte("x")}))
	f.Fuzz(func(t *testing.T, state []byte) {
		c, err := ParseState(state)
		if err != nil {
			return
		}
		again, err := ParseState(State(c))
		if err != nil || !slices.Equal(again.Parts, c.Parts) || !bytes.Equal(again.Tail, c.Tail) {
			t.Errorf("%+v is read back as %+v, %v", c, again, err)
		}
	})
}

func TestWholeTellsWhatIsMissing(t *testing.T) {
	for name, damage := range map[string]func(f *Files, key string) error{
		"a part is gone": func(f *Files, key string) error { return f.Objects.Delete(t.Context(), key) },
		"a part has another size": func(f *Files, key string) error {
			_, err := f.Objects.Put(t.Context(), key, strings.NewReader("xx"))
			return err
		},
	} {
		for what := range contents(t, open(t, 1)) {
			f := open(t, 1)
			c := contents(t, f)[what] // which share objects
			if len(c.Parts) == 0 {
				continue
			}
			if whole, err := f.Whole(t.Context(), c); !whole || err != nil {
				t.Fatalf("%s: Whole = %v, %v", what, whole, err)
			}
			if err := damage(f, c.Parts[len(c.Parts)-1].Key); err != nil {
				t.Fatal(err)
			}
			if whole, err := f.Whole(t.Context(), c); whole || err != nil {
				t.Errorf("%s, and %s: Whole = %v, %v", what, name, whole, err)
			}
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	f := open(t, 1)
	if whole, err := f.Whole(ctx, Content{Parts: []Part{{f.NewKey(), 1}}}); whole || !errors.Is(err, context.Canceled) {
		t.Errorf("Whole with an ended ctx = %v, %v", whole, err)
	}
}

func TestProbeLeavesNothing(t *testing.T) {
	f := open(t, 1)
	if err := Probe(t.Context(), f.Objects); err != nil || objects(t, f) != 0 {
		t.Errorf("Probe = %v, and %d objects are left", err, objects(t, f))
	}
	if err := Probe(t.Context(), &broken{f.Objects, "put"}); !errors.Is(err, errBroken) {
		t.Errorf("Probe of what cannot be written = %v", err)
	}
}

// stuck never answers.
type stuck struct {
	blob.Objects
	calls int
}

func (o *stuck) Delete(ctx context.Context, key string) error {
	o.calls++
	<-ctx.Done()
	return ctx.Err()
}

func TestDropWaitsForABoundedTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		o, began := &stuck{}, time.Now()
		(&Files{Objects: o}).Drop(ctx, "a", "b", "c")
		if took := time.Since(began); took != 10*time.Second || o.calls != 1 {
			t.Errorf("it took %v and %d calls, want 10s and 1", took, o.calls)
		}
	})
}
