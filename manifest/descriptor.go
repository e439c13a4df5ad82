package manifest

import (
	"encoding/base64"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/internal/strictjson"
)

// Descriptor is one descriptor of a document that [Parse] has checked. The
// members that are seldom asked for stay text until OCI reads them, so that an
// index of any size costs one allocation.
type Descriptor struct {
	MediaType    string
	Digest       digest.Digest
	Size         int64
	ArtifactType string // as it stands in the descriptor, often ""

	text string
}

// IsZero tells whether the document has no such descriptor.
func (d Descriptor) IsZero() bool { return d.Digest == "" }

// OCI returns the whole descriptor, with URLs, annotations, data and platform.
func (d Descriptor) OCI() ocispec.Descriptor {
	out := ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size, ArtifactType: d.ArtifactType}
	if d.text == "" {
		return out
	}
	var r strictjson.Reader
	r.Reset(d.text)
	for o := r.Object(); o.Next(); {
		switch r.Name {
		case "urls":
			out.URLs = readStrings(&r)
		case "annotations":
			out.Annotations = readAnnotations(&r)
		case "data":
			if r.Peek() == '"' {
				out.Data, _ = base64.StdEncoding.DecodeString(r.String()) // Parse checked it
				break
			}
			r.Skip()
		case "platform":
			out.Platform = readPlatform(&r)
		default:
			r.Skip()
		}
	}
	return out
}

func readPlatform(r *strictjson.Reader) *ocispec.Platform {
	if r.Null() {
		return nil
	}
	p := new(ocispec.Platform)
	for o := r.Object(); o.Next(); {
		switch r.Name {
		case "architecture":
			p.Architecture = r.String()
		case "os":
			p.OS = r.String()
		case "os.version":
			p.OSVersion = r.String()
		case "os.features":
			p.OSFeatures = readStrings(r)
		case "variant":
			p.Variant = r.String()
		default:
			r.Skip()
		}
	}
	return p
}

func readStrings(r *strictjson.Reader) []string {
	if r.Null() {
		return nil
	}
	var out []string
	for a := r.Array(); a.Next(); {
		out = append(out, r.String())
	}
	return out
}

func readAnnotations(r *strictjson.Reader) map[string]string {
	if r.Null() {
		return nil
	}
	out := map[string]string{}
	for o := r.Object(); o.Next(); {
		out[r.Name] = r.String()
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

// Annotations returns the annotations of the document itself, nil if it has
// none.
func (m *Manifest) Annotations() map[string]string {
	if m.annotations == "" {
		return nil
	}
	var r strictjson.Reader
	r.Reset(m.annotations)
	return readAnnotations(&r)
}
