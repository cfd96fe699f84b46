package sockdiag

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"syscall"

	"sockwatch/inputs/internal/inet"
)

// The layout of struct inet_diag_msg and of the attributes after it, from the kernel's
// include/uapi/linux/inet_diag.h.
const (
	messageSize  = 72
	attrV6Only   = 11 // INET_DIAG_SKV6ONLY, one byte
	attrCgroupID = 21 // INET_DIAG_CGROUP_ID, eight bytes
	attrOptions  = 22 // INET_DIAG_SOCKOPT, struct inet_diag_sockopt, since 5.10

	// Requested only to make the messages longer; not read.
	extMemInfo   = 1 << 0 // INET_DIAG_MEMINFO
	extSKMemInfo = 1 << 6 // INET_DIAG_SKMEMINFO

	familyIPv4 = 2
	familyIPv6 = 10

	stateEstablished = 1
	stateListen      = 10
)

// The layout of struct nlmsghdr and the values that are used, from
// include/uapi/linux/netlink.h.
const (
	headerSize = 16

	typeError       = 2  // NLMSG_ERROR
	typeDone        = 3  // NLMSG_DONE
	typeSockDiag    = 20 // SOCK_DIAG_BY_FAMILY
	flagRequest     = 0x001
	flagDump        = 0x300
	flagInterrupted = 0x010 // NLM_F_DUMP_INTR
	protocolTCP     = 6
	requestSize     = headerSize + 56
	errnoSize       = 4
	alignment       = 4
	attrHeaderSize  = 4
)

// errDumpInterrupted says that sockets have changed during a dump, so it must be repeated.
var errDumpInterrupted = errors.New("interrupted")

// appendRequest appends a request for a dump: a struct nlmsghdr and a struct
// inet_diag_req_v2.
func appendRequest(dst []byte, family byte, states, sequence uint32, padding byte) []byte {
	native := binary.NativeEndian
	dst = native.AppendUint32(dst, requestSize)
	dst = native.AppendUint16(dst, typeSockDiag)
	dst = native.AppendUint16(dst, flagRequest|flagDump)
	dst = native.AppendUint32(dst, sequence)
	dst = native.AppendUint32(dst, 0)
	dst = append(dst, family, protocolTCP, padding, 0)
	dst = native.AppendUint32(dst, states)
	return append(dst, make([]byte, 48)...) // any address, any port, any cookie
}

// parseDatagram calls visit for every socket in one datagram of a dump. done reports whether
// it was the last datagram.
func parseDatagram(b []byte, sequence uint32, visit func(*inet.Socket)) (done bool, err error) {
	native := binary.NativeEndian
	var s inet.Socket
	for len(b) > 0 {
		if len(b) < headerSize {
			return false, fmt.Errorf("%d bytes after the last message", len(b))
		}
		size := native.Uint32(b)
		kind, flags := native.Uint16(b[4:]), native.Uint16(b[6:])
		if size < headerSize || uint64(size) > uint64(len(b)) {
			return false, fmt.Errorf("message of %d bytes, but %d are left", size, len(b))
		}
		if got := native.Uint32(b[8:]); got != sequence {
			return false, fmt.Errorf("answer to request %d, expected %d", got, sequence)
		}
		if flags&flagInterrupted != 0 {
			return false, errDumpInterrupted
		}
		data := b[headerSize:size]
		switch kind {
		case typeDone, typeError:
			return true, parseErrno(data)
		case typeSockDiag:
			if err := parseSocket(data, &s); err != nil {
				return false, err
			}
			visit(&s)
		default:
			return false, fmt.Errorf("message of type %d", kind)
		}
		b = b[min((int(size)+alignment-1)&^(alignment-1), len(b)):]
	}
	return false, nil
}

// parseErrno parses the number at the end of a dump, or in its refusal: 0 or a negated errno.
// It may be missing at the end of a dump.
func parseErrno(data []byte) error {
	if len(data) < errnoSize {
		return nil
	}
	if errno := -int32(binary.NativeEndian.Uint32(data)); errno != 0 {
		return syscall.Errno(errno)
	}
	return nil
}

// parseSocket parses the data of one SOCK_DIAG_BY_FAMILY message.
func parseSocket(b []byte, s *inet.Socket) error {
	if len(b) < messageSize {
		return fmt.Errorf("message of %d bytes, expected at least %d", len(b), messageSize)
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

// parseAttributes parses the known attributes and skips all others.
func parseAttributes(b []byte, s *inet.Socket) error {
	for len(b) >= attrHeaderSize {
		size, kind := int(binary.NativeEndian.Uint16(b)), binary.NativeEndian.Uint16(b[2:])
		if size < attrHeaderSize || size > len(b) {
			return fmt.Errorf("attribute %d of %d bytes, but %d are left", kind, size, len(b))
		}
		value := b[attrHeaderSize:size]
		switch {
		case kind == attrV6Only && len(value) >= 1:
			s.V6Only = value[0] != 0
		case kind == attrCgroupID && len(value) >= 8:
			s.Cgroup = binary.NativeEndian.Uint64(value)
		case kind == attrOptions && len(value) >= 1:
			s.Transparent = value[0]&transparentBit() != 0
		case kind == attrV6Only || kind == attrCgroupID || kind == attrOptions:
			return fmt.Errorf("attribute %d of %d bytes is too short", kind, size)
		}
		b = b[min((size+alignment-1)&^(alignment-1), len(b)):]
	}
	if len(b) > 0 {
		return fmt.Errorf("%d bytes after the last attribute", len(b))
	}
	return nil
}

// transparentBit returns the sixth bit of struct inet_diag_sockopt. Bit fields begin at the
// lowest bit on little-endian machines, and at the highest bit on others.
func transparentBit() byte {
	const sixth = 5
	if binary.NativeEndian.Uint16([]byte{1, 0}) == 1 {
		return 1 << sixth
	}
	return 0x80 >> sixth
}
