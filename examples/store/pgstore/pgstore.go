// Package pgstore keeps a registry in PostgreSQL, and bytes in any
// [blob.Objects]. Many processes may share both.
//
// One database has the rows of everything: links of repositories to blobs,
// upload sessions, manifests and tags, what is derived from them, events, pulls
// and settings of repositories. So a manifest and the blobs it needs are checked and committed in one
// transaction, which no deletion can pass.
//
// # What it asks of PostgreSQL
//
// Version 13 or later. [Open] makes the tables, and brings those of an older
// release up to date, for which the role must be allowed to. A pooler between
// must not share connections among clients, because of prepared statements and the
// locks of [DB.Lead]. A database that was restored from a dump counts transactions
// anew: list and forget its events before the first write. A copy of a database
// has objects of its own, and before it is opened another ID:
// update meta set id = default.
//
// A process that is frozen, or cut off, in the middle of a transaction keeps its
// locks until the server ends it after 30 seconds, or what DSN says to be its
// idle_in_transaction_session_timeout. Collections do not wait for so long.
//
// # Durability
//
// What is acknowledged is committed and, with PostgreSQL's own defaults, on
// disk. Only the begin of an empty session is not waited for.
//
// # Time
//
// Times are kept in microseconds. Processes take them from their own clocks,
// which decide when something is old enough, never whether a deletion is safe.
package pgstore

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/manifest"
)

// Options say where a store is and how it behaves. DSN and Objects are
// required. Processes that share a store have the same Objects.
type Options struct {
	DSN     string // a URL or key=value pairs, as libpq has them
	Objects blob.Objects

	// Lease is kept in the database: zero means what is kept, and 24h at first. Stat
	// renews a touch that is older than half of it. A longer one is kept from then
	// on, and a shorter one refused with [blob.LeaseError], since others may have promised more.
	Lease time.Duration
	// ShortenLease lets Lease replace a longer one. What was promised under that
	// may go earlier.
	ShortenLease bool

	Now     func() time.Time // nil means time.Now
	MinPart int              // of an upload, in bytes: shorter chunks wait in a row; zero means parts.DefaultMinPart

	// KeepEvents writes the event of each Change, for [Manifests.Events]. Somebody
	// must forget them.
	KeepEvents bool

	// InTx, if set, is called in the transaction of each Change, before it commits: what it
	// writes there is committed with the Change, or not at all. Its error undoes the Change,
	// and is returned. A statement that fails undoes it too, unless it is within a tx.Begin
	// that is rolled back. It may be called again for a Change that was undone meanwhile. It
	// must neither commit nor roll back, except what it has begun with tx.Begin, nor call this
	// store, since all connections may be those of calls that wait for one. It costs a round trip
	// more, and what it does while others wait for the repository.
	InTx func(ctx context.Context, tx pgx.Tx, e manifest.Event) error

	// LinkAbove sends clients to Objects for blobs of at least so many bytes, if
	// it is a [blob.Linker] and the blob is one object. Zero sends none.
	LinkAbove int64
	LinkTTL   time.Duration // of such links; zero means 15 minutes

	// Existing keeps Open from making, or bringing up to date, anything in the
	// database, but for a Lease that ShortenLease lets in: ErrNoStore if there are no tables.
	Existing bool
	// ReadOnly is Existing, and makes the server refuse whatever would write, such as
	// a Stat that renews a touch.
	ReadOnly bool

	MaxConns int    // of the pool; zero means what DSN says, or the greater of 4 and the number of CPUs
	Schema   string // that the tables are in, made if there is none; empty means what DSN or the database says
}

// ErrNoStore is what the error of Open matches if Existing or ReadOnly is set and
// the database has no tables of a store.
var ErrNoStore = errors.New("there is no store in this database")

// DB is a store. Its views share everything; there are several because the interfaces
// of blobs and manifests have methods of one name.
type DB struct {
	o      Options
	pool   *pgxpool.Pool
	id     string // of the database
	schema string // part of the names of locks
	madeAt time.Time
	lease  time.Duration // of touches: what is kept, or a longer one
}

// Open returns the store at o.DSN, with its tables made or brought up to date.
// When they are, that costs two queries and a List of o.Objects, which it marks
// as those of this database. An error that matches [parts.ErrForeign] says that
// they are not.
func Open(ctx context.Context, o Options) (*DB, error) {
	config, err := pgxpool.ParseConfig(o.DSN)
	if err != nil {
		return nil, dsnError(err)
	}
	if o.MaxConns > 0 {
		config.MaxConns = int32(o.MaxConns)
		config.MinConns = min(config.MinConns, config.MaxConns)
	}
	params := config.ConnConfig.RuntimeParams
	if o.Schema != "" {
		params["search_path"] = pgx.Identifier{o.Schema}.Sanitize()
	}
	// A lock that is taken first is of use only if what follows sees what was
	// committed before it was got.
	params["default_transaction_isolation"] = "read committed"
	// A process that stands still in the middle of a transaction keeps its locks.
	// None of ours is idle for longer than a round trip.
	if params["idle_in_transaction_session_timeout"] == "" {
		params["idle_in_transaction_session_timeout"] = "30s"
	}
	if o.ReadOnly {
		params["default_transaction_read_only"] = "on"
	}
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("pgstore: %w", err)
	}
	db := &DB{o: o, pool: pool}
	if err = db.prepare(ctx, migrations()); err == nil {
		err = db.claim(ctx)
	}
	if err == nil {
		err = db.keepLease(ctx)
	}
	if err != nil {
		pool.Close()
		return nil, fmt.Errorf("pgstore: %w", ended(ctx, err))
	}
	return db, nil
}

// dsnError is err without the DSN, of which pgx hides not all passwords. What it
// says of a malformed URL may quote one, too.
func dsnError(err error) error {
	why := err.Error()
	if i := strings.LastIndex(why, "`: "); i >= 0 {
		why = why[i+len("`: "):]
	}
	if strings.Contains(why, "URL") {
		why = "not a URL"
	}
	return errors.New("pgstore: the DSN cannot be parsed: " + why)
}

// Close waits for calls under way and closes all connections but those of Lead.
func (db *DB) Close() { db.pool.Close() }

// Lease returns that of this DB, which is what Options say or else what was kept
// when it was opened.
func (db *DB) Lease() time.Duration { return db.lease }

// Ping tells whether the database answers.
func (db *DB) Ping(ctx context.Context) error { return ended(ctx, db.pool.Ping(ctx)) }

// Blobs returns the view of blobs and upload sessions.
func (db *DB) Blobs() *Blobs { return &Blobs{db} }

// Manifests returns the view of manifests, tags, referrers and events.
func (db *DB) Manifests() *Manifests { return &Manifests{db} }

// Pulls returns the view of last pulls.
func (db *DB) Pulls() *Pulls { return &Pulls{db} }

// Repositories returns the view of the repositories that were made, with their
// settings.
func (db *DB) Repositories() *Repositories { return &Repositories{db} }

func (db *DB) now() time.Time {
	if db.o.Now != nil {
		return db.o.Now().UTC()
	}
	return time.Now().UTC()
}

// lock returns the key of an advisory lock. They are one number space in a
// database, which others may use too: a collision makes somebody wait.
func (db *DB) lock(kind, name string) int64 {
	sum := sha256.Sum256([]byte("wharfage\x00" + db.schema + "\x00" + kind + "\x00" + name))
	return int64(binary.BigEndian.Uint64(sum[:]))
}
