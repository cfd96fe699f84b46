package listen

import (
	"context"
	"errors"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// listenBeside binds a TCP address that collides only with our own sockets, which keep
// listening: for example 127.0.0.1:8088 beside ":8088". All sockets get SO_REUSEPORT
// (socket(7)) during the bind, and lose it again so that a second sockwatch finds the
// address in use. Linux remembers the option for the last address bound this way
// (tb->fastreuseport in inet_connection_sock.c), so that a process of the same user that
// sets it too can still bind that address.
func listenBeside(ctx context.Context, address string, ours []net.Listener) (l net.Listener, err error) {
	defer func() {
		for _, o := range ours {
			err = errors.Join(err, setReusePort(o, 0))
		}
		if err != nil && l != nil {
			l.Close()
		}
	}()
	for _, o := range ours {
		if err := setReusePort(o, 1); err != nil {
			return nil, err
		}
	}
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error { return reusePort(c, 1) }}
	if l, err = lc.Listen(ctx, "tcp", address); err != nil {
		return nil, err
	}
	return l, setReusePort(l, 0)
}

func setReusePort(l net.Listener, value int) error {
	c, err := l.(syscall.Conn).SyscallConn()
	if err != nil {
		return err
	}
	return reusePort(c, value)
}

func reusePort(c syscall.RawConn, value int) (err error) {
	cerr := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, value) })
	return errors.Join(cerr, err)
}
