package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wharfage/wharfage"
	"github.com/wharfage/wharfage/manifest"
)

// serve answers requests until ctx ends, and then finishes those under way.
func serve(ctx context.Context, args []string) error {
	f, where := flags("serve")
	addr := f.String("addr", "127.0.0.1:5000", "`address` to listen on")
	admin := f.String("admin", "", "`address` for /healthz, /readyz and /metrics (default: with the rest)")
	noDelete := f.Bool("no-delete", false, "refuse deletions")
	drain := f.Duration("drain", 30*time.Second, "when stopping, wait so long for requests under way")
	verbose := f.Bool("v", false, "log each change")
	jobs := jobFlags(f)
	if err := parse(f, args); err != nil {
		return err
	}
	if err := jobs.lifecycle.check(*noDelete); err != nil {
		return err
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400) // of a heap of a few MiB, which collections would be over all the time
	}
	store, err := where.open(ctx)
	if err != nil {
		return err
	}
	m := newMetrics()
	s := &server{
		storage: store,
		metrics: m,
		drain:   *drain,
		handler: &wharfage.Handler{
			Blobs: store.blobs, Manifests: store.manifests, NoDelete: *noDelete,
			OnError: func(r *http.Request, err error) {
				if r.Context().Err() == nil { // else the client has gone
					m.failures.Inc()
					slog.Error("request failed", "method", r.Method, "path", r.URL.Path, "err", err)
				}
			},
		},
	}
	if *verbose {
		s.handler.OnCommit = func(_ context.Context, e manifest.Event) {
			slog.Info("changed", "repo", e.Repo, "put", len(e.Change.Put), "tags", len(e.Change.Tags), "deleted", len(e.Change.Delete))
		}
	}
	lm := newLifecycleMetrics(m)
	writePulls := recordPulls(s.handler, store.pulls, lm)
	jobsDone := make(chan struct{})
	jobsCtx, stopJobs := context.WithCancel(context.WithoutCancel(ctx))
	go func() {
		defer close(jobsDone)
		var running sync.WaitGroup
		running.Go(func() { writePulls(jobsCtx) })
		jobs.run(jobsCtx, s.handler, store, m, lm, where.lease)
		running.Wait()
	}()
	err = s.listen(ctx, *addr, *admin)
	stopJobs()
	<-jobsDone
	return errors.Join(err, store.close())
}

type server struct {
	*storage
	*metrics
	handler  *wharfage.Handler
	drain    time.Duration
	stopping atomic.Bool
}

func (s *server) listen(ctx context.Context, addr, admin string) error {
	mux := http.NewServeMux()
	mux.Handle("/v2/", s.count(s.handler))
	mux.Handle("/v2", s.count(s.handler))
	listeners := map[string]*http.Server{addr: newServer(idle(mux, time.Minute))}
	about := mux
	if admin != "" {
		about = http.NewServeMux()
		listeners[admin] = newServer(about)
	}
	about.Handle("GET /metrics", s.metrics.handler())
	about.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("ok\n")) })
	about.HandleFunc("GET /readyz", s.readyz)

	var waiting sync.WaitGroup
	ended := make(chan error, len(listeners))
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	for addr, server := range listeners {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			stop()
			waiting.Wait()
			return err
		}
		what := "registry listens"
		if addr == admin {
			what = "health and metrics listen"
		}
		slog.Info(what, "addr", l.Addr().String())
		waiting.Go(func() {
			<-ctx.Done()
			s.stopping.Store(true)
			patience, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.drain)
			defer cancel()
			if err := server.Shutdown(patience); err != nil {
				slog.Error("requests were cut off", "after", s.drain)
				server.Close()
			}
		})
		go func() {
			err := server.Serve(l)
			stop()
			ended <- err
		}()
	}
	var failed error
	for range listeners {
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
			failed = errors.Join(failed, err)
		}
	}
	waiting.Wait()
	slog.Info("registry stopped")
	return failed
}

func newServer(h http.Handler) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
	}
}

// readyz tells a load balancer whether to send requests here.
func (s *server) readyz(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 2*time.Second)
	defer cancel()
	err := s.ready(ctx)
	if s.stopping.Load() {
		err = errors.New("stopping")
	}
	if err != nil {
		slog.Warn("not ready", "err", err)
		http.Error(w, "not ready", http.StatusServiceUnavailable)
		return
	}
	w.Write([]byte("ready\n"))
}
