package boltstore

import (
	"context"
	"errors"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/examples/store/parts"
)

// publication makes content that of a digest. What a digest has already counts,
// unless its bytes are lost: then this takes its place, so that a push repairs a
// blob.
type publication struct {
	db      *DB
	dgst    digest.Digest
	content parts.Content

	has    parts.Content // what there was
	seen   parts.Content // as it was when its bytes were looked for
	lost   bool          // and they were not there
	unused []string      // keys that nothing refers to when all is done
}

// errLook is content whose bytes are to be looked for first, by nobody who has a
// transaction open.
var errLook = errors.New("the bytes of what there is are to be looked for first")

// run calls update, whose transaction calls write.
func (p *publication) run(ctx context.Context, update func() error) error {
	err := p.db.view(ctx, func(t *tx) (err error) {
		p.has, _, err = t.content(p.dgst)
		return err
	})
	for err == nil {
		if len(p.has.Parts) > 0 && !slices.Equal(p.has.Parts, p.seen.Parts) {
			var whole bool
			if whole, err = p.db.files.Whole(ctx, p.has); err != nil {
				return err
			}
			p.seen, p.lost = p.has, !whole
		}
		if err = update(); err != errLook {
			return err
		}
		err = nil
	}
	return err
}

func (p *publication) write(t *tx) (err error) {
	var found bool
	if p.has, found, err = t.content(p.dgst); err != nil {
		return err
	}
	switch {
	case !found:
		p.unused = nil
	case !slices.Equal(p.has.Parts, p.seen.Parts):
		return errLook
	case p.lost:
		p.unused = keysOf(p.has)
		t.unrefer(p.unused...)
	default:
		p.unused = p.content.Without(p.has)
		for _, key := range p.unused {
			if t.has(keyRows, appendKey(nil, key)) { // as a part of a session
				t.unrefer(key)
			}
		}
		return nil
	}
	t.refer(keysOf(p.content)...)
	t.put(contentRows, digestRow(nil, p.dgst), contentRow(p.content))
	return nil
}
