// Package sbomscan is a scan.Scanner over an SBOM generator: it reads the Go
// binaries of an image, lists the modules that they say they were built from, and attaches
// the list as an SPDX document. It shows how a scanner of yours fits in.
//
// It knows packages of no other kind and has no vulnerability data. Bring some
// as [Scanner].Advise; without, a report says that findings are unavailable.
package sbomscan

import (
	"archive/tar"
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/scan"
)

// ArtifactType is that of the SBOM.
const ArtifactType = "application/spdx+json"

// Module is a Go module in an image.
type Module struct{ Path, Version, In string } // In is the file that it was found in

// Scanner implements [scan.Scanner] over the stores of a registry.
type Scanner struct {
	Blobs     blob.Reader
	Manifests manifest.Reader

	// Advise returns what is known against a module. nil means that nobody knows.
	Advise func(ctx context.Context, m Module) ([]scan.Finding, error)

	MaxFile int64 // bytes of a binary, which is read into memory; larger ones are refused. 0 means 128 MiB
	MaxSize int64 // bytes of all layers unpacked, and of holes in binaries; 0 means 8 GiB
	MaxSBOM int64 // bytes of a list, about, which is kept in memory; 0 means 64 MiB
}

// Scan implements [scan.Scanner]. An image with a layer that it cannot unpack is
// an unsupported one: half a list is no SBOM.
func (s *Scanner) Scan(ctx context.Context, repo string, image ocispec.Descriptor) (scan.Report, error) {
	rec, err := s.Manifests.Get(ctx, repo, image.Digest)
	if err != nil {
		return scan.Report{}, err
	}
	m, err := manifest.Parse(rec.Desc.MediaType, rec.Raw)
	if err != nil {
		return scan.Report{}, err
	}
	c := contents{left: cmp.Or(s.MaxSize, 8<<30), room: cmp.Or(s.MaxSBOM, 64<<20)}
	for _, layer := range m.Layers {
		if !strings.HasSuffix(layer.MediaType, ".tar") && !strings.HasSuffix(layer.MediaType, "gzip") {
			return scan.Report{Status: scan.StatusUnsupportedImage, Description: "a layer is neither tar nor gzip"}, nil
		}
		err := s.layer(ctx, repo, layer.OCI(), &c)
		if _, bad := errors.AsType[*badLayer](err); bad {
			return scan.Report{Status: scan.StatusUnsupportedImage, Description: err.Error()}, nil
		}
		if err != nil {
			return scan.Report{}, err
		}
	}
	var modules []Module
	for _, b := range c.below {
		modules = append(modules, b.modules...)
	}
	slices.SortFunc(modules, func(a, b Module) int {
		return cmp.Or(strings.Compare(a.Path, b.Path), strings.Compare(a.Version, b.Version), strings.Compare(a.In, b.In))
	})
	sbom, err := spdx(image.Digest, modules)
	if err != nil {
		return scan.Report{}, err
	}
	report := scan.Report{Attachments: []scan.Attachment{{ArtifactType: ArtifactType, Content: sbom}}}
	if s.Advise == nil {
		report.Status, report.Description = scan.StatusFindingsUnavailable, "there is no vulnerability data"
		return report, nil
	}
	for _, m := range modules {
		found, err := s.Advise(ctx, m)
		if err != nil {
			return scan.Report{}, err
		}
		report.Findings = append(report.Findings, found...)
	}
	return report, nil
}

// badLayer is content that this cannot read, whoever tries again.
type badLayer struct{ why string }

func (e *badLayer) Error() string { return e.why }

// contents are the Go binaries of an image so far.
type contents struct {
	below binaries // of the layers below the one that is being unpacked
	layer binaries // of that one, which its whiteouts do not hide
	left  int64    // bytes that may still be unpacked
	room  int64    // bytes that the list may still grow by
}

// binaries are sorted by name.
type binaries []binary

type binary struct {
	name    string
	modules []Module
}

func (b binaries) find(name string) (at int, found bool) {
	return slices.BinarySearchFunc(b, name, func(b binary, name string) int { return strings.Compare(b.name, name) })
}

func (b *binaries) add(one binary) {
	at, _ := b.find(one.name)
	*b = slices.Insert(*b, at, one)
}

// removeFile drops a file, and leaves what is in a folder of that name.
func (b *binaries) removeFile(name string) {
	if at, found := b.find(name); found {
		*b = slices.Delete(*b, at, at+1)
	}
}

// remove drops a file, or all below a folder.
func (b *binaries) remove(name string) {
	b.removeFile(name)
	below := strings.TrimSuffix(name, "/") + "/"
	from, _ := b.find(below)
	to := from
	for to < len(*b) && strings.HasPrefix((*b)[to].name, below) {
		to++
	}
	*b = slices.Delete(*b, from, to)
}

// layer changes c as a layer does: it adds, replaces and removes.
func (s *Scanner) layer(ctx context.Context, repo string, desc ocispec.Descriptor, c *contents) error {
	rc, _, err := s.Blobs.Open(ctx, repo, desc.Digest, 0, -1)
	if errors.Is(err, blob.ErrNotFound) && manifest.IsForeignLayer(desc.MediaType) {
		return &badLayer{"a layer is kept elsewhere"}
	}
	if err != nil {
		return err
	}
	defer rc.Close()
	verified := &faithful{ctx: ctx, r: blob.Verify(rc, desc)}
	content := bufio.NewReader(verified)
	err = s.unpack(content, desc, c)
	if verified.err == nil && err == nil {
		_, err = io.Copy(io.Discard, content) // so that all of it is verified
	}
	return cmp.Or(verified.err, err)
}

// faithful keeps errors of the store, and of ctx, apart from those of what is read.
type faithful struct {
	ctx context.Context
	r   io.Reader
	err error
}

func (f *faithful) Read(p []byte) (int, error) {
	if err := f.ctx.Err(); err != nil {
		f.err = err
		return 0, err
	}
	n, err := f.r.Read(p)
	if err != nil && err != io.EOF {
		f.err = err
	}
	return n, err
}

func (s *Scanner) unpack(content io.Reader, desc ocispec.Descriptor, c *contents) error {
	if strings.HasSuffix(desc.MediaType, "gzip") {
		z, err := gzip.NewReader(content)
		if err != nil {
			return &badLayer{"a layer is no gzip"}
		}
		content = z
	}
	limited := &io.LimitedReader{R: content, N: c.left}
	t := tar.NewReader(limited)
	for {
		head, err := t.Next()
		switch {
		case err != nil && limited.N <= 0: // also where an entry would begin, which looks like the end
			return &badLayer{"the image is too large"}
		case err == io.EOF:
			for _, b := range c.layer {
				c.below.add(b)
			}
			c.layer, c.left = nil, limited.N
			return nil
		case err != nil:
			return &badLayer{"a layer is no tar"}
		}
		name := path.Clean("/" + head.Name)
		dir, base := path.Split(name)
		switch removed, whiteout := strings.CutPrefix(base, ".wh."); {
		case base == ".wh..wh..opq":
			c.below.remove(dir)
		case whiteout && strings.Trim(removed, ".") == "" && len(removed) <= 2: // "", "." and "..", which nothing unpacks
			return &badLayer{"a whiteout names no file"}
		case whiteout:
			c.below.remove(path.Join(dir, removed))
		case head.Typeflag == tar.TypeDir: // takes the place of a file
			c.below.removeFile(name)
			c.layer.removeFile(name)
		default:
			c.below.remove(name)
			c.layer.remove(name)
			if head.Typeflag == tar.TypeReg && head.Mode&0o111 != 0 {
				was := limited.N
				n, err := s.binary(t, head, name, c)
				limited.N -= max(0, n-(was-limited.N)) // holes of a sparse file
				if err != nil {
					return err
				}
			}
		}
	}
}

// binary adds what a Go binary was built from, and returns how much of the file it
// has read. What is no Go binary adds nothing.
func (s *Scanner) binary(r io.Reader, head *tar.Header, name string, c *contents) (n int64, err error) {
	magic := make([]byte, 4)
	if _, err := io.ReadFull(r, magic); err != nil {
		return 0, nil // shorter than any binary; if the tar is broken, the next header tells
	}
	if !isBinary(magic) {
		return 0, nil
	}
	if head.Size > cmp.Or(s.MaxFile, 128<<20) {
		return 0, &badLayer{"a binary is too large"}
	}
	b := bytes.NewBuffer(magic)
	if _, err := io.Copy(b, r); err != nil {
		return 0, nil // the next header tells
	}
	n = int64(b.Len())
	info, err := buildinfo.Read(bytes.NewReader(b.Bytes()))
	if err != nil {
		return n, nil
	}
	found := []Module{{"stdlib", strings.TrimPrefix(info.GoVersion, "go"), name}}
	if info.Main.Path != "" {
		found = append(found, Module{info.Main.Path, info.Main.Version, name})
	}
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		found = append(found, Module{m.Path, m.Version, name})
	}
	for _, m := range found {
		const each = 300 // of an entry without names
		c.room -= int64(each + 2*len(m.Path) + 2*len(m.Version) + len(m.In))
	}
	if c.room < 0 {
		return n, &badLayer{"the image has too many modules"}
	}
	c.layer.add(binary{name, found})
	return n, nil
}

// isBinary tells ELF, PE and Mach-O by their beginning.
func isBinary(magic []byte) bool {
	return string(magic) == "\x7fELF" || string(magic[:2]) == "MZ" || slices.Contains([]string{"\xfe\xed\xfa\xce", "\xfe\xed\xfa\xcf", "\xce\xfa\xed\xfe", "\xcf\xfa\xed\xfe", "\xca\xfe\xba\xbe"}, string(magic))
}

// percent encodes a part of a package URL, where "+" stands for itself in none.
func percent(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }

// spdx writes an SPDX 2.3 document, which is the same for the same image.
func spdx(image digest.Digest, modules []Module) ([]byte, error) {
	type ref struct {
		Category string `json:"referenceCategory"`
		Type     string `json:"referenceType"`
		Locator  string `json:"referenceLocator"`
	}
	type pkg struct {
		ID       string `json:"SPDXID"`
		Name     string `json:"name"`
		Version  string `json:"versionInfo,omitempty"`
		Location string `json:"downloadLocation"`
		Analyzed bool   `json:"filesAnalyzed"`
		Source   string `json:"sourceInfo"`
		Refs     []ref  `json:"externalRefs"`
	}
	type relationship struct {
		From string `json:"spdxElementId"`
		Type string `json:"relationshipType"`
		To   string `json:"relatedSpdxElement"`
	}
	packages, contains := []pkg{}, []relationship{}
	for i, m := range modules {
		id := fmt.Sprint("SPDXRef-", i)
		purl := "pkg:golang/" + strings.ReplaceAll(percent(m.Path), "%2F", "/")
		if m.Version != "" {
			purl += "@" + percent(m.Version)
		}
		packages = append(packages, pkg{id, m.Path, m.Version, "NOASSERTION", false, "build information of " + m.In, []ref{{"PACKAGE-MANAGER", "purl", purl}}})
		contains = append(contains, relationship{"SPDXRef-DOCUMENT", "DESCRIBES", id})
	}
	return json.Marshal(map[string]any{
		"spdxVersion": "SPDX-2.3", "dataLicense": "CC0-1.0", "SPDXID": "SPDXRef-DOCUMENT", "name": string(image),
		"documentNamespace": "https://example.com/spdx/" + strings.ReplaceAll(string(image), ":", "-"),
		// Not the time of the scan: equal images have equal documents.
		"creationInfo": map[string]any{"created": "1970-01-01T00:00:00Z", "creators": []string{"Tool: wharfage-sbomscan"}},
		"packages":     packages, "relationships": contains,
	})
}
