package e2e

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/wharfage/wharfage/examples/store/pgstore/pgtest"
	"github.com/wharfage/wharfage/examples/store/s3bytes/s3test"
)

// steps run in order, in one folder, as shell scripts that must succeed. $R is
// the registry.
var steps = []struct{ client, name, script string }{
	{"crane", "push an OCI image", `
		echo hello >f.txt; tar cf l.tar f.txt
		crane append --oci-empty-base -f l.tar -t $R/app:v1
		crane manifest $R/app:v1 | grep -q vnd.oci.image.manifest`},
	{"crane", "push a Docker image", `
		crane append -f l.tar -t $R/docker:v1
		crane manifest $R/docker:v1 | grep -q vnd.docker.distribution.manifest.v2
		crane validate --remote $R/docker:v1`},
	{"crane", "push a layer of 64 MiB, and pull it", `
		head -c 67108864 /dev/urandom >big; tar cf big.tar big
		crane append --oci-empty-base -f big.tar -t $R/big:v1
		crane export $R/big:v1 - | tar xO big | cmp - big`},
	{"crane", "copy across repositories, which mounts", `
		crane copy $R/app:v1 $R/copy:v1
		[ "$(crane ls $R/copy)" = v1 ]
		[ "$(crane digest $R/app:v1)" = "$(crane digest $R/copy:v1)" ]`},
	{"crane", "index of two platforms", `
		crane mutate --set-platform linux/arm64 $R/app:v1 -t $R/app:arm
		crane index append -m $R/app:v1 -m $R/app:arm -t $R/app:multi
		crane manifest $R/app:multi | grep -q vnd.oci.image.index
		crane validate --remote $R/app:multi`},
	{"crane", "list the catalog", `crane catalog $R | grep -qx app`},
	{"oras", "push and pull an artifact", `
		oras push --plain-http $R/art:v1 --artifact-type application/vnd.example.a f.txt:text/plain
		mkdir pulled; oras pull --plain-http -o pulled $R/art:v1; cmp f.txt pulled/f.txt`},
	{"oras", "attach and discover; no fallback tag is written", `
		oras attach --plain-http $R/app:v1 --artifact-type application/spdx+json f.txt:text/plain
		oras discover --plain-http --artifact-type application/spdx+json $R/app:v1 | grep -q spdx
		! crane ls $R/app | grep -q '^sha256-'`},
	{"oras", "attach to the attached, and see the tree", `
		sbom=$(oras discover --plain-http -o json $R/app:v1 | grep -o '"digest": *"sha256:[0-9a-f]*"' | head -1 | grep -o 'sha256:[0-9a-f]*')
		oras attach --plain-http $R/app@$sbom --artifact-type application/vnd.example.sig f.txt:text/plain
		oras discover --plain-http -o tree $R/app:v1 | grep -q vnd.example.sig`},
	{"oras", "copy with referrers", `
		oras cp -r --from-plain-http --to-plain-http $R/app:v1 $R/cp:v1
		oras discover --plain-http -o tree $R/cp:v1 | grep -q vnd.example.sig`},
	{"oras", "fetch a blob, delete a manifest", `
		d=$(oras manifest fetch --plain-http $R/art:v1 | grep -o 'sha256:[0-9a-f]*' | tail -1)
		oras blob fetch --plain-http -o blob $R/art@$d
		oras manifest delete --plain-http -f $R/art:v1
		! crane digest $R/art:v1`},
	{"regctl", "put an artifact with a subject, and filter the list", `
		regctl registry set $R --tls disabled
		echo x | regctl artifact put --subject $R/app:v1 --artifact-type application/vnd.example.att -m text/plain
		[ "$(regctl artifact list $R/app:v1 --filter-artifact-type application/vnd.example.att --format '{{len .Descriptors}}')" = 1 ]`},
	{"regctl", "copy with referrers, and see the tree", `
		regctl image copy $R/app:v1 $R/rcopy:v1 --referrers
		regctl artifact tree $R/rcopy:v1 | grep -q vnd.example.att`},
	{"regctl", "copy into an OCI layout and back", `
		regctl image copy $R/app:v1 ocidir://lay:v1
		regctl image copy ocidir://lay:v1 $R/back:v1
		[ "$(crane digest $R/app:v1)" = "$(crane digest $R/back:v1)" ]`},
	{"regctl", "upload a blob in chunks", `
		regctl registry set $R --blob-chunk 1000000 --blob-max 2000000
		d=$(regctl blob put $R/chunks <big)
		regctl blob get $R/chunks $d | cmp - big`},
	{"regctl", "sha512", `
		d=sha512:$(sha512sum f.txt | cut -d' ' -f1)
		regctl blob put --digest $d $R/s512 <f.txt
		regctl blob get $R/s512 $d | cmp - f.txt`},
	{"regctl", "delete a tag, and only it", `
		regctl tag delete $R/rcopy:v1
		! crane digest $R/rcopy:v1
		crane digest $R/app:v1`},
	{"notation", "sign, list, verify", `
		echo '{"version":"1.0","trustPolicies":[{"name":"t","registryScopes":["*"],"signatureVerification":{"level":"strict"},"trustStores":["ca:e2e.local"],"trustedIdentities":["*"]}]}' >policy.json
		notation cert generate-test --default e2e.local
		notation policy import --force policy.json
		notation sign --insecure-registry $R/app@$(crane digest $R/app:v1)
		notation ls --insecure-registry $R/app@$(crane digest $R/app:v1) | grep -q sha256
		notation verify --insecure-registry $R/app@$(crane digest $R/app:v1)`},
	{"oras", "push and pull an OPA bundle", `
		mkdir -p bundle; echo 'package shop' >bundle/shop.rego; tar czf bundle.tar.gz -C bundle .; echo '{}' >config.json
		oras push --plain-http $R/policy:v1 --config config.json:application/vnd.cncf.openpolicyagent.config.v1+json bundle.tar.gz:application/vnd.cncf.openpolicyagent.layer.v1.tar+gzip
		mkdir policies; oras pull --plain-http -o policies $R/policy:v1; cmp bundle.tar.gz policies/bundle.tar.gz`},
	{"oras", "attach an SBOM", `
		echo '{"bomFormat":"CycloneDX","specVersion":"1.6"}' >bom.json
		oras attach --plain-http $R/app:v1 --artifact-type application/vnd.cyclonedx+json bom.json:application/vnd.cyclonedx+json
		oras discover --plain-http --artifact-type application/vnd.cyclonedx+json $R/app:v1 | grep -q cyclonedx`},
	{"cosign", "sign and verify", `
		export COSIGN_PASSWORD=; d=$(crane digest $R/app:v1)
		cosign generate-key-pair
		cosign sign --allow-http-registry --use-signing-config=false --tlog-upload=false --yes --key cosign.key $R/app@$d
		cosign verify --allow-http-registry --insecure-ignore-tlog=true --key cosign.pub $R/app@$d`},
	{"cosign", "attest and verify", `
		export COSIGN_PASSWORD=; d=$(crane digest $R/app:v1)
		echo '{"SPDXID":"SPDXRef-DOCUMENT","spdxVersion":"SPDX-2.3"}' >spdx.json
		cosign attest --allow-http-registry --use-signing-config=false --tlog-upload=false --yes --key cosign.key --type spdxjson --predicate spdx.json $R/app@$d
		cosign verify-attestation --allow-http-registry --insecure-ignore-tlog=true --key cosign.pub --type spdxjson $R/app@$d`},
	{"helm", "push and pull a chart", `
		helm create ch; helm package ch
		helm push ch-0.1.0.tgz oci://$R/charts --plain-http
		mkdir charts; helm pull oci://$R/charts/ch --version 0.1.0 --plain-http -d charts; cmp ch-0.1.0.tgz charts/ch-0.1.0.tgz`},
	{"skopeo", "copy a layout in, inspect, list tags", `
		echo '{"default":[{"type":"insecureAcceptAnything"}]}' >any.json
		skopeo --policy any.json copy --dest-tls-verify=false oci:lay:v1 docker://$R/sk:v1
		skopeo inspect --tls-verify=false docker://$R/sk:v1 | grep -q "$(crane digest $R/app:v1)"
		skopeo list-tags --tls-verify=false docker://$R/sk | grep -q v1`},
	{"skopeo", "copy an index, and delete", `
		skopeo --policy any.json copy --all --src-tls-verify=false --dest-tls-verify=false docker://$R/app:multi docker://$R/sk2:multi
		crane validate --remote $R/sk2:multi
		skopeo delete --tls-verify=false docker://$R/sk2:multi
		! crane digest $R/sk2:multi`},
}

// shown is what the graph of an image calls what a client has pushed.
var shown = []struct{ client, image, name string }{
	{"oras", "app:v1", "SPDX SBOM"},
	{"oras", "app:v1", "CycloneDX SBOM"},
	{"oras", "policy:v1", "OPA bundle"},
	{"notation", "app:v1", "Notation signature"},
	{"cosign", "app:v1", "Cosign signature (bundle)"},
	{"cosign", "app:v1", "SPDX SBOM attestation (bundle)"},
	{"helm", "charts/ch:0.1.0", "Helm chart"},
}

// places are where the server keeps things.
var places = []struct {
	name string
	args func(t *testing.T) []string
}{
	{"memory", func(*testing.T) []string { return nil }},
	{"folder", func(t *testing.T) []string { return []string{"-data", t.TempDir()} }},
	{"folder and S3", func(t *testing.T) []string { return []string{"-data", t.TempDir(), "-s3", bucket(t)} }},
	{"PostgreSQL and folder", func(t *testing.T) []string { return []string{"-postgres", pgtest.Start(t), "-data", t.TempDir()} }},
	{"PostgreSQL and S3", func(t *testing.T) []string { return []string{"-postgres", pgtest.Start(t), "-s3", bucket(t)} }},
	{"PostgreSQL and S3, with redirects", func(t *testing.T) []string {
		return []string{"-postgres", pgtest.Start(t), "-s3", bucket(t), "-redirect", "1000000"}
	}},
}

// bucket returns an empty bucket as -s3 names one, and hands the server its keys.
func bucket(t *testing.T) string {
	s := s3test.Start(t)
	t.Setenv("AWS_ACCESS_KEY_ID", s.AccessKey)
	t.Setenv("AWS_SECRET_ACCESS_KEY", s.SecretKey)
	return s.Endpoint + "/" + s.Bucket + "?region=" + s.Region
}

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

func TestClients(t *testing.T) {
	bin := install(t)
	absent := map[string]string{}
	if !skopeo(t) {
		absent["skopeo"] = "skopeo is not installed"
	}
	for _, c := range clients {
		if !c.installed(bin) {
			absent[c.name] = c.name + " takes minutes to build: go test ./examples/e2e -slow-clients"
		}
	}
	server := filepath.Join(t.TempDir(), "registry")
	if text, err := exec.Command("go", "build", "-o", server, "../registry").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	for _, place := range places {
		t.Run(place.name, func(t *testing.T) {
			args := place.args(t)
			addr, stop := start(t, server, args...)
			work := t.TempDir()
			for _, s := range steps {
				t.Run(s.client+": "+s.name, func(t *testing.T) {
					if why := absent[s.client]; why != "" {
						t.Skip(why)
					}
					run(t, work, bin, addr, s.script)
				})
			}
			for _, s := range shown {
				t.Run(s.client+": the graph of "+s.image+" shows "+s.name, func(t *testing.T) {
					if why := absent[s.client]; why != "" {
						t.Skip(why)
					}
					resp, err := http.Get("http://" + addr + "/ui/graph/" + s.image + "?as=tree")
					if err != nil {
						t.Fatal(err)
					}
					defer resp.Body.Close()
					if tree, err := io.ReadAll(resp.Body); err != nil || !strings.Contains(string(tree), s.name) {
						t.Errorf("%v\n%s", err, tree)
					}
				})
			}
			if resp, err := http.Get("http://" + addr + "/healthz"); err != nil || resp.StatusCode != 200 {
				t.Errorf("health: %v %v", resp, err)
			}
			stop()
		})
	}
}

func run(t *testing.T, work, bin, addr, script string) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-e", "-c", script)
	cmd.Dir = work
	cmd.Env = append(os.Environ(), "R="+addr, "HOME="+work, "XDG_CONFIG_HOME="+work, "XDG_RUNTIME_DIR="+work, "DOCKER_CONFIG="+work, "PATH="+bin+":"+os.Getenv("PATH"))
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s\n%s", err, script, text)
	}
}

var listens = regexp.MustCompile(`registry listens addr=(\S+)`)

// start runs the server on a free port of loopback. stop asks it to stop, and
// checks that it does so in good order.
func start(t *testing.T, server string, args ...string) (addr string, stop func()) {
	t.Helper()
	cmd := exec.Command(server, append([]string{"-addr", "127.0.0.1:0", "-drain-delay", "0"}, args...)...)
	log, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	var before strings.Builder
	for lines := bufio.NewScanner(log); lines.Scan(); {
		if m := listens.FindStringSubmatch(lines.Text()); m != nil {
			addr = m[1]
			break
		}
		before.WriteString(lines.Text() + "\n")
	}
	if addr == "" {
		t.Fatalf("the registry did not start:\n%s", before.String())
	}
	go io.Copy(io.Discard, log)
	return addr, func() {
		t.Helper()
		cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("the registry stopped with %v", err)
		}
	}
}
