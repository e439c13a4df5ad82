package pgstore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/lifecycle"
	"github.com/wharfage/wharfage/manifest"
)

// calls are all methods, each of which returns its error.
func calls(ctx context.Context, db *DB, dgst digest.Digest, u blob.Upload) map[string]error {
	b, m, p := db.Blobs(), db.Manifests(), db.Pulls()
	errs := map[string]error{
		"Ping":   db.Ping(ctx),
		"Put":    tryPut(ctx, db, "r", "more"),
		"Save":   b.Save(ctx, u, u),
		"Commit": b.Commit(ctx, u, u, dgst),
		"Abort":  b.Abort(ctx, u),
		"Mount":  b.Mount(ctx, "r", "other", dgst),
		"Delete": b.Delete(ctx, "r", dgst, time.Time{}),
		"Apply":  m.Apply(ctx, "r", manifest.Change{}),
		"Forget": m.Forget(ctx, ""),
		"Touch":  p.Touch(ctx, "r", []lifecycle.Pull{{Digest: dgst, At: time.Now()}}),
	}
	_, errs["Stat"] = b.Stat(ctx, "r", []digest.Digest{dgst})
	_, errs["Open"] = read(ctx, db, "r", dgst)
	_, errs["Begin"] = b.Begin(ctx, "r", digest.SHA256)
	_, errs["Lookup"] = b.Lookup(ctx, "r", u.ID)
	_, errs["Append"] = b.Append(ctx, u, strings.NewReader("x"))
	_, errs["Reread"] = b.Reread(ctx, u)
	_, errs["Get"] = m.Get(ctx, "r", dgst)
	_, errs["Resolve"] = m.Resolve(ctx, "r", "t")
	_, errs["manifest Stat"] = m.Stat(ctx, "r", []digest.Digest{dgst})
	_, errs["Reindex"] = db.Reindex(ctx, "r")
	for _, errs["Blobs"] = range b.Blobs(ctx, "r", "") {
	}
	for _, errs["blob Repos"] = range b.Repos(ctx, "") {
	}
	for _, errs["Locate"] = range b.Locate(ctx, dgst) {
	}
	for _, errs["Sessions"] = range b.Sessions(ctx, "") {
	}
	for _, errs["Sweep"] = range b.Sweep(ctx, never, false) {
	}
	for _, errs["Manifests"] = range m.Manifests(ctx, "r", "") {
	}
	for _, errs["Tags"] = range m.Tags(ctx, "r", "") {
	}
	for _, errs["Repos"] = range m.Repos(ctx, "") {
	}
	for _, errs["Referrers"] = range m.Referrers(ctx, "r", dgst, "", "") {
	}
	for _, errs["Events"] = range m.Events(ctx, "") {
	}
	for _, errs["Pulls"] = range p.Pulls(ctx, "r", "") {
	}
	return errs
}

func TestADeadServerIsNotNotFound(t *testing.T) {
	dsn, p := between(t, open(t, Options{}).o.DSN)
	db := open(t, Options{DSN: dsn, KeepEvents: true})
	dgst := put(t, db, "r", "content")
	u, err := db.Blobs().Begin(t.Context(), "r", digest.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	p.kill(true)
	for what, err := range calls(t.Context(), db, dgst, u) {
		if err == nil || errors.Is(err, blob.ErrNotFound) || errors.Is(err, manifest.ErrNotFound) || errors.Is(err, blob.ErrUploadNotFound) || errors.Is(err, blob.ErrConflict) {
			t.Errorf("%s = %v, want another error", what, err)
		}
	}
	p.kill(false)
	if got, err := read(t.Context(), db, "r", dgst); got != "content" {
		t.Errorf("when it is back: %q, %v", got, err)
	}
	if _, err := db.Blobs().Lookup(t.Context(), "r", u.ID); err != nil {
		t.Errorf("when it is back: %v", err)
	}
}

func TestAnEndedContextIsFoundInTheError(t *testing.T) {
	db := open(t, Options{KeepEvents: true})
	dgst := put(t, db, "r", "content")
	u, err := db.Blobs().Begin(t.Context(), "r", digest.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	apply(t, db, "r", manifest.Change{Put: []manifest.Record{document("1")}})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	errs := calls(ctx, db, dgst, u)
	_, errs["Since"] = db.Pulls().Since(ctx, "r")
	_, errs["Redirect"] = db.Blobs().Redirect(ctx, "r", dgst)
	errs["Lead"] = db.Lead(ctx, "x", func(context.Context) error { return nil })
	for what, err := range errs {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s = %v, want context.Canceled", what, err)
		}
	}
}

// A call that waits for a lock when its context ends.
func TestAContextThatEndsMeanwhileIsFoundInTheError(t *testing.T) {
	db := open(t, Options{})
	dgst := put(t, db, "r", "content")
	holder, err := db.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer holder.Rollback(t.Context())
	if _, err := holder.Exec(t.Context(), `select pg_advisory_xact_lock($1)`, db.lock("repo", "r")); err != nil {
		t.Fatal(err)
	}
	for what, call := range map[string]func(context.Context) error{
		"Apply":  func(ctx context.Context) error { return db.Manifests().Apply(ctx, "r", manifest.Change{}) },
		"Delete": func(ctx context.Context) error { return db.Blobs().Delete(ctx, "r", dgst, time.Time{}) },
	} {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		failed := make(chan error)
		go func() { failed <- call(ctx) }()
		awaitWaiter(t, db)
		cancel()
		if err := <-failed; !errors.Is(err, context.Canceled) {
			t.Errorf("%s = %v, want context.Canceled", what, err)
		}
	}
	if _, err := read(t.Context(), db, "r", dgst); err != nil {
		t.Error(err)
	}
}

// awaitWaiter returns when somebody waits for a lock of db's repository r.
func awaitWaiter(t testing.TB, db *DB) {
	t.Helper()
	for key, waits := db.lock("repo", "r"), false; !waits; {
		err := db.pool.QueryRow(t.Context(), `select exists (select from pg_locks where locktype = 'advisory' and not granted
			and classid = (($1::bigint >> 32) & 4294967295)::oid and objid = ($1::bigint & 4294967295)::oid)`, key).Scan(&waits)
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestAnObjectStaysWhenTheCommitMayHaveBeenDone(t *testing.T) {
	for _, mode := range []string{"cache_statement", "exec", "simple_protocol"} {
		t.Run(mode, func(t *testing.T) {
			dsn, p := between(t, open(t, Options{}).o.DSN)
			db := open(t, Options{DSN: dsn + "&default_query_exec_mode=" + mode, MaxConns: 1})
			o := &objects{Objects: db.o.Objects}
			db.o.Objects = o
			upload := func(content string) error {
				u, err := db.Blobs().Begin(t.Context(), "r", digest.SHA256)
				if err == nil {
					u, err = blob.Append(t.Context(), db.Blobs(), u, -1, strings.NewReader(content))
				}
				if err == nil {
					err = blob.Finish(t.Context(), db.Blobs(), u, -1, nil, digest.FromString(content))
				}
				return err
			}
			put := func(content string) error { return tryPut(t.Context(), db, "r", content) }
			for content, do := range map[string]func(string) error{"put": put, "uploaded": upload} {
				if err := do(content + " to prepare statements"); err != nil {
					t.Fatal(err)
				}
				o.wrote = func() { p.loseAnswer(2) } // to the second round trip
				err := do(content)
				if err == nil || !mayHaveCommitted(err) || !strings.Contains(err.Error(), "not known") {
					t.Errorf("%s: what has no answer = %v", content, err)
				}
				if got, err := read(t.Context(), db, "r", digest.FromString(content)); got != content {
					t.Fatalf("%s: it was committed, and reads as %q, %v", content, got, err)
				}
			}
			if err := put("to prepare statements"); err != nil {
				t.Fatal(err)
			}
			before := things(t, db)
			o.wrote = func() { p.loseAnswer(1) } // before the commit was sent
			err := put("more")
			if mayHaveCommitted(err) {
				t.Fatalf("Put whose connection breaks = %v", err)
			}
			want := before
			if err == nil { // it was tried again
				want += 4
			}
			if after := things(t, db); after != want {
				t.Fatalf("there are %d things, want %d", after, want)
			}
		})
	}
}

// obstruct makes the next writes of manifests fail as if others were in their
// way.
func obstruct(t testing.TB, db *DB, times int) {
	t.Helper()
	for _, sql := range []string{
		`drop trigger if exists obstruct on manifest`,
		`create sequence if not exists obstructions`, // which a rollback does not set back
		`select setval('obstructions', 1, false)`,
		`create or replace function obstruct() returns trigger language plpgsql as $$ declare n bigint := nextval('obstructions'); begin
			if n <= tg_argv[0]::int then raise exception 'in the way' using errcode = (array['40001', '40P01'])[1 + n % 2]; end if;
			return new;
		end $$`,
		fmt.Sprintf(`create trigger obstruct before insert on manifest for each row execute function obstruct(%d)`, times),
	} {
		if _, err := db.pool.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWhatOthersAreInTheWayOfIsTriedAgainForAWhile(t *testing.T) {
	db := open(t, Options{})
	rec := document("1")
	move := manifest.Change{Put: []manifest.Record{rec}, Tags: []manifest.TagMove{{Name: "t", To: rec.Desc.Digest, From: manifest.Absent}}}
	obstruct(t, db, 1000)
	var failed *pgconn.PgError
	if err := db.Manifests().Apply(t.Context(), "r", move); !errors.As(err, &failed) || errors.Is(err, manifest.ErrConflict) {
		t.Fatalf("Apply that always fails = %v, want the database's error", err)
	}
	var n int
	if err := db.pool.QueryRow(t.Context(), `select last_value from obstructions`).Scan(&n); err != nil || n != tries {
		t.Fatalf("it was tried %d times, %v, want %d", n, err, tries)
	}
	obstruct(t, db, 3)
	if err := db.Manifests().Apply(t.Context(), "r", move); err != nil {
		t.Fatalf("Apply with three failures: %v", err)
	}
	if _, err := db.Manifests().Resolve(t.Context(), "r", "t"); err != nil {
		t.Fatal(err)
	}
}
