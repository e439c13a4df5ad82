package pgstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"

	"github.com/jackc/pgx/v5"

	"github.com/wharfage/wharfage/manifest"
)

// Transactions commit in another order than they draw numbers in, so a reader
// that remembers the greatest number it has seen would miss the event of one
// that was slow. An event's position is therefore its transaction's number and
// then its own, and only those are listed whose transaction is older than every one
// that still runs: nothing can turn up before them any more.
//
// Of one repository the order is that of commits: Apply has the repository's
// lock, until its commit is seen, before its first write draws a number.
//
// A transaction that writes for long, anywhere on the server, delays events. It
// loses none.
type position struct{ xid, id int64 }

func (p position) String() string { return fmt.Sprintf("%d-%d", p.xid, p.id) }

var errPosition = errors.New("not a position of this store")

func parsePosition(s string) (p position, err error) {
	if s == "" {
		return p, nil
	}
	if _, err := fmt.Sscanf(s, "%d-%d", &p.xid, &p.id); err != nil || p.String() != s {
		return p, errPosition
	}
	return p, nil
}

// Events implements [manifest.Outbox]. There are those of processes that
// KeepEvents.
func (m *Manifests) Events(ctx context.Context, after string) iter.Seq2[manifest.Committed, error] {
	fail := func(err error) error { return manifestError("events", "", after, err) }
	start, err := parsePosition(after)
	if err != nil {
		return func(yield func(manifest.Committed, error) bool) { yield(manifest.Committed{}, fail(err)) }
	}
	return list(ctx, m.db, start, func(after position, limit int) (string, []any) {
		return `select xid, id, repo, change from event
			where (xid, id) > ($1, $2) and xid < pg_snapshot_xmin(pg_current_snapshot())::text::bigint
			order by xid, id limit $3`, []any{after.xid, after.id, limit}
	}, func(rows pgx.Rows) (at position, e manifest.Committed, err error) {
		var change []byte
		if err = rows.Scan(&at.xid, &at.id, &e.Repo, &change); err == nil {
			e.Position = at.String()
			err = json.Unmarshal(change, &e.Change)
		}
		return at, e, err
	}, fail)
}

// Forget implements [manifest.Outbox].
func (m *Manifests) Forget(ctx context.Context, through string) error {
	p, err := parsePosition(through)
	if err == nil {
		_, err = m.db.pool.Exec(ctx, `delete from event where (xid, id) <= ($1, $2)`, p.xid, p.id)
	}
	if err != nil {
		return manifestError("forget", "", through, ended(ctx, err))
	}
	return nil
}
