package referrers

import (
	"bufio"
	"io"
	"iter"
	"strings"
)

// DOT writes a graph for Graphviz. Nodes have digests for names. A solid arrow
// leads from an index to what it lists, a dashed one from a manifest to its
// subject.
func (x Export) DOT(w io.Writer, steps iter.Seq2[Step, error]) error {
	begun := false
	begin := func(b *bufio.Writer) {
		if !begun {
			b.WriteString("digraph referrers {\n\trankdir=LR\n\tnode [shape=box style=\"rounded,filled\" fontname=\"sans-serif\" fontsize=11]\n\tedge [color=\"#57606a\"]\n")
			begun = true
		}
	}
	return stream(w, steps, func(b *bufio.Writer, s Step) {
		begin(b)
		node := dotQuote(printable(string(s.Digest)))
		if s.State == StateNew || s.State == StateMissing {
			_, kind := s.recognize()
			style := " fillcolor=\"" + colors[kind].fill + "\" color=\"" + colors[kind].line + "\""
			if s.State == StateMissing {
				style = " style=\"rounded,dashed\" color=\"" + missingLine + "\""
			}
			b.WriteString("\t" + node + " [label=" + dotQuote(strings.Join(x.titles(s), "\n")) + " tooltip=" + node + style + "]\n")
		}
		from := dotQuote(printable(string(s.From)))
		switch s.Edge {
		case EdgeChild:
			b.WriteString("\t" + from + " -> " + node + "\n")
		case EdgeReferrer: // dir=back keeps what refers to something on its right
			b.WriteString("\t" + from + " -> " + node + " [dir=back style=dashed]\n")
		case EdgeParent:
			b.WriteString("\t" + node + " -> " + from + "\n")
		case EdgeSubject:
			b.WriteString("\t" + node + " -> " + from + " [dir=back style=dashed]\n")
		}
	}, func(b *bufio.Writer, err error) {
		begin(b)
		if err != nil {
			b.WriteString("\tincomplete [shape=note style=filled fillcolor=\"" + noteFill + "\" label=" + dotQuote("incomplete: "+reason(err)) + "]\n")
		}
		b.WriteString("}\n")
	})
}

var dotEscapes = strings.NewReplacer(`\`, `\\`, `"`, `\"`)

// dotQuote quotes printable lines, in which nothing is an escape of Graphviz, like
// \N for the name, except for line ends.
func dotQuote(s string) string {
	lines := strings.Split(s, "\n")
	for i, line := range lines {
		lines[i] = dotEscapes.Replace(line)
	}
	return `"` + strings.Join(lines, `\n`) + `"`
}
