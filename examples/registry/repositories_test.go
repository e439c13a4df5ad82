package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/wharfage/wharfage/examples/store/pgstore/pgtest"
	"github.com/wharfage/wharfage/lifecycle"
	"github.com/wharfage/wharfage/repository"
)

// The command, over both databases.
func TestTheRepositoryCommand(t *testing.T) {
	for name, where := range map[string][]string{
		"folder":     {"-unsynced", "-data", t.TempDir()},
		"PostgreSQL": {"-data", t.TempDir(), "-postgres", pgtest.Start(t)},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			run := func(verb string, args ...string) (string, error) {
				t.Helper()
				out, err := os.Create(dir + "/out")
				if err != nil {
					t.Fatal(err)
				}
				stdout := os.Stdout
				os.Stdout = out
				err = repositories(t.Context(), append(append([]string{verb}, where...), args...))
				os.Stdout = stdout
				out.Close()
				text, _ := os.ReadFile(dir + "/out")
				return string(text), err
			}
			want := func(part string, verb string, args ...string) string {
				t.Helper()
				out, err := run(verb, args...)
				if err != nil || !strings.Contains(out, part) {
					t.Errorf("%s %q: %s, %v, want %q", verb, args, out, err, part)
				}
				return out
			}
			settings := write(t, dir, "settings.json", `{"imageTagMutability": "IMMUTABLE", "encryptionConfiguration": {"encryptionType": "AES256"}, "lifecyclePolicy": `+keepOne+`}`)
			want("IMMUTABLE", "create", "-settings", settings, "team/app")
			want("createdAt", "create", "team/other")
			if _, err := run("create", "team/app"); !errors.Is(err, repository.ErrExists) {
				t.Errorf("create again: %v", err)
			}
			quota := write(t, dir, "config.json", `{"repositories": {}, "quotas": {"repositories": 2}}`)
			if _, err := run("create", "-config", quota, "team/third"); !errors.Is(err, repository.ErrQuota) {
				t.Errorf("create of one too many: %v", err)
			}
			got := want(`"imageTagMutability": "IMMUTABLE"`, "get", "team/app")
			same := want("AES256", "set", "-settings", write(t, dir, "same.json", got), "team/app")
			if same != got {
				t.Errorf("set of what get prints changes it:\n%s\n%s", got, same)
			}
			if _, err := run("set", "-settings", dir+"/same.json", "team/other"); err == nil || !strings.Contains(err.Error(), "settings of team/app") {
				t.Errorf("set of what another has: %v", err)
			}
			mutable := want("AES256", "set", "-settings", write(t, dir, "mutable.json", `{}`), "team/app")
			if strings.Contains(mutable, "IMMUTABLE") || strings.Contains(mutable, "lifecyclePolicy") {
				t.Errorf("set to nothing: %s", mutable)
			}
			if out := want("team/app", "list"); strings.Count(out, "\n") != 2 {
				t.Errorf("list: %s", out)
			}
			want("", "delete", "team/app")
			if _, err := run("get", "team/app"); !errors.Is(err, repository.ErrNotFound) {
				t.Errorf("get of what was deleted: %v", err)
			}
			for _, args := range [][]string{
				{"get"}, {"get", "a", "b"}, {"list", "a"}, {"set", "team/other"}, {"rename", "a"}, {"get", "-settings", settings, "a"}, {"create", "UPPER"},
				{"create", "-settings", write(t, dir, "bad.json", `{"imageTagMutabilty": "MUTABLE"}`), "a"},
				{"create", "-settings", write(t, dir, "worse.json", `{"lifecyclePolicy": `+keepNone+`}`), "a"},
			} {
				if _, err := run(args[0], args[1:]...); err == nil {
					t.Errorf("%q succeeds", args)
				}
			}
		})
	}
	for _, args := range [][]string{nil, {"get", "a"}, {"get", "-data", t.TempDir(), "a"}} {
		if err := repositories(t.Context(), args); err == nil {
			t.Errorf("%q succeeds", args)
		}
	}
}

func TestARepositoryWithContentStays(t *testing.T) {
	s := place{}.openMemory()
	fill(t, s, 1, "team/app")
	r := &repository.Registry{Store: s.repositories, Content: s.manifests}
	if _, err := r.Create(t.Context(), "team/app", repository.Settings{}); err != nil {
		t.Fatal(err)
	}
	if err := changeRepository(t.Context(), r, "delete", []string{"team/app"}, nil, new(bytes.Buffer)); !errors.Is(err, repository.ErrNotEmpty) {
		t.Errorf("delete: %v, want ErrNotEmpty", err)
	}
}

// A policy of the repository's own comes before those of the file, and one that
// cannot be read stops that repository alone.
func TestRepositoriesHaveLifecyclePoliciesOfTheirOwn(t *testing.T) {
	s := place{}.openMemory()
	fill(t, s, 5, "own", "file", "broken", "unmade")
	keep := func(n string) string { return strings.Replace(keepOne, ":1}", ":"+n+"}", 1) }
	for name, policy := range map[string]string{"own": keep("3"), "file": "", "broken": `{"rules":[]}`} {
		if err := s.repositories.Create(t.Context(), repository.Repository{Name: name, Settings: repository.Settings{LifecyclePolicy: policy}}, 0); err != nil {
			t.Fatal(err)
		}
	}
	rules := &lifecycleRules{file: write(t, t.TempDir(), "policy.json", keep("2")), share: 1, own: s.repositories}
	var failed []string
	err := rules.runAll(t.Context(), rules.runner(s), s.allRepos, func(r lifecycle.Report, err error) {
		if err != nil {
			failed = append(failed, r.Repo)
		}
	})
	if err == nil || len(failed) != 1 || failed[0] != "broken" {
		t.Errorf("%v, failed %q, want broken alone", err, failed)
	}
	for repo, want := range map[string]int{"own": 3, "file": 2, "broken": 5, "unmade": 2} {
		if got := count(t, s, repo); got != want {
			t.Errorf("%s: %d are left, want %d", repo, got, want)
		}
	}
	rules.file, rules.reap = "", false
	err = rules.runAll(t.Context(), rules.runner(s), s.allRepos, func(lifecycle.Report, error) {})
	if err == nil || !strings.Contains(err.Error(), "the policy of broken") {
		t.Errorf("without a file: %v", err)
	}
	failing := &lifecycleRules{own: brokenStore{s.repositories}, share: 1}
	if err := failing.runAll(t.Context(), failing.runner(s), s.allRepos, func(lifecycle.Report, error) {}); !errors.Is(err, errUnreadable) {
		t.Errorf("a store that fails: %v", err)
	}
}

var errUnreadable = errors.New("broken")

type brokenStore struct{ repository.Store }

func (brokenStore) Get(context.Context, string) (repository.Repository, error) {
	return repository.Repository{}, errUnreadable
}
