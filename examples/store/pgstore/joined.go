package pgstore

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// joined is a transaction under way, as [Options.InTx] gets it.
type joined struct{ conn *pgx.Conn }

var _ pgx.Tx = joined{}

var errJoined = errors.New("pgstore: the transaction is not that of InTx to end")

// Begin makes a savepoint.
func (j joined) Begin(ctx context.Context) (pgx.Tx, error) { return save(ctx, j, 1) }

func (joined) Commit(context.Context) error   { return errJoined }
func (joined) Rollback(context.Context) error { return errJoined }

func (j joined) CopyFrom(ctx context.Context, table pgx.Identifier, columns []string, rows pgx.CopyFromSource) (int64, error) {
	return j.conn.CopyFrom(ctx, table, columns, rows)
}

func (j joined) SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults {
	return j.conn.SendBatch(ctx, b)
}

// LargeObjects are of no use here.
func (joined) LargeObjects() pgx.LargeObjects { return pgx.LargeObjects{} }

func (j joined) Prepare(ctx context.Context, name, sql string) (*pgconn.StatementDescription, error) {
	return j.conn.Prepare(ctx, name, sql)
}

func (j joined) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	return j.conn.Exec(ctx, sql, args...)
}

func (j joined) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	return j.conn.Query(ctx, sql, args...)
}

func (j joined) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	return j.conn.QueryRow(ctx, sql, args...)
}

func (j joined) Conn() *pgx.Conn { return j.conn }

// savepoint is a transaction within one.
type savepoint struct {
	joined
	depth int
	ended *bool
}

func save(ctx context.Context, j joined, depth int) (pgx.Tx, error) {
	_, err := j.conn.Exec(ctx, fmt.Sprintf("savepoint joined_%d", depth))
	return savepoint{j, depth, new(bool)}, err
}

func (s savepoint) Begin(ctx context.Context) (pgx.Tx, error) { return save(ctx, s.joined, s.depth+1) }

func (s savepoint) Commit(ctx context.Context) error {
	return s.end(ctx, "release savepoint joined_%d")
}

func (s savepoint) Rollback(ctx context.Context) error {
	return s.end(ctx, "rollback to savepoint joined_%d")
}

func (s savepoint) end(ctx context.Context, sql string) error {
	if *s.ended {
		return pgx.ErrTxClosed
	}
	*s.ended = true
	_, err := s.conn.Exec(ctx, fmt.Sprintf(sql, s.depth))
	return err
}
