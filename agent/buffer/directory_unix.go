//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package buffer

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// MakeDirectory creates a directory with mode 0700 if it does not exist, and syncs its
// parent, which must exist. The directory must belong to this user or root, and nobody
// else may have write access, because they could plant files in it. A symbolic link is
// refused unless it is the one that systemd creates for a unit with DynamicUser=:
// /var/lib/NAME to private/NAME.
func MakeDirectory(path string) error {
	f, err := makeDirectory(path)
	if err != nil {
		return err
	}
	return f.Close()
}

// makeDirectory is MakeDirectory, but also opens the directory.
func makeDirectory(path string) (*os.File, error) {
	path = followSystemd(path)
	f, err := makeSecure(path)
	if _, named := errors.AsType[*fs.PathError](err); err != nil && !named {
		err = fmt.Errorf("%q: %w", path, err)
	}
	return f, err
}

// makeAgain creates a directory again if it was removed, and opens it. If something else
// has taken its place, makeAgain returns an error and renames it.
func makeAgain(path string) (*os.File, error) {
	f, err := makeDirectory(path)
	if errors.Is(err, errNotDirectory) {
		err = setAside(path, err)
	}
	return f, err
}

// followSystemd resolves systemd's link for a DynamicUser= unit, and returns any other
// path unchanged. The link need not be trusted: the directory that is opened is checked.
func followSystemd(path string) string {
	private := filepath.Join("private", filepath.Base(path))
	if target, err := os.Readlink(path); err == nil && target == private {
		return filepath.Join(filepath.Dir(path), private)
	}
	return path
}

var errNotDirectory = errors.New("not a directory (a symbolic link is not followed)")

// makeSecure creates a directory if it does not exist, opens it, checks that only this
// user and root may write to it, and syncs its parent.
func makeSecure(path string) (*os.File, error) {
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	f, err := openDirectory(path)
	if err != nil {
		return nil, err
	}
	if err = checkOwner(f); err == nil {
		err = syncParent(path, f)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func openDirectory(path string) (*os.File, error) {
	f, err := openat(unix.AT_FDCWD, path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if errors.Is(err, unix.ENOTDIR) || isLink(err) {
		return nil, errNotDirectory
	}
	return f, err
}

func checkOwner(f *os.File) error {
	var s unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &s); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	user, group := os.Geteuid(), os.Getegid()
	if s.Uid != 0 && int(s.Uid) != user {
		return fmt.Errorf("belongs to user %d, not to this user (%d) or root", s.Uid, user)
	}
	ours := s.Gid == 0 || int(s.Gid) == group
	if s.Mode&0o002 != 0 || s.Mode&0o020 != 0 && !ours {
		return fmt.Errorf("others may write to it (mode %04o)", s.Mode&0o7777)
	}
	return nil
}

// syncParent syncs the parent of an open directory, which makes its name durable.
func syncParent(path string, f *os.File) error {
	parent, err := os.Open(filepath.Dir(path))
	if errors.Is(err, fs.ErrPermission) { // the parent can be searched but not read
		return syncDirectory(f)
	}
	if err != nil {
		return err
	}
	return errors.Join(syncDirectory(parent), parent.Close())
}

// syncDirectory syncs a directory, unless its file system cannot.
func syncDirectory(dir syncer) error {
	err := dir.Sync()
	for _, harmless := range []error{unix.EINVAL, unix.EROFS, errors.ErrUnsupported} {
		if errors.Is(err, harmless) {
			return nil
		}
	}
	return err
}

// openRegular opens a regular file in a directory. Anything else is an errNotRegular: it
// does not follow a symbolic link or wait for a FIFO.
func openRegular(dir *os.File, name string, flag int) (*os.File, error) {
	f, err := openat(int(dir.Fd()), name, flag|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if isLink(err) || errors.Is(err, unix.EISDIR) || errors.Is(err, unix.ENXIO) {
		return nil, notRegular(name)
	}
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = notRegular(name)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// isLink reports whether an open with O_NOFOLLOW failed because of a symbolic link.
func isLink(err error) bool {
	return errors.Is(err, unix.ELOOP) || errors.Is(err, unix.EMLINK) // EMLINK: FreeBSD
}

func openat(dir int, name string, flag int, perm uint32) (*os.File, error) {
	for {
		fd, err := unix.Openat(dir, name, flag|unix.O_CLOEXEC, perm)
		switch err {
		case nil:
			return os.NewFile(uintptr(fd), name), nil
		case unix.EINTR:
		default:
			return nil, &os.PathError{Op: "open", Path: name, Err: err}
		}
	}
}
