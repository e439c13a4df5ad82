package replication

import (
	"fmt"
	"slices"
	"strings"

	"github.com/wharfage/wharfage/internal/strictjson"
)

// Parse reads a configuration strictly: names in their exact case, none unknown,
// none twice, no null. The error is a *[ConfigurationError] with all faults; after
// one of the JSON itself no more are looked for.
func (v Validation) Parse(text string) (Configuration, error) {
	var p configurationParser
	p.Reset(text)
	c := p.document()
	p.End()
	if err := p.Err(); err != nil {
		return Configuration{}, &ConfigurationError{[]ConfigurationFault{{"", ReasonJSON, "is to be one JSON object: " + err.Error()}}}
	}
	form := p.faults
	for _, f := range v.faults(c) {
		// What cannot be read is empty in c.
		if !slices.ContainsFunc(form, func(have ConfigurationFault) bool { return have.At == f.At || strings.HasPrefix(f.At, have.At+".") }) {
			p.faults = append(p.faults, f)
		}
	}
	if len(p.faults) > 0 {
		return Configuration{}, &ConfigurationError{p.faults}
	}
	return c, nil
}

// configurationParser gathers what is wrong with the form of a document.
type configurationParser struct {
	strictjson.Reader
	faults []ConfigurationFault
}

func (p *configurationParser) fault(at string, r Reason, detail string) {
	p.faults = append(p.faults, ConfigurationFault{at, r, detail})
}

// is tells whether a value follows that begins with c. If not, it reads and reports
// the value.
func (p *configurationParser) is(c byte, at string, r Reason, kind string) bool {
	if p.Peek() == c {
		return true
	}
	p.Skip()
	p.fault(at, r, "is to be "+kind)
	return false
}

// object reads the members of an object, each by the function of its name, which
// is told where it is. Those required must be there.
func (p *configurationParser) object(at string, required []string, members map[string]func(at string)) {
	if !p.is('{', at, ReasonType, "an object") {
		return
	}
	prefix := at
	if at != "" {
		prefix += "."
	}
	var found []string
	for o := p.Object(); o.Next(); {
		name := p.Name
		found = append(found, name)
		if read := members[name]; read != nil {
			read(prefix + name)
			continue
		}
		p.Skip()
		p.fault(prefix+name, ReasonUnknown, "is not known")
	}
	for _, name := range required {
		if !slices.Contains(found, name) {
			p.fault(prefix+name, ReasonMissing, "is required")
		}
	}
}

// list reads the elements of a list. It is false if there is none.
func (p *configurationParser) list(at string, element func(at string)) bool {
	if !p.is('[', at, ReasonType, "a list") {
		return false
	}
	n := 0
	for a := p.Array(); a.Next(); n++ {
		element(fmt.Sprintf("%s[%d]", at, n))
	}
	return true
}

func (p *configurationParser) text(s *string, wrong Reason) func(string) {
	return func(at string) {
		if p.is('"', at, wrong, "a string") {
			*s = p.String()
		}
	}
}

func (p *configurationParser) document() (c Configuration) {
	p.object("", []string{"rules"}, map[string]func(string){"rules": func(at string) {
		p.list(at, func(at string) { c.Rules = append(c.Rules, p.rule(at)) })
	}})
	if c.Rules == nil {
		c.Rules = []Rule{}
	}
	return c
}

func (p *configurationParser) rule(at string) (r Rule) {
	r.Destinations = []Registry{}
	p.object(at, []string{"destinations"}, map[string]func(string){
		"destinations": func(at string) {
			p.list(at, func(at string) {
				var to Registry
				p.object(at, []string{"region", "registryId"}, map[string]func(string){
					"region": p.text(&to.Region, ReasonRegion), "registryId": p.text(&to.ID, ReasonRegistryID),
				})
				r.Destinations = append(r.Destinations, to)
			})
		},
		"repositoryFilters": func(at string) {
			filters := []RepositoryFilter{}
			if p.list(at, func(at string) {
				var f RepositoryFilter
				p.object(at, []string{"filter", "filterType"}, map[string]func(string){
					"filter": p.text(&f.Filter, ReasonFilter), "filterType": p.text(&f.Type, ReasonFilterType),
				})
				filters = append(filters, f)
			}) {
				r.Filters = filters
			}
		},
		"deleteReplication": func(at string) {
			p.object(at, []string{"enabled"}, map[string]func(string){"enabled": func(at string) {
				next := p.Peek()
				p.Skip()
				if next != 't' && next != 'f' {
					p.fault(at, ReasonType, "is to be true or false")
				}
				r.Deletes.Enabled = next == 't'
			}})
		},
	})
	return r
}
