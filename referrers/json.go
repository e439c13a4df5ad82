package referrers

import (
	"bufio"
	"encoding/json"
	"io"
	"iter"
)

// JSON writes one object. Its member "steps" lists each [Step] by its JSON names,
// with what [Recognize] says as "name" and "kind", and the Note as "note". It
// is flat, as readers of JSON bound the depth. If the walk failed, "error" says why,
// after the steps before it.
func (x Export) JSON(w io.Writer, steps iter.Seq2[Step, error]) error {
	type item struct {
		Step
		Name string `json:"name,omitempty"`
		Kind Kind   `json:"kind,omitempty"`
		Note string `json:"note,omitempty"`
	}
	before := "{\"steps\":["
	return stream(w, steps, func(b *bufio.Writer, s Step) {
		i := item{Step: s}
		i.Name, i.Kind = s.recognize()
		if i.Name == "" {
			i.Kind = ""
		}
		if x.Note != nil {
			i.Note = x.Note(s)
		}
		raw, _ := json.Marshal(i) // of strings and numbers, which cannot fail
		b.WriteString(before + "\n")
		b.Write(raw)
		before = ","
	}, func(b *bufio.Writer, err error) {
		if before != "," {
			b.WriteString(before)
		}
		b.WriteString("\n]")
		if err != nil {
			raw, _ := json.Marshal(err.Error())
			b.WriteString(",\"error\":")
			b.Write(raw)
		}
		b.WriteString("}\n")
	})
}
