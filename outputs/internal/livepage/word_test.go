package livepage

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTermsOfASearch(t *testing.T) {
	for _, test := range []struct {
		search string
		want   []word
	}{
		{"", nil},
		{" \t\n", nil},
		{"nginx", []word{{value: "nginx"}}},
		{"port:443 process:nginx*", []word{{key: "port", value: "443"}, {key: "process", value: "nginx*"}}},
		{"-user:root -x", []word{{exclude: true, key: "user", value: "root"}, {exclude: true, value: "x"}}},
		{`process:"my app"  unit:a"b c"d`, []word{{key: "process", value: "my app"}, {key: "unit", value: "ab cd"}}},
		{`"port:443" "-x"`, []word{{value: "port:443"}, {value: "-x"}}},
		{`process:"a""b" """"`, []word{{key: "process", value: `a"b`}, {value: `"`}}},
		{`process:"no end  x`, []word{{key: "process", value: "no end  x"}}},
		{"0.0.0.0:80 [::]:443 fe80::1 ::1", []word{{value: "0.0.0.0:80"}, {value: "[::]:443"}, {value: "fe80::1"}, {value: "::1"}}},
		{"a:b:c", []word{{key: "a", value: "b:c"}}},
		{`unit:a\ b`, []word{{key: "unit", value: `a\`}, {value: "b"}}},
		{"key:", []word{{key: "key"}}},
		{":x -", []word{{value: ":x"}, {exclude: true}}},
	} {
		if diff := cmp.Diff(test.want, splitWords(test.search), cmp.AllowUnexported(word{})); diff != "" {
			t.Errorf("%q (-want +got):\n%s", test.search, diff)
		}
	}
}
