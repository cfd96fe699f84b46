package netns

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Requests to rtnetlink and its answers, from include/uapi/linux/rtnetlink.h, if_link.h and
// fib_rules.h of the kernel.
//
// github.com/jsimonetti/rtnetlink/v2 (2.3.0) does not fit: it keeps every answer in memory
// as a whole and without a limit, and its Execute loses the flag NLM_F_DUMP_INTR, by which
// the kernel reports that an answer is inconsistent.

const (
	extSkipStats = 1 << 3 // RTEXT_FILTER_SKIP_STATS

	sizeofRuleHeader = 12 // struct fib_rule_hdr
)

// linksRequest returns a request for all devices.
func linksRequest() netlink.Message {
	data := make([]byte, unix.SizeofIfInfomsg, unix.SizeofIfInfomsg+8)
	native := binary.NativeEndian
	data = native.AppendUint16(data, 8)
	data = native.AppendUint16(data, unix.IFLA_EXT_MASK)
	data = native.AppendUint32(data, extSkipStats)
	return dumpRequest(unix.RTM_GETLINK, data)
}

// rulesRequest returns a request for all routing rules of a family.
func rulesRequest(family uint8) netlink.Message {
	data := make([]byte, sizeofRuleHeader)
	data[0] = family
	return dumpRequest(unix.RTM_GETRULE, data)
}

// routesRequest returns a request for the local routes of a family in all tables. Kernels
// before 4.20 answer with all routes.
func routesRequest(family uint8) netlink.Message {
	data := make([]byte, unix.SizeofRtMsg)
	data[0], data[7] = family, unix.RTN_LOCAL
	return dumpRequest(unix.RTM_GETROUTE, data)
}

func dumpRequest(kind netlink.HeaderType, data []byte) netlink.Message {
	return netlink.Message{Header: netlink.Header{Type: kind, Flags: netlink.Request | netlink.Dump}, Data: data}
}

// parseLink parses a struct ifinfomsg and its attributes.
func parseLink(b []byte) (index uint32, l link, err error) {
	if len(b) < unix.SizeofIfInfomsg {
		return 0, link{}, fmt.Errorf("message of %d bytes", len(b))
	}
	index = binary.NativeEndian.Uint32(b[4:])
	flags := binary.NativeEndian.Uint32(b[8:])
	l.up, l.loopback = flags&unix.IFF_UP != 0, flags&unix.IFF_LOOPBACK != 0
	ad, err := netlink.NewAttributeDecoder(b[unix.SizeofIfInfomsg:])
	if err != nil {
		return 0, link{}, err
	}
	for ad.Next() {
		switch ad.Type() {
		case unix.IFLA_IFNAME:
			l.name = ad.String()
		case unix.IFLA_MASTER:
			l.master = ad.Uint32()
		case unix.IFLA_LINKINFO:
			ad.Nested(l.parseInfo)
		}
	}
	return index, l, ad.Err()
}

// parseInfo parses IFLA_LINKINFO, in which the kind of the device comes before its data.
func (l *link) parseInfo(ad *netlink.AttributeDecoder) error {
	for ad.Next() {
		switch ad.Type() {
		case unix.IFLA_INFO_KIND:
			l.vrf = ad.String() == "vrf"
		case unix.IFLA_INFO_DATA:
			if l.vrf {
				ad.Nested(l.parseVRF)
			}
		}
	}
	return nil
}

func (l *link) parseVRF(ad *netlink.AttributeDecoder) error {
	for ad.Next() {
		if ad.Type() == unix.IFLA_VRF_TABLE {
			l.table = ad.Uint32()
		}
	}
	return nil
}

// parseRule parses a struct fib_rule_hdr and its attributes.
func parseRule(b []byte) (rule, error) {
	if len(b) < sizeofRuleHeader {
		return rule{}, fmt.Errorf("message of %d bytes", len(b))
	}
	flags := binary.NativeEndian.Uint32(b[8:])
	r := rule{table: uint32(b[4]), action: b[7], suppress: -1, inverted: flags&unix.FIB_RULE_INVERT != 0}
	r.others = b[2] != 0 || b[3] != 0 // from, tos
	mark, mask := uint32(0), ^uint32(0)
	ad, err := netlink.NewAttributeDecoder(b[sizeofRuleHeader:])
	if err != nil {
		return rule{}, err
	}
	for ad.Next() {
		switch ad.Type() {
		case unix.FRA_DST:
			if r.to, err = prefixOf(ad.Bytes(), b[1]); err != nil {
				return rule{}, err
			}
		case unix.FRA_IIFNAME:
			r.input = ad.String()
		case unix.FRA_GOTO:
			r.target = ad.Uint32()
		case unix.FRA_PRIORITY:
			r.priority = ad.Uint32()
		case unix.FRA_TABLE:
			r.table = ad.Uint32()
		case unix.FRA_FWMARK:
			mark = ad.Uint32()
		case unix.FRA_FWMASK:
			mask = ad.Uint32()
		case unix.FRA_SUPPRESS_PREFIXLEN:
			r.suppress = int(int32(ad.Uint32()))
		case unix.FRA_L3MDEV:
			r.l3mdev = ad.Uint8() != 0
		case unix.FRA_OIFNAME, unix.FRA_UID_RANGE, unix.FRA_TUN_ID:
			r.never = true
		case unix.FRA_IP_PROTO:
			if ad.Uint8() == unix.IPPROTO_TCP {
				r.others = true
			} else {
				r.never = true
			}
		case unix.FRA_SPORT_RANGE, unix.FRA_DPORT_RANGE:
			r.others = true
		}
	}
	r.never = r.never || mark&mask != 0
	return r, ad.Err()
}

// A route is one local route.
type route struct {
	table  uint32
	prefix netip.Prefix
	device uint32
	kernel bool // the kernel has added it for an address of a device
}

// parseRoute parses a struct rtmsg and its attributes. ok is false if the route is not
// local, or is dead.
func parseRoute(b []byte) (r route, ok bool, err error) {
	if len(b) < unix.SizeofRtMsg {
		return route{}, false, fmt.Errorf("message of %d bytes", len(b))
	}
	if b[7] != unix.RTN_LOCAL || binary.NativeEndian.Uint32(b[8:])&(unix.RTNH_F_DEAD|unix.RTM_F_CLONED) != 0 {
		return route{}, false, nil
	}
	r.table, r.kernel = uint32(b[4]), b[5] == unix.RTPROT_KERNEL
	destination := netip.IPv4Unspecified().AsSlice()
	if b[0] == unix.AF_INET6 {
		destination = netip.IPv6Unspecified().AsSlice()
	}
	ad, err := netlink.NewAttributeDecoder(b[unix.SizeofRtMsg:])
	if err != nil {
		return route{}, false, err
	}
	for ad.Next() {
		switch ad.Type() {
		case unix.RTA_DST:
			destination = ad.Bytes()
		case unix.RTA_TABLE:
			r.table = ad.Uint32()
		case unix.RTA_OIF:
			r.device = ad.Uint32()
		}
	}
	if err := ad.Err(); err != nil {
		return route{}, false, err
	}
	r.prefix, err = prefixOf(destination, b[1])
	return r, err == nil, err
}

// prefixOf returns the masked prefix of an address.
func prefixOf(address []byte, bits uint8) (netip.Prefix, error) {
	a, ok := netip.AddrFromSlice(address)
	if !ok {
		return netip.Prefix{}, fmt.Errorf("address of %d bytes", len(address))
	}
	return a.Prefix(int(bits))
}
