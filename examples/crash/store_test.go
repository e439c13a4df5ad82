//go:build linux

package crash

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"github.com/wharfage/wharfage/blob"
	"github.com/wharfage/wharfage/blob/dirblob"
	"github.com/wharfage/wharfage/examples/store/boltstore"
	"github.com/wharfage/wharfage/manifest"
)

// store is what a history works on.
type store struct {
	blobs     blobs
	manifests manifest.Store // nil: blobs only
	bytes     []string       // the folders that have them
	close     func() error
}

type blobs interface {
	blob.Store
	blob.Catalog
	blob.SessionLister
}

// packs is the folder of a boltstore in which short content shares files.
const packs = "packs"

// lease is short, so that each Stat has to write.
const lease = 2 * time.Millisecond

// stores opens each kind of store in a folder.
var stores = map[string]func(dir string, lease time.Duration, unsynced bool) (*store, error){
	"dirblob": func(dir string, lease time.Duration, unsynced bool) (*store, error) {
		s := &dirblob.Store{Dir: dir, Lease: lease, Unsynced: unsynced}
		return &store{s, nil, []string{dir}, func() error { return nil }}, nil
	},
	"boltstore": func(dir string, lease time.Duration, unsynced bool) (*store, error) {
		db, err := boltstore.Open(boltstore.Options{Dir: dir, Lease: lease, Unsynced: unsynced, KeepEvents: true})
		if err != nil {
			return nil, err
		}
		return &store{db.Blobs(), db.Manifests(), []string{filepath.Join(dir, "objects"), filepath.Join(dir, packs)}, db.Close}, nil
	},
}

// sweep removes what calls that never returned left before cutoff, and returns
// how many things those were.
func (s *store) sweep(ctx context.Context, cutoff time.Time) (n int, err error) {
	sweeper, ok := s.blobs.(blob.Sweeper)
	if !ok {
		return 0, nil
	}
	for _, err := range sweeper.Sweep(ctx, cutoff, false) {
		if err != nil {
			return n, fmt.Errorf("sweep: %w", err)
		}
		n++
	}
	return n, nil
}

// files returns the paths of the files in which s keeps bytes.
func (s *store) files() (paths []string, err error) {
	for _, dir := range s.bytes {
		if e := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() && d.Name() == "owner" { // the marker of the database
				return fs.SkipDir
			}
			if err == nil && d.Type().IsRegular() {
				paths = append(paths, path)
			}
			if errors.Is(err, fs.ErrNotExist) {
				err = nil
			}
			return err
		}); err == nil {
			err = e
		}
	}
	return paths, err
}

// clear deletes all that s shows. What is left then is of no use.
func (s *store) clear(ctx context.Context) error {
	for u, err := range s.blobs.Sessions(ctx, "") {
		if err == nil {
			err = s.blobs.Abort(ctx, u)
		}
		if err != nil {
			return err
		}
	}
	repos := map[string]bool{}
	catalogs := []manifest.Catalog{s.blobs}
	if s.manifests != nil {
		catalogs = append(catalogs, s.manifests.(manifest.Catalog))
	}
	for _, c := range catalogs {
		for repo, err := range c.Repos(ctx, "") {
			if err != nil {
				return err
			}
			repos[repo] = true
		}
	}
	for repo := range repos {
		if s.manifests != nil {
			var all manifest.Change
			for rec, err := range s.manifests.Manifests(ctx, repo, "") {
				if err != nil {
					return err
				}
				all.Delete = append(all.Delete, manifest.Removal{Digest: rec.Desc.Digest})
			}
			if err := s.manifests.Apply(ctx, repo, all); err != nil {
				return err
			}
		}
		for info, err := range s.blobs.Blobs(ctx, repo, "") {
			if err == nil {
				err = s.blobs.Delete(ctx, repo, info.Digest, time.Time{})
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// noStrays sweeps, and checks that nothing is left that s does not show. No
// call is under way.
func (s *store) noStrays(ctx context.Context, now time.Time) error {
	if _, err := s.sweep(ctx, now.Add(time.Hour)); err != nil {
		return err
	}
	if err := s.clear(ctx); err != nil {
		return fmt.Errorf("deletion of everything: %w", err)
	}
	left, err := s.files()
	if err != nil {
		return err
	}
	inPack := func(path string) bool { return filepath.Base(filepath.Dir(path)) == packs }
	if left := slices.DeleteFunc(left, inPack); len(left) > 0 {
		return fmt.Errorf("%d files that nothing referred to were left by a sweep, %s and so on", len(left), left[0])
	}
	// What was in packs goes with the next sweep.
	if _, err := s.sweep(ctx, now.Add(time.Hour)); err != nil {
		return err
	}
	if left, err = s.files(); err == nil && len(left) > 0 {
		err = fmt.Errorf("%d packs are left when everything is deleted", len(left))
	}
	return err
}
