package pullthrough

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/wharfage/wharfage/internal/strictjson"
	"github.com/wharfage/wharfage/manifest"
)

// Root as a prefix stands for all repositories that no other rule covers; as an
// upstream prefix, for none.
const Root = "ROOT"

// Rule maps repositories to those of an upstream registry, under the names of ECR's
// API. A slash always follows a prefix, be it written or not.
type Rule struct {
	Prefix         string `json:"ecrRepositoryPrefix"`
	UpstreamURL    string `json:"upstreamRegistryUrl"`                // a host, with a port if need be
	Upstream       string `json:"upstreamRegistry,omitempty"`         // ECR's name for it, as "docker-hub"
	CredentialARN  string `json:"credentialArn,omitempty"`            // for Cache.Upstream, to which it may mean anything
	RoleARN        string `json:"customRoleArn,omitempty"`            // likewise
	UpstreamPrefix string `json:"upstreamRepositoryPrefix,omitempty"` // "" means Root
}

// Rules are what a registry caches. [ParseRules] and [NewRules] make them; the zero
// Rules are none.
type Rules struct{ rules []Rule } // longest prefix first, Root last

// RuleOptions say which rules are valid. The zero value is less strict than ECR.
type RuleOptions struct {
	MaxRules int  // 0 means 50, which is ECR's
	ECR      bool // only the upstreams that ECR has, and secrets as it names them
}

const defaultMaxRules = 50

// ErrInvalid matches each [RuleError].
var ErrInvalid = errors.New("invalid pull-through cache rule")

// Fault is what is wrong with a rule.
type Fault string

// The faults.
const (
	FaultSyntax         Fault = "invalid_json"
	FaultType           Fault = "invalid_type"
	FaultUnknown        Fault = "unknown_field"
	FaultMissing        Fault = "missing_field"
	FaultTooMany        Fault = "too_many_rules"
	FaultPrefix         Fault = "invalid_prefix"
	FaultUpstreamPrefix Fault = "invalid_upstream_prefix" // ill-formed, or set for Root
	FaultUpstream       Fault = "unsupported_upstream"    // no host, or none that ECR has, or not that of upstreamRegistry
	FaultCredential     Fault = "invalid_credential"
	FaultExists         Fault = "already_exists" // another rule has the prefix
)

// RuleError is the first thing that is wrong with rules. It unwraps to [ErrInvalid].
type RuleError struct {
	Pointer string // where, as a JSON Pointer (RFC 6901); "" is the document
	Fault   Fault
	Value   string // what stands there, shortened
	Detail  string // what would be right
}

func (e *RuleError) Error() string {
	where := e.Pointer
	if where == "" {
		where = "rules"
	}
	if e.Value == "" {
		return fmt.Sprintf("%s: %s", where, e.Detail)
	}
	return fmt.Sprintf("%s: %s (is %s)", where, e.Detail, e.Value)
}

func (e *RuleError) Unwrap() error { return ErrInvalid }

func fault(pointer string, f Fault, value, detail string) *RuleError {
	const most = 80
	if len(value) > most {
		value = value[:most] + "…"
	}
	if value != "" {
		value = strconv.Quote(value)
	}
	return &RuleError{pointer, f, value, detail}
}

// ParseRules reads a JSON array of rules: exact names, no others, none twice. Errors:
// *[RuleError].
func ParseRules(text string, o RuleOptions) (Rules, error) {
	var p parser
	p.Reset(text)
	rules, err := p.rules()
	if e := p.Err(); e != nil {
		return Rules{}, fault("", FaultSyntax, "", e.Error())
	}
	if err != nil {
		return Rules{}, err
	}
	return NewRules(rules, o)
}

type parser struct{ strictjson.Reader }

func (p *parser) rules() (rules []Rule, err error) {
	if p.Peek() != '[' {
		p.Skip()
		p.End()
		return nil, fault("", FaultType, "", "is to be an array of rules")
	}
	for a := p.Array(); a.Next(); {
		r, e := p.rule("/" + strconv.Itoa(len(rules)))
		if rules = append(rules, r); err == nil && e != nil {
			err = e
		}
	}
	p.End()
	return rules, err
}

func (p *parser) rule(at string) (r Rule, err *RuleError) {
	fail := func(e *RuleError) {
		if err == nil {
			err = e
		}
	}
	if p.Peek() != '{' {
		p.Skip()
		return r, fault(at, FaultType, "", "is to be an object")
	}
	for o := p.Object(); o.Next(); {
		into := r.member(p.Name)
		name := at + "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(p.Name)
		if into == nil {
			p.Skip()
			fail(fault(name, FaultUnknown, "", "no rule has a member of this name"))
			continue
		}
		var ok bool
		if *into, ok = p.TryString(); !ok {
			p.Skip()
			fail(fault(name, FaultType, "", "is to be a string"))
		} else if *into == "" {
			fail(fault(name, FaultMissing, "", "is empty: leave it out"))
		}
	}
	return r, err
}

func (r *Rule) member(name string) *string {
	switch name {
	case "ecrRepositoryPrefix":
		return &r.Prefix
	case "upstreamRegistryUrl":
		return &r.UpstreamURL
	case "upstreamRegistry":
		return &r.Upstream
	case "credentialArn":
		return &r.CredentialARN
	case "customRoleArn":
		return &r.RoleARN
	case "upstreamRepositoryPrefix":
		return &r.UpstreamPrefix
	}
	return nil
}

// NewRules checks rules. Errors: *[RuleError].
func NewRules(rules []Rule, o RuleOptions) (Rules, error) {
	if o.MaxRules == 0 {
		o.MaxRules = defaultMaxRules
	}
	if len(rules) > o.MaxRules {
		return Rules{}, fault("", FaultTooMany, "", fmt.Sprintf("has %d rules, takes %d", len(rules), o.MaxRules))
	}
	out := slices.Clone(rules)
	for i := range out {
		at := "/" + strconv.Itoa(i)
		if err := out[i].check(at, o.ECR); err != nil {
			return Rules{}, err
		}
		same := func(r Rule) bool { return r.root() == out[i].root() && r.prefix() == out[i].prefix() }
		if slices.ContainsFunc(out[:i], same) {
			return Rules{}, fault(at+"/ecrRepositoryPrefix", FaultExists, out[i].Prefix, "has a rule already")
		}
	}
	slices.SortStableFunc(out, func(a, b Rule) int { return len(b.prefix()) - len(a.prefix()) })
	return Rules{out}, nil
}

// upstreams are those that ECR has, and their hosts.
var upstreams = map[string]*regexp.Regexp{
	"ecr-public":                regexp.MustCompile(`^public\.ecr\.aws$`),
	"k8s":                       regexp.MustCompile(`^registry\.k8s\.io$`),
	"quay":                      regexp.MustCompile(`^quay\.io$`),
	"docker-hub":                regexp.MustCompile(`^registry-1\.docker\.io$`),
	"github-container-registry": regexp.MustCompile(`^ghcr\.io$`),
	"gitlab-container-registry": regexp.MustCompile(`^registry\.gitlab\.com$`),
	"azure-container-registry":  regexp.MustCompile(`^[a-zA-Z0-9]{5,50}\.azurecr\.(io|cn|us)$`),
	"chainguard":                regexp.MustCompile(`^cgr\.dev$`),
	"ecr":                       regexp.MustCompile(`^[0-9]{12}\.dkr\.ecr(-fips)?\.[a-z0-9-]+\.amazonaws\.com(\.cn)?$`),
}

var (
	host   = regexp.MustCompile(`^(?:(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])(?:\.(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9]))*|\[[0-9a-fA-F:]+\])(?::[0-9]{1,5})?$`)
	secret = regexp.MustCompile(`^arn:aws(-[a-z-]+)?:secretsmanager:[a-zA-Z0-9:-]+:secret:ecr-pullthroughcache/[a-zA-Z0-9/_+=.@-]+$`)
)

func (r *Rule) check(at string, ecr bool) *RuleError {
	for _, need := range []struct{ name, value string }{{"ecrRepositoryPrefix", r.Prefix}, {"upstreamRegistryUrl", r.UpstreamURL}} {
		if need.value == "" {
			return fault(at+"/"+need.name, FaultMissing, "", "is required")
		}
	}
	const form = "takes 2 to 30 characters, the beginning of a name with or without a slash at its end, or " + Root
	if !validPrefix(r.Prefix) {
		return fault(at+"/ecrRepositoryPrefix", FaultPrefix, r.Prefix, form)
	}
	if r.UpstreamPrefix != "" && !validPrefix(r.UpstreamPrefix) {
		return fault(at+"/upstreamRepositoryPrefix", FaultUpstreamPrefix, r.UpstreamPrefix, form)
	}
	if r.root() && r.upstreamPrefix() != "" {
		return fault(at+"/upstreamRepositoryPrefix", FaultUpstreamPrefix, r.UpstreamPrefix, "does not go with the prefix "+Root)
	}
	if len(r.UpstreamURL) > 255 || !host.MatchString(r.UpstreamURL) {
		return fault(at+"/upstreamRegistryUrl", FaultUpstream, r.UpstreamURL, "is to be a host, with a port if need be")
	}
	known := false
	for name, hosts := range upstreams {
		known = known || hosts.MatchString(r.UpstreamURL) && (r.Upstream == "" || r.Upstream == name)
	}
	if ecr && !known {
		return fault(at+"/upstreamRegistryUrl", FaultUpstream, r.UpstreamURL, "is to be an upstream that ECR has")
	}
	if r.Upstream != "" && !known {
		return fault(at+"/upstreamRegistry", FaultUpstream, r.Upstream, "is to be ECR's name for the upstream")
	}
	if ecr && r.CredentialARN != "" && (len(r.CredentialARN) < 50 || len(r.CredentialARN) > 612 || !secret.MatchString(r.CredentialARN)) {
		return fault(at+"/credentialArn", FaultCredential, r.CredentialARN, "is to be the ARN of a secret whose name begins with ecr-pullthroughcache/")
	}
	return nil
}

func validPrefix(p string) bool {
	if len(p) < 2 || len(p) > 30 {
		return false
	}
	return p == Root || manifest.CheckRepository(strings.TrimSuffix(p, "/")) == nil
}

func (r *Rule) root() bool { return r.Prefix == Root }

// prefix is what the names of local repositories begin with, upstreamPrefix what
// those upstream do: with the slash, or "".
func (r *Rule) prefix() string         { return withSlash(r.Prefix) }
func (r *Rule) upstreamPrefix() string { return withSlash(r.UpstreamPrefix) }

func withSlash(prefix string) string {
	if prefix == Root || prefix == "" {
		return ""
	}
	return strings.TrimSuffix(prefix, "/") + "/"
}

// All returns the rules, in the order in which they are tried.
func (rs Rules) All() []Rule { return slices.Clone(rs.rules) }

// Upstream returns the rule of a local repository, and its name upstream. The
// longest prefix wins, Root after all others; without a rule ok is false.
func (rs Rules) Upstream(local string) (r Rule, repo string, ok bool) {
	for _, r := range rs.rules {
		if rest, ok := strings.CutPrefix(local, r.prefix()); ok && rest != "" {
			return r, r.upstreamPrefix() + rest, true
		}
	}
	return Rule{}, "", false
}

// Local returns the names under which a repository of an upstream is cached, in
// byte order.
func (rs Rules) Local(upstreamURL, repo string) (names []string) {
	for _, r := range rs.rules {
		rest, ok := strings.CutPrefix(repo, r.upstreamPrefix())
		if r.UpstreamURL != upstreamURL || !ok || rest == "" {
			continue
		}
		// Another rule may have taken the name.
		if back, _, _ := rs.Upstream(r.prefix() + rest); back == r {
			names = append(names, r.prefix()+rest)
		}
	}
	slices.Sort(names)
	return names
}
