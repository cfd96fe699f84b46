package procfs

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRingFormatOf(t *testing.T) {
	for release, want := range map[string]ringFormat{
		"5.10.0-30-amd64": ringNames, "6.14.11": ringNames, "6.15.0-rc1": ringPaths, "6.17.9-200.fc43": ringPaths,
		"6.18.44-fc": ringWhole, "6.100": ringWhole, "7.0": ringWhole, "": ringNames, "x": ringNames, "2.6.78+": ringNames,
	} {
		if got := ringFormatOf(release); got != want {
			t.Errorf("%q: %d, want %d", release, got, want)
		}
	}
}

// The lines before and after the files, in each format.
const (
	ringHead = "pos:\t0\nflags:\t02000002\nSqMask:\t0x7\nSQEs:\t1\n    0: opcode:NOP, fd:0\nCQEs:\t0\nSqThread:\t-1\n"
	ringTail = "UserBufs:\t1\n    0: 0x7f0000000000/4096\nPollList:\n  op=6, task_works=0\n"
)

func TestRingParser(t *testing.T) {
	for _, test := range []struct {
		name   string
		format ringFormat
		text   string
		want   []uint64
		known  bool
	}{
		{name: "paths", format: ringWhole, text: ringHead + "UserFiles:\t4\n    0: socket:[66]\n    2: /tmp/x\n    3: socket:[67]\n" + ringTail, want: []uint64{66, 67}, known: true},
		{name: "no files", format: ringWhole, text: ringHead + "UserFiles:\t0\n" + ringTail, want: nil, known: true},
		{name: "empty slots", format: ringWhole, text: ringHead + "UserFiles:\t8\n" + ringTail, want: nil, known: true},
		{name: "busy", format: ringWhole, text: "pos:\t0\nflags:\t02000002\n", want: nil, known: false},
		{name: "a path that looks like the end", format: ringWhole, text: ringHead + "UserFiles:\t2\n    0: /tmp/a\\012UserBufs:\\0110\n    1: socket:[68]\n" + ringTail, want: []uint64{68}, known: true},
		{name: "a path that looks like a socket", format: ringWhole, text: ringHead + "UserFiles:\t1\n    0: /socket:[69]\n" + ringTail, want: nil, known: true},
		{name: "a buffer that looks like a socket", format: ringWhole, text: ringHead + "UserFiles:\t0\nUserBufs:\t1\n    0: socket:[70]\n", want: nil, known: true},
		{name: "files, 6.15", format: ringPaths, text: ringHead + "UserFiles:\t2\n    1: socket:[71]\n" + ringTail, want: []uint64{71}, known: true},
		{name: "busy or empty, 6.15", format: ringPaths, text: ringHead + "UserFiles:\t2\n" + ringTail, want: nil, known: false},
		{name: "no sockets, old", format: ringNames, text: ringHead + "UserFiles:\t2\n    0: x.log\n    1: <none>\n" + ringTail, want: nil, known: true},
		{name: "a socket, old", format: ringNames, text: ringHead + "UserFiles:\t2\n    0: TCP\n    1: <none>\n" + ringTail, want: nil, known: false},
		{name: "an IPv6 socket, old", format: ringNames, text: ringHead + "UserFiles:\t1\n    0: TCPv6\n" + ringTail, want: nil, known: false},
		{name: "a file named like a socket, old", format: ringNames, text: ringHead + "UserFiles:\t1\n    0: socket:[72]\n" + ringTail, want: nil, known: true},
		{name: "a name with the end of a line, old", format: ringNames, text: ringHead + "UserFiles:\t2\n    0: a\nUserBufs:\t0\n    1: TCP\n" + ringTail, want: nil, known: false},
		{name: "a name with a row, old", format: ringNames, text: ringHead + "UserFiles:\t2\n    0: a\n    1: b\n    1: TCP\n" + ringTail, want: nil, known: false},
		{name: "a name with all that follows, old", format: ringNames, text: ringHead + "UserFiles:\t2\n    0: a\n    1: b\nUserBufs:\t0\n    1: TCP\n" + ringTail, want: nil, known: false},
		{name: "busy, old", format: ringNames, text: ringHead + "UserFiles:\t2\n" + ringTail, want: nil, known: false},
		{name: "before 5.6", format: ringNames, text: "pos:\t0\n", want: nil, known: false},
		{name: "damaged", format: ringWhole, text: "UserFiles:\tx\n    0: socket:[73]\n", want: nil, known: false},
	} {
		var got []uint64
		r := ringParser{format: test.format, visit: func(inode uint64) { got = append(got, inode) }}
		for line := range strings.Lines(test.text) {
			r.line([]byte(strings.TrimSuffix(line, "\n")))
		}
		if diff := cmp.Diff(test.want, got); diff != "" || r.known() != test.known {
			t.Errorf("%s: known %v, want %v; sockets (-want +got):\n%s", test.name, r.known(), test.known, diff)
		}
	}
}

// FuzzRingParser: only lines between the title of the files and the next title are
// sockets, and those of an old kernel never are.
func FuzzRingParser(f *testing.F) {
	f.Add(uint8(ringNames), ringHead+"UserFiles:\t2\n    0: TCP\n    1: <none>\n"+ringTail)
	f.Add(uint8(ringPaths), ringHead+"UserFiles:\t1\n    0: socket:[1]\n"+ringTail)
	f.Add(uint8(ringWhole), "UserFiles:\t-1\n: :\n")
	f.Fuzz(func(t *testing.T, format uint8, text string) {
		sockets := 0
		r := ringParser{format: ringFormat(format % 3), visit: func(inode uint64) {
			if sockets++; inode == 0 {
				t.Errorf("%q: socket 0", text)
			}
		}}
		for line := range strings.SplitSeq(text, "\n") {
			r.line([]byte(line))
		}
		if sockets > r.rows || sockets > 0 && (!r.listed || r.format == ringNames) || r.known() && !r.listed {
			t.Errorf("%q: %d sockets of %d files, listed %v", text, sockets, r.rows, r.listed)
		}
	})
}
