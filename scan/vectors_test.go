package scan

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"
)

var vectorsDir = flag.String("vectors", "../testdata/vectors", "folder of the vectors, laid out like testdata/vectors")

func TestVectors(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join(*vectorsDir, "platform", "scan-filters.json"))
	if err != nil {
		t.Fatal(err)
	}
	var set struct {
		Cases []struct {
			ID, Op, Why, Filter, Repository string
			Match                           bool
			ScanType                        Type
			Rules                           []Rule
			ScanFrequency                   Frequency // null is Off
		}
	}
	if err := json.Unmarshal(raw, &set); err != nil || len(set.Cases) == 0 {
		t.Fatalf("%d cases: %v", len(set.Cases), err)
	}
	for _, c := range set.Cases {
		t.Run("scan-filters/"+c.ID, func(t *testing.T) {
			switch c.Op {
			case "match":
				if got := (Filter{c.Filter, FilterWildcard}).Match(c.Repository); got != c.Match {
					t.Errorf("%q matches %q is %v: %s", c.Filter, c.Repository, got, c.Why)
				}
			case "frequency":
				config := Configuration{c.ScanType, c.Rules}
				if err := config.Check(); err != nil {
					t.Error(err)
				}
				if got, _ := config.Frequency(c.Repository); got != c.ScanFrequency {
					t.Errorf("%s is scanned %q, not %q: %s", c.Repository, got, c.ScanFrequency, c.Why)
				}
			default:
				t.Fatalf("op %q is not known here", c.Op)
			}
		})
	}
}
