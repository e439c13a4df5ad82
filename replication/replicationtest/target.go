package replicationtest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/replication"
)

var errReader = errors.New("the reader's own error")

var targetClauses = []clause{
	{"Put stores what r yields", func(k *kit) {
		for _, content := range []string{"", "x", strings.Repeat("0123456789", 20_000)} {
			for range 2 { // that it is there is a success
				k.ok(blob.Put(k.Context(), k.target.Blobs, repo, describe(content), strings.NewReader(content)))
			}
			if got, ok := k.has(repo, describe(content)); !ok || got != content {
				k.Errorf("of %d bytes there are %d behind", len(content), len(got))
			}
		}
	}},
	{"Put of what the reader fails leaves nothing", func(k *kit) {
		desc := describe("what was promised")
		err := k.target.Blobs.Put(k.Context(), repo, desc, io.MultiReader(strings.NewReader("what was"), errorReader{}))
		if !errors.Is(err, errReader) {
			k.Errorf("error %v, want the reader's own", err)
		}
		if _, ok := k.has(repo, desc); ok {
			k.Error("the blob is there")
		}
		if blob.Put(k.Context(), k.target.Blobs, repo, desc, strings.NewReader("what was else 17!")) == nil {
			k.Error("other content has no error")
		}
		if _, ok := k.has(repo, desc); ok {
			k.Error("other content is there")
		}
	}},
	{"Receive sends what is not there", func(k *kit) {
		r := k.receiver()
		for _, content := range []string{"", "x", strings.Repeat("0123456789", 20_000)} {
			k.receive(r, repo, content, nil, replication.Sent)
		}
		k.keep(otherRepo, "elsewhere")
		k.receive(r, repo, "elsewhere", nil, replication.Sent)
	}},
	{"Receive opens nothing that is there", func(k *kit) {
		r := k.receiver()
		k.keep(repo, "here")
		if how := k.receive(r, repo, "here", nil, ""); how == replication.Sent {
			k.Error("it says that it has sent it")
		}
	}},
	{"Receive mounts from the repositories given", func(k *kit) {
		r := k.receiver()
		k.keep(otherRepo, "elsewhere")
		k.receive(r, repo, "elsewhere", []string{otherRepo}, replication.Mounted)
		k.receive(r, repo, "nowhere", []string{otherRepo}, replication.Sent)
	}},
	{"Receive of bad content leaves nothing", func(k *kit) {
		r := k.receiver()
		desc := describe("what was promised")
		_, err := r.Receive(k.Context(), repo, desc, nil, func(context.Context, int64) (io.ReadCloser, error) {
			return io.NopCloser(io.MultiReader(strings.NewReader("what was"), errorReader{})), nil
		})
		if !errors.Is(err, errReader) {
			k.Errorf("error %v, want the reader's own", err)
		}
		_, err = r.Receive(k.Context(), repo, desc, nil, func(context.Context, int64) (io.ReadCloser, error) { return nil, errReader })
		if !errors.Is(err, errReader) {
			k.Errorf("error %v, want that of open", err)
		}
		if _, ok := k.has(repo, desc); ok {
			k.Error("the blob is there")
		}
	}},
	{"Stat returns one Info per digest, in the order asked", func(k *kit) {
		r, ok := blob.As[blob.Reader](k.target.Blobs)
		if !ok {
			k.Skip("Blobs is no blob.Reader")
		}
		a, b := k.keep(repo, "bb"), k.keep(repo, "a")
		k.keep(otherRepo, "elsewhere")
		infos, err := r.Stat(k.Context(), repo, []digest.Digest{a.Digest, digest.FromString("elsewhere"), b.Digest})
		k.ok(err)
		if len(infos) != 3 || infos[0].Digest != a.Digest || infos[1].Digest != "" || infos[2].Digest != b.Digest || infos[0].Size != 2 {
			k.Errorf("got %+v", infos)
		}
	}},
	{"Mount shares what another repository has", func(k *kit) {
		m, ok := blob.As[blob.Mounter](k.target.Blobs)
		if !ok {
			k.Skip("Blobs is no blob.Mounter")
		}
		desc := k.keep(otherRepo, "elsewhere")
		k.ok(m.Mount(k.Context(), otherRepo, repo, desc.Digest))
		if got, _ := k.has(repo, desc); got != "elsewhere" {
			k.Errorf("got %q", got)
		}
		if err := m.Mount(k.Context(), otherRepo, repo, digest.FromString("nowhere")); !errors.Is(err, blob.ErrNotFound) {
			k.Errorf("error %v, want blob.ErrNotFound", err)
		}
	}},
	{"an upload goes on where it was saved", func(k *kit) {
		s, ok := blob.As[blob.Uploads](k.target.Blobs)
		if !ok {
			k.Skip("Blobs is no blob.Uploads")
		}
		ctx := k.Context()
		u, err := s.Begin(ctx, repo, digest.SHA256)
		k.ok(err)
		u, err = blob.Append(ctx, s, u, 0, strings.NewReader("hel"))
		k.ok(err)
		found, err := s.Lookup(ctx, repo, u.ID)
		k.ok(err)
		if found.Size != 3 {
			k.Fatalf("size %d after 3 bytes", found.Size)
		}
		found.Hash, found.Algorithm = u.Hash, u.Algorithm // which a registry over HTTP does not keep
		if blob.Finish(ctx, s, found, 3, strings.NewReader("LO"), digest.FromString("hello")) == nil {
			k.Error("other content has no error")
		}
		if _, ok := k.has(repo, describe("hello")); ok {
			k.Error("other content is there")
		}
		k.ok(blob.Finish(ctx, s, found, 3, strings.NewReader("lo"), digest.FromString("hello")))
		if got, _ := k.has(repo, describe("hello")); got != "hello" {
			k.Errorf("got %q", got)
		}
		if _, err := s.Lookup(ctx, repo, u.ID); !errors.Is(err, blob.ErrUploadNotFound) {
			k.Errorf("error %v after its end, want blob.ErrUploadNotFound", err)
		}
	}},
	{"Push stores the bytes under their digest, and points tags at them", func(k *kit) {
		desc, raw := k.image("layer")
		for range 2 { // that it is there is a success
			_, err := k.target.Manifests.Push(k.Context(), repo, manifest.PushRequest{MediaType: desc.MediaType, Raw: raw, Digest: desc.Digest, Tags: []string{"v1", "v2"}})
			k.ok(err)
		}
		rec, err := k.Manifests.Get(k.Context(), repo, desc.Digest)
		k.ok(err)
		if !bytes.Equal(rec.Raw, raw) || rec.Desc.MediaType != desc.MediaType {
			k.Errorf("got %+v, %q", rec.Desc, rec.Raw)
		}
		for _, name := range []string{"v1", "v2"} {
			for _, m := range []interface {
				Resolve(context.Context, string, string) (manifest.Tag, error)
			}{k.Manifests, k.target.Manifests} {
				if tag, err := m.Resolve(k.Context(), repo, name); err != nil || tag.Digest != desc.Digest {
					k.Errorf("tag %s: %+v, %v", name, tag, err)
				}
			}
		}
		other, raw := k.image("other")
		_, err = k.target.Manifests.Push(k.Context(), repo, manifest.PushRequest{MediaType: other.MediaType, Raw: raw, Digest: other.Digest, Tags: []string{"v1"}})
		k.ok(err)
		if tag, err := k.Manifests.Resolve(k.Context(), repo, "v1"); err != nil || tag.Digest != other.Digest {
			k.Errorf("tag v1 has not moved: %+v, %v", tag, err)
		}
	}},
	{"Push without tags moves none", func(k *kit) {
		desc, raw := k.image("layer")
		_, err := k.target.Manifests.Push(k.Context(), repo, manifest.PushRequest{MediaType: desc.MediaType, Raw: raw, Digest: desc.Digest})
		k.ok(err)
		if names, _ := k.tags(k.Manifests.Tags(k.Context(), repo, "")); len(names) > 0 {
			k.Errorf("tags %q", names)
		}
	}},
	{"Push refuses what lacks its blobs", func(k *kit) {
		desc, raw := k.build(manifest.ImageDraft{ArtifactType: "a/b", Layers: []ocispec.Descriptor{describe("nowhere")}})
		_, err := k.target.Manifests.Push(k.Context(), repo, manifest.PushRequest{MediaType: desc.MediaType, Raw: raw, Digest: desc.Digest, Tags: []string{"v1"}})
		k.notFound(err, manifest.ErrMissing)
		if _, err := k.Manifests.Get(k.Context(), repo, desc.Digest); err == nil {
			k.Error("it is there")
		}
	}},
	{"Push refuses other bytes than those of Digest", func(k *kit) {
		_, raw := k.image("layer")
		_, err := k.target.Manifests.Push(k.Context(), repo, manifest.PushRequest{MediaType: manifest.MediaTypeImage, Raw: raw, Digest: digest.FromString("other")})
		if err == nil {
			k.Error("there is no error")
		}
	}},
	{"Stat returns one descriptor per digest, in the order asked", func(k *kit) {
		s, ok := blob.As[manifest.Stater](k.target.Manifests)
		if !ok {
			k.Skip("Manifests is no manifest.Stater")
		}
		a, _ := k.keepImage(manifest.ImageDraft{ArtifactType: "a/b"}, "layer")
		b, _ := k.keepImage(manifest.ImageDraft{ArtifactType: "a/c"}, "other")
		descs, err := s.Stat(k.Context(), repo, []digest.Digest{b.Digest, digest.FromString("nowhere"), a.Digest})
		k.ok(err)
		if len(descs) != 3 || descs[0].Digest != b.Digest || descs[1].Digest != "" || descs[2].Digest != a.Digest || descs[0].Size != b.Size || descs[2].MediaType != a.MediaType {
			k.Errorf("got %+v", descs)
		}
	}},
	{"Resolve of what is not there is ErrNotFound and not temporary", func(k *kit) {
		_, err := k.target.Manifests.Resolve(k.Context(), repo, "v1")
		k.notFound(err, manifest.ErrNotFound)
	}},
	{"Tags lists by name", func(k *kit) { k.checkTags(k.target.Manifests.Tags) }},
	{"Referrers lists complete entries in order", func(k *kit) {
		if k.target.Referrers == nil {
			k.Skip("the Target has no Referrers")
		}
		k.checkReferrers(k.target.Referrers)
	}},
	{"what is pushed with a subject is listed as its referrer", func(k *kit) {
		subject, _ := k.keepImage(manifest.ImageDraft{ArtifactType: "a/b"}, "subject")
		k.keep(repo, "{}")
		desc, raw := k.build(manifest.ImageDraft{ArtifactType: "a/sig", Subject: &subject})
		_, err := k.target.Manifests.Push(k.Context(), repo, manifest.PushRequest{MediaType: desc.MediaType, Raw: raw, Digest: desc.Digest})
		k.ok(err)
		rec, err := k.Manifests.Get(k.Context(), repo, desc.Digest)
		k.ok(err)
		if rec.Subject != subject.Digest {
			k.Errorf("subject %q, want %s", rec.Subject, subject.Digest)
		}
		if k.target.Referrers == nil {
			return
		}
		if list := k.list(k.target.Referrers.Referrers(k.Context(), repo, subject.Digest, "", "")); len(list) != 1 || list[0].Digest != desc.Digest {
			k.Errorf("referrers %+v, want %s", list, desc.Digest)
		}
	}},
	{"Delete by digest removes an image with its tags", func(k *kit) {
		r := k.remover()
		desc, _ := k.keepImage(manifest.ImageDraft{ArtifactType: "a/b"}, "layer", "v1", "v2")
		_, err := r.Delete(k.Context(), repo, manifest.ImageID{Digest: desc.Digest})
		k.ok(err)
		if _, err := k.Manifests.Get(k.Context(), repo, desc.Digest); !manifest.IsNotFound(err) {
			k.Errorf("error %v, want manifest.ErrNotFound", err)
		}
		if names, _ := k.tags(k.Manifests.Tags(k.Context(), repo, "")); len(names) > 0 {
			k.Errorf("tags %q are left", names)
		}
		_, err = r.Delete(k.Context(), repo, manifest.ImageID{Digest: desc.Digest})
		k.notFound(err, manifest.ErrNotFound)
	}},
	{"Untag removes a tag if it names from, and leaves the image", func(k *kit) {
		r := k.remover()
		desc, _ := k.keepImage(manifest.ImageDraft{ArtifactType: "a/b"}, "layer", "v1", "v2", "v3")
		if err := r.Untag(k.Context(), repo, "v1", digest.FromString("other")); err == nil {
			k.Error("a tag that names something else has no error")
		}
		k.ok(r.Untag(k.Context(), repo, "v2", desc.Digest))
		k.ok(r.Untag(k.Context(), repo, "v3", ""))
		if names, _ := k.tags(k.Manifests.Tags(k.Context(), repo, "")); !slices.Equal(names, []string{"v1"}) {
			k.Errorf("tags %q are left, want v1", names)
		}
		if _, err := k.Manifests.Get(k.Context(), repo, desc.Digest); err != nil {
			k.Errorf("the image: %v", err)
		}
		k.notFound(r.Untag(k.Context(), repo, "v2", ""), manifest.ErrNotFound)
	}},
	{"a method returns the error of its context", func(k *kit) {
		desc, raw := k.image("layer")
		_, err := k.target.Manifests.Push(cancelled(k), repo, manifest.PushRequest{MediaType: desc.MediaType, Raw: raw, Digest: desc.Digest})
		k.contextError("Push", err)
		k.contextError("Put", blob.Put(cancelled(k), k.target.Blobs, repo, describe("new"), strings.NewReader("new")))
	}},
}

// image returns an image whose blobs are there.
func (k *kit) image(layer string) (ocispec.Descriptor, []byte) {
	k.Helper()
	k.keep(repo, "{}")
	return k.build(manifest.ImageDraft{ArtifactType: "a/b", Layers: []ocispec.Descriptor{k.keep(repo, layer)}})
}

func (k *kit) receiver() replication.Receiver {
	r, ok := blob.As[replication.Receiver](k.target.Blobs)
	if !ok {
		k.Skip("Blobs is no Receiver")
	}
	return r
}

func (k *kit) remover() replication.Remover {
	r, ok := blob.As[replication.Remover](k.target.Manifests)
	if !ok {
		k.Skip("Manifests is no Remover")
	}
	return r
}

// receive checks that content is in repo afterwards, and that it was opened if and
// only if it was sent.
func (k *kit) receive(r replication.Receiver, repo, content string, from []string, want replication.Received) replication.Received {
	k.Helper()
	opened := false
	how, err := r.Receive(k.Context(), repo, describe(content), from, func(_ context.Context, off int64) (io.ReadCloser, error) {
		opened = true
		return reader(content[off:]), nil
	})
	k.ok(err)
	if want != "" && how != want {
		k.Errorf("%.20q: %q, want %q", content, how, want)
	}
	if opened != (how == replication.Sent) {
		k.Errorf("%.20q: %q, and opened: %v", content, how, opened)
	}
	if got, ok := k.has(repo, describe(content)); !ok || got != content {
		k.Errorf("%.20q: of %d bytes there are %d behind", content, len(content), len(got))
	}
	return how
}

type errorReader struct{}

func (errorReader) Read([]byte) (int, error) { return 0, errReader }
