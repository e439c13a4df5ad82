// Package replicationtest checks that a [replication.Source] or a
// [replication.Target] keeps the promises of package replication. A test is a few
// lines:
//
//	replicationtest.TestTarget(t, func(t testing.TB) (replication.Target, replicationtest.Backing) {
//		registry := wharfage.NewMemory()
//		return open(t, registry), replicationtest.Backing{Blobs: registry.Blobs, Manifests: registry.Manifests}
//	})
package replicationtest

import (
	"bytes"
	"context"
	"io"
	"iter"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/referrers"
	"github.com/wharfage/wharfage/replication"
)

// Backing is what lies behind the Source or Target that is checked: stores of this
// process that the registry keeps everything in.
type Backing struct {
	Blobs     blob.Store
	Manifests manifest.Store
}

// TestSource checks a Source. open returns an empty one for each clause. Each subtest
// is named by the sentence it checks.
func TestSource(t *testing.T, open func(t testing.TB) (replication.Source, Backing)) {
	for _, c := range sourceClauses {
		t.Run(c.name, func(t *testing.T) {
			source, behind := open(t)
			c.check(&kit{T: t, Backing: behind, source: source})
		})
	}
}

// TestTarget checks a Target, with the abilities that it has. open returns an empty
// one for each clause; behind it tags may move, and content may be deleted.
func TestTarget(t *testing.T, open func(t testing.TB) (replication.Target, Backing)) {
	for _, c := range targetClauses {
		t.Run(c.name, func(t *testing.T) {
			target, behind := open(t)
			c.check(&kit{T: t, Backing: behind, target: target})
		})
	}
}

type clause struct {
	name  string
	check func(*kit)
}

const repo, otherRepo = "team/app", "team/app2"

// kit is one clause under way.
type kit struct {
	*testing.T
	Backing
	source replication.Source
	target replication.Target
}

func (k *kit) ok(err error) {
	k.Helper()
	if err != nil {
		k.Fatal(err)
	}
}

func describe(content string) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromString(content), Size: int64(len(content))}
}

// keep puts a blob into the stores behind.
func (k *kit) keep(repo, content string) ocispec.Descriptor {
	k.Helper()
	desc := describe(content)
	k.ok(blob.Put(k.Context(), k.Blobs, repo, desc, strings.NewReader(content)))
	return desc
}

func (k *kit) build(d manifest.ImageDraft) (ocispec.Descriptor, []byte) {
	k.Helper()
	raw, desc, err := d.Build()
	k.ok(err)
	return desc, raw
}

// keepImage puts an image of one layer into the stores behind.
func (k *kit) keepImage(d manifest.ImageDraft, layer string, tags ...string) (ocispec.Descriptor, []byte) {
	k.Helper()
	k.keep(repo, "{}")
	d.Layers = []ocispec.Descriptor{k.keep(repo, layer)}
	desc, raw := k.build(d)
	p := manifest.Pusher{Store: k.Manifests}
	_, err := p.Push(k.Context(), repo, manifest.PushRequest{MediaType: desc.MediaType, Raw: raw, Tags: tags})
	k.ok(err)
	return desc, raw
}

// has tells what lies behind under a digest.
func (k *kit) has(repo string, desc ocispec.Descriptor) (string, bool) {
	k.Helper()
	content, _, err := k.Blobs.Open(k.Context(), repo, desc.Digest, 0, -1)
	if err != nil {
		return "", false
	}
	defer content.Close()
	b, err := io.ReadAll(content)
	k.ok(err)
	return string(b), true
}

// tags lists all names; it fails unless they ascend from after on.
func (k *kit) tags(list iter.Seq2[manifest.Tag, error]) (names []string, digests map[string]digest.Digest) {
	k.Helper()
	digests = map[string]digest.Digest{}
	for tag, err := range list {
		k.ok(err)
		names = append(names, tag.Name)
		digests[tag.Name] = tag.Digest
	}
	return names, digests
}

// checkTags is what both sides promise of a list of tags.
func (k *kit) checkTags(list func(ctx context.Context, repo, after string) iter.Seq2[manifest.Tag, error]) {
	k.Helper()
	want := []string{"1", "A", "_", "a", "a-1", "a.1", "a1"}
	desc, _ := k.keepImage(manifest.ImageDraft{ArtifactType: "a/b"}, "layer", want...)
	slices.Sort(want)
	names, digests := k.tags(list(k.Context(), repo, ""))
	if !slices.Equal(names, want) {
		k.Errorf("tags %q, want %q", names, want)
	}
	for name, dgst := range digests {
		if dgst != "" && dgst != desc.Digest {
			k.Errorf("tag %s is at %s, want %s or nothing", name, dgst, desc.Digest)
		}
	}
	if names, _ = k.tags(list(k.Context(), repo, "a-1")); !slices.Equal(names, want[5:]) {
		k.Errorf("tags after a-1: %q, want %q", names, want[5:])
	}
	if names, _ = k.tags(list(k.Context(), otherRepo, "")); len(names) > 0 {
		k.Errorf("an empty repository has the tags %q", names)
	}
	n := 0
	for _, err := range list(k.Context(), repo, "") {
		k.ok(err)
		for range list(k.Context(), repo, "") { // the loop body may ask again, and stop
			break
		}
		if n++; n == 2 {
			break
		}
	}
	ctx, cancel := context.WithCancel(k.Context())
	cancel()
	var last error
	for _, err := range list(ctx, repo, "") {
		last = err
	}
	if last == nil {
		k.Error("a listing without a context that lives has no error")
	}
}

// checkReferrers is what both sides promise of an Index.
func (k *kit) checkReferrers(x referrers.Index) {
	k.Helper()
	subject, _ := k.keepImage(manifest.ImageDraft{ArtifactType: "a/b"}, "subject")
	for _, typ := range []string{"a/sbom", "a/sig", "a/sbom"} {
		k.keepImage(manifest.ImageDraft{ArtifactType: typ, Subject: &subject, Annotations: map[string]string{"k": typ}}, rand(k))
	}
	for _, typ := range []string{"", "a/sbom", "a/none"} {
		want := k.list(referrers.Scan(k.Manifests).Referrers(k.Context(), repo, subject.Digest, typ, ""))
		have := k.list(x.Referrers(k.Context(), repo, subject.Digest, typ, ""))
		if len(want) != len(have) {
			k.Errorf("%d referrers of type %q, want %d", len(have), typ, len(want))
			continue
		}
		for i, d := range have {
			w := want[i]
			if d.Digest != w.Digest || d.MediaType != w.MediaType || d.Size != w.Size || d.ArtifactType != w.ArtifactType || d.Annotations["k"] != w.Annotations["k"] {
				k.Errorf("referrer %d is %+v, want %+v", i, d, w)
			}
		}
		if len(want) > 1 {
			if rest := k.list(x.Referrers(k.Context(), repo, subject.Digest, typ, want[0].Digest)); len(rest) != len(want)-1 || rest[0].Digest != want[1].Digest {
				k.Errorf("after %s: %v", want[0].Digest, rest)
			}
		}
	}
	if none := k.list(x.Referrers(k.Context(), repo, digest.FromString("nowhere"), "", "")); len(none) > 0 {
		k.Errorf("an absent subject has referrers: %v", none)
	}
}

func (k *kit) list(list iter.Seq2[ocispec.Descriptor, error]) (out []ocispec.Descriptor) {
	k.Helper()
	for d, err := range list {
		k.ok(err)
		out = append(out, d)
	}
	return out
}

// rand returns text that no other call returns.
func rand(k *kit) string {
	n := 0
	for range k.Blobs.Blobs(k.Context(), repo, "") {
		n++
	}
	return strings.Repeat("x", 100+n)
}

func cancelled(k *kit) context.Context {
	ctx, cancel := context.WithCancel(k.Context())
	cancel()
	return ctx
}

func reader(s string) io.ReadCloser { return io.NopCloser(bytes.NewReader([]byte(s))) }
