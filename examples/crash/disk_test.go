//go:build linux

package crash

import (
	"bytes"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// disk is a file system that follows the calls of a process on the folder root,
// and knows of each file and folder what was synced and what was not. A sync
// covers the calls that ended before it began. Calls on other folders do not
// exist for it.
type disk struct {
	root string
	top  *node // synced, and empty at first
	open map[int64]*descriptor
	sync map[string]synced // by thread, under way

	under []*call // that have begun, and not ended

	ops                    uint64
	kept, shown, unsettled int // count changes: of what is synced, of what processes see, of contents they see

	// Mutants of the process: it behaves as if it did not sync folders, or files.
	noFolderSync, noFileSync bool
}

// descriptor is shared by copies of itself.
type descriptor struct {
	path    string // as opened
	node    *node  // nil if outside root
	pos     int64
	appends bool
}

// node is a file or a folder.
type node struct {
	entries map[string]*node // nil: it is a file
	file    file
	mtime   time.Time

	// What the disk has, and what it may have beside.
	keptEntries map[string]*node
	keptFile    file
	keptMtime   time.Time
	pending     []change
	gone        int // changes that were before pending
}

// change is one to an entry of a folder, or to the content of a file.
type change struct {
	op   uint64 // both entries of a rename have one
	name string
	to   *node // nil: no longer there
	off  int64
	data []byte // written at off; nil: cut or grown to off
}

// file is data, and zeros up to size.
type file struct {
	data []byte
	size int64
}

type synced struct {
	node    *node
	changes int
	mtime   time.Time
}

func newDisk(root string) *disk {
	return &disk{root: root, top: newFolder(), open: map[int64]*descriptor{}, sync: map[string]synced{}}
}

func newFolder() *node {
	return &node{entries: map[string]*node{}, keptEntries: map[string]*node{}}
}

// begin notes what a call does at its begin: what a sync covers, and which
// number others may get while a descriptor is closed.
func (d *disk) begin(c *call) error {
	d.under = append(d.under, c)
	switch c.name {
	case "fsync", "fdatasync", "close":
	default:
		return nil
	}
	fd, err := c.number(0)
	if err != nil {
		return err
	}
	f := d.open[fd]
	if c.name == "close" {
		delete(d.open, fd)
	} else if f != nil && f.node != nil {
		n := f.node
		d.sync[c.thread] = synced{n, n.gone + len(n.pending), n.mtime}
	}
	return nil
}

// end does what a call did, unless it was done already.
func (d *disk) end(c *call) error {
	i := slices.Index(d.under, c)
	if i < 0 {
		return nil
	}
	d.under = slices.Delete(d.under, i, i+1)
	d.ops++
	err := d.do(c)
	for i := 0; err != nil && i < len(d.under); i++ {
		// Perhaps it built on what another thread's call has done, whose end is yet to come.
		other := d.under[i]
		d.ops++
		if changesFolder[other.name] && d.do(other) == nil {
			d.under = slices.Delete(d.under, i, i+1)
			i = -1
			err = d.do(c)
		}
	}
	if err != nil {
		return fmt.Errorf("%v: %w", c, err)
	}
	return nil
}

var changesFolder = map[string]bool{"openat": true, "mkdirat": true, "renameat": true, "renameat2": true, "linkat": true, "unlinkat": true}

func (d *disk) do(c *call) error {
	switch c.name {
	case "close":
		return nil
	case "open", "creat":
		return errors.New("not expected of Go")
	case "openat":
		return d.openat(c)
	case "dup", "dup2", "dup3":
		fd, err := c.number(0)
		if f := d.open[fd]; f != nil {
			d.open[c.result] = f
		}
		return err
	case "lseek", "write", "writev", "pwrite64", "pwritev", "pwritev2", "copy_file_range", "sendfile", "splice", "ftruncate", "fallocate":
		return d.content(c)
	case "fsync", "fdatasync":
		s, ok := d.sync[c.thread]
		delete(d.sync, c.thread)
		if ok {
			d.settle(s, c.name == "fdatasync")
		}
		return nil
	case "mkdirat":
		return d.entry(c, 0, func(in *node, name string) error { return d.set(in, name, newFolder()) })
	case "unlinkat":
		return d.entry(c, 0, func(in *node, name string) error { return d.set(in, name, nil) })
	case "renameat", "renameat2", "linkat":
		var moved *node
		move := func(in *node, name string) error {
			if moved = in.entries[name]; moved == nil {
				return errors.New("there is none")
			}
			return nil
		}
		if err := d.entry(c, 0, move); err != nil || moved == nil {
			return err
		}
		same := false
		err := d.entry(c, 2, func(in *node, name string) error {
			if same = in.entries[name] == moved; same {
				return nil
			}
			return d.set(in, name, moved)
		})
		if err != nil || same || c.name == "linkat" {
			return err
		}
		return d.entry(c, 0, func(in *node, name string) error { return d.set(in, name, nil) })
	case "utimensat":
		return d.utimensat(c)
	}
	return d.entry(c, 0, func(*node, string) error { return errors.New("the model does not know this call") })
}

// entry calls do with the folder and the name that the arguments i and i+1 say,
// if those are below root.
func (d *disk) entry(c *call, i int, do func(in *node, name string) error) error {
	path, err := c.bytes(i + 1)
	if err != nil {
		return err
	}
	at := d.top
	rest := strings.TrimPrefix(string(path), d.root+"/")
	if strings.HasPrefix(string(path), "/") {
		if rest == string(path) {
			return nil
		}
	} else {
		fd, err := c.number(i)
		if err != nil || d.open[fd] == nil || d.open[fd].node == nil {
			return nil // relative to the working folder, or elsewhere
		}
		at = d.open[fd].node
	}
	names := strings.Split(filepath.Clean(rest), "/")
	for _, name := range names[:len(names)-1] {
		if at = at.entries[name]; at == nil || at.entries == nil {
			return errors.New("the model has no such folder")
		}
	}
	return do(at, names[len(names)-1])
}

func (d *disk) set(in *node, name string, to *node) error {
	if to == nil && in.entries[name] == nil {
		return errors.New("there is none")
	}
	if to == nil {
		delete(in.entries, name)
	} else {
		in.entries[name] = to
	}
	in.pending = append(in.pending, change{op: d.ops, name: name, to: to})
	d.shown++
	return nil
}

func (d *disk) openat(c *call) error {
	path, err := c.bytes(1)
	if err != nil {
		return err
	}
	f := &descriptor{path: string(path)}
	d.open[c.result] = f
	if f.path == d.root {
		f.node = d.top
	}
	flags := c.args[2]
	return d.entry(c, 0, func(in *node, name string) error {
		n := in.entries[name]
		if name == "." {
			n = in
		}
		if n == nil {
			if !strings.Contains(flags, "O_CREAT") {
				return errors.New("the model has none")
			}
			n = &node{mtime: c.at}
			if err := d.set(in, name, n); err != nil {
				return err
			}
		} else if strings.Contains(flags, "O_TRUNC") {
			d.write(n, change{}, c.at)
		}
		f.node, f.appends = n, strings.Contains(flags, "O_APPEND")
		return nil
	})
}

// content does the calls that work on a descriptor's bytes.
func (d *disk) content(c *call) error {
	numbers := make([]int64, len(c.args))
	for i := range c.args {
		numbers[i], _ = c.number(i)
	}
	f := d.open[numbers[0]]
	var from *descriptor
	switch c.name {
	case "copy_file_range", "splice":
		from, f = f, d.open[numbers[2]]
	case "sendfile":
		from = d.open[numbers[1]]
	}
	if f == nil || f.node == nil || f.node.entries != nil {
		return nil
	}
	if f.appends {
		f.pos = f.node.file.size
	}
	var data []byte
	var err error
	at, moves := f.pos, true
	switch c.name {
	case "lseek":
		f.pos = c.result
		return nil
	case "write", "writev":
		data, err = c.bytes(1)
	case "pwrite64", "pwritev", "pwritev2":
		data, err = c.bytes(1)
		at, moves = numbers[3], false
	case "copy_file_range":
		if from == nil || from.node == nil || c.args[1] != "NULL" || c.args[3] != "NULL" {
			return errors.New("the model knows no source of this kind")
		}
		end := from.pos + c.result
		if end > from.node.file.size {
			return errors.New("the model has not as much to copy")
		}
		data, from.pos = from.node.file.read(from.pos, c.result), end
	case "ftruncate":
		d.write(f.node, change{off: numbers[1]}, c.at)
		return nil
	default:
		return errors.New("the model does not know this call")
	}
	if err != nil || int64(len(data)) < c.result {
		return fmt.Errorf("%d bytes of %d in the log: %w", len(data), c.result, err)
	}
	if c.result == 0 {
		return nil
	}
	data = data[:c.result]
	d.write(f.node, change{off: at, data: data}, c.at)
	if moves {
		f.pos = at + c.result
	}
	return nil
}

func (d *disk) write(n *node, c change, at time.Time) {
	c.op = d.ops
	n.file, n.mtime = c.apply(n.file), at
	n.pending = append(n.pending, c)
	d.unsettled++
}

// apply returns f with c done to it, in place if possible.
func (c change) apply(f file) file {
	if c.data == nil {
		return file{f.data[:min(c.off, int64(len(f.data)))], c.off}
	}
	end := c.off + int64(len(c.data))
	if more := end - int64(len(f.data)); more > 0 {
		f.data = append(f.data, make([]byte, more)...)
	}
	copy(f.data[c.off:], c.data)
	f.size = max(f.size, end)
	return f
}

// read returns n bytes from off on.
func (f file) read(off, n int64) []byte {
	b := make([]byte, n)
	if off < int64(len(f.data)) {
		copy(b, f.data[off:])
	}
	return b
}

func (d *disk) utimensat(c *call) error {
	if len(c.args) < 3 {
		return errors.New("too few arguments")
	}
	times := c.args[2]
	i := strings.LastIndex(times, "{tv_sec=")
	if i < 0 {
		return errors.New("no time of modification")
	}
	var sec, nsec int64
	if _, err := fmt.Sscanf(times[i:], "{tv_sec=%d, tv_nsec=%d}", &sec, &nsec); err != nil {
		return err
	}
	return d.entry(c, 0, func(in *node, name string) error {
		n := in.entries[name]
		if n == nil {
			return errors.New("there is none")
		}
		n.mtime = time.Unix(sec, nsec)
		d.unsettled++
		return nil
	})
}

// settle makes durable what a sync covers. That of data alone leaves out times.
func (d *disk) settle(s synced, dataOnly bool) {
	n := s.node
	if n.entries != nil && d.noFolderSync || n.entries == nil && d.noFileSync {
		return
	}
	covered := s.changes - n.gone
	if covered < 0 {
		covered = 0 // another sync has come before
	}
	for _, c := range n.pending[:covered] {
		n.apply(n.keptEntries, &n.keptFile, c)
		d.kept++
	}
	n.pending, n.gone = slices.Clone(n.pending[covered:]), n.gone+covered
	if !dataOnly && !n.keptMtime.Equal(s.mtime) {
		n.keptMtime = s.mtime
		d.kept++
	}
}

func (n *node) apply(entries map[string]*node, f *file, c change) {
	switch {
	case n.entries == nil:
		*f = c.apply(*f)
	case c.to == nil:
		delete(entries, c.name)
	default:
		entries[c.name] = c.to
	}
}

// fate is what becomes of what was not synced.
type fate struct {
	name    string
	entries bool // changes of folders survive, contents do not
	random  bool // a seed decides on each entry, and each sector of a write
	seed    uint64
}

const sector = 512

func (f fate) coin(op uint64, what int64) bool {
	h := fnv.New64a()
	fmt.Fprint(h, f.seed, " ", op, " ", what)
	return h.Sum64()>>7&1 == 1
}

func (f fate) keepsEntry(c change) bool { return f.entries || f.random && f.coin(c.op, -1) }

func (f fate) content(n *node) (file, time.Time) {
	if len(n.pending) == 0 && n.keptMtime.Equal(n.mtime) || !f.entries && !f.random {
		return n.keptFile, n.keptMtime
	}
	kept, mtime := n.keptFile, n.keptMtime
	if f.entries || f.coin(uint64(n.gone), -2) {
		mtime = n.mtime
	}
	for i, c := range n.pending {
		if i == 0 {
			kept.data = bytes.Clone(kept.data)
		}
		switch {
		case c.data == nil:
			if f.entries || f.coin(c.op, -3) {
				kept = c.apply(kept)
			}
		case f.entries:
			if f.coin(c.op, -4) { // space is taken, nothing is written to it
				kept.size = max(kept.size, c.off+int64(len(c.data)))
			}
		default:
			for off := c.off; off < c.off+int64(len(c.data)); {
				end := min(off-off%sector+sector, c.off+int64(len(c.data)))
				if f.coin(c.op, off/sector) {
					kept = change{off: off, data: c.data[off-c.off : end-c.off]}.apply(kept)
				}
				off = end
			}
		}
	}
	return kept, mtime
}

// write makes the empty folder dir what is on the disk after a crash.
func (f fate) write(d *disk, dir string) error {
	return f.writeNode(d.top, dir, map[*node]string{})
}

func (f fate) writeNode(n *node, path string, written map[*node]string) error {
	if n.entries == nil {
		if other, ok := written[n]; ok {
			return os.Link(other, path)
		}
		written[n] = path
		kept, mtime := f.content(n)
		err := os.WriteFile(path, kept.data, 0o666)
		if err == nil && kept.size > int64(len(kept.data)) {
			err = os.Truncate(path, kept.size)
		}
		if err == nil && !mtime.IsZero() {
			err = os.Chtimes(path, time.Time{}, mtime)
		}
		return err
	}
	if _, ok := written[n]; ok {
		return nil // a folder that was moved, at its old place
	}
	written[n] = path
	if err := os.Mkdir(path, 0o777); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	entries := n.keptEntries
	if f.entries {
		entries = n.entries
	} else if f.random && len(n.pending) > 0 {
		entries = maps.Clone(entries)
		for _, c := range n.pending {
			if f.keepsEntry(c) {
				n.apply(entries, nil, c)
			}
		}
	}
	for name, to := range entries {
		if err := f.writeNode(to, filepath.Join(path, name), written); err != nil {
			return err
		}
	}
	return nil
}

// differs compares what processes see by the model with what is in dir.
func (d *disk) differs(dir string) error { return d.top.differs(dir) }

func (n *node) differs(path string) error {
	if n.entries == nil {
		data, err := os.ReadFile(path)
		if err == nil && !bytes.Equal(data, n.file.read(0, n.file.size)) {
			err = fmt.Errorf("%s has %d bytes, the model %d, which differ", path, len(data), n.file.size)
		}
		return err
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return err
	}
	if len(entries) != len(n.entries) {
		return fmt.Errorf("%s has %d entries, the model %d", path, len(entries), len(n.entries))
	}
	for name, to := range n.entries {
		if err := to.differs(filepath.Join(path, name)); err != nil {
			return err
		}
	}
	return nil
}
