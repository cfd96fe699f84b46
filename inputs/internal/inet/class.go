package inet

import "net/netip"

// A Class says from how far away an address can be reached. It depends only on the address:
// firewalls and address translation are not taken into account.
type Class uint8

// The classes, narrowest first. Nowhere is the class of no address at all, and of addresses
// that accept no TCP connections, such as multicast groups.
const (
	Nowhere Class = iota
	Loopback
	LinkLocal
	Private
	Public
)

// String returns the value of the tag exposure, "" for Nowhere.
func (c Class) String() string {
	return [...]string{"", "loopback", "link_local", "private", "public"}[c]
}

// special lists the prefixes that are not public. The first match counts. Prefixes for
// documentation are public, because nothing prevents routing them.
var special = [...]struct {
	prefix netip.Prefix
	class  Class
}{
	{netip.MustParsePrefix("127.0.0.0/8"), Loopback},
	{netip.MustParsePrefix("::1/128"), Loopback},
	{netip.MustParsePrefix("169.254.0.0/16"), LinkLocal},
	{netip.MustParsePrefix("fe80::/10"), LinkLocal},
	{netip.MustParsePrefix("10.0.0.0/8"), Private},     // RFC 1918
	{netip.MustParsePrefix("172.16.0.0/12"), Private},  // RFC 1918
	{netip.MustParsePrefix("192.168.0.0/16"), Private}, // RFC 1918
	{netip.MustParsePrefix("100.64.0.0/10"), Private},  // RFC 6598
	{netip.MustParsePrefix("198.18.0.0/15"), Private},  // RFC 2544
	{netip.MustParsePrefix("fc00::/7"), Private},       // RFC 4193
	{netip.MustParsePrefix("fec0::/10"), Private},      // RFC 3879, the former site-local
	{netip.MustParsePrefix("255.255.255.255/32"), Nowhere},
	{netip.MustParsePrefix("240.0.0.0/4"), Private}, // RFC 1112, reserved
	{netip.MustParsePrefix("0.0.0.0/32"), Nowhere},
	{netip.MustParsePrefix("::/128"), Nowhere},
	{netip.MustParsePrefix("224.0.0.0/4"), Nowhere},
	{netip.MustParsePrefix("ff00::/8"), Nowhere},
}

// Classify returns the class of an address. A zone does not matter.
func Classify(a netip.Addr) Class {
	a = a.Unmap().WithZone("")
	for i := range special {
		if special[i].prefix.Contains(a) {
			return special[i].class
		}
	}
	return Public
}

// ClassifyPrefix returns the widest class among the addresses of a prefix. The prefix must be
// masked, and not consist of v4-mapped addresses.
func ClassifyPrefix(p netip.Prefix) Class {
	whole := true // the prefix contains no special prefix
	for i := range special {
		s := special[i].prefix
		switch {
		case !s.Overlaps(p):
		case s.Bits() <= p.Bits():
			if whole {
				return special[i].class
			}
		default:
			whole = false
		}
	}
	if whole {
		return Public
	}
	low := netip.PrefixFrom(p.Addr(), p.Bits()+1)
	class := ClassifyPrefix(low)
	if class == Public {
		return Public
	}
	return max(class, ClassifyPrefix(netip.PrefixFrom(firstOfUpperHalf(low), p.Bits()+1)))
}

// firstOfUpperHalf returns the address after the last one of the prefix low, which must be the
// lower half of a larger prefix.
func firstOfUpperHalf(low netip.Prefix) netip.Addr {
	bit := low.Bits() - 1
	if a := low.Addr(); a.Is4() {
		raw := a.As4()
		raw[bit/8] |= 0x80 >> (bit % 8)
		return netip.AddrFrom4(raw)
	}
	raw := low.Addr().As16()
	raw[bit/8] |= 0x80 >> (bit % 8)
	return netip.AddrFrom16(raw)
}
