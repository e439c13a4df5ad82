package mempulls_test

import (
	"testing"
	"time"

	"github.com/wharfage/wharfage/lifecycle"
	"github.com/wharfage/wharfage/lifecycle/lifecycletest"
	"github.com/wharfage/wharfage/lifecycle/mempulls"
)

func TestStore(t *testing.T) {
	lifecycletest.TestActivity(t, func(testing.TB) lifecycle.Activity { return new(mempulls.Store) })
}

func TestSinceIsTheFirstUse(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	first := now
	s := &mempulls.Store{Now: func() time.Time { return now }}
	if err := s.Touch(t.Context(), "a", nil); err != nil {
		t.Fatal(err)
	}
	now = now.Add(time.Hour)
	if got, err := s.Since(t.Context(), "b"); err != nil || !got.Equal(first) {
		t.Errorf("Since = %v, %v, want %v", got, err, first)
	}
}
