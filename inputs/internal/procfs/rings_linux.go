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
// process holds. known reports whether that were all: kernels before 6.15 do not
// print which sockets they are, and a busy ring prints nothing. It is false too if
// more, which is asked now and then, says no.
func (p Process) RingSockets(ring File, more func() bool, visit func(File)) (known bool, err error) {
	name := strconv.Itoa(int(ring.FD))
	if int(ring.TID) != p.PID {
		name = "task/" + strconv.Itoa(int(ring.TID)) + "/fd/" + name
	} else {
		name = "fd/" + name
	}
	link, err := p.fs.readLink(p.dir, []byte(name))
	if err == nil && string(link) == ringLink {
		info := name[:len(name)-len("/"+strconv.Itoa(int(ring.FD)))] + "info/" + strconv.Itoa(int(ring.FD))
		known, err = p.fs.ringSockets(p.dir, info, more, func(inode uint64) {
			visit(File{TID: ring.TID, FD: ring.FD, Inode: inode, Ring: true})
		})
	} else if err == nil {
		return true, nil // another file by now
	}
	if err != nil {
		if err = p.fs.processError(p.PID, name, err); errors.Is(err, ErrExited) {
			return true, nil // closed by now
		}
	}
	return known, err
}

// ringSockets reads one file of /proc/PID/fdinfo: three times at most if the ring is
// busy.
func (f *FS) ringSockets(dir int, name string, more func() bool, visit func(inode uint64)) (known bool, err error) {
	for try := 0; try < 3 && !known && err == nil; try++ {
		r := ringParser{format: f.rings, visit: visit}
		err = f.lines(dir, name, more, r.line)
		known = err == nil && r.known()
		if r.unknown {
			break
		}
	}
	return known, err
}

// lines calls visit for each line of a file. It stops if more, which is asked for each
// piece, says no.
func (f *FS) lines(dir int, name string, more func() bool, visit func([]byte)) error {
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
		if !more() {
			return errRingBusy
		}
	}
}
