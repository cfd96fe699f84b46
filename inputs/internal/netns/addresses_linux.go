package netns

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"sockwatch/inputs/internal/inet"
)

// addresses are the local addresses of one routing table and one family. add adds to them
// until seal, which makes them immutable.
type addresses struct {
	ranges    []addrRange             // sorted and disjoint after seal; without those in linkLocal
	linkLocal map[scopedAddr]struct{} // IPv6: a device answers only on its own
	scopes    map[uint32]struct{}     // the devices in linkLocal
	widest    inet.Class              // of ranges, without loopback
	loopback  bool                    // ranges have loopback addresses
}

// An addrRange is all addresses from first to last.
type addrRange struct{ first, last netip.Addr }

// A scopedAddr is an address of one device.
type scopedAddr struct {
	addr   netip.Addr
	device uint32
}

// add adds a prefix that is routed to a device. A prefix that follows the last range
// extends it.
func (a *addresses) add(p netip.Prefix, device uint32) {
	if p.Addr().Is6() && p.IsSingleIP() && p.Addr().IsLinkLocalUnicast() {
		if a.linkLocal == nil {
			a.linkLocal, a.scopes = make(map[scopedAddr]struct{}), make(map[uint32]struct{})
		}
		a.linkLocal[scopedAddr{p.Addr(), device}] = struct{}{}
		a.scopes[device] = struct{}{}
		return
	}
	switch class := inet.ClassifyPrefix(p); class {
	case inet.Loopback:
		a.loopback = true
	default:
		a.widest = max(a.widest, class)
		a.loopback = a.loopback || p.Contains(loopback4) || p.Contains(loopback6)
	}
	r := addrRange{p.Addr(), lastOf(p)}
	if n := len(a.ranges); n > 0 && a.ranges[n-1].last.Next() == r.first {
		a.ranges[n-1].last = r.last
		return
	}
	a.ranges = append(a.ranges, r)
}

var (
	loopback4 = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	loopback6 = netip.IPv6Loopback()
)

// lastOf returns the last address of a prefix.
func lastOf(p netip.Prefix) netip.Addr {
	raw := p.Addr().As16()
	bits := p.Bits()
	if p.Addr().Is4() {
		bits += 96
	}
	for i := bits; i < 128; i++ {
		raw[i/8] |= 0x80 >> (i % 8)
	}
	last := netip.AddrFrom16(raw)
	if p.Addr().Is4() {
		return last.Unmap()
	}
	return last
}

// seal sorts the ranges and joins those that overlap or touch.
func (a *addresses) seal() {
	slices.SortFunc(a.ranges, func(x, y addrRange) int {
		return cmp.Or(x.first.Compare(y.first), x.last.Compare(y.last))
	})
	joined := a.ranges[:0]
	for _, r := range a.ranges {
		n := len(joined)
		if n > 0 && (!joined[n-1].last.Less(r.first) || joined[n-1].last.Next() == r.first) {
			if joined[n-1].last.Less(r.last) {
				joined[n-1].last = r.last
			}
			continue
		}
		joined = append(joined, r)
	}
	a.ranges = joined
}

// contains reports whether an address is local for sockets of a device, or of any device if
// it is 0.
func (a *addresses) contains(addr netip.Addr, device uint32) bool {
	i, found := slices.BinarySearchFunc(a.ranges, addr, func(r addrRange, addr netip.Addr) int { return r.first.Compare(addr) })
	if found || i > 0 && !a.ranges[i-1].last.Less(addr) {
		return true
	}
	if device != 0 || len(a.linkLocal) == 0 {
		_, ok := a.linkLocal[scopedAddr{addr, device}]
		return ok
	}
	for s := range a.linkLocal {
		if s.addr == addr {
			return true
		}
	}
	return false
}

// hasLinkLocal reports whether a device, or any device if it is 0, has a link-local IPv6
// address.
func (a *addresses) hasLinkLocal(device uint32) bool {
	if device == 0 {
		return len(a.scopes) > 0
	}
	_, ok := a.scopes[device]
	return ok
}

func (a *addresses) equal(other *addresses) bool {
	return a == other || a.widest == other.widest && a.loopback == other.loopback &&
		slices.Equal(a.ranges, other.ranges) && maps.Equal(a.linkLocal, other.linkLocal)
}
