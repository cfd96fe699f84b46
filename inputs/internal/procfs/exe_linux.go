package procfs

import (
	"bytes"
	"errors"
	"strconv"

	"golang.org/x/sys/unix"
)

// Exe returns the path of the process's program, and reports whether the file with that path
// has been deleted or replaced since. The path is valid until the next read.
func (p Process) Exe() (path []byte, deleted bool, err error) {
	link := "exe"
	path, err = p.readLink(link)
	if errors.Is(err, ErrExited) { // also for a kernel thread, or if the first thread has ended
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

// ExeLink returns the link exe of the process that has a pid now. Unlike Exe, it leaves
// " (deleted)" at its end. The link is valid until the next read.
func (f *FS) ExeLink(pid int) ([]byte, error) {
	return f.readLink(f.dir, append(strconv.AppendInt(nil, int64(pid), 10), "/exe"...))
}

// threadExe reads the link exe of the first thread that has one.
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

// unlinked reports whether the kernel has added " (deleted)" to a path (d_path in fs/d_path.c).
// It has not if a file with that whole name exists and is the program. In that case the name
// is in the kernel's cache, so unlinked never has to wait for a file system, which might be
// stalled or belong to a hostile user.
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
	for tries := 0; errors.Is(err, unix.EAGAIN) && tries < 16; tries++ { // also if anything was renamed or mounted meanwhile
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
