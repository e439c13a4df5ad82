// Command registry serves an OCI registry.
//
//	go run ./examples/registry -addr 127.0.0.1:5000 -data DIR
//
// Blobs are kept in DIR, durably. Manifests and tags are kept in memory and end
// with the process.
package main

import (
	"context"
	"errors"
	"flag"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/wharfage/wharfage"
	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/blob/dirblob"
	"github.com/wharfage/wharfage/blob/memblob"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/manifest/memmanifest"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:5000", "address to listen on")
	data := flag.String("data", "", "folder for blobs (default: memory)")
	unsynced := flag.Bool("unsynced", false, "do not wait for the disk: a power failure may lose what was pushed")
	noDelete := flag.Bool("no-delete", false, "refuse deletions")
	flag.Parse()
	if flag.NArg() > 0 {
		slog.Error("unexpected arguments", "args", flag.Args())
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	h, blobs, err := open(*data, *unsynced)
	if err == nil {
		h.NoDelete = *noDelete
		go sweep(ctx, blobs)
		err = serve(ctx, *addr, h)
	}
	if err != nil {
		slog.Error("registry failed", "err", err)
		os.Exit(1)
	}
}

// sweeper is a blob store that ends uploads which nobody continues.
type sweeper interface {
	blob.Store
	Sweep(ctx context.Context, cutoff time.Time) (int, error)
}

// open wires stores into a handler.
func open(data string, unsynced bool) (*wharfage.Handler, sweeper, error) {
	var blobs sweeper
	manifests := new(memmanifest.Store)
	if data == "" {
		blobs = &memblob.Store{Guard: wharfage.GuardBlobs(manifests)}
	} else {
		if err := os.MkdirAll(data, 0o755); err != nil {
			return nil, nil, err
		}
		blobs = &dirblob.Store{Dir: filepath.Join(data, "blobs"), Unsynced: unsynced, Guard: wharfage.GuardBlobs(manifests)}
		slog.Warn("manifests and tags are kept in memory and end with this process", "data", data)
	}
	manifests.MissingBlobs = blob.Missing(blobs)
	h := &wharfage.Handler{Blobs: blobs, Manifests: manifests}
	h.OnError = func(r *http.Request, err error) {
		slog.Error("request failed", "method", r.Method, "path", r.URL.Path, "err", err)
	}
	h.OnCommit = func(_ context.Context, e manifest.Event) {
		slog.Info("changed", "repo", e.Repo, "put", len(e.Change.Put), "tags", len(e.Change.Tags), "deleted", len(e.Change.Delete))
	}
	return h, blobs, nil
}

// sweep ends uploads that have stood still for a day, every hour.
func sweep(ctx context.Context, blobs sweeper) {
	every := time.NewTicker(time.Hour)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-every.C:
			n, err := blobs.Sweep(ctx, now.Add(-24*time.Hour))
			slog.Info("swept uploads", "ended", n, "err", err)
		}
	}
}

// serve answers requests until ctx ends, and then finishes those under way.
func serve(ctx context.Context, addr string, h http.Handler) error {
	mux := http.NewServeMux()
	mux.Handle("/v2/", h)
	mux.Handle("/v2", h)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("ok\n")) })
	server := &http.Server{
		Handler:           idle(mux, time.Minute),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	slog.Info("registry listens", "addr", l.Addr().String())
	done := make(chan error, 1)
	go func() {
		<-ctx.Done()
		slog.Info("registry stops")
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		done <- server.Shutdown(ctx)
	}()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return <-done
}
