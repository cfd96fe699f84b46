// Package sockdiag lists TCP sockets by NETLINK_SOCK_DIAG. It needs no capability, and its cost
// depends only on the number of sockets in the requested states.
package sockdiag

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"sockwatch/inputs/internal/inet"
)

// States of sockets, for Conn.Dump.
const (
	Listen      uint32 = 1 << stateListen
	Established uint32 = 1 << stateEstablished
)

// ErrInterrupted says that sockets changed during every attempt, so that no dump was
// consistent.
var ErrInterrupted = errors.New("interrupted by changes at every attempt")

// A Conn is a netlink socket in the network namespace that it lists. It must be used by one
// goroutine.
//
// The netlink library opens the socket and provides deadlines. Receiving bypasses it,
// because it copies and parses every message separately, which costs twice as much as the
// kernel's own work. receive and parseDatagram work in place instead.
type Conn struct {
	dial     func() (transport, error)
	socket   transport // nil after an error, until the next attempt
	raw      syscall.RawConn
	sequence uint32
	buf      []byte
}

// A transport is the part of a *netlink.Conn that is used.
type transport interface {
	syscall.Conn
	SetDeadline(time.Time) error
	Close() error
}

// BufferSize is the size of the buffer for one datagram: the kernel puts at most that much into
// one of a dump.
const BufferSize = 32 << 10

// Open opens a connection in the namespace of enter, which must call its argument on a thread
// in that namespace. It is called again when a connection has failed and is reopened. Dump uses
// the buffer, of BufferSize, which thousands of connections of one goroutine can share.
func Open(enter func(do func() error) error, buf []byte) (*Conn, error) {
	return dial(func() (transport, error) {
		var socket *netlink.Conn
		err := enter(func() (err error) {
			socket, err = netlink.Dial(unix.NETLINK_SOCK_DIAG, nil)
			return err
		})
		if err != nil {
			return nil, err
		}
		return socket, nil
	}, buf)
}

func dial(open func() (transport, error), buf []byte) (*Conn, error) {
	c := &Conn{dial: open, buf: buf}
	return c, c.open()
}

func (c *Conn) open() error {
	socket, err := c.dial()
	if err != nil {
		return fmt.Errorf("open a sock_diag socket: %w", err)
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return errors.Join(err, socket.Close())
	}
	c.socket, c.raw = socket, raw
	return nil
}

// Close closes the connection.
func (c *Conn) Close() error {
	if c.socket == nil {
		return nil
	}
	socket := c.socket
	c.socket = nil
	return socket.Close()
}

// Dump calls visit for every TCP socket in the given states, IPv4 before IPv6. The Socket is
// valid only during the call. If a dump is interrupted, it is repeated: begin is called before
// every attempt, to discard what the last one found. A socket that moved meanwhile may be
// visited twice.
//
// The kernel may skip sockets. It continues in the middle of a hash bucket by the number of
// sockets that it has already passed (inet_diag_dump_icsk), so if one of those was closed
// meanwhile, it skips another one. Dumps with a different pass, which counts from 0, are cut
// into datagrams at other places, so they skip others.
func (c *Conn) Dump(ctx context.Context, states uint32, pass int, begin func(), visit func(*inet.Socket)) error {
	const attempts = 8
	for range attempts {
		if err := context.Cause(ctx); err != nil {
			return fmt.Errorf("dump sockets: %w", err)
		}
		begin()
		err := c.attempt(ctx, states, pass, visit)
		if err == nil {
			return nil
		}
		// The next dump must not receive the rest of a failed one.
		c.Close()
		if ctx.Err() != nil {
			return fmt.Errorf("dump sockets: %w", context.Cause(ctx))
		}
		if !errors.Is(err, errDumpInterrupted) && !errors.Is(err, unix.ENOBUFS) {
			return fmt.Errorf("dump sockets: %w", err)
		}
	}
	return fmt.Errorf("dump sockets: %w", ErrInterrupted)
}

func (c *Conn) attempt(ctx context.Context, states uint32, pass int, visit func(*inet.Socket)) error {
	if c.socket == nil {
		if err := c.open(); err != nil {
			return err
		}
	}
	// A dump takes milliseconds. A kernel that does not answer must not block the program for
	// ever.
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(30 * time.Second)
	}
	if err := c.socket.SetDeadline(deadline); err != nil {
		return err
	}
	socket := c.socket
	stop := context.AfterFunc(ctx, func() { socket.SetDeadline(time.Unix(1, 0)) })
	defer func() {
		if !stop() {
			c.Close() // AfterFunc may still set its deadline to the past
		}
	}()
	padding := [...]byte{0, extMemInfo, extSKMemInfo, extMemInfo | extSKMemInfo}[pass%4]
	if err := c.dump(familyIPv4, states, padding, visit); err != nil {
		return err
	}
	err := c.dump(familyIPv6, states, padding, visit)
	if errors.Is(err, unix.ENOENT) {
		return nil // a kernel without IPv6
	}
	return err
}

func (c *Conn) dump(family byte, states uint32, padding byte, visit func(*inet.Socket)) error {
	c.sequence++
	if err := c.send(appendRequest(nil, family, states, c.sequence, padding)); err != nil {
		return err
	}
	for {
		datagram, err := c.receive()
		if err != nil {
			return err
		}
		done, err := parseDatagram(datagram, c.sequence, visit)
		if err != nil || done {
			return err
		}
	}
}

func (c *Conn) send(request []byte) error {
	var sent error
	err := c.raw.Write(func(fd uintptr) bool {
		_, sent = uninterrupted(func() (int, error) { return unix.Write(int(fd), request) }) // the socket is not connected, so this goes to the kernel
		return !errors.Is(sent, unix.EAGAIN)
	})
	return errors.Join(err, sent)
}

// uninterrupted repeats a call that a signal has interrupted. Go's poller must not: it would wait
// for data that has already arrived, until the deadline.
func uninterrupted(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// receive returns the next datagram, which is valid until the next call.
func (c *Conn) receive() ([]byte, error) {
	n, received := 0, error(nil)
	err := c.raw.Read(func(fd uintptr) bool {
		// With MSG_TRUNC, n is the length of the whole datagram.
		n, received = uninterrupted(func() (n int, err error) {
			n, _, err = unix.Recvfrom(int(fd), c.buf, unix.MSG_TRUNC)
			return n, err
		})
		return !errors.Is(received, unix.EAGAIN)
	})
	if err := errors.Join(err, received); err != nil {
		return nil, err
	}
	if n > len(c.buf) {
		return nil, fmt.Errorf("datagram of %d bytes", n)
	}
	return c.buf[:n], nil
}
