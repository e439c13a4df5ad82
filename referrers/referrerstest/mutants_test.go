package referrerstest_test

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"os"
	"os/exec"
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
	*memmanifest.Store
	f flawed
}

func (x index) Referrers(ctx context.Context, repo string, subject digest.Digest, artifactType string, after digest.Digest) iter.Seq2[ocispec.Descriptor, error] {
	return x.f(x.Store, ctx, repo, subject, artifactType, after)
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
	m, ok := mutants[os.Getenv(mutantVar)]
	if !ok {
		t.Skip("run by TestKitRejects")
	}
	referrerstest.TestIndex(t, func(testing.TB) (manifest.Store, referrers.Index) {
		s := new(memmanifest.Store)
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
	for name := range mutants {
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
