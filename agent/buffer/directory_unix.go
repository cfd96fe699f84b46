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

// MakeDirectory makes a directory for its owner alone unless it exists, and makes
// its name durable. The parent must exist. The directory must belong to this user
// or root, and nobody else may write to it: who can write to it can plant files
// in it. A symbolic link is refused unless it is the one that systemd makes for a
// unit with DynamicUser=: /var/lib/NAME to private/NAME.
func MakeDirectory(path string) error {
	f, err := makeDirectory(path)
	if err != nil {
		return err
	}
	return f.Close()
}

// makeDirectory makes a directory as MakeDirectory does, and opens it.
func makeDirectory(path string) (*os.File, error) {
	path = followSystemd(path)
	f, err := makeSecure(path)
	if _, named := errors.AsType[*fs.PathError](err); err != nil && !named {
		err = fmt.Errorf("%q: %w", path, err)
	}
	return f, err
}

// makeAgain makes and opens a directory that somebody may have removed. What is in
// its place by now is an error once: it is renamed.
func makeAgain(path string) (*os.File, error) {
	f, err := makeDirectory(path)
	if errors.Is(err, errNotDirectory) {
		err = setAside(path, err)
	}
	return f, err
}

// followSystemd returns what systemd's link of a DynamicUser= unit stands for. No
// check depends on the link: the directory that is opened instead is checked.
func followSystemd(path string) string {
	private := filepath.Join("private", filepath.Base(path))
	if target, err := os.Readlink(path); err == nil && target == private {
		return filepath.Join(filepath.Dir(path), private)
	}
	return path
}

var errNotDirectory = errors.New("not a directory (a symbolic link is not followed)")

// makeSecure makes a directory unless it exists, opens it, checks that nobody but this
// user and root may write to it, and makes its name durable.
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

// syncParent makes the name of an open directory durable.
func syncParent(path string, f *os.File) error {
	parent, err := os.Open(filepath.Dir(path))
	if errors.Is(err, fs.ErrPermission) { // it can be searched, not read
		return syncDirectory(f)
	}
	if err != nil {
		return err
	}
	return errors.Join(syncDirectory(parent), parent.Close())
}

// syncDirectory accepts file systems that cannot sync a directory.
func syncDirectory(dir syncer) error {
	err := dir.Sync()
	for _, harmless := range []error{unix.EINVAL, unix.EROFS, errors.ErrUnsupported} {
		if errors.Is(err, harmless) {
			return nil
		}
	}
	return err
}

// openRegular opens a regular file in a directory. Anything else of its name is an
// errNotRegular: a symbolic link is not followed, a FIFO not waited for.
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

// isLink reports whether an open with O_NOFOLLOW has met a symbolic link.
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
