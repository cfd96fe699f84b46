package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

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
	c := &listCommand{}
	c.Sort.sort(listeners)
	writeTable(w, c.table(listeners, scanned), width)
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

func TestPartialScanIsReportedOnStderr(t *testing.T) {
	var stderr bytes.Buffer
	p := &program{stderr: &stderr}
	p.warnOfPartial([]*metric.Batch{{Source: "whole"}, {Source: "tcp_listen", Partial: "a\nb"}})
	if got, want := stderr.String(), "sockwatch: inputs.tcp_listen: the scan is incomplete: a\\x0ab\n"; got != want {
		t.Errorf("%q, expected %q", got, want)
	}
}

func TestListReportsWhatItCouldNotSee(t *testing.T) {
	for _, test := range []struct {
		name       string
		unreadable int
		partial    string
		limits     []string
		want       []string
	}{
		{name: "all seen"},
		{name: "warned", unreadable: 1, limits: []string{"the capabilities are missing\n"}, want: []string{
			"Owners unknown: 1 of 4.",
			`Warning: the capabilities are missing\x0a.`,
		}},
		{name: "cut", partial: "a\nb", want: []string{`The scan is incomplete: a\x0ab.`}},
	} {
		t.Run(test.name, func(t *testing.T) {
			scan := hostScan{batch: &metric.Batch{Partial: test.partial}, unreadable: test.unreadable, candidates: 4, limits: test.limits}
			if diff := cmp.Diff(test.want, scan.notes()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// A writeLog keeps each write.
type writeLog struct{ writes []string }

func (w *writeLog) Write(b []byte) (int, error) {
	w.writes = append(w.writes, string(b))
	return len(b), nil
}

// A pipe accepts each write as a whole or not at all, and each ends with a whole line.
func TestPrintedLinesAreNotTorn(t *testing.T) {
	var out writeLog
	p := &program{plugins: plugins(), getenv: os.LookupEnv, stdout: &dataWriter{Writer: &out}, log: newLogSwitch(io.Discard)}
	var points []metric.Point
	want := 0
	for i := range 300 {
		length := i % 50 * 7
		if i == 150 {
			length = 2 * atomicBytes // written separately
		}
		points = append(points, metric.Point{Name: "p", Tags: metric.NewTags("t", "x"+strings.Repeat("y", length)), Fields: fields("n", i)})
		want += len(fmt.Sprintf("p,t=x n=%di 1800000000000000000\n", i)) + length
	}
	points = append(points, metric.Point{Name: "none"}) // without fields: it cannot be printed
	err := p.printPoints("influx", scanned, points)
	if err == nil || !strings.HasPrefix(err.Error(), "none{}: ") {
		t.Errorf("error %v", err)
	}
	total, alone := 0, 0
	for _, w := range out.writes {
		total += len(w)
		if len(w) > atomicBytes {
			alone++
		}
		if !strings.HasSuffix(w, "\n") || len(w) > atomicBytes && strings.Count(w, "\n") > 1 {
			t.Errorf("a write of %d bytes and %d lines", len(w), strings.Count(w, "\n"))
		}
	}
	if total != want || alone != 1 || len(out.writes) > 3+total/2000 {
		t.Errorf("%d bytes in %d writes, %d of them too long; want %d bytes", total, len(out.writes), alone, want)
	}
}
