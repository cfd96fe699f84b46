//go:build unix

package file

import "syscall"

const (
	noFollow = syscall.O_NOFOLLOW
	nonBlock = syscall.O_NONBLOCK // so that open(2) does not wait for the reader of a FIFO

	// A terminal that a daemon opens must not become its controlling terminal: its end
	// would end the daemon.
	noTerminal = syscall.O_NOCTTY

	errNoReader = syscall.ENXIO
)
