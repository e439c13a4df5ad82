package main

import (
	"cmp"
	"errors"

	"github.com/wharfage/wharfage"
)

// quotasConfig limits what is stored. Zero is no limit, or that of ECR.
type quotasConfig struct {
	ECR          bool  `json:"ecr"` // those of Amazon ECR, for what is not set below
	Repositories int   `json:"repositories"`
	Images       int   `json:"imagesPerRepository"` // manifests of any kind
	TagsPerImage int   `json:"tagsPerImage"`
	LayerBytes   int64 `json:"layerBytes"` // of one blob
}

func (q *quotasConfig) check() error {
	if q.Repositories < 0 || q.Images < 0 || q.TagsPerImage < 0 || q.LayerBytes < 0 {
		return errors.New("want numbers that are not negative")
	}
	return nil
}

func (q *quotasConfig) limits() wharfage.Limits {
	var l wharfage.Limits
	if q.ECR {
		l = wharfage.ECRLimits()
	}
	l.Images, l.TagsPerImage, l.BlobSize = cmp.Or(q.Images, l.Images), cmp.Or(q.TagsPerImage, l.TagsPerImage), cmp.Or(q.LayerBytes, l.BlobSize)
	return l
}

func (q *quotasConfig) repositories() int {
	if q.ECR {
		return cmp.Or(q.Repositories, 100_000)
	}
	return q.Repositories
}
