package boltstore

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"slices"
	"strconv"

	"github.com/wharfage/wharfage/manifest"
)

// A position is the sequence number of a row in 16 hexadecimal digits.

func eventRow(repo string, c manifest.Change) ([]byte, error) {
	c.Put = slices.Clone(c.Put)
	for i := range c.Put {
		c.Put[i].Raw = nil
	}
	return json.Marshal(manifest.Event{Repo: repo, Change: c})
}

func (t *tx) putEvent(row []byte) {
	t.wrote = true
	n, err := t.table(eventRows).NextSequence()
	if err != nil {
		panic(writeError{err})
	}
	t.put(eventRows, numberRow(n), row)
}

func position(n uint64) string { return fmt.Sprintf("%016x", n) }

func parsePosition(s string) (uint64, error) {
	if s == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(s, 16, 64)
	if err != nil || position(n) != s {
		return 0, fmt.Errorf("no position: %.40q", s)
	}
	return n, nil
}

// Events implements [manifest.Outbox]. It lists changes if Options.KeepEvents
// was set when they were made.
func (m *Manifests) Events(ctx context.Context, after string) iter.Seq2[manifest.Committed, error] {
	fail := manifestFailure("list events", "", after)
	n, err := parsePosition(after)
	if err != nil {
		return func(yield func(manifest.Committed, error) bool) { yield(manifest.Committed{}, fail(err)) }
	}
	return list(ctx, m.db, numberRow(n+1), func(t *tx, from []byte, n int) (page []manifest.Committed, _ []byte, err error) {
		size := 0
		for k, v := range t.under(eventRows, nil, from) {
			if len(page) == n || size > pageBytes {
				return page, append([]byte(nil), k...), nil
			}
			e := manifest.Committed{Position: position(number(k))}
			if err := json.Unmarshal(v, &e.Event); err != nil {
				return nil, nil, fmt.Errorf("event %s: %w: %w", e.Position, errRow, err)
			}
			page = append(page, e)
			size += len(v)
		}
		return page, nil, nil
	}, fail)
}

// Forget implements [manifest.Outbox].
func (m *Manifests) Forget(ctx context.Context, through string) error {
	n, err := parsePosition(through)
	for more := true; more && err == nil; {
		err = m.db.update(ctx, func(t *tx) error {
			more = t.forget(n)
			return nil
		})
	}
	return manifestError("forget events", "", through, err)
}

// forget is true when there are more to be forgotten.
func (t *tx) forget(through uint64) (more bool) {
	var keys [][]byte
	for k := range t.under(eventRows, nil, nil) {
		if number(k) > through {
			break
		}
		if more = len(keys) == 4*pageLen; more {
			break
		}
		keys = append(keys, k)
	}
	for _, k := range keys {
		t.delete(eventRows, k)
	}
	return more
}
