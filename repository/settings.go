package repository

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/wharfage/wharfage/lifecycle"
	"github.com/wharfage/wharfage/manifest"
)

// Repository is one that was created, with what is set for it.
type Repository struct {
	Name      string    `json:"repositoryName"`
	CreatedAt time.Time `json:"createdAt"`
	Settings
}

// Settings are what can be set for a repository, under the names of ECR's API. The
// zero Settings are ECR's defaults: mutable tags, no policies.
//
// Equal settings have equal JSON, which a store may compare.
type Settings struct {
	// TagMutability says which tags may move, in ECR's words, and TagMutabilityNot
	// which are the exception: see manifest.TagMutability, which Mutability makes of
	// the two.
	TagMutability    string      `json:"imageTagMutability,omitempty"`
	TagMutabilityNot []TagFilter `json:"imageTagMutabilityExclusionFilters,omitempty"`

	// LifecyclePolicy is its text, which lifecycle.Parse takes; "" is none.
	LifecyclePolicy string `json:"lifecyclePolicy,omitempty"`

	// RepositoryPolicy is the text of an access policy, which nothing here reads: it
	// is for your Authorize. "" is none.
	RepositoryPolicy string `json:"repositoryPolicy,omitempty"`

	// Encryption is for the stores that keep content, which may look it up by
	// repository: nothing here encrypts. It is fixed at creation.
	Encryption Encryption `json:"encryptionConfiguration,omitzero"`

	// ResourceTags label the repository itself.
	ResourceTags []ResourceTag `json:"resourceTags,omitempty"`

	// Custom is whatever else your registry keeps for a repository. Nothing here
	// reads it.
	Custom map[string]string `json:"custom,omitempty"`
}

// TagFilter selects tags.
type TagFilter struct {
	Type   string `json:"filterType"` // WILDCARD
	Filter string `json:"filter"`
}

// Encryption says how content is to be encrypted at rest.
type Encryption struct {
	Type   string `json:"encryptionType,omitempty"` // AES256, KMS, KMS_DSSE, or your own; "" leaves it to the store
	KMSKey string `json:"kmsKey,omitempty"`
}

// ResourceTag is a label.
type ResourceTag struct {
	Key   string `json:"Key"`
	Value string `json:"Value"`
}

// What ECR bounds, in characters and in number.
const (
	MaxRepositoryPolicy = 10_240
	MaxResourceTags     = 50
	MaxDescription      = 256
)

// Check says what of s cannot be set, as an *[InvalidError].
func (s *Settings) Check() error {
	err := s.Mutability().Check()
	if faults, ok := errors.AsType[*manifest.InvalidError](err); ok {
		return &InvalidError{strings.TrimPrefix(faults.Fields[0].Pointer, "/"), "cannot be set", err}
	}
	for i, f := range s.TagMutabilityNot {
		if f.Type != "WILDCARD" {
			return &InvalidError{Field: fmt.Sprintf("imageTagMutabilityExclusionFilters/%d/filterType", i), Detail: "takes WILDCARD"}
		}
	}
	if s.LifecyclePolicy != "" {
		if _, err := lifecycle.Parse(s.LifecyclePolicy); err != nil {
			return &InvalidError{"lifecyclePolicy", "is to be a lifecycle policy", err}
		}
	}
	if n := utf8.RuneCountInString(s.RepositoryPolicy); n > MaxRepositoryPolicy {
		return &InvalidError{Field: "repositoryPolicy", Detail: fmt.Sprintf("takes at most %d characters, has %d", MaxRepositoryPolicy, n)}
	}
	if s.Encryption.KMSKey != "" && (s.Encryption.Type == "" || s.Encryption.Type == "AES256") {
		return &InvalidError{Field: "encryptionConfiguration", Detail: "has a kmsKey, and an encryptionType that takes none"}
	}
	if err := checkResourceTags(s.ResourceTags); err != nil {
		return err
	}
	return s.checkTexts()
}

// checkTexts refuses what JSON cannot hold, since stores may keep that.
func (s *Settings) checkTexts() error {
	texts := [][2]string{{"repositoryPolicy", s.RepositoryPolicy}, {"encryptionConfiguration", s.Encryption.Type}, {"encryptionConfiguration", s.Encryption.KMSKey}}
	for i, t := range s.ResourceTags {
		texts = append(texts, [2]string{fmt.Sprintf("resourceTags[%d].Key", i), t.Key}, [2]string{fmt.Sprintf("resourceTags[%d].Value", i), t.Value})
	}
	for k, v := range s.Custom {
		texts = append(texts, [2]string{"custom", k}, [2]string{"custom", v})
	}
	for _, t := range texts {
		if !utf8.ValidString(t[1]) {
			return &InvalidError{Field: t[0], Detail: "is to be UTF-8"}
		}
	}
	return nil
}

// Mutability returns what says which tags may move.
func (s *Settings) Mutability() manifest.TagMutability {
	m := manifest.TagMutability{Mode: manifest.TagMode(s.TagMutability)}
	for _, f := range s.TagMutabilityNot {
		m.Filters = append(m.Filters, f.Filter)
	}
	return m
}

func checkResourceTags(tags []ResourceTag) error {
	if len(tags) > MaxResourceTags {
		return &InvalidError{Field: "resourceTags", Detail: fmt.Sprintf("takes at most %d, has %d", MaxResourceTags, len(tags))}
	}
	for i, t := range tags {
		if t.Key == "" {
			return &InvalidError{Field: fmt.Sprintf("resourceTags[%d].Key", i), Detail: "is missing"}
		}
		if slices.ContainsFunc(tags[:i], func(u ResourceTag) bool { return u.Key == t.Key }) {
			return &InvalidError{Field: fmt.Sprintf("resourceTags[%d].Key", i), Detail: fmt.Sprintf("%q is there twice", t.Key)}
		}
	}
	return nil
}

// Clone returns a copy that shares no slice and no map with r.
func (r *Repository) Clone() Repository {
	c := *r
	c.TagMutabilityNot = slices.Clone(r.TagMutabilityNot)
	c.ResourceTags = slices.Clone(r.ResourceTags)
	c.Custom = maps.Clone(r.Custom)
	return c
}

// Equal tells whether two repositories are the same in all that is set, and in
// name and creation. It is for stores, and compares JSON.
func (r *Repository) Equal(s *Repository) bool {
	a, errA := json.Marshal(r)
	b, errB := json.Marshal(s)
	return errA == nil && errB == nil && bytes.Equal(a, b)
}
