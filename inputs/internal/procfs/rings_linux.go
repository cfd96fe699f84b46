package procfs

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"strconv"

	"golang.org/x/sys/unix"
)

// errRingBusy says that an io_uring did not tell its files.
var errRingBusy = errors.New("io_uring does not tell its files")

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

// ringSockets reads one file of /proc/PID/fdinfo: three times at most if the ring is
// busy.
func (f *FS) ringSockets(dir int, name string, visit func(inode uint64)) (known bool, err error) {
	for try := 0; try < 3 && !known && err == nil; try++ {
		r := ringParser{format: f.rings, visit: visit}
		err = f.lines(dir, name, r.line)
		known = err == nil && r.known()
		if r.unknown {
			break
		}
	}
	return known, err
}

// lines calls visit for each line of a file.
func (f *FS) lines(dir int, name string, visit func([]byte)) error {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: name, Err: err}
	}
	defer unix.Close(fd)
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
