package pgstore

import (
	"fmt"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/manifest"
)

// A statement that is prepared once is planned for any arguments after a while.
// What a removal and a description read must not follow the size of the
// repository then.
func TestARemovalAndADescriptionReadWhatTheyName(t *testing.T) {
	const others, removals = 20_000, 12
	for _, mode := range []string{"auto", "force_generic_plan"} {
		t.Run(mode, func(t *testing.T) {
			db := open(t, Options{DSN: open(t, Options{}).o.DSN + "&plan_cache_mode=" + mode, MaxConns: 1})
			exec := func(sql string, args ...any) {
				t.Helper()
				if _, err := db.pool.Exec(t.Context(), sql, args...); err != nil {
					t.Fatal(err)
				}
			}
			exec(fmt.Sprintf(`with new as (
				insert into manifest (repo, digest, descriptor, artifact_type, manifests, blobs, raw)
				select 'r', 'sha256:' || sha, '{}', '', array['child ' || n %% 100], array['blob ' || n, 'base ' || n %% 100], ''
				from generate_series(1, %d) n, lateral encode(sha256(n::text::bytea), 'hex') sha
				returning digest, manifests, blobs
			), need as (insert into need select 'r', unnest(blobs), digest from new)
			insert into parent select 'r', unnest(manifests), digest from new`, others))
			exec(`analyze`)
			var before, after int
			read := func(n *int) {
				t.Helper()
				exec(`select pg_stat_force_next_flush()`)
				err := db.pool.QueryRow(t.Context(), `select sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_read, 0)) from pg_stat_user_tables
					left join (select relid, sum(idx_tup_read) as idx_tup_read from pg_stat_user_indexes group by relid) i using (relid)
					where relid in ('need'::regclass, 'parent'::regclass, 'manifest'::regclass, 'tag'::regclass)`).Scan(n)
				if err != nil {
					t.Fatal(err)
				}
			}
			read(&before)
			for n := range removals {
				image := document(fmt.Sprint("image ", n), document("blob").Desc.Digest)
				index := document(fmt.Sprint("index ", n))
				index.Manifests = append(index.Manifests, image.Desc.Digest)
				apply(t, db, "r", manifest.Change{Put: []manifest.Record{image, index}, Tags: []manifest.TagMove{{Name: "t", To: image.Desc.Digest}}})
				recs, err := db.Manifests().Describe(t.Context(), "r", []digest.Digest{index.Desc.Digest, digest.FromString("absent"), image.Desc.Digest})
				if err != nil || len(recs) != 3 || recs[2].Desc.Digest != image.Desc.Digest {
					t.Fatalf("Describe = %+v, %v", recs, err)
				}
				apply(t, db, "r", manifest.Change{Delete: []manifest.Removal{{Digest: index.Desc.Digest, IfUntagged: true}, {Digest: image.Desc.Digest, IfUnlisted: true}}})
			}
			read(&after)
			t.Logf("%d rows read for %d removals of 2", after-before, removals)
			if after-before > 100*removals {
				t.Errorf("%d rows were read to remove %d manifests from a repository of %d", after-before, 2*removals, others)
			}
			var edges int
			if err := db.pool.QueryRow(t.Context(), `select (select count(*) from need) + (select count(*) from parent)`).Scan(&edges); err != nil || edges != 3*others {
				t.Errorf("%d edges, %v", edges, err)
			}
		})
	}
}
