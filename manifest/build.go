package manifest

import (
	"bytes"
	"encoding/json"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

var emptyContent = []byte("{}")

// Empty returns the descriptor of the empty JSON object, and its content, which
// stands where a manifest must name a config or a layer and has none
// (image-spec manifest.md, "Guidance for an Empty Descriptor").
func Empty() (ocispec.Descriptor, []byte) {
	return ocispec.Descriptor{MediaType: MediaTypeEmpty, Digest: digest.FromBytes(emptyContent), Size: int64(len(emptyContent))},
		bytes.Clone(emptyContent)
}

// ImageDraft is an OCI image manifest to be written: of an image, or of an
// artifact by the decision tree of image-spec's "Guidelines for Artifact
// Usage":
//
//   - No files: set ArtifactType, leave out Config and Layers. Both become the
//     empty descriptor; what there is to say is in Annotations.
//   - Files, no configuration: set ArtifactType and Layers.
//   - Files and configuration: set Config and Layers, and ArtifactType unless
//     the config's media type is to stand for it.
type ImageDraft struct {
	ArtifactType string
	Config       *ocispec.Descriptor // nil means the empty descriptor
	Layers       []ocispec.Descriptor
	Subject      *ocispec.Descriptor
	Annotations  map[string]string
}

// IndexDraft is an OCI image index to be written.
type IndexDraft struct {
	ArtifactType string
	Manifests    []ocispec.Descriptor
	Subject      *ocispec.Descriptor
	Annotations  map[string]string
}

// Build returns the document and its descriptor, under sha256. Equal drafts
// give equal bytes. What Parse would refuse or warn of is an *[InvalidError].
func (d ImageDraft) Build() (raw []byte, desc ocispec.Descriptor, err error) {
	empty, _ := Empty()
	config := empty
	if d.Config != nil {
		config = *d.Config
	}
	layers := d.Layers
	if len(layers) == 0 {
		layers = []ocispec.Descriptor{empty}
	}
	return build(MediaTypeImage, ocispec.Manifest{
		Versioned:    specs.Versioned{SchemaVersion: 2},
		MediaType:    MediaTypeImage,
		ArtifactType: d.ArtifactType,
		Config:       config,
		Layers:       layers,
		Subject:      d.Subject,
		Annotations:  d.Annotations,
	})
}

// Build returns the document and its descriptor, under sha256. Equal drafts
// give equal bytes. What Parse would refuse or warn of is an *[InvalidError].
func (d IndexDraft) Build() (raw []byte, desc ocispec.Descriptor, err error) {
	manifests := d.Manifests
	if manifests == nil {
		manifests = []ocispec.Descriptor{} // never null
	}
	return build(MediaTypeIndex, ocispec.Index{
		Versioned:    specs.Versioned{SchemaVersion: 2},
		MediaType:    MediaTypeIndex,
		ArtifactType: d.ArtifactType,
		Manifests:    manifests,
		Subject:      d.Subject,
		Annotations:  d.Annotations,
	})
}

func build(mediaType string, document any) ([]byte, ocispec.Descriptor, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b) // members in the order of the struct, annotations by key
	e.SetEscapeHTML(false)
	if err := e.Encode(document); err != nil {
		return nil, ocispec.Descriptor{}, err
	}
	raw := bytes.TrimSuffix(b.Bytes(), []byte("\n"))
	m, err := Parse(mediaType, raw)
	if err == nil && len(m.Warnings) > 0 {
		err = &InvalidError{m.Warnings}
	}
	if err != nil {
		return nil, ocispec.Descriptor{}, &Error{Op: "build", Repo: mediaType, Err: err}
	}
	return raw, m.Record(digest.FromBytes(raw), raw).Desc, nil
}
