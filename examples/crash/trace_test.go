//go:build linux

package crash

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// traced are the system calls that change files, or say which file a
// descriptor is. "?" is for those that not every machine has.
const traced = "?open,openat,openat2,?creat,close,?dup,?dup2,dup3,lseek,chdir,fchdir," +
	"write,pwrite64,writev,pwritev,pwritev2,copy_file_range,sendfile,splice,?truncate,ftruncate,fallocate,?utime,?utimes,?futimesat,utimensat," +
	"?rename,?renameat,renameat2,?link,linkat,?symlink,symlinkat,?unlink,unlinkat,?rmdir,?mkdir,mkdirat," +
	"fsync,fdatasync"

// strace returns a command under strace, with its log in the file log.
func strace(t testing.TB, log string, command ...string) *exec.Cmd {
	t.Helper()
	if text, err := exec.Command("strace", "-f", "--seccomp-bpf", "-e", "trace=none", "true").CombinedOutput(); err != nil {
		lack(t, "strace: %v: %s", err, text)
	}
	return exec.Command("strace", append([]string{"-f", "--seccomp-bpf", "-ttt", "-xx", "-s", "100000000", "-o", log, "-e", "trace=" + traced, "-e", "signal=none", "--"}, command...)...)
}

// lack skips a test for which the machine lacks something; with CI set it
// fails.
func lack(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

// A call is one line, or two, of a log of strace.
type call struct {
	failed bool
	thread string
	at     time.Time
	name   string
	args   []string // as printed
	result int64    // 0 or more, unless it failed
}

func (c *call) String() string {
	var b strings.Builder
	for i, a := range c.args {
		if i > 0 {
			b.WriteString(", ")
		}
		if text, ok := unquote(a); ok { // most are paths
			a = strconv.Quote(string(text[:min(len(text), 100)]))
		}
		fmt.Fprintf(&b, "%.300s", a)
	}
	return fmt.Sprintf("%s(%s) = %d", c.name, b.String(), c.result)
}

// event is the begin or the end of a call that succeeded. The begin of one comes before the
// end of another if strace saw it in that order, which a thread waits for.
type event struct {
	*call
	end bool
}

// events reads a log.
func events(log io.Reader) (all []event, err error) {
	lines := bufio.NewReaderSize(log, 1<<20)
	under := map[string]*unfinished{} // by thread
	for n := 1; err == nil; n++ {
		var line string
		line, err = lines.ReadString('\n')
		if err == io.EOF && line == "" {
			return slices.DeleteFunc(all, func(e event) bool { return e.failed }), nil
		}
		if err == nil {
			all, err = readLine(all, strings.TrimSuffix(line, "\n"), under)
		}
		if err != nil {
			err = fmt.Errorf("line %d of the log: %w: %.300s", n, err, line)
		}
	}
	return nil, err
}

// unfinished is a call that has a line to come.
type unfinished struct {
	*call
	text string
}

func readLine(all []event, line string, under map[string]*unfinished) ([]event, error) {
	thread, rest, _ := strings.Cut(line, " ")
	at, rest, _ := strings.Cut(strings.TrimLeft(rest, " "), " ")
	seconds, micros, _ := strings.Cut(at, ".")
	s, err1 := strconv.ParseInt(seconds, 10, 64)
	us, err2 := strconv.ParseInt(micros, 10, 64)
	if err1 != nil || err2 != nil {
		return nil, fmt.Errorf("no time: %q", at)
	}
	if strings.HasPrefix(rest, "+++") || strings.HasPrefix(rest, "---") {
		return all, nil
	}
	c := &call{thread: thread, failed: true}
	if text, ok := strings.CutSuffix(rest, " <unfinished ...>"); ok {
		under[thread] = &unfinished{c, text}
		return append(all, event{c, false}), nil
	}
	if resumed, ok := strings.CutPrefix(rest, "<... "); ok {
		_, tail, found := strings.Cut(resumed, " resumed>")
		u := under[thread]
		if !found || u == nil {
			return nil, errors.New("resumes what did not begin")
		}
		rest, c = u.text+tail, u.call
		delete(under, thread)
	} else {
		all = append(all, event{c, false})
	}
	i := strings.LastIndex(rest, ") ")
	if i < 0 {
		return nil, errors.New("no result")
	}
	c.at = time.Unix(s, us*1000)
	c.parse(rest[:i])
	result := strings.Fields(strings.TrimLeft(rest[i+1:], " ="))
	if len(result) == 0 {
		return nil, errors.New("no result")
	}
	if result[0] == "?" || strings.HasPrefix(result[0], "-") {
		return all, nil
	}
	var err error
	c.failed = false
	c.result, err = strconv.ParseInt(result[0], 0, 64)
	return append(all, event{c, true}), err
}

// parse splits the text before a call's closing bracket.
func (c *call) parse(text string) {
	name, args, _ := strings.Cut(text, "(")
	c.name = name
	depth, start := 0, 0
	quoted := false
	for i := 0; i < len(args); i++ {
		switch args[i] {
		case '"':
			quoted = !quoted
			if j := strings.IndexByte(args[i+1:], '"'); quoted && j >= 0 { // there are no quotes within
				i += j
			}
		case '[', '{', '(':
			depth++
		case ']', '}', ')':
			depth--
		case ',':
			if depth == 0 && !quoted {
				c.args = append(c.args, strings.TrimSpace(args[start:i]))
				start = i + 1
			}
		}
	}
	if last := strings.TrimSpace(args[start:]); last != "" {
		c.args = append(c.args, last)
	}
}

// number returns an argument that is one, such as a descriptor.
func (c *call) number(i int) (int64, error) {
	if i >= len(c.args) {
		return 0, fmt.Errorf("%s has no argument %d", c.name, i)
	}
	return strconv.ParseInt(c.args[i], 0, 64)
}

// bytes returns all strings in an argument, one after the other.
func (c *call) bytes(i int) ([]byte, error) {
	if i >= len(c.args) {
		return nil, fmt.Errorf("%s has no argument %d", c.name, i)
	}
	var all []byte
	rest := c.args[i]
	for {
		_, after, ok := strings.Cut(rest, `"`)
		if !ok {
			return all, nil
		}
		text, after, _ := strings.Cut(after, `"`)
		if strings.HasPrefix(after, "...") {
			return nil, fmt.Errorf("strace has cut a string")
		}
		b, ok := unhex(text)
		if !ok {
			return nil, fmt.Errorf("not in hex: %.100s", text)
		}
		all = append(all, b...)
		rest = after
	}
}

func unquote(s string) ([]byte, bool) {
	if len(s) < 2 || s[0] != '"' || s[len(s)-1] != '"' {
		return nil, false
	}
	return unhex(s[1 : len(s)-1])
}

// unhex decodes \x61\x62.
func unhex(s string) ([]byte, bool) {
	if len(s)%4 != 0 {
		return nil, false
	}
	b := make([]byte, len(s)/4)
	for i := range b {
		hi, lo := nibble(s[4*i+2]), nibble(s[4*i+3])
		if s[4*i] != '\\' || s[4*i+1] != 'x' || hi > 15 || lo > 15 {
			return nil, false
		}
		b[i] = hi<<4 | lo
	}
	return b, true
}

func nibble(c byte) byte {
	if i := bytes.IndexByte([]byte("0123456789abcdef"), c); i >= 0 {
		return byte(i)
	}
	return 255
}
