//go:build unix

package remotewrite

import (
	"encoding/json"
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"sockwatch/agent/metric"
	"sockwatch/agent/plugin/plugintest/servertest"
)

// A realServer is a kind of server, and how an output reaches it.
type realServer struct {
	name   string
	start  func(t testing.TB) *servertest.Server
	path   string
	speaks string // the version of the protocol that the output finds
}

var realServers = []realServer{
	{"Prometheus 2", func(t testing.TB) *servertest.Server {
		return servertest.Prometheus(t, "", "--web.enable-remote-write-receiver")
	}, "/api/v1/write", version1},
	{"Prometheus 3", func(t testing.TB) *servertest.Server {
		return servertest.Prometheus3(t, "", "--web.enable-remote-write-receiver")
	}, "/api/v1/write", version2},
	{"VictoriaMetrics", func(t testing.TB) *servertest.Server { return servertest.VictoriaMetrics(t) }, "/api/v1/write", version1},
}

// onEachServer runs a test against each kind of server.
func onEachServer(t *testing.T, test func(t *testing.T, of realServer, server *servertest.Server)) {
	for _, kind := range realServers {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			test(t, kind, kind.start(t))
		})
	}
}

func seconds(at time.Time) string { return fmt.Sprintf("%.3f", float64(at.UnixMilli())/1000) }

// TestServersReturnWhatWasWritten writes hostile names and values.
func TestServersReturnWhatWasWritten(t *testing.T) {
	t.Parallel()
	onEachServer(t, func(t *testing.T, of realServer, server *servertest.Server) {
		out, _ := newTestOutput(t, server.URL+of.path, nil)
		out.UseDescs(testDescs)
		at := time.Now().Truncate(time.Second)
		processes := []string{"nginx", "a b,c=d", "a\nb", `a\`, `\\"`, `"q"`, "{x}", "é世界", "\x7f", " "}
		want := map[string]string{}
		var records [][]byte
		for i, p := range processes {
			point := metric.Point{
				Name: "tcp_listen", Time: at, Start: at.Add(-time.Hour), Tags: metric.NewTags("Zone", "z", "_x", "y", "process", p, "a-b", "c"),
				Fields: []metric.Field{{Key: "backlog", Value: metric.Int(int64(i))}, {Key: "drops_total", Value: metric.Float(0.25)}, {Key: "exe", Value: metric.String("x")}},
			}
			record, err := out.Encode(nil, &point)
			if err != nil {
				t.Fatal(err)
			}
			records = append(records, record)
			labels := map[string]string{"__name__": "tcp_listen_backlog", "Zone": "z", "_x": "y", "process": p, "a_b": "c"}
			want[fmt.Sprint(labels)] = fmt.Sprint(i)
			labels["__name__"] = "tcp_listen_drops_total"
			want[fmt.Sprint(labels)] = "0.25"
		}
		for range 2 { // delivery is at least once
			out.collector = newCollector()
			if err := out.Push(t.Context(), records); err != nil {
				t.Fatal(err)
			}
		}
		servertest.Until(t, want, func() map[string]string {
			got := map[string]string{}
			for _, s := range server.Query(t, "query", "query", `{__name__=~"tcp_listen.*"}`, "time", seconds(at)) {
				got[fmt.Sprint(s.Metric)] = s.Value[1].(string)
			}
			return got
		})
		if got := map[bool]string{true: version2, false: version1}[len(out.speaks1) == 0]; got != of.speaks {
			t.Errorf("the output speaks %s, want %s", got, of.speaks)
		}
	})
}

// TestAnEndedSeriesEndsAtOnce asks for a range with a step of one second: without a stale
// marker, the last value would be shown for five minutes.
func TestAnEndedSeriesEndsAtOnce(t *testing.T) {
	t.Parallel()
	onEachServer(t, func(t *testing.T, of realServer, server *servertest.Server) {
		out, _ := newTestOutput(t, server.URL+of.path, nil)
		start := time.Now().Add(-time.Minute).Truncate(time.Second)
		push := func(record []byte, err error) {
			t.Helper()
			if err == nil {
				err = out.Push(t.Context(), [][]byte{record})
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		p := metric.Point{Name: "m", Fields: []metric.Field{{Key: "value", Value: metric.Int(1)}}}
		for _, second := range []int{0, 10, 30} {
			p.Time = start.Add(time.Duration(second) * time.Second)
			push(out.Encode(nil, &p))
			if second == 10 {
				push(out.EncodeEnded(nil, &p, start.Add(15*time.Second)))
			}
		}
		var want []int // the seconds at which the series has a value
		for s := range 41 {
			if s < 15 || s >= 30 {
				want = append(want, s)
			}
		}
		servertest.Until(t, want, func() (got []int) {
			for _, s := range server.Query(t, "query_range", "query", "m", "start", seconds(start), "end", seconds(start.Add(40*time.Second)), "step", "1") {
				for _, v := range s.Values {
					got = append(got, int(v[0].(float64)-float64(start.Unix())))
				}
			}
			return got
		})
	})
}

// TestQueuedRecordsArriveAfterAnOutage stops the server, and repeats a Push until the server
// is back, as the agent does.
func TestQueuedRecordsArriveAfterAnOutage(t *testing.T) {
	t.Parallel()
	onEachServer(t, func(t *testing.T, of realServer, server *servertest.Server) {
		out, _ := newTestOutput(t, server.URL+of.path, nil)
		start := time.Now().Add(-time.Minute).Truncate(time.Second)
		records := func(from, to int) (all [][]byte) {
			for i := from; i < to; i++ {
				all = append(all, fmt.Appendf(nil, `%d {} m=g%d`, start.Add(time.Duration(i)*time.Second).UnixMilli(), i))
			}
			return all
		}
		if err := out.Push(t.Context(), records(0, 3)); err != nil {
			t.Fatal(err)
		}
		server.Shutdown()
		for range 2 {
			if err := out.Push(t.Context(), records(3, 6)); kind(err) != "kept" {
				t.Fatalf("with the server down: %s: %v", kind(err), err)
			}
		}
		server.Start()
		servertest.Until(t, "stored", func() string { return kind(out.Push(t.Context(), records(3, 9))) })
		servertest.Until(t, []string{"0", "1", "2", "3", "4", "5", "6", "7", "8"}, func() (got []string) {
			for _, s := range server.Query(t, "query", "query", "m[2m]", "time", seconds(start.Add(time.Minute))) {
				for _, v := range s.Values {
					got = append(got, v[1].(string))
				}
			}
			return got
		})
	})
}

// TestPrometheus2StoresWhatFollowsARepeatedRequest pushes stored records again after a
// restart of the output, together with new ones: Prometheus refuses the whole request.
func TestPrometheus2StoresWhatFollowsARepeatedRequest(t *testing.T) {
	t.Parallel()
	server := servertest.Prometheus(t, "", "--web.enable-remote-write-receiver")
	start := time.Now().Add(-time.Minute).Truncate(time.Second)
	record := func(i int) string {
		return fmt.Sprintf(`%d {} m=g%d`, start.Add(time.Duration(i)*time.Second).UnixMilli(), i)
	}
	before, _ := newTestOutput(t, server.URL+"/api/v1/write", nil)
	if err := pushText(t, before, record(0), record(1), record(2)); err != nil {
		t.Fatal(err)
	}
	out, _ := newTestOutput(t, server.URL+"/api/v1/write", nil)
	err := pushText(t, out, record(0), record(1), record(2), record(3), record(4))
	want := server.URL + ": 400 Bad Request: out of order sample (and 1 more rejected records)"
	if kind(err) != "rejected [0 1], others stored" || err.Error() != want {
		t.Errorf("%s: %v, want %s", kind(err), err, want)
	}
	servertest.Until(t, []string{"0", "1", "2", "3", "4"}, func() (got []string) {
		for _, s := range server.Query(t, "query", "query", "m[2m]", "time", seconds(start.Add(time.Minute))) {
			for _, v := range s.Values {
				got = append(got, v[1].(string))
			}
		}
		return got
	})
}

// TestRefusedTimesAreFinal makes each server refuse samples because of their time: the answer
// must be recognized, so that nothing is sent again.
func TestRefusedTimesAreFinal(t *testing.T) {
	t.Parallel()
	const receiver = "--web.enable-remote-write-receiver"
	const window = "storage:\n  tsdb:\n    out_of_order_time_window: 10m\n"
	now := time.Now()
	record := func(at time.Time, value int) string {
		return fmt.Sprintf(`%d {} m=g%d n=g%d`, at.UnixMilli(), value, value)
	}
	for _, test := range []struct {
		name   string
		start  func(t testing.TB) *servertest.Server
		second string
		want   string
		text   string
	}{
		{
			name: "Prometheus 2, out of order", start: func(t testing.TB) *servertest.Server { return servertest.Prometheus(t, "", receiver) },
			second: record(now.Add(-time.Second), 2), want: "rejected [0], others stored", text: "400 Bad Request: out of order sample",
		},
		{
			name: "Prometheus 2, duplicate", start: func(t testing.TB) *servertest.Server { return servertest.Prometheus(t, "", receiver) },
			second: record(now, 2), want: "rejected [0], others stored", text: "400 Bad Request: duplicate sample for timestamp",
		},
		{
			name: "Prometheus 2, old", start: func(t testing.TB) *servertest.Server { return servertest.Prometheus(t, "", receiver) },
			second: record(now.Add(-24*time.Hour), 2), want: "rejected [0], others stored", text: "400 Bad Request: out of bounds",
		},
		{
			name: "Prometheus 2 with a window, older", start: func(t testing.TB) *servertest.Server { return servertest.Prometheus(t, window, receiver) },
			second: record(now.Add(-time.Hour), 2), want: "rejected [0], others stored", text: "500 Internal Server Error: too old sample",
		},
		{
			name: "Prometheus 3, out of order", start: func(t testing.TB) *servertest.Server { return servertest.Prometheus3(t, "", receiver) },
			second: record(now.Add(-time.Second), 2), want: "rejected [0], others stored", text: "400 Bad Request: out of order sample for series {",
		},
		{
			name: "Prometheus 3, duplicate", start: func(t testing.TB) *servertest.Server { return servertest.Prometheus3(t, "", receiver) },
			second: record(now, 2), want: "rejected [0], others stored", text: "400 Bad Request: duplicate sample for timestamp",
		},
		{
			name: "Prometheus 3, one of two", start: func(t testing.TB) *servertest.Server { return servertest.Prometheus3(t, "", receiver) },
			second: strings.Replace(record(now.Add(-time.Second), 2), "n=", "other=", 1), want: "partial 1", text: "400 Bad Request: out of order sample for series {",
		},
		{
			name: "Prometheus 3, future", start: func(t testing.TB) *servertest.Server { return servertest.Prometheus3(t, "", receiver) },
			second: record(now.Add(time.Hour), 2), want: "rejected [0], others stored", text: "400 Bad Request: out of bounds: timestamp is too far in the future",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			server := test.start(t)
			out, _ := newTestOutput(t, server.URL+"/api/v1/write", nil)
			if err := pushText(t, out, record(now, 1)); err != nil {
				t.Fatal(err)
			}
			out.collector = newCollector() // else the output itself would reject a duplicate
			err := pushText(t, out, test.second)
			if kind(err) != test.want || !strings.HasPrefix(err.Error(), server.URL+": "+test.text) {
				t.Errorf("%s: %v\nwant %s: %s", kind(err), err, test.want, test.text)
			}
		})
	}
}

// TestPrometheus3KeepsMetadataAndStartTimes has features by which the server shows them.
func TestPrometheus3KeepsMetadataAndStartTimes(t *testing.T) {
	t.Parallel()
	server := servertest.Prometheus3(t, "", "--web.enable-remote-write-receiver", "--enable-feature=type-and-unit-labels,st-storage,use-start-timestamps,promql-experimental-functions,metadata-wal-records")
	out, _ := newTestOutput(t, server.URL+"/api/v1/write", nil)
	out.UseDescs(testDescs)
	at := time.Now().Truncate(time.Second)
	p := metric.Point{
		Name: "tcp_listen", Time: at, Start: at.Add(-90 * time.Second),
		Fields: []metric.Field{{Key: "backlog", Value: metric.Int(1)}, {Key: "drops_total", Value: metric.Int(2)}, {Key: "age_seconds", Value: metric.Int(3)}, {Key: "up", Value: metric.Bool(true)}},
	}
	record, err := out.Encode(nil, &p)
	if err == nil {
		err = out.Push(t.Context(), [][]byte{record})
	}
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"tcp_listen_age_seconds map[__type__:gauge __unit__:seconds]", "tcp_listen_backlog map[__type__:gauge]",
		"tcp_listen_drops_total map[__type__:counter]", "tcp_listen_up map[]",
	}
	servertest.Until(t, want, func() (got []string) {
		for _, s := range server.Query(t, "query", "query", `{__name__=~"tcp_listen.*"}`, "time", seconds(at)) {
			name := s.Metric["__name__"]
			delete(s.Metric, "__name__")
			got = append(got, fmt.Sprint(name, " ", maps.Collect(maps.All(s.Metric))))
		}
		slices.Sort(got)
		return got
	})
	servertest.Until(t, []string{fmt.Sprint(p.Start.Unix())}, func() (got []string) {
		for _, s := range server.Query(t, "query", "query", "start_timestamp(tcp_listen_drops_total)", "time", seconds(at)) {
			got = append(got, s.Value[1].(string))
		}
		return got
	})
}

// TestServersThatAcceptOneVersion has a Prometheus 3 that answers 415 to one of the versions.
func TestServersThatAcceptOneVersion(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		accepts string
		version string
		want    string
	}{
		{name: "only 1.0", accepts: "prometheus.WriteRequest", version: auto, want: "stored"},
		{name: "only 1.0, but 2.0 is set", accepts: "prometheus.WriteRequest", version: version2, want: "kept"},
		{name: "only 2.0", accepts: "io.prometheus.write.v2.Request", version: auto, want: "stored"},
		{name: "only 2.0, but 1.0 is set", accepts: "io.prometheus.write.v2.Request", version: version1, want: "kept"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			server := servertest.Prometheus3(t, "", "--web.enable-remote-write-receiver", "--web.remote-write-receiver.accepted-protobuf-messages="+test.accepts)
			out, _ := newTestOutput(t, server.URL+"/api/v1/write", useVersion(test.version))
			err := pushText(t, out, fmt.Sprintf("%d {} m=g1", time.Now().UnixMilli()))
			if got := kind(err); got != test.want {
				t.Errorf("outcome %s, want %s: %v", got, test.want, err)
			}
			if err != nil && !strings.Contains(err.Error(), "415 Unsupported Media Type") {
				t.Errorf("error %v", err)
			}
		})
	}
}

// TestPrometheusStoresAnOldBacklogWithAWindow pushes the backlog of one host after the newest
// sample of another, as after a long outage.
func TestPrometheusStoresAnOldBacklogWithAWindow(t *testing.T) {
	t.Parallel()
	const receiver = "--web.enable-remote-write-receiver"
	const window = "storage:\n  tsdb:\n    out_of_order_time_window: 24h\n"
	for name, start := range map[string]func(testing.TB) *servertest.Server{
		"Prometheus 2": func(t testing.TB) *servertest.Server { return servertest.Prometheus(t, window, receiver) },
		"Prometheus 3": func(t testing.TB) *servertest.Server { return servertest.Prometheus3(t, window, receiver) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := start(t)
			out, _ := newTestOutput(t, server.URL+"/api/v1/write", nil)
			now := time.Now()
			if err := pushText(t, out, fmt.Sprintf(`%d {host="a"} m=g0`, now.UnixMilli())); err != nil {
				t.Fatal(err)
			}
			var backlog, want []string
			for i := range 5 {
				backlog = append(backlog, fmt.Sprintf(`%d {host="b"} m=g%d`, now.Add(time.Duration(i-10)*time.Hour).UnixMilli(), i))
				want = append(want, fmt.Sprint(i))
			}
			if err := pushText(t, out, backlog...); err != nil {
				t.Fatal(err)
			}
			servertest.Until(t, want, func() (got []string) {
				for _, s := range server.Query(t, "query", "query", `m{host="b"}[12h]`, "time", seconds(now)) {
					for _, v := range s.Values {
						got = append(got, v[1].(string))
					}
				}
				return got
			})
		})
	}
}

// TestVictoriaMetricsKeepsMetadata needs VictoriaMetrics 1.130 or later, which Debian does not
// have. Prometheus keeps only the metadata of what it scrapes.
func TestVictoriaMetricsKeepsMetadata(t *testing.T) {
	t.Parallel()
	help, err := exec.CommandContext(t.Context(), servertest.Binary(t, "victoria-metrics"), "-help").CombinedOutput()
	if !strings.Contains(string(help), "-enableMetadata") {
		t.Skipf("this VictoriaMetrics keeps no metadata: %v", err)
	}
	server := servertest.VictoriaMetrics(t, "-enableMetadata")
	out, _ := newTestOutput(t, server.URL+"/api/v1/write", nil)
	out.UseDescs(testDescs)
	if err := pushText(t, out, fmt.Sprintf(`%d {} tcp_listen_backlog=g1`, time.Now().UnixMilli())); err != nil {
		t.Fatal(err)
	}
	type metadata struct{ Type, Help, Unit string }
	want := map[string][]metadata{
		"tcp_listen_backlog":     {{Type: "gauge", Help: "Length of the accept queue"}},
		"tcp_listen_drops_total": {{Type: "counter", Help: "Dropped connections"}},
		"tcp_listen_age_seconds": {{Type: "gauge", Help: "Age of the process", Unit: "seconds"}},
	}
	servertest.Until(t, want, func() map[string][]metadata {
		var answer struct{ Data map[string][]metadata }
		if err := json.Unmarshal(server.Get(t, "/api/v1/metadata"), &answer); err != nil {
			t.Fatal(err)
		}
		return answer.Data
	})
}
