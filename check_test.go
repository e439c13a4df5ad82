package wharfage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/blob/memblob"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/manifest/memmanifest"
	"github.com/wharfage/wharfage/referrers"
)

// readOnlyBlobs has no method but those that Check may call: any other panics.
type readOnlyBlobs struct {
	blob.Store // nil
	inner      blob.Store

	open func(dgst digest.Digest, n int64, r io.ReadCloser, info *blob.Info) (io.ReadCloser, error)
	list func(info *blob.Info) error
}

func (s *readOnlyBlobs) Abilities() []any { return []any{s.inner} }

func (s *readOnlyBlobs) Open(ctx context.Context, repo string, dgst digest.Digest, off, n int64) (io.ReadCloser, blob.Info, error) {
	r, info, err := s.inner.Open(ctx, repo, dgst, off, n)
	if err == nil && s.open != nil {
		r, err = s.open(dgst, n, r, &info)
	}
	return r, info, err
}

func (s *readOnlyBlobs) Blobs(ctx context.Context, repo string, after digest.Digest) iter.Seq2[blob.Info, error] {
	return altered(s.inner.Blobs(ctx, repo, after), s.list)
}

// readOnlyManifests likewise.
type readOnlyManifests struct {
	manifest.Store // nil
	inner          *memmanifest.Store

	get     func(rec *manifest.Record) error
	list    func(rec *manifest.Record) error
	resolve func(t *manifest.Tag) error
	tags    func(t *manifest.Tag) error
	repos   func(*string) error
	refer   func(subject digest.Digest, typ string, list []ocispec.Descriptor) ([]ocispec.Descriptor, error)
}

func (s *readOnlyManifests) Get(ctx context.Context, repo string, dgst digest.Digest) (manifest.Record, error) {
	rec, err := s.inner.Get(ctx, repo, dgst)
	if err == nil && s.get != nil {
		err = s.get(&rec)
	}
	return rec, err
}

func (s *readOnlyManifests) Manifests(ctx context.Context, repo string, after digest.Digest) iter.Seq2[manifest.Record, error] {
	return altered(s.inner.Manifests(ctx, repo, after), s.list)
}

func (s *readOnlyManifests) Resolve(ctx context.Context, repo, tag string) (manifest.Tag, error) {
	t, err := s.inner.Resolve(ctx, repo, tag)
	if err == nil && s.resolve != nil {
		err = s.resolve(&t)
	}
	return t, err
}

func (s *readOnlyManifests) Tags(ctx context.Context, repo, after string) iter.Seq2[manifest.Tag, error] {
	return altered(s.inner.Tags(ctx, repo, after), s.tags)
}

func (s *readOnlyManifests) Repos(ctx context.Context, after string) iter.Seq2[string, error] {
	return altered(s.inner.Repos(ctx, after), s.repos)
}

func (s *readOnlyManifests) Referrers(ctx context.Context, repo string, subject digest.Digest, typ string, after digest.Digest) iter.Seq2[ocispec.Descriptor, error] {
	if s.refer == nil {
		return s.inner.Referrers(ctx, repo, subject, typ, after)
	}
	return func(yield func(ocispec.Descriptor, error) bool) {
		var list []ocispec.Descriptor
		for desc := range s.inner.Referrers(ctx, repo, subject, typ, after) {
			list = append(list, desc)
		}
		list, err := s.refer(subject, typ, list)
		for _, desc := range list {
			if !yield(desc, nil) {
				return
			}
		}
		if err != nil {
			yield(ocispec.Descriptor{}, err)
		}
	}
}

var errHidden = errors.New("hidden")

// altered leaves out items for which alter returns errHidden.
func altered[T any](list iter.Seq2[T, error], alter func(*T) error) iter.Seq2[T, error] {
	if alter == nil {
		return list
	}
	return func(yield func(T, error) bool) {
		for item, err := range list {
			if err == nil {
				if err = alter(&item); err == errHidden {
					continue
				}
			}
			if !yield(item, err) || err != nil {
				return
			}
		}
	}
}

// checked is a registry with something of every kind in it.
type checked struct {
	*Handler
	blobs     *readOnlyBlobs
	manifests *readOnlyManifests

	memory                                                                              *Handler
	config, layer, alone, child, image, index, unknown, sbom, signature, lonely, opaque digest.Digest
}

func putBlob(t testing.TB, s blob.Writer, repo, content string) ocispec.Descriptor {
	t.Helper()
	desc := ocispec.Descriptor{MediaType: "text/plain", Digest: digest.FromString(content), Size: int64(len(content))}
	if err := blob.Put(t.Context(), s, repo, desc, strings.NewReader(content)); err != nil {
		t.Fatal(err)
	}
	return desc
}

func pushRaw(t testing.TB, h *Handler, repo string, in manifest.PushRequest) ocispec.Descriptor {
	t.Helper()
	p := h.pusher()
	p.Accept = append(manifest.DefaultAccept(), "application/vnd.example.opaque", manifest.MediaTypeDockerSchema1)
	done, err := p.Push(t.Context(), repo, in)
	if err != nil {
		t.Fatal(err)
	}
	return ocispec.Descriptor{MediaType: done.Record.Desc.MediaType, Digest: done.Record.Desc.Digest, Size: done.Record.Desc.Size}
}

func newChecked(t testing.TB) *checked {
	t.Helper()
	h := NewMemory()
	push := func(draft interface {
		Build() ([]byte, ocispec.Descriptor, error)
	}, tags ...string) ocispec.Descriptor {
		t.Helper()
		raw, _, err := draft.Build()
		if err != nil {
			t.Fatal(err)
		}
		return pushRaw(t, h, "r", manifest.PushRequest{Raw: raw, Tags: tags})
	}
	_, empty := manifest.Empty()
	putBlob(t, h.Blobs, "r", string(empty))
	config, layer, alone := putBlob(t, h.Blobs, "r", "config"), putBlob(t, h.Blobs, "r", "layer"), putBlob(t, h.Blobs, "r", "alone")
	foreign := ocispec.Descriptor{MediaType: "application/vnd.oci.image.layer.nondistributable.v1.tar", Digest: digest.FromString("foreign"), Size: 7}
	child := push(manifest.ImageDraft{Config: &config, Layers: []ocispec.Descriptor{layer}})
	image := push(manifest.ImageDraft{Config: &config, Layers: []ocispec.Descriptor{layer, foreign, layer}, Annotations: map[string]string{"a": "b"}}, "latest", "v1")
	// One entry of a type that is unknown is a manifest here, the other a blob.
	ofType := func(d ocispec.Descriptor) ocispec.Descriptor {
		d.MediaType = "application/vnd.example.unknown"
		return d
	}
	unknown := push(manifest.ImageDraft{ArtifactType: "a/unknown", Layers: []ocispec.Descriptor{config}})
	index := push(manifest.IndexDraft{Manifests: []ocispec.Descriptor{child, ofType(unknown), ofType(layer)}}, "multi")
	sbom := push(manifest.ImageDraft{ArtifactType: "a/sbom", Subject: &image, Annotations: map[string]string{"n": "<1>"}})
	signature := push(manifest.ImageDraft{ArtifactType: "a/signature", Subject: &image})
	absent := ocispec.Descriptor{MediaType: manifest.MediaTypeImage, Digest: "blake3:" + digest.Digest(strings.Repeat("0", 64)), Size: 1}
	lonely := push(manifest.IndexDraft{ArtifactType: "a/sbom", Subject: &absent})
	opaque := pushRaw(t, h, "r", manifest.PushRequest{MediaType: "application/vnd.example.opaque", Raw: []byte("anything")})
	pushRaw(t, h, "r", manifest.PushRequest{MediaType: manifest.MediaTypeDockerSchema1,
		Raw: []byte(`{"schemaVersion":1,"name":"r","tag":"t","architecture":"a","fsLayers":[{"blobSum":"` + string(layer.Digest) + `"}],"history":[]}`)})
	pushRaw(t, h, "r", manifest.PushRequest{Raw: []byte(`{"schemaVersion":2,"mediaType":"` + manifest.MediaTypeIndex + `","manifests":[]}`),
		Digest: digest.SHA512.FromString(`{"schemaVersion":2,"mediaType":"` + manifest.MediaTypeIndex + `","manifests":[]}`), Tags: []string{"sha512"}})
	putBlob(t, h.Blobs, "blobs/only", "only")

	c := &checked{
		blobs: &readOnlyBlobs{inner: h.Blobs}, manifests: &readOnlyManifests{inner: h.Manifests.(*memmanifest.Store)}, memory: h,
		config: config.Digest, layer: layer.Digest, alone: alone.Digest, child: child.Digest, image: image.Digest, index: index.Digest,
		unknown: unknown.Digest, sbom: sbom.Digest, signature: signature.Digest, lonely: lonely.Digest, opaque: opaque.Digest,
	}
	c.Handler = &Handler{Blobs: c.blobs, Manifests: c.manifests}
	return c
}

// problems runs a whole check. Each is told as "kind object by".
func problems(t testing.TB, h *Handler, o CheckOptions) (found []string) {
	t.Helper()
	for p, err := range Check(t.Context(), h, o) {
		if err != nil {
			t.Fatal(err)
		}
		if p.Repo == "" || p.String() == "" || p.Detail == "" && p.Err == nil {
			t.Errorf("%#v does not say enough", p)
		}
		found = append(found, strings.TrimSpace(fmt.Sprintf("%s %s %s", p.Kind, p.Object, p.By)))
	}
	return found
}

func TestIntactRegistryHasNoProblem(t *testing.T) {
	c := newChecked(t)
	for _, h := range []*Handler{c.memory, c.Handler, {Blobs: c.blobs, Manifests: c.manifests, Referrers: referrers.Scan(c.manifests)}} {
		for _, o := range []CheckOptions{{}, {Bytes: true}, {Bytes: true, Repos: []string{"r", "none", "r"}}, {Repos: []string{}}} {
			if found := problems(t, h, o); found != nil {
				t.Errorf("%+v: %q", o, found)
			}
		}
	}
}

// TestCheckTellsEachDamage: exactly the problem that a damage is, and no other.
func TestCheckTellsEachDamage(t *testing.T) {
	lost := errors.New("disk fell off")
	gone := func(err error) error { return fmt.Errorf("wrapped: %w", err) }
	// only makes an alteration of one manifest.
	only := func(dgst digest.Digest, alter func(rec *manifest.Record) error) func(rec *manifest.Record) error {
		return func(rec *manifest.Record) error {
			if rec.Desc.Digest != dgst {
				return nil
			}
			return alter(rec)
		}
	}
	hide := func(rec *manifest.Record) error {
		if rec.Raw == nil {
			return errHidden // from a list
		}
		return gone(manifest.ErrNotFound)
	}
	opened := func(c *checked, dgst digest.Digest, alter func(n int64, r io.ReadCloser, info *blob.Info) (io.ReadCloser, error)) {
		c.blobs.open = func(d digest.Digest, n int64, r io.ReadCloser, info *blob.Info) (io.ReadCloser, error) {
			if d != dgst {
				return r, nil
			}
			return alter(n, r, info)
		}
	}
	facts := map[string]func(rec *manifest.Record){
		"digest":        func(rec *manifest.Record) { rec.Desc.Digest = digest.FromString("other") },
		"media type":    func(rec *manifest.Record) { rec.Desc.MediaType = manifest.MediaTypeDockerManifest },
		"artifact type": func(rec *manifest.Record) { rec.Desc.ArtifactType = "" },
		"annotation":    func(rec *manifest.Record) { rec.Desc.Annotations = map[string]string{"n": "2"} },
		"no subject":    func(rec *manifest.Record) { rec.Subject = "" },
		"child":         func(rec *manifest.Record) { rec.Manifests = []digest.Digest{digest.FromString("x")} },
		"no blobs":      func(rec *manifest.Record) { rec.Blobs = nil },
	}
	type damage struct {
		name string
		do   func(c *checked)
		want func(c *checked) []string
	}
	problem := func(kind ProblemKind, object func(c *checked) string) func(c *checked) []string {
		return func(c *checked) []string { return []string{string(kind) + " " + object(c)} }
	}
	sbom := func(c *checked) string { return string(c.sbom) }
	signatureOfImage := func(c *checked) string { return string(c.signature + " " + c.image) }
	latest := func(c *checked) string { return string("latest " + c.image) }
	damages := []damage{
		{"a byte of a document", func(c *checked) {
			c.manifests.get = only(c.sbom, func(rec *manifest.Record) error { rec.Raw[9] ^= 1; return nil })
		}, problem(ProblemDigest, sbom)},
		{"a document of another", func(c *checked) {
			c.manifests.get = only(c.opaque, func(rec *manifest.Record) error { rec.Raw = []byte("else"); return nil })
		}, problem(ProblemDigest, func(c *checked) string { return string(c.opaque) })},
		{"a document that no type fits", func(c *checked) {
			c.manifests.get = only(c.opaque, func(rec *manifest.Record) error { rec.Desc.MediaType = manifest.MediaTypeImage; return nil })
		}, problem(ProblemInvalid, func(c *checked) string { return string(c.opaque) })},
		{"size of a record", func(c *checked) {
			c.manifests.get = only(c.sbom, func(rec *manifest.Record) error { rec.Desc.Size++; return nil })
		}, problem(ProblemSize, sbom)},
		{"size in the list", func(c *checked) {
			c.manifests.list = only(c.sbom, func(rec *manifest.Record) error { rec.Desc.Size++; return nil })
		}, problem(ProblemSize, sbom)},
		{"a blob that was a manifest's entry", func(c *checked) {
			c.manifests.list = only(c.index, func(rec *manifest.Record) error {
				rec.Manifests, rec.Blobs = append(rec.Manifests, rec.Blobs...), nil
				return nil
			})
			c.manifests.get = c.manifests.list
		}, problem(ProblemChild, func(c *checked) string { return string(c.layer + " " + c.index) })},
		{"manifest that cannot be read", func(c *checked) {
			c.manifests.get = only(c.image, func(*manifest.Record) error { return lost })
		}, problem(ProblemUnread, func(c *checked) string { return string(c.image) })},
		{"manifest that is listed only", func(c *checked) {
			c.manifests.get = only(c.image, hide)
		}, problem(ProblemMissing, func(c *checked) string { return string(c.image) })},
		{"manifests that cannot be listed", func(c *checked) {
			c.manifests.list = only(c.image, func(*manifest.Record) error { return lost })
		}, problem(ProblemUnread, func(c *checked) string { return "" })},
		{"child that is gone", func(c *checked) {
			c.manifests.get = only(c.child, hide)
			c.manifests.list = c.manifests.get
		}, problem(ProblemChild, func(c *checked) string { return string(c.child + " " + c.index) })},
		{"entry of unknown type that is gone", func(c *checked) {
			c.manifests.get = only(c.unknown, hide)
			c.manifests.list = c.manifests.get
		}, problem(ProblemChild, func(c *checked) string { return string(c.unknown + " " + c.index) })},
		{"child that is gone, where it may", func(c *checked) {
			c.Pusher.Sparse = true
			c.manifests.get = only(c.child, hide)
			c.manifests.list = c.manifests.get
		}, func(*checked) []string { return nil }},
		{"blob that is gone", func(c *checked) {
			opened(c, digest.FromString("{}"), func(int64, io.ReadCloser, *blob.Info) (io.ReadCloser, error) { return nil, gone(blob.ErrNotFound) })
		}, func(c *checked) (want []string) {
			by := []digest.Digest{c.unknown, c.sbom, c.signature}
			slices.Sort(by)
			for _, d := range by {
				want = append(want, fmt.Sprintf("missing %s %s", digest.FromString("{}"), d))
			}
			return want
		}},
		{"blob that cannot be opened", func(c *checked) {
			opened(c, c.config, func(int64, io.ReadCloser, *blob.Info) (io.ReadCloser, error) { return nil, lost })
		}, func(c *checked) []string {
			return []string{fmt.Sprintf("unread %s %s", c.config, min(c.child, c.image, c.unknown))}
		}},
		{"blob that is listed only", func(c *checked) {
			opened(c, c.alone, func(int64, io.ReadCloser, *blob.Info) (io.ReadCloser, error) { return nil, gone(blob.ErrNotFound) })
		}, problem(ProblemMissing, func(c *checked) string { return string(c.alone) })},
		{"size of a blob, opened", func(c *checked) {
			opened(c, c.layer, func(n int64, r io.ReadCloser, info *blob.Info) (io.ReadCloser, error) {
				if n == 0 {
					info.Size++
				}
				return r, nil
			})
		}, func(c *checked) (want []string) {
			by := []digest.Digest{c.child, c.image}
			slices.Sort(by)
			for _, d := range by {
				want = append(want, fmt.Sprintf("size %s %s", c.layer, d))
			}
			return want
		}},
		{"size of a blob, listed", func(c *checked) {
			c.blobs.list = func(info *blob.Info) error {
				if info.Digest == c.alone {
					info.Size++
				}
				return nil
			}
		}, problem(ProblemSize, func(c *checked) string { return string(c.alone) })},
		{"a byte of a blob", func(c *checked) {
			opened(c, c.layer, func(n int64, r io.ReadCloser, info *blob.Info) (io.ReadCloser, error) {
				b, err := io.ReadAll(r)
				if n != 0 {
					b[0] ^= 1
				}
				return io.NopCloser(bytes.NewReader(b)), err
			})
		}, problem(ProblemDigest, func(c *checked) string { return string(c.layer) })},
		{"the end of a blob", func(c *checked) {
			opened(c, c.layer, func(n int64, r io.ReadCloser, info *blob.Info) (io.ReadCloser, error) {
				return io.NopCloser(io.LimitReader(r, 2)), nil
			})
		}, problem(ProblemSize, func(c *checked) string { return string(c.layer) })},
		{"a blob that cannot be read to its end", func(c *checked) {
			opened(c, c.layer, func(n int64, r io.ReadCloser, info *blob.Info) (io.ReadCloser, error) {
				return io.NopCloser(io.MultiReader(io.LimitReader(r, 2), iotest.ErrReader(lost))), nil
			})
		}, problem(ProblemUnread, func(c *checked) string { return string(c.layer) })},
		{"blobs that cannot be listed", func(c *checked) {
			c.blobs.list = func(*blob.Info) error { return lost }
		}, func(*checked) []string { return []string{"unread", "unread"} }}, // in each repository
		{"tag that does not resolve", func(c *checked) {
			c.manifests.resolve = func(t *manifest.Tag) error {
				if t.Name == "latest" {
					return gone(manifest.ErrNotFound)
				}
				return nil
			}
		}, problem(ProblemTag, latest)},
		{"tag that resolves to another", func(c *checked) {
			c.manifests.resolve = func(t *manifest.Tag) error {
				if t.Name == "latest" {
					t.Digest = c.child
				}
				return nil
			}
		}, problem(ProblemTag, latest)},
		{"tag that moved at another time", func(c *checked) {
			c.manifests.tags = func(t *manifest.Tag) error {
				if t.Name == "latest" {
					t.MovedAt = t.MovedAt.Add(time.Second)
				}
				return nil
			}
		}, problem(ProblemTag, latest)},
		{"tag that names nothing", func(c *checked) {
			c.manifests.tags = func(t *manifest.Tag) error {
				if t.Name == "latest" {
					t.Digest = digest.FromString("nothing")
				}
				return nil
			}
			c.manifests.resolve = c.manifests.tags
		}, problem(ProblemDangling, func(c *checked) string { return "latest " + string(digest.FromString("nothing")) })},
		{"tag that cannot be read", func(c *checked) {
			c.manifests.resolve = func(t *manifest.Tag) error {
				if t.Name == "latest" {
					return lost
				}
				return nil
			}
		}, problem(ProblemUnread, func(c *checked) string { return "latest" })},
		{"tags that cannot be listed", func(c *checked) {
			c.manifests.tags = func(t *manifest.Tag) error { return lost }
		}, problem(ProblemUnread, func(c *checked) string { return "" })},
		{"referrer that is not listed", func(c *checked) {
			c.manifests.refer = func(_ digest.Digest, _ string, list []ocispec.Descriptor) ([]ocispec.Descriptor, error) {
				return slices.DeleteFunc(list, func(d ocispec.Descriptor) bool { return d.Digest == c.signature }), nil
			}
		}, problem(ProblemReferrers, signatureOfImage)},
		{"referrer that is not listed by its type", func(c *checked) {
			c.manifests.refer = func(_ digest.Digest, typ string, list []ocispec.Descriptor) ([]ocispec.Descriptor, error) {
				return slices.DeleteFunc(list, func(d ocispec.Descriptor) bool { return typ != "" && d.Digest == c.signature }), nil
			}
		}, problem(ProblemReferrers, signatureOfImage)},
		{"referrer of a subject that is absent", func(c *checked) {
			c.manifests.refer = func(_ digest.Digest, typ string, list []ocispec.Descriptor) ([]ocispec.Descriptor, error) {
				return slices.DeleteFunc(list, func(d ocispec.Descriptor) bool { return d.Digest == c.lonely }), nil
			}
		}, problem(ProblemReferrers, func(c *checked) string {
			return string(c.lonely) + " blake3:" + strings.Repeat("0", 64)
		})},
		{"referrer that is none", func(c *checked) {
			c.manifests.refer = func(subject digest.Digest, typ string, list []ocispec.Descriptor) ([]ocispec.Descriptor, error) {
				if subject == c.child {
					list = append(list, ocispec.Descriptor{MediaType: manifest.MediaTypeImage, Digest: c.sbom, Size: 1})
				}
				return list, nil
			}
		}, problem(ProblemReferrers, func(c *checked) string { return string(c.sbom + " " + c.child) })},
		{"referrer that is gone", func(c *checked) {
			c.manifests.refer = func(subject digest.Digest, typ string, list []ocispec.Descriptor) ([]ocispec.Descriptor, error) {
				if subject == c.image {
					list = append(list, ocispec.Descriptor{MediaType: manifest.MediaTypeImage, Digest: digest.FromString("gone"), Size: 1})
				}
				return list, nil
			}
		}, problem(ProblemReferrers, func(c *checked) string { return string(digest.FromString("gone") + " " + c.image) })},
		{"referrer without its annotations", func(c *checked) {
			c.manifests.refer = func(subject digest.Digest, typ string, list []ocispec.Descriptor) ([]ocispec.Descriptor, error) {
				for i := range list {
					list[i].Annotations = nil
				}
				return list, nil
			}
		}, problem(ProblemReferrers, func(c *checked) string { return string(c.sbom + " " + c.image) })},
		{"referrers that cannot be listed", func(c *checked) {
			c.manifests.refer = func(subject digest.Digest, typ string, list []ocispec.Descriptor) ([]ocispec.Descriptor, error) {
				if subject == c.image {
					return list[:1], lost
				}
				return list, nil
			}
		}, problem(ProblemUnread, func(c *checked) string { return string(c.image) })},
	}
	for name, alter := range facts {
		damages = append(damages,
			damage{name + " of a record", func(c *checked) {
				c.manifests.get = only(c.sbom, func(rec *manifest.Record) error { alter(rec); return nil })
			}, problem(ProblemFacts, sbom)})
		if name != "digest" {
			damages = append(damages, damage{name + " in the list", func(c *checked) {
				c.manifests.list = only(c.sbom, func(rec *manifest.Record) error { alter(rec); return nil })
			}, problem(ProblemFacts, sbom)})
		}
	}
	for _, d := range damages {
		t.Run(d.name, func(t *testing.T) {
			c := newChecked(t)
			d.do(c)
			var want []string
			for _, p := range d.want(c) {
				want = append(want, strings.TrimSpace(p))
			}
			if found := problems(t, c.Handler, CheckOptions{Bytes: true}); !slices.Equal(found, want) {
				t.Errorf("found %q, want %q", found, want)
			}
		})
	}
}

// TestCheckGoesOnAfterWhatCannotBeRead: in a repository, and in the next.
func TestCheckGoesOnAfterWhatCannotBeRead(t *testing.T) {
	c := newChecked(t)
	lost := errors.New("disk fell off")
	c.manifests.list = func(*manifest.Record) error { return lost }
	c.manifests.tags = func(*manifest.Tag) error { return lost }
	c.blobs.list = func(info *blob.Info) error { info.Size++; return nil }
	var wrong int
	for _, p := range problems(t, c.Handler, CheckOptions{Bytes: true}) {
		if strings.HasPrefix(p, string(ProblemSize)) {
			wrong++
		} else if p != string(ProblemUnread) {
			t.Error(p)
		}
	}
	if wrong != 5 {
		t.Errorf("%d blobs were found wrong, not all 5", wrong)
	}
}

func TestWhatEndsACheck(t *testing.T) {
	c := newChecked(t)
	ended := func(ctx context.Context, h *Handler, o CheckOptions) (last error) {
		t.Helper()
		for p, err := range Check(ctx, h, o) {
			if last != nil || err == nil || p != (Problem{}) {
				t.Errorf("%v, %v after %v", p, err, last)
			}
			last = err
		}
		return last
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, o := range []CheckOptions{{}, {Repos: []string{"r"}}} {
		if err := ended(ctx, c.Handler, o); !errors.Is(err, context.Canceled) {
			t.Errorf("ended ctx, %+v: %v", o, err)
		}
	}
	if err := ended(t.Context(), c.Handler, CheckOptions{Repos: []string{"r", "No"}}); !errors.Is(err, manifest.ErrName) {
		t.Errorf("a name that is none: %v", err)
	}
	lost := errors.New("disk fell off")
	c.manifests.repos = func(*string) error { return lost }
	if err := ended(t.Context(), c.Handler, CheckOptions{}); !errors.Is(err, lost) {
		t.Errorf("failing list of repositories: %v", err)
	}
	if err := ended(t.Context(), &Handler{Blobs: c.blobs, Manifests: struct{ manifest.Store }{c.manifests}}, CheckOptions{}); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("no list of repositories: %v", err)
	}
	// While it reads a blob.
	c.manifests.repos = nil
	ctx, cancel = context.WithCancel(t.Context())
	c.blobs.open = func(_ digest.Digest, n int64, r io.ReadCloser, _ *blob.Info) (io.ReadCloser, error) {
		if n != 0 {
			cancel()
		}
		return r, nil
	}
	if err := ended(ctx, c.Handler, CheckOptions{Bytes: true}); !errors.Is(err, context.Canceled) {
		t.Errorf("ctx that ended meanwhile: %v", err)
	}
	// By its caller.
	c.blobs.open = func(digest.Digest, int64, io.ReadCloser, *blob.Info) (io.ReadCloser, error) { return nil, lost }
	for range Check(t.Context(), c.Handler, CheckOptions{Bytes: true}) {
		break
	}
}

// TestCheckTouchesNothing: also where a Stat would. That it calls no other
// method is what readOnlyBlobs and readOnlyManifests see to.
func TestCheckTouchesNothing(t *testing.T) {
	c := newChecked(t)
	c.memory.Blobs.(*memblob.Store).Now = func() time.Time { return time.Now().Add(1000 * time.Hour) }
	state := func() (out []string) {
		for _, repo := range []string{"r", "blobs/only"} {
			for info, err := range c.memory.Blobs.Blobs(t.Context(), repo, "") {
				out = append(out, fmt.Sprint(info, err))
			}
			for rec, err := range c.memory.Manifests.Manifests(t.Context(), repo, "") {
				out = append(out, fmt.Sprint(rec, err))
			}
		}
		return out
	}
	was := state()
	reads := map[digest.Digest]int{}
	c.blobs.open = func(dgst digest.Digest, n int64, r io.ReadCloser, _ *blob.Info) (io.ReadCloser, error) {
		if n != 0 {
			reads[dgst]++
		}
		return r, nil
	}
	if found := problems(t, c.Handler, CheckOptions{Bytes: true}); found != nil {
		t.Error(found)
	}
	if is := state(); !slices.Equal(is, was) {
		t.Errorf("is\n%q, was\n%q", is, was)
	}
	if len(reads) != 5 {
		t.Errorf("%d blobs were read, not 5", len(reads))
	}
	for dgst, n := range reads {
		if n != 1 {
			t.Errorf("%s was read %d times", dgst, n)
		}
	}
}

// TestCheckBesideWriters: what comes and goes meanwhile is no problem. Three
// writers push and delete the same manifests and blobs again and again, one
// repository each and one for all.
func TestCheckBesideWriters(t *testing.T) {
	for name, h := range registries(t) {
		t.Run(name, func(t *testing.T) {
			const writers, rounds = 3, 150
			var clients errgroup.Group
			var left atomic.Int32
			left.Store(writers)
			for w := range writers {
				clients.Go(func() error {
					defer left.Add(-1)
					for round := range rounds {
						for _, repo := range []string{"shared", fmt.Sprint("own", w)} {
							if err := pushAndDelete(t.Context(), h, repo, round%3); err != nil {
								return err
							}
						}
					}
					return nil
				})
			}
			for more := true; more; {
				more = left.Load() > 0
				if found := problems(t, h, CheckOptions{Bytes: true}); found != nil {
					t.Errorf("%q", found)
					break
				}
			}
			if err := clients.Wait(); err != nil {
				t.Error(err)
			}
		})
	}
}

// pushAndDelete makes an image, an index, referrers and tags, and takes them
// away again. Others may do the same meanwhile.
func pushAndDelete(ctx context.Context, h *Handler, repo string, n int) error {
	meanwhile := func(err error) error {
		for _, target := range []error{blob.ErrNotFound, blob.ErrConflict, manifest.ErrNotFound, manifest.ErrConflict, manifest.ErrMissing} {
			if errors.Is(err, target) {
				return nil
			}
		}
		return err
	}
	var done []digest.Digest
	push := func(draft interface {
		Build() ([]byte, ocispec.Descriptor, error)
	}, tags ...string) (ocispec.Descriptor, error) {
		raw, desc, err := draft.Build()
		if err == nil {
			done = append(done, desc.Digest)
			_, err = h.pusher().Push(ctx, repo, manifest.PushRequest{Raw: raw, Tags: tags})
		}
		return desc, meanwhile(err)
	}
	content := fmt.Sprint("layer", n)
	layer := ocispec.Descriptor{MediaType: "text/plain", Digest: digest.FromString(content), Size: int64(len(content))}
	config, empty := manifest.Empty()
	if err := errors.Join(
		blob.Put(ctx, h.Blobs, repo, config, bytes.NewReader(empty)),
		blob.Put(ctx, h.Blobs, repo, layer, strings.NewReader(content)),
	); err != nil {
		return err
	}
	image, err := push(manifest.ImageDraft{ArtifactType: "a/b", Layers: []ocispec.Descriptor{layer}}, "latest", content)
	if err != nil {
		return err
	}
	_, err1 := push(manifest.ImageDraft{ArtifactType: "a/sbom", Subject: &image})
	_, err2 := push(manifest.ImageDraft{ArtifactType: "a/signature", Subject: &image})
	_, err3 := push(manifest.IndexDraft{Manifests: []ocispec.Descriptor{image}, Subject: &image}, "latest")
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	slices.Reverse(done)
	for _, d := range done {
		if err := meanwhile(h.Manifests.Apply(ctx, repo, manifest.Change{At: h.now(), Delete: []manifest.Removal{{Digest: d, IfUnlisted: true}}})); err != nil {
			return err
		}
	}
	return errors.Join(
		meanwhile(h.Blobs.Delete(ctx, repo, layer.Digest, time.Time{})),
		meanwhile(h.Blobs.Delete(ctx, repo, config.Digest, time.Time{})),
	)
}

func TestBeforeIsADigestJustBefore(t *testing.T) {
	for _, d := range [][2]string{{"9", "8"}, {"a", "9"}, {"f", "e"}, {"10", "0f"}, {"a0", "9f"}} {
		pad := func(s string) digest.Digest { return digest.Digest("sha256:" + strings.Repeat("0", 64-len(s)) + s) }
		if got := before(pad(d[0])); got != pad(d[1]) {
			t.Errorf("before %s is %s", d[0], got)
		}
	}
	if got := before("sha256:" + digest.Digest(strings.Repeat("0", 64))); got != "" {
		t.Errorf("before the first is %q", got)
	}
}
