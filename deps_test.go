package wharfage

import (
	"encoding/json"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/wharfage/wharfage"

// arrows are all imports between packages of this module that may be, and why.
// Test packages and stores import their parent.
var arrows = map[string]map[string]string{
	"internal/ocidigest":        {},
	"internal/strictjson":       {},
	"internal/txtar":            {},
	"internal/vectors":          {},
	"lifecycle":                 {"internal/strictjson": "policies are read strictly", "manifest": "images are manifests, and plans become changes"},
	"lifecycle/mempulls":        {"lifecycle": "its contract"},
	"lifecycle/lifecycletest":   {"lifecycle": "what it tests", "manifest": "a store may record pulls only of what it has", "internal/txtar": "scenarios are files"},
	"blob":                      {"internal/ocidigest": "digests are checked and computed in one place"},
	"blob/memblob":              {"blob": "its contract"},
	"blob/dirblob":              {"blob": "its contract", "internal/ocidigest": "a file name is a digest only if it is checked"},
	"blob/blobtest":             {"blob": "the contract it checks"},
	"manifest":                  {"internal/ocidigest": "digests are checked and computed in one place", "internal/strictjson": "documents are read strictly"},
	"events":                    {"manifest": "events are derived from changes, and taken from an outbox"},
	"manifest/memmanifest":      {"manifest": "its contract"},
	"manifest/manifesttest":     {"manifest": "the contract it checks"},
	"referrers":                 {"manifest": "an index is derived from manifests"},
	"referrers/referrerstest":   {"referrers": "the contract it checks", "manifest": "where referrers come from"},
	"repository":                {"lifecycle": "a policy is read when it is set", "manifest": "names, and what a repository holds"},
	"repository/memrepository":  {"repository": "its contract"},
	"repository/repositorytest": {"repository": "the contract it checks"},
	"internal/epoch":            {},
	"scan": {
		"blob":           "findings are blobs",
		"internal/epoch": "findings have ECR's form",
		"manifest":       "results are manifests",
		"referrers":      "results are referrers of the image",
	},
	"replication": {
		"blob":                "what is copied",
		"events":              "a copy has an event at its destination",
		"internal/strictjson": "configurations are read strictly",
		"manifest":            "what is copied",
		"referrers":           "what is copied along",
	},
	"replication/memqueue":  {"replication": "its contract"},
	"replication/queuetest": {"replication": "the contract it checks"},
	"replication/replicationtest": {
		"blob":        "what a side holds",
		"manifest":    "what a side holds",
		"referrers":   "what a side lists",
		"replication": "the contract it checks",
	},
	"replication/pullthrough": {
		"blob":                "what is cached",
		"internal/ocidigest":  "some blobs cannot be had",
		"internal/strictjson": "rules are read strictly",
		"manifest":            "what is cached",
		"referrers":           "what is cached along",
		"replication":         "an upstream is a Source",
	},
	"scan/scantest": {"scan": "its contract"},
	"wharfagetest": {
		"":                      "the Handler whose word it checks",
		"blob":                  "the contract of what it looks into",
		"blob/blobtest":         "faults",
		"manifest":              "the contract of what it looks into",
		"manifest/manifesttest": "faults",
	},
	"": {
		"blob":                 "the registry is assembled here",
		"manifest":             "the registry is assembled here",
		"referrers":            "the registry is assembled here",
		"internal/epoch":       "details have ECR's form",
		"lifecycle":            "last pulls",
		"replication":          "errors of upstreams have answers",
		"repository":           "settings and quotas",
		"scan":                 "details tell results",
		"blob/memblob":         "NewMemory",
		"manifest/memmanifest": "NewMemory",
	},
}

// thirdParty are the modules that the core may use, and why.
var thirdParty = map[string]string{
	"github.com/opencontainers/image-spec":                 "descriptors, indexes and manifests as everybody knows them",
	"github.com/opencontainers/go-digest":                  "digests as everybody knows them",
	"github.com/opencontainers/distribution-spec/specs-go": "the JSON of errors and lists",
	"golang.org/x/sync":                                    "bounded groups of goroutines",
}

// TestImports holds the packages to the arrows, and to the four modules.
func TestImports(t *testing.T) {
	err := fs.WalkDir(os.DirFS("."), ".", func(file string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir():
			if file == "examples" || file == "testdata" || strings.HasPrefix(file, ".") && file != "." {
				return fs.SkipDir
			}
			return nil
		case !strings.HasSuffix(file, ".go"):
			return nil
		}
		checkImports(t, file)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func checkImports(t *testing.T, file string) {
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
	if err != nil {
		t.Error(err)
		return
	}
	pkg := strings.TrimPrefix(path.Dir(file), ".")
	allowed, known := arrows[pkg]
	if !known {
		t.Errorf("%s: package %q is not in arrows", file, pkg)
		return
	}
	test := strings.HasSuffix(file, "_test.go")
	for _, spec := range f.Imports {
		imported := strings.Trim(spec.Path.Value, `"`)
		switch first, _, _ := strings.Cut(imported, "/"); {
		case imported == module || strings.HasPrefix(imported, module+"/"):
			own := strings.TrimPrefix(strings.TrimPrefix(imported, module), "/")
			// Tests may use anything of ours: stores to run on, kits to run.
			if allowed[own] == "" && own != pkg && !test {
				t.Errorf("%s imports %s: there is no such arrow", file, own)
			}
		case strings.Contains(first, "."):
			if !slices.ContainsFunc(keys(thirdParty), func(m string) bool { return strings.HasPrefix(imported+"/", m+"/") }) {
				t.Errorf("%s imports %s: the core uses four modules only", file, imported)
			}
		case imported == "testing" && !test && !strings.HasSuffix(pkg, "test"):
			t.Errorf("%s imports testing, which is for kits and tests", file)
		}
	}
}

func keys(m map[string]string) (out []string) {
	for k := range m {
		out = append(out, k)
	}
	return out
}

// TestRequirements holds go.mod to exactly the four modules.
func TestRequirements(t *testing.T) {
	out, err := exec.Command("go", "mod", "edit", "-json").Output()
	if err != nil {
		t.Fatal(err)
	}
	var mod struct{ Require []struct{ Path string } }
	if err := json.Unmarshal(out, &mod); err != nil {
		t.Fatal(err)
	}
	for _, r := range mod.Require {
		if thirdParty[r.Path] == "" {
			t.Errorf("go.mod requires %s", r.Path)
		}
	}
	if len(mod.Require) != len(thirdParty) {
		t.Errorf("go.mod has %d requirements, not %d", len(mod.Require), len(thirdParty))
	}
}

// TestPackageComments: each package has exactly one, in doc.go or the file of
// its name.
func TestPackageComments(t *testing.T) {
	for pkg := range arrows {
		files, err := filepath.Glob(filepath.Join(".", pkg, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		comments := 0
		for _, file := range files {
			f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments|parser.PackageClauseOnly)
			if err != nil {
				t.Fatal(err)
			}
			if f.Doc != nil && strings.HasPrefix(f.Doc.Text(), "Package "+f.Name.Name+" ") {
				comments++
			}
		}
		if comments != 1 {
			t.Errorf("package %q has %d package comments", pkg, comments)
		}
	}
}
