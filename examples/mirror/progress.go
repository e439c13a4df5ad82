package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/term"

	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/replication"
)

const tick = 200 * time.Millisecond

// progress shows the events of a round: as a bar on a terminal, as lines elsewhere, as
// JSON if that was asked for, or not at all.
type progress struct {
	c     *command
	width func() int // of the terminal; nil draws no bar
	ended chan struct{}
	ticks sync.WaitGroup

	mu           sync.Mutex
	found, done  [2]int           // blobs and manifests
	got          map[string]int64 // of what is under way, by repository and digest, in bytes
	last         replication.Event
	moved, drawn int64 // bytes that were read, and how many at the last drawing
	rate         float64
	told         time.Time // when JSON last told of bytes
}

func (c *command) progress() *progress {
	p := &progress{c: c, ended: make(chan struct{}), got: map[string]int64{}}
	f, _ := c.stderr.(*os.File)
	if c.quiet || c.events || c.dryRun || f == nil || !term.IsTerminal(int(f.Fd())) || os.Getenv("TERM") == "dumb" {
		return p
	}
	p.width = func() int {
		width, _, err := term.GetSize(int(f.Fd()))
		if err != nil || width < 1 {
			return 80
		}
		return width
	}
	p.ticks.Go(func() {
		for t := time.NewTicker(tick); ; {
			select {
			case <-t.C:
				p.draw()
			case <-p.ended:
				t.Stop()
				return
			}
		}
	})
	return p
}

func (p *progress) end() {
	close(p.ended)
	p.ticks.Wait()
	p.above(func() {})
}

// above prints something where the bar is, which comes again below it.
func (p *progress) above(print func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.width != nil {
		fmt.Fprintf(p.c.stderr, "\r%*s\r", p.width()-1, "")
	}
	print()
}

// draw draws the bar, and no more than fits into a line.
func (p *progress) draw() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rate += 0.3 * (float64(p.moved-p.drawn)/tick.Seconds() - p.rate)
	p.drawn = p.moved
	const long = 20
	t, part := p.last.Total, 0.0
	if t.Bytes > 0 {
		part = float64(t.DoneBytes) / float64(t.Bytes)
	}
	line := fmt.Sprintf("%3.0f%% [%-*s] %s of %s, %s/s, %d of %d blobs, %d of %d manifests", 100*part, long, strings.Repeat("=", int(long*part)),
		size(t.DoneBytes), size(t.Bytes), size(int64(p.rate)), p.done[0], p.found[0], p.done[1], p.found[1])
	if n := len(p.got); n > 0 {
		line += fmt.Sprintf(", %d under way: %.19s at %s of %s", n, p.last.Desc.Digest, size(p.last.Bytes), size(p.last.Desc.Size))
	}
	width := p.width() - 1
	fmt.Fprintf(p.c.stderr, "\r%-*.*s", width, width, line)
}

// event is the OnEvent of a copy.
func (p *progress) event(e replication.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	kind, it := 0, e.Repo+" "+string(e.Desc.Digest)
	if e.Desc.MediaType == "" || manifest.KindOf(e.Desc.MediaType) != manifest.KindOpaque {
		kind = 1
	}
	p.last = e
	switch e.Kind {
	case replication.EventFound:
		p.found[kind]++
	case replication.EventBegan:
		p.got[it] = 0
	case replication.EventBytes:
		if p.got[it] > 0 { // else they may be where an earlier run has ended
			p.moved += max(0, e.Bytes-p.got[it])
		}
		p.got[it] = e.Bytes
	default:
		p.done[kind]++
		delete(p.got, it)
	}
	switch {
	case p.c.events && (e.Kind != replication.EventBytes || time.Since(p.told) >= tick):
		if e.Kind == replication.EventBytes {
			p.told = time.Now()
		}
		p.c.line(struct {
			Event      replication.EventKind `json:"event"`
			Repository string                `json:"repository"`
			Descriptor ocispec.Descriptor    `json:"descriptor"`
			Bytes      int64                 `json:"bytes,omitempty"` // of it, so far
			Done       int                   `json:"done"`
			Objects    int                   `json:"objects"`
			DoneBytes  int64                 `json:"doneBytes"`
			TotalBytes int64                 `json:"totalBytes"`
		}{e.Kind, e.Repo, e.Desc, e.Bytes, e.Total.Done, e.Total.Objects, e.Total.DoneBytes, e.Total.Bytes})
	case e.Kind == replication.EventSent, e.Kind == replication.EventMounted, e.Kind == replication.EventSkipped:
		p.say("%d/%d %s %s %s %s %s", e.Total.Done, e.Total.Objects, p.c.would(string(e.Kind)), e.Repo, e.Desc.Digest, size(e.Desc.Size), e.Desc.MediaType)
	}
}

// change is the OnChange of a sync.
func (p *progress) change(e replication.SyncChange) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.c.events {
		p.c.line(struct {
			Event string `json:"event"`
			replication.SyncChange
		}{"tag", e})
	}
	p.say("%s %s:%s", p.c.would(string(e.Kind)), e.Repo, e.Ref)
}

// say prints a line where there is no bar.
func (p *progress) say(format string, args ...any) {
	if p.width == nil && !p.c.quiet && !p.c.events {
		fmt.Fprintf(p.c.stderr, format+"\n", args...)
	}
}

// would is what is done, or with -dry-run would be.
func (c *command) would(done string) string {
	if c.dryRun {
		return "would be " + done
	}
	return done
}

// line prints JSON of one line.
func (c *command) line(v any) error { return json.NewEncoder(c.stdout).Encode(v) }

// size is a number of bytes for people.
func size(n int64) string {
	if n < 1024 {
		return fmt.Sprint(max(0, n), " B")
	}
	f, unit := float64(n)/1024, 0
	for f >= 1024 {
		f, unit = f/1024, unit+1
	}
	return fmt.Sprintf("%.1f %ciB", f, "KMGTPE"[unit])
}
