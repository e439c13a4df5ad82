package scan

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/internal/epoch"
	"github.com/wharfage/wharfage/manifest"
)

// ArtifactType is that of the referrers that are results, and of their layer,
// which has the form of imageScanFindings in ECR's API.
const ArtifactType = "application/vnd.wharfage.scan.v1+json"

// The annotations of a result, which say what Result does.
const (
	annotationStatus      = "com.github.wharfage.scan.status"
	annotationDescription = "com.github.wharfage.scan.description"
	annotationCompleted   = "com.github.wharfage.scan.completed"
	annotationSource      = "com.github.wharfage.scan.source-updated"
	annotationCounts      = "com.github.wharfage.scan.counts"

	// annotationAttachment is of the other referrers that come with a result, and
	// names the digest of the image.
	annotationAttachment = "com.github.wharfage.scan.attachment"
)

// Result is what is known of the last scan of an image.
type Result struct {
	Repo   string
	Image  digest.Digest
	Digest digest.Digest // of the referrer that is the result; "" while there is none

	Status          Status
	Description     string
	CompletedAt     time.Time        // zero while it is under way
	SourceUpdatedAt time.Time        // of the vulnerability data; zero is unknown
	Counts          map[Severity]int // without zeros
}

// IsResult tells whether a referrer, as a record or a list of referrers
// describes it, is a scan's result or came with one.
func IsResult(desc ocispec.Descriptor) bool {
	return desc.ArtifactType == ArtifactType || desc.Annotations[annotationAttachment] != ""
}

// ResultOf reads a result out of the descriptor of a referrer of image. false
// means that it is none, or that it is malformed, as one that somebody else has
// pushed may be.
func ResultOf(repo string, image digest.Digest, desc ocispec.Descriptor) (Result, bool) {
	a := desc.Annotations
	r := Result{Repo: repo, Image: image, Digest: desc.Digest, Status: Status(a[annotationStatus]), Description: a[annotationDescription], Counts: map[Severity]int{}}
	if desc.ArtifactType != ArtifactType || r.Status == "" {
		return Result{}, false
	}
	var err error
	if r.CompletedAt, err = time.Parse(time.RFC3339Nano, a[annotationCompleted]); err != nil {
		return Result{}, false
	}
	if text := a[annotationSource]; text != "" {
		if r.SourceUpdatedAt, err = time.Parse(time.RFC3339Nano, text); err != nil {
			return Result{}, false
		}
	}
	text := a[annotationCounts]
	for _, s := range severities { // in their order, each once at most
		if of, ok := strings.CutPrefix(text, string(s)+"="); ok {
			number, rest, _ := strings.Cut(of, ",")
			n, err := strconv.ParseUint(number, 10, 31)
			if err != nil || n == 0 {
				return Result{}, false
			}
			r.Counts[s], text = int(n), rest
		}
	}
	return r, text == ""
}

// annotations are what ResultOf reads.
func (r *Result) annotations() map[string]string {
	a := map[string]string{annotationStatus: string(r.Status), annotationCompleted: r.CompletedAt.Format(time.RFC3339Nano)}
	if r.Description != "" {
		a[annotationDescription] = r.Description
	}
	if !r.SourceUpdatedAt.IsZero() {
		a[annotationSource] = r.SourceUpdatedAt.Format(time.RFC3339Nano)
	}
	var counts []string
	for _, s := range severities {
		if n := r.Counts[s]; n > 0 {
			counts = append(counts, fmt.Sprintf("%s=%d", s, n))
		}
	}
	if counts != nil {
		a[annotationCounts] = strings.Join(counts, ",")
	}
	return a
}

// document is imageScanFindings of ECR's DescribeImageScanFindings.
type document struct {
	CompletedAt     epoch.Time       `json:"imageScanCompletedAt"`
	SourceUpdatedAt epoch.Time       `json:"vulnerabilitySourceUpdatedAt,omitzero"`
	Counts          map[Severity]int `json:"findingSeverityCounts"`
	Findings        []Finding        `json:"findings"`
}

// maxFindings bounds a document in bytes: anybody may have pushed the one that is read.
const maxFindings = 64 << 20

// artifact is a referrer to be stored: its blobs, and its document.
type artifact struct {
	layer   ocispec.Descriptor
	content []byte
	record  manifest.Record
}

func newArtifact(artifactType string, content []byte, image ocispec.Descriptor, annotations map[string]string) (a artifact, err error) {
	a.content = content
	a.layer = ocispec.Descriptor{MediaType: artifactType, Digest: digest.FromBytes(content), Size: int64(len(content))}
	subject := ocispec.Descriptor{MediaType: image.MediaType, Digest: image.Digest, Size: image.Size}
	raw, desc, err := manifest.ImageDraft{ArtifactType: artifactType, Layers: []ocispec.Descriptor{a.layer}, Subject: &subject, Annotations: annotations}.Build()
	if err != nil {
		return a, err
	}
	m, err := manifest.Parse(desc.MediaType, raw)
	if err != nil {
		return a, err
	}
	a.record = m.Record(desc.Digest, raw)
	return a, nil
}

// artifacts makes what is stored of a report: the result first.
func artifacts(r *Result, report *Report, image ocispec.Descriptor) ([]artifact, error) {
	findings := report.Findings
	if findings == nil {
		findings = []Finding{} // never null
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(document{epoch.Time{Time: r.CompletedAt}, epoch.Time{Time: r.SourceUpdatedAt}, r.Counts, findings}); err != nil {
		return nil, err
	}
	if b.Len() > maxFindings {
		return nil, fmt.Errorf("findings of %d bytes: at most %d can be kept", b.Len(), maxFindings)
	}
	result, err := newArtifact(ArtifactType, b.Bytes(), image, r.annotations())
	if err != nil {
		return nil, err
	}
	r.Digest = result.record.Desc.Digest
	out := []artifact{result}
	for _, a := range report.Attachments {
		with, err := newArtifact(a.ArtifactType, a.Content, image, map[string]string{annotationAttachment: string(image.Digest)})
		if err != nil {
			return nil, fmt.Errorf("attachment %s: %w", a.ArtifactType, err)
		}
		out = append(out, with)
	}
	return out, nil
}
