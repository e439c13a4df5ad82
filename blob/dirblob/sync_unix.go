//go:build !windows

package dirblob

import (
	"errors"
	"os"
	"syscall"
)

func syncFolder(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// isNotDir tells whether a path led through a file.
func isNotDir(err error) bool { return errors.Is(err, syscall.ENOTDIR) }
