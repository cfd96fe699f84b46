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

// A folder is what a queue asks of the file system: one directory. Tests put
// their faults here.
type folder interface {
	list() ([]entry, error)
	// open opens a file for reading, edit for writing too, and create makes one that
	// must not exist. What is not a regular file is an errNotRegular.
	open(name string) (file, error)
	edit(name string) (file, error)
	create(name string) (file, error)
	remove(name string) error
	// setAside renames what is in the place of a file, and replaces no other file.
	setAside(name string) error
	// names reports whether a name, at the path of the directory, is that of f, which
	// somebody else may have removed, renamed or replaced.
	names(name string, f file) bool
	// renew makes the directory again if its path names another, or none, and returns
	// it; else itself. What was opened in the old one can still be used. An error that is
	// errSetAside says what was in its place and no longer is: the next renew can make it.
	renew() (folder, error)
	// sync makes what was created and removed durable.
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

// The reserve is a file that is given up when the disk is full, so that there is
// space to note an ack and to remove a segment, which give space back.
const (
	reserveName = "reserve"
	reserveSize = 64 << 10
)

// withReserve does something, a second time without the reserve if the disk is full.
func withReserve(d folder, do func() error) error {
	err := do()
	if isFull(err) && d.remove(reserveName) == nil {
		err = do()
	}
	return err
}

// keepReserve makes the reserve unless it is there, whole.
func keepReserve(d folder) error {
	f, err := d.create(reserveName)
	if errors.Is(err, fs.ErrExist) {
		var whole bool
		if whole, err = hasReserve(d); whole {
			return nil
		}
		if errors.Is(err, errNotRegular) {
			err = d.setAside(reserveName)
		} else if err == nil { // somebody truncated it
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
	defer f.Close() // read only
	_, err = f.ReadAt(make([]byte, 1), reserveSize-1)
	return !errors.Is(err, io.EOF), nil
}

// fillReserve fills the new file. Random bytes take their space on every file system.
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

// errSetAside says that what was in the place of a file or directory has another name.
var errSetAside = errors.New("renamed")

// maxAside bounds how many files of one name are set aside.
const maxAside = 100

// asideName returns a name for what is in the place of a file: the first that is free
// of NAME.replaced, NAME.replaced.1 and so on.
func asideName(name string, exists func(name string) bool) (string, error) {
	first := name + ".replaced"
	aside := first
	for n := 1; exists(aside); n++ {
		if n == maxAside {
			return "", fmt.Errorf("%d files from %q on are in the way: remove them", maxAside, first)
		}
		aside = fmt.Sprintf("%s.%d", first, n)
	}
	return aside, nil
}

// setAside renames what is in the place of a file or directory, so that this can be
// made again, and returns the error that says so, an errSetAside. A directory stays: it
// may be somebody's data.
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
