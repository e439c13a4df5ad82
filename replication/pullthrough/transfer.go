package pullthrough

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/replication"
)

// transfer is a blob on its way from upstream, for all who ask for it: upstream fills the
// spool, and the store and the clients read it.
type transfer struct {
	c      *Cache
	p      place
	dgst   digest.Digest
	key    string
	refs   int // of readers, and of run; guarded by c.mu
	cancel context.CancelCauseFunc

	unstored error // of the store, if the content is right; read when done

	mu      sync.Mutex
	changed chan struct{} // closed when what follows has changed
	size    int64         // -1: not known yet
	n       int64         // bytes in the spool
	fetched bool          // n is all there are
	done    bool          // err is the verdict
	err     error
	spool   spool
}

// errStored is the verdict on what was in the store already.
var errStored = errors.New("in the store")

// join returns the transfer of a blob, which it may begin. Whoever joins must leave.
func (c *Cache) join(ctx context.Context, p place, dgst digest.Digest) (*transfer, error) {
	key := p.repo + " " + string(dgst)
	c.mu.Lock()
	if t := c.transfers[key]; t != nil {
		t.refs++
		c.mu.Unlock()
		return t, nil
	}
	t := &transfer{c: c, p: p, dgst: dgst, key: key, refs: 2, size: -1, changed: make(chan struct{}), spool: spool{dir: c.SpoolDir}}
	if c.transfers == nil {
		c.transfers = map[string]*transfer{}
	}
	c.transfers[key] = t
	c.mu.Unlock()
	begun := make(chan struct{})
	cancel, err := c.start(ctx, func(ctx context.Context) {
		<-begun
		t.run(ctx)
	})
	t.cancel = cancel
	close(begun)
	if err != nil {
		t.decide(err)
		t.leave()
		t.leave()
		return nil, err
	}
	return t, nil
}

// leave ends the interest of one in t.
func (t *transfer) leave() {
	t.c.mu.Lock()
	t.refs--
	last, alone := t.refs == 0, t.refs == 1
	if alone && t.c.StopAlone && t.c.transfers[t.key] == t {
		delete(t.c.transfers, t.key) // who comes now begins anew
		t.cancel(context.Canceled)
	}
	t.c.mu.Unlock()
	if last {
		t.update(func() { // also for who reads what he has closed
			t.spool.close()
			t.err = os.ErrClosed
		})
	}
}

// update changes t and wakes who waits for that.
func (t *transfer) update(f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f()
	close(t.changed)
	t.changed = make(chan struct{})
}

// decide gives the verdict, after which nobody joins.
func (t *transfer) decide(err error) {
	t.c.mu.Lock()
	if t.c.transfers[t.key] == t {
		delete(t.c.transfers, t.key)
	}
	t.c.mu.Unlock()
	t.update(func() {
		if t.done, t.err = true, err; err == nil {
			t.size = t.n
		}
	})
}

// wait returns when ready says so, or the transfer has failed.
func (t *transfer) wait(ctx context.Context, ready func() bool) error {
	for {
		t.mu.Lock()
		ok, err, changed := ready(), t.err, t.changed
		t.mu.Unlock()
		if err != nil || ok {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// run fetches and stores the blob, and gives the verdict.
func (t *transfer) run(ctx context.Context) {
	defer t.leave()
	if body, _, err := t.c.Blobs.Open(ctx, t.p.repo, t.dgst, 0, -1); err == nil { // since it was asked for
		body.Close()
		t.decide(errStored)
		return
	}
	var put chan error
	into := &reader{t: t, ctx: ctx, end: -1}
	begin := func() error {
		if put != nil {
			return nil
		}
		if err := t.c.create(ctx, t.p.repo); err != nil {
			return err
		}
		put = make(chan error, 1)
		desc := ocispec.Descriptor{Digest: t.dgst, Size: t.size}
		t.c.running.Go(func() { put <- blob.Put(ctx, t.c.Blobs, t.p.repo, desc, into) })
		return nil
	}
	err := t.fetch(ctx, begin)
	t.update(func() {
		if t.err = err; err == nil {
			t.fetched = true
		}
	})
	if put != nil {
		if stored := <-put; err == nil && (stored != nil || !into.whole) {
			// The store has failed, or has not looked at it. Clients get what is right.
			desc := ocispec.Descriptor{Digest: t.dgst, Size: t.n}
			if _, bad := io.Copy(io.Discard, blob.Verify(io.NewSectionReader(t.spool.view(), 0, t.n), desc)); bad != nil {
				err = t.p.upstreamError(ctx, string(t.dgst), wrong("%w", bad))
			} else {
				t.unstored = stored
				t.c.tell(ctx, stored)
			}
		}
	}
	t.c.refuse(t.p, "blob "+string(t.dgst), err)
	t.decide(err)
}

const (
	chunk     = 256 << 10
	progress  = 1 << 20                // that makes an attempt none
	firstWait = 100 * time.Millisecond // between attempts
	longWait  = 10 * time.Second       // for which clients do not wait
)

// fetch fills the spool, in as many attempts as it may take.
func (t *transfer) fetch(ctx context.Context, begin func() error) error {
	if err := t.c.outage(t.p); err != nil {
		return err
	}
	failures := 0
	for buf := make([]byte, chunk); ; {
		before := t.n
		err := t.attempt(ctx, begin, buf)
		if err == nil || ctx.Err() != nil {
			return t.p.upstreamError(ctx, string(t.dgst), err)
		}
		if t.n-before >= progress {
			failures = 0
		}
		wait := firstWait << min(failures, 10)
		again, ok := errors.AsType[*replication.TemporaryError](err)
		if ok {
			wait = max(wait, again.After)
		}
		if failures++; !ok || wait > longWait || failures >= int(orDefault(int64(t.c.Attempts), 5)) {
			return err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
}

// attempt reads on from where the spool ends.
func (t *transfer) attempt(ctx context.Context, begin func() error, buf []byte) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(t.c.silence(), func() { cancel(errSilent) })
	defer silence.Stop()
	failed := func(err error) error { return t.p.upstreamError(ctx, string(t.dgst), err) }

	source, err := t.c.Upstream(ctx, t.p.rule)
	if err != nil {
		err = failed(err)
		t.c.note(t.p, err)
		return err
	}
	body, info, err := source.Blobs.Open(ctx, t.p.upstream, t.dgst, t.n, -1)
	if err != nil && t.n > 0 && errors.Is(err, blob.ErrRange) {
		err = wrong("it ends before %d bytes", t.n)
	}
	err = failed(err)
	t.c.note(t.p, err)
	if err != nil {
		return err
	}
	defer body.Close()
	most := orDefault(t.c.MaxBlob, 52_000<<20)
	switch {
	case info.Digest != "" && info.Digest != t.dgst:
		return failed(wrong("it is %s", info.Digest))
	case info.Size > most:
		return failed(wrong("it has %d bytes, takes %d", info.Size, most))
	case t.size >= 0 && info.Size >= 0 && info.Size != t.size:
		return failed(wrong("it has %d bytes, and had %d", info.Size, t.size))
	case t.size < 0 && info.Size >= 0:
		t.update(func() { t.size = info.Size })
	}
	if err := begin(); err != nil {
		return err
	}
	for t.size < 0 || t.n < t.size {
		silence.Reset(t.c.silence())
		n, err := body.Read(buf)
		if n > 0 {
			most := most
			if t.size >= 0 {
				most = t.size
			}
			if int64(n) > most-t.n {
				return failed(wrong("it is longer than %d bytes", most))
			}
			var full error
			t.update(func() {
				if full = t.spool.append(buf[:n], t.n); full == nil {
					t.n += int64(n)
				}
			})
			if full != nil {
				return fmt.Errorf("spool: %w", full)
			}
		}
		switch {
		case err == io.EOF && (t.size < 0 || t.n == t.size):
			return nil
		case err != nil && t.n != t.size:
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			if context.Cause(ctx) == nil && !errors.Is(err, replication.ErrContent) {
				err = &replication.TemporaryError{Err: fmt.Errorf("%w: broke after %d bytes: %w", replication.ErrUnavailable, t.n, err)}
			}
			return failed(err)
		}
	}
	return nil
}

// reader reads a transfer at its own pace, from off to end.
type reader struct {
	t     *transfer
	ctx   context.Context
	off   int64
	end   int64 // -1: that of the store, which gets all before the verdict, and fails with what has failed
	whole bool  // of the store: it has read to the end
	left  sync.Once
}

// ready returns how far may be read. A client gets the last byte after the verdict.
func (r *reader) ready() int64 {
	switch {
	case r.end < 0:
		return r.t.n
	case r.t.done:
		return r.end
	}
	return min(r.t.n, r.end-1)
}

func (r *reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	var ready int64
	var from io.ReaderAt
	err := r.t.wait(r.ctx, func() bool {
		ready, from = r.ready(), r.t.spool.view()
		return ready > r.off || r.t.done || r.end < 0 && r.t.fetched
	})
	if err != nil {
		return 0, err
	}
	if ready <= r.off {
		r.whole = true
		return 0, io.EOF
	}
	n, err := from.ReadAt(p[:min(int64(len(p)), ready-r.off)], r.off)
	if n > 0 {
		err = nil
	}
	r.off += int64(n)
	return n, err
}

func (r *reader) Close() error {
	r.left.Do(r.t.leave)
	return nil
}
