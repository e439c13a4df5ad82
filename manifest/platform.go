package manifest

import (
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Select returns the first entry of an index that runs on want (image-spec
// image-index.md: "the first matching entry is to be used"). It is false when
// none does, and when m is no index.
func (m *Manifest) Select(want ocispec.Platform) (Descriptor, bool) {
	for _, d := range m.Manifests {
		if p := d.OCI().Platform; p != nil && PlatformMatches(*p, want) {
			return d, true
		}
	}
	return Descriptor{}, false
}

// PlatformMatches tells whether something made for have runs on want:
// architecture and os are equal, and so is the variant, where leaving it out
// means the architecture's default (v8 for arm64, v7 for arm, v1 for amd64).
// The features that have needs are among those of want. If want names an OS
// version, have must be of the same, or, on Windows, of the same build: the first three numbers.
func PlatformMatches(have, want ocispec.Platform) bool {
	if have.OS != want.OS || have.Architecture != want.Architecture || variant(have) != variant(want) {
		return false
	}
	for _, f := range have.OSFeatures {
		if !slices.Contains(want.OSFeatures, f) {
			return false
		}
	}
	if want.OSVersion == "" || have.OSVersion == "" || have.OSVersion == want.OSVersion {
		return true
	}
	return want.OS == "windows" && windowsBuild(have.OSVersion) == windowsBuild(want.OSVersion)
}

func variant(p ocispec.Platform) string {
	if p.Variant == "" {
		switch p.Architecture {
		case "arm64":
			return "v8"
		case "arm":
			return "v7"
		case "amd64":
			return "v1"
		}
	}
	return p.Variant
}

func windowsBuild(version string) string {
	parts := strings.SplitN(version, ".", 4)
	return strings.Join(parts[:min(len(parts), 3)], ".")
}
