package e2e

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

var slowClients = flag.Bool("slow-clients", false, "build also the clients that take minutes")

type client struct {
	name, module, version, pkg string
	slow                       bool // to build
}

func (c client) installed(bin string) bool {
	_, err := os.Stat(filepath.Join(bin, c.name))
	return err == nil
}

// clients are built from their modules. Each has a go.mod of its own, since the
// version lists of some cannot be had and their requirements differ.
var clients = []client{
	{"crane", "github.com/google/go-containerregistry", "v0.22.1", "github.com/google/go-containerregistry/cmd/crane", false},
	{"regctl", "github.com/regclient/regclient", "v0.11.7", "github.com/regclient/regclient/cmd/regctl", false},
	{"oras", "oras.land/oras", "v1.2.3", "oras.land/oras/cmd/oras", false},
	{"notation", "github.com/notaryproject/notation", "v1.3.2", "github.com/notaryproject/notation/cmd/notation", false},
	{"cosign", "github.com/sigstore/cosign/v3", "v3.1.3", "github.com/sigstore/cosign/v3/cmd/cosign", true},
	{"helm", "helm.sh/helm/v3", "v3.22.0", "helm.sh/helm/v3/cmd/helm", true},
}

// install returns a folder with the clients, the slow ones if they are to be built
// or are there from before.
func install(t *testing.T) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(cache, "wharfage-e2e")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range clients {
		versioned := filepath.Join(bin, c.name+"-"+c.version)
		if _, err := os.Stat(versioned); err != nil {
			if c.slow && !*slowClients {
				continue
			}
			build(t, versioned, c.module, c.version, c.pkg)
		}
		link := filepath.Join(bin, c.name)
		os.Remove(link)
		if err := os.Symlink(versioned, link); err != nil {
			t.Fatal(err)
		}
	}
	return bin
}

func build(t *testing.T, out, module, version, pkg string) {
	t.Helper()
	dir := t.TempDir()
	mod := fmt.Sprintf("module client\n\ngo 1.26.0\n\nrequire %s %s\n", module, version)
	if err := os.WriteFile(filepath.Join(dir, "go.mod"), []byte(mod), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "build", "-mod=mod", "-buildvcs=false", "-o", out, pkg)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("install %s: %v\n%s", pkg, err, text)
	}
}

// skopeo finds or installs it, and tells whether it is there.
func skopeo(t *testing.T) bool {
	t.Helper()
	if _, err := exec.LookPath("skopeo"); err == nil {
		return true
	}
	text, err := exec.Command("sh", "-c", "apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends skopeo").CombinedOutput()
	if err == nil {
		return true
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("install skopeo: %v\n%s", err, text)
	}
	t.Logf("skopeo is not installed: %s", strings.TrimSpace(string(text)))
	return false
}
