// Package ifaces reads the interfaces of a network namespace and their addresses,
// and tells when they have changed.
package ifaces

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"sockwatch/inputs/internal/inet"
)

// A Table is what the interfaces of one network namespace are.
type Table struct {
	Names     map[uint32]string // of all interfaces, by index
	Addresses []inet.Address    // of those that are up
}

// Read reads the interfaces of the namespace of that file descriptor, or of the
// program's own where it is 0.
func Read(netns int) (Table, error) {
	c, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{NetNS: netns})
	if err != nil {
		return Table{}, fmt.Errorf("open a rtnetlink socket: %w", err)
	}
	defer c.Close()
	t := Table{Names: make(map[uint32]string)}
	up := make(map[uint32]bool)
	links, err := dump(c, unix.RTM_GETLINK, make([]byte, unix.SizeofIfInfomsg))
	if err != nil {
		return Table{}, fmt.Errorf("list interfaces: %w", err)
	}
	for _, m := range links {
		l, err := parseLink(m.Data)
		if err != nil {
			return Table{}, fmt.Errorf("list interfaces: %w", err)
		}
		t.Names[l.index], up[l.index] = l.name, l.up
	}
	addresses, err := dump(c, unix.RTM_GETADDR, make([]byte, unix.SizeofIfAddrmsg))
	if err != nil {
		return Table{}, fmt.Errorf("list addresses: %w", err)
	}
	for _, m := range addresses {
		a, err := parseAddress(m.Data)
		if err != nil {
			return Table{}, fmt.Errorf("list addresses: %w", err)
		}
		if up[a.Device] && a.Addr.IsValid() {
			t.Addresses = append(t.Addresses, a)
		}
	}
	return t, nil
}

func dump(c *netlink.Conn, kind netlink.HeaderType, data []byte) ([]netlink.Message, error) {
	const attempts = 8
	for range attempts {
		answer, err := c.Execute(netlink.Message{
			Header: netlink.Header{Type: kind, Flags: netlink.Request | netlink.Dump},
			Data:   data,
		})
		if err != nil {
			return nil, err
		}
		if !interrupted(answer) {
			return answer, nil
		}
	}
	return nil, errors.New("interrupted by changes at every attempt")
}

func interrupted(answer []netlink.Message) bool {
	for _, m := range answer {
		if m.Header.Flags&netlink.DumpInterrupted != 0 {
			return true
		}
	}
	return false
}

type link struct {
	index uint32
	name  string
	up    bool
}

// parseLink reads a struct ifinfomsg and the name among its attributes.
func parseLink(b []byte) (link, error) {
	if len(b) < unix.SizeofIfInfomsg {
		return link{}, fmt.Errorf("message of %d bytes", len(b))
	}
	l := link{
		index: binary.NativeEndian.Uint32(b[4:]),
		up:    binary.NativeEndian.Uint32(b[8:])&unix.IFF_UP != 0,
	}
	ad, err := netlink.NewAttributeDecoder(b[unix.SizeofIfInfomsg:])
	if err != nil {
		return link{}, err
	}
	for ad.Next() {
		if ad.Type() == unix.IFLA_IFNAME {
			l.name = ad.String()
		}
	}
	return l, ad.Err()
}

// parseAddress reads a struct ifaddrmsg and the interface's own address among its
// attributes: of a point-to-point link IFA_ADDRESS is the other end's.
func parseAddress(b []byte) (inet.Address, error) {
	if len(b) < unix.SizeofIfAddrmsg {
		return inet.Address{}, fmt.Errorf("message of %d bytes", len(b))
	}
	a := inet.Address{Device: binary.NativeEndian.Uint32(b[4:])}
	ad, err := netlink.NewAttributeDecoder(b[unix.SizeofIfAddrmsg:])
	if err != nil {
		return inet.Address{}, err
	}
	for ad.Next() {
		if t := ad.Type(); t == unix.IFA_LOCAL || t == unix.IFA_ADDRESS && !a.Addr.IsValid() {
			a.Addr, _ = netip.AddrFromSlice(ad.Bytes())
		}
	}
	return a, ad.Err()
}

// A Watch tells whether the program's own network namespace has changed.
type Watch struct{ fd int }

// NewWatch begins to watch.
func NewWatch() (*Watch, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("watch addresses: %w", err)
	}
	const groups = unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("watch addresses: %w", err)
	}
	return &Watch{fd}, nil
}

// Changed tells whether a link or an address has changed since it was called last,
// or may have.
func (w *Watch) Changed() bool {
	var b [1]byte // what has changed is read by Read
	changed := false
	for {
		_, _, err := unix.Recvfrom(w.fd, b[:], unix.MSG_TRUNC)
		if err == unix.EAGAIN {
			return changed
		}
		changed = true
		if err != nil && err != unix.ENOBUFS && err != unix.EINTR {
			return true
		}
	}
}

// Close ends it.
func (w *Watch) Close() error { return unix.Close(w.fd) }
