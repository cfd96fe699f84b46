package sockdiag

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"sockwatch/inputs/internal/inet"
)

// The layout of struct inet_diag_msg and of the attributes behind it, from the
// kernel's include/uapi/linux/inet_diag.h.
const (
	messageSize  = 72
	attrV6Only   = 11 // INET_DIAG_SKV6ONLY, one byte
	attrCgroupID = 21 // INET_DIAG_CGROUP_ID, eight bytes

	familyIPv4 = 2
	familyIPv6 = 10

	stateEstablished = 1
	stateListen      = 10
)

// parseSocket reads the data of one SOCK_DIAG_BY_FAMILY message.
func parseSocket(b []byte, s *inet.Socket) error {
	if len(b) < messageSize {
		return fmt.Errorf("message of %d bytes, expected %d at least", len(b), messageSize)
	}
	native := binary.NativeEndian
	*s = inet.Socket{
		Port:   binary.BigEndian.Uint16(b[4:]),
		Device: native.Uint32(b[40:]),
		Cookie: uint64(native.Uint32(b[44:])) | uint64(native.Uint32(b[48:]))<<32,
		UID:    native.Uint32(b[64:]),
		Inode:  uint64(native.Uint32(b[68:])),
	}
	switch family := b[0]; family {
	case familyIPv4:
		s.Addr = netip.AddrFrom4([4]byte(b[8:]))
	case familyIPv6:
		s.Addr = netip.AddrFrom16([16]byte(b[8:]))
	default:
		return fmt.Errorf("address family %d, expected IPv4 or IPv6", family)
	}
	if b[1] == stateListen {
		s.Backlog, s.Limit, s.HasLimit = native.Uint32(b[56:]), native.Uint32(b[60:]), true
	}
	return parseAttributes(b[messageSize:], s)
}

// parseAttributes reads the attributes that are known and skips the others.
func parseAttributes(b []byte, s *inet.Socket) error {
	for len(b) >= 4 {
		size, kind := int(binary.NativeEndian.Uint16(b)), binary.NativeEndian.Uint16(b[2:])
		if size < 4 || size > len(b) {
			return fmt.Errorf("attribute %d of %d bytes where %d are left", kind, size, len(b))
		}
		value := b[4:size]
		switch {
		case kind == attrV6Only && len(value) >= 1:
			s.V6Only = value[0] != 0
		case kind == attrCgroupID && len(value) >= 8:
			s.Cgroup = binary.NativeEndian.Uint64(value)
		case kind == attrV6Only || kind == attrCgroupID:
			return fmt.Errorf("attribute %d of %d bytes is too short", kind, size)
		}
		b = b[min((size+3)&^3, len(b)):]
	}
	if len(b) > 0 {
		return fmt.Errorf("%d bytes behind the last attribute", len(b))
	}
	return nil
}
