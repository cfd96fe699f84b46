package procfs

import (
	"errors"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"sockwatch/inputs/internal/dirent"
)

// A File is an open file that is a socket, or an io_uring, which may hold sockets itself.
type File struct {
	TID   int32 // a thread that has the file open
	FD    int32
	Inode uint64 // of the socket; 0 for an io_uring
	Ring  bool   // FD is an io_uring; Inode, if set, is a socket that it holds
}

// A Cursor is a position among the files of one process. The zero Cursor is before the
// first of them.
type Cursor struct {
	start  uint64 // Stat.Start of the process
	tid    int    // the thread whose directory fd is being read; 0: that of the process
	offset int64  // in that directory
}

// Files calls visit for each open file of the process that is a socket or an io_uring, from
// the cursor on. After each piece of a directory it calls more. If more returns false, Files
// returns false, and the next call continues at the cursor.
func (p Process) Files(c *Cursor, more func() bool, visit func(File)) (done bool, err error) {
	if err := p.resume(c); err != nil {
		return false, err
	}
	if c.tid == 0 {
		begun := c.offset > 0
		n, done, err := p.files("fd", p.PID, c, more, visit)
		if err != nil || !done {
			return false, p.suspend(c, err)
		}
		if n > 0 || begun {
			return true, nil
		}
		// There are no files: it is a kernel thread, or a process whose first thread has
		// ended before the others. Then read those of the other threads.
		if single, err := p.singleThreaded(); single || err != nil {
			return err == nil, err
		}
	}
	tids, err := p.threads(c.tid)
	for _, tid := range tids {
		begun := c.tid == tid
		n, done, err := p.threadFiles(tid, c, more, visit)
		if err != nil || !done {
			return false, p.suspend(c, err)
		}
		if n > 0 || begun {
			break
		}
	}
	return err == nil, err
}

// ThreadFiles is like Files, but visits the files of threads that do not share those of the
// process: after unshare(2), or clone(2) without CLONE_FILES.
func (p Process) ThreadFiles(c *Cursor, more func() bool, visit func(File)) (done bool, err error) {
	if single, err := p.singleThreaded(); single || err != nil {
		return err == nil, err
	}
	if err := p.resume(c); err != nil {
		return false, err
	}
	tids, err := p.threads(c.tid)
	if err != nil {
		return false, err
	}
	read := []int{p.PID} // threads that do not share files with each other
	for _, tid := range tids {
		if tid == p.PID || p.fs.host.OwnPIDs && slices.ContainsFunc(read, func(r int) bool { return shareFiles(r, tid) }) {
			continue
		}
		_, done, err := p.threadFiles(tid, c, more, visit)
		if err != nil || !done {
			return false, p.suspend(c, err)
		}
		if len(read) < 8 {
			read = append(read, tid)
		}
	}
	return true, nil
}

// resume resets a cursor that belongs to an earlier process with the same pid.
func (p Process) resume(c *Cursor) error {
	if *c == (Cursor{}) {
		return nil
	}
	st, err := p.Stat()
	if err == nil && st.Start != c.start {
		*c = Cursor{}
	}
	return err
}

// suspend records in the cursor which process it belongs to. It returns err if that is not
// nil.
func (p Process) suspend(c *Cursor, err error) error {
	if err != nil {
		return err
	}
	st, err := p.Stat()
	c.start = st.Start
	return err
}

// threadFiles reads the files of one thread. A thread that has ended has none.
func (p Process) threadFiles(tid int, c *Cursor, more func() bool, visit func(File)) (n int, done bool, err error) {
	if c.tid != tid {
		c.tid, c.offset = tid, 0
	}
	n, done, err = p.files("task/"+strconv.Itoa(tid)+"/fd", tid, c, more, visit)
	if errors.Is(err, ErrExited) {
		return 0, true, nil
	}
	return n, done, err
}

// files reads one directory of open files, and returns how many files are in it.
func (p Process) files(name string, tid int, c *Cursor, more func() bool, visit func(File)) (n int, done bool, err error) {
	dir, err := unix.Openat(p.dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, false, p.fs.processError(p.PID, name, err)
	}
	defer unix.Close(dir)
	if c.offset > 0 {
		if _, err := unix.Seek(dir, c.offset, unix.SEEK_SET); err != nil {
			return 0, false, p.fs.processError(p.PID, name, err)
		}
	}
	for {
		size, err := unix.ReadDirent(dir, p.fs.dirs)
		if err != nil {
			return n, false, p.fs.processError(p.PID, name, err)
		}
		if size == 0 {
			return n, true, nil
		}
		for entry, rest := dirent.Next(p.fs.dirs[:size]); len(entry) > 0; entry, rest = dirent.Next(rest) {
			fd, ok := dirent.Number(entry)
			if !ok {
				continue
			}
			n++
			link, err := p.fs.readLink(dir, entry)
			if err != nil {
				if err := p.fs.processError(p.PID, name, err); !errors.Is(err, ErrExited) {
					return n, false, err
				}
				continue // closed meanwhile
			}
			if inode, ok := parseLink(link, "socket:["); ok {
				visit(File{TID: int32(tid), FD: int32(fd), Inode: inode})
			} else if string(link) == ringLink {
				visit(File{TID: int32(tid), FD: int32(fd), Ring: true})
			}
		}
		if !more() {
			c.offset, err = unix.Seek(dir, 0, unix.SEEK_CUR)
			return n, false, err
		}
	}
}

// singleThreaded reports whether the process has at most one thread. The link count of task is
// two more than the number of threads.
func (p Process) singleThreaded() (bool, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(p.dir, "task", &st, 0); err != nil {
		return false, p.fs.processError(p.PID, "task", err)
	}
	return st.Nlink <= 3, nil
}

// threads returns the threads of the process with numbers of at least from, in ascending
// order.
func (p Process) threads(from int) ([]int, error) {
	dir, err := unix.Openat(p.dir, "task", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, p.fs.processError(p.PID, "task", err)
	}
	defer unix.Close(dir)
	tids, err := p.fs.numbers(dir, nil)
	if err != nil {
		return nil, p.fs.processError(p.PID, "task", err)
	}
	slices.Sort(tids)
	i, _ := slices.BinarySearch(tids, from)
	return tids[i:], nil
}

// shareFiles reports whether two threads are known to share their open files, by kcmp(2). Not
// every kernel has it, and a system call filter may forbid it.
func shareFiles(a, b int) bool {
	const kcmpFiles = 2 // KCMP_FILES, from include/uapi/linux/kcmp.h
	order, _, errno := unix.Syscall6(unix.SYS_KCMP, uintptr(a), uintptr(b), kcmpFiles, 0, 0, 0)
	return errno == 0 && order == 0
}

// Holds reports whether a file of one of the process's threads still is, or holds, the same
// socket. After an error that is not known.
func (p Process) Holds(file File) (bool, error) {
	var path []byte
	if int(file.TID) != p.PID {
		path = append(strconv.AppendInt(append(path, "task/"...), int64(file.TID), 10), '/')
	}
	held, err := p.fs.holds(p.dir, path, file)
	return held, p.fs.existing(p.PID, err)
}

// Holds is like Process.Holds, but for the thread that has the number file.TID now.
func (f *FS) Holds(file File) (bool, error) {
	held, err := f.holds(f.dir, append(strconv.AppendInt(nil, int64(file.TID), 10), '/'), file)
	return held, f.existing(int(file.TID), err)
}

// existing returns nil if the error says that a file does not exist, else the error of a
// read.
func (f *FS) existing(pid int, err error) error {
	if err != nil {
		err = f.processError(pid, "fd", err)
	}
	if errors.Is(err, ErrExited) {
		return nil
	}
	return err
}

func (f *FS) holds(dir int, thread []byte, file File) (held bool, err error) {
	fd := strconv.AppendInt(append(thread, "fd/"...), int64(file.FD), 10)
	link, err := f.readLink(dir, fd)
	if err != nil || !file.Ring {
		inode, ok := parseLink(link, "socket:[")
		return err == nil && ok && inode == file.Inode, err
	}
	if string(link) != ringLink {
		return false, nil
	}
	info := strconv.AppendInt(append(thread, "fdinfo/"...), int64(file.FD), 10)
	known, err := f.ringSockets(dir, string(info), func(inode uint64) {
		held = held || inode == file.Inode
	})
	if err == nil && !known && !held {
		err = errRingBusy
	}
	return held, err
}
