package referrers

import (
	"cmp"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/manifest"
)

// Kind is what an artifact is for, as people sort them.
type Kind string

// Kinds.
const (
	KindImage       Kind = "image"
	KindIndex       Kind = "index"
	KindSignature   Kind = "signature"
	KindAttestation Kind = "attestation"
	KindSBOM        Kind = "sbom"
	KindReport      Kind = "report" // scan results, VEX
	KindChart       Kind = "chart"
	KindPolicy      Kind = "policy"
	KindModule      Kind = "module" // WebAssembly
	KindOther       Kind = "other"
)

// Recognize returns what people call the manifest that desc describes, and its
// kind. It looks at the artifact type, at annotations of Sigstore bundles, and
// at the media type if there is no artifact type. A type that it does not know is its own
// name, of KindOther.
func Recognize(desc ocispec.Descriptor) (name string, kind Kind) {
	typ, _, _ := strings.Cut(desc.ArtifactType, ";") // early sigstore bundles have a parameter
	typ = strings.TrimSpace(typ)
	if strings.HasPrefix(typ, "application/vnd.dev.sigstore.bundle") {
		return bundle(desc.Annotations)
	}
	if known, ok := artifactTypes[typ]; ok {
		return known.name, known.kind
	}
	for _, p := range artifactPrefixes {
		if strings.HasPrefix(typ, p.prefix) {
			return p.name, p.kind
		}
	}
	if typ != "" {
		return desc.ArtifactType, KindOther
	}
	switch manifest.KindOf(desc.MediaType) {
	case manifest.KindIndex:
		return "Image index", KindIndex
	case manifest.KindImage, manifest.KindSchema1:
		return "Image", KindImage
	}
	return cmp.Or(desc.MediaType, "unknown"), KindOther
}

type recognized struct {
	name string
	kind Kind
}

// artifactTypes are those that their projects document, and config media types
// that stand for one.
var artifactTypes = map[string]recognized{
	ocispec.MediaTypeImageConfig:                                    {"Image", KindImage},
	"application/vnd.docker.container.image.v1+json":                {"Image", KindImage},
	"application/vnd.dev.cosign.artifact.sig.v1+json":               {"Cosign signature", KindSignature},
	"application/vnd.dev.cosign.simplesigning.v1+json":              {"Cosign signature", KindSignature},
	"application/vnd.dev.cosign.artifact.att.v1+json":               {"Cosign attestation", KindAttestation},
	"application/vnd.dev.cosign.artifact.sbom.v1+json":              {"Cosign SBOM", KindSBOM},
	"application/vnd.cncf.notary.signature":                         {"Notation signature", KindSignature},
	"application/vnd.dsse.envelope.v1+json":                         {"DSSE envelope", KindAttestation},
	"application/vnd.docker.attestation.manifest.v1+json":           {"BuildKit attestation", KindAttestation},
	"application/spdx+json":                                         {"SPDX SBOM", KindSBOM},
	"text/spdx":                                                     {"SPDX SBOM", KindSBOM},
	"text/spdx+json":                                                {"SPDX SBOM", KindSBOM},
	"application/vnd.syft+json":                                     {"Syft SBOM", KindSBOM},
	"application/sarif+json":                                        {"SARIF scan report", KindReport},
	"application/vnd.wharfage.scan.v1+json":                         {"Scan findings", KindReport},
	"application/vnd.openvex+json":                                  {"OpenVEX", KindReport},
	"application/openvex+json":                                      {"OpenVEX", KindReport},
	"application/vnd.cncf.helm.config.v1+json":                      {"Helm chart", KindChart},
	"application/vnd.cncf.flux.config.v1+json":                      {"Flux artifact", KindOther},
	"application/vnd.amazon.soci.index.v1+json":                     {"SOCI index", KindOther},
	"application/vnd.sylabs.sif.config.v1+json":                     {"Singularity image", KindImage},
	"application/wasm":                                              {"WebAssembly module", KindModule},
	"application/vnd.bytecodealliance.wasm.component.layer.v0+wasm": {"WebAssembly component", KindModule},
	"application/vnd.cncf.kyverno.config.v1+json":                   {"Kyverno policy", KindPolicy},
	manifest.MediaTypeEmpty:                                         {"Artifact without a type", KindOther},
	"application/vnd.unknown.artifact.v1":                           {"ORAS artifact without a type", KindOther},
	"application/vnd.unknown.config.v1+json":                        {"ORAS artifact without a type", KindOther},
}

// artifactPrefixes are families with a type for each version.
var artifactPrefixes = []struct {
	prefix string
	recognized
}{
	{"application/vnd.in-toto", recognized{"in-toto attestation", KindAttestation}},
	{"application/vnd.cyclonedx", recognized{"CycloneDX SBOM", KindSBOM}},
	{"application/vnd.cncf.openpolicyagent.", recognized{"OPA bundle", KindPolicy}},
	{"application/vnd.wasm.", recognized{"WebAssembly module", KindModule}},
	{"application/vnd.module.wasm.", recognized{"WebAssembly module", KindModule}},
}

// bundle names a Sigstore bundle by its annotations, as all have one type.
func bundle(annotations map[string]string) (string, Kind) {
	predicate := annotations["dev.sigstore.bundle.predicateType"]
	for _, p := range predicates {
		if strings.HasPrefix(predicate, p.prefix) {
			return p.name, p.kind
		}
	}
	switch {
	case predicate != "":
		return "Sigstore attestation: " + predicate, KindAttestation
	case annotations["dev.sigstore.bundle.content"] == "message-signature":
		return "Sigstore signature", KindSignature
	case annotations["dev.sigstore.bundle.content"] == "dsse-envelope":
		return "Sigstore attestation", KindAttestation
	}
	return "Sigstore bundle", KindSignature
}

// predicates are types of in-toto statements.
var predicates = []struct {
	prefix string
	recognized
}{
	{"https://sigstore.dev/cosign/sign/", recognized{"Cosign signature (bundle)", KindSignature}},
	{"https://slsa.dev/provenance/", recognized{"SLSA provenance (bundle)", KindAttestation}},
	{"https://slsa.dev/verification_summary/", recognized{"SLSA verification summary (bundle)", KindAttestation}},
	{"https://spdx.dev/Document", recognized{"SPDX SBOM attestation (bundle)", KindSBOM}},
	{"https://cyclonedx.org/bom", recognized{"CycloneDX SBOM attestation (bundle)", KindSBOM}},
	{"https://cosign.sigstore.dev/attestation/vuln/", recognized{"Scan report attestation (bundle)", KindReport}},
	{"https://openvex.dev/ns", recognized{"OpenVEX attestation (bundle)", KindReport}},
	{"https://in-toto.io/attestation/release", recognized{"Release attestation (bundle)", KindAttestation}},
}

// recognize says what is known of a step's manifest, by what its index says too.
func (s Step) recognize() (name string, kind Kind) {
	switch {
	case s.State == StateMissing || s.ArtifactType == "" && s.MediaType == "":
		return "", KindOther
	case s.role == "attestation-manifest": // images by their types
		return "BuildKit attestation", KindAttestation
	}
	return Recognize(s.Descriptor)
}
