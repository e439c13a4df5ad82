package pgstore

import (
	"context"
	"encoding/json"
	"iter"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/referrers"
)

// Manifests implements [manifest.Store], all of its optional abilities, and
// [referrers.JSONIndex].
type Manifests struct{ db *DB }

var _ interface {
	manifest.Store
	manifest.Catalog
	manifest.Stater
	manifest.Describer
	manifest.Counter
	manifest.Outbox
	referrers.JSONIndex
} = (*Manifests)(nil)

func manifestError(op, repo, object string, err error) error {
	return &manifest.Error{Op: op, Repo: repo, Object: object, Err: err}
}

// facts are the columns that a Record comes from.
const facts = `descriptor, subject, manifests, blobs, pushed_at, touched_at, storage_class, archived_at, restored_at`

// record scans facts, and then more.
func record(row pgx.Row, more ...any) (rec manifest.Record, err error) {
	var descriptor []byte
	var subject *string
	var manifests, blobs []string
	var pushed, touched, archived, restored *time.Time
	if err := row.Scan(append([]any{&descriptor, &subject, &manifests, &blobs, &pushed, &touched, &rec.StorageClass, &archived, &restored}, more...)...); err != nil {
		return rec, err
	}
	if subject != nil {
		rec.Subject = digest.Digest(*subject)
	}
	rec.Manifests, rec.Blobs = digests(manifests), digests(blobs)
	rec.PushedAt, rec.TouchedAt, rec.ArchivedAt, rec.RestoredAt = known(pushed), known(touched), known(archived), known(restored)
	return rec, json.Unmarshal(descriptor, &rec.Desc)
}

func digests(in []string) []digest.Digest {
	if len(in) == 0 {
		return nil
	}
	out := make([]digest.Digest, len(in))
	for i, s := range in {
		out[i] = digest.Digest(s)
	}
	return out
}

// Get implements [manifest.Reader].
func (m *Manifests) Get(ctx context.Context, repo string, dgst digest.Digest) (manifest.Record, error) {
	var raw []byte
	row := m.db.pool.QueryRow(ctx, `select `+facts+`, raw from manifest where repo = $1 and digest = $2`, repo, dgst)
	rec, err := record(row, &raw)
	if err != nil {
		return manifest.Record{}, manifestError("get", repo, string(dgst), notThere(ctx, err))
	}
	rec.Raw = raw
	return rec, nil
}

// notThere turns what says that there is no row, and nothing else, into
// ErrNotFound.
func notThere(ctx context.Context, err error) error {
	if err == pgx.ErrNoRows {
		return manifest.ErrNotFound
	}
	return ended(ctx, err)
}

// Resolve implements [manifest.Reader].
func (m *Manifests) Resolve(ctx context.Context, repo, tag string) (manifest.Tag, error) {
	t := manifest.Tag{Name: tag}
	var moved *time.Time
	err := m.db.pool.QueryRow(ctx, `select digest, moved_at from tag where repo = $1 and name = $2`, repo, tag).Scan(&t.Digest, &moved)
	if err != nil {
		return manifest.Tag{}, manifestError("resolve", repo, tag, notThere(ctx, err))
	}
	t.MovedAt = known(moved)
	return t, nil
}

// Stat implements [manifest.Stater].
func (m *Manifests) Stat(ctx context.Context, repo string, dgsts []digest.Digest) ([]ocispec.Descriptor, error) {
	have := make(map[digest.Digest]ocispec.Descriptor, len(dgsts))
	rows, _ := m.db.pool.Query(ctx, `select descriptor from manifest where repo = $1 and digest = any($2)`, repo, texts(dgsts))
	var descriptor []byte
	_, err := pgx.ForEachRow(rows, []any{&descriptor}, func() error {
		var desc ocispec.Descriptor
		err := json.Unmarshal(descriptor, &desc)
		desc.Annotations = nil
		have[desc.Digest] = desc
		return err
	})
	if err != nil {
		return nil, manifestError("stat", repo, "", ended(ctx, err))
	}
	out := make([]ocispec.Descriptor, len(dgsts))
	for i, d := range dgsts {
		out[i] = have[d]
	}
	return out, nil
}

// Describe implements [manifest.Describer].
func (m *Manifests) Describe(ctx context.Context, repo string, dgsts []digest.Digest) ([]manifest.Record, error) {
	out := make([]manifest.Record, len(dgsts))
	// Each place has a row of its own, so that those for one digest share nothing.
	rows, err := m.db.pool.Query(ctx, `select `+facts+`, place from unnest($2::text[]) with ordinality as asked (digest, place)
		join manifest using (digest) where repo = $1`, repo, texts(dgsts))
	if err == nil {
		defer rows.Close()
		for rows.Next() {
			var place int
			rec, err := record(rows, &place)
			if err != nil {
				return nil, manifestError("describe", repo, "", err)
			}
			out[place-1] = rec
		}
		err = rows.Err()
	}
	if err != nil {
		return nil, manifestError("describe", repo, "", ended(ctx, err))
	}
	return out, nil
}

// Count implements [manifest.Counter].
func (m *Manifests) Count(ctx context.Context, repo string, dgst digest.Digest) (manifests, tags int, err error) {
	err = m.db.pool.QueryRow(ctx, `select (select count(*) from manifest where repo = $1), (select count(*) from tag where repo = $1 and digest = $2)`, repo, string(dgst)).Scan(&manifests, &tags)
	if err != nil {
		return 0, 0, manifestError("count", repo, string(dgst), ended(ctx, err))
	}
	return manifests, tags, nil
}

// Manifests implements [manifest.Reader].
func (m *Manifests) Manifests(ctx context.Context, repo string, after digest.Digest) iter.Seq2[manifest.Record, error] {
	return list(ctx, m.db, bound(after), func(after string, limit int) (string, []any) {
		return `select ` + facts + `, digest from manifest where repo = $1 and digest > $2 order by digest limit $3`, []any{repo, after, limit}
	}, func(rows pgx.Rows) (key string, rec manifest.Record, err error) {
		rec, err = record(rows, &key)
		return key, rec, err
	}, func(err error) error { return manifestError("list", repo, string(after), err) })
}

// Tags implements [manifest.Reader].
func (m *Manifests) Tags(ctx context.Context, repo, after string) iter.Seq2[manifest.Tag, error] {
	return list(ctx, m.db, bound(after), func(after string, limit int) (string, []any) {
		return `select name, digest, moved_at from tag where repo = $1 and name > $2 order by name limit $3`, []any{repo, after, limit}
	}, func(rows pgx.Rows) (string, manifest.Tag, error) {
		var t manifest.Tag
		var moved *time.Time
		err := rows.Scan(&t.Name, &t.Digest, &moved)
		t.MovedAt = known(moved)
		return t.Name, t, err
	}, func(err error) error { return manifestError("list", repo, after, err) })
}

// Repos implements [manifest.Catalog]. Its cost follows the number of
// repositories that it lists.
func (m *Manifests) Repos(ctx context.Context, after string) iter.Seq2[string, error] {
	return repos(ctx, m.db, `manifest`, after, func(err error) error { return manifestError("list", "", "", err) })
}

// repos lists the distinct repositories of a table with an index on repo, by
// skipping from one to the next.
func repos(ctx context.Context, db *DB, table, after string, fail func(error) error) iter.Seq2[string, error] {
	return list(ctx, db, bound(after), func(after string, limit int) (string, []any) {
		return `with recursive r as (
			(select repo from ` + table + ` where repo > $1 order by repo limit 1)
			union all
			select (select t.repo from ` + table + ` t where t.repo > r.repo order by t.repo limit 1) from r where r.repo is not null
		) select repo from r where repo is not null limit $2`, []any{after, limit}
	}, func(rows pgx.Rows) (string, string, error) {
		var repo string
		err := rows.Scan(&repo)
		return repo, repo, err
	}, fail)
}

// Referrers implements [referrers.Index]. The cost of a listing follows what it
// yields, with an artifactType too.
func (m *Manifests) Referrers(ctx context.Context, repo string, subject digest.Digest, artifactType string, after digest.Digest) iter.Seq2[ocispec.Descriptor, error] {
	return func(yield func(ocispec.Descriptor, error) bool) {
		for entry, err := range m.ReferrersJSON(ctx, repo, subject, artifactType, after) {
			var desc ocispec.Descriptor
			if err == nil {
				err = json.Unmarshal([]byte(entry.JSON), &desc)
			}
			if !yield(desc, err) || err != nil {
				return
			}
		}
	}
}

// ReferrersJSON implements [referrers.JSONIndex].
func (m *Manifests) ReferrersJSON(ctx context.Context, repo string, subject digest.Digest, artifactType string, after digest.Digest) iter.Seq2[manifest.ReferrerJSON, error] {
	fail := func(err error) error { return manifestError("list referrers", repo, string(subject), err) }
	if !isText(artifactType) || !isText(string(subject)) { // which no manifest has
		return func(yield func(manifest.ReferrerJSON, error) bool) {
			if err := ctx.Err(); err != nil {
				yield(manifest.ReferrerJSON{}, fail(err))
			}
		}
	}
	return list(ctx, m.db, bound(after), func(after string, limit int) (string, []any) {
		if artifactType == "" {
			return `select digest, descriptor from manifest where repo = $1 and subject = $2 and digest > $3
				order by digest limit $4`, []any{repo, subject, after, limit}
		}
		return `select digest, descriptor from manifest where repo = $1 and subject = $2 and digest > $3 and artifact_type = $5
			order by digest limit $4`, []any{repo, subject, after, limit, artifactType}
	}, func(rows pgx.Rows) (string, manifest.ReferrerJSON, error) {
		var entry manifest.ReferrerJSON
		err := rows.Scan(&entry.Digest, &entry.JSON)
		return string(entry.Digest), entry, err
	}, fail)
}
