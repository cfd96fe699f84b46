package stdout

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

var errClosed = errors.New("standard output was closed, or is /dev/null, when the program started")

// openStdout returns a duplicate of file descriptor 1. As the duplicate is neither
// 1 nor 2, a reader that is gone is the error EPIPE: on those two the Go runtime
// ends the program by SIGPIPE.
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

// closedAtStart reports whether fd was closed when the program started. The Go
// runtime opens /dev/null in its place then, for reading and writing, and does so
// for each of 0, 1 and 2 apart. Whoever sends an output to /dev/null opens it for
// writing; and a program that makes daemons, which opens it for both, does so
// once for all three.
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

// sameOpen reports whether two file descriptors stand for one open(2), by
// kcmp(2); where the kernel does not tell, they do not.
func sameOpen(a, b int) bool {
	const kcmpFile = 0 // KCMP_FILE of linux/kcmp.h
	pid := uintptr(os.Getpid())
	order, _, errno := unix.Syscall6(unix.SYS_KCMP, pid, pid, kcmpFile, uintptr(a), uintptr(b), 0)
	return errno == 0 && order == 0
}
