// Package procfs reads what /proc says of processes and sockets, each process
// through one open directory, so that nothing it returns mixes two processes
// which had the same pid one after the other.
package procfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"reflect"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// An FS is a mounted procfs. It is for one goroutine.
type FS struct {
	path string
	dir  int
	own  bool // its pids are those of this program's own pid namespace
	boot time.Time
	dirs []byte // what getdents64 wrote
	text []byte // what was read of a file
	mem  []byte // outside of Go's heap: the name and the target of a link
	name uintptr
	link uintptr
}

// Where name and link lie in FS.mem, and how long they may be.
const (
	nameSize = 64
	linkSize = 4096 - nameSize
)

// Open opens the procfs that is mounted at path.
func Open(path string) (*FS, error) {
	dir, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	f := &FS{path: path, dir: dir, dirs: make([]byte, 32<<10), text: make([]byte, 4096)}
	if err := f.ReadBootTime(); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s is no procfs: %w", path, err)
	}
	// The arguments of readlinkat must not cost an allocation for every open file
	// of the host. This page does not belong to Go's heap: its address holds until
	// Close, and may be handed to the kernel as a number.
	f.mem, err = unix.Mmap(-1, 0, nameSize+linkSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("mmap: %w", err)
	}
	f.name = reflect.ValueOf(f.mem).Pointer()
	f.link = f.name + nameSize
	self, err := os.Readlink(path + "/self")
	f.own = err == nil && self == strconv.Itoa(os.Getpid())
	return f, nil
}

// Close releases what Open took.
func (f *FS) Close() error {
	if f.mem != nil {
		unix.Munmap(f.mem)
		f.mem = nil
	}
	return unix.Close(f.dir)
}

// Path returns where it is mounted.
func (f *FS) Path() string { return f.path }

// OwnPIDs tells whether its pids mean the same processes to system calls.
func (f *FS) OwnPIDs() bool { return f.own }

// ReadBootTime reads anew when the host booted: setting the clock changes it.
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

// StartTime returns when a process with that Stat.Start started.
func (f *FS) StartTime(ticks uint64) time.Time {
	return f.boot.Add(time.Duration(ticks) * (time.Second / userHZ))
}

// Capabilities returns the effective capabilities of this program. In a user
// namespace of its own it has none over the host.
func (f *FS) Capabilities() (uint64, error) {
	if ids, err := f.readFile(f.dir, "thread-self/uid_map", 4096); err == nil && !allUsers(ids) {
		return 0, nil
	}
	text, err := f.readFile(f.dir, "thread-self/status", 64<<10)
	if err != nil {
		return 0, err
	}
	return parseCapabilities(text)
}

// PIDs appends the pids of all processes that are seen.
func (f *FS) PIDs(dst []int) ([]int, error) {
	if _, err := unix.Seek(f.dir, 0, unix.SEEK_SET); err != nil {
		return dst, &fs.PathError{Op: "seek", Path: f.path, Err: err}
	}
	pids, err := f.numbers(f.dir, dst)
	if err != nil {
		return pids, &fs.PathError{Op: "readdir", Path: f.path, Err: err}
	}
	return pids, nil
}

// numbers appends the names in a directory that are numbers.
func (f *FS) numbers(dir int, dst []int) ([]int, error) {
	for {
		n, err := unix.ReadDirent(dir, f.dirs)
		if err != nil || n == 0 {
			return dst, err
		}
		for name, rest := nextEntry(f.dirs[:n]); len(name) > 0; name, rest = nextEntry(rest) {
			if pid, ok := parsePID(name); ok {
				dst = append(dst, pid)
			}
		}
	}
}

// A Process is the open directory of one process. When that has ended, what is
// read through it fails with ErrExited, also where the pid is in use again.
type Process struct {
	PID int
	fs  *FS
	dir int
}

// ErrExited says that the process has ended; ErrRefused that it may not be read.
var (
	ErrExited  = errors.New("process has exited")
	ErrRefused = errors.New("not permitted")
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

// Stat reads the process's stat. Its Comm is valid until the next read of the FS.
func (p Process) Stat() (Stat, error) {
	text, err := p.read("stat", 4096)
	if err != nil {
		return Stat{}, err
	}
	return ParseStat(text)
}

// Cgroup reads the process's cgroups; valid until the next read of the FS.
func (p Process) Cgroup() ([]byte, error) { return p.read("cgroup", 64<<10) }

// Cmdline reads at most limit bytes of the process's arguments, each ended by a
// zero byte; valid until the next read of the FS.
func (p Process) Cmdline(limit int) ([]byte, error) { return p.read("cmdline", limit) }

// Exe reads the path of the process's program; valid until the next read.
func (p Process) Exe() ([]byte, error) {
	n, err := unix.Readlinkat(p.dir, "exe", p.fs.text)
	if err != nil {
		return nil, p.fs.processError(p.PID, "exe", err)
	}
	return p.fs.text[:n], nil
}

// readLink reads a link whose name is shorter than nameSize; what it returns is
// valid until the next call.
func (f *FS) readLink(dir int, name []byte) ([]byte, unix.Errno) {
	f.mem[copy(f.mem[:nameSize-1], name)] = 0
	n, _, errno := unix.Syscall6(unix.SYS_READLINKAT, uintptr(dir), f.name, f.link, linkSize, 0, 0)
	if errno != 0 {
		return nil, errno
	}
	return f.mem[nameSize : nameSize+int(n)], 0
}

func (p Process) read(name string, limit int) ([]byte, error) {
	text, err := p.fs.readFile(p.dir, name, limit)
	if err != nil {
		return nil, p.fs.processError(p.PID, name, err)
	}
	return text, nil
}

// readFile reads at most limit bytes; valid until the next read.
func (f *FS) readFile(dir int, name string, limit int) ([]byte, error) {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	defer unix.Close(fd)
	n := 0
	for n < limit {
		if n == len(f.text) {
			f.text = append(f.text, make([]byte, len(f.text))...)
		}
		m, err := unix.Read(fd, f.text[n:min(len(f.text), limit)])
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
	return f.text[:n], nil
}

// processError says what an error that met a read of a process means.
func (f *FS) processError(pid int, name string, err error) error {
	switch {
	case errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH):
		return ErrExited
	case errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM):
		return ErrRefused
	}
	return fmt.Errorf("read %s/%d/%s: %w", f.path, pid, name, err)
}
