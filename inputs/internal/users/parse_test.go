package users

import (
	"io"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestPasswdNames(t *testing.T) {
	for _, test := range []struct {
		name string
		text string
		want map[uint32]string
	}{
		{name: "usual", text: "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1000::/:/bin/false\n", want: map[uint32]string{0: "root", 1000: "web"}},
		{name: "without an end of line", text: "root:x:0:0:", want: map[uint32]string{0: "root"}},
		{name: "not wanted", text: "other:x:7:0:::\n", want: nil},
		{name: "two names of a uid", text: "root:x:0:0:::\ntoor:x:0:0:::\n", want: map[uint32]string{0: "root"}},
		{name: "comments and spaces", text: "#root:x:0:0:::\n\n  web:x:1000:0:::  \r\n", want: map[uint32]string{1000: "web"}},
		{name: "NIS", text: "+web:x:1000:0:::\n-web:x:1000:0:::\n+@net:x:0:0:::\n+:::::\n", want: nil},
		{name: "damaged", text: "web\nweb:\nweb:x\nweb:x:\nweb:x:1000\n:x:1000:0:::\nweb:x::0:::\nweb:x:1000x:0:::\nweb:x: 1000:0:::\n", want: nil},
		{name: "numbers out of range", text: "a:x:-1:0:::\na:x:+0:0:::\na:x:4294967295:0:::\na:x:4294967296:0:::\na:x:18446744073709551616:0:::\n", want: nil},
		{name: "the largest uid", text: "a:x:4294967294:0:::\n", want: map[uint32]string{4294967294: "a"}},
		{name: "hostile names", text: "a\x01\xff\\:x:0:0:::\né:x:1000:0:::\n", want: map[uint32]string{0: `a\x01\xff\x5c`, 1000: "é"}},
		{name: "name too long", text: strings.Repeat("a", 257) + ":x:0:0:::\n" + strings.Repeat("b", 256) + ":x:1000:0:::\n",
			want: map[uint32]string{1000: strings.Repeat("b", 256)}},
		{name: "line too long", text: "a:" + strings.Repeat("x", maxLine) + ":0:0:::\nb:" + strings.Repeat("root:x:0:0:::", maxLine) + "\nweb:x:1000:0:::\n",
			want: map[uint32]string{1000: "web"}},
		{name: "zero bytes", text: "\x00\x00\x00\nweb:x:1000:0:::\n", want: map[uint32]string{1000: "web"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := parsePasswd(strings.NewReader(test.text), map[uint32]bool{0: true, 1000: true, noUID: true, noUID - 1: true})
			if diff := cmp.Diff(test.want, got, cmpopts.EquateEmpty()); diff != "" || err != nil {
				t.Errorf("%v; (-want +got):\n%s", err, diff)
			}
		})
	}
}

func TestSubuidRanges(t *testing.T) {
	for _, test := range []struct {
		name string
		text string
		want []uidRange
	}{
		{name: "by name and by uid", text: "web:231072:65536\n1000:100000:65536\n", want: []uidRange{
			{first: 100000, last: 165535, uid: 1000}, {first: 231072, last: 296607, name: "web"}}},
		{name: "up to the end", text: "a:4294967000:65536\nb:0:4294967296\n", want: []uidRange{
			{first: 0, last: noUID - 1, name: "b"}, {first: 4294967000, last: noUID - 1, name: "a"}}},
		{name: "damaged", text: "a\na:\na:1\na:1:\na:x:1\na:1:x\na:1:0\na:1:-1\n:1:1\n+a:1:1\na:1:1:1\na:1:9999999999\n#a:1:1\n", want: nil},
		{name: "hostile name", text: "a\x1b:5:1\n", want: []uidRange{{first: 5, last: 5, name: `a\x1b`}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := parseSubuid(strings.NewReader(test.text))
			if diff := cmp.Diff(test.want, got, cmp.AllowUnexported(uidRange{})); diff != "" || err != nil {
				t.Errorf("%v; (-want +got):\n%s", err, diff)
			}
		})
	}
}

// endless is a file without an end that repeats a text.
type endless string

func (e endless) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		n += copy(p[n:], e)
	}
	return n, nil
}

func TestHugeFilesAreErrors(t *testing.T) {
	for _, r := range []io.Reader{endless(strings.Repeat("a", 1023) + "\n"), endless("a")} {
		_, err := parsePasswd(r, nil)
		if diff := cmp.Diff("larger than 16 MiB", err.Error()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}

// FuzzPasswd checks that names are printable, and only those of wanted uids.
func FuzzPasswd(f *testing.F) {
	f.Add("root:x:0:0:root:/root:/bin/sh\n")
	f.Add("a\x01\xff\\:x:0:0:::\n#\n\n+:\n")
	f.Fuzz(func(t *testing.T, text string) {
		names, err := parsePasswd(strings.NewReader(text), map[uint32]bool{0: true, 1: true})
		if err != nil {
			t.Error(err)
		}
		for uid, name := range names {
			if uid > 1 || name == "" || !utf8.ValidString(name) || strings.ContainsAny(name, "\n\r\x00:") {
				t.Errorf("%d is %q", uid, name)
			}
		}
	})
}

// FuzzSubuid checks that ranges are sorted and have a user.
func FuzzSubuid(f *testing.F) {
	f.Add("web:231072:65536\n1000:100000:65536\n")
	f.Add("a:4294967000:65536\n")
	f.Fuzz(func(t *testing.T, text string) {
		ranges, err := parseSubuid(strings.NewReader(text))
		if err != nil {
			t.Error(err)
		}
		for i, r := range ranges {
			if r.first > r.last || r.last == noUID || i > 0 && ranges[i-1].first > r.first || r.name != "" && r.uid != 0 {
				t.Errorf("range %d is %+v", i, r)
			}
			if !utf8.ValidString(r.name) || strings.ContainsAny(r.name, "\n\r\x00:") {
				t.Errorf("%q is not printable", r.name)
			}
		}
	})
}
