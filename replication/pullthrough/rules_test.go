package pullthrough

import (
	"errors"
	"strings"
	"testing"
)

func TestRuleFaults(t *testing.T) {
	const ok = `"ecrRepositoryPrefix":"hub","upstreamRegistryUrl":"quay.io"`
	long := strings.Repeat(`{"ecrRepositoryPrefix":"hub","upstreamRegistryUrl":"quay.io"},`, 51)
	for _, c := range []struct {
		text    string
		fault   Fault
		pointer string
		ecr     bool
	}{
		{`[{` + ok + `}]`, "", "", true},
		{`[]`, "", "", false},
		{`[{"ecrRepositoryPrefix":"hub","upstreamRegistryUrl":"localhost:5000"}]`, "", "", false},
		{`[{"ecrRepositoryPrefix":"hub","upstreamRegistryUrl":"[::1]:5000"}]`, "", "", false},
		{`[{` + ok + `,"upstreamRegistry":"quay"}]`, "", "", true},
		{`[{` + ok + `,"credentialArn":"vault:quay"}]`, "", "", false},
		{`[{` + ok + `,"credentialArn":"vault:quay"}]`, FaultCredential, "/0/credentialArn", true},
		{`[{` + ok + `,"credentialArn":"arn:aws:secretsmanager:us-east-1:111122223333:secret:ecr-pullthroughcache/quay-AbCdEf"}]`, "", "", true},
		{`{` + ok + `}`, FaultType, "", false},
		{`[{` + ok + `}`, FaultSyntax, "", false},
		{`[{` + ok + `,"ecrRepositoryPrefix":"two"}]`, FaultSyntax, "", false},
		{`[{` + ok + `}] []`, FaultSyntax, "", false},
		{`["hub"]`, FaultType, "/0", false},
		{`[{` + ok + `,"registryId":"111122223333"}]`, FaultUnknown, "/0/registryId", false},
		{`[{` + ok + `,"EcrRepositoryPrefix":"x"}]`, FaultUnknown, "/0/EcrRepositoryPrefix", false},
		{`[{` + ok + `,"a/~b":1}]`, FaultUnknown, "/0/a~1~0b", false},
		{`[{` + ok + `,"credentialArn":null}]`, FaultType, "/0/credentialArn", false},
		{`[{` + ok + `,"credentialArn":""}]`, FaultMissing, "/0/credentialArn", false},
		{`[{"upstreamRegistryUrl":"quay.io"}]`, FaultMissing, "/0/ecrRepositoryPrefix", false},
		{`[{"ecrRepositoryPrefix":"hub"}]`, FaultMissing, "/0/upstreamRegistryUrl", false},
		{`[{"ecrRepositoryPrefix":"h","upstreamRegistryUrl":"quay.io"}]`, FaultPrefix, "/0/ecrRepositoryPrefix", false},
		{`[{"ecrRepositoryPrefix":"Hub","upstreamRegistryUrl":"quay.io"}]`, FaultPrefix, "/0/ecrRepositoryPrefix", false},
		{`[{"ecrRepositoryPrefix":"ROOT/","upstreamRegistryUrl":"quay.io"}]`, FaultPrefix, "/0/ecrRepositoryPrefix", false},
		{`[{` + ok + `,"upstreamRepositoryPrefix":"//"}]`, FaultUpstreamPrefix, "/0/upstreamRepositoryPrefix", false},
		{`[{"ecrRepositoryPrefix":"ROOT","upstreamRegistryUrl":"quay.io","upstreamRepositoryPrefix":"coreos"}]`, FaultUpstreamPrefix, "/0/upstreamRepositoryPrefix", false},
		{`[{"ecrRepositoryPrefix":"hub","upstreamRegistryUrl":"example.com"}]`, FaultUpstream, "/0/upstreamRegistryUrl", true},
		{`[{"ecrRepositoryPrefix":"hub","upstreamRegistryUrl":"quay.io/coreos"}]`, FaultUpstream, "/0/upstreamRegistryUrl", false},
		{`[{"ecrRepositoryPrefix":"hub","upstreamRegistryUrl":"user@quay.io"}]`, FaultUpstream, "/0/upstreamRegistryUrl", false},
		{"[{\"ecrRepositoryPrefix\":\"hub\",\"upstreamRegistryUrl\":\"quay.io\\n\"}]", FaultUpstream, "/0/upstreamRegistryUrl", true},
		{`[{` + ok + `},{"ecrRepositoryPrefix":"hub/","upstreamRegistryUrl":"ghcr.io"}]`, FaultExists, "/1/ecrRepositoryPrefix", false},
		{`[` + strings.TrimSuffix(long, ",") + `]`, FaultTooMany, "", false},
	} {
		_, err := ParseRules(c.text, RuleOptions{ECR: c.ecr})
		e, _ := errors.AsType[*RuleError](err)
		switch {
		case c.fault == "" && err != nil:
			t.Errorf("%s: %v", c.text, err)
		case c.fault != "" && (e == nil || e.Fault != c.fault || e.Pointer != c.pointer):
			t.Errorf("%s: %v, not %s at %q", c.text, err, c.fault, c.pointer)
		}
	}
}

// FuzzRules: whatever is accepted maps there and back, to names and from them.
func FuzzRules(f *testing.F) {
	f.Add(`[{"ecrRepositoryPrefix":"ROOT","upstreamRegistryUrl":"quay.io"},{"ecrRepositoryPrefix":"a/","upstreamRegistryUrl":"quay.io","upstreamRepositoryPrefix":"b"}]`, "a/x")
	f.Fuzz(func(t *testing.T, text, local string) {
		rules, err := ParseRules(text, RuleOptions{MaxRules: 5})
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Fatal(err)
			}
			return
		}
		r, repo, ok := rules.Upstream(local)
		if !ok {
			return
		}
		found := false
		for _, name := range rules.Local(r.UpstreamURL, repo) {
			back, same, ok := rules.Upstream(name)
			if !ok || back.UpstreamURL != r.UpstreamURL || same != repo {
				t.Errorf("%s is reached by %s, which is %s", repo, name, same)
			}
			found = found || name == local
		}
		if !found {
			t.Errorf("%s is %s, which is not reached by it", local, repo)
		}
	})
}
