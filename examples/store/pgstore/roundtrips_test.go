package pgstore

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/manifest"
)

// What comments promise, and what a push or a pull costs.
func TestRoundTrips(t *testing.T) {
	dsn, p := between(t, open(t, Options{}).o.DSN)
	db := open(t, Options{DSN: dsn, MaxConns: 1, KeepEvents: true, MinPart: 1})
	b, m := db.Blobs(), db.Manifests()
	dgst := put(t, db, "r", "content")
	rec := document("1", dgst)
	apply(t, db, "r", manifest.Change{Put: []manifest.Record{rec}, Tags: []manifest.TagMove{{Name: "t", To: rec.Desc.Digest}}})
	var u, next blob.Upload
	var err error
	for _, c := range []struct {
		what    string
		want    int
		prepare func(i int)
		do      func(i int) error
	}{
		{"Put", 3, nil, func(i int) error { return tryPut(t.Context(), db, "r", fmt.Sprint(i)) }},
		{"Stat", 1, nil, func(int) error { _, err := b.Stat(t.Context(), "r", []digest.Digest{dgst}); return err }},
		{"Open", 1, nil, func(int) error { _, err := read(t.Context(), db, "r", dgst); return err }},
		{"Mount", 1, nil, func(int) error { return b.Mount(t.Context(), "r", "other", dgst) }},
		{"Delete", 2, nil, func(i int) error { return b.Delete(t.Context(), "r", digest.FromString(fmt.Sprint(i)), time.Time{}) }},
		{"Begin", 1, nil, func(int) error { u, err = b.Begin(t.Context(), "r", digest.SHA256); return err }},
		{"Append", 1, func(int) { u, err = b.Begin(t.Context(), "r", digest.SHA256) },
			func(int) error { next, err = b.Append(t.Context(), u, strings.NewReader("x")); return err }},
		{"Save", 2, func(int) {
			if u, err = b.Begin(t.Context(), "r", digest.SHA256); err == nil {
				next, err = b.Append(t.Context(), u, strings.NewReader("x"))
			}
		}, func(int) error { return b.Save(t.Context(), u, next) }},
		{"Commit", 3, func(i int) {
			if u, err = b.Begin(t.Context(), "r", digest.SHA256); err == nil {
				next, err = b.Append(t.Context(), u, strings.NewReader(fmt.Sprint("session ", i)))
			}
		}, func(i int) error { return b.Commit(t.Context(), u, next, digest.FromString(fmt.Sprint("session ", i))) }},
		{"Apply", 2, nil, func(i int) error {
			rec := document(fmt.Sprint("more ", i), dgst)
			return m.Apply(t.Context(), "r", manifest.Change{
				RequireBlobs: rec.Blobs, Put: []manifest.Record{rec}, Tags: []manifest.TagMove{{Name: "t", To: rec.Desc.Digest}}, At: time.Now(),
			})
		}},
		{"Get", 1, nil, func(int) error { _, err := m.Get(t.Context(), "r", rec.Desc.Digest); return err }},
		{"Resolve", 1, nil, func(int) error { _, err := m.Resolve(t.Context(), "r", "t"); return err }},
	} {
		// The first time statements are prepared. After a second without use the
		// pool asks whether the connection is there.
		least := 1000
		for i := range 5 {
			if c.prepare != nil {
				if c.prepare(i); err != nil {
					t.Fatal(err)
				}
			}
			before := p.roundTrips()
			if err := c.do(i); err != nil {
				t.Fatalf("%s: %v", c.what, err)
			}
			least = min(least, p.roundTrips()-before)
		}
		if least != c.want {
			t.Errorf("%s makes %d round trips, want %d", c.what, least, c.want)
		}
	}
}
