package blobtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/wharfage/wharfage/blob"
)

var objectsReadClauses = []objectsClause{
	{"Open/n bytes from off on, -1 for all, cut at the end", func(k *objectsKit) {
		for _, length := range k.sizes() {
			key, content, size := fmt.Sprint("folder/size-", length), long(length), int64(length)
			k.put(key, content)
			for _, off := range []int64{0, 1, 4, size / 2, size - 1, size} {
				for _, n := range []int64{-1, 0, 1, 3, size - 1, size, size + 1, 1<<63 - 1} {
					if off < 0 || off > size || n < -1 {
						continue
					}
					end := size
					if n >= 0 && n < size-off {
						end = off + n
					}
					r, object, err := k.o.Open(k.Context(), key, off, n)
					what := fmt.Sprintf("Open(off %d, n %d) of %d bytes", off, n, size)
					k.ok(err, what)
					k.describes(object, key, content, what)
					var got bytes.Buffer
					if off%2 == 0 { // Copy uses WriterTo, if there is one
						_, err = io.Copy(&got, r)
					} else {
						_, err = got.ReadFrom(r)
					}
					k.ok(err, what)
					k.ok(r.Close(), "Close")
					if want := content[off:end]; got.String() != want {
						k.Fatalf("%s: %s, want %s", what, show(got.String()), show(want))
					}
				}
			}
		}
	}},
	{"Open/ErrRange when off is beyond the end", func(k *objectsKit) {
		for _, size := range k.sizes() {
			key := fmt.Sprint("folder/size-", size)
			k.put(key, long(size))
			for _, off := range []int64{int64(size) + 1, 1<<63 - 1} {
				for _, n := range []int64{-1, 0, 5, 1<<63 - 1} {
					_, err := k.read(key, off, n)
					k.is(err, blob.ErrRange, fmt.Sprintf("Open(off %d, n %d) of %d bytes", off, n, size), "off > Size")
				}
			}
		}
	}},
	{"Open/ErrNotFound for what is not there, and nothing else is", func(k *objectsKit) {
		k.lacks("folder/key", "nothing was put")
		k.put("folder/key/1", "content")
		k.put("folder/key-1", "content")
		for _, key := range []string{"folder", "folder/key", "folder/key/2", "folder/key/1/below", "older/key/1", "folder/key/11"} {
			k.lacks(key, "it was never put")
		}
		k.has("folder/key/1", "content")
	}},
	{"Open/a reader may be closed at any time", func(k *objectsKit) {
		k.put("folder/key", long(3<<20))
		for _, n := range []int{0, 1, 1 << 20} {
			r, _, err := k.o.Open(k.Context(), "folder/key", 0, -1)
			k.ok(err, "Open")
			_, err = io.ReadFull(r, make([]byte, n))
			k.ok(err, "Read")
			k.ok(r.Close(), "Close")
		}
	}},
	{"Open/the reader never ends early without an error", func(k *objectsKit) {
		content := long(3 << 20)
		for what, spoil := range map[string]func(cancel func()){
			"its object is deleted": func(func()) { k.ok(k.o.Delete(k.Context(), "folder/key"), "Delete") },
			"its context ends":      func(cancel func()) { cancel() },
		} {
			k.put("folder/key", content)
			ctx, cancel := context.WithCancel(k.Context())
			r, _, err := k.o.Open(ctx, "folder/key", 0, -1)
			k.ok(err, "Open")
			head := make([]byte, 100)
			_, err = io.ReadFull(r, head)
			k.ok(err, "Read")
			spoil(cancel)
			rest, err := io.ReadAll(r)
			if got := string(head) + string(rest); err == nil && got != content {
				k.Fatalf("the reader ended without an error after %d bytes of %d, or with others, when %s", len(got), len(content), what)
			}
			r.Close()
			cancel()
			k.deleted("folder/key")
		}
	}},
	{"Delete/it removes the bytes, durably, and no others", func(k *objectsKit) {
		keep := []string{"folder/key-1", "folder/key1", "folder/k", "folder/Other", "other/key", "folder2"}
		for _, key := range append(keep, "folder/key") {
			k.put(key, "content of "+key)
		}
		k.ok(k.o.Delete(k.Context(), "folder/key"), "Delete")
		k.lacks("folder/key", "it was deleted")
		if k.options.Reopen != nil {
			k.o = k.options.Reopen(k, k.o)
		}
		k.lacks("folder/key", "it was deleted")
		for _, key := range keep {
			k.has(key, "content of "+key)
		}
	}},
	{"Delete/when there are none, it succeeds or says ErrNotFound", func(k *objectsKit) {
		k.put("folder/key/1", "content")
		k.put("folder/other", "content")
		k.ok(k.o.Delete(k.Context(), "folder/other"), "Delete")
		for _, key := range []string{"folder/other", "folder", "folder/key", "folder/key/1/below", "none", "none/at/all"} {
			k.deleted(key)
		}
		k.has("folder/key/1", "content")
	}},
	{"Delete/many may delete at once", func(k *objectsKit) {
		for i := range 8 {
			k.put(fmt.Sprint("folder/", i), "content")
		}
		together(8, func(w int) {
			for i := range 8 {
				if err := k.o.Delete(k.Context(), fmt.Sprint("folder/", (w+i)%8)); err != nil && !errors.Is(err, blob.ErrNotFound) {
					k.Errorf("Delete: %v", err)
				}
			}
		})
		if got := k.list("", ""); len(got) != 0 {
			k.Fatalf("List = %q, want nothing", got)
		}
		k.put("folder/new", "content") // folders may have gone
		k.has("folder/new", "content")
	}},
}

// deleted calls Delete for what may be there or not.
func (k *objectsKit) deleted(key string) {
	k.Helper()
	if err := k.o.Delete(k.Context(), key); err != nil && !errors.Is(err, blob.ErrNotFound) {
		k.Fatalf("Delete(%q) = %v, want success or ErrNotFound", key, err)
	}
	k.lacks(key, "it was deleted")
}
