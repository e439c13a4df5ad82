package riverqueue_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/blob/dirblob"
	"github.com/wharfage/wharfage/examples/store/pgstore"
	"github.com/wharfage/wharfage/examples/store/pgstore/pgtest"
	"github.com/wharfage/wharfage/examples/store/riverqueue"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/replication"
)

// TestMain runs the tests, or is a worker that one of them has started.
func TestMain(m *testing.M) {
	flag.Parse()
	if arg := os.Getenv("RIVER_WORKER"); arg != "" {
		fmt.Fprintln(os.Stderr, work(arg))
		os.Exit(1)
	}
	os.Exit(pgtest.Main(m))
}

var (
	here  = replication.Registry{ID: "111122223333", Region: "eu-west-1"}
	there = replication.Registry{ID: "111122223333", Region: "eu-west-2"}
)

// pair is a registry and the one that it replicates to, in two schemas of a database.
type pair struct {
	source, target *pgstore.DB
	pool           *pgxpool.Pool
	queue          *riverqueue.Queue
	r              *replication.Replicator
}

// fails, if not nil, is what the destination says.
func openPair(ctx context.Context, source, target, dir string, fails func() error) (p *pair, err error) {
	p = new(pair)
	if p.pool, err = pgxpool.New(ctx, source); err != nil {
		return nil, err
	}
	p.r = &replication.Replicator{
		Self: here, Backoff: time.Millisecond,
		Configuration: func(context.Context) (replication.Configuration, error) {
			return replication.Configuration{Rules: []replication.Rule{{Destinations: []replication.Registry{there}}}}, nil
		},
		Destinations: func(context.Context, replication.Registry) (replication.Destination, error) {
			if fails != nil {
				if err := fails(); err != nil {
					return replication.Destination{}, err
				}
			}
			return replication.Destination{Target: replication.LocalTarget(p.target.Blobs(), p.target.Manifests())}, nil
		},
	}
	if p.queue, err = riverqueue.New(riverqueue.Options{
		Pool: p.pool, Replicator: p.r, Timeout: 2 * time.Second, Rescue: 3 * time.Second, Look: 50 * time.Millisecond,
	}); err != nil {
		return nil, err
	}
	p.r.Queue = p.queue
	p.source, err = pgstore.Open(ctx, pgstore.Options{DSN: source, Objects: &dirblob.Objects{Dir: filepath.Join(dir, "source"), Unsynced: true}, InTx: p.queue.InTx})
	if err != nil {
		return nil, err
	}
	p.target, err = pgstore.Open(ctx, pgstore.Options{DSN: target, Objects: &dirblob.Objects{Dir: filepath.Join(dir, "target"), Unsynced: true}, KeepEvents: true})
	if err != nil {
		return nil, err
	}
	p.r.Source = replication.LocalSource(p.source.Blobs(), p.source.Manifests())
	return p, nil
}

func newPair(t testing.TB, dir string, fails func() error) (p *pair, source, target string) {
	source, target = pgtest.Start(t), pgtest.Start(t)
	pool, err := pgxpool.New(t.Context(), source)
	if err == nil {
		err = riverqueue.Migrate(t.Context(), pool)
	}
	if err != nil {
		t.Fatal(err)
	}
	pool.Close()
	if p, err = openPair(t.Context(), source, target, dir, fails); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.source.Close()
		p.target.Close()
		p.pool.Close()
	})
	return p, source, target
}

// work does jobs until it is killed.
func work(arg string) error {
	at := strings.Split(arg, " ")
	p, err := openPair(context.Background(), at[0], at[1], at[2], nil)
	if err != nil {
		return err
	}
	go func() { // the worker ends with who has started it
		os.Stdin.Read(make([]byte, 1))
		os.Exit(0)
	}()
	return p.queue.Serve(context.Background())
}

// push pushes an image of its own content to the source.
func (p *pair) push(ctx context.Context, repo, text string) (digest.Digest, error) {
	layer := []byte("layer of " + text)
	for _, content := range [][]byte{layer, []byte("{}")} {
		d := ocispec.Descriptor{Digest: digest.FromBytes(content), Size: int64(len(content))}
		if err := blob.Put(ctx, p.source.Blobs(), repo, d, bytes.NewReader(content)); err != nil {
			return "", err
		}
	}
	raw, _, err := manifest.ImageDraft{ArtifactType: "application/vnd.example.test.v1", Layers: []ocispec.Descriptor{
		{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromBytes(layer), Size: int64(len(layer))},
	}}.Build()
	if err != nil {
		return "", err
	}
	done, err := (&manifest.Pusher{Store: p.source.Manifests()}).Push(ctx, repo, manifest.PushRequest{Raw: raw, Tags: []string{text}})
	return done.Record.Desc.Digest, err
}

// serve does jobs while the test runs.
func (p *pair) serve(t testing.TB) {
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.queue.Serve(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

// entries counts jobs by their state.
func (p *pair) entries(t testing.TB, f replication.EntryFilter) (all []replication.Entry, by map[replication.State]int) {
	by = map[replication.State]int{}
	for e, err := range p.queue.Entries(t.Context(), f, 0) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, e)
		by[e.State]++
	}
	return all, by
}

// until waits for the jobs to be as is says.
func (p *pair) until(t testing.TB, patience time.Duration, is func(map[replication.State]int) bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for began := time.Now(); ; <-tick.C {
		var by map[replication.State]int
		all, by := p.entries(t, replication.EntryFilter{})
		if is(by) {
			return
		}
		if time.Since(began) > patience {
			t.Fatalf("%v after %v: %+v", by, patience, all[:min(len(all), 3)])
		}
	}
}
