package tcplisten

import (
	"context"
	"net/netip"

	"sockwatch/inputs/internal/inet"
	"sockwatch/inputs/internal/netns"
)

// An endpoint is where connections arrive.
type endpoint struct {
	addr   netip.Addr
	port   uint16
	device uint32
}

// countEstablished counts the established connections of every listener. The kernel does
// not report which listener a connection belongs to, but the connection has the listener's
// port, user and cgroup, and also its address unless that is a wildcard. If the
// connections of a namespace cannot be listed, none are counted there.
func (in *input) countEstablished(ctx context.Context, partial *notes) {
	for _, t := range in.listeners.tables {
		t.established = nil
		if len(t.byCookie) == 0 {
			continue
		}
		endpoints := make(map[endpoint][]*listener, len(t.byCookie))
		for _, l := range in.listeners.all {
			if l.table == t {
				e := endpoint{l.socket.Addr, l.socket.Port, l.socket.Device}
				endpoints[e] = append(endpoints[e], l)
			}
		}
		begin := func() { t.established = make(map[*listener]int) }
		_, err := t.ns.Dump(ctx, netns.Established, 0, begin, func(s *inet.Socket) {
			if l := listenerOf(s, endpoints); l != nil {
				t.established[l]++
			}
		})
		if err != nil {
			t.established = nil
			partial.add("established connections%s: %v", t.ofNamespace(), err)
		}
	}
}

// listenerOf returns the listener that a connection belongs to, or nil.
func listenerOf(s *inet.Socket, endpoints map[endpoint][]*listener) *listener {
	addrs := [3]netip.Addr{s.Addr}
	var n int
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
			listeners := endpoints[endpoint{addr, s.Port, device}]
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
