package boltstore

import (
	"context"
	"errors"
	"iter"
	"time"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/examples/store/parts"
)

// beginEra begins the next era and returns it.
func (t *tx) beginEra(now time.Time) uint64 {
	era := number(t.get(metaRows, eraRow)) + 1
	t.put(metaRows, eraRow, numberRow(era))
	t.put(eraRows, numberRow(era), appendTime(nil, now))
	return era
}

// openFrom closes the eras before one.
func (t *tx) openFrom(era uint64) {
	t.put(metaRows, openEraRow, numberRow(era))
	var closed [][]byte
	for k := range t.under(eraRows, nil, nil) {
		if number(k) >= era {
			break
		}
		closed = append(closed, k)
	}
	for _, k := range closed {
		t.delete(eraRows, k)
	}
}

// openEra returns the oldest era that is open when those are closed of which a
// successor began at cutoff or before.
func (t *tx) openEra(cutoff time.Time) (uint64, error) {
	open := number(t.get(metaRows, openEraRow))
	for k, v := range t.under(eraRows, nil, numberRow(open+1)) {
		r := row{s: string(v)}
		began := r.time()
		if r.err != nil {
			return open, r.err
		}
		if !began.After(cutoff) { // though one before it may have begun by a clock that was ahead
			open = number(k)
		}
	}
	return open, nil
}

// Sweep implements [blob.Sweeper]: step 5 of model/collect.pml. It looks at all objects that there are, and
// for their keys in the database. Then it gives back the space of short content
// that was deleted. If Objects is a [blob.ObjectSweeper], its turn comes at the
// end.
func (b *Blobs) Sweep(ctx context.Context, cutoff time.Time, dry bool) iter.Seq2[blob.Object, error] {
	return func(yield func(blob.Object, error) bool) {
		done, err := b.sweep(ctx, cutoff, dry, yield)
		if done && err == nil && !dry {
			if b.db.packs != nil {
				err = b.db.packs.reclaim(ctx)
			}
			if s, ok := b.db.Objects.(blob.ObjectSweeper); ok {
				_, e := s.Sweep(ctx, cutoff)
				err = errors.Join(err, e)
			}
		}
		if err != nil {
			yield(blob.Object{}, blobError("sweep", "", "", err))
		}
	}
}

// sweep is false when the caller wants no more.
func (b *Blobs) sweep(ctx context.Context, cutoff time.Time, dry bool, yield func(blob.Object, error) bool) (bool, error) {
	open, err := b.closeEras(ctx, cutoff, dry)
	if err != nil {
		return false, err
	}
	page := make([]blob.Object, 0, pageLen)
	for object, err := range b.db.Objects.List(ctx, "", "") {
		if err != nil {
			return false, err
		}
		if era, ok := parts.Era(object.Key); !ok || era >= open {
			continue
		}
		if page = append(page, object); len(page) == pageLen {
			if more, err := b.remove(ctx, page, dry, yield); !more || err != nil {
				return false, err
			}
			page = page[:0]
		}
	}
	return b.remove(ctx, page, dry, yield)
}

// closeEras returns the oldest era that stays open.
func (b *Blobs) closeEras(ctx context.Context, cutoff time.Time, dry bool) (open uint64, err error) {
	if dry {
		err = b.db.view(ctx, func(t *tx) error {
			open, err = t.openEra(cutoff)
			return err
		})
		return open, err
	}
	now := b.db.Now()
	var era uint64
	err = b.db.queue.run(ctx, &update{
		do: func(t *tx) error {
			if _, err := t.openEra(cutoff); err != nil {
				return err
			}
			era = t.beginEra(now)
			open, _ = t.openEra(cutoff)
			t.openFrom(open)
			return nil
		},
		ended: func(committed bool) {
			if committed {
				b.db.era.Store(era)
			}
		},
	})
	return open, err
}

// remove deletes and yields those of objects that nothing refers to. Their eras
// are closed, so that nothing will.
func (b *Blobs) remove(ctx context.Context, objects []blob.Object, dry bool, yield func(blob.Object, error) bool) (bool, error) {
	var free []blob.Object
	if err := b.db.view(ctx, func(t *tx) error {
		for _, o := range objects {
			if !t.has(keyRows, appendKey(nil, o.Key)) {
				free = append(free, o)
			}
		}
		return nil
	}); err != nil {
		return false, err
	}
	for _, o := range free {
		if !dry {
			if err := b.db.Objects.Delete(ctx, o.Key); err != nil && !errors.Is(err, blob.ErrNotFound) {
				return false, err
			}
		}
		if !yield(o, nil) {
			return false, nil
		}
	}
	return true, nil
}
