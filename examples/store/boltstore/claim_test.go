package boltstore

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/blob/dirblob"
	"github.com/wharfage/wharfage/examples/store/parts"
)

func TestObjectsOfAnotherDatabaseAreRefused(t *testing.T) {
	objects := &dirblob.Objects{Dir: t.TempDir(), Unsynced: true}
	db := open(t, Options{Unsynced: true, Objects: objects})
	desc := ocispec.Descriptor{Digest: digest.FromString("content"), Size: 7}
	if err := blob.Put(t.Context(), db.Blobs(), "r", desc, strings.NewReader("content")); err != nil {
		t.Fatal(err)
	}
	refused := func(what string, o Options) {
		t.Helper()
		if other, err := Open(o); !errors.Is(err, parts.ErrForeign) {
			if err == nil {
				other.Close()
			}
			t.Errorf("%s: Open = %v, want ErrForeign", what, err)
		}
	}
	refused("claimed", Options{Dir: t.TempDir(), Unsynced: true, Objects: objects})
	if err := os.RemoveAll(filepath.Join(objects.Dir, "owner")); err != nil {
		t.Fatal(err)
	}
	refused("not empty", Options{Dir: t.TempDir(), Unsynced: true, Objects: objects})
	dir := db.Dir
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	refused("not what it refers to", Options{Dir: dir, Unsynced: true, Objects: &dirblob.Objects{Dir: t.TempDir(), Unsynced: true}})
	db = open(t, Options{Dir: dir, Unsynced: true, Objects: objects}) // of before there were markers
	if got, err := blob.ReadAll(t.Context(), db.Blobs(), "r", desc); err != nil || string(got) != "content" {
		t.Errorf("%q, %v", got, err)
	}
	refused("claimed anew", Options{Dir: t.TempDir(), Unsynced: true, Objects: objects})
}

func TestTheLeaseIsKept(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		o    Options
		want time.Duration // 0: refused
	}{
		{Options{}, 24 * time.Hour},
		{Options{Lease: 48 * time.Hour}, 48 * time.Hour},
		{Options{}, 48 * time.Hour},
		{Options{Lease: time.Hour}, 0},
		{Options{}, 48 * time.Hour},
		{Options{Lease: time.Hour, ShortenLease: true}, time.Hour},
		{Options{}, time.Hour},
	} {
		c.o.Dir, c.o.Unsynced = dir, true
		db, err := Open(c.o)
		if c.want == 0 {
			if !errors.Is(err, blob.ErrLease) {
				t.Fatalf("Open with a shorter lease = %v, want ErrLease", err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if got, err := db.Blobs().Promised(t.Context()); err != nil || got != c.want {
			t.Errorf("Promised = %v, %v, want %v", got, err, c.want)
		}
		db.Close()
	}
}
