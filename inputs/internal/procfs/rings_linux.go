package procfs

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// errRingBusy says that an io_uring did not list its files.
var errRingBusy = errors.New("io_uring does not list its files")

// ownRingFormat returns the format of the running kernel.
func ownRingFormat() ringFormat {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return ringNames
	}
	return ringFormatOf(unix.ByteSliceToString(name.Release[:]))
}

// RingSockets calls visit for each socket that an io_uring among the files of the
// process holds. known reports whether that were all: kernels before 6.15 do not print
// which sockets they are, and a busy ring prints nothing.
func (p Process) RingSockets(ring File, visit func(File)) (known bool, err error) {
	thread := ""
	if int(ring.TID) != p.PID {
		thread = "task/" + strconv.Itoa(int(ring.TID)) + "/"
	}
	fd := thread + "fd/" + strconv.Itoa(int(ring.FD))
	link, err := p.readLink(fd)
	if err == nil && string(link) == ringLink {
		known, err = p.fs.ringSockets(p.dir, thread+"fdinfo/"+strconv.Itoa(int(ring.FD)), func(socket uint64) {
			visit(File{TID: ring.TID, FD: ring.FD, Inode: socket, Ring: true})
		})
		if err != nil {
			err = p.fs.processError(p.PID, fd, err)
		}
		if !errors.Is(err, ErrExited) {
			return known, err
		}
	}
	if errors.Is(err, ErrExited) {
		err = nil // it is closed by now
	}
	return err == nil, err
}

// ringTimeout bounds the wait for one io_uring.
const ringTimeout = 2 * time.Second

// A ringAnswer is what the fdinfo of an io_uring says.
type ringAnswer struct {
	sockets []uint64 // inodes
	known   bool     // they are all
	err     error
}

// ringSockets reads one file of /proc/PID/fdinfo, within the timeout. If its owner has
// put an epoll in the place of the io_uring, the kernel waits for a lock that is held as
// long as he likes: one such read is left to itself, and until it has ended no other one
// is begun.
func (f *FS) ringSockets(dir int, name string, visit func(inode uint64)) (known bool, err error) {
	select {
	case <-f.stuck:
		f.stuck = nil
	default:
		if f.stuck != nil {
			return false, errRingBusy
		}
	}
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	answers := make(chan ringAnswer, 1)
	go func() {
		defer unix.Close(fd)
		answers <- readRing(fd, name, f.rings)
	}()
	timeout := time.NewTimer(f.ringTimeout)
	defer timeout.Stop()
	select {
	case a := <-answers:
		for _, inode := range a.sockets {
			visit(inode)
		}
		return a.known, a.err
	case <-timeout.C:
		f.stuck = answers
		return false, errRingBusy
	}
}

// readRing reads the fdinfo of an io_uring: three times at most if that is busy.
func readRing(fd int, name string, format ringFormat) (a ringAnswer) {
	for try := 0; try < 3 && !a.known && a.err == nil; try++ {
		if try > 0 {
			if _, a.err = unix.Seek(fd, 0, unix.SEEK_SET); a.err != nil {
				break
			}
		}
		a.sockets = a.sockets[:0]
		r := ringParser{format: format, visit: func(inode uint64) { a.sockets = append(a.sockets, inode) }}
		a.err = lines(fd, name, r.line)
		a.known = a.err == nil && r.known()
		if r.unknown {
			break
		}
	}
	return a
}

// lines calls visit for each line of a file.
func lines(fd int, name string, visit func([]byte)) error {
	buf, rest := make([]byte, 32<<10), 0
	for {
		n, err := unix.Read(fd, buf[rest:])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return &fs.PathError{Op: "read", Path: name, Err: err}
		}
		if n == 0 {
			return nil
		}
		text := buf[:rest+n]
		for {
			line, after, ok := bytes.Cut(text, []byte{'\n'})
			if !ok {
				break
			}
			visit(line)
			text = after
		}
		if rest = copy(buf, text); rest == len(buf) {
			return fmt.Errorf("read %s: a line of more than %d bytes", name, rest)
		}
	}
}
