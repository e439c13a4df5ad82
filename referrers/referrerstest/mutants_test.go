package referrerstest_test

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/manifest/memmanifest"
	"github.com/wharfage/wharfage/referrers"
	"github.com/wharfage/wharfage/referrers/referrerstest"
)

// flawed is an index that breaks a promise.
type flawed func(s *memmanifest.Store, ctx context.Context, repo string, subject digest.Digest, artifactType string, after digest.Digest) iter.Seq2[ocispec.Descriptor, error]

type index struct {
	s *memmanifest.Store
	f flawed
}

func (x index) Referrers(ctx context.Context, repo string, subject digest.Digest, artifactType string, after digest.Digest) iter.Seq2[ocispec.Descriptor, error] {
	return x.f(x.s, ctx, repo, subject, artifactType, after)
}

// jsonIndex is right but for what it says in JSON.
type jsonIndex struct {
	*memmanifest.Store
	f func(e *manifest.ReferrerJSON, i int) bool
}

func (x jsonIndex) ReferrersJSON(ctx context.Context, repo string, subject digest.Digest, artifactType string, after digest.Digest) iter.Seq2[manifest.ReferrerJSON, error] {
	return func(yield func(manifest.ReferrerJSON, error) bool) {
		i := 0
		for e, err := range x.Store.ReferrersJSON(ctx, repo, subject, artifactType, after) {
			if (err != nil || x.f(&e, i)) && !yield(e, err) {
				return
			}
			i++
		}
	}
}

var jsonMutants = map[string]func(e *manifest.ReferrerJSON, i int) bool{
	"drops an entry in JSON": func(_ *manifest.ReferrerJSON, i int) bool { return i != 1 },
	"escapes nothing in JSON": func(e *manifest.ReferrerJSON, _ int) bool {
		e.JSON = strings.ReplaceAll(e.JSON, `\\`, `\`)
		return true
	},
	"names another digest beside its JSON": func(e *manifest.ReferrerJSON, _ int) bool {
		e.Digest = e.Digest[:70] + "0"
		return true
	},
	"leaves the type out of its JSON": func(e *manifest.ReferrerJSON, _ int) bool {
		e.JSON = strings.Replace(e.JSON, `"artifactType":"a/b",`, "", 1)
		return true
	},
}

// each rewrites or drops entries.
func each(f func(d *ocispec.Descriptor) bool) flawed {
	return func(s *memmanifest.Store, ctx context.Context, repo string, subject digest.Digest, artifactType string, after digest.Digest) iter.Seq2[ocispec.Descriptor, error] {
		return func(yield func(ocispec.Descriptor, error) bool) {
			for d, err := range s.Referrers(ctx, repo, subject, artifactType, after) {
				if (err != nil || f(&d)) && !yield(d, err) {
					return
				}
			}
		}
	}
}

// mutants makes a new index for each store, as some remember things.
var mutants = map[string]func() flawed{
	"lists without annotations": func() flawed {
		return each(func(d *ocispec.Descriptor) bool { d.Annotations = nil; return true })
	},
	"lists without a type": func() flawed {
		return each(func(d *ocispec.Descriptor) bool { d.ArtifactType = ""; return true })
	},
	"loses sha512": func() flawed {
		return each(func(d *ocispec.Descriptor) bool { return d.Digest.Algorithm() == digest.SHA256 })
	},
	"remembers its first answer": func() flawed {
		var mu sync.Mutex
		seen := map[string][]ocispec.Descriptor{}
		return func(s *memmanifest.Store, ctx context.Context, repo string, subject digest.Digest, artifactType string, after digest.Digest) iter.Seq2[ocispec.Descriptor, error] {
			return func(yield func(ocispec.Descriptor, error) bool) {
				mu.Lock()
				defer mu.Unlock()
				key := strings.Join([]string{repo, string(subject), artifactType, string(after)}, " ")
				list, found := seen[key]
				if !found {
					for d, err := range s.Referrers(ctx, repo, subject, artifactType, after) {
						if err != nil {
							yield(d, err)
							return
						}
						list = append(list, d)
					}
					seen[key] = list
				}
				for _, d := range list {
					if !yield(d, nil) {
						return
					}
				}
			}
		}
	},
	"never forgets": func() flawed {
		var mu sync.Mutex
		seen := map[string]bool{}
		return func(s *memmanifest.Store, ctx context.Context, repo string, subject digest.Digest, artifactType string, after digest.Digest) iter.Seq2[ocispec.Descriptor, error] {
			return func(yield func(ocispec.Descriptor, error) bool) {
				mu.Lock()
				defer mu.Unlock()
				n := 0
				for d, err := range s.Referrers(ctx, repo, subject, artifactType, after) {
					n++
					seen[repo+string(subject)] = true
					if !yield(d, err) {
						return
					}
				}
				if n == 0 && seen[repo+string(subject)] {
					yield(ocispec.Descriptor{Digest: subject}, nil)
				}
			}
		}
	},
	"ignores the type": func() flawed {
		return func(s *memmanifest.Store, ctx context.Context, repo string, subject digest.Digest, _ string, after digest.Digest) iter.Seq2[ocispec.Descriptor, error] {
			return s.Referrers(ctx, repo, subject, "", after)
		}
	},
	"ignores after": func() flawed {
		return func(s *memmanifest.Store, ctx context.Context, repo string, subject digest.Digest, artifactType string, _ digest.Digest) iter.Seq2[ocispec.Descriptor, error] {
			return s.Referrers(ctx, repo, subject, artifactType, "")
		}
	},
	"wants the subject to be there": func() flawed {
		return func(s *memmanifest.Store, ctx context.Context, repo string, subject digest.Digest, artifactType string, after digest.Digest) iter.Seq2[ocispec.Descriptor, error] {
			if _, err := s.Get(ctx, repo, subject); err != nil {
				return func(func(ocispec.Descriptor, error) bool) {}
			}
			return s.Referrers(ctx, repo, subject, artifactType, after)
		}
	},
	"ends quietly when cancelled": func() flawed {
		return func(s *memmanifest.Store, ctx context.Context, repo string, subject digest.Digest, artifactType string, after digest.Digest) iter.Seq2[ocispec.Descriptor, error] {
			return s.Referrers(context.WithoutCancel(ctx), repo, subject, artifactType, after)
		}
	},
}

const mutantVar = "REFERRERSTEST_MUTANT"

// TestMutant runs the kit on the mutant that the environment names.
func TestMutant(t *testing.T) {
	name := os.Getenv(mutantVar)
	m, j := mutants[name], jsonMutants[name]
	if m == nil && j == nil {
		t.Skip("run by TestKitRejects")
	}
	referrerstest.TestIndex(t, func(testing.TB) (manifest.Store, referrers.Index) {
		s := new(memmanifest.Store)
		if j != nil {
			return s, jsonIndex{s, j}
		}
		return s, index{s, m()}
	})
}

func TestKitAccepts(t *testing.T) {
	referrerstest.TestIndex(t, func(testing.TB) (manifest.Store, referrers.Index) {
		s := new(memmanifest.Store)
		return s, s
	})
}

func TestKitRejects(t *testing.T) {
	for _, name := range append(slices.Collect(maps.Keys(mutants)), slices.Collect(maps.Keys(jsonMutants))...) {
		t.Run(name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestMutant$", "-test.timeout", "30s")
			cmd.Env = append(os.Environ(), mutantVar+"="+name)
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || !bytes.Contains(out, []byte("--- FAIL: TestMutant/")) {
				t.Errorf("the kit passes an index that %s: %v\n%s", name, err, out)
			}
		})
	}
}
