//go:build linux

package crash

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// mutants lose something when the power fails. Each is a process that does
// something wrong, or one whose calls are played as if it left something out.
var mutants = []struct {
	name   string
	stores []string
	plan   func(*plan)
	disk   func(*disk)
}{
	{"syncs nothing", []string{"dirblob", "boltstore"}, func(p *plan) { p.Unsynced = true }, nil},
	{"acknowledges before it is done", []string{"dirblob", "boltstore"}, func(p *plan) { p.Early = true }, nil},
	{"does not sync folders", []string{"dirblob", "boltstore"}, nil, func(d *disk) { d.noFolderSync = true }},
	{"does not sync files", []string{"dirblob", "boltstore"}, nil, func(d *disk) { d.noFileSync = true }},
}

// TestPowerLossFindsMutants: what loses data is found in the first few
// histories.
func TestPowerLossFindsMutants(t *testing.T) {
	const most = 5
	for _, m := range mutants {
		for _, name := range m.stores {
			t.Run(name+" "+m.name, func(t *testing.T) {
				t.Parallel()
				for seed := range uint64(most) {
					p := plan{Store: name, Seed: seed, Ops: 20, Workers: 1}
					if m.plan != nil {
						m.plan(&p)
					}
					r := record(t, p)
					d := newDisk(r.root)
					if m.disk != nil {
						m.disk(d)
					}
					err := r.lose(t, d, new(figures))
					if errors.Is(err, errLoss) {
						t.Logf("history %d: %.200v …", seed, err)
						return
					}
					if err != nil {
						t.Fatal(err)
					}
				}
				t.Errorf("%d histories, and nothing was lost", most)
			})
		}
	}
}

// TestDiskKeepsWhatWasSynced: the model by itself, on a log of few lines.
func TestDiskKeepsWhatWasSynced(t *testing.T) {
	const path = `"\x2f\x72\x2f\x61"` // /r/a
	const log = `7 1.000000 openat(AT_FDCWD, ` + path + `, O_WRONLY|O_CREAT|O_CLOEXEC, 0666) = 3
7 1.000001 write(3, "\x78\x79", 2) = 2
7 1.000002 fsync(3 <unfinished ...>
8 1.000003 write(3, "\x7a", 1) = 1
7 1.000004 <... fsync resumed>) = 0
7 1.000005 openat(AT_FDCWD, "\x2f\x72", O_RDONLY) = 4
7 1.000006 fsync(4) = 0
7 1.000007 fsync(9) = -1 EBADF (Bad file descriptor)
7 1.000008 renameat(AT_FDCWD, ` + path + `, AT_FDCWD, "\x2f\x72\x2f\x62") = 0
`
	var got []string
	d := newDisk("/r")
	all, err := events(strings.NewReader(log))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		if !e.end {
			err = d.begin(e.call)
		} else if err = d.end(e.call); err == nil {
			for _, f := range []fate{{}, {entries: true}} {
				got = append(got, e.name+contentOf(t, d, f))
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	want := []string{
		"openat", "openat a=",
		"write", "write a=",
		"write", "write a=",
		"fsync", "fsync a=xy", // without z, which came after its begin
		"openat", "openat a=xy",
		"fsync a=xy", "fsync a=xy",
		"renameat a=xy", "renameat b=xy",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// contentOf lists the files of a disk after a crash.
func contentOf(t *testing.T, d *disk, f fate) (text string) {
	dir := filepath.Join(ramDir(t), "r")
	if err := f.write(d, dir); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		content, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		text += " " + e.Name() + "=" + strings.TrimRight(string(content), "\x00")
	}
	return text
}
