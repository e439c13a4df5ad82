package pullthrough

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

var vectorsDir = flag.String("vectors", "../../testdata/vectors", "folder of the vectors, laid out like testdata/vectors")

type vectorCase struct {
	ID, Op, Why string
	Rules       json.RawMessage
	Rule        json.RawMessage
	Local       string `json:"local_repository"`
	Registry    string `json:"upstream_registry"`
	Repository  string `json:"upstream_repository"`
	Expect      json.RawMessage
	Valid       bool
	Reason      Fault
}

// TestVectors runs with ECR's upstreams, which is the profile of the vectors.
func TestVectors(t *testing.T) {
	const name = "pull-through-mapping"
	raw, err := os.ReadFile(filepath.Join(*vectorsDir, "platform", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	var set struct{ Cases []vectorCase }
	if err := json.Unmarshal(raw, &set); err != nil || len(set.Cases) == 0 {
		t.Fatalf("%s has %d cases: %v", name, len(set.Cases), err)
	}
	for _, c := range set.Cases {
		t.Run(name+"/"+c.ID, func(t *testing.T) { c.run(t) })
	}
}

func (c *vectorCase) run(t *testing.T) {
	if c.Op == "rule_valid" {
		_, err := ParseRules("["+string(c.Rule)+"]", RuleOptions{ECR: true})
		if (err == nil) != c.Valid {
			t.Fatalf("%s: %v: %s", c.Rule, err, c.Why)
		}
		if e, ok := errors.AsType[*RuleError](err); err != nil && (!ok || !errors.Is(err, ErrInvalid)) {
			t.Errorf("%v is no RuleError", err)
		} else if c.Reason == FaultPrefix && e.Fault != FaultPrefix && e.Fault != FaultUpstreamPrefix {
			t.Errorf("%v, not for %s: %s", err, c.Reason, c.Why)
		}
		return
	}
	rules, err := ParseRules(string(c.Rules), RuleOptions{ECR: true})
	if err != nil {
		t.Fatal(err)
	}
	switch c.Op {
	case "local_to_upstream":
		var want *struct {
			Prefix   string `json:"rule_prefix"`
			Registry string `json:"upstream_registry"`
			Repo     string `json:"upstream_repository"`
		}
		if err := json.Unmarshal(c.Expect, &want); err != nil {
			t.Fatal(err)
		}
		r, repo, ok := rules.Upstream(c.Local)
		if ok != (want != nil) || ok && (r.Prefix != want.Prefix || r.UpstreamURL != want.Registry || repo != want.Repo) {
			t.Errorf("%s is %s of %+v, %v: %s", c.Local, repo, r, ok, c.Why)
		}
	case "upstream_to_local":
		var want []string
		if err := json.Unmarshal(c.Expect, &want); err != nil {
			t.Fatal(err)
		}
		if got := rules.Local(c.Registry, c.Repository); !slices.Equal(got, want) {
			t.Errorf("%s/%s is %q, not %q: %s", c.Registry, c.Repository, got, want, c.Why)
		}
	default:
		t.Errorf("unknown op %q", c.Op)
	}
}
