//go:build unix

package file

import "syscall"

const (
	noFollow = syscall.O_NOFOLLOW
	nonBlock = syscall.O_NONBLOCK // a FIFO without a reader must not hang open(2)

	errNoReader = syscall.ENXIO
)
