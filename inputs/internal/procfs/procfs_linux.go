// Package procfs reads what /proc says of processes and sockets, each process
// through one open directory, so that nothing it returns mixes two processes
// which had the same pid one after the other.
package procfs

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"sockwatch/inputs/internal/inet"
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

// BindV6Only tells whether IPv6 sockets take no IPv4 unless they ask for it.
func (f *FS) BindV6Only() (bool, error) {
	text, err := f.readFile(f.dir, "sys/net/ipv6/bindv6only", 64)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // a kernel without IPv6
	}
	return err == nil && bytes.HasPrefix(text, []byte("1")), err
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
	var st unix.Stat_t
	if unix.Fstatat(p.dir, "task", &st, 0) != nil || st.Nlink <= 3 {
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
	var st unix.Stat_t
	if unix.Fstatat(p.dir, "task", &st, 0) != nil || st.Nlink <= 3 {
		return more(), nil // a single thread
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

// NetNS returns the number of the network namespace of the process with that pid.
func (f *FS) NetNS(pid int) (uint64, error) {
	var b [nameSize]byte
	link, errno := f.readLink(f.dir, append(strconv.AppendInt(b[:0], int64(pid), 10), "/ns/net"...))
	if errno != 0 {
		return 0, f.processError(pid, "ns/net", errno)
	}
	inode, ok := parseLink(link, "net:[")
	if !ok {
		return 0, fmt.Errorf("read %s/%d/ns/net: a link to %q", f.path, pid, link)
	}
	return inode, nil
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

// TCP calls each for the TCP sockets in one state that the network namespace
// holds in which that process of /proc lives: "self" or a pid.
//
// The kernel prints the tables in pieces, and goes on in the middle of a hash
// bucket by the number of sockets it has been through: where one of those was
// closed meanwhile, it passes over another one. Different passes, from 0 on, read
// pieces of other sizes, and so miss others.
func (f *FS) TCP(process string, established bool, pass int, each func(*inet.Socket)) error {
	for _, table := range []string{"tcp", "tcp6"} {
		err := f.table(process+"/net/"+table, established, pass, each)
		if table == "tcp6" && errors.Is(err, fs.ErrNotExist) {
			return nil // a kernel without IPv6
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// table reads one table. The kernel prints the listeners first: what comes after
// them is read only where it is asked for.
func (f *FS) table(name string, established bool, pass int, each func(*inet.Socket)) error {
	fd, err := unix.Openat(f.dir, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: f.path + "/" + name, Err: err}
	}
	defer unix.Close(fd)
	title := true
	rest := 0
	buf := make([]byte, 16<<10)
	piece := 4096 - 500*(pass%4) // a page is the most there is at once
	var s inet.Socket
	for {
		n, err := unix.Read(fd, buf[rest:min(rest+piece, len(buf))])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return &fs.PathError{Op: "read", Path: f.path + "/" + name, Err: err}
		}
		if n == 0 && rest > 0 {
			return fmt.Errorf("read %s/%s: the last row has no end", f.path, name)
		}
		if n == 0 {
			return nil
		}
		text := buf[:rest+n]
		for {
			line, after, whole := bytes.Cut(text, []byte{'\n'})
			if !whole {
				break
			}
			text = after
			if title {
				title = false
				continue
			}
			state, err := parseRow(line, &s)
			if err != nil {
				return fmt.Errorf("read %s/%s: %w", f.path, name, err)
			}
			switch {
			case state == stateListen && !established, state == stateEstablished && established:
				each(&s)
			case state != stateListen && !established:
				return nil
			}
		}
		if rest = copy(buf, text); rest == len(buf) {
			return fmt.Errorf("read %s/%s: a row of more than %d bytes", f.path, name, rest)
		}
	}
}

// LocalAddresses returns the addresses of the interfaces that are up in the
// network namespace of that process of /proc. It does not tell the interfaces.
func (f *FS) LocalAddresses(process string) ([]inet.Address, error) {
	var all []inet.Address
	add := func(a netip.Addr, ok bool) {
		if ok && !slices.Contains(all, inet.Address{Addr: a}) {
			all = append(all, inet.Address{Addr: a})
		}
	}
	var trie fibTrie
	for _, source := range []struct {
		name  string
		parse func([]byte) (netip.Addr, bool)
	}{{"fib_trie", trie.line}, {"if_inet6", parseIfInet6}} {
		file, err := os.Open(f.path + "/" + process + "/net/" + source.name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // a kernel without that family
		}
		if err != nil {
			return nil, err
		}
		lines := bufio.NewScanner(file)
		for lines.Scan() {
			add(source.parse(lines.Bytes()))
		}
		file.Close()
		if err := lines.Err(); err != nil {
			return nil, fmt.Errorf("read %s: %w", file.Name(), err)
		}
	}
	return all, nil
}
