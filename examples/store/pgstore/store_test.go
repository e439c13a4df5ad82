package pgstore

import (
	"context"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/blob/blobtest"
	"github.com/wharfage/wharfage/blob/dirblob"
	"github.com/wharfage/wharfage/examples/store/pgstore/pgtest"
	"github.com/wharfage/wharfage/lifecycle"
	"github.com/wharfage/wharfage/lifecycle/lifecycletest"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/manifest/manifesttest"
	"github.com/wharfage/wharfage/referrers"
	"github.com/wharfage/wharfage/referrers/referrerstest"
	"github.com/wharfage/wharfage/repository"
	"github.com/wharfage/wharfage/repository/repositorytest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

func open(t testing.TB, o Options) *DB {
	t.Helper()
	if o.DSN == "" {
		o.DSN = pgtest.Start(t)
	}
	if o.Objects == nil {
		o.Objects = &dirblob.Objects{Dir: t.TempDir(), Unsynced: true}
	}
	db, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	return db
}

// again opens the store of db as another process does.
func again(t testing.TB, db *DB) *DB {
	t.Helper()
	return open(t, db.o)
}

// things counts what lies in the store.
func things(t testing.TB, db *DB) int {
	t.Helper()
	n := 0
	err := db.pool.QueryRow(t.Context(), `select (select count(*) from content) + (select count(*) from link)
		+ (select count(*) from object) + (select count(*) from session)`).Scan(&n)
	if err != nil {
		t.Fatal(err)
	}
	return n + len(keysThere(t, db))
}

// keysThere are those of the objects but for the marker of their database.
func keysThere(t testing.TB, db *DB) (keys []string) {
	t.Helper()
	for o, err := range db.o.Objects.List(t.Context(), "", "") {
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(o.Key, "owner/") {
			keys = append(keys, o.Key)
		}
	}
	return keys
}

// kinds are the stores that kits are run with: as they are, and with one
// connection that prepares no statements, as some poolers want it, in a database whose own
// order of text is that of a language.
var kinds = []struct {
	name    string
	options func(t testing.TB) Options
}{
	{"default", func(testing.TB) Options { return Options{} }},
	{"one connection, another collation", func(t testing.TB) Options {
		return Options{DSN: collated(t) + "&default_query_exec_mode=exec", MaxConns: 1}
	}},
}

var (
	collatedOnce sync.Once
	errCollated  error
)

// collated is pgtest.Start in a database of another collation.
func collated(t testing.TB) string {
	t.Helper()
	dsn := pgtest.Start(t)
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	exec := func(sql string) error {
		conn, err := pgx.ConnectConfig(context.Background(), config)
		if err != nil {
			return err
		}
		defer conn.Close(context.Background())
		_, err = conn.Exec(context.Background(), sql)
		return err
	}
	collatedOnce.Do(func() {
		errCollated = exec(`create database collated template template0 locale_provider icu icu_locale 'en-US' lc_collate 'C' lc_ctype 'C'`)
	})
	if errCollated != nil {
		t.Logf("the server has no ICU: %v", errCollated)
		return dsn
	}
	config.Database = "collated"
	if err := exec(`create schema ` + config.RuntimeParams["search_path"]); err != nil {
		t.Fatal(err)
	}
	return dsn + "&dbname=collated"
}

func TestBlobs(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			blobtest.TestStore(t, blobtest.Options{
				New:    func(t testing.TB) blob.Store { return open(t, kind.options(t)).Blobs() },
				Reopen: func(t testing.TB, s blob.Store) blob.Store { return again(t, s.(*Blobs).db).Blobs() },
				SetNow: func(s blob.Store, now func() time.Time) { s.(*Blobs).db.o.Now = now },
				Things: func(t testing.TB, s blob.Store) int { return things(t, s.(*Blobs).db) },
			})
		})
	}
}

// have makes blobs of the digests, whatever they are of.
func have(t testing.TB, db *DB, repo string, dgsts ...digest.Digest) {
	t.Helper()
	for _, d := range dgsts {
		_, err := db.pool.Exec(t.Context(), `insert into content (digest, size, keys, sizes) values ($1, 0, '{}', '{}') on conflict do nothing`, d)
		if err == nil {
			_, err = db.pool.Exec(t.Context(), `insert into link (repo, digest, touched_at) values ($1, $2, now()) on conflict do nothing`, repo, d)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestManifests(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			manifesttest.TestStore(t, manifesttest.Options{
				New: func(t testing.TB) manifest.Store { return open(t, kind.options(t)).Manifests() },
				PutBlobs: func(t testing.TB, s manifest.Store, repo string, dgsts ...digest.Digest) {
					have(t, s.(*Manifests).db, repo, dgsts...)
				},
				DeleteBlob: func(t testing.TB, s manifest.Store, repo string, dgst digest.Digest) error {
					return s.(*Manifests).db.Blobs().Delete(t.Context(), repo, dgst, time.Time{})
				},
			})
		})
	}
}

func TestOutbox(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			manifesttest.TestOutbox(t, manifesttest.OutboxOptions{
				New: func(t testing.TB) manifesttest.EventStore {
					o := kind.options(t)
					o.KeepEvents = true
					return open(t, o).Manifests()
				},
				Reopen: func(t testing.TB, s manifesttest.EventStore) manifesttest.EventStore {
					return again(t, s.(*Manifests).db).Manifests()
				},
			})
		})
	}
}

func TestReferrers(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			referrerstest.TestIndex(t, func(t testing.TB) (manifest.Store, referrers.Index) {
				m := open(t, kind.options(t)).Manifests()
				return m, m
			})
		})
	}
}

func TestPulls(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			lifecycletest.TestActivity(t, func(t testing.TB) lifecycle.Activity {
				db := open(t, kind.options(t))
				return struct {
					lifecycle.Activity
					manifest.Writer
				}{db.Pulls(), db.Manifests()}
			})
		})
	}
}

func TestRepositories(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			repositorytest.TestStore(t, func(t testing.TB) repository.Store { return open(t, kind.options(t)).Repositories() })
		})
	}
}

func TestTheLastPullOfAManifestGoesWithIt(t *testing.T) {
	db := open(t, Options{})
	gone, stays := document("gone"), document("stays")
	apply(t, db, "r", manifest.Change{Put: []manifest.Record{gone, stays}})
	pulls := []lifecycle.Pull{{Digest: gone.Desc.Digest, At: time.Now()}, {Digest: stays.Desc.Digest, At: time.Now()}}
	apply(t, db, "other", manifest.Change{Put: []manifest.Record{gone, stays}})
	for _, repo := range []string{"r", "other"} {
		if err := db.Pulls().Touch(t.Context(), repo, pulls); err != nil {
			t.Fatal(err)
		}
	}
	apply(t, db, "r", manifest.Change{Delete: []manifest.Removal{{Digest: gone.Desc.Digest}}})
	if err := db.Pulls().Touch(t.Context(), "r", pulls); err != nil { // a registry records pulls late
		t.Fatal(err)
	}
	for repo, want := range map[string]int{"r": 1, "other": 2} {
		n := 0
		for pull, err := range db.Pulls().Pulls(t.Context(), repo, "") {
			if n++; err != nil || repo == "r" && pull.Digest != stays.Desc.Digest {
				t.Errorf("%v, %v", pull, err)
			}
		}
		if n != want {
			t.Errorf("%s has %d pulls, want %d", repo, n, want)
		}
	}
}
