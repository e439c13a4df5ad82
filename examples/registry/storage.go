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
)

// place says where things are kept. The zero place is memory.
type place struct {
	data, postgres, s3 string
	unsynced           bool
	lease              time.Duration
	redirect           int64
}

func (p *place) flags(f *flag.FlagSet) {
	f.StringVar(&p.data, "data", "", "`folder` for everything, or, with -postgres, for blobs (default: memory)")
	f.StringVar(&p.postgres, "postgres", "", "`URL` of a PostgreSQL database for all but blobs; several servers may share it")
	f.StringVar(&p.s3, "s3", "", "keep blobs in S3: `URL` of a bucket, as in https://HOST/BUCKET/PREFIX?region=REGION; keys are read from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
	f.BoolVar(&p.unsynced, "unsynced", false, "do not wait for the disk: a power failure may lose what was pushed")
	f.DurationVar(&p.lease, "lease", 24*time.Hour, "how long a blob that was pushed or asked for is kept without a manifest, and an upload without a chunk")
	f.Int64Var(&p.redirect, "redirect", 0, "send clients to S3 for blobs of at least so many `bytes` (0: never)")
}

// storage is a place in use.
type storage struct {
	blobs     blob.Store
	manifests manifest.Store
	pulls     lifecycle.Activity

	// lead runs f while no other process leads.
	lead func(ctx context.Context, f func(ctx context.Context) error) error
	// ready tells why requests cannot be served.
	ready   func(ctx context.Context) error
	reindex func(ctx context.Context, repo string) (int, error) // nil if there is nothing to derive
	close   func() error
}

func (s *storage) handler() *wharfage.Handler {
	return &wharfage.Handler{Blobs: s.blobs, Manifests: s.manifests}
}

// openExisting is open for what is there already.
func (p place) openExisting(ctx context.Context) (*storage, error) {
	if p.postgres == "" {
		if p.data == "" {
			return nil, errors.New("say where things are kept: -data, or -postgres")
		}
		if _, err := os.Stat(p.data); err != nil {
			return nil, err
		}
	}
	return p.open(ctx)
}

// open makes p ready for use. It checks the version of what is there, and does
// not scan it.
func (p place) open(ctx context.Context) (*storage, error) {
	switch {
	case p.postgres != "":
		return p.openPostgres(ctx)
	case p.data != "":
		return p.openBolt()
	case p.s3 != "":
		return nil, errors.New("-s3 keeps blobs only: add -postgres, or -data for a folder that keeps the rest")
	}
	return p.openMemory(), nil
}

func (p place) openMemory() *storage {
	manifests := new(memmanifest.Store)
	blobs := &memblob.Store{Lease: p.lease, Guard: wharfage.GuardBlobs(manifests)}
	manifests.MissingBlobs = blob.Missing(blobs)
	return &storage{
		blobs: blobs, manifests: manifests, pulls: new(mempulls.Store),
		lead: alone, ready: func(context.Context) error { return nil }, close: func() error { return nil },
	}
}

// alone leads a store that one process has to itself.
func alone(ctx context.Context, f func(context.Context) error) error { return f(ctx) }

func (p place) openBolt() (*storage, error) {
	objects, err := p.bucket()
	if err != nil {
		return nil, err
	}
	db, err := boltstore.Open(boltstore.Options{Dir: p.data, Objects: objects, Unsynced: p.unsynced, Lease: p.lease, LinkAbove: p.redirect})
	if err != nil {
		return nil, err
	}
	return &storage{
		blobs: db.Blobs(), manifests: db.Manifests(), pulls: db.Pulls(),
		lead: alone, ready: func(context.Context) error { return nil }, reindex: db.Reindex, close: db.Close,
	}, nil
}

func (p place) openPostgres(ctx context.Context) (*storage, error) {
	objects, err := p.bucket()
	switch {
	case err != nil:
		return nil, err
	case objects == nil && p.data == "":
		return nil, errors.New("-postgres keeps all but blobs: add -s3, or -data for a folder that keeps them")
	case objects == nil:
		objects = &dirblob.Objects{Dir: filepath.Join(p.data, "objects"), Unsynced: p.unsynced}
	}
	db, err := pgstore.Open(ctx, pgstore.Options{DSN: p.postgres, Objects: objects, Lease: p.lease, LinkAbove: p.redirect})
	if err != nil {
		return nil, err
	}
	return &storage{
		blobs: db.Blobs(), manifests: db.Manifests(), pulls: db.Pulls(),
		lead:  func(ctx context.Context, f func(context.Context) error) error { return db.Lead(ctx, "jobs", f) },
		ready: db.Ping, reindex: db.Reindex, close: func() error { db.Close(); return nil },
	}, nil
}

// bucket is where -s3 says that blobs are, or nil.
func (p place) bucket() (blob.Objects, error) {
	if p.s3 == "" {
		return nil, nil
	}
	u, err := url.Parse(p.s3)
	if err != nil {
		return nil, err
	}
	bucket, prefix, _ := strings.Cut(strings.Trim(u.Path, "/"), "/")
	q := u.Query()
	if u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || bucket == "" || q.Get("region") == "" {
		return nil, fmt.Errorf("-s3 %s: want https://HOST/BUCKET/PREFIX?region=REGION", u.Redacted())
	}
	client := s3bytes.NewClient(s3bytes.Config{
		Endpoint: u.Scheme + "://" + u.Host, Region: q.Get("region"), PathStyle: q.Get("style") != "host",
		AccessKey: os.Getenv("AWS_ACCESS_KEY_ID"), SecretKey: os.Getenv("AWS_SECRET_ACCESS_KEY"),
	})
	return &s3bytes.Objects{Client: client, Bucket: bucket, Prefix: prefix}, nil
}
