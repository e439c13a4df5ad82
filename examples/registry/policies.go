package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/wharfage/wharfage/lifecycle"
)

// policies are what -lifecycle names: one lifecycle policy for all repositories,
// or a list of them in which the first that is for a repository counts:
//
//	{"policies": [
//	  {"repositories": ["prod/*", "base"], "file": "prod.json"},
//	  {"repositories": ["*"], "policy": {"rules": [ … ]}}
//	]}
//
// In a pattern * is any text, with slashes. A file is beside this one. A
// repository that none is for keeps everything.
type policies []policyFor

type policyFor struct {
	patterns []string
	policy   *lifecycle.Policy
}

// readPolicies refuses a file of which anything is wrong, by its name.
func readPolicies(file string) (policies, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var top map[string]json.RawMessage
	if json.Unmarshal(text, &top) != nil || top["policies"] == nil {
		p, err := lifecycle.Parse(string(text))
		if err != nil {
			return nil, fmt.Errorf("%s: it is to be a lifecycle policy, or to have a list of policies: %w", file, err)
		}
		return policies{{[]string{"*"}, p}}, nil
	}
	var list struct {
		Policies []struct {
			Repositories []string
			File         string
			Policy       json.RawMessage
		}
	}
	if err := decode(text, &list); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	var out policies
	for i, e := range list.Policies {
		fail := func(err error) error { return fmt.Errorf("%s: /policies/%d: %w", file, i, err) }
		text := string(e.Policy)
		switch {
		case len(e.Repositories) == 0 || slices.Contains(e.Repositories, ""):
			return nil, fail(errors.New("repositories are to be patterns, as in [\"prod/*\"]"))
		case (e.File == "") == (text == ""):
			return nil, fail(errors.New("it is to have a file or a policy, and not both"))
		case e.File != "":
			b, err := os.ReadFile(filepath.Join(filepath.Dir(file), filepath.FromSlash(e.File)))
			if err != nil {
				return nil, fail(err)
			}
			text = string(b)
		}
		p, err := lifecycle.Parse(text)
		if err != nil {
			if e.File != "" {
				err = fmt.Errorf("%s: %w", e.File, err)
			}
			return nil, fail(err)
		}
		out = append(out, policyFor{e.Repositories, p})
	}
	return out, nil
}

// of returns the policy for a repository, or nil.
func (p policies) of(repo string) *lifecycle.Policy {
	for _, e := range p {
		if slices.ContainsFunc(e.patterns, func(pattern string) bool { return matches(pattern, repo) }) {
			return e.policy
		}
	}
	return nil
}

// matches takes * for any text.
func matches(pattern, name string) bool {
	parts := strings.Split(pattern, "*")
	first, last := parts[0], parts[len(parts)-1]
	if len(parts) == 1 {
		return name == pattern
	}
	if len(name) < len(first)+len(last) || !strings.HasPrefix(name, first) || !strings.HasSuffix(name, last) {
		return false
	}
	name = name[len(first) : len(name)-len(last)]
	for _, part := range parts[1 : len(parts)-1] {
		i := strings.Index(name, part)
		if i < 0 {
			return false
		}
		name = name[i+len(part):]
	}
	return true
}
