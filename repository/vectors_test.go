package repository

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"testing"
)

var vectorsDir = flag.String("vectors", "../testdata/vectors", "folder of the vectors, laid out like testdata/vectors")

type vectorCase struct {
	ID, Why string
	// Of repository-names.
	Name   string
	Valid  bool
	Reason NameFault
	// Of creation-templates.
	Templates  []Template
	Repository string
	Action     Cause
	Expect     struct {
		Template *string
		Create   bool
	}
}

func readSet(t *testing.T, name string) []vectorCase {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(*vectorsDir, "platform", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	var set struct{ Cases []vectorCase }
	if err := json.Unmarshal(raw, &set); err != nil || len(set.Cases) == 0 {
		t.Fatalf("%s has %d cases: %v", name, len(set.Cases), err)
	}
	return set.Cases
}

func TestVectors(t *testing.T) {
	for _, c := range readSet(t, "repository-names") {
		t.Run("repository-names/"+c.ID, func(t *testing.T) {
			err := ECRNames.Check(c.Name)
			if (err == nil) != c.Valid {
				t.Fatalf("%q: %v: %s", c.Name, err, c.Why)
			}
			if e, ok := errors.AsType[*NameError](err); err != nil && (!ok || e.Fault != c.Reason) {
				t.Errorf("%q: %v, not for %s: %s", c.Name, err, c.Reason, c.Why)
			}
		})
	}
	for _, c := range readSet(t, "creation-templates") {
		t.Run("creation-templates/"+c.ID, func(t *testing.T) {
			if err := CheckTemplates(c.Templates); err != nil {
				t.Error(err)
			}
			got, create := ForCreation(c.Templates, c.Repository, c.Action)
			if create != c.Expect.Create || (got == nil) != (c.Expect.Template == nil) || got != nil && got.Prefix != *c.Expect.Template {
				t.Errorf("template %+v, create %v: %s", got, create, c.Why)
			}
		})
	}
}
