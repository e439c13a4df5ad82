package main

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/blob/dirblob"
)

// full is a disk that may be full.
type full struct {
	blob.Objects
	full  bool
	calls int
}

var errFull = errors.New("no space left")

func (o *full) Put(ctx context.Context, key string, r io.Reader) (int64, error) {
	if o.calls++; o.full {
		return 0, errFull
	}
	return o.Objects.Put(ctx, key, r)
}

func TestNotReadyWhileNothingCanBeStored(t *testing.T) {
	o := &full{Objects: &dirblob.Objects{Dir: t.TempDir(), Unsynced: true}}
	now := time.Unix(1e9, 0)
	w := newWritable(o)
	s := &server{storage: &storage{ready: func(ctx context.Context) error { return w.check(ctx, now) }}}
	for _, c := range []struct {
		what   string
		after  time.Duration
		full   bool
		status int
		calls  int
	}{
		{"at first", 0, false, http.StatusOK, 1},
		{"soon", goodFor - 1, true, http.StatusOK, 1},
		{"full", 1, true, http.StatusServiceUnavailable, 2},
		{"soon after that", badFor - 1, false, http.StatusServiceUnavailable, 2},
		{"with room again", 1, false, http.StatusOK, 3},
	} {
		now, o.full = now.Add(c.after), c.full
		answer := httptest.NewRecorder()
		s.readyz(answer, httptest.NewRequest("GET", "/readyz", nil))
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
