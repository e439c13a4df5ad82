package replication_test

import (
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/wharfage/wharfage/replication"
)

func TestConfigurationsAreRefusedByPathAndReason(t *testing.T) {
	for _, c := range []struct {
		text string
		want string // "path reason" of each fault
	}{
		{`[]`, ` invalid_type`},
		{`{"rules":null}`, `rules invalid_type`},
		{`{"rules":[]} x`, ` invalid_json`},
		{`{"rules":[],"rules":[]}`, ` invalid_json`},
		{`{"Rules":[]}`, `Rules unknown_field, rules missing_field`},
		{`{"rules":[{}]}`, `rules[0].destinations missing_field`},
		{`{"rules":[{"destinations":["a"]}]}`, `rules[0].destinations[0] invalid_type`},
		{`{"rules":[{"destinations":[{"region":7,"registryId":"1"}]}]}`, `rules[0].destinations[0].region invalid_region, rules[0].destinations[0].registryId invalid_registry_id`},
		{`{"rules":[{"destinations":[],"repositoryFilters":{}}]}`, `rules[0].repositoryFilters invalid_type`},
		{`{"rules":[{"destinations":[],"repositoryFilters":[]}]}`, `rules[0].repositoryFilters empty_filters`},
		{`{"rules":[{"destinations":[],"repositoryFilters":[{"filter":"a","filterType":null}]}]}`,
			`rules[0].repositoryFilters[0].filterType invalid_filter_type, rules[0].repositoryFilters[0].filter invalid_filter_value`},
		{`{"rules":[{"destinations":[],"deleteReplication":true}]}`, `rules[0].deleteReplication invalid_type`},
		{`{"rules":[{"destinations":[],"deleteReplication":{}}]}`, `rules[0].deleteReplication.enabled missing_field`},
		{`{"rules":[{"destinations":[],"deleteReplication":{"enabled":"true"}}]}`, `rules[0].deleteReplication.enabled invalid_type`},
		{`{"rules":[{"destinations":[],"deleteReplication":{"enabled":tru}}]}`, ` invalid_json`},
	} {
		_, err := replication.Validation{}.Parse(c.text)
		e, ok := errors.AsType[*replication.ConfigurationError](err)
		if !ok || !errors.Is(err, replication.ErrConfiguration) {
			t.Errorf("%s: %v", c.text, err)
			continue
		}
		var got []string
		for _, f := range e.Faults {
			got = append(got, f.At+" "+string(f.Reason))
		}
		if s := strings.Join(got, ", "); s != c.want {
			t.Errorf("%s: %s, want %s", c.text, s, c.want)
		}
	}
}

func TestDestinationsAreUnited(t *testing.T) {
	a, b := replication.Registry{Region: "eu-west-1", ID: "111122223333"}, replication.Registry{Region: "eu-west-2", ID: "111122223333"}
	c := replication.Configuration{Rules: []replication.Rule{
		{Destinations: []replication.Registry{b, a, b}},
		{Destinations: []replication.Registry{a}, Filters: []replication.RepositoryFilter{{Filter: "prod", Type: replication.PrefixMatch}}, Deletes: replication.DeleteReplication{Enabled: true}},
		{Destinations: []replication.Registry{b}, Filters: []replication.RepositoryFilter{{Filter: "x", Type: replication.PrefixMatch}}, Deletes: replication.DeleteReplication{Enabled: true}},
	}}
	if got, want := c.Match("prod/app"), []replication.Route{{To: b}, {To: a, Deletes: true}}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if got := new(replication.Configuration).Match("prod/app"); got != nil {
		t.Error(got)
	}
}

// FuzzConfiguration: what is accepted is accepted again when it is written, and means
// the same; and encoding/json reads the same.
func FuzzConfiguration(f *testing.F) {
	for _, c := range readSet[configCase](f, "replication-config") {
		f.Add(string(c.Config))
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := replication.Validation{}.Parse(text)
		if err != nil {
			return
		}
		out, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		again, err := replication.Validation{}.Parse(string(out))
		if err != nil || !reflect.DeepEqual(c, again) {
			t.Errorf("%s: %+v, and written and read again %+v, %v", text, c, again, err)
		}
		var second replication.Configuration
		if err := json.Unmarshal([]byte(text), &second); err != nil || !reflect.DeepEqual(c, second) {
			t.Errorf("%s: %+v, and to encoding/json %+v, %v", text, c, second, err)
		}
	})
}
