package replication

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// Registry names a registry as ECR does: by a Region and an account. Outside AWS
// both are whatever your Destinations understand, in that form.
type Registry struct {
	Region string `json:"region"`
	ID     string `json:"registryId"` // 12 digits
}

// String returns ID/REGION.
func (r Registry) String() string { return r.ID + "/" + r.Region }

// Configuration says what a registry copies where, in the form of ECR's
// ReplicationConfiguration. The zero Configuration copies nothing.
type Configuration struct {
	Rules []Rule `json:"rules"`
}

// MarshalJSON writes empty lists where others would write null.
func (c Configuration) MarshalJSON() ([]byte, error) {
	type plain Configuration
	out := plain{Rules: append([]Rule{}, c.Rules...)}
	for i, r := range out.Rules {
		out.Rules[i].Destinations = append([]Registry{}, r.Destinations...)
	}
	return json.Marshal(out)
}

// Rule copies the repositories that one of its filters matches to all of its
// destinations.
type Rule struct {
	Destinations []Registry         `json:"destinations"`
	Filters      []RepositoryFilter `json:"repositoryFilters,omitempty"` // nil means every repository
	Deletes      DeleteReplication  `json:"deleteReplication,omitzero"`
}

// DeleteReplication makes deletions go where pushes go.
type DeleteReplication struct {
	Enabled bool `json:"enabled"`
}

// RepositoryFilter selects repositories.
type RepositoryFilter struct {
	Filter string `json:"filter"`     // the begin of their names, in which no slash is assumed
	Type   string `json:"filterType"` // PrefixMatch
}

// PrefixMatch is the type of all filters.
const PrefixMatch = "PREFIX_MATCH"

// Route is where the images of a repository go.
type Route struct {
	To      Registry
	Deletes bool // its deletions too
}

// Covers tells whether the rule is for a repository.
func (r *Rule) Covers(repo string) bool {
	if r.Filters == nil {
		return true
	}
	for _, f := range r.Filters {
		if f.Type == PrefixMatch && strings.HasPrefix(repo, f.Filter) {
			return true
		}
	}
	return false
}

// Match returns where the images of a repository go: the destinations of all
// rules that cover it, each once, in the order of the rules. Deletions go where one
// of them says so.
func (c *Configuration) Match(repo string) []Route {
	var out []Route
	at := map[Registry]int{}
	for i := range c.Rules {
		if !c.Rules[i].Covers(repo) {
			continue
		}
		for _, to := range c.Rules[i].Destinations {
			n, found := at[to]
			if !found {
				n = len(out)
				at[to], out = n, append(out, Route{To: to})
			}
			out[n].Deletes = out[n].Deletes || c.Rules[i].Deletes.Enabled
		}
	}
	return out
}

// ErrConfiguration is what a [ConfigurationError] unwraps to.
var ErrConfiguration = errors.New("invalid replication configuration")

// ConfigurationError is all that is wrong with a configuration. It unwraps to
// [ErrConfiguration].
type ConfigurationError struct{ Faults []ConfigurationFault }

func (e *ConfigurationError) Error() string {
	parts := make([]string, len(e.Faults))
	for i, f := range e.Faults {
		parts[i] = f.String()
	}
	return ErrConfiguration.Error() + ": " + strings.Join(parts, "; ")
}

func (e *ConfigurationError) Unwrap() error { return ErrConfiguration }

// ConfigurationFault is one fault of a configuration.
type ConfigurationFault struct {
	At     string // where: "rules[0].destinations[1].region", "" for the document
	Reason Reason
	Detail string // what would be right
}

func (f ConfigurationFault) String() string {
	at := f.At
	if at == "" {
		at = "document"
	}
	return fmt.Sprintf("%s: %s (%s)", at, f.Detail, f.Reason)
}

// Reason is a kind of fault of a configuration.
type Reason string

// The reasons.
const (
	ReasonJSON                Reason = "invalid_json" // or JSON that two readers could understand differently
	ReasonMissing             Reason = "missing_field"
	ReasonType                Reason = "invalid_type"
	ReasonUnknown             Reason = "unknown_field"
	ReasonSelf                Reason = "self_destination"
	ReasonPartition           Reason = "cross_partition"
	ReasonNoFilters           Reason = "empty_filters"
	ReasonTooManyFilters      Reason = "too_many_filters"
	ReasonTooManyRules        Reason = "too_many_rules"
	ReasonTooManyDestinations Reason = "too_many_destinations"
	ReasonFilterType          Reason = "invalid_filter_type"
	ReasonFilter              Reason = "invalid_filter_value"
	ReasonRegistryID          Reason = "invalid_registry_id"
	ReasonRegion              Reason = "invalid_region"
)

// Validation says what a configuration may say. The zero value has ECR's limits.
type Validation struct {
	For Registry // whose configuration it is; zero means that any destination is another one

	MaxRules        int // 0 means 25
	MaxDestinations int // different ones, of all rules; 0 means 25
	MaxFilters      int // of a rule; 0 means 100

	// Partition returns the part of the world that a Region is in: there are no copies
	// from one to another. nil means [Partition].
	Partition func(region string) string
}

// Partition returns the partition of AWS that a Region is in. A name that AWS has
// not given is in "aws".
func Partition(region string) string {
	for _, p := range [...][2]string{
		{"cn-", "aws-cn"}, {"us-gov-", "aws-us-gov"}, {"us-iso-", "aws-iso"}, {"us-isob-", "aws-iso-b"},
		{"eu-isoe-", "aws-iso-e"}, {"us-isof-", "aws-iso-f"}, {"eusc-", "aws-eusc"},
	} {
		if strings.HasPrefix(region, p[0]) {
			return p[1]
		}
	}
	return "aws"
}

// maxRuleDestinations is how many a rule may list, repetitions included (ECR's API
// model).
const maxRuleDestinations = 100

// Check says what is wrong with a configuration, as a *[ConfigurationError].
func (v Validation) Check(c Configuration) error {
	faults := v.faults(c)
	if len(faults) == 0 {
		return nil
	}
	return &ConfigurationError{faults}
}

func (v Validation) faults(c Configuration) (out []ConfigurationFault) {
	fault := func(at string, r Reason, format string, args ...any) {
		out = append(out, ConfigurationFault{at, r, fmt.Sprintf(format, args...)})
	}
	most := func(set, ecr int) int {
		if set > 0 {
			return set
		}
		return ecr
	}
	partition := v.Partition
	if partition == nil {
		partition = Partition
	}
	if n := most(v.MaxRules, 25); len(c.Rules) > n {
		fault("rules", ReasonTooManyRules, "takes at most %d, has %d", n, len(c.Rules))
	}
	different := map[Registry]bool{}
	for i, r := range c.Rules {
		at := fmt.Sprintf("rules[%d]", i)
		if len(r.Destinations) > maxRuleDestinations {
			fault(at+".destinations", ReasonTooManyDestinations, "takes at most %d, has %d", maxRuleDestinations, len(r.Destinations))
		}
		for j, to := range r.Destinations {
			at := fmt.Sprintf("%s.destinations[%d]", at, j)
			different[to] = true
			validRegion, validID := isRegion(to.Region), isRegistryID(to.ID)
			if !validRegion {
				fault(at+".region", ReasonRegion, "takes 2 to 25 lower case letters, digits and hyphens, not %.40q", to.Region)
			}
			if !validID {
				fault(at+".registryId", ReasonRegistryID, "takes a string of 12 digits, not %.40q", to.ID)
			}
			switch {
			case !validRegion || !validID || v.For == (Registry{}):
			case to == v.For:
				fault(at, ReasonSelf, "Replication destination cannot be the same as the source registry") // the words of ECR
			case partition(to.Region) != partition(v.For.Region):
				fault(at+".region", ReasonPartition, "is in %s, and %s in %s", partition(to.Region), v.For, partition(v.For.Region))
			}
		}
		if r.Filters == nil {
			continue
		}
		switch n := most(v.MaxFilters, 100); {
		case len(r.Filters) == 0:
			fault(at+".repositoryFilters", ReasonNoFilters, "is to be left out for every repository")
		case len(r.Filters) > n:
			fault(at+".repositoryFilters", ReasonTooManyFilters, "takes at most %d, has %d", n, len(r.Filters))
		}
		for j, f := range r.Filters {
			at := fmt.Sprintf("%s.repositoryFilters[%d]", at, j)
			if f.Type != PrefixMatch {
				fault(at+".filterType", ReasonFilterType, "takes %s, not %.40q", PrefixMatch, f.Type)
			}
			if !isFilter(f.Filter) {
				fault(at+".filter", ReasonFilter, "takes the begin of a name, of 2 to 256 characters, not %.40q", f.Filter)
			}
		}
	}
	if n := most(v.MaxDestinations, 25); len(different) > n {
		fault("rules", ReasonTooManyDestinations, "have at most %d different destinations, not %d", n, len(different))
	}
	return out
}

func lowerAlnum(c byte) bool { return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' }

// isRegion is [0-9a-z-]{2,25}.
func isRegion(s string) bool {
	for i := range len(s) {
		if !lowerAlnum(s[i]) && s[i] != '-' {
			return false
		}
	}
	return 2 <= len(s) && len(s) <= 25
}

// isRegistryID is [0-9]{12}.
func isRegistryID(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return len(s) == 12
}

// isFilter is ^(?:[a-z0-9]+(?:[._-][a-z0-9]*)*/)*[a-z0-9]*(?:[._-][a-z0-9]*)*$ of 2 to
// 256 characters: each part before a slash begins with a letter or digit.
func isFilter(s string) bool {
	if len(s) < 2 || len(s) > 256 {
		return false
	}
	start := 0 // of the part
	for i := range len(s) {
		switch c := s[i]; {
		case c == '/' && (i == start || !lowerAlnum(s[start])):
			return false
		case c == '/':
			start = i + 1
		case !lowerAlnum(c) && c != '.' && c != '_' && c != '-':
			return false
		}
	}
	return true
}
