//go:build unix

package otlp

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"sockwatch/agent/metric"
	"sockwatch/agent/plugin"
	"sockwatch/agent/plugin/plugintest/servertest"
)

func prometheus(t testing.TB, config string) *servertest.Server {
	t.Helper()
	return servertest.Prometheus3(t, config, "--web.enable-otlp-receiver")
}

// outputTo returns an output whose URLs are those of real servers; nil: none.
func outputTo(t testing.TB, prometheus, victoriaLogs *servertest.Server) *output {
	t.Helper()
	out, _ := newOutput(t, nil, nil, func(o *Options) {
		if prometheus != nil {
			o.MetricsURL = prometheus.URL + "/api/v1/otlp/v1/metrics"
		}
		if victoriaLogs != nil {
			o.LogsURL = victoriaLogs.URL + "/insert/opentelemetry/v1/logs"
		}
	})
	out.UseDescs(testDescs)
	return out
}

func seconds3(at time.Time) string { return fmt.Sprintf("%.3f", float64(at.UnixMilli())/1000) }

// pushUntilStored repeats a Push as the agent does.
func pushUntilStored(t testing.TB, out *output, records [][]byte) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		err := out.Push(t.Context(), records)
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// The names of metrics and labels are those of the page, whatever strategy Prometheus uses to
// translate names, and two hosts stay apart.
func TestPrometheusStoresTheNamesOfThePage(t *testing.T) {
	for _, strategy := range []string{"", "UnderscoreEscapingWithSuffixes", "UnderscoreEscapingWithoutSuffixes", "NoUTF8EscapingWithSuffixes", "NoTranslation"} {
		t.Run("strategy "+strategy, func(t *testing.T) {
			t.Parallel()
			config := ""
			if strategy != "" {
				config = "otlp: {translation_strategy: " + strategy + "}"
			}
			server := prometheus(t, config)
			now := time.Now()
			var want []map[string]string
			for _, host := range []string{"db1", "web1"} {
				out, _ := newOutput(t, nil, nil, func(o *Options) {
					o.MetricsURL, o.ServiceInstanceID = server.URL+"/api/v1/otlp/v1/metrics", host
				})
				out.UseDescs(testDescs)
				var points []metric.Point
				for _, d := range testDescs {
					p := metric.Point{Name: d.Name, Time: now, Start: now.Add(-time.Hour), Tags: metric.NewTags("host", host, "process", "é \"q\""), Fields: []metric.Field{{Key: d.Field, Value: metric.Int(1)}}}
					points = append(points, p)
					want = append(want, map[string]string{"__name__": d.Name + "_" + d.Field, "host": host, "process": "é \"q\"", "instance": host, "job": "sockwatch"})
				}
				pushUntilStored(t, out, encode(t, out, points...))
			}
			byName := func(a, b map[string]string) int {
				return strings.Compare(a["host"]+a["__name__"], b["host"]+b["__name__"])
			}
			slices.SortFunc(want, byName)
			servertest.Until(t, want, func() (got []map[string]string) {
				for _, s := range server.Query(t, "query", "query", `{job="sockwatch",__name__!="target_info"}`, "time", seconds3(now)) {
					got = append(got, s.Metric)
				}
				slices.SortFunc(got, byName)
				return got
			})
			if info := server.Query(t, "query", "query", "target_info", "time", seconds3(now)); len(info) != 2 || info[0].Metric["host_name"]+info[0].Metric["host.name"] != "web1" {
				t.Errorf("target_info: %v", info)
			}
		})
	}
}

// A query of a range with a step of one second shows where a series ends: without the flag,
// the last value would be shown for five minutes.
func TestAnEndedSeriesEndsAtOnce(t *testing.T) {
	t.Parallel()
	server := prometheus(t, "")
	out := outputTo(t, server, nil)
	start := time.Now().Add(-time.Minute).Truncate(time.Second)
	p := metric.Point{Name: "tcp_listen_events", Start: start, Fields: []metric.Field{{Key: "total", Value: metric.Int(1)}}}
	g := metric.Point{Name: "tcp_listen", Fields: []metric.Field{{Key: "backlog", Value: metric.Int(1)}}}
	for _, second := range []int{0, 10, 30} {
		at := start.Add(time.Duration(second) * time.Second)
		p.Time, g.Time = at, at
		pushUntilStored(t, out, encode(t, out, p, g))
		if second != 10 {
			continue
		}
		for _, series := range []*metric.Point{&p, &g} {
			record, err := out.EncodeEnded(nil, series, start.Add(15*time.Second))
			if err != nil {
				t.Fatal(err)
			}
			pushUntilStored(t, out, [][]byte{record})
		}
	}
	var want []int // the seconds at which the series has a value
	for s := range 41 {
		if s < 15 || s >= 30 {
			want = append(want, s)
		}
	}
	for _, name := range []string{"tcp_listen_events_total", "tcp_listen_backlog"} {
		servertest.Until(t, want, func() (got []int) {
			for _, s := range server.Query(t, "query_range", "query", name, "start", seconds3(start), "end", seconds3(start.Add(40*time.Second)), "step", "1") {
				for _, v := range s.Values {
					got = append(got, int(v[0].(float64)-float64(start.Unix())))
				}
			}
			return got
		})
	}
}

// While either server is stopped, points and events are pushed. After it is back, every point
// has arrived, and every event exactly once, by its history and sequence.
func TestNothingIsMissingAfterOutages(t *testing.T) {
	t.Parallel()
	metrics, logs := prometheus(t, ""), servertest.VictoriaLogs(t)
	out := outputTo(t, metrics, logs)
	start := time.Now().Add(-2 * time.Minute).Truncate(time.Second)
	var queue [][]byte
	n := 0
	gather := func() {
		at := start.Add(time.Duration(n) * time.Second)
		p, e := gauge("x", int64(n), "host", "web1"), event(int64(n))
		p.Time, e.Time = at, at.Add(time.Nanosecond)
		queue = append(queue, encode(t, out, e, p)...)
		n++
	}
	push := func() {
		if out.Push(t.Context(), queue) == nil {
			queue = nil
		}
	}
	for _, stopped := range []*servertest.Server{metrics, logs} {
		for range 5 {
			gather()
			push()
		}
		stopped.Shutdown()
		for range 5 {
			gather()
			push()
		}
		if len(queue) == 0 {
			t.Fatalf("Push has not failed while %s was stopped", stopped.URL)
		}
		stopped.Start()
	}
	gather()
	pushUntilStored(t, out, queue)

	var values, sequences []string
	for i := range n {
		values = append(values, fmt.Sprint(i))
		sequences = append(sequences, fmt.Sprint("h1 ", i))
	}
	servertest.Until(t, values, func() (got []string) {
		for _, s := range metrics.Query(t, "query", "query", "x[5m]", "time", seconds3(start.Add(2*time.Minute))) {
			for _, v := range s.Values {
				got = append(got, v[1].(string))
			}
		}
		return got
	})
	servertest.Until(t, sequences, func() (got []string) {
		for _, r := range logRows(t, logs, "*") {
			got = append(got, r["sockwatch.history"]+" "+r["sockwatch.sequence"])
		}
		slices.SortFunc(got, func(a, b string) int { return len(a)*100 - len(b)*100 + strings.Compare(a, b) })
		return got
	})
}

// logRows returns the answer of VictoriaLogs to a query.
func logRows(t testing.TB, server *servertest.Server, q string) (rows []map[string]string) {
	t.Helper()
	server.Get(t, "/internal/force_flush")
	for line := range strings.Lines(string(server.Get(t, "/select/logsql/query", "query", q))) {
		var row map[string]string
		if err := json.Unmarshal([]byte(line), &row); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		rows = append(rows, row)
	}
	return rows
}

// An event is found by its name and its attributes, and reads like `sockwatch watch`.
func TestVictoriaLogsStoresEvents(t *testing.T) {
	t.Parallel()
	server := servertest.VictoriaLogs(t)
	out := outputTo(t, nil, server)
	e := event(7)
	e.Time = time.Now()
	pushUntilStored(t, out, encode(t, out, e))
	want := []map[string]string{{
		"_msg": "opened 0.0.0.0:80 public nginx[24] www-data", "_time": e.Time.UTC().Format("2006-01-02T15:04:05.999999999Z"),
		"event_name": "sockwatch.tcp_listen.opened", "severity_number": "13", "severity_text": "WARN", "scope.name": "sockwatch", "scope.version": "unknown",
		"host.name": "web1", "service.name": "sockwatch", "service.instance.id": "web1",
		"network.transport": "tcp", "network.local.address": "0.0.0.0", "network.local.port": "80", "process.executable.name": "nginx", "process.owner": "www-data", "process.pid": "24",
		"sockwatch.event": "opened", "sockwatch.exposure": "public", "sockwatch.family": "ipv4", "sockwatch.history": "h1", "sockwatch.sequence": "7",
	}}
	servertest.Until(t, want, func() []map[string]string {
		rows := logRows(t, server, `event_name:="sockwatch.tcp_listen.opened" and network.local.port:80`)
		for _, r := range rows {
			delete(r, "_stream")
			delete(r, "_stream_id")
		}
		return rows
	})
}

// The sources of an agent gather at nearly the same time, and the one that is queued last may
// have begun first. If its points are in a request of their own, the series that Prometheus
// makes of the resource is out of order.
func TestPrometheusStoresPointsOlderThanTheLastRequest(t *testing.T) {
	t.Parallel()
	server := prometheus(t, "")
	out := outputTo(t, server, nil)
	now := time.Now().Truncate(time.Second)
	for i, name := range []string{"a", "b", "c"} {
		p := gauge(name, 1)
		p.Time = now.Add(-time.Duration(i) * time.Second)
		pushUntilStored(t, out, encode(t, out, p))
	}
	servertest.Until(t, []string{"a", "b", "c"}, func() (names []string) {
		for _, s := range server.Query(t, "query", "query", `{job="sockwatch",__name__!="target_info"}`, "time", seconds3(now)) {
			names = append(names, s.Metric["__name__"])
		}
		slices.Sort(names)
		return names
	})
}

// After a Push without an answer, Prometheus may have stored the records that are pushed again.
// Those that are queued behind them are not lost.
func TestPrometheusStoresWhatFollowsRepeatedPoints(t *testing.T) {
	t.Parallel()
	server := prometheus(t, "")
	now := time.Now().Truncate(time.Second)
	records := func(out *output, n int) (all [][]byte) {
		for i := range n {
			p := gauge("x", int64(i))
			p.Time = now.Add(time.Duration(i-10) * time.Second)
			all = append(all, encode(t, out, p)...)
		}
		return all
	}
	before := outputTo(t, server, nil)
	pushUntilStored(t, before, records(before, 3))
	out := outputTo(t, server, nil) // after a restart that has forgotten this
	err := out.Push(t.Context(), records(out, 6))
	rejected, ok := errors.AsType[*plugin.RejectedError](err)
	if !ok || !slices.Equal(slices.Sorted(maps.Keys(rejected.Records)), []int{0, 1}) {
		t.Errorf("Push = %v, want the first two records rejected", err)
	}
	servertest.Until(t, []string{"0", "1", "2", "3", "4", "5"}, func() (got []string) {
		for _, s := range server.Query(t, "query", "query", "x[1m]", "time", seconds3(now)) {
			for _, v := range s.Values {
				got = append(got, v[1].(string))
			}
		}
		return got
	})
	if out.metrics.unanswered > 0 {
		t.Error("the output expects further repetitions")
	}
}

// Samples that Prometheus can never store are rejected once, with its words, and do not keep
// the others.
func TestPrometheusRefusesWhatIsOutOfOrder(t *testing.T) {
	t.Parallel()
	server := prometheus(t, "")
	out := outputTo(t, server, nil)
	now := time.Now().Truncate(time.Second)
	at := func(offset time.Duration) [][]byte {
		p := gauge("x", 1)
		p.Time = now.Add(offset)
		return encode(t, out, p)
	}
	pushUntilStored(t, out, at(0))
	err := out.Push(t.Context(), at(-time.Minute))
	if want := server.URL + ": 400 Bad Request: out of order sample"; err == nil || err.Error() != want {
		t.Errorf("Push = %v, want %s", err, want)
	}
	pushUntilStored(t, out, at(0)) // the same sample again
}
