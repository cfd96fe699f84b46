// Package sockdiag lists TCP sockets by NETLINK_SOCK_DIAG. It needs no capability
// and costs what the sockets in the states asked for cost, however many others
// there are.
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

// States of sockets to ask for.
const (
	Listen      uint32 = 1 << stateListen
	Established uint32 = 1 << stateEstablished
)

// ErrInterrupted says that the sockets changed so much during every attempt
// that no listing was whole.
var ErrInterrupted = errors.New("interrupted by changes at every attempt")

// A Conn is a socket of the network namespace that it lists. It is for one
// goroutine.
//
// The netlink library opens it, in whatever namespace, and lets it wait with a
// deadline. What is received it would copy, and look at message by message: that
// costs twice as much as the kernel's own work, so receive does it in place.
type Conn struct {
	dial     func() (transport, error)
	socket   transport // nil after an error, until the next dump
	raw      syscall.RawConn
	sequence uint32
	buf      []byte
}

// A transport is what of a *netlink.Conn is used.
type transport interface {
	syscall.Conn
	SetDeadline(time.Time) error
	Close() error
}

// Dial is Open for a namespace of which the caller holds a descriptor. It opens a
// connection in the namespace of that file descriptor, which takes
// CAP_SYS_ADMIN, or in the program's own if it is 0. The descriptor must stay
// open as long as the connection.
func Dial(netns int) (*Conn, error) {
	return dial(func() (transport, error) {
		return netlink.Dial(unix.NETLINK_SOCK_DIAG, &netlink.Config{NetNS: netns})
	})
}

// Open opens a connection; enter calls its argument on a thread that is in the
// namespace, also when a connection has failed and is opened again.
func Open(enter func(do func() error) error) (*Conn, error) {
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
	})
}

func dial(open func() (transport, error)) (*Conn, error) {
	// The kernel puts at most 32 KiB into one datagram of a dump.
	c := &Conn{dial: open, buf: make([]byte, 32<<10)}
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

// Dump calls visit for all TCP sockets in the states given, IPv4 before IPv6. A
// dump that was interrupted is done again, hence begin: it is called before
// every attempt, to forget what the last one found. The Socket is valid during
// the call only. A socket that moved meanwhile may come twice.
//
// The kernel goes on in the middle of a hash bucket by the number of sockets it
// has been through (inet_diag_dump_icsk): if one of those was closed meanwhile,
// it skips another one. Dumps of a different pass, from 0 on, are cut into
// datagrams at other places, and so miss others.
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
		// What is unread of a broken dump must not meet the next one.
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
	// A dump takes milliseconds; a kernel that is silent for long is not to hang us.
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
			c.Close() // its deadline may still be set to the past
		}
	}()
	padding := [...]byte{0, extMemInfo, extSKMemInfo, extMemInfo | extSKMemInfo}[pass%4]
	if err := c.dump(familyIPv4, states, padding, visit); err != nil {
		return err
	}
	err := c.dump(familyIPv6, states, padding, visit)
	if errors.Is(err, unix.ENOENT) {
		return nil // a kernel without IPv6 has no handler for it
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
		_, sent = unix.Write(int(fd), request) // to the kernel: the socket is not connected
		return sent != unix.EAGAIN && sent != unix.EINTR
	})
	return errors.Join(err, sent)
}

// receive returns the next datagram, which is valid until the next call.
func (c *Conn) receive() ([]byte, error) {
	n, received := 0, error(nil)
	err := c.raw.Read(func(fd uintptr) bool {
		// With MSG_TRUNC the length is that of the whole datagram.
		n, _, received = unix.Recvfrom(int(fd), c.buf, unix.MSG_TRUNC)
		return !errors.Is(received, unix.EAGAIN) && !errors.Is(received, unix.EINTR)
	})
	if err := errors.Join(err, received); err != nil {
		return nil, err
	}
	if n > len(c.buf) {
		return nil, fmt.Errorf("datagram of %d bytes", n)
	}
	return c.buf[:n], nil
}
