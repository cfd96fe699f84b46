// Package inet has TCP sockets and the classes of their addresses, as plain data that is
// shared by the packages that list and describe sockets.
package inet

import "net/netip"

// A Socket is one TCP socket, as the kernel lists it.
type Socket struct {
	Addr   netip.Addr // as bound, without a zone; v4-mapped if an IPv6 socket is bound to IPv4
	Port   uint16
	Device uint32 // index of the device or link-local zone it is bound to, or 0
	V6Only bool   // of an IPv6 socket: it accepts no IPv4

	// Transparent is IP_TRANSPARENT: the socket answers from addresses that are not the
	// host's. It is false if the listing does not say.
	Transparent bool

	// Cookie is unique among all sockets of the namespace, including earlier and later ones.
	// Procfs does not show it: then it is the inode, which is reused after the socket has
	// closed.
	Cookie uint64
	Inode  uint64
	UID    uint32
	Cgroup uint64 // inode of the cgroup v2 directory in which it was created, or 0

	Backlog  uint32 // of a listener: connections waiting for accept()
	Limit    uint32 // of a listener: how many can wait
	HasLimit bool
}

// Family returns the families that a listener accepts: "ipv4", "ipv6" or "dual".
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

// GuessV6Only sets V6Only for the listeners of one network namespace, if the listing does not
// say. An IPv6 wildcard accepts no IPv4 if that is the default, or if an IPv4 wildcard has
// the same port.
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
