package netns

import (
	"testing"
)

func TestParseMount(t *testing.T) {
	for name, test := range map[string]struct {
		line   string
		number uint64
		path   string
	}{
		"docker":       {line: "640 28 0:4 net:[4026532285] /run/docker/netns/1-abc rw shared:312 - nsfs nsfs rw", number: 4026532285, path: "/run/docker/netns/1-abc"},
		"escapes":      {line: `640 28 0:4 net:[4026532285] /a\040b\134c\011\x rw - nsfs nsfs rw`, number: 4026532285, path: "/a b\\c\t\\x"},
		"pid":          {line: "640 28 0:4 pid:[4026532285] /run/x rw - nsfs nsfs rw"},
		"file system":  {line: "28 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw"},
		"short":        {line: "640 28 0:4 net:[4026532285]"},
		"no number":    {line: "640 28 0:4 net:[] /run/x rw - nsfs nsfs rw"},
		"large number": {line: "640 28 0:4 net:[99999999999999999999] /run/x rw - nsfs nsfs rw"},
		"no path":      {line: "640 28 0:4 net:[1] run rw - nsfs nsfs rw"},
		"":             {},
	} {
		t.Run(name, func(t *testing.T) {
			number, path, ok := parseMount([]byte(test.line))
			if ok != (test.path != "") || ok && (number != test.number || path != test.path) {
				t.Errorf("%d at %q, %t, expected %d at %q", number, path, ok, test.number, test.path)
			}
		})
	}
}

func TestParseNumber(t *testing.T) {
	for link, want := range map[string]uint64{
		"net:[4026531840]": 4026531840, "net:[]": 0, "net:[1": 0, "net:[-1]": 0, "mnt:[1]": 0, "/tmp/net:[1]": 0,
		"net:[1] (deleted)": 0, "net:[0]": 0, "": 0,
	} {
		if got, ok := parseNumber([]byte(link)); ok != (want != 0) || ok && got != want {
			t.Errorf("%q: %d, %t, expected %d", link, got, ok, want)
		}
	}
}
