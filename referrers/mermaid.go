package referrers

import (
	"bufio"
	"fmt"
	"io"
	"iter"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
)

// Mermaid writes a flowchart for Mermaid, as READMEs and wikis draw them. A
// solid arrow leads from an index to what it lists, a dotted line joins
// a manifest and its subject. Mermaid itself draws 500 edges unless it is told
// to draw more.
func (x Export) Mermaid(w io.Writer, steps iter.Seq2[Step, error]) error {
	ids := map[digest.Digest]string{}
	id := func(d digest.Digest) string {
		if _, ok := ids[d]; !ok {
			ids[d] = "n" + strconv.Itoa(len(ids))
		}
		return ids[d]
	}
	used := map[Kind]bool{}
	before := "flowchart LR\n"
	return stream(w, steps, func(b *bufio.Writer, s Step) {
		b.WriteString(before)
		before = ""
		node := id(s.Digest)
		if s.State == StateNew || s.State == StateMissing {
			lines := x.titles(s)
			for i, line := range lines {
				lines[i] = mermaidText(line)
			}
			_, kind := s.recognize()
			if s.State == StateMissing {
				kind = kindMissing
			}
			used[kind] = true
			fmt.Fprintf(b, "  %s[\"%s\"]:::%s\n", node, strings.Join(lines, "<br/>"), kind)
		}
		switch s.Edge {
		case EdgeChild:
			fmt.Fprintf(b, "  %s --> %s\n", id(s.From), node)
		case EdgeReferrer:
			fmt.Fprintf(b, "  %s -.- %s\n", id(s.From), node)
		case EdgeParent:
			fmt.Fprintf(b, "  %s --> %s\n", node, id(s.From))
		case EdgeSubject:
			fmt.Fprintf(b, "  %s -.- %s\n", node, id(s.From))
		}
	}, func(b *bufio.Writer, err error) {
		b.WriteString(before)
		if err != nil {
			fmt.Fprintf(b, "  incomplete[\"%s\"]\n", mermaidText("incomplete: "+reason(err)))
		}
		for _, kind := range sortedKinds(used) {
			c := colors[kind]
			dash := ""
			if kind == kindMissing {
				dash = ",stroke-dasharray:4 3"
			}
			fmt.Fprintf(b, "  classDef %s fill:%s,stroke:%s,color:%s%s\n", kind, c.fill, c.line, ink, dash)
		}
	})
}

func sortedKinds(used map[Kind]bool) (out []Kind) {
	for k := range used {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// mermaidText writes all but plain characters by their numbers, as labels are
// read as Markdown and HTML too.
func mermaidText(s string) string {
	var b strings.Builder
	for _, r := range s {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune(" :./+,-", r) {
			b.WriteRune(r)
		} else {
			fmt.Fprintf(&b, "#%d;", r)
		}
	}
	return b.String()
}
