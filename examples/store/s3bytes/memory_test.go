package s3bytes

import (
	"fmt"
	"io"
	"runtime"
	"sync"
	"testing"

	"github.com/wharfage/wharfage/examples/store/s3bytes/s3test"
)

// Eight parts of 16 MiB are read and eight uploaded at any time, and none of
// that is in memory.
func TestMemoryIsFlat(t *testing.T) {
	const part, size, most = 16 << 20, 40 << 20, 32 << 20
	s := s3test.Start(t)
	o := over(t, s, s.Endpoint)
	o.PartSize = part
	var mu sync.Mutex
	var peak uint64
	sample := func() {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		mu.Lock()
		defer mu.Unlock()
		peak = max(peak, m.HeapAlloc)
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			key := fmt.Sprint("a/", i)
			if n, err := o.Put(t.Context(), key, &sampled{bytesOf(key, size), sample, 0}); err != nil || n != size {
				t.Errorf("Put = %d, %v", n, err)
			}
		})
	}
	wg.Wait()
	if t.Logf("the heap had %d KiB at most", peak>>10); peak > most {
		t.Errorf("eight puts at once used %d bytes of heap, want at most %d", peak, most)
	}
}

// sampled calls sample with each MiB.
type sampled struct {
	r      io.Reader
	sample func()
	n      int
}

func (s *sampled) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if s.n += n; s.n >= 1<<20 {
		s.n = 0
		s.sample()
	}
	return n, err
}
