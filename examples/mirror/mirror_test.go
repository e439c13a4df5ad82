package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage"
	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/examples/store/remote"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/replication"
)

// registry is one of ours, over HTTP.
type registry struct {
	t        *testing.T
	h        *wharfage.Handler
	host     string
	requests atomic.Int64
	changes  atomic.Int64 // requests that change something
	serves   atomic.Pointer[http.Handler]
}

// around puts something before the registry.
func (r *registry) around(f func(http.Handler) http.Handler) {
	h := f(r.h)
	r.serves.Store(&h)
}

func newRegistry(t *testing.T) *registry {
	r := &registry{t: t, h: wharfage.NewMemory()}
	r.around(func(h http.Handler) http.Handler { return h })
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.requests.Add(1)
		if req.Method != http.MethodGet && req.Method != http.MethodHead {
			r.changes.Add(1)
		}
		(*r.serves.Load()).ServeHTTP(w, req)
	}))
	t.Cleanup(server.Close)
	r.host = strings.TrimPrefix(server.URL, "http://")
	return r
}

// two returns two registries, and keeps everything else out of the user's folders.
func two(t *testing.T) (src, dst *registry) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	return newRegistry(t), newRegistry(t)
}

func (r *registry) blob(repo, typ string, content []byte) ocispec.Descriptor {
	r.t.Helper()
	desc := ocispec.Descriptor{MediaType: typ, Digest: digest.FromBytes(content), Size: int64(len(content))}
	if err := blob.Put(r.t.Context(), r.h.Blobs, repo, desc, bytes.NewReader(content)); err != nil {
		r.t.Fatal(err)
	}
	return desc
}

func (r *registry) push(repo string, raw []byte, tags ...string) ocispec.Descriptor {
	r.t.Helper()
	p := manifest.Pusher{Store: r.h.Manifests}
	done, err := p.Push(r.t.Context(), repo, manifest.PushRequest{Raw: raw, Tags: tags})
	if err != nil {
		r.t.Fatal(err)
	}
	d := done.Record.Desc
	return ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}
}

// image has one layer, of this content.
func (r *registry) image(repo, content string, subject *ocispec.Descriptor, tags ...string) ocispec.Descriptor {
	r.t.Helper()
	config := r.blob(repo, ocispec.MediaTypeImageConfig, []byte(`{"of":"`+fmt.Sprint(len(content))+`"}`))
	d := manifest.ImageDraft{Config: &config, Layers: []ocispec.Descriptor{r.blob(repo, ocispec.MediaTypeImageLayer, []byte(content))}, Subject: subject}
	if subject != nil {
		d.ArtifactType = "example/" + content
	}
	raw, _, err := d.Build()
	if err != nil {
		r.t.Fatal(err)
	}
	return r.push(repo, raw, tags...)
}

func (r *registry) index(repo string, tags ...string) ocispec.Descriptor {
	r.t.Helper()
	amd, arm := r.image(repo, "for amd64", nil), r.image(repo, "for arm64", nil)
	amd.Platform, arm.Platform = &ocispec.Platform{OS: "linux", Architecture: "amd64"}, &ocispec.Platform{OS: "linux", Architecture: "arm64"}
	raw, _, err := manifest.IndexDraft{Manifests: []ocispec.Descriptor{amd, arm}}.Build()
	if err != nil {
		r.t.Fatal(err)
	}
	return r.push(repo, raw, tags...)
}

// tags are what the repository has: REPO:TAG=DIGEST, and how many manifests.
func (r *registry) content(repo string) (tags map[string]digest.Digest, manifests int) {
	r.t.Helper()
	tags = map[string]digest.Digest{}
	for tag, err := range r.h.Manifests.Tags(r.t.Context(), repo, "") {
		if err != nil {
			r.t.Fatal(err)
		}
		tags[tag.Name] = tag.Digest
	}
	for _, err := range r.h.Manifests.Manifests(r.t.Context(), repo, "") {
		if err != nil {
			r.t.Fatal(err)
		}
		manifests++
	}
	return tags, manifests
}

func (r *registry) names(repo string) string {
	tags, _ := r.content(repo)
	var names []string
	for name := range tags {
		names = append(names, name)
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

func mirror(ctx context.Context, args ...string) (status int, stdout, stderr string) {
	var out, errs bytes.Buffer
	status = run(ctx, args, &out, &errs)
	return status, out.String(), errs.String()
}

// succeed is mirror without a failure.
func succeed(t *testing.T, args ...string) (stdout, stderr string) {
	t.Helper()
	status, stdout, stderr := mirror(t.Context(), args...)
	if status != exitOK {
		t.Fatalf("%q: status %d: %s", args, status, stderr)
	}
	return stdout, stderr
}

func TestCopy(t *testing.T) {
	src, dst := two(t)
	image := src.image("team/app", "layer", nil, "v1")
	sbom := src.image("team/app", "sbom", &image)
	src.image("team/app", "signature", &sbom)
	index := src.index("team/app", "multi")
	from := src.host + "/team/app"
	for i, c := range []struct {
		args      []string // before source and target
		src, dst  string
		tags      string
		manifests int
	}{
		{nil, ":v1", "", "v1", 1},
		{nil, ":v1", ":other", "other", 1},
		{nil, "@" + string(image.Digest), "", "", 1},
		{nil, "@" + string(image.Digest), "@" + string(image.Digest), "", 1},
		{nil, ":v1@" + string(index.Digest), "", "v1", 3},
		{[]string{"-tag", "latest", "-tag=v1.0"}, ":v1", "", "latest v1 v1.0", 1},
		{[]string{"-referrers", "1"}, ":v1", "", "v1", 2},
		{[]string{"-referrers", "all"}, ":v1", "", "v1", 3},
		{[]string{"-referrers", "all", "-artifact-type", "example/none"}, ":v1", "", "v1", 1},
		{nil, ":multi", "", "multi", 3},
		{[]string{"-platform", "linux/arm64"}, ":multi", "", "multi", 1},
		{[]string{"-platform", "linux/arm64", "-verify", "-mount-from", "base"}, ":multi", "", "multi", 1},
	} {
		repo := fmt.Sprint("copy/", i)
		stdout, stderr := succeed(t, append(append([]string{"copy"}, c.args...), from+c.src, dst.host+"/"+repo+c.dst)...)
		if tags, manifests := dst.content(repo); dst.names(repo) != c.tags || manifests != c.manifests {
			t.Errorf("%q %s: %v and %d manifests, want %s and %d", c.args, c.src, tags, manifests, c.tags, c.manifests)
		}
		if !strings.Contains(stdout, "would") && strings.Count(stdout, "\n") == 1 && strings.Contains(stdout, "sha256:") && strings.Contains(stderr, "1/") {
			continue
		}
		t.Errorf("%q: told %q and %q", c.args, stdout, stderr)
	}
	stdout, stderr := succeed(t, "copy", "http://"+from+":v1", dst.host+"/copy/0:v1", "-quiet")
	if stdout != "" || stderr != "" {
		t.Errorf("-quiet prints %q and %q", stdout, stderr)
	}
}

func TestCopyOfASparseIndex(t *testing.T) {
	src, dst := two(t)
	index := src.index("app", "v1")
	status, _, stderr := mirror(t.Context(), "copy", "-sparse", "-platform", "linux/amd64", src.host+"/app:v1", dst.host+"/app")
	if status != exitFailed || !strings.Contains(stderr, string(index.Digest)) {
		t.Errorf("status %d: %s", status, stderr) // our registry takes no index whose children are missing
	}
}

func TestASecondSyncDoesNothing(t *testing.T) {
	src, dst := two(t)
	for i := range 3 {
		src.image("team/app", fmt.Sprint("layer", i), nil, fmt.Sprint("v", i))
		src.image("team/base", fmt.Sprint("base", i), nil, fmt.Sprint("v", i))
	}
	for _, args := range [][]string{{src.host + "/team/app", dst.host + "/app"}, {"-all", src.host, dst.host + "/all"}} {
		args = append([]string{"sync", "-json"}, args...)
		succeed(t, args...)
		before := dst.changes.Load()
		stdout, stderr := succeed(t, args...)
		if dst.changes.Load() != before || !strings.Contains(stdout, `"created": 0`) || strings.Contains(stdout, "changes") || stderr != "" {
			t.Errorf("%q changes something: %s%s", args, stdout, stderr)
		}
	}
	for repo, want := range map[string]string{"app": "v0 v1 v2", "all/team/app": "v0 v1 v2", "all/team/base": "v0 v1 v2"} {
		if got := dst.names(repo); got != want {
			t.Errorf("%s: %s, want %s", repo, got, want)
		}
	}
}

func TestSyncChooses(t *testing.T) {
	src, dst := two(t)
	for _, repo := range []string{"team/app", "team/tool", "base"} {
		src.image(repo, repo, nil, "v1", "v2", "dev")
	}
	for i, c := range []struct {
		args []string
		want map[string]string
	}{
		{[]string{"-repos", "team/*"}, map[string]string{"team/app": "dev v1 v2", "team/tool": "dev v1 v2", "base": ""}},
		{[]string{"-all", "-exclude-repos", "*tool"}, map[string]string{"team/app": "dev v1 v2", "team/tool": "", "base": "dev v1 v2"}},
		{[]string{"-all", "-tags", "v*", "-exclude-tags", "v1"}, map[string]string{"team/app": "v2", "team/tool": "v2", "base": "v2"}},
		{[]string{"-repos", "base", "-image-type", "example/none"}, map[string]string{"base": ""}},
	} {
		prefix := fmt.Sprint("to", i)
		succeed(t, append(append([]string{"sync"}, c.args...), src.host, dst.host+"/"+prefix)...)
		for repo, want := range c.want {
			if got := dst.names(prefix + "/" + repo); got != want {
				t.Errorf("%q: %s has %q, want %q", c.args, repo, got, want)
			}
		}
	}
}

func TestDeletionsAreNamedAndLimited(t *testing.T) {
	src, dst := two(t)
	src.image("app", "new", nil, "v1", "v2", "v3")
	dst.image("app", "old", nil, "v1", "v4", "v5")
	args := []string{"sync", src.host + "/app", dst.host + "/app"}
	for _, c := range []struct {
		args   []string
		status int
		want   []string // in what is printed
		tags   string
	}{
		{[]string{"-dry-run"}, exitOK, []string{"would be moved app:v1", "would be created app:v2", "2 would be created, 1 would be moved", "would be sent"}, "v1 v4 v5"},
		{[]string{"-dry-run", "-delete", "-delete-share", "1"}, exitOK, []string{"would be deleted app:v4", "would be deleted app:v5", "2 would be deleted"}, "v1 v4 v5"},
		{[]string{"-delete", "-delete-max", "1", "-delete-share", "1"}, exitLimit, []string{"too much would be deleted: 2 of 3"}, "v1 v2 v3 v4 v5"},
		{[]string{"-delete"}, exitOK, []string{"2 deleted"}, "v1 v2 v3"},
	} {
		status, stdout, stderr := mirror(t.Context(), append(args, c.args...)...)
		if status != c.status || dst.names("app") != c.tags {
			t.Errorf("%q: status %d, want %d; tags %s, want %s", c.args, status, c.status, dst.names("app"), c.tags)
		}
		for _, want := range c.want {
			if !strings.Contains(stdout+stderr, want) {
				t.Errorf("%q: no %q in %s%s", c.args, want, stdout, stderr)
			}
		}
	}
}

func TestDryRunChangesNothing(t *testing.T) {
	src, dst := two(t)
	image := src.image("app", "layer", nil, "v1")
	src.image("app", "sbom", &image)
	for _, args := range [][]string{{"copy", "-referrers", "all", src.host + "/app:v1", dst.host + "/app"}, {"sync", "-all", "-delete", src.host, dst.host}} {
		stdout, stderr := succeed(t, append(args, "-dry-run")...)
		if !strings.Contains(stdout, " would be sent") || !strings.Contains(stderr, "would be sent app "+string(image.Digest)) {
			t.Errorf("%q: %s%s", args, stdout, stderr)
		}
	}
	if n := dst.changes.Load(); n > 0 {
		t.Errorf("%d requests would have changed something", n)
	}
}

// The members of the documents, in their order, are what scripts rely on.
func TestJSONIsStable(t *testing.T) {
	const tally = `{"sent":%d,"mounted":0,"present":0,"bytes":%d}`
	for range 2 {
		src, dst := two(t)
		image := src.image("app", "layer", nil, "v1", "v2")
		hosts := strings.NewReplacer(src.host, "SRC", dst.host, "DST", string(image.Digest), "DIGEST")
		for _, c := range []struct {
			args []string
			want string
		}{
			{[]string{"copy", src.host + "/app:v1", dst.host + "/copy"}, `{"from":"SRC/app:v1","to":"DST/copy:v1","dryRun":false,"copy":{"root":{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"DIGEST","size":` +
				fmt.Sprint(image.Size) + `},"tags":["v1"],"manifests":` + fmt.Sprintf(tally, 1, image.Size) + `,"blobs":` + fmt.Sprintf(tally, 2, 15) + `}}`},
			{[]string{"sync", src.host + "/app", dst.host + "/sync", "-dry-run"}, `{"syncs":[{"from":"SRC/app","to":"DST/sync","dryRun":true,"sync":{"repositories":1,"unchanged":0,"created":2,"moved":0,"kept":0,"left":0,"deleted":0,"untagged":0,"deletedImages":0,"manifests":` +
				`{"sent":1,"mounted":0,"present":1,"bytes":` + fmt.Sprint(image.Size) + `},"blobs":{"sent":2,"mounted":0,"present":0,"bytes":15},"skipped":0,"failures":0,` +
				`"changes":[{"kind":"created","repository":"sync","ref":"v1","to":"DIGEST"},{"kind":"created","repository":"sync","ref":"v2","to":"DIGEST"}]}}]}`},
		} {
			stdout, _ := succeed(t, append(c.args, "-json")...)
			var got bytes.Buffer
			if err := json.Compact(&got, []byte(stdout)); err != nil {
				t.Fatal(err)
			}
			if text := hosts.Replace(got.String()); text != c.want {
				t.Errorf("%q:\n%s\nwant\n%s", c.args, text, c.want)
			}
		}
	}
}

func TestFailuresAreInJSONToo(t *testing.T) {
	src, dst := two(t)
	src.image("app", "layer", nil, "v1")
	bad := src.image("app", "bad layer", nil, "bad")
	src.around(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, string(digest.FromString("bad layer"))) {
				http.NotFound(w, r)
				return
			}
			next.ServeHTTP(w, r)
		})
	})
	status, stdout, stderr := mirror(t.Context(), "copy", "-json", src.host+"/app@"+string(bad.Digest), dst.host+"/copy")
	var copied result
	if err := json.Unmarshal([]byte(stdout), &copied); err != nil || status != exitFailed || copied.Error == "" || !strings.Contains(stderr, copied.Error) {
		t.Errorf("status %d, %v: %s%s", status, err, stdout, stderr)
	}
	status, stdout, stderr = mirror(t.Context(), "sync", "-json", "-quiet", src.host+"/app", dst.host+"/app")
	var list struct {
		Syncs []struct {
			Sync struct {
				Created int
				Failed  []struct{ Ref, Error string }
			}
		}
	}
	if err := json.Unmarshal([]byte(stdout), &list); err != nil || status != exitFailed || strings.Count(stderr, "\n") != 1 {
		t.Fatalf("status %d, %v: %s%s", status, err, stdout, stderr)
	}
	if got := list.Syncs[0].Sync; len(got.Failed) != 1 || got.Failed[0].Ref != "bad" || got.Failed[0].Error == "" || got.Created != 1 {
		t.Errorf("%+v", got)
	}
	if got := dst.names("app"); got != "v1" {
		t.Errorf("the target has %q, want what did not fail", got)
	}
}

func TestEventsAreLinesOfJSON(t *testing.T) {
	src, dst := two(t)
	image := src.image("app", "layer", nil, "v1")
	stdout, stderr := succeed(t, "sync", "-json-events", src.host+"/app", dst.host+"/app")
	ends := map[digest.Digest]string{}
	var last struct {
		Event      string
		Descriptor ocispec.Descriptor
		Result     struct{ Syncs []result }
	}
	tags := 0
	for text := range strings.Lines(stdout) {
		if err := json.Unmarshal([]byte(text), &last); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		switch last.Event {
		case "sent":
			ends[last.Descriptor.Digest] = last.Event
		case "tag":
			tags++
		}
	}
	if len(ends) != 3 || ends[image.Digest] == "" || tags != 1 || last.Event != "result" || last.Result.Syncs[0].Sync.Created != 1 || stderr != "" {
		t.Errorf("%s%s", stdout, stderr)
	}
}

// TestNothingChosenIsTold, since it may be a name with a slip.
func TestNothingChosenIsTold(t *testing.T) {
	src, dst := two(t)
	src.image("app", "layer", nil, "v1")
	dst.image("app", "layer", nil, "v1")
	for _, args := range [][]string{{src.host + "/apq", dst.host + "/new"}, {"-repos", "x*", src.host, dst.host}, {"-tags", "x", src.host + "/app", dst.host + "/app"}} {
		if _, stderr := succeed(t, append([]string{"sync"}, args...)...); !strings.Contains(stderr, "has no tags that are chosen") {
			t.Errorf("%q: %s", args, stderr)
		}
	}
	status, _, stderr := mirror(t.Context(), "sync", "-delete", src.host+"/apq", dst.host+"/app")
	if status != exitLimit || dst.names("app") != "v1" {
		t.Errorf("status %d: %s: %s", status, dst.names("app"), stderr)
	}
}

func TestConfigurationFile(t *testing.T) {
	src, dst := two(t)
	image := src.image("team/app", "layer", nil, "v1", "dev")
	src.image("team/app", "sbom", &image)
	dst.image("all/team/app", "old", nil, "gone")
	file := filepath.Join(t.TempDir(), "mirror.json")
	text := fmt.Sprintf(`{"syncs": [
		{"from": "%s/team/app", "to": "%s/app", "tags": ["v*"], "referrers": "all"},
		{"from": "http://%[1]s", "to": "%[2]s/all", "repos": "team/*", "delete": true, "delete-share": 1}]}`, src.host, dst.host)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	stdout, _ := succeed(t, "sync", "-config", file)
	if _, n := dst.content("app"); n != 2 || dst.names("app") != "v1" || dst.names("all/team/app") != "dev v1" || strings.Count(stdout, "\n") != 2 {
		t.Errorf("%d manifests, %s; %s; %s", n, dst.names("app"), dst.names("all/team/app"), stdout)
	}
}

// TestTheWorstIsTold by the status, whatever comes first.
func TestTheWorstIsTold(t *testing.T) {
	src, dst := two(t)
	src.image("app", "layer", nil, "v1")
	dst.image("limit", "layer", nil, "v2")
	file := filepath.Join(t.TempDir(), "mirror.json")
	good, limit, bad := `{"from":"%[1]s/app","to":"%[2]s/app"}`, `{"from":"%[1]s/app","to":"%[2]s/limit","delete":true,"delete-share":0.5}`, `{"from":"%[1]s/app","to":"%[1]s/app/denied"}`
	src.around(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, "denied") {
				w.WriteHeader(http.StatusForbidden)
				return
			}
			next.ServeHTTP(w, r)
		})
	})
	for _, c := range []struct {
		syncs []string
		want  int
	}{{[]string{good, good}, exitOK}, {[]string{limit, good}, exitLimit}, {[]string{bad, limit, good}, exitFailed}, {[]string{limit, bad}, exitFailed}} {
		text := fmt.Sprintf(`{"syncs":[`+strings.Join(c.syncs, ",")+`]}`, src.host, dst.host)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if status, _, stderr := mirror(t.Context(), "sync", "-config", file); status != c.want {
			t.Errorf("%s: status %d, want %d: %s", text, status, c.want, stderr)
		}
	}
}

// TestAnInterruptedCopyGoesOn inside of a blob, where the first run has ended.
func TestAnInterruptedCopyGoesOn(t *testing.T) {
	src, dst := two(t)
	const size, part = 3 << 20, 256 << 10
	content := make([]byte, size)
	rand.NewChaCha8([32]byte{}).Read(content)
	src.image("app", string(content), nil, "v1")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var read, parts atomic.Int64
	src.around(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			next.ServeHTTP(&counted{w, &read}, r)
		})
	})
	dst.around(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			next.ServeHTTP(w, r)
			if r.Method == http.MethodPatch && parts.Add(1) == size/part/2 {
				cancel()
			}
		})
	})
	args := []string{"copy", "-part-size", fmt.Sprint(part), src.host + "/app:v1", dst.host + "/app"}
	status, stdout, stderr := mirror(ctx, args...)
	if status != exitInterrupted || stdout != "" || !strings.Contains(stderr, "interrupted; the same command goes on") {
		t.Fatalf("status %d: %s%s", status, stdout, stderr)
	}
	if tags, manifests := dst.content("app"); len(tags)+manifests > 0 {
		t.Fatalf("the target shows %v and %d manifests", tags, manifests)
	}
	read.Store(0)
	succeed(t, args...)
	if got := read.Load(); got > size*3/4 {
		t.Errorf("the second run read %d bytes, as if there had been no first", got)
	}
	if dst.names("app") != "v1" {
		t.Error("it is not there")
	}
	if left, err := filepath.Glob(filepath.Join(os.Getenv("XDG_CACHE_HOME"), "wharfage", "mirror", "*")); err != nil || len(left) > 0 {
		t.Errorf("the journal keeps %q, %v", left, err)
	}
}

// counted adds up the bytes of answers.
type counted struct {
	http.ResponseWriter
	wrote *atomic.Int64
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.wrote.Add(int64(n))
	return n, err
}

// TestSignals: the program as it is built ends in good order.
func TestSignals(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("there is no such signal")
	}
	binary := filepath.Join(t.TempDir(), "mirror")
	if out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	src, dst := two(t) // after the build, whose cache is in a folder of the user's
	src.image("app", "layer", nil, "v1")
	waits, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	src.around(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, "/blobs/") {
				once.Do(func() { close(waits) })
				<-goOn
			}
			next.ServeHTTP(w, r)
		})
	})
	cmd := exec.CommandContext(t.Context(), binary, "copy", src.host+"/app:v1", dst.host+"/app")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	err := cmd.Start()
	if err == nil {
		<-waits
		err = errors.Join(cmd.Process.Signal(os.Interrupt), cmd.Wait())
	}
	close(goOn)
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != exitInterrupted || !strings.Contains(stderr.String(), "interrupted") {
		t.Errorf("%v: %s", err, stderr.String())
	}
	out, err := exec.Command(binary, "copy", src.host+"/app:v1", dst.host+"/app").Output()
	if err != nil || !strings.Contains(string(out), "1 manifest and 2 blobs") {
		t.Errorf("%v: %s", err, out)
	}
}

func TestEvery(t *testing.T) {
	src, dst := two(t)
	src.image("app", "layer", nil, "v1")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var rounds atomic.Int64
	src.around(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/tags/list") {
				switch rounds.Add(1) {
				case 2: // a round that fails does not end it
					w.WriteHeader(http.StatusForbidden)
					return
				case 4:
					cancel()
				}
			}
			next.ServeHTTP(w, r)
		})
	})
	status, stdout, stderr := mirror(ctx, "sync", "-every", "1ms", src.host+"/app", dst.host+"/app")
	if status != exitInterrupted || rounds.Load() != 4 || strings.Count(stdout, "1 unchanged") < 1 || !strings.Contains(stderr, "403") {
		t.Errorf("status %d, %d rounds: %s%s", status, rounds.Load(), stdout, stderr)
	}
}

// Each mistake has an error that says what it is, and nobody is asked anything.
func TestMistakes(t *testing.T) {
	src, dst := two(t)
	image := src.image("app", "layer", nil, "v1")
	one, to := src.host+"/app:v1", dst.host+"/app"
	config := func(text string) string {
		file := filepath.Join(t.TempDir(), "mirror.json")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	pair := func(more string) string {
		return config(`{"syncs":[{"from":"localhost:1/a","to":"localhost:2/b"` + more + `}]}`)
	}
	for _, c := range []struct {
		want string
		args []string
	}{
		{`want a command, copy or sync, have ""`, nil},
		{`have "move"`, []string{"move"}},
		{"not defined: -nope", []string{"copy", "-nope", one, to}},
		{"have 0 arguments", []string{"copy"}},
		{"have 1 arguments", []string{"copy", one}},
		{"have 3 arguments", []string{"copy", one, to, to}},
		{"want a host", []string{"copy", "app:v1", to}},
		{"begins with no host", []string{"copy", "team/app:v1", to}},
		{"scheme is to be http or https", []string{"copy", "docker://" + one, to}},
		{"want a tag or a digest", []string{"copy", src.host + "/app", to}},
		{"want a tag or a digest", []string{"copy", src.host, to}},
		{"names no repository", []string{"copy", one, dst.host}},
		{"another digest", []string{"copy", one, to + "@" + string(image.Digest)}},
		{"UPPER", []string{"copy", src.host + "/UPPER:v1", to}},
		{"tag", []string{"copy", src.host + "/app:", to}},
		{"64 lower case hexadecimal digits", []string{"copy", src.host + "/app@sha256:12", to}},
		{"docker login", []string{"copy", "user:canary@" + one, to}},
		{"want a host", []string{"copy", "local host:80/app:v1", to}},
		{"-artifact-type chooses", []string{"copy", "-artifact-type", "a/b", one, to}},
		{`want a number, or "all"`, []string{"copy", "-referrers", "some", one, to}},
		{"want os/arch", []string{"copy", "-platform", "linux", one, to}},
		{"several platforms need -sparse", []string{"copy", "-platform", "linux/amd64", "-platform", "linux/arm64", one, to}},
		{"-sparse needs -platform", []string{"copy", "-sparse", one, to}},
		{"-tag", []string{"copy", "-tag", "-", one, to}},
		{"-mount-from", []string{"copy", "-mount-from", "A", one, to}},
		{"at least 1", []string{"copy", "-requests", "0", one, to}},
		{"at least 1", []string{"copy", "-part-size", "0", one, to}},
		{"-realm", []string{"copy", "-realm", "auth.example", one, to}},
		{"-allow", []string{"copy", "-allow", "storage.example", one, to}},
		{"not defined: -delete", []string{"copy", "-delete", one, to}},
		{"not defined: -tag", []string{"sync", "-tag", "v1", src.host + "/app", to}},
		{"names one image", []string{"sync", one, to}},
		{"names one image", []string{"sync", src.host + "/app", to + ":v1"}},
		{"or -all, or -repos", []string{"sync", src.host, dst.host}},
		{"are for a registry", []string{"sync", "-all", src.host + "/app", to}},
		{"do not go together", []string{"sync", "-all", "-repos", "x", src.host, to}},
		{"names no repository", []string{"sync", src.host + "/app", dst.host}},
		{"it is empty", []string{"sync", "-tags", "", src.host + "/app", to}},
		{"need -delete", []string{"sync", "-delete-max", "1", src.host + "/app", to}},
		{"at least 1", []string{"sync", "-delete", "-delete-max", "0", src.host + "/app", to}},
		{"at most 1", []string{"sync", "-delete", "-delete-share", "NaN", src.host + "/app", to}},
		{"-every", []string{"sync", "-every", "-1s", src.host + "/app", to}},
		{"is too much", []string{"sync", "-config", pair(""), to}},
		{"-delete belongs into the file", []string{"sync", "-config", pair(""), "-delete"}},
		{"no such file", []string{"sync", "-config", filepath.Join(t.TempDir(), "none")}},
		{"json-syntax", []string{"sync", "-config", config(`{`)}},
		{"json-syntax", []string{"sync", "-config", config(`[]`)}},
		{"json-duplicate-name", []string{"sync", "-config", pair(`,"from":"x"`)}},
		{"/syncs is to be a list", []string{"sync", "-config", config(`{}`)}},
		{"/synks is not known", []string{"sync", "-config", config(`{"synks":[]}`)}},
		{"/syncs/0/taggs is not known", []string{"sync", "-config", pair(`,"taggs":["v*"]`)}},
		{"/syncs/0/requests is not known", []string{"sync", "-config", pair(`,"requests":1`)}},
		{"/syncs/0/tags/1 is to be a string", []string{"sync", "-config", pair(`,"tags":["v*",{}]`)}},
		{"/syncs/0/verify is to be a string", []string{"sync", "-config", pair(`,"verify":[true]`)}},
		{"/syncs/0/verify is to be a string", []string{"sync", "-config", pair(`,"verify":null`)}},
		{`/syncs/0/delete-max is "many"`, []string{"sync", "-config", pair(`,"delete-max":"many"`)}},
		{`/syncs/0/referrers is "-2"`, []string{"sync", "-config", pair(`,"referrers":-2`)}},
		{"/syncs/0 is wrong: -sparse needs", []string{"sync", "-config", pair(`,"sparse":true`)}},
		{"/syncs/0 is wrong: \"\": it begins with no host", []string{"sync", "-config", config(`{"syncs":[{}]}`)}},
	} {
		status, stdout, stderr := mirror(t.Context(), c.args...)
		if status != exitUsage || stdout != "" || !strings.Contains(stderr, c.want) || strings.Contains(stderr, "canary") {
			t.Errorf("%q: status %d: %s%s\nwant %s", c.args, status, stdout, stderr, c.want)
		}
		if len(stderr) > 800 {
			t.Errorf("%q: %d bytes are more than one reads: %s", c.args, len(stderr), stderr)
		}
	}
	if n := src.requests.Load() + dst.requests.Load(); n > 0 {
		t.Errorf("%d requests", n)
	}
}

func TestReferences(t *testing.T) {
	c := &command{plain: true, registries: map[string]*remote.Registry{}}
	for text, want := range map[string]string{
		"docker.io/alpine:3":                            "http docker.io/library/alpine:3",
		"docker.io/team/app:3":                          "http docker.io/team/app:3",
		"https://registry.example/a/b":                  "https registry.example/a/b",
		"registry.example:5000/a:v1":                    "http registry.example:5000/a:v1",
		"localhost":                                     "http localhost",
		"[::1]:5000/a@" + string(digest.FromString("")): "http [::1]:5000/a@" + string(digest.FromString("")),
	} {
		r, err := parseReference(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		client := c.registry(r)
		if got := client.Scheme + " " + r.String(); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
		if c.registry(r) != client {
			t.Errorf("%s: a second client, which has to log in again", text)
		}
	}
}

func TestHelp(t *testing.T) {
	for _, args := range [][]string{{"-h"}, {"copy", "-h"}, {"sync", "--help"}} {
		stdout, stderr := succeed(t, args...)
		if !strings.Contains(stdout, "usage: mirror copy") || stderr != "" {
			t.Errorf("%q: %s%s", args, stdout, stderr)
		}
	}
}

// TestNoSecrets: neither credentials nor the query of a URL are printed.
func TestNoSecrets(t *testing.T) {
	src, dst := two(t)
	src.image("app", "layer", nil, "v1")
	text := fmt.Sprintf(`{"auths":{%q:{"username":"me","password":"canary"}}}`, src.host)
	if err := os.WriteFile(filepath.Join(os.Getenv("DOCKER_CONFIG"), "config.json"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var seen atomic.Bool
	src.around(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, password, ok := r.BasicAuth()
			if password == "canary" {
				seen.Store(true)
			}
			switch {
			case !ok:
				w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
				w.WriteHeader(http.StatusUnauthorized)
			case strings.Contains(r.URL.Path, "/blobs/"):
				w.Header().Set("Location", "http://localhost:1/blob?signature=canary")
				w.WriteHeader(http.StatusTemporaryRedirect)
			default:
				next.ServeHTTP(w, r)
			}
		})
	})
	for _, flag := range []string{"-json", "-json-events"} {
		status, stdout, stderr := mirror(t.Context(), "copy", flag, src.host+"/app:v1", dst.host+"/app")
		if status != exitFailed || !seen.Load() || strings.Contains(stdout+stderr, "canary") || strings.Contains(stdout+stderr, "signature") {
			t.Errorf("status %d: %s%s", status, stdout, stderr)
		}
	}
}

// TestBarFitsIntoALine of any terminal, and is gone at the end.
func TestBarFitsIntoALine(t *testing.T) {
	for _, width := range []int{1, 20, 80, 200} {
		var out bytes.Buffer
		p := (&command{stderr: &out}).progress()
		p.width = func() int { return width }
		desc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromString("layer"), Size: 1 << 30}
		total := replication.Total{Objects: 1, Bytes: 1 << 30}
		for _, kind := range []replication.EventKind{replication.EventFound, replication.EventBegan, replication.EventBytes, replication.EventBytes} {
			total.DoneBytes += 1 << 27
			p.event(replication.Event{Kind: kind, Repo: "app", Desc: desc, Bytes: total.DoneBytes, Total: total})
			p.draw()
		}
		p.above(func() { io.WriteString(&out, "a line\n") })
		p.end()
		lines := strings.Split(out.String(), "\r")
		for _, line := range lines {
			if len(line) >= width && line != "a line\n" {
				t.Errorf("width %d: %q", width, line)
			}
		}
		if width == 200 && !strings.Contains(out.String(), " 50% [==========          ] 512.0 MiB of 1.0 GiB, ") {
			t.Errorf("%s", out.String())
		}
		if lines[len(lines)-1] != "" {
			t.Errorf("%q is left", lines[len(lines)-1])
		}
	}
}
