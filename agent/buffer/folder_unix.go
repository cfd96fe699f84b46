//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package buffer

import (
	"errors"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// A directory is a folder on disk, locked for this process. Files are opened
// relative to it.
type directory struct {
	path string
	self *os.File
}

// makeFolder creates a queue's directory if it does not exist, opens it and locks it. A
// symbolic link is refused.
func makeFolder(path string) (folder, error) {
	f, err := makeSecure(path)
	if err != nil {
		return nil, err
	}
	if err = lockFile(f); err == nil {
		err = restrict(f)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &directory{path: path, self: f}, nil
}

// openFolder opens a directory for reading, without its lock.
func openFolder(path string) (folder, error) {
	f, err := openDirectory(path)
	if err != nil {
		return nil, err
	}
	return &directory{path: path, self: f}, nil
}

// restrict gives a directory mode 0700.
func restrict(f *os.File) error {
	info, err := f.Stat()
	if err == nil && info.Mode().Perm() != 0o700 {
		err = f.Chmod(0o700)
	}
	return err
}

func (d *directory) list() ([]entry, error) {
	if _, err := d.self.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	names, err := d.self.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var entries []entry
	for _, name := range names {
		var s unix.Stat_t
		err := unix.Fstatat(int(d.self.Fd()), name, &s, unix.AT_SYMLINK_NOFOLLOW)
		if err == unix.ENOENT {
			continue
		}
		if err != nil {
			return nil, &os.PathError{Op: "stat", Path: name, Err: err}
		}
		entries = append(entries, entry{name, s.Size, s.Mode&unix.S_IFMT == unix.S_IFREG})
	}
	return entries, nil
}

func (d *directory) open(name string) (file, error) { return d.openFile(name, os.O_RDONLY) }
func (d *directory) edit(name string) (file, error) { return d.openFile(name, os.O_RDWR) }
func (d *directory) create(name string) (file, error) {
	return d.openFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL)
}

func (d *directory) openFile(name string, flag int) (file, error) {
	f, err := openRegular(d.self, name, flag)
	if err != nil {
		return nil, err // not f: a nil *os.File is not a nil file
	}
	return f, nil
}

// remove reports a directory as a file that does not exist.
func (d *directory) remove(name string) error {
	err := unix.Unlinkat(int(d.self.Fd()), name, 0)
	var s unix.Stat_t
	if err != nil && unix.Fstatat(int(d.self.Fd()), name, &s, unix.AT_SYMLINK_NOFOLLOW) == nil && s.Mode&unix.S_IFMT == unix.S_IFDIR {
		err = unix.ENOENT
	}
	if err != nil {
		return &os.PathError{Op: "remove", Path: name, Err: err}
	}
	return nil
}

func (d *directory) setAside(name string) error {
	self := int(d.self.Fd())
	aside, err := asideName(name, func(name string) bool {
		var s unix.Stat_t
		return unix.Fstatat(self, name, &s, unix.AT_SYMLINK_NOFOLLOW) != unix.ENOENT
	})
	if err != nil {
		return err
	}
	if err := unix.Renameat(self, name, self, aside); err != nil {
		return &os.LinkError{Op: "rename", Old: name, New: aside, Err: err}
	}
	return nil
}

func (d *directory) names(name string, f file) bool {
	return d.atPath() && isFile(int(d.self.Fd()), name, f.(*os.File))
}

// atPath reports whether the path still refers to this directory.
func (d *directory) atPath() bool { return isFile(unix.AT_FDCWD, d.path, d.self) }

// isFile reports whether a name in a directory refers to f.
func isFile(dir int, name string, f *os.File) bool {
	var now, opened unix.Stat_t
	return unix.Fstatat(dir, name, &now, unix.AT_SYMLINK_NOFOLLOW) == nil &&
		unix.Fstat(int(f.Fd()), &opened) == nil &&
		now.Dev == opened.Dev && now.Ino == opened.Ino
}

func (d *directory) renew() (folder, error) {
	if d.atPath() {
		return d, nil
	}
	if info, err := os.Stat(filepath.Dir(d.path)); err != nil || !info.IsDir() {
		parent, err := makeAgain(filepath.Dir(d.path))
		if err != nil {
			return nil, err
		}
		parent.Close() // only opened to create it
	}
	next, err := makeFolder(d.path)
	if errors.Is(err, errNotDirectory) {
		return nil, setAside(d.path, err)
	}
	if err != nil {
		return nil, err
	}
	d.self.Close() // releases its lock
	return next, nil
}

func (d *directory) sync() error { return syncDirectory(d.self) }

// close also releases the lock.
func (d *directory) close() error { return d.self.Close() }

// lockFile locks an open file. The kernel releases the lock when the file is closed or
// the process ends in any way.
func lockFile(f *os.File) error {
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch err {
		case nil:
			return nil
		case unix.EINTR:
		case unix.EWOULDBLOCK:
			return errors.New("in use by another sockwatch")
		default:
			return os.NewSyscallError("flock", err)
		}
	}
}
