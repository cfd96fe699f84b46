package users

import (
	"errors"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"sockwatch/inputs/internal/host"
)

// open opens a file below the root directory of the host's pid 1. That needs permission to
// trace pid 1; if it is refused, open uses this program's own root directory. Symbolic links
// stay below the root.
func open(h host.Host, name string, flags int) (int, error) {
	fd, err := openBelow(h.Proc+"/1/root", name, flags)
	var refused *refusedError
	if errors.As(err, &refused) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
		fd, err = openBelow("/", name, flags)
	}
	return fd, err
}

// A refusedError says that a root directory cannot be opened.
type refusedError struct{ error }

func (e *refusedError) Unwrap() error { return e.error }

func openBelow(root, name string, flags int) (int, error) {
	dir, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &refusedError{err}
	}
	defer unix.Close(dir)
	how := unix.OpenHow{
		Flags:   uint64(flags | unix.O_CLOEXEC),
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	}
	for range 10 { // EAGAIN: something was renamed meanwhile, see openat2(2)
		fd, err := unix.Openat2(dir, name, &how)
		switch {
		case err == unix.EAGAIN || err == unix.EINTR:
		case err == unix.ENOSYS || err == unix.EPERM: // before Linux 5.6, or a system call filter
			return openWithoutLinks(dir, name, flags)
		default:
			return fd, err
		}
	}
	return -1, unix.EAGAIN
}

// openWithoutLinks opens a file below a directory. It returns an error if the path contains a
// symbolic link.
func openWithoutLinks(dir int, name string, flags int) (int, error) {
	parents, base := path.Split(name)
	for parent := range strings.SplitSeq(strings.TrimSuffix(parents, "/"), "/") {
		next, err := unix.Openat(dir, parent, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return -1, err
		}
		defer unix.Close(next)
		dir = next
	}
	return unix.Openat(dir, base, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
}
