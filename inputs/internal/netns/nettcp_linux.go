package netns

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strconv"

	"sockwatch/inputs/internal/inet"
)

// States of sockets, as /proc/PID/net/tcp prints them.
const (
	stateEstablished = 0x01
	stateListen      = 0x0a
)

// parseRow parses one row of /proc/PID/net/tcp or tcp6 into s, and returns its state.
//
//	0: 00000000:07E8 00000000:0000 0A 00000000:00000000 00:00000000 00000000  0  0 1045 ...
func parseRow(line []byte, s *inet.Socket) (state uint8, err error) {
	var fields [10][]byte
	rest := line
	for i := range fields {
		rest = bytes.TrimLeft(rest, " ")
		n := bytes.IndexByte(rest, ' ')
		if n < 0 {
			n = len(rest)
		}
		if n == 0 {
			return 0, fmt.Errorf("row of %d fields, expected at least 10", i)
		}
		fields[i], rest = rest[:n], rest[n:]
	}
	*s = inet.Socket{}
	if s.Addr, s.Port, err = parseAddrPort(fields[1]); err != nil {
		return 0, err
	}
	st, err := strconv.ParseUint(string(fields[3]), 16, 8)
	if err != nil {
		return 0, fmt.Errorf("state %q", fields[3])
	}
	if st == stateListen {
		_, queue, ok := bytes.Cut(fields[4], []byte{':'})
		backlog, err := strconv.ParseUint(string(queue), 16, 32)
		if !ok || err != nil {
			return 0, fmt.Errorf("queues %q", fields[4])
		}
		s.Backlog = uint32(backlog)
	}
	uid, err := strconv.ParseUint(string(fields[7]), 10, 32)
	if err != nil {
		return 0, fmt.Errorf("uid %q", fields[7])
	}
	if s.Inode, err = strconv.ParseUint(string(fields[9]), 10, 64); err != nil {
		return 0, fmt.Errorf("inode %q", fields[9])
	}
	s.UID, s.Cookie = uint32(uid), s.Inode
	return uint8(st), nil
}

// parseAddrPort parses an address as the kernel prints it: each 32 bits of the address as
// one hexadecimal number in the machine's byte order, and the port as an ordinary one.
func parseAddrPort(b []byte) (netip.Addr, uint16, error) {
	digits, port, ok := bytes.Cut(b, []byte{':'})
	var raw [16]byte
	if !ok || len(digits) != 8 && len(digits) != 32 {
		return netip.Addr{}, 0, fmt.Errorf("address %q", b)
	}
	n, err := hex.Decode(raw[:], digits)
	if err != nil {
		return netip.Addr{}, 0, fmt.Errorf("address %q", b)
	}
	p, err := strconv.ParseUint(string(port), 16, 16)
	if err != nil {
		return netip.Addr{}, 0, fmt.Errorf("port of %q", b)
	}
	for i := 0; i < n; i += 4 {
		binary.NativeEndian.PutUint32(raw[i:], binary.BigEndian.Uint32(raw[i:]))
	}
	if n == 4 {
		return netip.AddrFrom4([4]byte(raw[:])), uint16(p), nil
	}
	return netip.AddrFrom16(raw), uint16(p), nil
}
