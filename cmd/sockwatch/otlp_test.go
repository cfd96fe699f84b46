//go:build unix

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	logspb "go.opentelemetry.io/proto/otlp/logs/v1"
	"google.golang.org/protobuf/proto"

	"sockwatch/agent/plugin"
	"sockwatch/agent/plugin/plugintest/servertest"
	"sockwatch/agent/plugin/plugintest/soak"
	"sockwatch/outputs/otlp"
)

// The body of a log record is the line of `sockwatch watch`, without its time and with one
// blank between its parts.
func TestEventsOfOTLPReadLikeWatch(t *testing.T) {
	o := otlp.Defaults()
	o.LogsURL = "http://127.0.0.1:4318/v1/logs"
	out, err := otlp.New(o, plugin.Env{})
	if err != nil {
		t.Fatal(err)
	}
	blanks := regexp.MustCompile(` +`)
	for _, e := range someChanges() {
		if e.Time.IsZero() {
			e.Time = scanned
		}
		record, err := out.(plugin.EventEncoder).EncodeEvent(nil, &e)
		if err != nil {
			t.Fatal(err)
		}
		var log logspb.LogRecord
		if err := proto.Unmarshal(record[1:], &log); err != nil { // the first byte is the kind of the record
			t.Fatal(err)
		}
		want := blanks.ReplaceAllString(strings.TrimSpace(strings.TrimPrefix(changeLine("03:12:00", &e, 0), "03:12:00")), " ")
		if diff := cmp.Diff(want, log.Body.GetStringValue()); diff != "" {
			t.Errorf("(-watch +body):\n%s", diff)
		}
	}
}

// TestListenersAndEventsByOTLP stops and starts each of two servers, and kills the program.
// While one server is down, the other one is up to date; afterwards neither has missed
// anything. A closed listener ends at once in a range query.
func TestListenersAndEventsByOTLP(t *testing.T) {
	soak.Only(t, "waits for attempts at random times")
	t.Parallel()
	prometheus, victoriaLogs := servertest.Prometheus3(t, "", "--web.enable-otlp-receiver"), servertest.VictoriaLogs(t)
	address := servertest.FreeAddress(t)
	began := time.Now()
	path := writeFile(t, t.TempDir(), "sockwatch.toml", fmt.Sprintf(`
[agent]
  interval = "200ms"
  state_directory = %q
[[inputs.tcp_listen]]
  timeout = "1m"
  settle = "100ms"
[[outputs.prometheus]]
  listen = %q
[[outputs.otlp]]
  metrics_url = "%s/api/v1/otlp/v1/metrics"
  logs_url = "%s/insert/opentelemetry/v1/logs"
  min_interval = "0s"
  flush_interval = "0s"
`, fastDir(t), address, prometheus.URL, victoriaLogs.URL))
	p := start(t, "sockwatch", nil, "--config", path)
	eventually(t, "the page", func() bool { return strings.Contains(page(address), "sockwatch_input_up{") })

	open := func() (child *process, port string) {
		child = start(t, "listener", nil)
		eventually(t, "the port of the listener", func() bool { return strings.HasSuffix(child.stdout.String(), "\n") })
		return child, strings.TrimSpace(child.stdout.String())
	}
	query := func(port string) string { return fmt.Sprintf(`tcp_listen_backlog{port="%s"}`, port) }
	shown := func(port string) func() bool {
		return func() bool { return len(queryRange(t, prometheus, query(port), began, time.Now())) == 1 }
	}
	happened := func(port string, want ...string) func() bool {
		return func() bool { return slices.Equal(eventsOf(t, victoriaLogs, port), want) }
	}

	child, first := open()
	eventually(t, "the first listener", shown(first))
	eventually(t, "its event", happened(first, "opened"))

	victoriaLogs.Shutdown()
	closed := closeListener(t, child)
	_, second := open() // at once: each failure doubles the wait for the next attempt
	awaitEnd(t, prometheus, query(first), closed)
	eventually(t, "the second listener", shown(second))
	victoriaLogs.Start()
	eventually(t, "the event of the first listener's end", happened(first, "opened", "closed"))
	eventually(t, "the event of the second listener", happened(second, "opened"))

	prometheus.Shutdown()
	_, third := open()
	eventually(t, "the event of the third listener", happened(third, "opened"))
	p.Process.Kill()
	<-p.exited
	p = start(t, "sockwatch", nil, "--config", path)
	_, fourth := open()
	prometheus.Start()
	eventually(t, "the third listener", shown(third))
	eventually(t, "the fourth listener", shown(fourth))
	eventually(t, "the event of the fourth listener", happened(fourth, "opened"))
	samePage(t, prometheus, address, fourth)
	sameNames(t, prometheus, address)
	if !happened(second, "opened")() || !happened(third, "opened")() {
		t.Errorf("events of the second listener %v, of the third %v", eventsOf(t, victoriaLogs, second), eventsOf(t, victoriaLogs, third))
	}
	p.Process.Signal(syscall.SIGTERM)
	if code := p.exitCode(t); code != exitDone {
		t.Errorf("exit code %d after SIGTERM", code)
	}
}

// sameNames compares the names of all metrics that the server has with those on the page.
func sameNames(t *testing.T, server *servertest.Server, address string) {
	t.Helper()
	var answer struct{ Data []string }
	q := url.Values{"match[]": {`{job="sockwatch"}`}}
	fetch(t, http.MethodGet, server.URL+"/api/v1/label/__name__/values?"+q.Encode(), func(body io.Reader) error {
		return json.NewDecoder(body).Decode(&answer)
	})
	text, own := page(address), 0
	for _, name := range answer.Data {
		if !strings.Contains(text, "\n"+name+"{") && name != "target_info" {
			t.Errorf("%s is on the server, but not on the page", name)
		}
		if strings.HasPrefix(name, "sockwatch_") {
			own++
		}
	}
	if own < 20 {
		t.Errorf("%d of the agent's own metrics are on the server: %v", own, answer.Data)
	}
}

// eventsOf returns the events of a port in order, each once even if it was sent twice.
func eventsOf(t *testing.T, server *servertest.Server, port string) (kinds []string) {
	t.Helper()
	fetch(t, http.MethodGet, server.URL+"/internal/force_flush", func(io.Reader) error { return nil })
	seen := map[string]bool{}
	q := url.Values{"query": {"network.local.address:127.0.0.1 and network.local.port:" + port + " | sort by (_time)"}}
	fetch(t, http.MethodGet, server.URL+"/select/logsql/query?"+q.Encode(), func(body io.Reader) error {
		for d := json.NewDecoder(body); ; {
			var row map[string]string
			if err := d.Decode(&row); err == io.EOF {
				return nil
			} else if err != nil {
				return err
			}
			identity := row["host.name"] + " " + row["sockwatch.history"] + " " + row["sockwatch.sequence"]
			if !seen[identity] {
				kinds = append(kinds, strings.TrimPrefix(row["event_name"], "sockwatch.tcp_listen."))
			}
			seen[identity] = true
		}
	})
	return kinds
}
