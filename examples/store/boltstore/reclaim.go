package boltstore

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/wharfage/wharfage/examples/store/parts"
)

// reclaim gives back the space of packed content that nothing refers to any
// more. A pack that has lost more than a sixteenth goes: what is left in it is
// appended to the current one, and rows are pointed there. Only then is the file removed; a
// crash before that leaves two copies, of which one is of no use. Those that have
// least left go first, and only so many at a time that little is there twice.
//
// It reads the rows of all keys: once to see how much of each pack is in use,
// which may be out of date at once, and once more for each lot, when nothing can come to
// refer to what is in it. A pack of which something cannot be read or
// written, as on a full disk, or that cannot be removed, stays, and reclaim goes on, and
// returns the first such error at the end.
func (p *packs) reclaim(ctx context.Context) error {
	if !p.reclaiming.TryLock() {
		return nil // somebody else is at it
	}
	defer p.reclaiming.Unlock()
	worn, used, err := p.worn(ctx)
	if err != nil {
		return err
	}
	var open uint64
	if err := p.db.view(ctx, func(t *tx) error {
		open = number(t.get(metaRows, openEraRow))
		return nil
	}); err != nil {
		return err
	}
	var failure error
	for {
		n := 0
		for left := int64(0); n < len(worn) && (n == 0 || left+used[worn[n]] <= p.atOnce); n++ {
			left += used[worn[n]]
		}
		going := p.condemn(worn[:n], open) // of none too, for what is pending
		if len(going) > 0 {
			if err := p.each(ctx, func(rows []packedRow) error {
				failure = cmp.Or(failure, p.move(ctx, going, rows))
				return nil
			}); err != nil {
				return err
			}
		}
		for n := range going { // step 6
			failure = cmp.Or(failure, p.remove(n))
		}
		if worn = worn[n:]; len(worn) == 0 {
			return failure
		}
	}
}

// worn returns the packs that have lost much, and how many bytes of each pack are in use. Those
// with the least come first.
func (p *packs) worn(ctx context.Context) (worn []uint32, used map[uint32]int64, err error) {
	numbers, err := p.numbers()
	if err != nil || len(numbers) == 0 {
		return nil, nil, err
	}
	size := make(map[uint32]int64, len(numbers)) // before the rows, or what is written meanwhile looks lost
	for _, n := range numbers {
		info, err := os.Stat(p.path(n))
		if err != nil {
			return nil, nil, err
		}
		size[n] = info.Size()
	}
	used = make(map[uint32]int64, len(numbers))
	if err := p.each(ctx, func(rows []packedRow) error {
		for _, r := range rows {
			used[r.at.pack] += int64(r.at.size)
		}
		return nil
	}); err != nil {
		return nil, nil, err
	}
	for _, n := range numbers {
		if lost := size[n] - used[n]; lost > size[n]/16 || size[n] == 0 {
			worn = append(worn, n)
		}
	}
	slices.SortFunc(worn, func(a, b uint32) int { return cmp.Compare(used[a], used[b]) })
	return worn, used, nil
}

// remove lets those who have the pack open read on, and nobody open it again.
func (p *packs) remove(number uint32) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.open[number]; c != nil {
		if delete(p.open, number); c.uses == 0 {
			c.file.Close()
		}
	}
	if err := os.Remove(p.path(number)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// condemn, step 4, makes a set of packs that are to go. None of them is the current
// one, and nothing that is in them is pending, in an era from open on: rows that
// refer to them can only become fewer.
func (p *packs) condemn(numbers []uint32, open uint64) map[uint32]bool {
	going := map[uint32]bool{}
	for _, n := range numbers {
		going[n] = true
	}
	p.writing.Lock()
	defer p.writing.Unlock()
	if p.current != nil && going[p.current.number] {
		p.turn()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for key, at := range p.pending {
		if era, _ := parts.Era(key); era < open {
			delete(p.pending, key) // no transaction will refer to it
		} else {
			delete(going, at.pack)
		}
	}
	return going
}

// packedRow is a row of keyRows for content in a pack.
type packedRow struct {
	key []byte
	at  place
}

// each calls f with all of them, some at a time.
func (p *packs) each(ctx context.Context, f func([]packedRow) error) error {
	for rows, err := range list(ctx, p.db, []byte{}, func(t *tx, from []byte, _ int) (page [][]packedRow, _ []byte, err error) {
		var rows []packedRow
		looked := 0
		for k, v := range t.under(keyRows, nil, from) {
			if looked++; looked > 4*pageLen {
				return [][]packedRow{rows}, bytes.Clone(k), nil
			}
			at, packed, err := readPlace(v)
			if err != nil {
				return nil, nil, fmt.Errorf("key %s: %w", unpackKey(string(k)), err)
			}
			if packed {
				rows = append(rows, packedRow{bytes.Clone(k), at})
			}
		}
		return [][]packedRow{rows}, nil, nil
	}, func(err error) error { return err }) {
		if err == nil {
			err = f(rows)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// move, step 5, gives what rows have in packs that are to go another place. What
// cannot be read or written stays where it is, and so do those packs.
func (p *packs) move(ctx context.Context, going map[uint32]bool, rows []packedRow) (failure error) {
	const most = 1 << 20 // bytes at once
	var data []byte
	var batch []packedRow
	stay := func(err error, rows ...packedRow) {
		for _, r := range rows {
			delete(going, r.at.pack)
			failure = cmp.Or(failure, fmt.Errorf("move object %s: %w", unpackKey(string(r.key)), err))
		}
	}
	write := func() {
		if err := p.repoint(ctx, data, batch); err != nil {
			stay(err, batch...)
		}
		data, batch = data[:0], batch[:0]
	}
	for _, r := range rows {
		if !going[r.at.pack] {
			continue
		}
		longer, err := p.read(data, r.at)
		if err != nil {
			stay(err, r)
			continue
		}
		if data, batch = longer, append(batch, r); len(data) >= most {
			write()
		}
	}
	write()
	return failure
}

// read appends what is at a place to data.
func (p *packs) read(data []byte, at place) ([]byte, error) {
	c, err := p.acquire(at.pack)
	if err != nil {
		return nil, err
	}
	defer p.release(c)
	n := len(data)
	data = slices.Grow(data, int(at.size))[:n+int(at.size)]
	if got, err := c.file.ReadAt(data[n:], int64(at.off)); got < int(at.size) {
		return nil, err
	}
	return data, nil
}

// repoint writes data, which is that of rows, to the current pack, and changes
// those rows that are as they were.
func (p *packs) repoint(ctx context.Context, data []byte, rows []packedRow) error {
	if len(rows) == 0 {
		return nil
	}
	at, end, err := p.write("", data)
	if err == nil {
		err = end.sync(ctx)
	}
	if err != nil {
		return err
	}
	return p.db.update(ctx, func(t *tx) error {
		to := at
		for _, r := range rows {
			to.size = r.at.size
			if v := t.get(keyRows, r.key); bytes.Equal(v, placeRow(r.at)) {
				t.put(keyRows, r.key, placeRow(to))
				t.notePack(to.pack)
			}
			to.off += to.size
		}
		return nil
	})
}
