package procfs

import (
	"bytes"
	"encoding/hex"
	"net/netip"
)

// A fibTrie reads the IPv4 addresses of the interfaces that are up from the
// lines of /proc/PID/net/fib_trie: those of "LOCAL" leaves.
//
//	|-- 127.0.0.1
//	   /32 host LOCAL
type fibTrie struct{ leaf netip.Addr }

// line reads one line; an address where it completes a local one.
func (t *fibTrie) line(line []byte) (netip.Addr, bool) {
	line = bytes.TrimSpace(line)
	if text, ok := bytes.CutPrefix(line, []byte("|-- ")); ok {
		t.leaf, _ = netip.ParseAddr(string(text))
		return netip.Addr{}, false
	}
	return t.leaf, t.leaf.IsValid() && bytes.Equal(line, []byte("/32 host LOCAL"))
}

// parseIfInet6 reads one line of /proc/PID/net/if_inet6: the address, the index of
// the interface, and more.
func parseIfInet6(line []byte) (netip.Addr, bool) {
	var raw [16]byte
	digits, _, _ := bytes.Cut(line, []byte{' '})
	if len(digits) != 32 {
		return netip.Addr{}, false
	}
	if _, err := hex.Decode(raw[:], digits); err != nil {
		return netip.Addr{}, false
	}
	return netip.AddrFrom16(raw), true
}
