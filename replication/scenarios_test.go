package replication_test

import (
	"context"
	"encoding/json"
	"fmt"
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
	Setup   struct {
		Repositories []scenarioRepository
		Policies     map[string][]scenarioGrant       `json:"registry_policies"`
		Templates    map[string][]repository.Template `json:"creation_templates"`
		Settings     []scenarioRepository             `json:"expect_settings"`
	}
	Steps []struct {
		Op, Registry, Repository string
		Config                   json.RawMessage
		Digest, Subject          digest.Digest
		Tag                      string
		ImageDigest              digest.Digest
		ImageTag                 string
	}
	Expect []struct {
		Registry, Repository string
		Exists               *bool
		Images               map[digest.Digest][]string
		ImageStatus          map[digest.Digest]string
	}
	Status []struct {
		Registry, Repository string
		Digest               digest.Digest
		Statuses             []replication.DestinationStatus
	} `json:"expect_replication_status"`
}

type scenarioGrant struct {
	Principal string
	Actions   []replication.AccessAction
	Resource  string
}

type scenarioRepository struct {
	Registry, Repository string
	repository.Settings
}

func parseRegistry(s string) replication.Registry {
	id, region, _ := strings.Cut(s, "/")
	return replication.Registry{ID: id, Region: region}
}

func (c scenarioCase) run(t *testing.T) {
	f := newFederation(t)
	f.allow = func(to replication.Registry, a replication.Access) error {
		if to.ID == a.From.ID {
			return nil // an account allows itself
		}
		for _, g := range c.Setup.Policies[to.String()] {
			covers, _ := path.Match(g.Resource, "repository/"+a.Repo)
			if g.Principal == a.From.ID && slices.Contains(g.Actions, a.Action) && (g.Resource == "*" || covers) {
				return nil
			}
		}
		return fmt.Errorf("%w: %s of %s", replication.ErrDenied, a.Action, a.Repo)
	}
	at := func(name string) *member { return f.member(parseRegistry(name)) }
	for name, templates := range c.Setup.Templates {
		at(name).repositories.Templates = repository.Static(templates...)
	}
	for _, r := range c.Setup.Repositories {
		if _, err := at(r.Registry).repositories.Create(t.Context(), r.Repository, r.Settings); err != nil {
			t.Fatal(err)
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
	for _, s := range c.Setup.Settings {
		have, err := at(s.Registry).repositories.Get(t.Context(), s.Repository)
		if err != nil || !reflect.DeepEqual(have.Settings, s.Settings) {
			t.Errorf("%s %s: %+v, want %+v, %v", s.Registry, s.Repository, have.Settings, s.Settings, err)
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
