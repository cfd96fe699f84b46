package inet

import "net/netip"

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
