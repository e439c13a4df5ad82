package s3bytes_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/wharfage/wharfage/examples/store/parts"
	"github.com/wharfage/wharfage/examples/store/s3bytes"
	"github.com/wharfage/wharfage/examples/store/s3bytes/s3test"
)

// A session of chunks, as a store makes one of them, read over ranges that
// begin and end in any of its objects.
func TestSessionOfChunks(t *testing.T) {
	ctx, s := t.Context(), s3test.Start(t)
	client := s3bytes.NewClient(s3bytes.Config{Endpoint: s.Endpoint, AccessKey: s.AccessKey, SecretKey: s.SecretKey, PathStyle: true})
	files := &parts.Files{
		Objects: &s3bytes.Objects{Client: client, Bucket: s.Bucket, Prefix: "blobs"},
		NewKey:  func() string { return parts.NewKey(1, time.Now()) },
	}
	random := rand.New(rand.NewPCG(1, 2))
	var want []byte
	var c parts.Content
	for _, size := range []int{100, 1 << 20, 300_000, 11 << 20, 0, 2 << 20, 50} {
		chunk := make([]byte, size)
		for i := range chunk {
			chunk[i] = byte(random.Uint32())
		}
		next, err := files.Append(ctx, c, bytes.NewReader(chunk))
		if err == nil {
			c, err = parts.ParseState(parts.State(next)) // as another process gets it
		}
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, chunk...)
	}
	c, err := files.Seal(ctx, c)
	if err != nil || len(c.Tail) != 0 || c.Size() != int64(len(want)) {
		t.Fatalf("Seal = %d bytes with a tail of %d, %v", c.Size(), len(c.Tail), err)
	}
	var keys []string
	for object, err := range files.Objects.List(ctx, "", "") {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, object.Key)
	}
	if len(keys) != len(c.Parts) {
		t.Errorf("there are %d objects for %d parts", len(keys), len(c.Parts))
	}
	bounds := []int64{0, 1, int64(len(want)) - 1, int64(len(want))}
	at := int64(0)
	for _, p := range c.Parts {
		at += p.Size
		bounds = append(bounds, at-1, at)
	}
	for _, from := range bounds {
		for _, to := range bounds {
			if to < from {
				continue
			}
			r, err := files.Open(ctx, c, from, to-from)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(r)
			r.Close()
			if err != nil || !bytes.Equal(got, want[from:to]) {
				t.Errorf("bytes %d to %d: %d bytes, %v, or others", from, to, len(got), err)
			}
		}
	}
	files.Drop(ctx, keys...)
	for object, err := range files.Objects.List(ctx, "", "") {
		t.Errorf("%v is left, %v", object, err)
	}
}

// A bucket is for one database.
func TestClaim(t *testing.T) {
	s := s3test.Start(t)
	client := s3bytes.NewClient(s3bytes.Config{Endpoint: s.Endpoint, AccessKey: s.AccessKey, SecretKey: s.SecretKey, PathStyle: true})
	for range 2 {
		o := &s3bytes.Objects{Client: client, Bucket: s.Bucket, Prefix: "claimed"}
		if err := parts.Claim(t.Context(), o, "me", nil); err != nil {
			t.Fatal(err)
		}
		if err := parts.Claim(t.Context(), o, "other", nil); !errors.Is(err, parts.ErrForeign) {
			t.Fatalf("Claim by another database = %v, want ErrForeign", err)
		}
	}
	if err := parts.Claim(t.Context(), &s3bytes.Objects{Client: client, Bucket: s.Bucket, Prefix: "claimed-too"}, "other", nil); err != nil {
		t.Fatalf("Claim of another prefix = %v", err)
	}
}
