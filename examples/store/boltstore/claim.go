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
	const some, enough = 256, 8 // of all rows, and of those for objects
	var id string
	var refers []string
	ctx := context.Background()
	if err := db.view(ctx, func(t *tx) error {
		id = string(t.get(metaRows, idRow))
		looked := 0
		for k, v := range t.under(keyRows, nil, nil) {
			if len(v) == 0 { // else it is in a pack
				refers = append(refers, unpackKey(string(k)))
			}
			if looked++; looked == some || len(refers) == enough {
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
