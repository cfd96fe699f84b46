package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent"
	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
	"sockwatch/agent/plugin/plugintest/schematest"
)

// selectFrom returns the ports of the listeners that "list" with these flags selects, and
// after a "?" the ports of those that might match.
func selectFrom(t *testing.T, listeners []metric.Point, flags ...string) string {
	t.Helper()
	command, err := parse(append([]string{"list"}, flags...), &strings.Builder{}, &strings.Builder{})
	if err != nil {
		t.Fatal(err)
	}
	c := command.Selected().Target.Addr().Interface().(*listCommand)
	var sure, maybe []string
	for i := range listeners {
		switch p := &listeners[i]; {
		case c.match(p):
			sure = append(sure, p.Tag("port"))
		case c.mayMatch(p):
			maybe = append(maybe, p.Tag("port"))
		}
	}
	return strings.Join(sure, " ") + "?" + strings.Join(maybe, " ")
}

func TestListFilters(t *testing.T) {
	listeners := []metric.Point{
		{Tags: metric.NewTags("port", "22", "process", "sshd", "user", "root", "unit", "ssh.service", "exposure", "public", "owner", "resolved")},
		{Tags: metric.NewTags("port", "80", "process", "nginx", "user", "www-data", "unit", "nginx.service", "exposure", "private", "owner", "resolved")},
		{Tags: metric.NewTags("port", "3000", "process", "node", "user", "alice", "user_unit", "web.service", "unit", "user@1000.service", "exposure", "loopback", "owner", "resolved")},
		{Tags: metric.NewTags("port", "8080", "process", "java", "user", "1001", "container", "0123456789ab", "owner", "resolved")},
		{Tags: metric.NewTags("port", "9000", "user", "bob", "exposure", "link_local", "owner", "unreadable")},
		{Tags: metric.NewTags("port", "9001", "user", "root", "exposure", "loopback", "owner", "none")},
	}
	tests := []struct {
		flags string
		want  string
	}{
		{"", "22 80 3000 8080 9000 9001?"},
		{"--port 22", "22?"},
		{"--port 80,8000-9000", "80 8080 9000?"},
		{"--port 22 --port 80", "22 80?"},
		{"--process nginx", "80?9000"},
		{"--process nginx,s*", "22 80?9000"},
		{"--process {node,java}", "3000 8080?9000"},
		{"--process *", "22 80 3000 8080?9000"},
		{"--user root", "22 9001?"},
		{"--user 100?", "8080?"},
		{"--unit *.service", "22 80 3000?9000"},
		{"--unit web.service", "3000?9000"},
		{"--unit 0123*", "8080?9000"},
		{"--exposure public,private", "22 80?"},
		{"--exposure p*", "22 80?"},
		{"--exposure none", "8080?"},
		{"--user root --process sshd", "22?"},
		{"--port 9000 --process sshd", "?9000"},
		{"--port 1 --process sshd", "?"},
	}
	for _, tt := range tests {
		if diff := cmp.Diff(tt.want, selectFrom(t, listeners, strings.Fields(tt.flags)...)); diff != "" {
			t.Errorf("list %s (-want +got):\n%s", tt.flags, diff)
		}
	}
}

func TestWatchMayHaveAnInterval(t *testing.T) {
	tests := []struct {
		flags string
		want  time.Duration
	}{
		{"", 0}, {"--watch", 2 * time.Second}, {"--watch=5s", 5 * time.Second}, {"--watch 5s", 5 * time.Second},
		{"--watch=100ms --wide", 100 * time.Millisecond}, {"--watch --wide", 2 * time.Second}, {"--wide --watch", 2 * time.Second},
	}
	for _, tt := range tests {
		command, err := parse(append([]string{"list"}, strings.Fields(tt.flags)...), io.Discard, io.Discard)
		if err != nil {
			t.Errorf("list %s: %v", tt.flags, err)
			continue
		}
		if got := time.Duration(command.Selected().Target.Addr().Interface().(*listCommand).Watch); got != tt.want {
			t.Errorf("list %s: %v, want %v", tt.flags, got, tt.want)
		}
	}
}

func TestWrongListFlags(t *testing.T) {
	const try = "Try \"sockwatch list --help\".\n"
	tests := []struct{ flags, want string }{
		{"--port 0", `--port: "0" is not a port (1 to 65535) or a range such as 8000-8100`},
		{"--port 0-80", `--port: "0-80" is not a port (1 to 65535) or a range such as 8000-8100`},
		{"--port http", `--port: "http" is not a port (1 to 65535) or a range such as 8000-8100`},
		{"--port 90-80", `--port: the range 90-80 is empty: write 80-90`},
		{"--process {a", `--process: pattern "{a": "{" without "}"`},
		{"--user ,", "--user: pattern \"\": is empty and matches nothing\npattern \"\": is empty and matches nothing"},
		{"--exposure publik,none", `--exposure: unknown class "publik" (did you mean "public"? known: public, private, link_local, loopback, none)`},
		{"--sort size", `--sort: unknown column "size" (known: port, netns, address, family, exposure, process, pid, user, unit, container, queue, since, exe)`},
		{"--sort=-queu", `--sort: unknown column "queu" (did you mean "queue"? known: port, netns, address, family, exposure, process, pid, user, unit, container, queue, since, exe)`},
		{"--watch soon", `unexpected argument soon`},
		{"--watch=", `--watch: "" is not an interval such as 2s`},
		{"--watch=soon", `--watch: "soon" is not an interval such as 2s`},
		{"--watch=2", `--watch: "2" is not an interval such as 2s`},
		{"--watch=1ms", `--watch: "1ms" is shorter than 100ms`},
		{"--watch=-2s", `--watch: "-2s" is shorter than 100ms`},
		{"--watch --json", `--watch and --json can't be used together`},
		{"sshd", `unexpected argument sshd`},
	}
	for _, tt := range tests {
		want := result{2, "", "sockwatch: " + tt.want + "\n" + try}
		if diff := cmp.Diff(want, sockwatchRun(nil, append([]string{"list"}, strings.Fields(tt.flags)...)...)); diff != "" {
			t.Errorf("list %s (-want +got):\n%s", tt.flags, diff)
		}
	}
}

func TestRegularExpressionInAFlagIsAWarning(t *testing.T) {
	want := `sockwatch: --process: pattern "^nothing$" looks like a regular expression, but is a glob, which matches whole values: write "nothing"
sockwatch: --unit: pattern "(a|b).service" looks like a regular expression, but is a glob, which matches whole values: write "{a,b}.service"
`
	r := sockwatchRun(nil, "list", "--json", "--process", "^nothing$", "--process", "other*", "--unit", "(a|b).service")
	if r.Code != 0 || r.Stdout != "" || !strings.HasPrefix(r.Stderr, want) { // as another user than root it goes on
		t.Errorf("%+v, want on stderr first:\n%s", r, want)
	}
}

// Warnings go to stderr: the output of --json stays JSON, and stderr says that it is incomplete.
func TestJSONReportsOnStderrWhatItCouldNotSee(t *testing.T) {
	var stdout, stderr strings.Builder
	p := &program{plugins: plugins(), getenv: os.LookupEnv, stdout: &dataWriter{Writer: &stdout}, stderr: &stderr, log: newLogSwitch(&stderr)}
	scan := scanOf(0, "22")
	scan.unreadable, scan.candidates, scan.limits = 2, 3, []string{"a capability\nis missing"}
	scan.batch.Source, scan.batch.Partial = "tcp_listen", "a namespace"
	scan.listeners[0].Name = "tcp_listen"
	scan.listeners[0].Fields = fields("sockets", 1)
	if err := (&listCommand{JSON: true}).printJSON(p, scan); err != nil {
		t.Fatal(err)
	}
	want := "sockwatch: inputs.tcp_listen: the scan is incomplete: a namespace\n" +
		"sockwatch: a capability\\x0ais missing\n" +
		"sockwatch: owners unknown: 2 of 3\n"
	if diff := cmp.Diff(want, stderr.String()); diff != "" {
		t.Errorf("stderr (-want +got):\n%s", diff)
	}
	if got, want := stdout.String(), `{"name":"tcp_listen","tags":{"address":"127.0.0.1",`; !strings.HasPrefix(got, want) || strings.Count(got, "\n") != 1 {
		t.Errorf("stdout %q does not begin with %s", got, want)
	}
}

// Filters and the order apply to --json as to the table.
func TestJSONIsFiltered(t *testing.T) {
	var ports []int
	for range 2 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	slices.Sort(ports)
	r := sockwatchRun(nil, "list", "--json", "--sort=-port", "--port", fmt.Sprintf("%d,%d", ports[0], ports[1]))
	want := []string{fmt.Sprint(ports[1]), fmt.Sprint(ports[0])}
	var got []string
	schematest.Lines(t, r.Stdout)
	for line := range strings.Lines(r.Stdout) {
		var point struct{ Tags map[string]string }
		if err := json.Unmarshal([]byte(line), &point); err != nil {
			t.Fatal(err)
		}
		got = append(got, point.Tags["port"])
	}
	if diff := cmp.Diff(want, got); diff != "" || r.Code != 0 {
		t.Errorf("ports (-want +got):\n%s%s", diff, r.Stderr)
	}
}

// Listeners whose owner cannot be read are counted if they might match: an
// empty list must not scan complete.
func TestListCountsTheOwnersThatItCannotRead(t *testing.T) {
	unreadable := func(port string) metric.Point {
		return metric.Point{Name: "tcp_listen", Fields: fields("sockets", 1), Tags: metric.NewTags("address", "::", "port", port, "owner", "unreadable")}
	}
	batch := metric.Batch{Time: scanned, Points: []metric.Point{unreadable("1"), unreadable("2"), unreadable("3"), {
		Name: "tcp_listen", Fields: fields("sockets", 1), Tags: metric.NewTags("address", "::", "port", "4", "owner", "resolved", "process", "nginx"),
	}}}
	tests := []struct {
		flags                  string
		listed, asked, unknown int
	}{
		{flags: "", listed: 4, asked: 4, unknown: 3},
		{flags: "--process sshd", listed: 0, asked: 3, unknown: 3},
		{flags: "--process sshd --port 2-4", listed: 0, asked: 2, unknown: 2},
		{flags: "--port 4", listed: 1, asked: 1, unknown: 0},
	}
	for _, tt := range tests {
		command, err := parse(append([]string{"list"}, strings.Fields(tt.flags)...), io.Discard, io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		a := &agent.Agent{Log: slog.New(slog.DiscardHandler), Inputs: []*agent.Input{{
			Name: "fixed", Input: fixedInput(batch), Options: agent.InputOptions{Timeout: plugin.Duration(time.Minute)},
		}}}
		gatherers, err := a.Gatherers()
		if err != nil {
			t.Fatal(err)
		}
		s := &scanner{command: command.Selected().Target.Addr().Interface().(*listCommand), gatherer: gatherers[0]}
		scan, err := s.scan(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(scan.listeners) != tt.listed || scan.candidates != tt.asked || scan.unreadable != tt.unknown {
			t.Errorf("list %s: %d listeners, owners unknown: %d of %d; want %d, %d of %d", tt.flags,
				len(scan.listeners), scan.unreadable, scan.candidates, tt.listed, tt.unknown, tt.asked)
		}
	}
}

// A fixedInput gathers the same batch each time.
type fixedInput metric.Batch

func (f fixedInput) Gather(context.Context) (metric.Batch, error) { return metric.Batch(f), nil }

// A change is selected by what the listener is or was, and by what it might be.
func TestSelectionOfChanges(t *testing.T) {
	changes := someChanges()
	for _, test := range []struct {
		name string
		args []string
		want []int // indexes of changes
	}{
		{"the owner before", []string{"--process=nginx"}, []int{0, 1, 2, 3, 4, 5, 6, 7, 10, 11}},
		{"the owner after", []string{"--process=sshd"}, []int{5, 10, 11}},
		{"the unit before", []string{"--unit=nginx.service", "--port=80"}, []int{0, 2, 3, 4, 5, 6, 7, 11}},
		{"the exposure before", []string{"--exposure=loopback"}, []int{7, 11}},
		{"the user before", []string{"--user=www-data", "--process=nginx"}, []int{0, 1, 2, 3, 4, 5, 6, 7}},
		{"never both", []string{"--user=root", "--process=nginx"}, nil},
		{"a port", []string{"--port=9"}, []int{10, 11}},
		{"a user of many", []string{"--user=bob"}, []int{10, 11}},
	} {
		t.Run(test.name, func(t *testing.T) {
			command, err := parse(append([]string{"watch"}, test.args...), io.Discard, io.Discard)
			if err != nil {
				t.Fatal(err)
			}
			c := command.Selected().Target.Addr().Interface().(*watchCommand)
			var got []int
			for i := range changes {
				if c.mayMatchChange(&changes[i]) {
					got = append(got, i)
				}
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
