package referrers_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/manifest/memmanifest"
	"github.com/wharfage/wharfage/referrers"
)

// shelf fills a repository for the examples.
type shelf struct{ *memmanifest.Store }

func (s shelf) put(raw []byte, desc ocispec.Descriptor, err error) ocispec.Descriptor {
	if err != nil {
		panic(err)
	}
	m, err := manifest.Parse(desc.MediaType, raw)
	if err != nil {
		panic(err)
	}
	if err := s.Apply(context.Background(), "team/app", manifest.Change{Put: []manifest.Record{m.Record(desc.Digest, raw)}}); err != nil {
		panic(err)
	}
	return desc
}

func (s shelf) tag(name string, desc ocispec.Descriptor) {
	if err := s.Apply(context.Background(), "team/app", manifest.Change{Tags: []manifest.TagMove{{Name: name, To: desc.Digest}}}); err != nil {
		panic(err)
	}
}

func (s shelf) image(arch string) ocispec.Descriptor {
	config := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: digest.FromString(arch), Size: 1}
	desc := s.put(manifest.ImageDraft{Config: &config, Layers: []ocispec.Descriptor{{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: digest.FromString("layer " + arch), Size: 1}}}.Build())
	desc.ArtifactType = ""
	desc.Platform = &ocispec.Platform{OS: "linux", Architecture: arch}
	return desc
}

func (s shelf) attach(artifactType string, subject ocispec.Descriptor, annotations ...string) ocispec.Descriptor {
	subject.Platform = nil
	d := manifest.ImageDraft{ArtifactType: artifactType, Subject: &subject}
	for i := 0; i < len(annotations); i += 2 {
		if d.Annotations == nil {
			d.Annotations = map[string]string{}
		}
		d.Annotations[annotations[i]] = annotations[i+1]
	}
	return s.put(d.Build())
}

const (
	spdx      = "application/spdx+json"
	notation  = "application/vnd.cncf.notary.signature"
	bundle    = "application/vnd.dev.sigstore.bundle.v0.3+json"
	predicate = "dev.sigstore.bundle.predicateType"
)

// signed is an index of two platforms with an SBOM for one, signatures of the
// index and the SBOM, and provenance.
func signed() (s shelf, index, sbom ocispec.Descriptor) {
	s = shelf{new(memmanifest.Store)}
	amd64, arm64 := s.image("amd64"), s.image("arm64")
	index = s.put(manifest.IndexDraft{Manifests: []ocispec.Descriptor{amd64, arm64}}.Build())
	sbom = s.attach(spdx, amd64)
	s.attach(notation, sbom)
	s.attach(bundle, index, predicate, "https://sigstore.dev/cosign/sign/v1")
	s.attach(bundle, index, predicate, "https://slsa.dev/provenance/v1")
	s.tag("v1", index)
	return s, index, sbom
}

func ExampleExport_Tree() {
	store, index, _ := signed()
	g := &referrers.Graph{Repo: "team/app", Manifests: store, Tags: true}
	err := referrers.Export{Name: "team/app"}.Tree(os.Stdout, g.Walk(context.Background(), index.Digest))
	if err != nil {
		fmt.Println(err)
	}
	// Output:
	// team/app@sha256:993d8dea122713ea04ec09657d4ab295e015e26671e06547211c7569a46c8bca Image index [v1]
	// ├── sha256:49e33a053d7e32642fea393897ef6bc102c5979fe61a5d8ffb002d4d078a0daa Image linux/amd64
	// │   └── application/spdx+json (SPDX SBOM)
	// │       └── sha256:4d2662da3d91035e3cb213e96a6acd551bb30abe3d2256f6e5c8859d4aa08c3e
	// │           └── application/vnd.cncf.notary.signature (Notation signature)
	// │               └── sha256:e54d0813f5fd63a876980ee5149c8aa3114c69070cb6307211e00c4cae061649
	// ├── sha256:2198abab355b4ef480ac69ee16fae769dd68cb59d8f07986aa377a65cc3ab015 Image linux/arm64
	// └── application/vnd.dev.sigstore.bundle.v0.3+json (Sigstore bundle)
	//     ├── sha256:236f10dea382b813fc05cd7e8fddf60932e52926aceb157660085c47845be743 Cosign signature (bundle)
	//     └── sha256:b40a39bc580f0d690a3f013a83f56f2520c5ee31e389d9b97012d9c0c2857179 SLSA provenance (bundle)
}

func ExampleGraph_Walk() {
	store, index, _ := signed()
	g := &referrers.Graph{Repo: "team/app", Manifests: store}
	for step, err := range g.Walk(context.Background(), index.Digest) {
		if err != nil {
			fmt.Println(err)
			break
		}
		name, _ := referrers.Recognize(step.Descriptor)
		fmt.Printf("%d %-8s %s\n", step.Depth, step.Edge, name)
	}
	// Output:
	// 0          Image index
	// 1 child    Image
	// 2 referrer SPDX SBOM
	// 3 referrer Notation signature
	// 1 child    Image
	// 1 referrer Cosign signature (bundle)
	// 1 referrer SLSA provenance (bundle)
}

func ExampleGraph_Up() {
	store, _, sbom := signed()
	g := &referrers.Graph{Repo: "team/app", Manifests: store}
	for step, err := range g.Up(context.Background(), sbom.Digest) {
		if err != nil {
			fmt.Println(err)
			break
		}
		name, _ := referrers.Recognize(step.Descriptor)
		fmt.Printf("%d %-8s %s\n", step.Depth, step.Edge, name)
	}
	// Output:
	// 0          SPDX SBOM
	// 1 subject  Image
	// 2 parent   Image index
}

func ExampleGraph_Roots() {
	store, _, sbom := signed()
	g := &referrers.Graph{Repo: "team/app", Manifests: store, Tags: true}
	roots, err := g.Roots(context.Background(), sbom.Digest)
	fmt.Println(len(roots), roots[0].Tags, err)
	// Output:
	// 1 [v1] <nil>
}

func ExampleGraph_Cascade() {
	store, index, _ := signed()
	g := &referrers.Graph{Repo: "team/app", Manifests: store}
	fates, err := g.Cascade(context.Background(), []digest.Digest{index.Digest}, referrers.CascadeOptions{Children: true})
	if err != nil {
		fmt.Println(err)
	}
	for _, f := range fates {
		name, _ := referrers.Recognize(f.Descriptor)
		fmt.Println(name, f)
	}
	// Output:
	// Image index goes
	// Image goes with its index
	// SPDX SBOM goes with its subject
	// Notation signature goes with its subject
	// Image goes with its index
	// Cosign signature (bundle) goes with its subject
	// SLSA provenance (bundle) goes with its subject
}

func ExampleFilter() {
	store, index, _ := signed()
	g := &referrers.Graph{Repo: "team/app", Manifests: store, Filter: referrers.Filter{
		ArtifactTypes: []string{bundle},
		Annotations:   map[string]string{predicate: "https://slsa.dev/provenance/v1"},
	}}
	for step, err := range g.Walk(context.Background(), index.Digest) {
		if err == nil && step.Edge == referrers.EdgeReferrer {
			fmt.Println(referrers.Recognize(step.Descriptor))
		}
	}
	// Output:
	// SLSA provenance (bundle) attestation
}

func ExampleRecognize() {
	for _, typ := range []string{notation, "application/vnd.cyclonedx+json", "application/vnd.example.theirs"} {
		fmt.Println(referrers.Recognize(ocispec.Descriptor{ArtifactType: typ}))
	}
	// Output:
	// Notation signature signature
	// CycloneDX SBOM sbom
	// application/vnd.example.theirs other
}

func ExampleSnapshot() {
	store, _, sbom := signed()
	index, err := referrers.Snapshot(context.Background(), store, "team/app")
	if err != nil {
		fmt.Println(err)
	}
	for desc, err := range index.Referrers(context.Background(), "team/app", sbom.Digest, "", "") {
		fmt.Println(desc.ArtifactType, err)
	}
	// Output:
	// application/vnd.cncf.notary.signature <nil>
}

func ExampleExport_JSON() {
	store, _, sbom := signed()
	g := &referrers.Graph{Repo: "team/app", Manifests: store}
	err := referrers.Export{}.JSON(os.Stdout, g.Walk(context.Background(), sbom.Digest))
	if err != nil {
		fmt.Println(err)
	}
	// Output:
	// {"steps":[
	// {"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:4d2662da3d91035e3cb213e96a6acd551bb30abe3d2256f6e5c8859d4aa08c3e","size":582,"artifactType":"application/spdx+json","depth":0,"next":1,"subject":"sha256:49e33a053d7e32642fea393897ef6bc102c5979fe61a5d8ffb002d4d078a0daa","name":"SPDX SBOM","kind":"sbom"},
	// {"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:e54d0813f5fd63a876980ee5149c8aa3114c69070cb6307211e00c4cae061649","size":637,"artifactType":"application/vnd.cncf.notary.signature","from":"sha256:4d2662da3d91035e3cb213e96a6acd551bb30abe3d2256f6e5c8859d4aa08c3e","edge":"referrer","depth":1,"subject":"sha256:4d2662da3d91035e3cb213e96a6acd551bb30abe3d2256f6e5c8859d4aa08c3e","name":"Notation signature","kind":"signature"}
	// ]}
}

func ExampleExport_DOT() {
	store, _, sbom := signed()
	g := &referrers.Graph{Repo: "team/app", Manifests: store}
	err := referrers.Export{}.DOT(os.Stdout, g.Walk(context.Background(), sbom.Digest))
	if err != nil {
		fmt.Println(err)
	}
	// Output:
	// digraph referrers {
	// 	rankdir=LR
	// 	node [shape=box style="rounded,filled" fontname="sans-serif" fontsize=11]
	// 	edge [color="#57606a"]
	// 	"sha256:4d2662da3d91035e3cb213e96a6acd551bb30abe3d2256f6e5c8859d4aa08c3e" [label="SPDX SBOM\nsha256:4d2662da3d91" tooltip="sha256:4d2662da3d91035e3cb213e96a6acd551bb30abe3d2256f6e5c8859d4aa08c3e" fillcolor="#fff8c5" color="#9a6700"]
	// 	"sha256:e54d0813f5fd63a876980ee5149c8aa3114c69070cb6307211e00c4cae061649" [label="Notation signature\nsha256:e54d0813f5fd" tooltip="sha256:e54d0813f5fd63a876980ee5149c8aa3114c69070cb6307211e00c4cae061649" fillcolor="#dafbe1" color="#1a7f37"]
	// 	"sha256:4d2662da3d91035e3cb213e96a6acd551bb30abe3d2256f6e5c8859d4aa08c3e" -> "sha256:e54d0813f5fd63a876980ee5149c8aa3114c69070cb6307211e00c4cae061649" [dir=back style=dashed]
	// }
}

func ExampleExport_Mermaid() {
	store, index, _ := signed()
	g := &referrers.Graph{Repo: "team/app", Manifests: store, Tags: true}
	err := referrers.Export{}.Mermaid(os.Stdout, g.Walk(context.Background(), index.Digest))
	if err != nil {
		fmt.Println(err)
	}
	// Output:
	// flowchart LR
	//   n0["Image index<br/>sha256:993d8dea1227<br/>#91;v1#93;"]:::index
	//   n1["Image linux/amd64<br/>sha256:49e33a053d7e"]:::image
	//   n0 --> n1
	//   n2["SPDX SBOM<br/>sha256:4d2662da3d91"]:::sbom
	//   n1 -.- n2
	//   n3["Notation signature<br/>sha256:e54d0813f5fd"]:::signature
	//   n2 -.- n3
	//   n4["Image linux/arm64<br/>sha256:2198abab355b"]:::image
	//   n0 --> n4
	//   n5["Cosign signature #40;bundle#41;<br/>sha256:236f10dea382"]:::signature
	//   n0 -.- n5
	//   n6["SLSA provenance #40;bundle#41;<br/>sha256:b40a39bc580f"]:::attestation
	//   n0 -.- n6
	//   classDef attestation fill:#fbefff,stroke:#8250df,color:#1f2328
	//   classDef image fill:#ddf4ff,stroke:#0969da,color:#1f2328
	//   classDef index fill:#eaeef2,stroke:#424a53,color:#1f2328
	//   classDef sbom fill:#fff8c5,stroke:#9a6700,color:#1f2328
	//   classDef signature fill:#dafbe1,stroke:#1a7f37,color:#1f2328
}

func ExampleExport_SVG() {
	store, index, _ := signed()
	g := &referrers.Graph{Repo: "team/app", Manifests: store}
	var picture bytes.Buffer
	err := referrers.Export{Name: "team/app:v1"}.SVG(&picture, g.Walk(context.Background(), index.Digest))
	fmt.Println(strings.Count(picture.String(), "<rect")-1, "manifests, on a background", err)
	// Output:
	// 7 manifests, on a background <nil>
}

func ExampleCheck() {
	store, _, _ := signed()
	n := 0
	for difference, err := range referrers.Check(context.Background(), store, store, "team/app") {
		fmt.Println(difference, err)
		n++
	}
	fmt.Println(n, "differences")
	// Output: 0 differences
}
