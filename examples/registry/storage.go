package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/wharfage/wharfage"
	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/blob/dirblob"
	"github.com/wharfage/wharfage/blob/memblob"
	"github.com/wharfage/wharfage/examples/store/boltstore"
	"github.com/wharfage/wharfage/examples/store/pgstore"
	"github.com/wharfage/wharfage/examples/store/s3bytes"
	"github.com/wharfage/wharfage/lifecycle"
	"github.com/wharfage/wharfage/lifecycle/mempulls"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/manifest/memmanifest"
	"github.com/wharfage/wharfage/replication"
	"github.com/wharfage/wharfage/replication/memqueue"
	"github.com/wharfage/wharfage/repository"
	"github.com/wharfage/wharfage/repository/memrepository"
)

// place says where things are kept. The zero place is memory.
type place struct {
	data, postgres, s3 string
	unsynced           bool
	lease              time.Duration
	redirect           int64
	cache              int

	existing, readOnly, shortenLease bool
	keepEvents                       bool

	replicator *replication.Replicator // nil: nothing is to do with jobs
}

func (p *place) flags(f *flag.FlagSet) {
	f.StringVar(&p.data, "data", "", "`folder` for everything, or, with -postgres, for blobs (default: memory)")
	f.StringVar(&p.postgres, "postgres", "", "`URL` of a PostgreSQL database for all but blobs; several servers may share it")
	f.StringVar(&p.s3, "s3", "", "keep blobs in S3: `URL` of a bucket, as in https://HOST/BUCKET/PREFIX?region=REGION; keys are read from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
	f.BoolVar(&p.unsynced, "unsynced", false, "do not wait for the disk: a power failure may lose what was pushed")
	f.DurationVar(&p.lease, "lease", 0, "how long a blob that was pushed or asked for is kept without a manifest, and an upload without a chunk (default: as it was before, and 24h at first)")
	f.BoolVar(&p.shortenLease, "shorten-lease", false, "let -lease be shorter than before: what was promised may go earlier; stop all other servers first")
	f.IntVar(&p.cache, "cache", 16<<20, "with -data, `bytes` of manifests to keep in memory")
	f.Int64Var(&p.redirect, "redirect", 0, "send clients to S3 for blobs of at least this many `bytes` (0: never)")
}

// storage is a place in use.
type storage struct {
	blobs     blob.Store
	manifests interface {
		manifest.Store
		manifest.Outbox
	}
	pulls        lifecycle.Activity
	repositories repository.Store
	lease        time.Duration

	queue replication.Queue // of jobs; on PostgreSQL nil, unless place.replicator is set
	// jobsInTx: jobs come with their change, and not out of the outbox.
	jobsInTx bool
	// work does jobs until ctx ends.
	work func(ctx context.Context, r *replication.Replicator) error

	// lead runs f while no other process leads.
	lead func(ctx context.Context, f func(ctx context.Context) error) error
	// ready tells why requests cannot be served.
	ready   func(ctx context.Context) error
	reindex func(ctx context.Context, repo string) (int, error) // nil if there is nothing to derive
	close   func() error
}

// promised is how long a blob is kept that was pushed or asked for. Other servers may have
// promised more since this one has opened the store.
func (s *storage) promised(ctx context.Context) (time.Duration, error) {
	if p, ok := s.blobs.(blob.Promiser); ok {
		return p.Promised(ctx)
	}
	return s.lease, nil
}

func (s *storage) handler() *wharfage.Handler {
	return &wharfage.Handler{Blobs: s.blobs, Manifests: s.manifests}
}

// openExisting is open for what is there already. With readOnly nothing in
// PostgreSQL can change.
func (p place) openExisting(ctx context.Context, readOnly bool) (*storage, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	if p.postgres == "" {
		if p.data == "" {
			return nil, errors.New("say where things are kept: -data, or -postgres")
		}
		if _, err := os.Stat(filepath.Join(p.data, "store.bolt")); err != nil { // or it would be made
			return nil, fmt.Errorf("no registry is kept in %s: %w", p.data, err)
		}
	}
	p.existing, p.readOnly = true, readOnly
	return p.open(ctx)
}

// open makes p ready for use. It checks the version of what is there, and does
// not scan it.
func (p place) open(ctx context.Context) (*storage, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	switch {
	case p.postgres != "":
		return p.openPostgres(ctx)
	case p.data != "":
		return p.openBolt()
	}
	return p.openMemory(), nil
}

func (p place) openMemory() *storage {
	manifests := &memmanifest.Store{KeepEvents: p.keepEvents}
	lease := p.lease
	if lease == 0 {
		lease = 24 * time.Hour
	}
	blobs := &memblob.Store{Lease: lease, Guard: wharfage.GuardBlobs(manifests)}
	manifests.MissingBlobs = blob.Missing(blobs)
	return &storage{
		blobs: blobs, manifests: manifests, pulls: new(mempulls.Store), repositories: new(memrepository.Store), lease: lease,
		queue: new(memqueue.Queue), work: runJobs,
		lead: alone, ready: func(context.Context) error { return nil }, close: func() error { return nil },
	}
}

func runJobs(ctx context.Context, r *replication.Replicator) error { return r.Run(ctx) }

// alone leads a store that one process has to itself.
func alone(ctx context.Context, f func(context.Context) error) error { return f(ctx) }

func (p place) openBolt() (*storage, error) {
	objects, err := p.bucket()
	if err != nil {
		return nil, err
	}
	cache := p.cache
	if cache == 0 {
		cache = -1 // none; zero would be the store's own choice
	}
	db, err := boltstore.Open(boltstore.Options{
		Dir: p.data, Objects: objects, Unsynced: p.unsynced, Lease: p.lease, ShortenLease: p.shortenLease, LinkAbove: p.redirect, CacheBytes: cache,
		KeepEvents: p.keepEvents,
	})
	if err != nil {
		return nil, err
	}
	w := newWritable(db.Objects)
	return &storage{
		blobs: db.Blobs(), manifests: db.Manifests(), pulls: db.Pulls(), repositories: db.Repositories(), lease: db.Lease,
		queue: db.Jobs(), work: runJobs,
		lead: alone, ready: func(ctx context.Context) error { return w.check(ctx, time.Now()) }, reindex: db.Reindex, close: db.Close,
	}, nil
}

func (p place) openPostgres(ctx context.Context) (*storage, error) {
	objects, err := p.bucket()
	if err != nil {
		return nil, err
	}
	if objects == nil {
		objects = &dirblob.Objects{Dir: filepath.Join(p.data, "postgres"), Unsynced: p.unsynced} // beside what is there without -postgres
	}
	o := pgstore.Options{DSN: p.postgres, Objects: objects, Lease: p.lease, LinkAbove: p.redirect, ShortenLease: p.shortenLease, Existing: p.existing, ReadOnly: p.readOnly,
		KeepEvents: p.keepEvents}
	var river *river
	if p.replicator != nil { // its tables come after those of the store, if that is there
		o.InTx = func(ctx context.Context, tx pgx.Tx, e manifest.Event) error { return river.InTx(ctx, tx, e) }
	}
	db, err := pgstore.Open(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("-postgres: %w", err)
	}
	if river, err = p.openRiver(ctx); err != nil {
		db.Close()
		return nil, err
	}
	w := newWritable(objects)
	ready := func(ctx context.Context) error {
		if err := db.Ping(ctx); err != nil {
			return err
		}
		return w.check(ctx, time.Now())
	}
	s := &storage{
		blobs: db.Blobs(), manifests: db.Manifests(), pulls: db.Pulls(), repositories: db.Repositories(), lease: db.Lease(),
		lead:  func(ctx context.Context, f func(context.Context) error) error { return db.Lead(ctx, "jobs", f) },
		ready: ready, reindex: db.Reindex, close: func() error { db.Close(); river.close(); return nil },
	}
	if river != nil {
		s.queue, s.jobsInTx = river.Queue, true
		s.work = func(ctx context.Context, _ *replication.Replicator) error { return river.Serve(ctx) }
	}
	return s, nil
}

var errBucket = errors.New("-s3: want https://HOST/BUCKET/PREFIX?region=REGION, perhaps with &style=host; keys are read from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, never from the URL")

// bucket is where -s3 says that blobs are, or nil. Its error shows nothing of
// the URL, which may have keys in it all the same.
func (p place) bucket() (blob.Objects, error) {
	if p.s3 == "" {
		return nil, nil
	}
	u, err := url.Parse(p.s3)
	if err != nil {
		return nil, errBucket
	}
	bucket, prefix, _ := strings.Cut(strings.Trim(u.Path, "/"), "/")
	q, err := url.ParseQuery(u.RawQuery)
	region, style := q.Get("region"), q.Get("style")
	delete(q, "region")
	delete(q, "style")
	if err != nil || len(q) > 0 || u.User != nil || u.Fragment != "" || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" ||
		bucket == "" || region == "" || style != "" && style != "host" && style != "path" {
		return nil, errBucket
	}
	client := s3bytes.NewClient(s3bytes.Config{
		Endpoint: u.Scheme + "://" + u.Host, Region: region, PathStyle: style != "host",
		AccessKey: os.Getenv("AWS_ACCESS_KEY_ID"), SecretKey: os.Getenv("AWS_SECRET_ACCESS_KEY"),
	})
	return &s3bytes.Objects{Client: client, Bucket: bucket, Prefix: prefix}, nil
}

// check refuses flags that make no sense, or none together.
func (p place) check() error {
	switch {
	case p.lease < 0:
		return fmt.Errorf("-lease %v: want a time that is not negative", p.lease)
	case p.shortenLease && p.lease == 0:
		return errors.New("-shorten-lease: say with -lease how long it is to be")
	case p.redirect < 0:
		return fmt.Errorf("-redirect %d: want a number of bytes that is not negative", p.redirect)
	case p.cache < 0:
		return fmt.Errorf("-cache %d: want a number of bytes that is not negative", p.cache)
	case p.redirect > 0 && p.s3 == "":
		return errors.New("-redirect: only blobs in S3 (-s3) can be fetched elsewhere")
	case p.s3 != "" && p.postgres == "" && p.data == "":
		return errors.New("-s3 keeps blobs only: add -postgres, or -data for a folder that keeps the rest")
	case p.postgres != "" && p.s3 == "" && p.data == "":
		return errors.New("-postgres keeps all but blobs: add -s3, or -data for a folder that keeps them")
	case p.postgres != "" && p.s3 != "" && p.data != "":
		return errors.New("-data: with -postgres and -s3 there is nothing left for a folder to keep")
	}
	_, err := p.bucket()
	return err
}
