package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
)

// config is what the file of -config sets: a section for each subject, none of
// which is required. It is read once, at the start.
type config struct {
	Repositories *repositoriesConfig `json:"repositories"`
	Quotas       quotasConfig        `json:"quotas"`
	Scanning     *scanningConfig     `json:"scanning"`
}

func configFlag(f *flag.FlagSet) *string {
	return f.String("config", "", "JSON `file` with settings of repositories, quotas and scanning; the README has one")
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
	for _, section := range []struct {
		name string
		err  error
	}{
		{"repositories", c.Repositories.check()},
		{"quotas", c.Quotas.check()},
		{"scanning", c.Scanning.check()},
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
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("there is something behind the document")
	}
	d = json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	return checkNames(d, "")
}

// checkNames refuses a member that is there twice.
func checkNames(d *json.Decoder, at string) error {
	token, err := d.Token()
	if err != nil {
		return err
	}
	seen := map[string]bool{}
	for i := 0; (token == json.Delim('{') || token == json.Delim('[')) && d.More(); i++ {
		below := fmt.Sprint(at, "/", i)
		if token == json.Delim('{') {
			name, err := d.Token()
			if err != nil {
				return err
			}
			below = fmt.Sprint(at, "/", name)
			if seen[below] {
				return fmt.Errorf("%s: it is there twice", below)
			}
			seen[below] = true
		}
		if err := checkNames(d, below); err != nil {
			return err
		}
	}
	if token == json.Delim('{') || token == json.Delim('[') {
		_, err = d.Token()
	}
	return err
}
