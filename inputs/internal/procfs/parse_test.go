package procfs

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sockwatch/inputs/internal/inet"
)

// Hostile names of processes, as they stand in stat.
var hostile = []string{
	"nginx", "", "a\nb c=1 2", ") R 1 1", "(", ")", "((", "))", "\xff\xfe", "fifteen-bytes-\xc3", "a b", ") Z 0 0 0 (",
	"1 (x) S 1", "\n\n\n", "12345678901234(",
}

func stat(comm string) string {
	return fmt.Sprintf("4711 (%s) S 1 4711 4711 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 123456 1000 200 18446744073709551615 1\n", comm)
}

func TestParseStat(t *testing.T) {
	for _, comm := range hostile {
		st, err := ParseStat([]byte(stat(comm)))
		if err != nil || string(st.Comm) != comm || st.Start != 123456 || st.State != 'S' || st.Kernel {
			t.Errorf("%q: %+v, %v", comm, st, err)
		}
	}
	for text, want := range map[string]string{
		"":                `stat "" has no name`,
		"1 nginx S":       `stat "1 nginx S" has no name`,
		"1 )nginx( S":     `stat "1 )nginx( S" has no name`,
		"1 (x) S 1 2 3\n": `stat "1 (x) S 1 2 3\n" ends before field 7`,
		"1 (x)":           `stat "1 (x)" ends before field 3`,
		strings.Replace(stat("x"), "123456", "-1", 1):  `start time "-1"`,
		strings.Replace(stat("x"), "4194560", "-1", 1): `flags "-1"`,
	} {
		if _, err := ParseStat([]byte(text)); err == nil || err.Error() != want {
			t.Errorf("%q: %v, expected %s", text, err, want)
		}
	}
}

const row = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000005 00:00000000 00000000  1000        0 4242 1 0000000022c2e640 100 0 0 10 0"

func TestParseRow(t *testing.T) {
	var got inet.Socket
	state, err := parseRow([]byte(row), &got)
	want := inet.Socket{Addr: netip.MustParseAddr("127.0.0.1"), Port: 8080, Cookie: 4242, Inode: 4242, UID: 1000, Backlog: 5}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); err != nil || state != stateListen || diff != "" {
		t.Errorf("state %d, %v (-want +got):\n%s", state, err, diff)
	}
	six := strings.Replace(row, "0100007F:1F90", "B80D0120000000000000000001000000:0050", 1)
	if _, err := parseRow([]byte(six), &got); err != nil || got.Addr != netip.MustParseAddr("2001:db8::1") || got.Port != 80 {
		t.Errorf("IPv6: %+v, %v", got, err)
	}
	for text, want := range map[string]string{
		"":       "row of 0 fields, expected 10 at least",
		row[:90]: "row of 9 fields, expected 10 at least",
		strings.Replace(row, "0100007F:1F90", "0100007:1F90", 1):               `address "0100007:1F90"`,
		strings.Replace(row, "0100007F:1F90", "0100007X:1F90", 1):              `address "0100007X:1F90"`,
		strings.Replace(row, "0100007F:1F90", "0100007F:1F901", 1):             `port of "0100007F:1F901"`,
		strings.Replace(row, "0100007F:1F90", "0100007F", 1):                   `address "0100007F"`,
		strings.Replace(row, " 0A ", " 1FF ", 1):                               `state "1FF"`,
		strings.Replace(row, "00000000:00000005", "00000000", 1):               `queues "00000000"`,
		strings.Replace(row, " 1000 ", " -1 ", 1):                              `uid "-1"`,
		strings.Replace(row, " 4242 ", " 99999999999999999999 ", 1):            `inode "99999999999999999999"`,
		strings.Replace(row, "0100007F:1F90", strings.Repeat("0", 34)+":1", 1): `address "` + strings.Repeat("0", 34) + `:1"`,
	} {
		if _, err := parseRow([]byte(text), &got); err == nil || err.Error() != want {
			t.Errorf("%q: %v, expected %s", text, err, want)
		}
	}
}

func TestParseLink(t *testing.T) {
	for link, want := range map[string]uint64{
		"socket:[1045]": 1045, "socket:[]": 0, "socket:[1045": 0, "socket:[-1]": 0, "pipe:[1]": 0, "/tmp/socket:[1]": 0,
		"socket:[99999999999999999999999]": 0, "socket:[1] (deleted)": 0, "": 0,
	} {
		got, ok := parseLink([]byte(link), "socket:[")
		if ok != (want != 0) || ok && got != want {
			t.Errorf("%q: %d, %v", link, got, ok)
		}
	}
}

func TestParsePID(t *testing.T) {
	for name, want := range map[string]int{"1": 1, "4194304": 4194304, "self": 0, "": 0, "0": 0, "1a": 0, "99999999999": 0} {
		if got, ok := parsePID([]byte(name)); ok != (want != 0) || ok && got != want {
			t.Errorf("%q: %d, %v", name, got, ok)
		}
	}
}

func TestParseBootTime(t *testing.T) {
	got, err := parseBootTime([]byte("cpu 1 2 3\nbtime 1700000000\nprocesses 5\n"))
	if err != nil || got != 1700000000 {
		t.Errorf("%d, %v", got, err)
	}
	if _, err := parseBootTime([]byte("cpu 1\n")); err == nil || err.Error() != "no line btime" {
		t.Error(err)
	}
}

func TestParseCapabilities(t *testing.T) {
	got, err := parseCapabilities([]byte("Name:\tCapEff: 1\nCapInh:\t0\nCapEff:\t0000000000080004\n"))
	if err != nil || got != 1<<19|1<<2 {
		t.Errorf("%x, %v", got, err)
	}
}

func TestLocalAddressLines(t *testing.T) {
	const trie = `Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 127.0.0.0/8 2 0 2
        |-- 127.0.0.0
           /8 host LOCAL
        |-- 127.0.0.1
           /32 host LOCAL
        |-- 127.255.255.255
           /32 link BROADCAST
     |-- 10.9.8.7
        /32 host LOCAL
`
	var got []netip.Addr
	var parser fibTrie
	for line := range strings.Lines(trie) {
		if a, ok := parser.line([]byte(line)); ok {
			got = append(got, a)
		}
	}
	want := []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("10.9.8.7")}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if a, ok := parseIfInet6([]byte("fe800000000000000000000000000001 02 40 20 80 eth0")); !ok || a != netip.MustParseAddr("fe80::1") {
		t.Errorf("if_inet6: %v, %v", a, ok)
	}
	for _, line := range []string{"", "xx 1", "fe80 1", strings.Repeat("g", 32)} {
		if a, ok := parseIfInet6([]byte(line)); ok {
			t.Errorf("%q is %v", line, a)
		}
	}
}

// FuzzParseStat: the parser finds what was put between the first and the last
// parenthesis, and takes whatever else comes without a panic.
func FuzzParseStat(f *testing.F) {
	for _, comm := range hostile {
		f.Add([]byte(comm), []byte(stat(comm)))
	}
	f.Add([]byte{}, []byte("1 (x) S 1 2 3"))
	f.Fuzz(func(t *testing.T, comm, text []byte) {
		if st, err := ParseStat(text); err == nil && len(st.Comm)+2 > len(text) {
			t.Errorf("the name %q of %q", st.Comm, text)
		}
		st, err := ParseStat([]byte(stat(string(comm))))
		if err != nil || string(st.Comm) != string(comm) || st.Start != 123456 {
			t.Errorf("%q: %+v, %v", comm, st, err)
		}
	})
}

// FuzzParseRow: a row is an error or a socket with an address; what the kernel
// prints of an address comes back.
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

// FuzzDirents: entries end, and every name stands in the buffer.
func FuzzDirents(f *testing.F) {
	entry := func(name string) []byte {
		b := make([]byte, (19+len(name)+1+7)&^7)
		binary.NativeEndian.PutUint16(b[16:], uint16(len(b)))
		copy(b[19:], name)
		return b
	}
	f.Add(append(entry("1"), entry("self")...))
	f.Add(entry("a")[:10])
	f.Add(make([]byte, 40))
	f.Fuzz(func(t *testing.T, b []byte) {
		n := 0
		for name, rest := nextEntry(b); len(name) > 0; name, rest = nextEntry(rest) {
			if n += len(name); n > len(b) || len(rest) >= len(b) {
				t.Fatalf("entries without end in %q", b)
			}
			parsePID(name)
			parseFD(name)
			parseLink(name, "socket:[")
		}
	})
}

// FuzzLines: the small parsers take whatever comes.
func FuzzLines(f *testing.F) {
	f.Add([]byte("btime 1\nCapEff:\t1\n"))
	f.Add([]byte("  |-- 127.0.0.1\n   /32 host LOCAL\n"))
	f.Add([]byte("fe800000000000000000000000000001 02 40 20 80 eth0\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		parseBootTime(text)
		parseCapabilities(text)
		parseProfile(text)
		var trie fibTrie
		for line := range strings.Lines(string(text)) {
			parseMappedRing([]byte(line))
			for _, parse := range []func([]byte) (netip.Addr, bool){trie.line, parseIfInet6} {
				if a, ok := parse([]byte(line)); ok && !a.IsValid() {
					t.Errorf("%q is no address", line)
				}
			}
		}
	})
}
