package referrers_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"iter"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/referrers"
)

// hostile are texts that mean something in one of the formats, to a terminal,
// or to the order in which text is shown.
var hostile = []string{
	`"`, `\`, `\"`, `\N`, `\n\l`, "line\nline", "\r", "\t", "\x00", "\x1b[31mred\x1b]0;title\x07", "\u009b31m", "\xff\xfe", "\xed\xa0\x80",
	"</script><script>alert(1)</script>", "</svg>", "<!--", "]]>", "&amp;&#x3c;", "javascript:alert(1)", `" onload="alert(1)`, "' onload='alert(1)",
	"\u202egnp.exe", "\u2066\u2067\u2069", "\u200b\u200e\ufeff", "\u2028\u2029", "שלום עולם", "مرحبا (a) b",
	"\"]; click n0 callback", "`**bold**`", "1. list", "#quot;", "end", "%%{init: {}}%%", "];\n n9[x", "<b>", strings.Repeat("長", 500), strings.Repeat("x", 5000), "e\u0301\u0301",
}

// hostileSteps are a walk of manifests that carry such text wherever they can.
func hostileSteps(text string) iter.Seq2[referrers.Step, error] {
	return func(yield func(referrers.Step, error) bool) {
		desc := ocispec.Descriptor{MediaType: text, Digest: digest.Digest("sha256:" + text), ArtifactType: text, Annotations: map[string]string{text: text, "dev.sigstore.bundle.predicateType": text}, Platform: &ocispec.Platform{OS: text, Architecture: text, Variant: text, OSVersion: text}}
		root := desc
		root.Digest = name(1)
		bundled := desc
		bundled.Digest, bundled.ArtifactType = name(2), bundle
		for _, s := range []referrers.Step{
			{Descriptor: root, Tags: []string{text, text}, Next: 2},
			{Descriptor: desc, From: name(1), Edge: referrers.EdgeChild, Depth: 1, Next: 1},
			{Descriptor: desc, From: desc.Digest, Edge: referrers.EdgeReferrer, Depth: 2, State: referrers.StateCycle},
			{Descriptor: bundled, From: name(1), Edge: referrers.EdgeReferrer, Depth: 1},
			{Descriptor: ocispec.Descriptor{Digest: name(3)}, From: name(1), Edge: referrers.EdgeReferrer, Depth: 1, State: referrers.StateMissing},
		} {
			if !yield(s, nil) {
				return
			}
		}
		yield(referrers.Step{}, errors.New(text))
	}
}

func hostileExport(text string) referrers.Export {
	return referrers.Export{
		Name: text, Annotations: true,
		Note: func(referrers.Step) string { return text },
		Link: func(d digest.Digest) string { return "/" + string(d) + text },
	}
}

// checkers read each format, and fail when a text has got out of its place.
var checkers = map[string]func(t *testing.T, text, got string){
	"Tree": func(t *testing.T, text, got string) {
		plain(t, got)
		// The lines do not depend on what stands in them.
		if n, want := strings.Count(got, "\n"), 21; n != want {
			t.Errorf("%d lines, want %d:\n%s", n, want, got)
		}
	},
	"JSON": func(t *testing.T, text, got string) {
		var doc struct {
			Steps []referrers.Step
			Error string
		}
		if err := json.Unmarshal([]byte(got), &doc); err != nil || len(doc.Steps) != 5 || doc.Error != strings.ToValidUTF8(text, "�") && utf8.ValidString(text) {
			t.Errorf("%v: %s", err, got)
		}
		if utf8.ValidString(text) && doc.Steps[0].ArtifactType != text {
			t.Errorf("%q became %q", text, doc.Steps[0].ArtifactType)
		}
		if strings.ContainsAny(got, "<>\u2028\u2029") {
			t.Error("it cannot stand in a page")
		}
	},
	"DOT": func(t *testing.T, text, got string) {
		plain(t, got)
		quoted := regexp.MustCompile(`"(\\["\\n]|[^"\\])*"`)
		rest := quoted.ReplaceAllString(got, "Q")
		if !dotLines.MatchString(rest) {
			t.Errorf("what is not quoted is\n%s", rest)
		}
	},
	"Mermaid": func(t *testing.T, text, got string) {
		plain(t, got)
		for line := range strings.Lines(got) {
			if !mermaidLine.MatchString(line) {
				t.Errorf("the line %q", line)
			}
		}
	},
	"SVG": func(t *testing.T, text, got string) {
		plain(t, got)
		if strings.Contains(got, `role="img"`) && strings.Contains(got, "<a ") {
			t.Error("it hides its links from who does not see them")
		}
		d := xml.NewDecoder(strings.NewReader(got))
		for {
			token, err := d.Token()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatalf("%v\n%s", err, got)
			}
			start, ok := token.(xml.StartElement)
			if !ok {
				continue
			}
			if !strings.Contains(" svg title rect path text g a ", " "+start.Name.Local+" ") {
				t.Errorf("the element %s", start.Name.Local)
			}
			for _, a := range start.Attr {
				if strings.HasPrefix(a.Name.Local, "on") || a.Name.Local == "style" || a.Name.Local == "href" && !strings.HasPrefix(a.Value, "/") && !strings.HasPrefix(a.Value, "#") {
					t.Errorf("the attribute %s=%q", a.Name.Local, a.Value)
				}
			}
		}
	},
}

var (
	dotLines    = regexp.MustCompile(`^digraph referrers \{\n(\t(rankdir=LR|node \[[\w= ]*\]|edge \[[\w= ]*\]|Q( -> Q)?( \[[\w= ]*\])?|incomplete \[[\w= ]*\])\n)*\}\n$`)
	mermaidLine = regexp.MustCompile(`^(flowchart LR|  (n\d+|incomplete)\["([a-zA-Z0-9 :./+,-]|#\d+;|<br/>)*"\](:::\w+)?|  n\d+ (-->|-\.-) n\d+|  classDef \w+ [\w:,# -]*)\n$`)
)

// plain checks that nothing controls a terminal or turns the text around it.
func plain(t *testing.T, got string) {
	t.Helper()
	if !utf8.ValidString(got) {
		t.Error("it is no UTF-8")
	}
	open := 0
	for _, r := range got {
		switch {
		case r == '\t' && strings.HasPrefix(got, "digraph"): // its own
		case r == '\n':
			if open != 0 {
				t.Error("an isolate is open at the end of a line")
			}
		case r == '\u2068':
			open++
		case r == '\u2069':
			open--
		case r < ' ' || r >= 0x7f && r < 0xa0 || r >= '\u200b' && r <= '\u200f' || r >= '\u2028' && r <= '\u202e' || r == '\ufeff' || r >= '\u2066' && r <= '\u2067':
			t.Errorf("it has %U", r)
		}
	}
	if open != 0 {
		t.Error("an isolate is open")
	}
}

func TestFormatsEscape(t *testing.T) {
	for i, text := range hostile {
		for format := range checkers {
			t.Run(fmt.Sprint(format, i), func(t *testing.T) { checkFormat(t, format, text) })
		}
	}
}

func checkFormat(t *testing.T, format, text string) {
	var b bytes.Buffer
	if err := writers(hostileExport(text))[format](&b, hostileSteps(text)); err == nil || err.Error() != text {
		t.Errorf("the error of the walk became %v", err)
	}
	checkers[format](t, text, b.String())
}

func FuzzFormats(f *testing.F) {
	for _, text := range hostile {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if text == "" {
			t.Skip("says nothing")
		}
		for format := range checkers {
			checkFormat(t, format, text)
		}
	})
}

func TestFormatsOfNothing(t *testing.T) {
	nothing := func(func(referrers.Step, error) bool) {}
	failed := func(yield func(referrers.Step, error) bool) { yield(referrers.Step{}, manifest.ErrNotFound) }
	for format, write := range writers(referrers.Export{}) {
		var b bytes.Buffer
		if err := write(&b, nothing); err != nil {
			t.Errorf("%s: %v", format, err)
		}
		b.Reset()
		if err := write(&b, failed); err != manifest.ErrNotFound || !strings.Contains(b.String(), "not found") {
			t.Errorf("%s of a walk that fails: %v, %s", format, err, &b)
		}
	}
}

// broken fails after some bytes.
type broken struct{ left int }

func (w *broken) Write(p []byte) (int, error) {
	if w.left -= len(p); w.left < 0 {
		return 0, io.ErrClosedPipe
	}
	return len(p), nil
}

func TestAFailedWriteEndsTheWalk(t *testing.T) {
	for format, write := range writers(referrers.Export{MaxDrawn: 50_000}) {
		n := 0
		steps := func(yield func(referrers.Step, error) bool) {
			for n = range 20_000 {
				if !yield(referrers.Step{Descriptor: ocispec.Descriptor{Digest: name(n)}, Depth: min(n, 1), From: name(0), Edge: referrers.EdgeChild}, nil) {
					return
				}
			}
		}
		if err := write(&broken{100_000}, steps); err != io.ErrClosedPipe {
			t.Errorf("%s: %v", format, err)
		}
		if format != "SVG" && n > 10_000 {
			t.Errorf("%s has walked on to %d", format, n)
		}
	}
}

func TestThePictureIsLimited(t *testing.T) {
	recs := []manifest.Record{bare(0, "")}
	for i := range 100 {
		recs = append(recs, bare(i+1, name(0)))
	}
	g := &referrers.Graph{Repo: "repo", Manifests: fill(t, recs...)}
	var b bytes.Buffer
	var limit *referrers.LimitError
	err := referrers.Export{MaxDrawn: 10}.SVG(&b, g.Walk(t.Context(), name(0)))
	if !errors.As(err, &limit) || limit.Limit != "MaxDrawn" || limit.Max != 10 || limit.At != name(0) {
		t.Error(err)
	}
	if n := strings.Count(b.String(), "<g "); n != 10 || !strings.Contains(b.String(), "Incomplete") {
		t.Errorf("%d are drawn", n)
	}
}

// What was written before a limit is right, and each format says that more is missing.
func TestFormatsSayThatTheyAreIncomplete(t *testing.T) {
	s, index, _ := signed()
	g := &referrers.Graph{Repo: "team/app", Manifests: s, MaxSteps: 5}
	for format, write := range writers(referrers.Export{}) {
		var b bytes.Buffer
		if err := write(&b, g.Walk(t.Context(), index.Digest)); !errors.Is(err, manifest.ErrBudget) {
			t.Errorf("%s: %v", format, err)
		}
		if !strings.Contains(b.String(), "MaxSteps") {
			t.Errorf("%s does not say that it is incomplete:\n%s", format, &b)
		}
	}
}

func TestTreeOfAnnotations(t *testing.T) {
	s, index, _ := signed()
	g := &referrers.Graph{Repo: "team/app", Manifests: s, Filter: referrers.Filter{ArtifactTypes: []string{bundle}}, Depth: 1}
	var b bytes.Buffer
	if err := (referrers.Export{Annotations: true}).Tree(&b, g.Walk(t.Context(), index.Digest)); err != nil {
		t.Fatal(err)
	}
	if want := "    └── sha256:b40a39bc580f0d690a3f013a83f56f2520c5ee31e389d9b97012d9c0c2857179 SLSA provenance (bundle)\n" +
		"        └── [annotations]\n" +
		"            └── dev.sigstore.bundle.predicateType: https://slsa.dev/provenance/v1\n"; !strings.HasSuffix(b.String(), want) {
		t.Errorf("the tree is\n%s", &b)
	}
}

func TestStepsMayBeLeftOut(t *testing.T) {
	s, index, _ := signed()
	steps := collect(t, (&referrers.Graph{Repo: "team/app", Manifests: s}).Walk(t.Context(), index.Digest))
	for left := range 1 << len(steps) {
		some := func(yield func(referrers.Step, error) bool) {
			for i, s := range steps {
				if left>>i&1 == 1 && !yield(s, nil) {
					return
				}
			}
		}
		for format, write := range writers(referrers.Export{}) {
			if err := write(io.Discard, some); err != nil {
				t.Errorf("%s: %v", format, err)
			}
		}
	}
}

func TestRecognize(t *testing.T) {
	for _, tt := range []struct {
		desc ocispec.Descriptor
		name string
		kind referrers.Kind
	}{
		{ocispec.Descriptor{MediaType: manifest.MediaTypeIndex}, "Image index", referrers.KindIndex},
		{ocispec.Descriptor{MediaType: manifest.MediaTypeDockerList}, "Image index", referrers.KindIndex},
		{ocispec.Descriptor{MediaType: manifest.MediaTypeImage, ArtifactType: ocispec.MediaTypeImageConfig}, "Image", referrers.KindImage},
		{ocispec.Descriptor{MediaType: manifest.MediaTypeDockerManifest, ArtifactType: "application/vnd.docker.container.image.v1+json"}, "Image", referrers.KindImage},
		{ocispec.Descriptor{ArtifactType: "application/vnd.dev.cosign.artifact.sig.v1+json"}, "Cosign signature", referrers.KindSignature},
		{ocispec.Descriptor{ArtifactType: "application/vnd.dev.cosign.artifact.att.v1+json"}, "Cosign attestation", referrers.KindAttestation},
		{ocispec.Descriptor{ArtifactType: "application/vnd.dev.sigstore.bundle+json;version=0.2"}, "Sigstore bundle", referrers.KindSignature},
		{ocispec.Descriptor{ArtifactType: bundle, Annotations: map[string]string{"dev.sigstore.bundle.content": "message-signature"}}, "Sigstore signature", referrers.KindSignature},
		{ocispec.Descriptor{ArtifactType: bundle, Annotations: map[string]string{predicate: "https://example.com/x"}}, "Sigstore attestation: https://example.com/x", referrers.KindAttestation},
		{ocispec.Descriptor{ArtifactType: bundle, Annotations: map[string]string{predicate: "https://spdx.dev/Document/v2.3"}}, "SPDX SBOM attestation (bundle)", referrers.KindSBOM},
		{ocispec.Descriptor{ArtifactType: notation}, "Notation signature", referrers.KindSignature},
		{ocispec.Descriptor{ArtifactType: "application/vnd.in-toto+json"}, "in-toto attestation", referrers.KindAttestation},
		{ocispec.Descriptor{ArtifactType: spdx}, "SPDX SBOM", referrers.KindSBOM},
		{ocispec.Descriptor{ArtifactType: "application/vnd.cyclonedx+xml"}, "CycloneDX SBOM", referrers.KindSBOM},
		{ocispec.Descriptor{ArtifactType: "application/vnd.cncf.helm.config.v1+json"}, "Helm chart", referrers.KindChart},
		{ocispec.Descriptor{ArtifactType: "application/vnd.cncf.openpolicyagent.config.v1+json"}, "OPA bundle", referrers.KindPolicy},
		{ocispec.Descriptor{ArtifactType: "application/vnd.wasm.config.v0+json"}, "WebAssembly module", referrers.KindModule},
		{ocispec.Descriptor{ArtifactType: "application/vnd.example.own; a=b"}, "application/vnd.example.own; a=b", referrers.KindOther},
		{ocispec.Descriptor{}, "unknown", referrers.KindOther},
	} {
		if name, kind := referrers.Recognize(tt.desc); name != tt.name || kind != tt.kind {
			t.Errorf("Recognize(%+v) = %s, %s; want %s, %s", tt.desc, name, kind, tt.name, tt.kind)
		}
	}
}
