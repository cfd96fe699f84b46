//go:build unix

package lines

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// Write writes b to f, whatever the stream's mode. O_NONBLOCK belongs to the open
// file, which a standard output shares with other processes: any of them may set it at
// any time, and a stream that is full then answers EAGAIN. Write waits for it instead.
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

// awaitWritable waits until f takes something, or fails to: then the next write says
// why.
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
