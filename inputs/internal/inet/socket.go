// Package inet holds TCP sockets and the addresses on which they answer, as
// plain data: whoever lists sockets fills it, whoever describes them reads it.
package inet

import "net/netip"

// A Socket is one TCP socket as a listing of the kernel shows it.
type Socket struct {
	Addr   netip.Addr // as bound, without a zone; v4-mapped if the socket is IPv6
	Port   uint16
	Device uint32 // the index of the device or link-local zone it is bound to, or 0
	V6Only bool   // of an IPv6 socket: it takes no IPv4

	// Transparent is IP_TRANSPARENT: it answers from addresses that are not the host's.
	// A listing that does not say it gives false.
	Transparent bool

	// Cookie distinguishes the socket from every other of its namespace, earlier and later
	// ones too. Procfs does not show it: then it is the inode, which is used
	// again after the socket has closed.
	Cookie uint64
	Inode  uint64
	UID    uint32
	Cgroup uint64 // the inode of the cgroup v2 directory it was made in, or 0

	Backlog  uint32 // of a listener: connections that wait for accept()
	Limit    uint32 // of a listener: how many may wait
	HasLimit bool
}

// Family returns what a listener answers to: "ipv4", "ipv6" or "dual".
func (s *Socket) Family() string {
	switch {
	case s.Addr.Is4() || s.Addr.Is4In6():
		return "ipv4"
	case s.Addr.IsUnspecified() && !s.V6Only:
		return "dual"
	default:
		return "ipv6"
	}
}

// GuessV6Only fills in V6Only for the listeners of one network namespace, of a
// listing that does not say it. An IPv6 wildcard takes no IPv4 if that is the
// default, or if an IPv4 wildcard has the same port.
func GuessV6Only(sockets []Socket, byDefault bool) {
	wildcards := make(map[uint16]bool)
	for _, s := range sockets {
		if s.Addr.Is4() && s.Addr.IsUnspecified() {
			wildcards[s.Port] = true
		}
	}
	for i := range sockets {
		s := &sockets[i]
		if s.Addr.Is6() && !s.Addr.Is4In6() {
			s.V6Only = byDefault || wildcards[s.Port]
		}
	}
}
