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
	at := map[digest.Digest]int{} // boxes of manifests
	path := []int{}               // the boxes that lead to the last, by depth
	rows, columns := 0, 0
	for s, err := range steps {
		if err == nil && len(boxes) == most {
			err = &LimitError{"MaxDrawn", most, boxes[0].Digest, s.From}
		}
		if err != nil {
			failed = err
			break
		}
		b := box{Step: s, parent: -1, column: s.Depth}
		path = path[:min(s.Depth, len(path))]
		if s.Depth > 0 {
			b.parent = path[s.Depth-1]
			b.row = boxes[b.parent].row
			if boxes[b.parent].drawn > 0 { // the first stands beside what it comes from
				b.row = rows
			}
			boxes[b.parent].drawn++
		}
		rows, columns = max(rows, b.row+1), max(columns, b.column+1)
		if s.State == StateNew || s.State == StateMissing {
			at[s.Digest] = len(boxes)
		}
		path = append(path, len(boxes))
		boxes = append(boxes, b)
	}
	out := bufio.NewWriter(w)
	d := drawing{Export: x, Writer: out, at: at, boxes: boxes}
	d.draw(columns, rows, failed)
	if err := out.Flush(); err != nil {
		return err
	}
	return failed
}

// box is a step with its place in a grid.
type box struct {
	Step
	parent      int // the box it comes from, or -1
	column, row int
	drawn       int // boxes that come from it
}

// Sizes, in pixels. characters are what a line of a box has room for.
const (
	boxWidth, boxHeight = 236, 62
	gapX, gapY          = 52, 14
	margin              = 16
	noteHeight          = 34
	characters          = 29
)

func (b box) x() int { return margin + b.column*(boxWidth+gapX) }
func (b box) y() int { return margin + b.row*(boxHeight+gapY) }

type drawing struct {
	Export
	*bufio.Writer
	at    map[digest.Digest]int
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
	fmt.Fprintf(d, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" role="img" %s>`+"\n", width, height, width, height, sans)
	name := d.Name
	if name == "" && len(d.boxes) > 0 {
		name = string(d.boxes[0].Digest)
	}
	fmt.Fprintf(d, "<title>%s</title>\n", escape("Referrers of "+printable(name)))
	fmt.Fprintf(d, `<rect width="%d" height="%d" rx="8" fill="#ffffff"/>`+"\n", width, height)
	for _, b := range d.boxes {
		if b.parent >= 0 {
			d.line(d.boxes[b.parent], b)
		}
	}
	for _, b := range d.boxes {
		d.box(b)
	}
	if failed != nil {
		fmt.Fprintf(d, `<text x="%d" y="%d" font-size="12" fill="%s">%s</text>`+"\n", margin, height-margin, missingLine, escape("Incomplete: "+clip(printable(failed.Error()), max(40, width/7))))
	}
	d.WriteString("</svg>\n")
}

// line joins two boxes, straight or with a step.
func (d *drawing) line(from, to box) {
	x1, y1, x2, y2 := from.x()+boxWidth, from.y()+boxHeight/2, to.x(), to.y()+boxHeight/2
	shape := fmt.Sprintf("M%d %dH%d", x1, y1, x2)
	if y1 != y2 {
		const r = 8
		x := x1 + gapX/2
		shape = fmt.Sprintf("M%d %dH%dQ%d %d %d %dV%dQ%d %d %d %dH%d", x1, y1, x-r, x, y1, x, y1+r, y2-r, x, y2, x+r, y2, x2)
	}
	dash := ""
	if to.Edge == EdgeReferrer || to.Edge == EdgeSubject {
		dash = ` stroke-dasharray="5 4"`
	}
	fmt.Fprintf(d, `<path d="%s" fill="none" stroke="#8c959f" stroke-width="1.5"%s/>`+"\n", shape, dash)
}

func (d *drawing) box(b box) {
	name, kind := b.recognize()
	dash, id, link := "", ` id="`+escape(anchor(b.Digest))+`"`, ""
	if d.Link != nil {
		link = d.Link(b.Digest)
	}
	switch b.State {
	case StateMissing:
		name, kind, dash = "Not in the repository", kindMissing, ` stroke-dasharray="5 4"`
	case StateAgain, StateCycle:
		name, dash, id = "Shown elsewhere", ` stroke-dasharray="2 3"`, ""
		if b.State == StateCycle {
			name = "Back again: a cycle"
		}
		link = "#" + anchor(b.Digest)
	}
	if b.Platform != nil {
		name = strings.TrimSpace(name + " " + platform(b.Step))
	}
	if b.Depth == 0 && d.Name != "" {
		name = d.Name
	}
	if link != "" {
		fmt.Fprintf(d, `<a href="%s">`, escape(link))
	}
	c := colors[kind]
	x, y := b.x(), b.y()
	fmt.Fprintf(d, `<g%s><title>%s</title>`, id, escape(d.hint(b)))
	fmt.Fprintf(d, `<rect x="%d" y="%d" width="%d" height="%d" rx="7" fill="%s" stroke="%s" stroke-width="1.2"%s/>`, x, y, boxWidth, boxHeight, c.fill, c.line, dash)
	d.text(x+12, y+21, 13, `font-weight="600" fill="`+ink+`"`, clip(printable(name), characters))
	d.text(x+12, y+38, 11, mono+` fill="`+pale+`"`, short(b.Digest))
	if foot := strings.TrimSpace(tags(b.Step) + " " + d.note(b.Step)); foot != "" {
		d.text(x+12, y+54, 11, `fill="`+c.line+`"`, clip(foot, characters+6))
	} else if kind != kindMissing && b.State == StateNew {
		d.text(x+12, y+54, 11, `fill="`+c.line+`"`, string(kind))
	}
	d.WriteString("</g>")
	if link != "" {
		d.WriteString("</a>")
	}
	d.WriteString("\n")
}

func (d *drawing) text(x, y, size int, style, s string) {
	fit := ""
	// The width is a guess: wide scripts are squeezed to it, rather than left to run out of the box.
	if n := utf8.RuneCountInString(s); slices.ContainsFunc([]rune(s), func(r rune) bool { return r >= 0x1100 }) && n*size > boxWidth-24 {
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
func anchor(dgst digest.Digest) string { return "manifest-" + string(dgst) }

func escape(s string) string {
	var b bytes.Buffer
	xml.EscapeText(&b, []byte(s)) // a buffer does not fail
	return b.String()
}
