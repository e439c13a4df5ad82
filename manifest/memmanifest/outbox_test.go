package memmanifest_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/manifest/manifesttest"
	"github.com/wharfage/wharfage/manifest/memmanifest"
)

func TestOutbox(t *testing.T) {
	manifesttest.TestOutbox(t, manifesttest.OutboxOptions{
		New: func(testing.TB) manifesttest.EventStore { return &memmanifest.Store{KeepEvents: true} },
	})
}

func TestNoEventsAreKeptUnlessAskedFor(t *testing.T) {
	s := new(memmanifest.Store)
	if err := s.Apply(t.Context(), "r", manifest.Change{Put: []manifest.Record{record("1")}}); err != nil {
		t.Fatal(err)
	}
	for e, err := range s.Events(t.Context(), "") {
		t.Errorf("Events lists %v, %v", e, err)
	}
	if err := s.Forget(t.Context(), ""); err != nil {
		t.Error(err)
	}
}

// silent is an outbox whose database answers no longer.
type silent struct{ *memmanifest.Store }

func (silent) Forget(ctx context.Context, _ string) error {
	<-ctx.Done()
	return ctx.Err()
}

// TestDrainStopsBesideASilentOutbox: whoever stops does not wait for ever to
// say what was delivered, which is then delivered again.
func TestDrainStopsBesideASilentOutbox(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &memmanifest.Store{KeepEvents: true}
		if err := s.Apply(t.Context(), "r", manifest.Change{Put: []manifest.Record{record("1")}}); err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		began := time.Now()
		err := manifest.Drain(ctx, silent{s}, func(context.Context, manifest.Committed) error {
			stop()
			return nil
		})
		if took := time.Since(began); err == nil || took > time.Minute {
			t.Errorf("ended after %v with %v", took, err)
		}
	})
}

// A position that the store has not given is no reason to say that nothing
// happened.
func TestForeignPositionsAreErrors(t *testing.T) {
	s := &memmanifest.Store{KeepEvents: true}
	if err := s.Apply(t.Context(), "r", manifest.Change{}); err != nil {
		t.Fatal(err)
	}
	for _, position := range []string{"x", "0", "-1", "2"} {
		var got error
		for _, err := range s.Events(t.Context(), position) {
			got = err
		}
		if got == nil || s.Forget(t.Context(), position) == nil {
			t.Errorf("the position %q is taken", position)
		}
	}
}
