package memmanifest

import (
	"slices"
	"strings"
	"sync/atomic"
	"time"
	"unique"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/manifest"
)

// entry is a manifest as it is kept. Only its tags and touched change. Its
// strings share one allocation of its own: those of a record that was parsed
// keep the whole text alive.
type entry struct {
	mediaType, artifactType string
	digest, subject         digest.Digest
	size                    int64
	annotations             []string // keys, each with its value behind it
	raw                     []byte
	manifests, blobs        []digest.Digest
	pushed                  time.Time
	archive                 *archive // nil: it never was there
	json                    string   // as a list of referrers has it; "" without a subject
	tags                    ordered[struct{}]
	touched                 atomic.Pointer[time.Time]
}

// archive is what there is to say of a manifest that is, or was, in the archive.
type archive struct {
	class                  manifest.StorageClass
	archivedAt, restoredAt time.Time
}

// newEntry takes Raw as it is.
func newEntry(rec *manifest.Record) *entry {
	e := &entry{
		mediaType: unique.Make(rec.Desc.MediaType).Value(), artifactType: unique.Make(rec.Desc.ArtifactType).Value(),
		digest: rec.Desc.Digest, subject: rec.Subject, size: rec.Desc.Size, raw: rec.Raw,
		manifests: slices.Clone(rec.Manifests), blobs: slices.Clone(rec.Blobs), pushed: rec.PushedAt,
	}
	e.touched.Store(&e.pushed)
	if n := len(rec.Desc.Annotations); n > 0 {
		e.annotations = make([]string, 0, 2*n)
		for k, v := range rec.Desc.Annotations {
			e.annotations = append(e.annotations, k, v)
		}
	}
	if e.subject != "" {
		e.json = manifest.NewReferrerJSON(rec.Desc).JSON
	}
	var all strings.Builder
	n := 0
	e.eachString(func(s string) string { n += len(s); return s })
	all.Grow(n)
	e.eachString(func(s string) string { all.WriteString(s); return s })
	rest := all.String()
	e.eachString(func(s string) string {
		s, rest = rest[:len(s)], rest[len(s):]
		return s
	})
	return e
}

// eachString puts others in the place of the strings that are no type.
func (e *entry) eachString(f func(string) string) {
	e.digest, e.subject = digest.Digest(f(string(e.digest))), digest.Digest(f(string(e.subject)))
	for i, s := range e.annotations {
		e.annotations[i] = f(s)
	}
	for _, list := range [][]digest.Digest{e.manifests, e.blobs} {
		for i, d := range list {
			list[i] = digest.Digest(f(string(d)))
		}
	}
}

// to returns the entry in another storage class since at.
func (e *entry) to(class manifest.StorageClass, at time.Time) *entry {
	moved := &entry{
		mediaType: e.mediaType, artifactType: e.artifactType, digest: e.digest, subject: e.subject, size: e.size,
		annotations: e.annotations, raw: e.raw, manifests: e.manifests, blobs: e.blobs, pushed: e.pushed, json: e.json, tags: e.tags,
	}
	moved.touched.Store(e.touched.Load())
	a := archive{class: class}
	if e.archive != nil {
		a.archivedAt, a.restoredAt = e.archive.archivedAt, e.archive.restoredAt
	}
	if class == manifest.Archive {
		a.archivedAt = at
	} else {
		a.restoredAt = at
	}
	moved.archive = &a
	return moved
}

func (e *entry) class() manifest.StorageClass {
	if e.archive == nil {
		return manifest.Standard
	}
	return e.archive.class
}

// listed returns the record for a caller, without Raw.
func (e *entry) listed() manifest.Record {
	rec := manifest.Record{
		Desc: e.descriptor(), Subject: e.subject, Manifests: slices.Clone(e.manifests), Blobs: slices.Clone(e.blobs),
		PushedAt: e.pushed, TouchedAt: *e.touched.Load(),
	}
	if e.archive != nil {
		rec.StorageClass, rec.ArchivedAt, rec.RestoredAt = e.archive.class, e.archive.archivedAt, e.archive.restoredAt
	}
	return rec
}

func (e *entry) descriptor() ocispec.Descriptor {
	desc := e.stat()
	if len(e.annotations) > 0 {
		desc.Annotations = make(map[string]string, len(e.annotations)/2)
		for i := 0; i < len(e.annotations); i += 2 {
			desc.Annotations[e.annotations[i]] = e.annotations[i+1]
		}
	}
	return desc
}

// stat is the descriptor without annotations.
func (e *entry) stat() ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: e.mediaType, Digest: e.digest, Size: e.size, ArtifactType: e.artifactType}
}
