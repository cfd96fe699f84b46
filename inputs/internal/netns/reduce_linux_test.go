package netns

import (
	"net/netip"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"sockwatch/inputs/internal/inet"
)

// vrfHost is a host with a device eth0 and two VRFs, red and blue, with one device
// each; a bond; and a device that is down.
func vrfHost(accept bool) *Local {
	b := builder{accept: accept}
	for index, l := range map[uint32]link{
		1:  {name: "lo", up: true, loopback: true},
		2:  {name: "eth0", up: true},
		3:  {name: "red", up: true, vrf: true, table: 10},
		4:  {name: "eth1", up: true, master: 3},
		5:  {name: "blue", up: true, vrf: true, table: 20},
		6:  {name: "eth2", up: true, master: 5},
		7:  {name: "bond0", up: true},
		8:  {name: "eth3", up: true, master: 7},
		9:  {name: "eth4"},
		10: {name: "eth5", up: true, master: 5},
	} {
		b.devices.add(index, l)
	}
	l3mdev := rule{priority: 1000, action: unix.FR_ACT_TO_TBL, l3mdev: true, suppress: -1}
	local := rule{priority: 32765, action: unix.FR_ACT_TO_TBL, table: unix.RT_TABLE_LOCAL, suppress: -1}
	fromBlue := rule{priority: 1001, action: unix.FR_ACT_TO_TBL, table: 30, input: "blue", suppress: -1}
	// The rule for the table local is not the first one: with VRFs, as the kernel's
	// documentation recommends, a VRF's own routes come first.
	b.rules = [2][]rule{{l3mdev, fromBlue, local}, {l3mdev, local}}
	if err := b.prepare(); err != nil {
		panic(err)
	}
	for _, r := range []route{
		{table: unix.RT_TABLE_LOCAL, prefix: netip.MustParsePrefix("127.0.0.0/8"), device: 1, kernel: true},
		{table: unix.RT_TABLE_LOCAL, prefix: netip.MustParsePrefix("10.0.0.1/32"), device: 2, kernel: true},
		{table: 10, prefix: netip.MustParsePrefix("203.0.113.1/32"), device: 4, kernel: true},
		{table: 10, prefix: netip.MustParsePrefix("198.51.100.0/24"), device: 3},
		{table: 20, prefix: netip.MustParsePrefix("192.168.0.1/32"), device: 6, kernel: true},
		{table: 30, prefix: netip.MustParsePrefix("192.0.2.1/32"), device: 6, kernel: true},
		{table: 40, prefix: netip.MustParsePrefix("192.0.2.2/32"), device: 2, kernel: true},
		{table: unix.RT_TABLE_LOCAL, prefix: netip.MustParsePrefix("::1/128"), device: 1},
		{table: unix.RT_TABLE_LOCAL, prefix: netip.MustParsePrefix("fe80::2/128"), device: 2},
		{table: 10, prefix: netip.MustParsePrefix("2001:db8::1/128"), device: 4},
		{table: 10, prefix: netip.MustParsePrefix("fe80::4/128"), device: 4},
		{table: 20, prefix: netip.MustParsePrefix("fe80::6/128"), device: 6},
	} {
		if err := b.add(r); err != nil {
			panic(err)
		}
	}
	return b.local()
}

// TestVRF: a listener answers on the addresses of its own VRF; one outside all VRFs answers
// on all of them only with net.ipv4.tcp_l3mdev_accept. This machine's kernel has no
// VRFs: the routes are as net/vrf.rst of the kernel describes them.
func TestVRF(t *testing.T) {
	for _, test := range []struct {
		accept      bool
		addr        string
		device      uint32
		transparent bool
		want        string
	}{
		{addr: "0.0.0.0", want: "private"},
		{addr: "0.0.0.0", accept: true, want: "public"},
		{addr: "203.0.113.1", want: ""},
		{addr: "203.0.113.1", accept: true, want: "public"},
		{addr: "203.0.113.1", device: 3, want: "public"},
		{addr: "203.0.113.1", device: 4, want: "public"},
		{addr: "203.0.113.1", device: 2, want: ""},
		{addr: "203.0.113.1", device: 5, want: ""},
		{addr: "0.0.0.0", device: 3, want: "public"},
		{addr: "0.0.0.0", device: 2, want: "private"},
		{addr: "192.168.0.1", device: 6, want: "private"},
		{addr: "0.0.0.0", device: 6, want: "public"}, // table 30
		{addr: "0.0.0.0", device: 10, want: "public"},
		{addr: "192.0.2.1", device: 5, want: "public"},
		{addr: "192.0.2.1", want: ""},
		{addr: "192.0.2.2", want: ""},
		{addr: "198.51.100.7", device: 3, want: ""},
		{addr: "198.51.100.7", device: 3, transparent: true, want: "public"},
		{addr: "::", device: 3, want: "public"},
		{addr: "::", device: 5, want: "public"}, // dual, table 30
		{addr: "2001:db8::1", device: 4, want: "public"},
		{addr: "2001:db8::1", want: ""},
		{addr: "2001:db8::1", accept: true, want: "public"},
		{addr: "fe80::4", device: 4, want: "link_local"},
		{addr: "fe80::4", device: 3, want: "link_local"},
		{addr: "fe80::6", device: 10, want: ""},
		{addr: "0.0.0.0", device: 7, want: "private"},
		{addr: "0.0.0.0", device: 8, want: ""}, // a port of a bond
		{addr: "0.0.0.0", device: 9, want: ""}, // down
		{addr: "0.0.0.0", device: 99, want: ""},
		{addr: "0.0.0.0", device: 1, want: "loopback"},
		{addr: "203.0.113.1", device: 1, want: ""},
	} {
		s := inet.Socket{Addr: netip.MustParseAddr(test.addr), Device: test.device, Transparent: test.transparent}
		t.Run(test.addr+" of "+strconv.Itoa(int(test.device)), func(t *testing.T) {
			if got := vrfHost(test.accept).Exposure(&s).String(); got != test.want {
				t.Errorf("accept %t, transparent %t: %q, expected %q", test.accept, test.transparent, got, test.want)
			}
		})
	}
}

// TestLocalIsComparable: a Local is equal to one that is read again unchanged, whatever the
// order of the devices.
func TestLocalIsComparable(t *testing.T) {
	for range 20 {
		if !vrfHost(true).equal(vrfHost(true)) {
			t.Fatal("two of the same differ")
		}
	}
	if vrfHost(true).equal(vrfHost(false)) || vrfHost(true).equal(nil) {
		t.Error("two that differ are equal")
	}
	if name, ok := vrfHost(false).DeviceName(3); name != "red" || !ok {
		t.Errorf("device 3 is %q, %t", name, ok)
	}
	if name, ok := vrfHost(false).DeviceName(99); name != "" || ok {
		t.Errorf("device 99 is %q, %t", name, ok)
	}
}

// TestRoutesAreBounded: there is an error if there are more local routes than are kept, or
// more rules than can be evaluated.
func TestRoutesAreBounded(t *testing.T) {
	b := builder{rules: [2][]rule{defaultRules(), defaultRules()}}
	if err := b.prepare(); err != nil {
		t.Fatal(err)
	}
	var err error
	for i := 0; err == nil; i++ {
		if i > maxLocalRoutes {
			t.Fatal("no error")
		}
		err = b.add(route{table: unix.RT_TABLE_LOCAL, prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 14), byte(i >> 6), byte(i << 2)}), 32)})
	}
	if want := "more than 262144 local routes"; err.Error() != want {
		t.Errorf("%v, expected %s", err, want)
	}
	var many builder
	for i := range uint32(5000) {
		name := strconv.Itoa(int(i))
		many.devices.add(i+1, link{name: name})
		many.rules[ipv4] = append(many.rules[ipv4], rule{input: name})
	}
	if err := many.prepare(); err != errTooManyRules {
		t.Errorf("%v, expected %v", err, errTooManyRules)
	}
}
