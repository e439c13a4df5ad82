package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage"
	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/referrers"
	"github.com/wharfage/wharfage/replication"
)

const distributionVersion = "v3.1.2"

// distributionBinary is installed once, where examples/bench looks for it too.
var distributionBinary = sync.OnceValues(func() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	path := filepath.Join(cache, "wharfage-tools", "distribution-"+distributionVersion)
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", err
	}
	bin, err := os.MkdirTemp(filepath.Dir(path), "install") // of one file system, to be renamed
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(bin)
	cmd := exec.Command("go", "install", "github.com/distribution/distribution/v3/cmd/registry@"+distributionVersion)
	cmd.Env = append(os.Environ(), "GOBIN="+bin, "GOWORK=off", "GOFLAGS=")
	cmd.Dir = bin // no module's
	if text, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("install distribution: %w\n%s", err, text)
	}
	return path, os.Rename(filepath.Join(bin, "registry"), path)
})

// distribution starts distribution in a process of its own.
func distribution(t testing.TB) *Registry {
	if testing.Short() {
		t.Skip("installs distribution")
	}
	path, err := distributionBinary()
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	dir := t.TempDir()
	config := fmt.Sprintf("version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage:\n  filesystem: {rootdirectory: %q}\n  delete: {enabled: true}\nhttp: {addr: %q}\n", dir, addr)
	file := filepath.Join(dir, "config.yml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	cmd := exec.Command(path, "serve", file)
	cmd.Env = append(os.Environ(), "OTEL_TRACES_EXPORTER=none")
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Logf("distribution said: %.1000s", &said)
		}
	})
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) { // a foreign program says nothing when it is ready
		resp, err := http.Get("http://" + addr + "/v2/")
		if err == nil {
			resp.Body.Close()
			return &Registry{Host: addr}
		}
		if time.Since(began) > 20*time.Second {
			t.Fatal("distribution does not answer:", err)
		}
	}
}

var quiet = registry.Logger(log.New(io.Discard, "", 0))

// peers are registries of others, and ours.
var peers = map[string]func(t testing.TB) *Registry{
	"wharfage": func(t testing.TB) *Registry { return serve(t, wharfage.NewMemory()) },
	"wharfage without referrers API": func(t testing.TB) *Registry {
		return serve(t, handlers["no referrers API"](wharfage.NewMemory()))
	},
	"distribution":         distribution,
	"go-containerregistry": func(t testing.TB) *Registry { return serve(t, registry.New(quiet)) },
	"go-containerregistry with referrers": func(t testing.TB) *Registry {
		return serve(t, registry.New(quiet, registry.WithReferrersSupport(true)))
	},
}

// pushed is a registry's content as it was pushed: documents and blobs by digest.
type pushed map[digest.Digest][]byte

// fill pushes an index of two images with a long layer each, an image of docker's, and
// artifacts that refer to them and to one another.
func fillWorld(t testing.TB, to replication.Target, repo string) (all pushed, subjects []digest.Digest) {
	t.Helper()
	all = pushed{}
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	put := func(typ string, content []byte) ocispec.Descriptor {
		desc := ocispec.Descriptor{MediaType: typ, Digest: digest.FromBytes(content), Size: int64(len(content))}
		ok(blob.Put(t.Context(), to.Blobs, repo, desc, bytes.NewReader(content)))
		all[desc.Digest] = content
		return desc
	}
	push := func(raw []byte, tags ...string) ocispec.Descriptor {
		done, err := to.Manifests.Push(t.Context(), repo, manifest.PushRequest{Raw: raw, Tags: tags})
		ok(err)
		all[done.Record.Desc.Digest] = raw
		return ocispec.Descriptor{MediaType: done.Record.Desc.MediaType, Digest: done.Record.Desc.Digest, Size: done.Record.Desc.Size}
	}
	random := rand.NewChaCha8([32]byte{})
	var children []ocispec.Descriptor
	put(ocispec.MediaTypeEmptyJSON, []byte("{}"))
	for _, arch := range []string{"amd64", "arm64"} {
		layer := make([]byte, 3<<20)
		random.Read(layer)
		config := put(ocispec.MediaTypeImageConfig, []byte(`{"architecture":"`+arch+`","os":"linux"}`))
		raw, _, err := manifest.ImageDraft{Config: &config, Layers: []ocispec.Descriptor{put(ocispec.MediaTypeImageLayer, layer)}}.Build()
		ok(err)
		child := push(raw)
		child.Platform = &ocispec.Platform{Architecture: arch, OS: "linux"}
		children = append(children, child)
	}
	raw, _, err := manifest.IndexDraft{Manifests: children}.Build()
	ok(err)
	root := push(raw, "v1", "latest")
	subjects = []digest.Digest{root.Digest, children[0].Digest}
	for i, subject := range []ocispec.Descriptor{root, root, root, {MediaType: children[0].MediaType, Digest: children[0].Digest, Size: children[0].Size}} {
		raw, _, err := manifest.ImageDraft{ArtifactType: "application/vnd.example.sbom", Subject: &subject, Annotations: map[string]string{"n": fmt.Sprint(i)},
			Layers: []ocispec.Descriptor{put("text/plain", fmt.Append(nil, "sbom ", i))}}.Build()
		ok(err)
		sbom := push(raw)
		raw, _, err = manifest.ImageDraft{ArtifactType: "application/vnd.example.signature", Subject: &sbom}.Build()
		ok(err)
		push(raw)
		subjects = append(subjects, sbom.Digest)
	}
	return all, subjects
}

// compare checks that repo holds all, byte for byte, and lists the referrers.
func compare(t testing.TB, from replication.Source, repo string, all pushed, listed map[digest.Digest][]ocispec.Descriptor) {
	t.Helper()
	for dgst, want := range all {
		var got []byte
		rec, err := from.Manifests.Get(t.Context(), repo, dgst)
		if got = rec.Raw; manifest.IsNotFound(err) {
			var content io.ReadCloser
			if content, _, err = from.Blobs.Open(t.Context(), repo, dgst, 0, -1); err == nil {
				got, err = io.ReadAll(content)
				content.Close()
			}
		}
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, want %d: %v", dgst, len(got), len(want), err)
		}
	}
	for subject, want := range listed {
		got := list(t, from.Referrers, repo, subject)
		if len(got) != len(want) {
			t.Errorf("%d referrers of %s, want %d", len(got), subject, len(want))
			continue
		}
		for i := range got {
			if got[i].Digest != want[i].Digest || got[i].MediaType != want[i].MediaType || got[i].Size != want[i].Size ||
				got[i].ArtifactType != want[i].ArtifactType || got[i].Annotations["n"] != want[i].Annotations["n"] {
				t.Errorf("referrer %+v, want %+v", got[i], want[i])
			}
		}
	}
}

func list(t testing.TB, x referrers.Index, repo string, subject digest.Digest) (out []ocispec.Descriptor) {
	t.Helper()
	for d, err := range x.Referrers(t.Context(), repo, subject, "", "") {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, d)
	}
	return out
}

// Copies between registries of others, and ours, are byte for byte the same, with referrers
// of referrers, and a second run finds everything there.
func TestCopiesBetweenPeers(t *testing.T) {
	model := wharfage.NewMemory()
	all, subjects := fillWorld(t, replication.LocalTarget(model.Blobs, model.Manifests), "team/app")
	local := replication.LocalSource(model.Blobs, model.Manifests)
	listed := map[digest.Digest][]ocispec.Descriptor{}
	for _, s := range subjects {
		listed[s] = list(t, local.Referrers, "team/app", s)
	}
	for fromName, from := range peers {
		t.Run("from "+fromName, func(t *testing.T) {
			source := from(t)
			if got, _ := fillWorld(t, source.Target(), "team/app"); len(got) != len(all) {
				t.Fatalf("pushed %d, not %d", len(got), len(all))
			}
			compare(t, source.Source(), "team/app", all, listed)
			for toName, to := range peers {
				t.Run("to "+toName, func(t *testing.T) {
					target := to(t)
					var c replication.Copier
					for run := range 2 {
						got, err := c.Copy(t.Context(), source.Source(), "team/app", "v1", target.Target(), "mirror/app", replication.CopyOptions{Referrers: replication.AllReferrers})
						if err != nil {
							t.Fatal(err)
						}
						if run == 1 && got.Manifests.Sent+got.Blobs.Sent > 0 {
							t.Errorf("sent again: %+v", got)
						}
					}
					compare(t, target.Source(), "mirror/app", all, listed)
					tag, err := target.Source().Manifests.Resolve(t.Context(), "mirror/app", "v1")
					if err != nil || tag.Digest != subjects[0] {
						t.Errorf("the tag is %+v: %v", tag, err)
					}
				})
			}
		})
	}
}

// Peers keep sessions in their own ways; each takes a blob in parts, and goes on
// with a value that another process has kept.
func TestUploadsInPartsToPeers(t *testing.T) {
	for name, open := range peers {
		t.Run(name, func(t *testing.T) {
			target := open(t)
			ctx, content := t.Context(), strings.Repeat("0123456789abcdef", 1<<20) // three requests
			uploads := target.Target().Blobs.(blob.Uploads)
			u, err := uploads.Begin(ctx, "team/app", digest.SHA256)
			if err != nil {
				t.Fatal(err)
			}
			for _, part := range []string{content[:1<<20], content[1<<20 : 12<<20]} {
				before := u
				if u, err = blob.Append(ctx, uploads, u, -1, strings.NewReader(part)); err != nil {
					t.Fatal(err)
				}
				if u.Size-before.Size != int64(len(part)) {
					t.Fatalf("at %d after %d and %d", u.Size, before.Size, len(part))
				}
			}
			again := &Registry{Host: target.Host} // another process
			uploads = again.Target().Blobs.(blob.Uploads)
			now, err := uploads.Lookup(ctx, "team/app", u.ID)
			if strings.HasPrefix(name, "go-containerregistry") && errors.Is(err, blob.ErrUploadNotFound) {
				now, err = u, nil // it does not tell how far a session is
			}
			if err != nil || now.Size != u.Size {
				t.Fatalf("at %d, not at %d: %v", now.Size, u.Size, err)
			}
			now.Hash = u.Hash
			dgst := digest.FromString(content)
			if err := blob.Finish(ctx, uploads, now, u.Size, strings.NewReader(content[u.Size:]), dgst); err != nil {
				t.Fatal(err)
			}
			got, err := blob.ReadAll(ctx, again.Source().Blobs.(blob.Reader), "team/app", ocispec.Descriptor{Digest: dgst, Size: int64(len(content))})
			if err != nil || string(got) != content {
				t.Errorf("%d bytes: %v", len(got), err)
			}
			if _, err := again.Source().Manifests.Resolve(context.Background(), "team/app", "none"); !manifest.IsNotFound(err) {
				t.Errorf("error %v, want manifest.ErrNotFound", err)
			}
		})
	}
}
