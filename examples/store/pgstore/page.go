package pgstore

import (
	"context"
	"iter"
	"strings"

	"github.com/jackc/pgx/v5"
)

const (
	pageRows  = 512
	pageBytes = 4 << 20 // about; documents, and what is taken from them, may be long
)

// list yields what query finds, page by page: the rows after a key, in its
// order. Between pages it has no connection. scan returns a row and its key.
func list[K, T any](ctx context.Context, db *DB, after K, query func(after K, limit int) (sql string, args []any), scan func(pgx.Rows) (K, T, error), fail func(error) error) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		page := make([]T, 0, 16)
		last, limit := after, pageRows
		for more := true; more; {
			page = page[:0]
			more = false
			sql, args := query(last, limit)
			rows, err := db.pool.Query(ctx, sql, args...)
			bytes := 0
			for err == nil && !more && rows.Next() {
				var v T
				if last, v, err = scan(rows); err == nil {
					page = append(page, v)
				}
				for _, b := range rows.RawValues() {
					bytes += len(b)
				}
				more = len(page) == limit || bytes > pageBytes
			}
			rows.Close()
			if err == nil {
				err = rows.Err()
			}
			if err != nil {
				var zero T
				yield(zero, fail(ended(ctx, err)))
				return
			}
			if limit = min(2*limit, pageRows); bytes > pageBytes {
				limit = len(page) // what lies beyond was sent for nothing
			}
			for _, v := range page {
				if !yield(v, nil) {
					return
				}
			}
		}
	}
}

// bound returns what divides the keys there are, which are ASCII, like after,
// and is text to PostgreSQL.
func bound[S ~string](after S) string {
	for i := range len(after) {
		switch c := after[i]; {
		case c == 0:
			return string(after[:i])
		case c >= 0x7f:
			return string(after[:i]) + "\x7f"
		}
	}
	return string(after)
}

// isText tells whether s is text to PostgreSQL.
func isText(s string) bool {
	return strings.ToValidUTF8(s, "") == s && !strings.Contains(s, "\x00")
}
