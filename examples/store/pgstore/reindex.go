package pgstore

import (
	"context"
	"errors"
	"slices"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/manifest"
)

// Reindex derives again, from the documents of repo, what follows from them:
// the columns of each manifest, and the edges to blobs and children. It is for
// a release that reads more out of a document than the one that stored it did,
// and for repair. changed is how many rows were corrected. It neither makes nor
// removes manifests, and keeps PushedAt. Documents that cannot be read stay as
// they are.
func (db *DB) Reindex(ctx context.Context, repo string) (changed int, err error) {
	after := ""
	for more := true; more; {
		var n int
		var last string
		err = db.write(ctx, func(t *tx) (err error) {
			t.lockRepo(db, repo)
			n, last, more, err = reindexPage(ctx, t, repo, after)
			return err
		})
		if err != nil {
			return changed, manifestError("reindex", repo, "", err)
		}
		changed, after = changed+n, last
	}
	n := int64(0)
	err = db.write(ctx, func(t *tx) error {
		n = 0
		count := func(tag pgconn.CommandTag) error {
			n += tag.RowsAffected()
			return nil
		}
		t.lockRepo(db, repo)
		for _, edge := range [][3]string{{"need", "blob", "blobs"}, {"parent", "child", "manifests"}} {
			table, column, list := edge[0], edge[1], edge[2]
			t.queue(`delete from `+table+` e where repo = $1 and not exists (
				select from manifest m where m.repo = $1 and m.digest = e.manifest and e.`+column+` = any(m.`+list+`))`, repo).Exec(count)
			t.queue(`insert into `+table+` (repo, `+column+`, manifest) select $1, named, digest from manifest, unnest(`+list+`) as named
				where repo = $1 on conflict do nothing`, repo).Exec(count)
		}
		return nil
	})
	if err != nil {
		return changed, manifestError("reindex", repo, "", err)
	}
	return changed + int(n), nil
}

// reindexPage corrects the columns of some manifests after one.
func reindexPage(ctx context.Context, t *tx, repo, after string) (changed int, last string, more bool, err error) {
	const pageLen = 64
	if err := t.send(ctx); err != nil {
		return 0, after, false, err
	}
	rows, err := t.conn.Query(ctx, `select `+facts+`, descriptor::text, artifact_type, digest, raw from manifest where repo = $1 and digest > $2 order by digest limit $3`, repo, after, pageLen)
	last = after
	n := 0
	for err == nil && rows.Next() {
		var rec manifest.Record
		var descriptor, typ string
		var dgst digest.Digest
		var raw []byte
		rec, err = record(rows, &descriptor, &typ, &dgst, &raw)
		if err != nil {
			break
		}
		n, last = n+1, string(dgst)
		was := factsOf(&rec)
		was.descriptor, was.artifactType = descriptor, typ
		if is, ok := derive(&rec, dgst, raw); ok && !is.equal(&was) {
			changed++
			t.queue(`update manifest set descriptor = $3, artifact_type = $4, subject = $5, manifests = $6, blobs = $7 where repo = $1 and digest = $2`,
				repo, dgst, is.descriptor, is.artifactType, is.subject, is.manifests, is.blobs)
		}
	}
	rows.Close()
	return changed, last, n == pageLen, errors.Join(err, rows.Err())
}

// derive returns the facts of a document.
func derive(stored *manifest.Record, dgst digest.Digest, raw []byte) (derived, bool) {
	if manifest.Digest(dgst.Algorithm(), raw) != dgst {
		return derived{}, false
	}
	m, err := manifest.Parse(stored.Desc.MediaType, raw)
	if err != nil {
		return derived{}, false
	}
	rec := m.Record(dgst, raw)
	// Entries of an index that may be blobs or manifests were settled at the
	// push, by what the repository had.
	settled := func(d digest.Digest) bool { return slices.Contains(stored.Manifests, d) }
	for _, d := range rec.Blobs {
		if settled(d) {
			rec.Manifests = append(rec.Manifests, d)
		}
	}
	rec.Blobs = slices.DeleteFunc(rec.Blobs, settled)
	return factsOf(&rec), true
}

func (d *derived) equal(o *derived) bool {
	sameSubject := (d.subject == nil) == (o.subject == nil) && (d.subject == nil || *d.subject == *o.subject)
	return sameSubject && d.descriptor == o.descriptor && d.artifactType == o.artifactType &&
		slices.Equal(d.manifests, o.manifests) && slices.Equal(d.blobs, o.blobs)
}
