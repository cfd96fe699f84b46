package main

import "golang.org/x/sys/unix"

// closedAtStart reports whether a standard descriptor was closed when the program
// started. Go's runtime opens /dev/null read-write in its place (runtime.checkfds).
// Programs that discard output open it write-only, as shells do, or once for several
// descriptors, as daemon(3) does.
func closedAtStart(fd int) bool {
	var stat, null unix.Stat_t
	if unix.Fstat(fd, &stat) != nil || unix.Stat("/dev/null", &null) != nil ||
		stat.Mode&unix.S_IFMT != unix.S_IFCHR || stat.Rdev != null.Rdev {
		return false
	}
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil || flags&unix.O_ACCMODE != unix.O_RDWR {
		return false
	}
	for other := range 3 {
		if other != fd && sameDescription(fd, other) {
			return false
		}
	}
	return true
}

// sameDescription reports whether two descriptors share an open file description
// (kcmp(2)).
func sameDescription(a, b int) bool {
	const kcmpFile = 0 // linux/kcmp.h
	pid := uintptr(unix.Getpid())
	order, _, errno := unix.Syscall6(unix.SYS_KCMP, pid, pid, kcmpFile, uintptr(a), uintptr(b), 0)
	return errno == 0 && order == 0
}
