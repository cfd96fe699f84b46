package procfs

import (
	"strconv"

	"golang.org/x/sys/unix"
)

// EachSocket calls each for every open file of the process that is a socket,
// with the thread that has it, until more, which is asked now and then, says no;
// whole tells whether it did not. It allocates nothing for an open file.
func (p Process) EachSocket(more func() bool, each func(tid int, fd int32, inode uint64)) (whole bool, err error) {
	n, whole, err := p.eachSocket("fd", p.PID, more, each)
	if err != nil || n > 0 || !whole {
		return whole, err
	}
	// No file at all: a kernel thread, or one whose first thread has ended before
	// the others, which then are asked.
	if p.singleThreaded() {
		return true, nil
	}
	for _, tid := range p.threads() {
		n, whole, err = p.eachSocket("task/"+strconv.Itoa(tid)+"/fd", tid, more, each)
		if err == nil && (n > 0 || !whole) {
			return whole, nil
		}
	}
	return true, nil
}

// EachThreadSocket does so for the open files that threads have for themselves.
func (p Process) EachThreadSocket(more func() bool, each func(tid int, fd int32, inode uint64)) (whole bool, err error) {
	if p.singleThreaded() {
		return more(), nil
	}
	for _, tid := range p.threads() {
		if !more() {
			return false, nil
		}
		if tid == p.PID || p.fs.own && shareFiles(p.PID, tid) {
			continue
		}
		_, whole, err = p.eachSocket("task/"+strconv.Itoa(tid)+"/fd", tid, more, each)
		if err == nil && !whole {
			return false, nil
		}
	}
	return true, nil
}

// singleThreaded tells whether the process has one thread, or none any more: task
// has a directory for each, beside its own two links.
func (p Process) singleThreaded() bool {
	var st unix.Stat_t
	return unix.Fstatat(p.dir, "task", &st, 0) != nil || st.Nlink <= 3
}

// shareFiles tells whether two threads are known to have the same open files:
// kcmp(2), which not every kernel has and a filter may forbid.
func shareFiles(a, b int) bool {
	const kcmpFiles = 2 // KCMP_FILES, from include/uapi/linux/kcmp.h
	order, _, errno := unix.Syscall6(unix.SYS_KCMP, uintptr(a), uintptr(b), kcmpFiles, 0, 0, 0)
	return errno == 0 && order == 0
}

// threads returns the threads of the process; none of one that has exited.
func (p Process) threads() (tids []int) {
	dir, err := unix.Openat(p.dir, "task", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(dir)
	tids, _ = p.fs.numbers(dir, nil)
	return tids
}

// eachSocket reads one directory of open files, and returns how many there are.
func (p Process) eachSocket(name string, tid int, more func() bool, each func(tid int, fd int32, inode uint64)) (files int, whole bool, err error) {
	dir, err := unix.Openat(p.dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, false, p.fs.processError(p.PID, name, err)
	}
	defer unix.Close(dir)
	for {
		n, err := unix.ReadDirent(dir, p.fs.dirs)
		if err != nil {
			return files, false, p.fs.processError(p.PID, name, err)
		}
		if n == 0 {
			return files, true, nil
		}
		for name, rest := nextEntry(p.fs.dirs[:n]); len(name) > 0; name, rest = nextEntry(rest) {
			fd, ok := parseFD(name)
			if !ok {
				continue
			}
			files++
			link, errno := p.fs.readLink(dir, name)
			if errno == unix.EACCES || errno == unix.EPERM {
				return files, false, ErrRefused
			}
			if inode, ok := parseLink(link, "socket:["); ok {
				each(tid, fd, inode)
			}
		}
		if !more() {
			return files, false, nil
		}
	}
}

// HoldsSocket tells whether that file of one of the process's threads is that
// socket now.
func (p Process) HoldsSocket(tid int, fd int32, inode uint64) bool {
	var b [nameSize]byte
	name := b[:0]
	if tid != p.PID {
		name = append(strconv.AppendInt(append(name, "task/"...), int64(tid), 10), '/')
	}
	return p.fs.holds(p.dir, strconv.AppendInt(append(name, "fd/"...), int64(fd), 10), inode)
}

// HoldsSocket tells whether that file of whichever thread has that number is that
// socket now.
func (f *FS) HoldsSocket(tid int, fd int32, inode uint64) bool {
	var b [nameSize]byte
	name := append(strconv.AppendInt(b[:0], int64(tid), 10), "/fd/"...)
	return f.holds(f.dir, strconv.AppendInt(name, int64(fd), 10), inode)
}

func (f *FS) holds(dir int, name []byte, inode uint64) bool {
	link, errno := f.readLink(dir, name)
	if errno != 0 {
		return false
	}
	is, ok := parseLink(link, "socket:[")
	return ok && is == inode
}
