package replicationtest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/blob/memblob"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/manifest/memmanifest"
	"github.com/wharfage/wharfage/referrers"
	"github.com/wharfage/wharfage/replication"
)

func stores() Backing {
	blobs, manifests := new(memblob.Store), new(memmanifest.Store)
	manifests.MissingBlobs = blob.Missing(blobs)
	return Backing{blobs, manifests}
}

// receiver is a Receiver over a store. Its fields are the ways in which it can be
// wrong.
type receiver struct {
	blob.Store
	alwaysOpens, neverMounts, mountsAny, believes, anyRepo bool
}

func (r receiver) Receive(ctx context.Context, repo string, desc ocispec.Descriptor, from []string, open func(context.Context, int64) (io.ReadCloser, error)) (replication.Received, error) {
	if !r.alwaysOpens {
		if r.anyRepo {
			from = append(from, otherRepo)
		}
		for _, f := range append([]string{repo}, from...) {
			err := blob.Mount(ctx, r.Store, f, repo, desc.Digest)
			switch {
			case err == nil && f == repo:
				return replication.Present, nil
			case err == nil && !r.neverMounts, r.mountsAny && f != repo:
				return replication.Mounted, nil
			case err != nil && !errors.Is(err, blob.ErrNotFound):
				return "", err
			}
		}
	}
	content, err := open(ctx, 0)
	if err != nil {
		return "", err
	}
	defer content.Close()
	var in io.Reader = content
	if r.believes {
		b, _ := io.ReadAll(content)
		in = bytes.NewReader(b)
	}
	return replication.Sent, r.Store.Put(ctx, repo, desc, in)
}

type (
	source = replication.Source
	target = replication.Target
)

// Each mutant breaks one promise, and the kit must reject it, in the clause given
// at least. One without a clause is right.
var sourceMutants = []struct {
	name, clause string
	mutate       func(*source)
}{
	{"none", "", func(*source) {}},
	{"ignores the offset", "Open_yields", func(s *source) { s.Blobs = opens{s.Blobs, func(off, n *int64) { *off = 0 }} }},
	{"ignores the length", "Open_yields", func(s *source) { s.Blobs = opens{s.Blobs, func(off, n *int64) { *n = -1 }} }},
	{"a blob that is missing has another error", "Open_of_what", func(s *source) { s.Blobs = opensErr{s.Blobs, errors.New("404")} }},
	{"a blob that is missing is temporary", "Open_of_what", func(s *source) { s.Blobs = opensErr{s.Blobs, &replication.TemporaryError{Err: blob.ErrNotFound}} }},
	{"no Raw", "Get_returns", func(s *source) { s.Manifests = gets{s.Manifests, func(r *manifest.Record) { r.Raw = nil }} }},
	{"no media type", "Get_returns", func(s *source) {
		s.Manifests = gets{s.Manifests, func(r *manifest.Record) { r.Desc.MediaType = "application/json" }}
	}},
	{"a manifest that is missing has another error", "Get_of_what", func(s *source) { s.Manifests = hides{s.Manifests} }},
	{"a tag that is missing has another error", "Resolve_of_what", func(s *source) { s.Manifests = hides{s.Manifests} }},
	{"tags of another name", "Resolve_returns", func(s *source) { s.Manifests = renames{s.Manifests} }},
	{"tags in no order", "Tags", func(s *source) { s.Manifests = tags{s.Manifests, slices.Reverse[[]manifest.Tag], true} }},
	{"tags from the start", "Tags", func(s *source) { s.Manifests = tags{s.Manifests, func([]manifest.Tag) {}, false} }},
	{"referrers without annotations", "Referrers", func(s *source) {
		s.Referrers = entries{s.Referrers, func(d *ocispec.Descriptor) { d.Annotations = nil }}
	}},
	{"referrers without a type", "Referrers", func(s *source) {
		s.Referrers = entries{s.Referrers, func(d *ocispec.Descriptor) { d.ArtifactType = "" }}
	}},
	{"ignores the context", "a_method_returns", func(s *source) { s.Manifests = temporary{s.Manifests} }},
}

var targetMutants = []struct {
	name, clause string
	mutate       func(*target, Backing)
}{
	{"none", "", func(*target, Backing) {}},
	{"a receiver", "", func(t *target, b Backing) { t.Blobs = receiver{Store: b.Blobs} }},
	{"puts nothing", "Put_stores", func(t *target, b Backing) { t.Blobs = putsNothing{b.Blobs} }},
	{"puts bad content", "Put_of_what", func(t *target, b Backing) { t.Blobs = putsBad{b.Blobs} }},
	{"always sends", "Receive_opens", func(t *target, b Backing) { t.Blobs = receiver{Store: b.Blobs, alwaysOpens: true} }},
	{"takes another repository's", "Receive_sends", func(t *target, b Backing) { t.Blobs = receiver{Store: b.Blobs, anyRepo: true} }},
	{"never mounts", "Receive_mounts", func(t *target, b Backing) { t.Blobs = receiver{Store: b.Blobs, neverMounts: true} }},
	{"says that it has mounted", "Receive_mounts", func(t *target, b Backing) { t.Blobs = receiver{Store: b.Blobs, mountsAny: true} }},
	{"believes what it receives", "Receive_of_bad", func(t *target, b Backing) { t.Blobs = receiver{Store: b.Blobs, believes: true} }},
	{"stat in another order", "Stat_returns_one_Info", func(t *target, b Backing) { t.Blobs = statReversed{b.Blobs} }},
	{"mounts what is not there", "Mount_shares", func(t *target, b Backing) { t.Blobs = mountsAny{b.Blobs} }},
	{"an upload begins again", "an_upload", func(t *target, b Backing) { t.Blobs = forgets{b.Blobs} }},
	{"pushes without tags", "Push_stores", func(t *target, b Backing) {
		t.Manifests = pushes{t.Manifests.(replication.LocalManifests), func(in *manifest.PushRequest) { in.Tags = nil }}
	}},
	{"pushes the first tag only", "Push_stores", func(t *target, b Backing) {
		t.Manifests = pushes{t.Manifests.(replication.LocalManifests), func(in *manifest.PushRequest) { in.Tags = in.Tags[:min(1, len(in.Tags))] }}
	}},
	{"refuses what is there", "Push_stores", func(t *target, b Backing) {
		t.Manifests = pushes{t.Manifests.(replication.LocalManifests), func(in *manifest.PushRequest) { in.New = true }}
	}},
	{"invents a tag", "Push_without", func(t *target, b Backing) {
		t.Manifests = pushes{t.Manifests.(replication.LocalManifests), func(in *manifest.PushRequest) {
			if len(in.Tags) == 0 {
				in.Tags = []string{"latest"}
			}
		}}
	}},
	{"takes what lacks its blobs", "Push_refuses_what_lacks", func(t *target, b Backing) { b.Manifests.(*memmanifest.Store).MissingBlobs = memmanifest.Unchecked }},
	{"believes no digest", "Push_refuses_other", func(t *target, b Backing) {
		t.Manifests = pushes{t.Manifests.(replication.LocalManifests), func(in *manifest.PushRequest) { in.Digest = "" }}
	}},
	{"manifests in another order", "Stat_returns_one_descriptor", func(t *target, b Backing) { t.Manifests = statsSorted{t.Manifests.(replication.LocalManifests)} }},
	{"tags in no order", "Tags", func(t *target, b Backing) {
		t.Manifests = targetTags{t.Manifests.(replication.LocalManifests)}
	}},
	{"lists no referrers", "what_is_pushed", func(t *target, b Backing) { t.Referrers = entries{t.Referrers, nil} }},
	{"deletes nothing", "Delete", func(t *target, b Backing) { t.Manifests = deletes{t.Manifests.(replication.LocalManifests)} }},
	{"untags whatever it names", "Untag", func(t *target, b Backing) { t.Manifests = untags{t.Manifests.(replication.LocalManifests), false} }},
	{"untags the image", "Untag", func(t *target, b Backing) { t.Manifests = untags{t.Manifests.(replication.LocalManifests), true} }},
}

const mutantVar = "WHARFAGE_MUTANT"

func TestMutants(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	check := func(side, name, clause string) {
		t.Run(side+"/"+name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), exe, "-test.run=^TestMutant$/"+clause, "-test.timeout=60s")
			cmd.Env = append(os.Environ(), mutantVar+"="+side+"/"+name)
			out, err := cmd.CombinedOutput()
			_, failed := errors.AsType[*exec.ExitError](err)
			switch {
			case clause == "" && err != nil:
				t.Errorf("the kit rejects what is right: %v\n%s", err, out)
			case clause != "" && !failed:
				t.Errorf("the kit accepts it (error %v), want a failure of %s", err, clause)
			case clause != "" && !bytes.Contains(out, []byte("--- FAIL: TestMutant/"+clause)):
				t.Errorf("the kit rejects it, but not by %s:\n%.4000s", clause, out)
			}
		})
	}
	for _, m := range sourceMutants {
		check("source", m.name, m.clause)
	}
	for _, m := range targetMutants {
		check("target", m.name, m.clause)
	}
}

// TestMutant is the other process.
func TestMutant(t *testing.T) {
	side, name, _ := strings.Cut(os.Getenv(mutantVar), "/")
	for _, m := range sourceMutants {
		if side == "source" && m.name == name {
			TestSource(t, func(testing.TB) (replication.Source, Backing) {
				b := stores()
				s := replication.LocalSource(b.Blobs, b.Manifests)
				m.mutate(&s)
				return s, b
			})
		}
	}
	for _, m := range targetMutants {
		if side == "target" && m.name == name {
			TestTarget(t, func(testing.TB) (replication.Target, Backing) {
				b := stores()
				s := replication.LocalTarget(b.Blobs, b.Manifests)
				m.mutate(&s, b)
				return s, b
			})
		}
	}
}

type opens struct {
	replication.BlobReader
	change func(off, n *int64)
}

func (s opens) Open(ctx context.Context, repo string, dgst digest.Digest, off, n int64) (io.ReadCloser, blob.Info, error) {
	s.change(&off, &n)
	return s.BlobReader.Open(ctx, repo, dgst, off, n)
}

type opensErr struct {
	replication.BlobReader
	err error
}

func (s opensErr) Open(ctx context.Context, repo string, dgst digest.Digest, off, n int64) (io.ReadCloser, blob.Info, error) {
	r, info, err := s.BlobReader.Open(ctx, repo, dgst, off, n)
	if err != nil {
		err = s.err
	}
	return r, info, err
}

type gets struct {
	replication.ManifestReader
	change func(*manifest.Record)
}

func (s gets) Get(ctx context.Context, repo string, dgst digest.Digest) (manifest.Record, error) {
	r, err := s.ManifestReader.Get(ctx, repo, dgst)
	s.change(&r)
	return r, err
}

type hides struct{ replication.ManifestReader }

func (s hides) Get(ctx context.Context, repo string, dgst digest.Digest) (manifest.Record, error) {
	r, err := s.ManifestReader.Get(ctx, repo, dgst)
	return r, opaque(err)
}

func (s hides) Resolve(ctx context.Context, repo, tag string) (manifest.Tag, error) {
	r, err := s.ManifestReader.Resolve(ctx, repo, tag)
	return r, opaque(err)
}

func opaque(err error) error {
	if err != nil {
		err = fmt.Errorf("%v", err)
	}
	return err
}

type temporary struct{ replication.ManifestReader }

func (s temporary) Get(ctx context.Context, repo string, dgst digest.Digest) (manifest.Record, error) {
	r, err := s.ManifestReader.Get(ctx, repo, dgst)
	if err = cmp.Or(err, ctx.Err()); err != nil {
		err = &replication.TemporaryError{Err: err}
	}
	return r, err
}

type renames struct{ replication.ManifestReader }

func (s renames) Resolve(ctx context.Context, repo, tag string) (manifest.Tag, error) {
	t, err := s.ManifestReader.Resolve(ctx, repo, tag)
	t.Name = ""
	return t, err
}

type tags struct {
	replication.ManifestReader
	change func([]manifest.Tag)
	after  bool
}

func (s tags) Tags(ctx context.Context, repo, after string) iter.Seq2[manifest.Tag, error] {
	if !s.after {
		after = ""
	}
	return changed(s.ManifestReader.Tags(ctx, repo, after), s.change)
}

func changed(list iter.Seq2[manifest.Tag, error], change func([]manifest.Tag)) iter.Seq2[manifest.Tag, error] {
	return func(yield func(manifest.Tag, error) bool) {
		var all []manifest.Tag
		for t, err := range list {
			if err != nil {
				yield(t, err)
				return
			}
			all = append(all, t)
		}
		change(all)
		for _, t := range all {
			if !yield(t, nil) {
				return
			}
		}
	}
}

type entries struct {
	referrers.Index
	change func(*ocispec.Descriptor) // nil lists none
}

func (x entries) Referrers(ctx context.Context, repo string, subject digest.Digest, artifactType string, after digest.Digest) iter.Seq2[ocispec.Descriptor, error] {
	return func(yield func(ocispec.Descriptor, error) bool) {
		for d, err := range x.Index.Referrers(ctx, repo, subject, artifactType, after) {
			if x.change == nil {
				return
			}
			x.change(&d)
			if !yield(d, err) {
				return
			}
		}
	}
}

type putsNothing struct{ blob.Store }

func (s putsNothing) Put(ctx context.Context, repo string, desc ocispec.Descriptor, r io.Reader) error {
	_, err := io.Copy(io.Discard, r)
	return err
}

type putsBad struct{ blob.Store }

func (s putsBad) Put(ctx context.Context, repo string, desc ocispec.Descriptor, r io.Reader) error {
	b, err := io.ReadAll(r)
	return cmp.Or(s.Store.Put(ctx, repo, desc, bytes.NewReader(b)), err)
}

type statReversed struct{ blob.Store }

func (s statReversed) Stat(ctx context.Context, repo string, dgsts []digest.Digest) ([]blob.Info, error) {
	infos, err := s.Store.Stat(ctx, repo, dgsts)
	slices.Reverse(infos)
	return infos, err
}

type mountsAny struct{ blob.Store }

func (s mountsAny) Mount(ctx context.Context, from, repo string, dgst digest.Digest) error {
	err := s.Store.(blob.Mounter).Mount(ctx, from, repo, dgst)
	if errors.Is(err, blob.ErrNotFound) {
		err = nil
	}
	return err
}

type forgets struct{ blob.Store }

func (s forgets) Lookup(ctx context.Context, repo, id string) (blob.Upload, error) {
	u, err := s.Store.Lookup(ctx, repo, id)
	u.Size = 0
	return u, err
}

type pushes struct {
	replication.LocalManifests
	change func(*manifest.PushRequest)
}

func (s pushes) Push(ctx context.Context, repo string, in manifest.PushRequest) (manifest.Pushed, error) {
	s.change(&in)
	return s.LocalManifests.Push(ctx, repo, in)
}

type statsSorted struct{ replication.LocalManifests }

func (s statsSorted) Stat(ctx context.Context, repo string, dgsts []digest.Digest) ([]ocispec.Descriptor, error) {
	out, err := s.LocalManifests.Stat(ctx, repo, dgsts)
	return slices.DeleteFunc(out, func(d ocispec.Descriptor) bool { return d.Digest == "" }), err
}

type targetTags struct{ replication.LocalManifests }

func (s targetTags) Tags(ctx context.Context, repo, after string) iter.Seq2[manifest.Tag, error] {
	return changed(s.LocalManifests.Tags(ctx, repo, after), slices.Reverse[[]manifest.Tag])
}

type deletes struct{ replication.LocalManifests }

func (s deletes) Delete(context.Context, string, manifest.ImageID) ([]manifest.ImageID, error) {
	return nil, nil
}

type untags struct {
	replication.LocalManifests
	image bool
}

func (s untags) Untag(ctx context.Context, repo, tag string, from digest.Digest) error {
	if s.image {
		_, err := s.LocalManifests.Delete(ctx, repo, manifest.ImageID{Tag: tag, Digest: from})
		if t, e := s.LocalManifests.Resolve(ctx, repo, "v1"); e == nil && err == nil && from != "" {
			_, err = s.LocalManifests.Delete(ctx, repo, manifest.ImageID{Digest: t.Digest})
		}
		return err
	}
	return s.LocalManifests.Untag(ctx, repo, tag, "")
}
