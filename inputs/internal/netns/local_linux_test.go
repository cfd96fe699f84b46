package netns

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// TestExposureIsWhatPeersReach compares the exposure with what a peer can connect to:
// it is more than loopback exactly if the peer connects to a target. The cases run one
// after another, but those whose answer never comes wait together.
func TestExposureIsWhatPeersReach(t *testing.T) {
	if testing.Short() {
		t.Skip("makes two namespaces for each case")
	}
	isolated(t)
	wildcard4, wildcard6 := listener{Addr: "0.0.0.0"}, listener{Addr: "::", V6Only: true}
	free := func(addr string) listener { return listener{Addr: addr, FreeBind: true} }
	transparent := func(addr string) listener { return listener{Addr: addr, Transparent: true} }
	const anycast4, anycast6 = "203.0.113.7", "2001:db8:3::7"
	tests := map[string]struct {
		setup  []string // commands of ip(8), or "sysctl name=value", in the host's namespace
		listen listener
		target string
		want   string
	}{
		"address of a link": {
			listen: wildcard4, target: "10.1.0.1", want: "private",
		},
		"no address": {
			setup:  []string{"addr flush dev v0"},
			listen: wildcard4, target: "10.1.0.1", want: "loopback",
		},
		"address of a link that is down": {
			setup:  []string{"addr add 203.0.113.7/32 dev k0"},
			listen: wildcard4, target: anycast4, want: "public",
		},
		"address of loopback that is down": {
			setup:  []string{"addr add 203.0.113.7/32 dev lo", "link set lo down"},
			listen: wildcard4, target: anycast4, want: "public",
		},
		"local prefix": {
			setup:  []string{"route add local 203.0.113.0/24 dev lo"},
			listen: wildcard4, target: anycast4, want: "public",
		},
		"bound to an address of a local prefix": {
			setup:  []string{"route add local 203.0.113.0/24 dev lo"},
			listen: free(anycast4), target: anycast4, want: "public",
		},
		"bound to an address that is not local": {
			listen: free(anycast4), target: anycast4, want: "",
		},
		"bound to the broadcast address": {
			listen: free("10.1.0.255"), target: "10.1.0.255", want: "",
		},
		"bound to a multicast address": {
			listen: free("224.0.0.5"), target: "224.0.0.5", want: "",
		},
		"bound to loopback": {
			listen: listener{Addr: "127.0.0.1"}, target: "127.0.0.1", want: "loopback",
		},
		"of a device, address of another": {
			setup:  []string{"addr add 203.0.113.7/32 dev k0"},
			listen: listener{Addr: "0.0.0.0", Device: "v0"}, target: anycast4, want: "public",
		},
		"of a device, no address but loopback": {
			setup:  []string{"addr flush dev v0"},
			listen: listener{Addr: "0.0.0.0", Device: "v0"}, target: "10.1.0.1", want: "",
		},
		"of a device that is down": {
			setup:  []string{"addr add 203.0.113.7/32 dev k0"},
			listen: listener{Addr: "0.0.0.0", Device: "k0"}, target: anycast4, want: "",
		},
		"of loopback": {
			setup:  []string{"addr add 203.0.113.7/32 dev lo"},
			listen: listener{Addr: "0.0.0.0", Device: "lo"}, target: anycast4, want: "loopback",
		},
		"of a bridge": {
			setup:  []string{"addr flush dev v0", "link add b0 type bridge", "link set b0 up", "link set v0 master b0", "addr add 10.1.0.1/24 dev b0"},
			listen: listener{Addr: "0.0.0.0", Device: "b0"}, target: "10.1.0.1", want: "private",
		},
		"of a port of a bridge": {
			setup:  []string{"addr flush dev v0", "link add b0 type bridge", "link set b0 up", "link set v0 master b0", "addr add 10.1.0.1/24 dev b0"},
			listen: listener{Addr: "0.0.0.0", Device: "v0"}, target: "10.1.0.1", want: "",
		},
		"local prefix of the main table": {
			setup:  []string{"route add local 203.0.113.0/24 dev lo table main"},
			listen: wildcard4, target: anycast4, want: "public",
		},
		"local prefix of a table with a rule": {
			setup:  []string{"route add local 203.0.113.0/24 dev lo table 100", "rule add pref 100 lookup 100"},
			listen: free(anycast4), target: anycast4, want: "",
		},
		"local prefix of the main table, with other rules": {
			setup:  []string{"route add local 203.0.113.0/24 dev lo table main", "rule add pref 100 lookup 100"},
			listen: free(anycast4), target: anycast4, want: "",
		},
		"transparent, local prefix of a table with a rule": {
			setup:  []string{"route add local 203.0.113.0/24 dev lo table 100", "rule add pref 100 lookup 100"},
			listen: transparent("0.0.0.0"), target: anycast4, want: "public",
		},
		"any address is local": {
			setup:  []string{"route add local default dev lo table 100", "rule add pref 100 iif v0 lookup 100"},
			listen: transparent(anycast4), target: anycast4, want: "public",
		},
		"local prefix of a table without a rule": {
			setup:  []string{"route add local 203.0.113.0/24 dev lo table 100"},
			listen: transparent(anycast4), target: anycast4, want: "",
		},
		"rule for marked packets": {
			setup:  []string{"route add local default dev lo table 100", "rule add pref 100 fwmark 1 lookup 100"},
			listen: transparent(anycast4), target: anycast4, want: "",
		},
		"rule for packets without a mark": {
			setup:  []string{"route add local 203.0.113.0/24 dev lo table 100", "rule add pref 100 not fwmark 1 lookup 100"},
			listen: transparent(anycast4), target: anycast4, want: "public",
		},
		"rule for the device of the peer": {
			setup:  []string{"route add local 203.0.113.0/24 dev lo table 100", "rule add pref 100 iif v0 lookup 100"},
			listen: transparent("0.0.0.0"), target: anycast4, want: "public",
		},
		"rule for the device of the peer, of that device": {
			setup:  []string{"route add local 203.0.113.0/24 dev lo table 100", "rule add pref 100 iif v0 lookup 100"},
			listen: listener{Addr: anycast4, Transparent: true, Device: "v0"}, target: anycast4, want: "public",
		},
		"rule for another device, of the device of the peer": {
			setup:  []string{"link set k0 up", "route add local 203.0.113.0/24 dev lo table 100", "rule add pref 100 iif k0 lookup 100"},
			listen: listener{Addr: anycast4, Transparent: true, Device: "v0"}, target: anycast4, want: "",
		},
		"rule for what the host sends": {
			setup:  []string{"route add local 203.0.113.0/24 dev lo table 100", "rule add pref 100 iif lo lookup 100"},
			listen: transparent(anycast4), target: anycast4, want: "",
		},
		"rule for a part of the prefix": {
			setup:  []string{"route add local 203.0.113.0/24 dev lo table 100", "rule add pref 100 to 203.0.113.0/25 lookup 100"},
			listen: transparent(anycast4), target: anycast4, want: "public",
		},
		"rule for another part of the prefix": {
			setup:  []string{"route add local 203.0.113.0/24 dev lo table 100", "rule add pref 100 to 203.0.113.128/25 lookup 100"},
			listen: transparent(anycast4), target: anycast4, want: "",
		},
		"rule for the peer": {
			setup:  []string{"route add local 203.0.113.0/24 dev lo table 100", "rule add pref 100 from 10.1.0.0/24 lookup 100"},
			listen: transparent("0.0.0.0"), target: anycast4, want: "public",
		},
		"rule for UDP": {
			setup:  []string{"route add local 203.0.113.0/24 dev lo table 100", "rule add pref 100 ipproto udp lookup 100"},
			listen: transparent(anycast4), target: anycast4, want: "",
		},
		"rule without short prefixes": {
			setup:  []string{"route add local 203.0.113.0/24 dev lo table 100", "rule add pref 100 lookup 100 suppress_prefixlength 24"},
			listen: transparent(anycast4), target: anycast4, want: "",
		},
		"rule behind one that refuses all": {
			setup:  []string{"route add local 203.0.113.0/24 dev lo table 100", "rule add pref 90 unreachable", "rule add pref 100 lookup 100"},
			listen: transparent(anycast4), target: anycast4, want: "",
		},
		"rule that is passed over": {
			setup:  []string{"route add local 203.0.113.0/24 dev lo table 100", "rule add pref 100 lookup 100", "rule add pref 90 goto 32766"},
			listen: transparent(anycast4), target: anycast4, want: "",
		},
		"IPv6 address of a link": {
			setup:  []string{"-6 addr add 2001:db8:3::7/128 dev v0 nodad"},
			listen: wildcard6, target: anycast6, want: "public",
		},
		"IPv6 address of a link that was never up": {
			setup:  []string{"-6 addr add 2001:db8:3::7/128 dev k0"},
			listen: free(anycast6), target: anycast6, want: "",
		},
		"IPv6 address of a link that was never up, without detection of duplicates": {
			setup:  []string{"-6 addr add 2001:db8:3::7/128 dev k0 nodad"},
			listen: free(anycast6), target: anycast6, want: "public",
		},
		"IPv6 address that is kept on a link that is down": {
			setup: []string{
				"sysctl net.ipv6.conf.k0.keep_addr_on_down=1", "link set k0 up", "-6 addr add 2001:db8:3::7/128 dev k0 nodad", "link set k0 down",
			},
			listen: free(anycast6), target: anycast6, want: "",
		},
		"tentative IPv6 address": {
			setup:  []string{"sysctl net.ipv6.conf.v0.dad_transmits=600", "-6 addr add 2001:db8:3::7/128 dev v0"},
			listen: free(anycast6), target: anycast6, want: "",
		},
		"deprecated IPv6 address": {
			setup:  []string{"-6 addr add 2001:db8:3::7/128 dev v0 nodad preferred_lft 0"},
			listen: wildcard6, target: anycast6, want: "public",
		},
		"local IPv6 prefix": {
			setup:  []string{"-6 route add local 2001:db8:3::/48 dev lo"},
			listen: wildcard6, target: anycast6, want: "public",
		},
		"local IPv6 prefix of a table with a rule": {
			setup:  []string{"-6 route add local 2001:db8:3::/48 dev lo table 100", "-6 rule add pref 100 lookup 100"},
			listen: free(anycast6), target: anycast6, want: "public",
		},
		"local IPv6 prefix of a table without a rule": {
			setup:  []string{"-6 route add local 2001:db8:3::/48 dev lo table 100"},
			listen: free(anycast6), target: anycast6, want: "",
		},
		"bound to an IPv6 address that is not local": {
			listen: free(anycast6), target: anycast6, want: "",
		},
		"bound to an IPv6 anycast address": {
			setup:  []string{"sysctl net.ipv6.conf.all.forwarding=1", "-6 addr add 2001:db8:3::7/64 dev v0 nodad"},
			listen: free("2001:db8:3::"), target: "2001:db8:3::", want: "",
		},
		"no IPv6 address but link-local": {
			listen: wildcard6, target: "fe80::1%v1", want: "link_local",
		},
		"bound to a link-local address": {
			listen: listener{Addr: "fe80::1%v0"}, target: "fe80::1%v1", want: "link_local",
		},
		"bound to the link-local address of another device": {
			setup:  []string{"link set k0 up", "-6 addr add fe80::9/64 dev k0 nodad"},
			listen: listener{Addr: "fe80::9%v0", FreeBind: true}, target: "fe80::9%v1", want: "",
		},
		"of a device without IPv6": {
			setup:  []string{"-6 addr flush dev v0"},
			listen: listener{Addr: "::", V6Only: true, Device: "v0"}, target: "fe80::1%v1", want: "",
		},
		"site-local address": {
			setup:  []string{"-6 addr add fec0::7/64 dev v0 nodad"},
			listen: wildcard6, target: "fec0::7", want: "private",
		},
		"dual, IPv4 alone": {
			setup:  []string{"-6 addr flush dev v0"},
			listen: listener{Addr: "::"}, target: "10.1.0.1", want: "private",
		},
		"bound to a v4-mapped address": {
			setup:  []string{"route add local 203.0.113.0/24 dev lo"},
			listen: free("::ffff:203.0.113.7"), target: anycast4, want: "public",
		},
		"bound to the v4-mapped wildcard": {
			setup:  []string{"-6 addr add 2001:db8:3::7/128 dev v0 nodad"},
			listen: listener{Addr: "::ffff:0.0.0.0"}, target: "10.1.0.1", want: "private",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			host, peer := hostAndPeer(t)
			for _, command := range test.setup {
				if setting, ok := strings.CutPrefix(command, "sysctl "); ok {
					sysctl(t, host, setting)
				} else {
					ip(t, "-n "+host+" "+command)
				}
			}
			start(t, "/run/netns/"+host, task{Listen: []listener{test.listen}}, nil)
			s := open(t, options(Auto))
			find(t, s)
			n := named(s, host)
			if n == nil {
				t.Fatal("the namespace is not found")
			}
			// Some addresses are answered only shortly after ip(8) has returned.
			soon(t, "the exposure is "+test.want, func() bool { return exposures(n) == test.want })
			backends := []Options{{Backend: Procfs}, {Backend: Netlink}}
			if test.listen.Device != "" || strings.Contains(test.listen.Addr, "%") || test.listen.Transparent || test.listen.V6Only {
				backends = nil // procfs does not show them
			}
			for _, o := range backends {
				o.Refresh = time.Minute
				all := start(t, "/run/netns/"+host, task{Report: &o}, nil).reports(t)
				if len(all) != 1 || all[0].Error != "" || len(all[0].Sockets) != 1 {
					t.Fatalf("by %s: %+v", o.Backend, all)
				}
				_, got, _ := strings.Cut(all[0].Sockets[0], " ")
				if diff := cmp.Diff(test.want, got); diff != "" {
					t.Errorf("exposure by %s (-want +got):\n%s", o.Backend, diff)
				}
			}
			answer := connectFrom(t, peer, test.target)
			t.Parallel() // from here on it only waits
			if reached := answer(); reached != (test.want != "" && test.want != "loopback") {
				t.Errorf("exposure %q, but that a peer connects to %s is %t", test.want, test.target, reached)
			}
		})
	}
}

// hostAndPeer makes two namespaces with a link between them and returns their names; the
// host has another link k0 that is down. The peer sends everything to the host.
func hostAndPeer(t *testing.T) (host, peer string) {
	t.Helper()
	for n := 0; ; n++ {
		host, peer = fmt.Sprint("host", n), fmt.Sprint("peer", n)
		if _, err := os.Stat("/run/netns/" + host); err != nil {
			break
		}
	}
	for _, name := range []string{host, peer} {
		ip(t, "netns add "+name)
		t.Cleanup(func() { ip(t, "netns delete "+name) })
		ip(t, "-n "+name+" link set lo up")
	}
	ip(t, "-n "+host+" link add v0 type veth peer name v1 netns "+peer)
	ip(t, "-n "+host+" link add k0 type veth peer name k1 netns "+peer)
	sysctl(t, host, "net.ipv6.conf.v0.addr_gen_mode=1") // no address of its own
	sysctl(t, peer, "net.ipv6.conf.v1.addr_gen_mode=1")
	address := hardwareAddress(t, host, "v0")
	batchIn(t, host, slices.Values([]string{
		"addr add 10.1.0.1/24 dev v0", "addr add fe80::1/64 dev v0 nodad", "link set v0 up",
		"route add 2001:db8:2::/64 dev v0",
	}))
	batchIn(t, peer, slices.Values([]string{
		"addr add 10.1.0.2/24 dev v1", "link set v1 up", "link set k1 up",
		"addr add fe80::2/64 dev v1 nodad", "addr add 2001:db8:2::2/64 dev v1 nodad",
		"route add default via 10.1.0.1", "route add default via fe80::1 dev v1",
		// The peer does not depend on answers to ARP.
		"neigh replace 10.1.0.1 lladdr " + address + " dev v1 nud permanent",
		"neigh replace fe80::1 lladdr " + address + " dev v1 nud permanent",
		"neigh replace fe80::9 lladdr " + address + " dev v1 nud permanent",
	}))
	return host, peer
}

func hardwareAddress(t *testing.T, netns, device string) string {
	t.Helper()
	out, err := exec.Command("ip", "netns", "exec", netns, "cat", "/sys/class/net/"+device+"/address").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// sysctl sets a parameter of a namespace.
func sysctl(t *testing.T, netns, setting string) {
	t.Helper()
	f, err := os.Open("/run/netns/" + netns)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	name, value, _ := strings.Cut(setting, "=")
	err = inside(f, func() error {
		return os.WriteFile("/proc/sys/"+strings.ReplaceAll(name, ".", "/"), []byte(value), 0)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// exposures returns the exposure of the only listener.
func exposures(n *Namespace) string {
	r := reportOf(n)
	if r.Error != "" || len(r.Sockets) != 1 {
		return r.Error
	}
	_, exposure, _ := strings.Cut(r.Sockets[0], " ")
	return exposure
}

// connectFrom starts to connect from the peer to the listener of the host. It returns a
// function that waits for the answer and reports whether the peer is connected.
func connectFrom(t *testing.T, peer, target string) (answer func() bool) {
	t.Helper()
	f, err := os.Open("/run/netns/" + peer)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	addr := netip.MustParseAddr(target)
	var fd int
	err = inside(f, func() (err error) {
		family := unix.AF_INET
		var to unix.Sockaddr = &unix.SockaddrInet4{Port: port}
		if addr.Is4() {
			to = &unix.SockaddrInet4{Addr: addr.As4(), Port: port}
		} else {
			zone := 0
			if addr.Zone() != "" {
				device, err := net.InterfaceByName(addr.Zone())
				if err != nil {
					return err
				}
				zone = device.Index
			}
			family, to = unix.AF_INET6, &unix.SockaddrInet6{Addr: addr.As16(), Port: port, ZoneId: uint32(zone)}
		}
		if fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		if err = unix.Connect(fd, to); errors.Is(err, unix.EINPROGRESS) {
			err = nil
		}
		return err
	})
	if fd > 0 {
		t.Cleanup(func() { unix.Close(fd) })
	}
	if errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.EHOSTUNREACH) || errors.Is(err, unix.EACCES) {
		return func() bool { return false }
	}
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(1500 * time.Millisecond) // a lost SYN is sent again after a second
	return func() bool {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		n, err := unix.Poll(poll, int(max(0, time.Until(deadline)).Milliseconds()))
		for err == unix.EINTR {
			n, err = unix.Poll(poll, int(max(0, time.Until(deadline)).Milliseconds()))
		}
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			return false
		}
		code, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
		return err == nil && code == 0
	}
}
