package netns

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestFibTrie(t *testing.T) {
	const routes = `Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     |-- 192.0.2.1
        /32 host LOCAL
Local:
  +-- 0.0.0.0/0 3 0 5
     +-- 127.0.0.0/8 2 0 2
        |-- 127.0.0.0
           /8 host LOCAL
        |-- 127.0.0.1
           /32 host LOCAL
        |-- 127.255.255.255
           /32 link BROADCAST
     |-- 10.9.8.7
        /32 host LOCAL
Id 100:
  |-- 0.0.0.0
     /0 host LOCAL
`
	for name, test := range map[string]struct {
		text string
		want []string
		err  string
	}{
		"tables": {text: routes, want: []string{"127.0.0.0/8", "127.0.0.1/32", "10.9.8.7/32"}},
		"address of a VRF": {
			text: routes + "     |-- 10.1.1.1\n        /32 host LOCAL\n",
			want: []string{"127.0.0.0/8", "127.0.0.1/32", "10.9.8.7/32"}, err: "addresses of VRFs depend on routing rules",
		},
		"odd address": {text: "Local:\n  |-- 1.2.3\n", err: `ParseAddr("1.2.3"): IPv4 address too short`},
		"odd prefix":  {text: "Local:\n  |-- 1.2.3.4\n     /x host LOCAL\n", err: `prefix of "x" bits`},
		"long prefix": {text: "Local:\n  |-- 1.2.3.4\n     /33 host LOCAL\n", err: "prefix length 33 too large for IPv4"},
		"no address":  {text: "Local:\n     /32 host LOCAL\n"},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			var trie fibTrie
			var err error
			for line := range strings.Lines(test.text) {
				var p netip.Prefix
				var ok bool
				if p, ok, err = trie.parse([]byte(strings.TrimSuffix(line, "\n"))); err != nil {
					break
				}
				if ok {
					got = append(got, p.String())
				}
			}
			if text(err) != test.err {
				t.Errorf("error %q, expected %q", text(err), test.err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseIPv6Route(t *testing.T) {
	const head, tail = " 00000000000000000000000000000000 00 00000000000000000000000000000000 00000000 00000002 00000000 ", "     eth0"
	for name, test := range map[string]struct {
		line string
		want string // "": not a local route
		err  string
	}{
		"address": {line: "20010db8000000000000000000000001 80" + head + "80200001" + tail, want: "2001:db8::1/128"},
		"prefix":  {line: "20010db8000000000000000000000000 20" + head + "80200001" + tail, want: "2001:db8::/32"},
		"unicast": {line: "20010db8000000000000000000000000 20" + head + "00000001" + tail},
		"short":   {line: "20010db8000000000000000000000000 20", err: "row of 2 fields, expected 10"},
		"flags":   {line: "20010db8000000000000000000000000 20" + head + "8020000x" + tail, err: `flags "8020000x"`},
		"odd":     {line: "20010db8 20" + head + "80200001" + tail, err: `address "20010db8"`},
		"long":    {line: strings.Repeat("0", 34) + " 20" + head + "80200001" + tail, err: `address "` + strings.Repeat("0", 34) + `"`},
		"bits":    {line: "20010db8000000000000000000000000 81" + head + "80200001" + tail, err: "prefix length 129 too large for IPv6"},
	} {
		t.Run(name, func(t *testing.T) {
			p, ok, err := parseIPv6Route([]byte(test.line))
			if text(err) != test.err || ok != (test.want != "") || ok && p.String() != test.want {
				t.Errorf("%v, %t, %v, expected %s, %s", p, ok, err, test.want, test.err)
			}
		})
	}
}

// FuzzRoutes: the parsers of routing tables accept any text.
func FuzzRoutes(f *testing.F) {
	f.Add([]byte("Local:\n  |-- 127.0.0.1\n   /32 host LOCAL\n"))
	f.Add([]byte("20010db8000000000000000000000001 80 00 00 00 00 00 00 80200001 eth0\n"))
	f.Add([]byte("640 28 0:4 net:[4026532285] /run/docker/netns/1\\040abc rw shared:312 - nsfs nsfs rw\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var trie fibTrie
		for line := range strings.Lines(string(b)) {
			for _, parse := range []func([]byte) (netip.Prefix, bool, error){trie.parse, parseIPv6Route} {
				if p, ok, err := parse([]byte(line)); ok && (err != nil || !p.IsValid() || p != p.Masked()) {
					t.Errorf("%q is %v, %v", line, p, err)
				}
			}
			if number, path, ok := parseMount([]byte(line)); ok && (number == 0 || path[0] != '/') {
				t.Errorf("%q is %d at %q", line, number, path)
			}
		}
	})
}
