// Package sockdiag lists TCP sockets by NETLINK_SOCK_DIAG. It needs no capability
// and costs what the sockets in the states asked for cost, however many others
// there are.
package sockdiag

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
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

// A Conn is a socket of the network namespace that it lists.
type Conn struct {
	netns   int
	netlink *netlink.Conn // nil after an error, until the next dump
}

// Dial opens a connection in the namespace of that file descriptor, which takes
// CAP_SYS_ADMIN, or in the program's own where it is 0. The descriptor must stay
// open as long as the connection.
func Dial(netns int) (*Conn, error) {
	c := &Conn{netns: netns}
	return c, c.dial()
}

func (c *Conn) dial() error {
	// The kernel puts at most 32 KiB into one datagram of a dump.
	n, err := netlink.Dial(unix.NETLINK_SOCK_DIAG, &netlink.Config{NetNS: c.netns, MessageBufferSize: 32 << 10})
	if err != nil {
		return fmt.Errorf("open a sock_diag socket: %w", err)
	}
	c.netlink = n
	return nil
}

// Close closes the connection.
func (c *Conn) Close() error {
	if c.netlink == nil {
		return nil
	}
	n := c.netlink
	c.netlink = nil
	return n.Close()
}

// Dump calls each for all TCP sockets in the states given, IPv4 before IPv6. A
// listing that was disturbed is done again, hence begin: it is called before
// every attempt, to forget what the last one found. The Socket is valid during
// the call only. A socket that moved meanwhile may come twice.
func (c *Conn) Dump(ctx context.Context, states uint32, begin func(), each func(*inet.Socket)) error {
	const attempts = 8
	for range attempts {
		begin()
		err := c.attempt(ctx, states, each)
		if err == nil {
			return nil
		}
		// What is unread of a broken dump must not meet the next one.
		c.Close()
		if ctx.Err() != nil {
			return fmt.Errorf("dump sockets: %w", context.Cause(ctx))
		}
		if !errors.Is(err, errDisturbed) && !errors.Is(err, unix.ENOBUFS) {
			return fmt.Errorf("dump sockets: %w", err)
		}
	}
	return fmt.Errorf("dump sockets: %w", ErrInterrupted)
}

var errDisturbed = errors.New("disturbed")

func (c *Conn) attempt(ctx context.Context, states uint32, each func(*inet.Socket)) error {
	if c.netlink == nil {
		if err := c.dial(); err != nil {
			return err
		}
	}
	// A dump takes milliseconds; a kernel that is silent for long is not to hang us.
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(30 * time.Second)
	}
	if err := c.netlink.SetDeadline(deadline); err != nil {
		return err
	}
	if err := c.dump(familyIPv4, states, each); err != nil {
		return err
	}
	err := c.dump(familyIPv6, states, each)
	if errors.Is(err, unix.ENOENT) {
		return nil // a kernel without IPv6 has no handler for it
	}
	return err
}

func (c *Conn) dump(family byte, states uint32, each func(*inet.Socket)) error {
	request, err := c.netlink.Send(netlink.Message{
		Header: netlink.Header{Type: unix.SOCK_DIAG_BY_FAMILY, Flags: netlink.Request | netlink.Dump},
		Data:   appendRequest(nil, family, states),
	})
	if err != nil {
		return err
	}
	var s inet.Socket
	for m, err := range c.netlink.ReceiveIter() {
		if err != nil {
			return err
		}
		if err := message(request.Header, m, &s); err != nil {
			return err
		}
		each(&s)
	}
	return nil
}

// message reads one message of the answer to a request.
func message(request netlink.Header, m netlink.Message, s *inet.Socket) error {
	switch {
	case m.Header.Sequence != request.Sequence:
		return fmt.Errorf("answer %d to request %d", m.Header.Sequence, request.Sequence)
	case m.Header.Flags&netlink.DumpInterrupted != 0:
		return errDisturbed
	case m.Header.Type != unix.SOCK_DIAG_BY_FAMILY:
		return fmt.Errorf("message of type %d", m.Header.Type)
	}
	return parseSocket(m.Data, s)
}

// appendRequest appends a struct inet_diag_req_v2.
func appendRequest(dst []byte, family byte, states uint32) []byte {
	dst = append(dst, family, unix.IPPROTO_TCP, 0, 0)
	dst = binary.NativeEndian.AppendUint32(dst, states)
	return append(dst, make([]byte, 48)...) // any address, any port, any cookie
}
