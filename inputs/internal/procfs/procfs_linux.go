// Package procfs reads processes and their sockets from /proc. It reads each process through
// one open directory, so a result never mixes two processes that had the same pid one after
// the other.
package procfs

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"sockwatch/inputs/internal/dirent"
	"sockwatch/inputs/internal/host"
)

// An FS is a mounted procfs. It must be used by one goroutine.
type FS struct {
	host  host.Host
	dir   int
	boot  time.Time // zero if unknown
	rings ringFormat

	ringReads    guard
	cmdlineReads guard

	dirs []byte // buffer for getdents64
	text []byte // buffer for the text of a file
	link []byte // buffer for the target of a link
}

// Open opens the procfs of a host.
func Open(h host.Host) (*FS, error) {
	dir, err := unix.Open(h.Proc, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: h.Proc, Err: err}
	}
	f := &FS{
		host: h, dir: dir, rings: ownRingFormat(),
		ringReads: guard{timeout: hangTimeout}, cmdlineReads: guard{timeout: hangTimeout},
		dirs: make([]byte, 32<<10), text: make([]byte, 4096), link: make([]byte, 4096),
	}
	// A procfs that is mounted with subset=pid has no stat.
	if err := f.ReadBootTime(); err != nil && !f.mounted() {
		f.Close()
		return nil, fmt.Errorf("%s is not a procfs: %w", h.Proc, err)
	}
	return f, nil
}

// mounted reports whether the directory is a procfs.
func (f *FS) mounted() bool {
	var st unix.Statfs_t
	return unix.Fstatfs(f.dir, &st) == nil && st.Type == unix.PROC_SUPER_MAGIC
}

// Close closes the directory.
func (f *FS) Close() error { return unix.Close(f.dir) }

// Path returns the mount point.
func (f *FS) Path() string { return f.host.Proc }

// OwnPIDs reports whether its pids are also the pids that system calls use.
func (f *FS) OwnPIDs() bool { return f.host.OwnPIDs }

// ReadBootTime reads the boot time again, since setting the clock changes it. After an error
// the last one stays.
func (f *FS) ReadBootTime() error {
	text, err := f.readFile(f.dir, "stat", 1<<20)
	if err != nil {
		return err
	}
	seconds, err := parseBootTime(text)
	if err != nil {
		return err
	}
	f.boot = time.Unix(seconds, 0)
	return nil
}

// StartTime returns the time for a Stat.Start, or the zero time if the boot time is not known.
func (f *FS) StartTime(ticks uint64) time.Time {
	if f.boot.IsZero() {
		return time.Time{}
	}
	return f.boot.Add(time.Duration(ticks) * (time.Second / userHZ))
}

// PIDs appends the pids of all visible processes to dst.
func (f *FS) PIDs(dst []int) ([]int, error) {
	if _, err := unix.Seek(f.dir, 0, unix.SEEK_SET); err != nil {
		return dst, &fs.PathError{Op: "seek", Path: f.host.Proc, Err: err}
	}
	pids, err := f.numbers(f.dir, dst)
	if err != nil {
		return pids, &fs.PathError{Op: "readdir", Path: f.host.Proc, Err: err}
	}
	return pids, nil
}

// numbers appends the names in a directory that are positive numbers to dst.
func (f *FS) numbers(dir int, dst []int) ([]int, error) {
	for {
		n, err := unix.ReadDirent(dir, f.dirs)
		if err != nil || n == 0 {
			return dst, err
		}
		for name, rest := dirent.Next(f.dirs[:n]); len(name) > 0; name, rest = dirent.Next(rest) {
			if pid, ok := dirent.Number(name); ok && pid > 0 {
				dst = append(dst, pid)
			}
		}
	}
}

// A Process is the open directory of one process. After the process has ended, every read
// returns ErrExited, even if the pid is in use again.
type Process struct {
	PID int
	fs  *FS
	dir int
}

// The errors of reads. Any other error says nothing about the process.
var (
	ErrExited  = errors.New("process has exited")
	ErrRefused = errors.New("not permitted")
	// ErrNoResources says that this program or the host has no file descriptor or memory
	// left for the read.
	ErrNoResources = errors.New("out of resources")
)

// Process opens the directory of a process.
func (f *FS) Process(pid int) (Process, error) {
	dir, err := unix.Openat(f.dir, strconv.Itoa(pid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return Process{}, f.processError(pid, "", err)
	}
	return Process{pid, f, dir}, nil
}

// Close closes the directory.
func (p Process) Close() { unix.Close(p.dir) }

// Stat reads the file stat of the process. Comm is valid until the next read of the FS.
func (p Process) Stat() (Stat, error) {
	text, err := p.read("stat", 4096)
	if err != nil {
		return Stat{}, err
	}
	return ParseStat(text)
}

// Start returns the Stat.Start of the process that has a pid now.
func (f *FS) Start(pid int) (uint64, error) {
	text, err := f.readFile(f.dir, strconv.Itoa(pid)+"/stat", 4096)
	if err != nil {
		return 0, f.processError(pid, "stat", err)
	}
	st, err := ParseStat(text)
	return st.Start, err
}

// Cgroup returns the text of the file cgroup. It is valid until the next read of the FS.
func (p Process) Cgroup() ([]byte, error) { return p.read("cgroup", 64<<10) }

// Cmdline returns at most limit bytes of the process's arguments, each followed by a zero
// byte. They are in the memory of the process, so the kernel waits for its lock. A thread that
// waits for a stalled file system may hold that: then the error is ErrHangs.
func (p Process) Cmdline(limit int) ([]byte, error) {
	const name = "cmdline"
	text, err := guarded(&p.fs.cmdlineReads, p.dir, name, func(fd int) ([]byte, error) { return readAtMost(fd, name, nil, limit) })
	if err != nil {
		return nil, p.fs.processError(p.PID, name, err)
	}
	return text, nil
}

// LoginUID reads the uid of the login from which the process descends; false if there was
// none, as for a service. Kernels without audit do not have it: ErrExited.
func (p Process) LoginUID() (uid uint32, ok bool, err error) {
	text, err := p.read("loginuid", 32)
	if err != nil {
		return 0, false, err
	}
	return parseLoginUID(text)
}

// UID returns the effective user id of the process.
func (p Process) UID() (uint32, error) {
	text, err := p.read("status", 64<<10)
	if err != nil {
		return 0, err
	}
	return parseUID(text)
}

// Netns returns the number of the network namespace of the process.
func (p Process) Netns() (uint64, error) {
	link, err := p.readLink("ns/net")
	if err != nil {
		return 0, err
	}
	number, ok := parseLink(link, "net:[")
	if !ok {
		return 0, fmt.Errorf("ns/net %q", link)
	}
	return number, nil
}

// readLink reads a link. The result is valid until the next call.
func (f *FS) readLink(dir int, name []byte) ([]byte, error) {
	n, err := unix.Readlinkat(dir, string(name), f.link)
	if err != nil {
		return nil, err
	}
	return f.link[:n], nil
}

func (p Process) read(name string, limit int) ([]byte, error) {
	text, err := p.fs.readFile(p.dir, name, limit)
	if err != nil {
		return nil, p.fs.processError(p.PID, name, err)
	}
	return text, nil
}

// readFile reads at most limit bytes of a file. They are valid until the next read.
func (f *FS) readFile(dir int, name string, limit int) ([]byte, error) {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	defer unix.Close(fd)
	text, err := readAtMost(fd, name, f.text, limit)
	if err != nil {
		return nil, err
	}
	f.text = text
	return text, nil
}

// readAtMost reads at most limit bytes into the array of buf, or into a larger one.
func readAtMost(fd int, name string, buf []byte, limit int) ([]byte, error) {
	buf = buf[:cap(buf)]
	n := 0
	for n < limit {
		if n == len(buf) {
			buf = append(buf, make([]byte, max(len(buf), 256))...)
		}
		m, err := unix.Read(fd, buf[n:min(len(buf), limit)])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, &fs.PathError{Op: "read", Path: name, Err: err}
		}
		if m == 0 {
			break
		}
		n += m
	}
	return buf[:n], nil
}

// processError returns the error for a failed read of a process.
func (f *FS) processError(pid int, name string, err error) error {
	switch {
	case errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH):
		return ErrExited
	case errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM):
		return ErrRefused
	case errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.ENOMEM):
		return fmt.Errorf("%w: %w", ErrNoResources, err)
	}
	return fmt.Errorf("read %s/%d/%s: %w", f.host.Proc, pid, name, err)
}
