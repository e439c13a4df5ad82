package main

import (
	"context"
	"errors"
	"log/slog"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/wharfage/wharfage/examples/store/riverqueue"
)

// river is the queue of jobs on PostgreSQL. nil is none.
type river struct {
	*riverqueue.Queue
	pool *pgxpool.Pool
}

func (p place) openRiver(ctx context.Context) (*river, error) {
	if p.replicator == nil {
		return nil, nil
	}
	pool, err := pgxpool.New(ctx, p.postgres)
	if err != nil {
		return nil, errors.New("-postgres: the URL cannot be parsed") // what pgx says may have a password in it
	}
	r := &river{pool: pool}
	if !p.readOnly {
		err = riverqueue.Migrate(ctx, pool)
	}
	if err == nil {
		r.Queue, err = riverqueue.New(riverqueue.Options{Pool: pool, Replicator: p.replicator, PerDestination: p.replicator.PerDestination, Logger: slog.Default()})
	}
	if err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

func (r *river) close() {
	if r != nil {
		r.pool.Close()
	}
}
