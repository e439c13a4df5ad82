package blob_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/blob/blobtest"
	"github.com/wharfage/wharfage/blob/memblob"
)

const repo = "team/app"

func describe(content string) ocispec.Descriptor {
	return ocispec.Descriptor{Digest: digest.FromString(content), Size: int64(len(content))}
}

func TestVerify(t *testing.T) {
	good := describe("content")
	broken := errors.New("broken")
	for _, c := range []struct {
		name string
		desc ocispec.Descriptor
		r    io.Reader
		want error // nil: the whole content
	}{
		{"good", good, strings.NewReader("content"), nil},
		{"one byte at a time", good, iotest.OneByteReader(strings.NewReader("content")), nil},
		{"error with the last byte", good, iotest.DataErrReader(strings.NewReader("content")), nil},
		{"sha512", ocispec.Descriptor{Digest: digest.SHA512.FromString("content"), Size: 7}, strings.NewReader("content"), nil},
		{"empty", describe(""), strings.NewReader(""), nil},
		{"unknown size", ocispec.Descriptor{Digest: good.Digest, Size: -1}, strings.NewReader("content"), nil},
		{"other content", good, strings.NewReader("contenT"), &blob.DigestError{Want: good.Digest, Got: digest.FromString("contenT")}},
		{"short", good, strings.NewReader("conten"), &blob.SizeError{Want: 7, Got: 6}},
		{"long", good, strings.NewReader("contents"), &blob.SizeError{Want: 7, Got: 8}},
		{"much longer", good, endless{}, blob.ErrSize},
		{"size too large", ocispec.Descriptor{Digest: good.Digest, Size: 1 << 62}, strings.NewReader("content"), blob.ErrSize},
		{"size too small", ocispec.Descriptor{Digest: good.Digest, Size: 0}, strings.NewReader("content"), blob.ErrSize},
		{"broken", good, io.MultiReader(strings.NewReader("content"), iotest.ErrReader(broken)), broken},
		{"no digest", ocispec.Descriptor{}, strings.NewReader(""), blob.ErrUnsupported},
		{"unknown algorithm", ocispec.Descriptor{Digest: "md5:9a0364b9e99bb480dd25e1f0284c8555"}, strings.NewReader(""), errors.ErrUnsupported},
		{"upper case", ocispec.Descriptor{Digest: digest.Digest(strings.ToUpper(string(good.Digest)))}, strings.NewReader(""), blob.ErrUnsupported},
	} {
		r := blob.Verify(c.r, c.desc)
		got, err := io.ReadAll(r)
		switch want := c.want.(type) {
		case nil:
			if err != nil || c.desc.Size >= 0 && int64(len(got)) != c.desc.Size {
				t.Errorf("%s: %q, %v", c.name, got, err)
			}
			continue
		case *blob.SizeError:
			var e *blob.SizeError
			if !errors.As(err, &e) || *e != *want || !errors.Is(err, blob.ErrSize) {
				t.Errorf("%s: %v, want %v", c.name, err, want)
			}
		case *blob.DigestError:
			var e *blob.DigestError
			if !errors.As(err, &e) || *e != *want || !errors.Is(err, blob.ErrDigest) {
				t.Errorf("%s: %v, want %v", c.name, err, want)
			}
		default:
			if !errors.Is(err, want) {
				t.Errorf("%s: %v, want %v", c.name, err, want)
			}
		}
		if _, again := r.Read(make([]byte, 1)); again != err {
			t.Errorf("%s: then %v", c.name, again)
		}
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func TestReadAll(t *testing.T) {
	ctx := context.Background()
	s := &memblob.Store{}
	content := strings.Repeat("content ", 30_000)
	desc := describe(content)
	if err := blob.Put(ctx, s, repo, desc, strings.NewReader(content)); err != nil {
		t.Fatal(err)
	}
	if got, err := blob.ReadAll(ctx, s, repo, desc); err != nil || string(got) != content {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	if err := s.Put(ctx, repo, describe("a"), strings.NewReader("b")); err != nil { // rot
		t.Fatal(err)
	}
	for _, c := range []struct {
		desc ocispec.Descriptor
		want error
	}{
		{ocispec.Descriptor{Digest: desc.Digest, Size: desc.Size - 1}, blob.ErrSize},
		{ocispec.Descriptor{Digest: desc.Digest, Size: 1 << 62}, blob.ErrSize},
		{ocispec.Descriptor{Digest: desc.Digest, Size: -1}, blob.ErrSize},
		{ocispec.Descriptor{Digest: "x", Size: 1}, blob.ErrUnsupported},
		{describe("a"), blob.ErrDigest},
		{describe("missing"), blob.ErrNotFound},
	} {
		_, err := blob.ReadAll(ctx, s, repo, c.desc)
		var e *blob.Error
		if !errors.Is(err, c.want) || !errors.As(err, &e) || e.Repo != repo {
			t.Errorf("ReadAll(%v) = %v, want %v", c.desc, err, c.want)
		}
	}
}

func TestMissing(t *testing.T) {
	ctx := context.Background()
	s := &memblob.Store{}
	if err := blob.Put(ctx, s, repo, describe("here"), strings.NewReader("here")); err != nil {
		t.Fatal(err)
	}
	got, err := blob.Missing(s)(ctx, repo, []digest.Digest{digest.FromString("a"), digest.FromString("here"), digest.FromString("b")})
	if err != nil || len(got) != 2 || got[0] != digest.FromString("a") || got[1] != digest.FromString("b") {
		t.Fatal(got, err)
	}
	if got, err := blob.Missing(s)(ctx, repo, nil); err != nil || len(got) != 0 {
		t.Fatal(got, err)
	}
	faulty, _ := blobtest.Faulty(s, blobtest.Fault{Call: 1})
	if got, err := blob.Missing(faulty)(ctx, repo, []digest.Digest{digest.FromString("a")}); !errors.Is(err, blobtest.ErrFault) {
		t.Fatal(got, err)
	}
}

// A store with none of the optional abilities.
type plain struct{ blob.Store }

func TestWithoutAbilities(t *testing.T) {
	blobtest.TestStore(t, blobtest.Options{New: func(t testing.TB) blob.Store { return plain{&memblob.Store{}} }})

	ctx := context.Background()
	s := plain{&memblob.Store{}}
	u, err := s.Begin(ctx, repo, digest.SHA256)
	if err == nil {
		u, err = blob.Append(ctx, s, u, 0, strings.NewReader("content"))
	}
	if err != nil {
		t.Fatal(err)
	}
	err = blob.Finish(ctx, s, u, -1, nil, digest.SHA512.FromString("content"))
	if !errors.Is(err, blob.ErrUnsupported) || !strings.Contains(err.Error(), "digest-algorithm=sha512") {
		t.Fatalf("Finish = %v, want a hint to begin with the algorithm", err)
	}
	// An empty session has nothing to reread.
	if u, err = s.Begin(ctx, repo, digest.SHA256); err == nil {
		err = blob.Finish(ctx, s, u, 0, strings.NewReader("content"), digest.SHA512.FromString("content"))
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestAppendRefusesBrokenSession(t *testing.T) {
	ctx := context.Background()
	s := &memblob.Store{}
	u, err := s.Begin(ctx, repo, digest.SHA256)
	if err == nil {
		u, err = blob.Append(ctx, s, u, 0, strings.NewReader("content"))
	}
	if err != nil {
		t.Fatal(err)
	}
	noHash, badHash, badAlg := u, u, u
	noHash.Hash, badHash.Hash, badAlg.Algorithm = nil, []byte("x"), "md5"
	for _, bad := range []blob.Upload{noHash, badHash, badAlg} {
		if _, err := blob.Append(ctx, s, bad, -1, strings.NewReader("x")); err == nil {
			t.Errorf("Append to %+v succeeds", bad)
		}
	}
	if err := blob.Finish(ctx, s, u, -1, nil, digest.FromString("content")); err != nil {
		t.Error(err)
	}
}

func TestMountAny(t *testing.T) {
	ctx := context.Background()
	s := &memblob.Store{}
	for _, r := range []string{"a", "b"} {
		if err := blob.Put(ctx, s, r, describe("content"), strings.NewReader("content")); err != nil {
			t.Fatal(err)
		}
	}
	var asked []string
	may := func(ok bool) func(string) bool {
		return func(from string) bool { asked = append(asked, from); return ok }
	}
	if err := blob.MountAny(ctx, s, repo, describe("content").Digest, may(false)); !errors.Is(err, blob.ErrNotFound) {
		t.Errorf("MountAny from what may not be read = %v", err)
	}
	if err := blob.MountAny(ctx, s, repo, describe("content").Digest, may(true)); err != nil {
		t.Error(err)
	}
	if got := fmt.Sprint(asked); got != "[a b a]" {
		t.Errorf("asked for %s", got)
	}
	if err := blob.MountAny(ctx, plain{s}, repo, describe("content").Digest, may(true)); !errors.Is(err, blob.ErrNotFound) {
		t.Errorf("MountAny without a Locator = %v", err)
	}
}

func TestErrors(t *testing.T) {
	for err, want := range map[error]string{
		&blob.Error{Op: "put", Repo: "a/b", Digest: "sha256:ab", Err: &blob.SizeError{Want: 3, Got: 4}}: "put sha256:ab in a/b: content is longer than 3 bytes",
		&blob.Error{Op: "append", Repo: "a/b", ID: "x", Err: &blob.OffsetError{Size: 3, Start: 4}}:      "append upload x in a/b: chunk begins at 4, the upload ends at 3",
	} {
		if err.Error() != want {
			t.Errorf("%q, want %q", err, want)
		}
	}
}

func FuzzVerify(f *testing.F) {
	f.Add([]byte("content"), []byte("content"), int64(7))
	f.Add([]byte("content"), []byte("contents"), int64(7))
	f.Fuzz(func(t *testing.T, named, got []byte, size int64) {
		_, err := io.Copy(io.Discard, blob.Verify(bytes.NewReader(got), ocispec.Descriptor{Digest: digest.FromBytes(named), Size: size}))
		if ok := bytes.Equal(named, got) && (size < 0 || size == int64(len(got))); ok != (err == nil) {
			t.Errorf("Verify(%q as %q, size %d): %v", got, named, size, err)
		}
	})
}
