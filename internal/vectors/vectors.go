// Package vectors reads the hostile corpus for the tests of this module.
package vectors

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Case is one input and what is to become of it.
type Case struct {
	ID          string
	Kind        string // which entry point takes it
	Category    string
	Expect      string // "accept" or "reject"
	Why         string
	ContentType string `json:"content_type"`
	Op          string
	Assert      map[string]any
	File        string
	Generate    *Recipe

	Input []byte     // the bytes of File, or what Generate makes
	Docs  []Document // of a graph, in the order to push them
}

// Accept tells whether the input is to be accepted.
func (c Case) Accept() bool { return c.Expect == "accept" }

// Document is one manifest of a graph.
type Document struct {
	MediaType string
	Raw       []byte
}

// Recipe makes an input that is too large to be stored.
type Recipe struct {
	Recipe, Open, Close, Base, Prefix, Unit, Suffix string
	Depth, Count, Bytes, Levels                     int
}

// Hostile reads the cases of the given kinds from the folder hostile in dir. A
// kind without cases is an error.
func Hostile(dir string, kinds ...string) ([]Case, error) {
	folder := filepath.Join(dir, "hostile")
	raw, err := os.ReadFile(filepath.Join(folder, "index.json"))
	if err != nil {
		return nil, err
	}
	var index struct{ Cases []Case }
	if err := json.Unmarshal(raw, &index); err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	var out []Case
	for _, c := range index.Cases {
		wanted := false
		for _, k := range kinds {
			wanted = wanted || c.Kind == k
		}
		if !wanted {
			continue
		}
		seen[c.Kind] = true
		switch {
		case c.Generate == nil:
			if c.Input, err = os.ReadFile(filepath.Join(folder, c.File)); err != nil {
				return nil, err
			}
		case strings.HasPrefix(c.Generate.Recipe, "graph_"):
			c.Docs = c.Generate.graph()
		default:
			c.Input = c.Generate.single()
		}
		if c.Input == nil && c.Docs == nil {
			return nil, fmt.Errorf("%s: unknown recipe %q", c.ID, c.Generate.Recipe)
		}
		out = append(out, c)
	}
	for _, k := range kinds {
		if !seen[k] {
			return nil, fmt.Errorf("%s has no case of kind %s", folder, k)
		}
	}
	return out, nil
}

const (
	index = "application/vnd.oci.image.index.v1+json"
	image = "application/vnd.oci.image.manifest.v1+json"
	empty = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
)

// with adds a member to the object base.
func with(base, member string) []byte {
	return []byte(strings.TrimSuffix(base, "}") + "," + member + "}")
}

func (g *Recipe) single() []byte {
	switch g.Recipe {
	case "nest":
		inner := "0"
		if g.Open == "[" {
			inner = ""
		}
		return with(g.Base, `"x":`+strings.Repeat(g.Open, g.Depth)+inner+strings.Repeat(g.Close, g.Depth))
	case "policy_pattern":
		return []byte(`{"rules":[{"rulePriority":1,"selection":{"tagStatus":"tagged","tagPatternList":["` + strings.Repeat(g.Unit, g.Count) +
			`"],"countType":"sinceImagePushed","countUnit":"days","countNumber":1},"action":{"type":"expire"}}]}`)
	case "repeat":
		return []byte(g.Prefix + strings.Repeat(g.Unit, g.Count) + g.Suffix)
	case "annotation_pad":
		return with(g.Base, `"annotations":{"pad":"`+strings.Repeat("p", g.Bytes)+`"}`)
	case "pad_exact":
		head := len(with(g.Base, `"annotations":{"pad":""}`))
		return with(g.Base, `"annotations":{"pad":"`+strings.Repeat("p", g.Bytes-head)+`"}`)
	case "annotation_keys":
		prefix := g.Prefix
		if prefix == "" {
			prefix = "k"
		}
		keys := make([]string, g.Count)
		for i := range keys {
			keys[i] = fmt.Sprintf(`"%s%07d":""`, prefix, i)
		}
		return with(g.Base, `"annotations":{`+strings.Join(keys, ",")+"}")
	case "layers":
		return g.list("layers", "application/octet-stream")
	case "children":
		return g.list("manifests", image)
	case "whitespace":
		return []byte(strings.Repeat(" ", g.Bytes/2) + g.Base + strings.Repeat("\n", g.Bytes/2))
	case "unknown_array":
		return with(g.Base, `"x":[`+strings.Repeat("0,", g.Count-1)+"0]")
	}
	return nil
}

// list gives the base Count descriptors as its list.
func (g *Recipe) list(member, mediaType string) []byte {
	var base map[string]json.RawMessage
	if json.Unmarshal([]byte(g.Base), &base) != nil {
		return nil
	}
	items := make([]string, g.Count)
	for i := range items {
		items[i] = fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, mediaType, digestOf([]byte(fmt.Sprint(member, i))), i+1)
	}
	base[member] = json.RawMessage("[" + strings.Join(items, ",") + "]")
	out, _ := json.Marshal(base)
	return out
}

func digestOf(b []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(b)) }

func descriptor(d Document) string {
	return fmt.Sprintf(`"mediaType":%q,"digest":%q,"size":%d`, d.MediaType, digestOf(d.Raw), len(d.Raw))
}

func leaf(n any, subject string) Document {
	one := `{"mediaType":"application/vnd.oci.empty.v1+json","digest":"` + empty + `","size":2}`
	return Document{image, []byte(`{"schemaVersion":2,"mediaType":"` + image + `","artifactType":"application/vnd.example.test.v1","config":` + one +
		`,"layers":[` + one + `],"annotations":{"n":"` + fmt.Sprint(n) + `"}` + subject + `}`)}
}

func (g *Recipe) graph() (docs []Document) {
	refer := func(d Document) string { return `,"subject":{` + descriptor(d) + `}` }
	switch g.Recipe {
	case "graph_ladder", "graph_chain":
		docs = append(docs, leaf(0, ""))
		for range g.Levels {
			below := descriptor(docs[len(docs)-1])
			children := `{` + below + `,"annotations":{"p":"l"}}`
			if g.Recipe == "graph_ladder" {
				children += `,{` + below + `,"annotations":{"p":"r"}}`
			}
			docs = append(docs, Document{index, []byte(`{"schemaVersion":2,"mediaType":"` + index + `","manifests":[` + children + `]}`)})
		}
	case "graph_referrers":
		docs = append(docs, leaf("subject", ""))
		for i := range g.Count {
			docs = append(docs, leaf(i, refer(docs[0])))
		}
	case "graph_refchain":
		docs = append(docs, leaf("subject", ""))
		for i := range g.Levels {
			docs = append(docs, leaf(i, refer(docs[i])))
		}
	}
	return docs
}
