package netns

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strconv"

	"golang.org/x/sys/unix"
)

// A fibTrie parses the local IPv4 routes in /proc/PID/net/fib_trie: the "LOCAL" leaves of
// the table local. From those of other tables only transparent sockets answer, except from
// addresses of VRFs.
//
//	Local:
//	  +-- 0.0.0.0/0 3 0 5
//	     |-- 127.0.0.1
//	        /32 host LOCAL
type fibTrie struct {
	table string
	leaf  netip.Addr
}

// errVRF says that a table other than main and local has an address, which belongs to a
// VRF. It depends on routing rules, which /proc does not show.
var errVRF = errors.New("addresses of VRFs depend on routing rules")

// parse parses one line. ok is true if the line completes a local route.
func (t *fibTrie) parse(line []byte) (p netip.Prefix, ok bool, err error) {
	if len(line) > 0 && line[0] != ' ' {
		t.table, t.leaf = string(line), netip.Addr{}
		return netip.Prefix{}, false, nil
	}
	line = bytes.TrimSpace(line)
	if text, ok := bytes.CutPrefix(line, []byte("|-- ")); ok {
		t.leaf, err = netip.ParseAddr(string(text))
		return netip.Prefix{}, false, err
	}
	if !bytes.HasPrefix(line, []byte("/")) || !bytes.HasSuffix(line, []byte(" LOCAL")) || !t.leaf.IsValid() {
		return netip.Prefix{}, false, nil
	}
	bits, _, _ := bytes.Cut(line[1:], []byte{' '})
	n, err := strconv.Atoi(string(bits))
	if err != nil {
		return netip.Prefix{}, false, fmt.Errorf("prefix of %q bits", bits)
	}
	if p, err = t.leaf.Prefix(n); err != nil {
		return netip.Prefix{}, false, err
	}
	switch {
	case t.table == "Local:":
		return p, true, nil
	case t.table != "Main:" && p.IsSingleIP():
		return netip.Prefix{}, false, errVRF
	}
	return netip.Prefix{}, false, nil
}

// parseIPv6Route parses one line of /proc/PID/net/ipv6_route. ok is true if it is a local
// route.
//
//	fe80...01 80 00...00 00 00...00 00000000 00000002 00000000 80200001 eth0
func parseIPv6Route(line []byte) (p netip.Prefix, ok bool, err error) {
	fields := bytes.Fields(line)
	if len(fields) < 10 {
		return netip.Prefix{}, false, fmt.Errorf("row of %d fields, expected 10", len(fields))
	}
	flags, err := strconv.ParseUint(string(fields[8]), 16, 32)
	if err != nil {
		return netip.Prefix{}, false, fmt.Errorf("flags %q", fields[8])
	}
	if flags&unix.RTF_LOCAL == 0 {
		return netip.Prefix{}, false, nil
	}
	var raw [16]byte
	if n, err := hex.Decode(raw[:], fields[0][:min(len(fields[0]), 32)]); err != nil || n != len(raw) || len(fields[0]) != 32 {
		return netip.Prefix{}, false, fmt.Errorf("address %q", fields[0])
	}
	bits, err := strconv.ParseUint(string(fields[1]), 16, 8)
	if err != nil {
		return netip.Prefix{}, false, fmt.Errorf("prefix of %q bits", fields[1])
	}
	p, err = netip.AddrFrom16(raw).Prefix(int(bits))
	return p, err == nil, err
}
