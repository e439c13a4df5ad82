package pgstore

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/wharfage/wharfage/examples/store/parts"
)

//go:embed migrations/*.sql
var migrationFiles embed.FS

// migrations returns the texts of the migrations: that at i leads to version
// i+1. A release may add some, and never changes one.
func migrations() []string { return readMigrations(migrationFiles) }

func readMigrations(files fs.FS) (texts []string) {
	names, err := fs.Glob(files, "migrations/*.sql")
	if err != nil {
		panic(err) // the pattern is well-formed
	}
	for i, name := range names {
		var n int
		if _, err := fmt.Sscanf(name, "migrations/%04d_", &n); err != nil || n != i+1 {
			panic("migration " + name + " is not number " + fmt.Sprint(i+1))
		}
		text, err := fs.ReadFile(files, name)
		if err != nil {
			panic(err) // it is embedded
		}
		texts = append(texts, string(text))
	}
	return texts
}

// prepare checks the version of the tables, and migrates them if they are
// older.
func (db *DB) prepare(ctx context.Context, migrations []string) error {
	version, err := db.version(ctx, db.pool)
	if err != nil {
		return err
	}
	if db.o.Existing || db.o.ReadOnly {
		switch {
		case version == 0:
			return ErrNoStore
		case version < len(migrations):
			return fmt.Errorf("the tables have version %d, and this program wants %d: a server of its release brings them there", version, len(migrations))
		}
	}
	if version < len(migrations) {
		if err := pgx.BeginFunc(ctx, db.pool, func(tx pgx.Tx) error { return db.migrate(ctx, tx, migrations) }); err != nil {
			return err
		}
		if version, err = db.version(ctx, db.pool); err != nil {
			return err
		}
	}
	if version > len(migrations) {
		return fmt.Errorf("the tables have version %d, and this program knows those up to %d: use a newer one", version, len(migrations))
	}
	return nil
}

// version returns 0 when there are no tables.
func (db *DB) version(ctx context.Context, conn interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}) (version int, err error) {
	// As JSON, since tables of an older version lack columns.
	var id *string
	var lease *int64
	err = conn.QueryRow(ctx, `select version, made_at, to_json(meta) ->> 'id', (to_json(meta) ->> 'lease')::bigint, (select nspname from pg_namespace n join pg_class c on c.relnamespace = n.oid where c.oid = 'meta'::regclass) from meta`).
		Scan(&version, &db.madeAt, &id, &lease, &db.schema)
	const undefinedTable = "42P01"
	if failed := (*pgconn.PgError)(nil); errors.As(err, &failed) && failed.Code == undefinedTable {
		return 0, nil
	}
	if id != nil {
		db.id = *id
	}
	if lease != nil {
		db.lease = time.Duration(*lease) * time.Microsecond
	}
	db.madeAt = db.madeAt.UTC()
	return version, err
}

// keepLease settles the lease of this process, and keeps it for others.
func (db *DB) keepLease(ctx context.Context) error {
	kept := db.lease
	want, err := parts.Lease(kept, db.o.Lease.Truncate(time.Microsecond), db.o.ShortenLease)
	if err != nil {
		return err
	}
	db.lease = want
	if want == kept || db.o.ReadOnly || db.o.Existing && want > kept {
		return nil
	}
	return db.pool.QueryRow(ctx, `update meta set lease = case when $2 then $1 else greatest(lease, $1) end returning lease * 1000`, want.Microseconds(), db.o.ShortenLease).Scan(&db.lease)
}

// claim makes Objects ours, or refuses those of another database.
func (db *DB) claim(ctx context.Context) error {
	if db.o.ReadOnly {
		return parts.Claimed(ctx, db.o.Objects, db.id)
	}
	var refers []string
	if err := db.pool.QueryRow(ctx, `select array(select key from object limit 8)`).Scan(&refers); err != nil {
		return err
	}
	return parts.Claim(ctx, db.o.Objects, db.id, refers)
}

// migrate runs in one transaction, of which there is one at a time.
func (db *DB) migrate(ctx context.Context, tx pgx.Tx, migrations []string) error {
	all := &DB{} // the schema may not be there yet
	if _, err := tx.Exec(ctx, `select pg_advisory_xact_lock($1)`, all.lock("migrate", "")); err != nil {
		return err
	}
	if db.o.Schema != "" {
		if _, err := tx.Exec(ctx, `create schema if not exists `+pgx.Identifier{db.o.Schema}.Sanitize()); err != nil {
			return err
		}
	}
	// A query that fails would end the transaction.
	var made bool
	if err := tx.QueryRow(ctx, `select to_regclass('meta') is not null`).Scan(&made); err != nil {
		return err
	}
	version := 0
	if made {
		var err error
		if version, err = db.version(ctx, tx); err != nil {
			return err
		}
	}
	for i := version; i < len(migrations); i++ {
		if _, err := tx.Exec(ctx, migrations[i], pgx.QueryExecModeSimpleProtocol); err != nil {
			return fmt.Errorf("migration %d: %w", i+1, err)
		}
	}
	if version == 0 {
		_, err := tx.Exec(ctx, `insert into meta (version, made_at) values ($1, $2)`, len(migrations), db.now())
		return err
	}
	_, err := tx.Exec(ctx, `update meta set version = greatest(version, $1)`, len(migrations))
	return err
}
