package netns

import (
	"encoding/binary"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// A watch reports whether the addresses that a namespace answers on may have changed. It is
// a socket in the namespace, and keeps the namespace alive.
type watch struct{ conn *netlink.Conn }

// watched are the multicast groups of a watch. Routes are not enough: if an address or a
// device is removed, its routes disappear without a message.
var watched = [...]uint32{
	unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
	unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV6_RULE,
}

// openWatch starts to watch the calling thread's namespace.
func openWatch() (*watch, error) {
	c, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return nil, fmt.Errorf("watch routes: %w", err)
	}
	err = c.SetBPF(localRoutesOnly())
	for _, group := range watched {
		if err == nil {
			err = c.JoinGroup(group)
		}
	}
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("watch routes: %w", err)
	}
	return &watch{c}, nil
}

// localRoutesOnly returns a socket filter that drops changes of routes that are not local.
// A router may have thousands of those per second.
func localRoutesOnly() []bpf.RawInstruction {
	const (
		typeOffset      = 4      // of nlmsg_type in struct nlmsghdr
		routeTypeOffset = 16 + 7 // of rtm_type in struct rtmsg, which follows struct nlmsghdr
		whole           = 1<<32 - 1
	)
	kind := func(t uint16) uint32 { // filters load in network byte order
		return uint32(binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, t)))
	}
	filter, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: typeOffset, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: kind(unix.RTM_NEWROUTE), SkipTrue: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: kind(unix.RTM_DELROUTE), SkipTrue: 2},
		bpf.LoadAbsolute{Off: routeTypeOffset, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.RTN_LOCAL, SkipTrue: 1},
		bpf.RetConstant{Val: whole},
		bpf.RetConstant{Val: 0},
	})
	if err != nil {
		panic(err) // the program is a constant
	}
	return filter
}

// changed reports whether something has changed, or may have changed, since the last call.
func (w *watch) changed() bool {
	raw, err := w.conn.SyscallConn()
	if err != nil {
		return true
	}
	changed := false
	err = raw.Control(func(fd uintptr) {
		var b [1]byte // the content does not matter: everything is read again
		const most = 4096
		for range most {
			_, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_DONTWAIT)
			if err == unix.EAGAIN {
				return
			}
			changed = true
		}
	})
	return changed || err != nil
}

func (w *watch) close() error { return w.conn.Close() }
