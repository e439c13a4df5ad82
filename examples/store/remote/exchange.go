package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/wharfage/wharfage/replication"
)

var errStalled = errors.New("nothing was sent for too long")

type exchangeKey struct{}

// exchange is one request and its answer, watched: the timer runs while the other side is
// to do something.
type exchange struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	idle   time.Duration
	timer  *time.Timer
	asked  challenge // by the last answer 401

	mu       sync.Mutex
	answered bool
	source   error // of the content that was to be sent
}

// answer ends the sending, and returns why it failed if that was the content's fault.
func (x *exchange) answer() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.answered = true
	x.timer.Stop()
	return x.source
}

// sending is content on its way out.
type sending struct {
	io.ReadCloser
	x *exchange
}

func (s *sending) Read(p []byte) (int, error) {
	s.watch(false, nil)
	n, err := s.ReadCloser.Read(p)
	s.watch(true, err)
	return n, err
}

func (s *sending) watch(on bool, err error) {
	s.x.mu.Lock()
	defer s.x.mu.Unlock()
	if s.x.answered || s.x.timer == nil {
		return
	}
	if s.x.timer.Stop(); on {
		s.x.timer.Reset(s.x.idle)
	}
	if err != nil && err != io.EOF {
		s.x.source = err
	}
}

// answer is the content of an answer.
type answer struct {
	io.ReadCloser
	x *exchange
}

func (a *answer) Read(p []byte) (int, error) {
	a.x.timer.Reset(a.x.idle)
	n, err := a.ReadCloser.Read(p)
	a.x.timer.Stop()
	if err != nil && err != io.EOF {
		err = networkError(a.x.ctx, err)
	}
	return n, err
}

func (a *answer) Close() error {
	a.x.timer.Stop()
	err := a.ReadCloser.Close()
	a.x.cancel(nil)
	return err
}

// pace is what a registry has said of how much more it answers.
type pace struct {
	mu   sync.Mutex
	each time.Duration // between requests; 0 is no limit near
	next time.Time
}

// heed reads the RateLimit headers (draft-ietf-httpapi-ratelimit-headers, as Docker Hub
// sends them: "76;w=21600"). When less than a tenth is left, requests go no faster than
// what was used comes back, but one in half a minute at least: then the registry may say
// 429 itself.
func (r *Registry) heed(kind string, h http.Header) {
	limit, window := rateLimit(h.Get("RateLimit-Limit"))
	left, w := rateLimit(h.Get("RateLimit-Remaining"))
	if left < 0 || limit <= 0 {
		return
	}
	if window = max(window, w); window == 0 {
		reset, _ := rateLimit(h.Get("RateLimit-Reset"))
		if window = max(0, reset); window > 1e9 { // some send an instant
			window = max(0, window-r.now().Unix())
		}
	}
	v, _ := r.paces.LoadOrStore(kind, &pace{})
	p := v.(*pace)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.each = 0
	if left < (limit+9)/10 {
		p.each = min(time.Duration(min(window, maxAfter)*int64(time.Second)/limit), 30*time.Second)
	}
}

// rateLimit reads a number, and the window in seconds that may stand behind it.
func rateLimit(s string) (n, window int64) {
	value, parameters, _ := strings.Cut(s, ";")
	n, err := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
	if err != nil {
		return -1, 0
	}
	for p := range strings.SplitSeq(parameters, ";") {
		if w, ok := strings.CutPrefix(strings.TrimSpace(p), "w="); ok {
			window, _ = strconv.ParseInt(w, 10, 64)
		}
	}
	return n, max(0, window)
}

// wait waits for the turn of a request.
func (r *Registry) wait(ctx context.Context, kind string) error {
	v, ok := r.paces.Load(kind)
	if !ok {
		return ctx.Err()
	}
	p := v.(*pace)
	p.mu.Lock()
	if p.each == 0 {
		p.mu.Unlock()
		return ctx.Err()
	}
	now := r.now()
	turn, each := p.next, p.each
	if turn.Before(now) {
		turn = now
	}
	p.next = turn.Add(each)
	p.mu.Unlock()
	timer := time.NewTimer(turn.Sub(now))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		p.mu.Lock()
		defer p.mu.Unlock()
		p.next = p.next.Add(-each) // else those who gave up would keep all others waiting, and these give up too
		return ctx.Err()
	}
}

// networkError tells what has failed between here and the registry. What was cut off may
// be whole the next time.
func networkError(ctx context.Context, err error) error {
	switch {
	case context.Cause(ctx) == errStalled:
		err = errStalled
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, io.ErrUnexpectedEOF):
		err = fmt.Errorf("%w: it ends early: %w", replication.ErrContent, err)
	case isPermanent(err):
		return fmt.Errorf("%w: %w", replication.ErrUnavailable, err)
	}
	return &replication.TemporaryError{Err: fmt.Errorf("%w: %w", replication.ErrUnavailable, err)}
}
