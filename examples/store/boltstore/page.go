package boltstore

import (
	"context"
	"iter"
)

// The first page of a listing is short, since many readers want no more.
const firstPageLen, pageLen = 32, 256

// A page of what may be long, documents, what is taken from them, and sessions, ends
// behind so many bytes.
const pageBytes = 1 << 20

// list yields what read finds, page by page. read gets a place to begin at, the
// first time from, and returns up to n things and the place behind them, nil at
// the end. No transaction is open while the loop body runs.
func list[T any](ctx context.Context, db *DB, from []byte, read func(t *tx, from []byte, n int) (page []T, next []byte, err error), fail func(error) error) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		n := firstPageLen
		for at := from; at != nil; n = min(4*n, pageLen) {
			var page []T
			err := db.view(ctx, func(t *tx) (err error) {
				page, at, err = read(t, at, n)
				db.mapped.trim(t, n)
				return err
			})
			if err != nil {
				var none T
				yield(none, fail(err))
				return
			}
			for _, v := range page {
				if !yield(v, nil) {
					return
				}
			}
		}
	}
}

// next returns the least key greater than k.
func next(k []byte) []byte { return append(append(make([]byte, 0, len(k)+1), k...), 0) }

// repos lists the repositories that have a row of which the key ends behind a
// digest.
func repos(ctx context.Context, db *DB, table int, after string, fail func(error) error) iter.Seq2[string, error] {
	const behind = "\x01" // the zero byte that ends a name, and before any character of one
	return list(ctx, db, []byte(after+behind), func(t *tx, from []byte, n int) (page []string, _ []byte, err error) {
		c := t.table(table).Cursor()
		for looked := 0; ; looked++ {
			k, _ := c.Seek(from)
			if k == nil {
				return page, nil, nil
			}
			if looked == n {
				return page, from, nil
			}
			repo := upToZero(k)
			for range t.heads(table, name(repo), name(repo)) {
				page = append(page, repo)
				break
			}
			from = []byte(repo + behind)
		}
	}, fail)
}

func upToZero(k []byte) string {
	for i, c := range k {
		if c == 0 {
			return string(k[:i])
		}
	}
	return string(k)
}
