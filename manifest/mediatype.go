package manifest

import (
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Media types of manifests that [Parse] reads. Any other is opaque to it.
const (
	MediaTypeImage            = "application/vnd.oci.image.manifest.v1+json"
	MediaTypeIndex            = "application/vnd.oci.image.index.v1+json"
	MediaTypeDockerManifest   = "application/vnd.docker.distribution.manifest.v2+json"
	MediaTypeDockerList       = "application/vnd.docker.distribution.manifest.list.v2+json"
	MediaTypeDockerSchema1    = "application/vnd.docker.distribution.manifest.v1+json"
	MediaTypeDockerSchema1JWS = "application/vnd.docker.distribution.manifest.v1+prettyjws"
	MediaTypeOCIArtifact      = "application/vnd.oci.artifact.manifest.v1+json"       // withdrawn before image-spec 1.1
	MediaTypeORASArtifact     = "application/vnd.cncf.oras.artifact.manifest.v1+json" // its ancestor
	MediaTypeEmpty            = "application/vnd.oci.empty.v1+json"
)

// Kind is what a document is, decided once, by its media type.
type Kind uint8

const (
	KindOpaque   Kind = iota // a media type that Parse does not know
	KindImage                // OCI image manifest or Docker schema 2
	KindIndex                // OCI image index or Docker manifest list
	KindArtifact             // the withdrawn OCI or ORAS artifact manifest
	KindSchema1              // Docker schema 1, signed or not
)

func (k Kind) String() string {
	return [...]string{"opaque", "image", "index", "artifact", "schema1"}[k]
}

// KindOf returns the kind of documents of a media type.
func KindOf(mediaType string) Kind {
	switch mediaType {
	case MediaTypeImage, MediaTypeDockerManifest:
		return KindImage
	case MediaTypeIndex, MediaTypeDockerList:
		return KindIndex
	case MediaTypeOCIArtifact, MediaTypeORASArtifact:
		return KindArtifact
	case MediaTypeDockerSchema1, MediaTypeDockerSchema1JWS:
		return KindSchema1
	}
	return KindOpaque
}

// IsDocker tells whether a media type is one of Docker's, whose manifests have
// no subject, no artifactType and no annotations.
func IsDocker(mediaType string) bool {
	switch mediaType {
	case MediaTypeDockerManifest, MediaTypeDockerList, MediaTypeDockerSchema1, MediaTypeDockerSchema1JWS:
		return true
	}
	return false
}

// IsForeignLayer tells whether a layer of this type may be absent from the
// registry: the OCI "nondistributable" and Docker "foreign" types.
func IsForeignLayer(mediaType string) bool {
	return strings.HasPrefix(mediaType, "application/vnd.oci.image.layer.nondistributable.v1.") ||
		strings.HasPrefix(mediaType, "application/vnd.docker.image.rootfs.foreign.")
}

// maxTypeLen is RFC 6838's 127 characters on each side of the slash.
const maxTypeLen = 127

// checkMediaType says whether s is type "/" subtype of RFC 6838 section 4.2,
// and whether parameters follow, as early sigstore bundles have them.
func checkMediaType(s string) (ok, parameters bool) {
	switch s { // most of what there is, told by a comparison
	case ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex, ocispec.MediaTypeImageConfig, ocispec.MediaTypeEmptyJSON,
		ocispec.MediaTypeImageLayer, ocispec.MediaTypeImageLayerGzip, ocispec.MediaTypeImageLayerZstd,
		MediaTypeDockerManifest, "application/vnd.docker.container.image.v1+json", "application/vnd.docker.image.rootfs.diff.tar.gzip":
		return true, false
	}
	slash, i := -1, 0
	from := 0
scan:
	for ; i < len(s); i++ {
		switch c := typeClass[s[i]]; {
		case c == typeFirst: // good anywhere
		case s[i] == '/' && slash < 0:
			if i == 0 || i > maxTypeLen {
				return false, false
			}
			slash, from = i, i+1
		case s[i] == ';' && slash > 0:
			break scan
		case c != typeRest || i == from:
			return false, false
		}
	}
	if slash < 0 || i == from || i-from > maxTypeLen {
		return false, false
	}
	if i == len(s) {
		return true, false
	}
	return checkParameters(s[i:]), true
}

// isLongType tells whether a type, with its parameters, is longer than any may
// be, whatever else is wrong with it.
func isLongType(s string) bool {
	base, _, _ := strings.Cut(s, ";")
	typ, subtype, _ := strings.Cut(base, "/")
	return len(s) > 2*maxTypeLen+1 || len(typ) > maxTypeLen || len(subtype) > maxTypeLen
}

const (
	typeFirst = 1 + iota // may begin a name
	typeRest             // may follow
)

var typeClass = func() (t [256]uint8) {
	for c := range t {
		switch {
		case '0' <= c && c <= '9', 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z':
			t[c] = typeFirst
		case strings.IndexByte("!#$&-^_.+", byte(c)) >= 0:
			t[c] = typeRest
		}
	}
	return
}()

// checkParameters reads *( ";" name "=" value ) with optional spaces, as RFC
// 9110 section 5.6.6 has it.
func checkParameters(s string) bool {
	token := func() bool {
		n := 0
		for n < len(s) && (typeClass[s[n]] != 0 || strings.IndexByte("%'*`|~", s[n]) >= 0) {
			n++
		}
		s = s[n:]
		return n > 0
	}
	for s != "" {
		if s[0] != ';' {
			return false
		}
		s = strings.TrimLeft(s[1:], " \t")
		if !token() || s == "" || s[0] != '=' {
			return false
		}
		s = s[1:]
		if s != "" && s[0] == '"' {
			end := strings.IndexByte(s[1:], '"')
			if end < 0 || strings.IndexFunc(s[1:1+end], func(r rune) bool { return r < ' ' || r == '\\' || r == 0x7f }) >= 0 {
				return false
			}
			s = s[end+2:]
		} else if !token() {
			return false
		}
		s = strings.TrimLeft(s, " \t")
	}
	return true
}
