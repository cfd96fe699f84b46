package netns

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sockwatch/inputs/internal/inet"
)

// TestRangesAreJoined: adjacent and overlapping ranges become one.
func TestRangesAreJoined(t *testing.T) {
	var a addresses
	for _, p := range []string{"10.0.0.4/30", "10.0.0.0/30", "10.0.0.0/24", "10.0.1.0/32", "10.0.3.0/24", "255.255.255.255/32"} {
		a.add(netip.MustParsePrefix(p), 1)
	}
	a.seal()
	addr := netip.MustParseAddr
	want := []addrRange{
		{first: addr("10.0.0.0"), last: addr("10.0.1.0")},
		{first: addr("10.0.3.0"), last: addr("10.0.3.255")},
		{first: addr("255.255.255.255"), last: addr("255.255.255.255")},
	}
	equal := cmp.Comparer(func(x, y addrRange) bool { return x == y })
	if diff := cmp.Diff(want, a.ranges, equal); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestAddressesAgreeWithPrefixes compares with a search through all prefixes.
func TestAddressesAgreeWithPrefixes(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	address := func() netip.Addr {
		return netip.AddrFrom4([4]byte{10, 0, byte(random.IntN(2)), byte(random.IntN(256))})
	}
	for range 200 {
		var a addresses
		var prefixes []netip.Prefix
		for range random.IntN(20) {
			p, err := address().Prefix(24 + random.IntN(9))
			if err != nil {
				t.Fatal(err)
			}
			prefixes = append(prefixes, p)
			a.add(p, 1)
		}
		a.seal()
		for range 200 {
			addr, want := address(), false
			for _, p := range prefixes {
				want = want || p.Contains(addr)
			}
			if got := a.contains(addr, 0); got != want {
				t.Fatalf("%v contain %v: %t, expected %t", prefixes, addr, got, want)
			}
		}
	}
}

// TestWidestOfPrefixes distinguishes loopback from the rest, also inside a prefix.
func TestWidestOfPrefixes(t *testing.T) {
	for _, test := range []struct {
		prefix   string
		widest   inet.Class
		loopback bool
	}{
		{prefix: "127.0.0.0/8", widest: inet.Nowhere, loopback: true},
		{prefix: "::1/128", widest: inet.Nowhere, loopback: true},
		{prefix: "0.0.0.0/0", widest: inet.Public, loopback: true},
		{prefix: "::/0", widest: inet.Public, loopback: true},
		{prefix: "10.0.0.0/8", widest: inet.Private},
		{prefix: "fe80::/10", widest: inet.LinkLocal},
	} {
		var a addresses
		a.add(netip.MustParsePrefix(test.prefix), 1)
		if a.widest != test.widest || a.loopback != test.loopback {
			t.Errorf("%s: %v, loopback %t", test.prefix, a.widest, a.loopback)
		}
	}
}
