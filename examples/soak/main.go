// Command soak keeps a registry busy for a long time, and knows at every moment
// what it must answer.
//
//	go run ./examples/soak -for 20m
//
// It builds examples/registry and starts it on a new folder, with a collection
// every few seconds. Workers push images, indexes and referrers, pull, move and
// delete tags, delete manifests, mount blobs, upload in chunks, break off and
// abandon uploads, at a bounded rate. Each has repositories of its own, of which
// it keeps a model, while many layers are shared by all; so each answer is
// checked, although workers and the collector meet in what is stored. What
// they do follows from -seed.
//
// An answer that the model does not allow ends the run. In the end, when all
// that is garbage must have been collected, everything is pulled once more, and
// what is stored is compared with what is alive. Memory of the server is
// watched all the time. Arguments after -- are handed to the registry. With
// -addr another registry is used, and only its answers are checked.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"text/tabwriter"
	"time"
)

// options are the flags.
type options struct {
	duration time.Duration
	addr     string
	workers  int
	rate     float64
	images   int
	seed     uint64
	every    time.Duration
	lease    time.Duration
	args     []string // of the registry
}

// What a run must not exceed.
const (
	maxSlope  = 1.0  // MB that memory grows in 10 minutes
	maxSpread = 0.05 // of the bytes alive that more or less are stored
	// judged is how long memory must have been watched for its slope to mean
	// something.
	judged = 10 * time.Minute
)

func main() {
	var o options
	flag.DurationVar(&o.duration, "for", 20*time.Minute, "how long")
	flag.StringVar(&o.addr, "addr", "", "`address` of a registry to use (default: start one)")
	flag.IntVar(&o.workers, "workers", 8, "clients at once")
	flag.Float64Var(&o.rate, "rate", 30, "operations a second, of all workers; one is several requests")
	flag.IntVar(&o.images, "images", 400, "manifests to keep alive, about")
	flag.Uint64Var(&o.seed, "seed", uint64(time.Now().Unix()), "of all that is random")
	flag.DurationVar(&o.every, "collect-every", 5*time.Second, "of the registry")
	flag.DurationVar(&o.lease, "lease", 20*time.Second, "of the registry")
	flag.Parse()
	o.args = flag.Args()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := soak(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

func soak(ctx context.Context, o options) (err error) {
	fmt.Printf("soak for %v, -seed %d\n\n", o.duration, o.seed)
	var r *registry
	if o.addr == "" {
		if r, err = start(ctx, o); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, r.stop(err == nil)) }()
		o.addr = r.addr
	}
	all, l := newModel(), newLayers(o.seed)
	ws := make([]*worker, o.workers)
	for i := range ws {
		ws[i] = newWorker(i, o, all, l)
	}
	memory := watch{registry: r}
	if err := run(ctx, o, ws, all, &memory); err != nil {
		return err
	}
	if r != nil {
		wait := o.lease + 3*o.every
		fmt.Printf("\nthe load has ended; %v until all garbage must be gone\n", wait)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
	fmt.Println("pulling all that is alive once more")
	if err := together(ctx, ws, (*worker).verify); err != nil {
		return err
	}
	return judge(o, r, all, &memory)
}

// together calls f for all workers at once and returns the first error, which
// ends the others.
func together(ctx context.Context, ws []*worker, f func(w *worker, ctx context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var all sync.WaitGroup
	for _, w := range ws {
		all.Go(func() {
			if err := f(w, ctx); err != nil {
				cancel(fmt.Errorf("worker %d, operation %d, %s: %w", w.id, w.ops.Load(), w.doing, err))
			}
		})
	}
	all.Wait()
	return context.Cause(ctx)
}

// run loads the registry for the time it is to be, and prints a line a minute.
func run(ctx context.Context, o options, ws []*worker, all *model, memory *watch) error {
	began := time.Now()
	reports, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(reports)
		t := tabwriter.NewWriter(os.Stdout, 9, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Fprintln(t, "after\toperations\ta second\trequests\tmanifests\tMB alive\tMB stored\tMB memory\tMB of it anonymous\tgoroutines\t")
		t.Flush()
		line := func() {
			var ops, requests int64
			for _, w := range ws {
				ops, requests = ops+w.ops.Load(), requests+w.requests.Load()
			}
			manifests, alive := all.alive()
			after := time.Since(began)
			fmt.Fprintf(t, "%v\t%d\t%.1f\t%d\t%d\t%.1f\t%.1f\t%.1f\t%.1f\t%d\t\n", after.Round(time.Second), ops, float64(ops)/after.Seconds(), requests,
				manifests, mb(alive), mb(memory.stored()), mb(memory.status("VmRSS")), mb(memory.status("RssAnon")), memory.goroutines())
			t.Flush()
		}
		every := min(time.Minute, max(o.duration/6, time.Second))
		seconds := time.NewTicker(time.Second)
		defer seconds.Stop()
		for next := began.Add(every); ; {
			select {
			case <-done:
				line()
				return
			case now := <-seconds.C:
				memory.sample(now.Sub(began))
				if now.After(next) {
					line()
					next = next.Add(every)
				}
			}
		}
	}()
	end := began.Add(o.duration)
	err := together(ctx, ws, func(w *worker, ctx context.Context) error { return w.work(ctx, began, end) })
	close(done)
	<-reports
	return err
}

func mb(bytes int64) float64 { return float64(bytes) / 1e6 }

// judge says what was found, and is an error if that is not as it must be.
func judge(o options, r *registry, all *model, memory *watch) error {
	var failures []error
	fmt.Println("\nanswers that the model does not allow: 0")
	if r == nil {
		return nil
	}
	_, alive := all.alive()
	stored := memory.stored()
	spread := float64(stored-alive) / float64(max(alive, 1))
	fmt.Printf("stored: %.2f MB, alive: %.2f MB, difference %+.2f %% (at most %.0f %%)\n", mb(stored), mb(alive), 100*spread, 100*maxSpread)
	if spread > maxSpread || spread < -maxSpread {
		failures = append(failures, fmt.Errorf("%d bytes are stored, %d alive", stored, alive))
	}
	warm := min(o.duration/4, 10*time.Minute)
	slope, samples := memory.slope(warm, func(s sample) int64 { return s.rss })
	anon, _ := memory.slope(warm, func(s sample) int64 { return s.anon })
	verdict := fmt.Sprintf("at most %.0f", maxSlope)
	if o.duration-warm < judged {
		verdict = "not judged: too short"
	} else if slope > maxSlope {
		failures = append(failures, fmt.Errorf("memory grows by %.2f MB in 10 minutes", slope))
	}
	fmt.Printf("memory: %+.2f MB in 10 minutes, by %d samples after %v (%s); of that anonymous, the rest being files in memory: %+.2f MB\n",
		slope, samples, warm, verdict, anon)
	failed := r.failures()
	fmt.Printf("errors that the registry logged: %d\n", len(failed))
	for _, line := range failed {
		failures = append(failures, errors.New(line))
	}
	return errors.Join(failures...)
}
