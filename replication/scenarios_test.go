package replication_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/replication"
	"github.com/wharfage/wharfage/repository"
)

type scenarioCase struct {
	ID, Why string
	Setup   map[string]json.RawMessage
	Steps   []scenarioStep
	Expect  []scenarioExpect
	Status  []struct {
		Registry, Repository string
		Digest               digest.Digest
		Statuses             []replication.DestinationStatus
	} `json:"expect_replication_status"`
}

type scenarioStep struct {
	Op, Registry, Repository string
	Config                   json.RawMessage
	Digest, Subject          digest.Digest
	Tag                      string
	ImageDigest              digest.Digest
	ImageTag                 string
}

type scenarioExpect struct {
	Registry, Repository string
	Exists               *bool
	Images               map[digest.Digest][]string
	ImageStatus          map[digest.Digest]string
}

type scenarioGrant struct {
	Principal string
	Actions   []replication.AccessAction
	Resource  string
}

// located is something of a setup, and the registry and the repository it is of.
type located struct {
	registry, repository string
	fields               map[string]json.RawMessage
}

// locate reads a list of objects that name their registry, or an object of such by
// registry, and by repository within it.
func locate(t *testing.T, raw json.RawMessage, in located) (out []located) {
	t.Helper()
	var list []json.RawMessage
	if json.Unmarshal(raw, &list) == nil {
		for _, v := range list {
			out = append(out, locate(t, v, in)...)
		}
		return out
	}
	if err := json.Unmarshal(raw, &in.fields); err != nil {
		t.Fatalf("setup: %v in %s", err, raw)
	}
	if nested := slices.Sorted(maps.Keys(in.fields)); len(nested) > 0 && strings.Contains(nested[0], "/") && in.registry == "" {
		for _, name := range nested {
			out = append(out, locate(t, in.fields[name], located{registry: name})...)
		}
		return out
	}
	for member, to := range map[string]*string{"registry": &in.registry, "repository": &in.repository, "repositoryName": &in.repository} {
		if v := in.fields[member]; v != nil {
			if err := json.Unmarshal(v, to); err != nil {
				t.Fatal(err)
			}
			delete(in.fields, member)
		}
	}
	if in.registry == "" {
		t.Fatalf("setup: no registry in %s", raw)
	}
	return []located{in}
}

// decode reads all that is left into v, and refuses what v does not know.
func (l located) decode(t *testing.T, v any) {
	t.Helper()
	text, err := json.Marshal(l.fields)
	if err == nil {
		d := json.NewDecoder(bytes.NewReader(text))
		d.DisallowUnknownFields()
		err = d.Decode(v)
	}
	if err != nil {
		t.Fatalf("setup: %s: %v", text, err)
	}
}

func parseRegistry(s string) replication.Registry {
	id, region, _ := strings.Cut(s, "/")
	return replication.Registry{ID: id, Region: region}
}

func (c scenarioCase) run(t *testing.T) {
	f := newFederation(t)
	policies := map[string][]scenarioGrant{}
	f.allow = func(to replication.Registry, a replication.Access) error {
		if to.ID == a.From.ID {
			return nil // an account allows itself
		}
		for _, g := range policies[to.String()] {
			covers, _ := path.Match(g.Resource, "repository/"+a.Repo)
			if g.Principal == a.From.ID && slices.Contains(g.Actions, a.Action) && (g.Resource == "*" || covers) {
				return nil
			}
		}
		return fmt.Errorf("%w: %s of %s", replication.ErrDenied, a.Action, a.Repo)
	}
	at := func(name string) *member { return f.member(parseRegistry(name)) }
	var settings []located
	for what, raw := range c.Setup {
		switch what {
		case "registry_policies":
			if err := json.Unmarshal(raw, &policies); err != nil {
				t.Fatal(err)
			}
		case "repositories":
			for _, l := range locate(t, raw, located{}) {
				var s repository.Settings
				l.decode(t, &s)
				if _, err := at(l.registry).repositories.Create(t.Context(), l.repository, s); err != nil {
					t.Fatal(err)
				}
			}
		case "creation_templates", "templates":
			templates := map[string][]repository.Template{}
			for _, l := range locate(t, raw, located{}) {
				var one repository.Template
				l.decode(t, &one)
				templates[l.registry] = append(templates[l.registry], one)
			}
			for name, all := range templates {
				at(name).repositories.Templates = repository.Static(all...)
			}
		case "expect_settings":
			settings = locate(t, raw, located{})
		default:
			t.Fatalf("setup: nobody reads %q", what)
		}
	}
	real := map[digest.Digest]digest.Digest{"": ""} // of the digests in the case, which are made up
	for i, step := range c.Steps {
		m := at(step.Registry)
		var err error
		switch step.Op {
		case "put_replication":
			m.configuration, err = replication.Validation{For: m.Registry}.Parse(string(step.Config))
		case "push":
			var tags []string
			if step.Tag != "" {
				tags = []string{step.Tag}
			}
			real[step.Digest] = m.push(step.Repository, string(step.Digest), real[step.Subject], tags...)
		case "delete":
			_, err = (&manifest.Deleter{Store: m.manifests}).Delete(t.Context(), step.Repository, manifest.ImageID{Digest: real[step.ImageDigest], Tag: step.ImageTag})
		case "lifecycle_expire":
			err = m.manifests.Apply(t.Context(), step.Repository, manifest.Change{
				Cause:     manifest.CauseLifecycle,
				Unchanged: []manifest.Seen{{Digest: real[step.ImageDigest], Tags: m.images(step.Repository)[real[step.ImageDigest]], Since: m.since(step.Repository, real[step.ImageDigest])}},
				Delete:    []manifest.Removal{{Digest: real[step.ImageDigest]}},
			})
		case "archive", "restore":
			to := manifest.Standard
			if step.Op == "archive" {
				to = manifest.Archive
			}
			err = m.manifests.Apply(t.Context(), step.Repository, manifest.Change{Classes: []manifest.ClassMove{{Digest: real[step.ImageDigest], To: to}}})
		default:
			t.Fatalf("step %d: no such operation: %s", i, step.Op)
		}
		if err != nil {
			t.Fatalf("step %d, %s: %v", i, step.Op, err)
		}
		f.settle()
	}
	for _, e := range c.Expect {
		m := at(e.Registry)
		_, err := m.repositories.Get(t.Context(), e.Repository)
		if want := e.Exists == nil || *e.Exists; want != (err == nil) {
			t.Errorf("%s %s: %v: %s", e.Registry, e.Repository, err, c.Why)
		}
		if e.Images != nil {
			want := map[digest.Digest][]string{}
			for d, tags := range e.Images {
				want[real[d]] = tags
			}
			if got := m.images(e.Repository); !reflect.DeepEqual(got, want) {
				t.Errorf("%s %s has %v, want %v: %s", e.Registry, e.Repository, got, want, c.Why)
			}
		}
		for d, status := range e.ImageStatus {
			rec, err := m.manifests.Get(t.Context(), e.Repository, real[d])
			if err != nil || (rec.StorageClass == manifest.Archive) != (status == "ARCHIVED") {
				t.Errorf("%s %s: %s is %q, want %s, %v: %s", e.Registry, e.Repository, d, rec.StorageClass, status, err, c.Why)
			}
		}
	}
	for _, l := range settings {
		var want repository.Settings
		l.decode(t, &want)
		have, err := at(l.registry).repositories.Get(t.Context(), l.repository)
		if err != nil {
			t.Fatal(err)
		}
		for member := range l.fields { // those that are not named are not told
			if h, w := setting(t, have.Settings, member), setting(t, want, member); h != w {
				t.Errorf("%s %s: %s is %s, want %s", l.registry, l.repository, member, h, w)
			}
		}
	}
	for _, s := range c.Status {
		got, err := at(s.Registry).r.Status(t.Context(), s.Repository, manifest.ImageID{Digest: real[s.Digest]})
		statuses := map[replication.Registry]replication.CopyStatus{}
		for _, have := range got.Statuses {
			statuses[have.Registry] = have.Status
			if (have.FailureCode != "") != (have.Status == replication.StatusFailed) {
				t.Errorf("%+v", have)
			}
		}
		want := map[replication.Registry]replication.CopyStatus{}
		for _, w := range s.Statuses {
			want[w.Registry] = w.Status
		}
		if err != nil || !reflect.DeepEqual(statuses, want) {
			t.Errorf("status of %s: %v, want %v, %v: %s", s.Digest, statuses, want, err, c.Why)
		}
	}
}

func (m *member) since(repo string, d digest.Digest) (at time.Time) {
	rec, err := m.manifests.Get(context.Background(), repo, d)
	if err != nil {
		m.f.Fatal(err)
	}
	return rec.ClassSince()
}

// setting is a member of s as JSON, with ECR's default.
func setting(t *testing.T, s repository.Settings, member string) string {
	t.Helper()
	text, err := json.Marshal(s)
	var members map[string]json.RawMessage
	if err == nil {
		err = json.Unmarshal(text, &members)
	}
	if err != nil {
		t.Fatal(err)
	}
	defaults := map[string]string{"imageTagMutability": `"MUTABLE"`, "encryptionConfiguration": `{"encryptionType":"AES256"}`}
	return cmp.Or(string(members[member]), defaults[member])
}

// TestSetupsAreRead holds the reader of setups to the forms that they may have.
func TestSetupsAreRead(t *testing.T) {
	const a, b = "111122223333/us-east-1", "111122223333/us-west-2"
	for _, repositories := range []string{
		`[{"registry": "111122223333/us-west-2", "repository": "app", "imageTagMutability": "IMMUTABLE"}]`,
		`{"111122223333/us-west-2": [{"repositoryName": "app", "imageTagMutability": "IMMUTABLE"}]}`,
	} {
		scenarioCase{Setup: map[string]json.RawMessage{
			"repositories":       json.RawMessage(repositories),
			"creation_templates": json.RawMessage(`{"111122223333/us-west-2": [{"prefix": "ROOT", "appliedFor": ["REPLICATION"], "imageTagMutability": "IMMUTABLE"}]}`),
			"expect_settings":    json.RawMessage(`[{"registry": "111122223333/us-west-2", "repository": "new", "imageTagMutability": "IMMUTABLE"}, {"registry": "111122223333/us-east-1", "repository": "new", "imageTagMutability": "MUTABLE"}]`),
		}, Steps: []scenarioStep{
			{Op: "put_replication", Registry: a, Config: json.RawMessage(`{"rules": [{"destinations": [{"region": "us-west-2", "registryId": "111122223333"}]}]}`)},
			{Op: "push", Registry: a, Repository: "app", Digest: "sha256:1", Tag: "v1"},
			{Op: "push", Registry: a, Repository: "app", Digest: "sha256:2", Tag: "v1"},
			{Op: "push", Registry: a, Repository: "new", Digest: "sha256:2", Tag: "v1"},
		}, Expect: []scenarioExpect{
			{Registry: b, Repository: "app", Images: map[digest.Digest][]string{"sha256:1": {"v1"}, "sha256:2": {}}},
		}}.run(t)
	}
}
