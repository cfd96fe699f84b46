//go:build unix

package file

import "syscall"

const (
	noFollow = syscall.O_NOFOLLOW
	nonBlock = syscall.O_NONBLOCK // a FIFO without a reader must not hang open(2)

	// A daemon that opens a terminal must not get it as its controlling terminal, whose
	// end would end the daemon.
	noTerminal = syscall.O_NOCTTY

	errNoReader = syscall.ENXIO
)
