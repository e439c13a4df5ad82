package dirblob

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
)

// stage makes a file that nobody sees yet, synced. On error there is none.
func (o *Objects) stage(ctx context.Context, fill func(*os.File) (int64, error)) (path string, n int64, err error) {
	if err := ctx.Err(); err != nil {
		return "", 0, err
	}
	path = filepath.Join(o.Dir, temp, random())
	var f *os.File
	err = o.inFolder(filepath.Dir(path), func() (err error) {
		f, err = create(path)
		return err
	})
	if err != nil {
		return "", 0, err
	}
	n, err = o.fill(f, fill)
	return path, n, err
}

func create(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
}

// fill fills, syncs and closes f; on error it removes it.
func (o *Objects) fill(f *os.File, fill func(*os.File) (int64, error)) (int64, error) {
	n, err := fill(f)
	if err == nil && !o.Unsynced {
		o.syncing(f.Name())
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return n, err
}

// publish moves a staged file to path, durably. On error it removes it. mu is
// held while that happens, if there is one.
func (o *Objects) publish(file, path string, mu *sync.Mutex) error {
	err := o.move(file, path, mu)
	if err != nil {
		if e := os.Remove(file); errors.Is(err, fs.ErrNotExist) && errors.Is(e, fs.ErrNotExist) {
			err = errSwept
		}
	}
	return err
}

func (o *Objects) move(old, path string, mu *sync.Mutex) error {
	return o.place(path, func() error {
		if mu != nil {
			mu.Lock()
			defer mu.Unlock()
		}
		return os.Rename(old, path)
	})
}

// place calls do, which makes path, with the folder of path in place, and syncs
// that.
func (o *Objects) place(path string, do func() error) error {
	defer o.beginSync(path)()
	dir := filepath.Dir(path)
	if err := o.inFolder(dir, do); err != nil {
		return err
	}
	return o.syncFolder(dir)
}

// inFolder calls do with the folder dir in place.
func (o *Objects) inFolder(dir string, do func() error) error {
	if err := o.makeFolder(dir); err != nil {
		return err
	}
	err := do()
	if errors.Is(err, fs.ErrNotExist) { // perhaps somebody has removed the folder
		o.mu.Lock()
		clear(o.made)
		o.mu.Unlock()
		if err := o.makeFolder(dir); err != nil {
			return err
		}
		err = do()
	}
	return err
}

// makeFolder makes dir, which is Dir or in it, and the folders on the way to
// it, durably.
func (o *Objects) makeFolder(dir string) error {
	if o.isMade(dir) {
		return nil
	}
	var err error
	if root := filepath.Clean(o.Dir); dir == root {
		o.root.Lock() // or another call finds a folder above it, and does not know that it is not synced yet
		defer o.root.Unlock()
		err = o.makeRoot(dir)
	} else if err = o.makeFolder(filepath.Dir(dir)); err == nil {
		err = o.makeIn(dir)
	}
	if err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.made == nil || len(o.made) >= maxMade {
		o.made = map[string]struct{}{}
	}
	o.made[dir] = struct{}{}
	return nil
}

func (o *Objects) isMade(dir string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	_, made := o.made[dir]
	return made
}

// makeRoot makes dir, and folders above it if there are none.
func (o *Objects) makeRoot(dir string) error {
	err := o.makeIn(dir)
	if errors.Is(err, fs.ErrNotExist) && filepath.Dir(dir) != dir {
		if err = o.makeRoot(filepath.Dir(dir)); err == nil {
			err = o.makeIn(dir)
		}
	}
	return err
}

// makeIn makes dir in a folder that is there.
func (o *Objects) makeIn(dir string) error {
	if err := os.Mkdir(dir, 0o777); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	// Also when it was there already: who made it may not have synced yet, or may have been killed.
	return o.syncFolder(filepath.Dir(dir))
}

func (o *Objects) syncFolder(dir string) error {
	if o.Unsynced {
		return nil
	}
	o.syncing(dir)
	return syncFolder(dir)
}

func (o *Objects) syncFile(path string) error {
	if o.Unsynced {
		return nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	o.syncing(path)
	return f.Sync()
}

// beginSync is for what may be seen at path before it is durable. It is over when the function
// that it returns is called.
func (o *Objects) beginSync(path string) (end func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.visible == nil {
		o.visible = map[string]int{}
	}
	o.visible[path]++
	return func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.visible[path]--; o.visible[path] == 0 {
			delete(o.visible, path)
		}
	}
}

// finishSync makes what was seen at path durable, unless it is.
func (o *Objects) finishSync(path string) error {
	o.mu.Lock()
	_, visible := o.visible[path]
	o.mu.Unlock()
	if !visible {
		return nil
	}
	if err := o.syncFile(path); err != nil {
		return err
	}
	return o.syncFolder(filepath.Dir(path))
}

func (o *Objects) syncing(path string) {
	if o.syncs != nil {
		o.syncs(path)
	}
}

// appendFiles copies files to f, with the operating system's help where it
// offers some.
func appendFiles(ctx context.Context, f *os.File, paths []string) (int64, error) {
	var total int64
	for _, path := range paths {
		if err := ctx.Err(); err != nil {
			return total, err
		}
		from, err := os.Open(path)
		if err != nil {
			return total, err
		}
		n, err := io.Copy(f, from)
		from.Close()
		total += n
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

// copy writes what r yields to f.
func (o *Objects) copy(ctx context.Context, f *os.File, r io.Reader) (int64, error) {
	buf := o.buffer()
	defer o.buffers.Put(buf)
	var total int64
	for {
		n, err := readBlock(ctx, r, buf[:])
		if err != nil && err != io.EOF {
			return total, err
		}
		if n > 0 {
			if _, err := f.Write(buf[:n]); err != nil {
				return total, err
			}
			total += int64(n)
		}
		if err == io.EOF {
			return total, nil
		}
	}
}

func (o *Objects) buffer() *[bufferSize]byte {
	if b, ok := o.buffers.Get().(*[bufferSize]byte); ok {
		return b
	}
	return new([bufferSize]byte)
}

// readBlock fills p. Its error is nil only if p is full.
func readBlock(ctx context.Context, r io.Reader, p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		if err = ctx.Err(); err != nil {
			return n, err
		}
		var k int
		k, err = r.Read(p[n:])
		n += k
	}
	if n == len(p) && err == io.EOF {
		err = nil // it will say so again
	}
	return n, err
}
