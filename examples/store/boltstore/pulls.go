package boltstore

import (
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/lifecycle"
)

// Pulls implements [lifecycle.Activity]. The last pull of a manifest goes with
// it, and none is recorded of one that is not there.
type Pulls struct{ db *DB }

var _ lifecycle.Activity = (*Pulls)(nil)

func pullError(op, repo string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s of %s: %w", op, repo, err)
}

// Touch implements [lifecycle.Activity].
func (p *Pulls) Touch(ctx context.Context, repo string, pulls []lifecycle.Pull) error {
	keys := make([][]byte, len(pulls))
	for i, pull := range pulls {
		key, ok := appendDigest(name(repo), pull.Digest)
		if !ok {
			return pullError("record pulls", repo, fmt.Errorf("digest %.200q cannot be stored", pull.Digest))
		}
		keys[i] = key
	}
	return pullError("record pulls", repo, p.db.update(ctx, func(t *tx) error {
		for i, pull := range pulls {
			if pull.At.IsZero() || !t.has(manifestRows, keys[i]) {
				continue
			}
			if v := t.get(pullRows, keys[i]); v != nil {
				r := row{s: string(v)}
				if at := r.time(); r.err == nil && !pull.At.After(at) {
					continue
				}
			}
			t.put(pullRows, keys[i], appendTime(nil, pull.At))
		}
		return nil
	}))
}

// Pulls implements [lifecycle.Activity].
func (p *Pulls) Pulls(ctx context.Context, repo string, after digest.Digest) iter.Seq2[lifecycle.Pull, error] {
	prefix := name(repo)
	return list(ctx, p.db, append(name(repo), afterDigest(string(after))...), func(t *tx, from []byte, n int) (page []lifecycle.Pull, _ []byte, err error) {
		for k, v := range t.under(pullRows, prefix, from) {
			if len(page) == n {
				return page, append([]byte(nil), k...), nil
			}
			dgst, _ := readDigest(k[len(prefix):])
			r := row{s: string(v)}
			page = append(page, lifecycle.Pull{Digest: dgst, At: r.time()})
			if r.err != nil {
				return nil, nil, fmt.Errorf("%s: %w", dgst, r.err)
			}
		}
		return page, nil, nil
	}, func(err error) error { return pullError("list pulls", repo, err) })
}

// Since implements [lifecycle.Activity].
func (p *Pulls) Since(ctx context.Context, repo string) (time.Time, error) {
	return p.db.made, pullError("look up pulls", repo, ctx.Err())
}
