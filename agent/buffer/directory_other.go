//go:build !(linux || darwin || freebsd || netbsd || openbsd || dragonfly)

package buffer

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// MakeDirectory creates a directory if it does not exist. This system has no owners and
// modes to check.
func MakeDirectory(path string) error {
	f, err := makeDirectory(path)
	if err != nil {
		return err
	}
	return f.Close()
}

func makeDirectory(path string) (*os.File, error) {
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	return os.Open(path)
}

func makeAgain(path string) (*os.File, error) { return makeDirectory(path) }

func openRegular(dir *os.File, name string, flag int) (*os.File, error) {
	path := filepath.Join(dir.Name(), name)
	if info, err := os.Lstat(path); err == nil && !info.Mode().IsRegular() {
		return nil, notRegular(name)
	}
	return os.OpenFile(path, flag, 0o600)
}

// syncDirectory does nothing: this system cannot sync a directory.
func syncDirectory(syncer) error { return nil }

var errNoQueues = errors.New(`queues on disk need flock, which this system does not have: set buffer = "memory"`)

func makeFolder(string) (folder, error) { return nil, errNoQueues }

func openFolder(string) (folder, error) { return nil, errNoQueues }
