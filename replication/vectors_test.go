package replication_test

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wharfage/wharfage/replication"
)

var vectorsDir = flag.String("vectors", "../testdata/vectors", "folder of the vectors, laid out like testdata/vectors")

func readSet[C any](t testing.TB, name string) []C {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(*vectorsDir, "platform", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	var set struct{ Cases []C }
	if err := json.Unmarshal(raw, &set); err != nil || len(set.Cases) == 0 {
		t.Fatalf("%s has %d cases: %v", name, len(set.Cases), err)
	}
	return set.Cases
}

type configCase struct {
	ID, Why string
	Source  replication.Registry `json:"source_registry"`
	Config  json.RawMessage
	Limits  struct{ Rules, Destinations, Filters int }
	Valid   bool
	Reason  replication.Reason
	At      string
	AWS     struct {
		Contains string `json:"message_contains"`
	} `json:"aws_error"`
}

type matchCase struct {
	ID, Why    string
	Filters    []string
	Repository string
	Match      bool
}

func TestVectors(t *testing.T) {
	for _, c := range readSet[configCase](t, "replication-config") {
		t.Run("replication-config/"+c.ID, func(t *testing.T) {
			v := replication.Validation{For: c.Source, MaxRules: c.Limits.Rules, MaxDestinations: c.Limits.Destinations, MaxFilters: c.Limits.Filters}
			got, err := v.Parse(string(c.Config))
			if c.Valid {
				back, _ := json.Marshal(got)
				if again, err2 := v.Parse(string(back)); err != nil || err2 != nil || len(again.Rules) != len(got.Rules) {
					t.Errorf("%v, written and read again %v: %s", err, err2, c.Why)
				}
				return
			}
			e, ok := errors.AsType[*replication.ConfigurationError](err)
			if !ok || len(e.Faults) != 1 || e.Faults[0].Reason != c.Reason || e.Faults[0].At != c.At || !strings.Contains(err.Error(), c.AWS.Contains) {
				t.Errorf("%v, not %s at %s: %s", err, c.Reason, c.At, c.Why)
			}
		})
	}
	for _, c := range readSet[matchCase](t, "replication-match") {
		t.Run("replication-match/"+c.ID, func(t *testing.T) {
			var r replication.Rule
			for _, f := range c.Filters {
				r.Filters = append(r.Filters, replication.RepositoryFilter{Filter: f, Type: replication.PrefixMatch})
			}
			if r.Covers(c.Repository) != c.Match {
				t.Errorf("%q covers %s: %v: %s", c.Filters, c.Repository, !c.Match, c.Why)
			}
		})
	}
	for _, c := range readSet[scenarioCase](t, "replication-scenarios") {
		t.Run("replication-scenarios/"+c.ID, c.run)
	}
}
