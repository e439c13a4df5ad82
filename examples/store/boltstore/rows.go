package boltstore

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"

	"github.com/wharfage/wharfage/examples/store/parts"
)

// The tables. A key is made of names that end in a zero byte, digests as
// appendDigest writes them, and a rest. A name has a version: another form of
// rows is another table.
const (
	metaRows       = iota
	eraRows        // era → when it began
	contentRows    // digest → content; digest, repository → nothing, for each repository that has a link
	linkRows       // repository, digest → link; repository, digest, key of the body of a manifest that needs it → digest of that
	keyRows        // short form of a key that something refers to → nothing if it is an object's, or else the place in a pack; by time
	sessionRows    // ID → session
	manifestRows   // repository, digest → record; behind that 't' and a tag, or 'p' and the digest of a parent → nothing
	tagRows        // repository, tag → tag
	referrerRows   // repository, subject, 'a', digest → JSON; repository, subject, 't', hash of the type, digest → JSON
	eventRows      // sequence number → event
	pullRows       // repository, digest → time
	jobRows        // number → replication.Entry
	jobKeyRows     // what jobs are found by, see jobs.go
	repositoryRows // name of a repository that was made, without a zero byte → settings
)

var buckets = [...][]byte{
	metaRows:       []byte("meta"),
	eraRows:        []byte("eras.1"),
	contentRows:    []byte("contents.1"),
	linkRows:       []byte("links.1"),
	keyRows:        []byte("keys.1"),
	sessionRows:    []byte("sessions.1"),
	manifestRows:   []byte("manifests.1"),
	tagRows:        []byte("tags.1"),
	referrerRows:   []byte("referrers.1"),
	eventRows:      []byte("events.1"),
	pullRows:       []byte("pulls.1"),
	jobRows:        []byte("jobs.1"),
	jobKeyRows:     []byte("jobkeys.1"),
	repositoryRows: []byte("repositories.1"),
}

// Rows of meta.
var (
	schemaRow  = []byte("schema")
	madeRow    = []byte("made")     // when the store was made
	eraRow     = []byte("era")      // the current one
	openEraRow = []byte("open era") // the oldest whose keys may be referred to from now on
)

var nothing = []byte{} // nil would be no row

// tx is a transaction.
type tx struct {
	bolt  *bolt.Tx
	packs *packs
	open  [len(buckets)]*bolt.Bucket
	wrote bool // since the queue has looked
}

func (t *tx) table(i int) *bolt.Bucket {
	b := t.open[i]
	if b == nil {
		b = t.bolt.Bucket(buckets[i])
		if i == keyRows || i == eventRows {
			b.FillPercent = 0.95 // rows come in order
		}
		t.open[i] = b
	}
	return b
}

func (t *tx) get(table int, key []byte) []byte { return t.table(table).Get(key) }
func (t *tx) has(table int, key []byte) bool   { return t.get(table, key) != nil }

// writeError is a row that bbolt refuses.
type writeError struct{ error }

// put keeps value, which must not change before the end of the transaction.
func (t *tx) put(table int, key, value []byte) {
	t.wrote = true
	if err := t.table(table).Put(key, value); err != nil {
		panic(writeError{err})
	}
}

func (t *tx) delete(table int, key []byte) {
	t.wrote = true
	if err := t.table(table).Delete(key); err != nil {
		panic(writeError{err})
	}
}

// under yields the rows whose keys begin with prefix, from the key from on.
// Nothing must be written meanwhile.
func (t *tx) under(table int, prefix, from []byte) iter.Seq2[[]byte, []byte] {
	return func(yield func(k, v []byte) bool) {
		c := t.table(table).Cursor()
		for k, v := c.Seek(from); k != nil && bytes.HasPrefix(k, prefix); k, v = c.Next() {
			if !yield(k, v) {
				return
			}
		}
	}
}

// heads is under for those keys that are prefix and a digest, however many
// there are that go on behind it.
func (t *tx) heads(table int, prefix, from []byte) iter.Seq2[[]byte, []byte] {
	return func(yield func(k, v []byte) bool) {
		const few = 8
		c := t.table(table).Cursor()
		passed := 0
		for k, v := c.Seek(from); k != nil && bytes.HasPrefix(k, prefix); {
			switch n := len(prefix) + digestLen(k[len(prefix):]); {
			case len(k) == n:
				if passed = 0; !yield(k, v) {
					return
				}
			case passed < few:
				passed++
			default:
				passed = 0
				k, v = c.Seek(append(bytes.Clone(k[:n]), 0xff))
				continue
			}
			k, v = c.Next()
		}
	}
}

// name returns a prefix for the rows of a repository or what else has a name.
func name(s string, more ...string) []byte {
	n := len(s) + 1 + sha512Len
	for _, m := range more {
		n += len(m) + 1
	}
	b := append(append(make([]byte, 0, n), s...), 0)
	for _, m := range more {
		b = append(append(b, m...), 0)
	}
	return b
}

// A digest in a key is a byte for the algorithm and the sum, in the order of
// the text.
const (
	otherAlgorithm = iota // in values only
	sha256Byte
	sha512Byte
	sha256Len = 1 + 32
	sha512Len = 1 + 64
)

func digestLen(b []byte) int {
	if len(b) > 0 && b[0] == sha512Byte {
		return sha512Len
	}
	return sha256Len
}

// appendDigest is false for a digest that cannot be in a key, since nothing is
// stored under it.
func appendDigest(b []byte, d digest.Digest) ([]byte, bool) {
	var alg byte
	switch {
	case len(d) == 7+2*32 && d[:7] == "sha256:":
		alg = sha256Byte
	case len(d) == 7+2*64 && d[:7] == "sha512:":
		alg = sha512Byte
	default:
		return b, false
	}
	n := len(b)
	out, err := hex.AppendDecode(append(b, alg), []byte(d[7:]))
	if err != nil {
		return b[:n], false
	}
	return out, true
}

// digestRow is prefix and a digest, which is one that is stored.
func digestRow(prefix []byte, d digest.Digest) []byte {
	b, _ := appendDigest(prefix[:len(prefix):len(prefix)], d)
	return b
}

// readDigest reads what begins with a digest, and returns its length.
func readDigest(b []byte) (d digest.Digest, n int) {
	n = digestLen(b)
	if len(b) < n {
		return "", len(b)
	}
	var text [7 + 2*64]byte
	alg := "sha256:"
	if b[0] == sha512Byte {
		alg = "sha512:"
	}
	return digest.Digest(hex.AppendEncode(append(text[:0], alg...), b[1:n])), n
}

// afterDigest returns the least digest in a key, or what is beyond all, whose
// text is greater than after, which is any text.
func afterDigest(after string) []byte {
	for i, alg := range []string{"sha256:", "sha512:"} {
		size := 32 << i
		if after < alg {
			return []byte{byte(i + sha256Byte)}
		}
		if len(after) < len(alg) || after[:len(alg)] != alg {
			continue
		}
		if sum, ok := afterHex(after[len(alg):], size); ok {
			return append([]byte{byte(i + sha256Byte)}, sum...)
		}
		return []byte{byte(i + sha256Byte + 1)}
	}
	return []byte{sha512Byte + 1}
}

// afterHex returns the least sum of so many bytes whose text is greater than
// after. It is false when there is none.
func afterHex(after string, size int) ([]byte, bool) {
	const digits = "0123456789abcdef"
	sum := make([]byte, size)
	set := func(i, d int) { sum[i/2] |= byte(d) << (4 * (1 - i%2)) }
	i := 0
	for ; i < len(after) && i < 2*size; i++ {
		d := 0
		for d < 16 && digits[d] < after[i] {
			d++
		}
		if d == 16 {
			break // as after all that begin with what was read
		}
		if set(i, d); digits[d] != after[i] {
			return sum, true
		}
	}
	if i == len(after) && i < 2*size {
		return sum, true
	}
	// The next one that begins differently in the first i digits.
	for i--; i >= 0; i-- {
		d := int(sum[i/2] >> (4 * (1 - i%2)) & 15)
		sum[i/2] &^= 15 << (4 * (1 - i%2))
		if d < 15 {
			set(i, d+1)
			return sum, true
		}
	}
	return nil, false
}

// The short form of a key is such that keys sort by their time: era, time,
// 10 random bytes, and the one that is first in the text.
const shortLen = 4 + 7 + 10 + 1

func appendKey(b []byte, key string) []byte {
	if _, ok := parts.Era(key); !ok {
		panic("no key of parts.NewKey: " + key)
	}
	for _, s := range [...]string{key[3:11], key[12:26], key[27:], key[:2]} {
		b, _ = hex.AppendDecode(b, []byte(s))
	}
	return b
}

func unpackKey(b string) string {
	return fmt.Sprintf("%x/%x-%x-%x", b[21:], b[:4], b[4:11], b[11:21])
}

// refer is for keys that a row refers to from now on, if none did: step 2 of
// model/packs.pml.
func (t *tx) refer(keys ...string) {
	for _, key := range keys {
		row := appendKey(nil, key)
		if at, packed := t.packs.where(key); packed {
			t.put(keyRows, row, placeRow(at))
			t.notePack(at.pack)
		} else if !t.has(keyRows, row) {
			t.put(keyRows, row, nothing)
		}
	}
}

// unrefer is for keys that no row refers to any more.
func (t *tx) unrefer(keys ...string) {
	for _, key := range keys {
		t.delete(keyRows, appendKey(nil, key))
	}
}

// unreferenced returns those of keys that no row refers to.
func (t *tx) unreferenced(keys []string) (free []string) {
	for _, key := range keys {
		if !t.has(keyRows, appendKey(nil, key)) {
			free = append(free, key)
		}
	}
	return free
}

func numberRow(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

// number is 0 for what is none.
func number(b []byte) uint64 {
	if len(b) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(b)
}

const timeLen = 8 + 4

// appendTime keeps any time, the zero time too.
func appendTime(b []byte, t time.Time) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(t.Unix()))
	return binary.BigEndian.AppendUint32(b, uint32(t.Nanosecond()))
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendDigests(b []byte, dgsts []digest.Digest) []byte {
	b = binary.AppendUvarint(b, uint64(len(dgsts)))
	for _, d := range dgsts {
		b = appendAnyDigest(b, d)
	}
	return b
}

func appendAnyDigest(b []byte, d digest.Digest) []byte {
	b, ok := appendDigest(b, d)
	if !ok {
		b = appendString(append(b, otherAlgorithm), string(d))
	}
	return b
}

// row reads a value from its begin. What it returns shares memory with s. After
// an error it returns zeros.
type row struct {
	s   string
	err error
}

var errRow = errors.New("damaged row in the database")

func (r *row) take(n uint64) string {
	if r.err != nil || n > uint64(len(r.s)) {
		r.s, r.err = "", errRow
		return ""
	}
	out := r.s[:n]
	r.s = r.s[n:]
	return out
}

func (r *row) byte() byte {
	if s := r.take(1); s != "" {
		return s[0]
	}
	return 0
}

func (r *row) uvarint() uint64 {
	var n uint64
	for shift := 0; shift < 64; shift += 7 {
		c := r.byte()
		n |= uint64(c&0x7f) << shift
		if c < 0x80 {
			return n
		}
	}
	r.err = errRow
	return 0
}

func (r *row) string() string { return r.take(r.uvarint()) }

func (r *row) time() time.Time {
	s := r.take(timeLen)
	if s == "" {
		return time.Time{}
	}
	sec := int64(binary.BigEndian.Uint64([]byte(s[:8])))
	return time.Unix(sec, int64(binary.BigEndian.Uint32([]byte(s[8:])))).UTC()
}

// count is how many things of at least one byte follow.
func (r *row) count() int {
	n := r.uvarint()
	if n > uint64(len(r.s)) {
		r.err = errRow
		return 0
	}
	return int(n)
}

func (r *row) digest() digest.Digest {
	if r.s == "" || r.s[0] == otherAlgorithm {
		r.byte()
		return digest.Digest(r.string())
	}
	d, n := readDigest([]byte(r.s[:min(len(r.s), sha512Len)]))
	r.take(uint64(max(n, 1)))
	if d == "" {
		r.err = errRow
	}
	return d
}

func (r *row) digests() []digest.Digest {
	n := r.count()
	if n == 0 {
		return nil
	}
	out := make([]digest.Digest, 0, n)
	for range n {
		out = append(out, r.digest())
	}
	return out
}

// version refuses a row of a form that is not known here.
func (r *row) version(known byte) {
	if v := r.byte(); r.err == nil && v != known {
		r.err = fmt.Errorf("%w: form %d", errRow, v)
	}
}

// content and link are what there is of blobs.

const contentForm = 1

func contentRow(c parts.Content) []byte {
	b := make([]byte, 0, 2+len(c.Parts)*(shortLen+4))
	b = binary.AppendUvarint(append(b, contentForm), uint64(len(c.Parts)))
	for _, p := range c.Parts {
		b = binary.AppendUvarint(appendKey(b, p.Key), uint64(p.Size))
	}
	return b
}

func readContent(b []byte) (parts.Content, error) {
	r := row{s: string(b)}
	r.version(contentForm)
	n := r.count()
	var c parts.Content
	for range n {
		if key := r.take(shortLen); r.err == nil {
			c.Parts = append(c.Parts, parts.Part{Key: unpackKey(key), Size: int64(r.uvarint())})
		}
	}
	return c, r.err
}

type link struct {
	touched time.Time
	size    int64
}

func linkRow(l link) []byte {
	return binary.AppendUvarint(appendTime(make([]byte, 0, timeLen+4), l.touched), uint64(l.size))
}

func readLink(b []byte) (link, error) {
	r := row{s: string(b)}
	l := link{r.time(), int64(r.uvarint())}
	return l, r.err
}
