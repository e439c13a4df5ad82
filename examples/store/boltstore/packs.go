package boltstore

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/wharfage/wharfage/blob"
)

// packs are Objects in which short content shares files: to make a file of its
// own, and two syncs of it, would be most of a small push. Longer content is
// an object beneath.
//
// A pack is bytes and nothing else. Where content is in it, its place, is noted
// in pending when it is put, and in keyRows by the transaction that refers to
// its key. Space is not used again: what is left in a pack that has lost
// much moves to another, and the file goes; see reclaim. The protocol of it is
// checked in model/packs.pml, and comments name its steps.
type packs struct {
	blob.Objects // beneath; List knows only these
	db           *DB
	dir          string
	below        int // shorter content is packed; 0 is none, and packs are those of a time when some was
	unsynced     bool
	buffers      sync.Pool // of *[]byte, at least below long

	reclaiming sync.Mutex
	atOnce     int64 // bytes, about, that reclaim moves before it removes what it has moved them from

	writing sync.Mutex // for what follows; taken before mu
	current *pack      // nil until something is put
	next    uint32     // number of the next pack

	mu      sync.Mutex
	pending map[string]place // by key, of what nothing refers to yet
	open    map[uint32]*pack
}

const (
	packSize  = 64 << 20 // bytes; a pack that has so many is followed by the next
	openPacks = 64       // files kept open although nobody reads them
)

// pack is an open file.
type pack struct {
	number uint32
	file   *os.File
	end    int64 // of the file, if it was opened to be read only; else none
	uses   int   // under packs.mu; at 0 it may be closed

	size int64 // under packs.writing

	syncing chan struct{} // holds one element while a sync is under way; for what follows
	synced  int64
	broken  error // of a sync: what it was to make durable may be lost, whatever the next one says
}

// place is where packed content is.
type place struct{ pack, off, size uint32 }

// placeRow is the value in keyRows for content in a pack. For an object it is
// empty.
func placeRow(p place) []byte {
	b := binary.BigEndian.AppendUint32(make([]byte, 0, 12), p.pack)
	b = binary.BigEndian.AppendUint32(b, p.off)
	return binary.BigEndian.AppendUint32(b, p.size)
}

// readPlace is false for the value of an object.
func readPlace(v []byte) (p place, packed bool, err error) {
	switch len(v) {
	case 0:
		return place{}, false, nil
	case 12:
		n := binary.BigEndian.Uint32
		return place{n(v), n(v[4:]), n(v[8:])}, true, nil
	}
	return place{}, false, fmt.Errorf("%w: no place in a pack", errRow)
}

// packRow of meta is the highest number of a pack that a row has referred to.
var packRow = []byte("pack")

// notePack is for a pack that a row refers to from now on.
func (t *tx) notePack(n uint32) {
	if n := uint64(n); n > number(t.get(metaRows, packRow)) {
		t.put(metaRows, packRow, numberRow(n))
	}
}

// newPacks finds the number of the next pack: no process writes to those of
// another, of which it cannot know what was lost, nor to one that takes the name
// of a lost one, whose rows would find other bytes in it.
func newPacks(db *DB, beneath blob.Objects, dir string, below int) (*packs, error) {
	p := &packs{Objects: beneath, db: db, dir: dir, below: below, unsynced: db.Unsynced, next: 1, atOnce: 4 * packSize,
		pending: map[string]place{}, open: map[uint32]*pack{}}
	const least = 32 << 10 // what is read may have been packed when more was
	p.buffers.New = func() any { b := make([]byte, max(below, least)); return &b }
	numbers, err := p.numbers()
	if err == nil {
		err = db.view(context.Background(), func(t *tx) error {
			numbers = append(numbers, uint32(number(t.get(metaRows, packRow))))
			return nil
		})
	}
	for _, n := range numbers {
		p.next = max(p.next, n+1)
	}
	return p, err
}

func (p *packs) path(number uint32) string { return filepath.Join(p.dir, fmt.Sprintf("%08x", number)) }

// numbers returns those of the packs that there are.
func (p *packs) numbers() (all []uint32, err error) {
	entries, err := os.ReadDir(p.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, e := range entries {
		if n, err := strconv.ParseUint(e.Name(), 16, 32); err == nil && e.Type().IsRegular() && len(e.Name()) == 8 {
			all = append(all, uint32(n))
		}
	}
	return all, err
}

// Put implements [blob.Objects].
func (p *packs) Put(ctx context.Context, key string, r io.Reader) (int64, error) {
	buffer := p.buffers.Get().(*[]byte)
	defer p.buffers.Put(buffer)
	data, err := readShort((*buffer)[:p.below], r)
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return 0, err
	}
	if len(data) == p.below {
		return p.Objects.Put(ctx, key, io.MultiReader(bytes.NewReader(data), r))
	}
	_, end, err := p.write(key, data)
	if err == nil {
		err = end.sync(ctx)
	}
	if err != nil {
		p.forget(key)
		return 0, fmt.Errorf("put object %s: %w", key, err)
	}
	return int64(len(data)), nil
}

// readShort returns what r yields, or the begin of it if that fills buffer.
// Unlike with io.ReadFull, a reader that fails with ErrUnexpectedEOF has failed.
func readShort(buffer []byte, r io.Reader) ([]byte, error) {
	n := 0
	for n < len(buffer) {
		m, err := r.Read(buffer[n:])
		if n += m; err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	return buffer[:n], nil
}

// mark is where a pack ended at some time.
type mark struct {
	*packs
	pack *pack
	size int64
}

// write, step 1, appends data to the current pack. If it is for a key, that is
// pending before anything else can be appended. The mark is to be synced, once:
// then data is durable.
func (p *packs) write(key string, data []byte) (place, mark, error) {
	p.writing.Lock()
	defer p.writing.Unlock()
	if p.current != nil && p.current.size >= packSize {
		p.turn()
	}
	if p.current == nil {
		if err := p.create(); err != nil {
			return place{}, mark{}, err
		}
	}
	c := p.current
	if _, err := c.file.WriteAt(data, c.size); err != nil {
		return place{}, mark{}, err // the next one writes over it
	}
	at := place{c.number, uint32(c.size), uint32(len(data))}
	c.size += int64(len(data))
	p.mu.Lock()
	defer p.mu.Unlock()
	c.uses++
	if key != "" {
		p.pending[key] = at
	}
	return at, mark{p, c, c.size}, nil
}

// create makes the next pack the current one. writing is held.
func (p *packs) create() error {
	if err := os.MkdirAll(p.dir, 0o777); err != nil {
		return err
	}
	number := p.next
	p.next++
	f, err := os.OpenFile(p.path(number), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	if !p.unsynced {
		if err := syncFolders(p.dir, filepath.Dir(p.dir)); err != nil {
			f.Close()
			os.Remove(f.Name())
			return err
		}
	}
	p.current = &pack{number: number, file: f, end: math.MaxInt64, uses: 1, syncing: make(chan struct{}, 1)}
	p.mu.Lock()
	p.closeIdle(openPacks)
	p.open[number] = p.current
	p.mu.Unlock()
	return nil
}

// turn lets the next pack be the current one. writing is held, and there is a
// current one.
func (p *packs) turn() {
	c := p.current
	p.current = nil
	p.release(c)
}

// sync returns when all up to the mark is durable. Those who wait for one
// another share syncs.
func (m mark) sync(ctx context.Context) error {
	c := m.pack
	defer m.release(c)
	if m.unsynced {
		return nil
	}
	select {
	case c.syncing <- struct{}{}:
		defer func() { <-c.syncing }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if c.synced >= m.size || c.broken != nil {
		return c.broken
	}
	m.writing.Lock()
	size := c.size
	m.writing.Unlock()
	if c.broken = c.file.Sync(); c.broken == nil {
		c.synced = size
		return nil
	}
	m.writing.Lock()
	if m.current == c {
		m.turn()
	}
	m.writing.Unlock()
	return c.broken
}

// forget, step 3, ends what is pending of keys, when a transaction has written
// down where they are, or none will.
func (p *packs) forget(keys ...string) {
	if p == nil || len(keys) == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, key := range keys {
		delete(p.pending, key)
	}
}

// Delete implements [blob.Objects]. Packed content has no row any more; its bytes
// are for reclaim.
func (p *packs) Delete(ctx context.Context, key string) error {
	if _, pending := p.where(key); pending {
		p.forget(key)
		return ctx.Err()
	}
	return p.Objects.Delete(ctx, key)
}

// where returns the place of a key that is pending.
func (p *packs) where(key string) (at place, pending bool) {
	if p == nil {
		return place{}, false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	at, pending = p.pending[key]
	return at, pending
}

// find returns the place of a key, if its content is packed.
func (p *packs) find(ctx context.Context, key string) (at place, packed bool, err error) {
	if at, packed = p.where(key); p == nil || packed {
		return at, packed, ctx.Err()
	}
	err = p.db.view(ctx, func(t *tx) (err error) {
		at, packed, err = readPlace(t.get(keyRows, appendKey(nil, key)))
		return err
	})
	return at, packed, err
}

// Open implements [blob.Objects]: step 7.
func (p *packs) Open(ctx context.Context, key string, off, n int64) (io.ReadCloser, blob.Object, error) {
	var before place
	for {
		at, packed, err := p.find(ctx, key)
		switch {
		case err != nil:
			return nil, blob.Object{}, err
		case !packed:
			return p.Objects.Open(ctx, key, off, n)
		case off > int64(at.size):
			return nil, blob.Object{}, blob.ErrRange
		case at == before:
			return nil, blob.Object{}, fmt.Errorf("open object %s: pack %08x is missing: %w", key, at.pack, blob.ErrNotFound)
		}
		if rest := int64(at.size) - off; n < 0 || n > rest {
			n = rest
		}
		c, err := p.acquire(at.pack)
		if err == nil {
			begin := int64(at.off) + off
			if int64(at.off)+int64(at.size) > c.end {
				p.release(c)
				return nil, blob.Object{}, fmt.Errorf("open object %s: pack %08x ends before it does: %w", key, at.pack, blob.ErrNotFound)
			}
			return &section{p, c, begin, begin + n}, blob.Object{Key: key, Size: int64(at.size)}, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, blob.Object{}, fmt.Errorf("open object %s: %w", key, err)
		}
		before = at // moved meanwhile
	}
}

// section is a part of a pack.
type section struct {
	packs    *packs
	pack     *pack
	off, end int64
}

func (s *section) Read(b []byte) (int, error) {
	if s.off == s.end {
		return 0, io.EOF
	}
	n, err := s.pack.file.ReadAt(b[:min(int64(len(b)), s.end-s.off)], s.off)
	s.off += int64(n)
	if err == io.EOF {
		err = nil
		if n == 0 {
			err = io.ErrUnexpectedEOF
		}
	}
	return n, err
}

// WriteTo writes all at once, if it is no longer than what is packed now.
func (s *section) WriteTo(w io.Writer) (total int64, err error) {
	buffer := s.packs.buffers.Get().(*[]byte)
	defer s.packs.buffers.Put(buffer)
	for {
		n, err := s.Read(*buffer)
		if err == io.EOF {
			return total, nil
		}
		if err == nil {
			n, err = w.Write((*buffer)[:n])
		}
		if total += int64(n); err != nil {
			return total, err
		}
	}
}

func (s *section) Close() error {
	if s.pack != nil {
		s.packs.release(s.pack)
		s.pack, s.off = nil, s.end
	}
	return nil
}

// acquire returns a pack to be read and released.
func (p *packs) acquire(number uint32) (*pack, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.open[number]
	if c == nil {
		f, err := os.Open(p.path(number))
		if err != nil {
			return nil, err
		}
		info, err := f.Stat()
		if err != nil {
			f.Close()
			return nil, err
		}
		p.closeIdle(openPacks)
		c = &pack{number: number, file: f, end: info.Size()}
		p.open[number] = c
	}
	c.uses++
	return c, nil
}

func (p *packs) release(c *pack) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.uses--; c.uses == 0 && p.open[c.number] != c {
		c.file.Close()
	}
}

// closeIdle closes files that nobody uses, if so many are open. mu is held.
func (p *packs) closeIdle(most int) {
	for n, c := range p.open {
		if len(p.open) < most {
			return
		}
		if c.uses == 0 {
			delete(p.open, n)
			c.file.Close()
		}
	}
}

// stop closes all files.
func (p *packs) stop() {
	p.writing.Lock()
	defer p.writing.Unlock()
	if p.current != nil {
		p.turn()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closeIdle(0)
}
