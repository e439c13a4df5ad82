package blobtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/wharfage/wharfage/blob"
)

// The order of bytes is not that of folders: "-" and "." come before "/".
func (k *objectsKit) fill() (keys []string) {
	k.Helper()
	keys = []string{"a", "a+b/c", "a-b", "a.b/x", "b+/z", "b-1", "b.1/x", "b/1", "b/2-2", "b/2/3", "b/2/4/5", "b/20", "b0", "c/-", "c/0", "c/=", "c/_", "c=/x_y"}
	for i := range 26 {
		keys = append(keys, fmt.Sprintf("d/%02x/%c", i*9, 'a'+i))
	}
	slices.Sort(keys)
	for _, key := range slices.Backward(keys) {
		k.put(key, "content of "+key)
	}
	return keys
}

var objectsListClauses = []objectsClause{
	{"List/in byte order of keys, each once, with size and time", func(k *objectsKit) {
		if got := k.list("", ""); len(got) != 0 {
			k.Fatalf("List of nothing = %q", got)
		}
		want := k.fill()
		if got := k.list("", ""); !slices.Equal(got, want) {
			k.Fatalf("List = %q, want %q", got, want)
		}
		for object, err := range k.o.List(k.Context(), "", "") {
			k.ok(err, "List")
			k.describes(object, object.Key, "content of "+object.Key, "List")
		}
	}},
	{"List/strictly after the key after", func(k *objectsKit) {
		keys := k.fill()
		afters := []string{"0", "A", "b", "b/2", "b/2/3/4", "c", "d/ff/a", "z", "zz/zz"}
		for _, after := range append(afters, keys...) {
			var want []string
			for _, key := range keys {
				if key > after {
					want = append(want, key)
				}
			}
			if got := k.list("", after); !slices.Equal(got, want) {
				k.Fatalf("List after %q = %q, want %q", after, got, want)
			}
		}
	}},
	{"List/what lies in the folder under", func(k *objectsKit) {
		keys := k.fill()
		for _, under := range []string{"a", "b", "b/2", "c", "c=", "d", "d/00", "none", "no/ne", "b/1", "a/b"} {
			for _, after := range []string{"", "a", "b/2", "b/2/3", "b/20", "c/0", "d/48/i", "z"} {
				var want []string
				for _, key := range keys {
					if strings.HasPrefix(key, under+"/") && key > after {
						want = append(want, key)
					}
				}
				if got := k.list(under, after); !slices.Equal(got, want) {
					k.Fatalf("List under %q after %q = %q, want %q", under, after, got, want)
				}
			}
		}
	}},
	{"List/the loop may end early", func(k *objectsKit) {
		keys := k.fill()
		for n := 1; n <= len(keys); n += 5 {
			var got []string
			for object, err := range k.o.List(k.Context(), "", "") {
				k.ok(err, "List")
				if got = append(got, object.Key); len(got) == n {
					break
				}
			}
			if !slices.Equal(got, keys[:n]) {
				k.Fatalf("the first %d of List are %q, want %q", n, got, keys[:n])
			}
		}
	}},
	{"List/it ends at its first error, and is never short without one", func(k *objectsKit) {
		keys := k.fill()
		for stop := range len(keys) {
			ctx, cancel := context.WithCancel(k.Context())
			var got []string
			var last error
			for object, err := range k.o.List(ctx, "", "") {
				if last != nil {
					k.Fatalf("List goes on after its error %v", last)
				}
				if last = err; err == nil {
					got = append(got, object.Key)
				}
				if len(got) == stop+1 {
					cancel()
				}
			}
			cancel()
			if last == nil && !slices.Equal(got, keys) {
				k.Fatalf("List ended without an error after %d of %d objects", len(got), len(keys))
			}
			if last != nil {
				k.is(last, context.Canceled, "List", "its context has ended")
			}
		}
	}},
	{"List/what is there all the time is seen while others put and delete", func(k *objectsKit) {
		keys := k.fill()
		k.ends("the loop body may call the store", func() {
			last, n := "", 0
			for object, err := range k.o.List(k.Context(), "", "") {
				if err != nil || object.Key <= last {
					k.Errorf("List: %q after %q, error %v", object.Key, last, err)
					return
				}
				last = object.Key
				if !slices.Contains(keys, last) {
					continue
				}
				n++
				for _, key := range []string{last + "-new", "a" + fmt.Sprint(n), fmt.Sprintf("z/%d", n)} {
					if _, err := k.o.Put(k.Context(), key, strings.NewReader("new")); err != nil {
						k.Errorf("Put in the loop body: %v", err)
					}
				}
				if err := k.o.Delete(k.Context(), last); err != nil {
					k.Errorf("Delete in the loop body: %v", err)
				}
			}
			if n != len(keys) {
				k.Errorf("List showed %d of the %d objects that were there when it came to them", n, len(keys))
			}
		})
	}},
}

var objectsOptionalClauses = []objectsClause{
	{"Sweep/it removes what calls that never returned left before cutoff, and nothing else", func(k *objectsKit) {
		s, ok := k.o.(blob.ObjectSweeper)
		if !ok {
			k.Skip("no ObjectSweeper")
		}
		keys := k.fill()
		sweep := func(cutoff time.Time, want int) {
			k.Helper()
			if n, err := s.Sweep(k.Context(), cutoff); err != nil || n != want {
				k.Fatalf("Sweep(%v) = %d, %v, want %d", cutoff, n, err, want)
			}
			if got := k.list("", ""); !slices.Equal(got, keys) {
				k.Fatalf("List = %q after Sweep, want %q", got, keys)
			}
		}
		past, future := time.Now().Add(-24*time.Hour), time.Now().Add(24*time.Hour)
		left := 0
		before := 0
		if k.options.Things != nil {
			before = k.options.Things(k, k.o)
		}
		if k.options.Strand != nil {
			left = k.options.Strand(k, k.o)
		}
		sweep(past, 0)
		sweep(future, left)
		sweep(future, 0)
		if k.options.Things != nil {
			if after := k.options.Things(k, k.o); after > before {
				k.Fatalf("there were %d things, and are %d after Sweep", before, after)
			}
		}
		_, err := s.Sweep(k.canceled(), future)
		k.is(err, context.Canceled, "Sweep", "an ended ctx")
	}},
	{"Sweep/a call that has lasted since cutoff fails", func(k *objectsKit) {
		s, ok := k.o.(blob.ObjectSweeper)
		if !ok {
			k.Skip("no ObjectSweeper")
		}
		for _, size := range k.sizes() {
			key, content := fmt.Sprint("folder/size-", size), long(size)
			sweep := func() {
				_, err := s.Sweep(k.Context(), time.Now().Add(24*time.Hour))
				k.ok(err, "Sweep")
			}
			_, err := k.o.Put(k.Context(), key, io.MultiReader(strings.NewReader(content), spy{strings.NewReader(""), sweep}))
			if err == nil { // the sweep met nothing of it
				k.has(key, content)
				continue
			}
			if errors.Is(err, blob.ErrNotFound) {
				k.Fatalf("Put = %v: a failure is never reported as ErrNotFound", err)
			}
			k.lacks(key, "Put has failed")
		}
	}},
	{"Link/a URL that answers a GET, with or without a Range, with the bytes under key", func(k *objectsKit) {
		l, ok := k.o.(blob.Linker)
		if !ok {
			k.Skip("no Linker")
		}
		content := long(100_000)
		k.put("folder/key+1=", content)
		link, err := l.Link(k.Context(), "folder/key+1=", 10*time.Minute)
		k.ok(err, "Link")
		for _, c := range []struct {
			ranged, want string
			status       int
		}{{"", content, 200}, {"bytes=5-104", content[5:105], 206}, {"bytes=99990-", content[99990:], 206}} {
			req, err := http.NewRequestWithContext(k.Context(), "GET", link, nil)
			k.ok(err, "NewRequest")
			if c.ranged != "" {
				req.Header.Set("Range", c.ranged)
			}
			resp, err := http.DefaultClient.Do(req)
			k.ok(err, "GET")
			body, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			k.ok(err, "GET")
			if resp.StatusCode != c.status || string(body) != c.want {
				k.Fatalf("GET with Range %q: %s, %s, want %d and %s", c.ranged, resp.Status, show(string(body)), c.status, show(c.want))
			}
		}
		_, err = l.Link(k.Context(), "../key", time.Minute)
		k.is(err, blob.ErrUnsupported, "Link", "no key")
		_, err = l.Link(k.canceled(), "folder/key", time.Minute)
		k.is(err, context.Canceled, "Link", "an ended ctx")
	}},
}
