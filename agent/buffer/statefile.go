package buffer

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// WriteFile replaces a file in the state directory as a whole: after a crash it has the
// old content or the new one. Its directory is created as by MakeDirectory.
func WriteFile(path string, content []byte) error {
	dir, err := makeAgain(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close() // only opened to create and sync
	next := path + ".new"
	f, err := openRegular(dir, filepath.Base(next), os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
	if errors.Is(err, errNotRegular) {
		return setAside(next, err)
	}
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(next, path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(next))
	}
	return syncDirectory(dir)
}

// ReadFile returns the content of a file in the state directory, and when it was last
// modified. It refuses what is not a regular file or has more than limit bytes.
func ReadFile(path string, limit int64) (content []byte, modified time.Time, err error) {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, time.Time{}, err
	}
	defer dir.Close() // only read
	f, err := openRegular(dir, filepath.Base(path), os.O_RDONLY)
	if err != nil {
		return nil, time.Time{}, err
	}
	defer f.Close() // only read
	info, err := f.Stat()
	if err != nil {
		return nil, time.Time{}, err
	}
	content, err = io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(content)) > limit {
		err = fmt.Errorf("%q has more than %d bytes", path, limit)
	}
	return content, info.ModTime(), err
}
