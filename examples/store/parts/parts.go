// Package parts is what lies between rows in a database and bytes in
// [blob.Objects]: content as a list of objects, uploads that grow by objects,
// and keys that tell which of them nothing can refer to any more. boltstore and
// pgstore are built on it.
//
// # Why a list
//
// Each call that brings bytes writes objects of its own under fresh keys. So two
// calls at once cannot overwrite each other, nothing is ever copied or renamed,
// and a lost race is a few objects to delete. A blob that came in one request,
// as those of most clients do, is one object.
//
// # Eras
//
// A key carries the era in which it was made, a number that the database counts
// up with each sweep. The transaction that first refers to a key checks that
// its era is still open, and a sweep closes an era before it looks for objects
// of it that nothing refers to: whatever it finds can never be referred to. No
// clock decides that, only when an era is closed.
//
// # Whose objects
//
// A sweep takes for strays whatever its own database does not refer to. So
// Objects are for one database, which marks them with its ID: see [Claim].
package parts

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/wharfage/wharfage/blob"
)

// Part is one object of a Content.
type Part struct {
	Key  string `json:"key"`
	Size int64  `json:"size"` // bytes
}

// Content is bytes in parts, one after the other. The tail follows them: what is
// too short for an object of its own, and only sessions have.
type Content struct {
	Parts []Part
	Tail  []byte
}

// Size returns how many bytes c has.
func (c Content) Size() int64 {
	n := int64(len(c.Tail))
	for _, p := range c.Parts {
		n += p.Size
	}
	return n
}

// Without returns the keys of c that other does not have.
func (c Content) Without(other Content) (keys []string) {
	have := make(map[string]bool, len(other.Parts))
	for _, p := range other.Parts {
		have[p.Key] = true
	}
	for _, p := range c.Parts {
		if !have[p.Key] {
			keys = append(keys, p.Key)
		}
	}
	return keys
}

// DefaultMinPart is the MinPart of a Files that has none, in bytes.
const DefaultMinPart = 1 << 20

// Files writes and reads contents.
type Files struct {
	Objects blob.Objects
	NewKey  func() string // as [NewKey] makes them
	MinPart int           // of an upload, in bytes: shorter chunks wait in the tail; 0 means DefaultMinPart
}

// Put makes an object of what r yields. An error leaves nothing, as Objects.Put
// says.
func (f *Files) Put(ctx context.Context, r io.Reader) (Content, error) {
	key := f.NewKey()
	n, err := f.Objects.Put(ctx, key, r)
	if err != nil {
		return Content{}, err
	}
	return Content{Parts: []Part{{key, n}}}, nil
}

// Append returns c with what r yields behind it. c stays as it is, and its
// objects too. An error leaves nothing.
func (f *Files) Append(ctx context.Context, c Content, r io.Reader) (Content, error) {
	least := f.MinPart
	if least == 0 {
		least = DefaultMinPart
	}
	var tail bytes.Buffer
	tail.Write(c.Tail)
	_, err := io.CopyN(&tail, contextReader{ctx, r}, int64(max(least-len(c.Tail), 0)))
	if err == io.EOF {
		return Content{Parts: c.Parts, Tail: tail.Bytes()}, nil
	}
	if err != nil {
		return Content{}, err
	}
	next, err := f.Put(ctx, io.MultiReader(&tail, r))
	if err != nil {
		return Content{}, err
	}
	return Content{Parts: append(c.Parts[:len(c.Parts):len(c.Parts)], next.Parts...)}, nil
}

// Seal returns c without a tail: if it has one, or is empty, that becomes an
// object. An error leaves nothing.
func (f *Files) Seal(ctx context.Context, c Content) (Content, error) {
	if len(c.Tail) == 0 && len(c.Parts) > 0 {
		return c, nil
	}
	last, err := f.Put(ctx, bytes.NewReader(c.Tail))
	if err != nil {
		return Content{}, err
	}
	return Content{Parts: append(c.Parts[:len(c.Parts):len(c.Parts)], last.Parts...)}, nil
}

// Drop deletes objects that nothing refers to any more. What cannot be deleted
// within 10 seconds is left to a sweep. It works on when ctx has ended.
func (f *Files) Drop(ctx context.Context, keys ...string) {
	const patience = 10 * time.Second // the caller, who has all that was asked for, waits
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	for _, key := range keys {
		if ctx.Err() != nil {
			return
		}
		f.Objects.Delete(ctx, key)
	}
}

// Probe tells why o cannot store an object, by doing so. What it stores is gone
// when it returns, or else a stray from the first.
func Probe(ctx context.Context, o blob.Objects) error {
	const closed = 0 // is no era that a database counts from
	f := Files{Objects: o}
	key := NewKey(closed, time.Now())
	if _, err := o.Put(ctx, key, strings.NewReader("can be stored\n")); err != nil {
		return err
	}
	f.Drop(ctx, key)
	return nil
}

// Open returns n bytes of c from off on, -1 for all. off is not beyond the end.
// An object that is missing is an error that matches blob.ErrNotFound; the
// caller knows what that means. What the reader finds missing later on is an
// error that does not.
func (f *Files) Open(ctx context.Context, c Content, off, n int64) (io.ReadCloser, error) {
	if rest := c.Size() - off; n < 0 || n > rest {
		n = rest
	}
	if len(c.Tail) == 0 && len(c.Parts) == 1 {
		return f.openPart(ctx, c.Parts[0], off, n)
	}
	for len(c.Parts) > 0 && off >= c.Parts[0].Size {
		off -= c.Parts[0].Size
		c.Parts = c.Parts[1:]
	}
	r := &reader{f: f, ctx: ctx, rest: c, off: off, n: n}
	if err := r.next(); err != nil {
		return nil, err
	}
	return r, nil
}

// Whole tells whether the objects of c are there, with their sizes: false is
// damage, or that somebody has deleted them. It costs an Open of each.
func (f *Files) Whole(ctx context.Context, c Content) (bool, error) {
	for _, p := range c.Parts {
		r, object, err := f.Objects.Open(ctx, p.Key, 0, 0)
		if errors.Is(err, blob.ErrNotFound) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		if err := r.Close(); err != nil || object.Size != p.Size {
			return false, err
		}
	}
	return true, nil
}

func (f *Files) openPart(ctx context.Context, p Part, off, n int64) (io.ReadCloser, error) {
	r, object, err := f.Objects.Open(ctx, p.Key, off, n)
	if errors.Is(err, blob.ErrRange) {
		return nil, fmt.Errorf("object %s has not its %d bytes: %v", p.Key, p.Size, err)
	}
	if err != nil {
		return nil, err
	}
	if object.Size != p.Size {
		r.Close()
		return nil, fmt.Errorf("object %s has %d bytes, not %d", p.Key, object.Size, p.Size)
	}
	return r, nil
}

// reader reads one part after the other.
type reader struct {
	f    *Files
	ctx  context.Context
	rest Content // what is not open yet
	off  int64   // into rest
	n    int64   // bytes yet to be returned
	part io.ReadCloser
	err  error // sticky
}

// next opens the next part; after the last one part is nil.
func (r *reader) next() error {
	if r.part != nil {
		r.part.Close()
		r.part = nil
	}
	switch {
	case r.n == 0:
	case len(r.rest.Parts) > 0:
		p := r.rest.Parts[0]
		part, err := r.f.openPart(r.ctx, p, r.off, min(r.n, p.Size-r.off))
		if err != nil {
			return err
		}
		r.part, r.rest.Parts, r.off = part, r.rest.Parts[1:], 0
	case r.off+r.n <= int64(len(r.rest.Tail)):
		r.part = io.NopCloser(bytes.NewReader(r.rest.Tail[r.off : r.off+r.n]))
	default:
		return io.ErrUnexpectedEOF
	}
	return nil
}

// turn is next for what comes after the first part.
func (r *reader) turn() error {
	err := r.next()
	if errors.Is(err, blob.ErrNotFound) {
		err = fmt.Errorf("read on: %v", err)
	}
	return err
}

func (r *reader) Read(p []byte) (int, error) {
	for r.part != nil && r.err == nil {
		n, err := r.part.Read(p)
		if r.n -= int64(n); err == io.EOF {
			err = r.turn()
		}
		if r.err = err; n > 0 || err != nil || len(p) == 0 {
			return n, err
		}
	}
	if r.err != nil {
		return 0, r.err
	}
	return 0, io.EOF
}

// WriteTo lets each part be sent in the way that suits it.
func (r *reader) WriteTo(w io.Writer) (total int64, err error) {
	for r.part != nil && r.err == nil {
		var n int64
		n, r.err = io.Copy(w, r.part)
		total += n
		if r.n -= n; r.err == nil {
			r.err = r.turn()
		}
	}
	return total, r.err
}

func (r *reader) Close() error {
	if r.part != nil {
		return r.part.Close()
	}
	return nil
}

type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (r contextReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

// State is what an Upload's State holds: c, and a name that no other version of
// a session has, so that it can be compared to tell whether somebody else has
// saved meanwhile.
func State(c Content) []byte {
	var b bytes.Buffer
	b.WriteString(rand.Text())
	b.WriteByte('\n')
	for _, p := range c.Parts {
		fmt.Fprintf(&b, "%s %d\n", p.Key, p.Size)
	}
	b.WriteByte('\n')
	b.Write(c.Tail)
	return b.Bytes()
}

// ParseState reads what [State] wrote. It may have been anywhere since: what is
// none matches blob.ErrConflict.
func ParseState(state []byte) (Content, error) {
	bad := fmt.Errorf("not a state of this store: %w", blob.ErrConflict)
	_, rest, ok := bytes.Cut(state, []byte("\n"))
	if !ok {
		return Content{}, bad
	}
	var c Content
	for {
		line, after, ok := bytes.Cut(rest, []byte("\n"))
		if !ok {
			return Content{}, bad
		}
		if rest = after; len(line) == 0 {
			break
		}
		key, size, _ := strings.Cut(string(line), " ")
		n, err := strconv.ParseInt(size, 10, 64)
		if _, isKey := Era(key); err != nil || n < 0 || !isKey {
			return Content{}, bad
		}
		c.Parts = append(c.Parts, Part{key, n})
	}
	if len(rest) > 0 {
		c.Tail = bytes.Clone(rest)
	}
	return c, nil
}

// ErrEra is a key whose era was closed before anything referred to it: what
// made it took longer than the grace that sweeps give.
var ErrEra = errors.New("the write took too long, and a collection has overtaken it")

// NewKey returns a key that nobody else has. Its first component spreads keys
// over 256 folders; its second sorts by time, so that rows of keys are appended
// to their index.
func NewKey(era uint64, now time.Time) string {
	var r [11]byte
	rand.Read(r[:])
	return fmt.Sprintf("%02x/%08x-%014x-%x", r[0], era, max(now.UnixMicro(), 0), r[1:])
}

// Era returns the era that a key was made in. It is false for what NewKey did
// not make.
func Era(key string) (era uint64, ok bool) {
	const form = "00/00000000-00000000000000-00000000000000000000"
	if len(key) != len(form) {
		return 0, false
	}
	for i := range len(form) {
		c := key[i]
		if form[i] != '0' && c != form[i] || form[i] == '0' && !('0' <= c && c <= '9' || 'a' <= c && c <= 'f') {
			return 0, false
		}
	}
	era, err := strconv.ParseUint(key[3:11], 16, 64)
	return era, err == nil
}

// Name returns the second component of a key, which is unique too.
func Name(key string) string { return key[3:] }
