package main

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestAServerThatIsRestartedEachDayCollects, also where it is to do so once a day.
func TestAServerThatIsRestartedEachDayCollects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		s, m := place{}.openMemory(), newMetrics()
		j := &jobs{every: 24 * time.Hour, rules: collectRules{share: 0.5}, lifecycle: new(lifecycleJob), webhook: new(webhookJob)}
		done := make(chan struct{})
		go func() { defer close(done); j.run(ctx, s.handler(), s, m, newLifecycleMetrics(m)) }()
		for _, c := range []struct {
			later time.Duration
			want  string
		}{{11 * time.Minute, "1"}, {23 * time.Hour, "1"}, {time.Hour, "2"}} {
			time.Sleep(c.later)
			if want := `registry_job_runs_total{job="collect",result="ok"} ` + c.want; !strings.Contains(text(m), want) {
				t.Errorf("%v later the metrics are without %s", c.later, want)
			}
		}
		stop()
		<-done
	})
}

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
