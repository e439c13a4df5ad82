package blobtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/blob"
)

const repo, otherRepo = "team/app", "team/app2"

// A whole second, which every database and file system keeps.
var day1 = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

var errReader = errors.New("the reader's own error")

// kit is one clause under way.
type kit struct {
	*testing.T
	Options
	s        blob.Store
	patience time.Duration // for what must not hang; used up only by a store that is wrong

	mu  sync.Mutex
	now time.Time
}

// clock gives the store a clock that stands still at day1, or skips.
func (k *kit) clock() {
	if k.SetNow == nil {
		k.Skip("Options.SetNow is nil")
	}
	k.now = day1
	k.SetNow(k.s, k.time)
}

func (k *kit) time() time.Time {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.now
}

func (k *kit) set(now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.now = now
}

func describe(alg digest.Algorithm, content string) ocispec.Descriptor {
	return ocispec.Descriptor{Digest: alg.FromString(content), Size: int64(len(content))}
}

func sha(content string) digest.Digest { return digest.SHA256.FromString(content) }

// long returns n bytes that repeat nowhere near.
func long(n int) string {
	b := make([]byte, n)
	x := uint32(n)
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return string(b)
}

func (k *kit) put(repo, content string) digest.Digest {
	k.Helper()
	desc := describe(digest.SHA256, content)
	if err := blob.Put(k.Context(), k.s, repo, desc, strings.NewReader(content)); err != nil {
		k.Fatalf("Put: %v", err)
	}
	return desc.Digest
}

func (k *kit) stat(repo string, dgsts ...digest.Digest) []blob.Info {
	k.Helper()
	infos, err := k.s.Stat(k.Context(), repo, dgsts)
	if err != nil {
		k.Fatalf("Stat: %v", err)
	}
	if len(infos) != len(dgsts) {
		k.Fatalf("Stat of %d digests returned %d Infos, want one per digest", len(dgsts), len(infos))
	}
	return infos
}

// touchedAt asks without touching.
func (k *kit) touchedAt(repo string, dgst digest.Digest) time.Time {
	k.Helper()
	r, info, err := k.s.Open(k.Context(), repo, dgst, 0, 0)
	if err != nil {
		k.Fatalf("Open: %v", err)
	}
	r.Close()
	return info.TouchedAt
}

func (k *kit) list(repo string, after digest.Digest) []digest.Digest {
	k.Helper()
	var dgsts []digest.Digest
	for info, err := range k.s.Blobs(k.Context(), repo, after) {
		if err != nil {
			k.Fatalf("Blobs: %v", err)
		}
		dgsts = append(dgsts, info.Digest)
	}
	return dgsts
}

// has fails the test unless content is in repo by all ways to ask.
func (k *kit) has(repo string, dgst digest.Digest, content string) {
	k.Helper()
	if got := k.stat(repo, dgst)[0]; got.Digest != dgst || got.Size != int64(len(content)) || got.TouchedAt.IsZero() {
		k.Fatalf("Stat(%s) = %+v, want size %d and a time", dgst, got, len(content))
	}
	got, err := k.read(repo, dgst, 0, -1)
	if err != nil {
		k.Fatalf("Open(%s): %v", dgst, err)
	}
	if got != content {
		k.Fatalf("the bytes of %s differ: %s, want %s", dgst, show(got), show(content))
	}
	for _, d := range k.list(repo, "") {
		if d == dgst {
			return
		}
	}
	k.Fatalf("Blobs(%s) does not list %s", repo, dgst)
}

// lacks fails the test if dgst is in repo by any way to ask.
func (k *kit) lacks(repo string, dgst digest.Digest, why string) {
	k.Helper()
	if got := k.stat(repo, dgst)[0]; got != (blob.Info{}) {
		k.Fatalf("Stat(%s, %s) = %+v, want the zero Info: %s", repo, dgst, got, why)
	}
	if _, err := k.read(repo, dgst, 0, -1); !errors.Is(err, blob.ErrNotFound) {
		k.Fatalf("Open(%s, %s) = %v, want ErrNotFound: %s", repo, dgst, err, why)
	}
	for _, d := range k.list(repo, "") {
		if d == dgst {
			k.Fatalf("Blobs(%s) lists %s: %s", repo, dgst, why)
		}
	}
}

func (k *kit) read(repo string, dgst digest.Digest, off, n int64) (string, error) {
	r, _, err := k.s.Open(k.Context(), repo, dgst, off, n)
	if err != nil {
		return "", err
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	return string(b), err
}

func show(content string) string {
	if len(content) <= 40 {
		return fmt.Sprintf("%q", content)
	}
	return fmt.Sprintf("%q... (%d bytes)", content[:40], len(content))
}

// is fails the test unless err matches want.
func (k *kit) is(err, want error, what, sentence string) {
	k.Helper()
	if !errors.Is(err, want) {
		k.Fatalf("%s = %v, want an error that matches %q: %s", what, err, want, sentence)
	}
}

func (k *kit) ok(err error, what string) {
	k.Helper()
	if err != nil {
		k.Fatalf("%s: %v", what, err)
	}
}

// leavesNothing fails the test if do makes things in the store.
func (k *kit) leavesNothing(do func()) {
	k.Helper()
	if k.Things == nil {
		do()
		return
	}
	before := k.Things(k, k.s)
	do()
	if after := k.Things(k, k.s); after > before {
		k.Fatalf("there were %d things in the store, and are %d now: a failure leaves nothing behind", before, after)
	}
}

// ends fails the test if do hangs.
func (k *kit) ends(sentence string, do func()) {
	k.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		do()
	}()
	timer := time.NewTimer(k.patience)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		k.Fatalf("nothing has happened for %v: %s", k.patience, sentence)
	}
}

// together calls do on n goroutines at once, and waits for them.
func together(n int, do func(i int)) {
	var ready, done sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		ready.Add(1)
		done.Go(func() {
			ready.Done()
			<-start
			do(i)
		})
	}
	ready.Wait()
	close(start)
	done.Wait()
}

func (k *kit) begin() blob.Upload {
	k.Helper()
	u, err := k.s.Begin(k.Context(), repo, digest.SHA256)
	k.ok(err, "Begin")
	return u
}

func (k *kit) append(u blob.Upload, chunk string) blob.Upload {
	k.Helper()
	u, err := blob.Append(k.Context(), k.s, u, -1, strings.NewReader(chunk))
	k.ok(err, "Append")
	return u
}

func (k *kit) lookup(id string) blob.Upload {
	k.Helper()
	u, err := k.s.Lookup(k.Context(), repo, id)
	k.ok(err, "Lookup")
	return u
}

func (k *kit) finish(u blob.Upload, content string) {
	k.Helper()
	k.ok(blob.Finish(k.Context(), k.s, u, -1, nil, sha(content)), "Finish")
	k.has(repo, sha(content), content)
	_, err := k.s.Lookup(k.Context(), repo, u.ID)
	k.is(err, blob.ErrUploadNotFound, "Lookup", "Commit ends the session")
}

// unchanged fails the test unless the session is u still.
func (k *kit) unchanged(u blob.Upload, sentence string) {
	k.Helper()
	if got := k.lookup(u.ID); !sameUpload(got, u) {
		k.Fatalf("Lookup = %+v, want %+v: %s", got, u, sentence)
	}
}

func sameUpload(a, b blob.Upload) bool {
	return a.Repo == b.Repo && a.ID == b.ID && a.Size == b.Size && a.Algorithm == b.Algorithm &&
		bytes.Equal(a.Hash, b.Hash) && bytes.Equal(a.State, b.State)
}

// spy calls look before each Read.
type spy struct {
	r    io.Reader
	look func()
}

func (s spy) Read(p []byte) (int, error) {
	s.look()
	return s.r.Read(p)
}

// broken yields content and then fails.
func broken(content string) io.Reader {
	return io.MultiReader(strings.NewReader(content), failing{errReader})
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func (k *kit) canceled() context.Context {
	ctx, cancel := context.WithCancel(k.Context())
	cancel()
	return ctx
}
