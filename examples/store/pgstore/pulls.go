package pgstore

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/lifecycle"
)

// Pulls implements [lifecycle.Activity]. The last pull of a manifest goes with
// it, and none is recorded of one that is not there.
type Pulls struct{ db *DB }

var _ lifecycle.Activity = (*Pulls)(nil)

func pullError(op, repo string, err error) error {
	return fmt.Errorf("%s pulls of %s: %w", op, repo, err)
}

// Touch implements [lifecycle.Activity], in one round trip.
func (p *Pulls) Touch(ctx context.Context, repo string, pulls []lifecycle.Pull) error {
	last := make(map[digest.Digest]time.Time, len(pulls))
	for _, pull := range pulls {
		if pull.At.After(last[pull.Digest]) { // hence a zero At is none
			last[pull.Digest] = pull.At.UTC()
		}
	}
	dgsts := make([]string, 0, len(last))
	for d := range last {
		dgsts = append(dgsts, string(d))
	}
	slices.Sort(dgsts) // rows are locked in this order
	ats := make([]time.Time, len(dgsts))
	for i, d := range dgsts {
		ats[i] = last[digest.Digest(d)]
	}
	err := p.db.write(ctx, func(t *tx) error {
		t.lockRepoShared(p.db, repo) // no manifest goes meanwhile
		t.queue(`insert into pull (repo, digest, at) select $1, digest, at from unnest($2::text[], $3::timestamptz[]) as latest (digest, at)
			where exists (select from manifest as m where m.repo = $1 and m.digest = latest.digest)
			on conflict (repo, digest) do update set at = excluded.at where pull.at < excluded.at`, repo, dgsts, ats)
		return nil
	})
	if err != nil {
		return pullError("touch", repo, err)
	}
	return nil
}

// Pulls implements [lifecycle.Activity].
func (p *Pulls) Pulls(ctx context.Context, repo string, after digest.Digest) iter.Seq2[lifecycle.Pull, error] {
	return list(ctx, p.db, bound(after), func(after string, limit int) (string, []any) {
		return `select digest, at from pull where repo = $1 and digest > $2 order by digest limit $3`, []any{repo, after, limit}
	}, func(rows pgx.Rows) (string, lifecycle.Pull, error) {
		var pull lifecycle.Pull
		err := rows.Scan(&pull.Digest, &pull.At)
		pull.At = pull.At.UTC()
		return string(pull.Digest), pull, err
	}, func(err error) error { return pullError("list", repo, err) })
}

// Since implements [lifecycle.Activity].
func (p *Pulls) Since(ctx context.Context, repo string) (time.Time, error) {
	if err := ctx.Err(); err != nil {
		return time.Time{}, pullError("since", repo, err)
	}
	return p.db.madeAt, nil
}
