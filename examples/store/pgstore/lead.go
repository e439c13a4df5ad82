package pgstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const (
	leadRetry = time.Second     // between two tries to take the lock
	leadPulse = 5 * time.Second // between two proofs that the connection is there, and the time each may take
)

// Lead runs lead while this process is the one that holds the lock name, and
// returns its error. It waits for its turn until ctx ends. The lock belongs to
// a connection of its own, beside the pool: when that is lost, the ctx that lead
// was given ends, and Lead returns an error once lead has returned. A process
// that dies, or is cut off, makes room for another.
//
// What lead does must be safe even so with two leaders: one that was cut off
// may not know it for some seconds.
func (db *DB) Lead(ctx context.Context, name string, lead func(ctx context.Context) error) error {
	fail := func(err error) error {
		return fmt.Errorf("lead %s: %w", name, err)
	}
	config := db.pool.Config().ConnConfig.Copy()
	// The server gives the lock of a machine that is cut off to another after
	// about 30 seconds. By then the pulse has told the old leader.
	config.RuntimeParams["tcp_keepalives_idle"] = "15"
	config.RuntimeParams["tcp_keepalives_interval"] = "5"
	config.RuntimeParams["tcp_keepalives_count"] = "3"
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return fail(ended(ctx, err))
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), leadPulse)
		defer cancel()
		conn.Close(closing)
	}()
	if err := takeTurn(ctx, conn, db.lock("lead", name)); err != nil {
		return fail(ended(ctx, err))
	}

	leading, stop := context.WithCancelCause(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		stop(watch(leading, conn))
	}()
	err = lead(leading)
	stop(nil)
	<-watched
	var lost *lostError
	if errors.As(context.Cause(leading), &lost) {
		if err == nil || errors.Is(err, context.Canceled) {
			return fail(lost)
		}
		return fail(fmt.Errorf("%w; %w", err, lost))
	}
	return err
}

// takeTurn returns when conn has the lock. It asks again and again: a statement
// that waits has a snapshot, which keeps vacuum from its work for as long.
func takeTurn(ctx context.Context, conn *pgx.Conn, key int64) error {
	again := time.NewTicker(leadRetry)
	defer again.Stop()
	for {
		var got bool
		pulse, cancel := context.WithTimeout(ctx, leadPulse) // or a lost connection would be waited for
		err := conn.QueryRow(pulse, `select pg_try_advisory_lock($1)`, key).Scan(&got)
		if cancel(); err != nil || got {
			return err
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// lostError is the end of the connection that has the lock.
type lostError struct{ err error }

func (e *lostError) Error() string { return "connection lost: " + e.err.Error() }

// watch returns when ctx ends, or with a *lostError when the connection does.
func watch(ctx context.Context, conn *pgx.Conn) error {
	for {
		// Nobody notifies: this returns when the connection breaks or time is up.
		wait, cancel := context.WithTimeout(ctx, leadPulse)
		err := conn.PgConn().WaitForNotification(wait)
		cancel()
		if ctx.Err() != nil {
			return nil
		}
		if err == nil || pgconn.Timeout(err) && !conn.IsClosed() {
			pulse, cancel := context.WithTimeout(ctx, leadPulse)
			err = conn.Ping(pulse)
			cancel()
		}
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return &lostError{err}
		}
	}
}
