package blobtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"sync"
	"testing/iotest"

	"github.com/wharfage/wharfage/blob"
)

// Keys at the bounds of the grammar, and beyond them.
var (
	goodKeys = []string{
		"k", "0", "-", "+", "=", "_", "a.b", "a..b", "Upper", "Az09._+=-z", "x/y/z/1", strings.Repeat("n", 200), strings.Repeat("p", 200) + "/q",
		strings.Repeat("d/", 499) + "ee", strings.Repeat(strings.Repeat("l", 199)+"/", 4) + strings.Repeat("l", 200),
	}
	badKeys = []string{
		"", "/", ".", "..", "/a", "a/", "a//b", "./a", "a/.", "../a", "a/../b", ".a", "a.", "a/.b", "a/b./c", "~a", "~tmp/a", "a b", "a\\b", "a:b", "a?b", "a%2Fb", "a\x00b",
		"a\nb", "ä", strings.Repeat("n", 201), "a/" + strings.Repeat("n", 201), strings.Repeat("d/", 500) + "e",
	}
)

var objectsPutClauses = []objectsClause{
	{"Put/it is durable and visible when Put returns", func(k *objectsKit) {
		for _, size := range k.sizes() {
			k.put(fmt.Sprint("folder/size-", size), long(size))
			k.has(fmt.Sprint("folder/size-", size), long(size))
		}
		if k.options.Reopen != nil {
			k.o = k.options.Reopen(k, k.o)
		}
		for _, size := range k.sizes() {
			k.has(fmt.Sprint("folder/size-", size), long(size))
		}
	}},
	{"Put/it is visible all at once", func(k *objectsKit) {
		for _, size := range k.sizes() {
			key, content := fmt.Sprint("folder/size-", size), long(size)
			looks := 0
			r := spy{strings.NewReader(content), func() {
				if looks++; looks <= 3 || looks%64 == 0 {
					k.lacks(key, "the reader has not ended")
				}
			}}
			_, err := k.o.Put(k.Context(), key, r)
			k.ok(err, "Put")
			k.has(key, content)
		}
	}},
	{"Put/who looks meanwhile sees nothing or all", func(k *objectsKit) {
		key, content := "folder/key", long(3<<20+1)
		var done sync.WaitGroup
		stop := make(chan struct{})
		done.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if got, err := k.read(key, 0, -1); err == nil && got != content || err != nil && !errors.Is(err, blob.ErrNotFound) {
					k.Errorf("Open while Put goes on: %d bytes, %v, want ErrNotFound or all", len(got), err)
					return
				}
			}
		})
		k.put(key, content)
		close(stop)
		done.Wait()
		k.has(key, content)
	}},
	{"Put/it stores what r yields, however r yields it", func(k *objectsKit) {
		content := long(600_000)
		for i, r := range []io.Reader{
			iotest.HalfReader(strings.NewReader(content)),
			iotest.DataErrReader(strings.NewReader(content)),
			iotest.DataErrReader(iotest.HalfReader(strings.NewReader(content))),
			io.MultiReader(iotest.OneByteReader(strings.NewReader(content[:100])), &stutter{r: strings.NewReader(content[100:])}),
		} {
			key := fmt.Sprint("folder/", i)
			if n, err := k.o.Put(k.Context(), key, r); err != nil || n != int64(len(content)) {
				k.Fatalf("Put from reader %d = %d, %v, want %d", i, n, err, len(content))
			}
			k.has(key, content)
		}
	}},
	{"Put/an error from r means that nothing is visible or left behind", func(k *objectsKit) {
		k.put("folder/warm", "up")
		for i, size := range k.sizes() {
			for j, cause := range []error{errReader, fs.ErrNotExist, io.ErrUnexpectedEOF} {
				key := fmt.Sprintf("folder/%d-%d", i, j)
				k.leavesNothing(func() {
					n, err := k.o.Put(k.Context(), key, io.MultiReader(strings.NewReader(long(size)), failing{cause}))
					k.is(err, cause, fmt.Sprintf("Put of %d bytes", size), "an error from r")
					if n != 0 || errors.Is(err, blob.ErrNotFound) {
						k.Fatalf("Put = %d, %v, want 0 and no ErrNotFound: a failure is never reported as that", n, err)
					}
					k.lacks(key, "its reader failed")
				})
			}
		}
		if got := k.list("folder", ""); len(got) != 1 {
			k.Fatalf("List = %q, want what was put without an error", got)
		}
	}},
	{"Put/many may put at once", func(k *objectsKit) {
		const writers, each = 8, 4
		key := func(w, i int) string { return fmt.Sprintf("%d/folder/%d", i, w) }
		content := func(w, i int) string { return long(1000*w + 100_000*i) }
		together(writers, func(w int) {
			for i := range each {
				if _, err := k.o.Put(k.Context(), key(w, i), iotest.HalfReader(strings.NewReader(content(w, i)))); err != nil {
					k.Errorf("Put: %v", err)
				}
			}
		})
		for w := range writers {
			for i := range each {
				k.has(key(w, i), content(w, i))
			}
		}
	}},
	{"Objects/a key is components joined by a slash, and others match ErrUnsupported", func(k *objectsKit) {
		for _, key := range goodKeys {
			k.put(key, key)
		}
		for _, key := range goodKeys {
			k.has(key, key)
		}
		if got := k.list("", ""); len(got) != len(goodKeys) {
			k.Fatalf("List shows %d objects, want %d: %q", len(got), len(goodKeys), got)
		}
		for _, key := range badKeys {
			k.leavesNothing(func() {
				_, err := k.o.Put(k.Context(), key, strings.NewReader("content"))
				k.is(err, blob.ErrUnsupported, fmt.Sprintf("Put(%.50q)", key), "no key")
			})
			_, err := k.read(key, 0, -1)
			k.is(err, blob.ErrUnsupported, fmt.Sprintf("Open(%.50q)", key), "no key")
			k.is(k.o.Delete(k.Context(), key), blob.ErrUnsupported, fmt.Sprintf("Delete(%.50q)", key), "no key")
			if key != "" {
				k.is(k.listError(k.Context(), key), blob.ErrUnsupported, fmt.Sprintf("List under %.50q", key), "no key")
			}
		}
		for _, key := range goodKeys {
			k.ok(k.o.Delete(k.Context(), key), "Delete")
		}
		if got := k.list("", ""); len(got) != 0 {
			k.Fatalf("List shows %q after all were deleted", got)
		}
	}},
	{"Objects/they refuse an ended ctx with its error", func(k *objectsKit) {
		k.put("folder/key", "content")
		ctx := k.canceled()
		_, put := k.o.Put(ctx, "folder/other", strings.NewReader("content"))
		_, _, open := k.o.Open(ctx, "folder/key", 0, -1)
		for what, err := range map[string]error{
			"Put": put, "Open": open, "Delete": k.o.Delete(ctx, "folder/key"), "List": k.listError(ctx, ""),
		} {
			k.is(err, context.Canceled, what, "an ended ctx")
		}
		k.has("folder/key", "content")
		k.lacks("folder/other", "its context had ended")
	}},
	{"Put/it honours ctx while it waits", func(k *objectsKit) {
		k.put("folder/warm", "up")
		for _, after := range []int{3, 40} {
			k.leavesNothing(func() {
				ctx, cancel := context.WithCancel(k.Context())
				n := 0
				// Objects that go on reading are to meet an end.
				_, err := k.o.Put(ctx, "folder/key", spy{io.LimitReader(endless{}, 32<<20), func() {
					if n++; n == after {
						cancel()
					}
				}})
				k.is(err, context.Canceled, "Put", "it honours ctx")
				k.lacks("folder/key", "its context ended")
			})
		}
	}},
}

// stutter yields nothing every other time.
type stutter struct {
	r  io.Reader
	ok bool
}

func (s *stutter) Read(p []byte) (int, error) {
	if s.ok = !s.ok; s.ok {
		return 0, nil
	}
	return s.r.Read(p)
}

// listError returns what a listing ends with.
func (k *objectsKit) listError(ctx context.Context, under string) (last error) {
	k.Helper()
	for _, err := range k.o.List(ctx, under, "") {
		if last != nil {
			k.Fatalf("List goes on after its error %v", last)
		}
		last = err
	}
	return last
}
