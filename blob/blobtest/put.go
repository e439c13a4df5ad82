package blobtest

import (
	"context"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/blob"
)

var putClauses = []clause{
	{"Put/the blob is durable and visible on return", func(k *kit) {
		for _, content := range []string{"hello", "", long(3<<20 + 1)} {
			k.has(repo, k.put(repo, content), content)
		}
		if k.Reopen != nil {
			k.s = k.Reopen(k, k.s)
			k.has(repo, sha("hello"), "hello")
		}
	}},
	{"Put/the blob is visible only when r has ended", func(k *kit) {
		for _, size := range []int{10, 3 << 20} {
			content := long(size)
			desc := describe(digest.SHA256, content)
			r := spy{strings.NewReader(content), func() { k.lacks(repo, desc.Digest, "the reader has not ended") }}
			k.ok(k.s.Put(k.Context(), repo, desc, r), "Put")
			k.has(repo, desc.Digest, content)
		}
	}},
	{"Put/an error from r means that nothing becomes visible or is left behind", func(k *kit) {
		k.put(repo, "warm the store up")
		for _, size := range []int{0, 10, 1<<20 + 7} {
			content := long(size)
			desc := describe(digest.SHA256, content)
			k.leavesNothing(func() {
				err := k.s.Put(k.Context(), repo, desc, broken(content))
				k.is(err, errReader, "Put", "Put returns r's error, wrapped or not")
				k.lacks(repo, desc.Digest, "its reader failed")
			})
		}
	}},
	{"Put/content that is not what its descriptor says is refused", func(k *kit) {
		k.put(repo, "warm the store up")
		good := describe(digest.SHA256, "content")
		for _, c := range []struct {
			desc ocispec.Descriptor
			got  string
			want error
		}{
			{good, "contenT", blob.ErrDigest},
			{good, "conten", blob.ErrSize},
			{good, "contents", blob.ErrSize},
			{good, "", blob.ErrSize},
			{ocispec.Descriptor{Digest: good.Digest, Size: -1}, "contents", blob.ErrDigest},
			{ocispec.Descriptor{Digest: good.Digest, Size: 1 << 60}, "content", blob.ErrSize},
			{ocispec.Descriptor{Digest: good.Digest, Size: math.MaxInt64}, long(200_000), blob.ErrSize}, // a Content-Length can be that
			{ocispec.Descriptor{Digest: "md5:9a0364b9e99bb480dd25e1f0284c8555", Size: 7}, "content", blob.ErrUnsupported},
			{ocispec.Descriptor{Digest: "sha256:../../../etc/passwd", Size: 7}, "content", blob.ErrUnsupported},
		} {
			k.leavesNothing(func() {
				err := blob.Put(k.Context(), k.s, repo, c.desc, strings.NewReader(c.got))
				k.is(err, c.want, fmt.Sprintf("Put(%v, %.20q)", c.desc, c.got), "the content is bad")
			})
			k.lacks(repo, good.Digest, "its content was bad")
		}
	}},
	{"Put/desc.Size may be unknown", func(k *kit) {
		desc := ocispec.Descriptor{Digest: sha("content"), Size: -1}
		k.ok(blob.Put(k.Context(), k.s, repo, desc, strings.NewReader("content")), "Put")
		k.has(repo, desc.Digest, "content")
	}},
	{"Put/a sha512 is as good", func(k *kit) {
		desc := describe(digest.SHA512, "content")
		k.ok(blob.Put(k.Context(), k.s, repo, desc, strings.NewReader("content")), "Put")
		k.has(repo, desc.Digest, "content")
		k.lacks(repo, sha("content"), "it was put as sha512")
	}},
	{"Put/putting a blob that is there is a success", func(k *kit) {
		k.put(repo, "content")
		k.has(repo, k.put(repo, "content"), "content")
		if got := k.list(repo, ""); len(got) != 1 {
			k.Fatalf("Blobs lists %d blobs, want 1: %v", len(got), got)
		}
	}},
	{"Put/bad content does not harm a blob that is there", func(k *kit) {
		dgst := k.put(repo, "content")
		err := blob.Put(k.Context(), k.s, repo, describe(digest.SHA256, "content"), strings.NewReader("contenT"))
		k.is(err, blob.ErrDigest, "Put", "the content is bad")
		k.has(repo, dgst, "content")
	}},
	{"Put/putting a blob that is there is a touch", func(k *kit) {
		k.clock()
		dgst := k.put(repo, "content")
		if got := k.touchedAt(repo, dgst); !got.Equal(day1) {
			k.Fatalf("TouchedAt = %v, want %v", got, day1)
		}
		later := day1.Add(k.Lease)
		k.set(later)
		k.put(repo, "content")
		if got := k.touchedAt(repo, dgst); !got.Equal(later) {
			k.Fatalf("TouchedAt = %v, want the time of the second Put, %v", got, later)
		}
	}},
	{"Put/many may put the same digest at once", func(k *kit) {
		content := long(100_000)
		together(8, func(int) {
			if err := blob.Put(k.Context(), k.s, repo, describe(digest.SHA256, content), strings.NewReader(content)); err != nil {
				k.Errorf("Put: %v", err)
			}
		})
		k.has(repo, sha(content), content)
	}},
	{"Put/a method returns ctx's error", func(k *kit) {
		k.put(repo, "warm the store up")
		content := long(2 << 20)
		desc := describe(digest.SHA256, content)
		k.leavesNothing(func() {
			ctx, cancel := context.WithCancel(k.Context())
			n := 0
			// A store that goes on reading is to meet an end.
			err := k.s.Put(ctx, repo, desc, spy{io.LimitReader(endless{}, 32<<20), func() {
				if n++; n == 3 {
					cancel()
				}
			}})
			k.is(err, context.Canceled, "Put", "a method honours ctx")
			k.lacks(repo, desc.Digest, "its context ended")
		})
		ctx := k.canceled()
		dgst, u := k.put(repo, "content"), k.begin()
		u = k.append(u, "chunk")
		_, stat := k.s.Stat(ctx, repo, []digest.Digest{dgst})
		_, _, open := k.s.Open(ctx, repo, dgst, 0, -1)
		_, begin := k.s.Begin(ctx, repo, digest.SHA256)
		_, lookup := k.s.Lookup(ctx, repo, u.ID)
		_, app := k.s.Append(ctx, u, strings.NewReader("x"))
		for what, err := range map[string]error{
			"Stat": stat, "Open": open, "Begin": begin, "Lookup": lookup, "Append": app,
			"Put":    k.s.Put(ctx, repo, describe(digest.SHA256, "x"), strings.NewReader("x")),
			"Save":   k.s.Save(ctx, u, u),
			"Commit": k.s.Commit(ctx, u, u, sha("chunk")),
			"Abort":  k.s.Abort(ctx, u),
			"Mount":  blob.Mount(ctx, k.s, repo, otherRepo, dgst),
			"Delete": k.s.Delete(ctx, repo, dgst, day1.AddDate(100, 0, 0)),
		} {
			k.is(err, context.Canceled, what, "a method returns ctx's error")
		}
		k.has(repo, dgst, "content")
		k.lacks(otherRepo, dgst, "the mount's context had ended")
		k.finish(u, "chunk")
	}},
	{"Mount/the blob is visible in both repositories", func(k *kit) {
		dgst := k.put(repo, "content")
		k.ok(blob.Mount(k.Context(), k.s, repo, otherRepo, dgst), "Mount")
		k.has(otherRepo, dgst, "content")
		k.ok(blob.Mount(k.Context(), k.s, repo, otherRepo, dgst), "Mount again")
		k.ok(blob.Mount(k.Context(), k.s, repo, repo, dgst), "Mount onto itself")
		k.ok(k.s.Delete(k.Context(), repo, dgst, never), "Delete")
		k.lacks(repo, dgst, "it was deleted here")
		k.has(otherRepo, dgst, "content")
	}},
	{"Mount/what the source does not have is ErrNotFound", func(k *kit) {
		k.put(repo, "warm the store up")
		dgst := k.put("third", "content")
		k.leavesNothing(func() {
			for _, from := range []string{repo, otherRepo, "none"} {
				k.is(blob.Mount(k.Context(), k.s, from, otherRepo, dgst), blob.ErrNotFound, "Mount from "+from, "from does not have it")
				k.lacks(otherRepo, dgst, "the mount was refused")
			}
		})
	}},
	{"Locate/it lists the repositories that have the blob, in byte order", func(k *kit) {
		l, ok := blob.As[blob.Locator](k.s)
		if !ok {
			k.Skip("the store is no blob.Locator")
		}
		dgst := digest.FromString("content")
		want := []string{"a", "a-b", "a.b", "a/b", "a_b", "ab", "b"} // the order of "-", ".", "/" and "_"
		for _, repo := range []string{"b", "a_b", "a/b", "ab", "a.b", "a", "a-b", "gone"} {
			k.put(repo, "content")
		}
		k.put("other", "something else")
		k.ok(k.s.Delete(k.Context(), "gone", dgst, never), "Delete")
		var got []string
		for repo, err := range l.Locate(k.Context(), dgst) {
			k.ok(err, "Locate")
			got = append(got, repo)
		}
		if !slices.Equal(got, want) {
			k.Errorf("Locate lists %q, want %q", got, want)
		}
		for range l.Locate(k.Context(), dgst) {
			break
		}
		for repo, err := range l.Locate(k.Context(), digest.FromString("nowhere")) {
			k.Errorf("Locate of a blob that is nowhere yields %q, %v", repo, err)
		}
		var last error
		for _, err := range l.Locate(k.canceled(), dgst) {
			last = err
		}
		k.is(last, context.Canceled, "Locate", "a listing ends in ctx's error")
	}},
	{"Mount/it is a touch", func(k *kit) {
		k.clock()
		dgst := k.put(repo, "content")
		later := day1.Add(2 * k.Lease)
		k.set(later)
		k.ok(blob.Mount(k.Context(), k.s, repo, otherRepo, dgst), "Mount")
		k.touched(otherRepo, dgst, later)
		k.set(later.Add(2 * k.Lease))
		k.ok(blob.Mount(k.Context(), k.s, repo, otherRepo, dgst), "Mount again")
		k.touched(otherRepo, dgst, later.Add(2*k.Lease))
	}},
	{"Locate/it lists the repositories that have the blob", func(k *kit) {
		l, ok := blob.As[blob.Locator](k.s)
		if !ok {
			k.Skip("the store is no Locator")
		}
		repos := []string{"a", "a-b", "a/b", "b"}
		for _, repo := range repos {
			k.put(repo, "content")
		}
		k.put("c", "other")
		var got []string
		for repo, err := range l.Locate(k.Context(), sha("content")) {
			k.ok(err, "Locate")
			got = append(got, repo)
		}
		if fmt.Sprint(got) != fmt.Sprint(repos) {
			k.Fatalf("Locate = %v, want %v, in byte order", got, repos)
		}
	}},
}

// touched fails the test unless the touch was at most half a lease before now.
func (k *kit) touched(repo string, dgst digest.Digest, now time.Time) {
	k.Helper()
	if got := k.touchedAt(repo, dgst); got.After(now) || now.Sub(got) > k.Lease/2 {
		k.Fatalf("TouchedAt = %v, want it within half a lease (%v) of %v", got, k.Lease/2, now)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) {
	clear(p)
	return min(len(p), 4096), nil
}
