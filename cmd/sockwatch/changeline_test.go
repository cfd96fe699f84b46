package main

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/metric"
)

// change returns an event. Its fields are keys and values.
func change(event, address, port, exposure string, tags []string, fieldsOf ...any) metric.Point {
	family := "ipv4"
	if strings.Contains(address, ":") {
		family = "ipv6"
	}
	tags = append([]string{"event", event, "address", address, "port", port, "exposure", exposure, "family", family, "owner", "resolved"}, tags...)
	p := metric.Point{Name: "tcp_listen_event", Time: scanned, Tags: metric.NewTags(tags...)}
	for i := 0; i < len(fieldsOf); i += 2 {
		f := metric.Field{Key: fieldsOf[i].(string)}
		switch v := fieldsOf[i+1].(type) {
		case string:
			f.Value = metric.String(v)
		case bool:
			f.Value = metric.Bool(v)
		case int:
			f.Value = metric.Int(int64(v))
		case float64:
			f.Value = metric.Float(v)
		}
		p.Fields = append(p.Fields, f)
	}
	return p
}

func someChanges() []metric.Point {
	nginx := []string{"process", "nginx", "user", "www-data", "unit", "nginx.service"}
	shortLived := change("opened", "127.0.0.1", "9", "", []string{"user", "bob"})
	shortLived.Tags = metric.NewTags("event", "opened", "address", "127.0.0.1", "port", "9", "family", "ipv4", "owner", "pending", "user", "bob")
	return []metric.Point{
		change("opened", "0.0.0.0", "80", "public", nginx, "pid", 17),
		change("opened", "2001:db8:0:1:2:3:4:5", "8443", "link_local", nginx, "pid", 17, "exe", "/tmp/nginx", "exe_deleted", true),
		change("returned", "0.0.0.0", "80", "public", nginx, "pid", 17, "while_down", true),
		change("closed", "0.0.0.0", "80", "public", nginx, "pid", 17, "age_seconds", 3600.0),
		change("restarted", "0.0.0.0", "80", "public", nginx, "pid", 18, "previous_pid", 17, "down_seconds", 1.25, "exe", "/usr/sbin/nginx", "previous_exe", "/usr/sbin/nginx", "exe_changed", false),
		change("owner_changed", "0.0.0.0", "80", "public", []string{"process", "sshd", "user", "root", "user_unit", "sshd.service"}, "pid", 99,
			"previous_process", "nginx", "previous_user", "www-data", "previous_unit", "nginx.service", "previous_pid", 17, "down_seconds", 0.0,
			"exe", "/tmp/sshd", "previous_exe", "/usr/sbin/nginx", "exe_changed", true),
		change("exposure_changed", "0.0.0.0", "80", "public", nginx, "pid", 17, "previous_exposure", "private", "cause", "host_address"),
		change("exposure_changed", "0.0.0.0", "80", "public", nginx, "pid", 17, "previous_exposure", "loopback", "previous_address", "127.0.0.1", "cause", "rebound"),
		change("opened", "0.0.0.0", "23", "public", []string{"process", "in.telnetd", "container", "web", "expected", "forbidden", "netns", "blue"}, "pid", 5, "rule", "telnet"),
		change("opened", "0.0.0.0", "24", "public", []string{"process", "a\x1b[2J", "expected", "no"}),
		shortLived,
		{Name: "tcp_listen_event", Tags: metric.NewTags("event", "opened", "user", "bob"), Fields: fields("count", 500)},
	}
}

func TestChangeLines(t *testing.T) {
	var got strings.Builder
	got.WriteString("\n")
	for _, e := range someChanges() {
		got.WriteString(changeLine("03:12:00", &e, 0))
	}
	want := `
03:12:00  opened         0.0.0.0:80             public    nginx[17] www-data nginx.service
03:12:00  opened         [2001:db8:0:1:2:3:4:5]:8443  link_local  nginx[17] www-data nginx.service; runs /tmp/nginx, which is deleted
03:12:00  returned       0.0.0.0:80             public    nginx[17] www-data nginx.service; while the agent was down
03:12:00  closed         0.0.0.0:80             public    nginx[17] www-data nginx.service; open for 1h0m
03:12:00  restarted      0.0.0.0:80             public    nginx[18] www-data nginx.service; was pid 17; down 1.2s
03:12:00  owner_changed  0.0.0.0:80             public    sshd[99] root sshd.service (user); was nginx[17] www-data nginx.service; runs /tmp/sshd, was /usr/sbin/nginx
03:12:00  exposure_changed  0.0.0.0:80          public    nginx[17] www-data nginx.service; was private: the addresses of the host have changed
03:12:00  exposure_changed  0.0.0.0:80          public    nginx[17] www-data nginx.service; was loopback at 127.0.0.1:80
03:12:00  opened         0.0.0.0:23             public    in.telnetd[5] web in netns blue; forbidden by rule telnet
03:12:00  opened         0.0.0.0:24             public    a\x1b[2J; not expected
03:12:00  opened         127.0.0.1:9            none      (pending) bob
03:12:00  opened                                          500 more of user bob
`
	if diff := cmp.Diff(want, got.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// On a terminal, lines end at its width, and go on below the address.
func TestChangeLinesFitTheTerminal(t *testing.T) {
	changes := someChanges()
	got := "\n" + changeLine("03:12:00", &changes[5], 100) + changeLine("03:12:00", &changes[0], 100)
	want := `
03:12:00  owner_changed  0.0.0.0:80             public    sshd[99] root sshd.service (user); was
                         nginx[17] www-data nginx.service; runs /tmp/sshd, was /usr/sbin/nginx
03:12:00  opened         0.0.0.0:80             public    nginx[17] www-data nginx.service
`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, e := range changes {
		for width := 80; width <= 200; width++ {
			for line := range strings.Lines(changeLine("03:12:00", &e, width)) {
				if n := cells(strings.TrimSuffix(line, "\n")); n > width {
					t.Errorf("%d cells at a width of %d: %s", n, width, line)
				}
			}
		}
	}
}

// Colors and times without a date are for terminals alone.
func TestLinePrinterKnowsTerminals(t *testing.T) {
	e := someChanges()[0]
	e.Time = time.Date(2026, 11, 26, 3, 12, 0, 0, time.Local)
	printed := func(l linePrinter) string {
		var out strings.Builder
		l.program, l.out = &program{getenv: func(string) (string, bool) { return "", false }, stdout: &dataWriter{Writer: &out}}, &out
		l.day = e.Time.AddDate(0, 0, 1)
		if err := l.print(e.Time, []metric.Point{e, e}); err != nil {
			t.Error(err)
		}
		return out.String()
	}
	const rest = "         0.0.0.0:80             public    nginx[17] www-data nginx.service\n"
	stamp := e.Time.Format(time.RFC3339)
	for _, test := range []struct {
		name    string
		printer linePrinter
		want    string
	}{
		{"file", linePrinter{}, strings.Repeat(stamp+"  opened"+rest, 2)},
		{"terminal", linePrinter{screen: true}, "Thursday, 2026-11-26\n" + strings.Repeat("03:12:00  opened"+rest, 2)},
		{"colors", linePrinter{screen: true, color: true}, "Thursday, 2026-11-26\n" + strings.Repeat("03:12:00  \x1b[32mopened\x1b[0m"+rest, 2)},
	} {
		t.Run(test.name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, printed(test.printer)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
