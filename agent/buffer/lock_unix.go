//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package buffer

import (
	"errors"
	"os"
	"syscall"
)

// lockable tells whether this system can lock a file.
func lockable() error { return nil }

// lockFile takes the lock of an open file. The kernel gives it up when the file
// is closed or the process ends, however it ends.
func lockFile(f *os.File) error {
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch err {
		case nil:
			return nil
		case syscall.EINTR:
		case syscall.EWOULDBLOCK:
			return errors.New("in use by another sockwatch")
		default:
			return os.NewSyscallError("flock", err)
		}
	}
}
