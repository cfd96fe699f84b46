package netns

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sockwatch/inputs/internal/inet"
)

const row = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000005 00:00000000 00000000  1000        0 4242 1 0000000022c2e640 100 0 0 10 0"

var compareAddresses = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })

func TestParseRow(t *testing.T) {
	var got inet.Socket
	state, err := parseRow([]byte(row), &got)
	want := inet.Socket{Addr: netip.MustParseAddr("127.0.0.1"), Port: 8080, Cookie: 4242, Inode: 4242, UID: 1000, Backlog: 5}
	if diff := cmp.Diff(want, got, compareAddresses); err != nil || state != stateListen || diff != "" {
		t.Errorf("state %d, %v (-want +got):\n%s", state, err, diff)
	}
	six := strings.Replace(row, "0100007F:1F90", "B80D0120000000000000000001000000:0050", 1)
	if _, err := parseRow([]byte(six), &got); err != nil || got.Addr != netip.MustParseAddr("2001:db8::1") || got.Port != 80 {
		t.Errorf("IPv6: %+v, %v", got, err)
	}
	for line, want := range map[string]string{
		"":       "row of 0 fields, expected at least 10",
		"0: 1 2": "row of 3 fields, expected at least 10",
		strings.Replace(row, "0100007F:1F90", "0100007F:1F901", 1):             `port of "0100007F:1F901"`,
		strings.Replace(row, "0100007F:1F90", "0100007F", 1):                   `address "0100007F"`,
		strings.Replace(row, " 0A ", " 1FF ", 1):                               `state "1FF"`,
		strings.Replace(row, "00000000:00000005", "00000000", 1):               `queues "00000000"`,
		strings.Replace(row, " 1000 ", " -1 ", 1):                              `uid "-1"`,
		strings.Replace(row, " 4242 ", " 99999999999999999999 ", 1):            `inode "99999999999999999999"`,
		strings.Replace(row, "0100007F:1F90", strings.Repeat("0", 34)+":1", 1): `address "` + strings.Repeat("0", 34) + `:1"`,
	} {
		if _, err := parseRow([]byte(line), &got); text(err) != want {
			t.Errorf("%q: %v, expected %s", line, err, want)
		}
	}
}

// FuzzParseRow: a row is an error or a socket with an address that can be printed as the
// kernel prints it.
func FuzzParseRow(f *testing.F) {
	f.Add([]byte(row))
	f.Add([]byte("  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, line []byte) {
		var s inet.Socket
		if _, err := parseRow(line, &s); err != nil {
			return
		}
		if !s.Addr.IsValid() || s.Cookie != s.Inode {
			t.Errorf("%q: %+v", line, s)
		}
		var printed string
		if raw := s.Addr.AsSlice(); len(raw) > 0 {
			for i := 0; i < len(raw); i += 4 {
				printed += fmt.Sprintf("%08X", binary.NativeEndian.Uint32(raw[i:]))
			}
		}
		a, p, err := parseAddrPort(fmt.Appendf(nil, "%s:%04X", printed, s.Port))
		if err != nil || a != s.Addr || p != s.Port {
			t.Errorf("%s:%04X came back as %v:%d, %v", printed, s.Port, a, p, err)
		}
	})
}
