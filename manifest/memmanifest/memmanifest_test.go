package memmanifest_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/manifest/manifesttest"
	"github.com/wharfage/wharfage/manifest/memmanifest"
	"github.com/wharfage/wharfage/referrers"
	"github.com/wharfage/wharfage/referrers/referrerstest"
)

// blobs stands for a blob store: a set of names of repository and digest.
type blobs struct {
	mu  sync.Mutex
	set map[string]bool
}

func (b *blobs) missing(_ context.Context, repo string, dgsts []digest.Digest) (out []digest.Digest, _ error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, d := range dgsts {
		if !b.set[repo+"@"+string(d)] {
			out = append(out, d)
		}
	}
	return out, nil
}

func (b *blobs) put(repo string, dgsts ...digest.Digest) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, d := range dgsts {
		b.set[repo+"@"+string(d)] = true
	}
}

func (b *blobs) remove(repo string, dgst digest.Digest) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.set, repo+"@"+string(dgst))
	return nil
}

func TestStore(t *testing.T) {
	stores := map[manifest.Store]*blobs{}
	manifesttest.TestStore(t, manifesttest.Options{
		New: func(t testing.TB) manifest.Store {
			b := &blobs{set: map[string]bool{}}
			s := &memmanifest.Store{MissingBlobs: b.missing}
			stores[s] = b
			return s
		},
		PutBlobs: func(t testing.TB, s manifest.Store, repo string, dgsts ...digest.Digest) {
			stores[s].put(repo, dgsts...)
		},
		DeleteBlob: func(t testing.TB, s manifest.Store, repo string, dgst digest.Digest) error {
			needed, err := s.(*memmanifest.Store).Unneeded(t.Context(), repo, dgst, func() error { return stores[s].remove(repo, dgst) })
			if needed {
				return errors.New("needed")
			}
			return err
		},
	})
}

func TestIndex(t *testing.T) {
	referrerstest.TestIndex(t, func(testing.TB) (manifest.Store, referrers.Index) {
		s := new(memmanifest.Store)
		return s, s
	})
}

func record(name string, blobs ...digest.Digest) manifest.Record {
	raw := []byte(name)
	return manifest.Record{
		Desc: ocispec.Descriptor{MediaType: manifest.MediaTypeImage, Digest: manifest.Digest(digest.SHA256, raw), Size: int64(len(raw))},
		Raw:  raw, Blobs: blobs,
	}
}

func TestRequireBlobsNeedsMissingBlobs(t *testing.T) {
	c := manifest.Change{RequireBlobs: []digest.Digest{digestOf(1)}, Put: []manifest.Record{record("1", digestOf(1))}}
	err := new(memmanifest.Store).Apply(t.Context(), "repo", c)
	if !errors.Is(err, manifest.ErrUnsupported) || !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("without MissingBlobs: %v, want ErrUnsupported", err)
	}
	s := &memmanifest.Store{MissingBlobs: memmanifest.Unchecked}
	if err := s.Apply(t.Context(), "repo", c); err != nil {
		t.Errorf("Unchecked: %v", err)
	}
	failure := errors.New("the disk is gone")
	s.MissingBlobs = func(context.Context, string, []digest.Digest) ([]digest.Digest, error) { return nil, failure }
	if err := s.Apply(t.Context(), "repo", c); !errors.Is(err, failure) {
		t.Errorf("a MissingBlobs that fails: %v, want its error", err)
	}
}

// A writer waits while MissingBlobs runs, but no longer than its ctx; readers
// do not wait, nor do other repositories.
func TestWaitHonoursContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked, answer := make(chan struct{}), make(chan struct{})
		s := &memmanifest.Store{MissingBlobs: func(context.Context, string, []digest.Digest) ([]digest.Digest, error) {
			close(asked)
			<-answer
			return nil, nil
		}}
		put := func(ctx context.Context, repo, name string) error {
			return s.Apply(ctx, repo, manifest.Change{Put: []manifest.Record{record(name)}})
		}
		if err := put(t.Context(), "repo", "0"); err != nil {
			t.Fatal(err)
		}
		done := make(chan error)
		go func() {
			done <- s.Apply(t.Context(), "repo", manifest.Change{RequireBlobs: []digest.Digest{digestOf(1)}, Put: []manifest.Record{record("1")}})
		}()
		<-asked
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := put(ctx, "repo", "2"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Apply = %v, want ctx's error", err)
		}
		if _, err := s.Unneeded(ctx, "repo", digestOf(1), func() error { return nil }); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Unneeded = %v, want ctx's error", err)
		}
		if _, err := s.Get(t.Context(), "repo", record("0").Desc.Digest); err != nil {
			t.Errorf("Get meanwhile: %v", err)
		}
		if err := put(t.Context(), "other", "2"); err != nil {
			t.Errorf("Apply to another repository meanwhile: %v", err)
		}
		close(answer)
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := put(t.Context(), "repo", "2"); err != nil {
			t.Error(err)
		}
	})
}

func TestUnneeded(t *testing.T) {
	s := &memmanifest.Store{MissingBlobs: memmanifest.Unchecked}
	one := record("1", digestOf(1), digestOf(2))
	if err := s.Apply(t.Context(), "repo", manifest.Change{Put: []manifest.Record{one}}); err != nil {
		t.Fatal(err)
	}
	failure := errors.New("remove fails")
	for _, tt := range []struct {
		repo string
		dgst digest.Digest
		want bool
	}{{"repo", digestOf(1), true}, {"repo", digestOf(2), true}, {"repo", digestOf(3), false}, {"other", digestOf(1), false}} {
		called := false
		needed, err := s.Unneeded(t.Context(), tt.repo, tt.dgst, func() error { called = true; return failure })
		if needed != tt.want || called == tt.want || (err == nil) != tt.want {
			t.Errorf("Unneeded in %s = %t, %v, and called remove: %t", tt.repo, needed, err, called)
		}
	}
	// Neither a refused change nor Unneeded makes a repository.
	_ = s.Apply(t.Context(), "refused", manifest.Change{RequireManifests: []digest.Digest{digestOf(1)}})
	for name := range s.Repos(t.Context(), "") {
		if name != "repo" {
			t.Errorf("there is a repository %s", name)
		}
	}
}

// A repository that another goroutine empties and takes away is not written to
// any more.
func TestRepositoriesComeAndGo(t *testing.T) {
	s := new(memmanifest.Store)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			rec := record(fmt.Sprint(g % 4))
			for range 200 {
				_ = s.Apply(t.Context(), "repo", manifest.Change{Put: []manifest.Record{rec}})
				_ = s.Apply(t.Context(), "repo", manifest.Change{Delete: []manifest.Removal{{Digest: rec.Desc.Digest}}})
			}
			if err := s.Apply(t.Context(), "repo", manifest.Change{Put: []manifest.Record{rec}}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	n := 0
	for range s.Manifests(t.Context(), "repo", "") {
		n++
	}
	if n != 4 {
		t.Errorf("%d manifests are left, want 4", n)
	}
	n = 0
	for name := range s.Repos(t.Context(), "") {
		if n++; name != "repo" || n > 1 {
			t.Errorf("Repos lists %q", name)
		}
	}
}
