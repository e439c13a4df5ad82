package dirblob

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/wharfage/wharfage/blob"
)

func TestObjects(t *testing.T) {
	ctx := t.Context()
	o := &Objects{Dir: filepath.Join(t.TempDir(), "not", "there", "yet"), Unsynced: true}
	keys := []string{"a", "a+b/c", "a-b", "a.b/x", "b/1", "b/2/3", "b0", "c=/x_y"} // in byte order: + - . / 0
	for _, key := range slices.Backward(keys) {
		if n, err := o.Put(ctx, key, strings.NewReader(key)); n != int64(len(key)) || err != nil {
			t.Fatal(key, n, err)
		}
	}
	list := func(under, after string) (got []string) {
		for obj, err := range o.List(ctx, under, after) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, obj.Key)
		}
		return got
	}
	if got := list("", ""); !slices.Equal(got, keys) {
		t.Errorf("List = %q, want %q", got, keys)
	}
	for i, key := range keys {
		if got := list("", key); !slices.Equal(got, keys[i+1:]) {
			t.Errorf("List after %s = %q, want %q", key, got, keys[i+1:])
		}
	}
	if got := list("b", "b/1"); !slices.Equal(got, []string{"b/2/3"}) {
		t.Errorf("List of b = %q", got)
	}
	if got := list("none", ""); len(got) != 0 {
		t.Errorf("List of none = %q", got)
	}
	if err := o.Rename(ctx, "a", "z/a"); err != nil {
		t.Fatal(err)
	}
	if _, err := o.Stat(ctx, "a"); !errors.Is(err, blob.ErrNotFound) {
		t.Errorf("Stat of what was renamed = %v", err)
	}
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	if err := o.Touch(ctx, "z/a", at); err != nil {
		t.Fatal(err)
	}
	if obj, err := o.Stat(ctx, "z/a"); err != nil || obj.Size != 1 || !obj.ModTime.Equal(at) {
		t.Errorf("Stat = %+v, %v", obj, err)
	}
	for what, err := range map[string]error{
		"Delete of a folder":     o.Delete(ctx, "b"),
		"Delete below an object": o.Delete(ctx, "b/1/x"),
		"Touch":                  o.Touch(ctx, "none", at),
		"Rename":                 o.Rename(ctx, "none", "x"),
		"Join":                   func() error { _, err := o.Join(ctx, "x", "b/1", "none"); return err }(),
		"Open of a folder":       func() error { _, _, err := o.Open(ctx, "b", 0, -1); return err }(),
		"Open below an object":   func() error { _, _, err := o.Open(ctx, "b/1/x", 0, -1); return err }(),
		"Stat of a folder":       func() error { _, err := o.Stat(ctx, "b"); return err }(),
	} {
		if !errors.Is(err, blob.ErrNotFound) {
			t.Errorf("%s = %v, want ErrNotFound", what, err)
		}
	}
	if err := o.Delete(ctx, "b/1"); err != nil {
		t.Error(err)
	}
	if _, err := o.Put(ctx, "b/1", iotest.ErrReader(fs.ErrNotExist)); !errors.Is(err, fs.ErrNotExist) || errors.Is(err, blob.ErrNotFound) {
		t.Errorf("Put of a reader that fails = %v", err)
	}
	// Somebody removes a folder that is known to be there.
	if err := os.RemoveAll(filepath.Join(o.Dir, "b")); err != nil {
		t.Fatal(err)
	}
	if _, err := o.Put(ctx, "b/1", strings.NewReader("x")); err != nil {
		t.Error(err)
	}
}

func TestCutFileIsNoEnd(t *testing.T) {
	o := &Objects{Dir: t.TempDir(), Unsynced: true}
	if _, err := o.Put(t.Context(), "a", strings.NewReader("content")); err != nil {
		t.Fatal(err)
	}
	for _, read := range []func(io.Reader) error{
		func(r io.Reader) error { _, err := io.ReadAll(r); return err },
		func(r io.Reader) error { _, err := io.Copy(io.Discard, r); return err },
	} {
		r, _, err := o.Open(t.Context(), "a", 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if err := os.Truncate(filepath.Join(o.Dir, "a"), 3); err != nil {
			t.Fatal(err)
		}
		if err := read(r); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("reading a file that was cut: %v", err)
		}
		if err := os.WriteFile(filepath.Join(o.Dir, "a"), []byte("content"), 0o666); err != nil {
			t.Fatal(err)
		}
	}
}

// Content of all lengths near the ends of blocks, from readers of all manners.
func TestCopy(t *testing.T) {
	o := &Objects{Dir: t.TempDir(), Unsynced: true}
	for _, size := range []int{0, 1, bufferSize - 1, bufferSize, bufferSize + 1, 2 * bufferSize, 3*bufferSize + 1} {
		content := make([]byte, size)
		for i := range content {
			content[i] = byte(i >> 8 * i)
		}
		for _, r := range []io.Reader{bytes.NewReader(content), iotest.HalfReader(bytes.NewReader(content)), iotest.DataErrReader(bytes.NewReader(content))} {
			if n, err := o.Put(t.Context(), "a", r); n != int64(size) || err != nil {
				t.Fatal(size, n, err)
			}
			if got, err := os.ReadFile(filepath.Join(o.Dir, "a")); err != nil || !bytes.Equal(got, content) {
				t.Fatalf("%d bytes differ, %v", size, err)
			}
		}
	}
}

func FuzzKey(f *testing.F) {
	for _, key := range []string{"a", "a/b", "", ".", "..", "../a", "a/../../b", "/a", "a/", "a//b", "~tmp", "~tmp/a", "a\\b", "C:", "con", "nul.txt", "a.", ".a", "a\x00", strings.Repeat("a", 201), strings.Repeat("a/", 600)} {
		f.Add(key)
	}
	f.Fuzz(func(t *testing.T, key string) {
		outer := t.TempDir()
		o := &Objects{Dir: filepath.Join(outer, "objects"), Unsynced: true}
		_, err := o.Put(t.Context(), key, strings.NewReader("content"))
		if err != nil {
			if !errors.Is(err, blob.ErrUnsupported) {
				t.Fatalf("Put(%q) = %v, want ErrUnsupported", key, err)
			}
			if got := files(t, outer); len(got) != 0 {
				t.Fatalf("Put(%q) has left %q", key, got)
			}
			return
		}
		if got := files(t, outer); len(got) != 1 || got[0] != "objects/"+key {
			t.Fatalf("Put(%q) made %q", key, got)
		}
		for obj, err := range o.List(t.Context(), "", "") {
			if err != nil || obj.Key != key {
				t.Fatalf("List = %+v, %v, want %q", obj, err, key)
			}
		}
		if err := o.Delete(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	})
}
