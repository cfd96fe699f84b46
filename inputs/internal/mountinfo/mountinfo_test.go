package mountinfo

import "testing"

func TestUnescape(t *testing.T) {
	tests := []struct{ path, want string }{
		{path: "/sys/fs/cgroup", want: "/sys/fs/cgroup"},
		{path: `/run/a\040b\134c`, want: `/run/a b\c`},
		{path: `/tab\011end\012`, want: "/tab\tend\n"},
		{path: `/short\04`, want: `/short\04`},
		{path: `/none\999`, want: `/none\999`},
		{path: `\`, want: `\`},
		{path: "", want: ""},
	}
	for _, tt := range tests {
		if got := Unescape([]byte(tt.path)); got != tt.want {
			t.Errorf("%q: %q, want %q", tt.path, got, tt.want)
		}
	}
}
