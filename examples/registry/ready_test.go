package main

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/blob/dirblob"
)

// badDisk is a disk that may take nothing.
type badDisk struct {
	blob.Objects
	err   error
	calls int
	first func() // before a Put; nil is nothing
}

func (o *badDisk) Put(ctx context.Context, key string, r io.Reader) (int64, error) {
	if o.calls++; o.err != nil {
		return 0, o.err
	}
	if o.first != nil {
		o.first()
	}
	return o.Objects.Put(ctx, key, r)
}

// TestNotReadyWhileNothingCanBeStored, unless there is only no room: pulls go on then.
func TestNotReadyWhileNothingCanBeStored(t *testing.T) {
	bad, full := errors.New("broken"), &fs.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}
	o := &badDisk{Objects: &dirblob.Objects{Dir: t.TempDir(), Unsynced: true}}
	now := time.Unix(1e9, 0)
	w := newWritable(o)
	s := &server{storage: &storage{ready: func(ctx context.Context) error { return w.check(ctx, now) }}}
	for _, c := range []struct {
		what   string
		after  time.Duration
		err    error
		status int
		calls  int
	}{
		{"at first", 0, nil, http.StatusOK, 1},
		{"soon", goodFor - 1, bad, http.StatusOK, 1},
		{"broken", 1, bad, http.StatusServiceUnavailable, 2},
		{"soon after that", badFor - 1, nil, http.StatusServiceUnavailable, 2},
		{"mended", 1, nil, http.StatusOK, 3},
		{"full", goodFor, full, http.StatusOK, 4},
		{"broken again", badFor, bad, http.StatusServiceUnavailable, 5},
	} {
		now, o.err = now.Add(c.after), c.err
		answer := httptest.NewRecorder()
		s.readyz(answer, httptest.NewRequest("GET", "/readyz", nil))
		if told := strings.Contains(answer.Body.String(), "pulls only"); told != (c.err == error(full)) {
			t.Errorf("%s: the answer is %q", c.what, answer.Body)
		}
		if answer.Code != c.status || o.calls != c.calls {
			t.Errorf("%s: status %d after %d looks, want %d after %d", c.what, answer.Code, o.calls, c.status, c.calls)
		}
	}
	for object, err := range o.List(t.Context(), "", "") {
		t.Errorf("%v is left, %v", object, err)
	}
	w.turn <- struct{}{} // somebody looks, and gets no answer
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.check(ctx, now); !errors.Is(err, context.Canceled) {
		t.Errorf("check with an ended ctx = %v", err)
	}
}

// TestWhoAsksAndLeavesSpoilsNothing for those who ask after: else anybody could keep
// load balancers away.
func TestWhoAsksAndLeavesSpoilsNothing(t *testing.T) {
	ctx, leave := context.WithCancel(t.Context())
	o := &badDisk{Objects: &dirblob.Objects{Dir: t.TempDir(), Unsynced: true}, first: leave}
	w := newWritable(o)
	w.check(ctx, time.Unix(1e9, 0))
	if err := w.check(t.Context(), time.Unix(1e9, 0)); err != nil {
		t.Error(err)
	}
}
