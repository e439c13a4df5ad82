package main

import (
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/wharfage/wharfage/internal/strictjson"
)

// readConfig reads a list of what to sync, each with the flags of sync that say what,
// by their names:
//
//	{"syncs": [
//	  {"from": "registry.example/team/app", "to": "localhost:5000/team/app", "tags": ["v*"], "referrers": "all"},
//	  {"from": "registry.example", "to": "localhost:5000/mirror", "repos": ["base/*"], "delete": true, "delete-max": 10}
//	]}
//
// Members that are not known, or come twice, are refused.
func readConfig(file string) ([]*job, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	c := configReader{file: file}
	c.Reset(string(text))
	var jobs []*job
	for top := c.Object(); top.Next(); {
		if c.Name != "syncs" {
			c.fail("/"+c.Name, "is not known")
			continue
		}
		for list := c.Array(); list.Next(); {
			jobs = append(jobs, c.job(fmt.Sprintf("/syncs/%d", len(jobs))))
		}
	}
	if c.End(); c.Err() != nil && c.err == nil {
		c.err = fmt.Errorf("%s: %w", file, c.Err())
	}
	if len(jobs) == 0 {
		c.fail("/syncs", "is to be a list of what to sync")
	}
	return jobs, c.err
}

// configReader keeps the first fault. None is looked for after it.
type configReader struct {
	strictjson.Reader
	file string
	err  error
}

func (c *configReader) fail(at, format string, args ...any) {
	if c.err == nil && c.Err() == nil {
		c.err = fmt.Errorf("%s: %s %s", c.file, at, fmt.Sprintf(format, args...))
	}
	c.Stop()
}

func (c *configReader) job(at string) *job {
	j := new(job)
	f := flag.NewFlagSet("", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	j.flags(f, "sync")
	f.StringVar(&j.from, "from", "", "")
	f.StringVar(&j.to, "to", "", "")
	for o := c.Object(); o.Next(); {
		name := c.Name
		known := f.Lookup(name)
		if known == nil {
			c.fail(at+"/"+name, "is not known")
			continue
		}
		// A flag that may be repeated is a flag.Func, and so are -referrers and -platform.
		if _, single := known.Value.(flag.Getter); c.Peek() != '[' || single || name == "referrers" {
			c.value(f, name, at+"/"+name)
			continue
		}
		n := 0
		for list := c.Array(); list.Next(); n++ {
			c.value(f, name, fmt.Sprintf("%s/%s/%d", at, name, n))
		}
	}
	if c.Err() == nil {
		if err := j.check("sync"); err != nil {
			c.fail(at, "is wrong: %v", err)
		}
	}
	return j
}

// value sets a flag to a string, a number, true or false.
func (c *configReader) value(f *flag.FlagSet, name, at string) {
	var text string
	switch c.Peek() {
	case '"':
		text = c.String()
	case '{', '[', 'n':
		c.fail(at, "is to be a string, a number, true or false")
		return
	default:
		start := c.Pos()
		c.Skip()
		text = c.Since(start)
	}
	if c.Err() != nil {
		return
	}
	if err := f.Set(name, text); err != nil {
		c.fail(at, "is %q: %v", text, err)
	}
}
