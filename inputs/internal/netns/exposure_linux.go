package netns

import (
	"maps"
	"net/netip"
	"slices"

	"sockwatch/inputs/internal/inet"
)

// A Local holds the addresses that a network namespace answers on, and the names of its
// devices. The addresses are the local routes of its routing tables, reduced to what an
// exposure needs. A Local is immutable.
//
// The kernel accepts a connection if its routing tables say that the destination is local
// (RTN_LOCAL), by whatever device it arrives (the weak host model, RFC 1122 section
// 3.3.4.2). Loopback and link-local IPv6 destinations are exceptions. The routing rules
// decide which tables are looked up. IPv4 sockets that are not transparent answer only from
// addresses of devices and of the table local.
//
// Rules that need a firewall's mark do not count, because firewalls are not taken into
// account. Rules that depend on the sender, the protocol or the port count for every
// listener. A route in one table does not hide routes to the same destination in later
// tables.
type Local struct {
	links   map[uint32]link // nil if they are not known
	unbound view            // of a socket that is not bound to a device
	device  view            // of a socket that is bound to a device without an entry in devices
	devices map[uint32]view // by device or VRF, for those that have their own rules or table
}

// A view is the addresses on which sockets that are bound to the same device answer.
type view struct {
	v4, v6  []*addresses
	foreign []*addresses // IPv4 addresses from which only transparent sockets answer
}

func (v *view) add(other view) {
	v.v4, v.v6, v.foreign = append(v.v4, other.v4...), append(v.v6, other.v6...), append(v.foreign, other.foreign...)
}

// A link is a network device.
type link struct {
	name     string
	up       bool
	loopback bool
	master   uint32 // index of the device that gets what this one receives, or 0
	table    uint32 // the routing table of a VRF
	vrf      bool
}

// DeviceName returns the name of a device.
func (l *Local) DeviceName(index uint32) (string, bool) {
	d, ok := l.links[index]
	return d.name, ok
}

// Exposure returns the widest class among the addresses on which a listener answers, or
// Nowhere if there is none. A loopback address counts as loopback even if
// net.ipv4.conf.*.route_localnet lets neighbors on the link reach it.
func (l *Local) Exposure(s *inet.Socket) inet.Class {
	addr := s.Addr.Unmap()
	if addr.IsLoopback() {
		return inet.Loopback
	}
	v, at, most := l.viewOf(s)
	if most == inet.Nowhere {
		return inet.Nowhere
	}
	return min(v.exposure(s, addr, at), most)
}

// viewOf returns the addresses on which a listener may answer, by which device packets reach it,
// and the widest class that its exposure can have.
func (l *Local) viewOf(s *inet.Socket) (v view, at arrivedAt, most inet.Class) {
	v, at = l.unbound, arrivedAt{device: s.Device, bound: s.Device != 0}
	if l.links == nil {
		at.device = 0
		if at.bound {
			v = l.device
		}
		return v, at, inet.Public
	}
	if !at.bound {
		return v, at, inet.Public
	}
	d, ok := l.links[s.Device]
	switch master := l.links[d.master]; {
	case !ok: // the device is gone
		return v, at, inet.Nowhere
	case d.vrf:
		v = l.devices[s.Device]
	case master.vrf:
		v = l.devices[d.master]
	case d.loopback: // packets there come from the host itself
		return l.unbound, arrivedAt{}, inet.Loopback
	case !d.up || d.master != 0: // a port of a bridge or bond receives nothing itself
		return v, at, inet.Nowhere
	default:
		v = l.device
		if special, ok := l.devices[s.Device]; ok {
			v = special
		}
	}
	return v, at, inet.Public
}

// Example returns an address on which a listener answers that has the class of its exposure. It
// returns false for link-local IPv6 addresses, which only their device has, and if there is
// none.
func (l *Local) Example(s *inet.Socket) (netip.Addr, bool) {
	class := l.Exposure(s)
	v, _, _ := l.viewOf(s)
	tables := v.v4
	if s.Transparent {
		tables = slices.Concat(tables, v.foreign)
	}
	switch s.Family() {
	case "dual":
		tables = slices.Concat(tables, v.v6)
	case "ipv6":
		tables = v.v6
	}
	for _, a := range tables {
		for _, r := range a.ranges {
			for _, addr := range [...]netip.Addr{r.first, r.last} {
				switch {
				case class == inet.Nowhere || inet.Classify(addr) != class:
				case addr.Is4() && addr.IsLoopback() && a.contains(loopback4, 0): // better known than 127.0.0.0
					return loopback4, true
				default:
					return addr, true
				}
			}
		}
	}
	return netip.Addr{}, false
}

// arrivedAt says by which device packets reach a socket.
type arrivedAt struct {
	bound  bool   // the socket is bound to a device
	device uint32 // 0 if the device does not matter
}

func (v view) exposure(s *inet.Socket, addr netip.Addr, at arrivedAt) inet.Class {
	v4 := v.v4
	if s.Transparent {
		v4 = slices.Concat(v4, v.foreign)
	}
	if !addr.IsUnspecified() {
		tables := v.v6
		if addr.Is4() {
			tables = v4
		}
		if slices.ContainsFunc(tables, func(a *addresses) bool { return a.contains(addr, at.device) }) {
			return inet.Classify(addr)
		}
		return inet.Nowhere
	}
	class := inet.Nowhere
	family := s.Family()
	if family != "ipv6" {
		class = max(class, widest(v4, at))
	}
	if family != "ipv4" {
		class = max(class, widest(v.v6, at))
	}
	return class
}

// widest returns the widest class of the addresses on which a wildcard socket answers.
func widest(tables []*addresses, at arrivedAt) inet.Class {
	class := inet.Nowhere
	for _, a := range tables {
		class = max(class, a.widest)
		if a.loopback && !at.bound {
			class = max(class, inet.Loopback)
		}
		if a.hasLinkLocal(at.device) {
			class = max(class, inet.LinkLocal)
		}
	}
	return class
}

func (l *Local) equal(other *Local) bool {
	return other != nil && (l.links == nil) == (other.links == nil) && maps.Equal(l.links, other.links) &&
		l.unbound.equal(other.unbound) && l.device.equal(other.device) && maps.EqualFunc(l.devices, other.devices, view.equal)
}

func (v view) equal(other view) bool {
	return slices.EqualFunc(v.v4, other.v4, (*addresses).equal) && slices.EqualFunc(v.v6, other.v6, (*addresses).equal) &&
		slices.EqualFunc(v.foreign, other.foreign, (*addresses).equal)
}
