package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/metric"
)

// scanOf returns a scan, some seconds after the first, of listeners on these ports.
func scanOf(second int, ports ...string) *hostScan {
	s := &hostScan{time: time.Date(2026, 11, 26, 3, 12, second, 0, time.Local), candidates: len(ports)}
	for _, port := range ports {
		s.listeners = append(s.listeners, metric.Point{Tags: metric.NewTags("address", "127.0.0.1", "port", port, "process", "p"+port, "exposure", "loopback")})
	}
	s.batch = &metric.Batch{Time: s.time}
	return s
}

// plainFrame returns a frame, one line each, with names in place of control
// sequences.
func plainFrame(v *view, columns, lines int) string {
	frame := v.frame(columns, lines)
	return "\n" + strings.NewReplacer(cursorHome, "", clearLine, "", clearBelow, "", "\r\n", "\n",
		bold, "<b>", faint, "<f>", plainLetters, "<>").Replace(frame) + "\n"
}

func TestViewMarksWhatOpenedAndClosed(t *testing.T) {
	v := view{command: &listCommand{Watch: defaultRedraw}}
	const head = "   ADDRESS         EXPOSURE  PROCESS  PID  USER  UNIT  QUEUE  SINCE\n"
	steps := []struct {
		name string
		scan *hostScan
		want string
	}{
		{name: "the first has no marks", scan: scanOf(0, "22", "80"), want: `
03:12:00  2 listeners, scanned every 2s; Ctrl-C ends

   ADDRESS       EXPOSURE  PROCESS  PID  USER  UNIT  QUEUE  SINCE
   127.0.0.1:22  loopback  p22
   127.0.0.1:80  loopback  p80
`},
		{name: "one opens, one closes", scan: scanOf(2, "22", "8080"), want: `
03:12:02  2 listeners, scanned every 2s; Ctrl-C ends

` + head + `   127.0.0.1:22    loopback  p22
<f>-  127.0.0.1:80    loopback  p80<>
<b>+  127.0.0.1:8080  loopback  p8080<>
`},
		{name: "marks stay for a while", scan: scanOf(11, "22", "8080"), want: `
03:12:11  2 listeners, scanned every 2s; Ctrl-C ends

` + head + `   127.0.0.1:22    loopback  p22
<f>-  127.0.0.1:80    loopback  p80<>
<b>+  127.0.0.1:8080  loopback  p8080<>
`},
		{name: "and go", scan: scanOf(12, "22", "8080"), want: `
03:12:12  2 listeners, scanned every 2s; Ctrl-C ends

` + head + `   127.0.0.1:22    loopback  p22
   127.0.0.1:8080  loopback  p8080
`},
		{name: "what comes back has opened", scan: scanOf(14, "22"), want: `
03:12:14  1 listener, scanned every 2s; Ctrl-C ends

` + head + `   127.0.0.1:22    loopback  p22
<f>-  127.0.0.1:8080  loopback  p8080<>
`},
		{name: "and is not shown twice", scan: scanOf(16, "22", "8080"), want: `
03:12:16  2 listeners, scanned every 2s; Ctrl-C ends

` + head + `   127.0.0.1:22    loopback  p22
<b>+  127.0.0.1:8080  loopback  p8080<>
`},
	}
	for _, step := range steps {
		v.observe(step.scan)
		if diff := cmp.Diff(step.want, plainFrame(&v, 80, 24)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", step.name, diff)
		}
	}
}

// Marks belong to endpoints: another owner of the same endpoint is not a change of the list.
func TestViewDoesNotMarkAnotherOwner(t *testing.T) {
	v := view{command: &listCommand{Watch: defaultRedraw}}
	v.observe(scanOf(0, "22"))
	next := scanOf(2, "22")
	next.listeners[0].Tags = metric.NewTags("address", "127.0.0.1", "port", "22", "owner", "pending")
	v.observe(next)
	if len(v.marked) != 0 {
		t.Errorf("marked: %v", v.marked)
	}
}

func TestViewFitsTheTerminal(t *testing.T) {
	var ports []string
	for i := range 50 {
		ports = append(ports, fmt.Sprint(1000+i))
	}
	v := view{command: &listCommand{Watch: defaultRedraw}}
	scan := scanOf(0, ports...)
	scan.unreadable, scan.limits = 3, []string{strings.Repeat("long ", 100)}
	v.observe(scan)
	v.failed = errors.New("it\nfailed")
	for _, size := range [][2]int{{80, 24}, {30, 10}, {20, 5}, {10, 4}, {1, 1}, {3, 2}, {200, 100}} {
		frame := strings.Split(strings.Trim(plainFrame(&v, size[0], size[1]), "\n"), "\n")
		if len(frame) > size[1] {
			t.Errorf("%v: %d lines:\n%s", size, len(frame), strings.Join(frame, "\n"))
		}
		for _, line := range frame {
			if n := cells(line); n > size[0] {
				t.Errorf("%v: a line of %d cells: %q", size, n, line)
			}
		}
	}
	want := `
03:12:00  50 listeners, scanned every 2s; Ctrl-C ends

   ADDRESS         EXPOSURE  PROCESS  PID  USER  UNIT  QUEUE  SINCE
   127.0.0.1:1000  loopback  p1000
   127.0.0.1:1001  loopback  p1001
… 48 more: narrow the list with flags such as --port or --process
The last scan failed: it\x0afailed.
Owners unknown: 3 of 50.
Warning: long long long long long long long long long long long long long long
`
	if diff := cmp.Diff(want, plainFrame(&v, 80, 9)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := plainFrame(&v, 0, 0); strings.Count(got, "\n") != 24+1 {
		t.Errorf("on a terminal of unknown size:\n%s", got)
	}
}

// A frame contains no control character except its own sequences.
func TestViewEscapesNames(t *testing.T) {
	v := view{command: &listCommand{Watch: defaultRedraw}}
	scan := scanOf(0, "22")
	scan.listeners[0].Tags = metric.NewTags("address", "127.0.0.1", "port", "22", "process", "a\x1b[2J\r\nb")
	v.observe(scan)
	frame := plainFrame(&v, 80, 24)
	if !strings.Contains(frame, `a\x1b[2J\x0d\x0ab`) || slices.Contains([]byte(frame), '\x1b') {
		t.Errorf("%q", frame)
	}
}
