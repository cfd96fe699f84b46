package tcplisten

import (
	"context"
	"net/netip"

	"sockwatch/inputs/internal/inet"
)

// An endpoint is where connections arrive.
type endpoint struct {
	addr   netip.Addr
	port   uint16
	device uint32
}

// countEstablished counts the established connections of every listener. The
// kernel does not say by which listener a connection came, but it gives it the
// listener's port, user and cgroup, and its address unless that is a wildcard.
func (in *input) countEstablished(ctx context.Context) error {
	for _, sp := range in.spaces {
		ends := make(map[endpoint][]*listener, len(sp.listeners))
		for _, l := range in.listeners {
			if l.space == sp {
				e := endpoint{l.socket.Addr, l.socket.Port, l.socket.Device}
				ends[e] = append(ends[e], l)
			}
		}
		begin := func() {
			for _, l := range sp.listeners {
				l.established = 0
			}
		}
		begin()
		if len(ends) == 0 {
			continue
		}
		err := in.listSpace(ctx, sp, listing{established: true, begin: begin, each: func(s *inet.Socket) {
			if l := listenerOf(s, ends); l != nil {
				l.established++
			}
		}})
		if err != nil && (sp == in.host || sp.isThere()) {
			return err
		}
	}
	return nil
}

// listenerOf returns the listener by which a connection came, or nil.
func listenerOf(s *inet.Socket, ends map[endpoint][]*listener) *listener {
	addrs, n := [3]netip.Addr{s.Addr}, 1
	switch {
	case s.Addr.Is4():
		addrs[1], n = netip.IPv4Unspecified(), 2
	case s.Addr.Is4In6():
		addrs[1], addrs[2], n = mappedUnspecified, netip.IPv6Unspecified(), 3
	default:
		addrs[1], n = netip.IPv6Unspecified(), 2
	}
	for _, addr := range addrs[:n] {
		for _, device := range [...]uint32{s.Device, 0} {
			listeners := ends[endpoint{addr, s.Port, device}]
			for _, l := range listeners {
				if l.socket.UID == s.UID && l.socket.Cgroup == s.Cgroup {
					return l
				}
			}
			if len(listeners) > 0 {
				return listeners[0]
			}
		}
	}
	return nil
}

var mappedUnspecified = netip.AddrFrom16(netip.IPv4Unspecified().As16())
