package netns

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// attribute returns an attribute of rtnetlink, padded.
func attribute(kind uint16, value ...byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(4+len(value)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, value...)
	return append(b, make([]byte, (4-len(b)%4)%4)...)
}

func number32(n uint32) []byte { return binary.NativeEndian.AppendUint32(nil, n) }

// linkMessage returns a struct ifinfomsg with attributes.
func linkMessage(index, flags uint32, attributes ...[]byte) []byte {
	b := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(b[4:], index)
	binary.NativeEndian.PutUint32(b[8:], flags)
	return append(b, slices.Concat(attributes...)...)
}

func TestParseLink(t *testing.T) {
	kind := attribute(unix.IFLA_INFO_KIND, []byte("vrf\x00")...)
	table := attribute(unix.IFLA_INFO_DATA, attribute(unix.IFLA_VRF_TABLE, number32(10)...)...)
	for name, test := range map[string]struct {
		message []byte
		index   uint32
		want    link
		err     string
	}{
		"loopback": {
			message: linkMessage(1, unix.IFF_UP|unix.IFF_LOOPBACK, attribute(unix.IFLA_IFNAME, []byte("lo\x00")...)),
			index:   1, want: link{name: "lo", up: true, loopback: true},
		},
		"VRF": {
			message: linkMessage(3, 0, attribute(unix.IFLA_IFNAME, []byte("red\x00")...), attribute(unix.IFLA_LINKINFO, slices.Concat(kind, table)...)),
			index:   3, want: link{name: "red", vrf: true, table: 10},
		},
		"device of another kind with the same attribute": {
			message: linkMessage(3, 0, attribute(unix.IFLA_LINKINFO, slices.Concat(attribute(unix.IFLA_INFO_KIND, []byte("veth\x00")...), table)...)),
			index:   3, want: link{},
		},
		"port": {
			message: linkMessage(4, unix.IFF_UP, attribute(unix.IFLA_MASTER, number32(3)...)),
			index:   4, want: link{up: true, master: 3},
		},
		"short":           {message: make([]byte, 15), err: "message of 15 bytes"},
		"short attribute": {message: linkMessage(4, 0, []byte{3, 0, 1, 0}), index: 4, err: "invalid attribute; length too short or too large"},
		"short master":    {message: linkMessage(4, 0, attribute(unix.IFLA_MASTER, 1, 2)), index: 4, err: "netlink: attribute 10 is not a uint32; length: 2"},
	} {
		t.Run(name, func(t *testing.T) {
			index, got, err := parseLink(test.message)
			if text(err) != test.err {
				t.Fatalf("error %q, expected %q", text(err), test.err)
			}
			if err == nil && (index != test.index || got != test.want) {
				t.Errorf("%d: %+v, expected %d: %+v", index, got, test.index, test.want)
			}
		})
	}
}

// ruleMessage returns a struct fib_rule_hdr with attributes.
func ruleMessage(to, from, table, action uint8, flags uint32, attributes ...[]byte) []byte {
	b := []byte{unix.AF_INET, to, from, 0, table, 0, 0, action}
	b = append(b, number32(flags)...)
	return append(b, slices.Concat(attributes...)...)
}

func TestParseRule(t *testing.T) {
	const toTable = unix.FR_ACT_TO_TBL
	for name, test := range map[string]struct {
		message []byte
		want    rule
		err     string
	}{
		"local": {
			message: ruleMessage(0, 0, 255, toTable, 0, attribute(unix.FRA_TABLE, number32(255)...), attribute(unix.FRA_SUPPRESS_PREFIXLEN, number32(1<<32-1)...)),
			want:    rule{action: toTable, table: 255, suppress: -1},
		},
		"table over 255": {
			message: ruleMessage(0, 0, 252, toTable, 0, attribute(unix.FRA_TABLE, number32(1000)...), attribute(unix.FRA_PRIORITY, number32(7)...)),
			want:    rule{priority: 7, action: toTable, table: 1000, suppress: -1},
		},
		"destination and suppression": {
			message: ruleMessage(24, 0, 254, toTable, 0, attribute(unix.FRA_DST, 203, 0, 113, 9), attribute(unix.FRA_SUPPRESS_PREFIXLEN, number32(0)...)),
			want:    rule{action: toTable, table: 254, to: netip.MustParsePrefix("203.0.113.0/24")},
		},
		"sender": {
			message: ruleMessage(0, 24, 254, toTable, 0, attribute(unix.FRA_SRC, 10, 0, 0, 0)),
			want:    rule{action: toTable, table: 254, others: true, suppress: -1},
		},
		"device": {
			message: ruleMessage(0, 0, 254, toTable, 0, attribute(unix.FRA_IIFNAME, []byte("eth0\x00")...)),
			want:    rule{action: toTable, table: 254, input: "eth0", suppress: -1},
		},
		"mark": {
			message: ruleMessage(0, 0, 254, toTable, 0, attribute(unix.FRA_FWMARK, number32(1)...), attribute(unix.FRA_FWMASK, number32(255)...)),
			want:    rule{action: toTable, table: 254, never: true, suppress: -1},
		},
		"mark that is 0": {
			message: ruleMessage(0, 0, 254, toTable, 0, attribute(unix.FRA_FWMARK, number32(0)...), attribute(unix.FRA_FWMASK, number32(255)...)),
			want:    rule{action: toTable, table: 254, suppress: -1},
		},
		"not a mark": {
			message: ruleMessage(0, 0, 254, toTable, unix.FIB_RULE_INVERT, attribute(unix.FRA_FWMARK, number32(1)...)),
			want:    rule{action: toTable, table: 254, never: true, inverted: true, suppress: -1},
		},
		"VRF": {
			message: ruleMessage(0, 0, 0, toTable, 0, attribute(unix.FRA_L3MDEV, 1)),
			want:    rule{action: toTable, l3mdev: true, suppress: -1},
		},
		"goto": {
			message: ruleMessage(0, 0, 0, unix.FR_ACT_GOTO, 0, attribute(unix.FRA_GOTO, number32(99)...)),
			want:    rule{action: unix.FR_ACT_GOTO, target: 99, suppress: -1},
		},
		"TCP":         {message: ruleMessage(0, 0, 9, toTable, 0, attribute(unix.FRA_IP_PROTO, 6)), want: rule{action: toTable, table: 9, others: true, suppress: -1}},
		"UDP":         {message: ruleMessage(0, 0, 9, toTable, 0, attribute(unix.FRA_IP_PROTO, 17)), want: rule{action: toTable, table: 9, never: true, suppress: -1}},
		"leaving":     {message: ruleMessage(0, 0, 9, toTable, 0, attribute(unix.FRA_OIFNAME, 'a', 0)), want: rule{action: toTable, table: 9, never: true, suppress: -1}},
		"short":       {message: make([]byte, 11), err: "message of 11 bytes"},
		"odd address": {message: ruleMessage(8, 0, 9, toTable, 0, attribute(unix.FRA_DST, 1, 2, 3)), err: "address of 3 bytes"},
		"long prefix": {message: ruleMessage(33, 0, 9, toTable, 0, attribute(unix.FRA_DST, 1, 2, 3, 4)), err: "prefix length 33 too large for IPv4"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseRule(test.message)
			if text(err) != test.err {
				t.Fatalf("error %q, expected %q", text(err), test.err)
			}
			if err == nil && got != test.want {
				t.Errorf("%+v, expected %+v", got, test.want)
			}
		})
	}
}

// routeMessage returns a struct rtmsg with attributes.
func routeMessage(family, bits, table, kind uint8, flags uint32, attributes ...[]byte) []byte {
	b := []byte{family, bits, 0, 0, table, unix.RTPROT_BOOT, 0, kind}
	b = append(b, number32(flags)...)
	return append(b, slices.Concat(attributes...)...)
}

func TestParseRoute(t *testing.T) {
	for name, test := range map[string]struct {
		message []byte
		ok      bool
		want    route
		err     string
	}{
		"prefix": {
			message: routeMessage(unix.AF_INET, 24, 255, unix.RTN_LOCAL, 0, attribute(unix.RTA_DST, 203, 0, 113, 0), attribute(unix.RTA_OIF, number32(2)...)),
			ok:      true, want: route{table: 255, prefix: netip.MustParsePrefix("203.0.113.0/24"), device: 2},
		},
		"default": {
			message: routeMessage(unix.AF_INET, 0, 252, unix.RTN_LOCAL, 0, attribute(unix.RTA_TABLE, number32(1000)...)),
			ok:      true, want: route{table: 1000, prefix: netip.MustParsePrefix("0.0.0.0/0")},
		},
		"IPv6 default": {
			message: routeMessage(unix.AF_INET6, 0, 100, unix.RTN_LOCAL, 0),
			ok:      true, want: route{table: 100, prefix: netip.MustParsePrefix("::/0")},
		},
		"unicast":     {message: routeMessage(unix.AF_INET, 0, 254, unix.RTN_UNICAST, 0)},
		"dead":        {message: routeMessage(unix.AF_INET, 0, 255, unix.RTN_LOCAL, unix.RTNH_F_DEAD)},
		"cached":      {message: routeMessage(unix.AF_INET, 0, 255, unix.RTN_LOCAL, unix.RTM_F_CLONED)},
		"short":       {message: make([]byte, 11), err: "message of 11 bytes"},
		"odd address": {message: routeMessage(unix.AF_INET, 8, 255, unix.RTN_LOCAL, 0, attribute(unix.RTA_DST, 1)), err: "address of 1 bytes"},
		"long prefix": {message: routeMessage(unix.AF_INET, 33, 255, unix.RTN_LOCAL, 0), err: "prefix length 33 too large for IPv4"},
	} {
		t.Run(name, func(t *testing.T) {
			got, ok, err := parseRoute(test.message)
			if text(err) != test.err || ok != test.ok {
				t.Fatalf("%t, error %q, expected %t, %q", ok, text(err), test.ok, test.err)
			}
			if ok && got != test.want {
				t.Errorf("%+v, expected %+v", got, test.want)
			}
		})
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// FuzzRtnetlink: the parsers accept any bytes, and their results can be reduced.
func FuzzRtnetlink(f *testing.F) {
	f.Add(linkMessage(1, unix.IFF_UP, attribute(unix.IFLA_IFNAME, []byte("lo\x00")...)))
	f.Add(linkMessage(3, 0, attribute(unix.IFLA_LINKINFO, attribute(unix.IFLA_INFO_KIND, []byte("vrf\x00")...)...)))
	f.Add(ruleMessage(24, 0, 254, unix.FR_ACT_TO_TBL, 0, attribute(unix.FRA_DST, 203, 0, 113, 9)))
	f.Add(routeMessage(unix.AF_INET, 24, 255, unix.RTN_LOCAL, 0, attribute(unix.RTA_DST, 203, 0, 113, 0)))
	f.Add(routeMessage(unix.AF_INET6, 0, 255, unix.RTN_LOCAL, 0))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		var all builder
		if index, l, err := parseLink(b); err == nil {
			if len(l.name) > len(b) {
				t.Errorf("%+v in %d bytes", l, len(b))
			}
			all.devices.add(index, l)
		}
		all.rules = [2][]rule{defaultRules(), defaultRules()}
		if r, err := parseRule(b); err == nil {
			all.rules[ipv4] = append(all.rules[ipv4], r)
			all.rules[ipv6] = append(all.rules[ipv6], r)
		}
		if err := all.prepare(); err != nil {
			t.Fatal(err)
		}
		r, ok, err := parseRoute(b)
		if err == nil && ok {
			if !r.prefix.IsValid() || r.prefix != r.prefix.Masked() {
				t.Errorf("prefix %v", r.prefix)
			}
			if err := all.add(r); err != nil {
				t.Error(err)
			}
		}
		l := all.local()
		if diff := cmp.Diff(true, l.equal(l)); diff != "" {
			t.Error(diff)
		}
	})
}
