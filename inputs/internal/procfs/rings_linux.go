package procfs

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"strconv"

	"golang.org/x/sys/unix"
)

// errRingBusy says that the kernel did not list the files of an io_uring.
var errRingBusy = errors.New("io_uring does not list its files")

// ownRingFormat returns the format of the running kernel.
func ownRingFormat() ringFormat {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return ringNames
	}
	return ringFormatOf(unix.ByteSliceToString(name.Release[:]))
}

// RingSockets calls visit for each socket that an io_uring of the process holds. known reports
// whether these are all of them: kernels before 6.15 do not print the inodes, and nothing is
// printed while the io_uring is busy.
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
		err = nil // it was closed
	}
	return err == nil, err
}

// A ringAnswer is the result of reading the fdinfo of an io_uring.
type ringAnswer struct {
	sockets []uint64 // inodes
	known   bool     // sockets has all of them
}

// ringSockets reads one file in /proc/PID/fdinfo, within a timeout: if the owner of the process
// has put an epoll in place of the io_uring, the kernel waits for a lock that the owner can hold
// for as long as they like.
func (f *FS) ringSockets(dir int, name string, visit func(inode uint64)) (known bool, err error) {
	a, err := guarded(&f.ringReads, dir, name, func(fd int) (ringAnswer, error) { return readRing(fd, name, f.rings) })
	if errors.Is(err, ErrHangs) {
		err = errRingBusy
	}
	for _, inode := range a.sockets {
		visit(inode)
	}
	return a.known, err
}

// readRing reads the fdinfo of an io_uring. If the io_uring is busy, it tries at most three
// times.
func readRing(fd int, name string, format ringFormat) (a ringAnswer, err error) {
	for try := 0; try < 3 && !a.known; try++ {
		if try > 0 {
			if _, err := unix.Seek(fd, 0, unix.SEEK_SET); err != nil {
				return a, err
			}
		}
		a.sockets = a.sockets[:0]
		r := ringParser{format: format, visit: func(inode uint64) { a.sockets = append(a.sockets, inode) }}
		if err := lines(fd, name, r.line); err != nil {
			return a, err
		}
		a.known = r.known()
		if r.unknown {
			break
		}
	}
	return a, nil
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
			return fmt.Errorf("read %s: line of more than %d bytes", name, rest)
		}
	}
}
