package replicationtest

import (
	"bytes"
	"errors"
	"io"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/replication"
)

var sourceClauses = []clause{
	{"Open yields n bytes from off on", func(k *kit) {
		content := strings.Repeat("0123456789", 20_000)
		desc := k.keep(repo, content)
		size := desc.Size
		for _, c := range []struct{ off, n, end int64 }{
			{0, -1, size}, {1, -1, size}, {0, 10, 10}, {7, 5, 12}, {size - 3, -1, size}, {size - 3, 10, size},
		} {
			r, info, err := k.source.Blobs.Open(k.Context(), repo, desc.Digest, c.off, c.n)
			k.ok(err)
			got, err := io.ReadAll(r)
			k.ok(err)
			k.ok(r.Close())
			if string(got) != content[c.off:c.end] {
				k.Errorf("%d bytes from %d on: %.20q and so on, %d bytes", c.n, c.off, got, len(got))
			}
			if info.Size != -1 && info.Size != size {
				k.Errorf("%d bytes from %d on: the blob has size %d, want %d or -1", c.n, c.off, info.Size, size)
			}
		}
	}},
	{"Open of what is not there is ErrNotFound and not temporary", func(k *kit) {
		k.keep(otherRepo, "elsewhere")
		for _, content := range []string{"nowhere", "elsewhere"} {
			_, _, err := k.source.Blobs.Open(k.Context(), repo, digest.FromString(content), 0, -1)
			k.notFound(err, blob.ErrNotFound)
		}
	}},
	{"Get returns a manifest with its Raw", func(k *kit) {
		subject, _ := k.keepImage(manifest.ImageDraft{ArtifactType: "a/b"}, "subject")
		desc, raw := k.keepImage(manifest.ImageDraft{ArtifactType: "a/b", Subject: &subject}, "layer")
		rec, err := k.source.Manifests.Get(k.Context(), repo, desc.Digest)
		k.ok(err)
		if !bytes.Equal(rec.Raw, raw) || rec.Desc.Digest != desc.Digest || rec.Desc.MediaType != desc.MediaType || rec.Desc.Size != desc.Size {
			k.Errorf("got %+v, %q, want %+v, %q", rec.Desc, rec.Raw, desc, raw)
		}
	}},
	{"Get of what is not there is ErrNotFound and not temporary", func(k *kit) {
		layer := k.keep(repo, "a layer is no manifest")
		for _, dgst := range []digest.Digest{digest.FromString("nowhere"), layer.Digest} {
			_, err := k.source.Manifests.Get(k.Context(), repo, dgst)
			k.notFound(err, manifest.ErrNotFound)
		}
	}},
	{"Resolve returns a tag", func(k *kit) {
		desc, _ := k.keepImage(manifest.ImageDraft{ArtifactType: "a/b"}, "layer", "v1")
		tag, err := k.source.Manifests.Resolve(k.Context(), repo, "v1")
		k.ok(err)
		if tag.Name != "v1" || tag.Digest != desc.Digest {
			k.Errorf("got %+v, want v1 at %s", tag, desc.Digest)
		}
	}},
	{"Resolve of what is not there is ErrNotFound and not temporary", func(k *kit) {
		_, err := k.source.Manifests.Resolve(k.Context(), repo, "v1")
		k.notFound(err, manifest.ErrNotFound)
	}},
	{"Tags lists by name", func(k *kit) { k.checkTags(k.source.Manifests.Tags) }},
	{"Referrers lists complete entries in order", func(k *kit) {
		if k.source.Referrers == nil {
			k.Skip("the Source has no Referrers")
		}
		k.checkReferrers(k.source.Referrers)
	}},
	{"a method returns the error of its context", func(k *kit) {
		desc, _ := k.keepImage(manifest.ImageDraft{ArtifactType: "a/b"}, "layer", "v1")
		ctx := cancelled(k)
		_, err := k.source.Manifests.Get(ctx, repo, desc.Digest)
		k.contextError("Get", err)
		_, err = k.source.Manifests.Resolve(ctx, repo, "v1")
		k.contextError("Resolve", err)
		r, _, err := k.source.Blobs.Open(ctx, repo, digest.FromString("layer"), 0, -1)
		if err == nil {
			_, err = io.ReadAll(r)
			r.Close()
		}
		k.contextError("Open", err)
	}},
}

func (k *kit) notFound(err, want error) {
	k.Helper()
	if !errors.Is(err, want) {
		k.Errorf("error %v, want %v", err, want)
	}
	if _, ok := errors.AsType[*replication.TemporaryError](err); ok {
		k.Errorf("%v is temporary: it would be tried again", err)
	}
}

// contextError takes what a store in memory does, which need not ask the context
// before it answers at once.
func (k *kit) contextError(op string, err error) {
	k.Helper()
	if err == nil {
		return
	}
	if k.Context().Err() == nil && !errors.Is(err, cancelled(k).Err()) {
		k.Errorf("%s: error %v, want that of the context", op, err)
	}
	if _, ok := errors.AsType[*replication.TemporaryError](err); ok {
		k.Errorf("%s: %v is temporary: it would be tried again", op, err)
	}
}
