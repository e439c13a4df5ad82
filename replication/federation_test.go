package replication_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/blob/memblob"
	"github.com/wharfage/wharfage/events"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/manifest/memmanifest"
	"github.com/wharfage/wharfage/replication"
	"github.com/wharfage/wharfage/replication/memqueue"
	"github.com/wharfage/wharfage/repository"
	"github.com/wharfage/wharfage/repository/memrepository"
)

// federation is some registries, each of which may replicate to any other.
type federation struct {
	testing.TB
	mu      sync.Mutex // of members
	members map[replication.Registry]*member
	// link is asked before anything is written over a link; nil means that all work.
	link  func(from, to replication.Registry) error
	allow func(to replication.Registry, a replication.Access) error
}

// member is one of a federation.
type member struct {
	f *federation
	replication.Registry
	blobs         *memblob.Store
	manifests     *memmanifest.Store
	repositories  *repository.Registry
	configuration replication.Configuration
	r             *replication.Replicator

	mu   sync.Mutex
	told []events.Replication
	came map[string]int // what has come over each link, and how often
}

func newFederation(t testing.TB) *federation {
	return &federation{TB: t, members: map[replication.Registry]*member{}}
}

func (f *federation) member(name replication.Registry) *member {
	f.mu.Lock()
	defer f.mu.Unlock()
	m := f.members[name]
	if m != nil {
		return m
	}
	m = &member{f: f, Registry: name, blobs: &memblob.Store{}, came: map[string]int{}}
	m.manifests = &memmanifest.Store{KeepEvents: true, MissingBlobs: blob.Missing(m.blobs)}
	m.repositories = &repository.Registry{Store: new(memrepository.Store)}
	m.r = &replication.Replicator{
		Self: name, Source: replication.LocalSource(m.blobs, m.manifests), Queue: new(memqueue.Queue),
		Configuration: func(context.Context) (replication.Configuration, error) { return m.configuration, nil },
		Destinations: func(ctx context.Context, to replication.Registry) (replication.Destination, error) {
			return f.member(to).destination(m), nil
		},
	}
	f.members[name] = m
	return m
}

// pusher is that of clients, and of copies.
func (m *member) pusher() *manifest.Pusher {
	return &manifest.Pusher{Store: m.manifests, MoveTag: func(ctx context.Context, repo, tag string, from, to digest.Digest) error {
		have, err := m.repositories.Get(ctx, repo)
		if err != nil {
			return nil // not one of those with settings
		}
		return have.Mutability().MoveTag(ctx, repo, tag, from, to)
	}}
}

// destination is m as others see it.
func (m *member) destination(from *member) replication.Destination {
	target := replication.LocalTarget(m.blobs, m.manifests)
	target.Manifests = replication.LocalManifests{
		Reader: m.manifests, Pusher: m.pusher(), Deleter: &manifest.Deleter{Store: m.manifests, Cause: manifest.CauseReplication},
	}
	target.Blobs = linked{target.Blobs.(blob.Store), m, from}
	target.Manifests = linkedManifests{target.Manifests.(replication.LocalManifests), m, from}
	return replication.Destination{
		Target: target,
		Ensure: func(ctx context.Context, repo string, allow func() error) error {
			_, _, err := m.repositories.Ensure(ctx, repo, repository.CauseReplication, func(repository.Settings) error { return allow() })
			return err
		},
		Allow: func(_ context.Context, a replication.Access) error {
			if m.f.allow == nil {
				return nil
			}
			return m.f.allow(m.Registry, a)
		},
		Tell: func(_ context.Context, e events.Replication) {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.told = append(m.told, e)
		},
	}
}

func (m *member) arrived(from *member, what string) error {
	if m.f.link != nil {
		if err := m.f.link(from.Registry, m.Registry); err != nil {
			return &replication.TemporaryError{Err: err}
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.came[from.String()+" "+what]++
	return nil
}

// linked counts blobs that come over a link.
type linked struct {
	blob.Store
	m, from *member
}

func (l linked) Put(ctx context.Context, repo string, desc ocispec.Descriptor, r io.Reader) error {
	if err := l.m.arrived(l.from, "blob "+repo+"@"+string(desc.Digest)); err != nil {
		return err
	}
	return l.Store.Put(ctx, repo, desc, r)
}

type linkedManifests struct {
	replication.LocalManifests
	m, from *member
}

func (l linkedManifests) Push(ctx context.Context, repo string, in manifest.PushRequest) (manifest.Pushed, error) {
	if err := l.m.arrived(l.from, fmt.Sprintf("manifest %s@%s %q", repo, digest.FromBytes(in.Raw), in.Tags)); err != nil {
		return manifest.Pushed{}, err
	}
	return l.LocalManifests.Push(ctx, repo, in)
}

func (l linkedManifests) Untag(ctx context.Context, repo, tag string, from digest.Digest) error {
	if l.m.f.link != nil {
		if err := l.m.f.link(l.from.Registry, l.m.Registry); err != nil {
			return &replication.TemporaryError{Err: err}
		}
	}
	return l.LocalManifests.Untag(ctx, repo, tag, from)
}

// push pushes an image of its own content, which is made of text.
func (m *member) push(repo, text string, subject digest.Digest, tags ...string) digest.Digest {
	m.f.Helper()
	ctx := context.Background()
	layer := []byte("layer of " + text)
	if _, _, err := m.repositories.Ensure(ctx, repo, repository.CauseReplication, nil); err != nil {
		m.f.Fatal(err)
	}
	desc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromBytes(layer), Size: int64(len(layer))}
	for _, content := range [][]byte{layer, []byte("{}")} {
		d := ocispec.Descriptor{Digest: digest.FromBytes(content), Size: int64(len(content))}
		if err := blob.Put(ctx, m.blobs, repo, d, bytes.NewReader(content)); err != nil {
			m.f.Fatal(err)
		}
	}
	draft := manifest.ImageDraft{
		ArtifactType: "application/vnd.example.test.v1", Layers: []ocispec.Descriptor{desc}, Annotations: map[string]string{"n": text},
	}
	if subject != "" {
		draft.Subject = &ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: subject, Size: 10}
	}
	raw, _, err := draft.Build()
	if err != nil {
		m.f.Fatal(err)
	}
	done, err := m.pusher().Push(ctx, repo, manifest.PushRequest{Raw: raw, Tags: tags})
	if err != nil {
		m.f.Fatal(err)
	}
	return done.Record.Desc.Digest
}

// enqueue makes jobs of what was changed.
func (m *member) enqueue() {
	m.f.Helper()
	if err := manifest.Drain(context.Background(), m.manifests, m.r.Enqueue); err != nil {
		m.f.Fatal(err)
	}
}

// settle replicates until nothing is left to do.
func (f *federation) settle() {
	f.Helper()
	for range 10 {
		before := 0
		f.mu.Lock()
		members := slices.Collect(maps.Values(f.members))
		f.mu.Unlock()
		for _, m := range members {
			m.enqueue()
			for e := range m.r.Queue.Entries(f.Context(), replication.EntryFilter{State: replication.StateWaiting}, 0) {
				_ = e
				before++
			}
			if err := m.r.RunDue(f.Context()); err != nil {
				f.Fatal(err)
			}
		}
		if before == 0 {
			return
		}
	}
	f.Fatal("the registries do not come to rest")
}

// plan takes what has changed out of the outbox, and returns the jobs for it.
func (m *member) plan() (jobs []replication.Job) {
	m.f.Helper()
	if err := manifest.Drain(context.Background(), m.manifests, func(_ context.Context, c manifest.Committed) error {
		jobs = append(jobs, m.r.Plan(m.configuration, c)...)
		return nil
	}); err != nil {
		m.f.Fatal(err)
	}
	return jobs
}

// digest is what a tag names.
func (m *member) digest(repo, tag string) digest.Digest {
	m.f.Helper()
	got, err := m.manifests.Resolve(context.Background(), repo, tag)
	if err != nil {
		m.f.Fatal(err)
	}
	return got.Digest
}

// images returns the tags of each image of a repository.
func (m *member) images(repo string) map[digest.Digest][]string {
	m.f.Helper()
	out := map[digest.Digest][]string{}
	for rec, err := range m.manifests.Manifests(context.Background(), repo, "") {
		if err != nil {
			m.f.Fatal(err)
		}
		out[rec.Desc.Digest] = []string{}
	}
	for t, err := range m.manifests.Tags(context.Background(), repo, "") {
		if err != nil {
			m.f.Fatal(err)
		}
		out[t.Digest] = append(out[t.Digest], t.Name)
	}
	for d := range out {
		slices.Sort(out[d])
	}
	return out
}
