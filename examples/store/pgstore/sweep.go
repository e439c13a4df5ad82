package pgstore

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/examples/store/parts"
)

// eras is what a transaction that refers to new keys knows of eras: none is
// closed until it ends.
type eras struct{ oldest int64 }

// hold queues the lock and the look, which is a statement of its own so that it
// sees what was committed before the lock was got.
func (e *eras) hold(db *DB, t *tx) {
	t.queue(`select pg_advisory_xact_lock_shared($1)`, db.lock("eras", ""))
	one(t.queue(`select min(era) from era`), &e.oldest)
}

// check refuses keys of closed eras.
func (e *eras) check(fresh []string) error {
	for _, key := range fresh {
		if era, ok := parts.Era(key); !ok || era < uint64(e.oldest) {
			return parts.ErrEra
		}
	}
	return nil
}

var errDry = errors.New("dry")

// erasPatience is how long closeEras waits for those who hold eras, since all
// who come after it wait too: it holds pushes up for no longer, whoever is frozen.
const erasPatience = 2 * time.Second

// closeEras begins an era, closes those whose successor began at or before
// cutoff, and returns the oldest that is open. With dry it only returns which
// that would be.
func (b *Blobs) closeEras(ctx context.Context, cutoff time.Time, dry bool) (uint64, error) {
	var oldest int64
	err := b.db.write(ctx, func(t *tx) error {
		t.queue(`select set_config('lock_timeout', $1, true)`, fmt.Sprint(erasPatience.Milliseconds()))
		t.queue(`select pg_advisory_xact_lock($1)`, b.db.lock("eras", ""))
		t.queue(`insert into era (era, began_at) select max(era) + 1, $1 from era`, b.db.now())
		one(t.queue(`select coalesce(max(era) filter (where began_at <= $1), min(era)) from era`, cutoff.UTC()), &oldest)
		if err := t.send(ctx); err != nil {
			return err
		}
		if dry {
			return errDry
		}
		t.queue(`delete from era where era < $1`, oldest)
		return nil
	})
	const lockNotAvailable = "55P03"
	var failed *pgconn.PgError
	switch {
	case err == errDry:
		err = nil
	case errors.As(err, &failed) && failed.Code == lockNotAvailable:
		err = fmt.Errorf("a write is under way that has not ended in %v: %w", erasPatience, err)
	}
	return uint64(oldest), err
}

// strays returns those of keys that nothing refers to, by one snapshot.
func (b *Blobs) strays(ctx context.Context, keys []string) ([]string, error) {
	var strays []string
	err := b.db.pool.QueryRow(ctx, `select array(select key from unnest($1::text[]) as key where not exists (select from object where object.key = key.key))`, keys).Scan(&strays)
	return strays, ended(ctx, err)
}

// Sweep implements [blob.Sweeper]: step 5 of model/collect.pml.
func (b *Blobs) Sweep(ctx context.Context, cutoff time.Time, dry bool) iter.Seq2[blob.Object, error] {
	return func(yield func(blob.Object, error) bool) {
		if err := b.sweep(ctx, cutoff, dry, func(o blob.Object) bool { return yield(o, nil) }); err != nil && err != errStopped {
			yield(blob.Object{}, blobError("sweep", "", "", err))
		}
	}
}

var errStopped = errors.New("stopped")

func (b *Blobs) sweep(ctx context.Context, cutoff time.Time, dry bool, yield func(blob.Object) bool) error {
	oldest, err := b.closeEras(ctx, cutoff, dry)
	if err != nil {
		return err
	}
	// Objects of closed eras that nothing refers to now never come to be
	// referred to: the transaction would have had to commit before the era was
	// closed.
	remove := func(page map[string]blob.Object, keys []string) error {
		strays, err := b.strays(ctx, keys)
		if err != nil {
			return err
		}
		for _, key := range strays {
			if !dry {
				if err := b.db.o.Objects.Delete(ctx, key); err != nil && !errors.Is(err, blob.ErrNotFound) {
					return err
				}
			}
			if !yield(page[key]) {
				return errStopped
			}
		}
		return nil
	}
	const pageLen = 1000
	page, keys := map[string]blob.Object{}, []string(nil)
	for object, err := range b.db.o.Objects.List(ctx, "", "") {
		if err != nil {
			return err
		}
		if era, ok := parts.Era(object.Key); !ok || era >= oldest {
			continue
		}
		page[object.Key], keys = object, append(keys, object.Key)
		if len(keys) == pageLen {
			if err := remove(page, keys); err != nil {
				return err
			}
			clear(page)
			keys = keys[:0]
		}
	}
	if err := remove(page, keys); err != nil {
		return err
	}
	if s, ok := b.db.o.Objects.(blob.ObjectSweeper); ok && !dry {
		_, err = s.Sweep(ctx, cutoff)
	}
	return err
}
