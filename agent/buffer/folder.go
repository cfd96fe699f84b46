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
	// open opens a regular file for reading, edit for writing too, and create makes
	// one that must not exist.
	open(name string) (file, error)
	edit(name string) (file, error)
	create(name string) (file, error)
	remove(name string) error
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

// A directory is a folder on disk. Files are opened relative to it and no
// symbolic link is followed: os.Root opens with O_NOFOLLOW and resolves links
// itself, and what is not the regular file of that very name is refused.
type directory struct {
	root *os.Root
	self *os.File
}

// openDirectory opens a directory, which must not be a symbolic link.
func openDirectory(path string) (*directory, error) {
	before, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !before.IsDir() {
		return nil, errors.New("not a directory (a symbolic link is not followed)")
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	self, err := root.Open(".")
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	d := &directory{root: root, self: self}
	after, err := self.Stat()
	if err == nil && !os.SameFile(before, after) {
		err = errors.New("replaced while it was opened")
	}
	if err != nil {
		return nil, errors.Join(err, d.close())
	}
	return d, nil
}

// own takes the directory for this process alone.
func (d *directory) own() error {
	if err := lockFile(d.self); err != nil {
		return err
	}
	info, err := d.self.Stat()
	if err == nil && info.Mode().Perm() != 0o700 {
		err = d.self.Chmod(0o700)
	}
	return err
}

func (d *directory) list() ([]entry, error) {
	if _, err := d.self.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	infos, err := d.self.Readdir(-1)
	if err != nil {
		return nil, err
	}
	entries := make([]entry, len(infos))
	for i, info := range infos {
		entries[i] = entry{info.Name(), info.Size(), info.Mode().IsRegular()}
	}
	return entries, nil
}

func (d *directory) open(name string) (file, error) { return d.openFile(name, os.O_RDONLY) }
func (d *directory) edit(name string) (file, error) { return d.openFile(name, os.O_RDWR) }

func (d *directory) openFile(name string, flag int) (file, error) {
	before, err := d.root.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !before.Mode().IsRegular() {
		return nil, fmt.Errorf("%q is not a regular file (a symbolic link is not followed)", name)
	}
	f, err := d.root.OpenFile(name, flag, 0)
	if err != nil {
		return nil, err
	}
	after, err := f.Stat()
	if err == nil && !os.SameFile(before, after) {
		err = fmt.Errorf("%q was replaced while it was opened", name)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func (d *directory) create(name string) (file, error) {
	f, err := d.root.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err // not f: a nil *os.File is not a nil file
	}
	return f, nil
}

func (d *directory) remove(name string) error { return d.root.Remove(name) }

func (d *directory) sync() error { return syncDirectory(d.self) }

// close gives the lock up too.
func (d *directory) close() error { return errors.Join(d.self.Close(), d.root.Close()) }

// The reserve is a file that is given up when the disk is full, so that there is
// space to note an ack and to remove a segment, which give space back.
const (
	reserveName = "reserve"
	reserveSize = 64 << 10
)

// withReserve does what must not fail for want of space.
func withReserve(d folder, do func() error) error {
	err := do()
	if isFull(err) && d.remove(reserveName) == nil {
		err = do()
	}
	return err
}

// keepReserve makes the reserve where there is none. Random bytes take their
// space on every file system.
func keepReserve(d folder) error {
	f, err := d.create(reserveName)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	b := make([]byte, reserveSize)
	rand.Read(b)
	_, err = f.WriteAt(b, 0)
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
