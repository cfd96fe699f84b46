package otlp

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	metricspb "go.opentelemetry.io/proto/otlp/metrics/v1"
	"google.golang.org/protobuf/proto"

	"sockwatch/agent/metric"
)

// fill fills requests with all records, each up to a limit, and returns their bodies.
func fill(t testing.TB, r request, records [][]byte, limit int) (bodies [][]byte) {
	t.Helper()
	for i := 0; i < len(records); {
		r.reset()
		from := i
		for ; i < len(records); i++ {
			ok, err := r.add(records[i], limit)
			if err != nil {
				t.Fatal(err)
			}
			if !ok {
				break
			}
		}
		if i == from {
			t.Fatalf("record %d does not fit into an empty request", i)
		}
		bodies = append(bodies, r.body())
	}
	return bodies
}

// A request is as large as the limit allows, and never larger unless a single record is.
func TestRequestsFillTheLimit(t *testing.T) {
	res, err := newResource(&Options{ServiceName: "sockwatch"}, "web1")
	if err != nil {
		t.Fatal(err)
	}
	metrics, err := newMetricsRequest(res, testDocs())
	if err != nil {
		t.Fatal(err)
	}
	out, _ := newOutput(t, newReceiver(t), newReceiver(t), nil)
	out.UseDescs(testDescs)
	var points, events [][]byte
	for i := range 300 {
		points = append(points, encode(t, out, metric.Point{Name: "tcp_listen", Time: at, Tags: metric.NewTags("i", fmt.Sprint(i)), Fields: []metric.Field{
			{Key: "backlog", Value: metric.Int(int64(i))}, {Key: fmt.Sprint("f", i%50), Value: metric.Int(1)}}})...)
		events = append(events, encode(t, out, event(int64(i)))...)
	}
	for _, test := range []struct {
		name    string
		request request
		records [][]byte
		count   func(body []byte) int
	}{
		{"metrics", metrics, points, func(b []byte) int { return len(valuesOf(decodeMetrics(t, b))) / 2 }},
		{"logs", &logsRequest{resource: res}, events, func(b []byte) int { return len(logRecords(decodeLogs(t, b))) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, limit := range []int{1, 200, 1000, 5000, 1 << 20} {
				n := 0
				bodies := fill(t, test.request, test.records, limit)
				for i, b := range bodies {
					count := test.count(b)
					n += count
					if len(b) > limit && count > 1 {
						t.Errorf("limit %d: a request of %d bytes has %d records", limit, len(b), count)
					}
					if i < len(bodies)-1 && len(b) < limit*6/10 && limit >= 1000 {
						t.Errorf("limit %d: request %d of %d has only %d bytes", limit, i, len(bodies), len(b))
					}
				}
				if n != len(test.records) {
					t.Errorf("limit %d: %d of %d records sent", limit, n, len(test.records))
				}
			}
		})
	}
}

// Fields with the same name and different types or units are different metrics.
func TestMetricsOfDifferentTypesStayApart(t *testing.T) {
	out, _ := newOutput(t, newReceiver(t), nil, nil)
	var records [][]byte
	for i, d := range []metric.Desc{{}, {Type: metric.Counter}, {Unit: "bytes"}, {}} {
		d.Name, d.Field = "x", "value"
		out.UseDescs([]metric.Desc{d})
		records = append(records, encode(t, out, gauge("x", int64(i)))...)
	}
	var got []string
	for _, m := range metricsOf(newRequest(t, records...)) {
		text := fmt.Sprint(m.Unit, m.GetSum() != nil)
		for _, p := range dataPoints(m) {
			text += " " + valueText(p)
		}
		got = append(got, text)
	}
	if diff := cmp.Diff([]string{"false 0 3", "true 1", "Byfalse 2"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// The buffers of a request are reused: an earlier body must not change.
func TestABodyDoesNotChange(t *testing.T) {
	res, err := newResource(&Options{ServiceName: "sockwatch"}, "web1")
	if err != nil {
		t.Fatal(err)
	}
	r, err := newMetricsRequest(res, testDocs())
	if err != nil {
		t.Fatal(err)
	}
	out, _ := newOutput(t, newReceiver(t), nil, nil)
	first := fill(t, r, encode(t, out, gauge("x", 1), gauge("y", 2)), math.MaxInt)[0]
	before := string(first)
	fill(t, r, encode(t, out, gauge("z", 3), gauge("z", 4)), math.MaxInt)
	if string(first) != before {
		t.Error("the body has changed")
	}
}

// FuzzPoint compares the request of any point, decoded by the reference messages, with the
// point.
func FuzzPoint(f *testing.F) {
	f.Add("tcp_listen", "port", "80", "backlog", int64(3), 0.5, "connections", int64(atNano), int64(1))
	f.Add("", "\xff", "", "a\x00", int64(-1), math.NaN(), "{", int64(0), int64(-1))
	f.Add("9", "k", "é", "value", int64(0), math.Inf(-1), "seconds", int64(1), int64(2))
	f.Fuzz(func(t *testing.T, name, key, value, field string, n int64, x float64, unit string, at, start int64) {
		p := metric.Point{Name: name, Time: time.Unix(0, at), Start: time.Unix(0, start), Tags: metric.NewTags(key, value), Fields: []metric.Field{
			{Key: field, Value: metric.Int(n)}, {Key: field + "_x", Value: metric.Float(x)}, {Key: field + "_s", Value: metric.String(value)}}}
		if p.Check() != nil {
			return
		}
		var e pointEncoder
		e.use([]metric.Desc{{Name: name, Field: field, Type: metric.Counter, Unit: unit, Help: value}})
		record, err := e.append(nil, &p, recorded)
		if err != nil {
			if err != errTimeRange {
				return // a unit that is not UTF-8
			}
			if at > 0 {
				t.Fatalf("%v for %d", err, at)
			}
			return
		}
		metrics := metricsOf(newRequest(t, record))
		if len(metrics) == 0 || len(metrics) > 2 {
			t.Fatalf("%d metrics", len(metrics))
		}
		sum := metrics[0].GetSum()
		if sum == nil || !sum.IsMonotonic || sum.AggregationTemporality != metricspb.AggregationTemporality_AGGREGATION_TEMPORALITY_CUMULATIVE {
			t.Fatalf("the counter is %v", metrics[0])
		}
		counter := sum.DataPoints[0]
		if counter.GetAsInt() != n || counter.TimeUnixNano != uint64(at) {
			t.Errorf("counter %v, want %d at %d", counter, n, at)
		}
		if want := uint64(max(start, 0)); start <= at && counter.StartTimeUnixNano != want || start > at && counter.StartTimeUnixNano != 0 {
			t.Errorf("start %d, want %d", counter.StartTimeUnixNano, want)
		}
		for _, m := range metrics {
			a := dataPoints(m)[0].Attributes
			if len(a) != len(p.Tags) || len(a) == 1 && (a[0].Key != key || a[0].Value.GetStringValue() != value) {
				t.Errorf("attributes %v", a)
			}
		}
		if len(metrics) == 2 {
			if got := dataPoints(metrics[1])[0].GetAsDouble(); got != x && !(math.IsNaN(got) && math.IsNaN(x)) {
				t.Errorf("gauge %v, want %v", got, x)
			}
		}
	})
}

// FuzzRecord adds bytes that may come from a damaged queue.
func FuzzRecord(f *testing.F) {
	var e pointEncoder
	e.use(testDescs)
	p := metric.Point{Name: "tcp_listen", Time: at, Tags: metric.NewTags("a", "b"), Fields: []metric.Field{{Key: "backlog", Value: metric.Int(1)}}}
	record, err := e.append(nil, &p, recorded)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(record)
	f.Add(record[:20])
	f.Add([]byte("L\x0a\x00"))
	f.Add([]byte("M1234567812345678\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"))
	f.Fuzz(func(t *testing.T, record []byte) {
		before := string(record)
		r, err := newMetricsRequest(resource{}, testDocs())
		if err != nil {
			t.Fatal(err)
		}
		l := &logsRequest{}
		for _, request := range []request{r, l} {
			request.reset()
			ok, err := request.add(record, 100)
			if ok == (err != nil) {
				t.Fatalf("add = %v, %v", ok, err)
			}
			if n := len(request.body()); n > 5*len(record)+100 {
				t.Errorf("%d bytes become %d", len(record), n)
			}
		}
		if restamped, err := restamp(nil, record, at); err == nil && len(restamped) != len(record) {
			t.Errorf("restamp changes %d bytes to %d", len(record), len(restamped))
		}
		if string(record) != before {
			t.Error("the record has changed")
		}
	})
}

// listeners returns points like those of n listeners.
func listeners(n int) (points []metric.Point) {
	for i := range n {
		p := metric.Point{Name: "tcp_listen", Time: at, Tags: metric.NewTags("address", "0.0.0.0", "port", fmt.Sprint(i), "family", "ipv4", "process", "nginx", "user", "www-data",
			"unit", "nginx.service", "exposure", "public", "owner", "resolved", "host", "web1.example.org")}
		for _, key := range []string{"sockets", "processes", "pid", "backlog", "backlog_limit", "established", "uid", "first_seen_time_seconds", "process_start_time_seconds"} {
			p.Fields = append(p.Fields, metric.Field{Key: key, Value: metric.Int(int64(i))})
		}
		points = append(points, p)
	}
	return points
}

func BenchmarkEncode(b *testing.B) {
	var e pointEncoder
	points := listeners(100)
	var dst []byte
	b.ReportAllocs()
	for b.Loop() {
		dst = dst[:0]
		for i := range points {
			var err error
			if dst, err = e.append(dst, &points[i], recorded); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(len(dst))/float64(len(points)), "B/point")
}

func BenchmarkRestamp(b *testing.B) {
	var e pointEncoder
	points := listeners(100)
	var records [][]byte
	for i := range points {
		r, err := e.append(nil, &points[i], recorded)
		if err != nil {
			b.Fatal(err)
		}
		records = append(records, r)
	}
	var dst []byte
	b.ReportAllocs()
	for b.Loop() {
		dst = dst[:0]
		for _, r := range records {
			var err error
			if dst, err = restamp(dst, r, at); err != nil {
				b.Fatal(err)
			}
		}
	}
}

func BenchmarkRequest(b *testing.B) {
	var e pointEncoder
	points := listeners(100)
	var records [][]byte
	for i := range points {
		r, err := e.append(nil, &points[i], recorded)
		if err != nil {
			b.Fatal(err)
		}
		records = append(records, r)
	}
	r, err := newMetricsRequest(resource{}, testDocs())
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	size := 0
	for b.Loop() {
		size = len(fill(b, r, records, math.MaxInt)[0])
	}
	b.ReportMetric(float64(size)/float64(len(points)), "B/point")
}

// BenchmarkReference is what Encode and Request do together, by the reference messages.
func BenchmarkReference(b *testing.B) {
	points := listeners(100)
	b.ReportAllocs()
	for b.Loop() {
		metrics := map[string]*metricspb.Gauge{}
		scope := &metricspb.ScopeMetrics{}
		for i := range points {
			p := &points[i]
			var attributes []*commonpb.KeyValue
			for _, t := range p.Tags {
				attributes = append(attributes, stringAttribute(t.Key, t.Value))
			}
			for _, f := range p.Fields {
				g := metrics[f.Key]
				if g == nil {
					g = &metricspb.Gauge{}
					metrics[f.Key] = g
					scope.Metrics = append(scope.Metrics, &metricspb.Metric{Name: p.Name + "_" + f.Key, Data: &metricspb.Metric_Gauge{Gauge: g}})
				}
				g.DataPoints = append(g.DataPoints, &metricspb.NumberDataPoint{
					Attributes: attributes, TimeUnixNano: atNano, Value: &metricspb.NumberDataPoint_AsInt{AsInt: f.Value.AsInt()},
				})
			}
		}
		if _, err := proto.Marshal(&metricspb.MetricsData{ResourceMetrics: []*metricspb.ResourceMetrics{{ScopeMetrics: []*metricspb.ScopeMetrics{scope}}}}); err != nil {
			b.Fatal(err)
		}
	}
}
