package dirblob

import (
	"context"
	"errors"
	"io/fs"
	"iter"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
)

// Locate implements [blob.Locator]. It reads the names of all repositories,
// and asks each.
func (s *Store) Locate(ctx context.Context, dgst digest.Digest) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		repos, err := repositories(filepath.Join(s.Dir, "blobs"), "")
		slices.Sort(repos)
		for i := 0; err == nil && i < len(repos); i++ {
			if err = ctx.Err(); err != nil {
				break
			}
			var path string
			if path, err = s.blobPath(repos[i], dgst); err != nil {
				break
			}
			switch _, e := stat(path); {
			case e == nil:
				if !yield(repos[i], nil) {
					return
				}
			case !errors.Is(e, fs.ErrNotExist):
				err = e
			}
		}
		if err != nil {
			yield("", blobError("locate", "", dgst, err, false))
		}
	}
}

// repositories undoes repoKey for the folders in dir. Their names go on from
// what the folders above say.
func repositories(dir, above string) (repos []string, err error) {
	names, err := folder(dir)
	for _, name := range names {
		name, isRepo := strings.CutPrefix(name, "+")
		name, isFolder := strings.CutSuffix(name, "/")
		if !isRepo || !isFolder {
			continue // not ours
		}
		if longer, ok := strings.CutSuffix(name, "="); ok {
			below, err := repositories(filepath.Join(dir, "+"+name), above+longer)
			if err != nil {
				return nil, err
			}
			repos = append(repos, below...)
		} else {
			repos = append(repos, strings.ReplaceAll(above+name, "+", "/"))
		}
	}
	return repos, err
}
