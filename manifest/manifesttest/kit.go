package manifesttest

import (
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/manifest"
)

const repo, otherRepo = "team/app", "team/app2"

// Whole seconds, which every database keeps.
var (
	day1 = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	day2 = day1.AddDate(0, 0, 1)
)

// doc describes a manifest. It is an index if it has children, else an image.
type doc struct {
	name     string // makes the bytes differ
	typ      string // artifactType
	subject  digest.Digest
	children []digest.Digest
	blobs    []digest.Digest // config and layers; nil is one made of the name
	sha512   bool
}

func (d doc) record() manifest.Record {
	rec := manifest.Record{Subject: d.subject, Manifests: d.children, Blobs: d.blobs}
	annotations := map[string]string{"org.example.name": d.name, "org.example.empty": ""}
	var subject *ocispec.Descriptor
	if d.subject != "" {
		subject = &ocispec.Descriptor{MediaType: manifest.MediaTypeImage, Digest: d.subject, Size: 7}
	}
	descs := func(typ string, dgsts []digest.Digest) []ocispec.Descriptor {
		out := []ocispec.Descriptor{}
		for _, d := range dgsts {
			out = append(out, ocispec.Descriptor{MediaType: typ, Digest: d, Size: 7})
		}
		return out
	}
	var doc any
	typ := d.typ
	if d.children != nil {
		rec.Desc.MediaType = manifest.MediaTypeIndex
		doc = ocispec.Index{
			Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: rec.Desc.MediaType, ArtifactType: d.typ,
			Subject: subject, Annotations: annotations, Manifests: descs(manifest.MediaTypeImage, d.children),
		}
	} else {
		if rec.Blobs == nil {
			rec.Blobs = []digest.Digest{blobOf(d.name)}
		}
		rec.Desc.MediaType = manifest.MediaTypeImage
		config := ocispec.Descriptor{MediaType: "application/vnd.example.config+json", Digest: rec.Blobs[0], Size: 7}
		if typ == "" {
			typ = config.MediaType
		}
		doc = ocispec.Manifest{
			Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: rec.Desc.MediaType, ArtifactType: d.typ,
			Subject: subject, Annotations: annotations, Config: config, Layers: descs("application/vnd.example.layer", rec.Blobs[1:]),
		}
	}
	raw, err := json.MarshalIndent(doc, "", "\t")
	if err != nil {
		panic(err) // structs of strings
	}
	rec.Raw = append(raw, " \r\n"...) // which a store that writes it anew would lose
	alg := digest.SHA256
	if d.sha512 {
		alg = digest.SHA512
	}
	rec.Desc.Digest = manifest.Digest(alg, rec.Raw)
	rec.Desc.Size = int64(len(rec.Raw))
	rec.Desc.ArtifactType = typ
	rec.Desc.Annotations = annotations
	return rec
}

func image(name string) manifest.Record { return doc{name: name}.record() }

func index(name string, children ...manifest.Record) manifest.Record {
	return doc{name: name, children: digests(children...)}.record()
}

func blobOf(name string) digest.Digest {
	return manifest.Digest(digest.SHA256, []byte("blob "+name))
}

func digests(recs ...manifest.Record) []digest.Digest {
	out := []digest.Digest{}
	for _, rec := range recs {
		out = append(out, rec.Desc.Digest)
	}
	return out
}

// apply fails the test if c does.
func (k *kit) apply(c manifest.Change) {
	k.Helper()
	if err := k.s.Apply(k.Context(), repo, c); err != nil {
		k.Fatalf("Apply(%s): %v", show(c), err)
	}
}

func (k *kit) put(recs ...manifest.Record) {
	k.Helper()
	k.apply(manifest.Change{Put: recs, At: day1})
}

func (k *kit) tag(name string, to manifest.Record) {
	k.Helper()
	k.apply(manifest.Change{Tags: []manifest.TagMove{{Name: name, To: to.Desc.Digest}}, At: day1})
}

// refused applies c, which must fail with want and change nothing.
func (k *kit) refused(c manifest.Change, want error) error {
	k.Helper()
	before := k.dump(repo)
	err := k.s.Apply(k.Context(), repo, c)
	if !errors.Is(err, want) {
		k.Fatalf("Apply(%s) = %v, want an error that matches %q", show(c), err, want)
	}
	if after := k.dump(repo); after != before {
		k.Fatalf("Apply(%s) failed with %q, but left a change:\n%s\nwas:\n%s", show(c), err, after, before)
	}
	return err
}

// conflict is refused with a *ConflictError.
func (k *kit) conflict(c manifest.Change, want manifest.ConflictError) {
	k.Helper()
	var got *manifest.ConflictError
	err := k.refused(c, manifest.ErrConflict)
	if errors.As(err, &got) && got.TouchedAt.Equal(want.TouchedAt) {
		want.TouchedAt = got.TouchedAt
	}
	if got == nil || *got != want {
		k.Fatalf("Apply(%s) = %v, want the conflict %+v", show(c), err, want)
	}
}

// missing is refused with a *MissingError.
func (k *kit) missing(c manifest.Change, blobs, manifests []digest.Digest) {
	k.Helper()
	var got *manifest.MissingError
	if err := k.refused(c, manifest.ErrMissing); !errors.As(err, &got) || !sameSet(got.Blobs, blobs) || !sameSet(got.Manifests, manifests) {
		k.Fatalf("Apply(%s) = %v\nwant missing blobs %q and manifests %q", show(c), err, blobs, manifests)
	}
}

func (k *kit) get(rec manifest.Record) manifest.Record {
	k.Helper()
	got, err := k.s.Get(k.Context(), repo, rec.Desc.Digest)
	if err != nil {
		k.Fatalf("Get: %v", err)
	}
	return got
}

// noManifest fails the test if a manifest is there.
func (k *kit) noManifest(repo string, dgst digest.Digest) {
	k.Helper()
	if rec, err := k.s.Get(k.Context(), repo, dgst); !errors.Is(err, manifest.ErrNotFound) {
		k.Errorf("Get(%s, %s) = %s, %v, want ErrNotFound", repo, dgst, rec.Desc.Digest, err)
	}
}

// tagged fails the test unless a tag is at a digest since at; "" wants no tag.
func (k *kit) tagged(repo, name string, want digest.Digest, at time.Time) {
	k.Helper()
	got, err := k.s.Resolve(k.Context(), repo, name)
	switch {
	case want == "":
		if !errors.Is(err, manifest.ErrNotFound) {
			k.Errorf("Resolve(%s, %s) = %+v, %v, want ErrNotFound", repo, name, got, err)
		}
	case err != nil || got.Name != name || got.Digest != want || !got.MovedAt.Equal(at):
		k.Errorf("Resolve(%s, %s) = %+v, %v, want %s since %v", repo, name, got, err, want, at)
	}
}

// collect returns what a listing yields, and fails the test if it fails.
func collect[T any](k *kit, what string, seq iter.Seq2[T, error]) []T {
	k.Helper()
	var out []T
	for v, err := range seq {
		if err != nil {
			k.Fatalf("%s: %v", what, err)
		}
		out = append(out, v)
	}
	return out
}

func (k *kit) manifests(repo string, after digest.Digest) (out []digest.Digest) {
	k.Helper()
	for _, rec := range collect(k, "Manifests", k.s.Manifests(k.Context(), repo, after)) {
		out = append(out, rec.Desc.Digest)
	}
	return out
}

func (k *kit) tags(repo, after string) (out []string) {
	k.Helper()
	for _, t := range collect(k, "Tags", k.s.Tags(k.Context(), repo, after)) {
		out = append(out, t.Name)
	}
	return out
}

func (k *kit) referrers(repo string, subject digest.Digest, typ string, after digest.Digest) (out []digest.Digest) {
	k.Helper()
	for _, d := range collect(k, "Referrers", k.index().Referrers(k.Context(), repo, subject, typ, after)) {
		out = append(out, d.Digest)
	}
	return out
}

// dump shows everything in a repository, with the referrers of the digest that
// the clauses use.
func (k *kit) dump(repo string) string {
	k.Helper()
	var b strings.Builder
	for _, rec := range collect(k, "Manifests", k.s.Manifests(k.Context(), repo, "")) {
		fmt.Fprintf(&b, "manifest %s pushed %v, last %v, in class %q since %v\n", rec.Desc.Digest, rec.PushedAt.UTC(), rec.TouchedAt.UTC(), rec.StorageClass, rec.ClassSince().UTC())
	}
	for _, t := range collect(k, "Tags", k.s.Tags(k.Context(), repo, "")) {
		fmt.Fprintf(&b, "tag %s at %s since %v\n", t.Name, t.Digest, t.MovedAt.UTC())
	}
	_, self := k.s.(Index)
	if self || k.Options.Index != nil {
		for _, d := range k.referrers(repo, absentSubject, "", "") {
			fmt.Fprintf(&b, "referrer %s\n", d)
		}
	}
	return b.String()
}

// absentSubject is in no repository.
const absentSubject digest.Digest = "sha256:0000000000000000000000000000000000000000000000000000000000000000"

// show is c on one line, without the bytes.
func show(c manifest.Change) string {
	put := make([]string, len(c.Put))
	for i, rec := range c.Put {
		put[i] = rec.Desc.Annotations["org.example.name"] + "@" + string(rec.Desc.Digest)
	}
	return fmt.Sprintf("blobs %v, manifests %v, unchanged %v, put %v, tags %v, classes %v, delete %v", c.RequireBlobs, c.RequireManifests, c.Unchanged, put, c.Tags, c.Classes, c.Delete)
}

func sameSet[T ~string](a, b []T) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

// diff says in which field got is not want.
func diff(got, want manifest.Record) string {
	switch {
	case got.Desc.MediaType != want.Desc.MediaType, got.Desc.Digest != want.Desc.Digest, got.Desc.Size != want.Desc.Size:
		return fmt.Sprintf("Desc is %s %s %d, want %s %s %d", got.Desc.MediaType, got.Desc.Digest, got.Desc.Size, want.Desc.MediaType, want.Desc.Digest, want.Desc.Size)
	case diffEntry(got.Desc, want.Desc) != "":
		return diffEntry(got.Desc, want.Desc)
	case string(got.Raw) != string(want.Raw):
		return fmt.Sprintf("Raw is %q, want %q", got.Raw, want.Raw)
	case got.Subject != want.Subject:
		return fmt.Sprintf("Subject is %q, want %q", got.Subject, want.Subject)
	case !sameSet(got.Manifests, want.Manifests):
		return fmt.Sprintf("Manifests is %q, want %q", got.Manifests, want.Manifests)
	case !sameSet(got.Blobs, want.Blobs):
		return fmt.Sprintf("Blobs is %q, want %q", got.Blobs, want.Blobs)
	case !got.PushedAt.Equal(want.PushedAt):
		return fmt.Sprintf("PushedAt is %v, want %v", got.PushedAt, want.PushedAt)
	case !got.TouchedAt.Equal(want.TouchedAt):
		return fmt.Sprintf("TouchedAt is %v, want %v", got.TouchedAt, want.TouchedAt)
	}
	return ""
}

func diffEntry(got, want ocispec.Descriptor) string {
	text := func(d ocispec.Descriptor) string {
		return fmt.Sprintf("%s %s %d %q %q", d.MediaType, d.Digest, d.Size, d.ArtifactType, d.Annotations)
	}
	if text(got) != text(want) {
		return "descriptor is " + text(got) + ", want " + text(want)
	}
	return ""
}
