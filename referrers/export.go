package referrers

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"iter"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/opencontainers/go-digest"
)

// Export writes the steps of [Graph.Walk] or [Graph.Up] for people and
// programs. The zero Export will do.
//
// Each method writes while it walks, except for SVG, which keeps up to its
// limit. An error of the walk ends what is written, which is well-formed and says
// so, and is returned. Whatever manifests say is escaped: it can neither leave its place in the
// format, nor send control sequences to a terminal, nor turn the direction
// of the text around it. Steps may be left out on their way here.
type Export struct {
	// Name is what the first manifest is called, as "team/app:v1".
	Name string
	// Annotations adds them to the Tree.
	Annotations bool
	// Note says what else there is to know of a manifest, as [Fate.String] does.
	// "" is nothing.
	Note func(Step) string
	// Link is where a manifest leads to, in the SVG. "" is nowhere.
	Link func(digest.Digest) string
	// MaxDrawn is how many steps the SVG shows; zero means [DefaultMaxDrawn].
	MaxDrawn int
}

func (x Export) note(s Step) string {
	if x.Note == nil {
		return ""
	}
	return printable(x.Note(s))
}

// stream writes the steps, and the end with the error of the walk.
func stream(w io.Writer, steps iter.Seq2[Step, error], write func(*bufio.Writer, Step), end func(*bufio.Writer, error)) error {
	b := bufio.NewWriterSize(w, 32<<10)
	var walked error
	for s, err := range steps {
		if err != nil {
			walked = err
			break
		}
		write(b, s)
		if _, err := b.Write(nil); err != nil { // of any write before
			return err
		}
	}
	end(b, walked)
	if err := b.Flush(); err != nil {
		return err
	}
	return walked
}

// titles are what a picture says of a step, a line each.
func (x Export) titles(s Step) []string {
	name, _ := s.recognize()
	if s.State == StateMissing {
		name = "not in the repository"
	}
	name = printable(name)
	if s.Platform != nil {
		name += " " + platform(s)
	}
	var out []string
	for _, line := range []string{clip(strings.TrimSpace(name), 60), short(s.Digest), clip(tags(s), 60), clip(x.note(s), 60)} {
		if line != "" {
			out = append(out, line)
		}
	}
	if s.Depth == 0 && x.Name != "" {
		out = append([]string{clip(printable(x.Name), 60)}, out...)
	}
	return out
}

// platform is as "linux/arm64/v8".
func platform(s Step) string {
	p := s.Platform
	out := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		out += "/" + p.Variant
	}
	if p.OSVersion != "" {
		out += " " + p.OSVersion
	}
	return clip(printable(out), 60)
}

func tags(s Step) string {
	if len(s.Tags) == 0 {
		return ""
	}
	const most = 8
	list := strings.Join(s.Tags[:min(len(s.Tags), most)], ", ")
	if more := len(s.Tags) - most; more > 0 {
		list += " and " + strconv.Itoa(more) + " more"
	}
	return "[" + printable(list) + "]"
}

// short is a digest as people compare them.
func short(d digest.Digest) string {
	algorithm, encoded, _ := strings.Cut(string(d), ":")
	return clip(printable(algorithm), 30) + ":" + printable(strings.ToValidUTF8(encoded[:min(len(encoded), 12)], ""))
}

// printable replaces what has no shape of its own, and bytes that are no
// UTF-8, by escapes, and keeps text that runs from right to left to itself.
func printable(s string) string {
	var b strings.Builder
	toLeft := false
	for i, r := range s {
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(s[i:], string(utf8.RuneError)):
			b.WriteString(`\x` + strconv.FormatInt(int64(s[i]), 16))
		case unicode.IsPrint(r):
			b.WriteRune(r)
			toLeft = toLeft || runsToLeft(r)
		default:
			quoted := strconv.QuoteRuneToASCII(r)
			b.WriteString(quoted[1 : len(quoted)-1])
		}
	}
	if toLeft {
		return isolate + b.String() + popIsolate
	}
	return b.String()
}

// What stands between these does not turn the text around it.
const (
	isolate    = "\u2068" // FIRST STRONG ISOLATE
	popIsolate = "\u2069" // POP DIRECTIONAL ISOLATE
)

// runsToLeft tells the blocks that hold scripts written from right to left.
func runsToLeft(r rune) bool {
	return r >= 0x590 && r <= 0x8ff || r >= 0xfb1d && r <= 0xfdff || r >= 0xfe70 && r <= 0xfefe ||
		r >= 0x10800 && r <= 0x10fff || r >= 0x1e800 && r <= 0x1efff
}

// clip shortens a printable text to a number of characters.
func clip(s string, most int) string {
	if utf8.RuneCountInString(s) <= most {
		return s
	}
	out := string([]rune(s)[:most-1]) + "…"
	return out + strings.Repeat(popIsolate, strings.Count(out, isolate)-strings.Count(out, popIsolate))
}

// reason is an error in few words, the limit of a walk first of all.
func reason(err error) string {
	if limit := (*LimitError)(nil); errors.As(err, &limit) {
		return fmt.Sprintf("there is more than %s (%d) allows, at %s", limit.Limit, limit.Max, short(limit.At))
	}
	return printable(err.Error())
}
