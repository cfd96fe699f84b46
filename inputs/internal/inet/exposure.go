package inet

import "net/netip"

// A Class says how far an address reaches, the narrowest first. It looks at the
// address alone: firewalls and address translation are not seen.
type Class uint8

// The classes of addresses. Nowhere is the class of no address at all.
const (
	Nowhere Class = iota
	Loopback
	LinkLocal
	Private // RFC 1918, RFC 4193, RFC 6598
	Public
)

// String returns the class as the tag exposure spells it; "" for Nowhere.
func (c Class) String() string {
	return [...]string{"", "loopback", "link_local", "private", "public"}[c]
}

var sharedSpace = netip.PrefixFrom(netip.AddrFrom4([4]byte{100, 64}), 10) // RFC 6598

// Classify returns the class of one address that is not a wildcard.
func Classify(a netip.Addr) Class {
	a = a.Unmap()
	switch {
	case a.IsLoopback():
		return Loopback
	case a.IsLinkLocalUnicast():
		return LinkLocal
	case a.IsPrivate() || sharedSpace.Contains(a):
		return Private
	default:
		return Public
	}
}

// An Address is one address of an interface that is up.
type Address struct {
	Addr   netip.Addr
	Device uint32
}

// Exposure returns the widest class among the addresses on which a listener
// answers; local are those of its network namespace.
func Exposure(s *Socket, local []Address) Class {
	if !s.Addr.Unmap().IsUnspecified() {
		return Classify(s.Addr)
	}
	widest := Nowhere
	family := s.Family()
	for _, l := range local {
		if s.Device != 0 && l.Device != s.Device {
			continue
		}
		if is4 := l.Addr.Is4(); is4 && family == "ipv6" || !is4 && family == "ipv4" {
			continue
		}
		widest = max(widest, Classify(l.Addr))
	}
	return widest
}
