//go:build unix

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"sockwatch/agent/plugin/plugintest/servertest"
)

// remoteWriteServers are real servers that take remote write, by name.
var remoteWriteServers = map[string]func(*testing.T) *servertest.Server{
	"Prometheus 2": func(t *testing.T) *servertest.Server {
		return servertest.Prometheus(t, "", "--web.enable-remote-write-receiver")
	},
	"Prometheus 3": func(t *testing.T) *servertest.Server {
		return servertest.Prometheus3(t, "", "--web.enable-remote-write-receiver")
	},
	"VictoriaMetrics": func(t *testing.T) *servertest.Server { return servertest.VictoriaMetrics(t) },
}

// A remoteSeries is a series in an answer of the query API of Prometheus.
type remoteSeries struct {
	Metric map[string]string
	Values [][2]any // seconds and the value
}

// queryRange asks for the values of a range, one per second.
func queryRange(t *testing.T, server *servertest.Server, query string, from, to time.Time) []remoteSeries {
	t.Helper()
	parameters := url.Values{
		"query": {query}, "start": {strconv.FormatInt(from.Unix(), 10)}, "end": {strconv.FormatInt(to.Unix(), 10)}, "step": {"1"},
		"nocache": {"1"}, // VictoriaMetrics
	}
	var answer struct {
		Data struct{ Result []remoteSeries }
	}
	fetch(t, http.MethodGet, server.URL+"/api/v1/query_range?"+parameters.Encode(), func(body io.Reader) error {
		return json.NewDecoder(body).Decode(&answer)
	})
	return answer.Data.Result
}

// lastSecond returns the last second at which any of the series has a value, or zero.
func lastSecond(all []remoteSeries) (last time.Time) {
	for _, s := range all {
		if at := time.Unix(int64(s.Values[len(s.Values)-1][0].(float64)), 0); at.After(last) {
			last = at
		}
	}
	return last
}

// TestClosedListenerEndsAtOnceByRemoteWrite closes one listener while the server runs, and
// one while it is down. In a range query, each ends when it was closed: without stale
// markers it would go on for five minutes. What is open has the same series as on the page.
func TestClosedListenerEndsAtOnceByRemoteWrite(t *testing.T) {
	t.Parallel()
	for name, open := range remoteWriteServers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := open(t)
			address := servertest.FreeAddress(t)
			began := time.Now()
			p := start(t, "sockwatch", nil, "--config", writeFile(t, t.TempDir(), "sockwatch.toml", fmt.Sprintf(`
[agent]
  interval = "200ms"
  state_directory = %q
[[inputs.tcp_listen]]
  timeout = "10s"
[[outputs.prometheus]]
  listen = %q
[[outputs.remote_write]]
  urls = [%q]
  min_interval = "0s"
  flush_interval = "200ms"
`, t.TempDir(), address, server.URL+"/api/v1/write")))
			listen := func() (child *process, query string) {
				child = start(t, "listener", nil)
				eventually(t, "the port of the listener", func() bool { return strings.HasSuffix(child.stdout.String(), "\n") })
				query = fmt.Sprintf(`tcp_listen_backlog{port="%s"}`, strings.TrimSpace(child.stdout.String()))
				eventually(t, query, func() bool { return len(queryRange(t, server, query, began, time.Now())) == 1 })
				return child, query
			}
			endsAt := func(query string, closed time.Time) {
				t.Helper()
				eventually(t, "the end of "+query, func() bool {
					return lastSecond(queryRange(t, server, query, began, closed.Add(time.Minute))).Before(closed.Add(30 * time.Second))
				})
				// A gather may be under way when the listener is closed, and the machine busy.
				last := lastSecond(queryRange(t, server, query, began, closed.Add(time.Minute)))
				if late := last.Sub(closed); late > 5*time.Second || late < -5*time.Second {
					t.Errorf("%s ends %v after the listener was closed", query, late)
				}
			}

			other, first := listen()
			closed := time.Now()
			other.stdin.Close()
			endsAt(first, closed)

			other, second := listen()
			server.Shutdown()
			closed = time.Now()
			other.stdin.Close()
			port := strings.TrimSuffix(strings.TrimPrefix(second, "tcp_listen_backlog{"), "}")
			eventually(t, "the page without "+second, func() bool { text := page(address); return text != "" && !strings.Contains(text, port) })
			server.Start()
			endsAt(second, closed)

			_, third := listen()
			samePage(t, server, address, third)
			p.Process.Signal(syscall.SIGTERM)
			if code := p.exitCode(t); code != exitDone {
				t.Errorf("exit code %d after SIGTERM", code)
			}
		})
	}
}

// samePage compares the series of tcp_listen on the page with those of the server, until
// they are the same: a listener of another test may just have been opened or closed.
func samePage(t *testing.T, server *servertest.Server, address, query string) {
	t.Helper()
	diff := ""
	for deadline := time.Now().Add(waitLimit); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		parser := expfmt.NewTextParser(model.LegacyValidation)
		families, err := parser.TextToMetricFamilies(strings.NewReader(page(address)))
		if err != nil {
			t.Fatal(err)
		}
		onPage, onServer := map[string]bool{}, map[string]bool{}
		for name, family := range families {
			for _, m := range family.Metric {
				labels := map[string]string{"__name__": name}
				for _, l := range m.Label {
					labels[l.GetName()] = l.GetValue()
				}
				onPage[fmt.Sprint(labels)] = strings.HasPrefix(name, "tcp_listen")
			}
		}
		maps.DeleteFunc(onPage, func(_ string, ours bool) bool { return !ours })
		now := time.Now()
		for _, s := range queryRange(t, server, `{__name__=~"tcp_listen.*"}`, now.Add(-10*time.Second), now) {
			delete(s.Metric, "job") // by OTLP
			delete(s.Metric, "instance")
			// VictoriaMetrics shows what it gets after a second or two.
			onServer[fmt.Sprint(s.Metric)] = lastSecond([]remoteSeries{s}).After(now.Add(-6 * time.Second))
		}
		maps.DeleteFunc(onServer, func(_ string, lasts bool) bool { return !lasts })
		if diff = cmp.Diff(slices.Sorted(maps.Keys(onPage)), slices.Sorted(maps.Keys(onServer))); diff == "" && len(onPage) > 0 {
			return
		}
	}
	t.Errorf("series (-page +server, with %s):\n%s", query, diff)
}
