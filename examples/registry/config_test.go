package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wharfage/wharfage"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/repository"
)

const everything = `{
  "repositories": {"templates": [
    {"prefix": "team", "appliedFor": ["CREATE_ON_PUSH"], "imageTagMutability": "IMMUTABLE_WITH_EXCLUSION",
     "imageTagMutabilityExclusionFilters": [{"filterType": "WILDCARD", "filter": "latest"}], "lifecyclePolicy": ` + keepOne + `},
    {"prefix": "ROOT", "appliedFor": ["CREATE_ON_PUSH", "REPLICATION"], "lifecyclePolicy": "{\"rules\":[]}"}]},
  "quotas": {"ecr": true, "tagsPerImage": 5},
  "scanning": {"scanner": "sbom", "scanType": "BASIC", "rules": [{"scanFrequency": "SCAN_ON_PUSH", "repositoryFilters": [{"filter": "team", "filterType": "WILDCARD"}]}]}
}`

func TestAConfigurationSaysAll(t *testing.T) {
	text := strings.Replace(everything, `"{\"rules\":[]}"`, `null`, 1)
	c, err := readConfig(write(t, t.TempDir(), "config.json", text))
	if err != nil {
		t.Fatal(err)
	}
	templates := c.Repositories.templates()
	if len(templates) != 2 || templates[0].LifecyclePolicy != keepOne || templates[0].TagMutability != "IMMUTABLE_WITH_EXCLUSION" || templates[1].LifecyclePolicy != "" || len(templates[1].AppliedFor) != 2 {
		t.Errorf("templates %+v", templates)
	}
	if got, want := c.Quotas.limits(), (wharfage.Limits{BlobSize: wharfage.ECRLimits().BlobSize, Images: 100_000, TagsPerImage: 5}); got != want || c.Quotas.repositories() != 100_000 {
		t.Errorf("limits %+v and %d, want %+v and 100000", got, c.Quotas.repositories(), want)
	}
	if f, _ := c.Scanning.Frequency("team/app"); f != "SCAN_ON_PUSH" {
		t.Errorf("scans are %q", f)
	}
	if c, err = readConfig(""); err != nil || c.registry(nil) != nil || c.Quotas.limits() != (wharfage.Limits{}) || c.Scanning != nil {
		t.Errorf("without a file: %+v, %v", c, err)
	}
}

func TestTheConfigurationOfTheReadmeIsOne(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(readme), "```json\n")
	text, _, _ = strings.Cut(text, "```")
	c, err := readConfig(write(t, t.TempDir(), "config.json", text))
	if err != nil || c.Repositories == nil || c.Scanning == nil || c.Quotas.Images != 20_000 {
		t.Errorf("%+v, %v", c, err)
	}
}

// Nothing is served by a file of which anything is wrong, and the error says where.
func TestAConfigurationIsReadStrictly(t *testing.T) {
	dir := t.TempDir()
	for text, want := range map[string]string{
		``:                                      "it is empty",
		`[]`:                                    "cannot unmarshal array",
		`{}{}`:                                  "behind the document",
		`{"quota":{}}`:                          `/: unknown field "quota"`,
		`{"quotas":{"ecr":true,"ecr":false}}`:   "/quotas/ecr: it is there twice",
		`{"quotas":{"tagsPerImage":-1}}`:        "quotas: want numbers that are not negative",
		`{"quotas":{"repositories":1}}`:         "goes with the section repositories",
		`{"scanning":{"rules":[]}}`:             `scanning: scanner: takes "sbom"`,
		`{"scanning":{"scanner":"sbom","x":1}}`: `/scanning: unknown field "x"`,
		`{"repositories":{"template":[]}}`:      `/repositories: unknown field "template"`,
		`{"repositories":{"templates":[{}]}}`:   "repositories: template 0: prefix",
		everything:                              "repositories: template 1: lifecyclePolicy",
		strings.Replace(everything, `"{\"rules\":[]}"`, `1`, 1):                         "a policy is to be an object",
		`{"scanning":{"scanner":"sbom","rules":[{"scanFrequency":"CONTINUOUS_SCAN"}]}}`: "scanning: invalid scanning configuration: /rules/0/scanFrequency",
	} {
		_, err := readConfig(write(t, dir, "config.json", text))
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "config.json") {
			t.Errorf("%s: %v, want an error that says %q", text, err, want)
		}
	}
	if _, err := readConfig(filepath.Join(dir, "none")); !os.IsNotExist(err) {
		t.Errorf("a file that is not there: %v", err)
	}
	for _, command := range []func([]string) error{
		func(args []string) error { return serve(t.Context(), args) },
		func(args []string) error { return applyPolicies(t.Context(), args) },
	} {
		if err := command([]string{"-data", dir, "-config", write(t, dir, "config.json", `{"x":1}`)}); err == nil || !strings.Contains(err.Error(), "config.json") {
			t.Errorf("a command with it: %v", err)
		}
	}
}

func TestRepositoriesWithContentAreAdopted(t *testing.T) {
	s := place{}.openMemory()
	fill(t, s, 1, "a", "b/c", "d")
	if err := s.repositories.Create(t.Context(), repository.Repository{Name: "b", Settings: repository.Settings{TagMutability: "IMMUTABLE"}}, 0); err != nil {
		t.Fatal(err)
	}
	if err := s.repositories.Create(t.Context(), repository.Repository{Name: "d", Settings: repository.Settings{TagMutability: "IMMUTABLE"}}, 0); err != nil {
		t.Fatal(err)
	}
	c := config{Repositories: new(repositoriesConfig), Quotas: quotasConfig{Repositories: 1}}
	for range 2 {
		if err := adopt(t.Context(), c.registry(s), s); err != nil {
			t.Fatal(err)
		}
		var got []string
		for r, err := range s.repositories.List(t.Context(), "") {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, r.Name+" "+r.TagMutability)
		}
		if want := "a ,b IMMUTABLE,b/c ,d IMMUTABLE"; strings.Join(got, ",") != want {
			t.Errorf("repositories %q, want %s", got, want)
		}
	}
}

// put sends a manifest, and returns the status and the answer.
func put(t *testing.T, url string, raw []byte) string {
	t.Helper()
	r, err := http.NewRequest("PUT", url, bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", manifest.MediaTypeIndex)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.Status + string(answer)
}

func TestTheServerGoesByItsConfiguration(t *testing.T) {
	file := write(t, t.TempDir(), "config.json", strings.Replace(strings.Replace(everything, `"{\"rules\":[]}"`, `null`, 1), `"ROOT"`, `"base"`, 1))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	addr := free(t)
	ended := make(chan error, 1)
	go func() { ended <- serve(ctx, []string{"-addr", addr, "-drain-delay", "0", "-config", file}) }()
	for status(t, "http://"+addr+"/v2/") != http.StatusOK {
		select {
		case err := <-ended:
			t.Fatal(err)
		default:
		}
	}
	var raw [2][]byte
	for i := range raw {
		var err error
		if raw[i], _, err = (manifest.IndexDraft{Annotations: map[string]string{"n": fmt.Sprint(i)}}).Build(); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		path string
		raw  []byte
		want []string
	}{
		{"other/manifests/v1", raw[0], []string{"404", "NAME_UNKNOWN"}},
		{"team/app/manifests/v1", raw[0], []string{"201"}},
		{"team/app/manifests/v1", raw[0], []string{"201"}},
		{"team/app/manifests/v1", raw[1], []string{"409", "DENIED", "immutable"}},
		{"team/app/manifests/latest", raw[0], []string{"201"}},
		{"team/app/manifests/latest", raw[1], []string{"201"}},
		{"team/app/manifests/v2", raw[0], []string{"201"}},
		{"team/app/manifests/v3", raw[0], []string{"201"}},
		{"team/app/manifests/v4", raw[0], []string{"201"}},
		{"team/app/manifests/v5", raw[0], []string{"201"}},
		{"team/app/manifests/v6", raw[0], []string{"403", "DENIED", "5 tags per image"}},
	} {
		got := put(t, "http://"+addr+"/v2/"+c.path, c.raw)
		for _, part := range c.want {
			if !strings.Contains(got, part) {
				t.Errorf("%s: %s, want %s", c.path, got, part)
			}
		}
	}
	if got := status(t, "http://"+addr+"/ui/repo/team/app"); got != http.StatusOK {
		t.Errorf("the page: %d", got)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
