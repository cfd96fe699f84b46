package procfs

import (
	"bytes"
	"errors"
	"strconv"

	"golang.org/x/sys/unix"
)

// Exe reads the path of the process's program, and reports whether the file that had
// it has been deleted or replaced since. The path is valid until the next read.
func (p Process) Exe() (path []byte, deleted bool, err error) {
	link := "exe"
	path, err = p.readLink(link)
	if errors.Is(err, ErrExited) { // or it is a kernel thread, or its first thread has ended
		link, path, err = p.threadExe()
	}
	if err != nil {
		return nil, false, err
	}
	name, suffixed := bytes.CutSuffix(path, []byte(" (deleted)"))
	if suffixed && p.unlinked(link, path) {
		return name, true, nil
	}
	return path, false, nil
}

// threadExe reads the link exe of a thread that has one.
func (p Process) threadExe() (link string, path []byte, err error) {
	if single, err := p.singleThreaded(); single || err != nil {
		return "", nil, errors.Join(err, ErrExited)
	}
	tids, err := p.threads(0)
	for _, tid := range tids {
		link = "task/" + strconv.Itoa(tid) + "/exe"
		if path, err := p.readLink(link); !errors.Is(err, ErrExited) {
			return link, path, err
		}
	}
	return "", nil, errors.Join(err, ErrExited)
}

func (p Process) readLink(name string) ([]byte, error) {
	path, err := p.fs.readLink(p.dir, []byte(name))
	if err != nil {
		return nil, p.fs.processError(p.PID, name, err)
	}
	return path, nil
}

// unlinked reports whether " (deleted)" at the end of a path is the kernel's (d_path
// of fs/d_path.c), and not part of a name that leads to the same file still. That name
// is in the kernel's cache then: nothing here waits for a file system, which may be a
// stalled one, or a hostile user's.
func (p Process) unlinked(link string, path []byte) bool {
	root, err := unix.Openat(p.dir, "root", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return true
	}
	defer unix.Close(root)
	const cached = 0x20 // RESOLVE_CACHED, Linux 5.12
	how := unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | cached,
	}
	file, err := unix.Openat2(root, string(path), &how)
	for tries := 0; errors.Is(err, unix.EAGAIN) && tries < 16; tries++ { // also if anything is renamed or mounted meanwhile
		file, err = unix.Openat2(root, string(path), &how)
	}
	if err != nil {
		return true
	}
	defer unix.Close(file)
	var exe, named unix.Statx_t
	err = errors.Join(
		unix.Statx(p.dir, link, unix.AT_STATX_DONT_SYNC, unix.STATX_INO, &exe),
		unix.Statx(file, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_INO, &named))
	return err != nil || named.Ino != exe.Ino || named.Dev_major != exe.Dev_major || named.Dev_minor != exe.Dev_minor
}
