package pgstore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Locks are taken in one order, so that none waits for another in a circle:
//
//	the list of repositories (advisory; their creation, which takes no other), then rows of it
//	the repository (advisory; Apply, Delete, Reindex; shared by Touch of pulls, which takes only their rows then)
//	the eras (advisory; shared by who refers to new keys, exclusive to close some)
//	a session's row
//	rows of links, by digest
//	a content's row
//
// except that who makes a content has its row before it makes the link, which
// nobody else can see or have then. What the database finds all the same, or a
// content that goes between two statements and whose link then breaks its
// foreign key, is tried again.

// tx is a transaction under way. What is queued goes to the database in one
// round trip.
type tx struct {
	conn  *pgx.Conn
	batch *pgx.Batch
}

func (t *tx) queue(sql string, args ...any) *pgx.QueuedQuery {
	if t.batch == nil {
		t.batch = &pgx.Batch{}
	}
	return t.batch.Queue(sql, args...)
}

// send sends what is queued, and returns when the results are in.
func (t *tx) send(ctx context.Context) error {
	if t.batch == nil {
		return nil
	}
	batch := t.batch
	t.batch = nil
	return t.conn.SendBatch(ctx, batch).Close()
}

// lockRepo queues the lock that makes changes of a repository wait for one
// another.
func (t *tx) lockRepo(db *DB, repo string) {
	t.queue(`select pg_advisory_xact_lock($1)`, db.lock("repo", repo))
}

// lockRepoShared queues a lock that makes lockRepo wait, and waits for that, but for no
// other of its kind.
func (t *tx) lockRepoShared(db *DB, repo string) {
	t.queue(`select pg_advisory_xact_lock_shared($1)`, db.lock("repo", repo))
}

const tries = 10

// write runs do in a transaction. What do queues and does not send goes with the
// commit: a do that reads, sends, decides and queues its writes makes two round trips.
// It may be called again, and must begin anew then. Its error undoes all.
func (db *DB) write(ctx context.Context, do func(t *tx) error) error {
	for try := 1; ; try++ {
		again, err := db.try(ctx, do)
		if !again || try == tries || ctx.Err() != nil {
			return ended(ctx, err)
		}
	}
}

func (db *DB) try(ctx context.Context, do func(t *tx) error) (again bool, err error) {
	conn, err := db.pool.Acquire(ctx)
	if err != nil {
		return false, err
	}
	defer conn.Release() // which closes it when a transaction is left open
	t := &tx{conn: conn.Conn()}
	t.queue(`begin`)
	if err = do(t); err == nil {
		committed := false
		t.queue(`commit`).Exec(func(tag pgconn.CommandTag) error {
			if committed = tag.String() == "COMMIT"; !committed {
				return errUndone
			}
			return nil
		})
		sends := ctx.Err() == nil && !t.conn.IsClosed() && !t.conn.PgConn().IsBusy()
		err = t.send(ctx)
		if committed {
			return false, nil // what failed then is the connection
		}
		// Not by SafeToRetry, which takes a connection that broke while this waited
		// for the answer, if it is no pipeline, for one that was closed before.
		if err != nil && err != errUndone && sends && !refused(err) {
			return false, &unknownError{err}
		}
	}
	if !t.conn.IsClosed() && t.conn.PgConn().TxStatus() != 'I' {
		const patience = 5 * time.Second
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		defer cancel()
		t.conn.Exec(undo, `rollback`) // or Release does it
	}
	return passing(err), err
}

// errUndone is the server's answer ROLLBACK to a commit: a statement had failed,
// of InTx, which did not say so.
var errUndone = errors.New("a statement in the transaction failed, so that all of it was undone")

// refused tells whether err is the server's word that a transaction was undone.
// FATAL and PANIC are not: a server that dies while it commits may find the
// transaction committed when it comes back. Nor is what a pooler says of its
// connection, class 08.
func refused(err error) bool {
	var failed *pgconn.PgError
	if !errors.As(err, &failed) {
		return false
	}
	severity := failed.SeverityUnlocalized
	if severity == "" {
		severity = failed.Severity
	}
	return severity == "ERROR" && !strings.HasPrefix(failed.Code, "08")
}

// passing tells whether err comes of others that were there at the same time,
// or of a connection that was dead before anything was sent.
func passing(err error) bool {
	var failed *pgconn.PgError
	if errors.As(err, &failed) {
		switch failed.Code {
		case "40001", "40P01", "23503": // serialization_failure, deadlock_detected, foreign_key_violation
			return true
		}
	}
	return pgconn.SafeToRetry(err)
}

// unknownError is a commit of which no answer came.
type unknownError struct{ err error }

func (e *unknownError) Error() string {
	return "it is not known whether this was committed: " + e.err.Error()
}

func (e *unknownError) Unwrap() error { return e.err }

// mayHaveCommitted tells whether a write that failed with err may have been
// done all the same.
func mayHaveCommitted(err error) bool { return errors.As(err, new(*unknownError)) }

// ended adds ctx's error to that of a connection which broke because of it.
func ended(ctx context.Context, err error) error {
	if err == nil || ctx.Err() == nil || errors.Is(err, ctx.Err()) {
		return err
	}
	return fmt.Errorf("%w: %w", ctx.Err(), err)
}

// row is one row, if there is one: a read of one round trip.
func (db *DB) row(ctx context.Context, sql string, args []any, dest ...any) (found bool, err error) {
	err = db.pool.QueryRow(ctx, sql, args...).Scan(dest...)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil
	}
	return err == nil, ended(ctx, err)
}

// one makes a queued query scan its row, if there is one.
func one(q *pgx.QueuedQuery, dest ...any) {
	q.QueryRow(func(row pgx.Row) error {
		if err := row.Scan(dest...); !errors.Is(err, pgx.ErrNoRows) {
			return err
		}
		return nil
	})
}

// each makes a queued query call f for each row, when dest has it.
func each(q *pgx.QueuedQuery, dest []any, f func()) {
	q.Query(func(rows pgx.Rows) error {
		_, err := pgx.ForEachRow(rows, dest, func() error {
			f()
			return nil
		})
		return err
	})
}

// optional is null for the zero time, which means unknown.
func optional(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

func known(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.UTC()
}

// texts is never nil, which would be null.
func texts[S ~string](in []S) []string {
	out := make([]string, len(in))
	for i, s := range in {
		out[i] = string(s)
	}
	return out
}
