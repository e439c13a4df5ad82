package replication

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"

	"github.com/wharfage/wharfage/blob"
)

// Journal keeps upload sessions that a copier has begun, so that a later process can
// continue them. What it loses is sent again.
type Journal interface {
	// Load returns what was saved last for key, or the zero Upload.
	Load(ctx context.Context, key JournalKey) (blob.Upload, error)
	// Save replaces it. The zero Upload removes it.
	Save(ctx context.Context, key JournalKey, u blob.Upload) error
}

// JournalKey says what is being sent where.
type JournalKey struct {
	Registry, Repo string // of the Target
	Digest         digest.Digest
}

// DirJournal is a Journal in a folder, which is made when it is needed: a file of
// some 300 bytes for each blob under way. Processes may share it.
type DirJournal string

func (d DirJournal) path(key JournalKey) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\n%s\n%s", key.Registry, key.Repo, key.Digest))
	return filepath.Join(string(d), hex.EncodeToString(sum[:])+".json")
}

// Load implements [Journal]. A file that cannot be read as one is none.
func (d DirJournal) Load(_ context.Context, key JournalKey) (u blob.Upload, err error) {
	text, err := os.ReadFile(d.path(key))
	if errors.Is(err, fs.ErrNotExist) {
		return u, nil
	}
	if err == nil && json.Unmarshal(text, &u) != nil {
		u = blob.Upload{}
	}
	return u, err
}

// Save implements [Journal].
func (d DirJournal) Save(_ context.Context, key JournalKey, u blob.Upload) error {
	path := d.path(key)
	if u.ID == "" {
		if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	text, err := json.Marshal(u)
	if err == nil {
		err = os.MkdirAll(string(d), 0o700)
	}
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(string(d), "new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}
