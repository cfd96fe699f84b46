//go:build unix

package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"net"
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
	"sockwatch/agent/plugin/plugintest/soak"
)

// remoteWriteServers are real servers that take remote write, by name.
var remoteWriteServers = map[string]func(*testing.T) *servertest.Server{
	"Prometheus 2": func(t *testing.T) *servertest.Server {
		return servertest.Prometheus(t, "", "--web.enable-remote-write-receiver")
	},
	"Prometheus 3": func(t *testing.T) *servertest.Server {
		return servertest.Prometheus3(t, "", "--web.enable-remote-write-receiver")
	},
	// By default VictoriaMetrics guesses from the interval of the samples when a series ends.
	"VictoriaMetrics": func(t *testing.T) *servertest.Server {
		return servertest.VictoriaMetrics(t, "-search.minStalenessInterval=5m")
	},
}

// queryRange asks for the values of a range, one per second.
func queryRange(t *testing.T, server *servertest.Server, query string, from, to time.Time) []servertest.Series {
	t.Helper()
	return server.Query(t, "query_range", "query", query, "start", strconv.FormatInt(from.Unix(), 10), "end", strconv.FormatInt(to.Unix(), 10), "step", "1")
}

// sampleTimes returns the times of all samples that match a selector, in milliseconds.
// VictoriaMetrics shows stale markers among them, as NaN.
func sampleTimes(t *testing.T, server *servertest.Server, selector string) (times []int64) {
	t.Helper()
	for _, s := range server.Query(t, "query", "query", selector+"[15m]", "time", strconv.FormatInt(time.Now().Unix()+5, 10)) {
		for _, v := range s.Values {
			if v[1] != "NaN" {
				times = append(times, int64(math.Round(1000*v[0].(float64))))
			}
		}
	}
	slices.Sort(times)
	return times
}

// closeListener makes a process close its listener, and returns a time when it is closed.
func closeListener(t *testing.T, p *process) time.Time {
	t.Helper()
	address := "127.0.0.1:" + strings.TrimSpace(p.stdout.String())
	p.stdin.Close()
	eventually(t, "the end of the listener", func() bool {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
	return time.Now()
}

// awaitEnd waits until a range query shows a listener that was closed up to the first gather
// without it, and not a second longer. Of the gathers after it was closed, only one that was
// already under way may have it.
func awaitEnd(t *testing.T, server *servertest.Server, query string, closed time.Time) {
	t.Helper()
	problem := ""
	for deadline := time.Now().Add(waitLimit); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		samples, gathers := sampleTimes(t, server, query), sampleTimes(t, server, `tcp_listen_events_total{event="opened"}`)
		after, _ := slices.BinarySearch(gathers, closed.UnixMilli()+1)
		if len(samples) == 0 || len(gathers)-after < 10 {
			problem = fmt.Sprintf("%d samples, %d gathers after the end", len(samples), len(gathers)-after)
			continue // what was gathered before may not be visible yet
		}
		last := samples[len(samples)-1]
		next, _ := slices.BinarySearch(gathers, last+1)
		if last > gathers[after] || next == len(gathers) {
			problem = fmt.Sprintf("the last sample is of %d, but it was closed at %d", last, closed.UnixMilli())
			continue
		}
		ends := gathers[next]
		want := time.UnixMilli(ends - 1).Truncate(time.Second)
		from, now := time.UnixMilli(samples[0]).Truncate(time.Second), time.Now()
		got := lastSecond(queryRange(t, server, query, from, now))
		if got.Equal(want) {
			return
		}
		problem = fmt.Sprintf("a range query shows it until %d, but the first gather without it was at %d ms", got.Unix(), ends)
	}
	t.Errorf("%s: %s", query, problem)
}

// lastSecond returns the last second at which any of the series has a value, or zero.
func lastSecond(all []servertest.Series) (last time.Time) {
	for _, s := range all {
		if at := time.Unix(int64(s.Values[len(s.Values)-1][0].(float64)), 0); at.After(last) {
			last = at
		}
	}
	return last
}

// TestClosedListenerEndsAtOnceByRemoteWrite closes one listener while the server runs, and
// one while it is down. In a range query, each ends at the first gather without it: without
// stale markers it would go on for five minutes. What is open has the same series as on the
// page.
func TestClosedListenerEndsAtOnceByRemoteWrite(t *testing.T) {
	t.Parallel()
	for name, open := range remoteWriteServers {
		t.Run(name, func(t *testing.T) {
			if name != "Prometheus 2" {
				soak.Only(t, "does the same with another server")
			}
			t.Parallel()
			server := open(t)
			address := servertest.FreeAddress(t)
			began := time.Now()
			p := start(t, "sockwatch", nil, "--config", writeFile(t, t.TempDir(), "sockwatch.toml", fmt.Sprintf(`
[agent]
  interval = "200ms"
  state_directory = %q
[[inputs.tcp_listen]]
  timeout = "1m"
[[outputs.prometheus]]
  listen = %q
[[outputs.remote_write]]
  urls = [%q]
  min_interval = "0s"
  flush_interval = "200ms"
`, fastDir(t), address, server.URL+"/api/v1/write")))
			listen := func() (child *process, query string) {
				child = start(t, "listener", nil)
				eventually(t, "the port of the listener", func() bool { return strings.HasSuffix(child.stdout.String(), "\n") })
				query = fmt.Sprintf(`tcp_listen_backlog{port="%s"}`, strings.TrimSpace(child.stdout.String()))
				eventually(t, query, func() bool { // for some seconds, so that values remain before its end
					all := queryRange(t, server, query, began, time.Now())
					return len(all) > 0 && len(all[len(all)-1].Values) >= 3
				})
				return child, query
			}
			other, first := listen()
			awaitEnd(t, server, first, closeListener(t, other))

			other, second := listen()
			server.Shutdown()
			closed := closeListener(t, other)
			port := strings.TrimSuffix(strings.TrimPrefix(second, "tcp_listen_backlog{"), "}")
			eventually(t, "the page without "+second, func() bool { text := page(address); return text != "" && !strings.Contains(text, port) })
			server.Start()
			awaitEnd(t, server, second, closed)

			_, third := listen()
			samePage(t, server, address, strings.TrimSuffix(strings.TrimPrefix(third, `tcp_listen_backlog{port="`), `"}`))
			p.Process.Signal(syscall.SIGTERM)
			if code := p.exitCode(t); code != exitDone {
				t.Errorf("exit code %d after SIGTERM", code)
			}
		})
	}
}

// samePage compares the series of a listener, and those of tcp_listen without a port, on the
// page with those of the server, until they are the same. The listeners of other tests come
// and go.
func samePage(t *testing.T, server *servertest.Server, address, port string) {
	t.Helper()
	ours := func(labels map[string]string) bool {
		return strings.HasPrefix(labels["__name__"], "tcp_listen") && (labels["port"] == port || labels["port"] == "")
	}
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
				onPage[fmt.Sprint(labels)] = ours(labels)
			}
		}
		maps.DeleteFunc(onPage, func(_ string, ours bool) bool { return !ours })
		now := time.Now()
		for _, s := range queryRange(t, server, `{__name__=~"tcp_listen.*"}`, now.Add(-10*time.Second), now) {
			delete(s.Metric, "job") // by OTLP
			delete(s.Metric, "instance")
			// VictoriaMetrics shows what it gets after a second or two.
			onServer[fmt.Sprint(s.Metric)] = ours(s.Metric) && lastSecond([]servertest.Series{s}).After(now.Add(-6*time.Second))
		}
		maps.DeleteFunc(onServer, func(_ string, lasts bool) bool { return !lasts })
		if diff = cmp.Diff(slices.Sorted(maps.Keys(onPage)), slices.Sorted(maps.Keys(onServer))); diff == "" && len(onPage) > 0 {
			return
		}
	}
	t.Errorf("series of port %s (-page +server):\n%s", port, diff)
}

// TestOutageByRemoteWrite is TestOutageOfARealServer for remote write: a query finds every
// point that was queued, with its value.
func TestOutageByRemoteWrite(t *testing.T) {
	t.Parallel()
	for name, open := range remoteWriteServers {
		t.Run(name, func(t *testing.T) {
			if name != "Prometheus 2" {
				soak.Only(t, "does the same with another server")
			}
			t.Parallel()
			server := open(t)
			text := delivery{state: t.TempDir(), url: server.URL + "/api/v1/write", output: `min_interval = "0s"`}.String()
			text = strings.Replace(text, "  database = \"db\"\n", "", 1)
			text = strings.Replace(text, "outputs.influxdb", "outputs.remote_write", 1)
			d := startDaemon(t, text)
			queued := func(d *daemon) (ids []string) {
				for line := range strings.Lines(d.stderr.String()) {
					var record struct {
						Msg, Plugin string
						Time        time.Time `json:"batch_time"`
					}
					if json.Unmarshal([]byte(line), &record) != nil || record.Msg != "queued" || record.Plugin != "outputs.remote_write" {
						continue
					}
					for i := range idsPerBatch {
						ids = append(ids, fmt.Sprintf("%d-%02d", record.Time.UnixNano(), i))
					}
				}
				return ids
			}
			awaitBatches := func(n int) {
				t.Helper()
				before := len(queued(d))
				eventually(t, "batches queued", func() bool { return len(queued(d)) >= before+n*idsPerBatch })
			}
			stored := func() map[string]float64 {
				values := map[string]float64{}
				for _, s := range server.Query(t, "query", "query", "last_over_time(ids[10m])", "time", strconv.FormatInt(time.Now().Unix()+5, 10)) {
					value, err := strconv.ParseFloat(s.Value[1].(string), 64)
					if err != nil {
						t.Fatal(err)
					}
					values[s.Metric["id"]] = value
				}
				return values
			}
			awaitBatches(5)
			eventually(t, "the first points", func() bool { return len(stored()) > 0 })

			server.Shutdown()
			d.awaitLog(t, "delivery failed, will retry")
			awaitBatches(10)
			server.Start()
			d.awaitLog(t, "delivery resumed")

			server.Shutdown()
			awaitBatches(10)
			d.Process.Kill()
			<-d.exited
			ids := queued(d)
			d = startDaemon(t, text)
			awaitBatches(5)
			server.Start()
			d.awaitLog(t, "delivery resumed")
			awaitBatches(1)
			d.stop(t)
			ids = append(ids, queued(d)...)

			missing := ids
			eventually(t, "every point that was queued", func() bool {
				got := stored()
				missing = slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return got[id] == float64(idValue(id)) })
				return len(missing) == 0
			})
			t.Logf("%d points queued", len(ids))
		})
	}
}

// TestCountersHaveStartTimesByRemoteWrite asks a server that stores start times for that of
// a counter of an input: the time when the program added it.
func TestCountersHaveStartTimesByRemoteWrite(t *testing.T) {
	t.Parallel()
	server := servertest.Prometheus3(t, "", "--web.enable-remote-write-receiver",
		"--enable-feature=st-storage,use-start-timestamps,promql-experimental-functions")
	before := time.Now()
	start(t, "sockwatch", nil, "--config", writeFile(t, t.TempDir(), "sockwatch.toml", fmt.Sprintf(`
[agent]
  interval = "200ms"
[[inputs.tcp_listen]]
  timeout = "1m"
[[outputs.remote_write]]
  urls = [%q]
  min_interval = "0s"
  flush_interval = "200ms"
`, server.URL+"/api/v1/write")))
	for _, metric := range []string{"sockwatch_input_gathers_total", "tcp_listen_events_total"} {
		var began []time.Time
		eventually(t, "the start times of "+metric, func() bool {
			began = nil
			for _, s := range queryRange(t, server, "start_timestamp("+metric+")", before, time.Now()) {
				seconds, err := strconv.ParseFloat(s.Values[len(s.Values)-1][1].(string), 64)
				if err != nil {
					t.Fatal(err)
				}
				if seconds > 0 { // a first sample at the start itself has none
					began = append(began, time.UnixMilli(int64(1000*seconds)))
				}
			}
			return len(began) > 0
		})
		for _, at := range began {
			if since := at.Sub(before); since < -time.Second || since > waitLimit {
				t.Errorf("%s counts since %v after the start of the program", metric, since)
			}
		}
	}
}
