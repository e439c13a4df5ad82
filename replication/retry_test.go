package replication_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/blob/memblob"
	"github.com/wharfage/wharfage/replication"
)

// TestBackoff: waits double, less a random half at most, and end with the attempts.
func TestBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, dst := newRegistry(t), newRegistry(t)
		src.image(from, []string{"a"}, "v1")
		p := &tap{}
		var at []time.Duration
		began := time.Now()
		p.before = func(_ int, kind string) error {
			if kind != "source get" {
				return nil
			}
			at = append(at, time.Since(began))
			return &replication.TemporaryError{Err: fmt.Errorf("%w: 503", replication.ErrUnavailable)}
		}
		copier := replication.Copier{Attempts: 4, Backoff: time.Second}
		_, err := copier.Copy(ctx, p.source(src.source()), from, "v1", dst.target(), to, replication.CopyOptions{})
		if !errors.Is(err, replication.ErrUnavailable) || len(at) != 4 {
			t.Fatalf("%d attempts, error %v", len(at), err)
		}
		for i, most := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second} {
			if wait := at[i+1] - at[i]; wait < most/2 || wait > most {
				t.Errorf("wait %d is %v, want %v to %v", i+1, wait, most/2, most)
			}
		}
	})
}

// TestAfter is waited for, and no longer than MaxWait.
func TestAfter(t *testing.T) {
	for _, c := range []struct {
		after, maxWait time.Duration
		want           error
	}{
		{37 * time.Second, 0, nil},
		{121 * time.Second, 0, replication.ErrRateLimited},
		{121 * time.Second, time.Hour, nil},
	} {
		synctest.Test(t, func(t *testing.T) {
			src, dst := newRegistry(t), newRegistry(t)
			src.image(from, []string{"a"}, "v1")
			p := &tap{}
			failed := false
			p.before = func(_ int, kind string) error {
				if kind == "target push" && !failed {
					failed = true
					return &replication.TemporaryError{After: c.after, Err: fmt.Errorf("%w: 429", replication.ErrRateLimited)}
				}
				return nil
			}
			copier := replication.Copier{MaxWait: c.maxWait}
			began := time.Now()
			_, err := copier.Copy(ctx, src.source(), from, "v1", p.target(dst, true), to, replication.CopyOptions{})
			if !errors.Is(err, c.want) {
				t.Errorf("error %v, want %v", err, c.want)
			}
			if took := time.Since(began); c.want == nil && took != c.after || c.want != nil && took != 0 {
				t.Errorf("waited %v, After was %v", took, c.after)
			}
			if temporary, ok := errors.AsType[*replication.TemporaryError](err); c.want != nil && (!ok || temporary.After != c.after) {
				t.Errorf("%v does not say when to come again", err)
			}
		})
	}
}

// TestWaitHonoursContext: a copy that waits ends with its context.
func TestWaitHonoursContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, dst := newRegistry(t), newRegistry(t)
		src.image(from, []string{"a"}, "v1")
		p := &tap{before: func(int, string) error { return &replication.TemporaryError{After: time.Minute, Err: errTap} }}
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		began := time.Now()
		_, err := new(replication.Copier).Copy(ctx, p.source(src.source()), from, "v1", dst.target(), to, replication.CopyOptions{})
		if took := time.Since(began); !errors.Is(err, context.DeadlineExceeded) || took != time.Second {
			t.Errorf("error %v after %v", err, took)
		}
	})
}

// TestTakesOverFromWhoGaveUp: of two copies that want one blob, the one that sends it is
// cancelled.
func TestTakesOverFromWhoGaveUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, dst := newRegistry(t), newRegistry(t)
		src.image(from, []string{"a"}, "v1")
		first, cancel := context.WithCancel(ctx)
		p := &tap{before: func(_ int, kind string) error {
			if kind == "source blob" && first.Err() == nil {
				return &replication.TemporaryError{After: time.Minute, Err: errTap}
			}
			return nil
		}}
		source := p.source(src.source())
		var copier replication.Copier
		errs := make(chan error, 1)
		go func() {
			_, err := copier.Copy(first, source, from, "v1", dst.target(), to, replication.CopyOptions{})
			errs <- err
		}()
		synctest.Wait()
		done := make(chan error, 1)
		go func() {
			_, err := copier.Copy(ctx, source, from, "v1", dst.target(), to, replication.CopyOptions{Tags: []string{"second"}})
			done <- err
		}()
		synctest.Wait()
		cancel()
		if err := <-errs; !errors.Is(err, context.Canceled) {
			t.Errorf("the first: %v", err)
		}
		if err := <-done; err != nil {
			t.Errorf("the second: %v", err)
		}
	})
}

// TestGoesOnInsideABlob: connections that break do not make it begin again.
func TestGoesOnInsideABlob(t *testing.T) {
	for _, receives := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			src, dst := newRegistry(t), newRegistry(t)
			r := rand.New(rand.NewPCG(1, 2))
			content := strings.Repeat("0123456789abcdef", 16<<10) // 256 KiB
			src.image(from, []string{content}, "v1")
			read := 0
			p := &tap{}
			p.flow = func(n int) int {
				if r.IntN(60) == 0 {
					n /= 2
				}
				read += n
				return n
			}
			// A PartSize beyond the blob's, so that it is one Put, which must not begin again.
			copier := replication.Copier{PartSize: 1 << 20, Attempts: 100, MaxWait: time.Hour}
			if _, err := copier.Copy(ctx, p.source(src.source()), from, "v1", p.target(dst, receives), to, replication.CopyOptions{}); err != nil {
				t.Fatal(err)
			}
			src.same(from, dst, to)
			if opens := p.requests["source blob"]; opens < 4 {
				t.Errorf("%d connections: none has broken", opens)
			}
			if config := 1 << 10; read > len(content)+config {
				t.Errorf("read %d bytes for %d", read, len(content))
			}
			if puts := p.requests["target put"]; puts != 2 {
				t.Errorf("%d puts for 2 blobs", puts)
			}
		})
	}
}

// TestReceiverSendsAgain from where it likes, and what it gets is verified all the same.
func TestReceiverSendsAgain(t *testing.T) {
	for _, lie := range []bool{false, true} {
		src, dst := newRegistry(t), newRegistry(t)
		content := strings.Repeat("0123456789", 10_000)
		src.image(from, []string{content}, "v1")
		target := dst.target()
		target.Blobs = again{dst.blobs, t}
		source := src.source()
		if lie {
			source.Blobs = liar{source.Blobs, func(b []byte) []byte { b[1] ^= 1; return b }}
		}
		_, err := (&replication.Copier{PartSize: 1 << 10}).Copy(ctx, source, from, "v1", target, to, replication.CopyOptions{})
		if lie != errors.Is(err, replication.ErrContent) || !lie && err != nil {
			t.Errorf("lie %v: %v", lie, err)
		}
		if !lie {
			src.same(from, dst, to)
		}
	}
}

// impatient sends again before it has done with the content that it gave up, as clients of HTTP
// do that answer an early 401.
type impatient struct{ blob.Store }

func (s impatient) Receive(ctx context.Context, repo string, desc ocispec.Descriptor, _ []string, open func(context.Context, int64) (io.ReadCloser, error)) (replication.Received, error) {
	given, err := open(ctx, 0)
	if err != nil {
		return "", err
	}
	var left sync.WaitGroup
	defer left.Wait()
	left.Go(func() { io.Copy(io.Discard, given) })
	r, err := open(ctx, 0)
	if err != nil {
		return "", err
	}
	defer r.Close()
	if n, err := r.Read(nil); n != 0 || err != nil {
		return "", fmt.Errorf("a Read of nothing: %d, %w", n, err)
	}
	return replication.Sent, blob.Put(ctx, s.Store, repo, desc, r)
}

// TestContentThatWasGivenUp may still be read while it is sent again. See -race.
func TestContentThatWasGivenUp(t *testing.T) {
	src, dst := newRegistry(t), newRegistry(t)
	src.image(from, []string{strings.Repeat("layer", 100_000)}, "v1")
	target := dst.target()
	target.Blobs = impatient{dst.blobs}
	if _, err := (&replication.Copier{PartSize: 1 << 10}).Copy(ctx, src.source(), from, "v1", target, to, replication.CopyOptions{}); err != nil {
		t.Fatal(err)
	}
	src.same(from, dst, to)
}

// TestJournal: a long blob is killed in each part, by a process that does not come
// back, and goes on in the next, which sends less than a part again.
func TestJournal(t *testing.T) {
	const part = 1 << 10
	content := strings.Repeat("0123456789abcdef", 640) // 10 parts
	for _, hashless := range []bool{false, true} {
		src, dst := newRegistry(t), newRegistry(t)
		src.image(from, []string{content}, "v1")
		dir := replication.DirJournal(t.TempDir())
		r := rand.New(rand.NewPCG(3, 4))
		read, runs := 0, 0
		for done := false; !done; runs++ {
			if runs > 60 {
				t.Fatal("it does not come to an end")
			}
			kill, cancel := context.WithCancel(ctx)
			p := &tap{after: dst.complete}
			left := 1 + r.IntN(3*part)
			if runs == 0 {
				left = part / 2 // before anything of it is kept
			}
			p.flow = func(n int) int {
				read += n
				if left -= n; left < 0 {
					cancel()
					return 0
				}
				return n
			}
			source, target := p.source(src.source()), dst.target()
			target.Registry = "there"
			if hashless {
				target.Blobs = hashlessStore{dst.blobs}
			}
			copier := replication.Copier{PartSize: part, Journal: dir, Requests: 1}
			_, err := copier.Copy(kill, source, from, "v1", target, to, replication.CopyOptions{})
			done = err == nil
			if err != nil && kill.Err() == nil {
				t.Fatal(err)
			}
			cancel()
		}
		src.same(from, dst, to)
		// What is read may be of the config, and of a part that is lost.
		if most := len(content) + runs*(part+1<<10); read > most {
			t.Errorf("%d bytes read for %d, in %d runs", read, len(content), runs)
		}
		if runs < 5 {
			t.Errorf("%d runs", runs)
		}
		for u, err := range dst.blobs.Sessions(ctx, "") {
			t.Errorf("session %s is left, %v", u.ID, err)
		}
	}
}

// behind is a Journal that knows little of a session: it was killed before it heard of the rest.
type behind struct{ replication.Journal }

func (b behind) Save(ctx context.Context, k replication.JournalKey, u blob.Upload) error {
	if u.Size > 1<<10 {
		return nil
	}
	return b.Journal.Save(ctx, k, u)
}

// TestJournalThatIsBehind: what the target has, and the Journal does not know of, is read once
// more, and what both know is not.
func TestJournalThatIsBehind(t *testing.T) {
	const part = 1 << 10
	content := strings.Repeat("0123456789abcdef", 640) // 10 parts
	src, dst := newRegistry(t), newRegistry(t)
	src.image(from, []string{content}, "v1")
	target := dst.target()
	target.Registry = "there"
	target.Blobs = hashlessStore{dst.blobs}
	copier := replication.Copier{PartSize: part, Journal: behind{replication.DirJournal(t.TempDir())}, Requests: 1}
	read := 0
	for _, left := range []int{4*part + part/2, 100 * part} { // the first run dies in the fifth part
		kill, cancel := context.WithCancel(ctx)
		p := &tap{after: dst.complete}
		read = 0
		p.flow = func(n int) int {
			if read += n; read > left {
				cancel()
				return 0
			}
			return n
		}
		if _, err := copier.Copy(kill, p.source(src.source()), from, "v1", target, to, replication.CopyOptions{}); err != nil && kill.Err() == nil {
			t.Fatal(err)
		}
		cancel()
	}
	src.same(from, dst, to)
	if most := 9*part + 512; read > most { // and the config
		t.Errorf("%d bytes were read of %d, of which the first %d were known", read, len(content), part)
	}
}

// TestJournalOfOthers: sessions that are gone, of another blob, or with wrong bytes.
func TestJournalOfOthers(t *testing.T) {
	const part = 1 << 10
	content := strings.Repeat("0123456789abcdef", 640)
	for name, begin := range map[string]func(g registry) (blob.Upload, error){
		"gone": func(g registry) (blob.Upload, error) { return blob.Upload{ID: "gone-gone-gone-gone"}, nil },
		"wrong bytes": func(g registry) (blob.Upload, error) {
			u, err := g.blobs.Begin(ctx, to, "sha256")
			if err == nil {
				u, err = blob.Append(ctx, g.blobs, u, 0, strings.NewReader("what was not asked for"))
			}
			return u, err
		},
		"longer": func(g registry) (blob.Upload, error) {
			u, err := g.blobs.Begin(ctx, to, "sha256")
			if err == nil {
				u, err = blob.Append(ctx, g.blobs, u, 0, strings.NewReader(content+content))
			}
			return u, err
		},
		"all bytes": func(g registry) (blob.Upload, error) {
			u, err := g.blobs.Begin(ctx, to, "sha256")
			if err == nil {
				u, err = blob.Append(ctx, g.blobs, u, 0, strings.NewReader(content))
			}
			return u, err
		},
	} {
		t.Run(name, func(t *testing.T) {
			src, dst := newRegistry(t), newRegistry(t)
			src.image(from, []string{content}, "v1")
			dir := replication.DirJournal(t.TempDir())
			u, err := begin(dst)
			if err != nil {
				t.Fatal(err)
			}
			layer := src.blob(from, content)
			if err := dir.Save(ctx, replication.JournalKey{Repo: to, Digest: layer.Digest}, u); err != nil {
				t.Fatal(err)
			}
			copier := replication.Copier{PartSize: part, Journal: dir}
			if _, err := copier.Copy(ctx, src.source(), from, "v1", dst.target(), to, replication.CopyOptions{}); err != nil {
				t.Fatal(err)
			}
			src.same(from, dst, to)
		})
	}
}

// losesSession loses the session at the second part, once or for ever.
type losesSession struct {
	*memblob.Store
	parts *int
	most  int
}

func (s losesSession) Append(ctx context.Context, u blob.Upload, r io.Reader) (blob.Upload, error) {
	if *s.parts++; *s.parts > 1 && *s.parts <= s.most {
		return u, blob.ErrConflict
	}
	return s.Store.Append(ctx, u, r)
}

func TestASessionThatIsLostBeginsAgainOnce(t *testing.T) {
	for most, want := range map[int]error{2: nil, 1 << 30: blob.ErrConflict} {
		src, dst := newRegistry(t), newRegistry(t)
		src.image(from, []string{strings.Repeat("0123456789abcdef", 640)}, "v1")
		target, parts := dst.target(), 0
		target.Blobs = losesSession{dst.blobs, &parts, most}
		copier := replication.Copier{PartSize: 1 << 10, Journal: replication.DirJournal(t.TempDir())}
		_, err := copier.Copy(ctx, src.source(), from, "v1", target, to, replication.CopyOptions{})
		if !errors.Is(err, want) || want == nil && err != nil {
			t.Errorf("lost until part %d: %v, want %v", most, err, want)
		}
		if want == nil {
			src.same(from, dst, to)
		}
	}
}

func TestDirJournal(t *testing.T) {
	d := replication.DirJournal(t.TempDir() + "/new")
	key := replication.JournalKey{Registry: "r", Repo: to, Digest: "sha256:1"}
	other := key
	other.Registry = "s"
	if u, err := d.Load(ctx, key); err != nil || u.ID != "" {
		t.Errorf("%+v, %v", u, err)
	}
	for _, id := range []string{"1", "2"} {
		if err := d.Save(ctx, key, blob.Upload{ID: id, Size: 3, Hash: []byte("h"), State: []byte("s")}); err != nil {
			t.Fatal(err)
		}
		if u, err := d.Load(ctx, key); err != nil || u.ID != id || u.Size != 3 || string(u.Hash) != "h" || string(u.State) != "s" {
			t.Errorf("%+v, %v", u, err)
		}
	}
	if u, err := d.Load(ctx, other); err != nil || u.ID != "" {
		t.Errorf("of another registry: %+v, %v", u, err)
	}
	for range 2 {
		if err := d.Save(ctx, key, blob.Upload{}); err != nil {
			t.Fatal(err)
		}
	}
	if u, err := d.Load(ctx, key); err != nil || u.ID != "" {
		t.Errorf("%+v, %v", u, err)
	}
}

// again is a Receiver whose first connection breaks somewhere, and which goes on
// from a little before.
type again struct {
	blob.Store
	t *testing.T
}

func (s again) Receive(ctx context.Context, repo string, desc ocispec.Descriptor, _ []string, open func(context.Context, int64) (io.ReadCloser, error)) (replication.Received, error) {
	first, err := open(ctx, 0)
	if err != nil {
		return "", err
	}
	half := make([]byte, desc.Size/2)
	_, err = io.ReadFull(first, half)
	first.Close()
	if err != nil {
		return "", err
	}
	kept := len(half) * 9 / 10
	rest, err := open(ctx, int64(kept))
	if err != nil {
		return "", err
	}
	defer rest.Close()
	return replication.Sent, s.Put(ctx, repo, desc, io.MultiReader(strings.NewReader(string(half[:kept])), rest))
}

// hashlessStore keeps sessions as a registry over HTTP does: without their hash.
type hashlessStore struct{ blob.Store }

func (s hashlessStore) Lookup(ctx context.Context, repo, id string) (blob.Upload, error) {
	u, err := s.Store.Lookup(ctx, repo, id)
	u.Hash, u.Algorithm = nil, ""
	return u, err
}
