package sbomscan_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage"
	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/blob/blobtest"
	"github.com/wharfage/wharfage/examples/sbomscan"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/scan"
)

// image pushes an image of layers, each of which is names and contents.
func image(t *testing.T, h *wharfage.Handler, mediaType string, layers ...[]string) digest.Digest {
	t.Helper()
	put := func(mediaType string, content []byte) ocispec.Descriptor {
		desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(content), Size: int64(len(content))}
		if err := blob.Put(t.Context(), h.Blobs, "app", desc, bytes.NewReader(content)); err != nil {
			t.Fatal(err)
		}
		return desc
	}
	config := put(ocispec.MediaTypeImageConfig, []byte("{}"))
	draft := manifest.ImageDraft{Config: &config}
	for _, files := range layers {
		if manifest.IsForeignLayer(mediaType) { // which nobody pushes
			draft.Layers = append(draft.Layers, ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromString("elsewhere"), Size: 9})
			continue
		}
		var packed bytes.Buffer
		z, _ := gzip.NewWriterLevel(&packed, gzip.BestSpeed)
		w := tar.NewWriter(z)
		for i := 0; i < len(files); i += 2 {
			err := w.WriteHeader(&tar.Header{Name: files[i], Size: int64(len(files[i+1])), Mode: 0o755, Typeflag: tar.TypeReg})
			if _, e := w.Write([]byte(files[i+1])); err != nil || e != nil {
				t.Fatal(err, e)
			}
		}
		w.Close()
		z.Close()
		content := packed.Bytes()
		if files == nil {
			content = []byte("no layer")
		}
		draft.Layers = append(draft.Layers, put(mediaType, content))
	}
	raw, desc, err := draft.Build()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (&manifest.Pusher{Store: h.Manifests}).Push(t.Context(), "app", manifest.PushRequest{Raw: raw, MediaType: desc.MediaType}); err != nil {
		t.Fatal(err)
	}
	return desc.Digest
}

// binary is one with modules. That of a test names none.
func binary(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "app")
	if out, err := exec.Command("go", "build", "-o", file, "../quickstart").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func TestAnImageGetsAnSBOM(t *testing.T) {
	h := wharfage.NewMemory()
	exe := binary(t)
	s := &sbomscan.Scanner{Blobs: h.Blobs, Manifests: h.Manifests}
	runner := &scan.Runner{Scanner: s, Blobs: h.Blobs, Manifests: h.Manifests, Every: -1}
	dgst := image(t, h, ocispec.MediaTypeImageLayerGzip, []string{"bin/app", exe, "etc/x", "text", "bin/short", "x", "bin/elf", "\x7fELF"})
	r, err := runner.Scan(t.Context(), "app", dgst)
	if err != nil || r.Status != scan.StatusFindingsUnavailable || len(r.Counts) != 0 {
		t.Fatalf("%+v, %v", r, err)
	}
	names := sbom(t, h, dgst)
	if !slices.Contains(names, "stdlib") || !slices.Contains(names, "github.com/opencontainers/go-digest") {
		t.Errorf("the SBOM has %q", names)
	}
	s.Advise = func(_ context.Context, m sbomscan.Module) ([]scan.Finding, error) {
		if m.Path != "github.com/opencontainers/go-digest" {
			return nil, nil
		}
		if m.In != "/bin/app" || !strings.HasPrefix(m.Version, "v1.") {
			t.Errorf("%+v", m)
		}
		return []scan.Finding{{Name: "CVE-0", Severity: scan.Low}}, nil
	}
	if r, err = runner.Scan(t.Context(), "app", dgst); err != nil || r.Status != scan.StatusComplete || r.Counts[scan.Low] != 1 {
		t.Errorf("%+v, %v", r, err)
	}
	s.Advise = nil

	// What a later layer removes is not in the image.
	for _, removed := range [][]string{{"bin/.wh.app", ""}, {".wh.bin", ""}, {"bin/.wh..wh..opq", ""}, {"bin/app", "text"}} {
		dgst := image(t, h, ocispec.MediaTypeImageLayerGzip, []string{"bin/app", exe}, removed)
		if r, err := runner.Scan(t.Context(), "app", dgst); err != nil || r.Status != scan.StatusFindingsUnavailable {
			t.Fatalf("%+v, %v", r, err)
		}
		if names := sbom(t, h, dgst); len(names) != 0 {
			t.Errorf("after %q the SBOM has %q", removed, names)
		}
	}
}

func sbom(t *testing.T, h *wharfage.Handler, image digest.Digest) (names []string) {
	t.Helper()
	found, _, err := wharfage.Page(h.Images().ImageReferrers(t.Context(), "app", image, wharfage.ReferrerFilter{ArtifactTypes: []string{sbomscan.ArtifactType}}, ""), 10)
	if err != nil || len(found) != 1 {
		t.Fatalf("SBOMs: %+v, %v", found, err)
	}
	rec, err := h.Manifests.Get(t.Context(), "app", found[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	m, err := manifest.Parse(rec.Desc.MediaType, rec.Raw)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := blob.ReadAll(t.Context(), h.Blobs, "app", m.Layers[0].OCI())
	if err != nil {
		t.Fatal(err)
	}
	var doc struct{ Packages []struct{ Name string } }
	if err := json.Unmarshal(raw, &doc); err != nil {
		t.Fatal(err)
	}
	for _, p := range doc.Packages {
		names = append(names, p.Name)
	}
	return names
}

func TestWhatCannotBeReadHasNoSBOM(t *testing.T) {
	h := wharfage.NewMemory()
	exe := binary(t)
	small := []string{"bin/app", exe}
	for name, c := range map[string]struct {
		s    sbomscan.Scanner
		dgst digest.Digest
	}{
		"zstd":     {dgst: image(t, h, ocispec.MediaTypeImageLayerZstd, small)},
		"no gzip":  {dgst: image(t, h, ocispec.MediaTypeImageLayerGzip, nil)},
		"no tar":   {dgst: image(t, h, ocispec.MediaTypeImageLayer, nil)},
		"a bomb":   {s: sbomscan.Scanner{MaxSize: 4096}, dgst: image(t, h, ocispec.MediaTypeImageLayerGzip, small)},
		"foreign":  {dgst: image(t, h, "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", small)},
		"too much": {s: sbomscan.Scanner{MaxFile: 4096}, dgst: image(t, h, ocispec.MediaTypeImageLayerGzip, small)},
	} {
		s := c.s
		s.Blobs, s.Manifests = h.Blobs, h.Manifests
		r, err := s.Scan(t.Context(), "app", ocispec.Descriptor{Digest: c.dgst})
		if err != nil || r.Status != scan.StatusUnsupportedImage || r.Attachments != nil {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
	dgst := image(t, h, ocispec.MediaTypeImageLayerGzip, small)
	for _, f := range []blobtest.Fault{{Call: 1}, {Call: 1, After: 100}} {
		faulty, surfaced := blobtest.Faulty(h.Blobs, f)
		s := &sbomscan.Scanner{Blobs: faulty, Manifests: h.Manifests}
		if r, err := s.Scan(t.Context(), "app", ocispec.Descriptor{Digest: dgst}); !errors.Is(err, blobtest.ErrFault) || surfaced() == 0 {
			t.Errorf("a failing store: %+v, %v", r, err)
		}
	}
}
