//go:build unix

package influxdb

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sockwatch/agent/metric"
	"sockwatch/agent/plugin/plugintest/servertest"
)

// get returns the body of a GET that is answered with 200.
func get(t testing.TB, url string) []byte {
	t.Helper()
	return do(t, http.MethodGet, url, http.StatusOK)
}

func do(t testing.TB, method, url string, want int) []byte {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != want {
		t.Fatalf("%s %s: %s, %s, %v", method, url, resp.Status, body, err)
	}
	return body
}

// query runs InfluxQL and returns the rows of its only statement, each as the
// values of its columns by name.
func query(t testing.TB, server *servertest.Server, q string) []map[string]any {
	t.Helper()
	body := do(t, http.MethodPost, server.URL+"/query?db=sockwatch&epoch=ns&q="+url.QueryEscape(q), http.StatusOK)
	var answer struct {
		Results []struct {
			Error  string
			Series []struct {
				Columns []string
				Values  [][]any
			}
		}
	}
	d := json.NewDecoder(strings.NewReader(string(body)))
	d.UseNumber()
	if err := d.Decode(&answer); err != nil || len(answer.Results) != 1 || answer.Results[0].Error != "" {
		t.Fatalf("%s: %s, %v", q, body, err)
	}
	var rows []map[string]any
	for _, s := range answer.Results[0].Series {
		for _, v := range s.Values {
			row := map[string]any{}
			for i, c := range s.Columns {
				if v[i] != nil {
					row[c] = v[i]
				}
			}
			rows = append(rows, row)
		}
	}
	return rows
}

var at = time.Date(2026, 11, 22, 10, 0, 0, 123456789, time.UTC)

func listener(process string) metric.Point {
	return metric.Point{
		Name: "tcp_listen", Time: at, Tags: metric.NewTags("address", "::", "port", "443", "process", process),
		Fields: []metric.Field{{Key: "pid", Value: metric.Int(31337)}, {Key: "backlog", Value: metric.Uint(1 << 63)},
			{Key: "start", Value: metric.Float(0.5)}, {Key: "up", Value: metric.Bool(true)}, {Key: "exe", Value: metric.String(`/bin/"x" \y`)}},
	}
}

// TestInfluxdReturnsWhatWasWritten writes hostile names to a real influxd: each is
// one series, and what a query returns is what line protocol's decoder reads.
func TestInfluxdReturnsWhatWasWritten(t *testing.T) {
	server := servertest.Influxd(t)
	query(t, server, "CREATE DATABASE sockwatch")
	out, _ := newOutput(t, v1(server.URL))

	names := map[string]string{ // process: as the server stores it
		"nginx": "nginx", "a b,c=d": "a b,c=d", `a\x0ab`: `a\x0ab`, "a\nb c=1 2": `a\X0Ab c=1 2`, `a\`: `a\X5C`,
		`a\,b=c`: `a\X5C,b=c`, `a\ f=1`: `a\X5C f=1`, `a\\b`: `a\X5C\b`, `"q"`: `"q"`, "#": "#", "é\u2028": "é\u2028", "\x7f": `\X7F`,
	}
	var points []metric.Point
	var want []map[string]any
	for process, stored := range names {
		points = append(points, listener(process))
		want = append(want, map[string]any{
			"time": json.Number("1795341600123456789"), "address": "::", "port": "443", "process": stored,
			"pid": json.Number("31337"), "backlog": json.Number("9223372036854775807"), "start": json.Number("0.5"),
			"up": true, "exe": `/bin/"x" \y`,
		})
	}
	if err := out.Push(t.Context(), encode(t, out, points...)); err != nil {
		t.Fatal(err)
	}
	got := query(t, server, "SELECT * FROM tcp_listen")
	for _, rows := range [][]map[string]any{want, got} {
		slices.SortFunc(rows, func(a, b map[string]any) int {
			return strings.Compare(fmt.Sprint(a["process"]), fmt.Sprint(b["process"]))
		})
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// TestFieldKeysStayApart has keys that InfluxDB would read as equal if they were
// written unescaped.
func TestFieldKeysStayApart(t *testing.T) {
	server := servertest.Influxd(t)
	query(t, server, "CREATE DATABASE sockwatch")
	out, _ := newOutput(t, v1(server.URL))
	keys := map[string]string{ // key: as the server stores it
		`a"`: `a"`, `a\"`: `a\X5C"`, `a,`: `a,`, `a\,`: `a\X5C,`, `a `: `a `, `a\ `: `a\X5C `, `a=`: `a=`, `a\=`: `a\X5C=`, `a\`: `a\X5C`, `"a`: `"a`,
	}
	point := metric.Point{Name: "m", Time: at}
	want := map[string]any{"time": json.Number("1795341600123456789")}
	for i, key := range slices.Sorted(maps.Keys(keys)) {
		point.Fields = append(point.Fields, metric.Field{Key: key, Value: metric.Int(int64(i))})
		want[keys[key]] = json.Number(fmt.Sprint(i))
	}
	if err := out.Push(t.Context(), encode(t, out, point)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]map[string]any{want}, query(t, server, "SELECT * FROM m")); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// TestVictoriaMetricsReturnsWhatWasWritten writes by the 2.x path.
func TestVictoriaMetricsReturnsWhatWasWritten(t *testing.T) {
	server := servertest.VictoriaMetrics(t)
	o := Defaults()
	o.URLs, o.Organization, o.Bucket, o.Token = []string{server.URL}, "o", "b", "t"
	out, _ := newOutput(t, o)
	processes := []string{"nginx", "a b,c=d", `a\x0ab`, "a\nb c=1 2", `a\`, `a\,b=c`, `a\\b`}
	var points []metric.Point
	for _, p := range processes {
		points = append(points, listener(p))
	}
	if err := out.Push(t.Context(), encode(t, out, points...)); err != nil {
		t.Fatal(err)
	}
	want := map[string]float64{}
	for _, p := range []string{"nginx", "a b,c=d", `a\x0ab`, `a\X0Ab c=1 2`, `a\X5C`, `a\X5C,b=c`, `a\X5C\b`} {
		want[p] = 31337
	}
	got := map[string]float64{}
	for _, series := range exported(t, server, "tcp_listen_pid", len(want)) {
		if !slices.Equal(series.Timestamps, []int64{at.UnixMilli()}) || series.Metric["address"] != "::" || series.Metric["port"] != "443" {
			t.Errorf("series %v at %v", series.Metric, series.Timestamps)
		}
		got[series.Metric["process"]] = series.Values[0]
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// A vmSeries is a series as VictoriaMetrics exports it.
type vmSeries struct {
	Metric     map[string]string
	Values     []float64
	Timestamps []int64
}

// exported returns the series of a name. It asks until there are that many points, or
// until a timeout that only a fault exceeds.
func exported(t testing.TB, server *servertest.Server, name string, points int) []vmSeries {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		get(t, server.URL+"/internal/force_flush")
		var all []vmSeries
		n := 0
		for line := range strings.Lines(string(get(t, server.URL+"/api/v1/export?match[]="+name+"&start=0&end=2100-01-01T00:00:00Z"))) {
			var s vmSeries
			if err := json.Unmarshal([]byte(line), &s); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			all = append(all, s)
			n += len(s.Values)
		}
		if n >= points || time.Now().After(deadline) {
			return all
		}
	}
}
