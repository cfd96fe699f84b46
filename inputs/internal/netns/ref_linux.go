package netns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"sockwatch/inputs/internal/host"
)

// A ref says where a namespace was found. It is comparable.
type ref struct {
	pid   int    // a process or thread; 0: the mount namespace of Host.Root
	fd    int    // an open file of the process, or -1
	mount string // the path at which the process has the namespace mounted
}

func processRef(pid int) ref { return ref{pid: pid, fd: -1} }

// isProcess reports whether the ref is a process or thread, which has a directory net.
func (r ref) isProcess() bool { return r.pid != 0 && r.fd < 0 && r.mount == "" }

// path returns the file that is the namespace.
func (r ref) path(h host.Host) string {
	dir := h.Proc + "/" + strconv.Itoa(r.pid)
	switch {
	case r.mount != "" && r.pid == 0:
		return strings.TrimSuffix(h.Root, "/") + r.mount
	case r.mount != "":
		return dir + "/root" + r.mount
	case r.fd >= 0:
		return dir + "/fd/" + strconv.Itoa(r.fd)
	default:
		return dir + "/ns/net"
	}
}

// number returns the number of the namespace that the ref leads to now, even if it is not a
// network namespace.
func (r ref) number(h host.Host) (uint64, error) {
	if r.isProcess() {
		return numberOf(r.path(h))
	}
	fd, err := r.find(h)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	return namespaceNumber(fd, r.path(h))
}

// networkNumber is like number, but returns an error for a namespace of another kind.
func (r ref) networkNumber(h host.Host) (uint64, error) {
	number, err := r.number(h)
	if err != nil {
		return 0, err
	}
	f, err := r.open(h, number)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	kind, err := unix.IoctlRetInt(int(f.Fd()), unix.NS_GET_NSTYPE)
	if err == nil && kind != unix.CLONE_NEWNET {
		err = fmt.Errorf("%s is %w", r.path(h), errNotNetwork)
	}
	return number, err
}

// open opens the file of the namespace with the number want, or of any namespace if want is
// 0 because the number was hidden. It never opens any other file, which might be a FIFO
// and wait for a writer.
func (r ref) open(h host.Host, want uint64) (*os.File, error) {
	fd, err := r.find(h)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	number, err := namespaceNumber(fd, r.path(h))
	if err != nil {
		return nil, err
	}
	if want != 0 && number != want {
		return nil, errMoved
	}
	return os.Open("/proc/thread-self/fd/" + strconv.Itoa(fd))
}

// find opens the ref with O_PATH.
func (r ref) find(h host.Host) (fd int, err error) {
	path := r.path(h)
	if r.mount != "" && r.pid != 0 {
		fd, err = r.findMount(h)
	} else {
		fd, err = unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return -1, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return fd, nil
}

// findMount opens a mount in another mount namespace. File systems on its path were
// mounted by others and may never answer. So only names that the kernel has in memory are
// followed, which includes those of mount points.
func (r ref) findMount(h host.Host) (fd int, err error) {
	root, err := unix.Open(h.Proc+"/"+strconv.Itoa(r.pid)+"/root", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(root)
	const cached = 0x20 // RESOLVE_CACHED, since 5.12
	how := unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS | cached,
	}
	fd, err = unix.Openat2(root, r.mount, &how)
	for tries := 0; err == unix.EAGAIN && tries < 16; tries++ { // also if anything was renamed or mounted meanwhile
		fd, err = unix.Openat2(root, r.mount, &how)
	}
	return fd, err
}

// errNotNetwork says that a file is not a network namespace.
var errNotNetwork = errors.New("not a network namespace")

// namespaceNumber returns the number of an open namespace. It never waits for a file
// system.
func namespaceNumber(fd int, path string) (uint64, error) {
	var own, st unix.Statx_t // all namespaces are on the same device
	err := errors.Join(
		unix.Statx(unix.AT_FDCWD, "/proc/thread-self/ns/net", 0, unix.STATX_INO, &own),
		unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_INO, &st),
	)
	if err != nil {
		return 0, fmt.Errorf("stat %s: %w", path, err)
	}
	if st.Dev_major != own.Dev_major || st.Dev_minor != own.Dev_minor {
		return 0, fmt.Errorf("%s is %w", path, errNotNetwork)
	}
	return st.Ino, nil
}

// numberOf returns the number in a link to a network namespace.
func numberOf(link string) (uint64, error) {
	var b [64]byte
	n, err := unix.Readlink(link, b[:])
	if err != nil {
		return 0, &fs.PathError{Op: "readlink", Path: link, Err: err}
	}
	number, ok := parseNumber(b[:n])
	if !ok {
		return 0, fmt.Errorf("%s: %q is %w", link, b[:n], errNotNetwork)
	}
	return number, nil
}

// tableNumber returns the inode of a process's net/tcp.
func tableNumber(h host.Host, pid int) (uint64, error) {
	var st unix.Stat_t
	path := h.Proc + "/" + strconv.Itoa(pid) + "/net/tcp"
	if err := unix.Stat(path, &st); err != nil {
		return 0, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	return st.Ino, nil
}

// isGone reports whether an error says that a process or a mount is gone. EINVAL is what
// the directory net of a zombie returns.
func isGone(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL)
}

// isRefused reports whether an error says that something is not permitted.
func isRefused(err error) bool { return errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) }
