package sbomscan_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
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
	var contents [][]byte
	for _, files := range layers {
		contents = append(contents, pack(t, files))
	}
	return push(t, h, mediaType, contents...)
}

// pack makes a layer of names and contents. Without any it makes none.
func pack(t *testing.T, files []string) []byte {
	t.Helper()
	if files == nil {
		return []byte("no layer")
	}
	var packed bytes.Buffer
	z, _ := gzip.NewWriterLevel(&packed, gzip.BestSpeed)
	w := tar.NewWriter(z)
	for i := 0; i < len(files); i += 2 {
		kind := byte(tar.TypeReg)
		if strings.HasSuffix(files[i], "/") {
			kind = tar.TypeDir
		}
		err := w.WriteHeader(&tar.Header{Name: files[i], Size: int64(len(files[i+1])), Mode: 0o755, Typeflag: kind})
		if _, e := w.Write([]byte(files[i+1])); err != nil || e != nil {
			t.Fatal(err, e)
		}
	}
	w.Close()
	z.Close()
	return packed.Bytes()
}

// push pushes an image of layers; foreign ones stay away.
func push(t *testing.T, h *wharfage.Handler, mediaType string, layers ...[]byte) digest.Digest {
	t.Helper()
	put := func(mediaType string, content []byte) ocispec.Descriptor {
		desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(content), Size: int64(len(content))}
		if manifest.IsForeignLayer(mediaType) {
			return desc
		}
		if err := blob.Put(t.Context(), h.Blobs, "app", desc, bytes.NewReader(content)); err != nil {
			t.Fatal(err)
		}
		return desc
	}
	config := put(ocispec.MediaTypeImageConfig, []byte("{}"))
	draft := manifest.ImageDraft{Config: &config}
	for _, content := range layers {
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
	if out, err := exec.Command("go", "build", "-ldflags=-s -w", "-o", file, "../quickstart").CombinedOutput(); err != nil {
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
	for _, removed := range [][]string{{"bin/.wh.app", ""}, {".wh.bin", ""}, {"bin/.wh..wh..opq", ""}, {"bin/app", "text"}, {"bin/app/", ""}} {
		dgst := image(t, h, ocispec.MediaTypeImageLayerGzip, []string{"bin/app", exe}, removed)
		if r, err := runner.Scan(t.Context(), "app", dgst); err != nil || r.Status != scan.StatusFindingsUnavailable {
			t.Fatalf("%+v, %v", r, err)
		}
		if names := sbom(t, h, dgst); len(names) != 0 {
			t.Errorf("after %q the SBOM has %q", removed, names)
		}
	}
}

// TestWhiteoutsAreForLayersBelow: what a layer brings itself they do not hide
// (image-spec, "Whiteouts"), wherever they stand in it.
func TestWhiteoutsAreForLayersBelow(t *testing.T) {
	h := wharfage.NewMemory()
	exe := binary(t)
	runner := &scan.Runner{Scanner: &sbomscan.Scanner{Blobs: h.Blobs, Manifests: h.Manifests}, Blobs: h.Blobs, Manifests: h.Manifests}
	below := pack(t, []string{"bin/app", exe, "bin/old", exe})
	for _, whiteout := range []string{"bin/.wh.app", "bin/.wh..wh..opq", ".wh.bin"} {
		for _, layer := range [][]string{{"bin/app", exe, whiteout, ""}, {whiteout, "", "bin/app", exe}} {
			dgst := push(t, h, ocispec.MediaTypeImageLayerGzip, below, pack(t, layer))
			if _, err := runner.Scan(t.Context(), "app", dgst); err != nil {
				t.Fatal(err)
			}
			n := len(slices.DeleteFunc(sbom(t, h, dgst), func(name string) bool { return name != "stdlib" })) // one of each binary
			if want := map[bool]int{true: 2, false: 1}[whiteout == "bin/.wh.app"]; n != want {
				t.Errorf("%q and %s: %d binaries, want %d", layer[0], whiteout, n, want)
			}
		}
	}
}

// purl is a package URL of a Go module: what is no letter, digit or . _ - ~ in a name or
// a version is percent-encoded.
var purl = regexp.MustCompile(`^pkg:golang(/[\w.~%-]+)+(@[\w.~%-]+)?$`)

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
	var doc struct {
		Packages []struct {
			Name         string
			ExternalRefs []struct{ ReferenceLocator string }
		}
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		t.Fatal(err)
	}
	for _, p := range doc.Packages {
		names = append(names, p.Name)
		if len(p.ExternalRefs) != 1 || !purl.MatchString(p.ExternalRefs[0].ReferenceLocator) {
			t.Errorf("%s has the package URLs %v", p.Name, p.ExternalRefs)
		}
	}
	return names
}

// TestAnImageThatIsTooLargeHasNoSBOM, wherever the limit lies: half a list is none.
func TestAnImageThatIsTooLargeHasNoSBOM(t *testing.T) {
	h := wharfage.NewMemory()
	small := []string{"etc/a", "", "etc/b", "", "etc/c", ""} // each takes 512 bytes
	scan := func(limit int64, dgst digest.Digest) (status scan.Status, why string) {
		t.Helper()
		s := sbomscan.Scanner{Blobs: h.Blobs, Manifests: h.Manifests, MaxSize: limit}
		r, err := s.Scan(t.Context(), "app", ocispec.Descriptor{Digest: dgst})
		if err != nil {
			t.Fatal(err)
		}
		return r.Status, r.Description
	}
	const tooLarge = "the image is too large"
	one := image(t, h, ocispec.MediaTypeImageLayerGzip, small)
	two := image(t, h, ocispec.MediaTypeImageLayerGzip, small, []string{"etc/d", ""})
	for limit := int64(512); limit <= 3*512; limit += 128 {
		if status, why := scan(limit, one); why != tooLarge {
			t.Errorf("with %d bytes of one layer: %s, %s", limit, status, why)
		}
	}
	if status, why := scan(5*512, two); why != tooLarge {
		t.Errorf("with the first of two layers: %s, %s", status, why)
	}
	// A sparse file of 64 KiB, of which 4 bytes are in the tar.
	dgst := push(t, h, ocispec.MediaTypeImageLayer, slices.Concat(
		block(tar.TypeXHeader, "", record("GNU.sparse.major", "1")+record("GNU.sparse.minor", "0")+record("GNU.sparse.name", "bin/app")+record("GNU.sparse.realsize", "65536")),
		block(tar.TypeReg, "app", "1\n0\n4\n"+strings.Repeat("\x00", 512-6)+"\x7fELF"), make([]byte, 1024)))
	if status, why := scan(64<<10, dgst); why != tooLarge {
		t.Errorf("a sparse file: %s, %s", status, why)
	}
	if status, why := scan(128<<10, dgst); status != "FINDINGS_UNAVAILABLE" {
		t.Errorf("a sparse file within the limit: %s, %s", status, why)
	}
}

// record is one of a PAX header. It takes two digits to say how long it is.
func record(key, value string) string {
	text := " " + key + "=" + value + "\n"
	return fmt.Sprint(len(text)+2) + text
}

// block is an entry of a tar that archive/tar does not write.
func block(kind byte, name, content string) []byte {
	b := make([]byte, 512+(len(content)+511)/512*512)
	copy(b, name)
	copy(b[100:], "0000755")
	copy(b[124:], fmt.Sprintf("%011o", len(content)))
	copy(b[136:], "00000000000")
	copy(b[148:], "        ")
	b[156] = kind
	copy(b[257:], "ustar\x0000")
	sum := 0
	for _, c := range b[:512] {
		sum += int(c)
	}
	copy(b[148:], fmt.Sprintf("%06o\x00", sum))
	copy(b[512:], content)
	return b
}

// ending cancels a context once a blob is open. Its readers do not look at it.
type ending struct {
	blob.Reader
	cancel context.CancelFunc
}

func (e ending) Open(ctx context.Context, repo string, dgst digest.Digest, off, n int64) (io.ReadCloser, blob.Info, error) {
	rc, info, err := e.Reader.Open(context.WithoutCancel(ctx), repo, dgst, off, n)
	e.cancel()
	return rc, info, err
}

// TestAScanEndsWithItsContext, also in the middle of a layer, which may unpack to much
// more than it is long.
func TestAScanEndsWithItsContext(t *testing.T) {
	h := wharfage.NewMemory()
	dgst := image(t, h, ocispec.MediaTypeImageLayerGzip, []string{"zeros", string(make([]byte, 1<<20))})
	ctx, cancel := context.WithCancel(t.Context())
	s := sbomscan.Scanner{Blobs: ending{h.Blobs, cancel}, Manifests: h.Manifests}
	if r, err := s.Scan(ctx, "app", ocispec.Descriptor{Digest: dgst}); !errors.Is(err, context.Canceled) {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestWhatCannotBeReadHasNoSBOM(t *testing.T) {
	h := wharfage.NewMemory()
	exe := binary(t)
	small := []string{"bin/app", exe}
	for name, c := range map[string]struct {
		s    sbomscan.Scanner
		dgst digest.Digest
	}{
		"zstd":                 {dgst: image(t, h, ocispec.MediaTypeImageLayerZstd, small)},
		"no gzip":              {dgst: image(t, h, ocispec.MediaTypeImageLayerGzip, nil)},
		"no tar":               {dgst: image(t, h, ocispec.MediaTypeImageLayer, nil)},
		"a bomb":               {s: sbomscan.Scanner{MaxSize: 4096}, dgst: image(t, h, ocispec.MediaTypeImageLayerGzip, small)},
		"foreign":              {dgst: push(t, h, "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", []byte("elsewhere"))},
		"whiteout of nothing":  {dgst: image(t, h, ocispec.MediaTypeImageLayerGzip, small, []string{"bin/.wh.", ""})},
		"whiteout of a parent": {dgst: image(t, h, ocispec.MediaTypeImageLayerGzip, small, []string{"bin/.wh...", ""})},
		"too long":             {s: sbomscan.Scanner{MaxSBOM: 1000}, dgst: image(t, h, ocispec.MediaTypeImageLayerGzip, small)},
		"too much":             {s: sbomscan.Scanner{MaxFile: 4096}, dgst: image(t, h, ocispec.MediaTypeImageLayerGzip, small)},
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
