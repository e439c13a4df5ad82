package main

import (
	"os"
	"runtime"
	"runtime/debug"
	measure "runtime/metrics"
)

// collectSeldom lets up to 64 MiB of garbage gather, but no more than four times what
// lives: a heap of a few MiB would be collected all the time. One of more than 64 MiB
// doubles, as by default. GOGC in the environment goes before.
func collectSeldom() {
	if os.Getenv("GOGC") != "" {
		return
	}
	live := []measure.Sample{{Name: "/gc/heap/live:bytes"}}
	type sentinel [4]uint64 // each collection finds that nothing refers to it
	var tune func(*sentinel)
	tune = func(s *sentinel) {
		measure.Read(live)
		const garbage = 100 * 64 << 20
		debug.SetGCPercent(int(min(400, max(100, garbage/max(live[0].Value.Uint64(), 1)))))
		runtime.SetFinalizer(s, tune)
	}
	tune(new(sentinel))
}
