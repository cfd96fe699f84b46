package expect

import (
	"net/netip"
	"strings"

	"sockwatch/agent/plugin"
)

// An addressPattern is one value of the option address: a CIDR or a glob.
type addressPattern struct {
	prefix netip.Prefix // valid: a CIDR
	globs  plugin.Globs
}

// parseAddress parses one value of the option address. A value that can never be the address
// of a listener is an error, because the rule would silently match nothing.
func parseAddress(s string) (addressPattern, error) {
	if strings.Contains(s, "/") {
		prefix, err := parseCIDR(s)
		return addressPattern{prefix: prefix}, err
	}
	if inner, ok := strings.CutPrefix(s, "["); ok {
		inner, _, _ = strings.Cut(inner, "]")
		if a, err := netip.ParseAddr(inner); err == nil {
			return addressPattern{}, plugin.Errorf("%q is a glob for one character: write %q", s, a.String())
		}
	}
	if !strings.ContainsAny(s, `*?[]{}\`) {
		address, device, hasDevice := strings.Cut(s, "%")
		a, err := netip.ParseAddr(address)
		switch {
		case err != nil:
			return addressPattern{}, plugin.Errorf("%q is neither an address, nor a CIDR, nor a glob", s)
		case hasDevice && device == "":
			return addressPattern{}, plugin.Errorf("%q names no device after the %%", s)
		case a.String() != address:
			return addressPattern{}, plugin.Errorf("%q is never shown like that: write %q", s, a.String()+strings.TrimPrefix(s, address))
		}
	}
	globs, err := plugin.CompileGlobs([]string{s})
	return addressPattern{globs: globs}, err
}

func parseCIDR(s string) (netip.Prefix, error) {
	prefix, err := netip.ParsePrefix(s)
	if err != nil {
		return prefix, plugin.Errorf(`%q is not a CIDR such as "10.0.0.0/8"`, s)
	}
	if masked := prefix.Masked(); masked != prefix {
		return prefix, plugin.Errorf("%q has bits beyond its length: write %q", s, masked.String())
	}
	if a := prefix.Addr(); a.Is4In6() && prefix.Bits() >= 96 {
		prefix = netip.PrefixFrom(a.Unmap(), prefix.Bits()-96)
	}
	return prefix, nil
}

// match reports whether the pattern matches a listener's address. A CIDR matches a wildcard
// address only if it covers every address that the wildcard accepts.
func (p *addressPattern) match(l *Listener) bool {
	if !p.prefix.IsValid() {
		return p.globs.Match(l.address())
	}
	a := l.Address.Unmap()
	if !a.IsUnspecified() {
		return p.prefix.Contains(a)
	}
	return p.prefix.Bits() == 0 && (p.prefix.Addr().BitLen() == a.BitLen() || l.Family == "dual")
}

// address returns the bound address, including its device.
func (l *Listener) address() string {
	if l.Device == "" {
		return l.Address.String()
	}
	return l.Address.String() + "%" + l.Device
}
