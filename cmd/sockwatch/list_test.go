package main

import (
	"bufio"
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/metric"
)

func fields(keysAndValues ...any) []metric.Field {
	var fields []metric.Field
	for i := 0; i < len(keysAndValues); i += 2 {
		f := metric.Field{Key: keysAndValues[i].(string)}
		switch v := keysAndValues[i+1].(type) {
		case int:
			f.Value = metric.Int(int64(v))
		case float64:
			f.Value = metric.Float(v)
		}
		fields = append(fields, f)
	}
	return fields
}

var scanned = time.Unix(1_800_000_000, 0)

func someListeners() []metric.Point {
	return []metric.Point{
		{Tags: metric.NewTags("address", "::1", "port", "8086", "family", "ipv6", "process", "influxd", "user", "influxdb",
			"unit", "influxdb.service", "exposure", "loopback", "owner", "resolved"),
			Fields: fields("pid", 17, "processes", 1, "backlog", 0, "backlog_limit", 4096, "process_start_time_seconds", 1_800_000_000.0-90061)},
		{Tags: metric.NewTags("address", "::", "port", "80", "family", "dual", "process", "nginx", "user", "root",
			"container", "0123456789ab", "exposure", "public", "owner", "resolved"),
			Fields: fields("pid", 4242, "processes", 5, "backlog", 3, "backlog_limit", 511, "process_start_time_seconds", 1_800_000_000.0-59)},
		{Tags: metric.NewTags("address", "0.0.0.0%eth0", "port", "22", "family", "ipv4", "user", "root", "exposure", "private", "owner", "unreadable"),
			Fields: fields("backlog", 0, "first_seen_time_seconds", 1_800_000_000.0-3600)},
		{Tags: metric.NewTags("address", "127.0.0.1", "port", "9", "process", "a\x1b[2J\n\u202e\xff\\x41é日本", "pod", "p", "exposure", "loopback"),
			Fields: fields("sockets", 1)},
	}
}

func render(listeners []metric.Point, width int) string {
	var b strings.Builder
	w := bufio.NewWriter(&b)
	writeTable(w, listenerColumns(slices.SortedFunc(slices.Values(listeners), byPort), scanned), width)
	w.Flush()
	return b.String()
}

func TestListTable(t *testing.T) {
	for _, test := range []struct {
		name  string
		width int
		want  string
	}{
		{"of any length", 0, `
ADDRESS          EXPOSURE  PROCESS                                   PID  USER      UNIT               QUEUE  SINCE
127.0.0.1:9      loopback  a\x1b[2J\x0a\xe2\x80\xae\xff\x41é日本                    p
0.0.0.0%eth0:22  private   (unreadable)                                   root                             0   1h0m
*:80             public    nginx                                  4242+4  root      0123456789ab       3/511    59s
[::1]:8086       loopback  influxd                                    17  influxdb  influxdb.service  0/4096   1d1h
`},
		{"made to fit", 90, `
ADDRESS          EXPOSURE  PROCESS            PID  USER      UNIT             QUEUE  SINCE
127.0.0.1:9      loopback  a\x1b[2J\x0a\…                    p
0.0.0.0%eth0:22  private   (unreadable)            root                           0   1h0m
*:80             public    nginx           4242+4  root      0123456789ab     3/511    59s
[::1]:8086       loopback  influxd             17  influxdb  influxdb.serv…  0/4096   1d1h
`},
		{"an ordinary terminal", 80, `
ADDRESS          EXPOSURE  PROCESS       PID  USER      UNIT        QUEUE  SINCE
127.0.0.1:9      loopback  a\x1b[2J…                    p
0.0.0.0%eth0:22  private   (unreada…          root                      0   1h0m
*:80             public    nginx      4242+4  root      01234567…   3/511    59s
[::1]:8086       loopback  influxd        17  influxdb  influxdb…  0/4096   1d1h
`},
		{"too wide to fit", 40, `
ADDRESS          EXPOSURE  PROCESS     …
127.0.0.1:9      loopback  a\x1b[…     …
0.0.0.0%eth0:22  private   (unrea…     …
*:80             public    nginx    424…
[::1]:8086       loopback  influxd     …
`},
	} {
		t.Run(test.name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, "\n"+render(someListeners(), test.width)); diff != "" {
				t.Errorf("table (-want +got):\n%s", diff)
			}
		})
	}
}

// FuzzTable holds a table of any names to one line each, of what can be printed,
// within the terminal.
func FuzzTable(f *testing.F) {
	f.Add("a\nb", "\x1b[31m", 40)
	f.Add("日本語日本語", "e\u0301\u0301\ufffd\xff", 20)
	f.Fuzz(func(t *testing.T, a, b string, limit int) {
		var text strings.Builder
		w := bufio.NewWriter(&text)
		writeTable(w, []column{{title: "A", cells: []string{a, b}, shrink: true}, {title: "B", cells: []string{b, a}, right: true}}, limit)
		w.Flush()
		lines := strings.Split(text.String(), "\n")
		if len(lines) != 4 || lines[3] != "" {
			t.Fatalf("%d lines: %q", len(lines), text.String())
		}
		for _, line := range lines {
			if limit > 0 && cells(line) > limit {
				t.Errorf("%q takes %d cells of %d", line, cells(line), limit)
			}
			for _, r := range line {
				if !unicode.IsPrint(r) {
					t.Errorf("%q holds %q", line, r)
				}
			}
		}
	})
}

func TestPartialIsSaidOnStderr(t *testing.T) {
	var stderr bytes.Buffer
	p := &program{stderr: &stderr}
	p.warnOfPartial([]*metric.Batch{{Source: "whole"}, {Source: "tcp_listen", Partial: "a\nb"}})
	if got, want := stderr.String(), "sockwatch: inputs.tcp_listen: the scan is not whole: a\\x0ab\n"; got != want {
		t.Errorf("%q, expected %q", got, want)
	}
}

func TestListSaysWhatItCouldNotSee(t *testing.T) {
	for _, test := range []struct {
		name      string
		listeners []metric.Point
		partial   string
		warnings  []string
		want      []string
	}{
		{name: "all seen", listeners: someListeners()[:2]},
		{name: "warned", listeners: someListeners(), warnings: []string{"the capabilities are missing\n"}, want: []string{
			"Owners unknown: 1 of 4.",
			`Warning: the capabilities are missing\x0a.`,
		}},
		{name: "refused without a known cause", listeners: someListeners(), want: []string{
			"Owners unknown: 1 of 4. Some processes may not be read even by root, as with a security module.",
		}},
		{name: "cut", partial: "a\nb", want: []string{`The scan is not whole: a\x0ab.`}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, unseen(test.listeners, test.partial, test.warnings)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestAgo(t *testing.T) {
	for _, test := range []struct {
		d    time.Duration
		want string
	}{
		{-time.Second, "0s"}, {59 * time.Second, "59s"}, {61 * time.Second, "1m1s"},
		{3 * time.Hour, "3h0m"}, {49 * time.Hour, "2d1h"}, {1000 * 24 * time.Hour, "1000d0h"},
	} {
		if got := ago(test.d); got != test.want {
			t.Errorf("ago(%v) = %q, want %q", test.d, got, test.want)
		}
	}
}

func TestFolded(t *testing.T) {
	for _, test := range []struct {
		limit int
		want  string
	}{
		{0, "one two three\n"}, {13, "one two three\n"}, {12, "one two\nthree\n"}, {3, "one\ntwo\nthree\n"}, {1, "one\ntwo\nthree\n"},
	} {
		if got := folded("one two  three", test.limit); got != test.want {
			t.Errorf("in %d cells: %q, want %q", test.limit, got, test.want)
		}
	}
}

func TestAddressAsSSPrintsIt(t *testing.T) {
	for _, test := range []struct{ address, family, want string }{
		{"::", "dual", "*:1"}, {"::%lo", "dual", "*%lo:1"}, {"::", "ipv6", "[::]:1"}, {"::1", "ipv6", "[::1]:1"},
		{"0.0.0.0%eth0", "ipv4", "0.0.0.0%eth0:1"}, {"::ffff:127.0.0.1", "ipv4", "[::ffff:127.0.0.1]:1"},
	} {
		p := metric.Point{Tags: metric.NewTags("address", test.address, "family", test.family, "port", "1")}
		if got := address(&p); got != test.want {
			t.Errorf("%v: %s", test, got)
		}
	}
}

func TestUnit(t *testing.T) {
	tests := []struct {
		tags []string
		want string
	}{
		{tags: []string{"unit", "nginx.service", "container", "0123456789ab"}, want: "nginx.service"},
		{tags: []string{"unit", "user@1000.service", "user_unit", "sshd.service"}, want: "sshd.service (user)"},
		{tags: []string{"container", "0123456789ab", "pod", "p"}, want: "0123456789ab"},
		{tags: []string{"pod", "p"}, want: "p"},
		{want: ""},
	}
	for _, tt := range tests {
		if got := unit(&metric.Point{Tags: metric.NewTags(tt.tags...)}); got != tt.want {
			t.Errorf("%v: %q, want %q", tt.tags, got, tt.want)
		}
	}
}
