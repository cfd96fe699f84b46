package inet

import (
	"net/netip"
	"testing"
)

func TestClassify(t *testing.T) {
	for addr, want := range map[string]Class{
		"127.0.0.1": Loopback, "127.9.9.9": Loopback, "::1": Loopback, "::ffff:127.0.0.1": Loopback,
		"169.254.1.1": LinkLocal, "fe80::1": LinkLocal, "febf::1": LinkLocal,
		"10.0.0.1": Private, "172.16.0.1": Private, "172.31.255.255": Private, "192.168.1.1": Private,
		"100.64.0.1": Private, "100.127.255.255": Private, "fd00::1": Private, "::ffff:10.0.0.1": Private,
		"172.32.0.1": Public, "100.128.0.1": Public, "100.63.255.255": Public, "8.8.8.8": Public,
		"2001:db8::1": Public, "192.0.2.1": Public, "198.51.100.1": Public, "203.0.113.1": Public,
		"fec0::1": Private, "198.18.0.1": Private, "198.19.255.255": Private, "198.20.0.0": Public, "240.0.0.1": Private,
		"255.255.255.255": Nowhere, "224.0.0.1": Nowhere, "ff02::1": Nowhere, "fe80::1%eth0": LinkLocal,
	} {
		if got := Classify(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s is %s, expected %s", addr, got, want)
		}
	}
}

// TestClassifyPrefix gives a prefix the widest class of its addresses.
func TestClassifyPrefix(t *testing.T) {
	for prefix, want := range map[string]Class{
		"127.0.0.0/8": Loopback, "127.0.0.1/32": Loopback, "126.0.0.0/7": Public, "0.0.0.0/0": Public, "::/0": Public,
		"10.0.0.0/8": Private, "10.0.0.0/7": Public, "100.0.0.0/9": Public, "100.64.0.0/10": Private, "169.254.0.0/16": LinkLocal,
		"224.0.0.0/3": Private, "240.0.0.0/4": Private, "224.0.0.0/4": Nowhere, "255.255.255.255/32": Nowhere,
		"fe80::/9": Private, "fe80::/10": LinkLocal, "fc00::/7": Private, "fc00::/6": Public, "ff00::/8": Nowhere,
		"203.0.113.0/24": Public, "2001:db8::/32": Public, "::1/128": Loopback, "::/127": Loopback,
	} {
		if got := ClassifyPrefix(netip.MustParsePrefix(prefix)); got != want {
			t.Errorf("%s is %q, expected %q", prefix, got, want)
		}
	}
}

// FuzzClassifyPrefix: no address of a prefix has a wider class, and a single address has
// its own.
func FuzzClassifyPrefix(f *testing.F) {
	f.Add([]byte{10, 0, 0, 1}, uint8(8), []byte{10, 9, 9, 9})
	f.Add([]byte{0, 0, 0, 0}, uint8(0), []byte{255, 255, 255, 255})
	f.Add(netip.MustParseAddr("fe80::").AsSlice(), uint8(9), netip.MustParseAddr("fec0::1").AsSlice())
	f.Fuzz(func(t *testing.T, address []byte, bits uint8, other []byte) {
		a, ok := netip.AddrFromSlice(address)
		b, otherOK := netip.AddrFromSlice(other)
		if !ok || !otherOK || a.Is4In6() || b.Is4In6() {
			return
		}
		p, err := a.Prefix(int(bits))
		if err != nil || !p.Contains(b) {
			return
		}
		if got := ClassifyPrefix(p); got < Classify(b) {
			t.Errorf("%v is %q, but %v in it %q", p, got, b, Classify(b))
		}
		if got := ClassifyPrefix(netip.PrefixFrom(b, b.BitLen())); got != Classify(b) {
			t.Errorf("%v is %q, as a prefix %q", b, Classify(b), got)
		}
	})
}

func TestFamily(t *testing.T) {
	for _, test := range []struct {
		addr   string
		v6only bool
		want   string
	}{
		{"0.0.0.0", false, "ipv4"}, {"::ffff:1.2.3.4", false, "ipv4"}, {"::", false, "dual"}, {"::", true, "ipv6"}, {"::1", false, "ipv6"},
	} {
		s := Socket{Addr: netip.MustParseAddr(test.addr), V6Only: test.v6only}
		if got := s.Family(); got != test.want {
			t.Errorf("%s, v6only %v: %s, expected %s", test.addr, test.v6only, got, test.want)
		}
	}
}

func TestGuessV6Only(t *testing.T) {
	sockets := func() []Socket {
		return []Socket{
			{Addr: netip.MustParseAddr("0.0.0.0"), Port: 80}, {Addr: netip.MustParseAddr("::"), Port: 80},
			{Addr: netip.MustParseAddr("::"), Port: 81},
		}
	}
	for _, byDefault := range []bool{false, true} {
		s := sockets()
		GuessV6Only(s, byDefault)
		if !s[1].V6Only || s[2].V6Only != byDefault || s[0].V6Only {
			t.Errorf("by default %v: %+v", byDefault, s)
		}
	}
}
