package histories

import (
	"fmt"
	"time"
	"unicode"

	"github.com/opencontainers/go-digest"
	"pgregory.net/rapid"
)

// draws makes up the arguments of operations.
type draws struct{ t *rapid.T }

// even draws from 0 to evenMax-1, each as often as the others. Rapid's integers
// and samples favour the ends, which are no more interesting here than the rest;
// its choice among tables of runes is even, and easy to shrink.
var even = func() *rapid.Generator[rune] {
	tables := make([]*unicode.RangeTable, evenMax)
	for i := range tables {
		tables[i] = &unicode.RangeTable{R16: []unicode.Range16{{Lo: uint16(i), Hi: uint16(i), Stride: 1}}}
	}
	return rapid.RuneFrom(nil, tables...)
}()

const evenMax = 1 << 10

func (d draws) index(n int) int { return int(even.Draw(d.t, "")) * n / evenMax }

func from[T any](items []T) func(draws) T {
	return func(d draws) T { return items[d.index(len(items))] }
}

var (
	drawRepo     = from([]string{"a", "a", "a", "b", "b", "a/b"})
	drawTag      = from(tagNames)
	drawChunk    = from(chunks)
	drawType     = from(types)
	drawContent  = from(contents)
	drawDocument = func(d draws) *document { // the first, which others name, more often
		return documents[d.index(1+d.index(len(documents)))]
	}
	drawSubject   = func(d draws) digest.Digest { return subjects[d.index(len(subjects))] }
	drawBool      = from([]bool{false, true})
	drawSeldom    = from([]bool{false, false, false, false, false, false, true})
	drawAlgorithm = from([]digest.Algorithm{digest.SHA256, digest.SHA256, digest.SHA512})
	drawVariable  = from([]int{0, 1, 2})
	drawWait      = from([]time.Duration{time.Hour, 5 * time.Hour, 9 * time.Hour, 30 * time.Hour})
	drawAge       = from([]time.Duration{0, time.Hour, 9 * time.Hour})
	drawCount     = from([]int{1, 0, 2})
	drawNumber    = from([]int{0, 1, 2, 5, 100})
	drawName      = from([]string{"", "", "V1", "a", "a/b", "b", "v", "v1", "v2", "~"})
)

// drawAfter is where a listing of digests starts: mostly at the beginning, or
// after a digest, or after what is none.
func drawAfter(d draws) digest.Digest {
	switch drawNumber(d) {
	case 0, 1:
		return ""
	case 2:
		return drawDocument(d).record.Desc.Digest
	case 5:
		return drawContent(d).dgst
	}
	return oddAfter(d)
}

var oddAfter = from([]digest.Digest{"sha256", "sha256:7", "sha256:7fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff", "sha256:~", "sha512:", "sha512:8", "a", "~"})

// some draws a few items that differ by key.
func some[T any, K comparable](d draws, draw func(draws) T, key func(T) K) (out []T) {
	seen := map[K]bool{}
	for range drawCount(d) {
		if item := draw(d); !seen[key(item)] {
			seen[key(item)] = true
			out = append(out, item)
		}
	}
	return out
}

// opf makes an operation.
func opf(do func(*run), format string, args ...any) op {
	return op{fmt.Sprintf(format, args...), do}
}

// kinds of operations, each as often as its weight says.
var kinds = func() (out []func(draws) op) {
	for _, k := range []struct {
		weight int
		draw   func(draws) op
	}{
		{6, drawPut}, {2, drawPutBad}, {3, drawStat}, {3, drawOpen}, {4, drawMount}, {6, drawDeleteBlob},
		{2, drawBlobs}, {1, drawLocate}, {1, drawBlobRepos}, {1, drawRedirect},
		{5, drawBegin}, {4, drawLookup}, {8, drawAppend}, {7, drawStage}, {6, drawSave}, {2, drawCommit}, {3, drawFinish},
		{1, drawAbort}, {2, drawReread}, {1, drawSessions},
		{16, drawPush}, {12, drawApply}, {6, drawMove}, {2, drawGet}, {2, drawResolve}, {1, drawStatManifests},
		{1, drawManifests}, {2, drawTags}, {1, drawManifestRepos}, {4, drawReferrers}, {1, drawEvents}, {1, drawForget},
		{2, drawTouchPull}, {1, drawPulls}, {5, drawPause}, {2, drawSweep}, {3, drawCollect}, {1, drawReindex}, {1, drawReopen},
	} {
		for range k.weight {
			out = append(out, k.draw)
		}
	}
	return out
}()

var drawKind = from(kinds)

// histories generates them. Their length is about what -rapid.steps says.
var histories = rapid.Custom(func(t *rapid.T) (h history) {
	t.Repeat(map[string]func(*rapid.T){"op": func(t *rapid.T) {
		d := draws{t}
		h = append(h, drawKind(d)(d))
	}})
	return h
})

func drawPause(d draws) op {
	by := drawWait(d)
	return opf(func(r *run) { r.now = r.now.Add(by) }, "wait(%v)", by)
}

func drawReopen(draws) op {
	return opf(func(r *run) {
		if r.sys.reopen != nil {
			r.same(r.answer(r.sys.reopen(r.sys)), ok)
		}
		r.settle(func(*variable) bool { return true })
		r.endUnsaved()
		r.compareAll()
	}, "reopen()")
}
