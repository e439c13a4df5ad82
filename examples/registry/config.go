package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/wharfage/wharfage/replication"
)

// config is what the file of -config sets: a section for each subject, none of
// which is required. It is read once, at the start.
type config struct {
	Registry     *replication.Registry `json:"registry"` // what this one is called
	Repositories *repositoriesConfig   `json:"repositories"`
	Quotas       quotasConfig          `json:"quotas"`
	Scanning     *scanningConfig       `json:"scanning"`
	Replication  *replicationConfig    `json:"replication"`
	Cache        *cacheConfig          `json:"pullThroughCache"`
}

func configFlag(f *flag.FlagSet) *string {
	return f.String("config", "", "JSON `file` with settings of repositories, quotas, scanning, replication and a pull-through cache; the README has one")
}

// readConfig refuses a file of which anything is wrong, by its name. "" is no
// file, and sets nothing.
func readConfig(file string) (*config, error) {
	c := new(config)
	if file == "" {
		return c, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	if err = decode(text, c); err == nil {
		err = c.check()
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return c, nil
}

// check says what is wrong, section by section.
func (c *config) check() error {
	var identity error
	if c.Registry != nil {
		identity = checkIdentity(*c.Registry)
	}
	for _, section := range []struct {
		name string
		err  error
	}{
		{"registry", identity},
		{"repositories", c.Repositories.check()},
		{"quotas", c.Quotas.check()},
		{"scanning", c.Scanning.check()},
		{"replication", c.Replication.check(c.Registry)},
		{"pullThroughCache", c.Cache.check()},
	} {
		if section.err != nil {
			return fmt.Errorf("%s: %w", section.name, section.err)
		}
	}
	if c.Quotas.Repositories > 0 && c.Repositories == nil {
		return errors.New("quotas: repositories: goes with the section repositories, since without it nothing makes any")
	}
	return nil
}

// decode reads one JSON document, whose members are to be known, and there once.
func decode(text []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		if errors.Is(err, io.EOF) {
			err = errors.New("it is empty")
		}
		if quoted, unknown := strings.CutPrefix(err.Error(), "json: unknown field "); unknown { // which says not where
			name, _ := strconv.Unquote(quoted)
			err = fmt.Errorf("%s: unknown field %s", strings.Join(placesOf(text, name), " or "), quoted)
		}
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("there is something behind the document")
	}
	seen := map[string]bool{}
	return members(json.NewDecoder(bytes.NewReader(text)), "", func(at, _ string) error {
		if seen[at] {
			return fmt.Errorf("%s: it is there twice", at)
		}
		seen[at] = true
		return nil
	})
}

// placesOf returns where there are members of that name.
func placesOf(text []byte, name string) (places []string) {
	members(json.NewDecoder(bytes.NewReader(text)), "", func(at, member string) error {
		if member == name {
			places = append(places, cmp.Or(strings.TrimSuffix(at, "/"+name), "/"))
		}
		return nil
	})
	return places
}

// members calls f with each member of the value that follows, and its JSON pointer, which
// is below at.
func members(d *json.Decoder, at string, f func(at, name string) error) error {
	token, err := d.Token()
	if err != nil {
		return err
	}
	for i := 0; (token == json.Delim('{') || token == json.Delim('[')) && d.More(); i++ {
		below := fmt.Sprint(at, "/", i)
		if token == json.Delim('{') {
			name, err := d.Token()
			if err != nil {
				return err
			}
			below = fmt.Sprint(at, "/", name)
			if err := f(below, name.(string)); err != nil {
				return err
			}
		}
		if err := members(d, below, f); err != nil {
			return err
		}
	}
	if token == json.Delim('{') || token == json.Delim('[') {
		_, err = d.Token()
	}
	return err
}
