//go:build linux

package crash

import (
	"fmt"
	"maps"
	"strconv"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/manifest"
)

// The operations of a history on manifests and tags.

func (w *worker) pushImage(repo string) error {
	in := w.in[repo]
	if len(in.blobs) == 0 {
		return w.put(repo)
	}
	blobDesc := func(mediaType string) ocispec.Descriptor {
		i, _ := pickKey(w, in.blobs)
		return ocispec.Descriptor{MediaType: mediaType, Digest: digestOf(i), Size: int64(len(bytesOf(i)))}
	}
	config := blobDesc(ocispec.MediaTypeImageConfig)
	draft := manifest.ImageDraft{Config: &config, Annotations: map[string]string{"n": strconv.Itoa(w.rand.IntN(20))}}
	for range 1 + w.rand.IntN(3) {
		draft.Layers = append(draft.Layers, blobDesc(ocispec.MediaTypeImageLayer))
	}
	if subject, ok := pickKey(w, in.manifests); ok && w.rand.IntN(4) == 0 {
		desc := in.manifests[subject]
		draft.Subject = &desc
	}
	raw, desc, err := draft.Build()
	if err != nil {
		return err
	}
	return w.push(repo, raw, desc)
}

func (w *worker) pushIndex(repo string) error {
	child, ok := pickKey(w, w.in[repo].manifests)
	if !ok {
		return w.pushImage(repo)
	}
	raw, desc, err := manifest.IndexDraft{
		Manifests:   []ocispec.Descriptor{w.in[repo].manifests[child]},
		Annotations: map[string]string{"n": strconv.Itoa(w.rand.IntN(20))},
	}.Build()
	if err != nil {
		return err
	}
	return w.push(repo, raw, desc)
}

func (w *worker) push(repo string, raw []byte, desc ocispec.Descriptor) error {
	in := w.in[repo]
	desc = ocispec.Descriptor{MediaType: desc.MediaType, Digest: desc.Digest, Size: desc.Size}
	o := object("manifest", repo, string(desc.Digest))
	s := said{What: "push " + o, After: map[string][]string{o: there(len(raw))}, Raw: map[string]string{string(desc.Digest): string(raw)}}
	request := manifest.PushRequest{MediaType: desc.MediaType, Raw: raw}
	if w.rand.IntN(4) > 0 {
		request.Tags = []string{w.tag()}
		s.After[object("tag", repo, request.Tags[0])] = []string{string(desc.Digest)}
	}
	done, err := w.do(s, func() error {
		p := manifest.Pusher{Store: w.manifests}
		_, err := p.Push(w.ctx, repo, request)
		return err
	})
	if done {
		in.manifests[desc.Digest] = desc
		for _, t := range request.Tags {
			in.tags[t] = desc.Digest
		}
	}
	return err
}

func (w *worker) tag() string { return fmt.Sprintf("v%d", w.rand.IntN(4)) }

func (w *worker) moveTag(repo string) error {
	to, ok := pickKey(w, w.in[repo].manifests)
	if !ok {
		return w.pushImage(repo)
	}
	return w.applyTag(repo, manifest.TagMove{Name: w.tag(), To: to})
}

func (w *worker) deleteTag(repo string) error {
	tag, ok := pickKey(w, w.in[repo].tags)
	if !ok {
		return w.pushImage(repo)
	}
	return w.applyTag(repo, manifest.TagMove{Name: tag})
}

func (w *worker) applyTag(repo string, move manifest.TagMove) error {
	o := object("tag", repo, move.Name)
	s := said{What: "move to " + string(move.To) + " " + o, After: map[string][]string{o: {string(move.To)}}}
	done, err := w.do(s, func() error { return w.manifests.Apply(w.ctx, repo, manifest.Change{Tags: []manifest.TagMove{move}}) })
	if done && move.To == "" {
		delete(w.in[repo].tags, move.Name)
	} else if done {
		w.in[repo].tags[move.Name] = move.To
	}
	return err
}

func (w *worker) deleteManifest(repo string) error {
	in := w.in[repo]
	dgst, ok := pickKey(w, in.manifests)
	if !ok {
		return w.pushImage(repo)
	}
	o := object("manifest", repo, string(dgst))
	s := said{What: "delete " + o, After: map[string][]string{o: {""}}}
	for tag, d := range in.tags {
		if d == dgst {
			s.After[object("tag", repo, tag)] = []string{""}
		}
	}
	done, err := w.do(s, func() error {
		return w.manifests.Apply(w.ctx, repo, manifest.Change{Delete: []manifest.Removal{{Digest: dgst, IfUnlisted: true}}})
	})
	if done {
		delete(in.manifests, dgst)
		maps.DeleteFunc(in.tags, func(_ string, d digest.Digest) bool { return d == dgst })
	}
	return err
}
