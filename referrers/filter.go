package referrers

import (
	"slices"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Filter chooses referrers. The zero Filter chooses all.
type Filter struct {
	// ArtifactTypes are those to choose, compared exactly. None means all.
	ArtifactTypes []string
	// Annotations must all be there, with that value: cosign's bundles differ in
	// nothing else. A value of "" stands for any.
	Annotations map[string]string
}

// Match tells whether f chooses the manifest that desc describes, as an Index
// lists it.
func (f Filter) Match(desc ocispec.Descriptor) bool {
	if len(f.ArtifactTypes) > 0 && !slices.Contains(f.ArtifactTypes, desc.ArtifactType) {
		return false
	}
	for key, want := range f.Annotations {
		if have, ok := desc.Annotations[key]; !ok || want != "" && have != want {
			return false
		}
	}
	return true
}
