package dirblob

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/wharfage/wharfage/blob"
)

// Guarded implements [blob.Guarded]: it tells whether there is a Guard.
func (s *Store) Guarded() bool { return s.Guard != nil }

// Repos implements [blob.Catalog]. It reads the names of all repositories, and
// looks into each for a blob.
func (s *Store) Repos(ctx context.Context, after string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		err := ctx.Err()
		var repos []string
		if err == nil {
			repos, err = repositories(filepath.Join(s.Dir, "blobs"), "")
		}
		if err != nil {
			yield("", blobError("list", after, "", err, false))
			return
		}
		slices.Sort(repos)
		for _, repo := range repos {
			if repo <= after {
				continue
			}
			for _, err := range s.Blobs(ctx, repo, "") {
				if err != nil {
					yield("", err)
					return
				}
				if !yield(repo, nil) {
					return
				}
				break
			}
		}
	}
}

// Sessions implements [blob.SessionLister]. A session whose file cannot be read
// is an error after all others are listed.
func (s *Store) Sessions(ctx context.Context, after string) iter.Seq2[blob.Upload, error] {
	return func(yield func(blob.Upload, error) bool) {
		var bad error
		err := s.eachSession(ctx, func(id string) bool {
			if id <= after {
				return true
			}
			u, err := s.last(id)
			switch {
			case errors.Is(err, blob.ErrUploadNotFound):
				return true
			case err != nil:
				bad = errors.Join(bad, uploadError("list", blob.Upload{ID: id}, err))
				return true
			}
			return yield(u, nil)
		})
		if err = errors.Join(err, bad); err != nil && !errors.Is(err, errStop) {
			yield(blob.Upload{}, err)
		}
	}
}

var errStop = errors.New("stop")

// eachSession calls do with the IDs that have a folder, in byte order, and ends
// with errStop when it returns false.
func (s *Store) eachSession(ctx context.Context, do func(id string) bool) error {
	err := ctx.Err()
	var names []string
	if err == nil {
		names, err = folder(filepath.Join(s.Dir, "uploads"))
	}
	for _, name := range names {
		if err = ctx.Err(); err != nil {
			break
		}
		if id, isDir := strings.CutSuffix(name, "/"); isDir && isID(id) && !do(id) {
			return errStop
		}
	}
	if err != nil {
		return fmt.Errorf("list uploads: %w", err)
	}
	return nil
}

// Sweep implements [blob.Sweeper]. It removes what crashes and failures have
// left in ~tmp, and in uploads/ what no session refers to, if nothing has
// happened to the file since cutoff. Sessions stay: see Sessions and Abort. What
// is beside a session whose file cannot be read stays too, and is an error at
// the end.
func (s *Store) Sweep(ctx context.Context, cutoff time.Time, dry bool) iter.Seq2[blob.Object, error] {
	return func(yield func(blob.Object, error) bool) {
		for obj, err := range s.files().sweep(ctx, cutoff, dry) {
			if err != nil {
				err = fmt.Errorf("sweep: %w", err)
			}
			if !yield(obj, err) || err != nil {
				return
			}
		}
		var bad error
		err := s.eachSession(ctx, func(id string) bool {
			objs, err := s.sweep(id, cutoff, dry)
			if err != nil {
				bad = errors.Join(bad, fmt.Errorf("sweep upload %s: %w", id, err))
			}
			for _, obj := range objs {
				if !yield(obj, nil) {
					return false
				}
			}
			return true
		})
		if err = errors.Join(err, bad); err != nil && !errors.Is(err, errStop) {
			yield(blob.Object{}, err)
		}
	}
}

// sweep is Sweep for the folder of one session. A Save that is about to name a
// file finds out under the same lock that it is gone.
func (s *Store) sweep(id string, cutoff time.Time, dry bool) ([]blob.Object, error) {
	mu := s.sessions.of(id)
	mu.Lock()
	defer mu.Unlock()
	dir := s.sessionDir(id)
	fi, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) { // it has ended meanwhile
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	keep := map[string]bool{}
	u, err := s.last(id)
	ended := errors.Is(err, blob.ErrUploadNotFound)
	if !ended {
		var v version
		if err == nil {
			v, err = parse(u)
		}
		if err != nil {
			return nil, err
		}
		keep[sessionName] = true
		for _, p := range v.parts {
			keep[p.name] = true
		}
	}
	names, err := folder(dir)
	if err != nil {
		return nil, err
	}
	var objs []blob.Object
	for _, name := range names {
		if keep[name] {
			continue
		}
		if obj, ok := takeOld(s.Dir, "uploads/"+id+"/"+name, cutoff, dry); ok {
			objs = append(objs, obj)
		}
	}
	if ended && fi.ModTime().Before(cutoff) && !dry {
		os.Remove(dir) // if it is empty now
	}
	return objs, nil
}
