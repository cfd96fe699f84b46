package buffer

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// A folder is the directory of a queue. Tests implement it to inject faults.
type folder interface {
	list() ([]entry, error)
	// open opens a file for reading, edit also for writing; create creates one that
	// must not exist. If the name is not a regular file, the error is errNotRegular.
	open(name string) (file, error)
	edit(name string) (file, error)
	create(name string) (file, error)
	remove(name string) error
	// setAside renames whatever has the name, without replacing another file.
	setAside(name string) error
	// names reports whether the name, below the path of the directory, still refers to
	// f: false if f or the directory was removed, renamed or replaced.
	names(name string, f file) bool
	// renew returns the folder itself if its path still refers to it. Otherwise it
	// creates the directory again and returns that; files opened in the old one can
	// still be used. After an errSetAside, which says what was renamed because it was in
	// the way, the next renew can create it.
	renew() (folder, error)
	// sync makes created and removed names durable.
	sync() error
	close() error
}

type file interface {
	io.ReaderAt
	io.WriterAt
	Truncate(size int64) error
	Sync() error
	Close() error
}

type syncer interface{ Sync() error }

type entry struct {
	name    string
	size    int64
	regular bool
}

// The reserve is a file that is removed when the disk is full. Its space allows writing
// an ack and removing a segment, which frees more.
const (
	reserveName = "reserve"
	reserveSize = 64 << 10
)

// withReserve calls do. If the disk is full, it removes the reserve and calls do again.
func withReserve(d folder, do func() error) error {
	err := do()
	if isFull(err) && d.remove(reserveName) == nil {
		err = do()
	}
	return err
}

// keepReserve creates the reserve unless it exists with its full size.
func keepReserve(d folder) error {
	f, err := d.create(reserveName)
	if errors.Is(err, fs.ErrExist) {
		var whole bool
		if whole, err = hasReserve(d); whole {
			return nil
		}
		if errors.Is(err, errNotRegular) {
			err = d.setAside(reserveName)
		} else if err == nil { // it was truncated
			err = d.remove(reserveName)
		}
		if err == nil {
			f, err = d.create(reserveName)
		}
	}
	if err != nil {
		return err
	}
	return fillReserve(d, f)
}

func hasReserve(d folder) (bool, error) {
	f, err := d.open(reserveName)
	if err != nil {
		return false, err
	}
	defer f.Close() // only read
	_, err = f.ReadAt(make([]byte, 1), reserveSize-1)
	return !errors.Is(err, io.EOF), nil
}

// fillReserve fills the new file, with random bytes so that no file system compresses it.
func fillReserve(d folder, f file) error {
	b := make([]byte, reserveSize)
	rand.Read(b)
	_, err := f.WriteAt(b, 0)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, d.remove(reserveName))
	}
	return nil
}

func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

var errNotRegular = errors.New("is not a regular file (a symbolic link is not followed)")

func notRegular(name string) error { return fmt.Errorf("%q %w", name, errNotRegular) }

// errSetAside says that something in the place of a file or directory was renamed.
var errSetAside = errors.New("renamed")

// maxAside bounds how many files of one name are set aside.
const maxAside = 100

// asideName returns the new name for something in the place of a file: the first of
// NAME.replaced, NAME.replaced.1 and so on that is free.
func asideName(name string, exists func(name string) bool) (string, error) {
	first := name + ".replaced"
	aside := first
	for n := 1; exists(aside); n++ {
		if n == maxAside {
			return "", fmt.Errorf("%d files named %q and so on exist: remove them", maxAside, first)
		}
		aside = fmt.Sprintf("%s.%d", first, n)
	}
	return aside, nil
}

// setAside renames whatever is in the place of a file or directory, so that it can be
// created again. It returns an errSetAside that says so. It does not rename a directory,
// which may be somebody's data, and then returns cause.
func setAside(path string, cause error) error {
	info, err := os.Lstat(path)
	if err != nil || info.IsDir() {
		return cause
	}
	aside, err := asideName(path, func(name string) bool {
		_, err := os.Lstat(name)
		return !errors.Is(err, fs.ErrNotExist)
	})
	if err == nil {
		err = os.Rename(path, aside)
	}
	if err != nil {
		return errors.Join(cause, err)
	}
	return fmt.Errorf("%w: %w to %q", cause, errSetAside, aside)
}
