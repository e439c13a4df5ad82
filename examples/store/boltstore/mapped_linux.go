package boltstore

import (
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
)

// mapped lets go of pages of the database that listings have brought into the memory of the
// process. The system would take them back when it wants memory, but until then a process
// that has once listed everything is as large as the database.
type mapped struct{ listed atomic.Uint64 }

const (
	mostMapped  = 64 << 20 // bytes of files in memory, above which a listing unmaps
	listedCheck = 2048     // rows asked for from one look to the next: between listings, more is looked up and mapped
)

// trim is called by a listing that asks for n rows, within its transaction, which keeps
// the database where it is mapped. What it unmaps stays in the system's cache, so that
// coming back takes no read.
func (m *mapped) trim(t *tx, n int) {
	now := m.listed.Add(uint64(n))
	if now/listedCheck != (now-uint64(n))/listedCheck && filesMapped() > mostMapped {
		// After an error the pages stay, which is no harm.
		syscall.Syscall(syscall.SYS_MADVISE, t.bolt.DB().Info().Data, uintptr(t.bolt.Size()), syscall.MADV_DONTNEED)
	}
}

// filesMapped is how many bytes of files are in the memory of this process, or 0 if it may not know.
func filesMapped() int64 {
	statm, err := os.ReadFile("/proc/self/statm")
	var size, resident, shared int64
	if err == nil {
		_, err = fmt.Sscan(string(statm), &size, &resident, &shared)
	}
	if err != nil {
		return 0
	}
	return shared * int64(os.Getpagesize())
}
