package blobtest

import (
	"errors"
	"io"
	"strings"

	"github.com/wharfage/wharfage/blob"
)

// objectsKit is one clause under way.
type objectsKit struct {
	kit
	options ObjectsOptions
	o       blob.Objects
}

// sizes returns lengths that are worth a try.
func (k *objectsKit) sizes() []int { return append([]int{0, 1, 10, 3<<20 + 1}, k.options.Sizes...) }

func (k *objectsKit) put(key, content string) {
	k.Helper()
	n, err := k.o.Put(k.Context(), key, strings.NewReader(content))
	if err != nil || n != int64(len(content)) {
		k.Fatalf("Put(%.100q) of %d bytes = %d, %v", key, len(content), n, err)
	}
}

func (k *objectsKit) read(key string, off, n int64) (string, error) {
	r, _, err := k.o.Open(k.Context(), key, off, n)
	if err != nil {
		return "", err
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	return string(b), err
}

func (k *objectsKit) list(under, after string) (keys []string) {
	k.Helper()
	for object, err := range k.o.List(k.Context(), under, after) {
		if err != nil {
			k.Fatalf("List(%q, %q): %v", under, after, err)
		}
		if len(keys) > 0 && object.Key <= keys[len(keys)-1] {
			k.Fatalf("List(%q, %q) shows %q after %q, want strictly increasing keys", under, after, object.Key, keys[len(keys)-1])
		}
		keys = append(keys, object.Key)
	}
	return keys
}

// has fails the test unless content lies under key, by all ways to ask.
func (k *objectsKit) has(key, content string) {
	k.Helper()
	r, opened, err := k.o.Open(k.Context(), key, 0, -1)
	k.ok(err, "Open")
	defer r.Close()
	b, err := io.ReadAll(r)
	k.ok(err, "Read")
	if got := string(b); got != content {
		k.Fatalf("the bytes of %.100q differ: %s, want %s", key, show(got), show(content))
	}
	k.describes(opened, key, content, "Open")
	for object, err := range k.o.List(k.Context(), folderOf(key), "") {
		k.ok(err, "List")
		if object.Key == key {
			k.describes(object, key, content, "List")
			return
		}
	}
	k.Fatalf("List does not show %.100q", key)
}

// describes fails the test unless object describes content under key.
func (k *objectsKit) describes(object blob.Object, key, content, what string) {
	k.Helper()
	if object.Key != key || object.Size != int64(len(content)) || object.ModTime.IsZero() {
		k.Fatalf("%s: %+v, want key %.100q, size %d and a time", what, object, key, len(content))
	}
}

// lacks fails the test if anything lies under key, by any way to ask.
func (k *objectsKit) lacks(key, why string) {
	k.Helper()
	for _, off := range []int64{0, 1 << 40} {
		if _, err := k.read(key, off, -1); !errors.Is(err, blob.ErrNotFound) {
			k.Fatalf("Open(%.100q) = %v, want ErrNotFound: %s", key, err, why)
		}
	}
	for object, err := range k.o.List(k.Context(), folderOf(key), "") {
		k.ok(err, "List")
		if object.Key == key {
			k.Fatalf("List shows %.100q: %s", key, why)
		}
	}
}

func folderOf(key string) string { return key[:max(strings.LastIndexByte(key, '/'), 0)] }

// leavesNothing fails the test if do makes things.
func (k *objectsKit) leavesNothing(do func()) {
	k.Helper()
	if k.options.Things == nil {
		do()
		return
	}
	before := k.options.Things(k, k.o)
	do()
	if after := k.options.Things(k, k.o); after > before {
		k.Fatalf("there were %d things, and are %d now: a failure leaves nothing behind", before, after)
	}
}
