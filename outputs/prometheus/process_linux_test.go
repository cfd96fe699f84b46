package prometheus

import (
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseStat(t *testing.T) {
	const numbers = "S 1 12 12 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 8 0 12345 1000000 2500 18446744073709551615 1 1 0"
	want := procStat{cpuSeconds: 3, startSeconds: 123.45, vsize: 1000000, rssPages: 2500}
	for _, test := range []struct {
		text string
		ok   bool
	}{
		{"12 (sockwatch) " + numbers, true},
		{"12 (a) R 1 1 (\n) " + numbers, true},
		{"12 (sockwatch) S 1 12", false},
		{"12 (sockwatch", false},
		{"", false},
		{"12 (sockwatch) S 1 12 12 0 -1 4194560 100 0 0 0 x 50 0 0 20 0 8 0 12345 1000000 2500", false},
	} {
		got, ok := parseStat([]byte(test.text))
		if ok != test.ok {
			t.Errorf("parseStat(%q): %v, want %v", test.text, ok, test.ok)
		}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(procStat{})); ok && diff != "" {
			t.Errorf("parseStat(%q) (-want +got):\n%s", test.text, diff)
		}
	}
}

func TestParseOctets(t *testing.T) {
	const text = "TcpExt: SyncookiesSent InOctets\nTcpExt: 1 2\nIpExt: InNoRoutes InOctets OutOctets InMcastOctets\nIpExt: 0 300 400 5\nMPTcpExt: InOctets\nMPTcpExt: 9\n"
	if received, sent, ok := parseOctets([]byte(text)); received != 300 || sent != 400 || !ok {
		t.Errorf("%v received, %v sent, %v", received, sent, ok)
	}
	for _, bad := range []string{"", "IpExt: InOctets OutOctets\n", "IpExt: InOctets OutOctets\nIpExt: 1\n", "IpExt: InOctets OutOctets\nIpExt: 1 x\n"} {
		if _, _, ok := parseOctets([]byte(bad)); ok {
			t.Errorf("%q is taken", bad)
		}
	}
}

func FuzzProcess(f *testing.F) {
	for _, name := range []string{"/proc/self/stat", "/proc/self/net/netstat", "/proc/stat"} {
		if b, err := os.ReadFile(name); err == nil {
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, ok := parseStat(b); ok && len(b) < 24 {
			t.Errorf("parseStat takes %q", b)
		}
		parseOctets(b)
		bootTime(b)
	})
}
