// Package txtar reads text archives: a comment, then files, each after a line
// "-- name --". It is the format of golang.org/x/tools/txtar, which the core does
// not require.
package txtar

import "strings"

// File is one file of an archive.
type File struct {
	Name string
	Data string // ends with a newline unless it is empty
	Line int    // of the archive, where Data begins, from 1
}

// Parse splits an archive. Any text is one: without markers it is all comment.
func Parse(text string) (comment string, files []File) {
	text = strings.ReplaceAll(text, "\r\n", "\n")
	if text != "" && !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	var b strings.Builder
	end := func() {
		if len(files) == 0 {
			comment = b.String()
		} else {
			files[len(files)-1].Data = b.String()
		}
		b.Reset()
	}
	n := 0
	for line := range strings.Lines(text) {
		n++
		if name, ok := marker(line); ok {
			end()
			files = append(files, File{Name: name, Line: n + 1})
			continue
		}
		b.WriteString(line)
	}
	end()
	return comment, files
}

func marker(line string) (name string, ok bool) {
	line = strings.TrimSuffix(line, "\n")
	if !strings.HasPrefix(line, "-- ") || !strings.HasSuffix(line, " --") || len(line) < len("-- x --") {
		return "", false
	}
	name = strings.TrimSpace(line[3 : len(line)-3])
	return name, name != ""
}
