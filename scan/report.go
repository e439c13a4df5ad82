package scan

import (
	"context"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Scanner looks for vulnerabilities.
type Scanner interface {
	// Scan looks at one image of repo, whose descriptor has its MediaType, Digest
	// and Size: an OCI image manifest or Docker schema 2, by its config, but never a
	// list of images. It reads what it needs from wherever it has access to, and
	// honours ctx. For several images it is called at once.
	//
	// An error means that nothing is known. That this image is none that it
	// understands (an attestation looks like one) is no error but a Report with
	// StatusUnsupportedImage.
	Scan(ctx context.Context, repo string, image ocispec.Descriptor) (Report, error)
}

// Status is how far a scan is, in the words of ECR's API.
type Status string

// The statuses there are. A Runner itself uses those of the first group.
const (
	StatusComplete         Status = "COMPLETE"
	StatusInProgress       Status = "IN_PROGRESS"
	StatusFailed           Status = "FAILED"
	StatusUnsupportedImage Status = "UNSUPPORTED_IMAGE"

	StatusActive              Status = "ACTIVE" // scanned again and again
	StatusPending             Status = "PENDING"
	StatusEligibilityExpired  Status = "SCAN_ELIGIBILITY_EXPIRED"
	StatusFindingsUnavailable Status = "FINDINGS_UNAVAILABLE"
	StatusLimitExceeded       Status = "LIMIT_EXCEEDED"
	StatusImageArchived       Status = "IMAGE_ARCHIVED"
)

// Severity is how bad a finding is, in the words of ECR's API.
type Severity string

// The severities there are.
const (
	Critical      Severity = "CRITICAL"
	High          Severity = "HIGH"
	Medium        Severity = "MEDIUM"
	Low           Severity = "LOW"
	Informational Severity = "INFORMATIONAL"
	Undefined     Severity = "UNDEFINED"
)

// severities are all of them, the worst first.
var severities = [...]Severity{Critical, High, Medium, Low, Informational, Undefined}

// Report is what a Scanner found.
type Report struct {
	Status      Status // "" is StatusComplete
	Description string // of the status, for people

	SourceUpdatedAt time.Time // of the vulnerability data; zero is unknown

	Findings []Finding // as JSON at most 64 MiB, or the scan fails
	// Counts is how many findings there are of each severity; nil means those of
	// Findings. A severity that is none of the constants counts as Undefined.
	Counts map[Severity]int

	// Attachments become referrers of the image too, under their own types: an
	// SBOM, say. They are replaced together with the result.
	Attachments []Attachment
}

// Finding is one vulnerability, in the form of ECR's API.
type Finding struct {
	Name        string      `json:"name"` // CVE-2026-…
	Description string      `json:"description,omitempty"`
	URI         string      `json:"uri,omitempty"`
	Severity    Severity    `json:"severity"`
	Attributes  []Attribute `json:"attributes,omitempty"` // package_name, package_version …
}

// Attribute is a fact of a finding.
type Attribute struct {
	Key   string `json:"key"`
	Value string `json:"value,omitempty"`
}

// Attachment is a document about an image.
type Attachment struct {
	ArtifactType string // also of its one layer
	Content      []byte
}

// counts returns the counts without zeros; none is an empty map.
func (r *Report) counts() map[Severity]int {
	counts := map[Severity]int{}
	add := func(s Severity, n int) {
		for _, known := range severities {
			if s == known {
				counts[s] += n
				return
			}
		}
		counts[Undefined] += n
	}
	if r.Counts != nil {
		for s, n := range r.Counts {
			if n > 0 {
				add(s, n)
			}
		}
		return counts
	}
	for _, f := range r.Findings {
		add(f.Severity, 1)
	}
	return counts
}
