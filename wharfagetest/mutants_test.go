package wharfagetest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage"
	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/blob/blobtest"
	"github.com/wharfage/wharfage/blob/memblob"
	"github.com/wharfage/wharfage/manifest"
	"github.com/wharfage/wharfage/manifest/memmanifest"
	"github.com/wharfage/wharfage/wharfagetest"
)

// flawed is a blob store with a flaw that shows when something fails.
type flawed struct {
	*memblob.Store
	flaw string
}

// mutants break one promise each, and the operation is to notice.
var mutants = map[string]string{
	"keeps what a failed reader gave":      "push",
	"keeps a chunk that failed":            "push in chunks",
	"mounts and says that it is not there": "mount",
	"refuses what is there":                "push",
	"commits twice only to fail":           "push in chunks",
	"lets needed blobs be deleted":         "collect",
	"deletes from all repositories":        "collect",
	"swallows errors of a collection":      "collect",
	"leaves sessions":                      "push",
	"leaves blobs":                         "blob delete",
	"leaves something below":               "tag delete",
	"refuses manifests that are there":     "tag move",
}

func (s *flawed) Put(ctx context.Context, repo string, desc ocispec.Descriptor, r io.Reader) error {
	switch s.flaw {
	case "keeps what a failed reader gave":
		content, err := io.ReadAll(r)
		if putErr := s.Store.Put(ctx, repo, desc, bytes.NewReader(content)); putErr != nil {
			return putErr
		}
		return err
	case "refuses what is there":
		if infos, err := s.Stat(ctx, repo, []digest.Digest{desc.Digest}); err != nil || infos[0].Digest != "" {
			return errors.New("it is there")
		}
	}
	return s.Store.Put(ctx, repo, desc, r)
}

func (s *flawed) Append(ctx context.Context, u blob.Upload, r io.Reader) (blob.Upload, error) {
	if s.flaw != "keeps a chunk that failed" {
		return s.Store.Append(ctx, u, r)
	}
	content, err := io.ReadAll(r)
	next, appendErr := s.Store.Append(ctx, u, bytes.NewReader(content))
	if appendErr == nil && err != nil {
		appendErr = s.Save(ctx, u, next)
	}
	return next, errors.Join(err, appendErr)
}

func (s *flawed) Mount(ctx context.Context, from, repo string, dgst digest.Digest) error {
	if err := s.Store.Mount(ctx, from, repo, dgst); err != nil || s.flaw != "mounts and says that it is not there" {
		return err
	}
	return blob.ErrNotFound
}

func (s *flawed) Commit(ctx context.Context, old, u blob.Upload, dgst digest.Digest) error {
	if s.flaw == "commits twice only to fail" {
		if infos, err := s.Stat(ctx, old.Repo, []digest.Digest{dgst}); err != nil || infos[0].Digest != "" {
			return errors.New("it is there")
		}
	}
	return s.Store.Commit(ctx, old, u, dgst)
}

func (s *flawed) Delete(ctx context.Context, repo string, dgst digest.Digest, cutoff time.Time) error {
	if err := s.Store.Delete(ctx, repo, dgst, cutoff); err != nil || s.flaw != "deletes from all repositories" {
		return err
	}
	s.Guard = nil
	for repo := range s.Locate(ctx, dgst) {
		if err := s.Store.Delete(ctx, repo, dgst, cutoff); err != nil {
			return err
		}
	}
	return nil
}

// once refuses manifests that are there, so that nobody can push again.
type once struct{ *memmanifest.Store }

func (s once) Apply(ctx context.Context, repo string, c manifest.Change) error {
	for _, rec := range c.Put {
		if _, err := s.Get(ctx, repo, rec.Desc.Digest); err == nil {
			return errors.New("it is there")
		}
	}
	return s.Store.Apply(ctx, repo, c)
}

func options(flaw string) wharfagetest.Options {
	o := wharfagetest.Options{
		New: func(testing.TB) (blob.Store, manifest.Store) {
			blobs, manifests := new(memblob.Store), new(memmanifest.Store)
			manifests.MissingBlobs = blob.Missing(blobs)
			if flaw != "lets needed blobs be deleted" {
				blobs.Guard = wharfage.GuardBlobs(manifests)
			}
			if flaw == "refuses manifests that are there" {
				return &flawed{blobs, flaw}, once{manifests}
			}
			return &flawed{blobs, flaw}, manifests
		},
		Collect: func(ctx context.Context, blobs blob.Store, _ manifest.Store) error { return collect(ctx, blobs, flaw) },
		Left:    func(testing.TB, blob.Store) []string { return nil },
		Errors:  []error{blobtest.ErrFault, syscall.ENOSPC},
	}
	if flaw == "leaves something below" {
		o.Left = func(testing.TB, blob.Store) []string { return []string{"some object"} }
	}
	return o
}

func collect(ctx context.Context, blobs blob.Store, flaw string) error {
	result := func(err error) error {
		if flaw == "swallows errors of a collection" {
			return nil
		}
		return err
	}
	if flaw != "leaves sessions" {
		l, _ := blob.As[blob.SessionLister](blobs)
		for u, err := range l.Sessions(ctx, "") {
			if err == nil {
				err = blobs.Abort(ctx, u)
			}
			if err != nil {
				return result(err)
			}
		}
	}
	if flaw == "leaves blobs" {
		return nil
	}
	c, _ := blob.As[blob.Catalog](blobs)
	for repo, err := range c.Repos(ctx, "") {
		if err != nil {
			return result(err)
		}
		for info, err := range blobs.Blobs(ctx, repo, "") {
			if err == nil {
				err = blobs.Delete(ctx, repo, info.Digest, time.Time{})
			}
			if err != nil && !errors.Is(err, blob.ErrConflict) && !errors.Is(err, blob.ErrNotFound) {
				return result(err)
			}
		}
	}
	return nil
}

const mutantVar = "WHARFAGETEST_MUTANT"

// TestMutant runs the kit on the mutant that the environment names.
func TestMutant(t *testing.T) {
	flaw := os.Getenv(mutantVar)
	if _, ok := mutants[flaw]; !ok {
		t.Skip("run by TestKitRejects")
	}
	wharfagetest.TestFaults(t, options(flaw))
}

func TestKitAccepts(t *testing.T) { wharfagetest.TestFaults(t, options("")) }

func TestKitRejects(t *testing.T) {
	for flaw, operation := range mutants {
		t.Run(flaw, func(t *testing.T) {
			name := strings.ReplaceAll(operation, " ", "_")
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", fmt.Sprintf("^TestMutant$/^%s$", name), "-test.timeout", "60s")
			cmd.Env = append(os.Environ(), mutantVar+"="+flaw)
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || !bytes.Contains(out, []byte("TestMutant/"+name)) {
				t.Errorf("the operation %q passes with stores of which one %s: %v\n%.2000s", operation, flaw, err, out)
			}
		})
	}
}

// A failure names its case, and the case alone can be run again.
func TestOnlyRunsOneCase(t *testing.T) {
	seen := 0
	o := options("")
	o.Only = "tag move, manifests before any #1 (injected fault)"
	collectOne := o.Collect
	o.Collect = func(ctx context.Context, blobs blob.Store, manifests manifest.Store) error {
		seen++
		return collectOne(ctx, blobs, manifests)
	}
	wharfagetest.TestFaults(t, o)
	if seen != 2 { // after the case, and when the manifests are deleted
		t.Errorf("collected %d times", seen)
	}
}
