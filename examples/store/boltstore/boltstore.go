// Package boltstore keeps a registry in a directory of one machine: rows in a
// bbolt file, bytes in files beside it, or wherever [Options.Objects] keeps
// them. It is the storage of a registry that has no database server. Short
// content, as most configurations, manifests and signatures are, shares files.
//
// All that must agree is in one database: links of blobs, upload sessions,
// manifests, tags, lists of referrers, events, jobs of replication, last pulls and
// settings of repositories. So a manifest is
// never visible without its blobs, and a blob that a manifest needs cannot be
// removed, whatever happens at once.
//
// # Durability
//
// Calls that write at the same time share one transaction and its two syncs, and
// those that bring short content one more sync; nobody waits for company. A push
// of a blob and its manifest costs two transactions, and two objects if they are
// long. What was acknowledged is durable unless
// Options.Unsynced says otherwise. A crash leaves at most objects that nothing
// refers to; [Blobs.Sweep] removes them.
//
// # One process
//
// A directory is for one DB at a time: the file is locked. Opening is quick,
// however much there is: nothing is scanned.
package boltstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/blob/dirblob"
	"github.com/wharfage/wharfage/examples/store/parts"
)

// Errors of [Open].
var (
	ErrInUse  = errors.New("another process has the store open")
	ErrSchema = errors.New("the store was written by a newer version of this program")
)

// Options say where a store is and how it works. Only Dir is required.
type Options struct {
	Dir string // made when there is none

	// Objects keeps the bytes of blobs, sessions and manifests. Nil means files in
	// the folder objects of Dir. They are marked as those of this store, and
	// those of another refused with an error that matches parts.ErrForeign.
	Objects blob.Objects

	// PackBelow is how long in bytes content must be for an object of its own. What is
	// shorter shares files in the folder packs of Dir. Zero means 64 KiB if Objects
	// is nil, and otherwise, as a negative value always, that nothing does. It may be
	// another each time: what is there stays readable.
	PackBelow int

	// Unsynced leaves it to the operating system when data reaches the disk. A
	// crash of the machine may then undo what was acknowledged, and spoil the
	// store; one of the process does not.
	Unsynced bool

	// Lease is kept in the store: zero means what is kept, and 24h at first. Stat
	// renews a touch that is older than half of it. A shorter one is refused with
	// [blob.LeaseError], since more was promised, unless ShortenLease says that
	// what was promised may go earlier.
	Lease        time.Duration
	ShortenLease bool

	Now        func() time.Time // nil means time.Now
	KeepEvents bool             // write an event for each change, to be read and forgotten by way of manifest.Outbox

	MinPart     int   // of an upload in bytes, as in parts.Files; zero means 64 KiB
	LinkAbove   int64 // blobs of so many bytes or more may be fetched from Objects, if it is a blob.Linker; zero means none
	CacheBytes  int   // of manifests kept in memory; zero means 16 MiB, negative none
	MaxSessions int   // without bytes yet, which are kept in memory; the next Begin matches blob.ErrTooMany; zero means 100,000
}

// DB is an open store. Its parts are [DB.Blobs], [DB.Manifests], [DB.Pulls],
// [DB.Jobs] and [DB.Repositories].
type DB struct {
	Options // completed
	bolt    *bolt.DB
	queue   queue
	files   parts.Files
	packs   *packs // nil if nothing is packed, nor was
	bodies  cache
	fresh   fresh
	mapped  mapped
	era     atomic.Uint64 // for new keys
	made    time.Time
}

const schema = 1

// Open opens the store in o.Dir, and makes it if there is none.
//
// Errors: ErrInUse, ErrSchema.
func Open(o Options) (*DB, error) {
	if o.PackBelow == 0 && o.Objects == nil {
		o.PackBelow = 64 << 10
	}
	if o.Objects == nil {
		o.Objects = &dirblob.Objects{Dir: filepath.Join(o.Dir, "objects"), Unsynced: o.Unsynced}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.CacheBytes == 0 {
		o.CacheBytes = 16 << 20
	}
	if o.MinPart == 0 {
		o.MinPart = 64 << 10 // what waits in a row makes the file large
	}
	if o.MaxSessions == 0 {
		o.MaxSessions = 100_000
	}
	db := &DB{Options: o, bodies: cache{most: o.CacheBytes}}
	db.files = parts.Files{Objects: o.Objects, MinPart: o.MinPart, NewKey: func() string { return parts.NewKey(db.era.Load(), o.Now()) }}
	db.fresh.most = o.MaxSessions
	if err := db.open(); err != nil {
		return nil, fmt.Errorf("open store in %s: %w", o.Dir, err)
	}
	return db, nil
}

func (db *DB) open() error {
	above, err := makeFolder(db.Dir)
	if err != nil {
		return err
	}
	const patience = time.Second // with a predecessor that is just ending
	o := bolt.Options{
		Timeout:      patience,
		FreelistType: bolt.FreelistMapType, // and synced, so that opening does not scan
		NoSync:       db.Unsynced,
		NoGrowSync:   db.Unsynced,
		NoStatistics: true, // they have a lock
	}
	if ^uint(0)>>32 != 0 && runtime.GOOS != "windows" { // where space for addresses is free, and is no file
		o.InitialMmapSize = 1 << 30 // a larger one later waits for all readers
	}
	file := filepath.Join(db.Dir, "store.bolt")
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
		if err := create(file, o); err != nil {
			return err
		}
	}
	b, err := bolt.Open(file, 0o666, &o)
	if errors.Is(err, bolterrors.ErrTimeout) {
		return ErrInUse
	}
	if err != nil {
		return err
	}
	db.bolt, db.queue.bolt = b, b
	if err = db.start(); err == nil {
		err = db.claim()
	}
	if err == nil {
		var p *packs
		if p, err = newPacks(db, db.Objects, filepath.Join(db.Dir, "packs"), max(db.PackBelow, 0)); p.below > 0 || p.next > 1 {
			db.packs, db.files.Objects, db.queue.packs = p, p, p
		}
	}
	if err == nil && !db.Unsynced { // also if there was a file: who made it may have been killed then
		err = syncFolders(db.Dir, above)
	}
	if err != nil {
		b.Close()
	}
	return err
}

// start checks the schema, which it makes in an empty file, and begins an era.
// Those before it are closed: whoever made keys in them is dead.
func (db *DB) start() error {
	if err := db.bolt.View(func(b *bolt.Tx) error {
		meta := b.Bucket(buckets[metaRows])
		if meta == nil {
			return nil
		}
		if v := number(meta.Get(schemaRow)); v != schema {
			return fmt.Errorf("%w: schema %d, this one knows %d", ErrSchema, v, schema)
		}
		return nil
	}); err != nil {
		return err
	}
	return db.bolt.Update(func(b *bolt.Tx) error {
		now := db.Now()
		for _, name := range buckets {
			if _, err := b.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		t := &tx{bolt: b}
		if t.get(metaRows, schemaRow) == nil {
			t.put(metaRows, schemaRow, numberRow(schema))
			t.put(metaRows, madeRow, appendTime(nil, now))
		}
		if err := db.identify(t); err != nil {
			return err
		}
		made := row{s: string(t.get(metaRows, madeRow))}
		db.made = made.time()
		era := t.beginEra(now)
		t.openFrom(era)
		db.era.Store(era)
		return made.err
	})
}

// makeFolder makes dir, and returns the lowest folder above it that was there.
func makeFolder(dir string) (above string, err error) {
	for above = filepath.Dir(filepath.Clean(dir)); ; above = filepath.Dir(above) {
		if _, err := os.Stat(above); err == nil || above == filepath.Dir(above) {
			return above, os.MkdirAll(dir, 0o777)
		}
	}
}

// create makes an empty database, and only then gives it its name: of one that is made in
// place, a crash of the machine could leave a half, which nobody can open.
func create(file string, o bolt.Options) error {
	fresh := file + ".new"
	if err := os.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	o.InitialMmapSize = 0
	b, err := bolt.Open(fresh, 0o666, &o)
	if err != nil {
		return err
	}
	if err := b.Close(); err != nil {
		return err
	}
	defer os.Remove(fresh)
	err = os.Link(fresh, file) // unlike Rename, it leaves alone what another process has made meanwhile
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil { // perhaps the file system has no links
		err = os.Rename(fresh, file)
	}
	return err
}

// syncFolders makes it durable that the files in dir are there, and the folders
// from above down to it. Windows cannot.
func syncFolders(dir, above string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	for dir = filepath.Clean(dir); ; dir = filepath.Dir(dir) {
		f, err := os.Open(dir)
		if err != nil {
			return err
		}
		err = f.Sync()
		f.Close()
		if err != nil || dir == above {
			return err
		}
	}
}

// Close ends the store, when calls under way have ended.
func (db *DB) Close() error {
	err := db.bolt.Close()
	if db.packs != nil {
		db.packs.stop()
	}
	return err
}

// Blobs returns the blobs of the store.
func (db *DB) Blobs() *Blobs { return &Blobs{db} }

// Manifests returns the manifests, tags and lists of referrers of the store.
func (db *DB) Manifests() *Manifests { return &Manifests{db} }

// Pulls returns the last pulls of the store.
func (db *DB) Pulls() *Pulls { return &Pulls{db} }

// Jobs returns the queue of replication jobs of the store.
func (db *DB) Jobs() *Jobs { return &Jobs{db} }

// Repositories returns the repositories that were made, with their settings.
func (db *DB) Repositories() *Repositories { return &Repositories{db} }

// view calls f with what was last committed. f neither waits nor keeps what it
// is given.
func (db *DB) view(ctx context.Context, f func(*tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	b, err := db.bolt.Begin(false)
	if err != nil {
		return err
	}
	defer b.Rollback()
	return f(&tx{bolt: b, packs: db.packs})
}

// update runs u in a transaction, which it may share. It is durable on return.
func (db *DB) update(ctx context.Context, f func(*tx) error) error {
	return db.queue.run(ctx, &update{do: f})
}

// settle ends a call that has put objects under the keys added, and was to leave nothing that
// refers to those of gone. It deletes what is of no use. If nobody knows whether the call has
// failed, that is left to a sweep.
func (db *DB) settle(ctx context.Context, failure error, added, gone []string) {
	if failure != nil {
		gone = added
	}
	ctx = context.WithoutCancel(ctx)
	var unsure *commitError
	var free []string
	if len(gone) > 0 && !errors.As(failure, &unsure) && db.view(ctx, func(t *tx) error {
		free = t.unreferenced(gone)
		return nil
	}) == nil {
		db.files.Drop(ctx, free...)
	}
	db.packs.forget(added...)
}

// old tells whether a touch is to be renewed now.
func (db *DB) old(touched, now time.Time) bool { return now.Sub(touched) > db.Lease/2 }
