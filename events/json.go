package events

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/manifest"
)

// MarshalJSON writes an event as EventBridge delivers those of ECR.
func (e Event) MarshalJSON() ([]byte, error) {
	detail, repo, err := e.detail()
	if err != nil {
		return nil, err
	}
	resources := []string{}
	if repo != "" {
		resources = append(resources, e.Origin.arn(repo))
	}
	return json.Marshal(struct {
		Version    string   `json:"version"`
		ID         string   `json:"id"`
		DetailType string   `json:"detail-type"`
		Source     string   `json:"source"`
		Account    string   `json:"account"`
		Time       string   `json:"time"`
		Region     string   `json:"region"`
		Resources  []string `json:"resources"`
		Detail     any      `json:"detail"`
	}{"0", e.ID, e.Detail.DetailType(), "aws.ecr", e.Origin.Account, e.Time.UTC().Format(time.RFC3339), e.Origin.Region, resources, detail})
}

func (o Origin) arn(repo string) string {
	return "arn:aws:ecr:" + o.Region + ":" + o.Account + ":repository/" + repo
}

// The details as ECR writes them. Those without a comment are in the guide.
type (
	imageDetail struct {
		Result       string        `json:"result"`
		Repository   string        `json:"repository-name"`
		Digest       digest.Digest `json:"image-digest"`
		Action       string        `json:"action-type"`
		Tag          string        `json:"image-tag"`
		MediaType    string        `json:"manifest-media-type,omitempty"` // seen since 2023
		ArtifactType string        `json:"artifact-media-type,omitempty"` // seen since 2023
	}
	storageDetail struct {
		Action       string        `json:"action-type"`
		Class        string        `json:"target-storage-class"`
		Digest       digest.Digest `json:"image-digest"`
		Repository   string        `json:"repository-name"`
		Result       string        `json:"result"`
		MediaType    string        `json:"manifest-media-type,omitempty"`
		ArtifactType string        `json:"artifact-media-type,omitempty"`
		ActivatedAt  time.Time     `json:"last-activated-at,omitzero"`
	}
	replicationDetail struct {
		Result        string        `json:"result"`
		Repository    string        `json:"repository-name"`
		Digest        digest.Digest `json:"image-digest"`
		SourceAccount string        `json:"source-account"`
		Action        string        `json:"action-type"`
		SourceRegion  string        `json:"source-region"`
		Tag           string        `json:"image-tag"`
	}
	cacheDetail struct {
		RuleVersion   string        `json:"rule-version"`
		Status        string        `json:"sync-status"`
		Prefix        string        `json:"ecr-repository-prefix"`
		Repository    string        `json:"repository-name"`
		UpstreamURL   string        `json:"upstream-registry-url"`
		Tag           string        `json:"image-tag,omitempty"`
		Digest        digest.Digest `json:"image-digest,omitempty"`
		FailureCode   string        `json:"failure-code,omitempty"`   // in the schema only
		FailureReason string        `json:"failure-reason,omitempty"` // in the schema only
	}
	scanDetail struct {
		Status     string         `json:"scan-status"`
		Repository string         `json:"repository-name"`
		Counts     map[string]int `json:"finding-severity-counts"`
		Digest     digest.Digest  `json:"image-digest"`
		Tags       []string       `json:"image-tags"`
	}
	frequencyDetail struct {
		Action       string                `json:"action-type"`
		Repositories []repositoryFrequency `json:"repositories"`
		ResourceType string                `json:"resource-type"`
		ScanType     string                `json:"scan-type"`
	}
	repositoryFrequency struct {
		Repository string `json:"repository-name"`
		ARN        string `json:"repository-arn"`
		Frequency  string `json:"scan-frequency"`
		Previous   string `json:"previous-scan-frequency"`
	}
)

// detail returns ECR's form of the detail, and the repository that stands among the
// resources.
func (e Event) detail() (detail any, repo string, err error) {
	result := func(s string) string {
		if s == "" {
			return Success
		}
		return s
	}
	switch d := e.Detail.(type) {
	case Image:
		return imageDetail{result(d.Result), d.Repository, d.Digest, d.Action, d.Tag, d.MediaType, d.ArtifactType}, "", nil
	case Storage:
		class := "STANDARD"
		if d.Class == manifest.Archive {
			class = "ARCHIVE"
		}
		return storageDetail{"UPDATE_STORAGE_CLASS", class, d.Digest, d.Repository, result(d.Result), d.MediaType, d.ArtifactType, d.ActivatedAt.UTC()}, "", nil
	case Replication:
		return replicationDetail{result(d.Result), d.Repository, d.Digest, d.SourceAccount, "REPLICATE", d.SourceRegion, d.Tag}, d.Repository, nil
	case PullThroughCache:
		return cacheDetail{"1", result(d.Status), d.Prefix, d.Repository, d.UpstreamURL, d.Tag, d.Digest, d.FailureCode, d.FailureReason}, d.Repository, nil
	case Scan:
		counts := map[string]int{}
		for severity, n := range d.Counts {
			if n > 0 {
				counts[severity] = n
			}
		}
		return scanDetail{d.Status, d.Repository, counts, d.Digest, append([]string{}, d.Tags...)}, d.Repository, nil
	case ScanFrequency:
		out := frequencyDetail{"SCAN_FREQUENCY_CHANGE", []repositoryFrequency{}, "REPOSITORY", "ENHANCED"}
		for _, r := range d.Repositories {
			out.Repositories = append(out.Repositories, repositoryFrequency{r.Repository, e.Origin.arn(r.Repository), r.Frequency, r.Previous})
		}
		return out, "", nil
	}
	return nil, "", fmt.Errorf("events: no form for a detail of type %T", e.Detail)
}

// CloudEvent is an event in the JSON format of CloudEvents 1.0, whose media type
// is application/cloudevents+json.
type CloudEvent struct {
	SpecVersion     string          `json:"specversion"`
	ID              string          `json:"id"`
	Source          string          `json:"source"`
	Type            string          `json:"type"`
	Subject         string          `json:"subject,omitempty"`
	Time            time.Time       `json:"time,omitzero"`
	DataContentType string          `json:"datacontenttype"`
	Data            json.RawMessage `json:"data"`
}

// CloudEvent returns e as a CloudEvent. Its type is com.amazonaws.ecr. with the kind
// (image, referrer, replication, pull-through-cache, scan, scan-frequency) and, of images
// and referrers, .push, .delete, .archive or .restore; the subject is the repository,
// with :TAG or @DIGEST; the data is ECR's detail.
func (e Event) CloudEvent() (CloudEvent, error) {
	detail, _, err := e.detail()
	if err != nil {
		return CloudEvent{}, err
	}
	data, err := json.Marshal(detail)
	if err != nil {
		return CloudEvent{}, err
	}
	out := CloudEvent{SpecVersion: "1.0", ID: e.ID, Source: e.Origin.URI, Time: e.Time.UTC(), DataContentType: "application/json", Data: data}
	if out.Source == "" {
		out.Source = "arn:aws:ecr:" + e.Origin.Region + ":" + e.Origin.Account
	}
	kind := ""
	switch d := e.Detail.(type) {
	case Image:
		kind, out.Subject = d.kind()+map[string]string{Push: ".push", Delete: ".delete"}[d.Action], subject(d.Repository, d.Tag, d.Digest)
	case Storage:
		kind, out.Subject = d.kind()+".restore", subject(d.Repository, "", d.Digest)
		if d.Class == manifest.Archive {
			kind = d.kind() + ".archive"
		}
	case Replication:
		kind, out.Subject = "replication", subject(d.Repository, d.Tag, d.Digest)
	case PullThroughCache:
		kind, out.Subject = "pull-through-cache", subject(d.Repository, d.Tag, d.Digest)
	case Scan:
		kind, out.Subject = "scan", subject(d.Repository, "", d.Digest)
	case ScanFrequency:
		kind = "scan-frequency"
	}
	out.Type = "com.amazonaws.ecr." + kind
	return out, nil
}

func (a About) kind() string {
	if a.Subject != "" {
		return "referrer"
	}
	return "image"
}

func subject(repo, tag string, dgst digest.Digest) string {
	switch {
	case tag != "":
		return repo + ":" + tag
	case dgst != "":
		return repo + "@" + string(dgst)
	}
	return repo
}
