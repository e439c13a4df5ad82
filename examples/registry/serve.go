package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wharfage/wharfage"
	"github.com/wharfage/wharfage/manifest"
)

// serve answers requests until ctx ends, says so for a while, and then finishes
// those under way.
func serve(ctx context.Context, args []string) error {
	f, where := flags("serve")
	addr := f.String("addr", "127.0.0.1:5000", "`address` to listen on")
	admin := f.String("admin", "", "`address` for /healthz, /readyz and /metrics (default: with the rest), and for registry jobs -server: who reaches it may stop and discard copies")
	noDelete := f.Bool("no-delete", false, "refuse deletions")
	ui := f.Bool("ui", true, "serve a page for people at /ui/")
	delay := f.Duration("drain-delay", 5*time.Second, "when stopping, how long /readyz says so while all is still served, for load balancers to send nothing more")
	drain := f.Duration("drain", 30*time.Second, "after -drain-delay, how long to wait for requests under way")
	verbose := f.Bool("v", false, "log each change")
	jobs := jobFlags(f)
	file := configFlag(f)
	err := parse(f, args)
	if err == nil {
		err = jobs.rules.check()
	}
	var c *config
	if err == nil {
		c, err = readConfig(*file)
	}
	switch {
	case err != nil:
		return err
	case *addr == *admin && !strings.HasSuffix(*addr, ":0"):
		return fmt.Errorf("-admin %s: is -addr too; leave it out to serve all on one address", *admin)
	case jobs.every < 0:
		return fmt.Errorf("-collect-every %v: want a time that is not negative", jobs.every)
	case *drain < 0 || *delay < 0:
		return fmt.Errorf("-drain %v, -drain-delay %v: want times that are not negative", *drain, *delay)
	}
	jobs.lifecycle.managed = c.Repositories != nil && !*noDelete
	if err := jobs.lifecycle.check(*noDelete); err != nil {
		return err
	}
	if err := jobs.webhook.check(); err != nil {
		return err
	}
	if c.Registry != nil {
		jobs.webhook.origin.Account = cmp.Or(jobs.webhook.origin.Account, c.Registry.ID)
		jobs.webhook.origin.Region = cmp.Or(jobs.webhook.origin.Region, c.Registry.Region)
	}
	jobs.webhook.prepare()
	m := newMetrics()
	copies, err := newReplicator(c, where, jobs.webhook, m)
	if err != nil {
		return err
	}
	where.keepEvents = jobs.webhook.wanted()
	if copies != nil {
		where.replicator = &copies.Replicator
		where.keepEvents = where.keepEvents || where.postgres == ""
	}
	collectSeldom()
	store, err := where.open(ctx)
	if err != nil {
		return err
	}
	repos := c.registry(store)
	if err := adopt(ctx, repos, store); err != nil {
		return errors.Join(err, store.close())
	}
	if repos != nil {
		jobs.lifecycle.own = store.repositories
	}
	cached, err := newCache(c, where, store, repos, jobs.webhook, m)
	if err != nil {
		return errors.Join(err, store.close())
	}
	s := &server{
		storage: store,
		metrics: m,
		delay:   *delay,
		drain:   *drain,
		handler: &wharfage.Handler{
			Blobs: store.blobs, Manifests: store.manifests, NoDelete: *noDelete, HideArchived: true,
			Repositories: repos, Limits: c.Quotas.limits(), Cause: c.Replication.cause,
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
	jobs.scanning = newScanning(c.Scanning, s.handler, m)
	if *ui {
		s.page = &page{handler: s.handler, pulls: store.pulls, policy: jobs.lifecycle.inForce, scanning: c.Scanning, copies: copies}
		if c.Repositories != nil {
			s.page.templates = c.Repositories.templates()
		}
		if c.Cache != nil {
			s.page.cached = c.Cache.rules
		}
	}
	jobs.outbox, jobs.cache = &outbox{box: store.manifests, hook: jobs.webhook}, cached
	if copies != nil {
		copies.Source, copies.Queue = cached.source(store), store.queue
		if !store.jobsInTx {
			jobs.outbox.enqueue = copies.Enqueue
		}
	}
	lm := newLifecycleMetrics(m)
	writePulls := recordPulls(s.handler, store.pulls, lm)
	s.serves = cached.serve(s.handler)
	jobsDone := make(chan struct{})
	jobsCtx, stopJobs := context.WithCancel(context.WithoutCancel(ctx))
	go func() {
		defer close(jobsDone)
		var running sync.WaitGroup
		running.Go(func() { writePulls(jobsCtx) })
		running.Go(func() { jobs.scanning.work(jobsCtx) })
		running.Go(func() { jobs.webhook.tellOthers(jobsCtx) })
		running.Go(func() { copies.work(jobsCtx, store) })
		running.Go(func() { copies.count(jobsCtx) })
		jobs.run(jobsCtx, s.handler, store, m, lm)
		running.Wait()
	}()
	err = s.listen(ctx, *addr, *admin)
	cached.close()
	stopJobs()
	<-jobsDone
	return errors.Join(err, store.close())
}

type server struct {
	*storage
	*metrics
	handler  *wharfage.Handler
	serves   http.Handler  // handler, and what a cache adds to it
	page     *page         // nil: none
	delay    time.Duration // between the end of ctx and that of listening
	drain    time.Duration
	stopping atomic.Bool
}

// listener is an address that is served, and what the log says of it.
type listener struct {
	says, flag, addr string
	server           *http.Server
}

func (s *server) listen(ctx context.Context, addr, admin string) error {
	mux := http.NewServeMux()
	mux.Handle("/v2/", s.count(s.serves))
	mux.Handle("/v2", s.count(s.serves))
	if s.page != nil {
		mux.Handle("/ui/", s.page)
		mux.Handle("GET /{$}", http.RedirectHandler("/ui/", http.StatusFound))
	}
	listeners := []listener{{"registry listens", "-addr", addr, newServer(idle(mux, time.Minute))}}
	about := mux
	if admin != "" {
		about = http.NewServeMux()
		if s.queue != nil {
			about.Handle("/jobs/", jobsHandler(s.queue))
		}
		listeners = append(listeners, listener{"health and metrics listen", "-admin", admin, newServer(about)})
	}
	about.Handle("GET /metrics", s.metrics.handler())
	about.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("ok\n")) })
	about.HandleFunc("GET /readyz", s.readyz)

	var waiting sync.WaitGroup
	ended := make(chan error, len(listeners))
	closing, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	for _, listener := range listeners {
		server := listener.server
		l, err := net.Listen("tcp", listener.addr)
		if err != nil {
			stop()
			waiting.Wait()
			return fmt.Errorf("%s %s: want HOST:PORT, as in 127.0.0.1:5000, that is free: %w", listener.flag, listener.addr, err)
		}
		slog.Info(listener.says, "addr", l.Addr().String())
		waiting.Go(func() {
			<-closing.Done()
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
	waiting.Go(func() {
		select {
		case <-ctx.Done():
			slog.Info("registry stops", "listens for", s.delay)
			s.stopping.Store(true)
			wait(closing, s.delay)
			stop()
		case <-closing.Done(): // a listener has failed
		}
	})
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

// readyz tells a load balancer whether to send requests here. One that is full takes
// pulls: without, a full disk would end those too.
func (s *server) readyz(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 2*time.Second)
	defer cancel()
	err := s.ready(ctx)
	if s.stopping.Load() {
		err = errors.New("stopping")
	}
	if wharfage.IsFull(err) {
		slog.Warn("ready for pulls only", "err", err)
		w.Write([]byte("ready for pulls only: no room\n"))
		return
	}
	if err != nil {
		slog.Warn("not ready", "err", err)
		http.Error(w, "not ready", http.StatusServiceUnavailable)
		return
	}
	w.Write([]byte("ready\n"))
}
