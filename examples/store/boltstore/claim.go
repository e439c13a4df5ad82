package boltstore

import (
	"context"
	"crypto/rand"
	"time"

	"github.com/wharfage/wharfage/examples/store/parts"
)

// More rows of meta.
var (
	idRow    = []byte("id")    // of the database, which Objects are marked with
	leaseRow = []byte("lease") // of the last process, in nanoseconds
)

// identify gives the database an ID if it has none, and settles the lease.
func (db *DB) identify(t *tx) error {
	if t.get(metaRows, idRow) == nil {
		t.put(metaRows, idRow, []byte(rand.Text()))
	}
	kept := time.Duration(number(t.get(metaRows, leaseRow)))
	var err error
	if db.Lease, err = parts.Lease(kept, db.Lease, db.ShortenLease); err == nil && db.Lease != kept {
		t.put(metaRows, leaseRow, numberRow(uint64(db.Lease)))
	}
	return err
}

// claim makes Objects ours, or refuses those of another database.
func (db *DB) claim() error {
	const some = 8
	var id string
	var refers []string
	ctx := context.Background()
	if err := db.view(ctx, func(t *tx) error {
		id = string(t.get(metaRows, idRow))
		for k := range t.under(keyRows, nil, nil) {
			if refers = append(refers, unpackKey(string(k))); len(refers) == some {
				break
			}
		}
		return nil
	}); err != nil {
		return err
	}
	return parts.Claim(ctx, db.Objects, id, refers)
}

// Promised implements [blob.Promiser].
func (b *Blobs) Promised(ctx context.Context) (time.Duration, error) { return b.db.Lease, ctx.Err() }
