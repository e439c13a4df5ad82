package referrers

import (
	"bufio"
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/opencontainers/go-digest"
)

// DefaultMaxDrawn is how many steps SVG draws unless it is told otherwise.
const DefaultMaxDrawn = 1_000

// SVG writes a picture that needs nothing else: no script, no style sheet and no font of
// its own, so that it stands in any page and under any content security
// policy. What refers to something is to its right, and the digest, type and
// annotations of each manifest are its title. A dashed line leads to a
// subject, a solid one from an index to what it lists.
//
// Steps beyond MaxDrawn are not drawn: the picture says so, and the
// error is a *[LimitError].
func (x Export) SVG(w io.Writer, steps iter.Seq2[Step, error]) error {
	most := orDefault(x.MaxDrawn, DefaultMaxDrawn)
	var boxes []box
	var failed error
	path := []int{} // the boxes that lead to the last, by depth
	rows, columns := 0, 0
	for s, err := range steps {
		if err == nil && len(boxes) == most {
			err = &LimitError{"MaxDrawn", most, boxes[0].Digest, s.From}
		}
		if err != nil {
			failed = err
			break
		}
		s.Depth = min(s.Depth, len(path)) // if steps were left out
		b := box{Step: s, parent: -1, before: -1, lastBelow: -1, column: s.Depth}
		path = path[:s.Depth]
		if s.Depth > 0 {
			b.parent = path[s.Depth-1]
			from := &boxes[b.parent]
			b.row = from.row // where the first stands, beside what it comes from
			if b.before = from.lastBelow; b.before >= 0 {
				b.row = rows
			}
			from.lastBelow = len(boxes)
		}
		rows, columns = max(rows, b.row+1), max(columns, b.column+1)
		path = append(path, len(boxes))
		boxes = append(boxes, b)
	}
	out := bufio.NewWriter(w)
	d := drawing{Export: x, Writer: out, boxes: boxes}
	d.draw(columns, rows, failed)
	if err := out.Flush(); err != nil {
		return err
	}
	return failed
}

// box is a step with its place in a grid.
type box struct {
	Step
	parent, before int // the box it comes from, and the one above it that does too, or -1
	column, row    int
	lastBelow      int // the last box that comes from it, or -1
}

// Sizes, in pixels. characters are what a line of a box has room for.
const (
	boxWidth, boxHeight = 240, 62
	gapX, gapY          = 52, 14
	margin              = 16
	noteHeight          = 34
	characters          = 26
)

func (b box) x() int { return margin + b.column*(boxWidth+gapX) }
func (b box) y() int { return margin + b.row*(boxHeight+gapY) }

type drawing struct {
	Export
	*bufio.Writer
	boxes []box
}

const (
	ink         = "#1f2328"
	pale        = "#57606a"
	missingLine = "#cf222e"
	noteFill    = "#fff8c5"
	sans        = `font-family="system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif"`
	mono        = `font-family="ui-monospace, 'DejaVu Sans Mono', monospace"`
)

// kindMissing is what pictures show instead of a kind.
const kindMissing Kind = "missing"

// colors have enough contrast with ink, and with one another for most eyes;
// no color alone says anything.
var colors = map[Kind]struct{ fill, line string }{
	KindImage:       {"#ddf4ff", "#0969da"},
	KindIndex:       {"#eaeef2", "#424a53"},
	KindSignature:   {"#dafbe1", "#1a7f37"},
	KindAttestation: {"#fbefff", "#8250df"},
	KindSBOM:        {"#fff8c5", "#9a6700"},
	KindReport:      {"#fff1e5", "#bc4c00"},
	KindChart:       {"#e0f7f4", "#0b7285"},
	KindPolicy:      {"#ffeff7", "#bf3989"},
	KindModule:      {"#ece9ff", "#5b4ad1"},
	KindOther:       {"#f6f8fa", "#6e7781"},
	kindMissing:     {"#ffffff", missingLine},
}

func (d *drawing) draw(columns, rows int, failed error) {
	width, height := 2*margin+max(columns, 1)*(boxWidth+gapX)-gapX, 2*margin+rows*(boxHeight+gapY)-gapY
	if failed != nil {
		height += noteHeight
	}
	role := "img"
	if d.Link != nil || slices.ContainsFunc(d.boxes, func(b box) bool { return b.State == StateAgain || b.State == StateCycle }) {
		role = "group" // an image hides the links in it from who does not see it
	}
	fmt.Fprintf(d, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" role="%s" %s>`+"\n", width, height, width, height, role, sans)
	name := d.Name
	if name == "" && len(d.boxes) > 0 {
		name = string(d.boxes[0].Digest)
	}
	fmt.Fprintf(d, "<title>%s</title>\n", escape("Referrers of "+printable(name)))
	fmt.Fprintf(d, `<rect width="%d" height="%d" rx="8" fill="#ffffff"/>`+"\n", width, height)
	for _, b := range d.boxes {
		if b.parent >= 0 {
			d.line(b)
		}
	}
	for _, b := range d.boxes {
		d.box(b)
	}
	if failed != nil {
		fmt.Fprintf(d, `<text x="%d" y="%d" font-size="12" fill="%s">%s</text>`+"\n", margin, height-margin, missingLine, escape("Incomplete: "+clip(reason(failed), max(40, width/8))))
	}
	d.WriteString("</svg>\n")
}

// line joins a box to the one that it comes from, or to the line of the box
// above it.
func (d *drawing) line(to box) {
	from := d.boxes[to.parent]
	x1, y1, x2, y2 := from.x()+boxWidth, from.y()+boxHeight/2, to.x(), to.y()+boxHeight/2
	shape := fmt.Sprintf("M%d %dH%d", x1, y1, x2)
	if y1 != y2 {
		const r = 8
		x := x1 + gapX/2
		shape = fmt.Sprintf("M%d %dH%dQ%d %d %d %d", x1, y1, x-r, x, y1, x, y1+r)
		if above := d.boxes[to.before]; above.row != from.row {
			shape = fmt.Sprintf("M%d %d", x, above.y()+boxHeight/2-r)
		}
		shape += fmt.Sprintf("V%dQ%d %d %d %dH%d", y2-r, x, y2, x+r, y2, x2)
	}
	dash := ""
	if to.Edge == EdgeReferrer || to.Edge == EdgeSubject {
		dash = ` stroke-dasharray="5 4"`
	}
	head := fmt.Sprintf("M%d %dl-7 -4v8z", x2, y2)
	if to.Edge == EdgeReferrer || to.Edge == EdgeParent {
		head = fmt.Sprintf("M%d %dl7 -4v8z", x1, y1)
	}
	fmt.Fprintf(d, `<path d="%s" fill="none" stroke="%s" stroke-width="1.3"%s/><path d="%s" fill="%s"/>`+"\n", shape, pale, dash, head, pale)
}

func (d *drawing) box(b box) {
	name, kind := b.recognize()
	what := string(kind)
	dash, id, link := "", ` id="`+escape(anchor(b.Digest))+`"`, ""
	if d.Link != nil {
		link = d.Link(b.Digest)
	}
	switch b.State {
	case StateMissing:
		kind, what, dash = kindMissing, "not in the repository", ` stroke-dasharray="5 4"`
	case StateAgain, StateCycle:
		what, dash, id = "shown elsewhere", ` stroke-dasharray="2 3"`, ""
		if b.State == StateCycle {
			what = "back again: a cycle"
		}
		link = "#" + anchor(b.Digest)
	}
	name = printable(name)
	if b.Platform != nil {
		name += " " + platform(b.Step)
	}
	if b.Depth == 0 && d.Name != "" {
		name = printable(d.Name)
	}
	if name = strings.TrimSpace(name); utf8.RuneCountInString(name) > characters {
		name = strings.TrimPrefix(name, "application/")
	}
	foot := []string{what}
	if b.State == StateNew {
		if foot = []string{tags(b.Step), d.note(b.Step)}; foot[1] == "" { // else the color says what it is
			foot = []string{what, foot[0]}
		}
	}
	if name == "" {
		name, foot = what, nil
	}
	if link != "" {
		fmt.Fprintf(d, `<a href="%s">`, escape(visible(link)))
	}
	c := colors[kind]
	x, y := b.x(), b.y()
	fmt.Fprintf(d, `<g%s><title>%s</title>`, id, escape(d.hint(b)))
	fmt.Fprintf(d, `<rect x="%d" y="%d" width="%d" height="%d" rx="7" fill="%s" stroke="%s" stroke-width="1.2"%s/>`, x, y, boxWidth, boxHeight, c.fill, c.line, dash)
	if name != "" {
		d.text(x+12, y+21, 13, `font-weight="600" fill="`+ink+`"`, clip(name, characters))
	}
	d.text(x+12, y+38, 11, mono+` fill="`+pale+`"`, short(b.Digest))
	d.text(x+12, y+54, 11, `fill="`+c.line+`"`, clip(strings.TrimSpace(strings.Join(foot, " ")), characters+8))
	d.WriteString("</g>")
	if link != "" {
		d.WriteString("</a>")
	}
	d.WriteString("\n")
}

func (d *drawing) text(x, y, size int, style, s string) {
	fit := ""
	// The width is a guess: wide scripts are squeezed to it, rather than left to run out of the box.
	if n := utf8.RuneCountInString(s); slices.ContainsFunc([]rune(s), func(r rune) bool { return r >= 0x1100 && (r < 0x2000 || r >= 0x2070) }) && n*size > boxWidth-24 {
		fit = fmt.Sprintf(` textLength="%d" lengthAdjust="spacingAndGlyphs"`, boxWidth-24)
	}
	fmt.Fprintf(d, `<text x="%d" y="%d" font-size="%d"%s %s>%s</text>`, x, y, size, fit, style, escape(s))
}

// hint is all that is known of a manifest.
func (d *drawing) hint(b box) string {
	lines := []string{printable(string(b.Digest))}
	for _, l := range []string{b.MediaType, b.ArtifactType} {
		if l != "" {
			lines = append(lines, clip(printable(l), 200))
		}
	}
	if b.State == StateNew {
		lines = append(lines, fmt.Sprintf("%d bytes", b.Size))
	}
	for i, key := range slices.Sorted(maps.Keys(b.Annotations)) {
		if i == 20 {
			lines = append(lines, "…")
			break
		}
		lines = append(lines, clip(printable(key), 100)+": "+clip(printable(b.Annotations[key]), 200))
	}
	return strings.Join(lines, "\n")
}

// anchor is an identifier in the page.
func anchor(dgst digest.Digest) string { return "manifest-" + visible(string(dgst)) }

// visible writes bytes that are no visible ASCII as a URL does.
func visible(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if s[i] > ' ' && s[i] < 0x7f {
			b.WriteByte(s[i])
		} else {
			fmt.Fprintf(&b, "%%%02X", s[i])
		}
	}
	return b.String()
}

func escape(s string) string {
	var b bytes.Buffer
	xml.EscapeText(&b, []byte(s)) // a buffer does not fail
	return b.String()
}
