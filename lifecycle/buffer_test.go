package lifecycle_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/lifecycle"
	"github.com/wharfage/wharfage/lifecycle/mempulls"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// pull is of image n, so much after noon.
func pull(n int, after time.Duration) lifecycle.Pull {
	return lifecycle.Pull{Digest: digest.FromString(fmt.Sprint(n)), At: noon.Add(after)}
}

var errDown = errors.New("the database is down")

// spy is an Activity that tells how often it was written to, and that fails on
// demand.
type spy struct {
	mempulls.Store
	before func(repo string, pulls []lifecycle.Pull) // runs in Touch

	mu    sync.Mutex
	down  bool
	calls []string // "repo:number of pulls"
}

func (s *spy) Touch(ctx context.Context, repo string, pulls []lifecycle.Pull) error {
	if s.before != nil {
		s.before(repo, pulls)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, fmt.Sprintf("%s:%d", repo, len(pulls)))
	if s.down {
		return errDown
	}
	return s.Store.Touch(ctx, repo, pulls)
}

// wrote returns the calls since it was asked last.
func (s *spy) wrote() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	calls := strings.Join(s.calls, " ")
	s.calls = nil
	return calls
}

func (s *spy) last(t *testing.T, repo string, n int) time.Duration {
	t.Helper()
	want := pull(n, 0).Digest
	for p, err := range s.Pulls(t.Context(), repo, "") {
		if err != nil {
			t.Fatal(err)
		}
		if p.Digest == want {
			return p.At.Sub(noon)
		}
	}
	return -1
}

func count[T any](seq iter.Seq2[T, error]) (n int) {
	for range seq {
		n++
	}
	return n
}

func add(t *testing.T, b *lifecycle.Buffer, repo string, pulls ...lifecycle.Pull) {
	t.Helper()
	for _, p := range pulls {
		if err := b.Add(t.Context(), repo, p); err != nil {
			t.Fatal(err)
		}
	}
}

func TestManyPullsAreOneWrite(t *testing.T) {
	s := new(spy)
	b := &lifecycle.Buffer{Activity: s}
	for i := range 1000 {
		add(t, b, "a", pull(i%2, time.Duration(i*7%1000)*time.Minute))
		add(t, b, "b", pull(0, 0))
	}
	add(t, b, "a", lifecycle.Pull{Digest: pull(3, 0).Digest}) // no pull
	if got := s.wrote(); got != "" {
		t.Errorf("wrote %s before a flush", got)
	}
	if err := b.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := s.wrote(); got != "a:2 b:1" {
		t.Errorf("wrote %s", got)
	}
	if a, b := s.last(t, "a", 0), s.last(t, "a", 1); a != 998*time.Minute || b != 999*time.Minute {
		t.Errorf("the last pulls are %v and %v past noon", a, b)
	}
	if err := b.Flush(t.Context()); err != nil || s.wrote() != "" {
		t.Errorf("an empty flush writes, or is %v", err)
	}
}

func TestAddFlushesByCount(t *testing.T) {
	s := new(spy)
	b := &lifecycle.Buffer{Activity: s, FlushAt: 10}
	for i := range 9 {
		add(t, b, "a", pull(i, 0), pull(i, time.Minute), pull(i, time.Second))
	}
	if got := s.wrote(); got != "" {
		t.Errorf("wrote %s", got)
	}
	add(t, b, "b", pull(1, 0))
	if got := s.wrote(); got != "a:9 b:1" {
		t.Errorf("wrote %s", got)
	}
}

func TestABatchIsNoLargerThanFlushAt(t *testing.T) {
	s := new(spy)
	s.down = true
	b := &lifecycle.Buffer{Activity: s, FlushAt: 10}
	for i := range 25 {
		_ = b.Add(t.Context(), "a", pull(i, 0))
	}
	s.wrote()
	s.down = false
	if err := b.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := s.wrote(); got != "a:10 a:10 a:5" {
		t.Errorf("wrote %s", got)
	}
}

func TestAPullWithinTheIntervalIsNotWrittenAgain(t *testing.T) {
	for _, test := range []struct {
		every, after time.Duration
		written      bool
	}{
		{0, 0, false}, {0, time.Minute, false}, {0, time.Hour - 1, false}, {0, time.Hour, true}, {0, -2 * time.Hour, false},
		{time.Minute, time.Minute - 1, false}, {time.Minute, time.Minute, true},
		{-1, 0, false}, {-1, 1, true},
	} {
		s := new(spy)
		b := &lifecycle.Buffer{Activity: s, Every: test.every}
		add(t, b, "a", pull(1, 0))
		if err := b.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.wrote()
		add(t, b, "a", pull(1, test.after))
		if err := b.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := s.wrote() != ""; got != test.written {
			t.Errorf("Every %v, a pull %v later: written %v", test.every, test.after, got)
		}
	}
}

func TestAFailedFlushKeepsWhatItHas(t *testing.T) {
	s := new(spy)
	b := &lifecycle.Buffer{Activity: s}
	add(t, b, "a", pull(1, 0), pull(2, time.Minute))
	add(t, b, "b", pull(1, 0))
	s.down = true
	if err := b.Flush(t.Context()); !errors.Is(err, errDown) {
		t.Errorf("Flush = %v", err)
	}
	if got := s.wrote(); got != "a:2 b:1" { // one repository's failure is not another's
		t.Errorf("tried %s", got)
	}
	add(t, b, "a", pull(1, time.Second), pull(2, time.Second))
	s.down = false
	if err := b.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if one, two, three := s.last(t, "a", 1), s.last(t, "a", 2), s.last(t, "b", 1); one != time.Second || two != time.Minute || three != 0 {
		t.Errorf("the last pulls are %v, %v and %v past noon", one, two, three)
	}
}

func TestWhatComesDuringAFailedFlushIsMerged(t *testing.T) {
	s := new(spy)
	b := &lifecycle.Buffer{Activity: s, Every: -1}
	add(t, b, "a", pull(1, time.Minute), pull(2, time.Minute))
	s.down = true
	s.before = func(string, []lifecycle.Pull) {
		add(t, b, "a", pull(1, time.Second), pull(2, time.Hour), pull(3, 0))
	}
	if err := b.Flush(t.Context()); !errors.Is(err, errDown) {
		t.Errorf("Flush = %v", err)
	}
	s.down, s.before = false, nil
	if err := b.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if one, two, three := s.last(t, "a", 1), s.last(t, "a", 2), s.last(t, "a", 3); one != time.Minute || two != time.Hour || three != 0 {
		t.Errorf("the last pulls are %v, %v and %v past noon", one, two, three)
	}
}

func TestWhatWaitsIsBounded(t *testing.T) {
	s := new(spy)
	s.down = true
	b := &lifecycle.Buffer{Activity: s, FlushAt: 10, Limit: 25}
	full, tried := 0, 0
	for i := range 100 {
		err := b.Add(t.Context(), "a", pull(i, 0))
		if errors.Is(err, lifecycle.ErrFull) {
			full++
		} else if i >= 25 {
			t.Errorf("pull %d waits too", i)
		}
		if errors.Is(err, errDown) {
			tried++
		}
	}
	if full != 75 || tried != 10 {
		t.Errorf("%d pulls were dropped, want 75, and %d flushes tried, want 10", full, tried)
	}
	if err := b.Add(t.Context(), "a", pull(3, time.Minute)); err != nil { // it waits already
		t.Error(err)
	}
	s.down = false
	for i := range 10 { // the last of them finds a flush due, and room after it
		err := b.Add(t.Context(), "a", pull(100+i, 0))
		if (i < 9) != errors.Is(err, lifecycle.ErrFull) {
			t.Errorf("pull %d: %v", i, err)
		}
	}
	if err := b.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := count(s.Pulls(t.Context(), "a", "")); n != 26 {
		t.Errorf("%d digests were written, want 26", n)
	}
	if got := s.last(t, "a", 3); got != time.Minute {
		t.Errorf("the last pull is %v past noon", got)
	}
}

// What was written is forgotten at some time, and then written again at worst.
func TestWhatIsRememberedIsBounded(t *testing.T) {
	s := new(spy)
	b := &lifecycle.Buffer{Activity: s, FlushAt: 10, Limit: 10}
	for i := range 30 {
		add(t, b, "a", pull(i, 0))
	}
	s.wrote()
	for i := range 30 {
		add(t, b, "a", pull(29-i, time.Minute))
	}
	if err := b.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := s.wrote(); got != "a:10" {
		t.Errorf("wrote %s, want the ten that are forgotten", got)
	}
}

func TestWithoutAnIntervalAnEarlierPullIsNotWritten(t *testing.T) {
	s := new(spy)
	b := &lifecycle.Buffer{Activity: s, Every: -1}
	for _, after := range []time.Duration{time.Minute, 0} { // the second time all come late
		for i := range 5 {
			add(t, b, "a", pull(i, after))
		}
		if err := b.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if got := s.wrote(); got != "a:5" {
		t.Errorf("wrote %s, want the five of the first time", got)
	}
}

func TestWhatIsOlderThanTheIntervalIsForgotten(t *testing.T) {
	const images = 10_000
	b := &lifecycle.Buffer{Activity: discard{}, Limit: 1 << 20, Every: time.Hour}
	live := func(from int) uint64 {
		for i := range images {
			add(t, b, "a", pull(from+i, time.Duration(from)*time.Second))
		}
		if err := b.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		return liveBytes()
	}
	live(0)
	before := live(images)
	for n := 2; n < 8; n++ { // each more than an hour after the one before
		live(n * images)
	}
	if after := live(8 * images); after > before+images*8 {
		t.Errorf("%d bytes live after 20,000 images, and %d after 90,000", before, after)
	}
	runtime.KeepAlive(b)
}

// A digest is a piece of a request, all of which stays in memory with it.
func TestWhatIsRememberedTakesLittleMemory(t *testing.T) {
	const images = 20_000
	b := &lifecycle.Buffer{Activity: discard{}}
	before := liveBytes()
	for i := range images {
		p := pull(i, 0)
		request := "GET /v2/team/app/manifests/" + string(p.Digest) + " HTTP/1.1" + strings.Repeat("\r\nHeader: value", 20)
		p.Digest = digest.Digest(request[len("GET /v2/team/app/manifests/"):][:len(p.Digest)])
		add(t, b, request[len("GET /v2/"):][:len("team/app")], p)
	}
	if err := b.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if each := (int64(liveBytes()) - int64(before)) / images; each > 80 {
		t.Errorf("each of %d images takes %d bytes", images, each)
	}
	runtime.KeepAlive(b)
}

// discard is an Activity that keeps nothing.
type discard struct{ lifecycle.Activity }

func (discard) Touch(context.Context, string, []lifecycle.Pull) error { return nil }

func liveBytes() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func TestFlushHonoursCtx(t *testing.T) {
	s := new(spy)
	b := &lifecycle.Buffer{Activity: s}
	add(t, b, "a", pull(1, 0))
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.Flush(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("Flush = %v", err)
	}
	s.before = func(string, []lifecycle.Pull) {
		// Another one, which waits for this, and gives up.
		waiting, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- b.Flush(waiting) }()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("a Flush that waits = %v", err)
		}
	}
	if err := b.Flush(t.Context()); err != nil || s.last(t, "a", 1) != 0 {
		t.Errorf("Flush = %v", err)
	}
}

func TestConcurrentAddsAndFlushes(t *testing.T) {
	const goroutines, rounds, images = 8, 300, 40
	s := new(spy)
	b := &lifecycle.Buffer{Activity: s, FlushAt: 16, Every: -1}
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			for i := range rounds {
				// The digests meet in all goroutines, at times that cross.
				if err := b.Add(t.Context(), fmt.Sprint("r", i%3), pull((i+g)%images, time.Duration(i*goroutines+g)*time.Second)); err != nil {
					t.Error(err)
				}
				if i%50 == g {
					if err := b.Flush(t.Context()); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	if err := b.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := map[string]time.Time{}
	for g := range goroutines {
		for i := range rounds {
			p := pull((i+g)%images, time.Duration(i*goroutines+g)*time.Second)
			key := fmt.Sprint("r", i%3, p.Digest)
			if p.At.After(want[key]) {
				want[key] = p.At
			}
		}
	}
	for _, repo := range []string{"r0", "r1", "r2"} {
		for p, err := range s.Pulls(t.Context(), repo, "") {
			key := fmt.Sprint(repo, p.Digest)
			if err != nil || !p.At.Equal(want[key]) {
				t.Errorf("%s in %s: %v, %v, want %v", p.Digest, repo, p.At, err, want[key])
			}
			delete(want, key)
		}
	}
	if len(want) > 0 {
		t.Errorf("%d digests are missing", len(want))
	}
}
