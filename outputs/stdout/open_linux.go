package stdout

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

var errClosed = errors.New("standard output was closed, or is /dev/null, when the program started")

// openStdout returns a duplicate of file descriptor 1. Writing to the duplicate returns
// EPIPE if the reader is gone. On descriptors 1 and 2, the Go runtime would end the program
// by SIGPIPE.
func openStdout() (*os.File, error) {
	if closedAtStart(1, 0, 2) {
		return nil, errClosed
	}
	fd, err := unix.FcntlInt(1, unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, os.NewSyscallError("standard output: fcntl", err)
	}
	return os.NewFile(uintptr(fd), "standard output"), nil
}

// closedAtStart reports whether fd was closed when the program started. In that case the
// Go runtime has opened /dev/null in its place, for reading and writing, separately for each
// of 0, 1 and 2. This differs from a redirection to /dev/null, which opens it for writing
// only, and from a program that starts daemons, which opens it for both but only once for
// all three.
func closedAtStart(fd int, others ...int) bool {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFCHR || uint64(st.Rdev) != unix.Mkdev(1, 3) {
		return false
	}
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil || flags&unix.O_ACCMODE != unix.O_RDWR {
		return false
	}
	for _, other := range others {
		if sameOpen(fd, other) {
			return false
		}
	}
	return true
}

// sameOpen reports whether two file descriptors come from the same open(2), by kcmp(2). It
// returns false if the kernel does not say.
func sameOpen(a, b int) bool {
	const kcmpFile = 0 // KCMP_FILE of linux/kcmp.h
	pid := uintptr(os.Getpid())
	order, _, errno := unix.Syscall6(unix.SYS_KCMP, pid, pid, kcmpFile, uintptr(a), uintptr(b), 0)
	return errno == 0 && order == 0
}
