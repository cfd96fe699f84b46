//go:build unix

package lines

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// Write writes b to f, even if f is non-blocking. O_NONBLOCK belongs to the open file
// description, which standard output shares with other processes. Any of them can set it at
// any time, and then a full stream returns EAGAIN. Write waits until the stream accepts
// more.
func Write(f *os.File, b []byte) (written int, err error) {
	for {
		n, err := f.Write(b[written:])
		written += n
		if !errors.Is(err, unix.EAGAIN) {
			return written, err
		}
		if err := awaitWritable(f); err != nil {
			return written, err
		}
	}
}

// awaitWritable waits until f accepts more. If f has failed, it also returns, and the next
// write returns the error.
func awaitWritable(f *os.File) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var pollErr error
	err = conn.Control(func(fd uintptr) {
		for {
			_, pollErr = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, -1)
			if pollErr != unix.EINTR {
				return
			}
		}
	})
	if err != nil {
		return err
	}
	return os.NewSyscallError("poll", pollErr)
}
