package lifecycle

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

// The defaults of a [Buffer].
const (
	DefaultFlushAt = 1024
	DefaultLimit   = 32 << 10
	DefaultEvery   = time.Hour
)

// ErrFull is a pull that a [Buffer] has dropped, since what it holds could not
// be written for too long.
var ErrFull = errors.New("too many pulls wait to be written")

// Buffer gathers pulls in memory and writes them to an Activity in batches. A
// registry adds each pull, and calls Flush from time to time, before it reads
// the Activity, and when it ends: what was not flushed is lost with the process.
//
// A Buffer is not an Activity, since what is added is not durable. It starts no
// goroutine. It must not be copied after its first use; its fields must not be
// changed after it.
type Buffer struct {
	Activity Activity // where pulls are written

	FlushAt int // Add flushes when so many digests wait; a batch is no larger. 0 means DefaultFlushAt
	Limit   int // no more digests wait than that; and of twice as many is remembered, in 60 bytes each, that they were written. 0 means DefaultLimit

	// Every is how much too early the recorded pull of a digest may be: one that
	// is less than that later than the one written last is not written. 0 means
	// DefaultEvery; a negative value has all of them written.
	Every time.Duration

	mu      sync.Mutex
	writer  chan struct{} // holds one element while a flush is under way; a channel, so that waiting honours ctx
	waiting map[image]time.Time
	writing map[image]time.Time // what a flush under way has taken out of waiting
	written written
	older   written   // what written was before it had grown to the limit, or was as old as Every
	begun   time.Time // of the first pull in written
	added   int       // new digests in waiting since the last flush began
}

type image struct {
	repo   string
	digest digest.Digest
}

// written is when the pulls were that were written last, in nanoseconds since 1970, by the
// begin of a hash: of many images little is remembered, and nothing that a collector of
// garbage would have to follow.
type written map[[16]byte]int64

func (i image) key() [16]byte {
	sum := sha256.Sum256(append(append([]byte(i.repo), 0), i.digest...))
	return [16]byte(sum[:])
}

func (b *Buffer) every() time.Duration { return cmp.Or(b.Every, DefaultEvery) }

func (b *Buffer) limits() (flushAt, limit int) {
	limit = cmp.Or(b.Limit, DefaultLimit)
	return min(cmp.Or(b.FlushAt, DefaultFlushAt), limit), limit
}

// Add takes note of a pull. It flushes when enough of them wait, on this
// goroutine, unless another flush is under way.
//
// The error is that of the flush, after which the pull waits on: the next flush
// is due when as many more have come. Or it matches ErrFull: then the pull is
// lost.
func (b *Buffer) Add(ctx context.Context, repo string, p Pull) error {
	due, err := b.add(image{repo, p.Digest}, p.At)
	if !due {
		return err
	}
	writer := b.turn()
	select {
	case writer <- struct{}{}:
	default:
		return err
	}
	defer func() { <-writer }()
	if flushErr := b.flush(ctx); flushErr != nil {
		return errors.Join(err, flushErr)
	}
	if err != nil { // there is room now
		_, err = b.add(image{repo, p.Digest}, p.At)
	}
	return err
}

func (b *Buffer) add(i image, at time.Time) (due bool, err error) {
	flushAt, limit := b.limits()
	key := i.key()
	b.mu.Lock()
	defer b.mu.Unlock()
	if at.IsZero() || b.recent(i, key, at) {
		return false, nil
	}
	if have, waits := b.waiting[i]; waits {
		if at.After(have) {
			b.waiting[i] = at
		}
		return false, nil
	}
	b.added++
	due = b.added >= flushAt
	if len(b.waiting)+len(b.writing) >= limit {
		return due, fmt.Errorf("pull of %s in %s: %w", i.digest, i.repo, ErrFull)
	}
	// Clones, since what a caller has may be a piece of a whole request.
	b.wait(image{strings.Clone(i.repo), digest.Digest(strings.Clone(string(i.digest)))}, at)
	return due, nil
}

func (b *Buffer) wait(i image, at time.Time) {
	if b.waiting == nil {
		b.waiting = map[image]time.Time{}
	}
	b.waiting[i] = at
}

// recent tells whether a pull adds nothing to what was written, or is about to
// be.
func (b *Buffer) recent(i image, key [16]byte, at time.Time) bool {
	covers := func(last time.Time) bool { return !at.After(last) || at.Sub(last) < b.every() }
	if last, ok := b.writing[i]; ok && covers(last) {
		return true
	}
	for _, known := range [...]written{b.written, b.older} {
		if last, ok := known[key]; ok && covers(time.Unix(0, last)) {
			return true
		}
	}
	return false
}

// Flush writes what waits. It waits itself for a flush that is under way. What
// could not be written is kept, and the error says why; of several it is the
// first.
func (b *Buffer) Flush(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	writer := b.turn()
	select {
	case writer <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-writer }()
	return b.flush(ctx)
}

func (b *Buffer) turn() chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.writer == nil {
		b.writer = make(chan struct{}, 1)
	}
	return b.writer
}

// flush is for who has its turn.
func (b *Buffer) flush(ctx context.Context) error {
	b.mu.Lock()
	b.writing, b.waiting, b.added = b.waiting, nil, 0
	b.mu.Unlock()

	var first error
	for _, batch := range b.batches() {
		err := ctx.Err()
		if err == nil {
			err = b.Activity.Touch(ctx, batch[0].repo, b.pulls(batch))
		}
		b.settle(batch, err == nil)
		if err != nil && first == nil {
			first = fmt.Errorf("write pulls of %s: %w", batch[0].repo, err)
		}
	}
	return first
}

// batches splits what is being written: sorted, so that no two processes lock
// each other's rows in a circle, and each for one repository.
func (b *Buffer) batches() (out [][]image) {
	images := make([]image, 0, len(b.writing))
	for i := range b.writing {
		images = append(images, i)
	}
	slices.SortFunc(images, func(a, b image) int {
		return cmp.Or(cmp.Compare(a.repo, b.repo), cmp.Compare(a.digest, b.digest))
	})
	flushAt, _ := b.limits()
	for len(images) > 0 {
		n := 1
		for n < len(images) && n < flushAt && images[n].repo == images[0].repo {
			n++
		}
		out, images = append(out, images[:n]), images[n:]
	}
	return out
}

func (b *Buffer) pulls(batch []image) []Pull {
	pulls := make([]Pull, len(batch))
	for n, i := range batch {
		pulls[n] = Pull{i.digest, b.writing[i]}
	}
	return pulls
}

// settle ends the writing of a batch: it is written, or waits again.
func (b *Buffer) settle(batch []image, ok bool) {
	_, limit := b.limits()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, i := range batch {
		at := b.writing[i]
		delete(b.writing, i)
		if !ok {
			if at.After(b.waiting[i]) { // a later one may have come
				b.wait(i, at)
			}
			continue
		}
		if aged := b.every() > 0 && at.Sub(b.begun) >= b.every(); len(b.written) >= limit || b.written != nil && aged {
			b.older, b.written = b.written, nil
		}
		if b.written == nil {
			b.written, b.begun = written{}, at
		}
		b.written[i.key()] = at.UnixNano()
	}
}
