package blobtest

import (
	"context"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/blob/dirblob"
)

type reposMutant struct {
	good
	list func(s good, ctx context.Context, after string) iter.Seq2[string, error]
}

func (s reposMutant) Repos(ctx context.Context, after string) iter.Seq2[string, error] {
	return s.list(s.good, ctx, after)
}

// With the repositories that held a blob once.
func reposForever(s good, ctx context.Context, after string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for repo, err := range s.Repos(ctx, after) {
			if repo > "gone" && after < "gone" {
				after = "gone"
				if !yield("gone", nil) {
					return
				}
			}
			if !yield(repo, err) {
				return
			}
		}
	}
}

func reposFrom(s good, ctx context.Context, after string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for repo, err := range s.Repos(ctx, "") {
			if (repo >= after || err != nil) && !yield(repo, err) {
				return
			}
		}
	}
}

// In the order in which a walk over folders meets them.
func reposFolders(s good, ctx context.Context, after string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		var repos []string
		for repo, err := range s.Repos(ctx, after) {
			if err != nil {
				yield(repo, err)
				return
			}
			repos = append(repos, repo)
		}
		slices.SortFunc(repos, func(a, b string) int {
			return strings.Compare(strings.ReplaceAll(a, "/", "\x00"), strings.ReplaceAll(b, "/", "\x00"))
		})
		for _, repo := range repos {
			if !yield(repo, nil) {
				return
			}
		}
	}
}

func reposSilent(s good, ctx context.Context, after string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for repo, err := range s.Repos(ctx, after) {
			if err != nil || !yield(repo, nil) {
				return
			}
		}
	}
}

type saysGuarded struct {
	good
	guarded bool
}

func (s saysGuarded) Guarded() bool { return s.guarded }

type sessionList = iter.Seq2[blob.Upload, error]

type sessionsMutant struct {
	good
	list func(s good, ctx context.Context, after string) sessionList
}

func (s sessionsMutant) Sessions(ctx context.Context, after string) sessionList {
	return s.list(s.good, ctx, after)
}

func sessionsOfOne(s good, ctx context.Context, after string) sessionList {
	return func(yield func(blob.Upload, error) bool) {
		for u, err := range s.Sessions(ctx, after) {
			if (u.Repo != otherRepo || err != nil) && !yield(u, err) {
				return
			}
		}
	}
}

func sessionsFrom(s good, ctx context.Context, after string) sessionList {
	return func(yield func(blob.Upload, error) bool) {
		for u, err := range s.Sessions(ctx, "") {
			if (u.ID >= after || err != nil) && !yield(u, err) {
				return
			}
		}
	}
}

func sessionsBare(s good, ctx context.Context, after string) sessionList {
	return func(yield func(blob.Upload, error) bool) {
		for u, err := range s.Sessions(ctx, after) {
			u.State = nil
			if !yield(u, err) {
				return
			}
		}
	}
}

func sessionsSilent(s good, ctx context.Context, after string) sessionList {
	return func(yield func(blob.Upload, error) bool) {
		for u, err := range s.Sessions(ctx, after) {
			if err != nil || !yield(u, nil) {
				return
			}
		}
	}
}

// disk is a good store that can be swept.
type disk struct{ *dirblob.Store }

func onDisk(g good) disk { return disk{&dirblob.Store{Dir: g.dir, Unsynced: true}} }

func (d disk) setNow(now func() time.Time) { d.Now = now }
func (d disk) setGuard(g blob.Guard)       { d.Guard = g }

func (d disk) things(t testing.TB) int {
	return len(d.files(t))
}

func (d disk) files(t testing.TB) (paths []string) {
	err := filepath.WalkDir(d.Dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			paths = append(paths, path)
		}
		return err
	})
	if err != nil && t != nil {
		t.Fatal(err)
	}
	return paths
}

type objectList = iter.Seq2[blob.Object, error]

type sweeps struct {
	disk
	mutate func(d disk, ctx context.Context, cutoff time.Time, dry bool) objectList
}

func (s *sweeps) Sweep(ctx context.Context, cutoff time.Time, dry bool) objectList {
	return s.mutate(s.disk, ctx, cutoff, dry)
}

func sweepNothing(d disk, ctx context.Context, cutoff time.Time, dry bool) objectList {
	return d.Sweep(ctx, cutoff, true)
}

func sweepSilently(d disk, ctx context.Context, cutoff time.Time, dry bool) objectList {
	return func(yield func(blob.Object, error) bool) {
		for obj, err := range d.Sweep(ctx, cutoff, dry) {
			if err != nil {
				yield(obj, err)
				return
			}
		}
	}
}

func sweepWet(d disk, ctx context.Context, cutoff time.Time, dry bool) objectList {
	return d.Sweep(ctx, cutoff, false)
}

func sweepYoung(d disk, ctx context.Context, cutoff time.Time, dry bool) objectList {
	return d.Sweep(ctx, time.Now().Add(time.Hour), dry)
}

func sweepSaved(d disk, ctx context.Context, cutoff time.Time, dry bool) objectList {
	return func(yield func(blob.Object, error) bool) {
		d.Sweep(ctx, cutoff, dry)(yield)
		for _, path := range d.files(nil) {
			if strings.Contains(path, "uploads") && filepath.Base(path) != "session" {
				os.Remove(path)
			}
		}
	}
}

func sweepForever(d disk, ctx context.Context, cutoff time.Time, dry bool) objectList {
	return d.Sweep(context.WithoutCancel(ctx), cutoff, dry)
}

// putsLeftovers does not notice that what it wrote is gone.
type putsLeftovers struct{ disk }

func (s *putsLeftovers) Put(ctx context.Context, repo string, desc ocispec.Descriptor, r io.Reader) error {
	err := s.disk.Put(ctx, repo, desc, r)
	if err != nil {
		return s.disk.Put(ctx, repo, desc, strings.NewReader("what is left"))
	}
	return err
}
