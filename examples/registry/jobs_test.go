package main

import (
	"context"
	"testing"
)

// TestNobodyLeadsForNothing: a cache without a bound has nothing to do by itself.
func TestNobodyLeadsForNothing(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	led := 0
	store := &storage{lead: func(ctx context.Context, f func(context.Context) error) error {
		if led++; led > 1 {
			cancel()
		}
		return f(ctx)
	}}
	m := newMetrics()
	j := &jobs{lifecycle: new(lifecycleJob), webhook: new(webhookJob), cache: &cache{config: new(cacheConfig)}}
	j.run(ctx, nil, store, m, newLifecycleMetrics(m))
	if led > 0 {
		t.Errorf("it has led %d times", led)
	}
}
