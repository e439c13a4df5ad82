// Command quickstart pushes an image (its own source, or the folder or OCI layout
// it is given), an SBOM and a signature to a registry, and finds them again.
package main

import (
	"archive/tar"
	"bytes"
	"crypto/ed25519"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage"
	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/manifest"
)

//go:embed *.go
var source embed.FS
var repo string // URL of the repository

func main() {
	repo = httptest.NewServer(wharfage.NewMemory()).URL + "/v2/demo/app/" // a registry is an http.Handler
	fmt.Println("1. a registry in memory serves the repository", repo)
	image := pushImage(append(os.Args, "")[1])
	fmt.Println("2. pushed an image:", image.Digest)
	info, _ := debug.ReadBuildInfo()
	var packages []any
	for i, m := range append(info.Deps, &info.Main) {
		packages = append(packages, map[string]any{"SPDXID": fmt.Sprint("SPDXRef-", i), "name": m.Path, "versionInfo": m.Version, "downloadLocation": "NOASSERTION", "filesAnalyzed": false})
	}
	sbom := must(json.Marshal(map[string]any{"spdxVersion": "SPDX-2.3", "dataLicense": "CC0-1.0", "SPDXID": "SPDXRef-DOCUMENT", "name": "quickstart", "documentNamespace": "https://example.com/quickstart",
		"creationInfo": map[string]any{"created": time.Now().UTC().Format(time.RFC3339), "creators": []string{"Tool: quickstart"}}, "packages": packages}))
	bom := attach("application/spdx+json", sbom, image)
	fmt.Println("3. attached an SBOM, which names the image as its subject:", bom.Digest)
	public, private, _ := ed25519.GenerateKey(nil)
	fmt.Println("4. attached a signature, whose subject is the SBOM:", attach("application/vnd.example.ed25519", ed25519.Sign(private, sbom), bom).Digest)
	fmt.Println("5. the image, what refers to it, and what refers to that:")
	tree(image, "   ")
	found := referrers(image, "application/spdx+json")[0]
	pulled := pullArtifact(found)
	fmt.Println("6. found the SBOM by its artifact type, and pulled bytes of the right digest:", len(pulled))
	if !ed25519.Verify(public, pulled, pullArtifact(referrers(found, "application/vnd.example.ed25519")[0])) {
		log.Fatal("the signature does not verify")
	}
	fmt.Println("7. pulled its signature, which verifies")
}

// pushImage pushes the OCI layout in dir, or an image of dir's files.
func pushImage(dir string) ocispec.Descriptor {
	if raw, err := os.ReadFile(filepath.Join(dir, ocispec.ImageIndexFile)); err == nil {
		images := must(manifest.Parse(ocispec.MediaTypeImageIndex, raw)).Manifests
		if len(images) == 0 {
			log.Fatal(dir, ": the layout has no image")
		}
		return pushLayout(dir, images[0])
	}
	must(os.ReadDir(filepath.Join(dir, "."))) // whose error names the folder
	files := map[bool]fs.FS{true: source, false: os.DirFS(dir)}[dir == ""]
	var layer bytes.Buffer
	t := tar.NewWriter(&layer)
	must(0, errors.Join(t.AddFS(files), t.Close()))
	l := pushBlob(ocispec.MediaTypeImageLayer, layer.Bytes())
	config := pushBlob(ocispec.MediaTypeImageConfig, []byte(`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["`+l.Digest+`"]}}`))
	return pushManifest(manifest.ImageDraft{Config: &config, Layers: []ocispec.Descriptor{l}})
}

func pushLayout(dir string, d manifest.Descriptor) ocispec.Descriptor {
	if manifest.CheckContentDigest(string(d.Digest)) != nil { // before it becomes a path; of the config of an index too, which has none
		return ocispec.Descriptor{}
	}
	content := must(os.ReadFile(filepath.Join(dir, "blobs", d.Digest.Algorithm().String(), d.Digest.Encoded())))
	if manifest.KindOf(d.MediaType) == manifest.KindOpaque {
		call("POST", "blobs/uploads/?digest="+string(d.Digest), "application/octet-stream", content)
		return d.OCI()
	}
	m := must(manifest.Parse(d.MediaType, content))
	for _, below := range append(append(m.Layers, m.Manifests...), m.Config) {
		pushLayout(dir, below)
	}
	call("PUT", "manifests/"+string(d.Digest), d.MediaType, content)
	return d.OCI()
}

func attach(artifactType string, content []byte, subject ocispec.Descriptor) ocispec.Descriptor {
	pushBlob(manifest.MediaTypeEmpty, []byte("{}")) // its config
	return pushManifest(manifest.ImageDraft{ArtifactType: artifactType, Layers: []ocispec.Descriptor{pushBlob(artifactType, content)}, Subject: &subject})
}

func pushManifest(draft manifest.ImageDraft) ocispec.Descriptor {
	raw, desc, err := draft.Build()
	call("PUT", "manifests/"+string(must(desc.Digest, err)), desc.MediaType, raw)
	return desc
}

func pushBlob(mediaType string, content []byte) ocispec.Descriptor {
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(content), Size: int64(len(content))}
	call("POST", "blobs/uploads/?digest="+string(desc.Digest), "application/octet-stream", content)
	return desc
}

func pullArtifact(desc ocispec.Descriptor) []byte {
	pull := func(kind string, desc ocispec.Descriptor) []byte { // Verify fails unless content is what desc promises
		return must(io.ReadAll(blob.Verify(bytes.NewReader(call("GET", kind+string(desc.Digest), "", nil)), desc)))
	}
	return pull("blobs/", must(manifest.Parse(desc.MediaType, pull("manifests/", desc))).Layers[0].OCI())
}

func referrers(subject ocispec.Descriptor, artifactType string) []ocispec.Descriptor {
	var index ocispec.Index
	must(0, json.Unmarshal(call("GET", "referrers/"+string(subject.Digest)+"?artifactType="+url.QueryEscape(artifactType), "", nil), &index))
	return index.Manifests
}

func tree(desc ocispec.Descriptor, indent string) {
	fmt.Println(indent+string(desc.Digest), desc.ArtifactType)
	for _, d := range referrers(desc, "") {
		tree(d, "   "+indent)
	}
}

func call(method, path, contentType string, body []byte) []byte {
	req := must(http.NewRequest(method, repo+path, bytes.NewReader(body)))
	req.Header.Set("Content-Type", contentType)
	resp := must(http.DefaultClient.Do(req))
	answer := must(io.ReadAll(resp.Body))
	if resp.StatusCode >= 300 {
		log.Fatalf("%s %s: %s: %s", method, path, resp.Status, answer)
	}
	return answer
}

func must[T any](v T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return v
}
