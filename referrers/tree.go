package referrers

import (
	"bufio"
	"cmp"
	"io"
	"iter"
	"maps"
	"slices"
	"strings"
)

// Tree writes a tree of lines, as "oras discover" does: referrers stand below
// their artifact type, which is followed by what people call it. Children of an index stand
// beside them with their platforms.
func (x Export) Tree(w io.Writer, steps iter.Seq2[Step, error]) error {
	t := tree{Export: x}
	return stream(w, steps, t.step, func(b *bufio.Writer, err error) {
		if err != nil {
			b.WriteString("(incomplete: " + printable(err.Error()) + ")\n")
		}
	})
}

// tree has what the lines below each manifest of the current path begin with,
// by depth, and below its groups.
type tree struct {
	Export
	below []string
	group []string // the group whose heading stands above, "" for none
	rails []string // of that group
}

func (t *tree) step(b *bufio.Writer, s Step) {
	s.Depth = min(s.Depth, len(t.below)) // if steps were left out
	t.below = t.below[:s.Depth]
	t.group = append(t.group[:min(s.Depth+1, len(t.group))], "")
	t.rails = append(t.rails[:min(s.Depth+1, len(t.rails))], "")
	rails := ""
	if s.Depth > 0 {
		rails = t.below[s.Depth-1]
	}
	last := s.last && s.groupEnds
	if s.Edge == EdgeReferrer {
		if s.group == "" { // the step was not made by a Graph
			s.group = cmp.Or(groupOf(s.Descriptor), "unknown")
		}
		if t.group[s.Depth] != s.group {
			t.group[s.Depth] = s.group
			b.WriteString(rails + branch(s.last) + heading(s) + "\n")
			t.rails[s.Depth] = rails + rail(s.last)
		}
		rails, last = t.rails[s.Depth], s.groupEnds
	}
	b.WriteString(rails)
	if s.Depth > 0 {
		b.WriteString(branch(last))
		rails += rail(last)
	}
	if len(rails) > 300 { // or a long chain would make lines without end
		rails = "… "
	}
	t.below = append(t.below, rails)
	b.WriteString(t.label(s) + "\n")
	if t.Annotations && len(s.Annotations) > 0 {
		b.WriteString(rails + branch(s.Next == 0) + "[annotations]\n")
		rails += rail(s.Next == 0)
		keys := slices.Sorted(maps.Keys(s.Annotations))
		for i, key := range keys {
			b.WriteString(rails + branch(i == len(keys)-1) + clip(printable(key), 200) + ": " + clip(printable(s.Annotations[key]), 200) + "\n")
		}
	}
}

func branch(last bool) string {
	if last {
		return "└── "
	}
	return "├── "
}

func rail(last bool) string {
	if last {
		return "    "
	}
	return "│   "
}

// heading is that of a group of referrers.
func heading(s Step) string {
	typ := s.Descriptor
	if s.State != StateNew {
		typ.ArtifactType = s.group
	}
	typ.Annotations = nil
	if name, _ := Recognize(typ); name != s.group {
		return clip(printable(s.group), 200) + " (" + printable(name) + ")"
	}
	return clip(printable(s.group), 200)
}

func (t *tree) label(s Step) string {
	parts := []string{printable(string(s.Digest))}
	if s.Depth == 0 && t.Name != "" {
		parts[0] = printable(t.Name) + "@" + parts[0]
	}
	name, _ := s.recognize()
	plain := s.Descriptor
	plain.Annotations = nil
	if heading, _ := Recognize(plain); s.Edge != EdgeReferrer || name != heading {
		parts = append(parts, clip(printable(name), 200))
	}
	if s.Platform != nil {
		parts = append(parts, platform(s))
	}
	switch s.Edge {
	case EdgeParent:
		parts = append([]string{"listed by"}, parts...)
	case EdgeSubject:
		parts = append([]string{"refers to"}, parts...)
	}
	parts = append(parts, tags(s), stateText(s), t.note(s))
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), " ")
}

func stateText(s Step) string {
	switch s.State {
	case StateMissing:
		return "(not in the repository)"
	case StateAgain:
		return "(shown above)"
	case StateCycle:
		return "(a cycle)"
	}
	return ""
}
